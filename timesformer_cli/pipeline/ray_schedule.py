"""Who does what on a Ray cluster, and what happens to the work of a node, a worker or a network that is lost.

Ray repeats nothing by itself: it cannot tell a video that kills its reader from a node that went away. The first costs
one record after a few tries, the second costs nothing but time.
"""

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from timesformer_cli.__about__ import __version__
from timesformer_cli.errors import TimesformerError
from timesformer_cli.flow import Failure, Item, Scored
from timesformer_cli.pipeline.ray_remote import Node
from timesformer_cli.video.addresses import is_address

# How often a video may kill its reader before that is its record.
_DEATHS = 3

# How often a video may lose its node or its network, and a network may end before it is ready, until the run gives up.
# The pauses between double: it can take Ray half a minute to notice that a node is gone.
_SETBACKS = 6
_LONGEST_PAUSE = 16.0

# Objects that a task makes before they are taken: two spans, each with the word before it.
OBJECTS_AHEAD = 4

# Blocks for each reader that are begun before the first is finished.
_BLOCKS_AHEAD = 4

# Calls that a network has at a time, so that it need not wait for the next.
_CALLS = 2

# Seconds between two looks at the cluster; and those that the work may wait for a place until what is missing is named,
# if others have taken it and if it may be our own processes, which take long to start.
_LOOK = 2.0
_PATIENCE = 10.0
_PATIENCE_WITH_STARTS = 60.0

# Seconds without the head of the cluster. After 60, Ray would end this program without a word.
_HEADLESS = 45.0


class HeadLostError(TimesformerError):
    """The head of the cluster is gone, and calls of Ray would never return."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the work is divided: so many `networks`, each of which asks Ray for `ask`, and so many `readers` at a time.

    `reading` is the CPUs that a reader asks for, and `device` is where the networks run.
    """

    networks: int
    ask: dict[str, float]
    device: str
    readers: int
    reading: float


@dataclass(eq=False, slots=True)
class _Span:
    """A span of a video that a task has read: its views, as Ray's reference to them, and then the answer."""

    block: "_Block"
    views: Any = None
    answer: Scored | Failure | None = None


@dataclass(eq=False, slots=True)
class _Block:
    """Items that one task reads in turn.

    `items` are those without a whole answer. `answers` are complete up to there and not taken yet; `begun` of them, or
    of those taken, belong to the first of `items`. `pending` are the next spans.
    """

    items: deque[Item]
    setbacks: int = 0
    deaths: int = 0
    not_before: float = 0.0
    answers: deque[Scored | Failure] = field(default_factory=deque)
    begun: int = 0
    pending: deque[_Span] = field(default_factory=deque)
    stream: Any = None
    node: Node | None = None  # of the task, once it runs
    skip: int = 0  # spans to come that have answers already
    views_follow: bool = False
    was_read: bool = False

    def settle(self) -> None:
        """Move the answers up to the first that is missing."""
        while self.pending and self.pending[0].answer is not None:
            answer = self.pending.popleft().answer
            assert answer is not None
            if not self.items or answer.item != self.items[0]:
                raise RuntimeError(f"Ray returned {answer.item} instead of {list(islice(self.items, 1))}")
            self.answers.append(answer)
            self.begun += 1
            if isinstance(answer, Failure) or not answer.more:
                self.items.popleft()
                self.begun = 0
        if self.was_read and self.items and not self.pending:
            raise RuntimeError(f"Ray did not return {self.items[0]}")


@dataclass(eq=False, slots=True)
class _Network:
    actor: Any
    step: Any  # the answer to `where`, then to `load`; then None
    node: Node | None = None
    calls: dict[Any, list[_Span]] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.node is not None and self.step is None

    def progress(self) -> tuple[bool, bool, int]:
        """How much is lost with it: it has a place, is loaded, and has work."""
        return self.node is not None, self.is_ready, len(self.calls)


class Schedule:
    """The work on all items, by tasks that `read` starts (for given items and a plan) and actors that `open` starts.

    `plan` looks at the cluster again, which may have changed; `answers` tells whether its head does. `rows` spans
    go to a network at a time.
    """

    def __init__(
        self,
        ray: Any,
        blocks: Iterable[list[Item]],
        plan: Callable[[], Plan],
        *,
        answers: Callable[[], bool],
        read: Callable[[list[Item], Plan], Any],
        open: Callable[[Plan], Any],
        rows: int,
        tell: Callable[[str], None],
    ) -> None:
        self._ray, self._look, self._read, self._open, self._rows, self._tell = ray, plan, read, open, rows, tell
        self._blocks = deque(_Block(deque(block)) for block in blocks)
        self._reading: dict[_Block, None] = {}  # those with a stream, in the order of their starts
        self._plan, self._answers = plan(), answers
        self._looked = self._answered = time.monotonic()
        self._networks: list[_Network] = []
        self._unscored: deque[_Span] = deque()
        self._lost = 0  # networks that were not ready yet, since one was
        self._told: set[str] = set()
        self._moved_at, self._told_of_wait = time.monotonic(), False

    def results(self) -> Iterator[Scored | Failure]:
        """The results in order.

        Raises:
            TimesformerError: an error of the network; or a node lacks the package or the videos.
            HeadLostError, RayError: the cluster failed, or parts of it too often.
        """
        try:
            while self._blocks:
                self._tend()
                self._begin()
                self._call()
                yield from self._finished()
                if self._blocks:
                    self._wait()
        finally:
            if self._answered == self._looked:
                self._stop()

    def _finished(self) -> Iterator[Scored | Failure]:
        while self._blocks:
            block = self._blocks[0]
            while block.answers:
                yield block.answers.popleft()
            if block.items:
                return
            self._blocks.popleft()  # its task may still end

    # Starting

    def _tend(self) -> None:
        """Start networks that are missing, as lost ones are, or because the cluster grew; stop them if it shrank."""
        if time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            if not self._answers():
                if self._looked - self._answered > _HEADLESS:
                    raise HeadLostError("its head no longer answers")
                return
            self._answered = self._looked
            with contextlib.suppress(TimesformerError):  # a cluster that has too little now may have more later
                self._plan = self._look()
        wanted = max(min(self._plan.networks, len(self._blocks)), 1)
        while len(self._networks) < wanted:
            actor = self._open(self._plan)
            self._networks.append(_Network(actor, actor.where.remote()))
        # On a smaller cluster, those in excess could take the place of the readers.
        if len(self._networks) > self._plan.networks:
            for network in sorted(self._networks, key=_Network.progress)[: -self._plan.networks]:
                self._dismiss(network)

    def _begin(self) -> None:
        """Start to read the next blocks.

        Only if a network has its place: readers that wait for it could take the last one.
        """
        if not any(network.node for network in self._networks):
            return
        now = time.monotonic()
        for block in islice(self._blocks, _BLOCKS_AHEAD * self._plan.readers):
            if len(self._reading) >= self._plan.readers:
                return
            if block.stream is None and not block.was_read and block.items and now >= block.not_before:
                block.stream, block.node, block.views_follow = self._read(list(block.items), self._plan), None, False
                block.skip = block.begun
                self._reading[block] = None

    def _call(self) -> None:
        """Give the networks the views that are ready: full batches, and smaller ones if they have nothing to do."""
        for network in sorted(self._networks, key=lambda network: len(network.calls)):
            while network.is_ready and len(network.calls) < _CALLS and self._unscored:
                if network.calls and len(self._unscored) < self._rows:
                    break
                spans = self._next_to(network)
                network.calls[network.actor.score.remote(*(span.views for span in spans))] = spans

    def _next_to(self, network: _Network) -> list[_Span]:
        """The next spans for a network; those on the nodes of different networks only if there are no others."""
        elsewhere = {each.node for each in self._networks} - {network.node}
        near = (span for span in self._unscored if span.block.node not in elsewhere)
        spans = list(islice(near, self._rows)) or list(islice(self._unscored, self._rows))
        for span in spans:
            self._unscored.remove(span)
        return spans

    # Waiting

    def _wait(self) -> None:
        """Wait until something happens, and take it."""
        waiting: dict[Any, Callable[[], None]] = {}
        for network in self._networks:
            if network.step is not None:
                waiting[network.step] = partial(self._step, network)
            for call in network.calls:
                waiting[call] = partial(self._take_scores, network, call)
        has_room = len(self._unscored) < _CALLS * self._rows * len(self._networks)
        for block in self._reading:
            if has_room or block.node is None:
                waiting[block.stream] = partial(self._take, block)
        if not waiting:
            time.sleep(_LOOK / 10)
            return
        handles = list(waiting)
        ready, _ = self._ray.wait(handles, timeout=_LOOK, fetch_local=False)
        if ready:
            ready, _ = self._ray.wait(handles, num_returns=len(handles), timeout=0, fetch_local=False)
        for handle in ready:
            waiting[handle]()
        self._tell_of_wait()

    def _step(self, network: _Network) -> None:
        """A network has its place, or is loaded."""
        if network not in self._networks:  # lost by what was taken just before
            return
        try:
            answer = self._ray.get(network.step)
        except self._ray.exceptions.RayError as error:
            self._lose(network, error)
            return
        if isinstance(answer, TimesformerError):
            raise answer
        self._moved()
        if network.node is None:
            network.node = answer
            network.step = network.actor.load.remote()
        else:
            network.step, self._lost = None, 0

    def _take(self, block: _Block) -> None:
        """The next object that a task has made."""
        if block.stream is None:
            return
        try:
            reference = next(block.stream)
        except StopIteration:
            block.stream, block.was_read = None, True
            del self._reading[block]
            block.settle()
            return
        if block.views_follow:
            block.views_follow = False
            if block.skip:
                block.skip -= 1
                return
            block.pending.append(_Span(block, reference))
            self._unscored.append(block.pending[-1])
            return
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._retry(block, error)
            return
        if isinstance(answer, Node):
            block.node = answer
            self._moved()
        elif isinstance(answer, Failure):
            _check_seen(answer, block.node)
            block.skip = 0
            block.pending.append(_Span(block, answer=answer))
            block.settle()
        else:
            block.views_follow = True

    def _take_scores(self, network: _Network, call: Any) -> None:
        spans = network.calls.pop(call, None)
        if spans is None:
            return
        try:
            told, answers = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            if isinstance(error, self._ray.exceptions.RayTaskError):  # the network lives, but views are lost
                self._retry_all(spans, error)
            else:
                network.calls[call] = spans
                self._lose(network, error)
            return
        if isinstance(answers, TimesformerError):
            raise answers
        for message in told:
            if message not in self._told:  # by a different network
                self._told.add(message)
                self._tell(message)
        for span, answer in zip(spans, answers, strict=True):
            span.answer = answer
            span.block.settle()

    # Losses

    def _lose(self, network: _Network, error: Exception) -> None:
        """A network, or its node, is gone: others take over its work."""
        _check_package(error)
        if not network.is_ready:
            self._lost += 1
            if self._lost > _SETBACKS * self._plan.networks:
                raise error
        self._dismiss(network, error)

    def _dismiss(self, network: _Network, error: Exception | None = None) -> None:
        """Stop a network. Its work is taken up again; with an error, that counts as a setback."""
        self._networks.remove(network)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(network.actor)
        calls = list(network.calls.values())
        network.calls.clear()
        for spans in calls:
            self._retry_all(spans, error)
        if not any(network.node for network in self._networks):
            for block in list(self._reading):
                self._reset(block)

    def _retry_all(self, spans: list[_Span], error: Exception | None) -> None:
        for block in dict.fromkeys(span.block for span in spans):
            # Of a block that was taken up again since, the spans are no longer awaited.
            if not any(span in block.pending for span in spans):
                continue
            if error is None:
                self._reset(block)
            else:
                self._retry(block, error, reading=False)

    def _retry(self, block: _Block, error: Exception, *, reading: bool = True) -> None:
        """Take up a block again from the first item without an answer, in smaller blocks."""
        _check_package(error)
        errors = self._ray.exceptions
        cause = error.cause if isinstance(error, errors.RayTaskError) else error
        if not isinstance(cause, errors.RayError):
            raise error
        died = reading and isinstance(cause, (errors.WorkerCrashedError, errors.OutOfMemoryError))
        died = died and not self._is_dead(block.node)
        self._reset(block)
        if not block.items:
            return
        if not died:
            block.setbacks += 1
            if block.setbacks > _SETBACKS:
                raise error
            self._split(block, -(-len(block.items) // 2))
        elif len(block.items) > 1:
            self._split(block, 1)
        else:
            block.deaths += 1
            if block.deaths >= _DEATHS:
                reason = f"reading it killed Ray's worker {block.deaths} times ({reason_of(cause)})"
                block.answers.append(Failure(block.items.popleft(), "crash", reason))
        pause = min(2.0 ** (block.setbacks + block.deaths - 1), _LONGEST_PAUSE)
        block.not_before = time.monotonic() + (pause if block.setbacks + block.deaths else 0)

    def _reset(self, block: _Block) -> None:
        self._cancel(block)
        block.was_read = False
        block.pending.clear()
        self._unscored = deque(span for span in self._unscored if span.block is not block)

    def _split(self, block: _Block, size: int) -> None:
        """Leave `size` items in the block, and put the rest into new blocks after it."""
        rest = list(block.items)[size:]
        block.items = deque(islice(block.items, size))
        place = self._blocks.index(block)
        for start in range(0, len(rest), size):
            place += 1
            items = deque(rest[start : start + size])
            self._blocks.insert(place, _Block(items, block.setbacks, not_before=block.not_before))

    def _is_dead(self, node: Node | None) -> bool:
        """Whether Ray knows that the node is gone; it can take some time to notice."""
        return node is not None and not any(
            each["NodeID"] == node.number and each["Alive"] for each in self._ray.nodes()
        )

    # Words

    def _moved(self) -> None:
        self._moved_at, self._told_of_wait = time.monotonic(), False

    def _tell_of_wait(self) -> None:
        """Say once what is missing if the cluster has had no place for the work for some time."""
        waited = time.monotonic() - self._moved_at
        if self._told_of_wait or waited < _PATIENCE or self._answered < self._looked:
            return
        ours = {name: len(self._networks) * share for name, share in self._plan.ask.items()}
        if not any(network.node for network in self._networks):
            ask, purpose = self._plan.ask, "for the network"
        elif self._reading and not any(block.node for block in self._reading):
            ask, purpose = {"num_cpus": self._plan.reading}, "to read a video"
            ours["num_cpus"] += len(self._reading) * self._plan.reading
        else:
            return
        free, whole = self._ray.available_resources(), self._ray.cluster_resources()
        missing = []
        for asked, name in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
            left, total = free.get(name, 0), whole.get(name, 0)
            # What is taken may be our own: processes that start, on a slow machine.
            if left < ask.get(asked, 0) and (total - left > ours.get(asked, 0) or waited >= _PATIENCE_WITH_STARTS):
                missing.append(f"{left:g} of {total:g} {name}s are free, and {ask[asked]:g} is needed {purpose}")
        if missing:
            self._told_of_wait = True
            self._tell(f"waiting for the Ray cluster, which is busy: {'; '.join(missing)}")

    # Ending

    def _cancel(self, block: _Block) -> None:
        if block.stream is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(block.stream, force=True)
            block.stream = None
            del self._reading[block]

    def _stop(self) -> None:
        for block in list(self._reading):
            self._cancel(block)
        for network in self._networks:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(network.actor)


def reason_of(error: Exception) -> str:
    """The last line of an error of Ray, which says most."""
    return " ".join(str(error).strip().splitlines()[-1].split())


def _check_seen(failure: Failure, node: Node | None) -> None:
    """Raise TimesformerError if a video that exists here was not found on a node."""
    path = failure.item.location
    if failure.kind == "not_found" and node is not None and not is_address(path) and os.path.exists(path):
        raise TimesformerError(
            f"`engine=ray`: the node {node.address} does not find {path}, which exists here; "
            "all nodes must have the videos under the same paths"
        )


def _check_package(error: Exception) -> None:
    """Raise TimesformerError if a node could not import this package."""
    text = str(error)
    if "No module named 'timesformer_cli" in text:
        address = re.search(r"\bip=([^\s,)]+)", text)
        raise TimesformerError(
            f"`engine=ray`: the node {address[1] if address else 'that was to do the work'} lacks this package; "
            f"install it there, for the Python that runs Ray: pip install 'timesformer-cli[ray]=={__version__}'"
        )
