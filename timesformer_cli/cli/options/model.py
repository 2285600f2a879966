"""Which model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from timesformer_cli.__about__ import DEFAULT_MODEL
from timesformer_cli.cli import console
from timesformer_cli.cli.options import MODEL

if TYPE_CHECKING:
    from timesformer_cli.checkpoints.recipes import RecipeName
    from timesformer_cli.specs import Checkpoint

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar="TIMESFORMER_MODEL",
        help=(
            "Name from `timesformer models list`, downloaded on first use (camera-motion is bundled); id or address on "
            "the Hugging Face Hub; folder with config.json and weights; weights file (.pyth, .pth, .bin or "
            ".safetensors); or exported model (.onnx, OpenVINO .xml, .pt2, or a folder with one)."
        ),
        rich_help_panel=MODEL,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="REV",
        help="Branch, tag or commit of the model on the Hub.",
        rich_help_panel=MODEL,
    ),
]


class Feeding(Protocol):
    """Options that change the views that a model gets."""

    @property
    def recipe(self) -> "RecipeName | None": ...

    def apply(self, checkpoint: "Checkpoint") -> "Checkpoint": ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Files that a user gives instead of a model's own."""

    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Weights file for a name from `timesformer models list`, to use instead of the published weights.",
            rich_help_panel=MODEL,
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="config.json to use instead of the model's own or the inferred one.",
            rich_help_panel=MODEL,
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Class names: a text file with one name per line, or JSON with ids and names.",
            rich_help_panel=MODEL,
        ),
    ] = None


Groups = Annotated[
    Path | None,
    typer.Option(
        "--groups",
        metavar="FILE",
        help=(
            "Answer in your own classes: a CSV file with a label of the model and your own name for it in each row. "
            "Scores of labels with the same name add up (with a sigmoid, the largest counts); all other labels become "
            "`other`."
        ),
        rich_help_panel=MODEL,
    ),
]


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Never use the network for the model, which must be in the cache. HF_HUB_OFFLINE=1 does the same.",
        rich_help_panel=MODEL,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model comes from, if its name is not enough."""

    revision: Revision = None
    offline: Offline = False
    files: Files

    def resolve(self, name: str, views: Feeding) -> "Checkpoint":
        """The model, downloaded if necessary. Raises UsageError and CheckpointError."""
        from timesformer_cli.checkpoints.resolve import resolve

        checkpoint = resolve(
            name,
            revision=self.revision,
            offline=self.offline,
            quiet=console.is_quiet(),
            weights=self.files.weights,
            config=self.files.config,
            labels_file=self.files.labels,
            recipe=views.recipe,
            tell=console.note,
        )
        return views.apply(checkpoint)

    def preview(self, name: str, views: Feeding) -> "Checkpoint":
        """The model without a download, so possibly without its weights. Raises UsageError and CheckpointError."""
        return Previewed(revision=self.revision, files=self.files).preview(name, views)


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """Where a model comes from if it is only described, never loaded."""

    revision: Revision = None
    files: Files

    def preview(self, name: str, views: Feeding) -> "Checkpoint":
        """The model without a download, so possibly without its weights. Raises UsageError and CheckpointError."""
        from timesformer_cli.checkpoints.resolve import preview

        checkpoint = preview(
            name,
            revision=self.revision,
            weights=self.files.weights,
            config=self.files.config,
            labels_file=self.files.labels,
            recipe=views.recipe,
            tell=console.note,
        )
        return views.apply(checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model, by name."""

    model: ModelName = DEFAULT_MODEL
    source: Source

    def resolve(self, views: Feeding, *, preview: bool = False) -> "Checkpoint":
        """The model with the recipe of `views`; `preview` downloads nothing. Raises UsageError and CheckpointError."""
        return (self.source.preview if preview else self.source.resolve)(self.model, views)
