"""How fast this machine is: each stage of a run by itself, all of them together, and another library in turns with us.

A stage gives a `Measurement` of each thing that it times, when that is done. Times are wall clock. A first round, which
fills caches and chooses kernels, does not count; medians stand for the rest.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.bundled import CLIP
from timesformer_cli.checkpoints.exported import is_exported
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.errors import CheckpointError, UsageError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.benchmark.figures import Duel, Measurement
from timesformer_cli.jobs.benchmark.network import measure_network
from timesformer_cli.jobs.benchmark.peer import check_transformers, face_transformers
from timesformer_cli.jobs.benchmark.report import Report, compare, describe
from timesformer_cli.jobs.benchmark.settings import Settings, Tell
from timesformer_cli.jobs.benchmark.startup import measure_load, measure_start
from timesformer_cli.jobs.benchmark.videos import expected_flow, measure_reading, measure_whole
from timesformer_cli.network.cost import measure_cost
from timesformer_cli.pipeline.prepare import prepare
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
    """All stages; `found` gets each result as it comes.

    Raises:
        TimesformerError: a video, a model or a device that is not as it should be.
    """
    measurements: list[Measurement] = []
    duels: list[Duel] = []

    def keep(stage: Iterable[Measurement]) -> None:
        for measurement in stage:
            measurements.append(measurement)
            found(measurement)

    if against and is_exported(checkpoint.weights):
        raise UsageError(
            f"`against=transformers`: {checkpoint.weights} was exported; give the model that it was made from"
        )
    try:
        cost = measure_cost(checkpoint.config)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
    about = describe(checkpoint, items, settings, cost)
    if (about["load_average"] or 0) > available_cores() / 2:
        tell(
            f"other programs are at work (load {about['load_average']:.1f}, {plural(available_cores(), 'core')}): "
            "this machine is faster than what follows says"
        )
    if against:
        about["versions"]["transformers"] = version("transformers")
    keep(measure_start(settings.seconds))
    keep(measure_reading(items, checkpoint, settings))
    view = first_view(items, checkpoint, settings.reading)
    keep(measure_load(checkpoint, view, settings))
    keep(measure_network(checkpoint, view, cost, settings, tell))
    keep([measure_whole(items, checkpoint, settings, expected_flow(measurements, settings), tell)])
    if against:
        for duel in face_transformers(items, checkpoint, view, settings, tell):
            duels.append(duel)
            found(duel)
    return Report(about, tuple(measurements), tuple(duels))


def first_view(items: Sequence[Item], checkpoint: Checkpoint, reading: Reading) -> NDArray[np.float32]:
    """float32 (1, T, C, H, W): what the network is timed with."""
    return prepare(items[0], with_overrides(checkpoint, fields={"clips": 1}), reading).pixels[:1].copy()
