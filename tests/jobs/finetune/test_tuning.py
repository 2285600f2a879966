"""The settings of the training of the network."""

import subprocess
import sys
from typing import Any

import pytest

from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.finetune.progress import Budget, Progress, Size, epochs_for
from timesformer_cli.jobs.finetune.tuning import Tuning


def validated(budget: Budget) -> list[int]:
    """The steps after which a run validates."""
    progress, found = Progress(micro_batch=1), []
    for step in range(1, budget.all_steps + 1):
        progress = Progress(micro_batch=1, step=step, validated=progress.validated)
        if budget.must_validate(progress):
            progress = progress.scored(0.0)
            found.append(step)
    return found


def test_an_explicit_number_of_epochs_is_obeyed() -> None:
    budget = Tuning(method="full", epochs=3).budget(2)
    assert budget == Budget(epochs=3, steps=2)
    assert validated(budget) == [2, 4, 6]
    assert Tuning(method="full", epochs=3, patience=1).budget(2).patience == 1


def test_by_default_there_are_200_updates_and_patience() -> None:
    assert Tuning(method="full").budget(100) == Budget(epochs=15, steps=100, patience=5)
    # Of 200 epochs of a single step, few are validated: patience is to outlast the warm-up of 20 steps.
    budget = Tuning(method="full", max_seconds=60).budget(1)
    assert budget == Budget(epochs=200, steps=1, patience=5, max_seconds=60, every=14)
    assert validated(budget) == [*range(14, 200, 14), 200]


@pytest.mark.parametrize(
    ("given", "kind", "flip", "from_tokens"),
    [
        ({"method": "full"}, "light", "auto", False),
        ({"method": "full", "augment": "none"}, "none", "off", False),
        ({"method": "last"}, "none", "off", True),
        ({"method": "last", "augment": "light"}, "light", "auto", False),
        ({"method": "last", "flip": "swap"}, "none", "swap", False),
        ({"method": "last", "flip": "off"}, "none", "off", True),
    ],
)
def test_augmentation_by_method(given: dict[str, Any], kind: str, flip: str, from_tokens: bool) -> None:
    tuning = Tuning(**given)
    assert (tuning.kind, tuning.asked_flip, tuning.from_tokens) == (kind, flip, from_tokens)


def test_what_makes_two_runs_the_same_run() -> None:
    one, other = (Tuning(method="full", max_seconds=limit, checkpointing="on").settings() for limit in (1, None))
    assert one == other
    assert one != Tuning(method="full", drop_path=0.2).settings()
    assert Tuning().settings() == {"method": "probe"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lr": 0.1}, "`lr`: `method=probe` has no use for it; try `method=full`"),
        ({"method": "lora", "layers": 2}, "`layers`: `method=lora` has no use for it; try `method=last`"),
        ({"method": "last", "layers": 13}, "`layers=13`: the network has only 12"),
    ],
)
def test_settings_of_another_method(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        Tuning(**given).check(12)
    assert said in str(error.value)
    Tuning(method="last").check(2)


def test_what_training_takes_in_a_line() -> None:
    size = Size(parameters=5, epochs=2, steps=6, seconds=61, memory=2_400_000_000, micro_batch=1, checkpointing=True)
    assert str(size) == (
        "training: 5 parameters, 2 epochs of 3 steps, about 1:01 without validation, 2.4 GB; 1 video at a time, with "
        "gradient checkpointing"
    )


@pytest.mark.parametrize(
    ("wanted", "steps", "epochs"),
    [(None, 100, 15), (None, 14, 15), (None, 13, 16), (None, 3, 67), (None, 200, 15), (2, 3, 2), (40, 3, 40)],
)
def test_epochs(wanted: int | None, steps: int, epochs: int) -> None:
    assert epochs_for(wanted, steps) == epochs


def test_the_job_is_there_before_torch() -> None:
    """Importing torch takes seconds, and what is wrong with the data is to be told at once."""
    code = "import sys, timesformer_cli.jobs.finetune; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
