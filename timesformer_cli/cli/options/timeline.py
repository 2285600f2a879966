"""Results for the segments of a long video."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from timesformer_cli.cli.options import positive
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.specs import Checkpoint, Timeline

TIMELINE = "Timeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """How long segments are, and where they begin."""

    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline",
            help="Process each segment of a long video instead of the video as a whole.",
            rich_help_panel=TIMELINE,
        ),
    ] = False
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="SECONDS",
            parser=positive,
            help="Length of a segment in seconds; by default the length of one clip of the model.",
            rich_help_panel=TIMELINE,
        ),
    ] = None
    hop: Annotated[
        float | None,
        typer.Option(
            "--hop",
            metavar="SECONDS",
            parser=positive,
            help="Seconds between segment starts; by default the length of a segment, so that none overlap.",
            rich_help_panel=TIMELINE,
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError."""
        if not self.timeline and (self.window is not None or self.hop is not None):
            raise UsageError("--window and --hop need --timeline")

    def of(self, checkpoint: "Checkpoint") -> "Timeline | None":
        """Raises UsageError."""
        from timesformer_cli.checkpoints.recipes import timeline_of

        return timeline_of(checkpoint, length=self.window, hop=self.hop) if self.timeline else None
