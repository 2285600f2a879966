"""Temperatures: numbers that logits are divided by, so that scores say how often answers are right.

`logits` is float32 (N, K) throughout: the mean logits of N videos. `targets` is int64 (N,), the class of each, for
scores of a softmax, which has one temperature; or bool (N, K), for scores of sigmoids, which have one for each class.
`sources` is int64 (N,): videos with the same number come from one source, so that they count as one observation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError
from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.metrics import Estimate
from timesformer_cli.evaluation.precision import Curve
from timesformer_cli.evaluation.rows import chunks

Targets = NDArray[np.int64] | NDArray[np.bool_]
Floats = NDArray[np.float64]

# Temperatures outside of these are not fitted: if all answers are right, the best one is 0.
LOWEST, HIGHEST = 0.05, 20.0

# Fewer sources tell too little for any temperature, and fewer than these for a reliable one.
LEAST_SOURCES, FEW_SOURCES = 20, 100

# Sources with a class, of which each may have several: fewer tell too little for a temperature of its own.
LEAST_POSITIVES = 50

_FOLDS = 5
_STEPS = 100
_CONVERGED = 1e-12  # of the inverse temperature
_RESAMPLES = 1000
_BINS = 15
_DRAWN = 1000  # answers in a bin that are drawn one by one; the sum of more is normal


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """The expected calibration error of scores, and what it would be if they were calibrated.

    A finite number of videos shows an error even then: `expected` is its mean over draws in which each answer is right
    as often as its score says, and `low` to `high` has 95 % of them.
    """

    value: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Calibration:
    """What temperatures make of scores.

    `temperatures` float64 (C,), one or one for each class, are fitted to all videos; `fitted` bool (C,) marks those
    that are not 1 for want of videos. `interval` is the 95 % interval of a single one. All else is measured with
    temperatures that were fitted without the source of the video: log losses and their difference, after minus before,
    whose intervals are of a bootstrap over the sources; calibration errors; and the `curve` of scores and right
    answers, with one video of each source.
    """

    videos: int
    sources: int
    temperatures: Floats
    fitted: NDArray[np.bool_]
    interval: tuple[float, float] | None
    loss_before: Estimate
    loss_after: Estimate
    loss_difference: Estimate
    error_before: CalibrationError
    error_after: CalibrationError
    curve: Curve

    @property
    def changes(self) -> bool:
        """Whether scores become different ones."""
        return bool((self.temperatures != 1).any())

    @property
    def at_bound(self) -> bool:
        """Whether a temperature is the lowest or the highest that is fitted."""
        found = self.temperatures[self.fitted]
        return bool(np.isin(found, (LOWEST, HIGHEST)).any())


def calibrate(
    logits: NDArray[np.float32], targets: Targets, sources: NDArray[np.int64], *, careful: bool = False
) -> Calibration:
    """Fit temperatures, and measure what they change, by cross-validation over the sources.

    With `careful`, temperatures stay 1 at either end of what is fitted, as for a model that makes no mistake, and if
    the log loss of the cross-validation does not fall.

    Raises:
        InputError: fewer than `LEAST_SOURCES` sources, videos of one class only, or, with sigmoids, no class with
            enough videos.
        ValueError: scores that are not finite.
    """
    metrics.check_finite(logits)
    names, numbers = np.unique(sources, return_inverse=True)
    require_enough(targets, len(names))
    fitted = _fitted(targets, numbers)
    temperatures = _fit(logits, targets, fitted)
    folds = np.random.default_rng(0).permutation(len(names))[numbers] % _FOLDS
    held_out = [_fit(logits[folds != fold], targets[folds != fold], fitted) for fold in range(_FOLDS)]
    crossed = np.stack(held_out)[folds]
    before = losses(logits, targets, np.ones((1, 1)))
    if careful:
        left = np.isin(temperatures, (LOWEST, HIGHEST))
        left |= losses(logits, targets, np.where(left, 1.0, crossed)).mean() >= before.mean()
        temperatures, crossed = np.where(left, 1.0, temperatures), np.where(left, 1.0, crossed)
    after = losses(logits, targets, crossed)
    interval = None
    if targets.ndim == 1 and temperatures[0] != 1:
        interval = _interval(logits, targets, numbers, float(temperatures[0]))
    estimates = _estimates(np.stack([before, after, after - before]), numbers)
    shown, right = answers(logits, targets, crossed)
    order = np.random.default_rng(0).permutation(len(numbers))
    chosen = order[np.unique(numbers[order], return_index=True)[1]]
    return Calibration(
        videos=len(logits),
        sources=len(names),
        temperatures=temperatures,
        fitted=fitted,
        interval=interval,
        loss_before=estimates[0],
        loss_after=estimates[1],
        loss_difference=estimates[2],
        error_before=calibration_error(*_judged(logits, targets, np.ones((1, 1)), fitted)),
        error_after=calibration_error(*_judged(logits, targets, crossed, fitted)),
        curve=Curve.of(shown[chosen], right[chosen]),
    )


def require_enough(targets: Targets, sources: int) -> None:
    """Raises InputError for too few sources, or videos of one class only."""
    if sources < LEAST_SOURCES:
        raise InputError(
            f"{sources} independent sources of videos are too few to calibrate scores; at least {LEAST_SOURCES} are "
            f"needed, and {FEW_SOURCES} for a reliable temperature"
        )
    if targets.ndim == 1 and (targets == targets[0]).all():
        raise InputError("all videos are of one class, which tells nothing about how sure to be; add other classes")


def _fitted(targets: Targets, sources: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which temperatures are fitted, bool (C,). Raises InputError if none is."""
    if targets.ndim == 1:
        return np.ones(1, np.bool_)
    having = np.array([len(np.unique(sources[column])) for column in targets.T])
    fitted: NDArray[np.bool_] = (having >= LEAST_POSITIVES) & ~targets.all(axis=0)
    if not fitted.any():
        raise InputError(
            f"no class has videos of {LEAST_POSITIVES} independent sources, which its temperature needs; the most is "
            f"{int(having.max(initial=0))}"
        )
    return fitted


# ---- Fitting


def fit(logits: NDArray[np.float32], targets: Targets) -> Floats:
    """The temperatures float64 (C,) with the lowest log loss, within `LOWEST` and `HIGHEST`.

    The log loss is convex in b = 1 / T: Newton's method, with bisection for steps that lead out of the known bracket.
    Logits that tell nothing leave 1.
    """

    def slopes(b: Floats) -> tuple[Floats, Floats]:
        return _slopes(logits, targets, b)

    classes = 1 if targets.ndim == 1 else targets.shape[1]
    low, high = np.full(classes, 1 / HIGHEST), np.full(classes, 1 / LOWEST)
    at_low, at_high = slopes(low)[0], slopes(high)[0]
    flat = (at_low == 0) & (at_high == 0)
    b = np.where(flat, 1.0, np.where(at_low >= 0, low, np.where(at_high <= 0, high, 1.0)))
    inner = ~flat & (at_low < 0) & (at_high > 0)
    for _ in range(_STEPS if inner.any() else 0):
        slope, curvature = slopes(b)
        low, high = np.where(slope < 0, b, low), np.where(slope > 0, b, high)
        step = b - slope / np.where(curvature > 0, curvature, np.inf)
        step = np.where((step > low) & (step < high), step, (low + high) / 2)
        step = np.where(inner & (slope != 0), step, b)
        moved = np.abs(step / b - 1).max()
        b = step
        if moved <= _CONVERGED:
            break
    # 1 / (1 / 0.05) is not 0.05.
    return np.where(b == 1 / LOWEST, LOWEST, np.where(b == 1 / HIGHEST, HIGHEST, 1 / b))


def _fit(logits: NDArray[np.float32], targets: Targets, fitted: NDArray[np.bool_]) -> Floats:
    """The same with 1 for temperatures that are not fitted."""
    if targets.ndim == 1:
        return fit(logits, targets)
    found = np.ones(len(fitted))
    found[fitted] = fit(logits[:, fitted], targets[:, fitted])
    return found


def _slopes(logits: NDArray[np.float32], targets: Targets, b: Floats) -> tuple[Floats, Floats]:
    """First and second derivatives (C,) of the mean log loss by b."""
    slope, curvature = np.zeros(len(b)), np.zeros(len(b))
    for rows in chunks(len(logits)):
        pull, spread = _derivatives(logits[rows], targets[rows], b)
        slope += pull.sum(axis=0)
        curvature += spread.sum(axis=0)
    return slope / len(logits), curvature / len(logits)


def _derivatives(logits: NDArray[np.float32], targets: Targets, b: Floats) -> tuple[Floats, Floats]:
    """Those of each video (n, C)."""
    z = logits.astype(np.float64)
    if targets.ndim == 2:
        chances = metrics.shown(z * b, "logits", "sigmoid")
        return (chances - targets) * z, chances * (1 - chances) * z**2
    z -= z.max(axis=1, keepdims=True)
    chances = metrics.shown(z * b, "logits", "softmax")
    mean = (chances * z).sum(axis=1, keepdims=True)
    own = np.take_along_axis(z, targets.astype(np.int64)[:, None], axis=1)
    return mean - own, (chances * (z - mean) ** 2).sum(axis=1, keepdims=True)


def _interval(
    logits: NDArray[np.float32], targets: Targets, sources: NDArray[np.int64], temperature: float
) -> tuple[float, float]:
    """The 95 % interval of a temperature, from how much the sources disagree on the slope at it."""
    b = np.array([1 / temperature])
    pulls = np.concatenate([_derivatives(logits[rows], targets[rows], b)[0][:, 0] for rows in chunks(len(logits))])
    curvature = float(_slopes(logits, targets, b)[1][0]) * len(logits)
    of_sources = np.bincount(sources, pulls)
    if not curvature:
        return LOWEST, HIGHEST
    half = 1.96 * float(np.sqrt((of_sources**2).sum())) / curvature
    low, high = (1 / max(1 / temperature + side * half, 1 / HIGHEST) for side in (1, -1))
    return max(low, LOWEST), high


# ---- Measuring


def losses(logits: NDArray[np.float32], targets: Targets, temperatures: Floats) -> Floats:
    """The log loss of each video, float64 (N,); with sigmoids, the mean over the classes.

    `temperatures` are (N, C), or (1, C) for all videos, and C may be 1 for all classes.
    """
    found = np.empty(len(logits))
    for rows in chunks(len(logits)):
        z = logits[rows] / temperatures[rows if len(temperatures) > 1 else slice(None)]
        if targets.ndim == 2:
            found[rows] = np.logaddexp(0, np.where(targets[rows], -z, z)).mean(axis=1)
        else:
            logs = metrics.log_probabilities(z, "logits")
            found[rows] = -np.take_along_axis(logs, targets[rows].astype(np.int64)[:, None], axis=1)[:, 0]
    return found


def answers(logits: NDArray[np.float32], targets: Targets, temperatures: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The highest score of each video, float64 (N,), and whether its class is right, bool (N,)."""
    scores, right = np.empty(len(logits)), np.empty(len(logits), np.bool_)
    for rows in chunks(len(logits)):
        z = logits[rows] / temperatures[rows if len(temperatures) > 1 else slice(None)]
        best = z.argmax(axis=1)
        chances = metrics.shown(z, "logits", "softmax" if targets.ndim == 1 else "sigmoid")
        scores[rows] = chances.max(axis=1)
        own = targets[rows]
        right[rows] = best == own if targets.ndim == 1 else own[np.arange(len(best)), best]
    return scores, right


def _judged(
    logits: NDArray[np.float32], targets: Targets, temperatures: Floats, fitted: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """The scores whose calibration is judged, and whether they are right: best ones; with sigmoids, all of a class."""
    if targets.ndim == 1:
        return answers(logits, targets, temperatures)
    z = (logits / temperatures)[:, fitted]
    return metrics.shown(z, "logits", "sigmoid").ravel(), targets[:, fitted].astype(np.bool_).ravel()


def _estimates(values: Floats, sources: NDArray[np.int64]) -> list[Estimate]:
    """The mean of each row of `values` (R, N), with its interval by a paired bootstrap over the sources."""
    sums = np.stack([np.bincount(sources, row) for row in values])
    sizes = np.bincount(sources)
    generator = np.random.default_rng(0)
    drawn = np.empty((len(values), _RESAMPLES))
    for number in range(_RESAMPLES):
        times = np.bincount(generator.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
        drawn[:, number] = sums @ times / (sizes @ times)
    return [metrics.interval(float(row.mean()), resampled) for row, resampled in zip(values, drawn, strict=True)]


def calibration_error(
    scores: Floats, right: NDArray[np.bool_], draws: int = _RESAMPLES, seed: int = 0
) -> CalibrationError:
    """The expected calibration error over 15 bins of equal width, beside that of calibrated scores."""
    value = metrics.reliability(scores, right, _BINS).error
    bins = np.searchsorted(np.linspace(0, 1, _BINS + 1), scores) - 1
    generator = np.random.default_rng(seed)
    gaps = np.zeros(draws)
    for number in np.unique(bins).tolist():
        inside = scores[bins == number]
        mean = float(inside.sum())
        if len(inside) > _DRAWN:
            hits = generator.normal(mean, np.sqrt((inside * (1 - inside)).sum()), draws)
        else:
            hits = (generator.random((draws, len(inside))) < inside).sum(axis=1)
        gaps += np.abs(hits - mean)
    drawn = gaps / len(scores)
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return CalibrationError(value, float(drawn.mean()), low, high)
