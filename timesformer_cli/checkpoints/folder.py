"""The files of a model folder: config, processor, recipe, and the file that holds the weights."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from timesformer_cli import strict_json
from timesformer_cli.checkpoints import exported, processors
from timesformer_cli.errors import CheckpointError
from timesformer_cli.files import checksum
from timesformer_cli.specs import WEIGHT_FILES, PreprocessSpec, Recipe, TimesformerConfig

RECIPE_FILE = "recipe.json"
# PEFT has it beside the weights of an adapter, and the trainer of transformers names its folders so.
ADAPTER_FILE = "adapter_config.json"
# The folder of the model in that of a training run.
MODEL_OF_RUN = "model"
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")


def model_in(folder: Path) -> Path:
    """The folder of the model: `folder`, or `model` in it if it is that of a training run of `timesformer finetune`."""
    inside = folder / MODEL_OF_RUN
    return inside if not (folder / "config.json").is_file() and (inside / "config.json").is_file() else folder


def find_weights(folder: Path) -> Path:
    """The weight file of `folder` to read, or the exported model. Raises CheckpointError if there is none."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = find_exported(folder)
    if found is None:
        wanted = f"no weights; one of {', '.join((*WEIGHT_FILES, *exported.FILES))} was expected"
        raise CheckpointError(f"{folder}: {instead_of_model(folder) or wanted}")
    return found


def instead_of_model(folder: Path) -> str | None:
    """What a folder without a model is, and what to name instead; None if it is nothing known.

    Raises:
        CheckpointError: the adapter's config cannot be read.
    """
    steps = {
        int(found[1]): path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (found := _CHECKPOINT.fullmatch(path.name)) and path.is_dir()
    }
    if steps:
        names = [steps[step] for step in sorted(steps)]
        shown = ", ".join(names[:3]) + (f" ... {names[-1]}" if len(names) > 3 else "")
        return (
            f"a folder of a training run, which holds only checkpoints of it ({shown}); name one of them, such as the "
            f"last: {folder / names[-1]}"
        )
    if (folder / ADAPTER_FILE).is_file():
        base = read_json(folder / ADAPTER_FILE).get("base_model_name_or_path")
        return describe_adapter(f" of {base}" if isinstance(base, str) and base else "")
    return None


def describe_adapter(of: str = "") -> str:
    """What an adapter is, and how to make a model of it; `of` names its base."""
    return (
        f"only an adapter{of}, made with PEFT, not a whole model; merge it into its base model with "
        "`merge_and_unload()` of PEFT, save the result with `save_pretrained()`, and name that folder"
    )


def find_exported(folder: Path) -> Path | None:
    return next((folder / name for name in exported.FILES if (folder / name).is_file()), None)


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `recipe.json`, and a `preprocessor_config.json` for transformers with as much of it as that can express."""
    content = recipe.to_dict()
    for name, values in ((RECIPE_FILE, content), (processors.FILES[0], processors.write(recipe.preprocess))):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_config(path: Path) -> TimesformerConfig:
    try:
        return TimesformerConfig.from_dict(read_json(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_processor(folder: Path, config: TimesformerConfig) -> PreprocessSpec | None:
    path = next((folder / name for name in processors.FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        return processors.read(read_json(path), config)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = strict_json.read(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: no {path.name}; is it a model folder?") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    return _object(content, str(path))


def parse_json(text: str, path: Path, key: str) -> dict[str, Any]:
    where = f"{path}: {key} in its metadata"
    try:
        return _object(strict_json.loads(text), where)
    except ValueError as error:
        raise CheckpointError(f"{where}: not valid JSON ({error})") from error


def _object(content: object, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: a JSON object was expected, not {type(content).__name__}")
    return content


def overlaid(recipe: Recipe, stated: Mapping[str, Any], path: Path) -> Recipe:
    """`recipe` with the fields that a recipe file states. Raises CheckpointError."""
    try:
        return Recipe.from_dict({"name": path.name, **stated}, recipe)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def shards_in(index: Path) -> list[str]:
    """The names of the weight files that an index of shards lists, sorted; they are beside it, or are missing.

    Raises:
        ValueError: it is not such an index, or lists something that is not the name of a file beside it.
    """
    try:
        names = set(strict_json.read(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"it is not an index of weight shards ({error})") from error
    for name in names:
        # A name with a folder in it could point outside of the model, or of the cache.
        if not isinstance(name, str) or "\0" in name or Path(name).name != name:
            raise ValueError(
                f"it lists {name!r}, which is not a file beside it, so it is not an index of weight shards"
            )
    return sorted(names)


def weight_checksums(weights: Path | None) -> dict[str, str]:
    """The sha256 in hex of each file that holds weights, by file name, including shards and companions of `weights`.

    Raises:
        InputError: a file cannot be read.
    """
    if weights is None:
        return {}
    names = {file.name for file in exported.files_of(weights)}
    if weights.name.endswith(".index.json"):
        with suppress(ValueError):  # loading it reports what is wrong
            names |= set(shards_in(weights))
    return {name: checksum([weights.with_name(name)]) for name in sorted(names)}
