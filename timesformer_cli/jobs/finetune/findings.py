"""What the videos for training tell besides a model: whether more would help, and which labels to look at."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation.neighbours import MOST, Contradiction, contradictions
from timesformer_cli.jobs.finetune.checks import labels_to_look_at
from timesformer_cli.jobs.finetune.data import Videos
from timesformer_cli.jobs.finetune.division import Division
from timesformer_cli.jobs.finetune.learning_curve import learning_curve
from timesformer_cli.jobs.finetune.probe import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What the same way of training reaches with fewer videos.

    `videos` is the mean number of videos for training per class, above 0. `value` is the mean accuracy, or mean average
    precision, of heads that did not see the videos they were measured on; `low` and `high` are those of the worst and
    the best draw of videos. All are shares from 0 to 1.
    """

    videos: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A video whose label may be wrong: `place` is its number among `Videos.samples`.

    `probability` is that of its own `label`, and `likelier_probability` that of the class `likelier`, by a head that
    was fitted without the group of the video. Of several labels, `label` is the one with the lowest probability.
    """

    place: int
    label: int
    probability: float
    likelier: int
    likelier_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A strength of regularisation: the higher `c`, the weaker. `loss` is the mean over videos in cross-validation."""

    c: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """`curve`: from the fewest videos to the most; empty if there are too few for one. `advice`: sentences on it.

    `suspects`: the most suspicious first. `contradictions`: videos whose neighbours have another label; their numbers
    are those of `Videos.samples`. `candidates`: those that were compared, by `c`.
    """

    curve: tuple[CurvePoint, ...] = ()
    advice: str = ""
    suspects: tuple[Suspect, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    candidates: tuple[Candidate, ...] = ()


def find(videos: Videos, division: Division, probe: Probe, *, seed: int) -> Findings:
    """What the held-out scores tell: of the videos for training, those of cross-validation; of others, the measured."""
    groups = division.groups[division.train]
    curve = learning_curve(probe.examples, division.folds, groups, probe.choice, seed=seed)
    places, logits = division.train, probe.choice.logits
    if division.how != "crossed":
        places, logits = np.concatenate([places, division.measured]), np.concatenate([logits, probe.logits])
    suspects = labels_to_look_at(logits, videos.targets[places])
    return Findings(
        curve=tuple(
            CurvePoint(videos=point.videos_per_class, value=point.score, low=point.low, high=point.high)
            for point in curve.points
        )
        if curve
        else (),
        advice=" ".join([*([curve.sentence] if curve else []), *probe.choice.notes]),
        suspects=tuple(
            Suspect(
                place=int(places[each.video]),
                label=each.label,
                probability=each.own,
                likelier=each.likelier,
                likelier_probability=each.score,
            )
            for each in suspects
        ),
        contradictions=_contradictions(videos, division, places),
        candidates=tuple(Candidate(c=tried.c, loss=tried.log_loss) for tried in probe.choice.table),
    )


def _contradictions(videos: Videos, division: Division, places: NDArray[np.int64]) -> tuple[Contradiction, ...]:
    """Those among the videos at these places, with their numbers among all; none if videos have several labels."""
    if videos.multi_label or len(places) > MOST:
        return ()
    vectors = np.stack([videos.features[place].mean for place in places.tolist()]).astype(np.float32)
    found = contradictions(vectors, videos.targets[places].astype(np.int64), division.groups[places])
    return tuple(replace(each, video=int(places[each.video]), nearest=int(places[each.nearest])) for each in found)
