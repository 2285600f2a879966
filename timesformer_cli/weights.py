"""Weights on disk: state dicts in and out of a folder. Nothing is unpickled but tensors."""

import json
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from timesformer_cli.errors import CheckpointError

# In order of preference. An index lists the shards of a model that was split over several files.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def find_weights(folder: Path) -> Path:
    """The weight file of `folder` to read. Raises CheckpointError when there is none."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: no weights; one of {', '.join(WEIGHT_FILES)} was expected")


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """All tensors of the weights in `folder`, memory-mapped on the CPU, in the dtype they are stored in.

    Raises:
        CheckpointError: no weights, a missing shard, or a file that is not what its name says.
    """
    path = find_weights(folder)
    if not path.name.endswith(".index.json"):
        return _read_file(path)
    state: dict[str, Tensor] = {}
    for shard in _shards(path):
        state |= _read_file(shard)
    return state


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        shards = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: not an index of weight shards ({error})") from error
    for name, shard in zip(names, shards, strict=True):
        # A name with a folder in it could point outside the checkpoint.
        if Path(name).name != name or not shard.is_file():
            raise CheckpointError(f"{index}: it lists {name!r}, which is not a file beside it; is a shard missing?")
    return shards


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files written before torch 1.6 are not zip archives and cannot be memory-mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        # The message of torch advises to load without weights_only, so it is left to the traceback.
        raise CheckpointError(f"{path}: refused, it holds more than tensors or is damaged") from error
    except Exception as error:  # damaged files provoke almost anything
        reason = re.split(r"\n|\. |\.$", str(error))[0] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as weights; is the file complete? ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(x, str) and isinstance(y, Tensor) for x, y in state.items()):
        raise CheckpointError(f"{path}: not a mapping of names to tensors")
    return state


def write_state_dict(folder: Path, state: dict[str, Tensor]) -> Path:
    """Write `folder/model.safetensors`, in the dtypes given; returns its path."""
    path, partial = folder / "model.safetensors", folder / "model.safetensors.partial"
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    # The tensors may be mapped from the very file that this replaces.
    save_file(tensors, partial, metadata={"format": "pt"})
    return partial.replace(path)


def check_state_dict(state: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Raise CheckpointError, naming the keys, unless `state` fits `expected` key by key and shape by shape."""
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    problems = [f"{len(names)} {what}: {_abridge(names)}" for what, names in found if names]
    if problems:
        raise CheckpointError(f"{where}: the weights do not fit config.json; keys {'; '.join(problems)}")


def _abridge(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
