"""How videos are read, and which are refused."""

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
        help="Library that decodes videos: pyav, decord, torchcodec, or auto (pyav).",
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
            help="Read folders of numbered images, or folders of such folders, instead of video files.",
            rich_help_panel=READING,
        ),
    ] = False
    frame_rate: Annotated[
        float,
        typer.Option(
            "--frame-rate",
            metavar="RATE",
            parser=positive,
            help="Frame rate of image folders (--frames), which store none, in frames per second.",
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
                "Time limit for reading one video, or the next segment of a timeline, in seconds; a video that takes "
                "longer counts as failed, and the run continues."
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
            help="Refuse videos with more pixels per frame; 8K has 33 million.",
            rich_help_panel=READING,
        ),
    ] = 2**26
    max_frames: Annotated[
        int,
        typer.Option(
            "--max-frames",
            metavar="N",
            min=1,
            help="Refuse videos with more frames; two million are 18 hours at 30 frames per second.",
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
