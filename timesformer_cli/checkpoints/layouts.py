"""Layouts of published weights: the names of the tensors in each.

The layouts of the Hub, of the original code (.pyth) and of mmaction2 (.pth) differ only in names. All of them keep
query, key and value in one matrix (3 * D, D), in this order, so converting only renames and copies nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from torch import Tensor

Layout = Literal["hub", "original", "mmaction2"]


class _Names(NamedTuple):
    """A layout's names with the Hub's names. A name that ends in "." or "_" stands for a weight and a bias."""

    encoder: Mapping[str, str]  # outside the layers
    layers: str  # the prefix of a layer's number
    layer: Mapping[str, str]  # inside a layer
    head: str


_EMBEDDINGS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "time_embed": "embeddings.time_embeddings",
    "norm.": "layernorm.",
}

_ORIGINAL = _Names(
    encoder=_EMBEDDINGS | {"patch_embed.proj.": "embeddings.patch_embeddings.projection."},
    layers="blocks.",
    layer={
        "temporal_norm1.": "temporal_layernorm.",
        "temporal_attn.qkv.": "temporal_attention.attention.qkv.",
        "temporal_attn.proj.": "temporal_attention.output.dense.",
        "temporal_fc.": "temporal_dense.",
        "norm1.": "layernorm_before.",
        "attn.qkv.": "attention.attention.qkv.",
        "attn.proj.": "attention.output.dense.",
        "norm2.": "layernorm_after.",
        "mlp.fc1.": "intermediate.dense.",
        "mlp.fc2.": "output.dense.",
    },
    head="head.",
)

_MMACTION2_ENCODER = _EMBEDDINGS | {"patch_embed.projection.": "embeddings.patch_embeddings.projection."}
_MMACTION2_MLP = {"ffns.0.layers.0.0.": "intermediate.dense.", "ffns.0.layers.1.": "output.dense."}

# divided_space_time has temporal attention before spatial attention, each with its own norm.
_MMACTION2_DIVIDED = _Names(
    encoder=_MMACTION2_ENCODER,
    layers="transformer_layers.layers.",
    layer=_MMACTION2_MLP
    | {
        "attentions.0.norm.": "temporal_layernorm.",
        "attentions.0.attn.in_proj_": "temporal_attention.attention.qkv.",
        "attentions.0.attn.out_proj.": "temporal_attention.output.dense.",
        "attentions.0.temporal_fc.": "temporal_dense.",
        "attentions.1.norm.": "layernorm_before.",
        "attentions.1.attn.in_proj_": "attention.attention.qkv.",
        "attentions.1.attn.out_proj.": "attention.output.dense.",
        "ffns.0.norm.": "layernorm_after.",
    },
    head="cls_head.fc_cls.",
)
_MMACTION2_JOINT = _MMACTION2_DIVIDED._replace(
    layer=_MMACTION2_MLP
    | {
        "norms.0.": "layernorm_before.",
        "attentions.0.attn.in_proj_": "attention.attention.qkv.",
        "attentions.0.attn.out_proj.": "attention.output.dense.",
        "norms.1.": "layernorm_after.",
    }
)
# Pixel statistics that mmaction2 stores with the weights; they belong to the recipe.
_MMACTION2_PIXELS = ("data_preprocessor.mean", "data_preprocessor.std")

ENCODER = "timesformer."
LAYERS = "encoder.layer."
HEAD = "classifier."

# Prefixes of names that only one layout has.
_BEGINNINGS: dict[Layout, tuple[str, ...]] = {
    "hub": (ENCODER, LAYERS, "embeddings."),
    "original": (_ORIGINAL.layers, "patch_embed.proj."),
    "mmaction2": ("backbone.", _MMACTION2_DIVIDED.layers),
}


# A tensor that every network has, in each layout, and the name of the encoder that may be before it.
_ANCHORS = (
    ("embeddings.patch_embeddings.projection.weight", ENCODER),
    ("patch_embed.proj.weight", ""),
    ("patch_embed.projection.weight", "backbone."),
)


def prefixes_of(names: Iterable[str]) -> list[str]:
    """What is before the names of each network that these tensors hold, such as "model." or nothing; in their order."""
    found: dict[str, None] = {}
    for name in names:
        for anchor, encoder in _ANCHORS:
            before = name.removesuffix(anchor)
            if before != name and (not before or before.endswith(".")):
                found[before.removesuffix(encoder)] = None
    return list(found)


def layout_of(names: Iterable[str]) -> Layout:
    """The layout that most of these names belong to; the Hub's if none fits."""
    names = tuple(names)
    votes = {layout: sum(name.startswith(begin) for name in names) for layout, begin in _BEGINNINGS.items()}
    return max(votes, key=lambda layout: votes[layout])  # the first if equal


def to_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of the Hub's classification checkpoints.

    Names that already are the Hub's, also of an encoder only, and names of no layout stay as they are.
    """
    layout = layout_of(state)
    if layout == "hub":
        return dict(state)
    names = _ORIGINAL
    backbone = ""
    if layout == "mmaction2":
        divided = any(".attentions.1." in name for name in state)
        names = _MMACTION2_DIVIDED if divided else _MMACTION2_JOINT
        state = {name: tensor for name, tensor in state.items() if name not in _MMACTION2_PIXELS}
        backbone = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    renamed = dict(_pairs(names, numbers(state, backbone + names.layers), backbone))
    return {renamed.get(name, name): tensor for name, tensor in state.items()}


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of the original code, from the Hub's names, of an encoder only or of all.

    The original's own files have `model.` before each name. Names that the Hub does not have stay as they are.
    """
    bare = {name.removeprefix(ENCODER): tensor for name, tensor in state.items()}
    pairs = _pairs(_ORIGINAL, numbers(bare, LAYERS))
    renamed = {hub.removeprefix(ENCODER): original for original, hub in pairs}
    return {renamed.get(name, name): tensor for name, tensor in bare.items()}


def numbers(names: Iterable[str], layers: str) -> set[str]:
    """The numbers of the layers, as text, as in the names."""
    return {name.removeprefix(layers).partition(".")[0] for name in names if name.startswith(layers)}


def _pairs(names: _Names, numbers: Iterable[str], backbone: str = "") -> Iterator[tuple[str, str]]:
    """A layout's name and the Hub's name of every tensor of a network with those layers."""
    stems = [(backbone + theirs, ENCODER + ours) for theirs, ours in names.encoder.items()]
    for number in numbers:
        theirs, ours = f"{backbone}{names.layers}{number}.", f"{ENCODER}{LAYERS}{number}."
        stems += [(theirs + stem, ours + hub) for stem, hub in names.layer.items()]
    stems.append((names.head, HEAD))
    for theirs, ours in stems:
        if theirs.endswith((".", "_")):
            yield theirs + "weight", ours + "weight"
            yield theirs + "bias", ours + "bias"
        else:
            yield theirs, ours
