"""Notices that a process of a run ended, so that the others end as well, whatever they wait for.

The processes share a store of torch.distributed. In it, each one counts up while it lives, and one that fails leaves
its message. A thread in each process looks there once per second. Videos that are slow to read cannot look like a dead
process: the thread goes on meanwhile.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from timesformer_cli.errors import PeerError, Terminated
from timesformer_cli.jobs.finetune.launch import Launch

Stop = Literal["SIGINT", "SIGTERM"]

# Seconds: between two looks; without a sign of a process, until it counts as dead; for the others to end by themselves,
# until they are ended; for the others to hear of a failure, until the process that failed ends.
_EVERY, _DEAD_AFTER, _END_AFTER, _HEARD_AFTER = 1.0, 30.0, 20.0, 10.0

# So many looks without a sign are enough if a connection broke as well.
_SUSPECT_LOOKS = 4

_END, _HEARD = "end", "heard"


class Store(Protocol):
    """What is used of a store of torch.distributed. Every method raises RuntimeError once the store is gone."""

    def add(self, key: str, amount: int, /) -> int: ...
    def check(self, keys: list[str], /) -> bool: ...
    def get(self, key: str, /) -> bytes: ...
    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class End:
    """Why the run ends: process `rank` failed with `message`, or was asked to stop by a signal."""

    rank: int
    message: str
    signal: Stop | None = None

    def error(self) -> BaseException:
        """What the other processes raise."""
        return PeerError(f"rank {self.rank} failed: {self.message}") if self.signal is None else stopped(self.signal)


def stopped(by: Stop) -> BaseException:
    """What a signal raises in a process without others."""
    return KeyboardInterrupt() if by == "SIGINT" else Terminated()


class Watch:
    """Watches over the processes of `launch` until `close`.

    Once the run is to end because of another process, `interrupt` is called, in the thread. If the process still runs
    20 seconds later - a GPU that waits for the others cannot be interrupted - `tell` gets the reason, and it ends.
    """

    def __init__(
        self, launch: Launch, store: Store, *, interrupt: Callable[[], None], tell: Callable[[str], None]
    ) -> None:
        self.end: End | None = None
        self._rank = launch.rank
        self._size = launch.size
        self._store = store
        self._interrupt = interrupt
        self._tell = tell
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failing = False
        # Rank 0 watches over all, the others over it.
        ranks = range(launch.size) if launch.rank == 0 else [0]
        self._seen = {rank: (0, time.monotonic()) for rank in ranks if rank != launch.rank}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(_EVERY)

    def fail(self, message: str, by: Stop | None = None) -> None:
        """Tell the others that this process ends, and give them time to hear of it."""
        self._failing = True
        self._propose(End(self._rank, message, by))
        # They have to hear it before the launcher ends them, or the store is gone, which is in rank 0.
        if self.end is not None and self._rank in (self.end.rank, 0):
            until = time.monotonic() + _HEARD_AFTER
            while time.monotonic() < until and self._count(_HEARD) < self._size - 1:
                time.sleep(0.02)

    def reason(self) -> End | None:
        """Why a connection to another process broke, as far as it can be found out; takes some seconds."""
        before = {rank: self._count(_beat(rank)) for rank in range(self._size) if rank != self._rank}
        until = time.monotonic() + _SUSPECT_LOOKS * _EVERY
        while time.monotonic() < until and self.end is None:
            time.sleep(0.02)
        if self.end is None:
            for rank, count in before.items():
                if self._count(_beat(rank)) == count:
                    self._propose(End(rank, "it ended without a word, as if killed"))
        return self.end

    def _run(self) -> None:
        while self.end is None and not self._closed.wait(_EVERY):
            try:
                self._look()
            except RuntimeError:
                if self._closed.wait(2 * _EVERY):
                    return
                self.end = End(0, "it, or what started it, ended without a word, as if killed")
        if self.end is not None and not self._failing:
            self._interrupt()
            if not self._closed.wait(_END_AFTER) and self.end.signal is None:
                self._tell(str(self.end.error()))
                os._exit(1)

    def _look(self) -> None:
        self._store.add(_beat(self._rank), 1)
        if self._store.check([_END]):
            self._hear(self._store.get(_END))
            return
        now = time.monotonic()
        for rank, (count, when) in self._seen.items():
            new = self._count(_beat(rank))
            if new != count:
                self._seen[rank] = new, now
            elif now - when > _DEAD_AFTER:
                self._propose(End(rank, f"no sign of it for {_DEAD_AFTER:.0f} seconds, as if it were killed"))

    def _propose(self, end: End) -> None:
        """Make `end` the reason of all, unless there is one."""
        try:
            self._hear(self._store.compare_set(_END, "", json.dumps(asdict(end))))
        except RuntimeError:  # the store is gone: each process for itself
            self.end = self.end or end

    def _hear(self, text: bytes) -> None:
        with self._lock:
            if self.end is None:
                self.end = End(**json.loads(text))
                if self.end.rank != self._rank:
                    self._store.add(_HEARD, 1)

    def _count(self, key: str) -> int:
        """The number under `key`; once the store is gone, more than any."""
        try:
            return self._store.add(key, 0)
        except RuntimeError:
            return 2**62


def _beat(rank: int) -> str:
    return f"alive/{rank}"


def interrupt_main() -> None:
    """Let the main thread handle a SIGTERM, also if it waits for the system."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)
