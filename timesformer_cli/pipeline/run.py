"""The options that make a run fast, passed on as one record; they never change the answer."""

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from timesformer_cli.checkpoints.exported import Provider
from timesformer_cli.errors import UsageError
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import Prepared, Thumbnails, prepare_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.batching import BatchSize, choose_batch_size
from timesformer_cli.runtimes.devices import Precision, available_cores, check_device
from timesformer_cli.runtimes.ports import Output, Scorer
from timesformer_cli.specs import Checkpoint, Reading, Recipe, Timeline

Tell = Callable[[str], None]


def silent(message: str) -> None:
    """Drop a message: for callers that want none."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster: at `address`, or at RAY_ADDRESS, or one that runs on this machine, or else a new one."""

    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options that change the speed of a run, never its answer.

    `device`: one of `devices.DEVICES`. `precision`: of the network's weights and arithmetic. `compile`: whether
    PyTorch compiles the network first. `provider`: ONNX Runtime's execution provider. `batch_size`: views at a time;
    None finds the best. `workers`: processes that read videos ahead of the network; None is one per core, 0 reads in
    the program itself. `reading` and `limits`: how to read one video, and its limits of time and memory. `cluster`:
    does the work instead of this machine.
    """

    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False
    provider: Provider = "auto"
    batch_size: int | None = None
    workers: int | None = None
    reading: Reading = Reading()
    limits: Limits = Limits()
    cluster: Cluster | None = None

    def check(self, checkpoint: Checkpoint, output: Output = "logits") -> None:
        """Reject invalid options before anything heavy is loaded.

        Raises:
            UsageError: an unknown kind of device, options that do not apply to the model's format, an output that it
                cannot give, or no Ray for a cluster.
        """
        check_device(self.device)
        if self.cluster is not None:
            check_cluster(self.device)
        runtime = runtime_of(checkpoint)
        runtime.check(checkpoint, precision=self.precision, compile=self.compile, provider=self.provider, output=output)

    def open(self, checkpoint: Checkpoint, tell: Tell = silent, output: Output = "logits") -> Scorer:
        """The network, loaded and ready, for logits or vectors.

        `tell` gets a sentence about anything that takes long or is not available.

        Raises:
            UsageError: as `check`, or the runtime is not installed.
            DeviceError: this machine lacks the device or the precision.
            CheckpointError: weights that are missing, unreadable, or do not fit the config.
        """
        return runtime_of(checkpoint).open_scorer(
            checkpoint,
            device=self.device,
            precision=self.precision,
            compile=self.compile,
            provider=self.provider,
            tell=tell,
            output=output,
        )

    def batch(self, scorer: Scorer, tell: Tell = silent) -> BatchSize:
        """How many views go through `scorer` at a time."""
        return choose_batch_size(self.batch_size, self.device, tell, scorer)

    def precision_of(self, checkpoint: Checkpoint) -> str:
        """The precision that the network computes in. Raises DeviceError."""
        return runtime_of(checkpoint).precision_of(checkpoint, self.precision, self.device)

    @property
    def processes(self) -> int:
        """The number of reading processes: one fewer would starve a small network; a large one keeps them waiting."""
        return available_cores() if self.workers is None else self.workers

    def prepare(
        self,
        items: Iterable[Item],
        recipe: Recipe,
        *,
        timeline: Timeline | None = None,
        thumbnails: Thumbnails | None = None,
        hashes: bool = False,
        levels: bool = False,
    ) -> AbstractContextManager[Iterator[Prepared | None]]:
        """As `prepare_all`."""
        return prepare_all(
            items,
            recipe,
            self.reading,
            timeline=timeline,
            thumbnails=thumbnails,
            hashes=hashes,
            levels=levels,
            workers=self.processes,
            limits=self.limits,
        )


def check_ray() -> None:
    """Raise UsageError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("`engine=ray` needs Ray; install it with: pip install 'timesformer-cli[ray]'")


def check_cluster(device: str) -> None:
    """Raise UsageError if Ray is not installed, or if a GPU is asked for by its number."""
    check_ray()
    if re.fullmatch(r"cuda:\d+", device):
        raise UsageError(f"`device={device}`: Ray itself assigns the GPUs of its cluster; use `device=cuda`")
