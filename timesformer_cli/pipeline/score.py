"""From network input to scores, and from scores to predictions; videos keep their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import (
    Embedded,
    Embedding,
    Failure,
    Pixels,
    Prediction,
    Result,
    Scored,
    Segment,
    Vectors,
    Views,
)
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.pipeline.prepare import Prepared
from timesformer_cli.runtimes.batching import BatchSize
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.specs import Checkpoint

T = TypeVar("T")


def score(
    prepared: Iterable[Prepared | None], scorer: Scorer, batch: BatchSize | int = 1
) -> Iterator[Scored | Failure]:
    """The logits of each span, in order; the scorer gets at most `batch` views at a time, of one or more videos.

    A batch is filled from the videos that are ready. None means that the next one is not: then the batch is
    scored as it is, so that no result waits for a video that may take long.

    Raises:
        DeviceError: not even one view fits into memory.
    """
    size = batch if isinstance(batch, BatchSize) else BatchSize(batch)
    line = _Line(scorer, size)
    for views in prepared:
        if views is not None:
            line.add(views)
        while line.unscored >= (size.size if views is not None and size.spans else 1):
            line.score_batch()
            yield from line.scored()
        yield from line.scored()  # failures at its head
    while line.unscored:
        line.score_batch()
        yield from line.scored()
    yield from line.scored()


def label(scored: Iterable[Scored | Failure], checkpoint: Checkpoint) -> Iterator[Result]:
    """One result per video, from the logits of its spans; if it failed half-way, the failure.

    Class tokens before the logits become the embeddings of segments.

    Raises:
        CheckpointError: the network's scores are not numbers.
    """
    for last, segments in _by_video(scored, checkpoint, partial(_segment, checkpoint=checkpoint)):
        if isinstance(last, Failure):
            yield last
        else:
            yield Prediction(last.item, last.info, segments, checkpoint.classes)


def embed(scored: Iterable[Scored | Failure], checkpoint: Checkpoint) -> Iterator[Embedded]:
    """One result per video, from class tokens, or from means of patches; if it failed half-way, the failure.

    Raises:
        CheckpointError: the network's numbers are not finite.
    """
    for last, segments in _by_video(scored, checkpoint, _vectors):
        if isinstance(last, Failure):
            yield last
        else:
            yield Embedding(last.item, last.info, segments)


def _by_video(
    scored: Iterable[Scored | Failure], checkpoint: Checkpoint, make: Callable[[Scored], T]
) -> Iterator[tuple[Scored | Failure, tuple[T, ...]]]:
    """The last span of each video, or its failure, and what `make` gives for all spans; none of a video that failed.

    Raises:
        CheckpointError: the network's numbers are not finite.
    """
    made: list[T] = []
    for each in scored:
        if isinstance(each, Failure):
            made.clear()  # those that could be read
            yield each, ()
            continue
        if not np.isfinite(each.logits).all():
            raise CheckpointError(f"{checkpoint.name}: the network's scores are not numbers; are its weights damaged?")
        made.append(make(each))
        if not each.more:
            yield each, tuple(made)
            made.clear()


def _segment(scored: Scored, checkpoint: Checkpoint) -> Segment:
    tokens, logits = np.split(scored.logits, [-len(checkpoint.labels)], axis=1)
    mean, scores = (
        combine(logits, how, checkpoint.activation, checkpoint.groups) for how in ("raw_logits", checkpoint.combine)
    )
    embedding = combine(tokens, "raw_logits") if tokens.size else None
    return Segment(scored.span.start, scored.span.end, scored.labels, mean, scores, scored.thumbnail, embedding)


def _vectors(scored: Scored) -> Vectors:
    start, end = scored.span.start, scored.span.end
    if scored.logits.ndim == 2:
        return Vectors(start, end, combine(scored.logits, "raw_logits")[np.newaxis])
    # Of frames: the crops of a clip, which follow each other, show the same ones.
    clips = len(scored.span.clips)
    of_clips = scored.logits.reshape(clips, -1, *scored.logits.shape[1:])
    vectors = of_clips.mean(axis=1, dtype=np.float64).astype(np.float32).reshape(-1, of_clips.shape[-1])
    numbers = scored.span.clips.reshape(-1)
    times = scored.info.times[numbers] - scored.info.times[0] + scored.info.start
    return Vectors(start, end, vectors, tuple(times.tolist()), tuple(numbers.tolist()))


class _Line:
    """Spans in order: from the first that still lacks logits to the last that is ready."""

    def __init__(self, scorer: Scorer, size: BatchSize) -> None:
        self._scorer = scorer
        self._size = size
        self._places: deque[_Place] = deque()
        self.unscored = 0  # views

    def add(self, prepared: Prepared) -> None:
        place = _Place(prepared)
        self._places.append(place)
        self.unscored += place.unscored

    def score_batch(self) -> None:
        """Score the first views: a full batch, or all that are ready."""
        taken: list[tuple[_Place, Pixels]] = []
        missing = self._size.size
        for place in self._places:
            if missing == 0:
                break
            if place.unscored:
                taken.append((place, place.take(missing)))
                missing -= len(taken[-1][1])
        # The views of one video need no copy.
        pixels = taken[0][1] if len(taken) == 1 else np.concatenate([views for _, views in taken])
        logits = self._size.score(self._scorer, pixels)
        self.unscored -= len(pixels)
        for place, views in taken:
            place.logits.append(logits[: len(views)])
            logits = logits[len(views) :]

    def scored(self) -> Iterator[Scored | Failure]:
        """Remove the finished results from the head of the line."""
        while self._places and not self._places[0].unscored:
            place = self._places.popleft()
            views = place.prepared
            yield views if isinstance(views, Failure) else scored_views(views, np.concatenate(place.logits))


def scored_views(views: Views, logits: NDArray[np.float32]) -> Scored:
    """The views with their logits (V, K) instead of their pixels."""
    return Scored(views.item, views.info, views.span, views.labels, logits, views.more, views.thumbnail, views.hashes)


class _Place:
    """A span in the line: the number of its views still to be scored, and the logits of the rest."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.unscored = 0 if isinstance(prepared, Failure) else len(prepared.pixels)
        self.logits: list[NDArray[np.float32]] = []

    def take(self, most: int) -> Pixels:
        """At most `most` of its next views (N, T, C, H, W)."""
        assert isinstance(self.prepared, Views)
        first = len(self.prepared.pixels) - self.unscored
        views = self.prepared.pixels[first : first + most]
        self.unscored -= len(views)
        return views
