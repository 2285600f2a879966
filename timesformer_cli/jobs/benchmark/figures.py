"""What is found: times of rounds, what they make of each thing that is measured, and of turns with another library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Stage = Literal["start", "load", "reading", "matrix product", "network", "end to end"]


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that each round took."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """How far the middle half of the rounds lies around the median, as a share of it."""
        # Of three rounds or fewer these are the fastest and the slowest: nothing between them is made up.
        low, high = np.quantile(self.seconds, (0.25, 0.75), method="inverted_cdf")
        return float(high - low) / 2 / self.median

    def percentile(self, percent: int) -> float | None:
        """None where the rounds are too few to tell: ten for the 90th, a hundred for the 99th."""
        if len(self.seconds) * (100 - percent) < 100:
            return None
        return float(np.percentile(self.seconds, percent))

    def to_dict(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "p90": self.percentile(90),
            "p99": self.percentile(99),
            "spread": self.spread,
            "rounds": len(self.seconds),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one thing takes. A round of it does `counts`: {"videos": 3, "frames": 24}, say.

    `flops` are those of a round, two for each multiply-add; `product` is what matrix products reach here, in FLOP/s of
    the same precision. `memory` is the peak of this process in bytes, or of what torch holds on the GPU.
    """

    stage: Stage
    name: str
    timing: Timing
    counts: Mapping[str, float] = field(default_factory=dict)
    flops: float | None = None
    product: float | None = None
    memory: int | None = None

    @property
    def rates(self) -> dict[str, float]:
        """Of each thing that is counted, so many a second."""
        return {what: count / self.timing.median for what, count in self.counts.items()}

    @property
    def flops_per_second(self) -> float | None:
        return None if self.flops is None else self.flops / self.timing.median

    def to_dict(self) -> dict[str, Any]:
        achieved = self.flops_per_second
        return {
            "stage": self.stage,
            "name": self.name,
            "seconds": self.timing.to_dict(),
            "counts": dict(self.counts),
            "per_second": self.rates,
            "flops_per_second": achieved,
            "share_of_matrix_product": None if achieved is None or self.product is None else achieved / self.product,
            "memory": self.memory,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """The same work by us and by another library, turn by turn; `counts` are of one turn.

    `difference` is that of the logits, as a share of the largest.
    """

    name: str
    ours: Timing
    theirs: Timing
    counts: Mapping[str, float]
    difference: float | None = None

    @property
    def ratios(self) -> NDArray[np.float64]:
        """How many times as fast as the other we were in each pair of turns."""
        return np.divide(self.theirs.seconds, self.ours.seconds)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": self.ours.to_dict(),
            "theirs": self.theirs.to_dict(),
            "counts": dict(self.counts),
            "times_as_fast": {
                "median": float(np.median(self.ratios)),
                "least": float(self.ratios.min()),
                "most": float(self.ratios.max()),
            },
            "difference": self.difference,
        }
