"""Which videos train and which validate: whole groups, with about the same share of each class.

Nothing here depends on the order of the videos: chance is a function of the seed and of the names of groups.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.text import plural

_TRAIN, _VAL = 0, 1


def split(
    groups: Sequence[str], labels: Sequence[tuple[int, ...]], *, part: float = 0.2, seed: int = 0
) -> NDArray[np.bool_]:
    """Which videos validate, bool (V,): about `part` of each class and of all, and no group on both sides.

    A class with a single group only trains. Any other class is on both sides, unless groups hold several classes and
    leave no way. Of groups that differ in size, the small ones validate.
    """
    deal = _Deal(groups, labels, (1 - part, part), seed)
    for holders in deal.of_class.values():
        if len(holders) == 1:
            deal.give(holders[0], _TRAIN)
    deal.give_all()
    deal.complete()
    return np.array([deal.sides[name] == _VAL for name in groups], np.bool_)


def folds(
    groups: Sequence[str], labels: Sequence[tuple[int, ...]], *, most: int = 5, seed: int = 0
) -> NDArray[np.int64]:
    """The fold that holds each video out, int64 (V,): as many folds as groups, at most `most`.

    No group is in two folds. Each class is spread over as many folds as it has groups. A single group is in fold 0.
    """
    count = max(min(most, len(set(groups))), 1)
    deal = _Deal(groups, labels, (1 / count,) * count, seed)
    deal.give_all()
    return np.array([deal.sides[name] for name in groups], np.int64)


def shots(
    count: int,
    keys: Sequence[str],
    groups: Sequence[str],
    labels: Sequence[tuple[int, ...]],
    among: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """`count` videos of each class, or all if it has fewer, of those `among` bool (V,): bool (V,).

    They are of as many groups as possible. `keys` name the videos, each by its own name. A video with several labels
    counts for each of them.
    """
    taken = np.zeros(len(keys), np.bool_)
    members = defaultdict(list)
    for video in np.nonzero(among)[0].tolist():
        for label in labels[video]:
            members[label].append(video)
    for _, videos in sorted(members.items(), key=lambda item: (len(item[1]), item[0])):
        missing = count - int(taken[videos].sum())
        of_group = Counter(groups[video] for video in videos if taken[video])
        # Each group gives one video, by chance, before any gives a second.
        rounds = []
        for video in sorted((video for video in videos if not taken[video]), key=lambda one: _chance(seed, keys[one])):
            rounds.append((of_group[groups[video]], _chance(seed, groups[video]), video))
            of_group[groups[video]] += 1
        for *_, video in sorted(rounds)[: max(missing, 0)]:
            taken[video] = True
    return taken


def _chance(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()


class _Deal:
    """Groups as they are dealt to sides, each of which should get its share of every class and of all videos.

    This is iterative stratification (Sechidis and others, 2011), of groups instead of samples: the rarest class first,
    each of its groups, from the largest, to the side that lacks most of the class.
    """

    def __init__(
        self, groups: Sequence[str], labels: Sequence[tuple[int, ...]], shares: Sequence[float], seed: int
    ) -> None:
        self.sides: dict[str, int] = {}
        self._shares = shares
        self._sizes = Counter(groups)
        self._contents: dict[str, Counter[int]] = {name: Counter() for name in self._sizes}
        for name, numbers in zip(groups, labels, strict=True):
            self._contents[name].update(numbers)
        names = sorted(self._sizes, key=lambda name: (_chance(seed, name), name))
        # For each class, the groups that hold it; the classes with the fewest groups first.
        holders = defaultdict(list)
        for name in names:
            for number in self._contents[name]:
                holders[number].append(name)
        self.of_class: Mapping[int, list[str]] = dict(
            sorted(holders.items(), key=lambda item: (len(item[1]), self._videos(item[1], item[0]), item[0]))
        )
        self._names = names
        # What each side holds: groups and videos of each class, and videos.
        self._groups_of = [Counter[int]() for _ in shares]
        self._videos_of = [Counter[int]() for _ in shares]
        self._held = [0] * len(shares)

    def _videos(self, names: Sequence[str], number: int) -> int:
        return sum(self._contents[name][number] for name in names)

    def give(self, name: str, side: int) -> None:
        """Put a group on a side, perhaps from another one."""
        last = self.sides.get(name)
        for at, sign in ((last, -1), (side, 1)):
            if at is not None:
                for number, videos in self._contents[name].items():
                    self._groups_of[at][number] += sign
                    self._videos_of[at][number] += sign * videos
                self._held[at] += sign * self._sizes[name]
        self.sides[name] = side

    def give_all(self) -> None:
        """Deal the groups that are left."""
        for number in self.of_class:
            self._give_class(number)
        for name in sorted(self._names, key=lambda name: -self._sizes[name]):  # those without a label
            if name not in self.sides:
                self.give(name, max(range(len(self._shares)), key=self._lag))

    def _give_class(self, number: int) -> None:
        left = [name for name in self.of_class[number] if name not in self.sides]
        left.sort(key=lambda name: -self._contents[name][number])
        if not left:
            return
        whole = self._videos(self.of_class[number], number)
        # What rounding gave one side too much in other classes, it gets less of this one: by half a group at most.
        most = self._videos(left, number) / len(left) / 2
        sides = range(len(self._shares))
        wanted = [whole * self._shares[side] + min(max(self._lag(side), -most), most) for side in sides]
        for position, name in enumerate(left):
            lacking = [side for side in sides if not self._groups_of[side][number]]
            choice = lacking if len(lacking) >= len(left) - position else sides
            lags = {side: (wanted[side] - self._videos_of[side][number], self._lag(side)) for side in choice}
            self.give(name, max(choice, key=lags.__getitem__))

    def _lag(self, side: int) -> float:
        """The number of videos by which a side is behind its share of those that are dealt."""
        return sum(self._held) * self._shares[side] - self._held[side]

    def complete(self) -> None:
        """Bring classes to sides that lack them, by moving small groups that no class there needs."""
        for number, names in self.of_class.items():
            for side, other in ((_TRAIN, _VAL), (_VAL, _TRAIN)):
                if self._groups_of[side][number] or len(names) == 1:
                    continue
                movable = [
                    name
                    for name in names
                    if self.sides[name] == other
                    and all(self._groups_of[other][each] > 1 for each in self._contents[name])
                ]
                if movable:
                    self.give(min(movable, key=self._sizes.__getitem__), side)


def absent(labels: Sequence[tuple[int, ...]], side: NDArray[np.bool_]) -> tuple[int, ...]:
    """The classes of all videos that none of those on a side, bool (V,), has."""
    present = {number for numbers, inside in zip(labels, side.tolist(), strict=True) if inside for number in numbers}
    return tuple(sorted({number for numbers in labels for number in numbers} - present))


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a split that is given has on both sides: files, and groups; each with an example of a video on either side.

    A file that is on both sides is not counted among the groups again.
    """

    files: Mapping[str, tuple[str, str]]
    groups: Mapping[str, tuple[str, str]]

    def lines(self) -> list[str]:
        """What a terminal shows; nothing if the sides share nothing."""
        lines = []
        if self.files:
            lines.append(f"{plural(len(self.files), 'file')} in training and validation: {min(self.files)}")
        if self.groups:
            name = min(self.groups)
            pair = " and ".join(PurePath(path).name for path in self.groups[name])
            lines.append(f"{plural(len(self.groups), 'group')} in training and validation: {name} has {pair}")
        return lines


def overlap(paths: Sequence[str], groups: Sequence[str], val: NDArray[np.bool_]) -> Overlap:
    """What videos with these paths and groups have in both parts; `val` is bool (V,)."""
    files = _on_both(paths, paths, val)
    return Overlap(files, _on_both(groups, paths, val, files))


def _on_both(
    names: Sequence[str], paths: Sequence[str], val: NDArray[np.bool_], without: Mapping[str, object] = {}
) -> dict[str, tuple[str, str]]:
    """The names that are on both sides, with the first path of each side."""
    first: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for name, path, side in zip(names, paths, val.tolist(), strict=True):
        if path not in without:
            first[side][name] = min(first[side].get(name, path), path)
    return {name: (first[_TRAIN][name], first[_VAL][name]) for name in sorted(first[_TRAIN]) if name in first[_VAL]}
