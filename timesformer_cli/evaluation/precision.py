"""The score from which answers are kept, so that a share of them is right with 95 % confidence.

Precision is the share of the kept answers that are right, and coverage the share of the videos whose answers are kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import UsageError
from timesformer_cli.evaluation.metrics import binomial_tail

# The chance that less than the promised share is right: of the choice of calibration videos.
_RISK = 0.05

# The scores that are tried, from high to low. They do not depend on the videos, which the promise needs.
THRESHOLDS: tuple[float, ...] = (0.999, 0.995, *(number / 100 for number in range(99, -1, -1)))

_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept with a `threshold`: `kept` answers of `videos` videos, of which `right` are right."""

    threshold: float
    kept: int
    right: int
    videos: int

    @property
    def coverage(self) -> float:
        return self.kept / self.videos

    @property
    def low(self) -> float:
        """The lower bound of the precision, with 95 % confidence."""
        return lower_bound(self.right, self.kept)

    def has(self, precision: float) -> bool:
        """Whether the lower bound is at least `precision`, above 0 and below 1."""
        return self.kept > 0 and binomial_tail(self.right, self.kept, precision) <= _RISK


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The highest score of each of n independent videos, float64 (n,), in descending order, and whether it is right."""

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Self:
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], right[order])

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, threshold: float) -> Kept:
        """What a score of at least `threshold` keeps."""
        kept = int(np.searchsorted(-self.scores, -threshold, side="right"))
        return Kept(threshold=threshold, kept=kept, right=int(self.right[:kept].sum()), videos=len(self))

    def tested(self, precision: float) -> list[Kept]:
        """The thresholds that are tested for this precision, the last of which may have failed.

        They go down the fixed list, from the first that keeps enough answers to pass at all, and end at the first whose
        lower bound is less: then none was chosen for its luck, and together they err in 5 % of cases at most.
        """
        found: list[Kept] = []
        least = needed(precision)
        for kept in map(self.at, THRESHOLDS):
            if kept.kept >= least:
                found.append(kept)
                if not found[-1].has(precision):
                    break
        return found

    def find(self, precision: float) -> Kept | None:
        """The lowest threshold whose answers have this precision; None if there is none."""
        passed = [kept for kept in self.tested(precision) if kept.has(precision)]
        return passed[-1] if passed else None

    def require(self, precision: float) -> Kept:
        """The same. Raises UsageError with the reason if there is none, and the number of videos that is needed."""
        found = self.find(precision)
        if found is not None:
            return found
        asked = f"`min_precision={precision:g}`"
        if len(self) < needed(precision):
            reason = (
                f"the model was calibrated with {len(self):,} independent videos, and {needed(precision):,} right "
                "answers without an error are needed"
            )
        else:
            first = self.tested(precision)[0]
            wrong = first.kept - first.right
            reason = (
                f"of the {first.kept:,} surest answers, {wrong:,} are wrong, and with so many, "
                f"{needed(precision, wrong):,} answers are needed"
            )
        best = next((p for p in _OFFERED if p < precision and self.find(p) is not None), None)
        most = "no lower precision can be had either" if best is None else f"the most that can be had is {best:g}"
        raise UsageError(f"{asked}: {reason}; {most}, or calibrate with more videos")


_OFFERED: Sequence[float] = [number / 100 for number in range(99, 49, -1)]


def lower_bound(right: int, kept: int) -> float:
    """The exact 95 % lower bound of a share (Clopper and Pearson), by bisection; `kept` is above 0."""
    if not right:
        return 0.0
    if right == kept:
        return float(_RISK ** (1 / kept))
    low, high = 0.0, right / kept
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if binomial_tail(right, kept, middle) > _RISK:
            high = middle
        else:
            low = middle
    return low


def needed(precision: float, wrong: int = 0) -> int:
    """How many answers, of which so many are `wrong`, have this lower bound of the precision (above 0, below 1)."""
    if not wrong:
        return math.ceil(math.log(_RISK) / math.log(precision) - 1e-9)
    low, high = wrong, 2 * wrong + 1
    while lower_bound(high - wrong, high) < precision:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if lower_bound(middle - wrong, middle) >= precision:
            high = middle
        else:
            low = middle
    return high
