"""Answers as text: a table for people, JSON lines, CSV, or a page."""

from collections.abc import Iterable, Iterator
from itertools import tee
from pathlib import Path
from typing import Literal

from timesformer_cli.flow import Part
from timesformer_cli.jobs.search import Answer
from timesformer_cli.jobs.search.queries import is_vectors
from timesformer_cli.results.record import json_line
from timesformer_cli.results.writers import csv_text
from timesformer_cli.text import clock, printable

Format = Literal["table", "jsonl", "csv", "html"]

EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
}

COLUMNS = ("query", "rank", "path", "start", "end", "cosine", "percentile")


def texts(answers: Iterable[Answer], format: Format, source: Path, folder: Path = Path()) -> Iterator[str]:
    """The text of a whole file, piece by piece; `source` is the file of vectors, and `folder` that of the text."""
    if format == "jsonl":
        yield from (json_line(answer.to_dict()) for answer in answers)
    elif format == "csv":
        yield csv_text([COLUMNS])
        for answer in answers:
            rows = [{"query": answer.query.name} | match.to_dict() for match in answer.matches]
            yield csv_text([[row[column] for column in COLUMNS] for row in rows])
    elif format == "html":
        from timesformer_cli.results.formats import matches

        one, other = tee(answers)
        yield from matches.texts((each.to_dict() for each in one), map(_played, other), str(source), folder)
    else:
        yield from _table(answers)


def _played(answer: Answer) -> tuple[str, Part] | None:
    """The video of a query that is a single one."""
    return answer.query.own[0] if len(answer.query.own) == 1 and not is_vectors(answer.query.name) else None


def _table(answers: Iterable[Answer]) -> Iterator[str]:
    for number, answer in enumerate(answers):
        yield ("\n" if number else "") + f"like {printable(answer.query.name)}\n"
        yield "rank  cosine  percentile  video\n"
        for match in answer.matches:
            row = match.row
            percentile = "-" if match.percentile is None else f"{match.percentile:.2f}"
            when = "" if row.start is None or row.end is None else f"  {clock(row.start)} to {clock(row.end)}"
            when = when if row.time is None else f"  at {clock(row.time)}"
            yield f"{match.rank:4}  {match.cosine:6.3f}  {percentile:>10}  {printable(row.path)}{when}\n"
