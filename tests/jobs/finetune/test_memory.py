"""How many clips are worked on at a time."""

import copy
from typing import Any

import pytest
import torch

from testing.training import batch_of, trainer_of
from timesformer_cli.errors import DeviceError
from timesformer_cli.jobs.finetune import memory
from timesformer_cli.jobs.finetune.memory import fit, free_memory, largest

BATCH = batch_of(1, list(range(6)))


@pytest.mark.parametrize(
    ("one", "two", "reserved", "available", "most", "clips"),
    [
        (10, 12, 5, 100, 32, 32),  # 10 + 5 + 31 x 2
        (10, 12, 5, 76, 32, 16),
        (10, 12, 5, 17, 32, 2),
        (10, 12, 5, 16, 32, 1),
        (10, 12, 5, 14, 32, 0),
        (10, 9, 5, 15, 32, 32),  # too small to be seen
        (10, 12, 5, 1000, 24, 16),
        (None, None, 5, 10, 8, 8),
        (10, 12, 5, None, 8, 8),
    ],
)
def test_the_largest_power_of_two_that_fits(
    one: int | None, two: int | None, reserved: int, available: int | None, most: int, clips: int
) -> None:
    assert largest(one, two, reserved, available, most) == clips


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip takes 1 GB, with checkpointing 0.1 GB, beside 2 GB."""
    tried: list[Any] = []
    original = memory.Trainer.accumulate

    def accumulate(self: Any, batch: Any, epoch: int) -> Any:
        tried.append((len(batch.keys), self.checkpointing))
        return original(self, batch, epoch)

    def peak(_: str) -> int:
        clips, checkpointing = tried[-1]
        return int(2e9 + clips * (1e8 if checkpointing else 1e9))

    monkeypatch.setattr(memory.Trainer, "accumulate", accumulate)
    monkeypatch.setattr(memory, "peak", peak)


@pytest.mark.usefixtures("peaks")
@pytest.mark.parametrize(
    ("available", "checkpointing", "expected"),
    [
        (100e9, "auto", (4, False)),
        (4.5e9, "auto", (2, False)),
        (3.5e9, "auto", (4, True)),  # one without, so that checkpointing goes on first
        (3.5e9, "off", (1, False)),
        (2.15e9, "on", (1, True)),
    ],
)
def test_clips_at_a_time(available: float, checkpointing: Any, expected: tuple[int, bool]) -> None:
    trainer = trainer_of(micro_batch=6, checkpointing=checkpointing)
    before = copy.deepcopy(trainer.trainee.model.state_dict())
    measured = fit(trainer, BATCH, available=int(available))
    assert (trainer.micro_batch, trainer.checkpointing) == expected
    assert measured.memory is not None
    assert measured.memory <= available
    assert all(torch.equal(before[name], value) for name, value in trainer.trainee.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.trainee.model.parameters())
    assert trainer.optimiser.state == {}


@pytest.mark.usefixtures("peaks")
def test_not_even_one_clip() -> None:
    with pytest.raises(
        DeviceError, match=r"takes 2\.1 GB with one clip at a time, and 1\.0 GB are free; try `method=last`"
    ):
        fit(trainer_of(), BATCH, available=10**9)


def test_a_batch_of_one() -> None:
    trainer = trainer_of(micro_batch=8)
    fit(trainer, batch_of(1, [0]))
    assert trainer.micro_batch == 8


def test_free_memory() -> None:
    free = free_memory()
    assert free is None or 10**7 < free < 2**50
