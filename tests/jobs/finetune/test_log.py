"""The log of a run, as it is read whole, and as a table."""

import csv
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timesformer_cli.errors import OutputError
from timesformer_cli.jobs.finetune.log import Log, read_log, write_table
from timesformer_cli.jobs.finetune.loop import Validation
from timesformer_cli.jobs.finetune.trainer import Step

MEMORY = 3_411_222_333


def step(number: int, loss: float = 1.5, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"rate": 6e-5, "gradient": 0.25, "seconds": 1.25, "memory": MEMORY, **changes}
    return Step(epoch=1 + (number - 1) // 2, step=number, loss=loss, **values).to_dict()


def validation(number: int, score: float, **figures: float | None) -> dict[str, Any]:
    return Validation(epoch=number // 2, step=number, score=score, seconds=2.0, figures=figures).to_dict()


def log_of(run: Path, lines: Sequence[Any]) -> Log | None:
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_log(run)


def table_of(run: Path, lines: Sequence[Any]) -> list[dict[str, str]]:
    log = log_of(run, lines)
    assert log is not None
    write_table(run, log)
    with (run / "log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_step(tmp_path: Path) -> None:
    lines = [
        step(1, 0.1 + 0.2),
        step(2, float("nan"), gradient=float("inf"), memory=None, suspects=("a.mp4",)),
        validation(2, 3.5, loss=1.25, accuracy=None),
        step(3),
    ]
    first, second, third = table_of(tmp_path, lines)
    assert first == {
        "step": "1",
        "epoch": "1",
        "loss": "0.30000000000000004",
        "rate": "6e-05",
        "gradient": "0.25",
        "seconds": "1.25",
        "memory": str(MEMORY),
        "applied": "1",
        "validation_score": "",
        "validation_loss": "",
        "validation_accuracy": "",
    }
    assert [second[name] for name in ("loss", "gradient", "memory", "applied")] == ["", "", "", "0"]
    assert [second[f"validation_{name}"] for name in ("score", "loss", "accuracy")] == ["3.5", "1.25", ""]
    assert (third["epoch"], third["validation_score"]) == ("2", "")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    log = log_of(tmp_path, [step(1, 2.5), step(2, float("nan")), validation(2, 3.5, loss=1.25)])
    assert log is not None
    assert log.step.tolist() == [1, 2]
    np.testing.assert_equal(log.loss, [2.5, np.nan])
    assert log.validations == (Validation(epoch=1, step=2, score=3.5, seconds=2.0, figures={"loss": 1.25}),)


def test_without_a_step_there_is_no_log(tmp_path: Path) -> None:
    assert read_log(tmp_path) is None
    assert log_of(tmp_path, []) is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([step(1), step(3)], "line 2 is not of this run (step 3 after step 1)"),
        ([step(1), step(1)], "line 2 is not of this run (step 1 after step 1)"),
        ([step(1), validation(2, 1)], "line 2 is not of this run (a validation of step 2 after step 1)"),
        ([step(1), validation(1, 1), validation(1, 1)], "a validation of step 1 after step 1"),
        ([step(1) | {"loss": "low"}], "line 1 is not of this run ('low' instead of a finite number)"),
        ([{"step": 1}], "line 1 is not of this run (no applied and no epoch"),
        ([[1]], "line 1 is not of this run ([1] instead of an object)"),
        ([step(1), validation(1, 1) | {"validation": None}], "line 2 is not of this run (None instead of an object)"),
    ],
)
def test_a_damaged_log_is_named(tmp_path: Path, lines: list[Any], said: str) -> None:
    with pytest.raises(OutputError) as caught:
        log_of(tmp_path, lines)
    assert f"{tmp_path / 'log.jsonl'}: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "ep')
    with pytest.raises(OutputError, match=r"log\.jsonl: line 1 is not of this run"):
        read_log(tmp_path)


def test_a_long_log_is_not_held_as_lines(tmp_path: Path) -> None:
    steps = 5_000
    with (tmp_path / "log.jsonl").open("w") as file:
        file.writelines(json.dumps(step(number)) + "\n" for number in range(1, steps + 1))
    tracemalloc.start()
    try:
        log = read_log(tmp_path)
        assert log is not None
        write_table(tmp_path, log)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # About half of it is used; the lines as Python's objects would take several times their length.
    assert peak < (tmp_path / "log.jsonl").stat().st_size
