"""The runtime for a model's format. Whatever opens, checks or describes a model asks only here."""

from collections.abc import Callable, Mapping
from typing import Protocol

from timesformer_cli.checkpoints.exported import Provider
from timesformer_cli.errors import TimesformerError, UsageError
from timesformer_cli.runtimes.devices import Precision
from timesformer_cli.runtimes.ports import Output, Scorer
from timesformer_cli.specs import Checkpoint


class Runtime(Protocol):
    """The functions that both modules, `pytorch` and `exported`, have. `device` is one of `devices.DEVICES`."""

    def check(
        self,
        checkpoint: Checkpoint,
        *,
        precision: Precision,
        compile: bool,
        provider: Provider,
        output: Output = "logits",
    ) -> None:
        """Raise UsageError for options that do not apply to a model in this format, or an output that it cannot give.

        Loads nothing heavy.
        """

    def open_scorer(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        precision: Precision,
        compile: bool,
        provider: Provider,
        tell: Callable[[str], None],
        output: Output,
    ) -> Scorer:
        """The model, loaded and ready."""

    def precision_of(self, checkpoint: Checkpoint, asked: Precision, device: str) -> str:
        """The precision that the network computes in, as recorded settings name it."""

    def precisions(self, asked: Precision, device: str) -> tuple[Precision, ...]:
        """The precision asked for; for `auto`, all that the device supports natively, fp32 first."""

    def device_name(self, device: str) -> str:
        """The device's name in reports."""

    def cluster_device(self, device: str, provider: Provider) -> str:
        """The device to ask a cluster for."""

    def versions(self, checkpoint: Checkpoint) -> Mapping[str, str]:
        """The library that runs the model, and its version."""

    def takes_levels(self, checkpoint: Checkpoint) -> bool:
        """Whether its input is bytes, which the model normalises itself: see `preprocess.make_views`."""

    def load_library(self) -> None:
        """Import the slow libraries, so that this time does not count as loading the model."""

    def threads(self) -> int:
        """The number of threads that it computes with."""

    def use_cores(self, count: int) -> None:
        """Compute on `count` cores; call it before the model is opened."""


def runtime_of(checkpoint: Checkpoint) -> Runtime:
    if checkpoint.is_exported:
        from timesformer_cli.runtimes import exported

        return exported
    from timesformer_cli.runtimes import pytorch

    return pytorch


def has_network(checkpoint: Checkpoint) -> bool:
    """Whether its weights are those of a network that PyTorch can take gradients of."""
    return not checkpoint.is_exported


def require_network(
    checkpoint: Checkpoint,
    error: type[TimesformerError] = UsageError,
    instead: str = "give the model that it was made from",
) -> None:
    """Raise `error` for a model that exists only in an exported form; `instead` says what to do."""
    if checkpoint.is_exported:
        raise error(f"{checkpoint.weights}: an exported model; {instead}")
