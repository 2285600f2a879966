"""Datasets in their usual formats: annotation files and class folders become samples with the model's class numbers.

Nothing is hidden: a video that is listed but missing, present but not listed, or without a label is among the problems
of a `Dataset`. No video ever replaces another.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from timesformer_cli.checkpoints import labels as label_files
from timesformer_cli.datasets.classes import own_classes, without_empty
from timesformer_cli.datasets.formats import DatasetFormat
from timesformer_cli.datasets.layout import Source, of_split, read_file, read_folder, read_stored, splits
from timesformer_cli.datasets.lists import annotation_files
from timesformer_cli.datasets.matching import Classes, MatchedBy, Matching, match, quoted
from timesformer_cli.datasets.reading import nothing
from timesformer_cli.datasets.tables import is_corrections
from timesformer_cli.errors import InputError, TimesformerError, UsageError
from timesformer_cli.files import checksum
from timesformer_cli.flow import WHOLE, Item, Part, key_of
from timesformer_cli.text import stretch
from timesformer_cli.video.addresses import shown

__all__ = ["Dataset", "DatasetFormat", "Problem", "ProblemKind", "Sample", "by_kind", "open_dataset", "splits_of"]

# `missing`: a row without its video. `ambiguous`: a row that could mean several videos. `unlabelled`: a row without a
# label. `duplicate`: a row whose video, or the same part of it, is in an earlier row, with the same labels. `conflict`:
# the same with different labels; neither row counts. `unlisted`: a video without a row. `unknown`: a row of a
# class that is not among the given ones, if that was asked for.
ProblemKind = Literal["missing", "ambiguous", "unlabelled", "duplicate", "conflict", "unlisted", "unknown"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A video, and its class numbers: one, or any number in a dataset with several labels.

    `line` is the line in the annotation file; 0 if there is no file. `source`, `start` and `end` are as for `Item`.
    `about` has the cells that are not empty of the columns group, source, site, subject, camera, video_id, and of the
    one that was asked for, by the names of the columns.
    """

    path: str
    labels: tuple[int, ...]
    line: int
    source: str = field(default="", repr=False)
    start: float | None = None
    end: float | None = None
    about: Mapping[str, str] = field(default_factory=nothing, hash=False)

    @property
    def part(self) -> Part:
        return self.start, self.end

    @property
    def key(self) -> str:
        """Equal for equal parts of the same video; see `flow.key_of`."""
        return key_of(self.path, self.part)

    def item(self, *, frames: bool) -> Item:
        """The video to read; `frames`: a folder of images."""
        return Item(self.path, frames, self.source, self.start, self.end)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with a row or a video: `place` is a file with a line number, or the path of the video."""

    kind: ProblemKind
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def by_kind(problems: Iterable[Problem]) -> dict[ProblemKind, list[Problem]]:
    """The problems of each kind, in the order in which the kinds appear."""
    found: dict[ProblemKind, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.kind, []).append(problem)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The samples of one split, in the order of the annotation file or, without one, of their paths.

    `rows` counts the rows of the split that have a chosen class, before `limit`, with or without a video; rows with an
    `unknown` one too. `names` are the names of all classes, by their numbers. `classes` has the dataset's own text for
    each class number that it uses, and `matched_by` says how the numbers were found: if the classes are the dataset's
    own, `index` means that their names are numbers, as nothing names them. `checksum` is the sha256 of the annotation
    file, in hex. `multi_label` is whether any sample, before `limit`, has several labels or none.
    """

    format: DatasetFormat
    annotations: Path | None
    checksum: str | None
    split: str | None
    rows: int
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
    names: tuple[str, ...]
    classes: Mapping[int, str]
    matched_by: MatchedBy
    multi_label: bool


def open_dataset(
    root: Path | None,
    annotations: Path | None,
    *,
    format: DatasetFormat | Literal["auto"] = "auto",
    split: str | None = None,
    labels: Sequence[str] | None,
    label_map: Path | None = None,
    frames: bool = False,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    group_column: str | None = None,
    leave_out_unknown: bool = False,
    stored: Sequence[str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> Dataset:
    """The videos of a dataset, with their labels as class numbers of the model, whose class names are `labels`.

    If `labels` is None, the classes are those of the dataset that have videos: in natural order, or as `classes` lists
    them. Otherwise `classes` are the classes to keep, and with `leave_out_unknown` a class that the model lacks is a
    problem of each of its rows instead of an error.

    `root` is the folder of the videos or, with `frames`, of folders of images. Without `annotations`, the labels come
    from its class folders or its metadata file. Without `root`, paths in `annotations` are relative to its folder, or
    to the current one. `label_map` is a file with the class names for the numbers of the dataset. `limit` is the number
    of samples: the first ones, or with `seed` a random choice. `group_column` is a further column for `Sample.about`.
    `stored` are the paths of the videos that `root` has if it is a file; then `annotations` are needed, rows name their
    videos as they do with a folder, and the videos need not exist. `groups` are as for `match`.

    Raises:
        UsageError: options that cannot be combined, an unknown class in `classes`, or a label that no group has.
        InputError: files that cannot be read or understood, labels that the model does not have, classes that cannot be
            told apart or have no video, a single class, or no video at all.
    """
    _check(None if stored is not None else root, annotations, format, limit, seed)
    source = _source(root, annotations, format, split, stored, frames=frames, group_column=group_column)
    taken, split = of_split(source, split)
    matching, chosen = _matched(source, taken, labels, label_map, classes, groups, partly=leave_out_unknown)
    samples, problems, count = _gather(source, taken, matching.indices, chosen, tell_unknown=leave_out_unknown)
    if not samples:
        raise _nothing(source, count, problems, classes or ())
    if labels is None:
        matching, samples = _with_videos(source.name, matching, samples, asked=classes is not None)
    problems += [Problem("unlisted", path, "no row has this video") for path in source.unlisted()]
    multi_label = any(len(sample.labels) != 1 for sample in samples)
    samples = _limited(samples, limit, seed)
    return Dataset(
        format=source.format,
        annotations=source.file,
        checksum=None if source.file is None else checksum(annotation_files(source.file)),
        split=split,
        rows=count,
        samples=tuple(samples),
        problems=tuple(problems),
        names=matching.classes.names,
        classes=_used(matching, samples),
        matched_by=matching.by,
        multi_label=multi_label,
    )


def _used(matching: Matching, samples: Sequence[Sample]) -> dict[int, str]:
    """The dataset's own text for each class number that samples have."""
    used = {label for sample in samples for label in sample.labels}
    return {index: text for index, text in sorted(matching.own.items()) if index in used}


def splits_of(
    root: Path | None,
    annotations: Path | None,
    *,
    format: DatasetFormat | Literal["auto"] = "auto",
    frames: bool = False,
) -> tuple[str, ...]:
    """The splits that `open_dataset` can choose from: train, val and test first. Empty if the dataset has none.

    They are those of a column, of folders, or of the lists of HMDB51, whose names end in a number. No videos are
    listed, but the annotations are read.

    Raises:
        UsageError, InputError: as `open_dataset`.
    """
    _check(root, annotations, format, None, None)
    return splits(root, annotations, format, frames=frames)


def _source(
    root: Path | None,
    annotations: Path | None,
    format: DatasetFormat | Literal["auto"],
    split: str | None,
    stored: Sequence[str] | None,
    *,
    frames: bool,
    group_column: str | None,
) -> Source:
    if annotations is not None and stored is not None:
        return read_stored(str(root), stored, annotations, format, frames=frames, group_column=group_column)
    if annotations is not None:
        return read_file(root, annotations, format, split, frames=frames, group_column=group_column)
    assert root is not None
    return read_folder(root, format, split, frames=frames, group_column=group_column)


def _matched(
    source: Source,
    taken: frozenset[str | None],
    labels: Sequence[str] | None,
    label_map: Path | None,
    classes: Sequence[str] | None,
    groups: Mapping[str, str] | None,
    *,
    partly: bool,
) -> tuple[Matching, frozenset[int] | None]:
    """The class numbers of the labels in the splits `taken`, and those of the classes to keep, None for all."""
    rows = [row for row in source.rows if row.split in taken]
    if not rows:
        raise InputError(f"{source.name}: lists no videos")
    if not any(row.labels for row in rows):
        hint = "" if labels is None else "; to label them, use `timesformer predict`"
        raise InputError(f"{source.name}: none of its videos has a label{hint}")
    names = None if label_map is None else label_files.read_file(label_map)
    if labels is None:
        return own_classes(rows, names, classes), None
    matching = match(rows, labels, names, partly=partly or classes is not None, groups=groups)
    return matching, None if classes is None else _chosen(classes, matching.classes)


def _with_videos(name: str, matching: Matching, samples: list[Sample], *, asked: bool) -> tuple[Matching, list[Sample]]:
    """The matching, and the samples, with numbers for only those classes that samples have."""
    counts = Counter(label for sample in samples for label in sample.labels)
    numbers = without_empty(name, counts, matching.classes.names, asked=asked)
    if len(numbers) == len(matching.classes.names):
        return matching, samples
    classes = Classes([matching.classes.names[index] for index in numbers])
    indices = {text: numbers[index] for text, index in matching.indices.items() if index in numbers}
    matching = Matching(indices, matching.by, dict(enumerate(classes.names)), classes)
    return matching, [replace(each, labels=tuple(numbers[label] for label in each.labels)) for each in samples]


def _check(root: Path | None, annotations: Path | None, format: str, limit: int | None, seed: int | None) -> None:
    """Raises UsageError for settings that cannot be combined, and InputError for a folder that does not exist."""
    if annotations is None and root is None:
        raise UsageError("a dataset needs the folder of its videos, or `annotations=FILE`, or both")
    if limit is not None and limit < 1:
        raise UsageError(f"`limit` is {limit}; at least one video is needed")
    if seed is not None and limit is None:
        raise UsageError("`seed` chooses which videos `limit` takes; give `limit=N` too")
    if format not in ("auto", *get_args(DatasetFormat)):
        raise UsageError(f"`annotations_format={format}`: not one of auto, {', '.join(get_args(DatasetFormat))}")
    if root is not None and not os.path.isdir(root):
        raise InputError(f"{root}: no such folder; the videos of the dataset were expected there")


def _chosen(names: Sequence[str], classes: Classes) -> frozenset[int]:
    chosen = {name: classes.index(name) for name in names}
    for name, index in chosen.items():
        if index is None:
            near = classes.near(name)
            hint = f"did you mean {near!r}?" if near else f"it has {quoted(classes.names)}"
            raise UsageError(f"`classes`: {name!r} is not a class of the model; {hint}")
    return frozenset(index for index in chosen.values() if index is not None)


def _limited(samples: list[Sample], limit: int | None, seed: int | None) -> list[Sample]:
    if limit is None or limit >= len(samples):
        return samples
    kept = range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(samples)), limit))
    return [samples[place] for place in kept]


def _gather(
    source: Source,
    taken: frozenset[str | None],
    indices: Mapping[str, int],
    chosen: frozenset[int] | None,
    *,
    tell_unknown: bool,
) -> tuple[list[Sample], list[Problem], int]:
    """Samples, problems, and the number of rows of the splits `taken` that have a chosen class.

    With `tell_unknown`, rows whose labels are all unknown are problems, and counted.
    """
    samples: dict[str, Sample] = {}
    problems: list[Problem] = []
    conflicts: set[str] = set()
    known: dict[tuple[str, ...], tuple[int, ...]] = {}
    count = 0
    for row in source.rows:
        paths = source.find(row.name)  # for all rows, so that no video of another split seems unlisted
        if row.split not in taken:
            continue
        if row.labels not in known:
            found = dict.fromkeys(indices[label] for label in row.labels if label in indices)
            known[row.labels] = tuple(index for index in found if chosen is None or index in chosen)
        labels = known[row.labels]
        unknown = tell_unknown and not any(label in indices for label in row.labels)
        if row.labels and not labels and not unknown:
            continue
        count += 1
        kind: ProblemKind
        if row.labels and not labels:
            kind, message = "unknown", f"has the class {row.labels[0]!r}, which the training part lacks; left out"
        elif not row.labels:
            kind, message = "unlabelled", "has no label"
        elif not paths:
            kind, message = "missing", source.absent
        elif len(paths) > 1:
            kind, message = "ambiguous", f"could be {' or '.join(paths)}"
        elif (before := samples.get(key := key_of(path := shown(paths[0]), row.part))) is None:
            samples[key] = Sample(path, labels, row.line, "" if path == paths[0] else paths[0], *row.part, row.about)
            continue
        elif set(before.labels) == set(labels):
            kind, message = "duplicate", f"is already in line {before.line}"
        else:
            kind, message = "conflict", f"has a different label in line {before.line}; neither counts"
            conflicts.add(key)
        part = "" if row.part == WHOLE else f" ({stretch(*row.part)})"
        problems.append(Problem(kind, row.place, f"{shown(row.name)!r}{part} {message}"))
    return [sample for key, sample in samples.items() if key not in conflicts], problems, count


def _nothing(source: Source, count: int, problems: Sequence[Problem], classes: Sequence[str]) -> TimesformerError:
    if count and source.file is not None and is_corrections(source.file):
        absent = [problem for problem in problems if problem.kind == "missing"]
        if absent and all(problem.kind in ("missing", "unlabelled") for problem in problems):
            return UsageError(
                f"{source.name}: these are corrections of other videos: none of the {len(absent)} is there, the first: "
                f"{absent[0]}; go to the folder where they were labelled, or name the folder of the videos"
            )
    if not count:
        return InputError(f"{source.name}: no video of the classes {quoted(classes)}")
    hint = ""
    if problems[0].kind == "missing":
        hint = "; name the folder of the videos too"
        if source.listing is not None:
            there = source.listing.paths
            has = f"different ones, such as {there[0]!r}" if there else "no videos at all"
            hint = f"; {source.listing.name} has {has}"
    return InputError(f"{source.name}: none of its {count} videos can be used; the first: {problems[0]}{hint}")
