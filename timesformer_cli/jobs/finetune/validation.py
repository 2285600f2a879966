"""What a probe is worth on videos that it was not fitted to: cross-validation, with `folds` int64 (N,).

A video is held out by the fold of its number; below 0, by none. With one fold, this is a plain held-out part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.rows import chunks
from timesformer_cli.jobs.finetune.head import EXACT, ROUGH, Floats, Head, Targets, balanced, fit, memberships

CANDIDATES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """N videos with R views, and their classes; arrays as in `head`."""

    features: Floats
    owner: NDArray[np.int64]
    targets: Targets
    classes: int
    balance: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        """Which classes each video has, bool (N, K)."""
        return memberships(self.targets, self.classes)

    @cached_property
    def means(self) -> Floats:
        """The mean features of each video, (N, D), which give the mean logits; NaN for videos without views."""
        views = np.bincount(self.owner, minlength=len(self))
        if (views == 1).all():
            return self.features
        found = np.full((len(self), self.features.shape[1]), np.nan, np.float32)
        starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        for first in range(0, len(starts), 1024):
            part = starts[first : first + 1025]
            rows = slice(part[0], part[-1] if len(part) > 1024 else None)
            sums = np.add.reduceat(self.features[rows].astype(np.float64), part[:1024] - part[0], axis=0)
            owners = self.owner[part[:1024]]
            found[owners] = sums / views[owners, None]
        return found

    def fit(
        self, c: float, videos: NDArray[np.bool_] | None = None, start: Head | None = None, tolerance: float = EXACT
    ) -> Head:
        """The head of `fit`, for the marked videos or all."""
        return fit(
            self.features,
            self.owner,
            self.targets,
            classes=self.classes,
            c=c,
            videos=videos,
            start=start,
            balance=self.balance,
            tolerance=tolerance,
        )

    def score(self, logits: NDArray[np.float32], rows: NDArray[np.bool_]) -> float:
        """Accuracy or, for multi-label data, mean average precision of the logits (N, K) of the videos `rows`."""
        targets = self.targets[rows]
        if not self.multi_label:
            return float((logits[rows].argmax(axis=1) == targets).mean())
        precisions = metrics.average_precision(logits[rows], targets)
        return float(np.nanmean(precisions)) if not np.isnan(precisions).all() else 0.0


@dataclass(frozen=True, slots=True)
class Tried:
    """A value of C, with the mean log-loss of the held-out videos, and their accuracy or mean average precision.

    For multi-label data, the loss is a mean over the classes too. Videos of a class that no video outside their fold
    has are left out of the loss, and count as wrong.
    """

    c: float
    log_loss: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The value of C with the lowest log-loss, and what heads with it say of videos they were not fitted to.

    `logits` float32 (N, K): means over the views, NaN for videos that no fold holds out; `held_out` bool (N,) marks the
    others. `heads` are those of the folds, in the order of their numbers. `tied` are further values whose losses cannot
    be told from the lowest: the difference is below its standard error. `at_end` is the end of the candidates at which
    the value is. `unseen` counts the held-out videos of a class that no video outside their fold has.
    """

    c: float
    table: tuple[Tried, ...]
    logits: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    heads: tuple[Head, ...]
    tied: tuple[float, ...]
    at_end: Literal["lowest", "highest"] | None
    unseen: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what makes the choice or its numbers uncertain."""
        found = []
        if self.tied:
            values = ", ".join(f"{c:g}" for c in self.tied)
            found.append(f"The log-loss does not tell C = {self.c:g} from {values}.")
        if self.at_end:
            found.append(f"C = {self.c:g} is the {self.at_end} value that was tried; the best may lie beyond it.")
        if self.unseen:
            videos = "1 held-out video is" if self.unseen == 1 else f"{self.unseen:,} held-out videos are"
            found.append(f"{videos} of a class that the heads of their folds never saw, and count as wrong.")
        return tuple(found)


def choose(
    examples: Examples,
    folds: NDArray[np.int64],
    *,
    start: Head | None = None,
    candidates: Sequence[float] = CANDIDATES,
    done: Callable[[], None] = lambda: None,
) -> Choice:
    """Choose C, of `candidates` in ascending order, by the log-loss of the videos that the folds hold out.

    Each head has means and deviations of its own, those of the videos that its fold does not hold out, and starts from
    the head for the candidate before. With `balance`, videos weigh in the loss as they do in the fit. `done` is called
    after each candidate.

    Raises:
        InputError: features that are not finite numbers.
        ValueError: no fold holds out a video, or arrays that do not match.
    """
    held_out = folds >= 0
    if folds.shape != (len(examples),) or not held_out.any():
        raise ValueError(f"folds of shape {folds.shape} for {len(examples)} videos, of which {held_out.sum()} held out")
    answerable = held_out & _answerable(examples, folds)
    heads: list[Head | None] = [start] * len(np.unique(folds[held_out]))
    found: list[tuple[Tried, NDArray[np.float64]]] = []
    best: tuple[NDArray[np.float32], list[Head]] | None = None
    for c in candidates:
        logits, fitted = _hold_out(examples, folds, c, heads)
        heads = list(fitted)
        losses = _losses(examples, logits, answerable)
        loss = float(losses.mean()) if len(losses) else 0.0
        if best is None or loss < min(tried.log_loss for tried, _ in found):
            best = logits, fitted
        found.append((Tried(c, loss, examples.score(logits, held_out)), losses))
        done()
    assert best is not None
    place = min(range(len(found)), key=lambda number: found[number][0].log_loss)
    ends: dict[int, Literal["lowest", "highest"]] = {0: "lowest", len(found) - 1: "highest"}
    return Choice(
        c=candidates[place],
        table=tuple(tried for tried, _ in found),
        logits=best[0],
        held_out=held_out,
        heads=tuple(best[1]),
        tied=tuple(
            tried.c
            for number, (tried, losses) in enumerate(found)
            if number != place and _is_tied(losses - found[place][1])
        ),
        at_end=ends.get(place) if len(found) > 1 else None,
        unseen=int((held_out & ~answerable).sum()),
    )


def _hold_out(
    examples: Examples, folds: NDArray[np.int64], c: float, starts: Sequence[Head | None]
) -> tuple[NDArray[np.float32], list[Head]]:
    """The logits (N, K) of the videos that folds hold out, and the heads, which begin at `starts`."""
    logits = np.full((len(examples), examples.classes), np.nan, np.float32)
    heads = []
    for number, start in zip(np.unique(folds[folds >= 0]).tolist(), starts, strict=True):
        held = folds == number
        heads.append(examples.fit(c, ~held, start, ROUGH))
        logits[held] = heads[-1].logits(examples.means[held])
    return logits, heads


def _answerable(examples: Examples, folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether another fold has a video of the class, bool (N,); with several labels, each class is a question."""
    found = np.ones(len(examples), np.bool_)
    if examples.multi_label:
        return found
    counts = np.bincount(examples.targets, minlength=examples.classes)
    for number in np.unique(folds[folds >= 0]).tolist():
        held = folds == number
        left = counts - np.bincount(examples.targets[held], minlength=examples.classes)
        found[held] = left[examples.targets[held]] > 0
    return found


def _losses(examples: Examples, logits: NDArray[np.float32], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The log-losses of the videos `rows`, whose mean is that of the weighted videos."""
    numbers = np.flatnonzero(rows)
    found = np.empty(len(numbers))
    weights = np.ones((len(numbers), 1))
    if examples.balance:
        weights = balanced(examples.members[numbers], multi_label=examples.multi_label)
    for part in chunks(len(numbers)):
        members, block = examples.members[numbers[part]], logits[numbers[part]]
        if examples.multi_label:
            losses = -metrics.log_probabilities(np.where(members, block, -block), "logits", "sigmoid")
            found[part] = (weights[part] * losses).mean(axis=1)
        else:
            found[part] = -weights[part, 0] * metrics.log_probabilities(block, "logits")[members]
    return found


def _is_tied(differences: NDArray[np.float64]) -> bool:
    """Whether the mean is below its standard error."""
    videos = len(differences)
    return bool(videos < 2 or differences.mean() <= differences.std(ddof=1) / np.sqrt(videos))
