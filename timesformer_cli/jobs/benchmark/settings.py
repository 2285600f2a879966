"""How the model is run, and for how long."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice

from timesformer_cli.checkpoints.exported import Provider
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import Prepared, prepare_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.ports import Engine, Scorer
from timesformer_cli.runtimes.pytorch import Precision, open_scorer
from timesformer_cli.specs import Checkpoint, Reading

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the model is run, in the words of `runtime.open_scorer`; `seconds` is what one measurement may take.

    At least two rounds are made, however long they are.
    """

    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False
    provider: Provider = "auto"
    reading: Reading = Reading()
    workers: int = 1
    seconds: float = 2.0

    def open(self, checkpoint: Checkpoint, precision: Precision | None = None, tell: Tell = lambda _: None) -> Scorer:
        return open_scorer(
            checkpoint,
            device=self.device,
            precision=precision or self.precision,
            compile=self.compile,
            provider=self.provider,
            tell=tell,
        )

    def device_of(self, scorer: Scorer) -> str:
        """What it computes on, as torch calls it."""
        return scorer.kind if isinstance(scorer, Engine) else str(find_device(self.device))

    def prepare(
        self, items: Sequence[Item], count: int, checkpoint: Checkpoint
    ) -> AbstractContextManager[Iterator[Prepared | None]]:
        """`pipeline.prepare_all` of so many videos: the items over and over."""
        stream = islice(cycle(items), count)
        return prepare_all(stream, checkpoint, self.reading, workers=self.workers, limits=Limits())

    @property
    def longest(self) -> float:
        """More views at a time are tried as long as a call of them takes no more than these seconds."""
        return 6 * self.seconds
