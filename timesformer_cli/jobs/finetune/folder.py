"""The folder of a training run: opened for one run at a time, and never for different settings than it was begun with.

`settings.json` is written first, and `metrics.json` last: a folder with it is complete.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timesformer_cli import strict_json
from timesformer_cli.errors import OutputError
from timesformer_cli.files import encoded, locked, replacing, told
from timesformer_cli.results.settings import differences
from timesformer_cli.results.writers import csv_text

SETTINGS = "settings.json"
METRICS = "metrics.json"
REPORT = "report.html"
DATA = "data.csv"
PROBLEMS = "problems.csv"
LOG = "log.jsonl"
LOG_TABLE = "log.csv"
CHECKPOINTS = "checkpoints"
FEATURES = "features"
MODEL = "model"
VAL = "val"

# What is made anew by each run, the last first.
_RESULTS = (METRICS, REPORT, DATA, PROBLEMS, LOG_TABLE)
_OURS = (SETTINGS, *_RESULTS, LOG, CHECKPOINTS, FEATURES, MODEL, VAL)


@contextmanager
def opened(folder: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Iterator[None]:
    """The folder, locked against other runs, with the settings of this one and without its earlier results.

    Raises:
        OutputError: it cannot be written, or holds other files or a different run.
    """
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(os.listdir(folder))
    others = [name for name in there if name.removesuffix(".lock") not in _OURS and not name.endswith(".part")]
    if others:
        raise OutputError(f"{folder}: holds other files, such as {others[0]!r}; name an empty or new folder")
    if SETTINGS in there and not (resume or overwrite):
        raise OutputError(f"{folder}: already holds a run; choose another name, `resume` or `overwrite`")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: cannot be written (permission denied)")
    wanted = json.loads(json.dumps(settings))
    with locked(folder / SETTINGS):
        resumed = resume and SETTINGS in there
        if resumed:
            _check(folder, wanted)
        with told(folder):
            for name in _RESULTS:
                (folder / name).unlink(missing_ok=True)
            if not resumed:
                # A run that is stopped before it trains must not go on from these.
                if CHECKPOINTS in there:
                    shutil.rmtree(folder / CHECKPOINTS)
                (folder / LOG).unlink(missing_ok=True)
        write_json(folder / SETTINGS, wanted)
        yield


def _check(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Raises OutputError if the run was begun with different settings."""
    path = folder / SETTINGS
    try:
        made = strict_json.read(path)
        if not isinstance(made, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: is damaged, so the run cannot be resumed ({error}); start again with `overwrite`"
        ) from error
    differing = list(differences(made, wanted))
    if differing:
        raise OutputError(
            f"{folder}: was made with different settings: {', '.join(differing)}; resume with the same ones, choose "
            "another folder, or start again with `overwrite`"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Raises OutputError."""
    with replacing(path) as part:
        part.write_bytes(encoded(json.dumps(content, indent=2, ensure_ascii=False) + "\n"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Raises OutputError."""
    with replacing(path) as part:
        part.write_bytes(encoded(csv_text([columns, *rows])))


def require_space(folder: Path, needed: int) -> None:
    """Raises OutputError, with the missing megabytes, if the disk has no room for `needed` bytes."""
    with told(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        missing = -(-(needed - free) // 1_000_000)
        raise OutputError(f"{folder}: the disk lacks {missing:,} MB for the model; make room, and `resume`")
