"""How the model is run, and for how long."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import cycle, islice

from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import Prepared
from timesformer_cli.pipeline.run import RunOptions, Tell
from timesformer_cli.runtimes.devices import Precision, find_device
from timesformer_cli.runtimes.ports import Engine, Scorer
from timesformer_cli.specs import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the model is run; `seconds` is what one measurement may take.

    At least two rounds are made, however long they are.
    """

    run: RunOptions = RunOptions(workers=1)
    seconds: float = 2.0

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
        return 6 * self.seconds
