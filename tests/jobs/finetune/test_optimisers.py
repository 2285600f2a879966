"""The rates of steps and of layers, and what decays, against values worked out by hand."""

import math

import pytest
import torch

from testing.networks import build, tiny
from timesformer_cli.jobs.finetune.optimisers import (
    depth_of,
    factor,
    learning_rate,
    optimiser_of,
    set_rate,
)

RATES = {0: 0.75**4, 1: 0.75**3, 2: 0.75**2, 3: 0.75, 4: 1.0}  # three blocks


@pytest.mark.parametrize(
    ("batch", "parameters", "rate"),
    [(256, 10**8, 5e-4), (32, 10**7, 6.25e-5), (1, 10**8, 5e-4 / 256), (32, 10**6, 1e-3)],
)
def test_rate_follows_the_batch(batch: int, parameters: int, rate: float) -> None:
    assert learning_rate(batch, parameters) == pytest.approx(rate)


def test_rate_grows_and_falls() -> None:
    shares = [factor(step, 30) for step in range(30)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    # A third, a half and two thirds of the 27 steps that are left, and their end.
    for step, angle in ((11, math.pi / 3), (20, 2 * math.pi / 3), (29, math.pi)):
        assert shares[step] == pytest.approx(0.01 + 0.99 * (1 + math.cos(angle)) / 2)
    assert shares[29] == pytest.approx(0.01)
    assert shares[2:] == sorted(shares[2:], reverse=True)


@pytest.mark.parametrize(
    ("steps", "shares"), [(1, [1.0]), (2, [1.0, 0.01]), (3, [1.0, 0.505, 0.01]), (11, [0.5, 1.0, None])]
)
def test_short_runs(steps: int, shares: list[float | None]) -> None:
    for step, share in enumerate(shares):
        assert share is None or factor(step, steps) == pytest.approx(share)


def test_layers() -> None:
    model = build(tiny())
    depths = {name: depth_of(name, 3) for name, _ in model.named_parameters()}
    assert {name for name, depth in depths.items() if depth == 0} == {
        "timesformer.embeddings.cls_token",
        "timesformer.embeddings.position_embeddings",
        "timesformer.embeddings.time_embeddings",
        "timesformer.embeddings.patch_embeddings.projection.weight",
        "timesformer.embeddings.patch_embeddings.projection.bias",
    }
    for number in range(3):
        assert all(depth == number + 1 for name, depth in depths.items() if f"encoder.layer.{number}." in name)
    assert depths["timesformer.layernorm.weight"] == depths["timesformer.layernorm.bias"] == 3
    assert {name for name, depth in depths.items() if depth == 4} == {"classifier.weight", "classifier.bias"}


def test_each_parameter_learns_at_the_rate_of_its_layer_and_decays_if_it_may() -> None:
    model = build(tiny())
    optimiser = optimiser_of(model, 3, 2e-3)
    assert optimiser.defaults["betas"] == (0.9, 0.999)
    groups = {id(parameter): group for group in optimiser.param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(groups)
    kept = ("bias", "cls_token", "position_embeddings", "time_embeddings")
    for name, parameter in model.named_parameters():
        group = groups.pop(id(parameter))
        assert group["lr"] == pytest.approx(2e-3 * RATES[depth_of(name, 3)]), name
        assert group["weight_decay"] == (0.0 if name.endswith(kept) or "norm" in name else 0.05), name
    assert groups == {}


def test_frozen_parameters_are_left_out() -> None:
    model = build(tiny()).requires_grad_(False)
    model.classifier.requires_grad_(True)
    (still, decaying) = optimiser_of(model, 3, 1.0, layer_decay=0.5, weight_decay=0.2).param_groups
    assert [still["params"], decaying["params"]] == [[model.classifier.bias], [model.classifier.weight]]
    assert [still["weight_decay"], decaying["weight_decay"]] == [0.0, 0.2]


def test_rates_are_shares_of_the_peak() -> None:
    model = build(tiny())
    optimiser = optimiser_of(model, 3, 1e-3)
    peaks = [group["lr"] for group in optimiser.param_groups]
    assert set_rate(optimiser, 0.5) == pytest.approx(5e-4)
    assert set_rate(optimiser, 0.25) == pytest.approx(2.5e-4)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([peak / 4 for peak in peaks])


def test_a_step_by_hand() -> None:
    """AdamW's first step: the weight shrinks by rate x decay, and moves by the rate against the gradient's sign."""
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -1.0]]))
        model.bias.fill_(3.0)
    optimiser = optimiser_of(model, 1, 0.1, weight_decay=0.5, layer_decay=0.5)  # the names are those of block 1
    model.weight.grad, model.bias.grad = torch.tensor([[0.3, -4.0]]), torch.tensor([7.0])
    optimiser.step()
    assert torch.allclose(model.weight, torch.tensor([[2.0 * 0.975 - 0.05, -1.0 * 0.975 + 0.05]]))
    assert torch.allclose(model.bias, torch.tensor([3.0 - 0.05]))
