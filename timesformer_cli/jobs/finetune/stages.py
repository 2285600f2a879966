"""The training of the network, between its start and its result: from videos, or from tokens on disk."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from torch import nn

from timesformer_cli.flow import Failure
from timesformer_cli.jobs.finetune import batches as reading
from timesformer_cli.jobs.finetune import lowrank, memory
from timesformer_cli.jobs.finetune.answers import Answers, Worth, each_of, gathered, worth
from timesformer_cli.jobs.finetune.cached import score_tokens, token_batches
from timesformer_cli.jobs.finetune.frozen import TokenTrainee, TrainedPart, freeze, tokens_shape
from timesformer_cli.jobs.finetune.head import balanced, memberships
from timesformer_cli.jobs.finetune.loop import Keeper, Loop, Validation
from timesformer_cli.jobs.finetune.optimisers import learning_rate, optimiser_of
from timesformer_cli.jobs.finetune.parallel import World
from timesformer_cli.jobs.finetune.progress import Progress, Reason, Size
from timesformer_cli.jobs.finetune.start import Start
from timesformer_cli.jobs.finetune.trainer import Batch, Step, Trainee, Trainer
from timesformer_cli.jobs.finetune.tuning import Tuning
from timesformer_cli.jobs.reporter import Meter, Reporter, in_words
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import label
from timesformer_cli.runtimes import pytorch
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.text import named


class Stage:
    """A network on its way; `answers` are those of its best validation in this sitting, if there was one.

    `kept` is what a checkpoint of the training has to hold.
    """

    def __init__(self, start: Start, tuning: Tuning, run: RunOptions, report: Reporter, world: World) -> None:
        self.answers: Answers | None = None
        self.failures: dict[str, Failure] = {}
        self._meter = Meter(None)
        self._said = self._best = ""
        self._start, self._tuning, self._run, self._report, self._world = start, tuning, run, report, world
        self._checkpoint = start.checkpoint
        self.schedule = reading.Schedule(videos=len(start.training), batch_size=tuning.batch_size, seed=start.seed)
        self._budget = tuning.budget(self.schedule.steps_per_epoch)
        self.network = start.network(report.note).to(find_device(run.device))
        bf16 = pytorch.choose_precision(run.precision, run.device) == "bf16"
        rate = _prepare(self.network, start, tuning)
        self.kept = self._kept()
        self.trainee = self._trainee(drop_path=tuning.drop_path, bf16=bf16)
        self.trainer = Trainer(
            self.trainee,
            _optimiser(self.network, tuning, rate),
            steps=self._budget.all_steps,
            seed=start.seed,
            micro_batch=1,
            checkpointing=tuning.checkpointing,
            world=world,
        )
        each = run.batch_size or -(-tuning.batch_size // world.size)
        self.trainer.micro_batch = each if run.batch_size else 1 << (each.bit_length() - 1)
        self._share = reading.Share(world.rank, world.size)
        self._weights = None
        if start.balance:
            members = memberships(start.targets, len(start.names))
            self._weights = balanced(members, multi_label=False)[:, 0].astype(np.float32)

    def run(self, found: Progress | None, keeper: Keeper) -> tuple[Reason, Progress]:
        """Train to the end, from `found` on if it is not None."""
        found = None if found is None else self._as_asked(found)
        first = 0 if found is None else found.step
        with self._batches(first) as stream:
            if found is None:
                batch = next(stream)
                self._report.note(str(self._fit(batch)))
                stream = chain([batch], stream)  # it was only looked at
            progress = found or Progress(micro_batch=self.trainer.micro_batch, checkpointing=self.trainer.checkpointing)
            with self._report.progress(self._budget.all_steps - first, long=True, what="steps") as self._meter:
                loop = Loop(
                    self.trainer,
                    self._budget,
                    progress,
                    batches=lambda _, skip: islice(stream, self._budget.steps - skip),
                    validate=lambda: self._validate(loop.progress.best),
                    keeper=keeper,
                    listen=lambda event: self._show(event, loop.progress),
                )
                reason = loop.run()
        return reason, loop.progress

    def _as_asked(self, found: Progress) -> Progress:
        """Where the run goes on, with what was asked for now: a run that took too much memory may go on with less."""
        if self._run.batch_size is not None:
            found = replace(found, micro_batch=self._run.batch_size)
        if self._tuning.checkpointing != "auto":
            found = replace(found, checkpointing=self._tuning.checkpointing == "on")
        return found

    def _kept(self) -> nn.Module:
        return self.network

    def _trainee(self, *, drop_path: float, bf16: bool) -> Trainee:
        return Trainee(self.network, drop_path=drop_path, bf16=bf16)

    @contextmanager
    def _batches(self, first: int) -> Iterator[Iterator[Batch]]:
        """The batches of the steps from `first` on, from 0."""
        with reading.read_batches(
            self._start.training,
            self._checkpoint.recipe,
            self._tuning.augmentation(flip=self._start.flips.flip),
            self.schedule,
            self._run,
            steps=range(first, self._budget.all_steps),
            share=self._share,
        ) as read:
            yield map(self._batch, read)

    def evaluated(self) -> Answers:
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

    def _validate(self, best: float | None) -> tuple[float, Mapping[str, float | None]]:
        """The score and the figures of the network as it is now; `best` is the highest score before."""
        answers = self.evaluated()
        found = worth(answers, self._start.measured_targets)
        if best is None or found.score > best:
            self.answers = answers
        return self._told(found)

    def _told(self, found: Worth) -> tuple[float, Mapping[str, float | None]]:
        figures = found.figures(multi_label=self._start.multi_label)
        return found.score, {name: value if math.isfinite(value) else None for name, value in figures.items()}

    def sized(self) -> Size:
        """What training takes, measured on a batch, without a change of the network."""
        with self._batches(0) as stream:
            return self._fit(next(stream))

    def _fit(self, batch: Batch) -> Size:
        """Find out what training takes, and how many videos fit into memory at a time, unless that was asked for."""
        measured = None if self._run.batch_size else memory.fit(self.trainer, batch)
        return Size(
            parameters=sum(part.numel() for group in self.trainer.optimiser.param_groups for part in group["params"]),
            epochs=self._budget.epochs,
            steps=self._budget.all_steps,
            seconds=None if measured is None else measured.seconds * self._budget.all_steps,
            memory=None if measured is None else measured.memory,
            micro_batch=self.trainer.micro_batch,
            checkpointing=self.trainer.checkpointing,
        )

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
            weights = torch.from_numpy(self._weights[places])
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
            self._meter.say(f"{epochs}, loss {event.loss:.3f}{self._said or _best(progress, self._budget.steps)}")
            self._meter.count(failed=False)
            if event.suspects:
                self._note(f"step {event.step:,}: not applied, because the loss or its gradient is not finite")
            return
        figures = ", ".join(_figure(name, value) for name, value in event.figures.items() if value is not None)
        best = progress.best_step == event.step
        self._note(f"{epochs}: validation: {figures}{' (the best)' if best else ''}")
        last = next(
            _figure(name, value) for name, value in event.figures.items() if name != "loss" and value is not None
        )
        if best:
            self._best = f"{last} in epoch {event.epoch}"
        self._said = f", validation: {last}" + (f", best: {self._best}" if self._best else "")


class FromTokens(Stage):
    """A stage that reads no videos, but the tokens that enter the trained layers.

    Validation takes these too: all but their rounding is as in `evaluate`, by which the best network is measured.
    """

    def _kept(self) -> nn.Module:
        return TrainedPart(self.network)

    def _trainee(self, *, drop_path: float, bf16: bool) -> TokenTrainee:
        return TokenTrainee(self.network, drop_path=drop_path, bf16=bf16)

    @contextmanager
    def _batches(self, first: int) -> Iterator[Iterator[Batch]]:
        start, (done, skip) = self._start, divmod(first, self._budget.steps)
        assert start.tokens is not None
        self.failures = {failure.item.key: failure for failure in start.tokens.failures}
        targets = start.targets.astype(np.float32) if start.multi_label else start.targets.astype(np.int64)
        each = partial(
            token_batches,
            start.tokens,
            start.training,
            targets,
            self.schedule,
            weights=self._weights,
            share=self._share,
        )
        yield chain.from_iterable(
            each(epoch, skip if epoch == done + 1 else 0) for epoch in range(done + 1, self._budget.epochs + 1)
        )

    def sized(self) -> Size:
        start = self._start
        count = min(self._tuning.batch_size, len(start.training))
        tokens = torch.zeros(count, *tokens_shape(self.network.config), dtype=torch.float16)
        targets = start.targets[:count].astype(np.float32) if start.multi_label else start.targets[:count]
        return self._fit(Batch(tokens, torch.from_numpy(targets), [item.key for item in start.training[:count]]))

    def _validate(self, best: float | None) -> tuple[float, Mapping[str, float | None]]:
        start, count = self._start, len(self._start.measured)
        assert start.tokens is not None
        assert isinstance(self.trainee, TokenTrainee)
        items = [start.measured[number] for number in self._world.share(count)]
        scores = score_tokens(self.trainee, start.tokens, items, self._checkpoint.recipe)
        lost = {failure.item.key: failure for failure in start.tokens.failures}
        found = dict(zip(scores.places.tolist(), zip(scores.logits, scores.combined, strict=True), strict=True))
        own = [found[place] if place in found else lost[item.key] for place, item in enumerate(items)]
        answers = gathered(self._world.gathered(own, count), len(start.names), self._checkpoint.recipe)
        return self._told(worth(answers, start.measured_targets))


def _figure(name: str, value: float) -> str:
    return f"loss {value:.3f}" if name == "loss" else f"{name.replace('_', ' ')} {value:.1%}"


def _best(progress: Progress, steps: int) -> str:
    return "" if progress.best is None else f", best in epoch {-(-progress.best_step // steps)}"


def _prepare(network: TimesformerForVideoClassification, start: Start, tuning: Tuning) -> float:
    """Let only that of the network be trained which the method trains; returns the learning rate of the head."""
    rate = learning_rate(tuning.batch_size, sum(parameter.numel() for parameter in network.parameters()))
    if tuning.method == "last":
        freeze(network, tuning.last_layers)
    elif tuning.method == "lora":
        lowrank.adapt(network, tuning.change_rank, start.seed)
        rate *= lowrank.RATE
    return rate if tuning.lr is None else tuning.lr


def _optimiser(network: TimesformerForVideoClassification, tuning: Tuning, rate: float) -> torch.optim.Optimizer:
    layer_decay = 1.0 if tuning.method == "lora" else tuning.layer_decay
    blocks = network.config.num_hidden_layers
    return optimiser_of(network, blocks, rate, weight_decay=tuning.weight_decay, layer_decay=layer_decay)
