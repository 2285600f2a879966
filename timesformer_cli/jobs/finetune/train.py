"""Train the network behind the head of the probe: `last`, `lora` and `full`."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from timesformer_cli.checkpoints.weights import read_state_dict
from timesformer_cli.flow import Failure
from timesformer_cli.jobs.finetune import lowrank
from timesformer_cli.jobs.finetune.answers import Answers, Worth, worth
from timesformer_cli.jobs.finetune.loop import KeepsNothing
from timesformer_cli.jobs.finetune.parallel import ALONE, World
from timesformer_cli.jobs.finetune.progress import Progress, Reason, Size
from timesformer_cli.jobs.finetune.stages import FromTokens, Stage
from timesformer_cli.jobs.finetune.start import Start
from timesformer_cli.jobs.finetune.state import Store
from timesformer_cli.jobs.finetune.tuning import Tuning
from timesformer_cli.jobs.reporter import Reporter
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.pipeline.run import RunOptions


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


def sized(start: Start, tuning: Tuning, run: RunOptions, report: Reporter) -> Size:
    """What the training would take; of the head, only the shape matters.

    Raises:
        DeviceError, CheckpointError: as `train`.
    """
    return (FromTokens if tuning.from_tokens else Stage)(start, tuning, run, report, ALONE).sized()


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
    stage = (Stage if start.tokens is None else FromTokens)(start, tuning, run, report, world)
    kept, optimiser = stage.kept, stage.trainer.optimiser
    with ExitStack() as stack:
        store = None
        if world.is_first:
            store = stack.enter_context(closing(Store(folder, kept, optimiser, resume=resume)))
        found = world.of_first(store.found if store else None)
        if found is not None:
            world.spread(kept, optimiser)
        reason, progress = stage.run(found, store or KeepsNothing())
        if store and store.best:
            kept.load_state_dict(read_state_dict(store.best))
    answers = stage.answers
    if answers is None:  # the best validation was in an earlier sitting, or quicker
        world.spread(kept, optimiser)
        answers = stage.evaluated()
    failures = {failure.item.key: failure for part in world.exchange(list(stage.failures.values())) for failure in part}
    return Tuned(
        network=lowrank.merged(stage.network.cpu()),
        answers=answers,
        worth=worth(answers, start.measured_targets),
        progress=progress,
        reason=reason,
        steps=stage.schedule.steps_per_epoch,
        rate=stage.trainer.peak_rate,
        failures=tuple(failures.values()),
    )
