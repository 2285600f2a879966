"""Picks as text: a table for people, JSON lines, CSV, or a page or tasks to label them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from timesformer_cli.jobs.pick import Picked
from timesformer_cli.results.record import json_line
from timesformer_cli.results.writers import csv_text, open_style
from timesformer_cli.text import clock, printable

Format = Literal["table", "jsonl", "csv", "html", "labelstudio"]

EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
    ".json": "labelstudio",
}


# The model's answer is not called `label`, so that nobody trains on it by mistake.
COLUMNS = ("rank", "path", "start", "end", "predicted", "score", "margin", "entropy", "distance", "nearest")


def texts(picked: Picked, format: Format, target: Path | None) -> Iterator[str]:
    """The text of a whole file, piece by piece; `target` is that file, None for standard output."""
    if format == "jsonl":
        yield from (json_line(each.to_dict()) for each in picked.picks)
    elif format == "csv":
        yield csv_text([COLUMNS])
        yield csv_text([row[column] for column in COLUMNS] for row in (each.to_dict() for each in picked.picks))
    elif format == "table":
        yield from _table(picked)
    else:
        yield from open_style(format, picked.origin, target).texts(picked.records())


def _table(picked: Picked) -> Iterator[str]:
    yield "rank  margin  entropy  distance  video\n"
    for each in picked.picks:
        numbers = ("-" if value is None else f"{value:.3f}" for value in (each.margin, each.entropy, each.distance))
        margin, entropy, distance = numbers
        start, end = each.part
        when = "" if start is None or end is None else f"  {clock(start)} to {clock(end)}"
        label = "" if each.predicted is None else f"  {printable(each.predicted)}"
        yield f"{each.rank:4}  {margin:>6}  {entropy:>7}  {distance:>8}  {printable(each.path)}{when}{label}\n"
