"""The rows of a file of vectors that are nearest to queries: exact, block by block, without an index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError
from timesformer_cli.results.vectors.reading import VectorFile

# Vectors that are compared at a time, so that a core's cache holds them.
_BLOCK = 2048

# Random pairs of rows that say how alike rows are by chance, and the rows that they are made of.
_PAIRS = 100_000
_SAMPLED = 2000
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """For each of n queries the best rows, int64 (n, m), the best first, and their cosines, float32 (n, m).

    Rows that were left out, and those beyond the end of a short file, have the cosine -inf.
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]


class Chance:
    """The cosines of random pairs of rows of a file. The rows are taken from the blocks of a pass over it."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(_SEED)
        self.rows = np.sort(rng.choice(count, min(_SAMPLED, count), replace=False))
        self._taken: list[NDArray[np.float32]] = []
        self._cosines: NDArray[np.float32] | None = None

    @property
    def complete(self) -> bool:
        return self._cosines is not None

    def take(self, first: int, block: NDArray[np.float32], lengths: NDArray[np.float32]) -> None:
        """Take the sampled rows of a block (b, D) whose first row is `first`, scaled to the length 1."""
        begin, end = np.searchsorted(self.rows, [first, first + len(block)])
        rows = self.rows[begin:end] - first
        self._taken.append(block[rows] / lengths[rows, None])

    def finish(self) -> None:
        """Once all blocks were seen."""
        vectors = np.concatenate(self._taken) if self._taken else np.empty((0, 1), np.float32)
        self._taken = []
        one, other = np.triu_indices(len(vectors), 1)
        if len(one) > _PAIRS:
            chosen = np.random.default_rng(_SEED).choice(len(one), _PAIRS, replace=False)
            one, other = one[chosen], other[chosen]
        cosines = (vectors @ vectors.T)[one, other] if len(one) else np.empty(0, np.float32)
        self._cosines = np.sort(cosines)

    def percentile(self, cosine: float) -> float | None:
        """How many of a hundred pairs are less alike; None for a file with a single row."""
        assert self._cosines is not None
        if not len(self._cosines):
            return None
        return 100 * float(np.searchsorted(self._cosines, np.float32(cosine))) / len(self._cosines)


def nearest(
    file: VectorFile, queries: NDArray[np.float32], left_out: Sequence[NDArray[np.int64]], most: int, chance: Chance
) -> Nearest:
    """The `most` nearest rows of each query (n, D), of length 1, without the rows `left_out` of each; one pass.

    Raises:
        InputError: the file is damaged, or its vectors are not finite.
    """
    most = min(most, file.count)
    best = Nearest(np.zeros((len(queries), most), np.int64), np.full((len(queries), most), -np.inf, np.float32))
    columns = np.ascontiguousarray(queries.T)
    for start, whole in file.blocks(_BLOCK):
        for offset in range(0, len(whole), _BLOCK):
            first, block = start + offset, whole[offset : offset + _BLOCK]
            with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are told below
                lengths = np.ones(len(block), np.float32) if file.kind.normalized else _lengths(block)
                cosines = _products(block, columns) / lengths[:, None]
            if not np.isfinite(cosines).all():
                (row,) = file.rows([first + int(np.flatnonzero(~np.isfinite(cosines).all(1))[0])])
                raise InputError(f"{file.path}: the vector of {row.path} has numbers that are not finite")
            if not chance.complete:
                chance.take(first, block, lengths)
            _merge(best, cosines, first, left_out)
    if not chance.complete:
        chance.finish()
    order = np.argsort(-best.cosines, axis=1, kind="stable")
    return Nearest(np.take_along_axis(best.rows, order, 1), np.take_along_axis(best.cosines, order, 1))


def _products(block: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """The products (b, n) of vectors (b, D) and queries (D, n)."""
    if columns.shape[1] > 1:
        return block @ columns
    # A matrix times one column takes ten times as long in OpenBLAS as a dot product for each row.
    products: NDArray[np.float32] = np.matmul(block[:, None, :], columns)[:, 0]
    return products


def _lengths(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lengths of vectors (b, D); 1 for those without one, whose cosines are 0."""
    # Less than half of the time of einsum.
    lengths: NDArray[np.float32] = np.sqrt(np.matmul(block[:, None, :], block[:, :, None])[:, 0, 0])
    lengths[lengths == 0] = 1
    return lengths


def _merge(best: Nearest, cosines: NDArray[np.float32], first: int, left_out: Sequence[NDArray[np.int64]]) -> None:
    """Put the rows of a block with cosines (b, n) among the best."""
    most = best.rows.shape[1]
    for number, rows in enumerate(left_out):
        inside = rows[(rows >= first) & (rows < first + len(cosines))]
        cosines[inside - first, number] = -np.inf
    for query in np.flatnonzero(cosines.max(0) > best.cosines.min(1)).tolist():
        (better,) = np.nonzero(cosines[:, query] > best.cosines[query].min())
        rows = np.concatenate([best.rows[query], better + first])
        values = np.concatenate([best.cosines[query], cosines[better, query]])
        # Of equal ones, those that come first in the file.
        chosen = np.lexsort((rows, -values))[:most]
        best.rows[query], best.cosines[query] = rows[chosen], values[chosen]
