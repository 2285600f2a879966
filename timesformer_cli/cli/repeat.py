"""The commands that repeat a run of `timesformer evaluate`, for its report."""

import re
import shlex
from typing import TYPE_CHECKING, Any

from timesformer_cli.text import printable

if TYPE_CHECKING:
    from timesformer_cli.results.settings import Provenance

_COMMIT = re.compile(r"@([0-9a-f]{7,40})$")


def commands(provenance: "Provenance", labels: int, output: str = "run") -> list[str]:
    """The commands that make a run of this provenance with `labels` classes, one line each.

    Files given as --labels or --config are not recorded, so the commands do not name them.
    """
    if provenance.fused:
        parts = [(part.provenance, f"{output}{number}") for number, part in enumerate(provenance.fused, 1)]
        weights = ",".join(f"{part.weight:g}" for part in provenance.fused)
        lines = [line for part, name in parts for line in commands(part, labels, name)]
        names = [name for _, name in parts]
        return [*lines, f"timesformer runs fuse {' '.join(names)} --weights {weights} --output {output}"]
    if provenance.recipe.name == "fused":
        return [f"# {output}: {printable(provenance.model)}, fused before"]
    chosen = (provenance.data_set or {})["classes"]
    if chosen is None or len(chosen) < labels:
        return [_evaluate(provenance, output)]
    whole = f"{output}-all"
    rescore = f"timesformer runs rescore {whole} --classes classes.txt --output {output}"
    return [_evaluate(provenance, whole, chosen=False), rescore]


def _evaluate(provenance: "Provenance", output: str, *, chosen: bool = True) -> str:
    from timesformer_cli.checkpoints.recipes import RECIPES
    from timesformer_cli.specs import Recipe

    data_set, recipe = provenance.data_set or {}, provenance.recipe
    options: dict[str, Any] = {
        "--annotations": data_set.get("annotations"),
        "--annotations-format": data_set.get("format") if data_set.get("annotations") else None,
        "--split": data_set.get("split"),
        "--label-map": data_set.get("label_map"),
        "--classes": "classes.txt" if chosen and data_set["classes"] is not None else None,
        "--groups": None if provenance.groups is None else "groups.csv",
        "--limit": data_set.get("limit"),
        "--seed": data_set.get("seed"),
    }
    changes: list[str] = []
    if isinstance(recipe, Recipe):
        base = recipe.base if recipe.base in RECIPES else None
        options |= {"--model": provenance.model, **_origin(provenance), "--recipe": base}
        options["--precision"] = provenance.precision
        changes = recipe.changed
    else:
        options["--from-predictions"] = provenance.model
        changes = [f"activation={recipe.activation}"]
    options["--frame-rate"] = provenance.frame_rate if data_set.get("frames") else None
    options["--output"] = output
    words = ["timesformer", "evaluate", *filter(None, [data_set.get("root")])]
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words += [word for change in changes for word in ("--set", change)]
    return shlex.join([*words, "--frames"] if data_set.get("frames") else words)


def _origin(provenance: "Provenance") -> dict[str, str]:
    """The option that says where the weights came from, if the name of the model does not."""
    from timesformer_cli.checkpoints import zoo

    name, source = provenance.model, provenance.source
    entry = zoo.find(name)
    if source == name or (entry is not None and entry.folder is not None):
        return {}
    commit = _COMMIT.search(source)
    return {"--revision": commit[1]} if commit else {"--weights": source}
