"""The settings of an export, and which of them can be combined. Without torch, so that errors come at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from timesformer_cli.checkpoints.exported import Format, Input, Output
from timesformer_cli.errors import UsageError

Precision = Literal["fp32", "fp16", "bf16"]
Quantization = Literal["int8"]

# ONNX Runtime and OpenVINO choose bfloat16 themselves, so files for them have none; torch.export has no integer
# kernels for files.
_PRECISIONS: Mapping[Format, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16"),
    "pt2": ("fp32", "fp16", "bf16"),
    "aoti": ("fp32", "bf16"),
    "hub": ("fp32", "fp16", "bf16"),
}
_QUANTIZED: tuple[Format, ...] = ("onnx", "openvino")

# PyTorch exports to this version of ONNX, and converts to newer ones.
OLDEST_OPSET = 18

MODEL_FILES: Mapping[Format, str] = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "pt2": "model.pt2",
    "aoti": "model.pt2",
    "hub": "model.safetensors",
}
# Beside the model: the weights of OpenVINO, and those of ONNX with `external_data`.
WEIGHTS_OF_OPENVINO = "model.bin"
WEIGHTS_OF_ONNX = "model.onnx_data"

_EXTRAS: Mapping[Format, tuple[str, tuple[str, ...]]] = {
    "onnx": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("openvino", ("openvino",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """One export: its format, precision, input and output.

    `calibrate`: a folder of videos, for int8 activations too; their ranges are measured on `calibration_views` views,
    and hardly change with more. `opset` is the ONNX opset version, by default `OLDEST_OPSET`. `external_data` stores
    the ONNX weights beside the graph, which is necessary above `max_onnx_bytes`, the limit of Protocol Buffers.

    Raises:
        UsageError: a combination that is not possible; the message names those that are.
    """

    format: Format
    precision: Precision = "fp32"
    quantize: Quantization | None = None
    calibrate: Path | None = None
    calibration_views: int = 48
    input: Input = "frames"
    output: Output = "logits"
    opset: int | None = None
    external_data: bool = False
    max_onnx_bytes: int = 2**31 - 2**20

    def __post_init__(self) -> None:
        known = _PRECISIONS[self.format]
        if self.precision not in known:
            raise UsageError(f"`precision={self.precision}`: `format={self.format}` has {', '.join(known)}")
        if self.quantize is not None and self.format not in _QUANTIZED:
            raise UsageError(f"`quantize={self.quantize}`: needs `format={' or '.join(_QUANTIZED)}`")
        if self.quantize is not None and self.precision != "fp32":
            raise UsageError(
                f"`quantize={self.quantize}`: the parts that are not quantized stay fp32; leave out `precision`"
            )
        if self.calibrate is not None and self.quantize is None:
            raise UsageError("`calibrate` needs `quantize=int8`")
        if self.format == "hub" and (self.input, self.output) != ("frames", "logits"):
            raise UsageError(
                "`format=hub` holds weights for transformers, which decides on input and output; "
                "`input` and `output` need another format"
            )
        if self.format != "onnx" and (self.opset is not None or self.external_data):
            raise UsageError("`opset` and `external_data` need `format=onnx`")
        if self.opset is not None and self.opset < OLDEST_OPSET:
            raise UsageError(f"`opset={self.opset}`: the oldest that PyTorch writes is {OLDEST_OPSET}")
        if self.external_data and self.quantize is not None:
            raise UsageError("`external_data`: a quantized model is small enough for one file")

    @property
    def kind(self) -> str:
        """fp32, fp16, bf16 or int8: the type of most weights."""
        return self.quantize or self.precision


def check_packages(spec: ExportSpec) -> None:
    """Raise UsageError, with what to install, if a package for the export is missing."""
    extra, packages = _EXTRAS.get(spec.format, ("", ()))
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"`format={spec.format}` needs {', '.join(missing)}; "
            f"install it with: pip install 'timesformer-cli[{extra}]'"
        )
    if spec.format == "openvino" and spec.quantize is not None and find_spec("nncf") is None:
        raise UsageError("`quantize=int8` of OpenVINO needs nncf; install it with: pip install 'timesformer-cli[nncf]'")
