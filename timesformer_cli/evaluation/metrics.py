"""Metrics of the scores of many videos, with one label each or with several.

`scores` is (N, K) throughout, in memory or not (`rows`): a row for each video, its mean logits or, with
`combine="probabilities"`, its mean probabilities. `activation` is what makes scores of logits; with `none`, which is
for models that give amounts instead of probabilities, the scores are the logits. `targets` is int64 (N,), class
numbers, or, with several labels, bool (N, K).
Equal scores rank as everywhere in this package: the lower class number comes first.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation.rows import Rows, chunks
from timesformer_cli.pipeline.aggregate import activated
from timesformer_cli.specs import Activation, Combine

Floats = NDArray[np.float32] | NDArray[np.float64]

_BINS = 15
_COLUMNS = 2**28  # bytes of the classes whose scores of all videos are in memory at once
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)

_DEFINITIONS = {
    "intervals": "95 % intervals; by their method, wilson: the score interval of a share of the videos, "
    "bootstrap: percentiles of resamples of the evaluated videos",
    "accuracy": "share of the evaluated videos whose label is among the k best; of equal scores, the lower class leads",
    "failures_as_wrong": "the same share, with the videos that failed counted as wrong; "
    "failures_as_wrong_interval is its interval, low and high",
    "mean_class_accuracy": "mean of the top-1 accuracies of the classes that have evaluated videos",
    "negative_log_likelihood": "mean of -ln(probability of the label)",
    "expected_calibration_error": f"mean |top-1 accuracy - confidence| over {_BINS} bins of equal width, by videos",
    "mean_average_precision": "mean of the average precisions of the classes that have evaluated videos",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    `method`: "wilson" for a share of the videos, and "bootstrap", percentiles of resamples of the videos, for what is
    no share. A bootstrap sees no videos but these: if all are right, its interval is a point. Wilson's never is.
    """

    value: float
    low: float
    high: float
    method: Literal["wilson", "bootstrap"]

    def no_width(self, what: str) -> str | None:
        """Two sentences if the interval of `what`, such as "the difference", is a point; None otherwise."""
        if self.low < self.high:
            return None
        return (
            f"The 95 % interval of {what} has no width because every resample of the evaluated videos gives the same "
            "value. This does not make the value certain."
        )


@dataclass(frozen=True, slots=True)
class TopK:
    """The number of videos whose label is among the `k` best, and their share; None without videos.

    `failures_as_wrong` is their share of the evaluated and the failed videos, and `failures_as_wrong_interval` its 95 %
    interval (low, high) by Wilson.
    """

    k: int
    correct: int
    accuracy: Estimate | None
    failures_as_wrong: float | None
    failures_as_wrong_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The results of `measure`; None for metrics that the targets do not allow, or without videos.

    `videos` counts the evaluated videos, without the `failed` ones. `classes` counts the classes of the
    scores, and `classes_with_videos` those that are the label of any video.
    """

    videos: int
    failed: int
    classes: int
    classes_with_videos: int
    top: tuple[TopK, ...] = ()
    mean_class_accuracy: Estimate | None = None
    negative_log_likelihood: float | None = None
    expected_calibration_error: float | None = None
    mean_average_precision: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, with their definitions; `top` becomes `top_1`, ...; `interval_note`: see `Estimate.no_width`."""
        record = asdict(self)
        tops = {f"top_{top.pop('k')}": top for top in record.pop("top")}
        mean = self.mean_class_accuracy
        note = None if mean is None else mean.no_width("the mean class accuracy")
        return {**tops, **record, "interval_note": note, "definitions": _DEFINITIONS}


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The result of each video, as arrays (N,).

    `predicted` int64: the class with the highest score. `ranks` int64: how many classes come before
    the label. `confidences` float64: the highest score, and `own` float64: that of the label; see `shown`. `losses`
    float64: -ln(probability of the label), or NaN if scores are no probabilities.
    """

    predicted: NDArray[np.int64]
    ranks: NDArray[np.int64]
    confidences: NDArray[np.float64]
    own: NDArray[np.float64]
    losses: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Bins of equal width over the confidences 0 to 1; a bin includes its upper edge, not its lower one.

    `videos` int64 (B,); `confidence` and `accuracy` float64 (B,): means of a bin, NaN if it is empty.
    """

    videos: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over videos of |accuracy - confidence| of their bins."""
        return float(np.nansum(self.videos * np.abs(self.accuracy - self.confidence)) / self.videos.sum())


@dataclass(frozen=True, slots=True)
class ClassResult:
    """The results of one class: `videos` with this label, `correct` ones among them, and videos `predicted` as it.

    `accuracy` and `precision` are None without videos. `confusions` holds up to three pairs (predicted
    class, videos), the most frequent first.
    """

    index: int
    videos: int
    correct: int
    predicted: int
    accuracy: float | None
    precision: float | None
    confusions: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """`videos` of the class `target` were predicted as `predicted`, which is a `share` of its videos."""

    target: int
    predicted: int
    videos: int
    share: float


def measure(
    scores: Rows,
    targets: NDArray[np.int64],
    *,
    combine: Combine = "logits",
    activation: Activation = "softmax",
    failed: int = 0,
    ks: Sequence[int] = (1, 5),
    resamples: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Accuracy and calibration of videos with one label each.

    With as many classes as `k` or fewer, every video counts as right among the `k` best; scikit-learn
    warns and torchmetrics refuses. Classes without videos are left out of the mean class accuracy, as in
    scikit-learn's `balanced_accuracy_score`; mmaction2 counts them as 0, and so does torchmetrics if
    they were predicted. Scores that are no probabilities have no likelihood and no calibration.

    Raises:
        ValueError: shapes that do not fit, class numbers that the scores do not have, scores that are
            not finite.
    """
    videos, classes = scores.shape
    found = outcomes(scores, targets, combine, activation)
    measurable = videos and activation != "none"
    supports = np.bincount(targets, minlength=classes)
    right = found.ranks == 0
    return Metrics(
        videos=videos,
        failed=failed,
        classes=classes,
        classes_with_videos=int((supports > 0).sum()),
        top=tuple(_top(found.ranks < k, k, failed) for k in sorted(set(ks))),
        mean_class_accuracy=_mean_class_accuracy(right, targets, resamples, seed),
        negative_log_likelihood=float(found.losses.mean()) if measurable else None,
        expected_calibration_error=reliability(found.confidences, right).error if measurable else None,
    )


def measure_multi_label(precisions: NDArray[np.float64], *, videos: int, failed: int = 0) -> Metrics:
    """Mean average precision of videos with any number of labels, from that of each class: `average_precision`.

    Videos are ranked by the scores as they are; logits rank as their sigmoids do. Classes without videos
    are left out; scikit-learn and torchmetrics count them as 0. There is no interval: a resample holds
    videos twice, and hits that come twice raise the precision itself.
    """
    there = ~np.isnan(precisions)
    return Metrics(
        videos=videos,
        failed=failed,
        classes=len(precisions),
        classes_with_videos=int(there.sum()),
        mean_average_precision=float(precisions[there].mean()) if there.any() else None,
    )


def outcomes(
    scores: Rows, targets: NDArray[np.int64], combine: Combine = "logits", activation: Activation = "softmax"
) -> Outcomes:
    """Rank, confidence and loss of each video that has one label; raises ValueError as `measure` does.

    torch.topk leaves the order of equal scores open, and scikit-learn's `top_k_accuracy_score` puts the
    higher class first.
    """
    videos, classes = scores.shape
    if targets.shape != (videos,):
        raise ValueError(f"{videos} rows of scores, and targets of shape {targets.shape}")
    if videos and not 0 <= targets.min() <= targets.max() < classes:
        raise ValueError(f"labels from {targets.min()} to {targets.max()}, and scores for classes 0 to {classes - 1}")
    whole, real = (np.empty((2, videos), np.int64), np.full((3, videos), np.nan))
    found = Outcomes(*whole, *real)
    for rows in chunks(videos):
        values, target = scores[rows], targets[rows]
        own = np.arange(len(target)), target
        level = values[own][:, None]
        before = (values > level) | ((values == level) & (np.arange(classes) < target[:, None]))
        found.ranks[rows] = before.sum(axis=1)
        found.predicted[rows] = values.argmax(axis=1)
        if activation == "none":
            check_finite(values)
            found.confidences[rows], found.own[rows] = values.max(axis=1), level[:, 0]
            continue
        logs = log_probabilities(values, combine, activation)
        found.confidences[rows], found.own[rows] = np.exp(logs.max(axis=1)), np.exp(logs[own])
        found.losses[rows] = -logs[own]
    return found


def shown(scores: Floats, combine: Combine, activation: Activation) -> NDArray[np.float64]:
    """The scores as records show them, float64 (N, K). Raises ValueError as `measure` does."""
    check_finite(scores)
    values = scores.astype(np.float64)
    return values if combine == "probabilities" else activated(values, activation)


def log_probabilities(scores: Floats, combine: Combine, activation: Activation = "softmax") -> NDArray[np.float64]:
    """Logs of each row's probabilities, float64 (N, K); `activation` is softmax or sigmoid.

    Those of a softmax add up to one however many classes were kept. A probability of 0, which has no log, counts as
    the smallest number of float32, 1.4e-45.
    """
    check_finite(scores)
    values = scores.astype(np.float64)
    if combine == "probabilities":
        values = np.log(np.maximum(values, _SMALLEST))
    elif activation == "sigmoid":
        return np.maximum(-np.logaddexp(0, -values), math.log(_SMALLEST))
    if activation == "softmax":
        values -= values.max(axis=1, keepdims=True)
        values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def check_finite(scores: Floats) -> None:
    """Raises ValueError: rankings with NaN among them would mean nothing."""
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite numbers")


def restrict(
    scores: Floats, targets: NDArray[np.int64], classes: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Scores, targets and rows (N,) that are left if only the classes marked in `classes` (K,) exist.

    Videos of other classes are left out. The classes are renumbered in their old order, and probabilities
    are normalised over them whenever they are computed. For videos with several labels, leave out columns
    of both arrays instead, and keep all videos.
    """
    rows = classes[targets]
    numbers = np.cumsum(classes) - 1
    return scores[np.ix_(rows, classes)], numbers[targets[rows]], rows


def reliability(confidences: NDArray[np.float64], right: NDArray[np.bool_], bins: int = _BINS) -> Reliability:
    """The curve of accuracy over confidence; both arrays (N,).

    Bins are closed above, as in Guo et al. 2017. torchmetrics closes them below and gives a confidence
    of exactly 1 a bin of its own.
    """
    numbers = np.searchsorted(np.linspace(0, 1, bins + 1), confidences) - 1
    videos = np.bincount(numbers, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(numbers, values, bins) / videos for values in (confidences, right))
    return Reliability(videos, confidence, accuracy)


def confusion(predicted: NDArray[np.int64], targets: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts of videos int64 (K, K): rows are labels, columns predictions."""
    counts: NDArray[np.int64] = np.bincount(targets * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def per_class(matrix: NDArray[np.int64]) -> list[ClassResult]:
    """The results of each class, from a matrix of `confusion`."""
    results = []
    for index, (row, predicted) in enumerate(zip(matrix, matrix.sum(axis=0).tolist(), strict=True)):
        videos, correct = int(row.sum()), int(row[index])
        others = [int(other) for other in np.argsort(-row, kind="stable")[:4] if other != index and row[other]]
        results.append(
            ClassResult(
                index=index,
                videos=videos,
                correct=correct,
                predicted=predicted,
                accuracy=correct / videos if videos else None,
                precision=correct / predicted if predicted else None,
                confusions=tuple((other, int(row[other])) for other in others[:3]),
            )
        )
    return results


def most_confused(matrix: NDArray[np.int64], count: int = 20) -> list[Confusion]:
    """The most frequent mistakes in a matrix of `confusion`; of equally frequent ones, the larger share first."""
    targets, predicted = np.nonzero(matrix * ~np.eye(len(matrix), dtype=np.bool_))
    videos = matrix[targets, predicted]
    shares = videos / matrix.sum(axis=1)[targets]
    order = np.lexsort((-shares, -videos))[:count]
    rows = zip(targets[order], predicted[order], videos[order], shares[order], strict=True)
    return [Confusion(int(target), int(other), int(number), float(share)) for target, other, number, share in rows]


def average_precision(scores: Rows, targets: Rows) -> NDArray[np.float64]:
    """Average precision of each class, float64 (K,), NaN without videos; `targets` is bool (N, K).

    The sum over thresholds of (recall - recall before) * precision, where equal scores share a
    threshold, as in scikit-learn. Raises ValueError as `measure` does.
    """
    if targets.shape != scores.shape:
        raise ValueError(f"scores of shape {scores.shape}, and targets of shape {targets.shape}")
    videos, classes = scores.shape
    result = np.full(classes, np.nan)
    step = max(_COLUMNS // (4 * max(videos, 1)), 1)
    for start in range(0, classes, step):
        columns = slice(start, min(start + step, classes))
        values = np.empty((videos, columns.stop - start), scores[:0].dtype)
        members = np.empty(values.shape, np.bool_)
        for rows in chunks(videos):
            block = scores[rows]
            check_finite(block)
            values[rows], members[rows] = block[:, columns], targets[rows][:, columns]
        for index in np.flatnonzero(members.any(axis=0)):
            result[start + index] = _average_precision(values[:, index], members[:, index])
    return result


def _average_precision(scores: Floats, members: NDArray[np.bool_]) -> float:
    order = np.argsort(-scores)
    values = scores[order]
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    hits = np.cumsum(members[order])[ends]
    return float(np.diff(hits, prepend=0) @ (hits / (ends + 1)) / hits[-1])


def chance_warning(metrics: Metrics) -> str | None:
    """A sentence if the accuracy may be that of guessing, as with labels in a wrong order, else None.

    Guessing gets k / K of the videos right. The warning appears if guessing would get at least as many
    right in more than 1 % of cases. Fewer than 20 videos are too few to tell.
    """
    if not metrics.top or metrics.videos < 20:
        return None
    top = metrics.top[0]
    guessing = top.k / metrics.classes
    if guessing >= 1 or binomial_tail(top.correct, metrics.videos, guessing) <= 0.01:
        return None
    return (
        f"top-{top.k} accuracy of {100 * top.correct / metrics.videos:.2f} % over {metrics.videos} videos cannot be "
        f"told from guessing ({100 * guessing:.2f} %); the likely cause is that the annotations number the classes in "
        "a different order than the model"
    )


def binomial_tail(successes: int, trials: int, chance: float) -> float:
    """Probability of at least so many successes; the `chance` of each is above 0 and below 1."""
    number = np.arange(trials)
    steps = np.log((trials - number) / (number + 1)) + math.log(chance) - math.log1p(-chance)
    logs = trials * math.log1p(-chance) + np.concatenate([[0.0], np.cumsum(steps)])
    return min(float(np.exp(logs[successes:]).sum()), 1.0)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval (low, high) of a share of independent videos, `trials` above 0. Wilson 1927.

    It is no point even if all or none are right.
    """
    z = 1.959963984540054  # the normal distribution's quantile of 0.975
    share = successes / trials
    middle = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low, high = ((middle + side * half) / (1 + z**2 / trials) for side in (-1, 1))
    # None and all right are exactly 0 and 1, which rounding would miss.
    return low if successes else 0.0, high if successes < trials else 1.0


def interval(value: float, resampled: NDArray[np.float64]) -> Estimate:
    """A value with the percentiles 2.5 and 97.5 of its resamples by a bootstrap."""
    low, high = np.quantile(resampled, (0.025, 0.975)).tolist()
    return Estimate(value, low, high, "bootstrap")


def _top(right: NDArray[np.bool_], k: int, failed: int) -> TopK:
    videos, correct = len(right), int(right.sum())
    listed = videos + failed
    return TopK(
        k=k,
        correct=correct,
        accuracy=Estimate(correct / videos, *wilson(correct, videos), "wilson") if videos else None,
        failures_as_wrong=correct / listed if listed else None,
        failures_as_wrong_interval=wilson(correct, listed) if listed else None,
    )


# Resampled videos are counted by what the metric asks of them, without drawing each: how many of N
# draws fall on the n_i videos of kind i is multinomial, with n_i / N.


def _mean_class_accuracy(
    right: NDArray[np.bool_], targets: NDArray[np.int64], resamples: int, seed: int
) -> Estimate | None:
    """The mean over the classes that have videos; in a resample, over those that have some there."""
    videos = len(right)
    if not videos:
        return None
    kinds = np.bincount(2 * targets + right, minlength=2 * int(targets.max() + 1))
    drawn = np.random.default_rng(seed).multinomial(videos, kinds / videos, resamples)
    counts = np.concatenate([kinds[None], drawn]).reshape(resamples + 1, -1, 2)  # wrong, right
    supports = counts.sum(axis=2)
    means = (counts[:, :, 1] / np.maximum(supports, 1)).sum(axis=1) / (supports > 0).sum(axis=1)
    return interval(float(means[0]), means[1:])
