"""Pairs of videos that may share a stretch, found by frames of nearly equal fingerprints, without comparing all pairs.

Eight times over, the frames of all videos are sorted by their fingerprints, each time from a different band of the grid
on. Frames that agree in a band and are near to each other in that order are compared. A stretch of a few seconds has
many frames, so it is enough if a few of them meet.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.video.fingerprints import likeness, mirrored, told

# Bytes of a band, of the 16 that say what is brighter on the right and below.
_BAND = 2
_BYTES = 16

# Frames are compared with the next in the order, so many of them that all videos together need about this many
# comparisons in each band; within these limits.
_COMPARED = 10_000_000
_NEXT = (24, 512)

# Two frames hint at a shared stretch if they are so alike.
_HINT = 0.7

# Hints within so many frames of each other point to the same shift in time; the shifts of a pair that are tried.
_NEAR = 2
_SHIFTS = 6

# Hints at a shift, by different frames, without which it is not tried, unless the videos have fewer frames.
_HINTS = 2


class Candidate(NamedTuple):
    """Two videos by their numbers, the smaller first, and shifts in frames at which they may agree.

    At a shift s, frame i of the first is as frame i + s of the second, of its mirror image if `mirrored`.
    """

    first: int
    second: int
    mirrored: bool
    shifts: tuple[int, ...]


class _Frames(NamedTuple):
    """The frames of all videos and of their mirror images, (N, 4), with the number of the video and of the frame."""

    prints: NDArray[np.uint64]
    video: NDArray[np.int64]
    frame: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


def candidates(prints: Sequence[NDArray[np.uint64]], sides: NDArray[np.bool_] | None = None) -> Iterator[Candidate]:
    """The pairs among the fingerprints (F, 4) of videos; with `sides` bool (V,), only those of different sides."""
    frames = _frames(prints)
    if not len(frames.video):
        return
    hints = [_hints(frames, band, sides) for band in range(0, _BYTES, _BAND)]
    first, second, flip, shift, frame = (np.concatenate(each) for each in zip(*hints, strict=True))
    lengths = np.array([int(told(each).sum()) for each in prints])
    pair = (first * len(prints) + second) * 2 + flip
    order = np.lexsort((frame, shift, pair))
    pair, shift, frame = pair[order], shift[order], frame[order]
    edges = np.flatnonzero(np.diff(pair, prepend=-1, append=-1))
    for begin, end in pairwise(edges.tolist()):
        one, other = divmod(int(pair[begin]) // 2, len(prints))
        least = min(_HINTS, int(lengths[[one, other]].min()) // 4 + 1)
        shifts = _likeliest(shift[begin:end], frame[begin:end], least)
        if shifts:
            yield Candidate(one, other, bool(pair[begin] % 2), shifts)


def _frames(prints: Sequence[NDArray[np.uint64]]) -> _Frames:
    """Frames that show enough; both ways round."""
    whole = np.concatenate([np.empty((0, 4), np.uint64), *prints])
    video = np.repeat(np.arange(len(prints)), [len(each) for each in prints])
    frame = np.concatenate([np.empty(0, np.int64), *(np.arange(len(each)) for each in prints)])
    seen = told(whole)
    whole, video, frame = whole[seen], video[seen], frame[seen]
    flip = np.repeat([False, True], len(whole))
    return _Frames(np.concatenate([whole, mirrored(whole)]), np.tile(video, 2), np.tile(frame, 2), flip)


def _hints(frames: _Frames, band: int, sides: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], ...]:
    """Pairs of frames that agree in a band: the first video, the second, mirrored, the shift, and the first's frame."""
    words = np.ascontiguousarray(frames.prints[:, [0, 2]].astype(">u8")).view(np.uint8)
    words = np.ascontiguousarray(np.roll(words, -band, axis=1))
    key = words[:, :_BAND].astype(np.int64) @ (256 ** np.arange(_BAND)[::-1])
    # What stands still has the same key in frame after frame: the first of them stands for all.
    new = (np.diff(key, prepend=-1) != 0) | (np.diff(frames.video, prepend=-1) != 0)
    (kept,) = np.nonzero(new & (key != 0))
    high, low = words[kept].view(">u8").T
    order = np.lexsort((low, high))
    kept, key = kept[order], key[kept][order]
    found = [
        _compared(frames, *pair, sides)
        for pair in _neighbours(kept, key, int(np.clip(_COMPARED // max(len(kept), 1), *_NEXT)))
    ]
    if not found:
        return tuple(np.empty(0, np.int64) for _ in range(5))
    return tuple(np.concatenate(each) for each in zip(*found, strict=True))


def _neighbours(
    kept: NDArray[np.int64], key: NDArray[np.int64], most: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Frames with the same key, at most `most` places apart in the order."""
    at = np.arange(len(kept))
    for apart in range(1, most + 1):
        at = at[at + apart < len(kept)]
        at = at[key[at] == key[at + apart]]
        if not len(at):
            return
        yield kept[at], kept[at + apart]


def _compared(
    frames: _Frames, one: NDArray[np.int64], other: NDArray[np.int64], sides: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], ...]:
    swap = frames.video[one] > frames.video[other]
    first, second = np.where(swap, other, one), np.where(swap, one, other)
    # The first is the video itself: a mirror image and another one would be the same pair again.
    use = (frames.video[first] != frames.video[second]) & ~frames.mirrored[first]
    if sides is not None:
        use &= sides[frames.video[first]] != sides[frames.video[second]]
    first, second = first[use], second[use]
    use = likeness(frames.prints[first], frames.prints[second]) >= _HINT
    first, second = first[use], second[use]
    return (
        frames.video[first],
        frames.video[second],
        frames.mirrored[second].astype(np.int64),
        frames.frame[second] - frames.frame[first],
        frames.frame[first],
    )


def _likeliest(shift: NDArray[np.int64], frame: NDArray[np.int64], least: int) -> tuple[int, ...]:
    """The shifts that most frames hint at; `shift` is sorted, and `frame` within equal shifts."""
    new = (np.diff(shift, prepend=shift[0] - 1) != 0) | (np.diff(frame, prepend=-1) != 0)
    values, counts = np.unique(shift[new], return_counts=True)
    near = np.array([counts[abs(values - each) <= _NEAR].sum() for each in values]) if len(values) < 512 else counts
    chosen: list[int] = []
    for place in np.lexsort((-counts, -near)):
        value = int(values[place])
        if near[place] < least or len(chosen) == _SHIFTS:
            break
        if all(abs(value - each) > _NEAR for each in chosen):
            chosen.append(value)
    return tuple(chosen)
