"""Tiny networks whose every parameter matters, their inputs and outputs, and how close the outputs must be.

A relative difference is max|a - b| / max|b| over a whole tensor. Tolerances: 2e-5 in float32, where only the order of
sums may differ (a fused attention kernel against three steps), and 1e-10 in float64.
"""

from typing import Any

import torch
from torch import Tensor

from testing.reference import random_weights, relative_difference
from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
ALL_TYPES = ["divided_space_time", "joint_space_time", "space_only"]
SPACE_TIME = ALL_TYPES[:2]


def tiny(attention_type: str = "divided_space_time", **changes: Any) -> TimesformerConfig:
    settings: dict[str, Any] = {
        "image_size": 24,
        "patch_size": 8,
        "num_frames": 4,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 37,
        "num_labels": 5,
        "attention_type": attention_type,
    }
    return TimesformerConfig(**settings | changes)


def build(config: TimesformerConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A classifier whose every parameter matters."""
    network = TimesformerForVideoClassification(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: torch.from_numpy(x) for name, x in random_weights(shapes, seed).items()})
    return network.to(dtype).eval()


def clip(
    config: TimesformerConfig,
    seed: int = 0,
    *,
    batch: int = 2,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    shape = (batch, frames or config.num_frames, config.num_channels, *(size or config.image_hw))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@torch.no_grad()
def everything(network: Any, pixels: Tensor) -> Any:
    return network(pixels, output_hidden_states=True, output_attentions=True)


@torch.no_grad()
def without_attentions(network: Any, pixels: Tensor) -> Any:
    """The other path through the network: the fused attention kernel, which returns no weights."""
    return network(pixels, output_hidden_states=True)


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """Compare two tensors, or two sequences of tensors of the same length."""
    if isinstance(actual, Tensor):
        difference = relative_difference(actual.detach(), expected)
        assert difference <= tolerance, difference
        return
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, tolerance)
