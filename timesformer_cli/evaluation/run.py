"""A run on a labelled dataset: its videos, scores and metrics. `folder` keeps it on disk."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints import zoo
from timesformer_cli.checkpoints.recipes import FINE_TUNED, with_overrides
from timesformer_cli.datasets import Dataset
from timesformer_cli.datasets.matching import Classes
from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.evaluation import comparison, metrics
from timesformer_cli.evaluation.metrics import Metrics, Outcomes
from timesformer_cli.evaluation.rows import Chosen, Computed, FileRows, Rows, chunks, packed_length
from timesformer_cli.files import encoded
from timesformer_cli.flow import WHOLE, Part, Prediction, Result, key_of
from timesformer_cli.results.logits import pack, unpack
from timesformer_cli.results.record import Excerpt, Record, head_of, identity, part_of, to_record
from timesformer_cli.results.settings import Combination, Fused, Provenance
from timesformer_cli.shapes import Maybe, Shape, anything, count, each, number, string
from timesformer_cli.shapes import record as shape
from timesformer_cli.specs import Activation, Checkpoint, Combine
from timesformer_cli.text import named

# What the records of a run hold: besides the labels they show, the mean logits of all classes.
EXCERPT = Excerpt(top_k=5, logits=True)

_KINDS = ("logits", "probabilities")


@dataclass(frozen=True, eq=False)
class Run:
    """Videos with known classes, and the scores of a model for each.

    `scores` has `logits`, `probabilities` or both, float32 (N, K): means over the views of the N videos at `paths`.
    They may be in a file, which must not change then.
    `targets` are the class numbers of each video: one, or several if the dataset has several labels per video.
    `failed` are the records of videos without scores. `provenance` has the settings of the run, with `data_set`.
    `parts` are the annotated parts of the N videos; empty if all are whole. `embeddings` are the vectors of the videos,
    float32 (N, D), if all are known; they may be in that file too.
    """

    provenance: Provenance
    paths: tuple[str, ...]
    targets: tuple[tuple[int, ...], ...]
    scores: dict[str, Rows]
    failed: tuple[Record, ...]
    parts: tuple[Part, ...] = ()
    embeddings: Rows | None = None

    @property
    def name(self) -> str:
        return self.provenance.model

    @property
    def labels(self) -> tuple[str, ...]:
        return self.provenance.labels

    @property
    def multi_label(self) -> bool:
        return bool(self.data_set["multi_label"])

    @property
    def data_set(self) -> Mapping[str, Any]:
        """The settings of the dataset, from `dataset_settings` or `score_files.own_dataset_settings`."""
        assert self.provenance.data_set is not None
        return self.provenance.data_set

    @property
    def has_parts(self) -> bool:
        """Whether any video, with or without scores, is only a part of one."""
        return bool(self.parts) or any(part_of(record) != WHOLE for record in self.failed)

    @property
    def keys(self) -> tuple[str, ...]:
        """What identifies each video, or the part of it: see `flow.key_of`."""
        return tuple(map(key_of, self.paths, self.parts)) if self.parts else self.paths

    def part(self, row: int) -> Part:
        return self.parts[row] if self.parts else WHOLE

    def named(self, row: int) -> str:
        """A video, for a message."""
        return named(self.paths[row], *self.part(row))

    @property
    def combine(self) -> Combine:
        return "probabilities" if "probabilities" in self.scores else "logits"

    @property
    def activation(self) -> Activation:
        """What makes scores of the logits."""
        return self.provenance.recipe.activation

    @property
    def ranked(self) -> Rows:
        """The scores (N, K) that rank the classes, of the kind `combine`."""
        return self.scores[self.combine]

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """The one class of each video, int64 (N,)."""
        return np.array([target for (target,) in self.targets], np.int64)

    @property
    def memberships(self) -> Rows:
        """Which classes each video has, bool (N, K)."""

        def of(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
            found = np.zeros((len(rows), len(self.labels)), np.bool_)
            for members, row in zip(found, rows.tolist(), strict=True):
                members[list(self.targets[row])] = True
            return found

        return Computed((len(self.paths), len(self.labels)), of)

    @cached_property
    def supports(self) -> NDArray[np.int64]:
        """The number of videos of each class, int64 (K,)."""
        numbers = np.fromiter((index for target in self.targets for index in set(target)), np.int64)
        return np.bincount(numbers, minlength=len(self.labels))

    @cached_property
    def precisions(self) -> NDArray[np.float64]:
        """The average precision of each class, float64 (K,), if videos have several classes; NaN without videos."""
        return metrics.average_precision(self.ranked, self.memberships)

    @cached_property
    def best(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The class with the highest score of each video, int64 (N,), and that score as shown, float64 (N,)."""
        classes, highest = np.empty(len(self.paths), np.int64), np.empty(len(self.paths))
        for rows in chunks(len(self.paths)):
            block = self.ranked[rows]
            classes[rows] = block.argmax(axis=1)
            highest[rows] = metrics.shown(block, self.combine, self.activation).max(axis=1)
        return classes, highest

    @cached_property
    def outcomes(self) -> Outcomes:
        """Rank, confidence and loss of each video, if videos have one class each."""
        return metrics.outcomes(self.ranked, self.classes, self.combine, self.activation)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Videos int64 (K, K): rows are classes, columns predictions."""
        return metrics.confusion(self.outcomes.predicted, self.classes, len(self.labels))

    def measure(self, ks: Sequence[int]) -> Metrics:
        if self.multi_label:
            return metrics.measure_multi_label(self.precisions, videos=len(self.paths), failed=len(self.failed))
        return metrics.measure(
            self.ranked,
            self.classes,
            combine=self.combine,
            activation=self.activation,
            failed=len(self.failed),
            ks=ks,
        )

    def records(self) -> Iterator[Record]:
        """The records from which `gather` makes this run."""
        for rows in chunks(len(self.paths)):
            blocks = {f"_{kind}": scores[rows] for kind, scores in self.scores.items()}
            if self.embeddings is not None:
                blocks["_embeddings"] = self.embeddings[rows]
            for place, row in enumerate(range(rows.start, rows.stop)):
                packed = {kind: [pack(block[place])] for kind, block in blocks.items()}
                about = {"status": "ok", "model": self.name, "target": list(self.targets[row])}
                yield head_of(self.paths[row], self.part(row)) | about | packed
        yield from self.failed


def with_protocol(checkpoint: Checkpoint) -> Checkpoint:
    """The model with the number of clips of its published accuracy, if `clips` is auto.

    That is one clip for models that are not published, and for most that are. A copy or an export of a model with its
    own recipe is recognised by the name of the recipe. Models of `timesformer finetune` keep the clips that cover the
    video, on which their accuracy was measured.
    """
    if checkpoint.sampling.clips is not None or checkpoint.sampling.method not in ("window", "strided"):
        return checkpoint
    if checkpoint.recipe.base == FINE_TUNED:
        return checkpoint
    entry = zoo.find(checkpoint.name) or zoo.find(checkpoint.recipe.name)
    clips = entry.clips if entry else 1
    return checkpoint if clips is None else with_overrides(checkpoint, fields={"clips": clips})


def dataset_settings(dataset: Dataset, **asked: Any) -> dict[str, Any]:
    """The settings of the dataset that affect results, and its problems; `asked` are the user's options."""
    digest = sha256()
    for sample in dataset.samples:
        digest.update(encoded(f"{sample.key}\0{','.join(map(str, sample.labels))}\0"))
    return {
        **asked,
        "format": dataset.format,
        "split": dataset.split,
        "rows": dataset.rows,
        "samples": len(dataset.samples),
        "samples_sha256": digest.hexdigest(),
        "annotations_sha256": dataset.checksum,
        "matched_by": dataset.matched_by,
        "multi_label": dataset.multi_label,
        "problems": dict(sorted(Counter(problem.kind for problem in dataset.problems).items())),
    }


def record_of(result: Result, checkpoint: Checkpoint, target: Sequence[int]) -> Record:
    """The record of a video whose true classes are `target`."""
    record = to_record(result, checkpoint, EXCERPT) | {"target": list(target)}
    if isinstance(result, Prediction) and checkpoint.combine == "probabilities" and not checkpoint.recipe.raw:
        record["_probabilities"] = [pack(segment.scores) for segment in result.segments]
    return record


_SCORES = Maybe(each(string))
_VIDEO: dict[str, Shape | Maybe] = {"path": string, "start": Maybe(number), "end": Maybe(number), "target": each(count)}
_SCORED = shape(anything, **_VIDEO, _logits=_SCORES, _probabilities=_SCORES, _embeddings=_SCORES)
_FAILED = shape(anything, **_VIDEO, error=shape(kind=string, message=string))


def _check(record: Record) -> None:
    """Raise ValueError for a record without true classes, or with a field of a different type."""
    (_FAILED if record["status"] == "error" else _SCORED)(record)


def gather(lines: Iterable[tuple[int, bytes, Record]], path: Path, provenance: Provenance) -> Run:
    """The run whose records are these `lines` of the file `path`, from `read_lines`; its scores stay there.

    Raises ValueError, KeyError or TypeError if they are not those of a run.
    """
    classes = len(provenance.labels)
    paths: list[str] = []
    parts: list[Part] = []
    targets: list[tuple[int, ...]] = []
    known: dict[tuple[int, ...], tuple[int, ...]] = {}  # a million targets, but few different ones
    failed: list[Record] = []
    places: dict[str, array[int]] = {}
    vectors = _Vectors()
    for end, line, record in lines:
        _check(record)
        if record["status"] == "error":
            failed.append(record)
            continue
        paths.append(record["path"])
        parts.append(part_of(record))
        target = tuple(record["target"])
        targets.append(known.setdefault(target, target))
        for kind in _KINDS:
            if f"_{kind}" in record:
                packed = record[f"_{kind}"][0]
                if len(packed) != packed_length(classes):
                    raise ValueError(f"{classes} classes, but a different number of scores")
                places.setdefault(kind, array("q")).append(end - len(line) + line.index(packed.encode()))
        vectors.add(end, line, record)
    if any(len(of_kind) != len(paths) for of_kind in places.values()) or (paths and not places):
        raise ValueError(f"{len(paths)} videos, but a different number of scores")
    if any(not 0 <= index < classes for target in known for index in target):
        raise ValueError(f"a target that is not one of {classes} classes")
    scores: dict[str, Rows] = {
        kind: FileRows(path, np.array(of_kind, np.int64), classes, base64=True) for kind, of_kind in places.items()
    }
    return Run(
        provenance=provenance,
        paths=tuple(paths),
        targets=tuple(targets),
        scores=scores or {_KINDS[0]: np.empty((0, classes), "f4")},
        failed=tuple(failed),
        parts=known_parts(parts),
        embeddings=vectors.rows(path, len(paths)),
    )


class _Vectors:
    """Where the vectors of records are in their file."""

    def __init__(self) -> None:
        self._places = array("q")
        self._lengths: set[int] = set()
        self._dimension = 0

    def add(self, end: int, line: bytes, record: Record) -> None:
        """Note the vector of a record whose `line` ends before byte `end`, if it has one."""
        if "_embeddings" in record:
            packed = record["_embeddings"][0]
            self._lengths.add(len(packed))
            self._places.append(end - len(line) + line.index(packed.encode()))
            self._dimension = self._dimension or len(unpack(packed))

    def rows(self, path: Path, count: int) -> Rows | None:
        """The vectors, if each of the `count` videos has one of the same dimension."""
        if not count or len(self._places) != count or len(self._lengths) != 1:
            return None
        return FileRows(path, np.array(self._places, np.int64), self._dimension, base64=True)


def known_parts(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The `parts` of a run: empty if all are whole videos."""
    return () if all(part == WHOLE for part in parts) else tuple(parts)


def summarise(run: Run, found: Metrics) -> dict[str, Any]:
    """The content of `metrics.json`, except speed and machine; `found` is the result of `run.measure`."""
    data_set = run.data_set
    counts = {
        "listed": data_set["rows"],
        "evaluated": found.videos,
        "failed": found.failed,
        "left_out": data_set["samples"] - found.videos - found.failed,
        "failed_by_kind": dict(Counter(record["error"]["kind"] for record in run.failed).most_common()),
        **data_set["problems"],
    }
    confused = () if run.multi_label else metrics.most_confused(run.confusion)
    return {
        "model": run.name,
        **found.to_json(),
        "published": _published(run, found),
        "warning": metrics.chance_warning(found),
        "counts": counts,
        "most_confused": [
            {
                "label": run.labels[pair.target],
                "predicted": run.labels[pair.predicted],
                "videos": pair.videos,
                "share": pair.share,
            }
            for pair in confused
        ],
        "settings": {name: value for name, value in run.provenance.to_dict().items() if name != "labels"},
    }


def _published(run: Run, found: Metrics) -> dict[str, Any] | None:
    """The published accuracies beside those found; None if they are unknown or for different classes."""
    entry = zoo.find(run.name) if run.provenance.groups is None else None
    if entry is None or len(run.labels) != entry.num_labels or run.data_set["classes"] is not None:
        return None
    percent = {1: entry.top1, 5: entry.top5}
    values: dict[str, Any] = {}
    for top in found.top:
        value = percent.get(top.k)
        if value is not None and top.accuracy is not None:
            share = value / 100
            values[f"top_{top.k}"] = {
                "value": share,
                "difference": top.accuracy.value - share,
                "within_interval": top.accuracy.low <= share <= top.accuracy.high,
            }
    return (
        {"checkpoint": entry.name, "data": entry.data, "clips": entry.clips, "crops": 3, **values} if values else None
    )


def restrict(run: Run, names: Sequence[str]) -> Run:
    """The run as if the model had only the classes `names`, and the dataset only videos of these.

    Raises:
        UsageError: a name is not a class of the run.
        InputError: no video is left.
    """
    known = Classes(run.labels)
    kept = np.zeros(len(run.labels), np.bool_)
    for name in names:
        index = known.index(name)
        if index is None:
            near = known.near(name)
            raise UsageError(
                f"`classes`: {name!r} is not a class of the run{f'; did you mean {near!r}?' if near else ''}"
            )
        kept[index] = True
    numbers = np.cumsum(kept) - 1

    def left(target: Iterable[int]) -> tuple[int, ...]:
        return tuple(int(numbers[index]) for index in target if kept[index])

    rows = np.array([row for row, target in enumerate(run.targets) if left(target)], np.int64)
    failed = tuple(record | {"target": left(record["target"])} for record in run.failed if left(record["target"]))
    if not len(rows) and not failed:
        raise InputError("`classes`: the run has no video of these classes")
    labels = tuple(label for label, keep in zip(run.labels, kept, strict=True) if keep)
    data_set = {**run.data_set, "classes": list(labels)}
    return Run(
        provenance=replace(run.provenance, labels=labels, data_set=data_set),
        paths=tuple(run.paths[row] for row in rows),
        targets=tuple(left(run.targets[row]) for row in rows),
        scores={kind: Chosen(scores, rows, np.flatnonzero(kept)) for kind, scores in run.scores.items()},
        failed=failed,
        parts=known_parts([run.part(row) for row in rows.tolist()]),
        embeddings=None if run.embeddings is None else Chosen(run.embeddings, rows),
    )


def fuse(runs: Sequence[Run], weights: Sequence[float]) -> Run:
    """Fuse runs: the weighted mean of their probabilities, on the videos that all have.

    A video that failed in any of the runs has failed. Without an activation, it is the mean of the logits.

    Raises:
        UsageError: unusable weights, or runs with different classes, datasets or activations.
        InputError: there is no video that all have.
    """
    rows = _common(runs)
    activation = _common_activation(runs)
    kind: Combine = "logits" if activation == "none" else "probabilities"

    def fused(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return comparison.fuse(
            [run.ranked[own[numbers]] for run, own in zip(runs, rows, strict=True)],
            weights,
            [run.combine for run in runs],
            activation=activation,
        )

    fused(np.arange(0))  # checks the weights
    failed = {identity(record): record for run in runs for record in run.failed}
    parts = tuple(Fused.of(run.provenance, weight) for run, weight in zip(runs, weights, strict=True))
    return Run(
        provenance=replace(
            runs[0].provenance,
            model=" + ".join(run.name for run in runs),
            source="fused",
            recipe=Combination("fused", kind, activation),
            fused=parts,
        ),
        paths=tuple(runs[0].paths[row] for row in rows[0]),
        targets=tuple(runs[0].targets[row] for row in rows[0]),
        scores={kind: Computed((len(rows[0]), len(runs[0].labels)), fused)},
        failed=tuple(failed.values()),
        parts=known_parts([runs[0].part(row) for row in rows[0].tolist()]),
    )


def _common_activation(runs: Sequence[Run]) -> Activation:
    """What makes the probabilities of all runs. Raises UsageError if they differ in it."""

    def of(run: Run) -> Activation:
        # Several labels do not share one whole. Their logits are ranked as they are, which is how sigmoids rank.
        return "sigmoid" if run.multi_label and run.activation == "softmax" else run.activation

    for run in runs[1:]:
        if of(run) != of(runs[0]):
            raise UsageError(
                f"{runs[0].name} and {run.name} have scores of different kinds ({of(runs[0])} and {of(run)}), which "
                "have no common mean; evaluate one of them again, with `settings=activation=...`"
            )
    return of(runs[0])


@dataclass(frozen=True, slots=True)
class Flip:
    """A video, or a part of one, that only one of two runs has right, the second if `gained`.

    `target`, `first` and `second` are class numbers.
    """

    path: str
    part: Part
    gained: bool
    target: int
    first: int
    second: int


def compare(first: Run, second: Run) -> tuple[comparison.Comparison, list[Flip]]:
    """Compare two runs on the videos that both have, and list the videos that only one has right.

    Raises:
        UsageError: runs with different classes or datasets, or videos with several labels.
        InputError: there is no video that both have.
    """
    if first.multi_label:
        raise UsageError("compare is for videos with one label each; these have several")
    rows = _common([first, second])
    predicted = [run.outcomes.predicted[own] for run, own in zip((first, second), rows, strict=True)]
    classes = first.classes[rows[0]]
    found = comparison.compare(predicted[0] == classes, predicted[1] == classes)
    flips = [
        Flip(
            path=first.paths[rows[0][row]],
            part=first.part(int(rows[0][row])),
            gained=gained,
            target=int(classes[row]),
            first=int(predicted[0][row]),
            second=int(predicted[1][row]),
        )
        for gained, flipped in ((True, found.gained), (False, found.lost))
        for row in flipped.tolist()
    ]
    return found, flips


def _common(runs: Sequence[Run]) -> list[NDArray[np.int64]]:
    """For each run, the rows of the videos that all have."""
    for run in runs[1:]:
        if run.labels != runs[0].labels:
            raise UsageError(
                f"{runs[0].name} and {run.name} have different classes: {len(runs[0].labels)} and {len(run.labels)}, "
                "or the same in a different order"
            )
        if run.multi_label != runs[0].multi_label:
            raise UsageError(f"{runs[0].name} and {run.name}: one has videos with several labels, the other does not")
    rows = comparison.common_rows([run.keys for run in runs])
    if not len(rows[0]):
        raise InputError(
            f"no video is in all {len(runs)} runs: videos are matched by their paths and parts, such as "
            + " and ".join(repr(run.named(0)) if run.paths else "none" for run in runs[:2])
        )
    for (one, own), (other, theirs) in pairwise(zip(runs, rows, strict=True)):
        for row, its in zip(own.tolist(), theirs.tolist(), strict=True):
            if set(one.targets[row]) != set(other.targets[its]):
                raise UsageError(
                    f"{one.named(row)}: has different labels in these runs; they are on different datasets"
                )
    return rows
