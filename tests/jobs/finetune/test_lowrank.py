"""Low-rank adaptation: what is trained, and what the merged network is."""

import copy
from pathlib import Path

import pytest
import torch

from testing.networks import ALL_TYPES, build, tiny
from testing.training import CONFIG, batch_of
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.jobs.finetune.lowrank import adapt, merged
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.trainer import Trainee, Trainer


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_the_start_changes_nothing_and_only_head_and_attentions_are_trained(attention_type: str) -> None:
    config = tiny(attention_type)
    model = build(config)
    before = copy.deepcopy(model.state_dict())
    pixels = torch.randn(2, config.num_frames, 3, *config.image_hw)
    logits = model(pixels).logits
    adapt(model, 4, seed=0)
    assert torch.equal(model(pixels).logits, logits)
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    attentions = ["attention.attention"] + ["temporal_attention.attention"] * (attention_type == "divided_space_time")
    names = {
        f"timesformer.encoder.layer.{layer}.{attention}.qkv.parametrizations.weight.0.{part}": shape
        for layer in range(3)
        for attention in attentions
        for part, shape in (("up", (72, 4)), ("down", (4, 24)))
    }
    assert trained == names | {"classifier.weight": (5, 24), "classifier.bias": (5,)}
    plain = merged(model)
    assert set(plain.state_dict()) == set(before)
    assert all(torch.equal(before[name], value) for name, value in plain.state_dict().items())
    assert torch.equal(model(pixels).logits, logits)  # and it can be trained on


def test_a_trained_network_is_merged_bit_for_bit(tmp_path: Path) -> None:
    model = build(CONFIG)
    before = copy.deepcopy(model.state_dict())
    adapt(model, 8, seed=3)
    optimiser = optimiser_of(model, CONFIG.num_hidden_layers, 1e-2, layer_decay=1.0)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-2}
    trainer = Trainer(Trainee(model).train(), optimiser, steps=3, seed=0, micro_batch=3)
    for number in range(1, 4):
        trainer.step(batch_of(number, [0, 1, 2]), 1, number)
    pixels = batch_of(9, [0, 1]).pixels
    logits = model.eval()(pixels).logits
    trainee = Trainee(model, bf16=True).eval()
    draws = torch.zeros(2, *trainee.draws_shape(pixels))
    rounded = trainee(pixels, draws)
    assert torch.equal(model(pixels).logits, logits)
    model = merged(model)
    assert torch.equal(model(pixels).logits, logits)
    assert torch.equal(Trainee(model, bf16=True).eval()(pixels, draws), rounded)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith("qkv.weight") or name.startswith("classifier.")}
    for name in changed - {"classifier.weight", "classifier.bias"}:
        assert torch.linalg.matrix_rank((model.state_dict()[name] - before[name]).double(), rtol=1e-4) == 8, name
    model.save_pretrained(tmp_path)
    assert torch.equal(TimesformerForVideoClassification.from_pretrained(tmp_path)(pixels).logits, logits)


def test_the_start_is_a_function_of_the_seed() -> None:
    starts = []
    for seed in (0, 0, 1):
        model = build(CONFIG)
        adapt(model, 2, seed)
        starts.append([p.detach() for name, p in model.named_parameters() if name.endswith("down")])
    assert all(torch.equal(a, b) for a, b in zip(*starts[:2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(*starts[1:], strict=True))
