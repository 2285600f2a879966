"""Models in a .pt2 file, run by torch: programs saved by torch.export, and packages compiled by AOTInductor.

A package is machine code: opening one runs its content, as starting any program does. Packages are never fetched from
the Hub, and only trusted ones should be given.
"""

import ast
import io
import json
import re
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

from timesformer_cli.checkpoints.exported import read_archive
from timesformer_cli.errors import CheckpointError, DeviceError
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.ports import Kind, Port, Program, cannot, is_out_of_memory

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
        built_for = json.loads(archive.read_string(facts[0]))["AOTI_DEVICE_KEY"] if facts else "cpu"
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


# The files that torch.export saves for a program with only tensors.
_FILES = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)|models/model\.json|extra/.*|archive_(format|version)|byteorder|\.data/.*"
)
# Operators of aten, private ones too: casts come with `_assert_tensor_metadata`. Two of its operators touch files.
_OPERATORS = re.compile(
    r"torch\.ops\.(aten(?!\.(from_file|save)\b)|prims|quantized_decomposed)\._?[a-z]\w*(\.[A-Za-z]\w*)?"
    r"|torch\.ops\.higher_order\.(cond|invoke_subgraph|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)|math\.[a-z]\w*"
)
_NAMES = re.compile(r"[\w.]*")
_SYMBOLIC = {
    *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv"),
    *("CeilDiv", "CleanDiv", "ModularIndexing", "Equality", "Unequality", "Not", "And", "Or", "LessThan"),
    *("StrictLessThan", "GreaterThan", "StrictGreaterThan"),
}


def refuse_code(path: Path) -> None:
    """Raise CheckpointError for a program that torch cannot load or run without running code in the file.

    As of 2.13, torch.export.load unpickles weights and constants that are marked so, custom objects, and example
    inputs. It takes any attribute of torch as an operator, or as one that an operator calls. It evaluates sizes with
    `eval`, through sympy, and guards with `exec`. It also generates Python code that contains the names of inputs. Of
    all this, a network saved by torch.export.save needs only sizes made of sums and products.
    """
    with PT2ArchiveReader(str(path)) as archive:
        names = archive.get_file_names()
        odd = next((name for name in names if not _FILES.fullmatch(name)), None)
        if odd is not None:
            raise _would_run(path, odd)
        for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
            payloads = json.loads(archive.read_string(name))["config"].values()
            if any(payload["use_pickle"] for payload in payloads):
                raise _would_run(path, f"a pickle in {name}")
        inputs = archive.read_bytes("data/sample_inputs/model.pt")
        program = json.loads(archive.read_string("models/model.json"))
    if inputs:
        try:
            torch.load(io.BytesIO(inputs), weights_only=True)
        except Exception as error:
            raise _would_run(path, "a pickle of example inputs") from error
    if program.get("guards_code"):
        raise _would_run(path, "guards")
    for key, text in _strings(program):
        if (
            (key in ("target", "as_operator") and not _OPERATORS.fullmatch(text))
            or (key == "expr_str" and not _is_arithmetic(text))
            or (key in ("name", "as_name", "fqn", "forward_arg_names") and not _NAMES.fullmatch(text))
        ):
            raise _would_run(path, f"{key} {text!r}")


def _would_run(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: refused: loading it could run code from the file ({what[:100]})")


def _strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings in JSON, each with the name of the field that holds it."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _strings(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, key)


def _is_arithmetic(text: str) -> bool:
    """Whether sympy's `eval` of it can only make numbers and symbols."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    known = (
        ast.Expression,
        ast.Constant,
        ast.Name,
        ast.Load,
        ast.Call,
        ast.keyword,
        ast.operator,
        ast.unaryop,
        ast.BinOp,
    )
    return all(
        isinstance(node, (*known, ast.UnaryOp, ast.Compare, ast.cmpop))
        and not (isinstance(node, ast.Call) and getattr(node.func, "id", None) not in _SYMBOLIC)
        and not (isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier())
        for node in nodes
    )
