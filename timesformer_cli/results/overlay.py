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
_FINEST, _STRIPES = 6, 60  # pixels of a stripe, at least, and how many cross the shorter side of a frame, at most
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
    shown = frame.copy()
    left, top, right, bottom = box
    down, across = (
        (start + (end - start) * np.arange(count + 1) / count).round().astype(int).clip(0, most).tolist()
        for start, end, count, most in zip((top, left), (bottom, right), weights.shape, frame.shape, strict=False)
    )
    if grayed:
        inside = slice(down[0], down[-1]), slice(across[0], across[-1])
        shown[:] = (frame.sum(axis=2, dtype=np.uint16) // 6 + 40).astype(np.uint8)[..., None]
        shown[inside] = frame[inside]
    high, wide = frame.shape[:2]
    where = np.ones((high, wide), np.bool_)
    if hatched:
        stripe = max(min(high, wide) // _STRIPES, _FINEST)
        where = (np.arange(high, dtype=np.uint16)[:, None] + np.arange(wide, dtype=np.uint16)) // stripe % 2 == 0
    for row, column in np.ndindex(*weights.shape):
        place = slice(down[row], down[row + 1]), slice(across[column], across[column + 1])
        _tint(shown[place], float(weights[row, column]) * alpha, where[place])
    return shown


def _tint(patch: NDArray[np.uint8], heat: float, where: NDArray[np.bool_]) -> None:
    """Colour a patch in place, by a table of levels: frames of 8K do not fit into memory several times as floats."""
    levels = np.arange(256) * (1 - abs(heat))
    for channel, colour in enumerate(FOR if heat >= 0 else AGAINST):
        table = np.rint(levels + colour * abs(heat)).astype(np.uint8)
        np.copyto(patch[..., channel], table[patch[..., channel]], where=where)


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
    strip = _Strip(film, width)
    height = info.height + info.height % 2 + strip.height
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
                canvas[-strip.height :] = strip.draw(number)
                frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
                frame.pts = round((float(info.times[number]) - start) * _CLOCK)
                frame.time_base = Fraction(1, _CLOCK)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode())


class _Strip:
    """The strip below a frame: the caption, how much each frame that was seen matters, and the place of this one."""

    def __init__(self, film: Film, width: int) -> None:
        self._film = film
        self._width = width
        letters = max(film.info.height // 32, 10)
        self._font = ImageFont.load_default(letters)
        self._line = letters + letters // 2
        # Pillow's own font has no other letters.
        self._caption = self._wrapped(printable(film.caption).encode("ascii", "replace").decode())
        self._bars = max(film.info.height // 24, 16)
        height = (1 + len(self._caption)) * self._line + self._bars + 8
        self.height = height + height % 2

    def draw(self, number: int) -> NDArray[np.uint8]:
        """uint8 (height, width, 3), for the frame with that number."""
        film = self._film
        strip = Image.new("RGB", (self._width, self.height), _PAPER)
        pen = ImageDraw.Draw(strip)
        seen = number in film.frames
        lines = [f"frame {number}, {'seen' if seen else 'not seen'} by the model", *self._caption]
        for place, line in enumerate(lines):
            pen.text((6, 3 + place * self._line), line, _DIM if place == 0 and not seen else _INK, self._font)
        bottom = self.height - 4
        half = max(self._width // 400, 3)
        most = max(float(np.abs(film.importance).max()), _LEAST_IMPORTANCE)
        for frame, value in zip(film.frames, film.importance.tolist(), strict=True):
            tall = max(round(abs(value) / most * self._bars), 1)
            x = self._at(frame)
            pen.rectangle((x - half, bottom - tall, x + half, bottom), FOR if value >= 0 else AGAINST)
        pen.line((self._at(number), bottom - self._bars, self._at(number), bottom), _INK if seen else _DIM, half // 3)
        return np.asarray(strip)

    def _at(self, frame: int) -> int:
        film = self._film
        return 8 + round((frame - film.first) / max(film.last - film.first, 1) * (self._width - 17))

    def _wrapped(self, text: str) -> list[str]:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".lstrip()
            if not lines[-1] or self._font.getlength(longer) <= self._width - 12:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines
