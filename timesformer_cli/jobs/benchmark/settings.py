"""Settings of a benchmark: how the model is run, and for how long."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import NamedTuple

from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import Prepared
from timesformer_cli.pipeline.run import RunOptions, Tell
from timesformer_cli.runtimes.devices import Precision, find_device
from timesformer_cli.runtimes.ports import Engine, Scorer
from timesformer_cli.specs import Checkpoint


class Start(NamedTuple):
    """The arguments of a fresh Python process, and a name for it."""

    name: str
    arguments: tuple[str, ...]


_STARTS = (
    Start("import torch", ("-c", "import torch")),
    Start("timesformer --help", ("-m", "timesformer_cli", "-h")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the model is run; a measurement may take `seconds`, or two rounds if they take longer.

    `starts`: the fresh processes to time. `matrix_sizes`: rows (and columns) of the square matrices whose product is
    timed; None means a default for the kind of device, as the best size differs between them.

    Batch sizes double up to `max_views` (None: a default for the kind of device), as long as they fit and a call takes
    no more than `max_call` times `seconds`. They end after two in a row that are not faster than the best by the
    factor `min_gain`. `turns`: batch sizes for the comparison with another library.
    """

    run: RunOptions = RunOptions(workers=1)
    seconds: float = 2.0
    starts: tuple[Start, ...] = _STARTS
    matrix_sizes: tuple[int, ...] | None = None
    max_views: int | None = None
    max_call: float = 6.0
    min_gain: float = 1.05
    turns: tuple[int, ...] = (1, 4, 32)

    def open(self, checkpoint: Checkpoint, precision: Precision | None = None, tell: Tell = lambda _: None) -> Scorer:
        return replace(self.run, precision=precision or self.run.precision).open(checkpoint, tell)

    def device_of(self, scorer: Scorer) -> str:
        """The device of the scorer, by its name in torch."""
        return scorer.kind if isinstance(scorer, Engine) else str(find_device(self.run.device))

    def prepare(
        self, items: Sequence[Item], count: int, checkpoint: Checkpoint
    ) -> AbstractContextManager[Iterator[Prepared | None]]:
        """The model input of `count` videos: the items, repeated as often as necessary."""
        return self.run.prepare(islice(cycle(items), count), checkpoint.recipe)

    @property
    def longest(self) -> float:
        """Seconds that a call may take; larger batches are not tried."""
        return self.max_call * self.seconds
