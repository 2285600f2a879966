"""The videos or segments of a file of vectors that are most like a video, a part of one, or a row of the file."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.flow import Item, overlap
from timesformer_cli.jobs.reporter import SILENT, Reporter
from timesformer_cli.jobs.search import queries
from timesformer_cli.jobs.search.queries import Query
from timesformer_cli.jobs.search.scan import Chance, Nearest, nearest
from timesformer_cli.results.vectors.reading import VectorFile, open_vectors
from timesformer_cli.results.vectors.rows import VectorRow
from timesformer_cli.video.addresses import is_address, local_path

if TYPE_CHECKING:
    from timesformer_cli.pipeline.run import RunOptions

# Queries in a pass over the file.
_TOGETHER = 256

# Rows that are looked at for each match that is shown, since those that overlap are left out; and how many more if
# these are too few.
_SPARE = 4
_LEAST = 64
_MORE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to search for in the file `path`, and what to show.

    `names` are videos, parts of videos, or files of vectors; `like` are paths of rows of the file, and `without` are
    subtracted: rows of the file, or else videos. `mean` makes one query of all. With `overlaps`, rows that overlap the
    query's own segment, or a better match of the same video, are shown too. `model` opens videos instead of the model
    that the file names, and must be the same; `frames`: queries are folders of images. `run` says how to run it, and is
    called only if it is needed.
    """

    path: Path
    names: Sequence[str] = ()
    like: Sequence[str] = ()
    without: Sequence[str] = ()
    mean: bool = False
    count: int = 10
    overlaps: bool = False
    model: str | None = None
    offline: bool = False
    frames: bool = False
    run: "Callable[[], RunOptions] | None" = None


@dataclass(frozen=True, slots=True)
class Match:
    """A row that is like the query; `percentile` of random pairs of rows are less alike."""

    rank: int
    row: VectorRow
    cosine: float
    percentile: float | None

    def to_dict(self) -> dict[str, Any]:
        row = self.row
        shown: dict[str, Any] = {"rank": self.rank, "path": row.path, "start": row.start, "end": row.end}
        if row.frame is not None:
            shown |= {"time": row.time, "frame": row.frame}
        percentile = None if self.percentile is None else round(self.percentile, 3)
        return shown | {"cosine": round(self.cosine, 6), "percentile": percentile}


@dataclass(frozen=True, slots=True)
class Answer:
    """The matches of one query, the best first."""

    query: Query
    matches: tuple[Match, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"query": self.query.name, "matches": [match.to_dict() for match in self.matches]}


def search(job: Job, report: Reporter = SILENT) -> Iterator[Answer]:
    """An answer for each query, in order. Only queries that are videos load the model.

    Raises:
        UsageError: nothing to search for.
        InputError: a file of vectors that cannot be read, or a query that cannot.
        TimesformerError: as for opening the model.
    """
    if not (job.names or job.like):
        raise UsageError("nothing to search for: name a video, or with `like` a path of the file")
    file = open_vectors(job.path)
    if not file.count:
        raise InputError(f"{job.path}: has no vectors; all of its videos failed")
    chance = Chance(file.count)
    asked = iter(_queries(job, file, report))
    while together := list(islice(asked, _TOGETHER)):
        yield from _answers(job, file, together, chance)


def _queries(job: Job, file: VectorFile, report: Reporter) -> Iterable[Query]:
    """The queries as they are searched for: with what is subtracted, and as one if so asked."""
    stored = [queries.of_rows(file, name) for name in job.like]
    without, videos = _subtracted(job, file)
    files = {name: open_vectors(Path(name)) for name in job.names if queries.is_vectors(name)}
    hint = f"; to search for a path that {job.path} has, use `like`"
    asked = [_item(job, name, hint) for name in job.names if name not in files]
    computed = _computed(job, file, [*asked, *videos], report) if asked or videos else []
    less = [*without, *computed[len(asked) :]]
    positive = _in_order(job, file, stored, computed, files)
    if job.mean:
        each = list(positive)
        name = ", ".join(query.name for query in each)
        own = tuple(own for query in each for own in query.own)
        positive = [Query(name, queries.mean([query.vector for query in each], name), own)]
    if not less:
        return positive
    lessened = np.stack([query.vector for query in less]).mean(0)
    return (
        replace(query, vector=queries.unit(query.vector - lessened, f"{query.name} without {less[0].name}"))
        for query in positive
    )


def _in_order(
    job: Job, file: VectorFile, stored: list[Query], computed: list[Query], files: dict[str, VectorFile]
) -> Iterable[Query]:
    yield from stored
    videos = iter(computed)
    for name in job.names:
        if name in files:
            yield from queries.of_file(file, files[name])
        else:
            yield next(videos)


def _subtracted(job: Job, file: VectorFile) -> tuple[list[Query], list[tuple[Item, str]]]:
    """What is subtracted: the rows of the file that have these names, and the videos to compute."""
    rows: list[Query] = []
    videos: list[tuple[Item, str]] = []
    for name in job.without:
        path, _ = queries.split(name, bool(len(file.find(name))))
        if len(file.find(path)):
            rows.append(queries.of_rows(file, name))
        else:
            videos.append(_item(job, name, f", and {job.path} has no vector of a video with this path"))
    return rows, videos


def _item(job: Job, name: str, hint: str) -> tuple[Item, str]:
    local = local_path(name)
    path, (start, end) = queries.split(name, not is_address(local) and os.path.exists(local))
    if not is_address(local_path(path)) and not os.path.exists(local_path(path)):
        raise InputError(f"{path}: no such file{hint}")
    return Item(path, frames=job.frames, start=start, end=end), name


def _computed(job: Job, file: VectorFile, names: list[tuple[Item, str]], report: Reporter) -> list[Query]:
    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.jobs.made_by import model_of
    from timesformer_cli.pipeline.run import RunOptions

    if file.kind.feature not in queries.OUTPUTS:
        raise UsageError(
            f"{file.path}: has vectors of the feature {file.kind.feature}, which queries cannot be computed for; "
            "search with `like` for its own rows"
        )
    run = RunOptions() if job.run is None else job.run()
    checkpoint = model_of(file, job.model, partial(resolve, offline=job.offline, tell=report.note))
    run.check(checkpoint)
    return queries.of_videos(file, names, checkpoint, run, report)


def _answers(job: Job, file: VectorFile, together: list[Query], chance: Chance) -> Iterator[Answer]:
    """The answers to some queries; what overlaps is left out, so there may be a second pass for more rows."""
    nothing = np.empty(0, np.int64)
    left_out = [nothing if job.overlaps else queries.own_rows(file, query) for query in together]
    most = max(_SPARE * job.count, _LEAST)
    answers: dict[int, Answer] = {}
    while left := [number for number in range(len(together)) if number not in answers]:
        vectors = np.stack([together[number].vector for number in left])
        found = nearest(file, vectors, [left_out[number] for number in left], most, chance)
        for place, number in enumerate(left):
            matches = _matches(job, file, found, place, chance)
            if len(matches) == job.count or most >= file.count:
                answers[number] = Answer(together[number], matches)
        most *= _MORE
    return (answers[number] for number in range(len(together)))


def _matches(job: Job, file: VectorFile, found: Nearest, place: int, chance: Chance) -> tuple[Match, ...]:
    """The best rows of a query, without those that overlap a better one of the same video."""
    there = np.isfinite(found.cosines[place])
    chosen: list[Match] = []
    spans: dict[str, list[VectorRow]] = {}
    numbers, cosines = found.rows[place][there], found.cosines[place][there]
    for row, cosine in zip(_read_by_few(file, numbers), cosines.tolist(), strict=False):
        before = spans.setdefault(row.path, [])
        if job.overlaps or not any(overlap((row.start, row.end), (one.start, one.end)) for one in before):
            before.append(row)
            chosen.append(Match(len(chosen) + 1, row, cosine, chance.percentile(cosine)))
        if len(chosen) == job.count:
            break
    return tuple(chosen)


def _read_by_few(file: VectorFile, numbers: NDArray[np.int64]) -> Iterator[VectorRow]:
    """The rows, in order, read as they are needed."""
    for start in range(0, len(numbers), _LEAST):
        yield from file.rows(numbers[start : start + _LEAST].tolist())
