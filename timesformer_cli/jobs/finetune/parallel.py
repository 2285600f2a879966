"""The processes of a run, each with its own GPU or cores: what they add up, what they decide together, how they end.

All of them take the same steps. They exchange small objects through connections between the CPUs (gloo), at which a
waiting process can be interrupted; gradients go through DistributedDataParallel.
"""

import pickle
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timesformer_cli.errors import DeviceError, PeerError, Terminated, TimesformerError, UsageError
from timesformer_cli.jobs.finetune.launch import Launch
from timesformer_cli.jobs.finetune.watch import Stop, Watch, interrupt_main, stopped
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.pytorch import is_out_of_memory

T = TypeVar("T")

# How long processes wait for one another: for all to start, and for what one of them does meanwhile. Of those that
# ended, `watch` tells.
_TO_START, _TO_MEET = timedelta(minutes=5), timedelta(days=30)

# Seconds after a signal in which more of them are the same request, such as those of a terminal and of torchrun.
_SAME_SIGNAL = 3.0

# Seconds that a signal waits for the end of a step: torchrun kills after 30.
_PATIENCE = 5.0


class World:
    """The processes of a run, of which this one is `rank`, from 0; this class is for only one.

    `local_size` of them are on this machine. `device` is that of this process, a name of `devices.DEVICES`.
    """

    rank = 0
    size = 1
    local_size = 1

    def __init__(self, device: str = "auto") -> None:
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and talks for all."""
        return self.rank == 0

    def exchange(self, own: T) -> list[T]:
        """What each process gave, by rank. `own` is pickled.

        Raises:
            PeerError: another process failed.
            KeyboardInterrupt, Terminated: another process was asked to stop.
        """
        return [own]

    def meet(self, own: T) -> list[T]:
        """As `exchange`; if a signal came to any process since `deferred` began, all of them raise what it stands for.

        Raises:
            KeyboardInterrupt, Terminated: in all processes at once.
        """
        return [own]

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM wait for the next `meet` or the end of the context, for at most five seconds."""
        yield

    def of_first(self, own: T) -> T:
        """What the process of rank 0 gave; the values of the others do not matter. Raises as `exchange`."""
        return cast("T", self.exchange(own if self.is_first else None)[0])

    def share(self, count: int) -> range:
        """The numbers of the items that this process takes, of `count` items."""
        return range(self.rank, count, self.size)

    def gathered(self, own: Sequence[T], count: int) -> list[T]:
        """The results of all `count` items in order, in every process; `own` are those of `share(count)`.

        Raises:
            ValueError: a process gave more or fewer results than it has items.
            PeerError, KeyboardInterrupt, Terminated: as `exchange`.
        """
        parts = self.exchange(list(own))
        found: list[T | None] = [None] * count
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part
            if len(found) != count or len(part) != len(range(rank, count, self.size)):
                raise ValueError(f"rank {rank} gave {len(part)} results of {count} items")
        return cast("list[T]", found)

    def adder(self, parameters: Sequence[nn.Parameter]) -> Callable[[], None]:
        """A function that replaces the gradients of `parameters` by their mean over all processes.

        A process in which a parameter has no gradient counts as zero. All processes have to call it.
        """
        return lambda: None

    def spread(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Give the network and the optimiser of every process the state of those of rank 0."""


ALONE = World()


@contextmanager
def joined(launch: Launch | None, device: str, tell: Callable[[str], None]) -> Iterator[World]:
    """The processes of `launch` for as long as the context lasts; it ends in all of them at once.

    `device` is one of `devices.DEVICES`; if it is a GPU, each process of a machine gets its own. An error that ends the
    context ends it in all processes, within a minute. `tell` gets the reason if a process can end only at once.

    Raises:
        UsageError: a device that several processes cannot share.
        DeviceError: the machine lacks the device, or the processes do not find each other.
        PeerError: another process failed.
    """
    if launch is None:
        yield World(device)
        return
    world = _Joined(launch, device, tell)
    try:
        yield world
        world.exchange(None)  # no process ends before all are done
    except BaseException as error:
        world.leave(error)
        raise
    world.leave()


class _Joined(World):
    def __init__(self, launch: Launch, device: str, tell: Callable[[str], None]) -> None:
        super().__init__(_device_of(launch, device))
        self.rank, self.size = launch.rank, launch.size
        self._deferring = False
        self._asked: Stop | None = None
        self._asked_at = 0.0
        self._ending = False
        self._poked = False
        self._late = threading.Timer(_PATIENCE, self._poke)
        self._late.daemon = True
        store, watched = (_waited(partial(_store_of, launch, first=first)) for first in (True, False))
        self._watch = Watch(launch, watched, interrupt=self._poke, tell=tell)
        self._handlers = self._handle_signals()
        try:
            self._group = _waited(partial(_join, launch, store, self.device))
            places = self.exchange((platform.node(), self.device.partition(":")[0]))
            self.local_size = [name for name, _ in places].count(platform.node())
            kinds = [kind for _, kind in places]
            if len(set(kinds)) > 1:
                raise DeviceError(
                    f"rank {self.rank} has {kinds[self.rank]}, but not all have; choose one with `device`"
                )
        except BaseException as error:
            self.leave(error)
            raise

    def _handle_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}

    def _poke(self) -> None:
        """Have the main thread look why the run is to end; from a different thread."""
        self._poked = True
        interrupt_main()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        poked, self._poked = self._poked, False
        if not self._ending and self._watch.end is not None:
            raise self._ended(self._watch.end.error())
        if poked:
            if not self._ending and self._asked is not None:
                raise self._ended(stopped(self._asked))
            return
        again = self._ending or self._asked is not None
        if again and time.monotonic() - self._asked_at < _SAME_SIGNAL:
            return
        self._asked = self._asked or ("SIGINT" if number == signal.SIGINT else "SIGTERM")
        if again or not self._deferring:
            raise self._ended(stopped(self._asked))
        self._asked_at = time.monotonic()
        self._late.start()

    def _ended(self, error: BaseException) -> BaseException:
        """The error with which this process begins to end; signals of the following seconds change nothing."""
        self._ending = True
        self._asked_at = time.monotonic()
        self._late.cancel()
        return error

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._asked is not None:
            raise self._ended(stopped(self._asked))

    def meet(self, own: T) -> list[T]:
        answers = self.exchange((own, self._asked))
        for _, asked in answers:
            if asked is not None:
                raise self._ended(stopped(asked))
        return [value for value, _ in answers]

    def exchange(self, own: T) -> list[T]:
        data = torch.frombuffer(bytearray(pickle.dumps(own)), dtype=torch.uint8)
        sizes = [int(size) for size in self._all(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        parts = self._all(padded)
        return [pickle.loads(bytes(part[:size].numpy())) for part, size in zip(parts, sizes, strict=True)]

    def _all(self, own: Tensor) -> list[Tensor]:
        """The tensors of all processes, of the same shape. The wait for them can be interrupted."""
        found = [torch.empty_like(own) for _ in range(self.size)]
        with self._connected():
            work = dist.all_gather(found, own, group=self._group, async_op=True)
            while not work.is_completed():
                if self._watch.end is not None:
                    raise self._ended(self._watch.end.error())
                time.sleep(0.0005)
            work.wait()
        return found

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn the error of a broken connection into the reason for it."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._ended(error)
            end = self._watch.reason()
            lost = f"the connection to the other processes is lost: {str(error).partition(chr(10))[0]}"
            raise (PeerError(lost) if end is None else end.error()) from None

    def adder(self, parameters: Sequence[nn.Parameter]) -> Callable[[], None]:
        with self._connected():
            touch = DistributedDataParallel(_Touch(parameters))

        def add() -> None:
            with self._connected():
                touch().backward()

        return add

    def spread(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        state = optimiser.state_dict()
        plan = self.of_first(
            {
                number: {name: (value.shape, value.dtype, value.device.type) for name, value in moments.items()}
                for number, moments in state["state"].items()
            }
        )
        if not self.is_first:
            state["state"] = {
                number: {
                    name: torch.empty(shape, dtype=dtype, device="cpu" if kind == "cpu" else self.device)
                    for name, (shape, dtype, kind) in moments.items()
                }
                for number, moments in plan.items()
            }
        tensors = [value for moments in state["state"].values() for value in moments.values()]
        with self._connected(), torch.no_grad():
            for tensor in [*model.state_dict().values(), *tensors]:
                dist.broadcast(tensor, 0, group=self._group if tensor.device.type == "cpu" else None)
        if not self.is_first:
            optimiser.load_state_dict(state)

    def leave(self, error: BaseException | None = None) -> None:
        """End the connections; tell the other processes of an error first."""
        if error is not None:
            # The handlers stay: that a launcher now stops this process as well is not to hide why it ends.
            self._ended(error)
            by = self._asked or "SIGTERM" if isinstance(error, (KeyboardInterrupt, Terminated)) else None
            known = isinstance(error, TimesformerError)
            self._watch.fail(_line(str(error) if known else f"{type(error).__name__}: {error}"), by)
        self._watch.close()
        # After an error, GPUs may wait for one another without end.
        closing = threading.Thread(target=dist.destroy_process_group, daemon=True)
        if dist.is_initialized():
            closing.start()
            closing.join(None if error is None else 5.0)
        if error is None:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)


class _Touch(nn.Module):
    """Its backward pass adds zeros to every gradient, after which DistributedDataParallel averages what is in them.

    The passes of the network itself go past it: they add up in each process, as many as its videos take.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.all = nn.ParameterList(parameters)

    def forward(self) -> Tensor:
        return 0.0 * torch.stack([parameter.flatten()[0] for parameter in self.all]).sum()


def _waited(call: Callable[[], T]) -> T:
    """The result of a call that waits for other processes. A signal ends the wait."""
    found: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
    if errors:
        raise errors[0]
    return found[0]


def _device_of(launch: Launch, asked: str) -> str:
    """The device of this process. Raises UsageError and DeviceError."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if asked not in ("auto", "cuda"):
        raise UsageError(
            f"`device={asked}`: {launch.size} processes cannot share it; choose cuda, which gives each its own, or cpu"
        )
    find_device("cuda")
    there = torch.cuda.device_count()
    number = 0 if launch.alone_on_gpu and there == 1 else launch.local_rank
    if number >= there:
        raise DeviceError(
            f"this machine has {there} CUDA devices that PyTorch can use, and process {launch.local_rank + 1} finds "
            "none; start one process for each GPU"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def _store_of(launch: Launch, *, first: bool) -> Any:
    """A connection to the store in which processes find each other; `first` of this process. Raises DeviceError."""
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            launch.host,
            launch.port,
            launch.size if first else None,
            is_master=first and launch.rank == 0 and not launch.hosted,
            timeout=_TO_START,
            wait_for_workers=first,
        )
    except RuntimeError as error:
        raise DeviceError(
            f"rank {launch.rank} of {launch.size} does not find the others at {launch.host}:{launch.port} "
            f"({_line(str(error))}); check MASTER_ADDR and MASTER_PORT, and whether all were started"
        ) from error
    return dist.PrefixStore(f"timesformer/{launch.attempt}", store)  # type: ignore[attr-defined]


def _join(launch: Launch, store: Any, device: str) -> dist.ProcessGroup:
    """Connect to the other processes; returns those connections that go between the CPUs. Raises DeviceError."""
    try:
        backend = "gloo" if device == "cpu" else "nccl"
        dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.size)
        return cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=_TO_MEET))
    except RuntimeError as error:
        raise DeviceError(
            f"rank {launch.rank} of {launch.size} cannot connect to the others ({_line(str(error))}); if this machine "
            "has several networks, set GLOO_SOCKET_IFNAME"
        ) from error


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]
