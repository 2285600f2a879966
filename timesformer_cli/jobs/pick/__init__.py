"""Which videos to label next: those that a model is unsure of, unlike each other and unlike what is labelled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.flow import Part
from timesformer_cli.jobs.pick import doubt
from timesformer_cli.jobs.pick.candidates import Candidate, Results, candidates_of, open_results
from timesformer_cli.jobs.pick.k_centre import Choice, in_order, spread
from timesformer_cli.jobs.pick.labelled import labelled_rows
from timesformer_cli.jobs.reporter import SILENT, Reporter
from timesformer_cli.jobs.search.queries import named_row
from timesformer_cli.results.record import Origin, Record, identity
from timesformer_cli.results.vectors.reading import VectorFile, open_vectors
from timesformer_cli.text import plural

By = Literal["margin", "entropy", "random"]

# The most doubtful candidates from which each pick is spread. With fewer, picks are alike; with more, the model is sure
# of some.
_POOL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """From which videos to pick.

    `results` are the JSON lines of a run of `predict`, and `vectors` the file of its vectors. Videos, or parts, that
    are `labelled` in annotations of any format are not picked. `logits` is the file of `save_logits`, for entropy, and
    `seed` for the random choice.
    """

    results: Path
    vectors: Path
    labelled: Path | None = None
    count: int = 50
    by: By = "margin"
    logits: Path | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """A video, or a part of one, to label.

    `predicted` and `score` are the model's first answer, None if the record shows none. `margin` and `entropy` say how
    unsure the model is; the smaller the margin, and the larger the entropy in nats, the less it is sure. `distance`, 0
    to 2, is 1 minus the cosine to the `nearest` labelled or earlier picked one; None for the first of all.
    """

    rank: int
    path: str
    part: Part
    predicted: str | None
    score: float | None
    margin: float | None
    entropy: float | None
    distance: float | None
    nearest: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "path": self.path,
            "start": self.part[0],
            "end": self.part[1],
            "predicted": self.predicted,
            "score": self.score,
            "margin": _rounded(self.margin),
            "entropy": _rounded(self.entropy),
            "distance": _rounded(self.distance),
            "nearest": self.nearest,
        }


@dataclass(frozen=True, slots=True)
class Picked:
    """The picks, the best first, and how to read their records again."""

    picks: tuple[Pick, ...]
    origin: Origin
    _results: Results
    _places: Mapping[str, Sequence[int]]

    def records(self) -> Iterator[Record]:
        """The records of the picked videos, in the order of their best ranks; timelines have only the picked segments.

        Raises:
            OutputError: the results were changed meanwhile.
        """
        found = {
            key: _with_only(record, self._places[key])
            for record in self._results.records()
            if (key := identity(record)) in self._places
        }
        return (found[key] for key in self._places)


def _with_only(record: Record, places: Sequence[int]) -> Record:
    if "segments" not in record:
        return record
    return record | {"segments": [record["segments"][place] for place in sorted(places)]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def pick(job: Job, report: Reporter = SILENT) -> Picked:
    """Choose the videos; the same files give the same choice. No model is loaded.

    Raises:
        UsageError: settings that do not go together, or results that cannot tell how sure the model is.
        InputError: files that cannot be read, or that are of different runs or videos.
    """
    if job.by == "entropy" and job.logits is None:
        raise UsageError("entropy needs the scores of all classes; name the file of `save_logits` with `logits`")
    if job.by != "entropy" and job.logits is not None:
        raise UsageError("`logits` is only used for `by=entropy`")
    if job.by != "random" and job.seed is not None:
        raise UsageError("`seed` is only used for `by=random`")
    results, file = open_results(job.results), open_vectors(job.vectors)
    results.check_same_run(file)
    found = candidates_of(results, file, report)
    known = np.empty(0, np.int64)
    if job.labelled is not None:
        known = labelled_rows(job.labelled, file, report)
        found = [each for each in found if not _among(known, each.row)]
        if not found:
            raise InputError(f"{job.labelled}: all videos that {job.results} and {job.vectors} share are labelled")
    entropies = doubt.entropies(job.logits, results, found) if job.logits is not None else None
    ordered, choices = _chosen(job, results, file, found, known, entropies)
    if len(choices) < job.count:
        report.note(f"there are only {plural(len(choices), 'video')} to pick from")
    return _picked(results, file, ordered, choices, entropies)


def _among(rows: NDArray[np.int64], row: int) -> bool:
    """Whether a row is among sorted ones."""
    place = int(np.searchsorted(rows, row))
    return place < len(rows) and int(rows[place]) == row


def _chosen(
    job: Job,
    results: Results,
    file: VectorFile,
    found: Sequence[Candidate],
    known: NDArray[np.int64],
    entropies: NDArray[np.float64] | None,
) -> tuple[list[tuple[int, Candidate]], list[Choice]]:
    """Candidates with their numbers among those `found`, and which of them are picked."""
    if job.by == "random":
        drawn = np.random.default_rng(job.seed or 0).permutation(len(found))[: job.count]
        ordered = [(int(place), found[place]) for place in drawn]
        return ordered, in_order(file, [each.row for _, each in ordered], known)
    unsure = -entropies if entropies is not None else np.array([doubt.margin(each, results) for each in found])
    pool = np.argsort(unsure, kind="stable")[: _POOL * job.count]
    ordered = [(int(place), found[place]) for place in pool]
    return ordered, spread(file, [each.row for _, each in ordered], known, job.count)


def _picked(
    results: Results,
    file: VectorFile,
    ordered: Sequence[tuple[int, Candidate]],
    choices: Sequence[Choice],
    entropies: NDArray[np.float64] | None,
) -> Picked:
    picks: list[Pick] = []
    places: dict[str, list[int]] = {}
    for rank, choice in enumerate(choices, 1):
        number, one = ordered[choice.place]
        first = one.best[0] if one.best else None
        nearest = None if choice.nearest is None else named_row(file.rows([choice.nearest])[0])
        pick = Pick(
            rank=rank,
            path=one.path,
            part=one.part,
            predicted=None if first is None else first.label,
            score=None if first is None else first.score,
            margin=doubt.known_margin(one, results),
            entropy=None if entropies is None else float(entropies[number]),
            distance=choice.distance,
            nearest=nearest,
        )
        picks.append(pick)
        places.setdefault(one.key, []).append(one.place)
    return Picked(tuple(picks), results.provenance.origin, results, places)
