"""Models in the formats of other runtimes: the names of their files, and the metadata in them."""

import mmap
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

from timesformer_cli import strict_json
from timesformer_cli.errors import CheckpointError
from timesformer_cli.specs import EXPORTED_SUFFIXES

Format = Literal["onnx", "openvino", "pt2", "aoti", "hub"]
Input = Literal["frames", "pixels"]
Output = Literal["logits", "probabilities", "embedding"]
Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"]

# frames: floating point (B, T, C, H, W), normalised, with the channels that the network was trained on.
# pixels: uint8 (B, T, H, W, 3), RGB as decoders give it. The batch may have any size, unless the model fixes it.
INPUT_NAMES: dict[Input, str] = {"frames": "pixel_values", "pixels": "pixels"}

# In a folder, in this order; repositories of onnx-community have the last. `read_archive` explains .pt2 files.
FILES = ("model.onnx", "model.xml", "model.pt2", "onnx/model.onnx")

# OpenVINO keeps the metadata of a model under this key. In other formats that have folders, our files use it too.
SECTION = "timesformer"
METADATA_FILE = "metadata.json"

# An ONNX file with external weights is hardly larger than its graph; larger files are not searched for their names.
_LARGEST_GRAPH = 2**26

# Numbers of fields of ONNX's ModelProto, as in onnx.proto.
_GRAPH, _METADATA = 7, 14


def has_exported_name(path: Path | None) -> bool:
    return path is not None and path.suffix in EXPORTED_SUFFIXES


class Archive(NamedTuple):
    """A .pt2 file: a program saved by torch.export or, if `compiled`, an AOTInductor package with machine code."""

    compiled: bool
    metadata: Mapping[str, str]


def read_archive(path: Path) -> Archive:
    """The kind and the metadata of a .pt2 file. Raises CheckpointError if torch did not write it."""
    try:
        with zipfile.ZipFile(path) as archive:
            # All names lie in one folder, whose name varies.
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            compiled = any(name.startswith("data/aotinductor/") for name in names)
            if not compiled and not any(name.startswith("models/") for name in names):
                raise CheckpointError(f"{path}: not a program saved by torch.export")
            extra = names.get(f"extra/{METADATA_FILE}")
            return Archive(compiled, {} if extra is None else _texts(archive.read(extra)))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, "a .pt2 file", error) from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata that the export wrote into the file: see `export.metadata`. Empty for files made by others.

    Neither the runtime nor the weights are loaded.

    Raises:
        CheckpointError: the file is not what its name says.
    """
    read = {".pt2": lambda path: read_archive(path).metadata, ".xml": _read_xml, ".onnx": _read_onnx}[path.suffix]
    return read(path)


def companions(path: Path) -> list[str]:
    """Names of the files beside an exported model that hold its weights, whether they exist or not."""
    if path.suffix == ".xml":
        return [path.with_suffix(".bin").name]
    if path.suffix != ".onnx" or path.stat().st_size > _LARGEST_GRAPH:
        return []
    # torch and the converters of Hugging Face name them so: model.onnx.data, model.onnx_data, model.onnx_data_1.
    names = re.findall(re.escape(path.name.encode()) + rb"(?:\.data|_data(?:_\d+)?)", path.read_bytes())
    return sorted({name.decode() for name in names})


def files_of(path: Path) -> list[Path]:
    """An exported model and the existing files beside it that hold its weights."""
    return [path, *(file for name in companions(path) if (file := path.with_name(name)).is_file())]


def _read_xml(path: Path) -> Mapping[str, str]:
    try:
        root = ElementTree.parse(path).getroot()
        if root.tag != "net":
            raise ValueError(f"its root is <{root.tag}>, not <net>")
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise _unreadable(path, "an OpenVINO model", error) from error
    section = root.find(f"rt_info/{SECTION}")
    return {} if section is None else {entry.tag: entry.get("value", "") for entry in section}


def _read_onnx(path: Path) -> Mapping[str, str]:
    """The `metadata_props` of a ModelProto; only a few pages of the file are read."""
    texts, has_graph = {}, False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, start, end in _fields(data, 0, len(data)):
                has_graph |= number == _GRAPH
                if number == _METADATA:  # a message of a key (1) and a value (2)
                    entry = {part: data[begin:stop].decode() for part, begin, stop in _fields(data, start, end)}
                    texts[entry.get(1, "")] = entry.get(2, "")
        if not has_graph:
            raise ValueError("it has no graph")
    except (OSError, ValueError, IndexError) as error:
        raise _unreadable(path, "an ONNX model", error) from error
    return texts


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a protobuf message. Raises ValueError or IndexError if it is not one."""
    while start < end:
        tag, start = _varint(data, start)
        match tag & 7:
            case 0:
                _, after = _varint(data, start)
            case 1:
                after = start + 8
            case 2:
                length, start = _varint(data, start)
                after = start + length
            case 5:
                after = start + 4
            case kind:
                raise ValueError(f"protobuf has no field type {kind}")
        if after > end:
            raise ValueError("it is truncated")
        yield tag >> 3, start, after
        start = after


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A varint (7 bits per byte, lowest first), and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too large for protobuf")


def _texts(content: bytes) -> dict[str, str]:
    values: Any = strict_json.loads(content)
    if not isinstance(values, dict):
        raise ValueError(f"{METADATA_FILE} is not a JSON object")
    return {str(key): str(value) for key, value in values.items()}


def _unreadable(path: Path, what: str, error: Exception) -> CheckpointError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if _is_pointer(path):
        reason = "it is a Git LFS pointer; `git lfs pull` fetches what it points to"
    return CheckpointError(f"{path}: cannot be read as {what} ({reason})")


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).startswith(b"version https://git-lfs")
    except OSError:
        return False
