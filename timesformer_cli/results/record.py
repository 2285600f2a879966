"""Records, and how formats turn them into text."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import (
    WHOLE,
    Embedded,
    Failure,
    Part,
    Result,
    Segment,
    VideoInfo,
    ViewLabel,
    key_of,
    likeliest,
)
from timesformer_cli.pipeline.aggregate import merge
from timesformer_cli.results.logits import pack
from timesformer_cli.shapes import Maybe, Shape, count, each, flag, matching, number, or_none, string, whole
from timesformer_cli.shapes import record as shape
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video.playback import plays_in_browsers

# One video, as an object of JSON lines. Fields that begin with an underscore are written only in formats that use
# them, one for each segment (a video as a whole is one segment): `_thumbnails`, `_logits` and `_embeddings`, base64;
# `_films` instead of `_thumbnails` if browsers do not play the video; and `_runners_up`, the classes after the
# predictions.
Record = dict[str, Any]


@dataclass(frozen=True)
class Style:
    """A format: the text of a record, and the texts before the first, between two, and after the last.

    Records that the format cannot show are rendered as empty text, and skipped. `start` and `end` are written even if
    there is no record.
    """

    render: Callable[[Record], str]
    start: str = ""
    between: str = ""
    end: str = ""

    def texts(self, records: Iterable[Record]) -> Iterator[str]:
        """The text of a whole file, piece by piece."""
        empty = True
        for record in records:
            if text := self.render(record):
                yield (self.start if empty else self.between) + text
                empty = False
        yield (self.start if empty else "") + self.end


@dataclass(frozen=True, slots=True)
class Origin:
    """The model that made the records. `labels` are those of all its classes; `raw`: scores are logits.

    `groups` are the labels of the model that each class is made of, if a user grouped them.
    """

    model: str
    labels: tuple[str, ...]
    recipe: str
    raw: bool
    groups: Mapping[str, Sequence[str]] | None = None


def head_of(path: str, part: Part = WHOLE) -> Record:
    """The beginning of the record of a video, or of a part of it: `path`, with `start` and `end` as far as known."""
    times = zip(("start", "end"), part, strict=True)
    return {"path": path} | {name: value for name, value in times if value is not None}


def part_of(record: Record) -> Part:
    """The part of the video that a record is about."""
    start, end = record.get("start"), record.get("end")
    if start is None and end is None:
        return WHOLE
    return None if start is None else float(start), None if end is None else float(end)


def identity(record: Record) -> str:
    """The key of the video, or of the part of it: see `flow.key_of`."""
    return key_of(record["path"], part_of(record))


def spans(record: Record) -> list[Record]:
    """The labelled parts of a video in order of time: `start`, `end` (seconds), `predictions`, and maybe `abstained`.

    These are the segments of a timeline, or all that the record is about; none if it failed.
    """
    if record["status"] == "error":
        return []
    if "segments" in record:
        segments: list[Record] = record["segments"]
        return segments
    start, end = part_of(record)
    if end is None:
        end = record["video"]["duration"] or 0.0
    whole = {"start": start or 0.0, "end": end, "predictions": record["predictions"]}
    return [whole | {name: record[name] for name in ("abstained",) if name in record}]


# Stands for an answer that was left open.
OPEN = "–"  # noqa: RUF001


def answers(span: Record) -> list[Record]:
    """The predictions of a span; none if the answer was left open."""
    return [] if span.get("abstained") else span["predictions"]


_PREDICTIONS = each(shape(rank=count, index=count, label=string, score=number))
_VIEWS = each(shape(clip=whole, crop=string, frames=each(count), repeated=Maybe(count)))
_TIME = or_none(number)
_PACKED = Maybe(each(string))
_COMMON: dict[str, Shape | Maybe] = {
    "path": string,
    "start": Maybe(number),
    "end": Maybe(number),
    "status": matching("status", "ok|error"),
    "model": string,
    "recipe": Maybe(string),
}
_COMMON |= {
    "target": Maybe(each(count)),
    "_logits": _PACKED,
    "_probabilities": _PACKED,
    "_thumbnails": _PACKED,
    "_films": _PACKED,
    "_runners_up": Maybe(each(each(count))),
    "_embeddings": _PACKED,
}
_FAILED = shape(**_COMMON, error=shape(kind=string, message=string))
_FACTS: dict[str, Shape | Maybe] = {"duration": _TIME, "fps": _TIME, "frames": count, "width": count, "height": count}
_VIDEO = shape(**_FACTS, codec=string, container=Maybe(string), pixel_format=Maybe(string))
_ANSWER: dict[str, Shape | Maybe] = {"predictions": _PREDICTIONS, "abstained": Maybe(flag), "views": Maybe(_VIEWS)}
_WHOLE = shape(**_COMMON, **_ANSWER, video=_VIDEO)
_SEGMENTS = each(shape(start=_TIME, end=_TIME, **_ANSWER))
_TIMELINE = shape(**_COMMON, segments=_SEGMENTS, video=_VIDEO)


def check_record(record: Record) -> None:
    """Raise ValueError unless a record, read from a file, has the fields that `to_record` writes, of their types."""
    if record.get("status") == "error":
        _FAILED(record)
    elif "segments" in record:
        _TIMELINE(record)
    else:
        _WHOLE(record)


def public(record: Record) -> Record:
    """The record without the fields that only some formats use."""
    return {name: value for name, value in record.items() if not name.startswith("_")}


# Classes that a page has in the order of their scores; further ones follow by their names.
RANKED = 50

CSV_COLUMNS = (
    "path",
    "status",
    "model",
    "start",
    "end",
    "rank",
    "index",
    "label",
    "score",
    "duration",
    "fps",
    "frames",
    "width",
    "height",
    "codec",
    "error_kind",
    "error_message",
    "recipe",
    "abstained",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Which parts of a prediction go into its record.

    `threshold`: labels with lower scores are left out. `merge`: adjacent segments with the same top label become one.
    `logits`: the record also carries the logits of all classes. `segments`: the record has the segments of a timeline,
    instead of one prediction for the video as a whole. `min_score`: a prediction whose highest score is lower is left
    open, since it would not have the precision `min_precision`.
    """

    top_k: int = 5
    threshold: float | None = None
    merge: bool = False
    logits: bool = False
    segments: bool = False
    min_precision: float | None = None
    min_score: float | None = None


def origin_of(checkpoint: Checkpoint) -> Origin:
    """The model, as formats show it."""
    groups = None if checkpoint.groups is None else checkpoint.groups.chosen(checkpoint.labels)
    return Origin(checkpoint.name, checkpoint.classes, checkpoint.recipe.name, checkpoint.recipe.raw, groups)


def to_record(result: Result, checkpoint: Checkpoint, excerpt: Excerpt = Excerpt()) -> Record:
    """The record of one video, with the fields, and their order, that the command line guarantees."""
    head = _head(result, checkpoint)
    if isinstance(result, Failure):
        return head
    segments = merge(result.segments, excerpt.min_score) if excerpt.merge else result.segments
    parts = [_part(segment, checkpoint.classes, excerpt) for segment in segments]
    video = video_facts(result.info)
    if not excerpt.segments:
        (part,) = parts
        views = part.pop("views")
        record = head | part | {"video": video, "views": views}
    else:
        spans = zip(segments, parts, strict=True)
        timed = [{"start": _rounded(segment.start), "end": _rounded(segment.end)} | part for segment, part in spans]
        record = head | {"segments": timed, "video": video}
    record |= {"recipe": checkpoint.recipe.name}
    if excerpt.logits:
        record["_logits"] = [pack(segment.logits) for segment in segments]
    if result.segments[0].embedding is not None:
        record["_embeddings"] = [pack(segment.embedding) for segment in segments if segment.embedding is not None]
    if result.segments[0].thumbnail is not None:
        name = "_thumbnails" if plays(record) else "_films"
        record[name] = [base64.b64encode(segment.thumbnail or b"").decode() for segment in segments]
        record["_runners_up"] = [
            np.argsort(-segment.scores, kind="stable")[len(part["predictions"]) : RANKED].tolist()
            for segment, part in zip(segments, parts, strict=True)
        ]
    return record


def plays(record: Record) -> bool:
    """Whether browsers play the video of a record, as far as it says; records of earlier versions do not."""
    video = record["video"]
    return plays_in_browsers(record["path"], video.get("container", ""), video["codec"], video.get("pixel_format", ""))


def to_vectors(result: Embedded, checkpoint: Checkpoint, *, segments: bool) -> Record:
    """The record of the vectors of one video, or of its `segments`: what `vectors.rows` makes into rows."""
    head = _head(result, checkpoint)
    if isinstance(result, Failure):
        return head
    times = [{"start": _rounded(each.start), "end": _rounded(each.end)} for each in result.segments]
    record = head | ({"segments": times} if segments else {}) | {"video": video_facts(result.info)}
    record["_embeddings"] = [pack(each.vectors) for each in result.segments]
    if result.segments[0].times:
        record["_frames"] = [
            {"times": [_rounded(time) for time in each.times], "numbers": list(each.frames)} for each in result.segments
        ]
    return record


def _head(result: Result | Embedded, checkpoint: Checkpoint) -> Record:
    """The beginning of a record, or all of it for a failure."""
    head = head_of(result.item.path, result.item.part) | {"status": "ok", "model": checkpoint.name}
    if isinstance(result, Failure):
        return head | {"status": "error", "error": {"kind": result.kind, "message": result.message}}
    return head


def video_facts(info: VideoInfo) -> Record:
    """What a record says of a video itself; images in a folder have no container."""
    facts = {
        "duration": _rounded(info.duration),
        "fps": _rounded(info.fps),
        "frames": info.num_frames,
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
    }
    return facts | ({"container": info.container, "pixel_format": info.pixel_format} if info.container else {})


def _part(segment: Segment, labels: tuple[str, ...], excerpt: Excerpt) -> Record:
    part: Record = {"predictions": _predictions(segment.scores, labels, excerpt)}
    if excerpt.min_score is not None and segment.scores.max() < excerpt.min_score:
        part["abstained"] = True
    return part | {"views": [_view(view) for view in segment.views]}


def _view(view: ViewLabel) -> Record:
    record: Record = {"clip": view.clip, "crop": view.crop, "frames": list(view.frames)}
    # A video with fewer frames than a clip needs: some frames are repeated.
    repeated = len(view.frames) - len(set(view.frames))
    return record | ({"repeated": repeated} if repeated else {})


def _predictions(scores: NDArray[np.float32], labels: tuple[str, ...], excerpt: Excerpt) -> list[Record]:
    return [
        {"rank": rank, "index": each.index, "label": each.label, "score": each.score}
        for rank, each in enumerate(likeliest(scores, labels, excerpt.top_k), 1)
        if excerpt.threshold is None or scores[each.index] >= excerpt.threshold
    ]


def _rounded(value: float) -> float | None:
    # A container can state a rate that is not finite, and JSON has only finite numbers.
    return round(value, 3) if math.isfinite(value) else None


def json_line(record: Record) -> str:
    """The record as one line of JSON."""
    return json_text(record) + "\n"


def private_line(record: Record) -> str:
    """The same, with the fields that only some formats use."""
    return _dumped(record) + "\n"


def json_text(record: Record) -> str:
    return _dumped(public(record))


def _dumped(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def to_rows(record: Record) -> Iterator[Record]:
    """The rows of one record: one for each rank of each segment; a video without labels has one row.

    Missing columns are empty.
    """
    cells = {key: value for key, value in record.items() if key in CSV_COLUMNS}
    if record["status"] == "error":
        yield cells | {f"error_{key}": value for key, value in record["error"].items()}
    for span in spans(record):
        for prediction in span["predictions"] or [{}]:
            times = {"start": span["start"], "end": span["end"]}
            yield cells | record["video"] | times | prediction | {"abstained": span.get("abstained")}
