"""Models of ONNX, run by ONNX Runtime through one of its execution providers."""

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


class _Backend(NamedTuple):
    """A provider by the name that ONNX Runtime has for it, and the values of `device` that go with it."""

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

# Types of tensors as ONNX Runtime writes them, where NumPy calls them otherwise.
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}

# What ONNX Runtime raises about a file, whatever it is to run on.
_FILE_ERRORS = ("NoSuchFile", "NoModel", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented")


def load(path: Path, *, device: str, provider: Provider, tell: Callable[[str], None]) -> Program:
    """As `engines.open_program`."""
    chosen = _choose(device, provider)
    if chosen == "auto" and _BACKENDS["cuda"].name in _import().get_available_providers():
        try:
            return _open(path, "cuda", device)
        except DeviceError as error:
            tell(f"{error}; going on with the CPU")
    return _open(path, "cpu" if chosen == "auto" else chosen, device)


def version() -> str:
    return str(_import().__version__)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            f"models of ONNX need onnxruntime ({error}); install it with: pip install 'timesformer-cli[onnx]'"
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
            f"{backend.name}: this onnxruntime ({onnxruntime.__version__}) is built without it, and has "
            f"{', '.join(known)}; choose one of them with `provider`, or `device=cpu`"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and what is raised is told
    options.intra_op_num_threads = threads()
    # Threads that wait in a loop would take the cores from the processes that read videos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The plan of a whole call keeps each piece of memory until its last use by anyone, and another plan is made of what
    # the call took. Without them, memory is that of a few tensors: for 96 frames 1.4 GB in place of 7, and no slower.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    # What a GPU has no kernel for, sizes of tensors mostly, falls to the next.
    providers = [(backend.name, _settings(provider, device))]
    providers += [(_BACKENDS[other].name, {}) for other in _BELOW.get(provider, ())]
    if backend.kind == "cuda" and provider != "directml":
        with redirect_stdout(io.StringIO()):  # of what it does not find
            onnxruntime.preload_dlls()  # CUDA's libraries, where pip has them
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceError(f"{path}: does not fit into the memory of the device; try `device=cpu`") from error
        if provider == "cpu" or type(error).__name__ in _FILE_ERRORS:
            raise cannot(path, "ONNX Runtime cannot load it", error) from error
        raise DeviceError(str(cannot(path, f"{backend.name} cannot be used here", error))) from error
    if session.get_providers()[0] != backend.name:  # it has only logged why
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


# Providers for the rest of a graph, the quickest first.
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
    if device == "auto" and rank.isdecimal():  # of torchrun, as for networks of PyTorch
        number = rank
    # Numbers with ten bits in place of 23 are no longer what was exported.
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
