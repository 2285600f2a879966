"""The network as a graph of operations, and its files for other runtimes."""

import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from timesformer_cli.__about__ import __version__
from timesformer_cli.checkpoints.exported import INPUT_NAMES, METADATA_FILE, SECTION, Input, Output
from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.jobs.export.spec import OLDEST_OPSET, WEIGHTS_OF_ONNX, ExportSpec
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.runtimes.telemetry import silence
from timesformer_cli.specs import Activation, PreprocessSpec
from timesformer_cli.video.preprocess import LUMA

# Views per batch. PyTorch needs a bound; none of the formats keeps it.
_MOST = 1024


class Exportable(nn.Module):
    """The network with one array as input and one as output, of the kinds `input` and `output`.

    frames: float32 (B, T, C, H, W); pixels: uint8 (B, T, H, W, 3), RGB. The output is float32: logits or
    probabilities (B, K) by the `activation`, or the class token (B, D). The encoder computes in its own dtype, the head
    in float32, as `runtime.open_scorer` has it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: TimesformerForVideoClassification,
        preprocess: PreprocessSpec,
        *,
        input: Input,
        output: Output,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        # The names of its weights in checkpoints.
        self.timesformer, self.classifier = model.timesformer, model.classifier
        self.input, self.output, self.activation = input, output, activation
        self.channel_order = preprocess.channel_order
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(preprocess, name)).view(-1, 1, 1))
        self.requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        if self.input == "pixels":
            frames = self._normalised(frames)
        dtype = next(self.timesformer.parameters()).dtype
        embedding = self.timesformer(frames.to(dtype)).last_hidden_state[:, 0].float()
        if self.output == "embedding":
            return embedding  # type: ignore[no-any-return]
        logits: Tensor = self.classifier(embedding)
        if self.output == "logits":
            return logits
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(-1)

    def _normalised(self, pixels: Tensor) -> Tensor:
        frames = pixels.permute(0, 1, 4, 2, 3).float() / 255
        if self.channel_order == "bgr":
            frames = frames.flip(2)
        elif self.channel_order == "gray":
            frames = sum(weight * frames[:, :, c : c + 1] for c, weight in enumerate(LUMA))  # type: ignore[assignment]
        return (frames - self.mean) / self.std


def shape_of(preprocess: PreprocessSpec, num_frames: int, input: Input) -> tuple[int, ...]:
    """The shape of one view as input."""
    if input == "pixels":
        return (num_frames, *preprocess.size, 3)
    return (num_frames, len(preprocess.mean), *preprocess.size)


def trace(module: Exportable, shape: tuple[int, ...]) -> ExportedProgram:
    """The graph of `module` for any number of views of that shape."""
    # Two views: with one, PyTorch would fix the number of views to one.
    example = torch.zeros(2, *shape, dtype=torch.uint8 if module.input == "pixels" else torch.float32)
    with quietly(), torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: Dim("batch", min=1, max=_MOST)},))
    # Each cast comes with a check of its input, which always holds.
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def to_onnx(program: ExportedProgram, spec: ExportSpec, metadata: Mapping[str, str]) -> Any:
    """The ONNX model.

    Raises:
        UsageError: an opset that the exporter cannot reach, or weights too large for one file.
    """
    opset = spec.opset or OLDEST_OPSET
    size = sum(tensor.nbytes for tensor in (*program.state_dict.values(), *program.constants.values()))
    if size > spec.max_onnx_bytes and not spec.external_data:
        raise UsageError(f"{size / 1e9:.1f} GB of weights do not fit into one ONNX file; add `external_data`")
    with quietly():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_NAMES[spec.input]],
            output_names=[spec.output],
            external_data=False,
            verbose=False,  # or it prints on standard output
        )
    assert exported is not None
    model = exported.model
    # If it cannot convert, the exporter leaves the opset that it had.
    if model.opset_imports[""] != opset:
        raise UsageError(f"`opset={opset}`: PyTorch cannot write this model with it; try {OLDEST_OPSET}")
    _tidy(model)
    model.metadata_props.update(metadata)
    return model


def save_onnx(model: Any, path: Path, spec: ExportSpec) -> None:
    """Write `path`, and with `external_data` its weights beside it."""
    import onnx
    import onnx_ir

    onnx_ir.save(model, path, external_data=WEIGHTS_OF_ONNX if spec.external_data else None)
    # The exporter's rules keep the last graph in memory, and with it the weights that they transposed.
    for value in model.graph.initializers.values():
        value.const_value = None
    onnx.checker.check_model(path)


def _tidy(model: Any) -> None:
    """Remove PyTorch's notes on each node, half a megabyte, and name the batch dimension `batch`."""
    graph = model.graph
    symbol = graph.inputs[0].shape[0].value
    model.producer_name, model.producer_version = "timesformer-cli", __version__
    graph.metadata_props.clear()
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph:
        node.metadata_props.clear()
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = re.sub(rf"\b{symbol}\b", "batch", size.value)


def to_openvino(program: ExportedProgram, spec: ExportSpec) -> Any:
    """The OpenVINO model, with names and all fixed sizes."""
    silence()
    with quietly():
        import openvino

        model = openvino.convert_model(program)
    ((example,), _) = program.example_inputs
    model.reshape([-1, *example.shape[1:]])
    model.inputs[0].tensor.set_names({INPUT_NAMES[spec.input]})
    model.outputs[0].tensor.set_names({spec.output})
    return model


def save_openvino(model: Any, path: Path, spec: ExportSpec, metadata: Mapping[str, str]) -> None:
    """Write `path`, and beside it its weights, with the extension .bin."""
    silence()
    import openvino

    for name, text in metadata.items():
        model.set_rt_info(text, [SECTION, name])
    openvino.save_model(model, path, compress_to_fp16=spec.precision == "fp16")


def save_pt2(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    # Otherwise the file would hold the example too: 10 MB of zeros.
    program._example_inputs = None
    # To memory first: on a full disk, PyTorch's own writer would crash the program.
    content = io.BytesIO()
    with quietly():
        torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata)})
    path.write_bytes(content.getbuffer())


def save_aoti(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Compile the network for this kind of processor.

    Raises:
        OutputError: there is no compiler.
    """
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    content = io.BytesIO()
    try:
        with quietly():
            torch._inductor.aoti_compile_and_package(program, package_path=content)
    except (InductorError, InvalidCxxCompiler) as error:
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise OutputError(f"`format=aoti`: PyTorch cannot compile the model; it needs g++ ({reason})") from error
    with zipfile.ZipFile(content, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/extra/{METADATA_FILE}", json.dumps(metadata))
    path.write_bytes(content.getbuffer())


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the exporters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
