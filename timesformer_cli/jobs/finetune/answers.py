"""What a network in training says of the videos that measure it, by the code that `evaluate` measures models with."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.flow import Failure, Prediction, Result
from timesformer_cli.pipeline.aggregate import activated
from timesformer_cli.specs import Recipe


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answers:
    """The scores of M videos, of those that could be read.

    `places` int64 (M,) are their numbers among the measured videos. `logits` and, if the recipe averages them,
    `probabilities` are float32 (M, K), as `evaluation.run.Run` has them. `failures` are the other videos.
    """

    places: NDArray[np.int64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    failures: tuple[Failure, ...] = ()

    @property
    def scores(self) -> dict[str, NDArray[np.float32]]:
        """As `evaluation.run.Run` has them."""
        return {"logits": self.logits} | ({} if self.probabilities is None else {"probabilities": self.probabilities})


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """How good answers are: the share that is right, and the mean of -ln(probability of the label).

    With several labels for each video, `accuracy` is the mean average precision, and `loss` the mean over the classes'
    own. `score` orders models, higher is better: by `accuracy`, and if that is equal, by `loss`.
    """

    accuracy: float
    loss: float
    score: float

    def told(self, *, multi_label: bool) -> str:
        """For a line on a terminal."""
        return f"{'mean average precision' if multi_label else 'accuracy'} {self.accuracy:.1%}, loss {self.loss:.3f}"

    def figures(self, *, multi_label: bool) -> dict[str, float]:
        """For the log and `metrics.json`."""
        return {"mean_average_precision" if multi_label else "accuracy": self.accuracy, "loss": self.loss}


# The mean logits and the scores of a video, float32 (K,) each, or why it has none.
Answer = tuple[NDArray[np.float32], NDArray[np.float32]] | Failure


def each_of(results: Iterable[Result]) -> Iterator[Answer]:
    """The answers of the results for whole videos."""
    for result in results:
        if isinstance(result, Prediction):
            yield result.segments[0].logits, result.segments[0].scores
        else:
            yield result


def gathered(found: Sequence[Answer], classes: int, recipe: Recipe) -> Answers:
    """The answers for all measured videos, in order."""
    places = [place for place, answer in enumerate(found) if not isinstance(answer, Failure)]
    logits, scores = (
        np.reshape([answer[kind] for answer in found if not isinstance(answer, Failure)], (len(places), classes))
        for kind in (0, 1)
    )
    averaged = recipe.combine == "probabilities" and not recipe.raw
    return Answers(
        places=np.array(places, np.int64),
        logits=logits.astype(np.float32),
        probabilities=scores.astype(np.float32) if averaged else None,
        failures=tuple(answer for answer in found if isinstance(answer, Failure)),
    )


def worth(answers: Answers, targets: NDArray[np.int64] | NDArray[np.bool_]) -> Worth:
    """How good the answers are; `targets` int64 (N,) or, with several labels, bool (N, K), are those of all measured
    videos. Videos that could not be read count as wrong.
    """
    own = targets[answers.places]
    kind, scores = list(answers.scores.items())[-1]
    if targets.ndim == 2:
        there = own.astype(np.bool_)
        precisions = metrics.average_precision(scores, there)
        found = metrics.measure_multi_label(precisions, videos=len(own)).mean_average_precision or 0.0
        chances = activated(answers.logits.astype(np.float64), "sigmoid")
        chances = np.clip(np.where(there, chances, 1 - chances), np.finfo(np.float32).tiny, 1)
        loss = float(-np.log(chances).mean()) if len(own) else np.inf
        return Worth(accuracy=found, loss=loss, score=found)
    outcomes = metrics.outcomes(scores, own.astype(np.int64), "probabilities" if kind == "probabilities" else "logits")
    right = int((outcomes.ranks == 0).sum())
    loss = float(outcomes.losses.mean()) if len(own) else np.inf
    # exp(-loss) is between 0 and 1: less than one more right answer.
    return Worth(
        accuracy=right / max(len(own), 1), loss=loss, score=(right + float(np.exp(-loss))) / max(len(targets), 1)
    )
