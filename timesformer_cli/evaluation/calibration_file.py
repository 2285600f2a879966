"""`calibration.json`, beside the weights of a calibrated model: how it was calibrated, and which answers to keep."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from timesformer_cli import strict_json
from timesformer_cli.checkpoints.folder import weight_checksums
from timesformer_cli.errors import UsageError
from timesformer_cli.evaluation.calibration import FEW_SOURCES, HIGHEST, LOWEST, Calibration
from timesformer_cli.evaluation.precision import THRESHOLDS, Curve, Kept
from timesformer_cli.files import encoded, replacing
from timesformer_cli.results.settings import differences
from timesformer_cli.shapes import anything, count, each, flag, number, record, string, table
from timesformer_cli.specs import Checkpoint, Recipe, Timeline

FILE = "calibration.json"

# The precisions for which metrics have the threshold.
_TOLD = (0.8, 0.9, 0.95, 0.99)

_SHAPE = record(
    anything,
    recipe=record(anything, sampling=anything, preprocess=anything),
    weights_sha256=table(string, string),
    whole_videos=flag,
    curve=record(score=each(number), right=each(count)),
)


def figures(found: Calibration, *, grouped_by: str) -> dict[str, Any]:
    """What `metrics.json` has of a calibration; `grouped_by` says how the sources were found."""
    several = len(found.temperatures) > 1
    return {
        "temperature": found.temperatures.tolist() if several else float(found.temperatures[0]),
        "temperature_interval": None if found.interval is None else list(found.interval),
        "classes_fitted": int(found.fitted.sum()) if several else None,
        "videos": found.videos,
        "sources": found.sources,
        "sources_by": grouped_by,
        "log_loss": {
            "before": asdict(found.loss_before),
            "after": asdict(found.loss_after),
            "difference": asdict(found.loss_difference),
        },
        "calibration_error": {"before": asdict(found.error_before), "after": asdict(found.error_after)},
        "min_precision": [_told(precision, found.curve.find(precision)) for precision in _TOLD],
        "warnings": warnings(found),
    }


def _told(precision: float, kept: Kept | None) -> dict[str, Any]:
    if kept is None:
        return {"precision": precision, "threshold": None}
    return {"precision": precision, **asdict(kept), "coverage": kept.coverage, "precision_low": kept.low}


def warnings(found: Calibration) -> list[str]:
    """Sentences on what makes a calibration doubtful."""
    lines = []
    if found.at_bound:
        lines.append(
            f"A temperature is at the end of what is fitted ({LOWEST:g} to {HIGHEST:g}), as if all answers were right "
            "or all were guesses. Add harder or easier videos."
        )
    if found.sources < FEW_SOURCES:
        lines.append(
            f"{found.sources} independent sources are few: with fewer than {FEW_SOURCES}, the temperature is uncertain."
        )
    if not found.changes:
        lines.append("No temperature makes the log loss lower, so the scores stay as they are.")
    elif found.loss_difference.high > 0:
        lines.append("The log loss did not fall for certain: its interval includes zero.")
    return lines


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """What `figures` say, a sentence each, of numbers and words of ours only."""
    temperature, interval = figures["temperature"], figures["temperature_interval"]
    losses, errors = figures["log_loss"], figures["calibration_error"]
    difference, after = losses["difference"], errors["after"]
    what = f"{figures['videos']:,} videos of {figures['sources']:,} independent sources"
    if isinstance(temperature, list):
        fitted = [value for value in temperature if value != 1]
        lines = [
            f"{figures['classes_fitted']:,} of {len(temperature):,} classes have temperatures of their own, "
            f"{min(fitted, default=1):.3f} to {max(fitted, default=1):.3f}, from {what}."
        ]
    else:
        spread = "" if interval is None else f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
        lines = [f"Temperature {temperature:.3f}{spread}, from {what}."]
    lines += [
        f"Log loss {losses['before']['value']:.4f} before and {losses['after']['value']:.4f} after; difference "
        f"{difference['value']:+.4f} (95 % interval {difference['low']:+.4f} to {difference['high']:+.4f}).",
        f"Calibration error {_percent(errors['before']['value'])} before and {_percent(after['value'])} after; a "
        f"calibrated model with these scores shows {_percent(after['low'])} to {_percent(after['high'])}.",
    ]
    kept = [each for each in figures["min_precision"] if each["threshold"] is not None]
    lines += [
        f"At least {100 * each['precision']:g} % right: scores of {each['threshold']:g} or more, which "
        f"{_percent(each['coverage'])} of the videos have."
        for each in kept
    ]
    if not kept:
        lines.append("No score is high enough for a promise of the share that is right.")
    return [*lines, *figures["warnings"]]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def write(folder: Path, found: Calibration, about: Mapping[str, Any], recipe: Recipe, *, whole_videos: bool) -> None:
    """Write the file to the `folder` of a model, whose weights must be there already.

    `about` is `figures`, and what it was made of. `whole_videos` is false if all were parts of videos. Raises
    InputError and OutputError.
    """
    content = {
        **about,
        "recipe": recipe.to_dict(),
        "whole_videos": whole_videos,
        "weights_sha256": weight_checksums(folder / "model.safetensors"),
    }
    curve = {"score": found.curve.scores.tolist(), "right": found.curve.right.astype(int).tolist()}
    coverage = [
        json.dumps(
            {
                "threshold": kept.threshold,
                "coverage": kept.coverage,
                "precision": kept.right / kept.kept,
                "precision_low": kept.low,
            }
        )
        for kept in map(found.curve.at, THRESHOLDS)
        if kept.kept
    ]
    text = json.dumps(content, indent=2, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n    ".join(coverage)
    # A line for each threshold, and one for thousands of numbers.
    text += f',\n  "coverage": [\n    {lines}\n  ],\n  "curve": {json.dumps(curve)}\n}}\n'
    with replacing(folder / FILE) as part:
        part.write_bytes(encoded(text))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Calibrated:
    """What a file says of the use of its model: with which recipe and weights, and from which score."""

    path: Path
    recipe: Recipe
    weights: Mapping[str, str]
    whole_videos: bool
    curve: Curve

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> Self:
        """The file beside the weights of a model.

        Raises:
            UsageError: there is none, or it is damaged.
        """
        path = None if checkpoint.weights is None else checkpoint.weights.parent / FILE
        if path is None or not path.is_file():
            raise UsageError(
                f"`min_precision`: {checkpoint.name} was not calibrated, so nothing tells which answers to keep; "
                "calibrate it by `timesformer evaluate` with `calibrate` and `output=RUN`, and use `model=RUN`"
            )
        try:
            values = strict_json.read(path)
            _SHAPE(values)
            curve = values["curve"]
            scores, right = np.array(curve["score"], np.float64), np.array(curve["right"]) > 0
            if len(scores) != len(right):
                raise ValueError("scores and answers of different numbers")
            return cls(
                path=path,
                recipe=Recipe.from_dict(values["recipe"]),
                weights=values["weights_sha256"],
                whole_videos=values["whole_videos"],
                curve=Curve.of(scores, right),
            )
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: is damaged ({error}); calibrate the model again") from error

    def require_same(self, checkpoint: Checkpoint, timeline: Timeline | None) -> None:
        """Raises UsageError if the model is not used as it was calibrated."""
        asked = "`min_precision`"
        if checkpoint.groups is not None:
            raise UsageError(f"{asked}: the labels of the model were calibrated, and not `groups` of them")
        if checkpoint.recipe.raw:
            raise UsageError(f"{asked}: is for probabilities, and the scores are logits; leave out `raw_logits`")
        differing = list(differences(_plain(self.recipe), _plain(checkpoint.recipe)))
        if differing:
            raise UsageError(
                f"{asked}: {checkpoint.name} was calibrated with different settings: {', '.join(differing)}; use "
                "those, or calibrate with these"
            )
        if timeline is not None and self.whole_videos:
            raise UsageError(
                f"{asked}: {checkpoint.name} was calibrated with whole videos, which says nothing about segments of a "
                "`timeline`; calibrate it with annotations that have start and end"
            )
        if weight_checksums(checkpoint.weights) != self.weights:
            raise UsageError(f"{self.path}: is of different weights than {checkpoint.weights}; calibrate them again")


def _plain(recipe: Recipe) -> dict[str, Any]:
    """As in a file, without names."""
    values = json.loads(json.dumps(recipe.to_dict()))
    return {name: values[name] for name in ("sampling", "preprocess", "combine", "activation")}
