"""Groups of videos that come from one source: training and validation must not share them.

Videos are named by their number. All functions give the same groups for the same videos in any order.
"""

import math
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path, PurePath
from typing import NamedTuple

from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.files import checksum
from timesformer_cli.text import plural
from timesformer_cli.video.addresses import is_address, local_path

# Columns that name a group, in this order.
COLUMNS = ("group", "source", "site", "subject", "camera", "video_id")

# A rule counts only if it gives so many groups.
_LEAST_GROUPS = 5

# Videos that look alike share a group up to the first of these distances, in bits, that keeps the group small enough.
_DISTANCES = (math.inf, 4.0, 2.0, 0.0)

# A group that look-alikes make may have so many videos, or a tenth of all, or twice the largest group before.
_SMALL = 10


@dataclass(frozen=True, slots=True)
class Grouping:
    """The name of the group of each video, and how they were found.

    `rule` says what names the groups, with an `example`; `passed_over` has a line for each rule that was tried before,
    and `joined` one for each reason why groups were joined, or were not.
    """

    groups: tuple[str, ...]
    rule: str
    example: str = ""
    passed_over: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a terminal shows."""
        found = f"{plural(len(set(self.groups)), 'group')} by {self.rule}"
        return [
            f"{found}; {self.example}" if self.example else found,
            *(f"not grouped by {line}" for line in self.passed_over),
            *self.joined,
        ]


class _Video(NamedTuple):
    path: str
    about: Mapping[str, str]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        return PurePath(self.path).stem


class _Rule(NamedTuple):
    """What names the group of a video: `key` gives an empty string for a video that it does not fit.

    A rule that `must_join` says nothing if every video has a group of its own.
    """

    what: str
    key: Callable[[_Video], str]
    must_join: bool = False


def group(
    paths: Sequence[str],
    labels: Sequence[tuple[int, ...]],
    about: Sequence[Mapping[str, str]] = (),
    *,
    by: str = "auto",
    classes: Sequence[str] = (),
) -> Grouping:
    """The groups of videos, from their paths, the numbers of their classes, and the cells of their rows by column.

    `by` is `auto`, the first rule that divides every class; `none`, each file by itself; the name of a column; or a
    regular expression that is searched in each path, whose first group, or else the whole match, names the group.
    Videos that a rule does not fit are groups by themselves. Parts of one file always share a group. `classes` are the
    names of the classes: folders, and parts of names, that only tell the class name no group.

    Raises:
        UsageError: `by` is no column and no regular expression, fits no video, or puts all into one group.
    """
    rows = about or [{}] * len(paths)
    names = [tuple(classes[number] for number in numbers if number < len(classes)) for numbers in labels]
    videos = [_Video(*video) for video in zip(paths, rows, names, strict=True)]
    if by == "none":
        return _by_file(paths, ())
    if by != "auto":
        return _asked(by, videos)
    passed_over: list[str] = []
    for rule in _rules():
        keys = [rule.key(video) for video in videos]
        if not any(keys):
            continue
        groups = _named(keys, paths)
        objection = _objection(rule, keys, groups, paths, labels, classes)
        if objection is None:
            return Grouping(groups, rule.what, _example(paths, keys, groups), tuple(passed_over))
        passed_over.append(f"{rule.what}: {objection}")
    return _by_file(paths, tuple(passed_over))


def _by_file(paths: Sequence[str], passed_over: tuple[str, ...]) -> Grouping:
    return Grouping(tuple(paths), "file, each by itself", "", passed_over)


def _asked(by: str, videos: Sequence[_Video]) -> Grouping:
    columns = {name.casefold(): name for video in videos for name in video.about}
    if by.casefold() in columns:
        rule = _column(columns[by.casefold()])
    else:
        try:
            pattern = re.compile(by)
        except re.error as error:
            raise UsageError(f"groups by {by}: neither a column nor a regular expression ({error})") from error
        rule = _Rule(f"the pattern {by}", lambda video: _found(pattern, PurePath(video.path).as_posix()))
    keys = [rule.key(video) for video in videos]
    paths = [video.path for video in videos]
    groups = _named(keys, paths)
    if videos and not any(keys):
        listed = ", ".join(sorted(columns.values())) or "none"
        raise UsageError(f"groups by {by}: no path matches, and the columns are: {listed}")
    if len(set(paths)) > 1 and len(set(groups)) == 1:
        raise UsageError(
            f"groups by {by}: all videos are in one group, {groups[0]}, which leaves nothing to validate on"
        )
    return Grouping(groups, rule.what, _example(paths, keys, groups))


def _rules() -> Iterator[_Rule]:
    """From the surest to the vaguest."""
    for name in COLUMNS:
        yield _column(name)
    yield _Rule("the group in names of UCF101", lambda video: _found(_UCF101, video.name))
    yield _Rule("the YouTube id in names of Kinetics", lambda video: _found(_KINETICS, video.name))
    yield _Rule("the source in names of HMDB51", _hmdb51)
    yield _Rule("the name without its time span", _without_span, must_join=True)
    yield _Rule("the name without its last number", lambda video: _found(_NUMBERED, video.name), must_join=True)
    yield _Rule("the folder", _folder, must_join=True)


def _column(name: str) -> _Rule:
    def cell(video: _Video) -> str:
        return next((text.strip() for key, text in video.about.items() if key.casefold() == name.casefold()), "")

    return _Rule(f"the column {name}", cell)


_UCF101 = re.compile(r"\Av_(.+_g\d+)_c\d+\Z", re.ASCII)
_KINETICS = re.compile(r"\A([\w-]{11})_\d{6}_\d{6}\Z", re.ASCII)
# Source and class; then the visible part of the body, motion of the camera, people, viewpoint, quality and number.
_HMDB51 = re.compile(r"\A(.+)_[fhlu]_[cn]m_np\d+_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+\Z", re.ASCII)
_SPAN = re.compile(r"\A(.*?)[\s_.\-(\[]+(\d+(?:[.:]\d+)*)s?[\s_\-]+(\d+(?:[.:]\d+)*)s?[)\]]?\Z", re.ASCII)
_NUMBERED = re.compile(r"\A(.*?)[\s_.\-#(\[]*\d+[)\]]?\Z", re.ASCII)


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else (match[1] if pattern.groups else match[0]) or ""


def _hmdb51(video: _Video) -> str:
    """`AmericanGangster` of `AmericanGangster_eat_u_cm_np1_fr_med_0.avi`."""
    source = _found(_HMDB51, video.name)
    for name in (*video.classes, *PurePath(video.path).parts[-2:-1]):
        ending = f"_{_plain(name)}"
        if _plain(source).endswith(ending):
            return source[: -len(ending)]
    return source


def _without_span(video: _Video) -> str:
    match = _SPAN.match(video.name)
    if match is None:
        return ""
    start, end = ([int(part) for part in re.split("[.:]", text)] for text in match.group(2, 3))
    return match[1] if start < end else ""


def _folder(video: _Video) -> str:
    """The folder between that of the class and the file; else the one above the class; without that, the file's own."""
    folders = PurePath(video.path).parts[:-1]
    names = {_plain(name) for name in video.classes}
    place = max((place for place, name in enumerate(folders) if _plain(name) in names), default=None)
    if place is None:
        return folders[-1] if folders else ""
    if place + 1 < len(folders):
        return folders[place + 1]
    return folders[place - 1] if place else ""


def _plain(name: str) -> str:
    """As long as `name`, but without what differs between a class and its name in files."""
    return re.sub(r"[\W_]", "_", name).lower()


def _objection(
    rule: _Rule,
    keys: Sequence[str],
    groups: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[tuple[int, ...]],
    classes: Sequence[str],
) -> str | None:
    """Why a rule does not count, if it does not. What no rule could divide is not held against it."""
    fits, files = sum(map(bool, keys)), len(set(paths))
    if 2 * fits < len(paths):
        return f"fits only {fits:,} of {plural(len(paths), 'video')}"
    count = len(set(groups))
    if rule.must_join and count == files:
        return "no two files share it"
    if count < _LEAST_GROUPS <= files:
        return f"only {plural(count, 'group')}"
    of_class = defaultdict(list)
    for video, numbers in enumerate(labels):
        for number in numbers:
            of_class[number].append(video)
    for number, videos in sorted(of_class.items()):
        if _is_divided([paths[video] for video in videos]) and not _is_divided([groups[video] for video in videos]):
            name = classes[number] if number < len(classes) else number
            return f'more than half of the class "{name}" is in one group'
    return None


def _is_divided(groups: Sequence[str]) -> bool:
    return 2 * max(Counter(groups).values()) <= len(groups)


def _example(paths: Sequence[str], keys: Sequence[str], groups: Sequence[str]) -> str:
    fitting = [(path, name) for path, key, name in zip(paths, keys, groups, strict=True) if key]
    if not fitting:
        return ""
    path, name = min(fitting)
    return f"{PurePath(path).name} is in the group {name}"


def _named(keys: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """Groups of videos that share a key or a path, each with the first name of its videos."""
    forest = _Forest(range(len(paths)))
    first: dict[tuple[str, str], int] = {}
    for video, (key, path) in enumerate(zip(keys, paths, strict=True)):
        forest.join(video, first.setdefault(("path", path), video))
        if key:
            forest.join(video, first.setdefault(("key", key), video))
    return _names(forest.roots(), [key or path for key, path in zip(keys, paths, strict=True)])


def _names(sets: Sequence[Hashable], names: Sequence[str]) -> tuple[str, ...]:
    """For each video the first name in its set."""
    first: dict[Hashable, str] = {}
    for each, name in zip(sets, names, strict=True):
        first[each] = min(first.get(each, name), name)
    return tuple(first[each] for each in sets)


class _Forest:
    """Sets of videos that join: union-find."""

    def __init__(self, parents: Iterable[int]) -> None:
        self._parents = list(parents)

    def root(self, video: int) -> int:
        while self._parents[video] != video:
            self._parents[video] = self._parents[self._parents[video]]
            video = self._parents[video]
        return video

    def roots(self) -> list[int]:
        """Of each video. Those of one set have the same."""
        return [self.root(video) for video in range(len(self._parents))]

    def join(self, one: int, other: int) -> None:
        self._parents[self.root(one)] = self.root(other)


def same_content(paths: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of videos whose files have the same bytes: for each file with copies, the first of them and each other.

    Only files of equal size are read. Addresses, folders, empty files and files that cannot be read are left out.
    """
    of_size = defaultdict(list)
    for path, video in sorted({path: video for video, path in enumerate(paths)}.items()):
        if size := _size(path):
            of_size[size].append(video)
    for videos in of_size.values():
        first: dict[str, int] = {}
        for video in videos if len(videos) > 1 else ():
            try:
                digest = checksum([Path(local_path(paths[video]))])
            except InputError:
                continue
            if first.setdefault(digest, video) != video:
                yield first[digest], video


def _size(path: str) -> int:
    """In bytes; 0 if it is no local file."""
    if is_address(path):
        return 0
    try:
        found = os.stat(local_path(path))
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def join(
    grouping: Grouping,
    paths: Sequence[str],
    same: Iterable[tuple[int, int]] = (),
    alike: Iterable[tuple[int, int, float]] = (),
) -> Grouping:
    """Groups of which no two hold copies: `same` are pairs of videos with the same content, `alike` of look-alikes.

    `alike` has their distances in bits too, as `hashes.look_alikes` gives them. Slides, and what a fixed camera sees,
    look alike by the hundred: if that made a group larger than a tenth of all videos, only nearer ones share it.
    """
    first: dict[str, int] = {}
    by_name = [first.setdefault(name, video) for video, name in enumerate(grouping.groups)]
    forest = _Forest(by_name)
    copies = [(one, other) for one, other in same if by_name[one] != by_name[other]]
    for pair in copies:
        forest.join(*pair)
    by_content = forest.roots()
    by_looks, refused, nearest = _by_looks(by_content, paths, alike)
    lines = [
        *_told(by_name, by_content, "have the same content", [sorted(paths[each] for each in pair) for pair in copies]),
        *_told(by_content, by_looks, "look alike", nearest),
    ]
    if refused:
        lines.append(
            f"{plural(refused, 'video')} look alike, too many for one group: only the nearest of them share one"
        )
    return replace(grouping, groups=_names(by_looks, grouping.groups), joined=tuple(lines))


def _by_looks(
    sets: Sequence[int], paths: Sequence[str], alike: Iterable[tuple[int, int, float]]
) -> tuple[list[Hashable], int, list[list[str]]]:
    """The sets joined as far as they look alike, the number of videos that are too many for that, and the nearest pair.

    Sets only grow with the distance: each video gets the largest that is small enough. The order of the pairs does
    not matter.
    """
    largest = max(_SMALL, len(sets) // 10, 2 * max(Counter(sets).values(), default=0))
    forests = {distance: _Forest(sets) for distance in _DISTANCES}
    nearest: list[tuple[float, list[str], int, int]] = []
    for one, other, bits in alike:
        if sets[one] == sets[other]:
            continue
        nearest = [min([*nearest, (bits, sorted((paths[one], paths[other])), one, other)], key=itemgetter(0, 1))]
        for distance, forest in forests.items():
            if bits <= distance:
                forest.join(one, other)
    found: list[Hashable] = list(sets)
    for distance in reversed(_DISTANCES):
        roots = forests[distance].roots()
        sizes = Counter(roots)
        found = [(distance, root) if sizes[root] <= largest else last for root, last in zip(roots, found, strict=True)]
    refused = sum(sizes[root] > largest for root in roots)
    return found, refused, [pair for _, pair, one, other in nearest if found[one] == found[other]]


def _told(before: Sequence[Hashable], after: Sequence[Hashable], how: str, pairs: list[list[str]]) -> list[str]:
    """A line about the videos whose sets joined, if any did, with the first of these pairs of paths."""
    parts = defaultdict(set)
    for old, new in zip(before, after, strict=True):
        parts[new].add(old)
    count = sum(len(parts[new]) > 1 for new in after)
    if not count:
        return []
    example = [" and ".join(PurePath(path).name for path in pair) for pair in sorted(pairs)[:1]]
    return [": ".join([f"{plural(count, 'video')} of different groups share one, since some of them {how}", *example])]
