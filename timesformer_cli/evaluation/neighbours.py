"""Videos whose nearest neighbours have another label than they have: a label may be wrong there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Neighbours that are asked, and how many of them have to agree. One may have the label of the video itself: two videos
# of one source often have the same wrong label.
NEIGHBOURS = 5
AGREEING = 4

# With more videos, comparing all of them takes minutes.
MOST = 20_000

_BLOCK = 1024
_DIGITS = 6  # of cosines; beyond, the order of additions shows


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A video with a `label`, of whose `NEIGHBOURS` nearest neighbours `votes`, at least `AGREEING`, have another one.

    `video` is its number. `theirs` is the label of the neighbours, and `nearest` the number of the nearest one with it.
    """

    video: int
    label: int
    theirs: int
    votes: int
    nearest: int


def contradictions(
    vectors: NDArray[np.float32],
    classes: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    *,
    most: int = 24,
) -> tuple[Contradiction, ...]:
    """The videos whose neighbours disagree most clearly: with the most votes first, then with the nearest neighbour.

    `vectors` are (N, D), `classes` int64 (N,). Neighbours are the nearest by cosine, of videos of other `groups`, int64
    (N,), since those of one source are alike whatever their labels. A video whose class has fewer than `NEIGHBOURS`
    videos in other groups is not asked about. None are found among more than `MOST` videos, or if a vector has no
    direction.
    """
    videos = len(vectors)
    if not NEIGHBOURS < videos <= MOST:
        return ()
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        return ()
    units = (vectors / lengths[:, None]).astype(np.float32)
    groups = np.arange(videos) if groups is None else groups
    found: list[tuple[int, float, Contradiction]] = []
    for first in range(0, videos, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, videos))
        cosines = np.round(units[rows] @ units.T, _DIGITS)
        cosines[groups[rows][:, None] == groups] = -np.inf
        nearest = np.argpartition(-cosines, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        for row, near, alike in zip(rows.tolist(), nearest, cosines, strict=True):
            near = near[np.lexsort((near, -alike[near]))]
            if (one := _asked(row, near, alike, classes)) is not None:
                found.append((-one.votes, -float(alike[one.nearest]), one))
    found.sort(key=lambda each: (*each[:2], each[2].video))
    return tuple(one for _, _, one in found[:most])


def _asked(
    row: int, near: NDArray[np.int64], cosines: NDArray[np.float32], classes: NDArray[np.int64]
) -> Contradiction | None:
    """What the neighbours of a video, the nearest first, say against its label."""
    labels = classes[near]
    own = int(classes[row])
    votes = np.bincount(labels)
    theirs = int(votes.argmax())
    if theirs == own or votes[theirs] < AGREEING or not np.isfinite(cosines[near]).all():
        return None
    if np.isfinite(cosines[classes == own]).sum() < NEIGHBOURS:
        return None
    return Contradiction(row, own, theirs, int(votes[theirs]), int(near[labels == theirs][0]))
