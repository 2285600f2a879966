"""Messages and progress, on standard error. Results go to standard output or files."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from timesformer_cli.cli.wording import spoken as spoken
from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.reporter import Meter
from timesformer_cli.text import duration, printable

if TYPE_CHECKING:
    from rich.progress import Progress

Level = Literal["quiet", "normal", "verbose"]

_level: Level = "normal"


def set_level(level: Level) -> None:
    global _level
    _level = level


def choose_level(*, verbose: bool, quiet: bool) -> None:
    """Apply the flags; without a flag the level stays, so that they work before and after the command."""
    if verbose and quiet:
        raise UsageError("--verbose and --quiet cannot be combined")
    if verbose or quiet:
        set_level("verbose" if verbose else "quiet")


def is_verbose() -> bool:
    return _level == "verbose"


def is_quiet() -> bool:
    return _level == "quiet"


def error(message: str) -> None:
    """Print in one line why the run ends; at every level."""
    _print(f"error: {message}")


def note(message: str) -> None:
    if _level != "quiet":
        _print(message)


def detail(message: str) -> None:
    if _level == "verbose":
        _print(message)


def take_warnings() -> None:
    """Print warnings that modules log as notes."""
    log = logging.getLogger("timesformer_cli")
    if not any(isinstance(handler, _Notes) for handler in log.handlers):
        log.addHandler(_Notes(logging.WARNING))


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(f"warning: {record.getMessage()}")


def _print(message: str) -> None:
    with suppress(OSError):  # nobody reads it, or the disk is full: the results may still be written
        print(printable(spoken(message)), file=sys.stderr, flush=True)


class _LineMeter(Meter):
    """Prints a line every 30 seconds, for logs."""

    _EVERY = 30.0

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic, *, what: str = "videos") -> None:
        super().__init__(total, clock)
        self._told = 0.0
        self._what = what
        self._said = ""

    def count(self, *, failed: bool) -> None:
        super().count(failed=failed)
        self._tell(self._line)

    def say(self, text: str) -> None:
        self._said = text

    def reach(self, path: str, seconds: float, duration: float) -> None:
        self._tell(lambda: _reached(path, seconds, duration))

    def _tell(self, line: Callable[[], str]) -> None:
        if self.seconds - self._told >= self._EVERY:
            self._told = self.seconds
            note(line())

    def _line(self) -> str:
        parts = [f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"]
        parts[0] += f" {self._what}"
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [self._said or self.rate()]
        if self.total is not None:
            parts += [f"{duration((self.total - self.done) * self.seconds / self.done)} left"]
        return ", ".join(parts)


class _BarMeter(Meter):
    """Shows a bar on the terminal."""

    def __init__(self, total: int | None, progress: "Progress") -> None:
        super().__init__(total)
        self._progress = progress
        self._task = progress.add_task("", total=total, note="")
        self._said = ""

    def expect(self, total: int | None) -> None:
        super().expect(total)
        self._progress.update(self._task, total=total)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._progress.stop()  # off the screen
        try:
            yield
        finally:
            self._progress.start()

    def count(self, *, failed: bool) -> None:
        super().count(failed=failed)
        parts = [f"{self.failed:,} failed"] if self.failed else []
        note = ", ".join([*parts, self._said or self.rate()])
        self._progress.update(self._task, completed=self.done, note=note)

    def say(self, text: str) -> None:
        self._said = printable(text)

    def reach(self, path: str, seconds: float, duration: float) -> None:
        self._progress.update(self._task, note=printable(_reached(path, seconds, duration)))


def _reached(path: str, seconds: float, whole: float) -> str:
    return f"{path}: {duration(seconds)} of {duration(whole)}"


@contextmanager
def progress(total: int | None, *, long: bool = False, what: str = "videos") -> Iterator[Meter]:
    """Show the progress of a run of `total` videos (None: not known), if there is more than one or they are `long`.

    `what` names them if they are no videos.

    On a terminal this is a bar, elsewhere a line every 30 seconds.
    """
    if _level == "quiet" or (total == 1 and not long):
        yield Meter(total)
        return
    if not sys.stderr.isatty():
        yield _LineMeter(total, what=what)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_interactive:  # a terminal that cannot move its cursor
        yield _LineMeter(total, what=what)
        return
    bar = rich_progress.Progress(
        rich_progress.BarColumn(bar_width=30),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn(what),
        rich_progress.TextColumn("{task.fields[note]}"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left:"),
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # else rich sends printed text to the stream of the bar
        redirect_stderr=False,
    )
    with bar:
        yield _BarMeter(total, bar)
