"""Option types that commands share. docs/cli.md is made from their help."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

# An option that was not given is None, so `--clips auto` needs a number that no one can ask for.
AUTO_CLIPS = 0

DEFAULT_MODEL = "camera-motion"


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text!r} is not a number more than 0")
    return value


def _clips(text: str) -> int:
    if text == "auto":
        return AUTO_CLIPS
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number of at least 1 nor auto")
    return int(text)


# Panels of the help.
OUTPUT = "Output"
VIEWS = "Views (what is left out is as the model was trained)"
RUN = "Run"

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more on standard error, and show tracebacks of errors.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but the error that ends a run.")]

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help=(
            "Video files; folders, searched with their subfolders by video file extension, hidden ones left out; "
            "quoted globs such as 'clips/**/*.mp4'; - for one path a line on standard input. "
            "Names that begin with a dash go after --."
        ),
    ),
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--from-file",
        metavar="LIST",
        help="A text file of more inputs, one path a line; lines that begin with # are comments.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar="TIMESFORMER_MODEL",
        help=(
            "camera-motion, the bundled model, which needs no download; or a folder with config.json and "
            "model.safetensors or pytorch_model.bin."
        ),
    ),
]
Clips = Annotated[
    int | None,
    typer.Option(
        "--clips",
        metavar="N|auto",
        parser=_clips,
        help="Temporal windows of a video, their scores averaged; auto: as many side by side as cover it, at most 10.",
        rich_help_panel=VIEWS,
    ),
]
Crops = Annotated[
    Literal["1", "3"] | None,
    typer.Option(
        "--crops",
        metavar="1|3",
        help="Crops of each frame: the centre, or three along its longer side.",
        rich_help_panel=VIEWS,
    ),
]
NumFrames = Annotated[
    int | None,
    typer.Option("--num-frames", metavar="T", min=1, help="Frames in a clip.", rich_help_panel=VIEWS),
]
Stride = Annotated[
    float | None,
    typer.Option(
        "--stride",
        metavar="N",
        parser=_positive,
        help="Distance between two frames of a clip, in frames at the rate of --fps.",
        rich_help_panel=VIEWS,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="RATE",
        parser=_positive,
        help="Frames a second that --stride counts in: 32 at 30 is 1.07 seconds, whatever the video's own rate.",
        rich_help_panel=VIEWS,
    ),
]
Placement = Annotated[
    Literal["first", "middle"] | None,
    typer.Option(
        "--placement",
        metavar="first|middle",
        help="Where a single clip of a longer video lies: at its start or in its middle.",
        rich_help_panel=VIEWS,
    ),
]
Decoder = Annotated[
    Literal["auto", "pyav", "decord"],
    typer.Option(
        "--decoder",
        metavar="DECODER",
        help="Library that reads videos: auto, pyav or decord; auto is pyav.",
        rich_help_panel=RUN,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where the network runs: auto, cpu, cuda, cuda:1 or mps.",
        rich_help_panel=RUN,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size", metavar="N", min=1, help="Views that go through the network at a time.", rich_help_panel=RUN
    ),
]
