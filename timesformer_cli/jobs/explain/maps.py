"""Maps of a clip by all methods: from inside the network, and by asking it about clips without some patches."""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timesformer_cli.errors import DeviceError
from timesformer_cli.flow import Pixels
from timesformer_cli.jobs.explain.alterations import filled
from timesformer_cli.jobs.explain.asking import Model
from timesformer_cli.jobs.explain.check import ranked
from timesformer_cli.jobs.explain.frames import shapley
from timesformer_cli.jobs.explain.records import INSIDE, Fill, Map, Method, Options, Question, Total
from timesformer_cli.network import relevance
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.pytorch import is_out_of_memory
from timesformer_cli.specs import Checkpoint

# Clips without some patches that occlusion and ridge ask about, at most and exactly.
_MOST_CELLS = 300
_MASKS = 300
_PENALTY = 10.0  # of ridge, in units of the variance of one mask
_SEED = 0


class Network:
    """The network whose inside is looked at, in float32, loaded on first use; and the same with random weights."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self._checkpoint = checkpoint
        self._device = device

    @cached_property
    def trained(self) -> TimesformerForVideoClassification:
        """Raises CheckpointError and DeviceError."""
        return self._ready(TimesformerForVideoClassification.from_checkpoint(self._checkpoint))

    @cached_property
    def untrained(self) -> TimesformerForVideoClassification:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return self._ready(TimesformerForVideoClassification(self._checkpoint.config))

    def _ready(self, network: TimesformerForVideoClassification) -> TimesformerForVideoClassification:
        return network.to(find_device(self._device)).eval().requires_grad_(False)


def map_of(model: Model, network: Network | None, question: Question, clip: Pixels, options: Options) -> Map:
    """The map of a clip by the method of `options`, `lrp` without one.

    Raises:
        DeviceError: it does not fit into memory.
    """
    method = options.method or "lrp"
    if method in INSIDE:
        assert network is not None
        return inside(network.trained, method, question, clip, options.fills)
    if method == "shapley":
        values = shapley(model, question, clip).values
        frames, rows, columns = model.grid(clip)
        return Map(
            method,
            np.repeat(values / (rows * columns), rows * columns).reshape(frames, rows, columns).astype(np.float32),
        )
    return outside(model, method, question, clip, options.fills[0] if options.fills else "gray")


def inside(
    network: TimesformerForVideoClassification,
    method: Method,
    question: Question,
    clip: Pixels,
    fills: tuple[Fill, ...] = (),
) -> Map:
    """A map from the gradients or the attention of the network. Raises DeviceError."""
    device = network.classifier.weight.device
    pixels = torch.from_numpy(np.ascontiguousarray(clip)).to(device)
    direction = torch.from_numpy(question.direction(network.config.num_labels)).to(device)
    try:
        return _inside(network, method, pixels, direction, clip, fills)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"`method={method}` does not fit into the memory of the device; try `device=cpu`, or `method=occlusion`"
        ) from error


def _inside(
    network: TimesformerForVideoClassification,
    method: Method,
    pixels: Tensor,
    direction: Tensor,
    clip: Pixels,
    fills: tuple[Fill, ...],
) -> Map:
    if method == "gradcam":
        return Map(method, _array(relevance.gradcam(network, pixels[None], direction)[0]))
    if method in ("attention", "rollout"):
        look = relevance.last_attention if method == "attention" else relevance.rollout
        return Map(method, _array(look(network, pixels[None])[0]))
    if method == "lrp":
        shares, value = relevance.relevance(network, pixels[None], direction)
        return Map(method, _array(shares[0]), total=Total(float(shares.sum()), float(value)))
    fill: Fill = fills[0] if fills else "still" if method == "lrp+ig" else "gray"
    baseline = torch.from_numpy(np.ascontiguousarray(filled(clip, fill))).to(pixels.device)
    found = relevance.integrated_gradients(network, pixels, baseline, direction)
    total = Total(float(found.map.sum()), found.difference, found.points, found.adds_up)
    if method == "ig":
        return Map(method, _array(found.map), fill, total)
    shares, _ = relevance.relevance(network, pixels[None], direction)
    places = ranked(_array(shares[0])) + ranked(_array(found.map))
    return Map(method, (places / (places.size - 1) - 1).astype(np.float32), fill, total)


def _array(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.float().cpu().numpy()
    return found


def outside(model: Model, method: Method, question: Question, clip: Pixels, fill: Fill) -> Map:
    """A map in logits by asking about the clip without some cells of patches, by `occlusion` or `ridge`."""
    shape = model.grid(clip)
    cells = cells_of(shape)
    whole = filled(clip, fill)
    count = int(cells.max()) + 1

    def margins(gone: Iterator[NDArray[np.bool_]]) -> NDArray[np.float64]:
        return question.margins(model.logits_without(clip, whole, (mask[cells] for mask in gone)))

    values = (_occlusion if method == "occlusion" else _ridge)(margins, count)
    if method == "occlusion":
        values = question.margins(model.logits([clip])) - values
    return Map(method, (values / np.bincount(cells.ravel()))[cells].astype(np.float32), fill)


_Margins = Callable[[Iterator[NDArray[np.bool_]]], NDArray[np.float64]]


def _occlusion(margins: _Margins, count: int) -> NDArray[np.float64]:
    return margins(np.arange(count) == number for number in range(count))


def _ridge(margins: _Margins, count: int) -> NDArray[np.float64]:
    """The weights of cells in a linear fit of the margins of random halves of them."""
    masks = np.random.default_rng(_SEED).random((_MASKS, count)) < 0.5  # gone
    there = 0.5 - masks
    values = margins(iter(masks))
    weights: NDArray[np.float64] = np.linalg.solve(
        there.T @ there + _PENALTY / 4 * np.eye(count), there.T @ (values - values.mean())
    )
    return weights


def cells_of(shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """The cell of each patch, int64 (T, R, C): single patches, or the smallest blocks of which there are few enough."""
    size = [1, 1, 1]
    turn = 0
    while np.prod([-(-side // each) for side, each in zip(shape, size, strict=True)]) > _MOST_CELLS:
        if turn % 2 == 0:
            size[1], size[2] = 2 * size[1], 2 * size[2]
        else:
            size[0] *= 2
        turn += 1
    counts = [-(-side // each) for side, each in zip(shape, size, strict=True)]
    frames, rows, columns = (np.arange(side) // each for side, each in zip(shape, size, strict=True))
    cells: NDArray[np.int64] = (frames[:, None, None] * counts[1] + rows[:, None]) * counts[2] + columns
    return cells
