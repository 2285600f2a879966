"""How the model is run, and for how long."""

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
    """What a fresh Python is called with, and the name of that."""

    name: str
    arguments: tuple[str, ...]


_STARTS = (
    Start("import torch", ("-c", "import torch")),
    Start("timesformer --help", ("-m", "timesformer_cli", "-h")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the model is run; `seconds` is what one measurement may take.

    At least two rounds are made, however long they are.

    `starts`: the fresh processes that are timed. `matrix_sizes`: rows and columns of the square matrices
    whose product is timed; None takes those of the kind of device, for the best size differs between them.
    Sizes of a batch double up to `max_views`, of which None says the same, as long as they fit and a call
    takes no more than `max_call` times `seconds`; two in a row that are not faster by the factor `min_gain`
    than the best are the last ones. `turns`: views at a time in turns with another library.
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
        """What it computes on, as torch calls it."""
        return scorer.kind if isinstance(scorer, Engine) else str(find_device(self.run.device))

    def prepare(
        self, items: Sequence[Item], count: int, checkpoint: Checkpoint
    ) -> AbstractContextManager[Iterator[Prepared | None]]:
        """What the network gets of so many videos: the items over and over."""
        return self.run.prepare(islice(cycle(items), count), checkpoint.recipe)

    @property
    def longest(self) -> float:
        """More views at a time are tried as long as a call of them takes no more than these seconds."""
        return self.max_call * self.seconds
