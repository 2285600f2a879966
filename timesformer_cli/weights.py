"""Weights on disk: state dicts in and out of a folder. Nothing is unpickled but tensors."""

import json
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
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
    try:
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: not an index of weight shards ({error})") from error
    state: dict[str, Tensor] = {}
    for shard in shards:
        # A name with a folder in it could point outside the checkpoint.
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard}: a shard that {path.name} lists is not there")
        state |= _read_file(folder / shard)
    return state


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files written before torch 1.6 are not zip archives and cannot be memory-mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as weights; is the file complete? ({_first_line(error)})"
        ) from error
    except Exception as error:  # pickle.UnpicklingError, and whatever a hostile pickle stream provokes
        raise CheckpointError(f"{path}: refused, it holds more than tensors ({_first_line(error)})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: not a mapping of names to tensors")
    return state


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__


def write_state_dict(folder: Path, state: dict[str, Tensor]) -> Path:
    """Write `folder/model.safetensors`, in the dtypes given; returns its path."""
    path = folder / "model.safetensors"
    save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, path, metadata={"format": "pt"})
    return path


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
