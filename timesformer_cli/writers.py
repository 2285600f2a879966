"""Results as the user reads them: a table, JSON lines, one JSON array, or CSV, from one record per video."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.records import Failure, Prediction, Result, ViewLabel
from timesformer_cli.specs import Checkpoint

Format = Literal["table", "json", "jsonl", "csv", "parquet"]

Record = dict[str, Any]

_BY_EXTENSION: dict[str, Format] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}

CSV_COLUMNS = (
    "path",
    "status",
    "model",
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


def check_target(target: Path, *, overwrite: bool) -> None:
    """Find out, before any work is done, that `target` cannot be written.

    Raises:
        OutputError: its folder does not exist or cannot be written, it is a folder itself, or it
            exists and may not be overwritten.
    """
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file to write")
    if target.is_file() and not overwrite:
        raise OutputError(f"{target}: exists already; choose another name, --resume or --overwrite")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OutputError(f"{target}: cannot be written (permission denied)")


def to_record(result: Result, checkpoint: Checkpoint, top_k: int) -> Record:
    """The record of one video, with the fields and their order that the command line promises."""
    head: Record = {"path": result.item.path, "status": "ok", "model": checkpoint.name}
    if isinstance(result, Failure):
        return head | {"status": "error", "error": {"kind": result.kind, "message": result.message}}
    info = result.info
    return head | {
        "predictions": _predictions(result, checkpoint.labels, top_k),
        "video": {
            "duration": _rounded(info.duration),
            "fps": _rounded(info.fps),
            "frames": info.num_frames,
            "width": info.width,
            "height": info.height,
            "codec": info.codec,
        },
        "views": [_view(view) for view in result.views],
        "recipe": checkpoint.recipe.name,
    }


def _view(view: ViewLabel) -> Record:
    record: Record = {"clip": view.clip, "crop": view.crop, "frames": list(view.frames)}
    # A video with fewer frames than a clip asks for: some are shown again.
    repeated = len(view.frames) - len(set(view.frames))
    return record | ({"repeated": repeated} if repeated else {})


def _predictions(result: Prediction, labels: tuple[str, ...], top_k: int) -> list[Record]:
    best = np.argsort(-result.scores, kind="stable")[:top_k]  # of equal scores, the lower index first
    return [
        {"rank": rank, "index": int(index), "label": labels[index], "score": _shortest(result.scores[index])}
        for rank, index in enumerate(best, 1)
    ]


def _shortest(score: np.float32) -> float:
    """The number that prints with the fewest digits and is `score` again when read as float32."""
    return float(np.format_float_scientific(score, unique=True))


def _rounded(value: float) -> float | None:
    # A container can state a rate that makes no finite number, and JSON has no other kind.
    return round(value, 3) if math.isfinite(value) else None


class Writer:
    """Writes each result as it comes: one piece of text, flushed, so that a stop leaves only whole records."""

    def __init__(self, output: "_Output", style: "_Style", checkpoint: Checkpoint, top_k: int) -> None:
        self._output = output
        self._style = style
        self._checkpoint = checkpoint
        self._top_k = top_k
        self._count = 0

    def write(self, result: Result) -> None:
        """Write one result. Raises OutputError when it cannot be written, BrokenPipeError when no one reads."""
        record = to_record(result, self._checkpoint, self._top_k)
        before = self._style.between if self._count else self._style.start
        self._count += 1
        self._output.write(before + self._style.render(record))


@contextmanager
def open_writer(target: Path | None, format: Format, checkpoint: Checkpoint, *, top_k: int) -> Iterator[Writer]:
    """A writer to the file `target`, or to standard output.

    The file is made with the first record. JSON lines, CSV and tables grow in it record by record;
    half a JSON array would be of no use, so that is written beside it, as NAME.part, and gets its
    name when it is whole. Leaving the context early, as by Ctrl-C, makes what was written whole.
    """
    output = _Output(target, aside=format == "json")
    style = _style(format, checkpoint, target)
    try:
        yield Writer(output, style, checkpoint, top_k)
    finally:
        output.finish(style.end)


class _Output:
    """The file or standard output, as bytes: UTF-8, whatever the locale says."""

    def __init__(self, target: Path | None, *, aside: bool) -> None:
        self._target = target
        # A device or a named pipe cannot be replaced by a finished file.
        aside = aside and target is not None and (target.is_file() or not target.exists())
        self._part = target.with_name(target.name + ".part") if target is not None and aside else None
        self._stream: IO[bytes] | None = None
        self._failed = False

    def write(self, text: str) -> None:
        # In JSON, the backslash escape of a byte that is no UTF-8 reads back as that very byte.
        data = text.encode("utf-8", "backslashreplace")
        try:
            if self._stream is None:
                self._stream = self._open()
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            self._failed = True
            if isinstance(error, BrokenPipeError):
                raise
            name = "standard output" if self._target is None else self._target
            raise OutputError(f"{name}: cannot be written ({error.strerror})") from error

    def finish(self, end: str) -> None:
        """Write `end` after whatever was written, and close. After a failed write, only close."""
        if self._stream is None:
            return
        try:
            if end and not self._failed:
                self.write(end)
        finally:
            if self._target is not None:
                with suppress(OSError):  # what failed to be written once fails again, and was told
                    self._stream.close()
        if self._target is not None and self._part is not None and not self._failed:
            self._part.replace(self._target)

    def _open(self) -> IO[bytes]:
        if self._target is None:
            return sys.stdout.buffer
        return (self._part or self._target).open("wb")


@dataclass(frozen=True)
class _Style:
    """A format: the text of a record, and what stands before the first, between two, and after the last."""

    render: Callable[[Record], str]
    start: str = ""
    between: str = ""
    end: str = ""


def _style(format: Format, checkpoint: Checkpoint, target: Path | None) -> _Style:
    match format:
        case "jsonl":
            return _Style(json_line)
        case "json":
            return _Style(_json, start="[\n", between=",\n", end="\n]\n")
        case "csv":
            return _Style(_csv_rows, start=csv_text([CSV_COLUMNS]))
        case "table":
            from timesformer_cli.table import Table  # rich takes a while to import, and only a table needs it

            table = Table(checkpoint.labels, raw=checkpoint.combine == "raw_logits", plain=target is not None)
            return _Style(table.rows, start=table.header())
        case "parquet":
            raise UsageError("Parquet cannot be written to a pipe or a terminal: name a file with --output")


def json_line(record: Record) -> str:
    """The record as one of JSON lines."""
    return _json(record) + "\n"


def _json(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def _csv_rows(record: Record) -> str:
    return csv_text([row.get(column) for column in CSV_COLUMNS] for row in to_rows(record))


def to_rows(record: Record) -> list[Record]:
    """The rows of one record: one for each rank, or one for a video that failed. Columns they lack are empty."""
    cells = {key: value for key, value in record.items() if key in CSV_COLUMNS}
    if record["status"] == "error":
        return [cells | {f"error_{key}": value for key, value in record["error"].items()}]
    return [cells | record["video"] | prediction for prediction in record["predictions"]]


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
