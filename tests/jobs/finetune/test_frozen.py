"""Training the last layers: what is trained, what is not, and the same from pixels and from tokens."""

import copy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from testing.networks import ALL_TYPES, build, clip, tiny
from testing.training import batch_of
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.weights import read_state_dict
from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.finetune.frozen import TokenTrainee, TrainedPart, freeze, tokens_shape
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.progress import Progress
from timesformer_cli.jobs.finetune.state import Store
from timesformer_cli.jobs.finetune.trainer import Batch, Trainee, Trainer

KEYS = ["a.mp4", "b.mp4", "c.mp4"]


def frozen(attention_type: str = "divided_space_time", layers: int = 2, **changes: Any) -> Any:
    model = build(tiny(attention_type, num_hidden_layers=4, **changes))
    freeze(model, layers)
    return model


def pixels_of(model: Any) -> Tensor:
    return clip(model.config, batch=len(KEYS))


def tokens_of(model: Any, pixels: Tensor, layer: int) -> Tensor:
    """The tokens that enter a layer, from the network for training."""
    with torch.no_grad():
        states = model.timesformer(pixels, output_hidden_states=True).hidden_states
    return states[layer].reshape(len(pixels), *tokens_shape(model.config))  # type: ignore[no-any-return]


def gradients(trainee: Trainee, pixels: Tensor, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and gradients of a batch, with drop path."""
    optimiser = optimiser_of(trainee.model, 4, 1e-3)
    trainer = Trainer(trainee.train(), optimiser, steps=1, seed=3, micro_batch=2, **settings)
    losses = trainer.accumulate(Batch(pixels, torch.tensor([0, 3, 1]), KEYS), 1)
    found = {name: p.grad.clone() for name, p in trainee.model.named_parameters() if p.grad is not None}
    optimiser.zero_grad()
    return losses, found


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_only_the_last_layers_norm_and_head_are_trained(layers: int) -> None:
    model = frozen(layers=layers)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    last = tuple(f"timesformer.encoder.layer.{number}." for number in range(4 - layers, 4))
    whole = {name for name in model.state_dict() if name.startswith((*last, "timesformer.layernorm.", "classifier."))}
    assert names == whole


@pytest.mark.parametrize("layers", [0, 5, -1])
def test_as_many_layers_as_there_are(layers: int) -> None:
    model = build(tiny(num_hidden_layers=4))
    with pytest.raises(UsageError, match=rf"`layers={layers}`: the network has 4; choose a number from 1 to 4"):
        freeze(model, layers)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_drop_path_grows_over_the_layers_that_are_trained() -> None:
    def rates(layers: int) -> list[float]:
        model = frozen(layers=layers, drop_path_rate=0.9)
        Trainee(model, drop_path=0.3)
        return [layer.drop_path.p for layer in model.timesformer.encoder.layer]

    assert rates(4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates(3) == pytest.approx([0.0, 0.0, 0.15, 0.3])
    assert rates(1) == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_layers_keep_nothing_for_the_gradient(checkpointing: bool) -> None:
    model = frozen(layers=1)
    inside: dict[str, weakref.ref[Tensor]] = {}
    ran: list[str] = []

    def watch(name: str, output: Tensor) -> None:
        inside[name] = weakref.ref(output)
        ran.append(name)

    for number, layer in enumerate(model.timesformer.encoder.layer):
        layer.intermediate.register_forward_hook(lambda _, __, output, name=f"mlp {number}": watch(name, output))
    model.timesformer.gradient_checkpointing = checkpointing
    loss = Trainee(model).train()(pixels_of(model)).sum()
    assert [name for name, tensor in inside.items() if tensor() is not None] == ["mlp 3"] * (not checkpointing)
    loss.backward()
    # Only the layer that is trained is computed again.
    assert ran[4:] == ["mlp 3"] * checkpointing


@pytest.mark.parametrize("attention_type", ALL_TYPES)
@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_from_tokens_as_from_pixels(attention_type: str, checkpointing: Any) -> None:
    model = frozen(attention_type)
    pixels = pixels_of(model)
    losses, expected = gradients(Trainee(model, drop_path=0.5), pixels, checkpointing=checkpointing)
    assert set(expected) == {name for name, p in model.named_parameters() if p.requires_grad}
    without, _ = gradients(Trainee(model), pixels, checkpointing=checkpointing)
    assert not torch.equal(without, losses)
    # In the micro-batches of the trainer, since matrix products of different shapes round differently.
    tokens = [tokens_of(model, part, 2) for part in pixels.split(2)]
    found_losses, found = gradients(TokenTrainee(model, drop_path=0.5), torch.cat(tokens), checkpointing=checkpointing)
    assert torch.equal(found_losses, losses)
    assert found.keys() == expected.keys()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in found.items())
    trainee, plain = (kind(model, drop_path=0.5).eval() for kind in (TokenTrainee, Trainee))
    assert torch.equal(trainee(tokens[0]), plain(pixels[:2]))


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_sixteen_bits_change_rounding_only(attention_type: str) -> None:
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(tiny(attention_type, num_hidden_layers=4))
    freeze(model, 2)
    pixels = pixels_of(model)
    losses, expected = gradients(Trainee(model), pixels)
    found_losses, found = gradients(TokenTrainee(model), tokens_of(model, pixels, 2).half())
    one, two = (torch.cat([all[name].flatten() for name in expected]) for all in (found, expected))
    assert 0 < float((one - two).norm()) < 2**-11 * float(two.norm())
    assert float((found_losses - losses).abs().max()) < 2e-4


def test_bf16_is_for_the_layers_only() -> None:
    model = frozen()
    tokens = tokens_of(model, pixels_of(model), 2).half()
    plain, rounded = (TokenTrainee(model, bf16=bf16).eval()(tokens) for bf16 in (False, True))
    assert plain.dtype == rounded.dtype == torch.float32
    assert 1e-4 < float((rounded - plain).detach().norm() / plain.detach().norm()) < 0.2


def test_frozen_weights_are_not_read() -> None:
    model = frozen()
    tokens = tokens_of(model, pixels_of(model), 2)
    expected = gradients(TokenTrainee(model), tokens)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.fill_(torch.nan)
    losses, found = gradients(TokenTrainee(model), tokens)
    assert torch.equal(losses, expected[0])
    assert all(torch.equal(gradient, expected[1][name]) for name, gradient in found.items())


def test_checkpoints_hold_what_is_trained(tmp_path: Path) -> None:
    model = frozen(num_labels=3, num_frames=2, image_size=16)
    before = copy.deepcopy(model.state_dict())
    optimiser = optimiser_of(model, 4, 1e-2)
    trainer = Trainer(Trainee(model).train(), optimiser, steps=2, seed=0, micro_batch=3)
    store = Store(tmp_path, TrainedPart(model), optimiser, resume=False)
    trainer.step(batch_of(1, [0, 1, 2]), 1, 1)
    store.keep(Progress(best=2.0, micro_batch=3, step=1, best_step=1, validated=1))
    store.close()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert store.best is not None
    state = read_state_dict(store.best)
    assert set(state) == trained
    after = copy.deepcopy(model.state_dict())
    assert {name for name in after if not torch.equal(after[name], before[name])} == trained
    # Into the network that a resumed run begins with.
    model.load_state_dict(before)
    store = Store(tmp_path, TrainedPart(model), optimiser, resume=True)
    store.close()
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    # And into the one that is handed on.
    model.load_state_dict(before)
    assert model.load_state_dict(state, strict=False).unexpected_keys == []
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
