"""The network as it is run against the plain one of `model.py`, tensor by tensor."""

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.network import inference
from timesformer_cli.network.inference import InferenceNetwork, Linear

# Float32 against float32, of logits whose largest is about 1: rounding alone.
TOLERANCE = 1e-5

ATTENTIONS = ["divided_space_time", "joint_space_time", "space_only"]


def random_model(**changes: Any) -> TimesformerForVideoClassification:
    """Tiny, in eval mode, with no weight at zero or one, where a term left out would not be seen."""
    sizes: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 8,
        "num_frames": 4,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "num_labels": 7,
    }
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(TimesformerConfig(**(sizes | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def pixels(model: TimesformerForVideoClassification, count: int = 2, *, frames: int = 4, size: int = 32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, frames, model.config.num_channels, size, size)


def assert_equal(model: TimesformerForVideoClassification, views: Tensor) -> None:
    with torch.inference_mode():
        expected = model(views).logits
    torch.testing.assert_close(InferenceNetwork(lambda: model)(views), expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.fixture(params=["packed", "plain"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products by oneDNN, and those of other devices."""
    if request.param == "plain":
        monkeypatch.setattr(inference, "_packs", lambda _: False)


@pytest.fixture(params=[1, 7, 10**6])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a token or a group each, of some with a remainder, and one of all as on a GPU."""
    monkeypatch.setattr(inference, "_TILE", request.param)


@pytest.mark.usefixtures("products", "tile")
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_logits_are_those_of_the_plain_network(attention: str) -> None:
    model = random_model(attention_type=attention)
    assert_equal(model, pixels(model, 3))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("frames", "size"), [(1, 32), (6, 32), (4, 48), (4, 37)])
def test_other_frames_and_sizes(attention: str, frames: int, size: int) -> None:
    """Embeddings are interpolated; of 37 pixels the last five are not seen."""
    model = random_model(attention_type=attention)
    assert_equal(model, pixels(model, frames=frames, size=size))


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 1}, {"qkv_bias": False}, {"num_channels": 1}, {"patch_size": (8, 16)}],
    ids=str,
)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_other_shapes(attention: str, changes: dict[str, Any]) -> None:
    model = random_model(attention_type=attention, **changes)
    assert_equal(model, pixels(model))


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "quick_gelu", "silu"])
def test_activations(activation: str) -> None:
    model = random_model(hidden_act=activation)
    assert_equal(model, pixels(model))


@pytest.mark.parametrize("name", ["time_embeddings", "cls_token", "temporal_dense.bias", "output.dense.bias"])
def test_a_difference_would_be_seen(name: str) -> None:
    """The control: what a small part of the network does is far more than the tolerance."""
    model = random_model()
    views = pixels(model)
    before = InferenceNetwork(lambda: model)(views)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(name):
                parameter.mul_(1.01)
    assert (InferenceNetwork(lambda: model)(views) - before).abs().max() > 20 * TOLERANCE


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("frames", "size"), [(4, 32), (3, 40)])
def test_tokens_between_layers(attention: str, frames: int, size: int) -> None:
    model = random_model(attention_type=attention)
    views = pixels(model, frames=frames, size=size)
    with torch.inference_mode():
        states = model.timesformer(views, output_hidden_states=True).hidden_states
    assert states is not None
    network = InferenceNetwork(lambda: model)
    for layer, expected in enumerate(states[:-1]):
        found = network.tokens_before(layer, views)
        torch.testing.assert_close(found, expected.reshape(len(views), -1, 24), rtol=TOLERANCE, atol=TOLERANCE)


def test_float64() -> None:
    """Where rounding is no excuse."""
    model = random_model().double()
    views = pixels(model).double()
    with torch.inference_mode():
        expected = model(views).logits
    torch.testing.assert_close(
        InferenceNetwork(lambda: model, dtype=torch.float64)(views), expected, rtol=1e-12, atol=1e-12
    )


def test_bfloat16_with_a_head_in_float32() -> None:
    model = random_model()
    views = pixels(model)
    expected = InferenceNetwork(lambda: model)(views)
    logits = InferenceNetwork(lambda: model, dtype=torch.bfloat16)(views.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)


def test_the_pixels_and_the_model_stay_as_they_are() -> None:
    model = random_model()
    views = pixels(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = views.clone()
    InferenceNetwork(lambda: model)(views)
    assert torch.equal(views, kept)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_nothing_of_the_old_weights_is_kept() -> None:
    """The memory that a checkpoint is mapped to can go."""
    model = random_model()
    network = InferenceNetwork(lambda: model)
    old = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(network)}
    assert kept
    assert not kept & old


def test_never_all_weights_twice() -> None:
    """Seven layers are taken from three models, each gone when the next is looked at."""
    model = random_model(num_hidden_layers=7)
    views = pixels(model)
    opened: list[weakref.ref[TimesformerForVideoClassification]] = []

    def open_model() -> TimesformerForVideoClassification:
        another = deepcopy(model)
        opened.append(weakref.ref(another))
        return another

    network = InferenceNetwork(open_model)
    assert len(opened) == 3
    gc.collect()
    assert not any(reference() for reference in opened)
    torch.testing.assert_close(network(views), InferenceNetwork(lambda: model)(views))


def tensors_of(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [] if value.is_mkldnn else [value]
    if isinstance(value, nn.Module):
        return list(value.state_dict().values())
    children = value if isinstance(value, list) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for child in children for tensor in tensors_of(child)]


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_new", "relu", "quick_gelu"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_linear_map(monkeypatch: pytest.MonkeyPatch, activation: str | None, with_bias: bool) -> None:
    torch.manual_seed(2)
    weight, bias, x = torch.randn(5, 8), torch.randn(5) if with_bias else None, torch.randn(2, 3, 8)
    packed = Linear(weight, bias, activation)
    maps: list[Callable[[Tensor], Tensor]] = [packed]
    monkeypatch.setattr(inference, "_packs", lambda _: False)
    maps.append(Linear(weight, bias, activation))
    one, other = (linear(x) for linear in maps)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("products", "tile")
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_patches_are_those_of_the_plain_network(attention: str) -> None:
    model = random_model(attention_type=attention)
    views = pixels(model, 3)
    network = InferenceNetwork(lambda: model, patches=True)
    with torch.inference_mode():
        patches = model.timesformer(views).last_hidden_state[:, 1:]
    torch.testing.assert_close(network.mean(views), patches.mean(1), rtol=TOLERANCE, atol=TOLERANCE)
    frames = network.frames(views)
    assert frames.shape == (3, 4, 24)
    if attention != "space_only":
        by_frame = patches.unflatten(1, (16, 4)).mean(1)
    else:  # nothing goes from one frame to another
        with torch.inference_mode():
            single = [model.timesformer(views[:, [number]]).last_hidden_state[:, 1:].mean(1) for number in range(4)]
        by_frame = torch.stack(single, 1)
    torch.testing.assert_close(frames, by_frame, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_both_are_class_tokens_and_logits(attention: str) -> None:
    model = random_model(attention_type=attention)
    views = pixels(model, 3)
    network = InferenceNetwork(lambda: model)
    assert torch.equal(network.both(views), torch.cat([network.embed(views), network(views)], 1))
