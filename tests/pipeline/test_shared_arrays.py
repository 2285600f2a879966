"""Arrays in shared memory: names that cannot meet, and a pipe if there is no place for them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from testing.tasks import act
from timesformer_cli.pipeline import shared_arrays
from timesformer_cli.pipeline.workers import Done, Pool

SHM = Path("/dev/shm")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where shared memory is a folder")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert list(SHM.glob(f"timesformer-{os.getpid()}-*")) == []


def test_what_killed_runs_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers a run has the number of the one that was killed: what is older than the process is not its own."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    now = time.time()
    monkeypatch.setattr(shared_arrays, "_BEGUN", now - 200)
    # An array that a process left so many seconds ago, and whether it stays.
    cases = [(gone.pid, 0, True), (gone.pid, 100, False), (os.getpid(), 0, True), (os.getpid(), 100, True)]
    cases += [(os.getpid(), 300, False), (os.getppid(), 300, True)]
    paths = {SHM / f"timesformer-{process}-{age}": stays for process, age, stays in cases}
    try:
        for path in paths:
            path.write_bytes(b"an array")
            os.utime(path, (now - int(path.name.split("-")[2]),) * 2)
        shared_arrays.sweep()
        assert {path: path.exists() for path in paths} == paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def test_two_processes_of_one_number_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As two containers with one /dev/shm have them; a fresh process is like the first of a container."""
    code = (
        "import os; os.getpid = lambda: 1; from timesformer_cli.pipeline import shared_arrays as s; print(s.new_name())"
    )
    names = {subprocess.check_output([sys.executable, "-c", code], text=True).strip() for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("timesformer-1-") and len(name) <= 30 for name in names)


def test_a_name_that_is_taken_keeps_its_array() -> None:
    name = shared_arrays.new_name()
    assert shared_arrays.leave(name, np.ones(3, np.float32))
    assert not shared_arrays.leave(name, np.zeros(3, np.float32))
    assert shared_arrays.fetch(name, (3,)).tolist() == [1, 1, 1]


def test_arrays_go_through_the_pipe_if_their_names_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    name = shared_arrays.new_name()
    monkeypatch.setattr(shared_arrays, "new_name", lambda: name)
    assert shared_arrays.leave(name, np.ones(1, np.float32))
    try:
        with Pool(act, ["x:3", "parts:3"], workers=1) as pool:
            answers = [answer for _, answer in pool.results() if isinstance(answer, Done)]
        assert [answer.array.shape for answer in answers] == [(2, 3), (1000,), (1000,), (2, 3)]
    finally:
        shared_arrays.discard(name)
