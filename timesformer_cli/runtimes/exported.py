"""Exported models, each in the runtime for its format: NumPy views in, NumPy logits out."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from timesformer_cli.checkpoints.exported import Provider, read_metadata
from timesformer_cli.errors import UsageError
from timesformer_cli.runtimes import ports
from timesformer_cli.runtimes.devices import Precision
from timesformer_cli.runtimes.ports import Engine, Output, Program
from timesformer_cli.specs import Checkpoint


def check(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    compile: bool,
    provider: Provider,
    output: Output = "logits",
) -> None:
    path = _path(checkpoint)
    _check_output(path, output)
    if provider != "auto" and path.suffix != ".onnx":
        raise UsageError(f"`provider={provider}` is only for ONNX models, and {path} is not one")
    if precision != "auto":
        stated = read_metadata(path).get("precision")
        fixed = f"was exported in {stated}" if stated else "computes in the precision of its export"
        raise UsageError(f"`precision={precision}`: {path} {fixed}; leave the option out, or export the model again")
    if compile:
        raise UsageError(f"`compile`: {path} is an exported model, which its runtime compiles; leave the option out")


def open_scorer(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    provider: Provider = "auto",
    tell: Callable[[str], None] = lambda _: None,
    output: Output = "logits",
) -> Engine:
    """The checkpoint's exported model, loaded and ready; its precision is fixed by the file, and it compiles itself.

    Raises:
        UsageError: as `open_program`, or an output other than logits or class tokens.
        DeviceError: as `open_program`.
        CheckpointError: as `open_program`, or the model does not fit the checkpoint's config and recipe.
    """
    path = _path(checkpoint)
    _check_output(path, output)
    metadata = read_metadata(path)
    program = open_program(path, metadata, device=device, provider=provider, tell=tell)
    return Engine(program, checkpoint, metadata, output)


def _check_output(path: Path, output: Output) -> None:
    """Raise UsageError if no exported model gives this, or if this one says that it gives something else."""
    if output in ("mean", "frames"):
        raise UsageError(
            f"`feature={output}`: {path} is an exported model, which gives `feature=cls` at most; use the model that "
            "it was made from"
        )
    if output == "both":
        raise UsageError(
            f"`save_embeddings`: {path} is an exported model, which gives either labels or vectors; use the model that "
            "it was made from"
        )
    if output == "embedding" and read_metadata(path).get("output", output) != output:
        raise UsageError(
            f"{path}: gives classes, not embeddings; export it with `output=embedding`, or use the model that it was "
            "made from"
        )


def open_program(
    path: Path,
    metadata: Mapping[str, str],
    *,
    device: str = "auto",
    provider: Provider = "auto",
    tell: Callable[[str], None] = lambda _: None,
) -> Program:
    """An exported model with any inputs and outputs; `device` is one of `devices.DEVICES`.

    Only ONNX Runtime uses `provider`. `tell` gets one sentence if `auto` cannot use an existing GPU.

    Raises:
        UsageError: the runtime is not installed, or device and provider exclude each other.
        DeviceError: this machine lacks the device or the provider.
        CheckpointError: the runtime cannot read the file.
    """
    if path.suffix == ".onnx":
        from timesformer_cli.runtimes import onnx as ort

        return ort.load(path, device=device, provider=provider, tell=tell)
    if path.suffix == ".xml":
        from timesformer_cli.runtimes import openvino

        return openvino.load(path, device=device)
    from timesformer_cli.runtimes import exported_program as programs

    return programs.load(path, metadata, device=device)


def precision_of(checkpoint: Checkpoint, asked: Precision, device: str) -> str:
    return "as exported"


def precisions(asked: Precision, device: str) -> tuple[Precision, ...]:
    return ("auto",)


def device_name(device: str) -> str:
    return device


def cluster_device(device: str, provider: Provider) -> str:
    if device != "auto":
        return device
    return "cuda" if provider in ("cuda", "tensorrt") else "cpu"


def versions(checkpoint: Checkpoint) -> Mapping[str, str]:
    suffix = _path(checkpoint).suffix
    if suffix == ".onnx":
        from timesformer_cli.runtimes import onnx

        return {"onnxruntime": onnx.version()}
    if suffix == ".xml":
        from timesformer_cli.runtimes import openvino

        return {"openvino": openvino.version()}
    import torch

    return {"torch": torch.__version__}


def takes_levels(checkpoint: Checkpoint) -> bool:
    return read_metadata(_path(checkpoint)).get("input") == "pixels"


def load_library() -> None:
    """Each library is loaded with the model that it runs."""


def threads() -> int:
    return ports.threads()


def use_cores(count: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(count)


def _path(checkpoint: Checkpoint) -> Path:
    assert checkpoint.weights is not None  # an exported model is a weight file
    return checkpoint.weights
