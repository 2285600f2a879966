"""Models in a .pt2 file, run by torch: programs saved by torch.export, and packages compiled by AOTInductor.

A package is machine code: opening one runs its content, as starting any program does. Packages are never fetched from
the Hub, and only trusted ones should be given.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

from timesformer_cli import strict_json
from timesformer_cli.checkpoints.exported import read_archive
from timesformer_cli.errors import CheckpointError, DeviceError
from timesformer_cli.runtimes import program_grammar
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.ports import Kind, Port, Program, cannot, is_out_of_memory
from timesformer_cli.shapes import ShapeError

_KINDS: dict[str, Kind] = {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}


def load(path: Path, metadata: Mapping[str, str], *, device: str) -> Program:
    """As `engines.open_program`."""
    open_file = _open_package if read_archive(path).compiled else _open_program
    try:
        return open_file(path, metadata, device)
    except (CheckpointError, DeviceError):
        raise
    except Exception as error:  # torch raises many kinds for a file that it cannot read
        raise cannot(path, "PyTorch cannot load it", error) from error


def _open_program(path: Path, _: Mapping[str, str], device: str) -> Program:
    refuse_code(path)
    # torch.export.load falls back to the previous format, which is all pickles, if this fails.
    program = load_pt2(str(path)).exported_programs["model"]
    target = find_device(device)
    if target.type != "cpu":
        program = move_to_device_pass(program, target)
    signature = program.graph_signature
    return Program(
        path,
        list(_ports(program, signature.user_inputs)),
        list(_ports(program, signature.user_outputs)),
        _KINDS[target.type],
        _runner(path, program.module(), target),
    )


def _open_package(path: Path, metadata: Mapping[str, str], device: str) -> Program:
    with PT2ArchiveReader(str(path)) as archive:
        facts = [name for name in archive.get_file_names() if name.endswith("_metadata.json")]
        built_for = strict_json.loads(archive.read_string(facts[0]))["AOTI_DEVICE_KEY"] if facts else "cpu"
    target = find_device(built_for if device == "auto" else device)
    if target.type != built_for:
        raise DeviceError(f"`device={device}`: {path} was compiled for {built_for}; leave the option out")
    model = torch._inductor.aoti_load_package(str(path), device_index=-1 if target.index is None else target.index)
    # A package does not describe its inputs and outputs.
    dtype = "uint8" if metadata.get("input") == "pixels" else "float32"
    return Program(
        path,
        [Port("input", dtype, None)],
        [Port("output", "float32", None)],
        _KINDS[target.type],
        _runner(path, model, target),
    )


def _runner(path: Path, model: Any, target: torch.device) -> Any:
    def run(values: NDArray[Any], output: int) -> NDArray[Any]:
        try:
            with torch.inference_mode():
                # torch shares the memory of an array, and warns if it is read-only.
                result = model(torch.from_numpy(np.require(values, requirements=["C", "W"])).to(target))
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from None
            raise cannot(path, "PyTorch cannot run it", error) from error
        chosen = result if isinstance(result, torch.Tensor) else list(result)[output]
        values_out: NDArray[Any] = chosen.float().cpu().numpy()
        return values_out

    return run


def _ports(program: ExportedProgram, names: Any) -> Iterator[Port]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for name in names:
        value = values.get(name.name if isinstance(name, TensorArgument) else name)
        if isinstance(value, torch.Tensor):
            shape = tuple(size if isinstance(size, int) else None for size in value.shape)
            yield Port(name, str(value.dtype).removeprefix("torch."), shape)
        else:
            yield Port(str(name), "of no tensor", ())


def refuse_code(path: Path) -> None:
    """Raise CheckpointError for a program that torch cannot load or run without running code in the file.

    What is known is allowed, and the rest is refused: see `program_grammar`.
    """
    try:
        _refuse_expansion(path)
        with PT2ArchiveReader(str(path)) as archive:
            program_grammar.file_names(archive.get_file_names())
            for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
                program_grammar.payloads(strict_json.loads(archive.read_string(name)), name)
            inputs = archive.read_bytes("data/sample_inputs/model.pt")
            program_grammar.program(strict_json.loads(archive.read_string("models/model.json")))
    except ShapeError as refused:
        raise _would_run(path, str(refused)) from None
    if inputs:
        try:
            torch.load(io.BytesIO(inputs), weights_only=True)
        except Exception as error:
            raise _would_run(path, "a pickle of example inputs") from error


def _refuse_expansion(path: Path) -> None:
    """Refuse files that are larger than they look: torch writes none that is compressed, and small ones of JSON."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ShapeError(f"{entry.filename} is compressed")
            if entry.filename.endswith(".json") and entry.file_size > strict_json.LARGEST:
                raise ShapeError(f"{entry.filename} of {entry.file_size / 2**20:.0f} MiB")


def _would_run(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: refused: loading it could run code from the file ({what[:100]})")
