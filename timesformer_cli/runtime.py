"""The network behind a function: NumPy views in, NumPy logits out, on the device that was asked for."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import DeviceError, UsageError
from timesformer_cli.specs import Checkpoint, TimesformerConfig

if TYPE_CHECKING:
    import torch

DEVICES = "auto, cpu, cuda, cuda:N, mps"

# Views float32 (N, T, C, H, W) to logits float32 (N, K), for any N of at least 1. Raises MemoryError if
# so many do not fit into the device's memory.
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def open_scorer(checkpoint: Checkpoint, *, device: str = "auto") -> Scorer:
    """The checkpoint's network, loaded and ready, in float32; `device` is one of `DEVICES`.

    Raises:
        UsageError: a device of no known kind; found before torch is imported.
        DeviceError: a device that this machine does not have.
        CheckpointError: weights that are missing, unreadable, or do not fit the config.
    """
    check_device(device)

    import torch

    from timesformer_cli.model import TimesformerForVideoClassification

    target = find_device(device)
    model = TimesformerForVideoClassification.from_checkpoint(checkpoint).to(target)

    def score(views: NDArray[np.float32]) -> NDArray[np.float32]:
        # torch shares the memory of an array, and warns if it may not write to it.
        pixels = torch.from_numpy(np.require(views, requirements=["C", "W"]))
        try:
            with torch.inference_mode():
                logits: NDArray[np.float32] = model(_upload(pixels, target)).logits.cpu().numpy()
            return logits
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0]
        # Out of the handler, which would keep alive all that the attempt had allocated.
        if target.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(message)

    return score


def _upload(pixels: "torch.Tensor", target: "torch.device") -> "torch.Tensor":
    """To CUDA through pinned memory: then the copy runs by itself, while the first kernels are being queued."""
    if target.type == "cuda":
        # The blocks that are pinned are kept by torch and used again.
        return pixels.pin_memory().to(target, non_blocking=True)
    return pixels.to(target)


# What torch says when it cannot allocate: on CUDA and MPS, in cuBLAS, and on the CPU of Linux and Windows.
_OUT_OF_MEMORY = re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory|not enough memory")


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def check_device(device: str) -> None:
    """Raise UsageError for a device of no known kind. Needs no torch, as knowing whether it is there does."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?|mps", device):
        raise UsageError(f"--device {device}: unknown; known are {DEVICES}")


class Cost(NamedTuple):
    """`parameters` of a network; `flops` of one view (T frames) as torch counts them: a multiply-add is two."""

    parameters: int
    flops: int


def measure_cost(config: TimesformerConfig) -> Cost:
    """Parameters and operations of a network, counted on shapes alone: no weights, and no time worth the name."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from timesformer_cli.model import TimesformerForVideoClassification

    with torch.device("meta"):
        model = TimesformerForVideoClassification(config).eval()
        view = torch.empty(1, config.num_frames, config.num_channels, *config.image_hw)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(view)
    return Cost(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops())


def find_device(name: str) -> "torch.device":
    """The device of that name; `auto` is the best there is.

    Raises:
        DeviceError: this machine does not have it.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not cuda:
        raise DeviceError(f"{name}: this machine has no CUDA device that PyTorch can use; try --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise DeviceError(f"{name}: the last CUDA device of this machine is cuda:{last}; try that, or --device cpu")
    if device.type == "mps" and not mps:
        raise DeviceError("mps: this machine has no Apple GPU that PyTorch can use; try --device cpu")
    return device
