"""Option types that commands share, and what they ask for. docs/cli.md is made from their help."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli.cli import console

if TYPE_CHECKING:
    from timesformer_cli.checkpoints.recipes import RecipeName
    from timesformer_cli.results.shards import Shard
    from timesformer_cli.specs import Checkpoint

# An option that was not given is None, so `--clips auto` needs a number that no one can ask for.
AUTO_CLIPS = 0

DEFAULT_MODEL = "base-k400"


def positive(text: str) -> float:
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


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > 1000:
        raise typer.BadParameter(f"{text!r} is neither a number of processes nor auto")
    return int(text)


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 100_000:
        raise typer.BadParameter(f"{text!r} is neither a number of views nor auto")
    return int(text)


def _shard(text: str) -> "Shard":
    from timesformer_cli.results.shards import parse_shard

    try:
        return parse_shard(text, os.environ)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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


# Panels of the help.
MODEL = "Model"
OUTPUT = "Output"
VIEWS = "Views (what is left out is as the model was trained)"
READING = "Reading"
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
            "A name of `timesformer models list`, downloaded when it is first used; camera-motion is bundled and needs "
            "no download. Or an id on the Hugging Face Hub, a folder with config.json and weights, a .pyth, .pth, .bin "
            "or .safetensors file; or an exported model: .onnx, .xml of OpenVINO, .pt2, or a folder with one."
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
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Never use the network for the model: it must be in the cache. HF_HUB_OFFLINE=1 does the same.",
        rich_help_panel=MODEL,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights for a name of `timesformer models list`, in place of those on the Hub, if it has any there.",
        rich_help_panel=MODEL,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A config.json to take in place of the model's own, or of what its weights tell.",
        rich_help_panel=MODEL,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Names of the classes: a text file with one a line, or JSON of ids and names.",
        rich_help_panel=MODEL,
    ),
]
Recipe = Annotated[
    Literal["original", "paper", "transformers", "mmaction2", "uniform"] | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help=(
            "A whole published way to feed the model: original, paper, transformers, mmaction2 or uniform; "
            "the options below change single parts of it."
        ),
        rich_help_panel=VIEWS,
    ),
]
Set = Annotated[
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
        parser=positive,
        help="Distance between two frames of a clip, in frames at the rate of --fps.",
        rich_help_panel=VIEWS,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="RATE",
        parser=positive,
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
Frames = Annotated[
    bool,
    typer.Option(
        "--frames",
        help="Inputs are folders of numbered pictures, or folders of such folders, in place of video files.",
        rich_help_panel=READING,
    ),
]
FrameRate = Annotated[
    float,
    typer.Option(
        "--frame-rate",
        metavar="RATE",
        parser=positive,
        help="Pictures a second of the folders of --frames, which do not say.",
        rich_help_panel=READING,
    ),
]
Decoder = Annotated[
    Literal["auto", "pyav", "decord", "torchcodec"],
    typer.Option(
        "--decoder",
        metavar="DECODER",
        help="Library that reads videos: auto, pyav, decord or torchcodec; auto is pyav.",
        rich_help_panel=READING,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=positive,
        help=(
            "How long reading one video may take, or the next part of a timeline; then it counts as failed, and the "
            "run goes on."
        ),
        rich_help_panel=READING,
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Refuse videos with larger pictures; 8K has 33 million pixels.",
        rich_help_panel=READING,
    ),
]
MaxFrames = Annotated[
    int,
    typer.Option(
        "--max-frames",
        metavar="N",
        min=1,
        help="Refuse videos of more frames; two million are 18 hours at 30 a second.",
        rich_help_panel=READING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N|auto",
        parser=_workers,
        help=(
            "Processes that read videos ahead of the network; auto: one for each core. 0 reads in the program "
            "itself, where a broken video can stop the run."
        ),
        rich_help_panel=RUN,
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first video that fails.", rich_help_panel=RUN)]
ShardOf = Annotated[
    Any,
    typer.Option(
        "--shard",
        metavar="I/N|auto",
        parser=_shard,
        help=(
            "Take every N-th video, from number I on: one of N runs that share the work. auto: as the variables of a "
            "SLURM array or step, or of torchrun, say. `timesformer merge` puts their outputs together."
        ),
        rich_help_panel=RUN,
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help="Numbers of the network: fp32, bf16, fp16, or auto: bf16 on GPUs that are made for it, else fp32.",
        rich_help_panel=RUN,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network first, which takes a minute or so, and pays in long runs.",
        rich_help_panel=RUN,
    ),
]
Provider = Annotated[
    Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"],
    typer.Option(
        "--provider",
        metavar="PROVIDER",
        help=(
            "What runs a model of ONNX, as far as the onnxruntime here has it: cpu, cuda, tensorrt, openvino, coreml, "
            "directml, or auto: as --device says."
        ),
        rich_help_panel=RUN,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, help="Take the first N videos of the inputs alone.", rich_help_panel=RUN
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
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N|auto",
        parser=_batch_size,
        help=(
            "Views that go through the network at a time, of one video or of several; auto: what is quick on the "
            "device. Half as many where they do not fit into memory."
        ),
        rich_help_panel=RUN,
    ),
]


def resolve_model(
    model: str,
    *,
    revision: str | None,
    offline: bool,
    weights: Path | None,
    config: Path | None,
    labels: Path | None,
    recipe: "RecipeName | None" = None,
    changes: dict[str, Any] | None = None,
    preview: bool = False,
) -> "Checkpoint":
    """The model that the options ask for, with `changes` to its recipe; `preview`: without its weights if need be."""
    from timesformer_cli.checkpoints import recipes
    from timesformer_cli.checkpoints import resolve as checkpoints

    if preview:
        checkpoint = checkpoints.preview(model, revision=revision, weights=weights, config=config, labels_file=labels)
    else:
        checkpoint = checkpoints.resolve(
            model,
            revision=revision,
            offline=offline,
            quiet=console.is_quiet(),
            weights=weights,
            config=config,
            labels_file=labels,
        )
    return recipes.with_overrides(checkpoint, recipe=recipe, fields=changes)


def recipe_changes(
    settings: list[tuple[str, Any]] | None,
    *,
    clips: int | None,
    crops: Literal["1", "3"] | None,
    num_frames: int | None,
    stride: float | None,
    fps: float | None,
    placement: Literal["first", "middle"] | None,
    raw_logits: bool = False,
) -> dict[str, Any]:
    """The fields of the recipe that the options change."""
    given = {
        "clips": "auto" if clips == AUTO_CLIPS else clips,
        "crops": None if crops is None else int(crops),
        "num_frames": num_frames,
        "stride": stride,
        "fps": fps,
        "placement": placement,
        "combine": "raw_logits" if raw_logits else None,
    }
    return {**dict(settings or []), **{name: value for name, value in given.items() if value is not None}}


def worker_count(workers: int | None) -> int:
    """The processes to read with: with one less a small network would wait, and a large one keeps them waiting."""
    from timesformer_cli.runtimes.devices import available_cores

    return available_cores() if workers is None else workers
