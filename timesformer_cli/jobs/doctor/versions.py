"""Versions: of this package, of Python, and of the libraries that matter."""

import importlib.util
import platform
from collections.abc import Iterator
from functools import partial
from importlib import import_module, metadata
from typing import Literal

from timesformer_cli.__about__ import __version__
from timesformer_cli.jobs.doctor.findings import Check, Finding

# Libraries that every run needs, by the names that users know; their distributions on PyPI.
_NEEDED = {"torch": "torch", "pyav": "av", "numpy": "numpy", "huggingface_hub": "huggingface-hub"}

# Libraries that only some runs need, and for what. The decoders among them are imported by their own checks.
_OPTIONAL = {
    "decord": "`decoder=decord`; to have it: pip install decord",
    "torchcodec": "`decoder=torchcodec`; to have it: pip install 'timesformer-cli[torchcodec]'",
    "onnxruntime": "models of ONNX; to have it: pip install 'timesformer-cli[onnx]'",
    "openvino": "models of OpenVINO; to have it: pip install 'timesformer-cli[openvino]'",
    "pyarrow": "Parquet files; to have it: pip install 'timesformer-cli[parquet]'",
    "ray": "`engine=ray`; to have it: pip install 'timesformer-cli[ray]'",
}
Decoder = Literal["decord", "torchcodec"]
DECODERS: tuple[Decoder, ...] = ("decord", "torchcodec")


def checks() -> Iterator[Check]:
    yield Check(group="versions", name="timesformer", find=_own)
    yield Check(group="versions", name="python", find=_python)
    for name in _NEEDED:
        remedy = "install this package again, with its requirements: pip install -c constraints.txt ."
        yield Check(group="versions", name=name, find=partial(_needed, name), remedy=remedy)
    for name in _OPTIONAL:
        remedy = "install it again, or uninstall it: only some runs need it"
        apart = is_installed(name) and name not in DECODERS
        yield Check(group="versions", name=name, find=partial(_optional, name), remedy=remedy, apart=apart)


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _own() -> list[Finding]:
    return [Finding(group="versions", name="timesformer", message=__version__, facts={"version": __version__})]


def _python() -> list[Finding]:
    facts = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
    }
    message = f"{facts['version']} ({facts['implementation']}) on {facts['system']}"
    return [Finding(group="versions", name="python", message=message, facts=facts)]


def _needed(name: str) -> list[Finding]:
    version = metadata.version(_NEEDED[name])
    return [Finding(group="versions", name=name, message=version, facts={"version": version})]


def _optional(name: str) -> list[Finding]:
    """Imported, unless it is a decoder, so that one that is broken is noticed."""
    if not is_installed(name):
        message = f"not installed; needed for {_OPTIONAL[name]}"
        return [Finding(group="versions", name=name, message=message, facts={"version": None})]
    from timesformer_cli.runtimes.telemetry import silence

    silence()
    # Modules tell their own version, since some have several distributions, such as onnxruntime-gpu.
    version = metadata.version(name) if name in DECODERS else str(import_module(name).__version__)
    return [Finding(group="versions", name=name, message=version, facts={"version": version})]
