"""Files with the logits of all classes (npz or Parquet), for metrics and fusion without running the network again."""

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import UsageError
from timesformer_cli.results.formats.parquet import check_pyarrow
from timesformer_cli.results.npz import Columns, add_text, add_texts, utf32
from timesformer_cli.specs import Activation

ROWS_IN_A_GROUP = 4096


@dataclass(frozen=True, slots=True, eq=False)
class LogitsRow:
    """The logits of one span of a video (`start` to `end`, seconds): float32 (K,), the mean over its views."""

    path: str
    start: float
    end: float
    logits: NDArray[np.float32]


def check_logits_target(path: Path) -> None:
    """Check, before any work is done, that logits can be written in the format of the extension of `path`.

    Raises:
        UsageError: the extension is neither .npz nor .parquet.
        OutputError: Parquet, but pyarrow is not installed.
    """
    if path.suffix.lower() not in (".npz", ".parquet"):
        raise UsageError(f"{path}: logits are saved as .npz or .parquet; give the file one of these extensions")
    if path.suffix.lower() == ".parquet":
        check_pyarrow()


def save_logits(
    path: Path, rows: Iterable[LogitsRow], labels: Sequence[str], *, format: str, activation: Activation
) -> None:
    """Write `rows` to `path` in the format `format`, `.npz` or `.parquet`; the extension of `path` does not matter.

    npz holds `logits` float32 (N, K), `start` and `end` float64 (N,), `path` text (N,), `labels` text (K,), and the
    `activation` that makes scores of the logits, text (), for `numpy.load`. Parquet has columns of the first four
    names, and in the metadata of its schema the activation, and the labels as JSON.
    Rows are written as they come; at most a few thousand of them are in memory.

    Raises:
        OSError: the file cannot be written, or its folder has no room for twice the data.
    """
    (_save_parquet if format == ".parquet" else _save_npz)(path, rows, labels, activation)


def pack(logits: NDArray[np.float32]) -> str:
    """Logits, float32 (K,), as text for a JSON record: base64 of little-endian numbers."""
    return base64.b64encode(logits.astype("<f4").tobytes()).decode("ascii")


def unpack(text: str) -> NDArray[np.float32]:
    """The logits that `pack` was given."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def _save_npz(path: Path, rows: Iterable[LogitsRow], labels: Sequence[str], activation: Activation) -> None:
    with Columns(path.parent, ("logits", "start", "end"), ("path",)) as columns:
        number = 0
        for row in rows:
            number += 1
            columns.add_text("path", row.path)
            columns.add("start", struct.pack("<d", row.start))
            columns.add("end", struct.pack("<d", row.end))
            columns.add("logits", row.logits.astype("<f4").tobytes())
        with ZipFile(path, "w") as archive:
            columns.write(archive, "logits", "<f4", (number, len(labels)))
            columns.write(archive, "start", "<f8", (number,))
            columns.write(archive, "end", "<f8", (number,))
            columns.write_texts(archive, "path")
            names = [utf32(label) for label in labels]
            add_texts(archive, "labels", len(names), max(map(len, names), default=0), names)
            add_text(archive, "activation", activation)


def _save_parquet(path: Path, rows: Iterable[LogitsRow], labels: Sequence[str], activation: Activation) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    columns = {
        "path": arrow.string(),
        "start": arrow.float64(),
        "end": arrow.float64(),
        "logits": arrow.list_(arrow.float32(), len(labels)),
    }
    schema = arrow.schema(columns, metadata={"labels": json.dumps(list(labels)), "activation": activation})
    iterator = iter(rows)
    with ParquetWriter(path, schema) as writer:
        while group := list(islice(iterator, ROWS_IN_A_GROUP)):
            # File names can hold bytes that are not UTF-8; they are written as in CSV.
            paths = [row.path.encode("utf-8", "backslashreplace").decode("utf-8") for row in group]
            flat = arrow.array(np.concatenate([row.logits for row in group]))
            logits = arrow.FixedSizeListArray.from_arrays(flat, len(labels))
            arrays = [paths, [row.start for row in group], [row.end for row in group], logits]
            writer.write_table(arrow.table(arrays, schema=schema))
