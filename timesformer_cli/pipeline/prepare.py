"""From items to what the network is fed: read, cut into views, in worker processes ahead of whoever takes them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import TimesformerError, VideoError
from timesformer_cli.flow import Failure, Frames, Item, ViewLabel, Views
from timesformer_cli.pipeline.workers import OUT_OF_MEMORY, Done, Limits, Pool, Task
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Reading, Recipe, Timeline
from timesformer_cli.video.preprocess import crop_names, make_views
from timesformer_cli.video.reader import VideoReader, open_video
from timesformer_cli.video.render import thumbnail
from timesformer_cli.video.sampling import plan

# Frames in the thumbnail of a video; one of a timeline's segment has one.
_THUMBNAIL_FRAMES = 4

# Network input that may lie ready for it, beyond two videos for each worker: some fifty views of the base size,
# so that a GPU's batches fill up.
_ROOM = 2**28


def read_clips(reader: VideoReader, clips: NDArray[np.int64], reading: Reading = Reading()) -> Iterator[Frames]:
    """The frames of each of `clips` (C, T), which share frames when they overlap: each is decoded once.

    As many clips are read at a time as `reading.max_frame_bytes` hold, so memory does not grow with their number.

    Raises:
        VideoError: a frame cannot be had.
    """
    most = reading.max_frame_bytes // (reader.info.width * reader.info.height * 3)
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


def prepare(item: Item, recipe: Recipe, reading: Reading = Reading()) -> Views:
    """Everything that happens to a video as a whole before the network sees it.

    Raises:
        VideoError: the video cannot be read.
    """
    (views,) = prepare_spans(item, recipe, reading)
    return views


def prepare_spans(
    item: Item,
    recipe: Recipe,
    reading: Reading = Reading(),
    *,
    timeline: Timeline | None = None,
    thumbnails: bool = False,
    levels: bool = False,
) -> Generator[Views]:
    """The views of each span of a video, in order of time; what is held does not grow with the video.

    `levels` is as for `make_views`, and `thumbnails` asks for pictures of the spans.

    Raises:
        VideoError: the video cannot be read.
    """
    spec = recipe.preprocess
    with open_video(item, reading) as reader:
        info = reader.info
        spans = plan(info, recipe.sampling, timeline)
        crops = crop_names(info.width, info.height, spec)
        clips = read_clips(reader, np.concatenate([span.clips for span in spans]), reading)
        for number, span in enumerate(spans):
            # Views are made clip by clip: the frames of ten clips of a film in 4K would not fit into memory.
            parts = [make_views([frames], spec, levels=levels) for frames in islice(clips, len(span.clips))]
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
            labels = tuple(
                ViewLabel(clip, crop, tuple(frames))
                for clip, frames in enumerate(span.clips.tolist())
                for crop in crops
            )
            picture = None
            if thumbnails:
                picture = thumbnail(pixels, labels, spec, _THUMBNAIL_FRAMES if len(spans) == 1 else 1)
            yield Views(item, info, span, labels, pixels, number + 1 < len(spans), picture)


Prepared = Views | Failure


@contextmanager
def prepare_all(
    items: Iterable[Item],
    recipe: Recipe,
    reading: Reading = Reading(),
    *,
    timeline: Timeline | None = None,
    thumbnails: bool = False,
    levels: bool = False,
    workers: int,
    limits: Limits,
) -> Iterator[Iterator[Prepared | None]]:
    """The views of each span of each item, in order; a video that cannot be read ends with a `Failure`.

    None says that the next of them is not there yet: who asks again waits for it.

    `workers` processes do it, ahead of whoever takes the results and from the moment the context is
    entered; `limits` is what one video may take. Without workers it is done here as it is asked
    for, and a decoder that hangs or crashes takes the program with it.
    """
    spans = partial(prepare_spans, recipe=recipe, timeline=timeline, thumbnails=thumbnails, levels=levels)
    task = partial(_carried, spans=spans, reading=reading)
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


def _carried(item: Item, threads: int, spans: Callable[..., Generator[Views]], reading: Reading) -> Generator[Done]:
    """`prepare_spans` in a worker. The item itself stays behind: the master has it."""
    reading = replace(reading, threads=threads)
    try:
        for views in spans(item, reading=reading):
            yield Done((views.info, views.span, views.labels, views.thumbnail), views.pixels, views.more)
    except (TimesformerError, MemoryError):
        raise
    except Exception as error:
        # One odd file in a million must not stop a run of days, even where the mistake is ours.
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise VideoError("crash", f"reading it failed as was not foreseen ({what}); please report it") from error


def _received(item: Item, answer: Done | VideoError) -> Prepared:
    if isinstance(answer, VideoError):
        return Failure(item, answer.kind, str(answer))
    info, span, labels, picture = answer.value
    return Views(item, info, span, labels, answer.array, answer.more, picture)
