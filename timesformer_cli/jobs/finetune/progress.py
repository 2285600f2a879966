"""How far a training run is, when it validates, and when it ends: rules without a network.

Steps, which are updates of the weights, count from the start of the run; a checkpoint is `step` if so many are done.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from timesformer_cli.shapes import count, flag, number, of, or_none, record
from timesformer_cli.text import duration, plural

# Why a run ended.
Reason = Literal["epochs", "patience", "max_time"]

# Without a wanted number of epochs, there are so many, and more if these are fewer updates.
EPOCHS, _UPDATES = 15, 200


def epochs_for(wanted: int | None, steps: int) -> int:
    """The number of epochs of `steps` updates each: `wanted`, or 15, or as many as 200 updates take."""
    return max(EPOCHS, math.ceil(_UPDATES / steps)) if wanted is None else wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, and what has to be known to go on as if it had never stopped.

    `best` is the best score of a validation, after `best_step` steps; None before the first one. `waited` validations
    since then were no better; the last of all was after `validated` steps. `skipped` steps in a row were not applied.
    `seconds` were spent, over all sittings. The step works on `micro_batch` samples at a time, with or without gradient
    checkpointing.
    """

    micro_batch: int
    checkpointing: bool = False
    best: float | None = None
    step: int = 0
    validated: int = 0
    best_step: int = 0
    waited: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Raises ValueError for anything that `to_dict` does not write."""
        _PROGRESS(values)
        progress = cls(**values)
        if not progress.best_step <= progress.validated <= progress.step:
            raise ValueError(f"best_step {progress.best_step}, validated {progress.validated}, step {progress.step}")
        return progress

    def scored(self, score: float) -> Self:
        """After a validation, in which higher scores are better. Equal ones are no reason to change the model."""
        if self.best is None or score > self.best:
            return replace(self, validated=self.step, best=score, best_step=self.step, waited=0)
        return replace(self, validated=self.step, waited=self.waited + 1)


_PROGRESS = record(
    best=or_none(number),
    micro_batch=of(int, "a whole number from 1", lambda value: 0 < value < 2**31),
    checkpointing=flag,
    step=count,
    validated=count,
    best_step=count,
    waited=count,
    skipped=count,
    seconds=number,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a run ends: after `epochs` of `steps` updates each, or before; it validates after every `every` epochs.

    `patience`: it ends after so many validations in a row that were no better, None: never. `max_seconds`: it ends
    once so much time was spent on it, over all sittings, and validates what it has then.
    """

    epochs: int
    steps: int
    patience: int | None = None
    max_seconds: float | None = None
    every: int = 1

    @property
    def all_steps(self) -> int:
        return self.epochs * self.steps

    def must_validate(self, progress: Progress) -> bool:
        """Whether the weights are to be validated now: at the end of epochs, and when all is done or time is over."""
        due = progress.step % (self.steps * self.every) == 0 or progress.step >= self.all_steps
        return progress.step > progress.validated and (due or self._is_over(progress))

    def ended(self, progress: Progress) -> Reason | None:
        """Why the run ends here, if it does; ask after the validation that is due."""
        if progress.step >= self.all_steps:
            return "epochs"
        if self.patience is not None and progress.waited >= self.patience:
            return "patience"
        return "max_time" if self._is_over(progress) else None

    def _is_over(self, progress: Progress) -> bool:
        return self.max_seconds is not None and progress.seconds >= self.max_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What training takes: `seconds` for all `steps` without validation, and the peak of `memory` in bytes.

    Both are None if they were not measured. It works on `micro_batch` videos at a time.
    """

    parameters: int
    epochs: int
    steps: int
    seconds: float | None
    memory: int | None
    micro_batch: int
    checkpointing: bool

    def __str__(self) -> str:
        time = "" if self.seconds is None else f", about {duration(self.seconds)} without validation"
        peak = "" if self.memory is None else f", {self.memory / 1e9:.1f} GB"
        saved = ", with gradient checkpointing" if self.checkpointing else ""
        return (
            f"training: {plural(self.parameters, 'parameter')}, {plural(self.epochs, 'epoch')} of "
            f"{plural(self.steps // self.epochs, 'step')}{time}{peak}; {plural(self.micro_batch, 'video')} at a time"
            f"{saved}"
        )


def is_kept(line: Mapping[str, Any], progress: Progress) -> bool:
    """Whether a line of the log tells of what was done up to `progress`: of a step, or of a validation."""
    done = progress.validated if "validation" in line else progress.step
    return bool(line["step"] <= done)
