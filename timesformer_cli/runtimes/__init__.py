"""Exported models, each in the runtime that its format is for: NumPy views in, NumPy logits out."""

from collections.abc import Callable, Mapping
from pathlib import Path

from timesformer_cli.checkpoints.exported import Provider, read_metadata
from timesformer_cli.runtimes.ports import Engine, Program
from timesformer_cli.specs import Checkpoint


def open_scorer(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    provider: Provider = "auto",
    tell: Callable[[str], None] = lambda _: None,
) -> Engine:
    """The checkpoint's exported model, loaded and ready.

    Raises:
        UsageError, DeviceError: as `open_program`.
        CheckpointError: the same, or a model that does not fit the checkpoint's config and recipe.
    """
    path = checkpoint.weights
    assert path is not None  # it is what makes this checkpoint an exported one
    metadata = read_metadata(path)
    return Engine(open_program(path, metadata, device=device, provider=provider, tell=tell), checkpoint, metadata)


def open_program(
    path: Path,
    metadata: Mapping[str, str],
    *,
    device: str = "auto",
    provider: Provider = "auto",
    tell: Callable[[str], None] = lambda _: None,
) -> Program:
    """An exported model of any inputs and outputs; `device` is one of `devices.DEVICES`.

    `provider` is ONNX Runtime's alone. `tell` gets one sentence where `auto` has to do without a GPU that is there.

    Raises:
        UsageError: the runtime is not installed, or device and provider exclude each other.
        DeviceError: a device or a provider that this machine does not have.
        CheckpointError: a file that its runtime cannot read.
    """
    if path.suffix == ".onnx":
        from timesformer_cli.runtimes import onnx as ort

        return ort.load(path, device=device, provider=provider, tell=tell)
    if path.suffix == ".xml":
        from timesformer_cli.runtimes import openvino

        return openvino.load(path, device=device)
    from timesformer_cli.runtimes import exported_program as programs

    return programs.load(path, metadata, device=device)


def runtime_version(checkpoint: Checkpoint) -> Mapping[str, str]:
    """The name and the version of the runtime that an exported model is run by."""
    assert checkpoint.weights is not None
    if checkpoint.weights.suffix == ".onnx":
        from timesformer_cli.runtimes import onnx as ort

        return {"onnxruntime": ort.version()}
    if checkpoint.weights.suffix == ".xml":
        from timesformer_cli.runtimes import openvino

        return {"openvino": openvino.version()}
    import torch

    return {"torch": torch.__version__}
