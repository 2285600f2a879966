"""Write files of vectors row by row: at most a few thousand rows are in memory."""

import csv
import json
import struct
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from timesformer_cli.errors import OutputError
from timesformer_cli.files import encoded, replacing
from timesformer_cli.results.npz import Columns, add_text
from timesformer_cli.results.settings import Provenance, VectorKind
from timesformer_cli.results.vectors.rows import (
    METADATA,
    ROWS_IN_A_GROUP,
    VectorFormat,
    VectorRow,
    companion_of,
    described,
)

_TIMES = ("start", "end")
_OF_FRAMES = ("time", "frame")
_ERRORS = ("error_kind", "error_message")


def save_vectors(path: Path, rows: Iterable[VectorRow], provenance: Provenance, *, format: VectorFormat) -> None:
    """Write `rows` to `path`, whatever its extension: the file is there as a whole, or as it was before.

    The vectors are converted as `provenance.vectors` says. D is the dimension, N the number of rows with a vector.

    - parquet: the columns `path`, `start`, `end` (null for whole videos), `embedding` (a list of fixed size, null if
      the video failed), `error_kind` and `error_message`; the settings as JSON in the metadata of the schema;
    - npz: `embedding` (N, D), `path`, `start`, `end` (NaN for whole videos), `video` (the number of the video in the
      run, int64), and the settings as JSON in `timesformer`;
    - npy: the array (N, D), and beside it a file of JSON lines with `path`, `start`, `end` and `video` of each row;
    - jsonl, csv: the columns of parquet.

    Vectors of frames also have `time` and `frame`. Videos that failed have no row in npz and npy. The last three have
    no place for the settings, which are in the file that the journal of a run keeps beside its output.

    Raises:
        OutputError: the file cannot be written; or a vector is not finite.
    """
    kind = provenance.vectors
    assert kind is not None
    write = {"parquet": _write_parquet, "npz": _write_npz, "jsonl": _write_jsonl, "csv": _write_csv}
    beside = companion_of(path, format)
    if beside is None:
        with replacing(path) as part:
            write[format](part, rows, kind, json.dumps(described(provenance)))
    else:
        with replacing(beside) as lines, replacing(path) as part:
            _write_npy(part, lines, rows, kind)


def columns_of(kind: VectorKind) -> tuple[str, ...]:
    """The columns of a row, apart from those of failures."""
    return ("path", *_TIMES, *(_OF_FRAMES if kind.feature == "frames" else ()), "embedding")


def converted(row: VectorRow, kind: VectorKind) -> NDArray[Any]:
    """The vector of a row, which has one, as the file holds it: (D,) in its dtype. Raises OutputError."""
    assert row.vector is not None
    values = row.vector
    if kind.normalized:
        norm = float(np.linalg.norm(values.astype(np.float64)))
        values = (values / (norm or 1.0)).astype(np.float32)
    with np.errstate(over="ignore"):
        values = values.astype(kind.dtype)
    if not np.isfinite(values).all():
        hint = "; float32 may hold them" if kind.dtype == "float16" else "; are the model's weights damaged?"
        raise OutputError(f"{row.path}: its vector has numbers that are not finite in {kind.dtype}{hint}")
    return values


def json_row(row: VectorRow, kind: VectorKind) -> str:
    """The row as one line of JSON; numbers have as few digits as tell them apart."""
    cells = {name: getattr(row, name) for name in columns_of(kind)[:-1]}
    text = json.dumps(cells, ensure_ascii=False, allow_nan=False)[:-1] + f', "embedding": {_list(row, kind)}'
    if row.vector is None:
        text += "".join(f', "{name}": {json.dumps(getattr(row, name), ensure_ascii=False)}' for name in _ERRORS)
    return text + "}\n"


def csv_head(kind: VectorKind) -> tuple[str, ...]:
    return (*columns_of(kind), *_ERRORS)


def csv_row(row: VectorRow, kind: VectorKind) -> list[object]:
    """The cells of a row; the vector is a JSON list, and of a failure it is empty."""
    cells = [getattr(row, name) for name in columns_of(kind)[:-1]]
    return [*cells, None if row.vector is None else _list(row, kind), row.error_kind, row.error_message]


def _list(row: VectorRow, kind: VectorKind) -> str:
    return "null" if row.vector is None else f"[{', '.join(map(str, converted(row, kind)))}]"


def _write_jsonl(path: Path, rows: Iterable[VectorRow], kind: VectorKind, _: str) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(encoded(json_row(row, kind)))


def _write_csv(path: Path, rows: Iterable[VectorRow], kind: VectorKind, _: str) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(csv_head(kind))
        writer.writerows(csv_row(row, kind) for row in rows)


def _write_npy(path: Path, lines: Path, rows: Iterable[VectorRow], kind: VectorKind) -> None:
    number = 0
    with path.open("wb") as file, lines.open("wb") as beside:
        length = _npy_header(file, kind, 0)
        for row in rows:
            if row.vector is None:
                continue
            file.write(converted(row, kind).astype(_stored(kind)).tobytes())
            cells = {name: getattr(row, name) for name in (*columns_of(kind)[:-1], "video")}
            beside.write(encoded(json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n"))
            number += 1
        file.seek(0)
        # NumPy leaves room for 20 digits of the first dimension.
        assert _npy_header(file, kind, number) == length


def _npy_header(file: Any, kind: VectorKind, count: int) -> int:
    """Write the header of an array of `count` vectors; returns its length in bytes."""
    header = {"descr": _stored(kind), "fortran_order": False, "shape": (count, kind.dimension)}
    write_array_header_1_0(file, header)
    return int(file.tell())


def _stored(kind: VectorKind) -> str:
    return "<f2" if kind.dtype == "float16" else "<f4"


def _write_npz(path: Path, rows: Iterable[VectorRow], kind: VectorKind, settings: str) -> None:
    floats = [*_TIMES, *(["time"] if kind.feature == "frames" else [])]
    counts = ["video", *(["frame"] if kind.feature == "frames" else [])]
    with Columns(path.parent, ("embedding", *floats, *counts), ("path",)) as columns:
        number = 0
        for row in rows:
            if row.vector is None:
                continue
            number += 1
            columns.add("embedding", converted(row, kind).astype(_stored(kind)).tobytes())
            columns.add_text("path", row.path)
            for name in floats:
                value = getattr(row, name)
                columns.add(name, struct.pack("<d", np.nan if value is None else value))
            for name in counts:
                columns.add(name, struct.pack("<q", getattr(row, name)))
        with ZipFile(path, "w") as archive:
            columns.write(archive, "embedding", _stored(kind), (number, kind.dimension))
            columns.write_texts(archive, "path")
            for name in floats:
                columns.write(archive, name, "<f8", (number,))
            for name in counts:
                columns.write(archive, name, "<i8", (number,))
            add_text(archive, METADATA, settings)


def _write_parquet(path: Path, rows: Iterable[VectorRow], kind: VectorKind, settings: str) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    number = arrow.float16() if kind.dtype == "float16" else arrow.float32()
    types = {"path": arrow.string(), "start": arrow.float64(), "end": arrow.float64()}
    types |= {"time": arrow.float64(), "frame": arrow.int64()} if kind.feature == "frames" else {}
    types |= {"embedding": arrow.list_(number, kind.dimension)} | dict.fromkeys(_ERRORS, arrow.string())
    schema = arrow.schema(types, metadata={METADATA: settings})
    # The bytes of like place in the numbers, side by side, take less room. Old versions can split float32 only.
    split = ["embedding.list.element"] if kind.dtype == "float32" else []
    texts = ["path", *_ERRORS]
    iterator = iter(rows)
    with ParquetWriter(path, schema, compression="zstd", use_dictionary=texts, use_byte_stream_split=split) as writer:
        while group := list(islice(iterator, ROWS_IN_A_GROUP)):
            columns = {name: [_plain(getattr(row, name)) for row in group] for name in types if name != "embedding"}
            arrays = [_vectors(group, kind) if name == "embedding" else columns[name] for name in types]
            writer.write_table(arrow.table(arrays, schema=schema))


def _vectors(group: list[VectorRow], kind: VectorKind) -> Any:
    """The vectors of a row group as a column of Parquet."""
    import pyarrow as arrow

    flat = np.zeros((len(group), kind.dimension), kind.dtype)
    for place, row in enumerate(group):
        if row.vector is not None:
            flat[place] = converted(row, kind)
    missing = arrow.array([row.vector is None for row in group])
    return arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), kind.dimension, mask=missing)


def _plain(value: object) -> object:
    # File names can hold bytes that are not UTF-8; they are written as in CSV.
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
