"""Label videos from Python: the functions that scripts and notebooks import from the package."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.__about__ import DEFAULT_MODEL
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import UsageError, VideoError
from timesformer_cli.flow import Failure, Item, Label, Prediction, Scored
from timesformer_cli.pipeline import score as scoring
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.runtimes.ports import Output, Scorer
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video.addresses import item_at
from timesformer_cli.video.inputs import find

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Model:
    """A model and the options that it runs with. Its network is loaded on first use, and kept.

    `checkpoint` has its `labels`, `recipe` and `config`.
    """

    checkpoint: Checkpoint
    run: RunOptions = RunOptions()

    @cached_property
    def scorer(self) -> Scorer:
        """Views (N, T, C, H, W) to logits float32 (N, K). Raises as `RunOptions.open`."""
        return self.run.open(self.checkpoint)

    @cached_property
    def embedder(self) -> Scorer:
        """Views (N, T, C, H, W) to class tokens float32 (N, D). Raises as `RunOptions.open`."""
        return self.run.open(self.checkpoint, output="embedding")

    def scored(self, item: Item, output: Output) -> Scored:
        """The logits, or class tokens, of all views of a video. Reads it in this process. Raises VideoError."""
        scorer = self.scorer if output == "logits" else self.embedder
        here = replace(self.run, workers=0, cluster=None)
        with score_all([item], self.checkpoint, here, opened=lambda: scorer) as all_scored:
            (scored,) = all_scored
        if isinstance(scored, Failure):
            raise VideoError(scored.kind, f"{item.path}: {scored.message}")
        return scored


def open_model(model: Path | Checkpoint = DEFAULT_MODEL, *, run: RunOptions = RunOptions()) -> Model:
    """Load a model, to pass as `model=` to the functions here: open it once, and use it often.

    `model` is a name from `timesformer models list`, an id on the Hub, a folder, a weights file, or an exported model;
    or a `Checkpoint`, from `resolve` or with a recipe of your own.

    Raises:
        UsageError, CheckpointError: there is no such model, or it cannot be loaded.
        DeviceError: this machine does not have the device.
    """
    opened = _opened(model, run)
    opened.scorer  # noqa: B018  loads it
    return opened


def label(
    video: Path, model: Path | Checkpoint | Model = DEFAULT_MODEL, *, top_k: int = 5, run: RunOptions | None = None
) -> list[Label]:
    """The `top_k` most likely classes of a video, the most likely first.

    The video is read in this process, without the time limit of `label_all`. `run` belongs to the model: give it here,
    or to `open_model`.

    Raises:
        VideoError: the video cannot be read; its `kind` says why.
        UsageError, CheckpointError, DeviceError: as `open_model`.
    """
    opened = _opened(model, run)
    (prediction,) = scoring.label([opened.scored(_item(video), "logits")], opened.checkpoint)
    assert isinstance(prediction, Prediction)
    return prediction.top(top_k)


def label_all(
    videos: Path | Iterable[Path], model: Path | Checkpoint | Model = DEFAULT_MODEL, *, run: RunOptions | None = None
) -> Iterator[Prediction | Failure]:
    """Label many videos: yields one result per video, in order, as soon as it is known.

    A video that cannot be read gives a `Failure`. `videos` is one folder, glob or address, for all videos there, or any
    number of paths, each of one video. Worker processes read the videos ahead of the network, so that a broken video
    cannot stop the others.

    Raises:
        InputError: the folder has no videos, or the glob matches nothing.
        UsageError, CheckpointError, DeviceError: as `open_model`.
    """
    opened = _opened(model, run)
    items = find([os.fspath(videos)]) if isinstance(videos, (str, os.PathLike)) else map(_item, videos)
    return _labelled(items, opened)


def embed(
    video: Path, model: Path | Checkpoint | Model = DEFAULT_MODEL, *, run: RunOptions | None = None
) -> NDArray[np.float32]:
    """The embedding of a video: its class token, float32 (D,), not normalised.

    It is taken after the final LayerNorm, and averaged over all views. Multiplied by the weights of the classifier,
    plus its biases, it gives the logits of the video.

    Raises:
        VideoError: the video cannot be read; its `kind` says why.
        UsageError: the model was exported for classes.
        CheckpointError, DeviceError: as `open_model`.
    """
    return combine(_opened(model, run).scored(_item(video), "embedding").logits, "raw_logits")


def _labelled(items: Iterable[Item], model: Model) -> Iterator[Prediction | Failure]:
    with score_all(items, model.checkpoint, model.run, opened=lambda: model.scorer) as scored:
        yield from scoring.label(scored, model.checkpoint)


def _item(path: Path) -> Item:
    return item_at(os.fspath(path))


def _opened(model: Path | Checkpoint | Model, run: RunOptions | None) -> Model:
    if isinstance(model, Model):
        if run is not None:
            raise UsageError("the model is already open: give open_model the options of the run instead")
        return model
    checkpoint = model if isinstance(model, Checkpoint) else resolve(os.fspath(model), quiet=True)
    opened = Model(checkpoint, run or RunOptions())
    opened.run.check(checkpoint)
    return opened
