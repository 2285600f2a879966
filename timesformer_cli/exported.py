"""Models in the formats of other runtimes: the names of their files, and what they say of themselves."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from timesformer_cli.errors import CheckpointError

Format = Literal["onnx", "openvino", "pt2", "aoti", "hub"]
Input = Literal["frames", "pixels"]
Output = Literal["logits", "probabilities", "embedding"]

# frames: floating point (B, T, C, H, W), normalised, in the channels that the network was trained on.
# pixels: uint8 (B, T, H, W, 3), RGB as decoders give it. The batch is of any size, unless a model says otherwise.
INPUT_NAMES: dict[Input, str] = {"frames": "pixel_values", "pixels": "pixels"}

# In a folder; the last is where repositories of onnx-community have it. See `read_metadata` for what a .pt2 is.
FILES = ("model.onnx", "model.xml", "model.pt2", "onnx/model.onnx")
SUFFIXES = (".onnx", ".xml", ".pt2")

# Under this key OpenVINO keeps what is said of a model, and so do our files of other formats that have folders.
SECTION = "timesformer"
METADATA_FILE = "metadata.json"


def is_exported(path: Path | None) -> bool:
    return path is not None and path.suffix in SUFFIXES


class Archive(NamedTuple):
    """A .pt2: what torch.export saved, or with `compiled` an AOTInductor package, which is a program."""

    compiled: bool
    metadata: Mapping[str, str]


def read_archive(path: Path) -> Archive:
    """What a .pt2 is. Raises CheckpointError if it is not one that torch wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            # All names lie in one folder, which has a name of its own.
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            compiled = any(name.startswith("data/aotinductor/") for name in names)
            if not compiled and not any(name.startswith("models/") for name in names):
                raise CheckpointError(f"{path}: not a program that torch.export saved")
            extra = names.get(f"extra/{METADATA_FILE}")
            return Archive(compiled, {} if extra is None else _texts(archive.read(extra)))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read as a .pt2 ({error})") from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """What the export wrote into the file: see `export.metadata`. Empty for files that others made.

    Raises:
        CheckpointError: the file is not what its name says, or its runtime is not installed.
    """
    if path.suffix == ".pt2":
        return read_archive(path).metadata
    if path.suffix == ".xml":
        return _read_xml(path)
    from timesformer_cli.engines.ort import read_metadata as read_onnx

    return read_onnx(path)


def _read_xml(path: Path) -> dict[str, str]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise CheckpointError(f"{path}: cannot be read as a model of OpenVINO ({error})") from error
    section = root.find(f"rt_info/{SECTION}")
    return {} if section is None else {entry.tag: entry.get("value", "") for entry in section}


def _texts(content: bytes) -> dict[str, str]:
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError(f"{METADATA_FILE} is no JSON object")
    return {str(key): str(value) for key, value in values.items()}
