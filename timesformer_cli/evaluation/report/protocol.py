"""How a run was made, in words, and the command that makes it again."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from timesformer_cli.results.settings import Provenance
from timesformer_cli.specs import Recipe

Rows = list[tuple[str, str]]


def protocol(provenance: Provenance) -> Rows:
    """What decided about the scores of a run."""
    rows = model_of("Model", provenance) + recipe_of(provenance) + data_set(provenance)
    if provenance.version is not None:
        rows.append(("Version", f"timesformer-cli {provenance.version}"))
    return rows


def model_of(term: str, provenance: Provenance) -> Rows:
    """The model, called `term`, and its weights."""
    rows = [(term, provenance.model)]
    if provenance.source != provenance.model:
        rows.append(("From", provenance.source))
    return rows + [("Weights", f"{name}, sha256 {digest}") for name, digest in (provenance.weights or {}).items()]


def recipe_of(provenance: Provenance) -> Rows:
    """How scores are made of a video."""
    recipe = provenance.recipe
    rows = [("Recipe", recipe.name)]
    if isinstance(recipe, Recipe):
        rows += _views(recipe)
    kind = "probabilities" if recipe.combine == "probabilities" else "logits"
    rows.append(("Scores", f"{kind} averaged over the views"))
    rows.append(("Activation", recipe.activation))
    if provenance.groups is not None:
        rows += [(f"Group {name}", "; ".join(labels)) for name, labels in provenance.groups.items()]
    if provenance.precision is not None:
        rows.append(("Precision", provenance.precision))
    return rows


def _views(recipe: Recipe) -> Rows:
    sampling, preprocess = recipe.sampling, recipe.preprocess
    height, width = preprocess.size
    views = f"{sampling.clips or 'as many as cover the video'} × {preprocess.crops}"  # noqa: RUF001
    return [
        ("Views", f"{views} (clips × crops), of {sampling.num_frames} frames, {width} × {height}"),  # noqa: RUF001
        ("Frames", _fields(asdict(sampling), "num_frames", "clips")),
        ("Pixels", _fields(asdict(preprocess), "crops", "size")),
    ]


def _fields(values: Mapping[str, Any], *told: str) -> str:
    """The rest of a recipe's part, under the names that users give its fields."""
    shown = {name: value for name, value in values.items() if name not in told and value is not None}
    return ", ".join(f"{name} {_plain(value)}" for name, value in shown.items())


def _plain(value: Any) -> str:
    return (
        "/".join(map(_plain, value))
        if isinstance(value, (list, tuple))
        else f"{value:g}"
        if _is_number(value)
        else str(value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def data_set(provenance: Provenance) -> Rows:
    """Which videos were measured, and by which labels."""
    stated = provenance.data_set or {}
    rows = [
        (term, str(stated[name]))
        for term, name in (
            ("Videos", "root"),
            ("Annotations", "annotations"),
            ("Annotations, sha256", "annotations_sha256"),
            ("Split", "split"),
            ("Format", "format"),
            ("Labels matched by", "matched_by"),
            ("Label map", "label_map"),
            ("At most", "limit"),
            ("Drawn with seed", "seed"),
            ("Videos and labels, sha256", "samples_sha256"),
        )
        if stated.get(name) is not None
    ]
    if stated.get("classes") is not None:
        rows.append(("Classes (classes.txt)", f"{len(stated['classes'])} chosen: {'; '.join(stated['classes'])}"))
    if provenance.shard is not None:
        rows.append(("Shard", f"{provenance.shard.index} of {provenance.shard.count}"))
    return rows


def conditions(summary: Mapping[str, Any]) -> Rows:
    """On what a run was made, and how quickly, as far as `metrics.json` has it."""
    rows: Rows = []
    if run := summary.get("run"):
        rows += [
            (term, str(run[name]))
            for term, name in (
                ("Finished", "finished"),
                ("Device", "device"),
                ("Batch size", "batch_size"),
                ("Decoder", "decoder"),
                ("Workers", "workers"),
                ("Seconds for a video, at most", "timeout"),
            )
        ]
        rows.append(("Versions", ", ".join(f"{name} {number}" for name, number in run["versions"].items())))
    if speed := summary.get("throughput"):
        rows.append(
            (
                "Speed",
                f"{speed['videos']:,} videos in {speed['seconds']:,} s, {speed['videos_per_second']:.3g} per second",
            )
        )
    return rows
