"""Keep runtimes from reporting to their makers: no identifier, no look-up of a host, no file in the home folder."""

import os
import sys
from types import ModuleType


def silence() -> None:
    """Turn reports off, for this process and the processes it starts. Call this before each import of a runtime.

    ONNX Runtime, from 1.29 on, keeps a device id and a database of events unless a variable forbids it. OpenVINO and
    NNCF report their import through a package of its own, openvino_telemetry, and work without it.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if "openvino" not in sys.modules:
        missing: dict[str, ModuleType | None] = {"openvino_telemetry": None}  # importing it raises ImportError
        sys.modules.update(missing)  # type: ignore[arg-type]
