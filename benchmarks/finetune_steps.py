"""Steps of `finetune --method full` against the same steps with the network of transformers: equality, speed, memory.

    python -m benchmarks.finetune_steps equal              # loss, gradient and ten updates of the base size
    python -m benchmarks.finetune_steps speed --pairs 7    # seconds per step, in alternation
    python -m benchmarks.finetune_steps memory             # peak of a fresh process, for each way to save memory;
                                                           # also of `--method last`, from tokens on disk
    python -m benchmarks.finetune_steps gpu                # clips per second and peak at micro-batches of 8, 16, 32
    ... --tiny                                             # a small network; seconds, to try the script itself

Weights, clips and tokens are random. On the CPU, seconds are processor time, and clips go one by one unless it is said.
`equal` exits with 1 if the loss, or that of ten updates, differs by more than 1e-6, or the gradient by more than 1e-5
(relative L2 norm).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity import BASE, TINY
from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.jobs.benchmark.rounds import peak, reset_peak
from timesformer_cli.jobs.finetune.frozen import TokenTrainee, TrainedPart, freeze, tokens_shape
from timesformer_cli.jobs.finetune.optimisers import depth_of, factor, learning_rate, optimiser_of, set_rate
from timesformer_cli.jobs.finetune.progress import Progress
from timesformer_cli.jobs.finetune.state import Store
from timesformer_cli.jobs.finetune.trainer import Batch, Trainee, Trainer

UPDATES = 10

# Layers that `last` trains.
LAYERS = 2


@dataclass(frozen=True)
class Case:
    """What a step works on."""

    config: TimesformerConfig
    device: str = "cpu"
    clips: int = 1
    micro_batch: int = 1
    checkpointing: bool = False
    bf16: bool = False
    drop_path: float = 0.0

    def batch(self, seed: int) -> Batch:
        shape = (self.config.num_frames, self.config.num_channels, *self.config.image_hw)
        return self._batch(seed, shape, torch.float32)

    def tokens(self, seed: int) -> Batch:
        return self._batch(seed, tokens_shape(self.config), torch.float16)

    def _batch(self, seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randint(self.config.num_labels, (self.clips,), generator=generator)
        content = torch.randn((self.clips, *shape), generator=generator, dtype=dtype)
        return Batch(content, targets, [f"{seed}-{clip}" for clip in range(self.clips)])

    def network(self) -> TimesformerForVideoClassification:
        torch.manual_seed(0)
        return TimesformerForVideoClassification(self.config).to(self.device)


def ours(case: Case) -> tuple[nn.Module, Callable[[Batch, int], tuple[float, float]]]:
    """The network, and a function that takes step `number`, from 1: its loss, and the norm of its gradient."""
    model = case.network()
    optimiser = optimiser_of(model, case.config.num_hidden_layers, learning_rate(32, 10**8))
    trainee = Trainee(model, drop_path=case.drop_path, bf16=case.bf16).train()
    checkpointing: Any = "on" if case.checkpointing else "off"
    trainer = Trainer(
        trainee, optimiser, steps=UPDATES, seed=0, micro_batch=case.micro_batch, checkpointing=checkpointing
    )

    def step(batch: Batch, number: int) -> tuple[float, float]:
        done = trainer.step(batch, 1, number)
        return done.loss, done.gradient

    return model, step


def theirs(case: Case) -> tuple[nn.Module, Callable[[Batch, int], tuple[float, float]]]:
    """As `ours`, with the network of transformers and a loop as its users write it."""
    import transformers

    model = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig.from_dict(case.config.to_dict())
    )
    model.load_state_dict(case.network().state_dict(), strict=True)
    model.to(case.device).train()
    if case.checkpointing:
        model.gradient_checkpointing_enable()
    rate, blocks = learning_rate(32, 10**8), case.config.num_hidden_layers
    groups = [
        {
            "params": [parameter],
            "lr": 0.0,
            "peak": rate * 0.75 ** (blocks + 1 - depth_of(name, blocks)),
            "weight_decay": 0.05 if parameter.ndim > 1 and name.endswith("weight") else 0.0,
        }
        for name, parameter in model.named_parameters()
    ]
    optimiser = torch.optim.AdamW(groups)

    def step(batch: Batch, number: int) -> tuple[float, float]:
        set_rate(optimiser, factor(number - 1, UPDATES))
        total = 0.0
        for start in range(0, case.clips, case.micro_batch):
            part = slice(start, start + case.micro_batch)
            pixels, targets = batch.pixels[part].to(case.device), batch.targets[part].to(case.device)
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=case.bf16):
                loss = model(pixels, labels=targets).loss * len(pixels) / case.clips
            loss.backward()
            total += loss.item()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return total, norm.item()

    return model, step


SIDES = {"ours": ours, "transformers": theirs}


def last(case: Case, folder: Path) -> Callable[[int], float]:
    """A function that takes step `number`, from 1, of `--method last`, and keeps a checkpoint: its loss.

    The network is read from `folder`, and the checkpoints are written there.
    """
    model = TimesformerForVideoClassification.from_pretrained(folder)
    freeze(model, LAYERS)
    optimiser = optimiser_of(model, case.config.num_hidden_layers, learning_rate(32, 10**8))
    trainee = TokenTrainee(model, drop_path=case.drop_path).train()
    trainer = Trainer(trainee, optimiser, steps=UPDATES, seed=0, micro_batch=case.micro_batch, checkpointing="off")
    store = Store(folder, TrainedPart(model), optimiser, resume=False)

    def step(number: int) -> float:
        loss = trainer.step(case.tokens(number), 1, number).loss
        store.keep(Progress(best=0.0, micro_batch=case.micro_batch, step=number))
        return loss

    return step


def gradients(model: nn.Module, pixels: Tensor, targets: Tensor) -> tuple[float, dict[str, Tensor]]:
    loss = model(pixels, labels=targets).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), found


def equal(config: TimesformerConfig) -> bool:
    case = Case(config)
    (one, our_step), (other, their_step) = ours(case), theirs(case)
    batch = case.batch(1)
    (loss, first), (their_loss, second) = (gradients(model, batch.pixels, batch.targets) for model in (one, other))
    off = abs(loss - their_loss)
    norm = sum(float(gradient.double().square().sum()) for gradient in second.values()) ** 0.5
    apart = sum(float((first[name] - second[name]).double().square().sum()) for name in second) ** 0.5 / norm
    updates = 0.0
    for number in range(1, UPDATES + 1):
        batch = case.batch(number)
        updates = max(updates, abs(our_step(batch, number)[0] - their_step(batch, number)[0]))
    print(f"| loss | {off:.1e} |\n| gradient, relative L2 norm | {apart:.1e} |")
    print(f"| loss of {UPDATES} updates | {updates:.1e} |")
    return first.keys() == second.keys() and off <= 1e-6 and apart <= 1e-5 and updates <= 1e-6


def seconds(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def timed(case: Case, pairs: int) -> dict[str, list[float]]:
    """Seconds per step of each side, in alternation; the first step of each does not count."""
    steps = {name: make(case)[1] for name, make in SIDES.items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(pairs + 1):
        batch = case.batch(number)
        for name, step in steps.items():
            begin = seconds(case.device)
            step(batch, 1)
            if number:
                found[name].append(seconds(case.device) - begin)
    return found


def speed(config: TimesformerConfig, pairs: int) -> None:
    found = timed(Case(config), pairs)
    ratios = [a / b for a, b in zip(found["ours"], found["transformers"], strict=True)]
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f}) |")
    print(f"| ratio in a pair | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |")


def memory(config: TimesformerConfig, tiny: bool) -> None:
    for side in SIDES:
        for checkpointing in (False, True):
            kind = "with checkpointing" if checkpointing else "without"
            show(f"{side} | {kind}", ["--side", side] + ["--checkpointing"] * checkpointing, tiny)
    with TemporaryDirectory() as folder:
        Case(config).network().save_pretrained(folder)
        for clips, micro_batch in ((1, 1), (16, 1), (16, 16)):
            options = ["--last", folder, "--clips", str(clips), "--micro-batch", str(micro_batch)]
            show(f"last {LAYERS} layers, from tokens | batch {clips}, {micro_batch} at a time", options, tiny)


def show(what: str, options: list[str], tiny: bool) -> None:
    """A row of `one` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.finetune_steps", "one", *options, *["--tiny"] * tiny]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures = json.loads(done.stdout)
    print(f"| {what} | {figures['peak'] / 1e9:.2f} GB | {figures['seconds']:.2f} s |", flush=True)


def one(case: Case, step: Callable[[int], object]) -> None:
    """Two steps in this process: its peak, and the seconds of the second."""
    step(1)
    begin = seconds(case.device)
    step(2)
    print(json.dumps({"seconds": seconds(case.device) - begin, "peak": peak(case.device)}))


def gpu_cases(config: TimesformerConfig) -> Iterator[Case]:
    for size in (8, 16, 32):
        for checkpointing in (False, True):
            yield Case(config, "cuda", size, size, checkpointing, bf16=True)


def gpu(config: TimesformerConfig, rounds: int) -> None:
    for case in gpu_cases(config):
        found = timed(case, rounds)
        rates = {name: case.clips / statistics.median(values) for name, values in found.items()}
        peaks = {}
        for name, make in SIDES.items():
            torch.cuda.empty_cache()
            reset_peak("cuda")
            step = make(case)[1]
            for number in (1, 2):
                step(case.batch(number), number)
            peaks[name] = (peak("cuda") or 0) / 1e9
            del step
        kind = "with checkpointing" if case.checkpointing else "without"
        print(
            f"| {case.clips} | {kind} | {rates['ours']:.1f} | {rates['transformers']:.1f} | "
            f"{rates['ours'] / rates['transformers']:.2f} | {peaks['ours']:.1f} GB | {peaks['transformers']:.1f} GB |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["equal", "speed", "memory", "gpu", "one"])
    parser.add_argument("--tiny", action="store_true", help="a small network")
    parser.add_argument("--pairs", type=int, default=7, help="steps of each side that are timed")
    parser.add_argument("--side", choices=sorted(SIDES), default="ours", help="for `one`, which `memory` starts")
    parser.add_argument("--checkpointing", action="store_true", help="for `one`")
    parser.add_argument("--last", type=Path, help="for `one`: the folder of the network whose last layers are trained")
    parser.add_argument("--clips", type=int, default=1, help="for `one`")
    parser.add_argument("--micro-batch", type=int, default=1, help="for `one`")
    asked = parser.parse_args()
    config = TINY if asked.tiny else BASE
    if asked.what == "one":
        case = Case(config, clips=asked.clips, micro_batch=asked.micro_batch, checkpointing=asked.checkpointing)
        if asked.last:
            one(case, last(case, asked.last))
        else:
            step = SIDES[asked.side](case)[1]
            one(case, lambda number: step(case.batch(number), number))
        return
    where = torch.cuda.get_device_name() if asked.what == "gpu" else f"{torch.get_num_threads()} threads"
    print(f"Python {platform.python_version()}, torch {torch.__version__}; {where}, {os.cpu_count()} cores\n")
    if asked.what == "equal":
        sys.exit(0 if equal(config) else "a difference is over the limit")
    elif asked.what == "speed":
        speed(config, asked.pairs)
    elif asked.what == "memory":
        memory(config, asked.tiny)
    else:
        gpu(config, asked.pairs)


if __name__ == "__main__":
    main()
