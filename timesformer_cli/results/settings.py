"""What makes two runs the same run."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from timesformer_cli.__about__ import __version__
from timesformer_cli.results.record import Excerpt, Origin
from timesformer_cli.specs import Checkpoint

Settings = dict[str, Any]


def settings_of(checkpoint: Checkpoint, excerpt: Excerpt, *, frame_rate: float, precision: str) -> Settings:
    """What decides about the records, in the types that JSON gives back."""
    settings = {
        "version": __version__,
        "model": checkpoint.name,
        "source": checkpoint.source,
        "labels": checkpoint.labels,
        **asdict(excerpt),
        "frame_rate": frame_rate,
        "precision": precision,
        "recipe": asdict(checkpoint.recipe),
    }
    # ASCII, as it will be in the file: labels may hold anything.
    read: Settings = json.loads(json.dumps(settings))
    return read


def origin_in(settings: Settings) -> Origin:
    """What formats say of the model, from settings that `settings_of` made."""
    recipe = settings["recipe"]
    return Origin(settings["model"], tuple(settings["labels"]), recipe["name"], recipe["combine"] == "raw_logits")


def differences(made: Settings, wanted: Settings, prefix: str = "") -> Iterator[str]:
    """Each setting that differs, with both values."""
    for name in sorted(made.keys() | wanted.keys()):
        before, now = made.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from differences(before, now, f"{prefix}{name}.")
        elif name == "labels" and before != now:
            yield "labels"
        elif before != now:
            yield f"{prefix}{name} ({before}, now {now})"
