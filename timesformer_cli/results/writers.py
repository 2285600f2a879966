"""Write results: one record per video, in any of the formats."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, TextIO, get_args

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.files import encoded
from timesformer_cli.results.record import CSV_COLUMNS, Origin, Record, Style, json_line, json_text, to_rows

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


def choose_format(target: Path | None, *, terminal: bool) -> Format:
    """The format for `target`, by extension; without a target, a table on a `terminal`, else JSON lines.

    Raises:
        UsageError: the extension is unknown.
    """
    if target is None:
        return "table" if terminal else "jsonl"
    try:
        return _BY_EXTENSION[target.suffix.lower()]
    except KeyError:
        known = ", ".join(_BY_EXTENSION)
        raise UsageError(f"{target}: no format has this extension; use one of {known}, or `format`") from None


# Bytes. Browsers hold no text of more than half a gigabyte, and a page is one.
LARGEST_PAGE = 4 * 10**8


def too_large_to_open(target: Path, format: str, size: int) -> str | None:
    """A sentence if a page of `size` bytes is larger than browsers open."""
    if format != "html" or size <= LARGEST_PAGE:
        return None
    return (
        f"{target}: a page of more than {LARGEST_PAGE // 10**6} MB, which browsers do not open; name a .jsonl file "
        "instead, or a page for each part of the videos"
    )


class Writer:
    """Writes each record as it comes, and flushes it, so that an interruption leaves only whole records."""

    def __init__(self, output: "_Output", style: Style) -> None:
        self._output = output
        self._style = style
        self._records = self._texts = 0

    def write(self, record: Record) -> None:
        """Write one record.

        Raises:
            OutputError: the record cannot be written.
            BrokenPipeError: the reader of the pipe is gone.
        """
        self._records += 1
        if text := self._style.render(record):
            self._output.write((self._style.between if self._texts else self._style.start) + text)
            self._texts += 1

    def finish(self, *, whole: bool) -> None:
        """Write the end of the format; in a `whole` run, also if no record had a text."""
        if self._texts:
            self._output.finish(self._style.end)
        else:
            self._output.finish(self._style.start + self._style.end if whole and self._records else "")


@contextmanager
def open_writer(target: Path | None, format: Format, origin: Origin) -> Iterator[Writer]:
    """A writer to the file `target`, or to standard output, record by record: see `open_styled`."""
    with open_styled(target, open_style(format, origin, target)) as writer:
        yield writer


@contextmanager
def open_styled(target: Path | None, style: Style) -> Iterator[Writer]:
    """The same for any style.

    The file is created with the first record. Leaving the context early, as by Ctrl-C, still completes the file.
    """
    writer = Writer(_Output(target), style)
    whole = False
    try:
        yield writer
        whole = True
    finally:
        writer.finish(whole=whole)


class _Output:
    """A file or standard output, written as UTF-8, whatever the locale says."""

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
        """Write `end`, and close. After a failed write, only close."""
        try:
            if end and not self._failed:
                self.write(end)
        finally:
            if self._target is not None and self._stream is not None:
                with suppress(OSError):  # the failed write fails again, and was reported
                    self._stream.close()


def open_style(format: Format, origin: Origin, target: Path | None) -> Style:
    """How records become text in `format`, for the file `target` or for standard output.

    Raises:
        UsageError: Parquet, which is not text.
    """
    # Each format is imported on demand: rich takes a while to import, and so do pages.
    match format:
        case "jsonl":
            return Style(json_line)
        case "json":
            return Style(json_text, start="[\n", between=",\n", end="\n]\n")
        case "csv":
            return Style(_csv_rows, start=csv_text([CSV_COLUMNS]))
        case "table":
            from timesformer_cli.results.formats.table import Table

            table = Table(origin.labels, raw=origin.raw, plain=target is not None)
            return Style(table.rows, start=table.header())
        case "srt" | "vtt":
            from timesformer_cli.results.formats.subtitles import srt_style, vtt_style

            return (srt_style if format == "srt" else vtt_style)(raw=origin.raw)
        case "html":
            from timesformer_cli.results.formats.page import style

            folder = Path() if target is None else target.parent
            labels, groups = origin.labels, origin.groups
            return style(origin.model, labels, raw=origin.raw, recipe=origin.recipe, folder=folder, groups=groups)
        case "activitynet" | "labelstudio" | "fiftyone":
            from timesformer_cli.results.formats.interchange import activitynet_style, fiftyone_style, labelstudio_style

            if format == "fiftyone":
                return fiftyone_style(origin.labels)
            return activitynet_style() if format == "activitynet" else labelstudio_style(raw=origin.raw)
        case "parquet":
            raise UsageError("Parquet cannot be written to a pipe or a terminal: name a file with `output`")


def write_file(path: Path, format: Format, records: Iterable[Record], origin: Origin) -> None:
    """Write all of `records` to the new file `path`. Raises OSError."""
    if format == "parquet":
        from timesformer_cli.results.formats.parquet import write_parquet

        write_parquet(path, (row for record in records for row in to_rows(record)), CSV_COLUMNS)
        return
    with path.open("wb") as file:
        for text in open_style(format, origin, path).texts(records):
            file.write(encoded(text))


def _csv_rows(record: Record) -> str:
    return csv_text([_cell(row.get(column)) for column in CSV_COLUMNS] for row in to_rows(record))


def _cell(value: object) -> object:
    return "true" if value is True else value


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of CSV."""
    text = io.StringIO()
    write_csv(text, rows)
    return text.getvalue()


def write_csv(file: TextIO, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as lines of CSV to a file without translation of line ends."""
    csv.writer(file, lineterminator="\n").writerows(rows)
