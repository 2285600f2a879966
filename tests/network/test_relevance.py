"""Relevance against a network whose constants are held by hand, gradients against autograd, rollout against matrices.

Everything is float64; the tolerance is 1e-10.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from testing.networks import ALL_TYPES, assert_close, build, clip, tiny
from timesformer_cli.network import relevance as module
from timesformer_cli.network.relevance import (
    GRADIENT,
    RELEVANCE,
    gradcam,
    gradient,
    integrated_gradients,
    last_attention,
    relevance,
    rollout,
    trace,
)


def network_of(attention_type: str, **changes: Any) -> Any:
    return build(tiny(attention_type, **changes), dtype=torch.float64).requires_grad_(False)


def pixels_of(network: Any, **changes: Any) -> Tensor:
    return clip(network.config, dtype=torch.float64, **changes)


def towards(index: int, against: int | None = None) -> Tensor:
    direction = torch.zeros(5, dtype=torch.float64)
    direction[index] = 1
    if against is not None:
        direction[against] = -1
    return direction


def plain(network: Any, tokens: Tensor, frames: int, first: int = 0) -> Tensor:
    """The logits for the tokens that enter layer `first`, by the network itself."""
    for layer in network.timesformer.encoder.layer[first:]:
        tokens = layer(tokens, frames, False)[0]
    return network.classifier(network.timesformer.finish(tokens, frames)[:, 0])  # type: ignore[no-any-return]


class Held:
    """The network with the constants of its first call held in all later ones: what relevance is the gradient of.

    Products of two values become half the sum of each with the other held.
    """

    def __init__(self, network: Any, frames: int) -> None:
        self.network, self.frames = network, frames
        self.values: list[Tensor] = []
        self.place = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        self.place = 0
        encoder = self.network.timesformer
        for layer in encoder.encoder.layer:
            tokens = self.layer(layer, tokens)
        if self.network.config.attention_type == "space_only":
            tokens = tokens.unflatten(0, (-1, self.frames)).mean(1)
        return self.network.classifier(self.norm(encoder.layernorm, tokens[:, 0]))  # type: ignore[no-any-return]

    def held(self, make: Callable[[], Tensor]) -> Tensor:
        if self.place == len(self.values):
            self.values.append(make())
        self.place += 1
        return self.values[self.place - 1]

    def norm(self, norm: Any, x: Tensor) -> Tensor:
        deviation = self.held(lambda: (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt())
        return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias  # type: ignore[no-any-return]

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        first, second = self.held(lambda: a), self.held(lambda: b)
        return (a @ second + first @ b) / 2

    def attention(self, attention: Any, x: Tensor) -> Tensor:
        heads = attention.attention.num_heads
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in attention.attention.qkv(x).chunk(3, dim=-1)
        )
        weights = (self.product(q, k.transpose(2, 3)) / q.shape[-1] ** 0.5).softmax(-1)
        return attention.output.dense(self.product(weights, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def layer(self, layer: Any, tokens: Tensor) -> Tensor:
        if layer.divided:
            cls, x = tokens[:, :1], tokens[:, 1:].unflatten(1, (-1, self.frames))
            rows = self.attention(layer.temporal_attention, self.norm(layer.temporal_layernorm, x.flatten(0, 1)))
            x = x + layer.temporal_dense(rows).view_as(x)
            copies = cls.unsqueeze(1).repeat(1, self.frames, 1, 1)
            groups = torch.cat([copies, x.transpose(1, 2)], 2).flatten(0, 1)
            s = self.attention(layer.attention, self.norm(layer.layernorm_before, groups)).unflatten(
                0, copies.shape[:2]
            )
            cls = cls + s[:, :, 0].mean(1, keepdim=True)
            tokens = torch.cat([cls, (x + s[:, :, 1:].transpose(1, 2)).flatten(1, 2)], 1)
        else:
            tokens = tokens + self.attention(layer.attention, self.norm(layer.layernorm_before, tokens))
        inner = layer.intermediate.dense(self.norm(layer.layernorm_after, tokens))
        slope = self.held(lambda: layer.intermediate.activation(inner) / inner)
        return tokens + layer.output.dense(inner * slope)  # type: ignore[no-any-return]


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_a_trace_is_the_forward_pass(attention_type: str) -> None:
    network = network_of(attention_type)
    pixels = pixels_of(network, frames=3, size=(16, 24))
    traced, expected = trace(network, pixels), network(pixels, output_hidden_states=True)
    assert_close(traced.tokens, expected.hidden_states, 1e-10)
    assert_close(traced.logits, expected.logits, 1e-10)
    assert (traced.frames, traced.grid) == (3, (2, 3))


@pytest.mark.parametrize("attention_type", ALL_TYPES)
@pytest.mark.parametrize("layer", [0, 2])
def test_gradients_are_those_of_autograd(attention_type: str, layer: int) -> None:
    network = network_of(attention_type)
    traced = trace(network, pixels_of(network))
    tokens = traced.tokens[layer].clone().requires_grad_()
    (expected,) = torch.autograd.grad((plain(network, tokens, 4, layer) @ towards(1, 3)).sum(), tokens)
    assert_close(gradient(network, traced, towards(1, 3), GRADIENT, layer=layer), expected, 1e-10)


@pytest.mark.parametrize("attention_type", ALL_TYPES)
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_relevance_is_the_slope_of_the_network_with_its_constants_held(attention_type: str, activation: str) -> None:
    """By finite differences of it, along random ways, so with no code of autograd's."""
    network = network_of(attention_type, hidden_act=activation)
    traced = trace(network, pixels_of(network))
    found = gradient(network, traced, towards(2), RELEVANCE)
    held, start = Held(network, traced.frames), traced.tokens[0]
    assert_close(held(start), traced.logits, 1e-10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        way = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        rise = ((held(start + 1e-5 * way) - held(start - 1e-5 * way)) @ towards(2)).sum() / 2e-5
        assert float((found * way).sum()) == pytest.approx(float(rise), rel=1e-6)


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_nothing_of_a_logit_is_lost_without_biases_and_attention(attention_type: str) -> None:
    """Softmax and biases keep shares for themselves; without them the shares of all tokens are the logit."""
    network = network_of(attention_type)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "attention.output" in name:
            parameter.zero_()
    traced = trace(network, pixels_of(network))
    shares = traced.tokens[0] * gradient(network, traced, towards(0), RELEVANCE)
    total = shares.flatten(1).sum(1) if attention_type != "space_only" else shares.unflatten(0, (2, 4)).sum((1, 2, 3))
    assert_close(total, traced.logits[:, 0], 1e-10)
    assert float(traced.logits[:, 0].abs().min()) > 1e-3


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_a_product_gives_half_to_each_factor(attention_type: str) -> None:
    """Uniform attention moves values only: of a layer's share of the logit, half is that of the weights."""
    network = network_of(attention_type, num_hidden_layers=1)
    for name, parameter in network.named_parameters():
        if name.endswith(("bias", "qkv.weight")) or ".output.dense" in name or "temporal_dense" in name:
            parameter.zero_()
    layer = network.timesformer.encoder.layer[0]
    layer.attention.attention.qkv.weight[-24:] = torch.eye(24)
    layer.attention.output.dense.weight.copy_(torch.eye(24))
    traced = trace(network, pixels_of(network, batch=1))
    shares = traced.tokens[0] * gradient(network, traced, towards(0), RELEVANCE)
    cls = traced.tokens[0][:, 0]
    ones = network.timesformer.layernorm
    whole = network.timesformer.finish(traced.tokens[-1], traced.frames)[:, 0]
    scale = ones.weight * network.classifier.weight[0]
    deviation = traced.tokens[-1][:, 0].mean(0).var(unbiased=False).add(ones.eps).sqrt()
    kept = (cls.mean(0) - cls.mean()) / deviation @ scale  # what passes the layer by
    assert float(shares.sum()) == pytest.approx(float((whole[0] @ network.classifier.weight[0] + kept) / 2))


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_maps_of_views_do_not_depend_on_one_another_or_on_tiles(
    attention_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(attention_type)
    pixels = pixels_of(network, batch=3)
    maps, values = relevance(network, pixels, towards(1))
    assert maps.shape == (3, 4, 3, 3)
    assert_close(values, network(pixels).logits[:, 1], 1e-10)
    monkeypatch.setattr(module, "_ROOM", 1)
    for number in range(3):
        assert_close(relevance(network, pixels[number : number + 1], towards(1))[0], maps[number : number + 1], 1e-10)


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_integrated_gradients_add_up_and_find_the_one_patch_that_differs(attention_type: str) -> None:
    network = network_of(attention_type)
    baseline = pixels_of(network, batch=1)[0]
    pixels = baseline.clone()
    pixels[2, :, 8:16, 16:24] += 2  # frame 2, row 1, column 2
    found = integrated_gradients(network, pixels, baseline, towards(4, 0))
    expected = (network(pixels[None]).logits - network(baseline[None]).logits)[0] @ towards(4, 0)
    assert found.difference == pytest.approx(float(expected))
    assert float(found.map.sum()) == pytest.approx(float(expected), rel=0.02)
    assert found.map.nonzero().tolist() == [[2, 1, 2]]


def test_the_worst_part_of_the_way_is_halved_until_the_map_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("space_only", num_hidden_layers=1)
    pixels, baseline = pixels_of(network)
    found = integrated_gradients(network, pixels * 3, baseline, towards(0))
    assert 12 < found.points < 128
    assert found.adds_up
    assert float(found.map.sum()) == pytest.approx(found.difference, rel=0.02)
    monkeypatch.setattr(module, "_MOST_POINTS", 12)
    coarse = integrated_gradients(network, pixels * 3, baseline, towards(0))
    assert coarse.points == 12
    assert not coarse.adds_up
    assert float(coarse.map.sum()) != pytest.approx(found.difference, rel=0.02)


def test_noise_need_not_add_up() -> None:
    """The rounding of float32, which is not that of a straight way, is all that differs."""
    network = build(tiny("space_only")).requires_grad_(False)
    baseline = clip(network.config, batch=1)[0]
    found = integrated_gradients(network, baseline * (1 + 1e-6), baseline, towards(0).float())
    assert (found.points, found.adds_up) == (12, True)
    assert float(found.map.sum()) != pytest.approx(found.difference, rel=0.02)


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_gradcam_weighs_the_features_of_the_last_layer(attention_type: str) -> None:
    network = network_of(attention_type)
    pixels = pixels_of(network)
    tokens = network(pixels, output_hidden_states=True).hidden_states[-2].clone().requires_grad_()
    (found,) = torch.autograd.grad((plain(network, tokens, 4, 2) @ towards(1)).sum(), tokens)
    if attention_type == "space_only":  # to (B, T, N, D)
        tokens, found = (each[:, 1:].unflatten(0, (2, 4)) for each in (tokens, found))
    else:
        tokens, found = (each[:, 1:].unflatten(1, (9, 4)).transpose(1, 2) for each in (tokens, found))
    expected = (tokens * found.mean((1, 2), keepdim=True)).sum(-1).unflatten(2, (3, 3))
    assert_close(gradcam(network, pixels, towards(1)), expected.detach(), 1e-10)


@pytest.mark.parametrize("attention_type", ALL_TYPES)
def test_attention_is_what_the_network_returns(attention_type: str) -> None:
    network = network_of(attention_type)
    pixels = pixels_of(network)
    weights = network(pixels, output_attentions=True).attentions[-1].mean(1)[:, 0, 1:]
    if attention_type == "joint_space_time":
        expected = weights.unflatten(1, (9, 4)).transpose(1, 2).unflatten(2, (3, 3))
    else:
        expected = weights.unflatten(0, (2, 4)).unflatten(2, (3, 3))
    assert_close(last_attention(network, pixels), expected, 1e-10)


def matrix(space: Tensor, time: Tensor | None) -> Tensor:
    """What one layer of divided or joint attention passes on, (1 + N*T, 1 + N*T), half of it past each step."""
    eye = torch.eye(37, dtype=torch.float64)
    if time is None:
        return (eye + space[0]) / 2
    over_time, over_space = torch.zeros_like(eye), torch.zeros_like(eye)
    over_time[0, 0] = 1
    for n in range(9):
        own = slice(1 + 4 * n, 5 + 4 * n)
        over_time[own, own] = (torch.eye(4, dtype=torch.float64) + time[n]) / 2
    for t in range(4):
        own = torch.tensor([0, *range(1 + t, 37, 4)])
        over_space[0, own] += space[t, 0] / 4
        over_space[own[1:, None], own[None]] = space[t, 1:]
    return (eye + over_space) / 2 @ over_time


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_rollout_is_the_product_of_the_layers(attention_type: str) -> None:
    network = network_of(attention_type)
    pixels = pixels_of(network, batch=1)
    outputs = network(pixels, output_attentions=True)
    times = outputs.temporal_attentions or [None] * 3
    product = torch.eye(37, dtype=torch.float64)
    for space, time in zip(outputs.attentions, times, strict=True):
        product = matrix(space.mean(1), None if time is None else time.mean(1)) @ product
    expected = product[0, 1:].view(1, 3, 3, 4).permute(0, 3, 1, 2)
    assert_close(rollout(network, pixels), expected, 1e-10)


def test_rollout_of_single_frames_is_that_of_each() -> None:
    network = network_of("space_only")
    pixels = pixels_of(network)
    assert_close(rollout(network, pixels)[:, 1:2], rollout(network, pixels[:, 1:2]), 1e-10)


def test_maps_of_space_only_follow_their_frames() -> None:
    network = network_of("space_only")
    pixels = pixels_of(network)
    order = [2, 0, 3, 1]
    assert_close(
        relevance(network, pixels[:, order], towards(0))[0], relevance(network, pixels, towards(0))[0][:, order], 1e-10
    )
