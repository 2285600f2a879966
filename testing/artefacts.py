"""Exported models for the tests, each made once, and only with the libraries: nothing here uses our own export."""

import atexit
import contextlib
import functools
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from testing.clips import write_model
from timesformer_cli.network.model import TimesformerForVideoClassification

# Of `write_model`: frames, channels, height and width of a clip; and classes.
CLIP, CLASSES = (4, 3, 32, 32), 5

FORMATS = ("onnx", "openvino", "pt2")


class _Logits(torch.nn.Module):
    def __init__(self, model: TimesformerForVideoClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values).logits
        return logits


@functools.cache
def scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="timesformer-artefacts-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def torch_folder() -> Path:
    """The model that the others are made from: config.json and weights of PyTorch."""
    return write_model(scratch() / "torch")


@functools.cache
def _program() -> torch.export.ExportedProgram:
    network = _Logits(TimesformerForVideoClassification.from_pretrained(str(torch_folder()))).eval()
    batch = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
    with _quiet():
        return torch.export.export(network, (torch.zeros(2, *CLIP),), dynamic_shapes=batch)


@functools.cache
def exported(format: str) -> Path:
    """The model in that format, in a folder without config.json. Skips the test if the library is not installed."""
    folder = scratch() / format
    folder.mkdir()
    with _quiet():
        if format == "onnx":
            pytest.importorskip("onnxscript")
            path = folder / "model.onnx"
            names = {"input_names": ["pixel_values"], "output_names": ["logits"]}
            made = torch.onnx.export(_program(), dynamo=True, external_data=False, verbose=False, **names)  # type: ignore[arg-type]
            assert made is not None
            made.save(path)
        elif format == "openvino":
            openvino = pytest.importorskip("openvino")
            path = folder / "model.xml"
            openvino.save_model(openvino.convert_model(_program()), path, compress_to_fp16=False)
        else:
            path = folder / "model.pt2"
            torch.export.save(_program(), path)
    return path


def folder_of(format: str, target: Path) -> Path:
    """A folder of its own with that model and the config.json of the source model."""
    shutil.copytree(exported(format).parent, target)
    shutil.copy(torch_folder() / "config.json", target)
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own doings, and of missing optional packages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def weights(classes: int = CLASSES, clip: Sequence[int] = CLIP) -> NDArray[np.float32]:
    """The weights of `write_linear`: (numbers of a clip, classes)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((int(np.prod(clip)), classes)).astype(np.float32) / 10


class Matrix(torch.nn.Module):
    """One matrix: enough of a network for tests of inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Buffer(torch.from_numpy(weights()))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.flatten(1) @ self.weights


def write_linear(
    path: Path,
    *,
    shape: Sequence[int | str] = ("batch", *CLIP),
    dtype: str = "float32",
    outputs: Mapping[str, Sequence[int | str]] | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    channels: Sequence[int] = (0, 1, 2),
    clip: Sequence[int] = CLIP,
    classes: int = CLASSES,
    metadata: Mapping[str, str] | None = None,
    extra_inputs: Sequence[str] = (),
    scale: float = 1.0,
    activation: str = "Softmax",
) -> Path:
    """An ONNX file of one matrix: the numbers of a `clip` times `weights`, and `outputs` made from that by name.

    `probabilities` are the activation, an operator of ONNX, `embedding` is all numbers, every other output is the
    logits. A model of uint8 (B, T, H, W, 3) takes `channels` of its pixels, and normalises them with `mean` and `std`.
    """
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    outputs = {"logits": (shape[0], classes)} if outputs is None else outputs
    kinds = {"float32": types.FLOAT, "float16": types.FLOAT16, "uint8": types.UINT8, "int64": types.INT64}
    constants = {"weights": weights(classes, clip) * np.float32(scale)}
    nodes = [helper.make_node("Cast", ["frames"], ["cast"], to=types.FLOAT)]
    last = "cast"
    if dtype == "uint8":
        constants |= {
            "channels": np.array(channels, np.int64),
            "mean": 255 * np.array(mean, np.float32)[list(range(len(channels)))],
            "std": 255 * np.array(std, np.float32)[list(range(len(channels)))],
        }
        nodes += [
            helper.make_node("Gather", ["cast", "channels"], ["chosen"], axis=4),
            helper.make_node("Sub", ["chosen", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normal"]),
            helper.make_node("Transpose", ["normal"], ["moved"], perm=[0, 1, 4, 2, 3]),
        ]
        last = "moved"
    nodes += [
        helper.make_node("Flatten", [last], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
    ]
    made = {"probabilities": (activation, ["product"]), "embedding": ("Identity", ["flat"])}
    for name in outputs:
        operator, inputs = made.get(name, ("Identity", ["product"]))
        half = [f"{name} in full"] if dtype == "float16" else [name]
        nodes.append(helper.make_node(operator, inputs, half))
        if dtype == "float16":
            nodes.append(helper.make_node("Cast", half, [name], to=types.FLOAT16))
    kind = types.FLOAT16 if dtype == "float16" else types.FLOAT
    graph = helper.make_graph(
        nodes,
        "linear",
        [
            helper.make_tensor_value_info("frames", kinds[dtype], shape),
            *(helper.make_tensor_value_info(name, types.FLOAT, [1]) for name in extra_inputs),
        ],
        [helper.make_tensor_value_info(name, kind, sizes) for name, sizes in outputs.items()],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model: Any = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def metadata_of(folder: Path, **others: str) -> dict[str, str]:
    """The metadata that an export writes into a file, as far as reading it needs."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"config": json.dumps(config), "precision": "fp32", "output": "logits", **others}
