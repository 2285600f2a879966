"""What a training run keeps: its log, and two checkpoints that a stop at any moment leaves whole.

`checkpoints/last` is what `resume` goes on from: weights, the state of the optimiser, and `progress.json`.
`checkpoints/best` has the weights of the best validation, and the `progress.json` of that moment.
"""

import json
import os
import shutil
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from timesformer_cli import strict_json
from timesformer_cli.checkpoints.weights import check_state_dict, read_state_dict, write_state_dict
from timesformer_cli.errors import CheckpointError, OutputError
from timesformer_cli.files import encoded, put_folder, staged, sync, told, without_links
from timesformer_cli.jobs.finetune.folder import CHECKPOINTS, LOG, require_space
from timesformer_cli.jobs.finetune.progress import Progress, is_kept
from timesformer_cli.results.appender import sync_names

WEIGHTS = "model.safetensors"
_OPTIMISER = "optimiser.pt"
_PROGRESS = "progress.json"

# Bytes of a checkpoint besides tensors, more or less.
_MARGIN = 1_000_000


class Store:
    """Keeps a run in its folder; a `loop.Keeper`. Close it at the end.

    With `resume`, `found` is where the run goes on: the network and the optimiser then have their state of that
    moment, and the log ends there. It is None if nothing was kept yet, or without `resume`, which begins anew.

    Raises:
        OutputError: the folder cannot be read or written, or what it holds does not fit the network.
    """

    def __init__(self, run: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, resume: bool) -> None:
        self._log = run / LOG
        self._last, self._best = run / CHECKPOINTS / "last", run / CHECKPOINTS / "best"
        self._model = model
        self._optimiser = optimiser
        self.found: Progress | None = None
        with told(run):
            if resume and self._last.is_dir():
                self.found = self._restore()
            else:
                shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
            self._last.parent.mkdir(exist_ok=True)
            self._file = FileIO(self._log, "a", opener=without_links)
            self._file.truncate(0 if self.found is None else self._end_of_log(self.found))

    @property
    def best(self) -> Path | None:
        """The weights of the best validation, None if none was better than the start."""
        path = self._best / WEIGHTS
        return path if path.is_file() else None

    def close(self) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log. Raises OutputError."""
        data = encoded(json.dumps(line) + "\n")
        with told(self._log):
            if self._file.write(data) < len(data):
                raise OSError("the disk is full")

    def keep(self, progress: Progress) -> None:
        """Replace the last checkpoint, and the best one if the last validation was the best.

        Raises:
            OutputError: it cannot be written; then the ones before are as they were.
        """
        require_space(self._last.parent, self._size())
        with told(self._last):
            sync(self._file.fileno(), self._log)  # the log of a checkpoint is never shorter than its steps
            with staged(self._last) as staging:
                write_state_dict(staging, self._model.state_dict())
                _save(self._optimiser.state_dict(), staging / _OPTIMISER)
                (staging / _PROGRESS).write_text(json.dumps(progress.to_dict(), indent=2) + "\n", encoding="utf-8")
                put_folder(staging, self._last)
            self._keep_best(progress)
            sync_names(self._last.parent)

    def _keep_best(self, progress: Progress) -> None:
        """Make the last checkpoint the best one too, if it is and was not yet."""
        if not 0 < progress.best_step == progress.step or self._best_step() == progress.best_step:
            return
        with staged(self._best) as staging:
            for name in (WEIGHTS, _PROGRESS):
                _link(self._last / name, staging / name)
            put_folder(staging, self._best)

    def _size(self) -> int:
        """Bytes of the last checkpoint."""
        moments = [tensor for state in self._optimiser.state.values() for tensor in state.values()]
        return sum(int(tensor.nbytes) for tensor in [*self._model.state_dict().values(), *moments]) + _MARGIN

    def _restore(self) -> Progress:
        """Give network and optimiser their state of the last checkpoint. Raises OutputError."""
        try:
            progress = _read_progress(self._last)
            state = read_state_dict(self._last / WEIGHTS)
            check_state_dict(state, self._model.state_dict(), str(self._last / WEIGHTS))
            self._model.load_state_dict(state)
            self._optimiser.load_state_dict(_read_optimiser(self._last / _OPTIMISER))
            self._check_optimiser()
            # A stop may have come between the two checkpoints, of which the last is written first.
            self._keep_best(progress)
            if progress.best_step and self._best_step() != progress.best_step:
                raise ValueError(f"{self._best} is not of step {progress.best_step}")
        except (OSError, CheckpointError, ValueError) as error:
            raise OutputError(
                f"{self._last}: cannot be resumed ({error}); start again with `overwrite`, or choose another folder"
            ) from error
        return progress

    def _check_optimiser(self) -> None:
        """Raises ValueError if its state does not fit its parameters."""
        for parameter, state in self._optimiser.state.items():
            for name, value in state.items():
                if not isinstance(value, torch.Tensor) or value.shape not in (parameter.shape, torch.Size([])):
                    raise ValueError(f"{name} in {_OPTIMISER} does not fit the network")

    def _best_step(self) -> int | None:
        return _read_progress(self._best).best_step if self._best.is_dir() else None

    def _end_of_log(self, progress: Progress) -> int:
        """The byte at which the log told of all that is in `progress`."""
        end = 0
        with self._log.open("rb") as file:
            for line in file:
                try:
                    content = strict_json.loads(line)
                    if not line.endswith(b"\n") or not is_kept(content, progress):
                        break
                except (ValueError, TypeError, KeyError):  # torn by a stop
                    break
                end += len(line)
        return end


def _read_progress(folder: Path) -> Progress:
    """Raises OSError or ValueError."""
    try:
        return Progress.from_dict(strict_json.read(folder / _PROGRESS))
    except ValueError as error:
        raise ValueError(f"{_PROGRESS}: {error}") from error


def _read_optimiser(path: Path) -> dict[str, Any]:
    """Raises OSError or ValueError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path.name} is damaged, or holds more than tensors and numbers") from error
    if not isinstance(content, dict) or not content.keys() >= {"state", "param_groups"}:
        raise ValueError(f"{path.name} holds something else")
    return content


def _save(state: Mapping[str, Any], path: Path) -> None:
    """Raises OSError."""
    try:
        torch.save(state, path)
    except RuntimeError as error:  # for a full disk as well
        raise OSError(f"{path.name} cannot be written; is the disk full?") from error


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy if the disk has no hard links. Raises OSError."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
