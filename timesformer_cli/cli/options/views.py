"""Which frames and crops a model gets, and how their scores are combined."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli import strict_json
from timesformer_cli.cli.options import VIEWS, positive

if TYPE_CHECKING:
    from timesformer_cli.specs import Checkpoint

# None means that the option was not given, so `--clips auto` needs a number that no one can ask for.
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
        numbers = strict_json.loads(f"[{value}]")  # one number, or several with commas
    except ValueError:
        return name, value
    return name, numbers[0] if len(numbers) == 1 else numbers


RecipeName = Annotated[
    Literal["original", "paper", "transformers", "transformers-4", "mmaction2", "uniform"] | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help=(
            "Published sampling and preprocessing to use: original, paper, transformers (pipeline of version 5: frames "
            "from the whole video), transformers-4 (pipeline of version 4, or of 5 with an image processor: the first "
            "frames; --stride is its frame_sampling_rate), mmaction2 or uniform; the options below change parts of it."
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
            "Change any field of the recipe that `timesformer models show` lists, such as channel_order=rgb, mean=0.5 "
            "or combine=probabilities. Can be repeated."
        ),
        rich_help_panel=VIEWS,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """A recipe, and changes to single fields of it."""

    recipe: RecipeName = None
    settings: Settings = None

    def apply(self, checkpoint: "Checkpoint") -> "Checkpoint":
        """The model with this recipe. Raises UsageError for fields or values that are not possible."""
        from timesformer_cli.checkpoints.recipes import with_overrides

        return with_overrides(checkpoint, recipe=self.recipe, fields=dict(self.settings or []))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """The same, with an option for each field that is often changed."""

    recipe: RecipeName = None
    clips: Annotated[
        int | None,
        typer.Option(
            "--clips",
            metavar="N|auto",
            parser=_clips,
            help="Clips per video, whose scores are averaged; auto: enough to cover the video, at most 10.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    crops: Annotated[
        Literal["1", "3"] | None,
        typer.Option(
            "--crops",
            metavar="1|3",
            help="Crops per frame: 1 (centre), or 3 along its longer side.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    num_frames: Annotated[
        int | None,
        typer.Option("--num-frames", metavar="T", min=1, help="Frames per clip.", rich_help_panel=VIEWS),
    ] = None
    stride: Annotated[
        float | None,
        typer.Option(
            "--stride",
            metavar="N",
            parser=positive,
            help="Distance between two frames of a clip, in frames at the rate --fps.",
            rich_help_panel=VIEWS,
        ),
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            metavar="RATE",
            parser=positive,
            help=(
                "Frame rate in which --stride counts, in frames per second: a stride of 32 at 30 is 1.07 seconds, "
                "whatever the video's own rate."
            ),
            rich_help_panel=VIEWS,
        ),
    ] = None
    placement: Annotated[
        Literal["first", "middle"] | None,
        typer.Option(
            "--placement",
            metavar="first|middle",
            help="Position of a single clip in a longer video: first (at its start) or middle.",
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
        """The model with this recipe. Raises UsageError for fields or values that are not possible."""
        from timesformer_cli.checkpoints.recipes import with_overrides

        return with_overrides(checkpoint, recipe=self.recipe, fields=self.changes)
