"""How many samples are worked on at a time: as many as fit into memory, as measured before the start."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from timesformer_cli.errors import DeviceError
from timesformer_cli.jobs.benchmark.rounds import peak, reset_peak
from timesformer_cli.jobs.finetune.trainer import Batch, Trainer
from timesformer_cli.limits import memory_limit

# The share of the memory that is free on the CPU which training may take; reading videos takes memory as well.
_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds that a batch takes, and the peak of memory in bytes, None if unknown; on the CPU, both are estimates."""

    seconds: float
    memory: int | None


def fit(trainer: Trainer, batch: Batch, *, available: int | None = None) -> Measured:
    """Set `micro_batch` and `checkpointing` of the trainer so that steps fit into memory. No weight changes.

    `batch` is a real one. On a GPU, its gradients are computed twice beside memory as large as the optimiser will
    take; what does not fit is halved. On the CPU, too large a step would end the process, so that one and two clips are
    measured, and more are estimated for `available` bytes: by default most of what is free, or this process's part of
    it. All processes have to call this, and go on with the settings of the one that has the least memory.

    Raises:
        DeviceError: not even one clip at a time fits.
    """
    parameters = [parameter for group in trainer.optimiser.param_groups for parameter in group["params"]]
    device = parameters[0].device
    if device.type != "cpu":
        reserve = [torch.empty_like(parameter) for parameter in parameters for _ in range(2)]
        reset_peak(str(device))
        for _ in range(2):
            begin = time.perf_counter()
            trainer.gradients(batch, 1)
            measured = Measured(time.perf_counter() - begin, peak(str(device)))
            trainer.optimiser.zero_grad()
        del reserve
        trainer.settle()
        return measured
    # The moments of the optimiser, and with several processes a copy of the gradients, as it is sent.
    reserved = (2 if trainer.world.size == 1 else 3) * sum(parameter.nbytes for parameter in parameters)
    available = free_memory(trainer.world.local_size) if available is None else available
    measured = _fit_estimated(trainer, batch, reserved, available) if batch.keys else Measured(0.0, None)
    trainer.settle()
    return replace(measured, seconds=max(trainer.world.exchange(measured.seconds)))


def _fit_estimated(trainer: Trainer, batch: Batch, reserved: int, available: int | None) -> Measured:
    most = trainer.micro_batch
    one, seconds = _try(trainer, batch, 1)
    two, _ = _try(trainer, batch, min(2, len(batch.keys)))
    fits = largest(one, two, reserved, available, most)
    if fits < 2 and trainer.may_checkpoint and not trainer.checkpointing:
        trainer.checkpointing = True
        one, seconds = _try(trainer, batch, 1)
        two, _ = _try(trainer, batch, min(2, len(batch.keys)))
        fits = largest(one, two, reserved, available, most)
    if fits == 0:
        assert available is not None
        assert one is not None
        raise DeviceError(
            f"cpu: training takes {(one + reserved) / 1e9:.1f} GB with one clip at a time, and "
            f"{available / 1e9:.1f} GB are free; try `method=last` with few `layers`, or fewer frames with `num_frames`"
        )
    if fits > 1:  # several at once take less than one by one
        _, seconds = _try(trainer, batch, fits)
        seconds /= min(fits, len(batch.keys))
    trainer.micro_batch = fits
    memory = None if one is None or two is None else one + reserved + (fits - 1) * max(two - one, 0)
    return Measured(seconds * len(batch.keys), memory)


def _try(trainer: Trainer, batch: Batch, clips: int) -> tuple[int | None, float]:
    """The peak of memory in bytes, and the seconds, of the gradients of so many clips at a time."""
    trainer.micro_batch = clips
    part = replace(
        batch,
        pixels=batch.pixels[:clips],
        targets=batch.targets[:clips],
        keys=batch.keys[:clips],
        weights=None if batch.weights is None else batch.weights[:clips],
    )
    reset_peak("cpu")
    begin = time.perf_counter()
    trainer.accumulate(part, 1)
    trainer.optimiser.zero_grad()
    return peak("cpu"), time.perf_counter() - begin


def largest(one: int | None, two: int | None, reserved: int, available: int | None, most: int) -> int:
    """The largest power of two, `most` at most, of clips that fit into `available` bytes; 0 if not even one does.

    `one` and `two` are the peaks with so many clips, and `reserved` is what will be taken besides. With a number that
    is unknown, all fit.
    """
    clips = 1 << (most.bit_length() - 1)
    if one is None or two is None or available is None:
        return clips
    while clips and one + reserved + (clips - 1) * max(two - one, 0) > available:
        clips //= 2
    return clips


def free_memory(processes: int = 1) -> int | None:
    """Bytes that this process may take on the CPU, with those that it has; None if unknown.

    It shares what is free with as many others of the machine as make `processes`.
    """
    with suppress(OSError, ValueError, IndexError):
        free = 1024 * int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0])
        own = 1024 * int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
        limit = memory_limit()
        return min(int(_SHARE * free) // processes + own, limit if limit is not None else free + own)
    return None
