"""All that is known of a training run once its head is fitted."""

from dataclasses import dataclass

from timesformer_cli.datasets import Dataset
from timesformer_cli.jobs.finetune.data import Asked, Data, Videos
from timesformer_cli.jobs.finetune.division import Division
from timesformer_cli.jobs.finetune.findings import Findings
from timesformer_cli.jobs.finetune.probe import Probe
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.settings import Provenance
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import named

# A kind, a place and a message.
ProblemRow = tuple[str, str, str]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Training:
    """A run up to its head: what it began with, and what was found.

    `base` is the model that it started from, and `provenance` what the features depend on. `balance`: whether every
    class weighs the same.
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
            (failure.kind, named(failure.item.path, *failure.item.part), failure.message)
            for failure in self.videos.failures
        ]
