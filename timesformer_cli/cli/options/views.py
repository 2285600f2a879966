"""Which frames and crops, and how they are combined."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli.cli.options import VIEWS, positive

if TYPE_CHECKING:
    from timesformer_cli.specs import Checkpoint

# An option that was not given is None, so `--clips auto` needs a number that no one can ask for.
AUTO_CLIPS = 0


def _clips(text: str) -> int:
    if text == "auto":
        return AUTO_CLIPS
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number of at least 1 nor auto")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"{text!r} is not of the form FIELD=VALUE")
    if value in ("none", "null"):
        return name, None
    try:
        numbers = json.loads(f"[{value}]")  # one number, or several with commas
    except ValueError:
        return name, value
    return name, numbers[0] if len(numbers) == 1 else numbers


RecipeName = Annotated[
    Literal["original", "paper", "transformers", "transformers-4", "mmaction2", "uniform"] | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help=(
            "Feed the model in a published way: original, paper, transformers (its pipeline of version 5: frames "
            "from the whole video), transformers-4 (that of version 4, or 5 with an image processor: the first frames; "
            "its frame_sampling_rate is the stride), mmaction2 or uniform. The options below change single parts of it."
        ),
        rich_help_panel=VIEWS,
    ),
]
Settings = Annotated[
    list[Any] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        parser=_setting,
        help=(
            "Any other field of the recipe, as `timesformer models show` lists them: channel_order=rgb, mean=0.5 or "
            "combine=probabilities, say. May be given several times."
        ),
        rich_help_panel=VIEWS,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """A published way to feed the model, and single fields of it."""

    recipe: RecipeName = None
    settings: Settings = None

    def apply(self, checkpoint: "Checkpoint") -> "Checkpoint":
        """Raises UsageError for what cannot be."""
        from timesformer_cli.checkpoints.recipes import with_overrides

        return with_overrides(checkpoint, recipe=self.recipe, fields=dict(self.settings or []))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """The same, with options for the fields that are changed most often."""

    recipe: RecipeName = None
    clips: Annotated[
        int | None,
        typer.Option(
            "--clips",
            metavar="N|auto",
            parser=_clips,
            help=(
                "Temporal windows of a video, their scores averaged; auto: as many side by side as cover it, at most "
                "10."
            ),
            rich_help_panel=VIEWS,
        ),
    ] = None
    crops: Annotated[
        Literal["1", "3"] | None,
        typer.Option(
            "--crops",
            metavar="1|3",
            help="Crops of each frame: the centre, or three along its longer side.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    num_frames: Annotated[
        int | None,
        typer.Option("--num-frames", metavar="T", min=1, help="Frames in a clip.", rich_help_panel=VIEWS),
    ] = None
    stride: Annotated[
        float | None,
        typer.Option(
            "--stride",
            metavar="N",
            parser=positive,
            help="Distance between two frames of a clip, in frames at the rate of --fps.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            metavar="RATE",
            parser=positive,
            help="Frames a second that --stride counts in: 32 at 30 is 1.07 seconds, whatever the video's own rate.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    placement: Annotated[
        Literal["first", "middle"] | None,
        typer.Option(
            "--placement",
            metavar="first|middle",
            help="Where a single clip of a longer video lies: at its start or in its middle.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    settings: Settings = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of the recipe that the options change."""
        given = {
            "clips": "auto" if self.clips == AUTO_CLIPS else self.clips,
            "crops": None if self.crops is None else int(self.crops),
            "num_frames": self.num_frames,
            "stride": self.stride,
            "fps": self.fps,
            "placement": self.placement,
        }
        return {**dict(self.settings or []), **{name: value for name, value in given.items() if value is not None}}

    def apply(self, checkpoint: "Checkpoint") -> "Checkpoint":
        """Raises UsageError for what cannot be."""
        from timesformer_cli.checkpoints.recipes import with_overrides

        return with_overrides(checkpoint, recipe=self.recipe, fields=self.changes)
