"""Weights of a tiny network in all forms on the Hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from timesformer_cli import TimesformerConfig

CONFIG = TimesformerConfig(
    image_size=16,
    patch_size=8,
    num_frames=3,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    id2label={0: "left", 1: "right", 2: "größer"},
)

# By name: the file that leads to the weights.
FORMS = {
    "safetensors": "model.safetensors",
    "sharded safetensors": "model.safetensors.index.json",
    "bin": "pytorch_model.bin",
    "bin of torch before 1.6": "pytorch_model.bin",
    "sharded bin": "pytorch_model.bin.index.json",
}


def write_form(form: str, network: Any, folder: Path) -> None:
    """Save a network of ours, or of transformers, with its config."""
    state = network.state_dict()
    network.save_pretrained(folder)
    if form != "safetensors":
        (folder / "model.safetensors").unlink()
    if form == "sharded safetensors":
        _save_shards(state, folder, "model.safetensors", save_file)
    elif form == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    elif form == "bin of torch before 1.6":
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    elif form == "sharded bin":
        save_sharded_bin(state, folder)


def save_sharded_bin(state: dict[str, Tensor], folder: Path, shards: int = 3) -> None:
    _save_shards(state, folder, "pytorch_model.bin", torch.save, shards)


def _save_shards(
    state: dict[str, Tensor], folder: Path, name: str, save: Callable[[Any, Path], None], count: int = 3
) -> None:
    """Several files and their index, with transformers' names for the parts of `name`."""
    stem, suffix = name.split(".")
    names = list(state)
    files = [f"{stem}-{i + 1:05}-of-{count:05}.{suffix}" for i in range(count)]
    for i, file in enumerate(files):
        save({name: state[name] for name in names[i::count]}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": {key: files[i % count] for i, key in enumerate(names)}}
    (folder / f"{name}.index.json").write_text(json.dumps(index))


def assert_same_state(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys(), actual.keys() ^ expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name
