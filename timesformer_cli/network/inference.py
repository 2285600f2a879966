"""The network for inference: the function of `model.py` up to rounding, with fewer operations and less memory.

What it saves does not affect the logits:

- the projection of temporal attention and `temporal_dense` follow directly on each other, so they are one matrix;
- in the last layer, only the class token is computed. Its query q replaces all keys, since
  q . (K x + b) = (K' q) . x + q . b, and softmax cancels the second term. Attention weights add up to one, so
  values are computed from one weighted sum of tokens;
- activations are computed for a few hundred tokens at a time, so they fit the processor's cache, and added in place.

`model.py` is the reference for tests, and the network for training. Shapes below use B videos, D = hidden size, H
heads, and G groups of L tokens, the class token first, that attend to each other in space. A group is one of the T
frames with its own class token; for joint attention, all frames are one group.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer_cli.network.model import ACTIVATIONS, Attention, Layer, TimesformerForVideoClassification

# Tokens per core that go through the parts of a layer at a time; more do not fit its cache.
_TILE = 1024

# Layers laid out at a time; only their weights are in memory twice.
_LAYERS_AT_A_TIME = 3


class InferenceNetwork:
    """The logits of a network in eval mode, on a device and in a dtype; the classifier keeps its own dtype.

    With `patches`, the last layer is computed for all tokens: then `frames` and `mean` are available, and nothing else.

    `open_model` opens the network; it is called again for every few layers. After they are laid out anew, the model
    is released, with the memory that its weights were mapped to: never are all weights in memory twice. It must
    return a model that may be changed.
    """

    def __init__(
        self,
        open_model: Callable[[], TimesformerForVideoClassification],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        patches: bool = False,
    ) -> None:
        model = open_model()
        config = model.config
        self._attention_type = config.attention_type
        self._embeddings = deepcopy(model.timesformer.embeddings).to(device, dtype)
        self._layernorm = deepcopy(model.timesformer.layernorm).to(device, dtype)
        self._classifier = deepcopy(model.classifier).to(device)
        self._layers: list[InferenceLayer] = []
        last = config.num_hidden_layers - 1
        for place in range(config.num_hidden_layers):
            if place and place % _LAYERS_AT_A_TIME == 0:
                model = open_model()
            layer = cast("Layer", model.timesformer.encoder.layer[place]).to(device, dtype)
            with torch.inference_mode():
                if place < last or patches:
                    self._layers.append(InferenceLayer(layer, config.hidden_act))
                else:
                    self._last = LastLayer(layer, config.hidden_act)

    @torch.inference_mode()
    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Logits (B, K) in the classifier's dtype, for normalised pixels (B, T, C, H, W)."""
        return self._classifier(self.embed(pixel_values))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def embed(self, pixel_values: Tensor) -> Tensor:
        """The class tokens (B, D) after the last LayerNorm, the classifier's input, in its dtype."""
        cls: Tensor = self._layernorm(self._last(self._encoded(pixel_values)).mean(1))
        return cls.to(self._classifier.weight.dtype)

    @torch.inference_mode()
    def both(self, pixel_values: Tensor) -> Tensor:
        """The class tokens, and behind them the logits (B, D + K)."""
        cls = self.embed(pixel_values)
        both: Tensor = torch.cat([cls, self._classifier(cls)], 1)
        return both

    @torch.inference_mode()
    def frames(self, pixel_values: Tensor) -> Tensor:
        """The mean of the patches of each frame after the last LayerNorm, (B, T, D) in the classifier's dtype."""
        patches = self._patches(pixel_values)
        return torch.stack([torch.stack([self._mean(frame) for frame in video]) for video in patches])

    @torch.inference_mode()
    def mean(self, pixel_values: Tensor) -> Tensor:
        """The mean of all patches after the last LayerNorm, (B, D) in the classifier's dtype.

        Without attention across frames, the patches of one place are averaged first, as `TimesformerModel` does.
        """
        if self._attention_type == "space_only":
            return torch.stack([self._mean(video.mean(0)) for video in self._patches(pixel_values)])
        return self.frames(pixel_values).mean(1)

    def _mean(self, patches: Tensor) -> Tensor:
        """(D,) of patches (N, D). It is summed in the wider dtype."""
        return self._layernorm(patches).to(self._classifier.weight.dtype).mean(0)  # type: ignore[no-any-return]

    def _patches(self, pixel_values: Tensor) -> Tensor:
        """All tokens except the class token before the last LayerNorm, (B, T, N, D)."""
        x = self._encoded(pixel_values)
        if self._attention_type == "joint_space_time":
            frames: Tensor = x[:, 0, 1:].unflatten(1, (pixel_values.shape[1], -1))
            return frames
        return x[:, :, 1:]

    def _encoded(self, pixel_values: Tensor) -> Tensor:
        """Tokens (B, G, L, D) after all layers, but without a last one that computes only class tokens."""
        x = self._tokens(pixel_values)
        for layer in self._layers:
            layer(x)
        return x

    @torch.inference_mode()
    def tokens_before(self, layer: int, pixel_values: Tensor) -> Tensor:
        """The tokens (B, L, D) that enter layer number `layer`, from 0, in the order of `model.py`.

        For space_only, those of the frames follow one another.
        """
        x = self._tokens(pixel_values)
        for each in self._layers[:layer]:
            each(x)
        if self._attention_type == "space_only":
            return x.flatten(1, 2)
        patches = x[:, :, 1:]
        if self._attention_type == "joint_space_time":
            patches = patches[:, 0].unflatten(1, (pixel_values.shape[1], -1))  # (B, T, N, D)
        return torch.cat([x[:, 0, :1], patches.transpose(1, 2).flatten(1, 2)], 1)

    def _tokens(self, pixel_values: Tensor) -> Tensor:
        """Tokens (B, G, L, D), contiguous in that order."""
        embeddings = self._embeddings
        project = embeddings.patch_embeddings.projection
        batch, frames = pixel_values.shape[:2]
        (height, width), (rows, columns) = pixel_values.shape[3:], project.kernel_size
        cls_position, position = embeddings.positions((height // rows, width // columns))
        joint = self._attention_type == "joint_space_time"
        patches, hidden = position.shape[1:]
        tokens = (1, 1 + frames * patches) if joint else (frames, 1 + patches)
        x = position.new_empty(batch, *tokens, hidden)
        x[:, :, 0] = embeddings.cls_token[0] + cls_position[0]
        within = x[:, 0, 1:].unflatten(1, (frames, patches)) if joint else x[:, :, 1:]  # (B, T, N, D)
        times = None if self._attention_type == "space_only" else embeddings.times(frames)
        size = max(_tokens_at_a_time(x) // patches, 1)
        for first in range(0, frames, size):
            part = pixel_values[:, first : first + size]
            added = position if times is None else position + times[:, first : first + size].unsqueeze(2)
            projected = project(part.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, part.shape[:2])
            within[:, first : first + size] = projected + added
        return x


class Linear:
    """A linear map, and optionally the network's activation, by oneDNN with a packed weight if it supports that."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> None:
        # oneDNN supports two of the activations, and applies them while the product is still in the cache.
        fused = {None: ("none", ""), "gelu": ("gelu", "none"), "gelu_new": ("gelu", "tanh"), "relu": ("relu", "")}
        self._packed = _packs(weight) and activation in fused
        self._activation = None if activation is None else ACTIVATIONS[activation]
        self._kind, self._algorithm = fused.get(activation, ("none", ""))
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight
        self._bias = deepcopy(bias)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
                x, self._weight, self._bias, self._kind, [], self._algorithm
            )
        x = F.linear(x, self._weight, self._bias)
        return x if self._activation is None else self._activation(x)


def _packs(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-any-return]
    return weight.dtype == torch.float32


class SelfAttention:
    """Attention within groups, and a linear map of its output."""

    def __init__(self, attention: Attention, weight: Tensor, bias: Tensor) -> None:
        qkv = attention.attention.qkv
        self._heads = attention.attention.num_heads
        self._qkv = Linear(qkv.weight, qkv.bias)
        self._output = Linear(weight, bias)

    def __call__(self, tokens: Tensor, groups: int) -> Tensor:
        """The update for tokens (A, B, D): attention along dimension 1 - `groups`, then the linear map."""
        qkv = self._qkv(tokens).unflatten(-1, (3, self._heads, -1))
        # Each has groups, heads, tokens, D/H.
        query, key, value = qkv.permute(2, groups, 3, 1 - groups, 4)
        context = F.scaled_dot_product_attention(query, key, value)
        context = context.permute(*((0, 2) if groups == 0 else (2, 0)), 1, 3).flatten(2)
        return self._output(context)


class Mlp:
    def __init__(self, layer: Layer, activation: str) -> None:
        self._layernorm = deepcopy(layer.layernorm_after)
        inner, outer = layer.intermediate.dense, layer.output.dense
        self._inner, self._outer = Linear(inner.weight, inner.bias, activation), Linear(outer.weight, outer.bias)

    def add(self, tokens: Tensor) -> None:
        """Add the update to tokens (..., D) in place."""
        tokens += self._outer(self._inner(self._layernorm(tokens)))


class TemporalAttention:
    """Attention of each patch to itself across the frames, with the two projections as one."""

    def __init__(self, layer: Layer) -> None:
        first, second = layer.temporal_attention.output.dense, layer.temporal_dense
        self._layernorm = deepcopy(layer.temporal_layernorm)
        outer = _wide(second.weight)
        weight, bias = outer @ _wide(first.weight), outer @ _wide(first.bias) + second.bias
        self._attention = SelfAttention(
            layer.temporal_attention, weight.to(second.weight.dtype), bias.to(second.bias.dtype)
        )

    def add(self, x: Tensor) -> None:
        """Add the update to the patches of tokens (B, T, L, D) in place."""
        patches = max(_tokens_at_a_time(x) // x.shape[1], 1)
        for video in x:
            for tile in video[:, 1:].split(patches, 1):  # (T, N', D)
                tile += self._attention(self._layernorm(tile), 1)


class InferenceLayer:
    """One block of the encoder."""

    def __init__(self, layer: Layer, activation: str) -> None:
        self._temporal = TemporalAttention(layer) if layer.divided else None
        self._layernorm = deepcopy(layer.layernorm_before)
        output = layer.attention.output.dense
        self._attention = SelfAttention(layer.attention, output.weight, output.bias)
        self._mlp = Mlp(layer, activation)

    def __call__(self, x: Tensor) -> None:
        """Change tokens (B, G, L, D) in place."""
        if self._temporal is not None:
            self._temporal.add(x)
        for tile in x.flatten(0, 1).split(_groups_at_a_time(x)):
            tile += self._attention(self._layernorm(tile), 0)
        if self._temporal is not None:  # average the frames' copies of the class token
            x[:, :, 0] = x[:, :, 0].mean(1, keepdim=True)
        for tile in x.flatten(0, 2).split(_tokens_at_a_time(x)):
            self._mlp.add(tile)


class LastLayer:
    """The last block, for class tokens only. Its attention computes in float32, as the kernels for whole layers do."""

    def __init__(self, layer: Layer, activation: str) -> None:
        self._temporal = TemporalAttention(layer) if layer.divided else None
        self._layernorm = deepcopy(layer.layernorm_before)
        qkv, heads = layer.attention.attention.qkv, layer.attention.attention.num_heads
        bias = torch.zeros_like(qkv.weight[:, 0]) if qkv.bias is None else qkv.bias
        self._query, self._key, self._value = _wide(qkv.weight).unflatten(0, (3, heads, -1)).clone()  # (H, D/H, D)
        self._query_bias, _, self._value_bias = _wide(bias).unflatten(0, (3, heads, -1)).clone()  # (H, D/H)
        self._output = deepcopy(layer.attention.output)
        self._mlp = Mlp(layer, activation)

    def __call__(self, x: Tensor) -> Tensor:
        """Class tokens (B, G, D) of tokens (B, G, L, D); (B, 1, D) if the frames share one."""
        if self._temporal is not None:
            self._temporal.add(x)
        cls = x[:, :, 0] if self._temporal is None else x[:, :1, 0]
        query = torch.einsum("bgc,hdc->bghd", _wide(self._layernorm(cls)), self._query) + self._query_bias
        query = torch.einsum("bghd,hdc->bghc", query * query.shape[-1] ** -0.5, self._key)
        query = query.expand(-1, x.shape[1], -1, -1).flatten(0, 1)  # (B*G, H, D)
        size = _groups_at_a_time(x)
        sums = []
        for tile, part in zip(x.flatten(0, 1).split(size), query.split(size), strict=True):
            tokens = _wide(self._layernorm(tile))
            sums.append((part @ tokens.transpose(1, 2)).softmax(-1) @ tokens)
        context = torch.cat(sums).unflatten(0, x.shape[:2])  # (B, G, H, D)
        if self._temporal is not None:
            context = context.mean(1, keepdim=True)
        context = torch.einsum("bghc,hdc->bghd", context, self._value) + self._value_bias
        cls = torch.add(cls, self._output(context.flatten(2).to(x.dtype)))
        self._mlp.add(cls)
        return cls


def _wide(x: Tensor) -> Tensor:
    """In float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _tokens_at_a_time(x: Tensor) -> int:
    """A GPU takes all of them, since it works on more at a time."""
    return _TILE * torch.get_num_threads() if x.device.type == "cpu" else x.shape[:-1].numel()


def _groups_at_a_time(x: Tensor) -> int:
    return max(_tokens_at_a_time(x) // x.shape[2], 1)
