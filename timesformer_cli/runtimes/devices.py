"""Devices, by the names that users give them."""

import math
import os
import re
from typing import TYPE_CHECKING, Literal

from timesformer_cli.errors import DeviceError, UsageError
from timesformer_cli.limits import cpu_quota

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DEVICES = "auto, cpu, cuda, cuda:N, mps"


def available_cores() -> int:
    """The number of cores that this process may use: by its affinity, and by the quota of its container, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(min(cores, math.ceil(quota)), 1)


def check_device(device: str) -> None:
    """Raise UsageError for a device of an unknown kind. Needs no torch; finding out whether it exists does."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?|mps", device):
        raise UsageError(f"`device={device}`: unknown; choose one of {DEVICES}")


def find_device(name: str) -> "torch.device":
    """The device of that name; `auto` is the best one, and if torchrun assigns one of several GPUs, that one.

    Raises:
        DeviceError: this machine lacks the device.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
        rank = os.environ.get("LOCAL_RANK", "")
        if cuda and rank.isdecimal():
            name = f"cuda:{int(rank) % torch.cuda.device_count()}"
    device = torch.device(name)
    if device.type == "cuda" and not cuda:
        raise DeviceError(f"{name}: this machine has no CUDA device that PyTorch can use; try `device=cpu`")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise DeviceError(f"{name}: the last CUDA device of this machine is cuda:{last}; try that, or `device=cpu`")
    if device.type == "mps" and not mps:
        raise DeviceError("mps: this machine has no Apple GPU that PyTorch can use; try `device=cpu`")
    return device
