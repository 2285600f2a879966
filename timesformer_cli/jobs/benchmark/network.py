"""The network by itself: by precision and batch size, with the matrix product that bounds its speed."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.exported import read_metadata
from timesformer_cli.errors import DeviceError
from timesformer_cli.jobs.benchmark.figures import Measurement, Timing
from timesformer_cli.jobs.benchmark.rounds import peak, repeat, reset_peak
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.network.cost import Cost
from timesformer_cli.pipeline.run import Tell
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.devices import Precision, find_device
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.runtimes.pytorch import Dtype, torch_dtype
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import plural

# By kind of device, unless the settings say otherwise.
_MAX_VIEWS = {"cpu": 32, "mps": 32, "cuda": 256}
_MATRIX_SIZES = {"cpu": (1024, 2048, 4096), "mps": (2048, 4096), "cuda": (4096, 8192, 16384)}


def measure_network(
    checkpoint: Checkpoint, view: NDArray[np.float32], cost: Cost, settings: Settings, tell: Tell
) -> Iterator[Measurement]:
    """The network by precision and batch size, after the matrix product in that precision; `view` is (1, T, C, H, W).

    Raises:
        DeviceError: the device or precision is not available, or there is not enough memory for one view.
    """
    for precision in runtime_of(checkpoint).precisions(settings.run.precision, settings.run.device):
        try:
            scorer = settings.open(checkpoint, precision, tell)
            scorer(view)  # the first pass is part of loading
        except MemoryError:
            raise DeviceError(
                "a single view does not fit into the memory of the device; try a smaller model, or `device=cpu`"
            ) from None
        except DeviceError as error:
            if settings.run.precision != "auto" or precision in ("auto", "fp32"):
                raise
            tell(f"{precision} is left out: {error}")
            continue
        product = _bound(checkpoint, precision, scorer, settings)
        if product is not None:
            yield product
        name = "as exported" if precision == "auto" else precision
        for count, timing, memory in _by_batch(scorer, view, settings):
            yield Measurement(
                stage="network",
                name=f"{name}, {plural(count, 'view')}",
                timing=timing,
                counts={"views": count},
                flops=cost.flops * count,
                product=None if product is None else product.flops_per_second,
                memory=memory,
            )
        del scorer  # before the next one is loaded


def _bound(checkpoint: Checkpoint, precision: Precision, scorer: Scorer, settings: Settings) -> Measurement | None:
    """The matrix product that bounds this network; None if its runtime has a GPU that torch cannot use."""
    stated: str = precision
    if checkpoint.weights is not None and precision == "auto":  # an exported model states its own
        stated = read_metadata(checkpoint.weights).get("precision", "")
    with suppress(DeviceError):
        known: dict[str, Dtype] = {"bf16": "bf16", "fp16": "fp16"}
        return measure_product(known.get(stated, "fp32"), settings.device_of(scorer), settings)
    return None


def measure_product(precision: Dtype, device: str, settings: Settings) -> Measurement:
    """The fastest product of two square matrices, as a bound for the speed of networks."""
    import torch

    target = find_device(device)
    dtype = torch_dtype(precision)
    sizes = settings.matrix_sizes or _MATRIX_SIZES[target.type]
    found: list[Measurement] = []
    for size in sizes:
        left, right = (torch.randn(size, size, device=target).to(dtype) for _ in range(2))

        def multiply(left: torch.Tensor = left, right: torch.Tensor = right) -> None:
            torch.mm(left, right)
            if target.type == "cuda":
                torch.cuda.synchronize(target)
            elif target.type == "mps":
                torch.mps.synchronize()

        timing = repeat(multiply, settings.seconds / len(sizes))
        name = f"{precision}, square matrices"
        found.append(Measurement(stage="matrix product", name=name, timing=timing, flops=2 * size**3))
        if 8 * timing.median > settings.seconds:  # the next size would take longer than all may
            break
    return max(found, key=lambda each: each.flops_per_second or 0)


def _by_batch(
    scorer: Scorer, view: NDArray[np.float32], settings: Settings
) -> Iterator[tuple[int, Timing, int | None]]:
    """Times of batch sizes that double, as long as they fit, are not too slow, and gain speed."""
    device = settings.device_of(scorer)
    most = settings.max_views or _MAX_VIEWS[device.partition(":")[0]]
    count, best, in_vain = 1, 0.0, 0
    while count <= most and in_vain < 2:
        views = np.repeat(view, count, axis=0)
        reset_peak(device)
        try:
            timing = repeat(lambda: scorer(views), settings.seconds)  # noqa: B023
        except MemoryError:
            return
        yield count, timing, peak(device)
        rate = count / timing.median
        in_vain = 0 if rate >= best * settings.min_gain else in_vain + 1
        best = max(best, rate)
        if 2 * timing.median > settings.longest:
            return
        count *= 2
