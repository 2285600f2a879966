"""The stretch that two videos share, from their fingerprints and a shift in time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.video.fingerprints import RATE, likeness, told

# Frames on each side with which the likeness of a frame is averaged, and frames by which times may differ: those of a
# copy are not always at the same moments.
_AROUND = 4
_SLACK = 1

# Frames by which a shift is refined, and the likeness of frames that agree in nothing.
_NEARBY = 2
_UNLIKE = 0.5

# Frames of a gap that does not end a stretch.
_GAP = RATE

# A video shorter than the least stretch is a copy if this share of it agrees.
_SHARE = 0.9

# A stretch is still if its frames are about as much like those at different times of the other video: the likeness at
# the right time is above that by less than this.
_STILL = 0.1

# A still stretch proves less, since its frames are one frame again and again: it must be so much more alike.
_STILL_MORE = 0.07


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames `start` to `end` (not included) of the first video, which are as those `shift` later of the second.

    `similarity` is the mean likeness of its frames. `still`: the camera stands, and little moves.
    """

    start: int
    end: int
    shift: int
    similarity: float
    still: bool

    @property
    def length(self) -> int:
        return self.end - self.start


def align(
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    shift: int,
    *,
    threshold: float,
    least: int,
) -> Stretch | None:
    """The longest stretch of at least `least` frames that is as alike as `threshold`; fingerprints are (F, 4), (G, 4).

    Of videos with fewer frames, nearly all must agree.
    """
    shift = _refined(first, second, shift)
    begin, end = _overlap(first, second, shift)
    if end <= begin:
        return None
    ours = first[begin:end]
    alike = np.zeros(end - begin, np.float32)
    for slack in range(-_SLACK, _SLACK + 1):
        places = np.clip(np.arange(begin, end) + shift + slack, 0, len(second) - 1)
        np.maximum(alike, likeness(ours, second[places]), out=alike)
    theirs = second[begin + shift : end + shift]
    known = told(ours) | told(theirs)
    if not known.any():
        return None
    needed = min(least, _SHARE * min(int(told(first).sum()), int(told(second).sum())))
    best: Stretch | None = None
    for start, stop in _runs(_smoothed(alike, known) >= threshold, known):
        seen = known[start:stop]
        similarity = float(alike[start:stop][seen].mean(dtype=np.float64))
        enough = stop - start >= needed and seen.sum() >= needed / 2 and similarity >= threshold
        if enough and (best is None or stop - start > best.length):
            still = similarity - _likeness_elsewhere(ours[start:stop], theirs[start:stop]) < _STILL
            if not still or similarity >= min(threshold + _STILL_MORE, 1):
                best = Stretch(begin + start, begin + stop, shift, similarity, still)
    return best


def _overlap(first: NDArray[np.uint64], second: NDArray[np.uint64], shift: int) -> tuple[int, int]:
    """Start and end of the frames of the first that are over frames of the second."""
    return max(0, -shift), min(len(first), len(second) - shift)


def _refined(first: NDArray[np.uint64], second: NDArray[np.uint64], shift: int) -> int:
    """The shift nearby at which most frames agree; where nothing moves, hints at it are not exact."""

    def agreement(each: int) -> tuple[float, int]:
        begin, end = _overlap(first, second, each)
        if end <= begin:
            return 0.0, -abs(each)
        alike = likeness(first[begin:end], second[begin + each : end + each])
        return float(np.maximum(alike - _UNLIKE, 0).sum(dtype=np.float64)), -abs(each)

    return max(range(shift - _NEARBY, shift + _NEARBY + 1), key=agreement)


def _smoothed(alike: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean over the known frames around each; frames far from any known one get 1."""
    window = np.ones(2 * _AROUND + 1)
    total = np.convolve(np.where(known, alike, 0), window, "same") if len(alike) >= len(window) else None
    if total is None:
        return np.full(len(alike), alike[known].mean(dtype=np.float64))
    count = np.convolve(known, window, "same")
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def _runs(good: NDArray[np.bool_], known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of the stretches of good frames; short gaps are closed, and the ends are known frames."""
    (at,) = np.nonzero(good & known)
    if not len(at):
        return []
    bad = np.cumsum(~good)
    # A gap ends a stretch if it has too many frames that disagree; unknown ones that agree in being blank do not.
    ends = np.flatnonzero(np.diff(bad[at]) > _GAP)
    starts = [0, *(ends + 1)]
    return [(int(at[a]), int(at[b]) + 1) for a, b in zip(starts, [*ends, len(at) - 1], strict=True)]


def _likeness_elsewhere(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> float:
    """The mean likeness of frames (F, 4) to those of different times of the other video."""
    count = len(ours)
    likes = [
        likeness(ours, np.roll(theirs, count * part // 4, axis=0))[told(ours)].mean(dtype=np.float64)
        for part in (1, 2, 3)
    ]
    return float(np.mean(likes))
