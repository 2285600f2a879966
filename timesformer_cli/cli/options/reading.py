"""How videos are read, and what is refused."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli.options import READING, positive

if TYPE_CHECKING:
    from timesformer_cli.pipeline.workers import Limits
    from timesformer_cli.specs import Reading

Decoder = Annotated[
    Literal["auto", "pyav", "decord", "torchcodec"],
    typer.Option(
        "--decoder",
        metavar="DECODER",
        help="Library that reads videos: auto, pyav, decord or torchcodec; auto is pyav.",
        rich_help_panel=READING,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """Decoders, limits, and folders of images."""

    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            help="Inputs are folders of numbered pictures, or folders of such folders, in place of video files.",
            rich_help_panel=READING,
        ),
    ] = False
    frame_rate: Annotated[
        float,
        typer.Option(
            "--frame-rate",
            metavar="RATE",
            parser=positive,
            help="Pictures a second of the folders of --frames, which do not say.",
            rich_help_panel=READING,
        ),
    ] = 30.0
    decoder: Decoder = "auto"
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=positive,
            help=(
                "How long reading one video may take, or the next part of a timeline; then it counts as failed, and "
                "the run goes on."
            ),
            rich_help_panel=READING,
        ),
    ] = 60.0
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels",
            metavar="N",
            min=1,
            help="Refuse videos with larger pictures; 8K has 33 million pixels.",
            rich_help_panel=READING,
        ),
    ] = 2**26
    max_frames: Annotated[
        int,
        typer.Option(
            "--max-frames",
            metavar="N",
            min=1,
            help="Refuse videos of more frames; two million are 18 hours at 30 a second.",
            rich_help_panel=READING,
        ),
    ] = 2_000_000

    @property
    def spec(self) -> "Reading":
        from timesformer_cli.specs import Reading

        return Reading(
            decoder=self.decoder, max_pixels=self.max_pixels, max_frames=self.max_frames, frame_rate=self.frame_rate
        )

    @property
    def limits(self) -> "Limits":
        from timesformer_cli.pipeline.workers import Limits

        return Limits(timeout=self.timeout)
