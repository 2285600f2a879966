"""Checkpoints as the original code and mmaction2 write them, made without the package's own tables.

`original_state` and `mmaction2_state` rename by replacing parts of names, one after the other. `Original` and
`Mmaction2` are the two networks in the structure of their code, small and slow: the names of their state dicts follow
from their modules, and their outputs show which module is which.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer_cli.specs import TimesformerConfig

_EMBEDDINGS = [
    ("timesformer.", ""),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.time_embeddings", "time_embed"),
    ("embeddings.cls_token", "cls_token"),
]
_ORIGINAL = [
    *_EMBEDDINGS,
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."),
    ("temporal_attention.attention.", "temporal_attn."),
    ("temporal_attention.output.dense", "temporal_attn.proj"),
    ("attention.attention.", "attn."),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("temporal_layernorm", "temporal_norm1"),
    ("temporal_dense", "temporal_fc"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("layernorm", "norm"),
    ("classifier", "head"),
]
_MMACTION2 = [
    *_EMBEDDINGS,
    ("embeddings.patch_embeddings.projection", "patch_embed.projection"),
    ("encoder.layer.", "transformer_layers.layers."),
    ("temporal_attention.attention.qkv.", "attentions.0.attn.in_proj_"),
    ("temporal_attention.output.dense", "attentions.0.attn.out_proj"),
    ("temporal_layernorm", "attentions.0.norm"),
    ("temporal_dense", "attentions.0.temporal_fc"),
    ("attention.attention.qkv.", "attentions.SPACE.attn.in_proj_"),
    ("attention.output.dense", "attentions.SPACE.attn.out_proj"),
    ("intermediate.dense", "ffns.0.layers.0.0"),
    ("output.dense", "ffns.0.layers.1"),
]
_MMACTION2_NORMS = {
    True: [("layernorm_before", "attentions.1.norm"), ("layernorm_after", "ffns.0.norm"), ("SPACE", "1")],
    False: [("layernorm_before", "norms.0"), ("layernorm_after", "norms.1"), ("SPACE", "0")],
}


def original_state(hub: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the Hub's classification state dict, under the names in a .pyth file."""
    return {"model." + _replaced(name, _ORIGINAL): tensor for name, tensor in hub.items()}


def mmaction2_state(hub: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under the names in a .pth file of mmaction2."""
    divided = any("temporal_dense" in name for name in hub)
    steps = [*_MMACTION2, *_MMACTION2_NORMS[divided], ("layernorm", "norm")]
    state = {"backbone." + _replaced(name, steps): tensor for name, tensor in hub.items()}
    return {name.replace("backbone.classifier", "cls_head.fc_cls"): tensor for name, tensor in state.items()}


def _replaced(name: str, steps: list[tuple[str, str]]) -> str:
    for old, new in steps:
        name = name.replace(old, new)
    return name


def save_pyth(path: Path, hub: Mapping[str, Tensor], **beside: Any) -> Path:
    """A file as the original code saves it, with an optimizer; `beside` gives further entries, such as `cfg`."""
    state = original_state(hub)
    momentum = {i: {"momentum_buffer": torch.zeros_like(tensor)} for i, tensor in enumerate(state.values())}
    groups = [{"lr": 0.005, "momentum": 0.9, "nesterov": True, "params": list(momentum)}]
    optimizer = {"state": momentum, "param_groups": groups}
    torch.save({"epoch": 14, "model_state": state, "optimizer_state": optimizer, **beside}, path)
    return path


def save_mmaction2(path: Path, hub: Mapping[str, Tensor], **meta: Any) -> Path:
    """A file as mmaction2 publishes it; `meta` as in version 1, with `dataset_meta` and `cfg`, or as in version 0."""
    torch.save({"meta": {"epoch": 15, "iter": 4, **meta}, "state_dict": mmaction2_state(hub)}, path)
    return path


class _Block(nn.Module):
    """One layer: three maps from sequences (..., L, D) to what is added to them, under a layout's names."""

    def temporal(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def spatial(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def feed_forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class _OriginalAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        weights = torch.einsum("...qhd,...khd->...hqk", query, key) / query.shape[-1] ** 0.5
        return self.proj(torch.einsum("...hqk,...khd->...qhd", weights.softmax(-1), value).flatten(-2))


class _OriginalMlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _OriginalBlock(_Block):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), _OriginalAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), _OriginalMlp(width, config.intermediate_size)
        if config.attention_type == "divided_space_time":
            self.temporal_norm1, self.temporal_attn = nn.LayerNorm(width, eps=1e-6), _OriginalAttention(width, heads)
            self.temporal_fc = nn.Linear(width, width)

    def temporal(self, x: Tensor) -> Tensor:
        return self.temporal_fc(self.temporal_attn(self.temporal_norm1(x)))

    def spatial(self, x: Tensor) -> Tensor:
        return self.attn(self.norm1(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))


class _MultiHead(nn.Module):
    """mmcv's wrapper: torch's attention, here for sequences with any leading dimensions."""

    def __init__(self, config: TimesformerConfig, normed: bool, mixed: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.attn = nn.MultiheadAttention(width, config.num_attention_heads, batch_first=True)
        if normed:
            self.norm = nn.LayerNorm(width, eps=1e-6)
        if mixed:
            self.temporal_fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -3)
        return self.attn(flat, flat, flat, need_weights=False)[0].view_as(x)


class _FeedForward(nn.Module):
    def __init__(self, config: TimesformerConfig, normed: bool) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Linear(config.hidden_size, config.intermediate_size), nn.GELU())
        self.layers = nn.Sequential(inner, nn.Linear(config.intermediate_size, config.hidden_size))
        if normed:
            self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)


class _Mmaction2Block(_Block):
    """Divided: temporal attention, spatial attention, then the layers, each normed inside. Others: two outer norms."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.divided = config.attention_type == "divided_space_time"
        self.attentions = nn.ModuleList([_MultiHead(config, self.divided, self.divided)])
        if self.divided:
            self.attentions.append(_MultiHead(config, normed=True, mixed=False))
        else:
            self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size, eps=1e-6) for _ in range(2))
        self.ffns = nn.ModuleList([_FeedForward(config, self.divided)])

    def temporal(self, x: Tensor) -> Tensor:
        first: Any = self.attentions[0]
        return first.temporal_fc(first(first.norm(x)))

    def spatial(self, x: Tensor) -> Tensor:
        last: Any = self.attentions[-1]
        return last((last.norm if self.divided else self.norms[0])(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        ffn: Any = self.ffns[0]
        return ffn.layers((ffn.norm if self.divided else self.norms[1])(x))


class _Encoder(nn.Module):
    """From videos (B, C, T, H, W) to the class token (B, D)."""

    def __init__(self, config: TimesformerConfig, patches: str) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_hw
        self.kind, self.projection = config.attention_type, patches
        self.patch_embed = nn.ModuleDict({patches: nn.Conv2d(config.num_channels, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.grid[0] * config.grid[1], width))
        if self.kind != "space_only":
            self.time_embed = nn.Parameter(torch.empty(1, config.num_frames, width))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def encode(self, videos: Tensor, blocks: Any) -> Tensor:
        frames = videos.shape[2]
        x = self.patch_embed[self.projection](videos.transpose(1, 2).flatten(0, 1)).flatten(2).transpose(1, 2)
        x = (x + self.pos_embed[:, 1:]).unflatten(0, (-1, frames))  # (B, T, N, D)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(videos), 1, -1)
        if self.kind == "space_only":
            x = torch.cat([cls.unsqueeze(1).expand(-1, frames, -1, -1), x], 2)
            for block in blocks:
                x = x + block.spatial(x)
                x = x + block.feed_forward(x)
            return self.norm(x.mean(1))[:, 0]
        x = x + self.time_embed[:, :, None]
        for block in blocks:
            if self.kind == "divided_space_time":
                x = x + block.temporal(x.transpose(1, 2)).transpose(1, 2)
                gain = block.spatial(torch.cat([cls.unsqueeze(1).expand(-1, frames, -1, -1), x], 2))
                cls, x = cls + gain[:, :, :1].mean(1), x + gain[:, :, 1:]
            else:
                gain = block.spatial(torch.cat([cls, x.flatten(1, 2)], 1))
                cls, x = cls + gain[:, :1], x + gain[:, 1:].view_as(x)
            cls, x = cls + block.feed_forward(cls), x + block.feed_forward(x)
        return self.norm(cls)[:, 0]


class Original(_Encoder):
    """The original's network, from (B, C, T, H, W) to logits; its files have `model.` before these names."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config, "proj")
        self.blocks = nn.ModuleList(_OriginalBlock(config) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, videos: Tensor) -> Tensor:
        return self.head(self.encode(videos, self.blocks))


class _Backbone(_Encoder):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config, "projection")
        layers = nn.ModuleList(_Mmaction2Block(config) for _ in range(config.num_hidden_layers))
        self.transformer_layers = nn.ModuleDict({"layers": layers})

    def forward(self, videos: Tensor) -> Tensor:
        return self.encode(videos, self.transformer_layers["layers"])


class Mmaction2(nn.Module):
    """mmaction2's network, from (B, C, T, H, W) to logits."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.backbone = _Backbone(config)
        self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(config.hidden_size, config.num_labels)})

    def forward(self, videos: Tensor) -> Tensor:
        return self.cls_head["fc_cls"](self.backbone(videos))
