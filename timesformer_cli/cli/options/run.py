"""On what it runs, and with whom the work is shared."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the network runs on."""

    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Where the network runs: auto, cpu, cuda, cuda:1 or mps.",
            rich_help_panel=RUN,
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="Numbers of the network: fp32, bf16, fp16, or auto: bf16 on GPUs that are made for it, else fp32.",
            rich_help_panel=RUN,
        ),
    ] = "auto"
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network first, which takes a minute or so, and pays in long runs.",
            rich_help_panel=RUN,
        ),
    ] = False
    provider: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"],
        typer.Option(
            "--provider",
            metavar="PROVIDER",
            help=(
                "What runs a model of ONNX, as far as the onnxruntime here has it: cpu, cuda, tensorrt, openvino, "
                "coreml, directml, or auto: as --device says."
            ),
            rich_help_panel=RUN,
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What changes the speed of a run, never its answer."""

    workers: Workers = None
    network: Network
    batch_size: Annotated[
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
    ] = None

    def options(self, reading: ReadingOptions, cluster: "Cluster | None" = None) -> "RunOptions":
        from timesformer_cli.pipeline.run import RunOptions

        return RunOptions(
            device=self.network.device,
            precision=self.network.precision,
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
    """Runs that share the work, and a cluster that does it."""

    shard: Annotated[
        Any,
        typer.Option(
            "--shard",
            metavar="I/N|auto",
            parser=_shard,
            help=(
                "Take every N-th video, from number I on: one of N runs that share the work. auto: as the variables of "
                "a SLURM array or step, or of torchrun, say. `timesformer merge` puts their outputs together."
            ),
            rich_help_panel=RUN,
        ),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            metavar="local|ray",
            help="ray: the same work on a Ray cluster, its CPUs reading and its GPUs scoring.",
            rich_help_panel=RUN,
        ),
    ] = "local"
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="With --engine ray: the cluster's address; otherwise RAY_ADDRESS, one that runs here, or a new one.",
            rich_help_panel=RUN,
        ),
    ] = None
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first video that fails.", rich_help_panel=RUN)
    ] = False

    @property
    def cluster(self) -> "Cluster | None":
        """Raises UsageError for an address without a cluster, or where Ray is not installed."""
        if self.engine != "ray":
            if self.ray_address is not None:
                raise UsageError("--ray-address goes with --engine ray")
            return None
        from timesformer_cli.pipeline.run import Cluster, check_ray

        check_ray()
        return Cluster(self.ray_address)
