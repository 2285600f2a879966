"""ONNX models, run by ONNX Runtime through one of its execution providers."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.exported import Provider
from timesformer_cli.errors import DeviceError, UsageError
from timesformer_cli.runtimes.ports import Kind, Port, Program, cannot, is_out_of_memory, threads
from timesformer_cli.runtimes.telemetry import silence


class _Backend(NamedTuple):
    """A provider's name in ONNX Runtime, and the values of `device` that fit it."""

    name: str
    devices: tuple[str, ...]
    kind: Kind


_BACKENDS: dict[Provider, _Backend] = {
    "cpu": _Backend("CPUExecutionProvider", ("auto", "cpu"), "cpu"),
    "cuda": _Backend("CUDAExecutionProvider", ("auto", "cuda"), "cuda"),
    "tensorrt": _Backend("TensorrtExecutionProvider", ("auto", "cuda"), "cuda"),
    "openvino": _Backend("OpenVINOExecutionProvider", ("auto", "cpu"), "cpu"),
    "coreml": _Backend("CoreMLExecutionProvider", ("auto", "mps"), "mps"),
    "directml": _Backend("DmlExecutionProvider", ("auto",), "cuda"),
}

_BY_DEVICE: dict[str, Provider] = {"cpu": "cpu", "cuda": "cuda", "mps": "coreml"}

# ONNX Runtime's names of tensor types, if NumPy has different ones.
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}

# Errors that ONNX Runtime raises about a file, on any device.
_FILE_ERRORS = ("NoSuchFile", "NoModel", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented")


def load(path: Path, *, device: str, provider: Provider, tell: Callable[[str], None]) -> Program:
    """As `engines.open_program`."""
    chosen = _choose(device, provider)
    if chosen == "auto" and _BACKENDS["cuda"].name in _import().get_available_providers():
        try:
            return _open(path, "cuda", device)
        except DeviceError as error:
            tell(f"{error}; continuing on the CPU")
    return _open(path, "cpu" if chosen == "auto" else chosen, device)


def version() -> str:
    return str(_import().__version__)


def _import() -> Any:
    silence()
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            f"ONNX models need onnxruntime ({error}); install it with: pip install 'timesformer-cli[onnx]'"
        ) from error
    return onnxruntime


def _choose(device: str, provider: Provider) -> Provider:
    kind = device.partition(":")[0]
    if provider == "auto":
        return _BY_DEVICE.get(kind, "auto")
    if kind not in _BACKENDS[provider].devices:
        raise UsageError(f"`provider={provider}` and `device={device}` exclude each other; leave one of them out")
    return provider


def _open(path: Path, provider: Provider, device: str) -> Program:
    onnxruntime, backend = _import(), _BACKENDS[provider]
    available = onnxruntime.get_available_providers()
    if backend.name not in available:
        known = [name for name, other in _BACKENDS.items() if other.name in available]
        raise DeviceError(
            f"{backend.name}: this onnxruntime ({onnxruntime.__version__}) is built without it; it has "
            f"{', '.join(known)}; choose one of them with `provider`, or `device=cpu`"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised and reported
    options.intra_op_num_threads = threads()
    # Threads that spin while they wait would take the cores from the processes that read videos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A memory plan of a whole call keeps each block until its last use anywhere, and a second plan is made from the
    # first call's use. Without both, memory is that of a few tensors: 1.4 GB instead of 7 for 96 frames, no slower.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    # Nodes without a kernel on the GPU, mostly for tensor sizes, fall to the next provider.
    providers = [(backend.name, _settings(provider, device))]
    providers += [(_BACKENDS[other].name, {}) for other in _BELOW.get(provider, ())]
    if backend.kind == "cuda" and provider != "directml":
        with redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()  # CUDA's libraries, if pip installed them
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceError(f"{path}: does not fit into the memory of the device; try `device=cpu`") from error
        if provider == "cpu" or type(error).__name__ in _FILE_ERRORS:
            raise cannot(path, "ONNX Runtime cannot load it", error) from error
        raise DeviceError(str(cannot(path, f"{backend.name} cannot be used here", error))) from error
    if session.get_providers()[0] != backend.name:  # the reason is only logged
        raise DeviceError(
            f"{backend.name}: this onnxruntime has it, but cannot use it on this machine; try `device=cpu`"
        )
    return Program(
        path,
        [_port(node) for node in session.get_inputs()],
        [_port(node) for node in session.get_outputs()],
        backend.kind,
        lambda values, output: _run(session, path, values, output),
    )


# Providers for the rest of a graph, fastest first.
_BELOW: dict[Provider, tuple[Provider, ...]] = {
    "cuda": ("cpu",),
    "tensorrt": ("cuda", "cpu"),
    "openvino": ("cpu",),
    "coreml": ("cpu",),
    "directml": ("cpu",),
}


def _settings(provider: Provider, device: str) -> dict[str, str]:
    if provider == "openvino":
        return {"device_type": "CPU"}
    if provider not in ("cuda", "tensorrt"):
        return {}
    number, rank = device.partition(":")[2], os.environ.get("LOCAL_RANK", "")
    if device == "auto" and rank.isdecimal():  # from torchrun, as for PyTorch networks
        number = rank
    # With ten mantissa bits instead of 23 (TF32), the model would no longer be the exported one.
    return {"device_id": number or "0", **({"use_tf32": "0"} if provider == "cuda" else {})}


def _port(node: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Port(node.name, _DTYPES.get(node.type, node.type[7:-1]), shape)


def _run(session: Any, path: Path, values: NDArray[Any], output: int) -> NDArray[Any]:
    try:
        result = session.run([session.get_outputs()[output].name], {session.get_inputs()[0].name: values})
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise cannot(path, "ONNX Runtime cannot run it", error) from error
    return np.asarray(result[0])
