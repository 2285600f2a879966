"""Repeat calls, and measure their wall-clock time and memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from timesformer_cli.jobs.benchmark.figures import Timing

_MOST_ROUNDS = 1000


def rounds(seconds: float, least: int = 2) -> Iterator[int]:
    """Numbers of the rounds that fit into `seconds`, but at least `least` of them."""
    end = time.perf_counter() + seconds
    for number in range(_MOST_ROUNDS):
        if number >= least and time.perf_counter() >= end:
            return
        yield number


def repeat(call: Callable[[], object], seconds: float) -> Timing:
    """Time the call repeatedly. The first call does not count, unless it takes longer than `seconds`."""
    first = time_once(call)
    kept = [first] if first > seconds else []
    return Timing((*kept, *(time_once(call) for _ in rounds(seconds, 2 - len(kept)))))


def take_turns(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[Timing, Timing]:
    """Time two calls in at least three pairs, in alternating order; the first pair counts as in `repeat`."""
    calls = (ours, theirs)
    first = [time_once(call) for call in calls]
    taken = [[each] if sum(first) > seconds else [] for each in first]
    for _ in rounds(seconds, 3 - len(taken[0])):
        for who in (0, 1) if len(taken[0]) % 2 == 0 else (1, 0):
            taken[who].append(time_once(calls[who]))
    return Timing(tuple(taken[0])), Timing(tuple(taken[1]))


def time_once(call: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def reset_peak(device: str) -> None:
    """Let `peak` count from now on, if the system allows it."""
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # only Linux has this file, and some containers forbid it
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> int | None:
    """Peak of memory in bytes since `reset_peak`, or since the start if it cannot be reset; None if unknown."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) or None  # runtimes other than torch have memory of their own
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    with suppress(ImportError):
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None
