"""Quantize weights to 8-bit integers, and activations too if there are videos to measure them on."""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.exported import Input
from timesformer_cli.errors import InputError, VideoError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.export.graph import quietly
from timesformer_cli.jobs.export.spec import ExportSpec
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.runtimes.telemetry import silence
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video import inputs


@dataclass(frozen=True, slots=True)
class Calibration:
    """Inputs (1, ...) of the exported model, from the videos of a folder; each iteration reads them again.

    The videos are spread evenly over the folder, with as many views of each as are needed for `count` in total.
    """

    items: tuple[Item, ...]
    checkpoint: Checkpoint
    input: Input
    count: int

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return islice(self._views(), self.count)

    def _views(self) -> Iterator[NDArray[Any]]:
        from timesformer_cli.runtimes.ports import to_pixels

        each = -(-self.count // len(self.items))
        for item in self.items:
            for view in prepare(item, self.checkpoint.recipe).pixels[:each]:
                yield to_pixels(view[None], self.checkpoint.preprocess) if self.input == "pixels" else view[None]


def calibration(folder: Path, checkpoint: Checkpoint, spec: ExportSpec) -> Calibration:
    """The readable videos of `folder`, at most as many as the wanted views.

    Raises:
        InputError: no video can be read.
    """
    found = list(inputs.find([str(folder)]))
    step = max(len(found) // spec.calibration_views, 1)
    readable = []
    for item in found[::step][: spec.calibration_views]:
        try:
            prepare(item, checkpoint.recipe)
        except VideoError:
            continue
        readable.append(item)
    if not readable:
        raise InputError(f"`calibrate={folder}`: none of its {len(found)} videos can be read")
    return Calibration(tuple(readable), checkpoint, spec.input, spec.calibration_views)


def quantize_onnx(source: Path, target: Path, views: Iterable[NDArray[Any]] | None) -> None:
    """Write the float32 model `source` with weights of int8.

    Without `views` activations are measured at each run; with them, once and for all.
    """
    silence()
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    model = onnx.load(source)
    # The stated sizes of values between the nodes no longer hold, and ONNX Runtime fails on them.
    del model.graph.value_info[:]
    _shrink_convolution(model)
    # Embeddings, biases and norms stay float32.
    common: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul", "Gemm"],
        "per_channel": True,
        # Unsigned, like activations: processors without VNNI add up products of signed weights in 16 bits, which
        # overflow, so that a model would give different results there than where it was verified.
        "weight_type": QuantType.QUInt8,
        # Attention multiplies activations with activations.
        "extra_options": {"MatMulConstBOnly": True},
    }
    if views is None:
        with quietly():
            quantize_dynamic(model, target, **common)
        return
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, views: Iterable[NDArray[Any]]) -> None:
            self.views = iter(views)

        def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
            view = next(self.views, None)
            return None if view is None else {name: view}

    with quietly():
        quantize_static(model, target, Reader(views), activation_type=QuantType.QUInt8, **common)


def _shrink_convolution(model: Any) -> None:
    """Store the projection of patches as int8 with a scale for each channel; it is still computed in float32.

    In narrow networks it is a tenth of the weights, and its input, pixels, would suffer most from rounding.
    """
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "Conv":
            continue
        weight = weights[node.input[1]]
        values = numpy_helper.to_array(weight)
        scales = np.abs(values).max(axis=(1, 2, 3)).clip(np.finfo(np.float32).tiny) / 127
        levels = np.rint(values / scales[:, None, None, None]).astype(np.int8)
        parts = [f"{weight.name}_quantized", f"{weight.name}_scale"]
        model.graph.initializer.remove(weight)
        for name, array in zip(parts, (levels, scales.astype(np.float32)), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        model.graph.node.insert(place, helper.make_node("DequantizeLinear", parts, [weight.name], axis=0))


def quantize_openvino(model: Any, views: Calibration | None) -> Any:
    """The model with int8 weights, and with `views` also int8 activations."""
    with quietly(), redirect_stdout(io.StringIO()):  # NNCF prints its progress there
        silence()
        import nncf

        if views is not None:
            model = nncf.quantize(
                model,
                nncf.Dataset(views),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                # The projection of patches: rounding its pixels costs camera-motion two labels in a hundred.
                ignored_scope=nncf.IgnoredScope(types=["Convolution"]),
                subset_size=views.count,
            )
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
