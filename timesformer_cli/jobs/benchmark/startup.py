"""From nothing: fresh processes that start, and that load a network."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.exported import is_exported
from timesformer_cli.errors import DeviceError, TimesformerError
from timesformer_cli.jobs.benchmark.figures import Measurement, Timing
from timesformer_cli.jobs.benchmark.rounds import peak, repeat, rounds
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.specs import Checkpoint

# Arguments of Python, by the names of the measurements.
_STARTS = {"import torch": ("-c", "import torch"), "timesformer --help": ("-m", "timesformer_cli", "-h")}

# Seconds to load the network and to its first answer, and the peak of memory in bytes.
_Loaded = tuple[float, float, int | None]


def measure_start(seconds: float) -> Iterator[Measurement]:
    """Fresh processes that import torch and do nothing else, or show the help of the command."""
    for name, arguments in _STARTS.items():
        command = [sys.executable, *arguments]
        timing = repeat(lambda: subprocess.run(command, check=True, capture_output=True), seconds)  # noqa: B023
        yield Measurement(stage="start", name=name, timing=timing)


def measure_load(checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings) -> Iterator[Measurement]:
    """From the checkpoint to the first answer for a view (1, T, C, H, W), in fresh processes.

    Raises:
        DeviceError: such a process has died.
    """
    steps: list[tuple[float, float, float]] = []
    memory = None
    _load_afresh(checkpoint, view, settings)
    for _ in rounds(settings.seconds):
        begin = time.perf_counter()
        load, first, memory = _load_afresh(checkpoint, view, settings)
        steps.append((time.perf_counter() - begin, load, first))
    whole, load_times, first_times = (Timing(times) for times in zip(*steps, strict=True))
    yield Measurement(stage="load", name="network, from the checkpoint", timing=load_times)
    yield Measurement(stage="load", name="first answer of the network", timing=first_times)
    yield Measurement(stage="load", name="both, in a fresh process", timing=whole, memory=memory)


def _load_afresh(checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings) -> _Loaded:
    """`_load` in a process of its own; what that says on standard error is of no use, an interrupted import least."""
    command = [sys.executable, "-c", f"from {__name__} import serve_load; serve_load()"]
    done = subprocess.run(command, input=pickle.dumps((checkpoint, view, settings)), capture_output=True, check=False)
    if done.returncode:
        raise DeviceError(f"{checkpoint.name}: a process that loaded it died; is there memory for it twice?")
    result: _Loaded | TimesformerError = pickle.loads(done.stdout)
    if isinstance(result, TimesformerError):
        raise result
    return result


def serve_load() -> None:
    """The other side of `_load_afresh`."""
    output = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    result: _Loaded | TimesformerError
    try:
        result = _load(*pickle.load(sys.stdin.buffer))
    except TimesformerError as error:
        result = error
    with open(output, "wb") as file:
        pickle.dump(result, file)


def _load(checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings) -> _Loaded:
    """Timed from when all that must be imported is."""
    if not is_exported(checkpoint.weights):
        import torch  # noqa: F401
    begin = time.perf_counter()
    scorer = settings.open(checkpoint)
    loaded = time.perf_counter()
    scorer(view)
    return loaded - begin, time.perf_counter() - loaded, peak(settings.device_of(scorer))
