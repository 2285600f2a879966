"""Choose vectors that are far from each other and from those of known videos: k-centre greedy, by cosine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError
from timesformer_cli.results.vectors.reading import BLOCK, VectorFile

# Distances are compared in millionths, below which the order of additions shows: so all machines choose the same.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Choice:
    """One that is chosen, by its `place` among the candidates.

    `distance` is that to the `nearest` row that was known or chosen before it; both None for the first of all.
    """

    place: int
    distance: float | None
    nearest: int | None


def spread(file: VectorFile, rows: Sequence[int], known: NDArray[np.int64], count: int) -> list[Choice]:
    """Choose `count` of the candidates with the vectors `rows`: in turn the one that is furthest from all so far.

    Those so far are the rows `known`, and what was chosen. Of equally distant ones, the first comes first.

    Raises:
        InputError: a vector is not finite, or has no direction; the file is damaged.
    """
    near = _Nearest(file, rows, known)
    left = np.ones(len(rows), np.bool_)
    choices: list[Choice] = []
    for _ in range(min(count, len(rows))):
        place = int(np.where(left, near.distances, -np.inf).argmax())
        choices.append(near.choose(place))
        left[place] = False
    return choices


def in_order(file: VectorFile, rows: Sequence[int], known: NDArray[np.int64]) -> list[Choice]:
    """All candidates in their order, with the distances that they have then. Raises InputError as `spread`."""
    near = _Nearest(file, rows, known)
    return [near.choose(place) for place in range(len(rows))]


class _Nearest:
    """The distance of each candidate, float64 (N,), to the nearest of a growing set of rows; inf if there is none."""

    def __init__(self, file: VectorFile, rows: Sequence[int], known: NDArray[np.int64]) -> None:
        self._file, self._rows = file, np.array(rows, np.int64)
        self._vectors = self._units(self._rows)
        self.distances = np.full(len(self._rows), np.inf)
        self._nearest = np.full(len(self._rows), -1, np.int64)
        for first in range(0, len(known), BLOCK):
            block = known[first : first + BLOCK]
            self._add(block, self._units(block))

    def choose(self, place: int) -> Choice:
        """The candidate as it is now; from then on, it counts for the others."""
        distance, nearest = float(self.distances[place]), int(self._nearest[place])
        self._add(self._rows[[place]], self._vectors[[place]])
        return Choice(place, None, None) if nearest < 0 else Choice(place, distance, nearest)

    def _add(self, rows: NDArray[np.int64], vectors: NDArray[np.float64]) -> None:
        distances = np.round(1 - self._vectors @ vectors.T, _DIGITS)
        best = distances.argmin(axis=1)
        found = distances[np.arange(len(distances)), best]
        nearer = found < self.distances
        self.distances[nearer], self._nearest[nearer] = found[nearer], rows[best[nearer]]

    def _units(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Vectors of length 1, float64 (n, D)."""
        vectors = self._file.take(rows).astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(wrong):
            (row,) = self._file.rows([int(rows[wrong[0]])])
            raise InputError(f"{self._file.path}: the vector of {row.path} is zero or not finite; make it again")
        units: NDArray[np.float64] = vectors / lengths[:, None]
        return units
