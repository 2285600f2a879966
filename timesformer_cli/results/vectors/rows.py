"""One row of a file of vectors, the formats of such files, and where their settings are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import UsageError
from timesformer_cli.flow import Part
from timesformer_cli.results.logits import unpack
from timesformer_cli.results.record import Record, part_of
from timesformer_cli.results.settings import Provenance, check_settings
from timesformer_cli.shapes import Maybe, anything, count, each, matching, number, or_none, string
from timesformer_cli.shapes import record as shape

VectorFormat = Literal["parquet", "npz", "npy", "jsonl", "csv"]

VECTOR_FORMATS: tuple[VectorFormat, ...] = get_args(VectorFormat)

# The same, and a folder with an array for each video.
VectorOutput = Literal["parquet", "npz", "npy", "jsonl", "csv", "folder"]

# The key of the settings in a Parquet schema, and the array of them in an .npz file.
METADATA = "timesformer"

ROWS_IN_A_GROUP = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class VectorRow:
    """A vector, float32 (D,), of a video, of a segment of it, or of one frame; None if the video failed.

    `video` is the number of the video in its run, from 0. `start` and `end` are seconds, None for a video as a whole.
    `time` (seconds from the earliest start of any stream of the file) and `frame` (its number) are those of one frame.
    """

    video: int
    path: str
    vector: NDArray[np.float32] | None = None
    start: float | None = None
    end: float | None = None
    time: float | None = None
    frame: int | None = None
    error_kind: str | None = None
    error_message: str | None = None


def vector_format(path: Path) -> VectorFormat:
    """The format for `path`, by its extension. Raises UsageError if it is none of these."""
    for format in VECTOR_FORMATS:
        if path.suffix.lower() == f".{format}":
            return format
    known = ", ".join(f".{format}" for format in VECTOR_FORMATS)
    raise UsageError(f"{path}: vectors are saved as {known}; give the file one of these extensions")


def companion_of(path: Path, format: str) -> Path | None:
    """The file with the paths and times of the rows, beside an array that has only the vectors."""
    return path.with_suffix(".jsonl") if format == "npy" else None


def described(provenance: Provenance) -> dict[str, Any]:
    """The settings that a file of vectors states. All shards of a run, and other outputs of it, state the same."""
    settings = replace(provenance, shown=None, shard=None, labels=(), groups=None).to_dict()
    del settings["labels"]
    return settings | {"views": "mean"}


def provenance_in(settings: Mapping[str, Any]) -> Provenance:
    """The inverse of `described`; it also takes the settings beside an output. Raises ValueError for other content."""
    check_settings(settings)
    if "vectors" not in settings:
        raise ValueError("it states no vectors")
    try:
        return replace(Provenance.from_dict({**settings, "labels": ()}), shown=None, shard=None, groups=None)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


# What a record needs to have, so that it can be made into rows. `_embeddings` are packed, one text for each segment, or
# for the video as a whole; those of frames are followed by `_frames`, the time and the number of each.
_FRAME = shape(times=each(number), numbers=each(count))
_COMMON: dict[str, Any] = {"path": string, "start": Maybe(number), "end": Maybe(number)}
_FAILED = shape(anything, **_COMMON, error=shape(kind=string, message=string))
_MADE = shape(
    anything,
    **_COMMON,
    video=Maybe(shape(anything, duration=or_none(number), fps=or_none(number))),
    segments=Maybe(each(shape(anything, start=or_none(number), end=or_none(number)))),
    _embeddings=each(string),
    _frames=Maybe(each(_FRAME)),
)


def check_vectors(record: Record) -> None:
    """Raise ValueError unless a record, read from a file, can be made into rows."""
    matching("status", "ok|error")(record.get("status"))
    (_FAILED if record["status"] == "error" else _MADE)(record)


def rows_in(records: Iterable[Record]) -> Iterator[VectorRow]:
    """The rows of the vectors that records carry, and one for each video that failed."""
    for video, record in enumerate(records):
        if record["status"] == "error":
            start, end = part_of(record)
            error = record["error"]
            yield VectorRow(
                video, record["path"], None, start, end, error_kind=error["kind"], error_message=error["message"]
            )
            continue
        parts = [(part["start"], part["end"]) for part in record["segments"]] if "segments" in record else None
        spans: list[Part] = [part_of(record)] if parts is None else parts
        for place, (span, packed) in enumerate(zip(spans, record["_embeddings"], strict=True)):
            vectors = unpack(packed)
            if "_frames" not in record:
                yield VectorRow(video, record["path"], vectors, *span)
                continue
            shown = record["_frames"][place]
            for vector, time, frame in zip(
                vectors.reshape(len(shown["times"]), -1), shown["times"], shown["numbers"], strict=True
            ):
                yield VectorRow(video, record["path"], vector, *span, time, frame)
