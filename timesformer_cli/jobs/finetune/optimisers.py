"""What is optimised, and at which rate: groups of parameters, and the learning rate of each step."""

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# The rate for batches of 256, which others scale: VideoMAE's rule for fine-tuning networks of the base size. Small
# ones, of less than so many parameters, learn best with so many times that (`benchmarks.finetune_network`).
_RATE, _BATCH = 5e-4, 256
_SMALL, _MORE = 10_000_000, 16

# The rate grows in one of so many parts of the steps, and falls to this share of its peak.
_WARM_UP, _END = 10, 0.01

_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.")
_EMBEDDINGS = ("cls_token", "position_embeddings", "time_embeddings")


def learning_rate(batch: int, parameters: int) -> float:
    """The peak rate for batches of `batch` videos, and a network of so many parameters."""
    return _RATE * batch / _BATCH * (_MORE if parameters < _SMALL else 1)


def factor(step: int, steps: int) -> float:
    """The rate in step `step` of `steps`, from 0, as a share of its peak.

    It grows in equal parts over the first tenth of the steps, and falls along half a cosine to 1 % in the last one.
    """
    warm_up = math.ceil(steps / _WARM_UP)
    if step < warm_up:
        return (step + 1) / warm_up
    passed = (step + 1 - warm_up) / (steps - warm_up)
    return _END + (1 - _END) * (1 + math.cos(math.pi * passed)) / 2


def depth_of(name: str, blocks: int) -> int:
    """The layer that a parameter belongs to: 0 for embeddings, then the blocks from 1, and `blocks` + 1 for the head.

    The last norm belongs to the last block.
    """
    block = _BLOCK.search(name)
    if block:
        return int(block[1]) + 1
    if name.startswith("classifier."):
        return blocks + 1
    return 0 if "embeddings." in name else blocks


def optimiser_of(
    model: nn.Module, blocks: int, rate: float, *, weight_decay: float = 0.05, layer_decay: float = 0.75
) -> torch.optim.AdamW:
    """AdamW for the parameters of `model` that need gradients; `blocks` is the number of its encoder's layers.

    The head learns at `rate`, and each layer below at `layer_decay` times the rate of the one above. Biases, norms and
    embeddings of position, time and class do not decay. The groups keep their rates under `peak`, for `set_rate`.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name.rpartition(".")[2] not in _EMBEDDINGS
            groups.setdefault((depth_of(name, blocks), decays), []).append(parameter)
    return torch.optim.AdamW(list(_settings(groups, blocks, rate, weight_decay, layer_decay)), betas=(0.9, 0.999))


def _settings(
    groups: dict[tuple[int, bool], list[nn.Parameter]],
    blocks: int,
    rate: float,
    weight_decay: float,
    layer_decay: float,
) -> Iterator[dict[str, Any]]:
    for (depth, decays), parameters in sorted(groups.items(), key=lambda group: group[0]):
        peak = rate * layer_decay ** (blocks + 1 - depth)
        yield {"params": parameters, "lr": peak, "peak": peak, "weight_decay": weight_decay if decays else 0.0}


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> float:
    """Set the rate of every group to a share of its peak; returns the largest."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share
    return max(float(group["lr"]) for group in optimiser.param_groups)
