"""The order of the stages: an item is read, prepared, scored, and becomes a result."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import Failure, Prediction, Result, Segment, Views
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.pipeline.prepare import Prepared
from timesformer_cli.runtimes.batching import BatchSize
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.specs import Checkpoint


def classify(
    prepared: Iterable[Prepared | None], scorer: Scorer, checkpoint: Checkpoint, *, batch: BatchSize | int = 1
) -> Iterator[Result]:
    """One result for each item, in order; the scorer sees at most `batch` views at a time, of one video or more.

    A batch is filled up from the videos that are there. Where None says that the next is not, it is
    scored as it is, so that no result waits for a video that may be long in coming.

    Raises:
        CheckpointError: the network's scores are not numbers.
        DeviceError: not even one view fits into memory.
    """
    size = batch if isinstance(batch, BatchSize) else BatchSize(batch)
    line = _Line(scorer, size)
    for views in prepared:
        if views is not None:
            line.add(views)
        while line.unscored >= (size.size if views is not None and size.spans else 1):
            line.score_batch()
            yield from line.results(checkpoint)
        yield from line.results(checkpoint)  # failures at the head of it
    while line.unscored:
        line.score_batch()
        yield from line.results(checkpoint)
    yield from line.results(checkpoint)


class _Line:
    """Windows in their order, from the first without a result to the last that is there."""

    def __init__(self, scorer: Scorer, size: BatchSize) -> None:
        self._scorer = scorer
        self._size = size
        self._places: deque[_Place] = deque()
        self._segments: list[Segment] = []  # of the video at the head
        self.unscored = 0  # views

    def add(self, prepared: Prepared) -> None:
        place = _Place(prepared)
        self._places.append(place)
        self.unscored += place.unscored

    def score_batch(self) -> None:
        """Score the first views, as many as make a batch or as there are."""
        taken: list[tuple[_Place, NDArray[np.float32]]] = []
        missing = self._size.size
        for place in self._places:
            if missing == 0:
                break
            if place.unscored:
                taken.append((place, place.take(missing)))
                missing -= len(taken[-1][1])
        # The views of one video alone need no copy.
        pixels = taken[0][1] if len(taken) == 1 else np.concatenate([views for _, views in taken])
        logits = self._size.score(self._scorer, pixels)
        self.unscored -= len(pixels)
        for place, views in taken:
            place.logits.append(logits[: len(views)])
            logits = logits[len(views) :]

    def results(self, checkpoint: Checkpoint) -> Iterator[Result]:
        """What is finished at the head of the line, which it leaves."""
        while self._places and not self._places[0].unscored:
            place = self._places.popleft()
            views = place.prepared
            if isinstance(views, Failure):
                self._segments.clear()  # of the part of it that could be read
                yield views
                continue
            self._segments.append(_segment(views, np.concatenate(place.logits), checkpoint))
            if not views.more:
                yield Prediction(views.item, views.info, tuple(self._segments))
                self._segments.clear()


class _Place:
    """A window in the line: how many of its views are still to be scored, and the logits of the others."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.unscored = 0 if isinstance(prepared, Failure) else len(prepared.pixels)
        self.logits: list[NDArray[np.float32]] = []

    def take(self, most: int) -> NDArray[np.float32]:
        """The next of its views, float32 (N, T, C, H, W)."""
        assert isinstance(self.prepared, Views)
        first = len(self.prepared.pixels) - self.unscored
        views = self.prepared.pixels[first : first + most]
        self.unscored -= len(views)
        return views


def _segment(views: Views, logits: NDArray[np.float32], checkpoint: Checkpoint) -> Segment:
    """One window, with the logits (V, K) of its views.

    Raises:
        CheckpointError: the network's scores are not numbers.
    """
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{checkpoint.name}: the network's scores are not numbers; are its weights damaged?")
    window = views.window
    mean, scores = combine(logits, "raw_logits"), combine(logits, checkpoint.combine)
    return Segment(window.start, window.end, views.labels, mean, scores, views.thumbnail)
