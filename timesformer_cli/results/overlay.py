"""Heat over frames: on one of them, and on a video at its own size and speed. Orange speaks for a label, blue against.

All frames share one scale: a scale for each frame would make every frame look important.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from timesformer_cli.flow import Frames, VideoInfo
from timesformer_cli.text import printable

FOR = (240, 130, 20)
AGAINST = (40, 110, 235)
_PAPER, _INK, _DIM = (24, 26, 31), (236, 238, 242), (150, 156, 168)

# This share of the values is within the scale; the largest few would leave the rest pale.
_WITHIN = 0.98
_HATCH = 6  # pixels of a stripe
_CLOCK = 90_000  # ticks per second
_MOST_FPS = 1000

# Bars of frames are as tall as their strip from this importance on: small ones should look small.
_LEAST_IMPORTANCE = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """How heat is drawn: `alpha` is its opacity where it is strongest; `top` the share of patches that have any."""

    alpha: float = 0.65
    top: float | None = None

    def weights(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (T, R, C) as -1 to 1 of one scale; those that are not shown are 0."""
        sizes = np.abs(values)
        scale = float(np.quantile(sizes, _WITHIN)) or float(sizes.max()) or 1.0
        weights: NDArray[np.float32] = (values / scale).clip(-1, 1).astype(np.float32)
        if self.top is not None:
            weights[sizes < np.quantile(sizes, 1 - self.top)] = 0
        return weights


def tinted(
    frame: NDArray[np.uint8],
    weights: NDArray[np.float32],
    box: tuple[float, float, float, float],
    alpha: float,
    *,
    hatched: bool = False,
    grayed: bool = False,
) -> NDArray[np.uint8]:
    """The frame, uint8 (H, W, 3), with heat of `weights` (R, C), -1 to 1, in `box`: left, top, right, bottom in pixels.

    `hatched` draws the heat in stripes, for a frame that the model did not see. `grayed` takes the colours outside the
    box away, which it saw of no frame.
    """
    left, top, right, bottom = (round(side) for side in box)
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, frame.shape[1]), min(bottom, frame.shape[0])
    shown = frame.copy()
    if grayed:
        luma = frame.mean(axis=2, keepdims=True) * 0.5 + 40
        shown[:] = luma.astype(np.uint8)
        shown[top:bottom, left:right] = frame[top:bottom, left:right]
    high, wide = bottom - top, right - left
    heat = np.asarray(Image.fromarray(weights).resize((wide, high), Image.Resampling.NEAREST))
    strength = np.abs(heat)[..., None] * alpha
    if hatched:
        stripes = (np.arange(high)[:, None] + np.arange(wide)) // _HATCH % 2 == 0
        strength = strength * stripes[..., None]
    colours = np.where(heat[..., None] >= 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    inside = shown[top:bottom, left:right].astype(np.float32)
    shown[top:bottom, left:right] = np.rint(inside * (1 - strength) + colours * strength).astype(np.uint8)
    return shown


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What a video with heat shows.

    `frames` are the numbers that the model saw, in the order of `weights` (T, R, C) and of `importance` (T,), in score.
    `box` is the part of a frame that it saw, and `caption` is written below.
    """

    info: VideoInfo
    frames: Sequence[int]
    weights: NDArray[np.float32]
    importance: NDArray[np.float64]
    box: tuple[float, float, float, float]
    alpha: float
    caption: str

    @property
    def first(self) -> int:
        return min(self.frames)

    @property
    def last(self) -> int:
        return max(self.frames)

    def heat(self, number: int) -> NDArray[np.float32]:
        """The weights (R, C) for a frame, between those of the frames that the model saw before it and after it."""
        seen = sorted(set(self.frames))
        if number in seen:
            places = [place for place, frame in enumerate(self.frames) if frame == number]
            mean: NDArray[np.float32] = self.weights[places].mean(axis=0)
            return mean
        after = next(place for place, frame in enumerate(seen) if frame > number)
        before, later = seen[after - 1], seen[after]
        start, time, end = (float(self.info.times[each]) for each in (before, number, later))
        share = np.float32((time - start) / (end - start))
        return self.heat(before) * (1 - share) + self.heat(later) * share


def write_film(path: Path, film: Film, frames: Iterator[Frames]) -> None:
    """Write an H.264 video of the frames that the film shows, all of them in order, in the MP4 format.

    Raises:
        OSError: it cannot be written.
    """
    info, seen = film.info, set(film.frames)
    width = info.width + info.width % 2
    bar = max(round(info.height / 9) // 2 * 2, 48)
    height = info.height + info.height % 2 + bar
    rate = Fraction(min(max(info.fps, 1.0), _MOST_FPS)).limit_denominator(1001)
    start = float(info.times[film.first])
    number = film.first
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        for block in frames:
            for pixels in block.pixels:
                shown = tinted(pixels, film.heat(number), film.box, film.alpha, hatched=number not in seen, grayed=True)
                canvas = np.zeros((height, width, 3), np.uint8)
                canvas[: info.height, : info.width] = shown
                canvas[-bar:] = _bar(film, number, (width, bar))
                frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
                frame.pts = round((float(info.times[number]) - start) * _CLOCK)
                frame.time_base = Fraction(1, _CLOCK)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode())


def _bar(film: Film, number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The strip below a frame: how much each frame that was seen matters, the place of this one, and the caption."""
    width, height = size
    strip = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(strip)
    letters = max(height // 4, 10)
    font = ImageFont.load_default(letters)
    seen = number in film.frames
    text = f"frame {number}, {'seen' if seen else 'not seen'} by the model. {film.caption}"
    pen.text((6, 3), printable(text).encode("ascii", "replace").decode(), _INK, font)
    top, bottom = letters + 8, height - 4
    span = max(film.last - film.first, 1)
    most = max(float(np.abs(film.importance).max()), _LEAST_IMPORTANCE)

    def at(frame: int) -> int:
        return 8 + round((frame - film.first) / span * (width - 17))

    for frame, value in zip(film.frames, film.importance.tolist(), strict=True):
        tall = round(abs(value) / most * (bottom - top))
        pen.rectangle((at(frame) - 3, bottom - max(tall, 1), at(frame) + 3, bottom), FOR if value >= 0 else AGAINST)
    pen.line((at(number), top, at(number), height), _INK if seen else _DIM, 1)
    return np.asarray(strip)
