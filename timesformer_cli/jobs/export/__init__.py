"""Export a checkpoint to the format of another runtime, and verify it."""

import json
import math
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli import strict_json
from timesformer_cli.__about__ import __version__
from timesformer_cli.checkpoints.exported import (
    Format,
    Input,
    Output,
    files_of,
    read_archive,
    read_metadata,
)
from timesformer_cli.checkpoints.folder import find_weights
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, DeviceError, OutputError, UsageError
from timesformer_cli.jobs.export import bundle, verify
from timesformer_cli.jobs.export.spec import MODEL_FILES, ExportSpec, check_packages
from timesformer_cli.runtimes import require_network, runtime_of
from timesformer_cli.specs import Activation, Checkpoint

__all__ = ["ExportSpec", "Verification", "check", "export"]

# The largest difference that counts as rounding, as a share of the network's largest output, by precision. int8 rounds
# weights and activations to one of 256 steps, which moves logits by a few percent of their range; a model that was
# quantized wrongly differs by as much as the range itself.
_TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2, "int8": 0.15}
# OpenVINO's CPU plugin sums in a different order, and approximates exp and erf.
_OPENVINO = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The comparison of an exported model with the network.

    `bytes` is the size of the model's files, and `share` this size as a share of the weights in float32, if known.
    `changed` are the files that changed since they were written.
    """

    format: Format
    precision: str
    input: Input
    output: Output
    tolerance: float
    comparison: verify.Comparison
    bytes: int
    share: float | None
    versions: Mapping[str, str]
    changed: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.reason is None

    @property
    def reason(self) -> str | None:
        """Why it is not verified; None if it is."""
        if self.changed:
            return f"{', '.join(self.changed)} changed since the export"
        if not np.isfinite(self.comparison.reference).all():
            return "the network itself gives numbers that are not finite; its weights are damaged or too large"
        worst = [batch.relative for batch in self.comparison.batches]
        if not np.isfinite(worst).all():
            return "it gives numbers that are not finite; export it in fp32"
        return "it differs by more than rounding" if max(worst) > self.tolerance else None

    def to_dict(self) -> dict[str, Any]:
        """All fields except the reference, for JSON."""
        return {
            "passed": self.passed,
            "format": self.format,
            "precision": self.precision,
            "input": self.input,
            "output": self.output,
            "tolerance": self.tolerance,
            "batches": [
                {name: _finite(value) for name, value in batch._asdict().items()} for batch in self.comparison.batches
            ],
            "bytes": self.bytes,
            "share_of_fp32": self.share,
            "seconds_per_view": self.comparison.seconds,
            "torch_seconds_per_view": self.comparison.torch_seconds,
            "changed_files": list(self.changed),
            "versions": dict(self.versions),
        }


def export(
    checkpoint: Checkpoint,
    spec: ExportSpec,
    folder: Path,
    *,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Write the model to `folder`, or to `folder.unverified` if its results differ from those of the network.

    Nothing else is left behind, whatever happens. `tell` gets a sentence as each step begins.

    Raises:
        UsageError: a package is missing, or this model cannot be written in the format.
        OutputError: the folder exists, or cannot be written.
        CheckpointError, InputError: the model or the videos to calibrate with cannot be read.
        CheckpointError, DeviceError: the runtime cannot run what was written.
    """
    check_packages(spec)
    unverified = folder.with_name(f"{folder.name}.unverified")
    bundle.check_target(folder, overwrite=overwrite)
    bundle.check_target(unverified, overwrite=True)
    require_network(checkpoint)
    if spec.output == "probabilities" and checkpoint.activation == "none":
        raise UsageError(
            f"`output=probabilities`: the scores of {checkpoint.name} are no probabilities (its activation is none); "
            "export logits"
        )
    if checkpoint.weights is not None and checkpoint.weights.parent.resolve() == folder.resolve():
        raise OutputError(f"{folder}: holds the model itself; choose another name")
    with bundle.staged(folder) as staging:
        stated = bundle.metadata(checkpoint, spec)
        path = staging / MODEL_FILES[spec.format]
        size = _write_model(checkpoint, spec, path, stated, lambda: bundle.told(folder), tell)
        with bundle.told(folder):
            bundle.write_companions(staging, checkpoint, spec, stated)
        tell("comparing it with PyTorch")
        try:
            found = _verify(replace(checkpoint, weights=path), spec.format, stated, checkpoint, size)
        except (CheckpointError, DeviceError) as error:  # with the final path of the model
            raise type(error)(str(error).replace(str(staging), str(folder))) from error
        kept = {**found.to_dict(), "seed": verify.SEED, "fp32_bytes": size}
        reference = found.comparison.reference.tolist()
        kept["reference"] = [[_finite(float(f"{number:.9g}")) for number in row] for row in reference]
        with bundle.told(folder):
            (staging / bundle.VERIFICATION).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
            bundle.write_sums(staging)
        bundle.publish(staging, folder if found.passed else unverified)
    return found


def _write_model(
    checkpoint: Checkpoint,
    spec: ExportSpec,
    path: Path,
    stated: Mapping[str, str],
    told: Callable[[], AbstractContextManager[None]],
    tell: Callable[[str], None],
) -> int:
    """Write only the model; returns the size of its weights in float32, in bytes."""
    from timesformer_cli.jobs.export import graph, quantize
    from timesformer_cli.network.model import TimesformerForVideoClassification
    from timesformer_cli.runtimes.pytorch import torch_dtype

    views = None
    if spec.calibrate is not None:
        views = quantize.calibration(spec.calibrate, checkpoint, spec)
        tell(f"calibrating with {len(views.items):,} videos of {spec.calibrate}")
    model = TimesformerForVideoClassification.from_checkpoint(checkpoint, tell=tell)
    size = sum(parameter.nbytes for parameter in model.parameters())
    if spec.quantize is not None and not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise CheckpointError(
            f"{checkpoint.name}: its weights hold numbers that are not finite, which int8 cannot represent"
        )
    if spec.format == "hub":
        with told():
            model.to(torch_dtype(spec.precision)).save_pretrained(path.parent)
        return size
    tell("tracing the network")
    if spec.format != "openvino":  # OpenVINO rounds the weights as it writes them
        model.timesformer.to(torch_dtype(spec.precision))
    module = graph.Exportable(
        model, checkpoint.preprocess, input=spec.input, output=spec.output, activation=checkpoint.activation
    )
    program = graph.trace(module, graph.shape_of(checkpoint.preprocess, checkpoint.sampling.num_frames, spec.input))
    tell(f"writing {path.name}")
    if spec.format == "onnx":
        onnx = graph.to_onnx(program, spec, stated)
        with told():
            if spec.quantize is None:
                graph.save_onnx(onnx, path, spec)
            else:
                whole = path.with_name("float32.onnx")
                graph.save_onnx(onnx, whole, spec)
                quantize.quantize_onnx(whole, path, views)
                whole.unlink()
    elif spec.format == "openvino":
        openvino = graph.to_openvino(program, spec)
        if spec.quantize is not None:
            openvino = quantize.quantize_openvino(openvino, views)
        with told():
            graph.save_openvino(openvino, path, spec, stated)
    else:
        with told():
            (graph.save_pt2 if spec.format == "pt2" else graph.save_aoti)(program, path, stated)
    # Exporters keep the last graph in memory, and with it all weights.
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)
    return size


def check(
    path: Path,
    checkpoint: Checkpoint | None = None,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Verify an exported model again: a file, or a folder, which holds the results of the network at the export.

    With `checkpoint`, the model is compared with its network instead.

    Raises:
        CheckpointError: there is nothing to compare with, or the model cannot be read.
    """
    file = find_weights(path) if path.is_dir() else path
    format = _format(file)
    stated = {} if format == "hub" else read_metadata(file)
    kept = _kept(file.with_name(bundle.VERIFICATION)) if path.is_dir() else {}
    ours = resolve(str(path)) if checkpoint is None or "recipe" in stated else replace(checkpoint, weights=file)
    network: Checkpoint | NDArray[np.float32]
    if checkpoint is not None:
        tell(f"comparing it with {checkpoint.name} in PyTorch")
        network = checkpoint
    elif kept:
        tell("comparing it with PyTorch's results at the export")
        network = np.array(kept["reference"], np.float32)
    else:
        raise CheckpointError(f"{path}: nothing to compare it with; name the model that it was exported from as MODEL")
    changed = [name for name in bundle.changed_files(path) if name in bundle.MODEL_NAMES] if path.is_dir() else []
    if format == "hub":
        stated = {"precision": kept.get("precision", "fp32")}
    return replace(_verify(ours, format, stated, network, kept.get("fp32_bytes")), changed=tuple(changed))


def _finite(value: float | None) -> float | None:
    """The value, or None if it is not finite, which JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def _format(file: Path) -> Format:
    if file.suffix == ".pt2":
        return "aoti" if read_archive(file).compiled else "pt2"
    return "onnx" if file.suffix == ".onnx" else "openvino" if file.suffix == ".xml" else "hub"


def _output(stated: Mapping[str, str]) -> Output:
    return next((name for name in ("probabilities", "embedding") if stated.get("output") == name), "logits")


def _kept(path: Path) -> dict[str, Any]:
    """The content of an export's verification file; empty if there is none. Raises CheckpointError."""
    try:
        content = strict_json.read(path)
        if content["seed"] != verify.SEED or np.array(content["reference"], np.float32).ndim != 2:
            raise ValueError("made with different views")
        return {"reference": content["reference"], "fp32_bytes": int(content["fp32_bytes"]), **content}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not written by an export ({error}); export the model again") from error


def _verify(
    checkpoint: Checkpoint,
    format: Format,
    stated: Mapping[str, str],
    network: Checkpoint | NDArray[np.float32],
    fp32_bytes: int | None,
) -> Verification:
    """Compare the exported model of `checkpoint` with the network, or with its earlier results."""
    assert checkpoint.weights is not None
    input: Input = "pixels" if stated.get("input") == "pixels" else "frames"
    output = _output(stated)
    precision = stated.get("precision", "fp32")
    tolerance = _TOLERANCES.get(precision, _TOLERANCES["fp32"])
    views = verify.sample_views(checkpoint, input)
    # Only probabilities have an activation to undo; files of earlier versions do not state theirs.
    activation: Activation = "none"
    if output == "probabilities":
        activation = "sigmoid" if stated.get("activation") == "sigmoid" else "softmax"
    runner = verify.open_exported(checkpoint, format, output, stated)
    comparison = verify.compare(runner, network, views, output, activation)
    size = sum(file.stat().st_size for file in files_of(checkpoint.weights))
    versions = {"timesformer-cli": __version__, "processor": platform.machine()}
    if format != "hub":
        versions |= runtime_of(checkpoint).versions(checkpoint)
    if isinstance(network, Checkpoint):
        versions["torch"] = version("torch")
    return Verification(
        format=format,
        precision=precision,
        input=input,
        output=output,
        tolerance=max(tolerance, _OPENVINO) if format == "openvino" else tolerance,
        comparison=comparison,
        bytes=size,
        share=None if fp32_bytes is None else size / fp32_bytes,
        versions=versions,
    )
