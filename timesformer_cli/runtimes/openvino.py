"""OpenVINO models (an .xml with its .bin), run on the processor."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError, DeviceError, UsageError
from timesformer_cli.runtimes.ports import Port, Program, cannot, is_out_of_memory, threads
from timesformer_cli.runtimes.telemetry import silence

# OpenVINO's names of types, if NumPy has different ones.
_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}


def load(path: Path, *, device: str) -> Program:
    """As `engines.open_program`."""
    if device not in ("auto", "cpu"):
        raise DeviceError(f"`device={device}`: OpenVINO models run on the CPU; leave the option out")
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path}: its weights are missing; {path.with_suffix('.bin').name} must lie beside it")
    core = _import().Core()
    # By default, it computes in bf16 on processors that support it, ten times less exactly than weights in fp16 do.
    settings = {"INFERENCE_NUM_THREADS": threads(), "INFERENCE_PRECISION_HINT": "f32"}
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise cannot(path, "OpenVINO cannot load it", error) from error
    return Program(
        path,
        [_port(tensor) for tensor in compiled.inputs],
        [_port(tensor) for tensor in compiled.outputs],
        "cpu",
        lambda values, output: _run(compiled, path, values, output),
    )


def version() -> str:
    return str(_import().__version__)


def _import() -> Any:
    silence()
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            f"OpenVINO models need openvino ({error}); install it with: pip install 'timesformer-cli[openvino]'"
        ) from error
    return openvino


def _port(tensor: Any) -> Port:
    names, dtype, sizes = tensor.get_names(), tensor.get_element_type().get_type_name(), tensor.get_partial_shape()
    # A tensor may have several names, in no order.
    name = next((name for name in ("logits", "probabilities", "embedding") if name in names), min(names, default="?"))
    shape = None
    if sizes.rank.is_static:
        shape = tuple(size.get_length() if size.is_static else None for size in sizes)
    return Port(name, _DTYPES.get(dtype, dtype), shape)


def _run(compiled: Any, path: Path, values: NDArray[Any], output: int) -> NDArray[Any]:
    try:
        # The memory belongs to the model, and the next call overwrites it.
        return np.array(compiled([values])[output])
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise cannot(path, "OpenVINO cannot run it", error) from error
