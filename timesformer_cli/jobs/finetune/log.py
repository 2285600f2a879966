"""The log of a training run, read whole: for `log.csv`, and for the curves of the report.

A run of days has millions of lines, so only numbers are kept of them, and one line at a time is read or written.
"""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli import strict_json
from timesformer_cli.errors import OutputError
from timesformer_cli.files import replacing, told
from timesformer_cli.jobs.finetune.folder import LOG, LOG_TABLE
from timesformer_cli.jobs.finetune.loop import Validation
from timesformer_cli.results.writers import write_csv
from timesformer_cli.shapes import count, flag, number, or_none, record

# The columns of a step, with the types of `array`. The memory of a machine is exact in a float.
_COLUMNS = {
    "step": "q",
    "epoch": "q",
    "loss": "d",
    "rate": "d",
    "gradient": "d",
    "seconds": "d",
    "memory": "d",
    "applied": "b",
}

_STEP = record(
    step=count,
    epoch=count,
    loss=or_none(number),
    rate=number,
    gradient=or_none(number),
    seconds=number,
    memory=or_none(count),
    applied=flag,
)
_VALIDATION = record(step=count, epoch=count, validation=record(or_none(number), score=number), seconds=number)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Log:
    """What `trainer.Step` says of each of N steps, and the validations between them, in order.

    All are (N,). NaN stands for a number that is not finite, or not known. `memory` is in bytes; `applied` is 0 or 1.
    """

    step: NDArray[np.int64]
    epoch: NDArray[np.int64]
    loss: NDArray[np.float64]
    rate: NDArray[np.float64]
    gradient: NDArray[np.float64]
    seconds: NDArray[np.float64]
    memory: NDArray[np.float64]
    applied: NDArray[np.int8]
    validations: tuple[Validation, ...]


def read_log(run: Path) -> Log | None:
    """The log in the folder of a run; None if there is none, or no step in it.

    Raises:
        OutputError: it cannot be read, or is not as it was written.
    """
    path = run / LOG
    columns = {name: array(code) for name, code in _COLUMNS.items()}
    validations: list[Validation] = []
    if not path.exists():
        return None
    with told(path, "read"), path.open("rb") as file:
        for place, line in enumerate(file, 1):
            try:
                _add(strict_json.loads(line), columns, validations)
            except ValueError as error:
                raise OutputError(
                    f"{path}: line {place:,} is not of this run ({error}); correct it and `resume`, or start again "
                    "with `overwrite`"
                ) from error
    if not columns["step"]:
        return None
    arrays: dict[str, Any] = {name: np.asarray(column) for name, column in columns.items()}
    return Log(**arrays, validations=tuple(validations))


def _add(line: Any, columns: dict[str, "array[Any]"], validations: list[Validation]) -> None:
    """Raises ValueError for anything that the loop does not write, or not at this place."""
    steps = columns["step"]
    last = steps[-1] if steps else 0
    if isinstance(line, dict) and "validation" in line:
        _VALIDATION(line)
        if line["step"] != last or (validations and validations[-1].step == last):
            raise ValueError(f"a validation of step {line['step']} after step {last}")
        figures = dict(line["validation"])
        score = figures.pop("score")
        validations.append(
            Validation(epoch=line["epoch"], step=last, score=score, seconds=line["seconds"], figures=figures)
        )
        return
    _STEP(line)
    if line["step"] != last + 1:
        raise ValueError(f"step {line['step']} after step {last}")
    for name, column in columns.items():
        value = line[name]
        column.append(math.nan if value is None else value)


def write_table(run: Path, log: Log) -> None:
    """Write `log.csv`: a row for each step, with what a validation after it found. Raises OutputError."""
    figures = list(dict.fromkeys(name for each in log.validations for name in each.figures))
    with replacing(run / LOG_TABLE) as part, part.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, [(*_COLUMNS, "validation_score", *(f"validation_{name}" for name in figures))])
        write_csv(file, _rows(log, figures))


def _rows(log: Log, figures: list[str]) -> Iterator[list[object]]:
    validations = {each.step: each for each in log.validations}
    # A view gives one number at a time, as one of Python.
    for values in zip(*(memoryview(getattr(log, name)) for name in _COLUMNS), strict=True):
        *others, memory, applied = (None if math.isnan(value) else value for value in values)
        row: list[object] = [*others, None if memory is None else int(memory), applied]
        found = validations.get(values[0])
        row += [None] * (1 + len(figures)) if found is None else [found.score, *map(found.figures.get, figures)]
        yield row
