"""The videos, or segments, of a run that have both a record and a vector."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer_cli.errors import InputError, OutputError, UsageError
from timesformer_cli.flow import Label, Part
from timesformer_cli.jobs.reporter import Reporter
from timesformer_cli.results.journal import meta_of, read_meta, read_records
from timesformer_cli.results.record import Record, check_record, identity, part_of, spans
from timesformer_cli.results.settings import Provenance, differences
from timesformer_cli.results.vectors.reading import VectorFile
from timesformer_cli.results.vectors.rows import VectorRow
from timesformer_cli.text import named, plural

# Rows whose paths and times are read at once.
_BLOCK = 32_768

_WRITE = "`timesformer predict clips -o labels.jsonl` writes them"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A video, or a segment, that may be picked: the number `row` of its vector, and the labels that its record shows.

    `key` identifies its record, and `place` is its number among the spans of the record, which lasts from `start` to
    `end` in seconds. `part` is None at both ends for a video as a whole.
    """

    row: int
    key: str
    place: int
    path: str
    part: Part
    start: float
    end: float
    best: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """JSON lines of a finished run, and its settings."""

    path: Path
    provenance: Provenance

    def records(self) -> Iterator[Record]:
        """The records of labelled videos. Raises OutputError for a damaged file."""
        return (each for _, each in read_records(self.path, check=check_record) if each["status"] == "ok")

    def check_same_run(self, file: VectorFile) -> None:
        """Check that the vectors are those of the network and the frames that made the labels.

        Raises:
            UsageError: vectors of frames.
            InputError: vectors of a different model, recipe or timeline.
        """
        if file.kind.feature == "frames":
            raise UsageError(f"{file.path}: has a vector for each frame; picks need one for each video or segment")
        differing = list(differences(_seen(file.provenance), _seen(self.provenance)))
        if differing:
            raise InputError(
                f"{file.path}: is not of the same run as {self.path}: {', '.join(differing)}; "
                "`timesformer predict` with `save_embeddings` writes both"
            )


def _seen(provenance: Provenance) -> dict[str, Any]:
    """What decides which vectors a run gives."""
    settings = provenance.to_dict()
    recipe = {name: settings["recipe"].get(name) for name in ("sampling", "preprocess")}
    return {"recipe": recipe} | {name: settings.get(name) for name in ("weights_sha256", "timeline")}


def open_results(path: Path) -> Results:
    """The results of a finished run of `predict` or `evaluate`.

    Raises:
        InputError: they do not exist, are not JSON lines of a run, or are not finished.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; results as JSON lines were expected ({_WRITE})")
    if not meta_of(path).is_file():
        raise InputError(
            f"{path}: {meta_of(path).name}, which tells the model, is missing; copy it too, or label again"
        )
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise InputError(f"{path}: is not JSON lines, which name everything that a pick needs; {_WRITE}")
    try:
        settings, holds = read_meta(path)
        provenance = Provenance.from_dict(settings)
    except (OutputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {meta_of(path).name} is damaged; copy it again, or label again") from error
    if provenance.of_vectors:
        raise InputError(f"{path}: holds vectors and no labels; {_WRITE}")
    if holds is None:
        raise InputError(f"{path}: its run was interrupted; complete it with `resume`")
    return Results(path, provenance)


def candidates_of(results: Results, file: VectorFile, report: Reporter) -> list[Candidate]:
    """The labelled videos or segments that have a vector, in the order of the results.

    Raises:
        InputError: there is none.
        OutputError: the results are damaged.
    """
    rows = {_name(row.path, (row.start, row.end)): number for number, row in enumerate(rows_of(file))}
    found: list[Candidate] = []
    without, example = 0, ""
    for record in results.records():
        key = identity(record)
        whole = part_of(record)
        for place, span in enumerate(spans(record)):
            part = (span["start"], span["end"]) if "segments" in record else whole
            row = rows.get(_name(record["path"], part))
            if row is None:
                without += 1
                example = example or named(record["path"], *part)
                continue
            best = tuple(Label(each["label"], each["score"], each["index"]) for each in span["predictions"])
            found.append(Candidate(row, key, place, record["path"], part, span["start"], span["end"], best))
    if not found:
        theirs = next((named(*name) for name in rows), "none")
        raise InputError(
            f"{file.path}: has no vector of what {results.path} labels; they are matched by path, start and end, such "
            f"as {theirs!r} and {example or 'none'!r}"
        )
    if without:
        report.note(f"{plural(without, 'label')} without a vector left out, the first: {example}")
    return found


def rows_of(file: VectorFile) -> Iterator[VectorRow]:
    """All rows of a file, without their vectors. Raises InputError for a damaged file."""
    for first in range(0, file.count, _BLOCK):
        yield from file.rows(range(first, min(first + _BLOCK, file.count)))


def _name(path: str, part: Part) -> tuple[str, float | None, float | None]:
    """What rows are matched by: times to the thousandth of a second, as records have them."""
    start, end = (None if time is None else round(time, 3) for time in part)
    return path, start, end
