"""How close the network is to transformers, and to a slow implementation in loops. See docs/parity.md.

    python -m benchmarks.parity            # everything; minutes, and 3.5 GiB of memory
    python -m benchmarks.parity --tiny     # without the full base size; seconds

A relative difference is max|a - b| / max|b| over a whole tensor. If one is over 2e-5 in float32 or 1e-10 in float64,
the exit code is 1. Batches are of two. All weights are random and of large scale, including embeddings, biases and
norms (testing/reference.py, `random_weights`).
"""

import argparse
import os
import platform
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers

from testing.reference import random_weights, relative_difference, run
from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification

TINY = TimesformerConfig(
    image_size=24,
    patch_size=8,
    num_frames=4,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=37,
    num_labels=5,
)
BASE = TimesformerConfig(num_labels=400)
FLOAT32, FLOAT64 = torch.float32, torch.float64
LIMITS = {FLOAT32: 2e-5, FLOAT64: 1e-10}


def build(config: TimesformerConfig, dtype: torch.dtype) -> TimesformerForVideoClassification:
    network = TimesformerForVideoClassification(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: torch.from_numpy(x) for name, x in random_weights(shapes, seed=0).items()})
    return network.to(dtype).eval()


def clip(config: TimesformerConfig, dtype: torch.dtype, frames: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, frames, config.num_channels, *size, generator=generator, dtype=FLOAT64).to(dtype)


def row(what: str, config: TimesformerConfig, dtype: torch.dtype, pixels: torch.Tensor, a: Any, b: Any) -> float:
    """Print one comparison; returns its worst difference."""
    logits = relative_difference(a.logits, b.logits)
    hidden = max(relative_difference(x, y) for x, y in zip(a.hidden_states, b.hidden_states, strict=True))
    frames, height, width = pixels.shape[1], *pixels.shape[3:]
    name = f"{config.num_hidden_layers} x {config.hidden_size}, {frames} x {width}x{height}"
    print(f"| {what} | {config.attention_type} | {name} | {str(dtype)[6:]} | {logits:.1e} | {hidden:.1e} |", flush=True)
    return max(logits, hidden)


@torch.no_grad()
def against_transformers(config: TimesformerConfig, dtype: torch.dtype) -> bool:
    network = build(config, dtype)
    other = transformers.TimesformerForVideoClassification(transformers.TimesformerConfig.from_dict(config.to_dict()))
    other.load_state_dict(network.state_dict(), strict=True)
    other = other.to(dtype).eval()
    pixels = clip(config, dtype, config.num_frames, config.image_hw)
    theirs = other(pixels, output_hidden_states=True)
    difference = row("transformers", config, dtype, pixels, network(pixels, output_hidden_states=True), theirs)
    backwards = network(pixels.flip(1), output_hidden_states=True)
    control = row("control: frames reversed", config, dtype, pixels, backwards, theirs)
    return difference <= LIMITS[dtype] and control > 1000 * LIMITS[FLOAT32]


@torch.no_grad()
def against_loops(config: TimesformerConfig, dtype: torch.dtype, frames: int, size: tuple[int, int]) -> bool:
    network, pixels = build(config, dtype), clip(config, dtype, frames, size)
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    theirs = run(state, config, pixels.double().numpy())
    return row("loops", config, dtype, pixels, network(pixels, output_hidden_states=True), theirs) <= LIMITS[dtype]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tiny", action="store_true", help="skip the full base size")
    sizes = [TINY] if parser.parse_args().tiny else [TINY, BASE]
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, transformers, np))
    print(f"Python {platform.python_version()}, {versions}; {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    print("\n| against | attention | layers x width, frames x size | precision | logits | worst hidden state |")
    print("| --- | --- | --- | --- | --- | --- |")
    close = [
        against_transformers(replace(config, attention_type=attention_type), dtype)
        for config in sizes
        for attention_type in ("divided_space_time", "joint_space_time")
        for dtype in LIMITS
    ]
    close += [
        against_loops(replace(TINY, attention_type=attention_type), dtype, frames, size)
        for attention_type in ("divided_space_time", "joint_space_time", "space_only")
        for dtype in LIMITS
        for frames, size in ((4, (24, 24)), (3, (16, 16)), (9, (24, 24)), (4, (16, 40)), (2, (8, 72)))
    ]
    sys.exit(0 if all(close) else "a difference is over the limit")


if __name__ == "__main__":
    main()
