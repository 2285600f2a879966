"""Annotation files as lines, cells and records, each with its line number. Errors are InputErrors."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from timesformer_cli import strict_json
from timesformer_cli.errors import InputError
from timesformer_cli.flow import WHOLE, Part
from timesformer_cli.video.inputs import VIDEO_EXTENSIONS

Content = Literal["text", "json", "parquet", "folder"]

_HEAD = 2**16  # bytes to detect the kind of a file
_PROBED = 100  # lines to detect the format
_JSON = re.compile(r"\s*(\[\s*[\]{]|\{\s*[\"}])")
_GAP = re.compile(r"[\s,]*")


_NOTHING: Mapping[str, str] = {}


def nothing() -> Mapping[str, str]:
    """One empty mapping for all rows and samples of which nothing more is known."""
    return _NOTHING


@dataclass(frozen=True, slots=True)
class Row:
    """One video of a dataset.

    `name` is a path; without a video file extension it means any file of that name. `labels` are names or numbers;
    empty if the video has no label. `line` counts from 1; 0 is for a video that no file lists. `part` is as for `Item`,
    and `about` as for `Sample`.
    """

    file: str
    line: int
    name: str
    labels: tuple[str, ...]
    split: str | None = None
    part: Part = WHOLE
    about: Mapping[str, str] = field(default_factory=nothing, hash=False)

    @property
    def place(self) -> str:
        return place(self.file, self.line) if self.line else self.file


@dataclass(frozen=True)
class Probe:
    """The beginning of an annotation file, or a folder of them."""

    path: Path

    @cached_property
    def content(self) -> Content:
        """The kind of content. Raises InputError if the file cannot hold annotations."""
        return _content(self.path)

    @cached_property
    def lines(self) -> list[str]:
        """The first lines of text that are not blank, without spaces around them."""
        if self.content != "text":
            return []
        return list(islice((text.strip() for _, text in lines(self.path) if text.strip()), _PROBED))

    @cached_property
    def columns(self) -> Sequence[str]:
        """Names of columns: from the header of a text, the first JSON object, or the Parquet schema."""
        if self.content == "json":
            return list(next((record for _, record in records(self.path)), {}))
        if self.content == "parquet":
            return _parquet_columns(self.path)
        return header(self.lines[0])[1] if self.lines else []

    def mostly(self, fitting: re.Pattern[str]) -> bool:
        """Whether most lines of text have that form; a few may be broken."""
        return 2 * sum(1 for line in self.lines if fitting.fullmatch(line)) > len(self.lines)


def without_extension(name: str) -> str:
    """A name without a video file extension; any other extension is part of the name, as in `v_1.5`."""
    stem, _, extension = name.rpartition(".")
    return stem if stem and extension.lower() in VIDEO_EXTENSIONS else name


def is_video(name: str) -> bool:
    """Whether a name has a video file extension."""
    return without_extension(name) != name


def place(file: str | Path, line: int) -> str:
    return f"{file}: {'row' if str(file).endswith('.parquet') else 'line'} {line}"


def short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _content(path: Path) -> Content:
    try:
        if os.path.isdir(path):
            return "folder"
        # Files are read more than once, which is not possible with pipes.
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: not a regular file; save the annotations to one")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file") from error
    except (OSError, ValueError) as error:  # ValueError: not a possible path
        raise _unreadable(path, error) from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: text in UTF-16; save it in UTF-8")
    if b"\0" in head:
        raise InputError(f"{path}: not text; is it an annotation file?")
    return "json" if _JSON.match(head.decode("utf-8-sig", "replace")) else "text"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """All lines, with their numbers and line ends; bytes that are not UTF-8 are kept, as in paths."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for line, text in enumerate(file, 1):
                if "\0" in text:
                    raise InputError(f"{place(path, line)}: holds a zero byte; plain text was expected")
                yield line, text
    except OSError as error:
        raise _unreadable(path, error) from error


def header(text: str) -> tuple[str, list[str]]:
    """The delimiter of a header, and its columns, in lower case and with underscores for spaces."""
    delimiter = max((",", ";", "\t"), key=text.count)
    return delimiter, [column_name(cell.strip().strip('"')) for cell in text.split(delimiter)]


def column_name(text: str) -> str:
    """A name of a column in a header: in lower case, and with underscores for spaces."""
    return re.sub(r"[\s-]+", "_", text.strip().casefold())


def cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that is not blank, without quotes and spaces around them."""
    reader = csv.reader((text for _, text in lines(path)), delimiter=delimiter, strict=True)
    before = 0
    try:
        for row in reader:
            stripped = [cell.strip() for cell in row]
            if any(stripped):
                yield before + 1, stripped
            before = reader.line_num  # a cell may hold line breaks
    except csv.Error as error:
        raise InputError(f"{place(path, before + 1)}: {error}; is a quote not closed?") from error


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list, or of JSON lines, each with the line where it begins."""
    text = "".join(text for _, text in lines(path))
    position = _after_gap(text, 0)
    in_list = text.startswith("[", position)
    position += in_list
    line, counted = 1, 0
    while (position := _after_gap(text, position)) < len(text) and not (in_list and text[position] == "]"):
        line, counted = line + text.count("\n", counted, position), position
        try:
            record, position = strict_json.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise InputError(f"{place(path, error.lineno)}: not valid JSON ({error.msg})") from error
        except ValueError as error:
            raise InputError(f"{place(path, line)}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise InputError(f"{place(path, line)}: expected a JSON object for each video, not {short(record)}")
        yield line, record
    if in_list and position == len(text):
        raise InputError(f"{place(path, line)}: the JSON list is not closed; was the file cut off?")


def _after_gap(text: str, position: int) -> int:
    match = _GAP.match(text, position)
    assert match  # an empty gap matches too
    return match.end()


def _parquet_columns(path: Path) -> list[str]:
    return next(_from_parquet(path, lambda file: iter([list(file.schema_arrow.names)])))


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The values of these columns, row by row; rows are counted from 1."""
    batches = _from_parquet(path, lambda file: (b.to_pylist() for b in file.iter_batches(columns=list(columns))))
    return enumerate((row for batch in batches for row in batch), 1)


def _from_parquet(path: Path, read: Any) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        hint = "install it with: pip install 'timesformer-cli[parquet]'"
        raise InputError(f"{path}: Parquet needs pyarrow; {hint}") from error
    try:
        with ParquetFile(path) as file:
            yield from read(file)
    except (OSError, ArrowException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not readable as Parquet ({reason}); is it damaged?") from error


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})")
