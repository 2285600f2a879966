"""Vectors as text that is written video by video: to a terminal, or into a pipe."""

from typing import Literal, get_args

import numpy as np

from timesformer_cli.results.record import Record, Style
from timesformer_cli.results.settings import VectorKind
from timesformer_cli.results.vectors.rows import VectorRow, rows_in
from timesformer_cli.results.vectors.writing import converted, csv_head, csv_row, json_row
from timesformer_cli.results.writers import csv_text
from timesformer_cli.text import printable

Streamed = Literal["table", "jsonl", "csv"]

STREAMED: tuple[Streamed, ...] = get_args(Streamed)


def style_of(format: Streamed, kind: VectorKind) -> Style:
    """How records of vectors become text. A table has the shape and the norm of each vector instead of its numbers."""

    def lines(record: Record) -> str:
        rows = list(rows_in([record]))
        if format == "csv":
            return csv_text(csv_row(row, kind) for row in rows)
        return "".join(json_row(row, kind) if format == "jsonl" else _line(row, kind) for row in rows)

    return Style(lines, start=csv_text([csv_head(kind)]) if format == "csv" else "")


def _line(row: VectorRow, kind: VectorKind) -> str:
    span = "" if row.start is None or row.end is None else f"  {row.start:g}-{row.end:g} s"
    if row.time is not None:
        span += f"  frame {row.frame} at {row.time:g} s"
    if row.vector is None:
        return f"{printable(row.path)}{span}  failed ({row.error_kind}): {printable(row.error_message or '')}\n"
    norm = float(np.linalg.norm(converted(row, kind).astype(np.float64)))
    return f"{printable(row.path)}{span}  ({kind.dimension},)  norm {norm:.4g}\n"
