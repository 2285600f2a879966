"""Compare an exported model with the network: the same views through both, in several batches."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.bundled import CLIP
from timesformer_cli.checkpoints.exported import Format, Input, Output
from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.runtimes import exported, pytorch
from timesformer_cli.runtimes.ports import to_pixels
from timesformer_cli.specs import Activation, Checkpoint
from timesformer_cli.video.preprocess import normalised, to_levels

# Views float32 (N, T, C, H, W), normalised, to outputs float32 (N, K) or (N, D).
Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# For the views of noise.
SEED = 7

# For each batch, its first view and the number of views. Each view also runs by itself.
_BATCHES = ((1, 2), (0, 5))
_VIEWS = 5

_LEAST = float(np.log(np.finfo(np.float32).tiny))


class Batch(NamedTuple):
    """Differences of the results in batches of `views`.

    They are absolute, and for `relative` the largest divided by the largest output of the network; not finite if
    results are not. `agreement` counts the views, among `of`, with the same top label; it is None for embeddings.
    """

    views: int
    max_difference: float
    mean_difference: float
    relative: float
    agreement: int | None
    of: int


class Comparison(NamedTuple):
    """Differences in several batches, and times.

    `reference` float32 (5, K) or (5, D) are the network's results. `seconds` is the median time of one view in the
    exported model, `torch_seconds` that in the network, run in alternation; None if the network was not run.
    """

    batches: tuple[Batch, ...]
    reference: NDArray[np.float32]
    seconds: float
    torch_seconds: float | None


def sample_views(checkpoint: Checkpoint, input: Input) -> NDArray[np.float32]:
    """Five views (5, T, C, H, W), prepared by the recipe: a clip, the clip mirrored, and three of noise."""
    clip = prepare(Item(str(CLIP)), checkpoint.recipe).pixels[0]
    noise = np.random.default_rng(SEED).integers(0, 256, (3, *clip.shape)).astype(np.float32)
    views = np.stack([clip, clip[..., ::-1], *normalised(noise, checkpoint.preprocess)])
    if input == "pixels":  # the network must see the same bytes
        views = normalised(to_levels(views, checkpoint.preprocess), checkpoint.preprocess)
    return np.ascontiguousarray(views, np.float32)


def open_exported(checkpoint: Checkpoint, format: Format, output: Output, metadata: Mapping[str, str]) -> Runner:
    """The exported model in its runtime, on the CPU."""
    if format == "hub":
        return pytorch.open_scorer(checkpoint, device="cpu", precision="fp32")
    if output != "embedding":
        return exported.open_scorer(checkpoint, device="cpu").run
    assert checkpoint.weights is not None
    program = exported.open_program(checkpoint.weights, metadata, device="cpu")
    pixels = metadata.get("input") == "pixels"
    return lambda views: program.run(to_pixels(views, checkpoint.preprocess) if pixels else views, 0)


def compare(
    exported: Runner,
    network: Checkpoint | NDArray[np.float32],
    views: NDArray[np.float32],
    output: Output,
    activation: Activation = "none",
) -> Comparison:
    """Run the views in the exported model, and in PyTorch unless `network` holds its earlier results.

    `activation` is what made the exported model's outputs; logits and embeddings have none.

    Raises:
        CheckpointError: the results differ in shape.
    """
    runner = _open_network(network, output) if isinstance(network, Checkpoint) else None
    theirs: list[NDArray[np.float32]] = []
    ours: list[NDArray[np.float32]] = []
    seconds: list[float] = []
    torch_seconds: list[float] = []
    for number in range(_VIEWS):
        view = views[number : number + 1]
        if runner is not None:
            theirs.append(_timed(runner, view, torch_seconds))
        ours.append(_timed(exported, view, seconds))
    runner = None  # free its weights before the larger batches
    reference = network if isinstance(network, np.ndarray) else np.concatenate(theirs)
    batches = [_difference(np.concatenate(ours), reference, output, activation, views=1)]
    for first, count in _BATCHES:
        part = slice(first, first + count)
        batches.append(_difference(exported(views[part]), reference[part], output, activation, views=count))
    return Comparison(tuple(batches), reference, median(seconds), median(torch_seconds) if torch_seconds else None)


def _open_network(checkpoint: Checkpoint, output: Output) -> Runner:
    import torch

    from timesformer_cli.network.model import TimesformerForVideoClassification

    model = TimesformerForVideoClassification.from_checkpoint(checkpoint)

    def run(views: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            embedding = model.timesformer(torch.from_numpy(views)).last_hidden_state[:, 0]
            result: NDArray[np.float32] = (embedding if output == "embedding" else model.classifier(embedding)).numpy()
        return result

    return run


def _timed(runner: Runner, views: NDArray[np.float32], seconds: list[float]) -> NDArray[np.float32]:
    begin = time.perf_counter()
    result = runner(views)
    seconds.append(time.perf_counter() - begin)
    return result


def _difference(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], output: Output, activation: Activation, *, views: int
) -> Batch:
    if ours.shape != theirs.shape:
        raise CheckpointError(f"the exported model gives {ours.shape[1:]} per view, not {theirs.shape[1:]}")
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    with np.errstate(invalid="ignore"):
        scale = float(np.abs(b).max())
        if activation == "softmax":  # logarithms of probabilities are the logits, up to a constant per view
            a, b = _log_softmax(a), _log_softmax(b)
            scale = float(np.abs(b).max())
        elif activation == "sigmoid":  # a large logit is lost in a probability near 1, so the scale is that of logits
            a, b = _log_sigmoid(a), _log_sigmoid(b)
            scale = max(scale, float(np.abs(b).max()))
        difference = np.abs(a - b)
    largest = float(difference.max()) if finite.all() else np.nan
    agreement = None if output == "embedding" else int(((a.argmax(1) == b.argmax(1)) & finite).sum())
    relative = largest / max(scale, 1e-9)
    return Batch(views, largest, float(difference.mean()), relative, agreement, len(ours))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.maximum(result, _LEAST)  # smaller probabilities are zero in float32


def _log_sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = -np.logaddexp(0, -logits)
    return np.maximum(result, _LEAST)
