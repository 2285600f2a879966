"""From items to network input: worker processes read videos ahead and cut them into views."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.errors import TimesformerError, VideoError
from timesformer_cli.flow import Failure, Frames, Item, VideoInfo, ViewLabel, Views
from timesformer_cli.pipeline.workers import OUT_OF_MEMORY, Done, Limits, Pool, Task
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Reading, Recipe, Timeline
from timesformer_cli.video.hashes import frame_hashes, spread
from timesformer_cli.video.playback import plays_in_browsers
from timesformer_cli.video.preprocess import crop_names, make_views
from timesformer_cli.video.reader import VideoReader, open_video
from timesformer_cli.video.render import FILM_FRAMES, film, film_frame, middles, still, strip, thumbnail
from timesformer_cli.video.sampling import plan

T = TypeVar("T")

# What thumbnails show: the network's input, which may be gray and cropped; or the frames that the network saw as they
# are, as a film (see `render.film`) if browsers do not play the video.
Thumbnails = Literal["input", "frames"]

# Frames in the thumbnail of a video; the thumbnail of a timeline's segment has one.
THUMBNAIL_FRAMES = 4

# Network input that may be prepared in advance, beyond two videos for each worker: some fifty views of the base
# size, enough to fill a GPU's batches.
_ROOM = 2**28


def read_clips(reader: VideoReader, clips: NDArray[np.int64], reading: Reading = Reading()) -> Iterator[Frames]:
    """The frames of each of `clips` (C, T). Frames that clips share are decoded only once.

    It reads as many clips at a time as `reading.max_frame_bytes` holds, so memory does not grow with their number.

    Raises:
        VideoError: a frame cannot be decoded.
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
        else:  # nothing to join, so no copy
            numbers, frames = missing, read
        del read
        for clip in block:
            yield _pick(frames, np.searchsorted(numbers, clip))
        kept = np.intersect1d(block, after)
        frames = _pick(frames, np.searchsorted(numbers, kept), copy=True)
        numbers = kept


def _blocks(clips: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Consecutive clips in blocks that need at most `most` frames; a clip that needs more is a block of its own."""
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
    # Consecutive positions, as in any clip that repeats no frame, are taken without a copy.
    chosen: slice | NDArray[np.intp] = positions
    if not copy and len(positions) and (np.diff(positions) == 1).all():
        chosen = slice(int(positions[0]), int(positions[-1]) + 1)
    return Frames(frames.pixels[chosen], frames.times[chosen])


def prepare(item: Item, recipe: Recipe, reading: Reading = Reading()) -> Views:
    """All views of a video as a whole, ready for the network.

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
    thumbnails: Thumbnails | None = None,
    hashes: bool = False,
    levels: bool = False,
) -> Generator[Views]:
    """The views of each span of a video, in order of time; memory does not grow with the length of the video.

    A `timeline` is only for whole videos. `levels` is as for `make_views`; `thumbnails` and `hashes` add those of each
    span.

    Raises:
        VideoError: the video cannot be read.
    """
    spec = recipe.preprocess
    with open_video(item, reading) as reader:
        info = reader.info
        spans = plan(info, recipe.sampling, timeline, part=item.part)
        crops = crop_names(info.width, info.height, spec)
        clips = read_clips(reader, np.concatenate([span.clips for span in spans]), reading)
        for number, span in enumerate(spans):
            wanted = spread(span.clips).tolist() if hashes else []
            hashed: dict[int, np.uint64] = {}
            shown = _hashing(islice(clips, len(span.clips)), span.clips, wanted, hashed)
            gallery = _Gallery(item, info, span.clips, THUMBNAIL_FRAMES if len(spans) == 1 else 1)
            if thumbnails == "frames":
                shown = gallery.watching(shown)
            # Views are made clip by clip: the frames of ten clips of a 4K film would not fit into memory.
            parts = [make_views([frames], spec, levels=levels) for frames in shown]
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
            labels = tuple(
                ViewLabel(clip, crop, tuple(frames))
                for clip, frames in enumerate(span.clips.tolist())
                for crop in crops
            )
            picture = None
            if thumbnails is not None:
                by_input = thumbnails == "input"
                picture = thumbnail(pixels, labels, spec, gallery.stills) if by_input else gallery.thumbnail()
            found = np.array([hashed[number] for number in wanted], np.uint64) if hashes else None
            yield Views(item, info, span, labels, pixels, number + 1 < len(spans), picture, found)


def _hashing(
    clips: Iterable[Frames], numbers: NDArray[np.int64], wanted: Sequence[int], hashed: dict[int, np.uint64]
) -> Iterator[Frames]:
    """Pass on the frames of clips with these `numbers` (C, T), and put the hashes of those `wanted` into `hashed`."""
    for frames, clip in zip(clips, numbers.tolist(), strict=True):
        for number in set(wanted).intersection(clip).difference(hashed):
            place = clip.index(number)
            (hashed[number],) = frame_hashes(frames.pixels[place : place + 1])
        yield frames


class _Gallery:
    """Keeps the frames of clips (C, T) that their thumbnail shows, small: so many `stills`, unless it is a film."""

    def __init__(self, item: Item, info: VideoInfo, clips: NDArray[np.int64], stills: int) -> None:
        self.stills = stills
        self._moves = not plays_in_browsers(item.path, info.container, info.codec, info.pixel_format)
        places = middles(clips.size, FILM_FRAMES if self._moves else stills)
        self._wanted = [divmod(place, clips.shape[1]) for place in places]
        self._kept: list[Image.Image] = []

    def watching(self, clips: Iterable[Frames]) -> Iterator[Frames]:
        """Pass on the frames of all clips."""
        shrink = film_frame if self._moves else still
        for number, frames in enumerate(clips):
            self._kept += [shrink(frames.pixels[place]) for clip, place in self._wanted if clip == number]
            yield frames

    def thumbnail(self) -> bytes:
        return film(self._kept) if self._moves else strip(self._kept)


Prepared = Views | Failure


@contextmanager
def prepare_all(
    items: Iterable[Item],
    recipe: Recipe,
    reading: Reading = Reading(),
    *,
    timeline: Timeline | None = None,
    thumbnails: Thumbnails | None = None,
    hashes: bool = False,
    levels: bool = False,
    workers: int,
    limits: Limits,
) -> Iterator[Iterator[Prepared | None]]:
    """The views of each span of each item, in order; a video that cannot be read ends with a `Failure`.

    None means that the next result is not ready yet: ask again to wait for it.

    `workers` processes do the work, ahead of the consumer, as soon as the context is entered; `limits`
    bounds the time and memory of one video. Without workers, the work is done here when a result is
    asked for, and a decoder that hangs or crashes takes the program with it.
    """
    spans = partial(
        prepare_spans, recipe=recipe, timeline=timeline, thumbnails=thumbnails, hashes=hashes, levels=levels
    )
    task = partial(_carried, spans=spans, reading=reading)
    with read_ahead(task, items, workers=workers, limits=limits) as results:
        yield (result and _received(*result) for result in results)


@contextmanager
def read_ahead(
    task: Task[T], items: Iterable[T], *, workers: int, limits: Limits
) -> Iterator[Iterator[tuple[T, Done | VideoError] | None]]:
    """What `task` makes of each item, as `Pool.results_and_pauses` gives it, by `workers` processes or here.

    They begin as soon as the context is entered.
    """
    if workers == 0:
        yield _one_by_one(items, task)
        return
    with Pool(task, items, workers=workers, limits=limits, room=_ROOM) as pool:
        yield pool.results_and_pauses()


def _one_by_one(items: Iterable[T], task: Task[T]) -> Iterator[tuple[T, Done | VideoError] | None]:
    for item in items:
        try:
            for done in task(item, available_cores()):
                yield item, done
                yield None
        except VideoError as error:
            yield item, error
        except MemoryError:
            yield item, VideoError("too_large", OUT_OF_MEMORY)


@contextmanager
def odd_errors(item: Item) -> Iterator[None]:
    """Turn what nobody foresaw into a VideoError: one odd file in a million must not stop a run of days.

    Even if the bug is ours.
    """
    try:
        yield
    except (TimesformerError, MemoryError):
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".replace(item.location, item.path).split())
        raise VideoError("crash", f"reading it failed unexpectedly ({what}); please report it") from error


def _carried(item: Item, threads: int, spans: Callable[..., Generator[Views]], reading: Reading) -> Generator[Done]:
    """`prepare_spans` in a worker. The item itself is not sent back: the main process has it."""
    with odd_errors(item):
        for views in spans(item, reading=replace(reading, threads=threads)):
            beside = views.info, views.span, views.labels, views.thumbnail, views.hashes
            yield Done(beside, views.pixels, views.more)


def _received(item: Item, answer: Done | VideoError) -> Prepared:
    if isinstance(answer, VideoError):
        return Failure(item, answer.kind, str(answer))
    info, span, labels, picture, hashes = answer.value
    return Views(item, info, span, labels, answer.array, answer.more, picture, hashes)
