"""The videos of a training run: those for training and those for validation, as the user gives them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.datasets import Dataset, DatasetFormat, Problem, Sample, open_dataset, splits_of
from timesformer_cli.datasets.tables import split_name
from timesformer_cli.errors import UsageError
from timesformer_cli.evaluation.run import dataset_settings
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.finetune.features import Features

_TRAIN, _VAL, _TEST = "train", "val", "test"

# What `group_by` is besides `auto` and `none`: the name of a column, or else a regular expression.
_COLUMN = re.compile(r"[\w -]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which data, and how it is divided.

    `root` to `frames` are as for `open_dataset`; `root` may be a file of vectors. `split` is that for training. `val`
    is an annotation file, a folder or a split; without it and without a split for validation in the data, `val_part` of
    the training videos are held out.
    `group_by` is auto, none, the name of a column, or a regular expression. `classes` are the names of the classes, in
    order. `shots` is the most videos of each class to train on. With `strict`, problems end the run.
    """

    root: Path | None
    annotations: Path | None = None
    format: DatasetFormat | Literal["auto"] = "auto"
    label_map: Path | None = None
    strict: bool = False
    frames: bool = False
    split: str | None = None
    val: str | None = None
    val_part: float = 0.2
    group_by: str = "auto"
    classes: Sequence[str] | None = None
    shots: int | None = None
    seed: int = 0

    @property
    def paths(self) -> dict[str, str | None]:
        """The files, as settings record them."""
        asked = {"root": self.root, "annotations": self.annotations, "label_map": self.label_map}
        return {name: None if path is None else str(path) for name, path in asked.items()}

    def to_dict(self) -> dict[str, Any]:
        """As settings record it; without what the videos themselves tell."""
        return {
            **self.paths,
            "frames": self.frames,
            "split": self.split,
            "val": self.val,
            "val_part": self.val_part,
            "group_by": self.group_by,
            "classes": None if self.classes is None else list(self.classes),
            "shots": self.shots,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """The videos with labels: first those for training, then those that were given for validation.

    `names` are the classes; the labels of samples are their numbers. `test` is a split that the data has for the last
    measurement. `measured_at` has the `root` and the `annotations` of the videos for validation.
    """

    train: Dataset
    val: Dataset | None
    frames: bool
    test: str | None = None
    measured_at: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return self.train.names

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.train.samples + (self.val.samples if self.val else ())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Those of both parts. What one lists is not `unlisted`, though the other does not list it."""
        if self.val is None:
            return self.train.problems
        parts = [set(part.problems) for part in (self.train, self.val)]
        both = [*self.train.problems, *(problem for problem in self.val.problems if problem not in parts[0])]
        return tuple(
            problem for problem in both if problem.kind != "unlisted" or all(problem in part for part in parts)
        )

    @property
    def multi_label(self) -> bool:
        return self.train.multi_label or (self.val is not None and self.val.multi_label)

    @property
    def items(self) -> list[Item]:
        return [sample.item(frames=self.frames) for sample in self.samples]

    @property
    def given(self) -> NDArray[np.bool_]:
        """Whether each of the samples was given for validation, bool (N,)."""
        return np.arange(len(self.samples)) >= len(self.train.samples)

    @property
    def numbered(self) -> bool:
        """Whether the classes have numbers for names, since the data has no others."""
        return self.train.matched_by == "index"

    def readable(self, found: Sequence[Features | Failure]) -> "Videos":
        """The videos that have features, in the same order."""
        kept = [place for place, each in enumerate(found) if isinstance(each, Features)]
        samples = self.samples
        return Videos(
            names=self.names,
            samples=tuple(samples[place] for place in kept),
            features=tuple(each for each in found if isinstance(each, Features)),
            given=self.given[kept],
            multi_label=self.multi_label,
            failures=tuple(each for each in found if isinstance(each, Failure)),
        )

    def to_dict(self) -> dict[str, Any]:
        """What identifies the videos and their labels, for settings."""
        parts = {_TRAIN: self.train} | ({_VAL: self.val} if self.val else {})
        return {name: dataset_settings(part) for name, part in parts.items()} | {"labels": list(self.names)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Videos:
    """The videos that could be read, N of them, with their features; `failures` are the others.

    `given` bool (N,): whether a video was given for validation.
    """

    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    features: tuple[Features, ...]
    given: NDArray[np.bool_]
    multi_label: bool
    failures: tuple[Failure, ...]

    @cached_property
    def targets(self) -> NDArray[np.int64] | NDArray[np.bool_]:
        """The class of each video, int64 (N,); with any number of labels for each, which it has, bool (N, K)."""
        return targets_of(self.samples, len(self.names), multi_label=self.multi_label)

    def views(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The features of all views of the `chosen` videos, float32 (R, D), and the number of the video of each."""
        rows = [self.features[place].rows for place in chosen.tolist()]
        return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(each) for each in rows])

    @property
    def empty_classes(self) -> list[str]:
        """The classes without a video for training."""
        there = {
            label
            for sample, given in zip(self.samples, self.given, strict=True)
            if not given
            for label in sample.labels
        }
        return [name for number, name in enumerate(self.names) if number not in there]

    @property
    def failures_by_kind(self) -> Counter[str]:
        return Counter(failure.kind for failure in self.failures)


def targets_of(samples: Sequence[Sample], classes: int, *, multi_label: bool) -> NDArray[np.int64] | NDArray[np.bool_]:
    """The class of each video, int64 (N,); with any number of labels for each, which it has, bool (N, K)."""
    if not multi_label:
        return np.array([sample.labels[0] for sample in samples], np.int64)
    found = np.zeros((len(samples), classes), np.bool_)
    for row, sample in zip(found, samples, strict=True):
        row[list(sample.labels)] = True
    return found


def open_data(asked: Asked, stored: Sequence[str] | None = None) -> Data:
    """The videos for training, and those for validation if they are given or the data has a split for them.

    `stored` are the paths of the videos if `asked.root` is a file of vectors.

    Raises:
        UsageError: a split that is not there, or one that may not be read.
        InputError: data that cannot be read or understood, fewer than two classes, or the same problem with `strict`.
    """
    where: dict[str, Any] = {
        "root": asked.root,
        "annotations": asked.annotations,
        "format": asked.format,
        "frames": asked.frames,
    }
    splits = splits_of(**(where if stored is None else {**where, "root": None}))
    where["stored"] = stored
    split = asked.split or (_TRAIN if _TRAIN in splits else None)
    named = asked.group_by not in ("auto", "none") and _COLUMN.fullmatch(asked.group_by)
    column = asked.group_by if named else None
    train = open_dataset(
        **where, split=split, labels=None, label_map=asked.label_map, classes=asked.classes, group_column=column
    )
    test = next((name for name in splits if name.startswith(_TEST)), None)
    val, there = _validation(asked, splits, split, train, where) or (None, where)
    return Data(train, val, asked.frames, test, measured_at=there)


def _validation(
    asked: Asked, splits: Sequence[str], split: str | None, train: Dataset, where: Mapping[str, Any]
) -> tuple[Dataset, Mapping[str, Any]] | None:
    """The videos for validation, and where they are, as `open_dataset` takes it; None if none are given."""
    name = asked.val
    if name is None:
        if _VAL not in splits or split != _TRAIN:
            return None
        name = _VAL
    known: dict[str, Any] = {"labels": train.names, "label_map": asked.label_map, "leave_out_unknown": True}
    if split_name(name) in splits:
        if split_name(name) == split_name(split or ""):
            raise UsageError(f"`val={name}`: the split for training; name another one")
        if split_name(name).startswith(_TEST):
            raise UsageError(
                f"`val={name}`: a test split is for the last measurement, by `timesformer evaluate`, and not read here"
            )
        return open_dataset(**where, split=name, **known), where
    path = Path(name)
    if path.is_dir() and where["stored"] is not None:
        raise UsageError(
            f"`val={name}`: a folder has no vectors; name an annotation file for videos of {asked.root}, or a split"
        )
    if path.is_dir():
        there: Mapping[str, Any] = {"root": path, "annotations": None, "frames": asked.frames}
    elif path.is_file():
        there = {"root": asked.root, "annotations": path, "frames": asked.frames, "stored": where["stored"]}
    else:
        has = f"the dataset has {', '.join(splits)}" if splits else "the dataset has no splits"
        raise UsageError(f"`val={name}`: neither a file or a folder nor a split; {has}")
    return open_dataset(**there, **known), there
