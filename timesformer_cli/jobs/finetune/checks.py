"""What a person should look at before trusting a probe: labels that may be wrong, and a score that guessing reaches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.metrics import Metrics
from timesformer_cli.evaluation.rows import chunks
from timesformer_cli.jobs.finetune.head import Targets

_ADVICE = "look at the labels, add videos, or start from a different model"

_SHUFFLES = 19  # of labels; a score that none reaches is by chance once in 20 times
_SHUFFLED = 2000  # videos at most, for each shuffle ranks them all


@dataclass(frozen=True, slots=True)
class Suspect:
    """A video whose label is less likely than a class that it does not have.

    `video` is its number, `label` its class, and of several the least likely one; `own` is the probability of that.
    `likelier` is the most likely class that it does not have, with the probability `score`.
    """

    video: int
    label: int
    own: float
    likelier: int
    score: float


def labels_to_look_at(logits: NDArray[np.float32], targets: Targets, most: int = 24) -> tuple[Suspect, ...]:
    """The videos whose own label is least likely, the least likely first.

    `logits` (N, K) are from heads that were not fitted to these videos: `Choice.logits`. Rows of NaN, and videos
    without labels, are left out. `targets` are as in `head`.
    """
    several = targets.ndim == 2
    videos, classes = logits.shape
    label, likelier = np.zeros((2, videos), np.int64)
    own, score = np.ones(videos), np.zeros(videos)
    for rows in chunks(videos):
        usable = np.flatnonzero(~np.isnan(logits[rows]).any(axis=1)) + rows.start
        members = targets[usable] if several else targets[usable, None] == np.arange(classes)
        usable, members = usable[members.any(axis=1)], members[members.any(axis=1)]
        chances = np.exp(metrics.log_probabilities(logits[usable], "logits", "sigmoid" if several else "softmax"))
        of_label, others = np.where(members, chances, np.inf), np.where(members, -np.inf, chances)
        label[usable], own[usable] = of_label.argmin(axis=1), of_label.min(axis=1)
        likelier[usable], score[usable] = others.argmax(axis=1), others.max(axis=1)
    suspects = np.flatnonzero(own < score)
    order = suspects[np.argsort(own[suspects], kind="stable")][:most].tolist()
    return tuple(
        Suspect(place, int(label[place]), float(own[place]), int(likelier[place]), float(score[place]))
        for place in order
    )


def chance(found: Metrics, targets: NDArray[np.int64], *, balance: bool = False) -> str | None:
    """A sentence if the accuracy may be that of always giving the most frequent class, else None.

    `found` are the metrics of the held-out videos, and `targets` their classes. With `balance`, no answer gets more
    than 1 / K of the mean class accuracy without looking.
    """
    if balance:
        what, estimate, level = "mean class accuracy", found.mean_class_accuracy, 1 / found.classes_with_videos
        guess = "any guess"
    else:
        what, estimate = "accuracy", found.top[0].accuracy
        level = float(np.bincount(targets).max() / len(targets))
        guess = "always giving the most frequent class"
    if estimate is None or estimate.low > level:
        return None
    return (
        f"a model at chance: {what} {100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to "
        f"{100 * estimate.high:.1f} %), and {guess} reaches {100 * level:.1f} %; {_ADVICE}"
    )


def chance_multi_label(logits: NDArray[np.float32], targets: NDArray[np.bool_], *, seed: int = 0) -> str | None:
    """A sentence if the labels of different videos fit the logits (N, K) of the held-out ones as well, else None.

    `targets` are bool (N, K).
    """
    rows = np.linspace(0, len(logits) - 1, min(len(logits), _SHUFFLED)).round().astype(np.int64)
    logits, targets = logits[rows], targets[rows]
    if not targets.any():
        return None
    rng = np.random.default_rng(seed)

    def precision(targets: NDArray[np.bool_]) -> float:
        return float(np.nanmean(metrics.average_precision(logits, targets)))

    value = precision(targets)
    best = max(precision(targets[rng.permutation(len(targets))]) for _ in range(_SHUFFLES))
    if value > best:
        return None
    return (
        f"a model at chance: mean average precision {100 * value:.1f} %, and shuffled labels reach {100 * best:.1f} %; "
        f"{_ADVICE}"
    )
