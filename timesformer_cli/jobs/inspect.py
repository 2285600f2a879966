"""What a video contains, and exactly what a model would see.

`to_record` gives this as plain data. `save_tensors` writes the model input to an .npz file for `numpy.load`, with

    pixels  float32 (V, T, C, H, W): the model input, view by view, in the order of the clips
    frames  int64 (V, T): the frame numbers
    times   float64 (V, T): seconds from the first frame of the video
    clip    int64 (V,): which clip a view shows
    crop    text (V,): which crop of it
    mean, std      float64 (C,): of the normalisation, on a scale from 0 to 1, channel by channel
    channel_order  text: rgb, bgr or gray
    labels  text (K,): the names of the network's classes, in the order of its scores
    path, model, recipe  text
"""

import math
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Failure, Item, VideoInfo, ViewLabel, Views
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.workers import OUT_OF_MEMORY, Done, Pool
from timesformer_cli.results.record import video_facts
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Checkpoint, Reading, Recipe
from timesformer_cli.text import plural
from timesformer_cli.video.facts import Facts, read_facts

# Header and content may differ by rounding, or by the duration of the last frame.
_TOLERANCE, _TOLERANCE_SECONDS = 0.05, 0.5

# File extensions that imply one format, with FFmpeg's name for it.
_FORMAT_OF_NAME = {
    **dict.fromkeys(("mp4", "m4v", "mov"), "mov"),
    **dict.fromkeys(("mkv", "webm"), "matroska"),
    **{name: name for name in ("avi", "flv", "gif")},
}


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The findings about one video: either `views` or a `failure`.

    `facts` is None for a folder of images, and for a file that cannot be opened.
    """

    item: Item
    facts: Facts | None
    views: Views | None
    failure: Failure | None


def examine(item: Item, recipe: Recipe, reading: Reading) -> Inspection:
    """What a video contains, and what a model with this `recipe` would see."""
    try:
        facts = read_facts(item, reading)
    except VideoError:  # `prepare` will say why
        facts = None
    try:
        return Inspection(item, facts, prepare(item, recipe, reading), None)
    except VideoError as error:
        return Inspection(item, facts, None, Failure(item, error.kind, str(error)))


@contextmanager
def examine_all(
    items: Iterable[Item], recipe: Recipe, run: RunOptions, *, keep: bool, most: int | None = None
) -> Iterator[Iterator[Inspection]]:
    """An inspection of each item, in order; `keep`: with the pixels of its views.

    The worker processes of `run` do the work, at most `most` of them. Without workers it is done lazily in this
    process, which a decoder can then hang or crash.
    """
    workers = run.processes if most is None else min(run.processes, most)
    if workers == 0:
        reading = replace(run.reading, threads=available_cores())
        yield (_examined(item, recipe, reading) for item in items)
        return
    task = partial(_carried, recipe=recipe, reading=run.reading, keep=keep)
    with Pool(task, items, workers=workers, limits=run.limits) as pool:
        yield (_received(item, answer) for item, answer in pool.results())


def _examined(item: Item, recipe: Recipe, reading: Reading) -> Inspection:
    try:
        return examine(item, recipe, reading)
    except MemoryError:
        return Inspection(item, None, None, Failure(item, "too_large", OUT_OF_MEMORY))


def _carried(item: Item, threads: int, recipe: Recipe, reading: Reading, keep: bool) -> Generator[Done]:
    """`examine` in a worker. The pixels are sent apart from the rest, if they are wanted."""
    inspection = examine(item, recipe, replace(reading, threads=threads))
    views = inspection.views
    if views is None:
        yield Done(inspection, np.empty(0, np.float32))
        return
    none = views.pixels[:0]
    yield Done(replace(inspection, views=replace(views, pixels=none)), views.pixels if keep else none)


def _received(item: Item, answer: Done | VideoError) -> Inspection:
    if isinstance(answer, VideoError):
        return Inspection(item, None, None, Failure(item, answer.kind, str(answer)))
    inspection: Inspection = answer.value
    if inspection.views is None:
        return inspection
    return replace(inspection, views=replace(inspection.views, pixels=answer.array))


def warnings(inspection: Inspection) -> list[str]:
    """One sentence for each contradiction between a file and its name or header, and for damage."""
    facts = inspection.facts
    if facts is None:
        return []
    found = [*_wrong_name(inspection.item, facts), *_damage(facts)]
    if inspection.views is not None:
        found += _wrong_claims(facts, inspection.views.info)
    return found


def _wrong_name(item: Item, facts: Facts) -> Iterator[str]:
    ending = os.path.splitext(item.path)[1][1:].lower()
    if _FORMAT_OF_NAME.get(ending, facts.format) not in facts.format:
        yield f"its extension is .{ending}, but its format is {facts.format_name}"


def _damage(facts: Facts) -> Iterator[str]:
    if facts.packets is None:
        return
    if facts.packets.encrypted:
        yield "it is encrypted"
    if facts.packets.damaged:
        yield "parts of it are damaged or missing"


def _wrong_claims(facts: Facts, info: VideoInfo) -> Iterator[str]:
    stream, packets = facts.read, facts.packets
    if stream is None:
        return
    if stream.frames is not None and stream.frames != info.num_frames:
        reason = "; its edit list leaves out the others" if packets is not None and packets.edited else ""
        yield f"it claims {plural(stream.frames, 'frame')}, but {info.num_frames} are shown{reason}"
    if stream.duration and not _agree(stream.duration, info.duration):
        yield f"it claims to last {stream.duration:.2f} s, but its frames last {info.duration:.2f} s"
    # The duration of the file counts from its earliest stream.
    elif not stream.duration and facts.duration is not None and not _agree(facts.duration, info.start + info.duration):
        late = f", from {info.start:.2f} s on" if info.start >= _TOLERANCE_SECONDS else ""
        yield f"it claims to last {facts.duration:.2f} s, but its frames last {info.duration:.2f} s{late}"
    # With few frames, the duration of the last one matters, and not every format stores it.
    if stream.fps is not None and abs(stream.fps / info.fps - 1) > max(_TOLERANCE, 1 / info.num_frames):
        yield f"it claims {stream.fps:.4g} frames per second, but has {info.fps:.4g}"


def _agree(claimed: float, true: float) -> bool:
    return abs(claimed - true) <= max(_TOLERANCE * true, _TOLERANCE_SECONDS)


def notes(inspection: Inspection) -> list[str]:
    """One sentence for each remark on how the model sees the video."""
    facts = inspection.facts
    if facts is None:
        return []
    found = []
    stream, picture = facts.read, facts.picture
    if stream is not None and stream.pixel_aspect is not None and not _is_square(stream.pixel_aspect):
        found.append(f"its pixels are not square ({stream.pixel_aspect}): the model sees the frames as they are stored")
    if picture is not None and picture.interlaced:
        found.append("it is interlaced: the model sees both fields of a frame at once")
    if picture is not None and picture.hdr is not None:
        found.append(
            f"its colours are {picture.hdr} (high dynamic range): the model sees them flat, as they are stored"
        )
    moving = [stream for stream in facts.video if not stream.cover]
    if stream is not None and len(moving) > 1:
        found.append(f"it has {len(moving)} video streams: only stream {stream.index} is read")
    return found


def _is_square(aspect: str) -> bool:
    # Sizes rounded to whole pixels lead to aspects such as 640:639, which are square in effect.
    width, height = map(int, aspect.split(":"))
    return abs(width / height - 1) < 0.02


def to_record(inspection: Inspection, checkpoint: Checkpoint) -> dict[str, Any]:
    """The inspection as JSON. Fields that mean the same as in records of `predict` have the same names."""
    head: dict[str, Any] = {"path": inspection.item.path, "status": "ok", "model": checkpoint.name}
    failure, views = inspection.failure, inspection.views
    if failure is not None:
        head |= {"status": "error", "error": {"kind": failure.kind, "message": failure.message}}
    if views is not None:
        head["video"] = _video_record(views.info)
        head["clips"] = [_clip_record(clip, frames, views.info) for clip, frames in enumerate(views.span.clips)]
        head["views"] = [_view_record(view) for view in views.labels]
        head["input"] = [len(views.labels), *views.pixels.shape[1:]]
    head |= {
        "recipe": checkpoint.recipe.name,
        "sampling": asdict(checkpoint.sampling),
        "preprocess": asdict(checkpoint.preprocess),
        "file": None if inspection.facts is None else asdict(inspection.facts),
        "warnings": warnings(inspection),
        "notes": notes(inspection),
    }
    return head


def _video_record(info: VideoInfo) -> dict[str, Any]:
    apart = np.diff(info.times)
    return video_facts(info) | {
        "start": _rounded(info.start),
        "frame_spacing": {
            "smallest": _rounded(apart.min()),
            "median": _rounded(np.median(apart)),
            "largest": _rounded(apart.max()),
        }
        if len(apart)
        else None,
        "variable_rate": _is_variable(apart),
    }


def _is_variable(apart: NDArray[np.float64]) -> bool:
    """Whether frames come at uneven times, and not only because times are whole milliseconds."""
    if not len(apart):
        return False
    median = float(np.median(apart))
    return bool(np.abs(apart - median).max() > max(0.0021, 0.05 * median))


def _clip_record(clip: int, frames: NDArray[np.int64], info: VideoInfo) -> dict[str, Any]:
    times = info.times[frames]
    # Only steps forwards: a clip may repeat a frame, or start the video again.
    on = np.diff(frames) > 0
    return {
        "clip": clip,
        "frames": frames.tolist(),
        "times": [_rounded(time) for time in times],
        "start": _rounded(times.min()),
        "end": _rounded(times.max()),
        "stride": float(np.median(np.diff(frames)[on])) if on.any() else None,
        "stride_seconds": _rounded(np.median(np.diff(times)[on])) if on.any() else None,
        "repeated": len(frames) - len(np.unique(frames)),
    }


def _view_record(view: ViewLabel) -> dict[str, Any]:
    record: dict[str, Any] = {"clip": view.clip, "crop": view.crop, "frames": list(view.frames)}
    repeated = len(view.frames) - len(set(view.frames))
    return record | ({"repeated": repeated} if repeated else {})


def _rounded(value: float) -> float | None:
    # A container can state a rate that is not finite, and JSON has only finite numbers.
    return round(float(value), 3) if math.isfinite(value) else None


def save_tensors(file: IO[bytes], views: Views, checkpoint: Checkpoint) -> None:
    """Write the model input as .npz; the module lists the arrays."""
    frames = np.array([view.frames for view in views.labels], np.int64)
    spec = checkpoint.preprocess
    np.savez(
        file,
        pixels=views.pixels,
        frames=frames,
        times=views.info.times[frames],
        clip=np.array([view.clip for view in views.labels], np.int64),
        crop=np.array([view.crop for view in views.labels]),
        mean=np.array(spec.mean, np.float64),
        std=np.array(spec.std, np.float64),
        channel_order=np.array(spec.channel_order),
        labels=np.array(checkpoint.labels),
        path=np.array(views.item.path),
        model=np.array(checkpoint.name),
        recipe=np.array(checkpoint.recipe.name),
    )
