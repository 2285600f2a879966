"""The files of a model folder: config, processor, recipe, and which of them holds the weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from timesformer_cli.checkpoints import exported, processors
from timesformer_cli.checkpoints.recipes import refuse_unknown
from timesformer_cli.errors import CheckpointError
from timesformer_cli.specs import WEIGHT_FILES, PreprocessSpec, Recipe, SamplingSpec, TimesformerConfig

RECIPE_FILE = "recipe.json"


_Spec = TypeVar("_Spec", SamplingSpec, PreprocessSpec)


def find_weights(folder: Path) -> Path:
    """The weight file of `folder` to read, or the exported model. Raises CheckpointError when there is none."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = find_exported(folder)
    if found is None:
        raise CheckpointError(
            f"{folder}: no weights; one of {', '.join((*WEIGHT_FILES, *exported.FILES))} was expected"
        )
    return found


def find_exported(folder: Path) -> Path | None:
    return next((folder / name for name in exported.FILES if (folder / name).is_file()), None)


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `recipe.json`, and for transformers as much of it as a `preprocessor_config.json` can say."""
    content = asdict(recipe)
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: no {path.name}; is it a model folder?") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    return _object(content, str(path))


def parse_json(text: str, path: Path, key: str) -> dict[str, Any]:
    where = f"{path}: {key} in its metadata"
    try:
        return _object(json.loads(text), where)
    except ValueError as error:
        raise CheckpointError(f"{where}: not valid JSON ({error})") from error


def _object(content: object, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: a JSON object was expected, not {type(content).__name__}")
    return content


def overlaid(recipe: Recipe, stated: Mapping[str, Any], path: Path) -> Recipe:
    """`recipe` with the fields that a recipe's file states."""
    try:
        refuse_unknown(stated, tuple(field.name for field in fields(Recipe)))
        made = Recipe(
            name=stated.get("name", path.name),
            sampling=_overlay(recipe.sampling, stated.get("sampling", {}), "sampling"),
            preprocess=_overlay(recipe.preprocess, stated.get("preprocess", {}), "preprocess"),
            combine=stated.get("combine", recipe.combine),
        )
        if made.sampling.window is not None:
            raise ValueError("sampling: the windows of a timeline are no part of a recipe; predict `timeline` has them")
        return made
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _overlay(spec: _Spec, values: object, part: str) -> _Spec:
    if not isinstance(values, dict):
        raise ValueError(f"{part}: a JSON object was expected, not {type(values).__name__}")
    try:
        refuse_unknown(values, tuple(field.name for field in fields(spec)))
        return replace(spec, **values)
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error
