"""Read files of vectors, also larger than the memory: blocks of vectors, and any of their rows.

A row here is one that has a vector; they are counted from 0. Only `VectorFile.entries` gives failed videos too.
"""

import csv
import json
import mmap
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timesformer_cli import strict_json
from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.files import is_locked, told
from timesformer_cli.results.formats.parquet import check_pyarrow
from timesformer_cli.results.journal import journal_of, meta_of
from timesformer_cli.results.settings import Provenance, VectorKind
from timesformer_cli.results.vectors.rows import (
    METADATA,
    ROWS_IN_A_GROUP,
    VECTOR_FORMATS,
    VectorFormat,
    VectorRow,
    companion_of,
    provenance_in,
    vector_format,
)

# Vectors that are compared at a time: 100 MB of the base size.
BLOCK = 32_768

# A byte of a file name that is not UTF-8, as `writing` writes it where text must be UTF-8.
_ESCAPED = re.compile(r"\\ud(c[89a-f][0-9a-f])")

_PIECE = 2**24

# Lines of JSON that are parsed as one list, which takes half of the time: few enough not to be checked for depth.
_TOGETHER = 64


class _Table(Protocol):
    """What a format gives: the vectors in blocks, and rows without their vectors."""

    count: int

    def blocks(self, size: int) -> Iterator[NDArray[Any]]: ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]: ...

    def rows(self, rows: Sequence[int]) -> list[VectorRow]: ...

    def find(self, path: str) -> NDArray[np.int64]: ...

    def entries(self) -> Iterator[VectorRow]: ...


@dataclass(frozen=True, slots=True, eq=False)
class VectorFile:
    """An open file of vectors; `provenance` is that of the run that made them."""

    path: Path
    provenance: Provenance
    _table: _Table

    @property
    def kind(self) -> VectorKind:
        assert self.provenance.vectors is not None
        return self.provenance.vectors

    @property
    def count(self) -> int:
        """N, the number of vectors."""
        return self._table.count

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors, float32 (n, D) with n at most `size`, each block with the number of its first row.

        A Parquet file gives its row groups, whatever `size` is. The arrays may be parts of the mapped file: they are
        not to be changed. Whether the numbers are finite is not checked.

        Raises:
            InputError: the file is damaged.
        """
        first = 0
        with _readable(self.path):
            for block in self._table.blocks(size):
                yield first, block.astype(np.float32, copy=False)
                first += len(block)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of these rows, float32 (n, D). Raises InputError for a damaged file."""
        with _readable(self.path):
            return self._table.take(np.asarray(rows, np.int64)).astype(np.float32)

    def rows(self, rows: Sequence[int]) -> list[VectorRow]:
        """These rows, without their vectors. Raises InputError for a damaged file."""
        with _readable(self.path):
            return self._table.rows(rows)

    def find(self, path: str) -> NDArray[np.int64]:
        """The rows of the video with this path, in order, int64; none if the file does not have it.

        Raises:
            InputError: the file is damaged.
        """
        with _readable(self.path):
            return self._table.find(path)

    def entries(self) -> Iterator[VectorRow]:
        """All rows in order, with their vectors float32 (D,), and in formats that have them the failed videos.

        Raises:
            InputError: the file is damaged, or a vector is not finite.
        """
        with _readable(self.path):
            for row in self._table.entries():
                if row.vector is not None and not np.isfinite(row.vector).all():
                    raise InputError(f"{self.path}: the vector of {row.path} has numbers that are not finite")
                yield row


def open_vectors(path: Path) -> VectorFile:
    """Open a file that `embed` wrote. The vectors of .npy and .npz are mapped to memory; JSON lines and CSV are read.

    Raises:
        InputError: the file does not exist, is empty or damaged, is being written, or does not state its settings; or
            pyarrow is missing for Parquet.
        UsageError: no format has its extension.
    """
    try:
        format = vector_format(path)
    except UsageError:
        known = ", ".join(f".{name}" for name in VECTOR_FORMATS)
        raise UsageError(f"{path}: is no file of vectors, whose names end in {known}") from None
    _check_there(path)
    if format == "parquet":
        check_pyarrow()
    with _readable(path):
        provenance = _provenance_of(path, format)
        kind = provenance.vectors
        assert kind is not None
        table = _OPEN[format](path, kind)
        return VectorFile(path, provenance, table)


def _check_there(path: Path) -> None:
    if is_locked(path):
        raise InputError(f"{path}: another run is writing to it; wait until it ends")
    if not path.is_file():
        if journal_of(path, grows=False).exists():
            raise InputError(f"{path}: its run was interrupted; complete it with `resume`")
        what = "is a folder; name a file of vectors in it" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}")
    with told(path, "read", InputError):
        empty = path.stat().st_size == 0
    if empty:
        raise InputError(f"{path}: is empty; make it again with `timesformer embed`")


class _readable:
    """Whatever the libraries raise for a damaged file becomes an InputError of one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (ValueError, KeyError, IndexError, TypeError, EOFError, OSError, zipfile.BadZipFile)):
            reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]
            raise InputError(
                f"{self._path}: cannot be read as a file of vectors ({reason}); copy it again, or make it again with "
                "`timesformer embed`"
            ) from error


def _provenance_of(path: Path, format: VectorFormat) -> Provenance:
    """The settings in the file, or beside it. Raises InputError."""
    try:
        settings = _INSIDE[format](path) if format in _INSIDE else _beside(path)
    except (FileNotFoundError, KeyError):
        where = (
            "has no settings" if format in _INSIDE else f"{meta_of(path).name}, which holds its settings, is missing"
        )
        raise InputError(
            f"{path}: {where}, so nobody can tell which model made its vectors; make it with `timesformer embed`"
        ) from None
    try:
        return provenance_in(settings)
    except ValueError as error:
        raise InputError(
            f"{path}: its settings are not those of vectors ({error}); make it with `timesformer embed`"
        ) from error


def _beside(path: Path) -> Mapping[str, Any]:
    meta = strict_json.read(meta_of(path))
    if meta["finished"] is None:
        raise InputError(f"{path}: its run was interrupted; complete it with `resume`")
    settings: Mapping[str, Any] = meta["settings"]
    return settings


def _in_parquet(path: Path) -> Mapping[str, Any]:
    from pyarrow import parquet

    metadata = parquet.read_schema(path).metadata or {}
    settings: Mapping[str, Any] = strict_json.loads(metadata[METADATA.encode()])
    return settings


def _in_npz(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        settings: Mapping[str, Any] = strict_json.loads(str(file[METADATA]))
    return settings


_INSIDE: Mapping[VectorFormat, Callable[[Path], Mapping[str, Any]]] = {"parquet": _in_parquet, "npz": _in_npz}


class _Arrays:
    """Vectors in an array (N, D), mapped or in memory, and rows from elsewhere."""

    def __init__(self, vectors: NDArray[Any], kind: VectorKind, labels: "_Lines | _Columns") -> None:
        _check_array(vectors, kind)
        self.count = len(vectors)
        self._vectors, self._labels = vectors, labels
        self.rows, self.find = labels.rows, labels.find

    def blocks(self, size: int) -> Iterator[NDArray[Any]]:
        return (self._vectors[first : first + size] for first in range(0, self.count, size))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self._vectors[rows])

    def entries(self) -> Iterator[VectorRow]:
        for first in range(0, self.count, ROWS_IN_A_GROUP):
            block = range(first, min(first + ROWS_IN_A_GROUP, self.count))
            for place, row in zip(block, self._labels.rows(block), strict=True):
                yield replace(row, vector=np.array(self._vectors[place], np.float32))


def _check_array(vectors: NDArray[Any], kind: VectorKind) -> None:
    if vectors.ndim != 2 or vectors.dtype.name != kind.dtype or vectors.shape[1] != kind.dimension:
        raise ValueError(
            f"it holds {vectors.dtype} {list(vectors.shape)}, and its settings state {kind.dtype} "
            f"[any, {kind.dimension}]"
        )


class _Lines:
    """The rows of a file of JSON lines; only those that are asked for are parsed."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._found: dict[str, NDArray[np.int64]] = {}

    @cached_property
    def _text(self) -> mmap.mmap | bytes:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._count else b""

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """The position of the newline of each line."""
        found = []
        for first in range(0, len(self._text), _PIECE):
            piece = np.frombuffer(self._text[first : first + _PIECE], np.uint8)
            found.append(np.flatnonzero(piece == ord("\n")) + first)
        ends = np.concatenate(found) if found else np.zeros(0, np.int64)
        if len(ends) != self._count:
            raise ValueError(f"{self._path.name} has {len(ends)} rows for {self._count} vectors")
        return ends

    def rows(self, rows: Sequence[int]) -> list[VectorRow]:
        parts = (rows[first : first + _TOGETHER] for first in range(0, len(rows), _TOGETHER))
        return [row for part in parts for row in self._parsed(part)]

    def _parsed(self, rows: Sequence[int]) -> Iterator[VectorRow]:
        ends = self._ends
        lines = (self._text[ends[row - 1] + 1 if row else 0 : ends[row]] for row in rows)
        cells = strict_json.loads(b"[" + b",".join(lines) + b"]")
        if len(cells) != len(rows):
            raise ValueError(f"{self._path.name} has lines that are not one object each")
        return map(_row_of, cells)

    def find(self, path: str) -> NDArray[np.int64]:
        if path not in self._found:
            self._found[path] = self._rows_of(path)
        return self._found[path]

    def _rows_of(self, path: str) -> NDArray[np.int64]:
        """The rows of a video, which follow each other: a run reads no video twice."""
        start = f'{{"path": {json.dumps(path, ensure_ascii=False)}, '.encode("utf-8", "backslashreplace")
        place = self._text.find(start)
        if place < 0:
            return np.empty(0, np.int64)
        # Behind the newline before it, or at the very beginning.
        first = end = int(np.searchsorted(self._ends, place))
        while end < len(self._ends) and self._text[place : place + len(start)] == start:
            place = int(self._ends[end]) + 1
            end += 1
        return np.arange(first, end)


class _Columns:
    """Rows of which each column is in memory: an array, or a list for texts."""

    def __init__(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]], count: int) -> None:
        if any(len(column) != count for column in columns.values()):
            raise ValueError(f"its columns do not all have {count} rows")
        self._columns = columns

    def rows(self, rows: Sequence[int]) -> list[VectorRow]:
        return [_row_of({name: _value(column[row]) for name, column in self._columns.items()}) for row in rows]

    def find(self, path: str) -> NDArray[np.int64]:
        return np.flatnonzero(np.asarray(self._columns["path"]) == path)


def _value(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and np.isnan(plain) else plain


def _row_of(cells: Mapping[str, Any]) -> VectorRow:
    """A row from a file. Raises ValueError for cells of other types."""
    fields = {name: cells.get(name) for name in ("start", "end", "time", "frame", "error_kind", "error_message")}
    if not isinstance(cells["path"], str) or any(
        value is not None
        and type(value) is not (str if name.startswith("error") else int if name == "frame" else float)
        for name, value in fields.items()
    ):
        raise ValueError(f"{cells} is not a row")
    return VectorRow(cells.get("video", 0), cells["path"], **fields)


def _open_npy(path: Path, kind: VectorKind) -> _Arrays:
    beside = companion_of(path, "npy")
    assert beside is not None
    if not beside.is_file():
        raise InputError(f"{path}: {beside.name}, which holds the paths and times of its rows, is missing; copy it too")
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    return _Arrays(vectors, kind, _Lines(beside, len(vectors)))


def _open_npz(path: Path, kind: VectorKind) -> _Arrays:
    vectors = _mapped(path, "embedding.npy")
    with np.load(path, allow_pickle=False) as file:
        vectors = file["embedding"] if vectors is None else vectors
        columns = {name: file[name] for name in file.files if name not in ("embedding", METADATA)}
    return _Arrays(vectors, kind, _Columns(columns, len(vectors)))


def _mapped(path: Path, member: str) -> NDArray[Any] | None:
    """An array of an archive, mapped to memory; None if it is compressed or empty."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            header = file.tell()
    if 0 in shape:
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # the lengths of its name and of its extra field
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return np.memmap(path, dtype, "r", info.header_offset + 30 + name + extra + header, shape)


class _Read:
    """Rows that were read whole, with those of failed videos."""

    def __init__(self, rows: Iterable[VectorRow], kind: VectorKind) -> None:
        self._entries = list(_numbered(rows))
        self._good = [row for row in self._entries if row.vector is not None]
        self.count = len(self._good)
        self.videos = self._entries[-1].video + 1 if self._entries else 0
        vectors = [row.vector for row in self._good]
        self._vectors = np.array(vectors, np.float32) if vectors else np.zeros((0, kind.dimension), np.float32)
        _check_array(self._vectors, replace(kind, dtype="float32"))

    def blocks(self, size: int) -> Iterator[NDArray[Any]]:
        return (self._vectors[first : first + size] for first in range(0, self.count, size))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self._vectors[rows]

    def rows(self, rows: Sequence[int]) -> list[VectorRow]:
        return [replace(self._good[row], vector=None) for row in rows]

    def find(self, path: str) -> NDArray[np.int64]:
        return np.array([number for number, row in enumerate(self._good) if row.path == path], np.int64)

    def entries(self) -> Iterator[VectorRow]:
        return iter(self._entries)


def _numbered(rows: Iterable[VectorRow]) -> Iterator[VectorRow]:
    """Rows with the numbers of their videos, which follow each other: a run reads no video twice."""
    number, before = -1, None
    for row in rows:
        number += row.path != before
        before = row.path
        yield replace(row, video=number)


def _open_jsonl(path: Path, kind: VectorKind) -> _Read:
    with path.open("rb") as file:
        return _complete(path, _Read([_with_vector(strict_json.loads(line), kind) for line in file], kind))


def _open_csv(path: Path, kind: VectorKind) -> _Read:
    csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
    with path.open(encoding="utf-8", newline="") as file:
        return _complete(path, _Read([_with_vector(_cells(line), kind) for line in csv.DictReader(file)], kind))


def _complete(path: Path, read: _Read) -> _Read:
    """What was read, if it has all videos: a part of a file of lines is such a file too. Raises ValueError."""
    held = strict_json.read(meta_of(path))["finished"]["videos"]
    if read.videos != held:
        raise ValueError(f"it has {read.videos} of {held} videos")
    return read


def _cells(line: Mapping[str, str]) -> dict[str, Any]:
    """The cells of a line of CSV, as JSON lines have them."""
    read: dict[str, Callable[[str], Any]] = {
        "start": float,
        "end": float,
        "time": float,
        "frame": int,
        "embedding": strict_json.loads,
    }
    cells = {name: read.get(name, str)(text) if text else None for name, text in line.items()}
    return cells | {"path": _unescaped(line["path"])}


def _with_vector(cells: Mapping[str, Any], kind: VectorKind) -> VectorRow:
    """A row with its vector. Raises ValueError or TypeError for cells of other types."""
    # Their digits are those that tell numbers of the dtype apart.
    vector = None if cells["embedding"] is None else np.array(cells["embedding"], kind.dtype).astype(np.float32)
    return replace(_row_of(cells), vector=vector)


def _unescaped(text: str) -> str:
    """The path that a text in UTF-8 stands for, with the bytes that are not."""
    return _ESCAPED.sub(lambda found: chr(int(f"d{found[1]}", 16)), text)


class _Parquet:
    """Row groups are read as they are needed; the other columns once, when a row is asked for."""

    def __init__(self, path: Path, kind: VectorKind) -> None:
        from pyarrow.parquet import ParquetFile

        self._path, self._kind = path, kind
        self._file = ParquetFile(path, memory_map=True)
        column = self._file.schema_arrow.field("embedding").type
        dtype = {"float": "float32", "halffloat": "float16"}.get(str(getattr(column, "value_type", column)))
        if (getattr(column, "list_size", None), dtype) != (kind.dimension, kind.dtype):
            raise ValueError(f"its embedding is {column}, and its settings state {kind.dtype} [{kind.dimension}]")
        self.count = len(self._places)

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """All columns except the vectors, as Arrow's arrays."""
        names = [name for name in self._file.schema_arrow.names if name != "embedding"]
        table = self._file.read(columns=names)
        return {name: table[name] for name in names}

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """The number of the line of each row that has a vector."""
        failed = self._file.read(columns=["error_kind"])["error_kind"]
        return np.flatnonzero(np.asarray(failed.is_null()))

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        """The first row of each row group, and the number of rows."""
        metadata = self._file.metadata
        lines = np.cumsum([0, *(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))])
        return np.searchsorted(self._places, lines)

    def _group(self, number: int) -> NDArray[Any]:
        """The vectors of a row group."""
        column = self._file.read_row_group(number, columns=["embedding"])["embedding"]
        parts = [np.asarray(chunk.flatten()) for chunk in column.chunks]  # leaves out null
        vectors = np.concatenate(parts) if len(parts) != 1 else parts[0]
        return vectors.reshape(-1, self._kind.dimension)

    def blocks(self, size: int) -> Iterator[NDArray[Any]]:
        return (self._group(number) for number in range(len(self._firsts) - 1))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        taken = np.empty((len(rows), self._kind.dimension), self._kind.dtype)
        groups = np.searchsorted(self._firsts, rows, side="right") - 1
        for number in np.unique(groups).tolist():
            chosen = groups == number
            taken[chosen] = self._group(number)[rows[chosen] - self._firsts[number]]
        return taken

    def rows(self, rows: Sequence[int]) -> list[VectorRow]:
        lines = self._places[np.asarray(rows, np.int64)]
        columns = {name: column.take(lines).to_pylist() for name, column in self._columns.items()}
        return [
            _row_of({name: column[place] for name, column in columns.items()} | {"path": _unescaped(path)})
            for place, path in enumerate(columns["path"])
        ]

    def find(self, path: str) -> NDArray[np.int64]:
        import pyarrow.compute as compute

        text = path.encode("utf-8", "backslashreplace").decode("utf-8")
        lines = np.flatnonzero(np.asarray(compute.equal(self._columns["path"], text)))
        rows = np.searchsorted(self._places, lines)
        return rows[np.isin(lines, self._places)]

    def entries(self) -> Iterator[VectorRow]:
        return _numbered(self._lines())

    def _lines(self) -> Iterator[VectorRow]:
        for batch in self._file.iter_batches(batch_size=1000):
            columns = {name: batch[name].to_pylist() for name in batch.schema.names if name != "embedding"}
            vectors = iter(np.asarray(batch["embedding"].flatten()).reshape(-1, self._kind.dimension))
            for place, path in enumerate(columns["path"]):
                cells = {name: column[place] for name, column in columns.items()} | {"path": _unescaped(path)}
                row = _row_of(cells)
                yield row if row.error_kind else replace(row, vector=np.array(next(vectors), np.float32))


_OPEN: Mapping[VectorFormat, Callable[[Path, VectorKind], _Table]] = {
    "parquet": _Parquet,
    "npz": _open_npz,
    "npy": _open_npy,
    "jsonl": _open_jsonl,
    "csv": _open_csv,
}
