"""When a run validates and when it ends, as tables."""

from dataclasses import replace

import pytest

from timesformer_cli.jobs.finetune.progress import Budget, Progress, is_kept

START = Progress(best=0.5, micro_batch=1)


@pytest.mark.parametrize(
    ("scores", "best", "best_step", "waited"),
    [
        ([], 0.5, 0, 0),
        ([0.4, 0.5], 0.5, 0, 2),  # an equal score changes nothing
        ([0.6, 0.6, 0.55], 0.6, 10, 2),
        ([0.4, 0.7, 0.6, 0.8], 0.8, 40, 0),
        ([-3.0, 0.51], 0.51, 20, 0),
    ],
)
def test_the_best_is_remembered(scores: list[float], best: float, best_step: int, waited: int) -> None:
    progress = START
    for number, score in enumerate(scores, 1):
        progress = replace(progress, step=10 * number).scored(score)
        assert progress.validated == progress.step
    assert (progress.best, progress.best_step, progress.waited) == (best, best_step, waited)


@pytest.mark.parametrize(
    ("step", "validated", "seconds", "due"),
    [
        (0, 0, 0.0, False),
        (1, 0, 0.0, False),
        (4, 0, 0.0, True),
        (4, 4, 0.0, False),
        (5, 4, 9.9, False),
        (5, 4, 10.0, True),  # time is over: what there is now is validated
        (5, 5, 10.0, False),
        (8, 4, 10.0, True),
    ],
)
def test_when_to_validate(step: int, validated: int, seconds: float, due: bool) -> None:
    progress = replace(START, step=step, validated=validated, seconds=seconds)
    assert Budget(epochs=3, steps=4, max_seconds=10).must_validate(progress) == due
    if seconds == 10.0 and step == 5:
        assert not Budget(epochs=3, steps=4).must_validate(progress)


@pytest.mark.parametrize(
    ("step", "waited", "seconds", "reason"),
    [
        (0, 0, 0.0, None),
        (11, 0, 0.0, None),
        (12, 0, 0.0, "epochs"),
        (12, 2, 99.0, "epochs"),
        (8, 1, 0.0, None),
        (8, 2, 0.0, "patience"),
        (8, 3, 99.0, "patience"),
        (5, 0, 60.0, "max_time"),
        (5, 1, 59.9, None),
    ],
)
def test_when_a_run_ends(step: int, waited: int, seconds: float, reason: str | None) -> None:
    budget = Budget(epochs=3, steps=4, patience=2, max_seconds=60.0)
    assert budget.all_steps == 12
    progress = replace(START, step=step, waited=waited, seconds=seconds)
    assert budget.ended(progress) == reason
    assert Budget(epochs=3, steps=4).ended(progress) == ("epochs" if step == 12 else None)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ({"step": 5, "loss": 1.0}, True),
        ({"step": 6, "loss": 1.0}, True),
        ({"step": 7, "loss": 1.0}, False),
        ({"step": 3, "validation": {}}, True),
        ({"step": 6, "validation": {}}, False),  # it was done after the checkpoint
    ],
)
def test_what_the_log_keeps(line: dict[str, object], kept: bool) -> None:
    assert is_kept(line, replace(START, step=6, validated=3)) == kept
