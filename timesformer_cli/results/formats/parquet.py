"""Results as Parquet: the rows of CSV with proper types, written in row groups."""

import importlib.util
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from timesformer_cli.errors import OutputError

ROWS_IN_A_GROUP = 20_000

_TYPES = {
    "rank": "int32",
    "index": "int32",
    "score": "float32",
    "start": "float64",
    "end": "float64",
    "duration": "float64",
    "fps": "float64",
    "frames": "int64",
    "width": "int32",
    "height": "int32",
    "abstained": "bool",
}

Row = dict[str, Any]


def check_pyarrow() -> None:
    """Raises OutputError if pyarrow, which writes Parquet, is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise OutputError("Parquet needs pyarrow; install it with: pip install 'timesformer-cli[parquet]'")


def write_parquet(path: Path, rows: Iterable[Row], columns: tuple[str, ...]) -> None:
    """Write `rows` to `path`; missing columns of a row are null. Raises OSError."""
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    schema = arrow.schema([(name, arrow.type_for_alias(_TYPES.get(name, "string"))) for name in columns])
    iterator = iter(rows)
    with ParquetWriter(path, schema) as writer:
        while group := [_valid(row) for row in islice(iterator, ROWS_IN_A_GROUP)]:
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _valid(row: Row) -> Row:
    # File names can hold bytes that are not UTF-8; they are written as in CSV.
    return {
        name: value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
        for name, value in row.items()
    }
