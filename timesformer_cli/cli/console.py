"""Messages and progress, on standard error. Results go elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from timesformer_cli.errors import UsageError
from timesformer_cli.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Level = Literal["quiet", "normal", "verbose"]

_level: Level = "normal"


def set_level(level: Level) -> None:
    global _level
    _level = level


def choose_level(*, verbose: bool, quiet: bool) -> None:
    """Take over what the flags say; without a flag the level stays, so they work before and after the command."""
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other")
    if verbose or quiet:
        set_level("verbose" if verbose else "quiet")


def is_verbose() -> bool:
    return _level == "verbose"


def is_quiet() -> bool:
    return _level == "quiet"


def error(message: str) -> None:
    """Why the run ends, in one line; shown at every level."""
    _print(f"error: {message}")


def note(message: str) -> None:
    if _level != "quiet":
        _print(message)


def detail(message: str) -> None:
    if _level == "verbose":
        _print(message)


def _print(message: str) -> None:
    print(printable(message), file=sys.stderr, flush=True)


class Bar:
    """A progress bar, or none."""

    def __init__(self, progress: "Progress | None" = None, task: "TaskID | None" = None) -> None:
        self._progress = progress
        self._task = task

    def expect(self, total: int | None) -> None:
        """Say how many videos there are, as soon as that is known."""
        if self._progress is not None and self._task is not None and total is not None:
            self._progress.update(self._task, total=total)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count one video; inside, the bar is off the screen, so that lines can be printed in its place."""
        if self._progress is None or self._task is None:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.advance(self._task)
            self._progress.start()


@contextmanager
def progress(total: int | None) -> Iterator[Bar]:
    """A bar over `total` videos (None: not known), when someone is there to see it and there is more than one."""
    if _level == "quiet" or total == 1 or not sys.stderr.isatty():
        yield Bar()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_interactive:  # a terminal that cannot move its cursor
        yield Bar()
        return
    bar = rich_progress.Progress(
        rich_progress.BarColumn(bar_width=30),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("videos"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left:"),
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # rich would send what is printed there to the stream of the bar
        redirect_stderr=False,
    )
    with bar:
        yield Bar(bar, bar.add_task("", total=total))
