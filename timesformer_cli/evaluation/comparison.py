"""Compare runs on the same videos, and fuse several into one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import UsageError
from timesformer_cli.evaluation.metrics import (
    Estimate,
    Floats,
    binomial_tail,
    interval,
    log_probabilities,
    shown,
)
from timesformer_cli.evaluation.rows import chunks
from timesformer_cli.specs import Activation, Combine


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Accuracies of two runs, and the `difference` second minus first with its 95 % interval by a bootstrap.

    `gained` and `lost`, int64, are the rows of the videos that only the second has right, or only the
    first. `p_value` is that of McNemar's test. Without videos, all values are None.
    """

    videos: int
    first: float | None
    second: float | None
    difference: Estimate | None
    p_value: float | None
    gained: NDArray[np.int64]
    lost: NDArray[np.int64]


def common_rows(runs: Sequence[Sequence[str]]) -> list[NDArray[np.int64]]:
    """For each run, the rows (int64) of the videos that all runs have, by name, in the order of the first run.

    Raises:
        ValueError: a run has a name twice.
    """
    rows = [{name: row for row, name in enumerate(names)} for names in runs]
    for number, (names, of_names) in enumerate(zip(runs, rows, strict=True), start=1):
        if len(names) != len(of_names):
            raise ValueError(f"run {number} has videos more than once")
    common = [name for name in runs[0] if all(name in of_names for of_names in rows)]
    return [np.array([of_names[name] for name in common], dtype=np.int64) for of_names in rows]


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_], *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compare two runs by which videos, bool (N,) in the same order, each has right.

    The interval is of a bootstrap over pairs, and so a point if no video tells the runs apart. McNemar's
    test is the exact one, two-sided: the videos that only one run has right are treated as tosses of a fair
    coin. It is not the mid-p variant, so it errs towards no difference.
    """
    videos = len(first)
    gained, lost = np.flatnonzero(second & ~first), np.flatnonzero(first & ~second)
    if not videos:
        return Comparison(0, None, None, None, None, gained, lost)
    kinds = np.array([len(gained), len(lost), videos - len(gained) - len(lost)])
    drawn = np.random.default_rng(seed).multinomial(videos, kinds / videos, resamples)
    return Comparison(
        videos=videos,
        first=float(first.mean()),
        second=float(second.mean()),
        difference=interval((len(gained) - len(lost)) / videos, (drawn[:, 0] - drawn[:, 1]) / videos),
        p_value=min(1.0, 2 * binomial_tail(max(len(gained), len(lost)), len(gained) + len(lost), 0.5)),
        gained=gained,
        lost=lost,
    )


def fuse(
    runs: Sequence[Floats],
    weights: Sequence[float],
    combines: Sequence[Combine],
    *,
    activation: Activation = "softmax",
) -> NDArray[np.float32]:
    """Weighted mean of the probabilities of several runs, float32 (N, K), of scores (N, K) each; see `metrics`.

    Probabilities are averaged because logits of different models have different scales, and the most
    peaked ones would dominate. Measure the result with `combine="probabilities"`. If the activation is none, the
    mean is that of the logits.

    Raises:
        UsageError: the weights are negative, not finite, all 0, or not one per run.
        ValueError: scores of different shapes, or not finite.
    """
    if len(weights) != len(runs):
        raise UsageError(f"{len(runs)} runs need {len(runs)} weights, not {len(weights)}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise UsageError(f"weights {', '.join(f'{w:g}' for w in weights)}; they must be 0 or more, and not all 0")
    if len({run.shape for run in runs}) != 1:
        raise ValueError(f"runs of different shapes: {', '.join(str(run.shape) for run in runs)}")
    fused = np.empty(runs[0].shape, np.float32)
    for rows in chunks(len(fused)):
        parts = [_probabilities(run[rows], how, activation) for run, how in zip(runs, combines, strict=True)]
        fused[rows] = np.average(parts, axis=0, weights=weights)
    return fused


def _probabilities(scores: Floats, combine: Combine, activation: Activation) -> NDArray[np.float64]:
    if activation == "softmax":  # so that those of some classes add up to one too
        return np.exp(log_probabilities(scores, combine))
    return shown(scores, combine, activation)
