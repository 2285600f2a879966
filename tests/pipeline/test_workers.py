"""A pool that gives every item its answer, in order, whatever the items do to their workers."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from testing.command import started
from testing.tasks import act
from timesformer_cli.errors import SystemLimitError, VideoError
from timesformer_cli.pipeline import workers
from timesformer_cli.pipeline.workers import Done, Limits, Pool

UNIX = hasattr(signal, "SIGALRM")


def run(items: Iterable[str], workers: int = 2, **limits: Any) -> list[tuple[str, Done | VideoError]]:
    with Pool(act, items, workers=workers, limits=Limits(**limits)) as pool:
        return list(pool.results())


def kinds(results: list[tuple[str, Done | VideoError]]) -> list[str]:
    return [answer.kind if isinstance(answer, VideoError) else "ok" for _, answer in results]


def shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.glob(f"timesformer-{os.getpid()}-*")} if folder.is_dir() else set()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = shared_memory()
    yield
    assert multiprocessing.active_children() == []
    assert shared_memory() <= before


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    items = [f"sleep:{(7 * i) % 5 / 50}" for i in range(12)]
    results = run(items, workers)
    assert [item for item, _ in results] == items
    assert kinds(results) == ["ok"] * 12


def test_arrays_arrive_as_they_were() -> None:
    for (item, answer), length in zip(run(["x:3", "xyz:5", "none"]), (3, 5, 4), strict=True):
        assert isinstance(answer, Done)
        assert answer.value["item"] == item
        assert answer.array.dtype == np.float32
        assert answer.array.shape == (2, int(item.partition(":")[2] or 0))
        assert (answer.array == length).all() if length != 4 else answer.array.size == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system says nothing before it is too late")
def test_arrays_arrive_when_shared_memory_is_full() -> None:
    for (item, answer), size in zip(run(["fill:3", "x:5", "none"], workers=1), (3, 5, 0), strict=True):
        assert isinstance(answer, Done)
        assert answer.array.shape == (2, size)
        assert (answer.array == len(item)).all()


def test_no_items() -> None:
    assert run([]) == []


@pytest.mark.skipif(not UNIX, reason="signals")
def test_each_way_to_fail_costs_one_item() -> None:
    bad = {
        "segfault": ("crash", "SIGSEGV"),
        "exit:3": ("crash", "exit code 3"),
        "hang": ("timeout", "within 1.5 seconds"),
        "sleep:30": ("timeout", "`timeout`"),
        "refuse": ("decode", "damaged"),
    }
    items = [item for verb in bad for item in (verb, "fine")]
    results = dict(enumerate(run(items, timeout=1.5)))
    for number, (kind, part) in enumerate(bad.values()):
        _, answer = results[2 * number]
        assert isinstance(answer, VideoError)
        assert answer.kind == kind
        assert part in str(answer)
        assert isinstance(results[2 * number + 1][1], Done)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_memory_is_limited() -> None:
    assert kinds(run(["eat:2", "eat:0.1"], memory=2**30)) == ["too_large", "ok"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_worker_without_memory_is_replaced() -> None:
    """What the first item took is not there for the others any more."""
    results = run(["hoard", "eat:0.1", "eat:0.1"], workers=1, memory=2**29)
    assert kinds(results) == ["too_large", "ok", "ok"]


def test_a_killed_worker_is_replaced_and_others_go_on() -> None:
    results = run(["exit:1", "a", "b", "exit:1", "c"], workers=1)
    assert kinds(results) == ["crash", "ok", "ok", "crash", "ok"]
    processes = [answer.value["process"] for _, answer in results if isinstance(answer, Done)]
    assert processes[0] == processes[1] != processes[2]


@pytest.mark.parametrize(("item", "error"), [("mistake", ZeroDivisionError), ("odd", RuntimeError)])
def test_mistakes_in_the_program_are_not_swallowed(item: str, error: type[Exception]) -> None:
    with Pool(act, ["fine", item, "fine"], workers=2) as pool:
        results = pool.results()
        assert isinstance(next(results)[1], Done)
        with pytest.raises(error) as caught:
            next(results)
    assert "in act" in "".join(caught.value.__notes__)


def test_what_the_source_of_the_items_raises_comes_after_the_results() -> None:
    def items() -> Iterator[str]:
        yield "fine"
        raise OSError("the list is gone")

    with Pool(act, items(), workers=1) as pool:
        results = pool.results()
        assert isinstance(next(results)[1], Done)
        with pytest.raises(OSError, match="the list is gone"):
            next(results)


def test_a_result_does_not_wait_for_the_next_item() -> None:
    asked = threading.Event()

    def items() -> Iterator[str]:
        yield "fine"
        assert asked.wait(60)  # as standard input may

    with Pool(act, items(), workers=2) as pool:
        results = pool.results()
        assert next(results)[0] == "fine"
        asked.set()
        assert list(results) == []


def test_pauses_say_that_the_next_result_is_not_there() -> None:
    asked = threading.Event()

    def items() -> Iterator[str]:
        yield "fine"
        assert asked.wait(60)
        yield "fine"

    with Pool(act, items(), workers=1) as pool:
        results = pool.results_and_pauses()
        assert next(result for result in results if result is not None)[0] == "fine"
        assert next(results) is None  # at once, though no item comes
        asked.set()
        assert [result[0] for result in results if result is not None] == ["fine"]


def test_no_pause_before_a_result_that_is_there_or_at_the_end() -> None:
    with Pool(act, ["fine"] * 4, workers=2) as pool:
        results = pool.results_and_pauses()
        assert next(result for result in results if result is not None)
        wait_until(lambda: not pool._keeper.is_alive())
        assert len(list(results)) == 3


def test_an_interrupt_just_before_the_bell_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes where the other thread would have been woken: the end of the pool wakes it still."""
    with Pool(act, ["fine"] * 99, workers=1) as pool:
        # The worker has done all that there is a place for, and nothing but the bell wakes the thread.
        wait_until(lambda: len(pool._slots) == 2 and all(slot.sizes for slot in pool._slots))
        time.sleep(0.2)
        results = pool.results()
        with monkeypatch.context() as patch:
            patch.setattr(pool._bell, "_ring", SimpleNamespace(send_bytes=interrupt))
            with pytest.raises(KeyboardInterrupt):
                next(results)
    assert not pool._keeper.is_alive()


def interrupt(_: bytes) -> None:
    raise KeyboardInterrupt


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_workers_go_on_while_the_caller_is_busy() -> None:
    """One worker and two places: both items are done without anyone asking."""
    with Pool(act, ["who"] * 5, workers=1) as pool:
        wait_until(lambda: len(pool._slots) == 2 and all(slot.sizes for slot in pool._slots))


@pytest.mark.parametrize(("room", "begun"), [(0, 2), (100, 4), (10**6, 9)])
def test_more_is_begun_while_there_is_room_for_what_is_ready(room: int, begun: int) -> None:
    """Arrays of 2 x 4 float32, 32 bytes: the fourth makes it more than 100."""
    with Pool(act, ["x:4"] * 9, workers=1, room=room) as pool:
        wait_until(lambda: len(pool._slots) == begun and all(slot.sizes for slot in pool._slots))
        time.sleep(0.2)
        assert len(pool._slots) == begun
        assert len(list(pool.results())) == 9


@pytest.mark.parametrize(("items", "workers", "threads"), [(1, 1, 12), (1, 2, 12), (2, 2, 6), (3, 3, 4), (9, 2, 1)])
def test_the_last_items_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, items: int, workers: int, threads: int
) -> None:
    monkeypatch.setattr("timesformer_cli.pipeline.workers.available_cores", lambda: 12)
    results = run(["fine"] * items, workers)
    answers = [answer.value["threads"] for _, answer in results if isinstance(answer, Done)]
    assert answers[0] == threads


def test_one_thread_each_while_more_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer_cli.pipeline.workers.available_cores", lambda: 12)
    asked = threading.Event()

    def items() -> Iterator[str]:
        yield "fine"
        asked.wait()

    with Pool(act, items(), workers=2) as pool:
        _, answer = next(pool.results())
        assert isinstance(answer, Done)
        assert answer.value["threads"] == 1
        asked.set()


def test_items_are_begun_only_so_far_ahead() -> None:
    taken = []

    def items() -> Iterator[str]:
        for number in range(50):
            taken.append(number)
            yield "fine"

    with Pool(act, items(), workers=2) as pool:
        results = pool.results()
        next(results)
        time.sleep(0.5)
        # Four begun and one given; two more wait in the queue, and one in the hand of who feeds it.
        assert len(taken) <= 8
        assert len(list(results)) == 49


def test_workers_that_cannot_be_started() -> None:
    with (
        Pool(lambda item, threads: act(item, threads), ["fine"], workers=1) as pool,
        pytest.raises(Exception, match="pickle"),
    ):
        next(pool.results())


def test_leaving_early_ends_the_workers() -> None:
    with Pool(act, ["sleep:60"] * 5, workers=2) as pool:
        del pool
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_server_that_is_killed_costs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """It also ends if it can fork no more processes; its workers go on, but nobody sees how they end."""
    with Pool(act, ["who", "sleep:0.5", "sleep:0.5", "fine"], workers=2) as pool:
        results = pool.results()
        _, first = next(results)
        assert isinstance(first, Done)
        wait_until(lambda: len(pool._busy()) == 2)
        os.kill(int(state(first.value["process"])[1]), signal.SIGKILL)
        assert kinds([*results]) == ["ok"] * 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("most", [0, 2])
def test_fewer_workers_do_if_no_more_can_be_started(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    started = itertools.count(1)

    class Worker(workers._Worker[str]):
        def _start(self) -> None:
            if next(started) > most:
                raise SystemLimitError("no more processes")
            super()._start()

    monkeypatch.setattr(workers, "_Worker", Worker)
    with Pool(act, ["who"] * 6, workers=3) as pool:
        if not most:
            with pytest.raises(SystemLimitError):
                next(pool.results())
            return
        answers = [answer.value["process"] for _, answer in pool.results() if isinstance(answer, Done)]
    assert len(answers) == 6
    assert len(set(answers)) <= 2


def test_workers_keep_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    run(["print"])
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_is_left_to_the_master() -> None:
    with Pool(act, ["sleep:0.6"], workers=1) as pool:
        for child in multiprocessing.active_children():
            time.sleep(0.3)
            os.kill(child.pid or 0, signal.SIGINT)
        ((_, answer),) = pool.results()
        assert isinstance(answer, Done)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_workers_end_with_their_master(tmp_path: Path) -> None:
    """Also when it is killed, and they are in the middle of something that never ends."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from testing.tasks import act; "
        "from timesformer_cli.pipeline.workers import Limits, Pool\n"
        "if __name__ == '__main__':\n"
        "    with Pool(act, ['who', 'hang', 'hang'], workers=2, limits=Limits(timeout=2)) as pool:\n"
        "        results = pool.results(); print(next(results)[1].value['process'], flush=True); time.sleep(60)\n"
    )
    script = tmp_path / "master.py"
    script.write_text(code)
    with started(sys.executable, script, Path(__file__).parents[2], stdout=subprocess.PIPE) as master:
        assert master.stdout is not None
        first = int(master.stdout.readline())
        parent = int(state(first)[1])
        workers = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        assert first in workers
        master.kill()
    wait_until(lambda: all(state(process)[0] in ("gone", "Z") for process in (parent, *workers)))


def state(process: int) -> list[str]:
    """A letter, Z for one that has ended and no one has asked for, and the number of its parent; or `gone`."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    except FileNotFoundError:
        return ["gone"]


def test_items_of_several_parts() -> None:
    """Parts come in order, each item's before the next one's, however many workers there are."""
    with Pool(act, ["parts:7", "x:3", "parts:5"], workers=2) as pool:
        found = [(item, answer.array.shape, answer.more) for item, answer in pool.results() if isinstance(answer, Done)]
    parts = [("parts:7", (1000,), True)] * 6 + [("parts:7", (2, 0), False)]
    assert found == [*parts, ("x:3", (2, 3), False), *[("parts:5", (1000,), True)] * 4, ("parts:5", (2, 5), False)]


def test_a_worker_waits_when_enough_parts_are_there() -> None:
    with Pool(act, ["parts:50"], workers=1, ahead=3) as pool:
        wait_until(lambda: any(worker.pauses for worker in pool._workers) and len(pool._slots[0].sizes) == 3)
        time.sleep(0.1)
        assert len(pool._slots[0].sizes) == 3
        assert len(list(pool.results())) == 50


@pytest.mark.skipif(not UNIX, reason="signals")
@pytest.mark.parametrize(
    ("verb", "kind"), [("refuse", "decode"), ("segfault", "crash"), ("sleep:30", "timeout"), ("hang", "timeout")]
)
def test_an_item_may_fail_after_a_part(verb: str, kind: str) -> None:
    results = run([f"break:{verb}", "fine"], workers=1, timeout=1.0)
    assert kinds(results) == ["ok", kind, "ok"]


@pytest.mark.skipif(not UNIX, reason="signals")
def test_each_part_has_its_own_time() -> None:
    """Five times a quarter of a second, and one second in between in which no one asks for more."""
    with Pool(act, ["slow:5"], workers=1, ahead=1, limits=Limits(timeout=0.8)) as pool:
        results = pool.results()
        next(results)
        time.sleep(1)
        assert [type(answer) for _, answer in results] == [Done] * 5


def test_leaving_between_two_parts_leaves_nothing() -> None:
    with Pool(act, ["parts:9", "parts:9"], workers=2) as pool:
        next(pool.results())


@pytest.mark.skipif(not UNIX, reason="signals")
def test_a_worker_that_is_killed_once_costs_nothing(tmp_path: Path) -> None:
    assert kinds(run([f"kill:{tmp_path / 'flag'}", "fine"], workers=1)) == ["ok", "ok"]
    (answer,) = (answer for _, answer in run(["kill"]))
    assert isinstance(answer, VideoError)
    assert answer.kind == "crash"
    assert "SIGKILL; perhaps for lack of memory" in str(answer)
