"""The loop around the steps: epochs, validation, checkpoints, the log, and the end."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from timesformer_cli.errors import PeerError, Terminated, TrainingError
from timesformer_cli.jobs.finetune.progress import Budget, Progress, Reason
from timesformer_cli.jobs.finetune.trainer import Batch, Step, Trainer
from timesformer_cli.text import printable

# Seconds between two checkpoints, if no validation comes first.
_KEEP_EVERY = 600.0

# So many steps in a row whose loss or gradient is not finite end the run.
_MOST_SKIPPED = 3

# Batches of an epoch, from 1, without its first ones, whose number is given.
Batches = Callable[[int, int], Iterator[Batch]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What the weights are worth after `step` steps: by `score`, higher is better. `figures` are for the log."""

    epoch: int
    step: int
    score: float
    seconds: float
    figures: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """A line of the log."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "validation": {"score": self.score, **self.figures},
            "seconds": round(self.seconds, 4),
        }


class Keeper(Protocol):
    """Keeps the log and the checkpoints of a run: `state.Store`, or `KeepsNothing`."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log."""

    def keep(self, progress: Progress) -> None:
        """Keep the weights, the state of the optimiser and `progress`, and the log up to here."""


class KeepsNothing:
    """A `Keeper` for the processes of a run that are not the first."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def keep(self, progress: Progress) -> None:
        """Nothing."""


class Loop:
    """Trains from `progress` on; afterwards, `progress` is how far it came.

    `batches(epoch, skip)` gives the batches of an epoch but for the first `skip`; `validate` gives the score of the
    weights as they are, and figures for the log. `listen` gets each step and each validation.

    The processes of the trainer's `world` begin with the same `progress`, and have the same score. The clock of the
    first one counts, and a signal to one of them ends all after the same step.
    """

    def __init__(
        self,
        trainer: Trainer,
        budget: Budget,
        progress: Progress,
        *,
        batches: Batches,
        validate: Callable[[], tuple[float, Mapping[str, float | None]]],
        keeper: Keeper,
        listen: Callable[[Step | Validation], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = progress
        self._trainer = trainer
        self._world = trainer.world
        self._budget = budget
        self._batches = batches
        self._validate = validate
        self._keeper = keeper
        self._listen = listen
        self._clock = clock
        self._begin = clock() - progress.seconds
        self._kept = clock()
        trainer.micro_batch, trainer.checkpointing = progress.micro_batch, progress.checkpointing

    def run(self) -> Reason:
        """Train until the budget is used up; returns what ended it.

        An interruption keeps a checkpoint first, unless it came while weights were being changed; so does the failure
        of another process.

        Raises:
            PeerError: another process failed.
            TrainingError: three steps in a row could not be applied.
            DeviceError, OutputError: as `Trainer.step` and the keeper.
        """
        self._trainer.trainee.train()
        try:
            while True:
                if self._budget.must_validate(self.progress):
                    self._score()
                if reason := self._budget.ended(self.progress):
                    return reason
                with self._world.deferred():
                    self._epoch()
        except (KeyboardInterrupt, Terminated, PeerError):
            if not self._trainer.updating:
                self._keep()
            raise

    def _epoch(self) -> None:
        """The rest of an epoch, or as much as there is time for."""
        done, skip = divmod(self.progress.step, self._budget.steps)
        for batch in self._batches(done + 1, skip):
            step = self._trainer.step(batch, done + 1, self.progress.step + 1)
            self._keeper.write(step.to_dict())  # first: a checkpoint never knows of more than the log
            self.progress = replace(
                self.progress,
                step=step.step,
                skipped=self.progress.skipped + 1 if step.suspects else 0,
                seconds=self._clock() - self._begin,
                micro_batch=self._trainer.micro_batch,
                checkpointing=self._trainer.checkpointing,
            )
            self._trainer.updating = False
            self._agree()
            self._listen(step)
            if self.progress.skipped == _MOST_SKIPPED:
                raise _not_finite(step, self._trainer.peak_rate)
            if self._budget.must_validate(self.progress):
                return
            if self._clock() - self._kept >= _KEEP_EVERY:
                self._keep()
        if self.progress.step < (done + 1) * self._budget.steps:
            raise ValueError(
                f"epoch {done + 1} has {self.progress.step % self._budget.steps} of {self._budget.steps} steps"
            )

    def _score(self) -> None:
        begin = self._clock()
        self._trainer.trainee.eval()
        score, figures = self._validate()
        self._trainer.trainee.train()
        validation = Validation(
            epoch=-(-self.progress.step // self._budget.steps),
            step=self.progress.step,
            score=score,
            seconds=self._clock() - begin,
            figures=figures,
        )
        self._keeper.write(validation.to_dict())
        self.progress = replace(self.progress.scored(score), seconds=self._clock() - self._begin)
        self._agree()
        self._keep()
        self._listen(validation)

    def _agree(self) -> None:
        """The time that all processes go by is that of the first one. Raises what a signal to one stands for."""
        self.progress = replace(self.progress, seconds=self._world.meet(self.progress.seconds)[0])

    def _keep(self) -> None:
        self._keeper.keep(self.progress)
        self._kept = self._clock()


def _not_finite(step: Step, rate: float) -> TrainingError:
    shown = ", ".join(printable(key) for key in step.suspects[:3])
    more = f" and {len(step.suspects) - 3:,} more" if len(step.suspects) > 3 else ""
    return TrainingError(
        f"step {step.step:,}: the loss or its gradient was not finite in {_MOST_SKIPPED} steps in a row, the last with "
        f"{shown}{more}; the last checkpoint is kept; try a learning rate of {rate / 10:.1g}, a tenth, or leave "
        "these videos out"
    )
