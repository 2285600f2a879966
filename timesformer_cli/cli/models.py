"""`timesformer models`: list, show, download and convert models."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.model import Previewed, Revision, Source
from timesformer_cli.cli.options.views import RecipeOptions
from timesformer_cli.errors import CheckpointError, OutputError, UsageError
from timesformer_cli.text import plural

if TYPE_CHECKING:
    from timesformer_cli.checkpoints.zoo import Published
    from timesformer_cli.specs import Checkpoint

app = typer.Typer(help="List, show, download and convert models.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, with every field.")]
Named = Annotated[
    str, typer.Argument(metavar="MODEL", show_default=False, help="Any model that predict takes as --model.")
]

_MEGABYTE = 1e6


@app.command("list")
@bundled
def list_models(*, as_json: Json = False, talk: Talk) -> None:
    """List the published checkpoints: training data, accuracy, licence, and whether they are on this machine."""
    talk.choose()
    from timesformer_cli.checkpoints import zoo

    entries = [_listed(entry) for entry in zoo.ZOO.values()]
    print(json.dumps(entries, indent=2, ensure_ascii=False) if as_json else _table(entries))


def _listed(entry: "Published") -> dict[str, Any]:
    from timesformer_cli.checkpoints import hub

    snapshot = hub.find_cached(entry.repo, entry.revision) if entry.repo else None
    return {
        "name": entry.name,
        "repo": entry.repo,
        "revision": entry.revision,
        "data": entry.data,
        "frames": entry.num_frames,
        "stride": entry.stride,
        "size": entry.size,
        "attention_type": entry.attention_type,
        "classes": entry.num_labels,
        "clips": entry.clips,
        "top1": entry.top1,
        "top5": entry.top5,
        "tflops_per_view": entry.tflops,
        "parameters": entry.parameters,
        "licence": entry.licence,
        "where": entry.where,
        "bundled": entry.folder is not None,
        "cached": snapshot is not None,
        "commit": snapshot.commit if snapshot else None,
        "bytes": _bytes_of(entry.folder.iterdir())
        if entry.folder
        else hub.cached_bytes(snapshot)
        if snapshot
        else None,
    }


def _bytes_of(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _table(entries: list[dict[str, Any]]) -> str:
    """One line per model, as wide as necessary: names that wrap could not be copied."""
    head = ("Name", "Data", "Frames", "Size", "Top-1", "Top-5", "TFLOPs", "Params", "Licence", "Here")
    rows = [head, *(_cells(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = (
        "Frames: number x stride at 30 frames per second, or one from each of as many segments.",
        "TFLOPs: multiply-adds of one view, as published.",
        "Here: size on this machine. Others are downloaded on first use, or by `timesformer models download NAME`;",
        "      `file` means not on the Hub: `timesformer models show NAME` says where to get it.",
    )
    return "\n".join([*lines, "", *notes])


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    size = f"{entry['bytes'] / _MEGABYTE:.0f} MB" if entry["bytes"] else ""
    here = "bundled" if entry["bundled"] else size if entry["cached"] else "" if entry["repo"] else "file"
    return (
        entry["name"],
        entry["data"],
        f"{entry['frames']}x{entry['stride']}" if entry["stride"] else f"{entry['frames']} segments",
        str(entry["size"]),
        _number(entry["top1"], ".1f"),
        _number(entry["top5"], ".1f"),
        _number(entry["tflops_per_view"], ".3g"),
        f"{entry['parameters'] / 1e6:.1f}M",
        entry["licence"],
        here,
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


@app.command()
@bundled
def show(
    *,
    model: Named,
    previewed: Previewed,
    recipe: RecipeOptions,
    as_json: Json = False,
    talk: Talk,
) -> None:
    """Show a model without downloading it: config, recipe, parameters, cost, labels, files."""
    talk.choose()
    from timesformer_cli.checkpoints import zoo

    checkpoint = previewed.preview(model, recipe)
    card = _card(checkpoint, zoo.find(checkpoint.name))
    print(json.dumps(card, indent=2, ensure_ascii=False) if as_json else _page(card))


def _card(checkpoint: "Checkpoint", entry: "Published | None") -> dict[str, Any]:
    from timesformer_cli.network.cost import measure_cost

    try:
        cost = measure_cost(checkpoint.config)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
    config = checkpoint.config.to_dict()
    for name in ("id2label", "label2id"):
        del config[name]
    files = sorted(checkpoint.weights.parent.iterdir()) if checkpoint.weights else []
    return {
        "name": checkpoint.name,
        "source": checkpoint.source,
        "published": _listed(entry) if entry else None,
        "dataset": checkpoint.dataset,
        "config": config,
        "parameters": cost.parameters,
        "multiply_adds_per_view": cost.flops // 2,
        "recipe": checkpoint.recipe.to_dict(),
        "labels": list(checkpoint.labels),
        "weights": str(checkpoint.weights) if checkpoint.weights else None,
        "files": [str(file) for file in files if file.is_file()],
    }


def _page(card: dict[str, Any]) -> str:
    from timesformer_cli.checkpoints.recipes import RECIPE_FIELDS, RECIPES

    published, config, recipe, labels = card["published"], card["config"], card["recipe"], card["labels"]
    lines = [("model", card["name"]), ("from", card["source"])]
    if published:
        lines += [("trained on", published["data"]), ("licence", published["licence"])]
        if published["top1"] is not None:
            top5 = "" if published["top5"] is None else f", top-5 {published['top5']} %"
            lines += [
                (
                    "published",
                    f"top-1 {published['top1']} %{top5}, from {plural(published['clips'], 'clip')} of 3 crops",
                )
            ]
    lines += [
        (
            "network",
            f"{config['attention_type']}, {config['num_hidden_layers']} layers of {config['hidden_size']}, "
            f"{config['num_attention_heads']} heads",
        ),
        ("input", _input(config)),
        ("parameters", f"{card['parameters']:,}"),
        ("cost", f"{card['multiply_adds_per_view'] / 1e9:,.1f} G multiply-adds per view (twice as many FLOPs)"),
        ("labels", f"{len(labels)}: {', '.join(labels[:3])}{' ...' if len(labels) > 3 else ''}"),
        ("weights", card["weights"] or _where(card)),
        ("recipe", recipe["name"]),
        *(
            (f"  {name}", _field(name, value))
            for part in ("sampling", "preprocess")
            for name, value in recipe[part].items()
            if name in RECIPE_FIELDS
        ),
        ("  combine", recipe["combine"]),
        ("  activation", recipe["activation"]),
        ("presets", ""),
        *((f"  {name}", text) for name, text in RECIPES.items()),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {text}".rstrip() for name, text in lines)


def _input(config: dict[str, Any]) -> str:
    size, patch = (_plain(config[name]) for name in ("image_size", "patch_size"))
    channels = plural(config["num_channels"], "channel")
    return f"{plural(config['num_frames'], 'frame')} of {size} pixels, {channels}, patches of {patch}"


def _field(name: str, value: Any) -> str:
    return "auto" if name == "clips" and value is None else _plain(value)


def _where(card: dict[str, Any]) -> str:
    published = card["published"]
    if published["repo"]:
        return f"not on this machine; timesformer models download {card['name']}"
    return f"not on the Hub: {published['where']}; name the file with --weights FILE"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@app.command()
@bundled
def download(
    *,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", show_default=False, help="Names from `timesformer models list`, or Hub ids."
        ),
    ],
    revision: Revision = None,
    talk: Talk,
) -> None:
    """Download models to the Hub's cache, or update them, and print the folder of each."""
    talk.choose()
    from timesformer_cli.checkpoints.resolve import download as fetch

    for model in models:
        print(fetch(model, revision=revision, quiet=console.is_quiet()), flush=True)


@app.command()
@bundled
def convert(
    *,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", show_default=False, help="Any model that predict takes as --model.")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            show_default=False,
            help="Folder for config.json, model.safetensors and recipe, or a .pyth file in the original layout.",
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TARGET if it exists.")] = False,
    origin: Source,
    recipe: RecipeOptions,
    talk: Talk,
) -> None:
    """Write a model in another layout: a folder that transformers can read too, or a .pyth file of the original code.

    The conversion is lossless: tensors stay the same bit by bit, and config, labels and recipe are kept.
    """
    talk.choose()
    _check_target(target, overwrite)
    checkpoint = origin.resolve(source, recipe)
    from timesformer_cli.runtimes import require_network

    require_network(checkpoint, CheckpointError)
    from timesformer_cli.checkpoints.pyth import write_pyth
    from timesformer_cli.files import told
    from timesformer_cli.network.model import TimesformerForVideoClassification

    model = TimesformerForVideoClassification.from_checkpoint(checkpoint, dtype=None, tell=console.note)
    with told(target):
        if target.suffix == ".pyth":
            write_pyth(target, model.state_dict(), checkpoint.config, recipe=checkpoint.recipe)
        else:
            model.save_pretrained(target)
    print(target)


def _check_target(target: Path, overwrite: bool) -> None:
    if target.suffix in (".bin", ".pth", ".pt", ".safetensors"):
        raise UsageError(f"{target}: give a folder, or a name that ends in .pyth")
    if target.is_dir() and not any(target.iterdir()) and target.suffix != ".pyth":
        return
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: already exists; choose another name, or --overwrite")
    if target.exists() and target.is_dir() == (target.suffix == ".pyth"):
        raise OutputError(f"{target}: is a {'folder' if target.is_dir() else 'file'}; choose another name")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
