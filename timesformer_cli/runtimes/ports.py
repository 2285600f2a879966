"""What all runtimes share: finding a model's input and output for our views, and running views through it.

Imports no runtime.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import Pixels
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Activation, Checkpoint, PreprocessSpec, TimesformerConfig
from timesformer_cli.video.preprocess import normalised, to_levels

# Views (N, T, C, H, W), uint8 if the runtime `takes_levels`, to logits float32 (N, K), for any N of at least 1.
# Raises MemoryError if so many do not fit into the device's memory.
Scorer = Callable[[Pixels], NDArray[np.float32]]

# A scorer's output: the logits; the class tokens float32 (N, D) that the classifier computes them from; both,
# (N, D + K); the mean of all patches (N, D); or that of the patches of each frame (N, T, D).
Output = Literal["logits", "embedding", "both", "mean", "frames"]

Kind = Literal["cpu", "cuda", "mps"]


class Port(NamedTuple):
    """An input or an output: its type in NumPy's terms, and its sizes; None is a size that is free or unknown."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {'of any shape' if self.shape is None else _shown(self.shape)}"


class Program(NamedTuple):
    """A model as loaded by its runtime.

    `run` takes the values of the only input, and the number of the output to return. It raises MemoryError
    if a batch does not fit into memory, and CheckpointError if the model cannot run.
    """

    path: Path
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    kind: Kind
    run: Callable[[NDArray[Any], int], NDArray[Any]]

    def __str__(self) -> str:
        return f"its inputs are {_list(self.inputs)}; its outputs {_list(self.outputs)}"


class Engine:
    """A scorer that sends any batch of views through a program. The program may need bytes, a different dtype, or
    batches of one size.

    `kind` is the kind of device that it computes on.

    Raises:
        CheckpointError: the program does not fit the checkpoint, or does not classify videos.
    """

    def __init__(
        self, program: Program, checkpoint: Checkpoint, metadata: Mapping[str, str], output: Output = "logits"
    ) -> None:
        self.kind = program.kind
        self._program, self._preprocess = program, checkpoint.preprocess
        self._input = _find_input(program, checkpoint, metadata)
        self._takes_pixels = self._input.dtype == "uint8"
        probabilities = False
        if output == "embedding":
            self._width = checkpoint.config.hidden_size
            self._output = _find_embedding(program, metadata.get("output"))
        else:
            self._width = len(checkpoint.labels)
            self._output, probabilities = _find_output(program, checkpoint, metadata.get("output"))
        self._wrong = _wrong_tokens if output == "embedding" else _wrong_classes
        self._activation = _activation_inside(program, checkpoint, metadata) if probabilities else "none"
        self._batch = None if self._input.shape is None else self._input.shape[0]

    def __call__(self, views: Pixels) -> NDArray[np.float32]:
        logits = self.run(views)
        if not np.isfinite(logits).all():
            raise CheckpointError(f"{self._program.path}: gives numbers that are not finite; export it in fp32")
        return logits

    def run(self, views: Pixels) -> NDArray[np.float32]:
        """As a call, but numbers that are not finite are returned too."""
        values: NDArray[Any] = views
        if self._takes_pixels:
            values = to_pixels(views, self._preprocess)
        elif views.dtype == np.uint8:
            values = normalised(views, self._preprocess)
        values = np.ascontiguousarray(values, self._input.dtype)
        size = self._batch or len(values)
        logits = np.concatenate([self._score(values[start : start + size]) for start in range(0, len(values), size)])
        return logits_of(logits, self._activation)

    def _score(self, values: NDArray[Any]) -> NDArray[np.float32]:
        count = len(values)
        if self._batch is not None and count < self._batch:
            values = np.concatenate([values, np.repeat(values[-1:], self._batch - count, axis=0)])
        result = self._program.run(values, self._output)
        if result.shape != (len(values), self._width):
            raise self._wrong(self._program, result.shape, self._width)
        return result[:count].astype(np.float32)


def logits_of(scores: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """The logits (N, K) of which an activation made these scores.

    Those of a softmax are known up to a constant per view, which a softmax cancels. Those of a sigmoid are exact,
    unless it is rounded to 0 or 1.
    """
    if activation == "none":
        return scores
    least = np.maximum(scores, np.finfo(np.float32).tiny)
    if activation == "softmax":
        return np.log(least)
    below_one = np.minimum(least, np.nextafter(np.float32(1), np.float32(0)))
    return np.log(below_one) - np.log1p(-below_one)


def to_pixels(views: Pixels, preprocess: PreprocessSpec) -> NDArray[np.uint8]:
    """RGB bytes (N, T, H, W, 3) of views (N, T, C, H, W); see `preprocess.to_levels`."""
    levels = to_levels(views, preprocess)
    if preprocess.channel_order == "bgr":
        levels = levels[:, :, ::-1]
    elif preprocess.channel_order == "gray":
        levels = levels.repeat(3, axis=2)
    return np.ascontiguousarray(levels.transpose(0, 1, 3, 4, 2))


def _find_input(program: Program, checkpoint: Checkpoint, metadata: Mapping[str, str]) -> Port:
    fitting = [
        port
        for port in program.inputs
        if port.dtype in ("float32", "float16", "uint8") and (port.shape is None or len(port.shape) == 5)
    ]
    if len(program.inputs) != 1 or not fitting:
        raise CheckpointError(
            f"{program.path}: not a model whose only input is videos, float32 or float16 (B, T, C, H, W) or uint8 "
            f"(B, T, H, W, 3): {program}"
        )
    (port,) = fitting
    preprocess = checkpoint.preprocess
    frames, size = _exported_clip(checkpoint.config, metadata)
    if port.dtype == "uint8":
        order = "frames, height, width, channels"
        given, free = (checkpoint.sampling.num_frames, *preprocess.size, 3), (frames, *size, 3)
    else:
        order, channels = "frames, channels, height, width", len(preprocess.mean)
        given, free = (checkpoint.sampling.num_frames, channels, *preprocess.size), (frames, channels, *size)
    # A size that is free in a graph may still be fixed inside it; different clips would then give nonsense.
    sizes = free if port.shape is None else port.shape[1:]
    taken = tuple(other if size is None else size for size, other in zip(sizes, free, strict=True))
    if taken != given:
        raise CheckpointError(
            f"{program.path}: takes clips of {_shown(taken)} ({order}), but the recipe {checkpoint.recipe.name} gives "
            f"{_shown(given)}; change the recipe, or export the model for it"
        )
    return port


def _exported_clip(config: TimesformerConfig, metadata: Mapping[str, str]) -> tuple[int, tuple[int, int]]:
    """Number and (height, width) of the frames that a model was exported for, from its metadata or its config."""
    frames, sides = metadata.get("num_frames", ""), re.findall(r"\d+", metadata.get("image_size", ""))
    size = (int(sides[0]), int(sides[-1])) if sides else config.image_hw
    return int(frames) if frames.isdecimal() else config.num_frames, size


def _find_embedding(program: Program, stated: str | None) -> int:
    """The number of the output with the class tokens. Raises CheckpointError if there is none."""
    names = [port.name for port in program.outputs]
    if stated is not None and len(names) == 1:
        names = [stated]
    if "embedding" not in names:
        raise CheckpointError(
            f"{program.path}: gives classes, not embeddings; export it with `output=embedding`, or use the model that "
            "it was made from"
        )
    return names.index("embedding")


def _find_output(program: Program, checkpoint: Checkpoint, stated: str | None) -> tuple[int, bool]:
    """The number of the output with the classes, and whether it holds probabilities instead of logits."""
    names = [port.name for port in program.outputs]
    if stated is not None and len(names) == 1:
        names = [stated]
    classes = len(checkpoint.labels)
    found = next((names.index(name) for name in ("logits", "probabilities") if name in names), None)
    if found is None:
        if names == ["embedding"]:
            raise CheckpointError(
                f"{program.path}: gives embeddings, not classes; export it with logits or probabilities to label videos"
            )
        tables = [number for number, port in enumerate(program.outputs) if port.shape is None or len(port.shape) == 2]
        fitting = [number for number in tables if _width(program.outputs[number]) in (None, classes)]
        if len(fitting or tables) != 1:
            raise CheckpointError(f"{program.path}: cannot tell which of its outputs are the logits: {program}")
        (found,) = fitting or tables
    port = program.outputs[found]
    if port.shape is not None and (len(port.shape) != 2 or port.shape[1] not in (None, classes)):
        raise _wrong_classes(program, port.shape, classes)
    return found, names[found] == "probabilities"


def _activation_inside(program: Program, checkpoint: Checkpoint, metadata: Mapping[str, str]) -> Activation:
    """What makes the probabilities that a model gives. Raises CheckpointError if those asked for cannot be had."""
    asked = checkpoint.activation
    # Exports of earlier versions, which all have an `output`, knew only the softmax. Those of others do not say.
    stated = metadata.get("activation", "softmax" if "output" in metadata else asked)
    inside: Activation = "sigmoid" if stated == "sigmoid" else "none" if stated == "none" else "softmax"
    if inside == "softmax" and asked == "sigmoid":
        raise CheckpointError(
            f"{program.path}: gives the probabilities of a softmax, from which those of a sigmoid cannot be computed; "
            "export the model again, with logits, or take its own scores with `settings=activation=softmax`"
        )
    return inside


def _width(port: Port) -> int | None:
    return None if port.shape is None else port.shape[1]


def _wrong_classes(program: Program, shape: Sequence[int | None], classes: int) -> CheckpointError:
    return CheckpointError(
        f"{program.path}: gives {_shown(shape)} (views, classes), but its config and labels name {classes} classes; "
        "correct them with `config=FILE` or `labels_file=FILE`"
    )


def _wrong_tokens(program: Program, shape: Sequence[int | None], width: int) -> CheckpointError:
    return CheckpointError(
        f"{program.path}: gives {_shown(shape)} (views, numbers), but its config states a hidden size of {width}; "
        "correct it with `config=FILE`"
    )


def _shown(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def _list(ports: Sequence[Port]) -> str:
    return ", ".join(map(str, ports)) or "none"


def threads() -> int:
    """The number of threads to compute with: OMP_NUM_THREADS as torch reads it, else the cores this process may use."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if stated.isdecimal() and int(stated) > 0:
        return int(stated)
    return available_cores()


# Messages of the runtimes if they cannot allocate memory, on the CPU and on GPUs.
_OUT_OF_MEMORY = re.compile(
    r"bad_?alloc|out of memory|(failed|can't|cannot|could not) (to )?allocate|smaller than requested bytes"
    r"|ALLOC_FAILED|not enough memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def cannot(path: Path, what: str, error: Exception) -> CheckpointError:
    """The error for a model that its runtime cannot load or run; `what` names the runtime and the failed action."""
    # Exceptions of C++ begin with the place of the throw, and ONNX Runtime's with a code.
    lines = [line for line in str(error).splitlines() if not line.startswith("Exception from ")]
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", "", " ".join(" ".join(lines).split()))
    return CheckpointError(f"{path}: {what} ({reason[:300]})")
