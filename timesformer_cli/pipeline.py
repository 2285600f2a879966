"""The order of the stages: an item is read, prepared, scored, and becomes a result."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.aggregate import combine
from timesformer_cli.batching import BatchSize
from timesformer_cli.devices import available_cores
from timesformer_cli.engines.ports import Scorer
from timesformer_cli.errors import CheckpointError, TimesformerError, VideoError
from timesformer_cli.preprocess import crop_names, make_views
from timesformer_cli.records import (
    Failure,
    Frames,
    Item,
    Prediction,
    Result,
    Segment,
    VideoInfo,
    ViewLabel,
    Views,
    Window,
)
from timesformer_cli.sampling import plan
from timesformer_cli.sheet import thumbnail
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.video import VideoReader, open_video
from timesformer_cli.workers import OUT_OF_MEMORY, Done, Limits, Pool, Task

# Decoded frames of one video that are held at a time; a single clip may need more.
MAX_FRAME_BYTES = 2**28

# Frames in the thumbnail of a video; one of a timeline's segment has one.
_THUMBNAIL_FRAMES = 4

# Network input that may lie ready for it, beyond two videos for each worker: some fifty views of the base size,
# so that a GPU's batches fill up.
_ROOM = 2**28


def read_clips(reader: VideoReader, clips: NDArray[np.int64]) -> Iterator[Frames]:
    """The frames of each of `clips` (C, T), which share frames when they overlap: each is decoded once.

    As many clips are read at a time as `MAX_FRAME_BYTES` hold, so memory does not grow with their number.

    Raises:
        VideoError: a frame cannot be had.
    """
    most = MAX_FRAME_BYTES // (reader.info.width * reader.info.height * 3)
    blocks = _blocks(clips, most)
    numbers = np.empty(0, np.int64)
    frames = reader.read([])
    for block, after in zip_longest(blocks, blocks[1:], fillvalue=clips[:0]):
        missing = np.setdiff1d(block, numbers)
        read = reader.read(missing.tolist())
        if len(numbers):
            numbers = np.concatenate([numbers, missing])
            frames = _pick(_joined(frames, read), np.argsort(numbers))
            numbers.sort()
        else:  # nothing to put together, and no copy to make
            numbers, frames = missing, read
        del read
        for clip in block:
            yield _pick(frames, np.searchsorted(numbers, clip))
        kept = np.intersect1d(block, after)
        frames = _pick(frames, np.searchsorted(numbers, kept), copy=True)
        numbers = kept


def _blocks(clips: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Clips one after another, in blocks that need at most that many frames, or of one clip that needs more."""
    starts = [0]
    needed: set[int] = set()
    for number, clip in enumerate(clips.tolist()):
        needed.update(clip)
        if len(needed) > most and number > starts[-1]:
            starts.append(number)
            needed = set(clip)
    return np.split(clips, starts[1:])


def _joined(first: Frames, second: Frames) -> Frames:
    pixels = np.concatenate([first.pixels, second.pixels])
    return Frames(pixels, np.concatenate([first.times, second.times]))


def _pick(frames: Frames, positions: NDArray[np.intp], *, copy: bool = False) -> Frames:
    # Consecutive positions, as in any clip that shares no frame, are taken without a copy.
    chosen: slice | NDArray[np.intp] = positions
    if not copy and len(positions) and (np.diff(positions) == 1).all():
        chosen = slice(int(positions[0]), int(positions[-1]) + 1)
    return Frames(frames.pixels[chosen], frames.times[chosen])


def prepare(item: Item, checkpoint: Checkpoint, reading: Reading = Reading()) -> Views:
    """Everything that happens to a video before the network sees it, where its recipe takes it as a whole.

    Raises:
        VideoError: the video cannot be read.
    """
    (views,) = prepare_windows(item, checkpoint, reading)
    return views


def prepare_windows(
    item: Item, checkpoint: Checkpoint, reading: Reading = Reading(), *, thumbnails: bool = False
) -> Generator[Views]:
    """The views of each window of a video, in order of time; what is held does not grow with the video.

    Raises:
        VideoError: the video cannot be read.
    """
    spec = checkpoint.preprocess
    with open_video(item, reading) as reader:
        info = reader.info
        windows = plan(info, checkpoint.sampling)
        clips = read_clips(reader, np.concatenate([window.clips for window in windows]))
        for number, window in enumerate(windows):
            # Views are made clip by clip: the frames of ten clips of a film in 4K would not fit into memory.
            parts = [make_views([frames], spec) for frames in islice(clips, len(window.clips))]
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
            labels = _view_labels(info, window, checkpoint)
            picture = None
            if thumbnails:
                picture = thumbnail(pixels, labels, spec, _THUMBNAIL_FRAMES if len(windows) == 1 else 1)
            yield Views(item, info, window, labels, pixels, number + 1 < len(windows), picture)


def _view_labels(info: VideoInfo, window: Window, checkpoint: Checkpoint) -> tuple[ViewLabel, ...]:
    crops = crop_names(info.width, info.height, checkpoint.preprocess)
    clips = enumerate(window.clips.tolist())
    return tuple(ViewLabel(number, crop, tuple(frames)) for number, frames in clips for crop in crops)


Prepared = Views | Failure


@contextmanager
def prepare_all(
    items: Iterable[Item],
    checkpoint: Checkpoint,
    reading: Reading = Reading(),
    *,
    workers: int,
    limits: Limits,
    thumbnails: bool = False,
) -> Iterator[Iterator[Prepared | None]]:
    """The views of each window of each item, in order; a video that cannot be read ends with a `Failure`.

    None says that the next of them is not there yet: who asks again waits for it.

    `workers` processes do it, ahead of whoever takes the results and from the moment the context is
    entered; `limits` is what one video may take. Without workers it is done here as it is asked
    for, and a decoder that hangs or crashes takes the program with it.
    """
    task = partial(_carried, checkpoint=checkpoint, reading=reading, thumbnails=thumbnails)
    if workers == 0:
        yield _one_by_one(items, task)
        return
    with Pool(task, items, workers=workers, limits=limits, room=_ROOM) as pool:
        yield (result and _received(*result) for result in pool.results_and_pauses())


def _one_by_one(items: Iterable[Item], task: Task[Item]) -> Iterator[Prepared | None]:
    for item in items:
        try:
            for done in task(item, available_cores()):
                yield _received(item, done)
                yield None
        except VideoError as error:
            yield _received(item, error)
        except MemoryError:
            yield Failure(item, "too_large", OUT_OF_MEMORY)


def _carried(item: Item, threads: int, checkpoint: Checkpoint, reading: Reading, thumbnails: bool) -> Generator[Done]:
    """`prepare_windows` in a worker. The item itself stays behind: the master has it."""
    reading = replace(reading, threads=threads)
    try:
        for views in prepare_windows(item, checkpoint, reading, thumbnails=thumbnails):
            yield Done((views.info, views.window, views.labels, views.thumbnail), views.pixels, views.more)
    except (TimesformerError, MemoryError):
        raise
    except Exception as error:
        # One odd file in a million must not stop a run of days, even where the mistake is ours.
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise VideoError("crash", f"reading it failed as was not foreseen ({what}); please report it") from error


def _received(item: Item, answer: Done | VideoError) -> Prepared:
    if isinstance(answer, VideoError):
        return Failure(item, answer.kind, str(answer))
    info, window, labels, picture = answer.value
    return Views(item, info, window, labels, answer.array, answer.more, picture)


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
