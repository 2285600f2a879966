"""What becomes of the results of `timesformer predict`: written as they come, told of where they failed, counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from timesformer_cli.cli import console
from timesformer_cli.errors import InputError
from timesformer_cli.text import plural

if TYPE_CHECKING:
    from timesformer_cli.flow import Failure, Result
    from timesformer_cli.pipeline.prepare import Prepared
    from timesformer_cli.results.copies import Sorter
    from timesformer_cli.results.journal import Ledger
    from timesformer_cli.results.record import Record
    from timesformer_cli.results.writers import Writer

# How many videos there are, or None as long as that is not known.
Total = Callable[[], int | None]


@dataclass
class Tally:
    """Videos of this run, and with `--resume` of those before it: the records that were `kept`, and all that failed.

    `video` is how many seconds of video were labelled, `seconds` how long that took, `reason` why the
    last that failed did, and `remote` how many could not be sorted into folders, because they lie at addresses.
    """

    labelled: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    video: float = 0.0
    seconds: float = 0.0
    kept: int = 0
    all_failed: int = 0
    reason: str = ""
    remote: int = 0

    @property
    def failed(self) -> int:
        return self.kinds.total()


class Run:
    """Writes the records as they come, and tells of failures; `on_screen`: in a table that shows them too."""

    def __init__(
        self,
        writer: "Writer | Ledger",
        sorter: "Sorter | None",
        total: Total,
        *,
        timeline: bool,
        fail_fast: bool,
        on_screen: bool,
    ) -> None:
        self._writer, self._sorter, self._total = writer, sorter, total
        self._timeline = timeline
        self._fail_fast = fail_fast
        self._on_screen = on_screen
        self._tally = Tally()
        self._meter = console.Meter(None)

    def watch(self, prepared: "Iterable[Prepared | None]") -> "Iterator[Prepared | None]":
        """Pass on what goes to the network, and tell how far it has come in long videos."""
        from timesformer_cli.flow import Views

        for views in prepared:
            if self._timeline and isinstance(views, Views):
                self._meter.reach(views.item.path, views.window.end, views.info.duration)
            yield views

    def write(self, results: "Iterable[tuple[Result, Record]]") -> Tally:
        """Write all of them.

        Raises:
            InputError: one failed, and that was to end the run.
        """
        from timesformer_cli.flow import Failure
        from timesformer_cli.video.addresses import is_address

        tally = self._tally
        with console.progress(self._total(), long=self._timeline) as meter:
            self._meter = meter
            for result, record in results:
                meter.expect(self._total())
                failed = isinstance(result, Failure)
                with meter.step(failed=failed):
                    if isinstance(result, Failure):
                        self._fail(result, record)
                    else:
                        tally.labelled += 1
                        tally.video += result.info.duration
                        if self._sorter is not None:  # first, so that --resume does it again after a stop
                            self._sorter.place(record)
                            tally.remote += is_address(record["path"])
                        self._writer.write(record)
                if failed and self._fail_fast:
                    raise InputError(f"{tally.reason}; stopped there, with {plural(tally.labelled, 'video')} labelled")
            tally.seconds = meter.seconds
        tally.all_failed = tally.failed
        return tally

    def _fail(self, failure: "Failure", record: "Record") -> None:
        self._tally.kinds[failure.kind] += 1
        self._tally.reason = f"{failure.item.path}: {failure.message}"
        # Say it once: the table on the screen shows it, and the last line of a run of one video.
        last = self._total() == 1 or self._fail_fast
        if last and self._on_screen:
            return
        self._writer.write(record)
        if not last and not self._on_screen:
            console.note(f"failed: {self._tally.reason}")


def summarise(tally: Tally) -> None:
    """Say how many there were and how fast that was; of a single video there is nothing to say."""
    count = tally.labelled + tally.failed
    if count < 2 and not tally.kept:
        return
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in tally.kinds.most_common())
    text = f"{count:,} videos: {tally.labelled:,} labelled"
    text += f", {tally.failed:,} failed ({kinds})" if tally.failed else ""
    text += f"; {tally.kept:,} were there already" if tally.kept else ""
    if tally.labelled:
        speed = count / tally.seconds
        rate = f"{speed:.1f} videos a second" if speed >= 1 else f"{60 * speed:.1f} videos a minute"
        text += f"; {console.hours(tally.video)} of video in {console.hours(tally.seconds)}, {rate}"
    console.note(text)
