"""What the model saw of a few videos of a finished run, read again from where they are."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from timesformer_cli.flow import Item, Part, Views
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.results.settings import Provenance
from timesformer_cli.specs import Reading, Recipe
from timesformer_cli.video.addresses import local_path

_WORKERS = 2  # where it is not said
_READING = ("decoder", "max_pixels", "max_frames")


def read_pictures(
    provenance: Provenance, videos: Sequence[tuple[str, Part]], conditions: Mapping[str, Any]
) -> dict[str, bytes]:
    """Strips of frames as WebP, by the keys of the videos: one that is gone, or cannot be read any more, has none.

    `provenance` is that of the run. `videos` are paths and parts. `conditions` is what `metrics.json` has as "run", or
    less: how videos are read. Nothing is fetched from addresses.
    """
    if provenance.fused:
        provenance = provenance.fused[0].provenance  # what the first model saw stands for all
    frames = bool((provenance.data_set or {}).get("frames"))
    items = [
        Item(path, frames, start=start, end=end) for path, (start, end) in videos if os.path.exists(local_path(path))
    ]
    if not isinstance(provenance.recipe, Recipe) or not items:
        return {}
    reading = Reading(
        frame_rate=Reading().frame_rate if provenance.frame_rate is None else provenance.frame_rate,
        **{name: conditions[name] for name in _READING if name in conditions},
    )
    limits = Limits(timeout=conditions["timeout"]) if "timeout" in conditions else Limits()
    workers = conditions.get("workers", _WORKERS)
    with prepare_all(items, provenance.recipe, reading, workers=workers, limits=limits, thumbnails="input") as prepared:
        strips = ((views.item.key, views.thumbnail) for views in prepared if isinstance(views, Views))
        return {key: strip for key, strip in strips if strip is not None}
