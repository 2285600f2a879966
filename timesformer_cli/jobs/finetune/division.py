"""Which videos train, and which measure: no group of videos from one source does both."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.datasets import Sample
from timesformer_cli.datasets.matching import quoted
from timesformer_cli.errors import InputError
from timesformer_cli.jobs.finetune import groups, split
from timesformer_cli.jobs.finetune.data import Asked
from timesformer_cli.jobs.finetune.groups import Grouping
from timesformer_cli.text import plural
from timesformer_cli.video.hashes import look_alikes

# How a model is measured. given: on videos that the user gave for it; held out: on a part of the videos; crossed: on
# all videos, each by a head that was fitted without its group.
How = Literal["given", "held out", "crossed"]

# With fewer videos, or fewer of a class, none are held out.
_FEW, _FEW_OF_A_CLASS = 100, 10


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Division:
    """The parts of the N videos, by their numbers.

    `train` int64 are those that the head is fitted to, and `measured` int64 those that it is measured on: the same
    ones if `how` is crossed. `folds` int64 (len(train),) are the folds of `train`, of which none shares a group with
    another. `notes` are lines about the groups and the parts.
    """

    how: How
    grouping: Grouping
    train: NDArray[np.int64]
    measured: NDArray[np.int64]
    folds: NDArray[np.int64]
    notes: tuple[str, ...]

    @property
    def groups(self) -> NDArray[np.int64]:
        """The number of the group of each video, int64 (N,)."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.grouping.groups))}
        return np.array([numbers[name] for name in self.grouping.groups], np.int64)

    def lines(self) -> list[str]:
        """What a terminal shows."""
        return [*self.grouping.lines(), *self.notes, self._summary()]

    def _summary(self) -> str:
        train, measured = plural(len(self.train), "video"), plural(len(self.measured), "video")
        if self.how == "crossed":
            return f"split: training on all {train}; measured on them by cross-validation, {self.folds.max() + 1} times"
        return (
            f"split: training on {train}, measured on {measured} {'given for it' if self.how == 'given' else self.how}"
        )

    @property
    def parts(self) -> list[str]:
        """Of each video `train` or `val`, and `train` if it does both; empty for one that does neither."""
        parts = np.full(len(self.grouping.groups), "", dtype="U5")
        parts[self.measured] = "val"
        parts[self.train] = "train"
        found: list[str] = parts.tolist()
        return found


def divide(
    samples: Sequence[Sample],
    given: NDArray[np.bool_],
    names: Sequence[str],
    asked: Asked,
    hashes: Sequence[NDArray[np.uint64]] = (),
    *,
    copies: Iterable[tuple[int, int]] | None = None,
    hold_out: bool = False,
) -> Division:
    """Group N videos by source, and divide them.

    `given` bool (N,) are those that were given for validation, `names` those of the classes. `hashes` of the frames of
    each video, if they are known, also group those that look alike. `copies` are pairs of videos with the same content;
    if they are None, the files are compared. With `hold_out`, some are held out for validation even if they are few.

    Raises:
        UsageError: an impossible way to group them.
        InputError: the same file was given for training and for validation, or nothing is left to measure on; or with
            `strict`, classes that cannot be measured.
    """
    paths, labels = [sample.path for sample in samples], [sample.labels for sample in samples]
    about = [sample.about for sample in samples]
    grouping = groups.group(paths, labels, about, by=asked.group_by, classes=names)
    if asked.group_by != "none":
        same = groups.same_content(paths) if copies is None else copies
        grouping = groups.join(grouping, paths, same, look_alikes(hashes))
    if given.any():
        how: How = "given"
        notes = _check_given(paths, given, grouping, asked)
        val = given
    elif not hold_out and _few(labels, len(names)):
        how, notes, val = "crossed", [], np.zeros(len(labels), np.bool_)
    else:
        how, notes = "held out", []
        val = split.split(grouping.groups, labels, part=asked.val_part, seed=asked.seed)
    notes += _alone(names, labels, grouping.groups, val, asked)
    train = ~val
    if asked.shots is not None:
        keys = [sample.key for sample in samples]
        train = split.shots(asked.shots, keys, grouping.groups, labels, train, seed=asked.seed)
    places = np.flatnonzero(train)
    measured = places if how == "crossed" else np.flatnonzero(val)
    if not len(measured):
        raise InputError("no video is left to measure on; raise `val_part`, or give videos with `val`")
    folds = split.folds(
        [grouping.groups[place] for place in places], [labels[place] for place in places], seed=asked.seed
    )
    return Division(how=how, grouping=grouping, train=places, measured=measured, folds=folds, notes=tuple(notes))


def _few(labels: Sequence[tuple[int, ...]], classes: int) -> bool:
    """Whether there are too few videos to hold some out."""
    counts = Counter(number for numbers in labels for number in numbers)
    return len(labels) < _FEW or any(counts[number] < _FEW_OF_A_CLASS for number in range(classes))


def _check_given(paths: Sequence[str], given: NDArray[np.bool_], grouping: Grouping, asked: Asked) -> list[str]:
    """Lines about groups on both sides. Raises InputError for files on both sides, unless groups are turned off."""
    found = split.overlap(paths, grouping.groups, given)
    if asked.group_by == "none":
        return []
    if found.files:
        raise InputError(
            f"{plural(len(found.files), 'file')} given both for training and for validation, such as "
            f"{min(found.files)}; the accuracy would be worth nothing (`group_by=none` allows it)"
        )
    return [f"warning: {line}; the accuracy may be too high" for line in found.lines()]


def _alone(
    names: Sequence[str],
    labels: Sequence[tuple[int, ...]],
    groups_of: Sequence[str],
    val: NDArray[np.bool_],
    asked: Asked,
) -> list[str]:
    """A line about classes that are not measured, or are measured by a head that never saw them, if there are any.

    Raises:
        InputError: there are, with `strict`.
    """
    if val.any():
        classes: Sequence[int] = split.absent(labels, val)
        what = "only in training, so they are not measured"
    else:
        of_class: dict[int, set[str]] = {}
        for numbers, group in zip(labels, groups_of, strict=True):
            for number in numbers:
                of_class.setdefault(number, set()).add(group)
        classes = sorted(number for number, found in of_class.items() if len(found) == 1)
        what = "with videos of one group, so the head that measures them never saw their class"
    if not classes:
        return []
    line = f"{len(classes):,} of {len(names):,} classes are {what}: {quoted([names[number] for number in classes])}"
    if asked.strict:
        raise InputError(f"`strict`: {line}")
    return [f"warning: {line}"]
