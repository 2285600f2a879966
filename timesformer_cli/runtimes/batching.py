"""How many views go through the network at a time: a given number, or the best one found."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import DeviceError
from timesformer_cli.flow import Pixels
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.ports import Engine, Scorer

# With this size, two cores gain most of the possible speed; see benchmarks/README.md.
_CPU_SIZE = 4

# A GPU's best size depends on its kind and on the network, so sizes from the first to the largest are tried.
_CUDA_FIRST, _CUDA_MOST = 4, 256

# Twice as many views are worth their memory if they speed up scoring by this factor.
_GAIN = 1.1


class BatchSize:
    """At most `size` views at a time; half as many whenever they do not fit into memory.

    With `most`, sizes double up to that as long as the network gets faster, measured on the run's own
    views. `tell` gets one sentence if a size has proved too large. `spans`: whether a batch may hold views
    of several videos, which changes the last digits of their scores.
    """

    def __init__(
        self,
        size: int,
        *,
        most: int = 0,
        spans: bool = True,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.size = size
        self.spans = spans
        self._most = most
        self._tell = tell
        self._clock = clock
        self._refused: int | None = None  # the smallest size that did not fit
        self._told = False
        self._trials = 0
        self._speed = 0.0  # views per second at half the size

    def score(self, scorer: Scorer, views: Pixels) -> NDArray[np.float32]:
        """Logits float32 (N, K) of views (N, T, C, H, W), in as many calls as needed.

        Raises:
            DeviceError: not even one view fits into memory.
        """
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(views):
            piece = views[start : start + self.size]
            begin = self._clock()
            try:
                parts.append(scorer(piece))
            except MemoryError as error:
                self._shrink(len(piece), error)
                continue
            self._learn(len(piece), self._clock() - begin)
            start += len(piece)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _shrink(self, count: int, error: MemoryError) -> None:
        if count == 1:
            raise DeviceError(
                "a single view does not fit into the memory of the device; try a smaller model, or `device=cpu`"
            ) from error
        self.size, self._most, self._refused = count // 2, 0, count

    def _learn(self, count: int, seconds: float) -> None:
        if self._refused and not self._told:
            self._tell(f"{self._refused} views at a time do not fit into memory; going on with {self.size}")
            self._told = True
        if self.size >= self._most or count < self.size:
            return
        self._trials += 1
        if self._trials == 1:  # the first of a size selects kernels and allocates memory
            return
        speed = count / max(seconds, 1e-9)
        if speed >= self._speed * _GAIN:
            self.size, self._speed, self._trials = min(self.size * 2, self._most), speed, 0
        else:
            self.size, self._most = self.size // 2, 0


def choose_batch_size(
    asked: int | None, device: str, tell: Callable[[str], None], scorer: Scorer | None = None
) -> BatchSize:
    """`asked`, or the best size for the device, one of `devices.DEVICES`. `tell` is as for `BatchSize`.

    `scorer` is needed only for exported models, which themselves know what they compute on.

    Raises:
        DeviceError: this machine lacks the device.
    """
    kind = scorer.kind if isinstance(scorer, Engine) else find_device(device).type
    # On the CPU larger batches gain nothing, and without them a resumed run gives exactly the same scores.
    spans = kind != "cpu"
    if asked is not None:
        return BatchSize(asked, spans=spans, tell=tell)
    if kind == "cuda":
        return BatchSize(_CUDA_FIRST, most=_CUDA_MOST, tell=tell)
    return BatchSize(_CPU_SIZE, spans=spans, tell=tell)
