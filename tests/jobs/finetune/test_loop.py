"""The loop: steps that cannot be applied, time that is over, and batches that are missing."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from testing.training import batches, trainer_of
from timesformer_cli.errors import TrainingError
from timesformer_cli.jobs.finetune import loop
from timesformer_cli.jobs.finetune.loop import Loop
from timesformer_cli.jobs.finetune.progress import Budget, Progress
from timesformer_cli.jobs.finetune.trainer import Batch


class Keeper:
    """Remembers what it was to keep."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.kept: list[Progress] = []

    def write(self, line: Mapping[str, Any]) -> None:
        self.lines.append(line)

    def keep(self, progress: Progress) -> None:
        self.kept.append(progress)


class Clock:
    """Every question takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def loop_of(keeper: Keeper, budget: Budget, **settings: Any) -> Loop:
    trainer = trainer_of(steps=budget.all_steps)
    settings = {"batches": batches, "validate": lambda: (1.0, {}), "keeper": keeper, "clock": Clock()} | settings
    return Loop(trainer, budget, Progress(best=0.0, micro_batch=3), **settings)


def with_faults(*steps: int) -> Any:
    """Batches of which some have a pixel that is no number."""

    def made(epoch: int, skip: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches(epoch, skip), 3 * (epoch - 1) + skip + 1):
            if number in steps:
                batch.pixels[0] = math.nan
            yield batch

    return made


def test_single_faults_are_passed_over() -> None:
    keeper = Keeper()
    made = loop_of(keeper, Budget(epochs=3, steps=3), batches=with_faults(1, 2, 4, 5, 8))
    assert made.run() == "epochs"
    assert [line["applied"] for line in keeper.lines if "loss" in line] == [
        n not in (1, 2, 4, 5, 8) for n in range(1, 10)
    ]
    assert [progress.skipped for progress in keeper.kept] == [0, 0, 0]


def test_three_in_a_row_end_the_run() -> None:
    keeper = Keeper()
    made = loop_of(keeper, Budget(epochs=3, steps=3), batches=with_faults(5, 6, 7))
    said = r"step 7: .* not finite in 3 steps in a row, .* \d\.mp4; .* rate of 0\.0001,"
    with pytest.raises(TrainingError, match=said):
        made.run()
    # The last checkpoint is of before the third one.
    assert [(progress.step, progress.skipped) for progress in keeper.kept] == [(3, 0), (6, 2)]
    assert keeper.lines[-1]["step"] == 7


def test_time_is_over() -> None:
    keeper = Keeper()
    made = loop_of(keeper, Budget(epochs=3, steps=3, max_seconds=12.0))
    assert made.run() == "max_time"
    steps = [line["step"] for line in keeper.lines]
    assert 3 < steps[-1] < 9
    assert "validation" in keeper.lines[-1]
    assert keeper.kept[-1].validated == keeper.kept[-1].step == steps[-1]
    assert keeper.lines[-1]["epoch"] == 2


def test_checkpoints_between_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    monkeypatch.setattr(loop, "_KEEP_EVERY", 3.0)
    loop_of(keeper, Budget(epochs=1, steps=3)).run()
    assert [(progress.step, progress.validated) for progress in keeper.kept] == [(2, 0), (3, 3)]


def test_too_few_batches_are_an_error() -> None:
    with pytest.raises(ValueError, match="epoch 1 has 3 of 4 steps"):
        loop_of(Keeper(), Budget(epochs=3, steps=4)).run()


def test_patience() -> None:
    keeper = Keeper()
    made = loop_of(keeper, Budget(epochs=3, steps=3, patience=1), validate=lambda: (-1.0, {"top1": 0.5}))
    assert made.run() == "patience"
    assert keeper.lines[-1]["validation"] == {"score": -1.0, "top1": 0.5}
