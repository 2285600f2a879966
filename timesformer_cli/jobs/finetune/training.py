"""All that is known of a training run once its model is trained."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.datasets import Dataset
from timesformer_cli.flow import Failure
from timesformer_cli.jobs.finetune.answers import Answers, Worth
from timesformer_cli.jobs.finetune.data import Asked, Data, Videos
from timesformer_cli.jobs.finetune.division import Division
from timesformer_cli.jobs.finetune.findings import Findings
from timesformer_cli.jobs.finetune.flips import Decision
from timesformer_cli.jobs.finetune.model_folder import network_of
from timesformer_cli.jobs.finetune.probe import Probe
from timesformer_cli.jobs.finetune.stored import Stored
from timesformer_cli.jobs.finetune.train import Tuned
from timesformer_cli.jobs.finetune.tuning import Tuning
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.settings import Provenance
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import named, plural

# A kind, a place and a message.
ProblemRow = tuple[str, str, str]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NetworkTraining:
    """The training of the network: its settings, whether it mirrored videos, its result, and what the probe is worth.

    `probe` is the worth of a probe that was fitted to the same videos, on the same measured ones.
    """

    tuning: Tuning
    flips: Decision
    tuned: Tuned
    probe: Worth

    @property
    def won(self) -> bool:
        """Whether its result is better than the probe."""
        return self.tuned.worth.score > self.probe.score


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Training:
    """A run up to its model: what it began with, and what was found.

    `base` is the model that it started from, and `provenance` what the features depend on. `balance`: whether every
    class weighs the same. `network` is None if only a head was trained, and `stored` unless the features are those of a
    file of vectors.
    """

    base: Checkpoint
    provenance: Provenance
    run: RunOptions
    asked: Asked
    data: Data
    videos: Videos
    division: Division
    probe: Probe
    balance: bool
    findings: Findings
    network: NetworkTraining | None = None
    stored: Stored | None = None

    @property
    def precision(self) -> str:
        """That in which the network computed what the new model was measured by."""
        return self.provenance.precision or "fp32"

    @property
    def tuned(self) -> Tuned | None:
        """The trained network, if it is the new model; otherwise, that is the probe."""
        return self.network.tuned if self.network is not None and self.network.won else None

    @property
    def method(self) -> str:
        """How the new model was trained, as a part of a sentence."""
        if self.tuned is None:
            return "a new head, by logistic regression on the class tokens of the network, which stays as it was"
        assert self.network is not None
        tuning, epochs = self.network.tuning, -(-self.tuned.progress.best_step // self.tuned.steps)
        what = {
            "last": f"the last {plural(tuning.last_layers, 'layer')} of the network and its head",
            "lora": f"the head of the network, and a change of rank {tuning.change_rank} of the attentions' weights",
            "full": "the whole network",
        }[tuning.method]
        return f"{what}, by AdamW for {plural(epochs, 'epoch')}, starting with a head from logistic regression"

    def probed(self, tell: Callable[[str], None]) -> TimesformerForVideoClassification:
        """The network with the head of the probe. Raises CheckpointError."""
        names, multi_label = self.videos.names, self.videos.multi_label
        return network_of(self.base, names, self.probe.head, multi_label=multi_label, tell=tell)

    def known_logits(self, most: int) -> dict[int, NDArray[np.float32]]:
        """The mean logits (K,) of the new model for some videos, `most` at most, by their numbers.

        They are videos that can be read, as far as that is known.
        """
        places = np.arange(len(self.videos.samples)) if self.tuned is None else self.measured
        if self.stored is not None:
            samples = self.videos.samples
            places = np.array([place for place in places if self.stored.can_read(samples[place])], np.int64)
        chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).astype(np.int64))
        if self.tuned is None:
            rows = [self.videos.features[place].rows for place in places[chosen].tolist()]
            logits = [self.probe.head.logits(each).mean(axis=0) for each in rows]
        else:
            logits = list(self.answers.logits[chosen])
        return dict(zip(places[chosen].tolist(), logits, strict=True))

    @property
    def answers(self) -> Answers:
        """What the new model says of the measured videos; `places` are numbers among `division.measured`."""
        if self.tuned is not None:
            return self.tuned.answers
        return self.probe.answers

    @property
    def measured(self) -> NDArray[np.int64]:
        """The numbers of the videos that have `answers`, int64 (M,)."""
        return self.division.measured[self.answers.places]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The videos that could not be read, at first or later."""
        later = () if self.network is None else (*self.network.tuned.failures, *self.network.tuned.answers.failures)
        found = {failure.item.key: failure for failure in (*later, *self.videos.failures)}
        return tuple(found.values())

    @property
    def measured_set(self) -> Dataset:
        """The dataset that the measured videos are from."""
        return self.data.val if self.division.how == "given" and self.data.val else self.data.train

    @property
    def problem_rows(self) -> list[ProblemRow]:
        """What is wrong with the data."""
        return [(problem.kind, problem.place, problem.message) for problem in self.data.problems]

    @property
    def failure_rows(self) -> list[ProblemRow]:
        """The videos that could not be read."""
        return [
            (failure.kind, named(failure.item.path, *failure.item.part), failure.message) for failure in self.failures
        ]
