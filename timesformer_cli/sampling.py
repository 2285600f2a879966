"""Which frames of a video the network sees: arithmetic on frame counts and rates, without reading a pixel."""

import math

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.records import VideoInfo, Window
from timesformer_cli.specs import SamplingSpec

# Windows that `clips=None` places at most: more would seldom change the answer, but always the time.
MAX_AUTO_CLIPS = 10

# Ticks of an MP4 file's clock for each frame, as FFmpeg writes it for 25 or 30 frames a second.
_TICKS = 512


def plan(info: VideoInfo, spec: SamplingSpec) -> list[Window]:
    """The windows of a video, each with frame numbers int64 (C, T), 0 to `info.num_frames` - 1, none falling."""
    if spec.method == "window":
        clips = _windows(info, spec)
    elif spec.method == "segments":
        clips = _segments(info.num_frames, spec.num_frames)
    else:
        # The rule of transformers' video-classification pipeline since version 5.
        clips = np.arange(spec.num_frames, dtype=np.int64) * info.num_frames // spec.num_frames
    clips = np.clip(np.atleast_2d(clips), 0, info.num_frames - 1)
    return [Window(start=0.0, end=info.duration, clips=clips)]


def _windows(info: VideoInfo, spec: SamplingSpec) -> NDArray[np.int64]:
    """Clips of `num_frames` frames, `stride` apart at `fps`, as the original code takes them.

    With N frames, a clip of `stride * num_frames / fps` seconds is `clip` frames long, a real
    number. Clip i of n starts at `max(N - clip, 0) * i / n`, so the last does not reach the end of
    the video and a single one sits at its start. Both ends are included, so frames are
    (clip - 1) / (T - 1) apart: 36.43 for "8x32" at 30 fps. A short video repeats its last frame.
    """
    # No less than one frame, or the clip would run backwards: a video of one frame in ten seconds, say.
    clip = max(spec.stride * spec.num_frames / spec.fps * info.fps, 1.0)
    spare = max(info.num_frames - clip, 0.0)
    count = spec.clips
    if count is None:
        count = min(max(round(info.num_frames / clip), 1), MAX_AUTO_CLIPS)
        if count > 1:  # side by side, from the first frame to the last
            return np.stack([_span(spare * i / (count - 1), clip, spec.num_frames) for i in range(count)])
    if count == 1:
        return _span(spare / 2 if spec.placement == "middle" else 0.0, clip, spec.num_frames)
    starts = [spare * i / count for i in range(count)]
    if info.has_stream_duration:
        # From such a container (MP4) the original decodes the frames from the time of `start` on, and
        # then counts from the first of them; others (Matroska, WebM) it decodes from the beginning.
        # The time is cut down to a whole tick of the clock, so that rounding does not cost a frame.
        firsts = [math.ceil(math.floor(start * _TICKS) / _TICKS) for start in starts]
        return np.stack([first + _span(0.0, clip, spec.num_frames) for first in firsts])
    return np.stack([_span(start, clip, spec.num_frames) for start in starts])


def _span(start: float, length: float, count: int) -> NDArray[np.int64]:
    """`count` frame numbers spread from `start` to `start + length - 1`, cut down to whole numbers.

    These are the numbers of `torch.linspace(start, start + length - 1, count).long()`: float32,
    upwards from the first in the lower half and downwards from the last in the upper, with a fused
    multiply-add, which float64 rounded once equals. NumPy's linspace is off by one now and then.
    """
    first, last = np.float32(start), np.float32(start + length - 1)
    if count == 1:
        return np.array([first], dtype=np.int64)
    step = float((last - first) / np.float32(count - 1))
    number = np.arange(count)
    up = float(first) + step * number
    down = float(last) - step * (count - 1 - number)
    return np.where(number < count // 2, up, down).astype(np.float32).astype(np.int64)


def _segments(frames: int, count: int) -> NDArray[np.int64]:
    """The middle frame of each of `count` equal parts, as the original reads Something-Something."""
    # np.round sends halves to the even neighbour, and the original relies on it.
    edges = np.round((frames - 1) / count * np.arange(count + 1)).astype(np.int64)
    return (edges[:-1] + edges[1:]) // 2
