"""The steps of an export that take seconds, each done once for the same network and the same settings."""

import copy
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from timesformer_cli.jobs.export import graph


@contextmanager
def each_graph_once() -> Iterator[None]:
    """PyTorch's graph of a network, and the exporter's translation to ONNX, are kept; each caller gets a copy."""
    trace, to_onnx = graph.trace, torch.onnx.export
    traced: dict[Any, Any] = {}
    translated: dict[Any, Any] = {}

    def trace_once(module: graph.Exportable, shape: tuple[int, ...]) -> Any:
        key = (module.input, module.output, module.activation, module.channel_order, shape, _digest(module))
        if key not in traced:
            # An export empties the network's weights at its end.
            traced[key] = _copy(trace(module, shape))
        program = _copy(traced[key])
        program.key = key
        return program

    def to_onnx_once(program: Any, **options: Any) -> Any:
        key = (program.key, repr(options))
        if key not in translated:
            exported = to_onnx(program, **options)
            assert exported is not None
            translated[key] = exported.model
        return SimpleNamespace(model=translated[key].clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "trace", trace_once)
        patch.setattr(torch.onnx, "export", to_onnx_once)
        yield


def _digest(module: torch.nn.Module) -> str:
    """Of its weights, with names, types and shapes."""
    digest = hashlib.sha256(str(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _copy(program: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch about its own code
        return copy.deepcopy(program)
