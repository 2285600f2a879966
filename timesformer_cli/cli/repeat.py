"""The commands that make a run of `timesformer evaluate` once more, for its report."""

import re
import shlex
from typing import TYPE_CHECKING, Any

from timesformer_cli.text import printable

if TYPE_CHECKING:
    from timesformer_cli.results.settings import Settings

_COMMIT = re.compile(r"@([0-9a-f]{7,40})$")


def commands(settings: "Settings", labels: int, output: str = "run") -> list[str]:
    """What to call for such a run with so many classes, one line each.

    Files of labels or of a config, if there were any, are not known.
    """
    if "fused" in settings:
        parts = [(part["settings"], f"{output}{number}") for number, part in enumerate(settings["fused"], 1)]
        weights = ",".join(f"{part['weight']:g}" for part in settings["fused"])
        lines = [line for part, name in parts for line in commands(part, labels, name)]
        names = [name for _, name in parts]
        return [*lines, f"timesformer evaluate fuse {' '.join(names)} --weights {weights} --output {output}"]
    if settings["recipe"]["name"] == "fused":
        return [f"# {output}: {printable(settings['model'])}, fused before"]
    chosen = settings["data_set"]["classes"]
    if chosen is None or len(chosen) < labels:
        return [_evaluate(settings, output)]
    whole = f"{output}-all"
    rescore = f"timesformer evaluate rescore {whole} --classes classes.txt --output {output}"
    return [_evaluate(settings, whole, chosen=False), rescore]


def _evaluate(settings: "Settings", output: str, *, chosen: bool = True) -> str:
    from timesformer_cli.checkpoints.recipes import RECIPES

    data_set, recipe = settings["data_set"], settings["recipe"]
    options: dict[str, Any] = {
        "--annotations": data_set.get("annotations"),
        "--annotations-format": data_set.get("format") if data_set.get("annotations") else None,
        "--split": data_set.get("split"),
        "--label-map": data_set.get("label_map"),
        "--classes": "classes.txt" if chosen and data_set["classes"] is not None else None,
        "--limit": data_set.get("limit"),
        "--seed": data_set.get("seed"),
    }
    changes: list[str] = []
    if "sampling" in recipe:
        base, _, changed = recipe["name"].partition(" with ")
        options |= {"--model": settings["model"], **_origin(settings), "--recipe": base if base in RECIPES else None}
        options["--precision"] = settings["precision"]
        changes = changed.split(", ") if changed else []
    else:
        options["--from-predictions"] = settings["model"]
    options["--frame-rate"] = settings["frame_rate"] if data_set.get("frames") else None
    options["--output"] = output
    words = ["timesformer", "evaluate", *filter(None, [data_set.get("root")])]
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words += [word for change in changes for word in ("--set", change)]
    return shlex.join([*words, "--frames"] if data_set.get("frames") else words)


def _origin(settings: "Settings") -> dict[str, str]:
    """The option that says where the weights came from, where the name of the model does not."""
    from timesformer_cli.checkpoints import zoo

    name, source = settings["model"], settings["source"]
    entry = zoo.find(name)
    if source == name or (entry is not None and entry.folder is not None):
        return {}
    commit = _COMMIT.search(source)
    return {"--revision": commit[1]} if commit else {"--weights": source}
