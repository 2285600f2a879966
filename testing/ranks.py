"""Runs of two processes, in many ways to go on and to end; each is a function of its `World` and a folder.

`python -m testing.ranks FOLDER` runs all of them, since torch takes seconds to import, and leaves in the folder what
came of them.
"""

import itertools
import math
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._dynamo  # DistributedDataParallel would import it in every process
from torch import Tensor

from testing.networks import build
from testing.training import CONFIG, SEED, batch_of, trainer_of
from timesformer_cli.errors import OutputError, Terminated, TimesformerError
from timesformer_cli.jobs.finetune import memory, parallel, watch
from timesformer_cli.jobs.finetune.launch import Launch
from timesformer_cli.jobs.finetune.loop import KeepsNothing, Loop
from timesformer_cli.jobs.finetune.lowrank import adapt
from timesformer_cli.jobs.finetune.memory import fit
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.parallel import World, joined
from timesformer_cli.jobs.finetune.progress import Budget, Progress
from timesformer_cli.jobs.finetune.trainer import Batch, Step, Trainee, Trainer

SIZE = 2

# The samples of three steps: an odd number, too few for every process, and an even number.
STEPS = ([0, 1, 2, 3, 4], [5], [6, 7, 8, 9])


class Ended(NamedTuple):
    """How a process ended: its exit code, negative for a signal, what its function returned, and its output."""

    code: int
    result: Any
    out: str
    err: str


def part_of(world: World, numbers: list[int], epoch: int = 1) -> Batch:
    """What a process takes of a step with the samples `numbers`."""
    whole, own = batch_of(epoch, numbers), slice(world.rank, None, world.size)
    return replace(
        whole, pixels=whole.pixels[own], targets=whole.targets[own], keys=whole.keys[own], total=float(len(numbers))
    )


def low_rank(world: World) -> Trainer:
    trainee = Trainee(build(CONFIG), drop_path=0.4)
    adapt(trainee.model, 2, SEED)
    trainee.train()
    optimiser = optimiser_of(trainee.model, CONFIG.num_hidden_layers, 1e-2)
    return Trainer(trainee, optimiser, steps=9, seed=SEED, micro_batch=2, world=world)


def weights_of(trainer: Trainer) -> Tensor:
    """All weights but the biases of the keys: softmax takes them away, so that their gradient is rounding only, of
    which AdamW makes steps as large as those of other weights.
    """
    state = trainer.trainee.model.state_dict()
    for name, value in state.items():
        if name.endswith("qkv.bias"):
            state[name] = torch.cat([value.chunk(3)[0], value.chunk(3)[2]])
    return torch.cat([value.flatten() for value in state.values()])


def gradient_of(trainer: Trainer, batch: Batch) -> Tensor:
    trainer.gradients(batch, 1)
    return torch.cat([p.grad.flatten() for p in trainer.trainee.parameters() if p.grad is not None])


def three_steps(trainer: Trainer) -> dict[str, Any]:
    steps = [trainer.step(part_of(trainer.world, numbers), 1, n) for n, numbers in enumerate(STEPS, 1)]
    return {
        "steps": [(step.loss, step.gradient, step.suspects) for step in steps],
        "weights": weights_of(trainer).numpy(),
        "memory": (trainer.micro_batch, trainer.checkpointing),
    }


def trained(world: World) -> dict[str, Any]:
    """Three steps of each kind of training; with `ALONE`, what they should come to."""
    first = part_of(world, STEPS[0])
    return {
        "gradient": gradient_of(trainer_of(world=world), first).numpy(),
        "full": three_steps(trainer_of(world=world)),
        "checkpointing": three_steps(trainer_of(world=world, checkpointing="on")),
        "lora": three_steps(low_rank(world)),
        "unequal": three_steps(trainer_of(world=world, micro_batch=3 - world.rank)),
    }


def steps(world: World, _: Path) -> Any:
    return trained(world)


def short(world: World, _: Path) -> Any:
    """The memory of rank 1 does not suffice for two samples, each time in the second micro-batch."""
    original, calls = Trainee.forward, itertools.count()

    def forward(self: Trainee, pixels: Tensor, draws: Tensor) -> Tensor:
        logits = original(self, pixels, draws)
        if len(pixels) > 1 and next(calls) % 2 and not self.model.timesformer.gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory.\nmore")
        return logits

    if world.rank == 1:
        Trainee.forward = forward  # type: ignore[method-assign]
    trainer = trainer_of(world=world, micro_batch=4)
    numbers = [list(range(8)), list(range(8, 16))]
    found = [trainer.step(part_of(world, each), 1, n).loss for n, each in enumerate(numbers, 1)]
    return found, weights_of(trainer).numpy(), trainer.micro_batch, trainer.checkpointing


def not_finite(world: World, _: Path) -> Any:
    trainer = trainer_of(world=world)
    before = weights_of(trainer)
    batch = part_of(world, [0, 1, 2, 3])
    if world.rank == 1:
        batch.pixels[1, 0, 0, 0, 0] = math.inf
    step = trainer.step(batch, 1, 1)
    return step.suspects, step.to_dict()["loss"], bool(torch.equal(before, weights_of(trainer)))


def objects(world: World, _: Path) -> Any:
    own = [f"{number} by {world.rank}" for number in world.share(5)]
    found = [world.gathered(own, 5), world.gathered(own[: 1 - world.rank], 1), world.of_first(world.rank)]
    with suppress(ValueError):
        world.gathered([], 5)
        found.append("too few results are accepted")
    return *found, world.size, world.local_size, world.device


def fitted(world: World, _: Path) -> Any:
    """Rank 1 has less memory, rank 0 more need of checkpointing."""
    trainer = trainer_of(world=world, micro_batch=8)
    memory.largest = lambda *_: 8 if world.rank == 0 else 4
    trainer.checkpointing = world.rank == 0
    fit(trainer, part_of(world, [0, 1, 2]), available=10**12)
    return trainer.micro_batch, trainer.checkpointing


def spread(world: World, _: Path) -> Any:
    """Only rank 0 knows a state, as after `resume`; then both go on from it."""
    trainer = trainer_of(world=world)
    known = trainer_of()
    if world.is_first:
        known.step(batch_of(1, STEPS[0]), 1, 1)
        trainer.trainee.model.load_state_dict(known.trainee.model.state_dict())
        trainer.optimiser.load_state_dict(known.optimiser.state_dict())
    else:
        with torch.no_grad():
            for parameter in trainer.trainee.model.parameters():
                parameter.zero_()
    world.spread(trainer.trainee.model, trainer.optimiser)
    trainer.step(part_of(world, STEPS[2]), 1, 2)
    return weights_of(trainer).numpy()


class Keeper(KeepsNothing):
    """Leaves the number of steps of its checkpoints in the folder of rank 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, progress: Progress) -> None:
        (self._folder / "kept").write_text(str(progress.step))


def loop_of(world: World, folder: Path, listen: Callable[[int], None], **settings: Any) -> Loop:
    """A loop of many steps; `listen` gets the number of each one that is done."""

    def batches(epoch: int, skip: int) -> Iterator[Batch]:
        for number in range(skip, 1000):
            yield part_of(world, [number, number + 1, number + 2], epoch)

    def hear(event: Any) -> None:
        if isinstance(event, Step):
            (folder / f"step{world.rank}").write_text(str(event.step))
            listen(event.step)

    def validate() -> tuple[float, Mapping[str, float | None]]:
        return 1.0, {}

    return Loop(
        trainer_of(world=world),
        Budget(epochs=1, steps=1000, max_seconds=settings.pop("max_seconds", None)),
        Progress(best=0.0, micro_batch=2),
        batches=batches,
        validate=validate,
        keeper=Keeper(folder) if world.is_first else KeepsNothing(),
        listen=hear,
        **settings,
    )


def time_is_over(world: World, folder: Path) -> Any:
    """The clock of rank 1 is quick; that of rank 0 counts."""
    ticks = itertools.count(step=1.0 if world.rank == 0 else 100.0)
    loop = loop_of(world, folder, lambda _: None, max_seconds=10.0, clock=lambda: next(ticks))
    return loop.run(), loop.progress


def _at_four(world: World, folder: Path, ranks: tuple[int, ...], act: Callable[[], object]) -> None:
    def listen(step: int) -> None:
        if step == 4 and world.rank in ranks:
            act()

    loop_of(world, folder, listen).run()


def sigterm_to_one(world: World, folder: Path) -> None:
    _at_four(world, folder, (1,), lambda: os.kill(os.getpid(), signal.SIGTERM))


def sigint_to_both(world: World, folder: Path) -> None:
    _at_four(world, folder, (0, 1), lambda: os.kill(os.getpid(), signal.SIGINT))


def sigint_while_reading(world: World, folder: Path) -> None:
    """Rank 1 gets the signal, and then waits for a video."""

    def act() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    _at_four(world, folder, (1,), act)


def fails(world: World, folder: Path) -> None:
    def act() -> None:
        raise OutputError("the disk is full")

    _at_four(world, folder, (1,), act)


def fails_while_reading(world: World, folder: Path) -> None:
    """Rank 0 fails; rank 1 is reading a video meanwhile."""

    def act() -> None:
        if world.is_first:
            raise OutputError("the disk is full")
        time.sleep(60)

    _at_four(world, folder, (0, 1), act)


def killed(world: World, folder: Path) -> None:
    _at_four(world, folder, (1,), lambda: os.kill(os.getpid(), signal.SIGKILL))


def first_killed(world: World, folder: Path) -> None:
    _at_four(world, folder, (0,), lambda: os.kill(os.getpid(), signal.SIGKILL))


def frozen(world: World, folder: Path) -> None:
    """No connection breaks."""
    _at_four(world, folder, (1,), lambda: os.kill(os.getpid(), signal.SIGSTOP))


def deaf(world: World, folder: Path) -> None:
    """Rank 0 fails, and rank 1 cannot be interrupted, as if it waited for a GPU."""

    def act() -> None:
        if world.is_first:
            raise OutputError("the disk is full")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(60)

    _at_four(world, folder, (0, 1), act)


RUNS: tuple[Callable[[World, Path], Any], ...] = (
    steps,
    short,
    not_finite,
    objects,
    fitted,
    spread,
    time_is_over,
    sigterm_to_one,
    sigint_to_both,
    sigint_while_reading,
    fails,
    fails_while_reading,
    killed,
    first_killed,
    frozen,
    deaf,
)


def _run(function: Callable[[World, Path], Any], folder: Path) -> list[Ended]:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(SIZE):
        processes.append(os.fork())
        if not processes[-1]:
            _rank(Launch(rank=rank, size=SIZE, local_rank=rank, host="127.0.0.1", port=port), function, folder)
    codes = [_code(process) for process in processes]
    return [_ended(code, folder / str(rank)) for rank, code in enumerate(codes)]


def _code(process: int) -> int:
    """The exit code of a process; one that stands still is killed as soon as it is waited for."""
    status = os.waitpid(process, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    return os.waitstatus_to_exitcode(status)


def _ended(code: int, stem: Path) -> Ended:
    result = stem.with_suffix(".pickle")
    return Ended(
        code,
        pickle.loads(result.read_bytes()) if result.is_file() else None,
        stem.with_suffix(".out").read_text(),
        stem.with_suffix(".err").read_text(),
    )


def _rank(launch: Launch, function: Callable[[World, Path], Any], folder: Path) -> None:
    """Errors become lines and exit codes as in the command."""
    stem = folder / str(launch.rank)
    for stream, kind in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(stem.with_suffix(kind), os.O_WRONLY | os.O_CREAT), stream)
    code = 99
    try:
        with joined(launch, "auto", lambda reason: print("at once:", reason, file=sys.stderr, flush=True)) as world:
            stem.with_suffix(".pickle").write_bytes(pickle.dumps(function(world, folder)))
        code = 0
    except TimesformerError as error:
        print("error:", error, file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Terminated:
        code = 143
    except BaseException as error:
        print("unexpected:", repr(error), file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(folder: Path) -> None:
    # What takes long is made short.
    watch._EVERY, watch._DEAD_AFTER, watch._END_AFTER = 0.05, 2.0, 0.5
    parallel._PATIENCE, parallel._SAME_SIGNAL = 0.3, 0.1
    found: dict[str, Any] = {run.__name__: _run(run, folder / run.__name__) for run in RUNS}
    (folder / "all.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    from testing import ranks  # the module under its own name, of which `Ended` is

    ranks.main(Path(sys.argv[1]))
