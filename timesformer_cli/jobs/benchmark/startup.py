"""Start-up: fresh processes that start, and that load a network."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import DeviceError, TimesformerError
from timesformer_cli.jobs.benchmark.figures import Measurement, Timing
from timesformer_cli.jobs.benchmark.rounds import peak, repeat, rounds
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.specs import Checkpoint

# Seconds to load the network, seconds of its first pass, and the peak of memory in bytes.
_Loaded = tuple[float, float, int | None]


def measure_start(settings: Settings) -> Iterator[Measurement]:
    """Fresh Python processes: by default one that only imports torch, and one that shows the help of the command."""
    for name, arguments in settings.starts:
        command = [sys.executable, *arguments]
        timing = repeat(lambda: subprocess.run(command, check=True, capture_output=True), settings.seconds)  # noqa: B023
        yield Measurement(stage="start", name=name, timing=timing)


def measure_load(checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings) -> Iterator[Measurement]:
    """From the checkpoint to the first scores of a view (1, T, C, H, W), in fresh processes.

    Raises:
        DeviceError: such a process died.
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
    """`_load` in a process of its own; its standard error, such as interrupted imports, is dropped."""
    command = [sys.executable, "-c", f"from {__name__} import serve_load; serve_load()"]
    done = subprocess.run(command, input=pickle.dumps((checkpoint, view, settings)), capture_output=True, check=False)
    if done.returncode:
        raise DeviceError(f"{checkpoint.name}: a process that loaded the model died; is there memory for two copies?")
    result: _Loaded | TimesformerError = pickle.loads(done.stdout)
    if isinstance(result, TimesformerError):
        raise result
    return result


def serve_load() -> None:
    """The process that `_load_afresh` starts."""
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
    """Load the network and score a view; imports are not timed."""
    runtime_of(checkpoint).load_library()
    begin = time.perf_counter()
    scorer = settings.open(checkpoint)
    loaded = time.perf_counter()
    scorer(view)
    return loaded - begin, time.perf_counter() - loaded, peak(settings.device_of(scorer))
