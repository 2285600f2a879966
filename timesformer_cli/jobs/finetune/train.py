"""Train the network behind the head of the probe: `last`, `lora` and `full`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer_cli.checkpoints.weights import read_state_dict
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.finetune import batches as reading
from timesformer_cli.jobs.finetune import lowrank, memory
from timesformer_cli.jobs.finetune.answers import Answers, Worth, each_of, gathered, worth
from timesformer_cli.jobs.finetune.flips import Decision
from timesformer_cli.jobs.finetune.frozen import freeze
from timesformer_cli.jobs.finetune.head import Head, balanced, memberships
from timesformer_cli.jobs.finetune.loop import Keeper, KeepsNothing, Loop, Validation
from timesformer_cli.jobs.finetune.model_folder import described, network_of
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.parallel import ALONE, World
from timesformer_cli.jobs.finetune.progress import Progress, Reason
from timesformer_cli.jobs.finetune.state import Store
from timesformer_cli.jobs.finetune.trainer import Batch, Step, Trainee, Trainer
from timesformer_cli.jobs.finetune.tuning import Tuning
from timesformer_cli.jobs.reporter import Meter, Reporter, in_words
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import label
from timesformer_cli.runtimes import pytorch
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import duration, named, plural

Targets = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Start:
    """What training begins with.

    `base` is the checkpoint of the network, and `head` that of the probe for the classes `names`. `training` are the N
    videos to train on and `measured` the M to measure on, with their `targets` and `measured_targets`: int64, class
    numbers, or, with several labels each, bool (., K). `flips` says whether views are mirrored. With `balance`, every
    class weighs the same. `seed` is that of all that is random.
    """

    base: Checkpoint
    names: tuple[str, ...]
    head: Head
    training: Sequence[Item]
    targets: Targets
    measured: Sequence[Item]
    measured_targets: Targets
    flips: Decision
    balance: bool
    seed: int

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    def network(self, tell: Callable[[str], None]) -> TimesformerForVideoClassification:
        """The network with the head of the probe. Raises CheckpointError."""
        return network_of(self.base, self.names, self.head, multi_label=self.multi_label, tell=tell)

    @property
    def checkpoint(self) -> Checkpoint:
        """The new model, but for its weights."""
        config, recipe = described(self.base, self.names, multi_label=self.multi_label)
        return replace(self.base, config=config, recipe=recipe, labels=self.names)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tuned:
    """A network after its training: the best one of all validations, on the CPU, an ordinary one again.

    `answers` are what it says of the measured videos, and `worth` how good these are. `progress` is how far training
    came, `reason` why it ended, and `steps` the number of steps of an epoch. `rate` is the peak of the learning rate.
    `failures` are the videos that could not be read in training.
    """

    network: TimesformerForVideoClassification
    answers: Answers
    worth: Worth
    progress: Progress
    reason: Reason
    steps: int
    rate: float
    failures: tuple[Failure, ...]


def train(
    start: Start, tuning: Tuning, run: RunOptions, folder: Path, report: Reporter, *, resume: bool, world: World = ALONE
) -> Tuned:
    """Train the network; `folder` keeps the log and the checkpoints, from which `resume` goes on.

    All processes of `world` call it; only the first one writes.

    Raises:
        TrainingError: steps that cannot be applied, three in a row.
        DeviceError: the device is missing, or lacks the memory for one video at a time.
        PeerError: another process failed.
        CheckpointError, OutputError: weights that cannot be read, or a folder that cannot be written.
    """
    stage = _Stage(start, tuning, run, report, world)
    network, optimiser = stage.network, stage.trainer.optimiser
    with ExitStack() as stack:
        store = None
        if world.is_first:
            store = stack.enter_context(closing(Store(folder, network, optimiser, resume=resume)))
        found = world.of_first(store.found if store else None)
        if found is not None:
            world.spread(network, optimiser)
        reason, progress = stage.run(found, store or KeepsNothing())
        if store and store.best:
            network.load_state_dict(read_state_dict(store.best))
    answers = stage.answers
    if answers is None:  # the best validation was in an earlier sitting
        world.spread(network, optimiser)
        answers = stage.validated()
    failures = {failure.item.key: failure for part in world.exchange(list(stage.failures.values())) for failure in part}
    return Tuned(
        network=lowrank.merged(network.cpu()),
        answers=answers,
        worth=worth(answers, start.measured_targets),
        progress=progress,
        reason=reason,
        steps=stage.schedule.steps_per_epoch,
        rate=stage.trainer.peak_rate,
        failures=tuple(failures.values()),
    )


class _Stage:
    """A network on its way; `answers` are those of its best validation in this sitting, if there was one."""

    def __init__(self, start: Start, tuning: Tuning, run: RunOptions, report: Reporter, world: World) -> None:
        self.answers: Answers | None = None
        self.failures: dict[str, Failure] = {}
        self._meter = Meter(None)
        self._start, self._tuning, self._run, self._report, self._world = start, tuning, run, report, world
        self._checkpoint = start.checkpoint
        self.schedule = reading.Schedule(videos=len(start.training), batch_size=tuning.batch_size, seed=start.seed)
        self._budget = tuning.budget(self.schedule.steps_per_epoch)
        self.network = start.network(report.note).to(find_device(run.device))
        bf16 = pytorch.choose_precision(run.precision, run.device) == "bf16"
        self.trainer = _trainer(self.network, start, tuning, self._budget.all_steps, bf16=bf16, world=world)
        each = run.batch_size or -(-tuning.batch_size // world.size)
        self.trainer.micro_batch = each if run.batch_size else 1 << (each.bit_length() - 1)
        members = memberships(start.targets, len(start.names))
        self._weights = balanced(members, multi_label=False)[:, 0] if start.balance else None

    def run(self, found: Progress | None, keeper: Keeper) -> tuple[Reason, Progress]:
        """Train to the end, from `found` on if it is not None."""
        first = 0 if found is None else found.step
        with reading.read_batches(
            self._start.training,
            self._checkpoint.recipe,
            self._tuning.augmentation(flip=self._start.flips.flip),
            self.schedule,
            self._run,
            steps=range(first, self._budget.all_steps),
            share=reading.Share(self._world.rank, self._world.size),
        ) as read:
            stream: Iterator[Batch] = map(self._batch, read)
            if found is None:
                batch = next(stream)
                self._fit(batch)
                stream = chain([batch], stream)  # it was only looked at
            progress = found or Progress(micro_batch=self.trainer.micro_batch, checkpointing=self.trainer.checkpointing)
            with self._report.progress(self._budget.all_steps - first, long=True, what="steps") as self._meter:
                loop = Loop(
                    self.trainer,
                    self._budget,
                    progress,
                    batches=lambda _, skip: islice(stream, self._budget.steps - skip),
                    validate=lambda: self._validate(loop.progress),
                    keeper=keeper,
                    listen=lambda event: self._show(event, loop.progress),
                )
                reason = loop.run()
        return reason, loop.progress

    def validated(self) -> Answers:
        """What the network says of the measured videos as it is now, by the code of `evaluate`."""
        self.network.eval()
        scorer = pytorch.scorer_of(
            partial(lowrank.merged, self.network), device=self._run.device, precision=self._run.precision
        )
        checkpoint, count = self._checkpoint, len(self._start.measured)
        items = [self._start.measured[number] for number in self._world.share(count)]
        with score_all(items, checkpoint, self._run, tell=self._report.note, opened=lambda: scorer) as scored:
            own = list(each_of(label(scored, checkpoint)))
        answers = gathered(self._world.gathered(own, count), len(self._start.names), checkpoint.recipe)
        for failure in answers.failures:
            self._tell(failure)
        return answers

    def _validate(self, progress: Progress) -> tuple[float, Mapping[str, float | None]]:
        answers = self.validated()
        found = worth(answers, self._start.measured_targets)
        if progress.best is None or found.score > progress.best:
            self.answers = answers
        figures = found.figures(multi_label=self._start.multi_label)
        return found.score, {name: value if math.isfinite(value) else None for name, value in figures.items()}

    def _fit(self, batch: Batch) -> None:
        """Find out how many videos fit into memory at a time, unless that was asked for, and say it."""
        count = sum(parameter.numel() for group in self.trainer.optimiser.param_groups for parameter in group["params"])
        steps = self._budget.all_steps
        told = f"training: {plural(count, 'parameter')}, {self._budget.epochs} epochs of {self._budget.steps} steps"
        if self._run.batch_size is None:
            measured = memory.fit(self.trainer, batch)
            peak = "" if measured.memory is None else f", {measured.memory / 1e9:.1f} GB"
            told += f", about {duration(measured.seconds * steps)} and validation{peak}"
        told += f"; {plural(self.trainer.micro_batch, 'video')} at a time"
        told += ", with gradient checkpointing" if self.trainer.checkpointing else ""
        self._report.note(told)

    def _batch(self, read: reading.Batch) -> Batch:
        """A batch of views as the trainer takes it."""
        start, places = self._start, read.places
        for failure in read.failures:
            self._tell(failure)
        own, exchange = start.targets[places], np.array(start.flips.exchange)
        weights = None
        if start.multi_label:
            targets = torch.from_numpy(np.where(read.mirrored[:, None], own[:, exchange], own).astype(np.float32))
        else:
            targets = torch.from_numpy(np.where(read.mirrored, exchange[own], own).astype(np.int64))
        if self._weights is not None:
            weights = torch.from_numpy(self._weights[places].astype(np.float32))
        return Batch(
            torch.from_numpy(read.pixels),
            targets,
            [start.training[place].key for place in places.tolist()],
            weights,
            float(read.asked),
        )

    def _tell(self, failure: Failure) -> None:
        """Say once that a video cannot be read."""
        failure = in_words(failure, self._report)
        if self.failures.setdefault(failure.item.key, failure) is failure:
            self._note(f"failed: {named(failure.item.path, *failure.item.part)}: {failure.message}")

    def _note(self, line: str) -> None:
        with self._meter.paused():
            self._report.note(line)

    def _show(self, event: Step | Validation, progress: Progress) -> None:
        """Show a step in the bar, and a validation in a line."""
        epochs = f"epoch {event.epoch} of {self._budget.epochs}"
        if isinstance(event, Step):
            self._meter.say(f"{epochs}, loss {event.loss:.3f}{_best(progress, self._budget.steps)}")
            self._meter.count(failed=False)
            if event.suspects:
                self._note(f"step {event.step:,}: not applied, for the loss or its gradient is not finite")
            return
        figures = ", ".join(_figure(name, value) for name, value in event.figures.items() if value is not None)
        best = " (the best)" if progress.best_step == event.step else ""
        self._note(f"{epochs}: validation: {figures}{best}")


def _figure(name: str, value: float) -> str:
    return f"loss {value:.3f}" if name == "loss" else f"{name.replace('_', ' ')} {value:.1%}"


def _best(progress: Progress, steps: int) -> str:
    return "" if progress.best is None else f", best in epoch {-(-progress.best_step // steps)}"


def _trainer(
    network: TimesformerForVideoClassification, start: Start, tuning: Tuning, steps: int, *, bf16: bool, world: World
) -> Trainer:
    """The trainer for the parameters that the method trains."""
    rate, layer_decay = tuning.rate, tuning.layer_decay
    if tuning.method == "lora":
        lowrank.adapt(network, tuning.change_rank, start.seed)
        rate, layer_decay = rate * lowrank.RATE if tuning.lr is None else rate, 1.0
    elif tuning.method == "last":
        freeze(network, tuning.last_layers)
    blocks = network.config.num_hidden_layers
    optimiser = optimiser_of(network, blocks, rate, weight_decay=tuning.weight_decay, layer_decay=layer_decay)
    trainee = Trainee(network, drop_path=tuning.drop_path, bf16=bf16)
    return Trainer(
        trainee,
        optimiser,
        steps=steps,
        seed=start.seed,
        micro_batch=1,
        checkpointing=tuning.checkpointing,
        world=world,
    )
