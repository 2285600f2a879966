"""What a run uses: processes, devices, clusters, shards."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import RUN
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.pipeline.run import Cluster, RunOptions
    from timesformer_cli.results.settings import Shard


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > 1000:
        raise typer.BadParameter(f"{text!r} is neither a number of processes nor auto")
    return int(text)


def views_at_a_time(text: str) -> int | None:
    """A number of views; None for auto."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 100_000:
        raise typer.BadParameter(f"{text!r} is neither a number of views nor auto")
    return int(text)


def _shard(text: str) -> "tuple[Shard, bool]":
    """The shard, and whether its number was found and not stated."""
    from timesformer_cli.results.shards import parse_shard

    try:
        return parse_shard(text, os.environ), text == "auto"
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N|auto",
        parser=_workers,
        help=(
            "Number of processes that read videos; auto: one per core. 0 reads them in the main "
            "process, which a broken video can crash."
        ),
        rich_help_panel=RUN,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device of the network, and its precision there."""

    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Device that runs the network: auto, cpu, cuda, cuda:1 or mps.",
            rich_help_panel=RUN,
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help=(
                "Precision of weights and arithmetic: fp32, bf16, fp16, or auto: bf16 on GPUs with hardware for it, "
                "otherwise fp32."
            ),
            rich_help_panel=RUN,
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What runs the network."""

    on: Device
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network first, which takes about a minute and pays off in long runs.",
            rich_help_panel=RUN,
        ),
    ] = False
    provider: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"],
        typer.Option(
            "--provider",
            metavar="PROVIDER",
            help=(
                "ONNX Runtime execution provider: cpu, cuda, tensorrt, openvino, coreml, directml, or auto (follows "
                "--device). The installed onnxruntime must include it."
            ),
            rich_help_panel=RUN,
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What changes the speed of a run, never its results."""

    workers: Workers = None
    network: Network
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N|auto",
            parser=views_at_a_time,
            help=(
                "Views per pass through the network, from one video or several; auto: chosen for the device. "
                "Halved if the views do not fit into memory."
            ),
            rich_help_panel=RUN,
        ),
    ] = None

    def options(self, reading: ReadingOptions, cluster: "Cluster | None" = None) -> "RunOptions":
        from timesformer_cli.pipeline.run import RunOptions

        return RunOptions(
            device=self.network.on.device,
            precision=self.network.on.precision,
            compile=self.network.compile,
            provider=self.network.provider,
            batch_size=self.batch_size,
            workers=self.workers,
            reading=reading.spec,
            limits=reading.limits,
            cluster=cluster,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Runs that share the work, and clusters."""

    chosen: Annotated[
        Any,
        typer.Option(
            "--shard",
            metavar="I/N|auto",
            parser=_shard,
            help=(
                "Process shard I of N: every N-th video, from the I-th on; auto: from the variables of a SLURM array "
                "or step, or of torchrun. Combine the outputs with `timesformer merge`, or runs of evaluate with "
                "`timesformer runs merge`."
            ),
            rich_help_panel=RUN,
        ),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            metavar="local|ray",
            help="Where the work runs: local, or ray (a Ray cluster reads on its CPUs and scores on its GPUs).",
            rich_help_panel=RUN,
        ),
    ] = "local"
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help=(
                "With --engine ray: address of the cluster; default: RAY_ADDRESS, a running local one, or a new one."
            ),
            rich_help_panel=RUN,
        ),
    ] = None
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first video that fails.", rich_help_panel=RUN)
    ] = False

    @property
    def shard(self) -> "Shard | None":
        """The shard to process. If it was found in variables, a message says which: an array may be half of one."""
        if self.chosen is None:
            return None
        shard: Shard
        shard, found = self.chosen
        if found:
            console.note(f"--shard auto: this is shard {shard} of the videos")
        return shard

    @property
    def cluster(self) -> "Cluster | None":
        """Raises UsageError for an address without --engine ray, or if Ray is not installed."""
        if self.engine != "ray":
            if self.ray_address is not None:
                raise UsageError("--ray-address needs --engine ray")
            return None
        from timesformer_cli.pipeline.run import Cluster, check_ray

        check_ray()
        return Cluster(self.ray_address)
