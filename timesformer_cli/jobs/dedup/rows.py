"""The copies as text: a table for people, JSON lines or CSV."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from timesformer_cli.jobs.dedup.groups import COLUMNS, Copy
from timesformer_cli.results.record import json_line
from timesformer_cli.results.writers import csv_text
from timesformer_cli.text import clock, printable

Format = Literal["table", "jsonl", "csv"]

EXTENSIONS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def texts(rows: Sequence[Copy], format: Format) -> Iterator[str]:
    """The text of a whole file, piece by piece."""
    if format == "csv":
        yield csv_text([COLUMNS])
        yield from (csv_text([list(row.to_dict().values())]) for row in rows)
    elif format == "jsonl":
        yield from (json_line(row.to_dict()) for row in rows)
    else:
        yield from _table(rows)


def _table(rows: Iterable[Copy]) -> Iterator[str]:
    """Below each video that is kept, what it holds of which others."""
    group, path = 0, ""
    for row in rows:
        if (row.group, row.path) != (group, path):
            if group:
                yield "\n"
            group, path = row.group, row.path
            yield f"group {group}  {printable(path)}\n"
        where = ""
        if row.kind != "copy":
            where = (
                f"; {clock(row.other_start)} to {clock(row.other_end)} is {clock(row.start)} to {clock(row.end)} above"
            )
        yield f"  {row.kind:7}  {row.similarity:.2f}  {printable(row.other)}  ({row.reason}{where})\n"
