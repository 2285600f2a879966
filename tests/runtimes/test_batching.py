"""Sizes of batches: halved when memory runs out, doubled while it pays."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from timesformer_cli.errors import DeviceError
from timesformer_cli.runtimes import batching
from timesformer_cli.runtimes.batching import BatchSize, choose_batch_size

VIEWS = np.random.default_rng(0).normal(size=(64, 2, 3, 4, 4)).astype(np.float32)


class Machine:
    """A scorer that holds at most `most` views, and the clock it is measured by."""

    def __init__(self, most: int, seconds: Callable[[int], float] = float) -> None:
        self.most = most
        self.sizes: list[int] = []
        self.time = 0.0
        self._seconds = seconds

    def __call__(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sizes.append(len(views))
        if len(views) > self.most:
            raise MemoryError
        self.time += self._seconds(len(views))
        return views.mean(axis=(1, 2, 3, 4))[:, None] * np.arange(5, dtype=np.float32)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 63, 64])
def test_what_does_not_fit_is_halved_until_it_does(most: int) -> None:
    machine, told = Machine(most), list[str]()
    size = BatchSize(64, tell=told.append)
    expected = Machine(64)(VIEWS)
    for _ in range(2):
        np.testing.assert_allclose(size.score(machine, VIEWS), expected, rtol=1e-6)
    assert size.size <= most < 2 * size.size or size.size == most == 64
    assert len(told) == (most < 64)


def test_the_note_comes_once_and_says_what_fits() -> None:
    machine, told = Machine(9), list[str]()
    size = BatchSize(32, tell=told.append)
    size.score(machine, VIEWS)
    machine.most = 3  # as when another program takes memory
    size.score(machine, VIEWS)
    assert size.size == 2
    assert told == ["16 views at a time do not fit into memory; going on with 8"]


def test_not_even_one_view() -> None:
    told: list[str] = []
    with pytest.raises(DeviceError, match="a single view does not fit") as caught:
        BatchSize(8, tell=told.append).score(Machine(0), VIEWS)
    assert len(str(caught.value).splitlines()) == 1
    assert told == []


def test_other_errors_are_not_caught() -> None:
    def broken(views: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        BatchSize(8).score(broken, VIEWS)


def grown(machine: Machine, *, first: int = 4, most: int = 32, views: int = 64) -> int:
    """The size after as many batches as there is to learn from."""
    size = BatchSize(first, most=most, clock=lambda: machine.time)
    for _ in range(20):
        size.score(machine, VIEWS[:views])
    return size.size


@pytest.mark.parametrize(
    ("seconds", "size"),
    [
        (lambda count: 10 + 0.01 * count, 32),  # the time of a call matters, that of a view does not
        (lambda count: max(8, count), 8),  # nothing is gained from 8 on
        (lambda count: 1 + count, 8),  # 16 are less than a tenth faster: 0.94 against 0.89
        (lambda count: count**2, 4),  # larger is slower
    ],
)
def test_sizes_double_while_it_pays(seconds: Callable[[int], float], size: int) -> None:
    assert grown(Machine(64, seconds)) == size


def test_growth_ends_where_memory_does() -> None:
    machine = Machine(20, lambda count: 1)
    assert grown(machine) == 16
    assert max(machine.sizes) == 32
    assert machine.sizes.count(32) == 1


def test_batches_that_are_not_full_teach_nothing() -> None:
    assert grown(Machine(64, lambda count: 1), views=3) == 4


def test_a_number_stays_but_for_want_of_memory() -> None:
    size = choose_batch_size(7, "cpu", lambda _: None)
    machine = Machine(64, lambda count: 1)
    for _ in range(5):
        size.score(machine, VIEWS)
    assert size.size == 7


def test_auto_on_the_cpu_is_a_number_and_on_cuda_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, grows in (("cpu", False), ("cuda", True)):
        monkeypatch.setattr(batching, "find_device", lambda _, name=name: torch.device(name))
        size, machine = choose_batch_size(None, name, lambda _: None), Machine(64)
        first = size.size
        for _ in range(5):
            size.score(machine, VIEWS)
        assert (max(machine.sizes) > first) == grows


def test_on_the_cpu_a_batch_holds_one_video() -> None:
    """So that scores do not depend, by a last digit, on what else was there."""
    assert not choose_batch_size(None, "cpu", print).spans
    assert not choose_batch_size(8, "cpu", print).spans
