"""Fingerprints of videos: hashes of frames at an even rate, for finding copies and parts of longer videos.

The fingerprint of a frame is uint64 (4,). Each of its 64 places compares two neighbours on a small grid: in the first
two numbers the part on the right is brighter, or the one on the left; in the last two the lower part, or the upper
one. Neighbours that are about equally bright have no bit in either, so plain areas say nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import VideoInfo
from timesformer_cli.specs import Reading
from timesformer_cli.video.hashes import ones
from timesformer_cli.video.reader import VideoReader

# Frames per second that are hashed.
RATE = 8

# Frames in which bars are looked for at a time: 16 seconds. Bars may come and go in a longer video.
PART = 16 * RATE

# Places of a frame that must tell: frames with fewer are blank, or nearly.
LEAST_TOLD = 32

# The grid has one cell more along the direction that is compared.
_CELLS = 8

# A frame is thinned out to about this many pixels of its shorter side, for speed.
_SIDE = 128

# Gray levels by which neighbours must differ. Smaller differences are the noise of a sensor or codec on plain walls.
_NOISE = 1.0

# Gray levels of black bars after compression, and the part of the frame's side that must be left without them.
_BLACK = 24
_LEAST_LEFT = 0.3

# Red, green and blue in a gray level, of 256.
_GRAY = np.array([77, 150, 29], np.uint16)


def times_of(info: VideoInfo) -> NDArray[np.float64]:
    """The times (F,), in seconds from the first frame, at which a video is hashed."""
    return np.arange(max(int(info.duration * RATE), 1)) / RATE


class Part(NamedTuple):
    """The fingerprints (F, 4) of consecutive frames, and the share of their area that is not black bars."""

    prints: NDArray[np.uint64]
    shown: float


def read_fingerprints(reader: VideoReader, reading: Reading = Reading()) -> Iterator[Part]:
    """The fingerprints of a video, in parts of at most `PART`; memory does not grow with its length.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    info = reader.info
    shown = np.searchsorted(info.times, info.times[0] + times_of(info) + 1e-6, side="right") - 1
    most = max(reading.max_frame_bytes // (info.width * info.height * 3), 1)
    for start in range(0, len(shown), PART):
        numbers, places = np.unique(shown[start : start + PART], return_inverse=True)
        blocks = (numbers[begin : begin + most] for begin in range(0, len(numbers), most))
        gray = np.concatenate([thinned(reader.read(block.tolist()).pixels) for block in blocks])
        rest = without_bars(gray)
        yield Part(fingerprints(rest)[places], rest[0].size / gray[0].size)


def thinned(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gray levels (T, h, w) of frames (T, H, W, 3): every so many pixels of each."""
    step = max(min(pixels.shape[1:3]) // _SIDE, 1)
    thin = pixels[:, step // 2 :: step, step // 2 :: step].astype(np.uint16)
    return (thin @ _GRAY >> 8).astype(np.uint8)


def without_bars(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames (T, h, w) without the borders that are black in all of them."""
    brightest = gray.max(0)
    rows, columns = (_inside(np.percentile(brightest, 98, axis=axis)) for axis in (1, 0))
    return gray[:, rows, columns]


def _inside(levels: NDArray[np.float64]) -> slice:
    """From the first to the last bright row or column; all of them if too few would be left."""
    (bright,) = np.nonzero(levels > _BLACK)
    if not len(bright) or bright[-1] + 1 - bright[0] < _LEAST_LEFT * len(levels):
        return slice(None)
    return slice(int(bright[0]), int(bright[-1]) + 1)


def fingerprints(gray: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The fingerprint, uint64 (T, 4), of each frame (T, h, w)."""
    rows, columns = gray.shape[1:]
    wide = _averages(rows, _CELLS) @ gray.astype(np.float32) @ _averages(columns, _CELLS + 1).T
    high = _averages(rows, _CELLS + 1) @ gray.astype(np.float32) @ _averages(columns, _CELLS).T
    right, down = np.diff(wide, axis=2), np.diff(high, axis=1)
    return np.stack([_packed(each > _NOISE) for each in (right, -right, down, -down)], axis=1)


def _averages(size: int, cells: int) -> NDArray[np.float32]:
    """The matrix (cells, size) that averages over equal parts of `size` pixels, which may cut pixels."""
    edges = np.linspace(0, size, cells + 1)
    starts, ends = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    shares = np.clip(np.minimum(ends, pixel + 1) - np.maximum(starts, pixel), 0, None)
    averages: NDArray[np.float32] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return averages


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Bits (T, 8, 8) as uint64 (T,); the bytes are rows."""
    return np.packbits(bits.reshape(len(bits), 64), axis=1).view(">u8")[:, 0].astype(np.uint64)


def mirrored(prints: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The fingerprints (F, 4) of the mirror images."""
    right, left, down, up = (_reversed_rows(each) for each in prints.T)
    return np.stack([left, right, down, up], axis=1)


def _reversed_rows(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each byte with its bits in reverse order."""
    flipped = _REVERSED[np.ascontiguousarray(values)[:, None].view(np.uint8)]
    return np.ascontiguousarray(flipped).view(np.uint64)[:, 0]


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def told(prints: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each of the frames (..., 4) shows enough to be compared."""
    enough: NDArray[np.bool_] = ones(prints).sum(-1) >= LEAST_TOLD
    return enough


def likeness(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.float32]:
    """How alike frames (..., 4) are, from 0 to 1: of the places where either tells, how many say the same in both."""
    same = ones(first & second).sum(-1, dtype=np.float32)
    # Of the places where either tells, those that disagree are counted once, though they have a bit in each.
    either = first | second
    places = ones(np.stack([either[..., 0] | either[..., 1], either[..., 2] | either[..., 3]], -1)).sum(-1)
    share: NDArray[np.float32] = same / np.maximum(places, 1).astype(np.float32)
    return share
