"""How a run was made, in words."""

from collections.abc import Mapping
from typing import Any

from timesformer_cli.results.settings import Settings

Rows = list[tuple[str, str]]


def protocol(settings: Settings) -> Rows:
    """What decided about the scores of a run."""
    rows = [("Model", settings["model"])]
    if settings.get("source", settings["model"]) != settings["model"]:
        rows.append(("From", settings["source"]))
    rows += [("Weights", f"{name}, sha256 {digest}") for name, digest in settings.get("weights_sha256", {}).items()]
    recipe = settings["recipe"]
    rows.append(("Recipe", recipe["name"]))
    if "sampling" in recipe:
        rows += _views(recipe["sampling"], recipe["preprocess"])
    kind = "probabilities" if recipe["combine"] == "probabilities" else "logits"
    rows.append(("Scores", f"{kind} averaged over the views"))
    if "precision" in settings:
        rows.append(("Precision", settings["precision"]))
    rows += _data_set(settings)
    if "version" in settings:
        rows.append(("Version", f"timesformer-cli {settings['version']}"))
    return rows


def _views(sampling: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Rows:
    clips, crops = sampling["clips"], preprocess["crops"]
    height, width = preprocess["size"]
    views = f"{clips or 'as many as cover the video'} × {crops}"  # noqa: RUF001
    return [
        ("Views", f"{views} (clips × crops), of {sampling['num_frames']} frames, {width} × {height}"),  # noqa: RUF001
        ("Frames", _fields(sampling, "num_frames", "clips", "window", "hop")),
        ("Pixels", _fields(preprocess, "crops", "size")),
    ]


def _fields(values: Mapping[str, Any], *told: str) -> str:
    """The rest of a recipe's part, under the names of its fields."""
    shown = {name: value for name, value in values.items() if name not in told and value is not None}
    return ", ".join(f"{name} {_plain(value)}" for name, value in shown.items())


def _plain(value: Any) -> str:
    return (
        "/".join(map(_plain, value)) if isinstance(value, list) else f"{value:g}" if _is_number(value) else str(value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _data_set(settings: Settings) -> Rows:
    data_set = settings["data_set"]
    rows = [
        (term, str(data_set[name]))
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
        if data_set.get(name) is not None
    ]
    if data_set["classes"] is not None:
        rows.append(("Classes (classes.txt)", f"{len(data_set['classes'])} chosen: {'; '.join(data_set['classes'])}"))
    if "shard" in settings:
        rows.append(("Shard", " of ".join(map(str, settings["shard"]))))
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
                f"{speed['videos']:,} videos in {speed['seconds']:,} s, {speed['videos_per_second']:.3g} a second",
            )
        )
    return rows
