"""What is searched for: videos, parts of videos, rows of the file itself, or the rows of another file."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.flow import WHOLE, Failure, Item, Part, overlap
from timesformer_cli.jobs.reporter import Reporter, in_words
from timesformer_cli.results.vectors.reading import VectorFile
from timesformer_cli.results.vectors.rows import VECTOR_FORMATS, VectorRow

if TYPE_CHECKING:
    from timesformer_cli.pipeline.run import RunOptions
    from timesformer_cli.runtimes.ports import Output
    from timesformer_cli.specs import Checkpoint

# What the network gives for the features that queries can be computed for.
OUTPUTS: Mapping[str, "Output"] = {"cls": "embedding", "mean": "mean"}

_PART = re.compile(r"(.+)#(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A vector to search for, float32 (D,), of length 1. `own` are the videos, and their parts, that it is from."""

    name: str
    vector: NDArray[np.float32]
    own: tuple[tuple[str, Part], ...]


def split(name: str, exists: bool) -> tuple[str, Part]:
    """A name such as `film.mp4#12-20` as the path and the part in seconds; a name that `exists` is a whole video.

    Raises:
        UsageError: the part ends before it starts.
    """
    found = None if exists else _PART.fullmatch(name)
    if found is None:
        return name, WHOLE
    start, end = float(found[2]), float(found[3])
    if end <= start:
        raise UsageError(f"{name}: the part ends before it starts; write the start first, in seconds")
    return found[1], (start, end)


def is_vectors(name: str) -> bool:
    return Path(name).suffix.lower().removeprefix(".") in VECTOR_FORMATS


def unit(vector: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The vector (D,) with the length 1. Raises InputError if it has no length."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0:
        fault = "zero, so it has no direction" if length == 0 else "not finite"
        raise InputError(f"{name}: its vector is {fault}; nothing can be compared with it")
    return (vector / length).astype(np.float32)


def named_row(row: VectorRow) -> str:
    return row.path if row.start is None or row.end is None else f"{row.path}#{row.start:.10g}-{row.end:.10g}"


def of_rows(file: VectorFile, name: str) -> Query:
    """The mean of the rows of a video in the file, or of those in a part of it.

    Raises:
        InputError: the file does not have it.
    """
    path, part, numbers = name, WHOLE, file.find(name)
    if not len(numbers):
        path, part = split(name, exists=False)
        numbers = file.find(path) if path != name else numbers
    if not len(numbers):
        raise InputError(f"{path}: {file.path} has no vector of a video with this path; give it as the file has it")
    if part != WHOLE:
        numbers = _within(file, numbers, part, name)
    vectors = file.take(numbers)
    return Query(name, mean(list(vectors), name), ((path, part),))


def _within(file: VectorFile, numbers: NDArray[np.int64], part: Part, name: str) -> NDArray[np.int64]:
    """Those rows whose middle is in the part; if there is none, the one that overlaps most."""
    start, end = part
    assert start is not None
    assert end is not None
    rows = file.rows(numbers.tolist())
    spans = [(row.start, row.end) for row in rows if row.start is not None and row.end is not None]
    if len(spans) < len(rows):
        raise InputError(f"{name}: {file.path} has one vector for the whole video; leave out the part")
    middle = np.array([(begin + stop) / 2 for begin, stop in spans])
    inside = numbers[(middle >= start) & (middle < end)]
    if len(inside):
        return inside
    overlap = np.array([min(stop, end) - max(begin, start) for begin, stop in spans])
    if overlap.max() <= 0:
        raise InputError(f"{name}: {file.path} has no vector of that part; the video ends at {spans[-1][1]:g} s")
    return numbers[[int(overlap.argmax())]]


def own_rows(file: VectorFile, query: Query) -> NDArray[np.int64]:
    """The rows of the query's own videos that overlap it."""
    found = [np.empty(0, np.int64)]
    for name, part in query.own:
        names = (name, os.path.relpath(name), os.path.abspath(name))
        numbers = next((there for path in names if len(there := file.find(path))), found[0])
        if part != WHOLE and len(numbers):
            rows = file.rows(numbers.tolist())
            numbers = numbers[[overlap((row.start, row.end), part) for row in rows]]
        found.append(numbers)
    return np.concatenate(found)


def of_file(file: VectorFile, other: VectorFile) -> Iterator[Query]:
    """Each row of another file of vectors, of the same model. Raises InputError."""
    check_same(file, other)
    for row in other.entries():
        if row.vector is not None:
            name = named_row(row)
            yield Query(name, unit(row.vector, name), ((row.path, (row.start, row.end)),))


def check_same(file: VectorFile, other: VectorFile) -> None:
    """Raises InputError if the vectors of two files cannot be compared."""
    ours, theirs = file.kind, other.kind
    if ours.dimension != theirs.dimension:
        raise InputError(f"{other.path}: has {theirs.dimension} numbers in a vector, and {file.path} {ours.dimension}")
    if (file.provenance.weights or {}) != (other.provenance.weights or {}):
        raise InputError(
            f"{other.path}: was made with different weights ({other.provenance.model}) than {file.path} "
            f"({file.provenance.model}), and vectors of two models cannot be compared"
        )
    if ours.feature != theirs.feature:
        raise InputError(f"{other.path}: has vectors of the feature {theirs.feature}, and {file.path} {ours.feature}")


def of_videos(
    file: VectorFile, names: Sequence[tuple[Item, str]], checkpoint: "Checkpoint", run: "RunOptions", report: Reporter
) -> list[Query]:
    """The vectors of videos, or parts: the mean over segments as those of the file; `names` has each with its name.

    Raises:
        InputError: a video cannot be read.
        TimesformerError: as for `pipeline.engine.score_all`.
    """
    from timesformer_cli.pipeline.engine import score_all

    timeline = file.provenance.timeline
    output = OUTPUTS[file.kind.feature]
    opened = cache(lambda: run.open(checkpoint, report.note, output))
    whole: list[Item] = []
    pieces: list[Item] = []
    owners: dict[str, str] = {}
    for item, _ in names:
        if timeline is None or item.part == WHOLE:
            whole.append(item)
        else:
            cut = _pieces(item, timeline.length, timeline.hop or timeline.length)
            pieces += cut
            owners |= {piece.key: item.key for piece in cut}
    found: dict[str, list[NDArray[np.float32]]] = {}
    with report.progress(len(names)) as meter:
        for items, segments in ((whole, timeline), (pieces, None)):
            if not items:
                continue
            with score_all(
                items, checkpoint, run, timeline=segments, output=output, tell=report.note, opened=opened
            ) as scored:
                for each in scored:
                    if isinstance(each, Failure):
                        raise InputError(f"{each.item.path}: {in_words(each, report).message}")
                    vector = each.logits.mean(0, dtype=np.float64, keepdims=True)[0].astype(np.float32)
                    vector = unit(vector, each.item.path) if file.kind.normalized else vector
                    owner = owners.get(each.item.key, each.item.key)
                    if found and owner not in found:  # the segments of the video before are complete
                        meter.count(failed=False)
                    found.setdefault(owner, []).append(vector)
    return [Query(name, mean(found[item.key], name), ((item.path, item.part),)) for item, name in names]


def mean(vectors: Sequence[NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    """The mean of vectors (D,), scaled to the length 1. Raises InputError if it has none."""
    return unit(np.stack(vectors).mean(0, dtype=np.float64).astype(np.float32), name)


def _pieces(item: Item, length: float, hop: float) -> list[Item]:
    """A part of a video in segments of that length."""
    assert item.start is not None
    assert item.end is not None
    count = max(int(np.ceil((item.end - item.start - length) / hop - 1e-9)), 0) + 1
    starts = [item.start + number * hop for number in range(count)]
    return [replace(item, start=start, end=min(start + length, item.end)) for start in starts]
