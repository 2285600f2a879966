"""The order of the stages: an item is read, prepared, scored, and becomes a result."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.aggregate import combine
from timesformer_cli.batching import BatchSize
from timesformer_cli.errors import CheckpointError, TimesformerError, VideoError
from timesformer_cli.preprocess import crop_names, make_views
from timesformer_cli.records import (
    Failure,
    Frames,
    Item,
    Prediction,
    Result,
    VideoInfo,
    ViewLabel,
    Views,
    Window,
)
from timesformer_cli.runtime import Scorer
from timesformer_cli.sampling import plan
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.video import VideoReader, open_video
from timesformer_cli.workers import OUT_OF_MEMORY, Done, Limits, Pool

# Decoded frames of one video that are held at a time; a single clip may need more.
MAX_FRAME_BYTES = 2**30

# Network input that may lie ready for it, beyond two videos for each worker: some fifty views of the base size,
# so that a GPU's batches fill up.
_ROOM = 2**28


def read_clips(reader: VideoReader, clips: NDArray[np.int64]) -> list[Frames]:
    """Decode the frames of `clips` (C, T): one `Frames` for each clip.

    Raises:
        VideoError: a frame cannot be had.
    """
    # Clips share frames when the video is short: each is decoded once, in order.
    wanted, positions = np.unique(clips, return_inverse=True)
    frames = reader.read(wanted.tolist())
    return [_pick(frames, clip) for clip in positions.reshape(clips.shape)]


def _pick(frames: Frames, positions: NDArray[np.intp]) -> Frames:
    # Consecutive positions, as in any clip that shares no frame, are taken without a copy.
    run = slice(int(positions[0]), int(positions[-1]) + 1)
    chosen = run if np.array_equal(positions, np.arange(run.start, run.stop)) else positions
    return Frames(frames.pixels[chosen], frames.times[chosen])


def prepare(item: Item, checkpoint: Checkpoint, reading: Reading = Reading()) -> Views:
    """Everything that happens to a video before the network sees it.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(item, reading) as reader:
        info = reader.info
        (window,) = plan(info, checkpoint.sampling)
        # Ten clips of a film in 4K would not fit into memory, so as many are read at a time as surely do.
        at_a_time = max(MAX_FRAME_BYTES // (window.clips.shape[1] * info.width * info.height * 3), 1)
        parts = [
            make_views(read_clips(reader, window.clips[start : start + at_a_time]), checkpoint.preprocess)
            for start in range(0, len(window.clips), at_a_time)
        ]
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Views(item, info, window, _view_labels(info, window, checkpoint), pixels)


def prepare_windows(item: Item, checkpoint: Checkpoint, reading: Reading = Reading()) -> Iterator[Views]:
    """`prepare` for each window of a timeline, in order of time; what is held does not grow with the video.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(item, reading) as reader:
        shared = _SharedFrames(reader)
        for window in plan(reader.info, checkpoint.sampling):
            pixels = make_views(shared.read_clips(window.clips), checkpoint.preprocess)
            labels = _view_labels(reader.info, window, checkpoint)
            yield Views(item, reader.info, window, labels, pixels)


class _SharedFrames:
    """Frames of windows that overlap: each is decoded once, and let go when the windows have passed it."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self._frames: dict[int, Frames] = {}  # by number, one each

    def read_clips(self, clips: NDArray[np.int64]) -> list[Frames]:
        """As the function of that name; `clips` are those of one window after another."""
        wanted = np.unique(clips).tolist()
        missing = [number for number in wanted if number not in self._frames]
        if missing:
            read = self._reader.read(missing)
            # Copies, since a part of an array keeps the whole in memory.
            for place, number in enumerate(missing):
                self._frames[number] = Frames(read.pixels[place : place + 1].copy(), read.times[place : place + 1])
        self._frames = {number: frame for number, frame in self._frames.items() if number >= wanted[0]}
        return [self._clip(numbers) for numbers in clips.tolist()]

    def _clip(self, numbers: list[int]) -> Frames:
        frames = [self._frames[number] for number in numbers]
        pixels = np.concatenate([frame.pixels for frame in frames])
        return Frames(pixels, np.concatenate([frame.times for frame in frames]))


def _view_labels(info: VideoInfo, window: Window, checkpoint: Checkpoint) -> tuple[ViewLabel, ...]:
    crops = crop_names(info.width, info.height, checkpoint.preprocess)
    clips = enumerate(window.clips.tolist())
    return tuple(ViewLabel(number, crop, tuple(frames)) for number, frames in clips for crop in crops)


Prepared = Views | Failure


@contextmanager
def prepare_all(
    items: Iterable[Item], checkpoint: Checkpoint, reading: Reading = Reading(), *, workers: int, limits: Limits
) -> Iterator[Iterator[Prepared | None]]:
    """What comes of each item, in order; a video that cannot be read becomes a `Failure`.

    None says that the next of them is not there yet: who asks again waits for it.

    `workers` processes do it, ahead of whoever takes the results and from the moment the context is
    entered; `limits` is what one video may take. Without workers it is done here as it is asked
    for, and a decoder that hangs or crashes takes the program with it.
    """
    if workers == 0:
        yield _one_by_one(items, checkpoint, reading)
        return
    task = partial(_carried, checkpoint=checkpoint, reading=reading)
    with Pool(task, items, workers=workers, limits=limits, room=_ROOM) as pool:
        yield (result and _received(*result) for result in pool.results_and_pauses())


def _one_by_one(items: Iterable[Item], checkpoint: Checkpoint, reading: Reading) -> Iterator[Prepared | None]:
    for item in items:
        yield _prepared(item, checkpoint, reading)
        yield None


def _prepared(item: Item, checkpoint: Checkpoint, reading: Reading) -> Prepared:
    try:
        done = _carried(item, checkpoint, reading)
    except VideoError as error:
        return _received(item, error)
    except MemoryError:
        return Failure(item, "too_large", OUT_OF_MEMORY)
    return _received(item, done)


def _carried(item: Item, checkpoint: Checkpoint, reading: Reading) -> Done:
    """`prepare` in a worker. The item itself stays behind: the master has it."""
    try:
        views = prepare(item, checkpoint, reading)
    except (TimesformerError, MemoryError):
        raise
    except Exception as error:
        # One odd file in a million must not stop a run of days, even where the mistake is ours.
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise VideoError("crash", f"reading it failed as was not foreseen ({what}); please report it") from error
    return Done((views.info, views.window, views.labels), views.pixels)


def _received(item: Item, answer: Done | VideoError) -> Prepared:
    if isinstance(answer, VideoError):
        return Failure(item, answer.kind, str(answer))
    info, window, labels = answer.value
    return Views(item, info, window, labels, answer.array)


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
    """Videos in their order, from the first without a result to the last that is there."""

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
            if isinstance(place.prepared, Failure):
                yield place.prepared
            else:
                yield predict(place.prepared, np.concatenate(place.logits), checkpoint)


class _Place:
    """A video in the line: how many of its views are still to be scored, and the logits of the others."""

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


def predict(views: Views, logits: NDArray[np.float32], checkpoint: Checkpoint) -> Prediction:
    """The scores of one window from the logits (V, K) of its views.

    Raises:
        CheckpointError: the network's scores are not numbers.
    """
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{checkpoint.name}: the network's scores are not numbers; are its weights damaged?")
    return Prediction(views.item, views.info, views.window, views.labels, combine(logits, checkpoint.combine))
