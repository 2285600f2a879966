"""Ten steps of training, against the same steps written out for the network of transformers."""

import math
from dataclasses import replace

import pytest
import torch

from testing.networks import build
from testing.parity import counterpart
from testing.reference import relative_difference
from testing.training import CONFIG, batch_of
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.trainer import Trainee, Trainer

RATE, STEPS, BLOCKS = 1e-4, 10, CONFIG.num_hidden_layers


def layer_of(name: str) -> int:
    if name.startswith("classifier"):
        return BLOCKS + 1
    if "encoder.layer." in name:
        return int(name.split("encoder.layer.")[1].split(".")[0]) + 1
    return BLOCKS if name.startswith("timesformer.layernorm") else 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-9)])
def test_ten_steps_equal_those_of_transformers(dtype: torch.dtype, tolerance: float) -> None:
    model = build(CONFIG, dtype=dtype)
    other = counterpart(model).train()
    trainer = Trainer(Trainee(model).train(), optimiser_of(model, BLOCKS, RATE), steps=STEPS, seed=0, micro_batch=2)
    theirs = torch.optim.AdamW(
        [
            {
                "params": [parameter],
                "lr": RATE * 0.75 ** (BLOCKS + 1 - layer_of(name)),
                "weight_decay": 0.05 if name.endswith("weight") and parameter.ndim > 1 else 0.0,
            }
            for name, parameter in other.named_parameters()
        ]
    )
    # One step warms up.
    shares = [1.0] + [0.01 + 0.99 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(1, 10)]
    schedule = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: shares[min(step, 9)])
    for number in range(STEPS):
        batch = batch_of(number, [number, number + 1, number + 2, number + 3])
        batch = replace(batch, pixels=batch.pixels.to(dtype))
        ours = trainer.step(batch, 1, number + 1)
        loss = other(batch.pixels, labels=batch.targets).loss
        loss.backward()
        gradient = torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        theirs.step()
        schedule.step()
        theirs.zero_grad()
        assert ours.loss == pytest.approx(loss.item(), rel=tolerance), number
        assert ours.gradient == pytest.approx(gradient.item(), rel=10 * tolerance), number
    # The bias of keys does not count in a softmax, so that its gradient in float32 is rounding, which AdamW enlarges.
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        if dtype == torch.float64 or not name.endswith("qkv.bias"):
            assert relative_difference(one.detach(), two.detach()) < 100 * tolerance, name
