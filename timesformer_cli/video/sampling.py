"""The choice of a video's frames for the network: arithmetic on frame counts and rates, without reading pixels."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import WHOLE, Part, Span, VideoInfo
from timesformer_cli.specs import SamplingSpec, Timeline
from timesformer_cli.text import stretch

# The most windows that `clips=None` places: more would seldom change the answer, but always take time.
MAX_AUTO_CLIPS = 10

# Segments of a timeline: 27 hours of ten per second.
_MOST_SEGMENTS = 1_000_000

# Ticks per frame of an MP4 file's clock, as FFmpeg writes it for 25 or 30 frames per second.
_TICKS = 512


def plan(info: VideoInfo, spec: SamplingSpec, timeline: Timeline | None = None, *, part: Part = WHOLE) -> list[Span]:
    """The spans of a video in order of time, each with frame numbers int64 (C, T), 0 to `info.num_frames` - 1.

    Within a clip, numbers never decrease, unless it starts the span again (`overrun="loop"`). Without a `timeline`,
    the only span is the video, or the `part` of it, which is sampled as a video of only its frames: those from its
    start to before its end. With a timeline, its segments cover the video from its first frame on, and the last may be
    shorter. A part has no timeline.

    Raises:
        VideoError: `too_large` for more segments than can be; `decode` for a part without frames.
    """
    if part != WHOLE:
        if timeline is not None:
            raise ValueError("a timeline of a part of a video")
        return [_part(info, spec, *part)]
    if timeline is None:
        return [Span(start=0.0, end=info.duration, clips=_clips(info, spec))]
    hop = timeline.length if timeline.hop is None else timeline.hop
    # The rest of the video must last at least a frame to be a segment.
    more = max(math.ceil((info.duration - timeline.length - 1 / info.fps) / hop), 0)
    if more >= _MOST_SEGMENTS:
        raise VideoError("too_large", f"a segment every {hop:g} s makes {more + 1:,} of them; use a larger `hop`")
    starts = [number * hop for number in range(more + 1)]
    ends = [start + timeline.length for start in starts[:-1]] + [info.duration]
    return [
        Span(info.start + start, info.start + end, _clips_between(info, spec, start, end))
        for start, end in zip(starts, ends, strict=True)
    ]


def draw(info: VideoInfo, spec: SamplingSpec, generator: np.random.Generator, *, part: Part = WHOLE) -> Span:
    """A random clip of a video, or of the `part` of it, for training: a span with frame numbers int64 (1, T).

    Frames are as far apart as in the clips of `plan`: `window` and `strided` clips begin at a random frame from which
    they fit, and otherwise at the first. `segments` takes a random frame of each part instead of its middle, and
    `uniform` one instead of its first. The number of clips and the placement in `spec` have no effect.

    Raises:
        VideoError: `decode` for a part without frames.
    """
    if part != WHOLE:
        return _part(info, spec, *part, generator)
    return Span(start=0.0, end=info.duration, clips=_clips(info, spec, generator))


def _part(
    info: VideoInfo,
    spec: SamplingSpec,
    start: float | None,
    end: float | None,
    generator: np.random.Generator | None = None,
) -> Span:
    """The part from `start` to `end`, as in `Span`. Raises VideoError if it has no frame."""
    first, last = _frames_between(
        info,
        -math.inf if start is None else start - info.start,
        math.inf if end is None else end - info.start,
    )
    if first == last:
        begins = f", from {info.start:.2f} s on" if info.start else ""
        raise VideoError(
            "decode", f"no frame in the part {stretch(start, end)}: the video lasts {info.duration:.2f} s{begins}"
        )
    return Span(
        start=info.start if start is None else start,
        end=info.start + info.duration if end is None else end,
        clips=_clips_of(info, spec, first, last, generator),
    )


def _clips_between(info: VideoInfo, spec: SamplingSpec, start: float, end: float) -> NDArray[np.int64]:
    """The clips from `start` to `end`, seconds from the first frame, sampled as of a video of only these frames."""
    first, last = _frames_between(info, start, end)
    if first == last:  # within a gap: the frame before it is shown
        first = max(first - 1, 0)
        last = first + 1
    return _clips_of(info, spec, first, last)


def _frames_between(info: VideoInfo, start: float, end: float) -> tuple[int, int]:
    """The number of the first frame from `start` on, and of the first from `end` on: seconds from the first frame."""
    # Times are sums of fractions: a frame at 4 seconds may be at 3.9999999.
    first, last = np.searchsorted(info.times - info.times[0], np.array([start, end]) - 1e-6).tolist()
    return first, last


def _clips_of(
    info: VideoInfo, spec: SamplingSpec, first: int, last: int, generator: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """The clips of the frames from number `first` to before `last`."""
    clips: NDArray[np.int64] = first + _clips(replace(info, times=info.times[first:last]), spec, generator)
    return clips


def _clips(info: VideoInfo, spec: SamplingSpec, generator: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Frame numbers int64 (C, T) of a video, or of a part of one counted from its first frame.

    With a `generator`, a random clip.
    """
    if spec.method in ("window", "strided"):
        taken = _windows if spec.method == "window" else _strided
        clips = taken(info, spec) if generator is None else _moved(info, taken(info, _first(spec)), generator)
    elif spec.method == "segments":
        clips = _segments(info, spec, generator)
    else:
        clips = _uniform(info, spec, generator)
    frames = info.num_frames
    clips = clips % frames if spec.overrun == "loop" else np.clip(clips, 0, frames - 1)
    return np.atleast_2d(clips)


def _first(spec: SamplingSpec) -> SamplingSpec:
    """The same, with one clip, at the first frame."""
    return replace(spec, clips=1, placement="first")


def _moved(info: VideoInfo, clip: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """The `clip` at the first frame, moved to a random frame from which it fits; where it is if there is none."""
    moved: NDArray[np.int64] = clip + generator.integers(max(info.num_frames - int(clip.max()), 1))
    return moved


def _source_frames(frames: float, info: VideoInfo, spec: SamplingSpec) -> float:
    """The number of the video's frames that last as long as `frames` at the rate of `spec`."""
    return frames if spec.fps is None else frames / spec.fps * info.fps


def _side_by_side(span: float, info: VideoInfo) -> int:
    """The number of clips of `span` frames that cover the video, within reason."""
    return min(max(round(info.num_frames / span), 1), MAX_AUTO_CLIPS)


def _windows(info: VideoInfo, spec: SamplingSpec) -> NDArray[np.int64]:
    """Clips of `num_frames` frames, `stride` apart at `fps`, as the original code takes them.

    With N frames, a clip of `stride * num_frames / fps` seconds is `clip` frames long, a real
    number. Clip i of n starts at `max(N - clip, 0) * i / n`, so the last does not reach the end of
    the video, and a single one is at its start. Both ends are included, so frames are
    (clip - 1) / (T - 1) apart: 36.43 for "8x32" at 30 fps. In a short video, the last frame is
    repeated, as by the original.

    The original always has a rate. Without one, a clip at the start has the frames of transformers' older pipeline.
    """
    # At least one frame, or the clip would run backwards: a video of one frame in ten seconds, for example.
    clip = max(_source_frames(spec.stride * spec.num_frames, info, spec), 1.0)
    spare = max(info.num_frames - clip, 0.0)
    count = spec.clips
    if count is None:
        count = _side_by_side(clip, info)
        if count > 1:  # side by side, from the first frame to the last
            return np.stack([_span(spare * i / (count - 1), clip, spec.num_frames) for i in range(count)])
    if count == 1:
        if spec.fps is None and spec.placement == "first":
            # NumPy's linspace differs from PyTorch's by a frame here and there, for 64 frames 8 apart, say.
            return np.linspace(0, clip - 1, spec.num_frames, dtype=np.int64)
        return _span(spare / 2 if spec.placement == "middle" else 0.0, clip, spec.num_frames)
    starts = [spare * i / count for i in range(count)]
    if info.has_stream_duration:
        # From such a container (MP4), the original decodes frames from the time of `start` on, and
        # counts from the first of them. Others (Matroska, WebM) it decodes from the beginning.
        # The time is rounded down to a whole tick of the clock, so that rounding does not lose a frame.
        firsts = [math.ceil(math.floor(start * _TICKS) / _TICKS) for start in starts]
        return np.stack([first + _span(0.0, clip, spec.num_frames) for first in firsts])
    return np.stack([_span(start, clip, spec.num_frames) for start in starts])


def _span(start: float, length: float, count: int) -> NDArray[np.int64]:
    """`count` frame numbers spread from `start` to `start + length - 1`, rounded down to whole numbers.

    These are the numbers of `torch.linspace(start, start + length - 1, count).long()`: float32,
    upwards from the first in the lower half and downwards from the last in the upper, with a fused
    multiply-add, which equals float64 rounded once. NumPy's linspace is sometimes off by one.
    """
    first, last = np.float32(start), np.float32(start + length - 1)
    if count == 1:
        return np.array([first], dtype=np.int64)
    step = float((last - first) / np.float32(count - 1))
    number = np.arange(count)
    up = float(first) + step * number
    down = float(last) - step * (count - 1 - number)
    return np.where(number < count // 2, up, down).astype(np.float32).astype(np.int64)


def _strided(info: VideoInfo, spec: SamplingSpec) -> NDArray[np.int64]:
    """Clips of `num_frames` frames exactly `stride` apart, as mmaction2's `SampleFrames` takes them for tests.

    A clip spans (T - 1) * stride + 1 frames. A single one begins at the first frame or is centred, with one
    frame less before it than after it if they are odd. Several begin at even distances, from the first
    frame to the last possible one. A stride that is not whole at the video's own rate leads to the
    nearest frames.
    """
    step = _source_frames(spec.stride, info, spec)
    within = np.floor(np.arange(spec.num_frames) * step + 0.5).astype(np.int64)
    span = int(within[-1]) + 1
    spare = max(info.num_frames - span, 0)
    count = _side_by_side(span, info) if spec.clips is None else spec.clips
    if count == 1:
        starts = np.array([spare // 2 if spec.placement == "middle" else 0])
    else:
        starts = np.round(np.arange(count) * (spare / (count - 1))).astype(np.int64)
    clips: NDArray[np.int64] = starts[:, None] + within
    return clips


def _segments(info: VideoInfo, spec: SamplingSpec, generator: np.random.Generator | None = None) -> NDArray[np.int64]:
    """The middle frame of each of `num_frames` equal parts, as the original reads Something-Something; or a random one.

    It reads images that FFmpeg has extracted at `fps` frames per second.
    """
    if spec.fps is None:
        return _within_parts(info.num_frames, spec.num_frames, generator)
    ends = _constant_rate(info, spec.fps)
    numbers = _within_parts(int(ends[-1]), spec.num_frames, generator)
    return np.searchsorted(ends, numbers, side="right").astype(np.int64)


def _within_parts(frames: int, count: int, generator: np.random.Generator | None) -> NDArray[np.int64]:
    # np.round rounds halves to even, and the original relies on it. A part has both of its edges.
    edges = np.round((frames - 1) / count * np.arange(count + 1)).astype(np.int64)
    if generator is None:
        return (edges[:-1] + edges[1:]) // 2
    return generator.integers(edges[:-1], edges[1:], endpoint=True)


def _uniform(info: VideoInfo, spec: SamplingSpec, generator: np.random.Generator | None = None) -> NDArray[np.int64]:
    """The first frame of each of `num_frames` equal parts of the video; or a random one."""
    # The rule of transformers' video-classification pipeline since version 5.
    starts = np.arange(spec.num_frames + 1, dtype=np.int64) * info.num_frames // spec.num_frames
    if generator is None:
        return starts[:-1]
    return generator.integers(starts[:-1], np.maximum(starts[1:], starts[:-1] + 1))


def _constant_rate(info: VideoInfo, fps: float) -> NDArray[np.int64]:
    """How `ffmpeg -i video -r fps` repeats and drops frames to make `fps` output frames per second.

    int64 (frames,): for each frame, the number of output frames up to the last that shows it; so
    output frame i shows the first frame whose number here is above i.

    The rule is FFmpeg 4's for a constant rate. Times are in output frames, and a frame lasts a whole
    number of them, unless that is zero. A frame that ends more than 1.1 after the existing output is
    repeated up to its end; if it also begins more than 1.1 after it, the frame before it fills that
    gap. A frame that ends more than 1.1 before it is dropped.
    FFmpeg takes each frame's duration from the file. Here each lasts 1 / `info.fps`: the same if the
    rate is steady, and otherwise a few output frames more or less.
    """
    # FFmpeg's times are multiples of 2**-16, moved off the middle between two whole numbers.
    begins = np.rint((info.times - info.times[0]) * fps * 2**16) / 2**16 + 2**-17
    seconds = 1 / info.fps
    if not info.has_stream_duration:  # Matroska and WebM truncate it to milliseconds
        seconds = math.floor(seconds * 1000 + 1e-6) / 1000
    exact = float(np.float32(seconds * fps))  # FFmpeg rounds it in single precision, halves to even
    duration = round(exact) or min(fps / info.fps, 1.0)
    pictures = 0
    ends: list[int] = []
    for begin in begins.tolist():
        gap = begin - pictures
        missing = gap + duration
        if gap > 1.1 and ends:
            ends[-1] += round(gap - 0.6)
        if missing > 1.1:
            pictures += round(missing)
        elif missing >= -1.1:
            pictures += 1
        ends.append(pictures)
    return np.array(ends, dtype=np.int64)
