"""Results: times of rounds, measurements made of them, and duels with another library."""

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
        """Half the range of the middle half of the rounds, as a share of the median."""
        # With three rounds or fewer, these are the fastest and the slowest: nothing is interpolated.
        low, high = np.quantile(self.seconds, (0.25, 0.75), method="inverted_cdf")
        return float(high - low) / 2 / self.median

    def percentile(self, percent: int) -> float | None:
        """None if there are too few rounds: the 90th needs ten, the 99th a hundred."""
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
    """The time that one thing takes. `counts` is what a round of it does, such as {"videos": 3, "frames": 24}.

    `flops` are those of a round, two for each multiply-add; `product` is the speed of matrix products on this device,
    in FLOP/s of the same precision. `memory` is the peak of this process in bytes, or of what torch holds on the GPU.
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
        """`counts` per second."""
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
    """The same work by this package and another library, in alternation; `counts` are of one turn.

    `difference` is the largest difference of the logits, as a share of the largest logit.
    """

    name: str
    ours: Timing
    theirs: Timing
    counts: Mapping[str, float]
    difference: float | None = None

    @property
    def ratios(self) -> NDArray[np.float64]:
        """The speed-up of this package over the other library, in each pair of turns."""
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
