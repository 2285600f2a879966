"""From network input to scores, and from scores to predictions; videos stay in their order."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import Failure, Pixels, Prediction, Result, Scored, Segment, Views
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.pipeline.prepare import Prepared
from timesformer_cli.runtimes.batching import BatchSize
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.specs import Checkpoint


def score(
    prepared: Iterable[Prepared | None], scorer: Scorer, batch: BatchSize | int = 1
) -> Iterator[Scored | Failure]:
    """The logits of each span, in order; the scorer sees at most `batch` views at a time, of one video or more.

    A batch is filled up from the videos that are there. Where None says that the next is not, it is
    scored as it is, so that no result waits for a video that may be long in coming.

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
        yield from line.scored()  # failures at the head of it
    while line.unscored:
        line.score_batch()
        yield from line.scored()
    yield from line.scored()


def label(scored: Iterable[Scored | Failure], checkpoint: Checkpoint) -> Iterator[Result]:
    """One result for each video, of the logits of its spans; of one that failed half-way, the failure.

    Raises:
        CheckpointError: the network's scores are not numbers.
    """
    segments: list[Segment] = []
    for each in scored:
        if isinstance(each, Failure):
            segments.clear()  # of the part that could be read
            yield each
            continue
        segments.append(_segment(each, checkpoint))
        if not each.more:
            yield Prediction(each.item, each.info, tuple(segments), checkpoint.labels)
            segments.clear()


def _segment(scored: Scored, checkpoint: Checkpoint) -> Segment:
    logits = scored.logits
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{checkpoint.name}: the network's scores are not numbers; are its weights damaged?")
    mean, scores = combine(logits, "raw_logits"), combine(logits, checkpoint.combine)
    return Segment(scored.span.start, scored.span.end, scored.labels, mean, scores, scored.thumbnail)


class _Line:
    """Spans in their order, from the first without all of its logits to the last that is there."""

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
        """Score the first views, as many as make a batch or as there are."""
        taken: list[tuple[_Place, Pixels]] = []
        missing = self._size.size
        for place in self._places:
            if missing == 0:
                break
            if place.unscored:
                taken.append((place, place.take(missing)))
                missing -= len(taken[-1][1])
        # The views of a single video need no copy.
        pixels = taken[0][1] if len(taken) == 1 else np.concatenate([views for _, views in taken])
        logits = self._size.score(self._scorer, pixels)
        self.unscored -= len(pixels)
        for place, views in taken:
            place.logits.append(logits[: len(views)])
            logits = logits[len(views) :]

    def scored(self) -> Iterator[Scored | Failure]:
        """What is finished at the head of the line, which it leaves."""
        while self._places and not self._places[0].unscored:
            place = self._places.popleft()
            views = place.prepared
            yield views if isinstance(views, Failure) else scored_views(views, np.concatenate(place.logits))


def scored_views(views: Views, logits: NDArray[np.float32]) -> Scored:
    """The views with their logits (V, K) instead of their pixels."""
    return Scored(views.item, views.info, views.span, views.labels, logits, views.more, views.thumbnail)


class _Place:
    """A span in the line: how many of its views are still to be scored, and the logits of the others."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.unscored = 0 if isinstance(prepared, Failure) else len(prepared.pixels)
        self.logits: list[NDArray[np.float32]] = []

    def take(self, most: int) -> Pixels:
        """The next of its views (N, T, C, H, W)."""
        assert isinstance(self.prepared, Views)
        first = len(self.prepared.pixels) - self.unscored
        views = self.prepared.pixels[first : first + most]
        self.unscored -= len(views)
        return views
