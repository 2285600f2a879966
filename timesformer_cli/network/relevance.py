"""Which patches a logit comes from: layer-wise relevance, integrated gradients, Grad-CAM and attention.

Relevance is that of AttnLRP (Achtibat et al., 2024). It is written as the product of each token and a gradient, which
the rules of `RELEVANCE` change on its way back: the deviations of normalisations and the slopes of activations are
constants, and a product of two values gives half to each. With `GRADIENT` the same code computes plain gradients.

Only the tokens that enter each layer are kept. On the way back, layers are computed again, one residual branch of one
layer at a time, and a branch in tiles; so memory is that of a forward pass and the tokens, at any size of the network.

Shapes below use B views, T frames, R rows and C columns of patches, N = R*C, D = hidden size, K classes. Networks are
in eval mode. Tokens are as in `model.py`, those of space_only (B*T, 1 + N, D).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from timesformer_cli.network.model import Attention, Layer, TimesformerForVideoClassification

# Numbers that the graph of one tile may hold, about; a tile has at least one group of tokens.
_ROOM = 2**26

# Integrated gradients: parts of the way at first, points of Gauss and Legendre in each, and the most points in all.
_PARTS, _POINTS, _MOST_POINTS = 3, 4, 128

# So close must a map of integrated gradients add up, as a share of the difference of the logits; and in logits, so that
# noise need not add up.
ADDS_UP, _NOISE = 0.02, 1e-4


class Rules(NamedTuple):
    """How gradients pass through what is not linear."""

    normalise: Callable[[nn.LayerNorm, Tensor], Tensor]
    activate: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
    share: Callable[[Tensor], Tensor]  # of a factor in a product of two


def _constant_deviation(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    deviation = (x.detach().var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias


def _constant_slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    value = x.detach()
    # Near zero the quotient would be lost in rounding; a slope of zero there costs no relevance.
    slope = torch.where(value.abs() > 1e-6, activation(value) / value, torch.zeros_like(value))
    return x * slope


def _half(x: Tensor) -> Tensor:
    return (x + x.detach()) / 2


GRADIENT = Rules(lambda norm, x: norm(x), lambda activation, x: activation(x), lambda x: x)
RELEVANCE = Rules(_constant_deviation, _constant_slope, _half)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One forward pass: `tokens` that enter each layer, then those that leave the last; `logits` (B, K).

    `frames` is T, and `grid` is (R, C).
    """

    tokens: list[Tensor]
    logits: Tensor
    frames: int
    grid: tuple[int, int]


@torch.no_grad()
def trace(network: TimesformerForVideoClassification, pixels: Tensor) -> Trace:
    """The forward pass for normalised pixels (B, T, C, H, W)."""
    encoder, config = network.timesformer, network.config
    frames = pixels.shape[1]
    tokens = [encoder.embeddings(pixels, config.attention_type == "space_only")]
    for layer in _layers(network):
        tokens.append(_after(layer, tokens[-1], frames))
    logits = network.classifier(encoder.finish(tokens[-1], frames)[:, 0])
    rows, columns = (side // patch for side, patch in zip(pixels.shape[3:], config.patch_hw, strict=True))
    return Trace(tokens, logits, frames, (rows, columns))


def gradient(
    network: TimesformerForVideoClassification, traced: Trace, direction: Tensor, rules: Rules, *, layer: int = 0
) -> Tensor:
    """The gradient of `logits @ direction`, by the rules, at the tokens that enter layer number `layer`.

    `direction` (K,) weighs the logits: 1 at a class, and -1 at another for the difference of the two.
    """
    found = _at_the_head(network, traced, direction, rules)
    for each, tokens in reversed(list(zip(_layers(network), traced.tokens[:-1], strict=True))[layer:]):
        found = _before(each, tokens, traced.frames, found, rules)
    return found


def relevance(network: TimesformerForVideoClassification, pixels: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The share (B, T, R, C) of each patch in `logits @ direction`, signed, and that product (B,).

    Shares include those of the embeddings of place and time. Those of biases and of the class token go to no patch, so
    the sum differs from the product.
    """
    traced = trace(network, pixels)
    shares = traced.tokens[0] * gradient(network, traced, direction, RELEVANCE)
    return _on_grid(shares.sum(-1), traced), traced.logits @ direction


class Integrated(NamedTuple):
    """A map (T, R, C); the difference of the logits that it should add up to; and the points that it took.

    `adds_up`: whether it does, within `ADDS_UP`. If not, it took as many points as it may.
    """

    map: Tensor
    difference: float
    points: int
    adds_up: bool


def integrated_gradients(
    network: TimesformerForVideoClassification, pixels: Tensor, baseline: Tensor, direction: Tensor
) -> Integrated:
    """How much each patch adds to `logits @ direction` on the straight way from `baseline` to `pixels`, (T, C, H, W).

    Patch embeddings are linear in the pixels, so gradients are taken at the tokens. The logits at both ends of a part
    of the way tell how wrong its integral is: the worst part is halved until the map adds up, within `ADDS_UP`, or has
    taken 128 points.
    """

    def at(place: float) -> Trace:
        return trace(network, torch.lerp(baseline, pixels, place)[None])

    first, last = at(0), at(1)
    step = last.tokens[0] - first.tokens[0]
    values = {0.0: float((first.logits @ direction)[0]), 1.0: float((last.logits @ direction)[0])}
    difference = values[1.0] - values[0.0]
    nodes, weights = (each.tolist() for each in np.polynomial.legendre.leggauss(_POINTS))

    def part(start: float, end: float) -> tuple[float, float, Tensor, float]:
        """Both ends of a part, its integral, and the error of that."""
        for place in (start, end):
            if place not in values:
                values[place] = float((at(place).logits @ direction)[0])
        half = (end - start) / 2
        total = torch.zeros_like(step)
        for node, weight in zip(nodes, weights, strict=True):
            total += weight * half * gradient(network, at(start + half * (node + 1)), direction, GRADIENT)
        shares = (step * total).sum(-1)
        return start, end, shares, float(shares.sum()) - (values[end] - values[start])

    def adds_up() -> bool:
        return abs(sum(each[3] for each in parts)) <= max(ADDS_UP * abs(difference), _NOISE)

    parts = [part(number / _PARTS, (number + 1) / _PARTS) for number in range(_PARTS)]
    while not adds_up() and len(parts) * _POINTS < _MOST_POINTS:
        start, end, *_ = worst = max(parts, key=lambda each: abs(each[3]))
        parts = [each for each in parts if each is not worst]
        parts += [part(start, (start + end) / 2), part((start + end) / 2, end)]
    found = torch.stack([each[2] for each in parts]).sum(0)
    return Integrated(_on_grid(found, last)[0], difference, len(parts) * _POINTS, adds_up())


def gradcam(network: TimesformerForVideoClassification, pixels: Tensor, direction: Tensor) -> Tensor:
    """Grad-CAM (B, T, R, C) of the tokens that enter the last layer, signed."""
    traced = trace(network, pixels)
    last = network.config.num_hidden_layers - 1
    tokens, found = traced.tokens[last], gradient(network, traced, direction, GRADIENT, layer=last)
    if network.config.attention_type == "space_only":
        tokens, found = (each.unflatten(0, (-1, traced.frames)).flatten(1, 2) for each in (tokens, found))
        patches = torch.arange(tokens.shape[1], device=tokens.device) % (traced.grid[0] * traced.grid[1] + 1) != 0
        values = (tokens * found[:, patches].mean(1, keepdim=True)).sum(-1)
        return _on_grid(values.unflatten(1, (traced.frames, -1)).flatten(0, 1), traced)
    return _on_grid((tokens * found[:, 1:].mean(1, keepdim=True)).sum(-1), traced)


@torch.no_grad()
def last_attention(network: TimesformerForVideoClassification, pixels: Tensor) -> Tensor:
    """The attention (B, T, R, C) of the class token in space in the last layer, the mean of the heads."""
    traced = trace(network, pixels)
    last = network.config.num_hidden_layers - 1
    _, spatial, _ = network.timesformer.run_layer(last, traced.tokens[last], traced.frames, output_attentions=True)
    weights = cast("Tensor", spatial).mean(1)[:, 0]  # (B*T, 1 + N), or (B, 1 + N*T) of joint attention
    if network.config.attention_type == "joint_space_time":
        return _on_grid(weights, traced)
    return weights[:, 1:].unflatten(0, (-1, traced.frames)).unflatten(2, traced.grid)  # type: ignore[no-any-return]


@torch.no_grad()
def rollout(network: TimesformerForVideoClassification, pixels: Tensor) -> Tensor:
    """Attention rollout (B, T, R, C): the way of the class token back through all layers, half of it past each.

    Divided attention goes back through space and then through time.
    """
    traced = trace(network, pixels)
    rows = torch.zeros_like(traced.tokens[0][..., 0])
    rows[:, 0] = 1
    for number in reversed(range(network.config.num_hidden_layers)):
        _, spatial, temporal = network.timesformer.run_layer(
            number, traced.tokens[number], traced.frames, output_attentions=True
        )
        space = cast("Tensor", spatial).mean(1)
        if temporal is None:
            rows = rows / 2 + torch.einsum("bq,bqk->bk", rows, space) / 2
        else:
            rows = _rolled(rows, space, temporal.mean(1), traced.frames)
    return _on_grid(rows, traced)


def _rolled(rows: Tensor, space: Tensor, time: Tensor, frames: int) -> Tensor:
    """Rows (B, 1 + N*T) back through divided attention: `space` (B*T, 1 + N, 1 + N), `time` (B*N, T, T)."""
    cls, patches = rows[:, :1], rows[:, 1:].unflatten(1, (-1, frames))
    split = torch.cat([cls.unsqueeze(1).expand(-1, frames, -1) / frames, patches.transpose(1, 2)], 2)
    back = torch.einsum("btq,btqk->btk", split, space.unflatten(0, (-1, frames)))
    cls, patches = cls / 2 + back[:, :, 0].sum(1, keepdim=True) / 2, (patches + back[:, :, 1:].transpose(1, 2)) / 2
    later = torch.einsum("bnq,bnqk->bnk", patches, time.unflatten(0, (len(rows), -1)))
    return torch.cat([cls, (patches / 2 + later / 2).flatten(1)], 1)


def _layers(network: TimesformerForVideoClassification) -> Iterator[Layer]:
    return (cast("Layer", layer) for layer in network.timesformer.encoder.layer)


def _on_grid(values: Tensor, traced: Trace) -> Tensor:
    """Values of tokens, (B, 1 + N*T) or (B*T, 1 + N), as (B, T, R, C), without that of the class token."""
    patches = values[:, 1:]
    if patches.shape[1] == traced.grid[0] * traced.grid[1] and len(values) == len(traced.logits) * traced.frames:
        return patches.unflatten(1, traced.grid).unflatten(0, (-1, traced.frames))  # type: ignore[no-any-return]
    return patches.unflatten(1, (-1, traced.frames)).transpose(1, 2).unflatten(2, traced.grid)  # type: ignore[no-any-return]


def _at_the_head(network: TimesformerForVideoClassification, traced: Trace, direction: Tensor, rules: Rules) -> Tensor:
    """The gradient at the tokens that leave the last layer."""
    tokens = traced.tokens[-1]
    per_frame = network.config.attention_type == "space_only"
    found = torch.zeros_like(tokens)
    with torch.enable_grad():
        cls = tokens[:, 0].detach().requires_grad_()
        whole = cls.unflatten(0, (-1, traced.frames)).mean(1) if per_frame else cls
        value = network.classifier(rules.normalise(network.timesformer.layernorm, whole)) @ direction
        (found[:, 0],) = torch.autograd.grad(value.sum(), cls)
    return found


def _after(layer: Layer, tokens: Tensor, frames: int) -> Tensor:
    """The tokens that leave a layer."""
    return cast("Tensor", layer(tokens, frames, False)[0])


def _before(layer: Layer, tokens: Tensor, frames: int, after: Tensor, rules: Rules) -> Tensor:
    """The gradient at the tokens that enter a layer, from that at those that leave it."""

    def space(x: Tensor) -> Tensor:
        return _attended(layer.attention, rules.normalise(layer.layernorm_before, x), rules)

    def time(x: Tensor) -> Tensor:
        attended = _attended(layer.temporal_attention, rules.normalise(layer.temporal_layernorm, x), rules)
        return cast("Tensor", layer.temporal_dense(attended))

    def mlp(x: Tensor) -> Tensor:
        inner = layer.intermediate.dense(rules.normalise(layer.layernorm_after, x))
        return cast("Tensor", layer.output(rules.activate(layer.intermediate.activation, inner)))

    if not layer.divided:
        between = tokens + _forward(space, tokens)
        after = after + _back(mlp, between, after)
        return after + _back(space, tokens, after)
    patches = tokens[:, 1:].unflatten(1, (-1, frames))  # (B, N, T, D)
    timed = patches + _forward(time, patches.flatten(0, 1)).view_as(patches)
    groups = _grouped(tokens[:, :1].expand(-1, frames, -1), timed)  # (B*T, 1 + N, D)
    spaced = _forward(space, groups).unflatten(0, (-1, frames))
    cls = tokens[:, :1] + spaced[:, :, 0].mean(1, keepdim=True)
    between = torch.cat([cls, (timed + spaced[:, :, 1:].transpose(1, 2)).flatten(1, 2)], 1)
    after = after + _back(mlp, between, after)

    at_cls, at_patches = after[:, :1], after[:, 1:].unflatten(1, (-1, frames))
    given = _grouped(at_cls.expand(-1, frames, -1) / frames, at_patches)  # the copies are averaged
    found = _back(space, groups, given).unflatten(0, (-1, frames))
    at_cls = at_cls + found[:, :, 0].sum(1, keepdim=True)
    at_patches = at_patches + found[:, :, 1:].transpose(1, 2)
    at_patches = at_patches + _back(time, patches.flatten(0, 1), at_patches.flatten(0, 1)).view_as(patches)
    return torch.cat([at_cls, at_patches.flatten(1, 2)], 1)


def _grouped(cls: Tensor, patches: Tensor) -> Tensor:
    """The frames (B*T, 1 + N, D), each with its copy of the class token (B, T, D), of patches (B, N, T, D)."""
    return torch.cat([cls.unsqueeze(2), patches.transpose(1, 2)], 2).flatten(0, 1)


def _attended(attention: Attention, x: Tensor, rules: Rules) -> Tensor:
    """Attention within the groups of x (G, L, D), with the linear map of its output."""
    inner = attention.attention
    query, key, value = inner.qkv(x).unflatten(-1, (3, inner.num_heads, -1)).permute(2, 0, 3, 1, 4)
    products = rules.share(query) @ rules.share(key).transpose(-2, -1)
    weights = (products * query.shape[-1] ** -0.5).softmax(-1)
    context = rules.share(weights) @ rules.share(value)
    return cast("Tensor", attention.output(context.transpose(1, 2).flatten(2)))


def _tiles(x: Tensor) -> int:
    """How many of the groups (G, L, D) go through a branch at a time, for any number of heads up to 16."""
    length, width = x.shape[1:]
    return max(_ROOM // (length * (16 * width + 64 * length)), 1)


@torch.no_grad()
def _forward(branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([branch(tile) for tile in x.split(_tiles(x))])


def _back(branch: Callable[[Tensor], Tensor], x: Tensor, after: Tensor) -> Tensor:
    """The gradient at the input x (G, L, D) of a branch, from that at its output."""
    found = []
    size = _tiles(x)
    for tile, given in zip(x.split(size), after.split(size), strict=True):
        with torch.enable_grad():
            leaf = tile.detach().requires_grad_()
            found += torch.autograd.grad(branch(leaf), leaf, given)
    return torch.cat(found)
