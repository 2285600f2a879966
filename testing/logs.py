"""Logs of training runs that never were."""

from collections.abc import Mapping

import numpy as np

from timesformer_cli.jobs.finetune.log import Log
from timesformer_cli.jobs.finetune.loop import Validation


def log_of(steps: int, *, every: int, losses: Mapping[int, float] | None = None, quality: str = "accuracy") -> Log:
    """A run in epochs of `every` steps, whose losses are 0.7, 0.4 and then 0.1, but for the `losses` of some steps.

    Each epoch ends with a validation: losses of 0.6, 0.5, 0.4 and so on, and a `quality` of 0.3, 0.6 and then 0.9.
    """
    step = np.arange(1, steps + 1)
    epoch = -(-step // every)
    loss = np.maximum(1 - 0.3 * epoch, 0.1)
    for number, value in (losses or {}).items():
        loss[number - 1] = value
    validations = [
        Validation(
            epoch=number,
            step=number * every,
            score=0.0,
            seconds=1.0,
            figures={quality: min(0.3 * number, 0.9), "loss": abs(0.7 - 0.1 * number)},
        )
        for number in range(1, steps // every + 1)
    ]
    return Log(
        step=step,
        epoch=epoch,
        loss=loss,
        rate=np.full(steps, 6e-5),
        gradient=np.ones(steps),
        seconds=np.ones(steps),
        memory=np.full(steps, np.nan),
        applied=np.isfinite(loss).astype(np.int8),
        validations=tuple(validations),
    )
