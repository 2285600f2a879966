"""No runtime reports to its maker: neither an identifier, nor a look-up of a host, nor a file in the home folder."""

import os
import sys
from types import ModuleType


def silence() -> None:
    """Turn reports off, for this process and those that it starts. Call it before every import of a runtime.

    ONNX Runtime, from 1.29 on, keeps a device id and a database of events unless a variable forbids it. OpenVINO and
    NNCF report their import through a package of its own, openvino_telemetry, and do without it if it is missing.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if "openvino" not in sys.modules:
        missing: dict[str, ModuleType | None] = {"openvino_telemetry": None}  # importing it raises ImportError
        sys.modules.update(missing)  # type: ignore[arg-type]
