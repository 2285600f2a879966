"""Whom a job tells how it goes: a terminal, a log, a test. A job itself knows none of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from timesformer_cli.flow import Result

# How many videos there are, or None as long as that is not known.
Total = Callable[[], int | None]


class Meter:
    """Counts videos as they are done; shows nothing."""

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self._clock = clock
        self._start = clock()

    def expect(self, total: int | None) -> None:
        """Say how many videos there are, as soon as that is known."""
        self.total = total

    @contextmanager
    def step(self, *, failed: bool) -> Iterator[None]:
        """Count one video; inside, lines can be printed."""
        yield
        self.count(failed=failed)

    def count(self, *, failed: bool) -> None:
        self.done += 1
        self.failed += failed

    def reach(self, path: str, seconds: float, duration: float) -> None:
        """Say how far within a video of that duration the run has come."""

    @property
    def seconds(self) -> float:
        return max(self._clock() - self._start, 1e-9)

    def rate(self) -> str:
        """Videos a second, or a minute when they are slow."""
        return rate(self.done, self.seconds)


def rate(videos: int, seconds: float, what: str = "") -> str:
    """`2.5 a second`, or a minute when they are slow; `what` they are goes before that."""
    speed = videos / seconds
    return f"{speed:.1f} {what}a second" if speed >= 1 else f"{60 * speed:.1f} {what}a minute"


class Reporter(Protocol):
    """`cli.console` is one."""

    def note(self, message: str) -> None:
        """A line for whoever waits."""

    def detail(self, message: str) -> None:
        """A line for whoever wants to know more."""

    def spoken(self, message: str) -> str:
        """The message with its settings, which stand there as `name` or `name=value`, as the reader calls them."""

    def progress(self, total: int | None, *, long: bool = False) -> AbstractContextManager[Meter]:
        """Show how far a run has come with `total` videos (None: not known); `long`: each takes a while."""


class _Silent:
    def note(self, message: str) -> None:
        """Nothing."""

    def detail(self, message: str) -> None:
        """Nothing."""

    def spoken(self, message: str) -> str:
        return message

    @contextmanager
    def progress(self, total: int | None, *, long: bool = False) -> Iterator[Meter]:
        yield Meter(total)


SILENT: Reporter = _Silent()


def in_words(result: "Result", report: Reporter) -> "Result":
    """The same; a failure in the words of whoever reads the results."""
    from timesformer_cli.flow import Failure

    return replace(result, message=report.spoken(result.message)) if isinstance(result, Failure) else result
