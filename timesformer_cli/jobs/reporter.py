"""Where a job reports its progress: a terminal, a log, a test. The job itself knows none of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

T = TypeVar("T")

# The number of videos, or None while it is not known.
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
        """Set the number of videos, as soon as it is known."""
        self.total = total

    @contextmanager
    def step(self, *, failed: bool) -> Iterator[None]:
        """Count one video; inside, lines can be printed."""
        with self.paused():
            yield
        self.count(failed=failed)

    def count(self, *, failed: bool) -> None:
        self.done += 1
        self.failed += failed

    def say(self, text: str) -> None:
        """Show what the run is at, instead of its rate."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, lines can be printed."""
        yield

    def reach(self, path: str, seconds: float, duration: float) -> None:
        """Report that the run has come to `seconds` of a video of `duration`, both in seconds."""

    @property
    def seconds(self) -> float:
        return max(self._clock() - self._start, 1e-9)

    def rate(self) -> str:
        """Videos per second, or per minute if there is less than one per second."""
        return rate(self.done, self.seconds)


def rate(videos: int, seconds: float, what: str = "") -> str:
    """`2.5 per second`, or per minute below one per second; `what`, such as "videos ", goes before `per`."""
    speed = videos / seconds
    return f"{speed:.1f} {what}per second" if speed >= 1 else f"{60 * speed:.1f} {what}per minute"


class Reporter(Protocol):
    """`cli.console` is one."""

    def note(self, message: str) -> None:
        """A line for every reader."""

    def detail(self, message: str) -> None:
        """A line for readers who asked for details."""

    def spoken(self, message: str) -> str:
        """The message with its settings, written as `name` or `name=value`, in the words of the reader."""

    def progress(self, total: int | None, *, long: bool = False, what: str = "videos") -> AbstractContextManager[Meter]:
        """Show the progress of a run of `total` videos (None: not known), or of `what`; `long`: each takes a while."""


class _Silent:
    def note(self, message: str) -> None:
        """Nothing."""

    def detail(self, message: str) -> None:
        """Nothing."""

    def spoken(self, message: str) -> str:
        return message

    @contextmanager
    def progress(self, total: int | None, *, long: bool = False, what: str = "videos") -> Iterator[Meter]:
        yield Meter(total)


SILENT: Reporter = _Silent()


def in_words(result: T, report: Reporter) -> T:
    """The result; the message of a failure in the words of the reader."""
    from timesformer_cli.flow import Failure

    return replace(result, message=report.spoken(result.message)) if isinstance(result, Failure) else result
