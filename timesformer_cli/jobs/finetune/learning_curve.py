"""Would more videos help? The score of probes that were fitted to some of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.jobs.finetune.head import ROUGH
from timesformer_cli.jobs.finetune.validation import Choice, Examples

Measure = Literal["accuracy", "mean average precision"]
Verdict = Literal["more would help", "unclear", "more would help little"]

_SHARES = (0.125, 0.25, 0.5)
_DRAWS = 3
_BLOCKS = 10  # parts of the videos, each of which is left out once to see how much depends on it

# Multiplications and additions that a curve may cost: about half a minute of one core. If it were more, draws are left
# out, then folds, then the largest shares. That depends on sizes only, so the curve of the same data is the same.
_BUDGET = 2.5e11
_PASSES = 50  # over the features in a fit, with two products each

_LITTLE = 0.02  # a gain of the score that is not worth the work


@dataclass(frozen=True, slots=True)
class Point:
    """The mean score of probes fitted to a `share` of the videos, by whole groups, in several `draws`.

    `videos` and `videos_per_class` are means over folds and draws. `low` and `high` are the worst and the best draw.
    """

    share: float
    videos: float
    videos_per_class: float
    score: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The score of held-out videos over the number of videos that probes were fitted to.

    `measure` is what scores are. `gain` is that of the last point over the one before, and `noise` its standard error,
    None if all held-out videos are of one group.
    `doubled` estimates the gain of twice as many videos, if the error goes on to shrink by the same factor.
    `sentence` says what this means.
    """

    measure: Measure
    points: tuple[Point, ...]
    gain: float
    noise: float | None
    doubled: float
    verdict: Verdict

    @property
    def sentence(self) -> str:
        *_, before, last = self.points
        noise = "" if self.noise is None else f" with a standard error of {100 * self.noise:.1f}"
        seen = (
            f"from {before.videos_per_class:.3g} to {last.videos_per_class:.3g} videos per class, {self.measure} "
            f"changed by {100 * self.gain:+.1f} points{noise}"
        )
        if self.verdict == "more would help":
            return f"More videos would help: {seen}. Twice as many may add about {100 * self.doubled:.2g} points."
        if self.verdict == "unclear":
            return f"It is unclear whether more videos would help: {seen}."
        return f"More videos of this kind would help little: {seen}."


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Probes of one share: `sizes` are the videos, and those per class, of each; `logits` (N, K) those of each draw."""

    share: float
    sizes: tuple[tuple[float, float], ...]
    logits: tuple[NDArray[np.float32], ...]


def learning_curve(
    examples: Examples, folds: NDArray[np.int64], groups: NDArray[np.int64], choice: Choice, *, seed: int = 0
) -> LearningCurve | None:
    """The curve at the chosen C, with the folds of `choose`; None if there is too little data, or too much.

    `groups` int64 (N,): videos of a group are drawn together. A draw has a share of the videos of each class, and all
    that a smaller share has. The work is limited: of much data there are fewer draws, then fewer folds, then fewer
    shares.
    """
    places, draws, shares = _plan(examples, folds)
    numbers = np.unique(folds[folds >= 0])[places]
    rows = np.isin(folds, numbers)
    runs = [_run(examples, folds, groups, choice, places, draws, share, seed) for share in shares]
    runs.append(_Run(1, tuple(_size(examples, folds != number) for number in numbers), (choice.logits,)))
    points = [_point(examples, run, rows) for run in runs]
    # Of few videos, a share can be as many as the next one.
    kept = [place for place, (one, next) in enumerate(pairwise(points)) if one.videos < next.videos]
    if not kept:
        return None
    before = runs[kept[-1]].logits
    noise = _noise(examples, groups, rows, before, choice.logits, seed)
    return _judge(examples.multi_label, (*(points[place] for place in kept), points[-1]), noise)


def _plan(examples: Examples, folds: NDArray[np.int64]) -> tuple[list[int], int, tuple[float, ...]]:
    """Places of the folds, number of draws, and shares, whose work is within the budget."""
    places = list(range(len(np.unique(folds[folds >= 0]))))
    width = examples.features.shape[1]

    def work(share: float) -> float:
        rows = share * len(examples.features)
        few: float = min(rows, width)
        return rows * few * (2 * examples.classes * _PASSES + few) + 10 * few**3

    def fits(folds: int, draws: int, shares: Sequence[float]) -> bool:
        return folds * draws * sum(work(share) for share in shares) <= _BUDGET

    for draws in range(_DRAWS, 0, -1):
        if fits(len(places), draws, _SHARES):
            return places, draws, _SHARES
    for count in range(len(places) - 1, 0, -1):
        if fits(count, 1, _SHARES):
            return places[:count], 1, _SHARES
    return places[:1], 1, next((_SHARES[:end] for end in (2, 1) if fits(1, 1, _SHARES[:end])), ())


def _run(
    examples: Examples,
    folds: NDArray[np.int64],
    groups: NDArray[np.int64],
    choice: Choice,
    places: Sequence[int],
    draws: int,
    share: float,
    seed: int,
) -> _Run:
    numbers = np.unique(folds[folds >= 0])
    sizes, logits = [], []
    for draw in range(draws):
        found = np.full(choice.logits.shape, np.nan, np.float32)
        for place in places:
            held = folds == numbers[place]
            drawn = _draw(examples, groups, ~held, share, np.random.default_rng([seed, place, draw]))
            head = examples.fit(choice.c, drawn, choice.heads[place], ROUGH)
            found[held] = head.logits(examples.means[held])
            sizes.append(_size(examples, drawn))
        logits.append(found)
    return _Run(share, tuple(sizes), tuple(logits))


def _draw(
    examples: Examples,
    groups: NDArray[np.int64],
    among: NDArray[np.bool_],
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Videos, bool (N,): whole groups, until each class has a share of its videos."""
    _, group = np.unique(groups, return_inverse=True)
    turn = rng.permutation(group.max() + 1)[group]
    drawn = np.zeros(group.max() + 1, np.bool_)
    # Videos without a label are drawn as if that were a class.
    for member in (*examples.members.T, ~examples.members.any(axis=1)):
        places = np.flatnonzero(member & among)
        if len(places):
            last = np.sort(turn[places])[max(round(share * len(places)), 1) - 1]
            drawn[group[places[turn[places] <= last]]] = True
    return among & drawn[group]


def _size(examples: Examples, videos: NDArray[np.bool_]) -> tuple[float, float]:
    """How many videos, and how many with a class on average."""
    return float(videos.sum()), float(examples.members[videos].sum() / examples.classes)


def _point(examples: Examples, run: _Run, rows: NDArray[np.bool_]) -> Point:
    videos, per_class = np.mean(run.sizes, axis=0).tolist()
    scores = [examples.score(logits, rows) for logits in run.logits]
    mean = sum(scores) / len(scores)
    return Point(run.share, videos, per_class, mean, min(scores), max(scores), len(scores))


def _noise(
    examples: Examples,
    groups: NDArray[np.int64],
    rows: NDArray[np.bool_],
    before: Sequence[NDArray[np.float32]],
    last: NDArray[np.float32],
    seed: int,
) -> float | None:
    """The standard error of the gain, by a jackknife over groups of videos and by the draws; None with one group."""
    _, group = np.unique(groups[rows], return_inverse=True)
    blocks = min(_BLOCKS, int(group.max()) + 1)
    part = np.full(len(rows), -1)
    part[rows] = np.random.default_rng(seed).permutation(group.max() + 1)[group] % blocks
    if blocks < 2:
        return None

    def gains(kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        return examples.score(last, kept) - np.array([examples.score(logits, kept) for logits in before])

    without = np.array([gains(rows & (part != block)).mean() for block in range(blocks)])
    of_videos = (blocks - 1) / blocks * ((without - without.mean()) ** 2).sum()
    of_draws = gains(rows).var(ddof=1) / len(before) if len(before) > 1 else 0.0
    return math.sqrt(of_videos + of_draws)


def _judge(multi_label: bool, points: tuple[Point, ...], noise: float | None) -> LearningCurve:
    *_, before, last = points
    gain = last.score - before.score
    left = 1 - last.score
    doubled = left * gain / (left + gain) if gain > 0 else 0.0
    verdict: Verdict = "unclear"
    if noise is not None and gain > 2 * noise:
        verdict = "more would help" if doubled >= _LITTLE / 2 else "more would help little"
    elif noise is not None and gain + 2 * noise < _LITTLE:
        verdict = "more would help little"
    measure: Measure = "mean average precision" if multi_label else "accuracy"
    return LearningCurve(measure, points, gain, noise, doubled, verdict)
