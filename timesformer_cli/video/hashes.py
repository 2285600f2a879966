"""Hashes of frames that hardly change when a video is encoded again, and the videos that look alike by them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Frames of a video that are hashed.
FRAMES = 8

# Videos look alike if their `distance` is at most this many of 64 bits: benchmarks/README.md says what it finds.
LOOK_ALIKE = 8

# The small image that a hash describes. Each column is compared with the next.
_ROWS, _COLUMNS = 8, 9

# A frame is thinned out to about this many pixels of its shorter side before it is averaged, for speed.
_SIDE = 128

# Gray levels by which neighbours must differ. Smaller differences are the noise of a sensor or codec on plain walls.
_NOISE = 1

# Videos compared at a time, so that a core's cache holds the distances.
_BLOCK = (64, 1024)


class LookAlikes(NamedTuple):
    """The numbers of two videos, the smaller first, and their `distance`."""

    first: int
    second: int
    distance: float


def frame_hashes(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A difference hash, uint64 (T,), of each frame (T, H, W, 3), RGB.

    Each bit says whether a part of the frame, averaged on a grid of 9 x 8, is brighter than the part on its left. The
    hash of a blank frame is 0.
    """
    return np.array([_hash(frame) for frame in pixels], np.uint64)


def _hash(frame: NDArray[np.uint8]) -> int:
    step = max(min(frame.shape[:2]) // _SIDE, 1)
    thin = np.ascontiguousarray(frame[step // 2 :: step, step // 2 :: step])
    # It takes longer to make all of it gray first.
    small = Image.fromarray(thin).resize((_COLUMNS, _ROWS), Image.Resampling.BOX).convert("L")
    levels = np.asarray(small).astype(np.int16)
    return int.from_bytes(np.packbits(levels[:, 1:] - levels[:, :-1] > _NOISE).tobytes(), "big")


def spread(clips: NDArray[np.int64]) -> NDArray[np.int64]:
    """The frames (8,) to hash, by their numbers: spread evenly over the different frames of clips (C, T).

    Fewer different frames are repeated.
    """
    numbers = np.unique(clips)
    return numbers[np.linspace(0, len(numbers) - 1, FRAMES).round().astype(np.int64)]


def distance(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """How different two videos look: bits of 64, from the hashes of their frames, (F,) and (G,).

    Each frame has a distance: that to the nearest frame of the other video. The median over the frames of one video
    says how much of it the other shows. Of the two medians the smaller one counts, so a video is near to a longer one
    that contains it. Frames without contrast are left out; the distance of a video that has more of them than of
    others is infinite.
    """
    told, also = _with_contrast(first), _with_contrast(second)
    if not (_enough(told) and _enough(also)):
        return np.inf
    bits = ones(first[told][:, None] ^ second[also])
    return float(min(np.median(bits.min(axis=1)), np.median(bits.min(axis=0))))


def look_alikes(hashes: Sequence[NDArray[np.uint64]], most: float = LOOK_ALIKE) -> Iterator[LookAlikes]:
    """All pairs of videos whose `distance` is at most `most`, from the hashes (F,) of each.

    All pairs are compared, which takes time with the square of the number of videos, but little memory.
    """
    if not len(hashes):
        return
    table = np.stack([np.asarray(each, np.uint64) for each in hashes])
    told = _with_contrast(table)
    (numbers,) = np.nonzero(_enough(told))
    table, told = table[numbers], told[numbers]
    # Frames without contrast repeat one that has some, so they are never the nearest by themselves.
    table = np.where(told, table, np.take_along_axis(table, told.argmax(1)[:, None], axis=1))
    table, told = table.T.copy(), told.T.copy()  # (F, N): blocks of videos are contiguous
    rows, columns = _BLOCK
    for start in range(0, len(numbers), rows):
        for begin in range(start, len(numbers), columns):
            places = slice(start, start + rows), slice(begin, begin + columns)
            for first, second, bits in _near(table, told, places, most):
                yield LookAlikes(int(numbers[first]), int(numbers[second]), bits)


def _near(
    table: NDArray[np.uint64], told: NDArray[np.bool_], places: tuple[slice, slice], most: float
) -> Iterator[tuple[int, int, float]]:
    """The pairs of one block, by their columns of `table` (F, N); `told` is which frames have contrast."""
    left, right = (table[:, place] for place in places)
    seen, also_seen = (told[:, place] for place in places)
    # The distance of each frame to the nearest of the other video, (F, A, B) both.
    to_right = np.full((len(table), left.shape[1], right.shape[1]), 255, np.uint8)
    to_left = to_right.copy()
    for i, j in np.ndindex(len(table), len(table)):
        bits = ones(left[i][:, None] ^ right[j])
        np.minimum(to_right[i], bits, out=to_right[i])
        np.minimum(to_left[j], bits, out=to_left[j])
    # A median of at most `most` needs half of the frames to be that near: few pairs have them, and get a median.
    enough = (((to_right <= most) & seen[:, :, None]).sum(0) * 2 >= seen.sum(0)[:, None]) | (
        ((to_left <= most) & also_seen[:, None]).sum(0) * 2 >= also_seen.sum(0)
    )
    first, second = np.nonzero(enough)
    later = first + places[0].start < second + places[1].start
    first, second = first[later], second[later]
    medians = np.minimum(
        _medians(to_right[:, first, second], seen[:, first]), _medians(to_left[:, first, second], also_seen[:, second])
    )
    for at in np.nonzero(medians <= most)[0]:
        yield int(first[at]) + places[0].start, int(second[at]) + places[1].start, float(medians[at])


def _medians(bits: NDArray[np.uint8], told: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The medians (P,) of the frames (F, P) that have contrast."""
    ordered = np.sort(np.where(told, bits, 255), axis=0).astype(np.float64)
    count, pair = told.sum(0), np.arange(bits.shape[1])
    medians: NDArray[np.float64] = (ordered[(count - 1) // 2, pair] + ordered[count // 2, pair]) / 2
    return medians


def _with_contrast(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether frames are more than nearly blank: within `LOOK_ALIKE` bits of a blank frame, or of an even gradient.

    All such frames look alike: black ones, and slides with a little text.
    """
    count = ones(hashes).astype(np.int64)
    told: NDArray[np.bool_] = np.minimum(count, 64 - count) > LOOK_ALIKE
    return told


def _enough(told: NDArray[np.bool_]) -> NDArray[np.bool_]:
    enough: NDArray[np.bool_] = told.sum(-1) * 2 >= told.shape[-1]
    return enough


def ones(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The number of bits that are set in each."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    ones: NDArray[np.uint8] = _ONES[np.ascontiguousarray(values)[..., None].view(np.uint8)].sum(-1, dtype=np.uint8)
    return ones  # NumPy 1


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
