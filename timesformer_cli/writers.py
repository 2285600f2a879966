"""Results as the user reads them: one record for each video, in any of the formats."""

import base64
import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.aggregate import merge
from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.logits import pack
from timesformer_cli.records import Failure, Result, Segment, ViewLabel
from timesformer_cli.specs import Checkpoint
from timesformer_cli.styles import Origin, Record, Style, public, spans

Format = Literal[
    "table", "json", "jsonl", "csv", "parquet", "srt", "vtt", "html", "activitynet", "labelstudio", "fiftyone"
]

FORMATS: tuple[Format, ...] = get_args(Format)

_BY_EXTENSION: dict[str, Format] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".srt": "srt",
    ".vtt": "vtt",
    ".html": "html",
    ".htm": "html",
}

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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """What of a prediction goes into its record.

    `threshold`: scores below it are left out. `merge`: adjacent segments with the same first label become one.
    `logits`: the record carries them all, beside what it shows.
    """

    top_k: int = 5
    threshold: float | None = None
    merge: bool = False
    logits: bool = False


def choose_format(target: Path | None) -> Format:
    """The format that suits `target`: by extension; without a target, a table on a terminal, else JSON lines.

    Raises:
        UsageError: an extension that says nothing.
    """
    if target is None:
        return "table" if sys.stdout.isatty() else "jsonl"
    try:
        return _BY_EXTENSION[target.suffix.lower()]
    except KeyError:
        known = ", ".join(_BY_EXTENSION)
        raise UsageError(f"{target}: no format has this extension; use one of {known}, or --format") from None


def check_target(target: Path, *, overwrite: bool, ways: str = "or --overwrite") -> None:
    """Find out, before any work is done, that `target` cannot be written; `ways` are the options for one that exists.

    Raises:
        OutputError: its folder does not exist or cannot be written, it is a folder itself, or it
            exists and may not be overwritten.
    """
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file to write")
    if target.is_file() and not overwrite:
        raise OutputError(f"{target}: exists already; choose another name, {ways}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OutputError(f"{target}: cannot be written (permission denied)")


def origin_of(checkpoint: Checkpoint) -> Origin:
    """What formats say of the model."""
    return Origin(checkpoint.name, checkpoint.labels, checkpoint.recipe.name, checkpoint.combine == "raw_logits")


def to_record(result: Result, checkpoint: Checkpoint, excerpt: Excerpt = Excerpt()) -> Record:
    """The record of one video, with the fields and their order that the command line promises."""
    head: Record = {"path": result.item.path, "status": "ok", "model": checkpoint.name}
    if isinstance(result, Failure):
        return head | {"status": "error", "error": {"kind": result.kind, "message": result.message}}
    info = result.info
    segments = merge(result.segments) if excerpt.merge else result.segments
    parts = [_part(segment, checkpoint.labels, excerpt) for segment in segments]
    video = {
        "duration": _rounded(info.duration),
        "fps": _rounded(info.fps),
        "frames": info.num_frames,
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
    }
    if checkpoint.sampling.window is None:
        (part,) = parts
        record = head | {"predictions": part["predictions"], "video": video, "views": part["views"]}
    else:
        spans = zip(segments, parts, strict=True)
        timed = [{"start": _rounded(segment.start), "end": _rounded(segment.end)} | part for segment, part in spans]
        record = head | {"segments": timed, "video": video}
    record |= {"recipe": checkpoint.recipe.name}
    if excerpt.logits:
        record["_logits"] = [pack(segment.logits) for segment in segments]
    if result.segments[0].thumbnail is not None:
        record["_thumbnails"] = [base64.b64encode(segment.thumbnail or b"").decode() for segment in segments]
    return record


def _part(segment: Segment, labels: tuple[str, ...], excerpt: Excerpt) -> Record:
    return {
        "predictions": _predictions(segment.scores, labels, excerpt),
        "views": [_view(view) for view in segment.views],
    }


def _view(view: ViewLabel) -> Record:
    record: Record = {"clip": view.clip, "crop": view.crop, "frames": list(view.frames)}
    # A video with fewer frames than a clip asks for: some are shown again.
    repeated = len(view.frames) - len(set(view.frames))
    return record | ({"repeated": repeated} if repeated else {})


def _predictions(scores: NDArray[np.float32], labels: tuple[str, ...], excerpt: Excerpt) -> list[Record]:
    best = np.argsort(-scores, kind="stable")[: excerpt.top_k]  # of equal scores, the lower index first
    return [
        {"rank": rank, "index": int(index), "label": labels[index], "score": _shortest(scores[index])}
        for rank, index in enumerate(best, 1)
        if excerpt.threshold is None or scores[index] >= excerpt.threshold
    ]


def _shortest(score: np.float32) -> float:
    """The number that prints with the fewest digits and is `score` again when read as float32."""
    return float(np.format_float_scientific(score, unique=True))


def _rounded(value: float) -> float | None:
    # A container can state a rate that makes no finite number, and JSON has no other kind.
    return round(value, 3) if math.isfinite(value) else None


class Writer:
    """Writes each record as it comes: one piece of text, flushed, so that a stop leaves only whole records."""

    def __init__(self, output: "_Output", style: Style) -> None:
        self._output = output
        self._style = style
        self._records = self._texts = 0

    def write(self, record: Record) -> None:
        """Write one record.

        Raises:
            OutputError: it cannot be written.
            BrokenPipeError: no one reads it.
        """
        self._records += 1
        if text := self._style.render(record):
            self._output.write((self._style.between if self._texts else self._style.start) + text)
            self._texts += 1

    def finish(self, *, whole: bool) -> None:
        """Write what comes after the last record; in a run that is `whole`, also if none of them left a text."""
        if self._texts:
            self._output.finish(self._style.end)
        else:
            self._output.finish(self._style.start + self._style.end if whole and self._records else "")


@contextmanager
def open_writer(target: Path | None, format: Format, origin: Origin) -> Iterator[Writer]:
    """A writer to the file `target`, or to standard output, record by record.

    The file is made with the first record. Leaving the context early, as by Ctrl-C, makes what was
    written whole.
    """
    writer = Writer(_Output(target), open_style(format, origin, target))
    whole = False
    try:
        yield writer
        whole = True
    finally:
        writer.finish(whole=whole)


class _Output:
    """The file or standard output, as bytes: UTF-8, whatever the locale says."""

    def __init__(self, target: Path | None) -> None:
        self._target = target
        self._stream: IO[bytes] | None = None
        self._failed = False

    def write(self, text: str) -> None:
        try:
            if self._stream is None:
                self._stream = sys.stdout.buffer if self._target is None else self._target.open("wb")
            self._stream.write(encoded(text))
            self._stream.flush()
        except OSError as error:
            self._failed = True
            if isinstance(error, BrokenPipeError):
                raise
            name = "standard output" if self._target is None else self._target
            raise OutputError(f"{name}: cannot be written ({error.strerror})") from error

    def finish(self, end: str) -> None:
        """Write `end` after whatever was written, and close. After a failed write, only close."""
        try:
            if end and not self._failed:
                self.write(end)
        finally:
            if self._target is not None and self._stream is not None:
                with suppress(OSError):  # what failed to be written once fails again, and was told
                    self._stream.close()


def encoded(text: str) -> bytes:
    """UTF-8. In JSON, the backslash escape of a byte that is no UTF-8 reads back as that very byte."""
    return text.encode("utf-8", "backslashreplace")


def open_style(format: Format, origin: Origin, target: Path | None) -> Style:
    """How records become text in `format`, for the file `target` or for standard output.

    Raises:
        UsageError: Parquet, which is no text.
    """
    # Each is loaded when it is asked for: rich takes a while to import, and so does what makes pages.
    match format:
        case "jsonl":
            return Style(json_line)
        case "json":
            return Style(_json, start="[\n", between=",\n", end="\n]\n")
        case "csv":
            return Style(_csv_rows, start=csv_text([CSV_COLUMNS]))
        case "table":
            from timesformer_cli.table import Table

            table = Table(origin.labels, raw=origin.raw, plain=target is not None)
            return Style(table.rows, start=table.header())
        case "srt" | "vtt":
            from timesformer_cli.subtitles import srt_style, vtt_style

            return (srt_style if format == "srt" else vtt_style)(raw=origin.raw)
        case "html":
            from timesformer_cli.page import style

            folder = Path() if target is None else target.parent
            return style(origin.model, origin.labels, raw=origin.raw, recipe=origin.recipe, folder=folder)
        case "activitynet" | "labelstudio" | "fiftyone":
            from timesformer_cli.interchange import activitynet_style, fiftyone_style, labelstudio_style

            if format == "fiftyone":
                return fiftyone_style(origin.labels)
            return activitynet_style() if format == "activitynet" else labelstudio_style(raw=origin.raw)
        case "parquet":
            raise UsageError("Parquet cannot be written to a pipe or a terminal: name a file with --output")


def write_file(path: Path, format: Format, records: Iterable[Record], origin: Origin) -> None:
    """Write all of `records` to the new file `path`. Raises OSError."""
    if format == "parquet":
        from timesformer_cli.parquet import write_parquet

        write_parquet(path, (row for record in records for row in to_rows(record)), CSV_COLUMNS)
        return
    with path.open("wb") as file:
        for text in open_style(format, origin, path).texts(records):
            file.write(encoded(text))


def json_line(record: Record) -> str:
    """The record as one of JSON lines."""
    return _json(record) + "\n"


def private_line(record: Record) -> str:
    """The same, with the fields that are for some formats alone."""
    return _dumped(record) + "\n"


def _json(record: Record) -> str:
    return _dumped(public(record))


def _dumped(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def _csv_rows(record: Record) -> str:
    return csv_text([row.get(column) for column in CSV_COLUMNS] for row in to_rows(record))


def to_rows(record: Record) -> Iterator[Record]:
    """The rows of one record: one for each rank of each segment, or one for a video without.

    Columns that a row lacks are empty.
    """
    cells = {key: value for key, value in record.items() if key in CSV_COLUMNS}
    if record["status"] == "error":
        yield cells | {f"error_{key}": value for key, value in record["error"].items()}
    for span in spans(record):
        for prediction in span["predictions"] or [{}]:
            yield cells | record["video"] | {"start": span["start"], "end": span["end"]} | prediction


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
