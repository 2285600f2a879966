"""The probe: a new head on the features of the videos, and its scores on the videos that measure it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.datasets.matching import Classes
from timesformer_cli.jobs.finetune.answers import Answers
from timesformer_cli.jobs.finetune.data import Videos
from timesformer_cli.jobs.finetune.division import Division
from timesformer_cli.jobs.finetune.head import Head
from timesformer_cli.jobs.finetune.validation import CANDIDATES, Choice, Examples, choose
from timesformer_cli.jobs.reporter import Reporter
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.specs import Checkpoint, Recipe


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Probe:
    """A head, and how it was chosen.

    `logits` and, if the recipe averages them, `probabilities` float32 (M, K) are those of the measured videos, each by
    a head that was not fitted to it. `examples` are the videos for training, and `choice` is made among these.
    """

    head: Head
    examples: Examples
    choice: Choice
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None

    @property
    def answers(self) -> Answers:
        """What it says of the measured videos."""
        return Answers(places=np.arange(len(self.logits)), logits=self.logits, probabilities=self.probabilities)


def fit_probe(
    videos: Videos, division: Division, base: Checkpoint, recipe: Recipe, *, balance: bool, report: Reporter
) -> Probe:
    """Fit a head to the videos for training; `recipe` is that of the new model.

    Raises:
        InputError: features that are not finite numbers.
    """
    features, owner = videos.views(division.train)
    examples = Examples(
        features=features,
        owner=owner,
        targets=videos.targets[division.train],
        classes=len(videos.names),
        balance=balance,
    )
    start = known_rows(base, videos.names)
    with report.progress(len(CANDIDATES) + 1, what="fits") as meter:

        def done() -> None:
            with meter.step(failed=False):
                pass

        choice = choose(examples, division.folds, start=start, done=done)
        head = examples.fit(choice.c, start=start)
        done()
    averaged = recipe.combine == "probabilities" and not recipe.raw
    probabilities = None
    if division.how == "crossed":
        logits = choice.logits
        if averaged:
            probabilities = np.empty_like(logits)
            for fold, held_in in enumerate(choice.heads):
                out = division.folds == fold
                probabilities[out] = _averaged(videos, division.train[out], held_in, recipe)
    else:
        # The head is linear, so it gives the mean logits.
        logits = head.logits(np.stack([videos.features[place].mean for place in division.measured.tolist()]))
        probabilities = _averaged(videos, division.measured, head, recipe) if averaged else None
    return Probe(head=head, examples=examples, choice=choice, logits=logits, probabilities=probabilities)


def _averaged(videos: Videos, places: NDArray[np.int64], head: Head, recipe: Recipe) -> NDArray[np.float32]:
    """The mean probabilities over the views of each video, float32 (M, K)."""
    rows = [head.logits(videos.features[place].rows) for place in places.tolist()]
    return np.stack([combine(logits, recipe.combine, recipe.activation) for logits in rows])


def known_rows(base: Checkpoint, names: tuple[str, ...]) -> Head | None:
    """The head of `base` for the classes `names`, with zeros for those it does not know; None if it knows none."""
    from timesformer_cli.network.model import TimesformerForVideoClassification

    known = Classes(base.labels)
    places = {number: index for number, name in enumerate(names) if (index := known.index(name)) is not None}
    if not places:
        return None
    classifier = TimesformerForVideoClassification.from_checkpoint(base).classifier
    weight = np.zeros((len(names), base.config.hidden_size), np.float32)
    bias = np.zeros(len(names), np.float32)
    weight[list(places)] = classifier.weight.detach().numpy()[list(places.values())]
    bias[list(places)] = classifier.bias.detach().numpy()[list(places.values())]
    return Head(weight, bias)
