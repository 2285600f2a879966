"""The speed of this machine: each stage of a run by itself, all together, and in alternation with another library.

A stage yields a `Measurement` of each thing that it times, as soon as it is done. Times are wall clock. The first
round, which fills caches and chooses kernels, does not count; medians summarise the others.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.bundled import CLIP
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.benchmark.figures import Duel, Measurement
from timesformer_cli.jobs.benchmark.network import measure_network
from timesformer_cli.jobs.benchmark.peer import check_transformers, face_transformers
from timesformer_cli.jobs.benchmark.report import Report, compare, describe
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.jobs.benchmark.startup import measure_load, measure_start
from timesformer_cli.jobs.benchmark.videos import expected_flow, measure_reading, measure_whole
from timesformer_cli.network.cost import measure_cost
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import Tell
from timesformer_cli.runtimes import require_network
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.text import plural

__all__ = ["CLIP", "Duel", "Measurement", "Report", "Settings", "check_transformers", "compare", "measure"]


def measure(
    items: Sequence[Item],
    checkpoint: Checkpoint,
    settings: Settings,
    *,
    against: bool = False,
    tell: Tell = lambda _: None,
    found: Callable[[Measurement | Duel], None] = lambda _: None,
) -> Report:
    """Measure all stages; `found` gets each result as it comes.

    Raises:
        TimesformerError: a video, model or device cannot be used.
    """
    measurements: list[Measurement] = []
    duels: list[Duel] = []

    def keep(stage: Iterable[Measurement]) -> None:
        for measurement in stage:
            measurements.append(measurement)
            found(measurement)

    if against:
        require_network(checkpoint)
    try:
        cost = measure_cost(checkpoint.config)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
    about = describe(checkpoint, items, settings, cost)
    if (about["load_average"] or 0) > available_cores() / 2:
        tell(
            f"other programs are running (load {about['load_average']:.1f}, {plural(available_cores(), 'core')}): "
            "the machine is faster than these measurements"
        )
    if against:
        about["versions"]["transformers"] = version("transformers")
    keep(measure_start(settings))
    keep(measure_reading(items, checkpoint, settings))
    view = first_view(items, checkpoint, settings.run.reading)
    keep(measure_load(checkpoint, view, settings))
    keep(measure_network(checkpoint, view, cost, settings, tell))
    keep([measure_whole(items, checkpoint, settings, expected_flow(measurements, settings), tell)])
    if against:
        for duel in face_transformers(items, checkpoint, view, settings, tell):
            duels.append(duel)
            found(duel)
    return Report(about, tuple(measurements), tuple(duels))


def first_view(items: Sequence[Item], checkpoint: Checkpoint, reading: Reading) -> NDArray[np.float32]:
    """The view that the network is timed with, float32 (1, T, C, H, W)."""
    return prepare(items[0], with_overrides(checkpoint, fields={"clips": 1}).recipe, reading).pixels[:1].copy()
