"""Whether training may mirror videos: only if neither the names of the classes nor a measurement speaks against it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Failure
from timesformer_cli.jobs.finetune.augment import Flip
from timesformer_cli.jobs.finetune.data import Videos
from timesformer_cli.jobs.finetune.division import Division
from timesformer_cli.jobs.finetune.features import Features
from timesformer_cli.jobs.finetune.head import memberships
from timesformer_cli.jobs.finetune.probe import Probe
from timesformer_cli.jobs.finetune.sides import Sides, sides_of
from timesformer_cli.text import plural

# A class may lose this share of its videos, and any loss may be this many standard errors.
_POINTS = 0.1
_ERRORS = 2.0


class Answers(NamedTuple):
    """What a model that was trained without flips says of N videos that it was not trained on.

    `upright` and `mirrored` float32 (N, K) are the logits of the videos as they are and of their mirror images;
    `targets` is int64 (N,) or, with several labels each, bool (N, K).
    """

    upright: NDArray[np.float32]
    mirrored: NDArray[np.float32]
    targets: NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLoss:
    """A class that loses too much: the shares of its `videos` that are right as they are and mirrored."""

    number: int
    videos: int
    upright: float
    mirrored: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How right the answers are: shares of the videos, as they are and mirrored.

    A video with R labels is right as far as these are among its R likeliest classes. `error` is the standard error of
    the difference. `balanced` is the mean of the classes' shares as they are, and `balanced_error` its standard error;
    `chance` is what guessing reaches there. `lost` are the classes that lose too much, the worst first.
    """

    videos: int
    upright: float
    mirrored: float
    error: float
    balanced: float
    balanced_error: float
    chance: float
    lost: tuple[ClassLoss, ...]

    @property
    def can_tell(self) -> bool:
        """Whether the answers are better than guesses; the mirror images of guesses are as good."""
        return self.balanced - _ERRORS * self.balanced_error > self.chance

    @property
    def safe(self) -> bool:
        """Whether mirror images are as well answered, as far as the number of videos can tell."""
        return self.can_tell and self.upright - self.mirrored <= _ERRORS * self.error and not self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether to mirror videos, and why: `reason` is a line for a terminal.

    `exchange`: the class of the mirror image of each class; its own but for `swap`. `measured` is None if names or the
    user decided.
    """

    asked: Flip
    flip: bool
    exchange: tuple[int, ...]
    reason: str
    measured: Measured | None = None

    def to_dict(self) -> dict[str, Any]:
        """For settings and metrics: the pairs of classes that are exchanged instead of all classes."""
        pairs = [[one, other] for one, other in enumerate(self.exchange) if one < other]
        measured = (
            None if self.measured is None else asdict(self.measured) | {"lost": list(map(asdict, self.measured.lost))}
        )
        return {"asked": self.asked, "flip": self.flip, "pairs": pairs, "reason": self.reason, "measured": measured}


def decide(asked: Flip, names: Sequence[str], measure: Callable[[], Answers]) -> Decision:
    """Whether to mirror videos of the classes `names`; `measure` is called only if its answers are needed."""
    sides = sides_of(names)
    same = tuple(range(len(names)))
    if asked in ("on", "off"):
        doubt = f", though classes say a side or a turn: {sides}" if asked == "on" and sides.any else ""
        return Decision(asked=asked, flip=asked == "on", exchange=same, reason=f"flips: {asked}, as asked{doubt}")
    if asked == "auto" and sides.any:
        return Decision(asked=asked, flip=False, exchange=same, reason=f"flips: off; {_by_names(sides)}")
    if asked == "swap" and (sides.unpaired or not sides.pairs):
        return Decision(asked=asked, flip=False, exchange=same, reason=f"flips: off; {_without_pair(sides)}")
    exchange = sides.exchange if asked == "swap" else np.arange(len(names))
    answers = measure()
    if not len(answers.targets):
        reason = "flips: off; no held-out video could be read again to measure them"
        return Decision(asked=asked, flip=False, exchange=same, reason=reason)
    measured = compare(*answers, exchange)
    flip = measured.safe
    kept = tuple(exchange.tolist()) if flip else same
    how = f"on, with {plural(len(sides.pairs), 'pair')} of labels exchanged" if asked == "swap" else "on"
    reason = f"flips: {how if flip else 'off'}; {_by_measurement(measured, names)}"
    return Decision(asked=asked, flip=flip, exchange=kept, reason=reason, measured=measured)


def _by_names(sides: Sides) -> str:
    return f"names of classes say a side or a turn: {sides}"


def _without_pair(sides: Sides) -> str:
    if not sides.pairs:
        return "no two names of classes differ only by a side or a turn, so there are no labels to exchange"
    names = [repr(sides.names[number]) for number in sides.unpaired]
    return f"no class is the mirror image of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _by_measurement(measured: Measured, names: Sequence[str]) -> str:
    if not measured.can_tell:
        return (
            f"the probe is no better than chance on {plural(measured.videos, 'held-out video')} "
            f"({measured.balanced:.1%} of a class right, {measured.chance:.1%} by chance), so it cannot tell whether "
            "mirrored videos keep their label"
        )
    shares = (
        f"of {plural(measured.videos, 'held-out video')}, the probe has {measured.upright:.1%} right, and mirrored "
        f"{measured.mirrored:.1%}"
    )
    if measured.lost:
        worst = measured.lost[0]
        more = f" (and {len(measured.lost) - 1:,} more)" if len(measured.lost) > 1 else ""
        return (
            f"{shares}; {names[worst.number]!r}{more} falls from {worst.upright:.0%} to {worst.mirrored:.0%} of its "
            f"{plural(worst.videos, 'video')}"
        )
    points = f"{100 * measured.error:.1f}"
    if not measured.safe:
        return f"{shares}, a loss of more than {_ERRORS:g} standard errors of {points} points"
    return f"{shares} (standard error {points} points), and no class loses more than {100 * _POINTS:g} points"


def compare(
    upright: NDArray[np.float32],
    mirrored: NDArray[np.float32],
    targets: NDArray[np.int64] | NDArray[np.bool_],
    exchange: NDArray[np.int64],
) -> Measured:
    """How right the answers are; arrays as in `Answers`. `exchange` int64 (K,): the class that the mirror image of each
    class shows.

    A class is lost if mirroring costs it more than 10 points and more than two standard errors of the difference.
    """
    classes = upright.shape[1]
    members = memberships(targets, classes)
    # As the class of the upright video: the answer to its mirror image must be the class that this one shows.
    hits = [_hits(upright, members), _hits(mirrored[:, exchange], members)]
    labels = members.sum(axis=1)
    rows = np.flatnonzero(labels)
    shares = [hit[rows].sum(axis=1) / labels[rows] for hit in hits]
    recalls, errors, guesses, lost = [], [], [], []
    for number in np.flatnonzero(members.any(axis=0)).tolist():
        own = members[:, number]
        before, after = (hit[own, number].astype(np.float64) for hit in hits)
        loss = float(before.mean() - after.mean())
        # A tolerance for the rounding of differences such as 0.9 - 0.8.
        if loss > _POINTS + 1e-9 and loss > _ERRORS * _error(before - after):
            lost.append(
                ClassLoss(number=number, videos=len(before), upright=float(before.mean()), mirrored=float(after.mean()))
            )
        recalls.append(before.mean())
        errors.append(_error(before))
        guesses.append(labels[own].mean() / classes)
    return Measured(
        videos=len(rows),
        upright=float(shares[0].mean()),
        mirrored=float(shares[1].mean()),
        error=_error(shares[0] - shares[1]),
        balanced=float(np.mean(recalls)),
        balanced_error=float(np.sqrt(np.sum(np.square(errors))) / len(errors)),
        chance=float(np.mean(guesses)),
        lost=tuple(sorted(lost, key=lambda each: each.mirrored - each.upright)),
    )


def _hits(logits: NDArray[np.float32], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which labels (N, K) of each video are among its R likeliest classes, R the number of its labels."""
    order = np.argsort(-logits, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    found: NDArray[np.bool_] = members & (ranks < members.sum(axis=1, keepdims=True))
    return found


def _error(values: NDArray[np.float64]) -> float:
    """The standard error of the mean; 0 for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def answers_of(videos: Videos, division: Division, probe: Probe, mirrored: Sequence[Features | Failure]) -> Answers:
    """The answers of the probe to the measured videos; `mirrored` are the features of their mirror images, in order.

    Each is answered by a head that was not fitted to it. Videos that could not be read again are left out.
    """
    kept = np.array([isinstance(each, Features) for each in mirrored], np.bool_)
    rows = [each.mean for each in mirrored if isinstance(each, Features)]
    means = np.reshape(rows, (len(rows), probe.head.weight.shape[1]))
    if division.how == "crossed":
        folds = division.folds[kept]
        logits = np.empty((len(means), len(videos.names)), np.float32)
        for fold, head in enumerate(probe.choice.heads):
            logits[folds == fold] = head.logits(means[folds == fold])
    else:
        logits = probe.head.logits(means)
    return Answers(probe.logits[kept], logits, videos.targets[division.measured[kept]])
