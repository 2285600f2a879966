"""Label videos from Python: what a script or a notebook imports from the package itself."""

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
from timesformer_cli.video.inputs import find

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Model:
    """A model and how it runs; what it computes with is loaded when it is first needed, and kept.

    `checkpoint` has its `labels`, its `recipe` and its `config`.
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
        """The logits, or class tokens, of all views of a video, which is read in this process. Raises VideoError."""
        scorer = self.scorer if output == "logits" else self.embedder
        here = replace(self.run, workers=0, cluster=None)
        with score_all([item], self.checkpoint, here, opened=lambda: scorer) as all_scored:
            (scored,) = all_scored
        if isinstance(scored, Failure):
            raise VideoError(scored.kind, f"{item.path}: {scored.message}")
        return scored


def open_model(model: Path | Checkpoint = DEFAULT_MODEL, *, run: RunOptions = RunOptions()) -> Model:
    """A model that is loaded, for `model=` of the functions here: open it once, and use it often.

    `model` is a name of `timesformer models list`, an id on the Hub, a folder, a file of weights, or an exported model;
    or a `Checkpoint`, of `resolve` or with a recipe of your own.

    Raises:
        UsageError, CheckpointError: there is no such model, or it cannot be had.
        DeviceError: a device that this machine does not have.
    """
    opened = _opened(model, run)
    opened.scorer  # noqa: B018  that it is loaded is what was asked for
    return opened


def label(
    video: Path, model: Path | Checkpoint | Model = DEFAULT_MODEL, *, top_k: int = 5, run: RunOptions | None = None
) -> list[Label]:
    """The `top_k` likeliest classes of a video, likeliest first.

    The video is read in this process, without the time limit that videos of `label_all` have. `run` belongs to the
    model: give it here, or to `open_model`.

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
    """What each video shows, in their order, as soon as it is known; a video that cannot be read gives a `Failure`.

    `videos` is one folder, glob or address, for all videos there, or any number of paths, of which each gives one
    result. They are read in processes of their own, ahead of the network, so that a broken video costs itself alone.

    Raises:
        InputError: a folder without videos, or a glob that matches nothing.
        UsageError, CheckpointError, DeviceError: as `open_model`.
    """
    opened = _opened(model, run)
    items = find([os.fspath(videos)]) if isinstance(videos, (str, os.PathLike)) else map(_item, videos)
    return _labelled(items, opened)


def embed(
    video: Path, model: Path | Checkpoint | Model = DEFAULT_MODEL, *, run: RunOptions | None = None
) -> NDArray[np.float32]:
    """What the network knows of a video before it names a class: its class token, float32 (D,), not normalised.

    It is that after the final LayerNorm, the mean of all views: times the weights of the classifier, plus its biases,
    it gives the video's logits.

    Raises:
        VideoError: the video cannot be read; its `kind` says why.
        UsageError: an exported model, which gives classes and nothing else.
        CheckpointError, DeviceError: as `open_model`.
    """
    return combine(_opened(model, run).scored(_item(video), "embedding").logits, "raw_logits")


def _labelled(items: Iterable[Item], model: Model) -> Iterator[Prediction | Failure]:
    with score_all(items, model.checkpoint, model.run, opened=lambda: model.scorer) as scored:
        yield from scoring.label(scored, model.checkpoint)


def _item(path: Path) -> Item:
    return Item(os.fspath(path))


def _opened(model: Path | Checkpoint | Model, run: RunOptions | None) -> Model:
    if isinstance(model, Model):
        if run is not None:
            raise UsageError("the model is open already: say to open_model how it is to run")
        return model
    checkpoint = model if isinstance(model, Checkpoint) else resolve(os.fspath(model), quiet=True)
    opened = Model(checkpoint, run or RunOptions())
    opened.run.check(checkpoint)
    return opened
