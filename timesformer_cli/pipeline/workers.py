"""Work in separate processes: an item that hangs, crashes or exhausts memory fails by itself, and the run goes on."""

import contextlib
import ctypes
import itertools
import math
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import SystemLimitError, VideoError
from timesformer_cli.limits import starting
from timesformer_cli.pipeline import processes, shared_arrays
from timesformer_cli.runtimes.devices import available_cores

T = TypeVar("T")


class Done(NamedTuple):
    """A task's result: a small value that can be pickled, and an array that goes through shared memory.

    `more` means that further results of the same item follow.
    """

    value: Any
    array: NDArray[np.float32]
    more: bool = False


# The work on an item, with at most the given number of threads, in one part or more; the last part has no `more`.
Task = Callable[[T, int], Generator[Done]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one item: wall-clock seconds for each part, and bytes beyond the memory of a worker at its start.

    The memory limit works only where the platform can limit a process's address space, which is Linux.
    """

    timeout: float = 60.0
    memory: int = 6 * 2**30


# Workers end themselves exactly when their time is up, even in native code. If the platform cannot do that, they
# are killed this many seconds later. A worker may also take this long to start, that is, to import the decoders.
_GRACE = 15.0

# Seconds until the system notices that a process was killed.
_MOMENT = 0.2

# The exit code that multiprocessing gives a process whose server is gone.
_LOST = 255

# Items begun and not taken, however little room their results need: failures need none.
_MOST_PLACES = 256

# Parts after which freed memory is returned: decoders fragment it, and it would grow by 16 kB per video.
_TRIMMED_AFTER = 32

OUT_OF_MEMORY = "reading it takes more memory than a video may use; try fewer `clips`"


class Pool(Generic[T]):
    """Workers that run `task` on items, each on one at a time, ahead of the consumer of the results.

    They start when the context is entered, and work while the caller does other things. Each worker has
    `ahead` places for items: that many items are begun before the first is taken, and that many parts of
    one item are made before its first is taken. More follow while the arrays that are ready take less than
    `room` bytes. One thread works on each item. But if fewer items are left than there are cores, they share
    the cores.
    """

    def __init__(
        self,
        task: Task[T],
        items: Iterable[T],
        *,
        workers: int,
        limits: Limits = Limits(),
        ahead: int = 2,
        room: int = 0,
    ) -> None:
        self._context = processes.context([task_module(task), "timesformer_cli.video.decoders.pyav"])
        self._task = task
        self._limits = limits
        self._bell = _Bell()
        self._feed: _Feed[T] = _Feed(items, workers, self._bell)
        self._count = workers
        self._workers: list[_Worker[T]] = []
        self._slots: deque[_Slot[T]] = deque()
        self._ahead = ahead
        self._room = room
        self._parts = itertools.count(1)
        # Ctrl-C can interrupt the caller's thread at any moment, so that thread must never hold a lock. Only
        # the other thread uses the slots; these two queues are what passes between them.
        self._answers: queue.SimpleQueue[tuple[T, Done | BaseException] | None] = queue.SimpleQueue()
        self._taken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._stopped = False
        self._keeper = threading.Thread(target=self._keep_busy, daemon=True, name="workers")

    def __enter__(self) -> Self:
        shared_arrays.sweep()
        self._feed.start()
        # The first process appears only after it has imported the decoders; the caller should not wait for that.
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._bell.ring()
        self._keeper.join()
        for worker in self._workers:
            worker.kill()

    def results(self) -> Iterator[tuple[T, Done | VideoError]]:
        """Results in the order of the items: each part that `task` yields, or the error that ends the item.

        That error is the VideoError that `task` raised, `timeout`, `crash` for a worker that died (or was killed
        twice), or `too_large` for lack of memory. Any other error of `task` or of the items is raised here.
        """
        return (result for result in self.results_and_pauses() if result is not None)

    def results_and_pauses(self) -> Iterator[tuple[T, Done | VideoError] | None]:
        """The same, with None whenever the next result is not ready yet: ask again to wait for it."""
        while True:
            if self._answers.empty():
                yield None
            taken = self._answers.get()
            if taken is None:
                if self._error is not None:
                    raise self._error
                self._feed.check()
                return
            self._taken.put(None)
            self._bell.ring()  # a place is free
            item, answer = taken
            if not isinstance(answer, (Done, VideoError)):
                raise answer
            yield item, answer

    def _keep_busy(self) -> None:
        """Give items to the workers and take their answers, in a thread: the caller's may be busy for seconds."""
        try:
            processes.shield()
            while len(self._workers) < self._count:
                try:
                    self._workers.append(_Worker(self._context, self._task, self._limits))
                except SystemLimitError:
                    if not self._workers:
                        raise
                    break  # fewer do the same work
                self._assign()
            while not self._stopped and not (self._feed.ended and not self._busy()):
                self._wait()
                self._deliver()
                self._assign()
        except BaseException as error:
            self._error = error
        self._answers.put(None)

    def _busy(self) -> "list[_Worker[T]]":
        return [worker for worker in self._workers if worker.slot is not None]

    def _deliver(self) -> None:
        """Pass on the results that are ready, in the order of the items."""
        for slot in self._slots:
            while slot.answers:
                self._answers.put((slot.item, slot.answers.popleft()))
            if not slot.ended:
                return

    def _clear(self) -> None:
        """Free the places of answers that were taken."""
        while not self._taken.empty():
            self._taken.get()
            self._slots[0].sizes.popleft()
            if self._slots[0].is_taken():
                self._slots.popleft()
            _trim_memory(next(self._parts))

    def _assign(self) -> None:
        self._clear()
        for worker in self._workers:
            if worker.pauses and self._has_place_for_more_of(worker.slot):
                worker.go_on()
            if worker.slot is None and self._has_place():
                item = self._feed.take()
                if item is not None:
                    self._slots.append(_Slot(*item))
                    worker.begin(self._slots[-1], self._threads())

    def _threads(self) -> int:
        """Threads for an item that is begun now."""
        left = self._feed.left()
        return 1 if left is None else max(available_cores() // (len(self._busy()) + 1 + left), 1)

    def _has_place(self) -> bool:
        if len(self._slots) < self._count * self._ahead:
            return True
        return len(self._slots) < _MOST_PLACES and self._ready() < self._room

    def _has_place_for_more_of(self, slot: "_Slot[T] | None") -> bool:
        return slot is not None and (len(slot.sizes) < self._ahead or self._ready() < self._room)

    def _ready(self) -> int:
        """Bytes of the arrays that are ready and not yet taken."""
        return sum(sum(slot.sizes) for slot in self._slots)

    def _wait(self) -> None:
        """Wait until something happens, or a worker's time is up."""
        busy = self._busy()
        seconds = min((worker.deadline - time.monotonic() for worker in busy), default=math.inf)
        handles: list[Any] = [handle for worker in busy for handle in worker.handles]
        ready = wait([self._bell.handle, *handles], None if seconds == math.inf else max(seconds, 0))
        if self._bell.handle in ready:
            self._bell.hear()
        for worker in busy:
            worker.look()


class _Bell:
    """Wakes the thread that keeps the workers busy; any thread may ring."""

    def __init__(self) -> None:
        self.handle, self._ring = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()
        self._rung = False

    def ring(self) -> None:
        # Never more messages than are read, or the pipe would fill up when nobody listens any more. If
        # Ctrl-C comes between the two lines, there is one too many, which does no harm.
        with self._lock:
            if not self._rung:
                self._ring.send_bytes(b"1")
                self._rung = True

    def hear(self) -> None:
        with self._lock:
            self.handle.recv_bytes()
            self._rung = False


class _Slot(Generic[T]):
    """The place of an item among the results."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.answers: deque[Done | BaseException] = deque()  # not passed on yet
        self.sizes: deque[int] = deque()  # in bytes, of the answers not taken yet
        self.ended = False
        self.tries = 0

    def put(self, answer: Done | BaseException) -> None:
        self.answers.append(answer)
        self.sizes.append(answer.array.nbytes if isinstance(answer, Done) else 0)
        self.ended = not (isinstance(answer, Done) and answer.more)

    def is_taken(self) -> bool:
        return self.ended and not self.sizes


class _Feed(Generic[T]):
    """Takes items from their source in a thread, since standard input may block."""

    def __init__(self, items: Iterable[T], capacity: int, bell: _Bell) -> None:
        self._items = items
        self._bell = bell  # rung when an item is ready
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(capacity)
        self._error: BaseException | None = None
        self._found = self._taken = 0
        self._all_found = False
        self.ended = False

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="items").start()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._found += 1
                self._queue.put((item,))
                self._bell.ring()
        except BaseException as error:
            self._error = error
        self._all_found = True
        self._queue.put(None)
        self._bell.ring()

    def take(self) -> tuple[T] | None:
        """The next item; None if there is none, or none yet."""
        if self.ended:
            return None
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        self.ended = item is None
        self._taken += not self.ended
        return item

    def left(self) -> int | None:
        """How many items are still to be taken; None if more may come."""
        return self._found - self._taken if self._all_found else None

    def check(self) -> None:
        """Raise the error that the source of the items raised."""
        if self._error is not None:
            raise self._error


class _Worker(Generic[T]):
    """A worker process, and its replacements."""

    def __init__(self, context: Any, task: Task[T], limits: Limits) -> None:
        self._context, self._task, self._limits = context, task, limits
        self.slot: _Slot[T] | None = None
        self.deadline = 0.0
        self.pauses = False  # between two parts of an item
        self._exhausted = False  # out of memory: whatever took it may still hold it, so the process is replaced
        self._memory = ""  # name of the worker's next array
        self._part = 0
        self._start()

    def _start(self) -> None:
        with starting():
            try:
                self._connection, self._process = self._fork()
            except (EOFError, ConnectionError):
                # A server that forks, and was just killed, still counts as running. A moment later a new one starts.
                time.sleep(_MOMENT)
                self._connection, self._process = self._fork()
        self._exhausted = False

    def _fork(self) -> tuple[Connection, Any]:
        connection, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._task, self._limits), daemon=True)
        with processes.without_program(), theirs:
            process.start()
        return connection, process

    @property
    def handles(self) -> tuple[Any, ...]:
        return self._connection, self._process.sentinel

    def begin(self, slot: _Slot[T], threads: int) -> None:
        self.slot = slot
        slot.tries += 1
        self._memory, self._part = shared_arrays.new_name(), 0
        self._send((slot.item, threads, self._memory))

    def go_on(self) -> None:
        """Start the next part of the item."""
        self.pauses = False
        self._part += 1
        self._memory = shared_arrays.new_name()
        self._send(self._memory)

    def _send(self, message: object) -> None:
        self.deadline = time.monotonic() + self._limits.timeout + _GRACE
        # If the process is dead, waiting for its answer will reveal that.
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def look(self) -> None:
        """Take the answer, if there is one; replace the process if it died, its time is up, or it ran out of memory."""
        assert self.slot is not None
        try:
            answer = self._receive() if self._connection.poll() else None
        except (EOFError, OSError):
            self._process.join(_GRACE)
            answer = self._death()
        if answer is None and not self._process.is_alive():
            answer = self._death()
        if isinstance(answer, VideoError) and self._was_killed() and self._has_another_try(self.slot):
            return
        if answer is None and time.monotonic() >= self.deadline:
            answer = self._late()
        if answer is None:
            return
        self.slot.put(answer)
        if not self.slot.ended:
            self.pauses, self.deadline = True, math.inf
            return
        self.slot, self.pauses = None, False
        if not isinstance(answer, Done) and (self._exhausted or not self._process.is_alive()):
            self.kill()
            self._start()

    def _was_killed(self) -> bool:
        """Whether it was killed from outside; the kernel, short of memory, may kill any process."""
        return self._is_lost() or bool(self._process.exitcode == -getattr(signal, "SIGKILL", 0) != 0)

    def _is_lost(self) -> bool:
        """Whether the server that forked it is gone, so that nobody tells how it ended, or whether."""
        return bool(self._process.exitcode == _LOST) and self._context.get_start_method() == "forkserver"

    def _has_another_try(self, slot: _Slot[T]) -> bool:
        """Begin the item again if it was begun once and gave no result."""
        if slot.tries > 1 or self._part:
            return False
        self.kill()
        self._start()
        self.begin(slot, 1)
        return True

    def _receive(self) -> Done | BaseException:
        value, array, more, self._exhausted = self._connection.recv()
        if array is None:
            return value  # type: ignore[no-any-return]
        if isinstance(array, np.ndarray):
            return Done(value, array, more)
        return Done(value, shared_arrays.fetch(self._memory, array), more)

    def _death(self) -> VideoError:
        code = self._process.exitcode or 0
        if code == -getattr(signal, "SIGALRM", 0) != 0:
            return self._late()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        hint = "; perhaps for lack of memory" if name == "SIGKILL" else ""
        return VideoError("crash", f"the process that read it died ({name}{hint})")

    def _late(self) -> VideoError:
        self._process.kill()
        self._process.join()
        return VideoError("timeout", f"not read within {self._limits.timeout:g} seconds; `timeout` sets the limit")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        if self._is_lost():
            with contextlib.suppress(OSError):
                os.kill(self._process.pid, signal.SIGKILL)
        self._connection.close()
        # Arrays that a killed worker had ready and nobody fetched, or had only begun and gave no size of yet.
        shared_arrays.discard(self._memory)


def task_module(task: Any) -> str:
    """The module to import for a function, or for a partial of one (functools.partial)."""
    return str(getattr(task, "func", task).__module__)


def _serve(connection: Connection, task: Task[T], limits: Limits) -> None:
    """A worker's loop: one item after another, until the main process closes the connection or is gone."""
    # Both signals may go to the whole group; the main process decides.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    # Libraries print anything to these, and the C library its last words.
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(sink, stream)
    _limit_memory(limits.memory)
    parts_made = itertools.count(1)
    while True:
        try:
            item, threads, memory = connection.recv()
        except EOFError:
            return
        with contextlib.closing(task(item, threads)) as parts:
            while True:
                _set_alarm(limits.timeout)
                answer, more = _make(parts, memory)
                _set_alarm(0)
                with contextlib.suppress(BrokenPipeError):
                    connection.send(answer)
                _trim_memory(next(parts_made))
                if not more:
                    break
                try:
                    memory = connection.recv()  # the next part has room
                except EOFError:
                    return


def _make(
    parts: Iterator[Done], memory: str
) -> tuple[tuple[Any, tuple[int, ...] | NDArray[np.float32] | None, bool, bool], bool]:
    """Make the next part; returns the message to send, and whether another part follows.

    The message has the shape of the array that was left in shared memory, or the array itself if there was no room
    there, or None with an error; whether another part follows; and whether the process ran out of memory.
    """
    error: BaseException
    exhausted = False
    try:
        done = next(parts)
        array = done.array.shape if shared_arrays.leave(memory, done.array) else done.array
        return (done.value, array, done.more, False), done.more
    except VideoError as video_error:
        error = video_error
    except MemoryError:
        error, exhausted = VideoError("too_large", OUT_OF_MEMORY), True
    except BaseException as other:
        error = _fit_to_travel(other)
    return (error, None, False, exhausted), False


def _fit_to_travel(error: BaseException) -> BaseException:
    """The error with its traceback; if it cannot be pickled, a RuntimeError with the same message."""
    where = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(more: int) -> None:
    if sys.platform != "linux":  # elsewhere the limit has no effect or does not exist
        return
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + more if hard == resource.RLIM_INFINITY else min(used + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _trim_memory(parts: int) -> None:
    """From time to time, return freed memory to the system; glibc keeps it if it lies between pieces in use."""
    if parts % _TRIMMED_AFTER == 0 and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
