"""A small training run whose every number is a function of the seed, the epoch and the sample."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from testing.networks import build, tiny
from timesformer_cli.jobs.finetune.loop import Loop, Validation
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.progress import Budget, Progress, Reason
from timesformer_cli.jobs.finetune.randomness import generator_of, order_of
from timesformer_cli.jobs.finetune.state import Store
from timesformer_cli.jobs.finetune.trainer import Batch, Step, Trainee, Trainer

CONFIG = tiny(num_hidden_layers=2, num_frames=2, image_size=16)
SEED = 5


def batch_of(epoch: int, numbers: list[int], *, multi_label: bool = False) -> Batch:
    """Noise that belongs to the samples, as an augmented video would."""
    keys = [f"{number}.mp4" for number in numbers]
    shape = (CONFIG.num_frames, CONFIG.num_channels, *CONFIG.image_hw)
    pixels = [generator_of(SEED, epoch, key, "pixels").standard_normal(shape, np.float32) for key in keys]
    classes = torch.tensor([number % CONFIG.num_labels for number in numbers])
    targets = torch.eye(CONFIG.num_labels)[classes] if multi_label else classes
    return Batch(torch.from_numpy(np.stack(pixels)), targets, keys)


def batches(epoch: int, skip: int, *, samples: int = 7, size: int = 3) -> Iterator[Batch]:
    order = order_of(SEED, epoch, samples).tolist()
    for start in range(skip * size, samples, size):
        yield batch_of(epoch, order[start : start + size])


def trainer_of(*, micro_batch: int = 2, steps: int = 9, rate: float = 1e-3, **settings: Any) -> Trainer:
    trainee = Trainee(build(CONFIG), drop_path=0.4)
    optimiser = optimiser_of(trainee.model, CONFIG.num_hidden_layers, rate)
    trainer = Trainer(trainee, optimiser, steps=steps, seed=SEED, micro_batch=micro_batch, **settings)
    trainee.train()
    return trainer


@dataclass
class Sitting:
    """One start of a run in `folder`, which ends by itself or by an `error` after step `stop`.

    `scores` are those of its validations, by step; without them, the later the better.
    """

    folder: Path
    budget: Budget = field(default_factory=lambda: Budget(epochs=3, steps=3))
    stop: int | None = None
    error: BaseException = field(default_factory=lambda: RuntimeError("killed"))
    scores: dict[int, float] = field(default_factory=dict)
    events: list[Step | Validation] = field(default_factory=list)

    def run(self, *, resume: bool = True) -> tuple[Reason, Progress]:
        self.trainer = trainer_of()
        model = self.trainer.trainee.model
        store = Store(self.folder, model, self.trainer.optimiser, resume=resume)
        try:
            progress = store.found or Progress(best=0.0, micro_batch=2)
            loop = Loop(
                self.trainer,
                self.budget,
                progress,
                batches=batches,
                validate=lambda: self._score(loop.progress.step),
                keeper=store,
                listen=self._listen,
            )
            return loop.run(), loop.progress
        finally:
            store.close()

    def _score(self, step: int) -> tuple[float, dict[str, float | None]]:
        model = self.trainer.trainee.model
        assert not model.training
        with torch.no_grad():
            loss = float(model(batch_of(0, [0, 1]).pixels).logits.square().mean())
        return self.scores.get(step, float(step)), {"loss": loss}

    def _listen(self, event: Step | Validation) -> None:
        self.events.append(event)
        if isinstance(event, Step) and event.step == self.stop:
            raise self.error
