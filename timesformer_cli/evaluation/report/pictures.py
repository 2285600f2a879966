"""What the model saw of a few videos of a finished run, read again from where they are."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from timesformer_cli.flow import Item, Views
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.results.settings import Settings
from timesformer_cli.specs import Checkpoint, PreprocessSpec, Reading, Recipe, SamplingSpec, TimesformerConfig
from timesformer_cli.video.addresses import local_path

_WORKERS = 2  # where it is not said
_READING = ("decoder", "max_pixels", "max_frames")


def read_pictures(settings: Settings, paths: Sequence[str], conditions: Mapping[str, Any]) -> dict[str, bytes]:
    """Strips of frames as WebP, by the paths of the videos: one that is gone, or cannot be read any more, has none.

    `settings` are those of the run. `conditions` is what `metrics.json` has as "run", or less: how videos are read.
    Nothing is fetched from addresses.
    """
    if "fused" in settings:
        settings = settings["fused"][0]["settings"]  # what the first model saw stands for all
    checkpoint = _stand_in(settings)
    frames = bool(settings["data_set"].get("frames"))
    items = [Item(path, frames) for path in paths if os.path.exists(local_path(path))]
    if checkpoint is None or not items:
        return {}
    reading = Reading(
        frame_rate=settings.get("frame_rate", Reading().frame_rate),
        **{name: conditions[name] for name in _READING if name in conditions},
    )
    limits = Limits(timeout=conditions["timeout"]) if "timeout" in conditions else Limits()
    workers = conditions.get("workers", _WORKERS)
    with prepare_all(items, checkpoint, reading, workers=workers, limits=limits, thumbnails=True) as prepared:
        strips = ((views.item.path, views.thumbnail) for views in prepared if isinstance(views, Views))
        return {path: strip for path, strip in strips if strip is not None}


def _stand_in(settings: Settings) -> Checkpoint | None:
    """A model that wants to be fed as the one of the run; None if that is not known, as of scores of other tools."""
    stated = settings["recipe"]
    try:
        sampling, preprocess = SamplingSpec(**stated["sampling"]), PreprocessSpec(**stated["preprocess"])
        config = TimesformerConfig(image_size=preprocess.size, patch_size=1, num_channels=len(preprocess.mean))
    except (KeyError, TypeError, ValueError):
        return None
    recipe = Recipe(name=stated["name"], sampling=sampling, preprocess=preprocess)
    return Checkpoint(
        name=settings["model"],
        config=config,
        recipe=recipe,
        labels=tuple(config.id2label.values()),
        weights=None,
        source=settings["model"],
    )
