"""Which videos are copies of which, and which of them to keep."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.jobs.dedup.alignment import Stretch, align
from timesformer_cli.jobs.dedup.candidates import Candidate, candidates
from timesformer_cli.pipeline.fingerprinted import Fingerprinted
from timesformer_cli.video.fingerprints import RATE, mirrored, told

# What `other` is: as long as `path`; a part of it; longer, with `path` as a part; or with only a stretch in common.
Kind = Literal["copy", "part", "longer", "overlap"]

COLUMNS = (
    *("path", "start", "end", "other", "other_start", "other_end", "similarity", "group", "reason"),
    "kind",
)

# A video is in another one if this share of its frames that show something is in the stretch.
_COVERED = 0.9

# Seconds, and the share of the longer video, by which videos may differ and still be equally long.
_ABOUT = 1.0
_ABOUT_SHARE = 0.05

# About one frame, in seconds: containers round their times. And the share of an area to which bars can be told.
_FRAME = 0.05
_SAME_AREA = 0.95

# A stretch as long in the mirror image must be this much more alike.
_MIRROR_MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Settings:
    """`seconds` is the least stretch that videos must share, `threshold` how alike it must be, from 0 to 1."""

    seconds: float = 3.0
    threshold: float = 0.68


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two videos by their numbers, the smaller first, and what they share; of the second's mirror image if `flip`."""

    first: int
    second: int
    flip: bool
    stretch: Stretch


@dataclass(frozen=True, slots=True)
class Copy:
    """A row of the result: what `other` has in common with `path`, the video to keep. Times are seconds."""

    path: str
    start: float
    end: float
    other: str
    other_start: float
    other_end: float
    similarity: float
    group: int
    reason: str
    kind: Kind

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COLUMNS}


def find_pairs(
    videos: Sequence[Fingerprinted], settings: Settings, sides: NDArray[np.bool_] | None = None
) -> Iterator[Pair]:
    """All pairs that are found to share a stretch; with `sides` bool (V,), only those of different sides."""
    least = max(round(settings.seconds * RATE), 1)
    found: dict[tuple[int, int], Pair] = {}
    for each in candidates([video.prints for video in videos], sides):
        pair = _pair(videos, each, settings.threshold, least)
        before = found.get((each.first, each.second))
        if pair is not None and (before is None or _weight(pair) > _weight(before)):
            found[each.first, each.second] = pair
    for place in sorted(found):
        yield found[place]


def _pair(videos: Sequence[Fingerprinted], candidate: Candidate, threshold: float, least: int) -> Pair | None:
    first, second = videos[candidate.first].prints, videos[candidate.second].prints
    if candidate.mirrored:
        second = mirrored(second)
    # Most copies begin or end together, and where nothing moves, no frame hints at a shift.
    shifts = {0, len(second) - len(first), *candidate.shifts}
    stretches = [align(first, second, shift, threshold=threshold, least=least) for shift in sorted(shifts)]
    pairs = [Pair(*candidate[:3], stretch) for stretch in stretches if stretch is not None]
    return max(pairs, key=_weight, default=None)


def _weight(pair: Pair) -> float:
    return pair.stretch.length * (pair.stretch.similarity - _MIRROR_MARGIN * pair.flip)


def copies(videos: Sequence[Fingerprinted], pairs: Sequence[Pair]) -> list[Copy]:
    """One row for each copy in each group of videos that are linked by pairs, in the order of the videos.

    Of a group, the video to keep is found first, then what it holds; then the same among the rest of the group. A
    video of which only a stretch is elsewhere is no copy, and has a row that says so.
    """
    linked: dict[int, dict[int, Pair]] = {}
    for pair in pairs:
        linked.setdefault(pair.first, {})[pair.second] = pair
        linked.setdefault(pair.second, {})[pair.first] = pair
    rows: list[Copy] = []
    for number, members in enumerate(components(linked), 1):
        kept: list[int] = []
        left = set(members)
        while left:
            keep = _to_keep(videos, left)
            inside = [each for each in sorted(left & linked[keep].keys()) if _holds(videos, keep, each, linked)]
            rows += [_row(videos, keep, each, linked[keep][each], number) for each in inside]
            overlaps = [each for each in kept if each in linked[keep]]
            if overlaps:
                most = max(overlaps, key=lambda each: linked[keep][each].stretch.length)
                rows.append(_row(videos, most, keep, linked[keep][most], number))
            kept.append(keep)
            left -= {keep, *inside}
    return rows


def shared(videos: Sequence[Fingerprinted], pairs: Sequence[Pair], sides: NDArray[np.bool_]) -> list[Copy]:
    """A row for each pair: `path` is of the side False, `other` of the side True."""
    linked: dict[int, dict[int, Pair]] = {}
    for pair in pairs:
        linked.setdefault(pair.first, {})[pair.second] = pair
        linked.setdefault(pair.second, {})[pair.first] = pair
    return [
        _row(videos, ours, theirs, linked[ours][theirs], number, reason="in both")
        for number, members in enumerate(components(linked), 1)
        for ours in members
        if not sides[ours]
        for theirs in sorted(linked[ours])
    ]


def components(linked: dict[int, dict[int, Pair]]) -> list[list[int]]:
    """The groups, each sorted, in the order of their first members."""
    groups: list[list[int]] = []
    seen: set[int] = set()
    for start in sorted(linked):
        if start in seen:
            continue
        seen.add(start)
        members, waiting = [], [start]
        while waiting:
            members.append(at := waiting.pop())
            new = linked[at].keys() - seen
            seen |= new
            waiting += new
        groups.append(sorted(members))
    return groups


def _to_keep(videos: Sequence[Fingerprinted], numbers: set[int]) -> int:
    """Of those that are about as long as the longest, the one with the largest frames, then the longest, the first."""
    left = sorted(numbers)
    longest = max(videos[each].duration for each in left)
    left = [each for each in left if longest - videos[each].duration <= _about(longest)]
    largest = max(_area(videos[each]) for each in left)
    left = [each for each in left if not _is_smaller(_area(videos[each]), largest)]
    longest = max(videos[each].duration for each in left)
    return next(each for each in left if longest - videos[each].duration <= _FRAME)


def _about(longest: float) -> float:
    return max(_ABOUT, _ABOUT_SHARE * longest)


def _area(video: Fingerprinted) -> float:
    """Pixels, without bars."""
    return video.width * video.height * video.shown


def _is_smaller(area: float, other: float) -> bool:
    return area < _SAME_AREA * other


def _frames_of(pair: Pair, number: int) -> slice:
    """The frames of one of the two videos in the stretch."""
    shift = 0 if number == pair.first else pair.stretch.shift
    return slice(pair.stretch.start + shift, pair.stretch.end + shift)


def _is_covered(video: Fingerprinted, frames: slice) -> bool:
    shown = told(video.prints)
    return int(shown[frames].sum()) >= _COVERED * int(shown.sum())


def _holds(videos: Sequence[Fingerprinted], keep: int, other: int, linked: dict[int, dict[int, Pair]]) -> bool:
    return _is_covered(videos[other], _frames_of(linked[keep][other], other))


def _row(
    videos: Sequence[Fingerprinted], keep: int, other: int, pair: Pair, group: int, *, reason: str | None = None
) -> Copy:
    ours, theirs = _frames_of(pair, keep), _frames_of(pair, other)
    inside, around = _is_covered(videos[other], theirs), _is_covered(videos[keep], ours)
    kind: Kind = ("copy" if around else "part") if inside else ("longer" if around else "overlap")
    remarks = [reason or _reason(videos[keep], videos[other], kind)]
    remarks += ["mirrored"] if pair.flip else []
    remarks += ["static"] if pair.stretch.still else []
    return Copy(
        videos[keep].item.path,
        *_times(videos[keep], ours),
        videos[other].item.path,
        *_times(videos[other], theirs),
        round(pair.stretch.similarity, 3),
        group,
        "; ".join(remarks),
        kind,
    )


def _times(video: Fingerprinted, frames: slice) -> tuple[float, float]:
    return (
        round(video.start + frames.start / RATE, 3),
        round(video.start + min(frames.stop / RATE, video.duration), 3),
    )


def _reason(keep: Fingerprinted, other: Fingerprinted, kind: Kind) -> str:
    """Why `keep` is kept."""
    if kind == "overlap":
        return "each has more"
    if kind == "part" or keep.duration - other.duration > _about(keep.duration):
        return "longer"
    if _is_smaller(_area(other), _area(keep)):
        return "larger frames"
    return "longer" if keep.duration - other.duration > _FRAME else "named first"
