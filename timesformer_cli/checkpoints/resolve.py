"""From the name of a model to all of it: config, recipe, labels and weights, on disk or from the Hub."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer_cli.checkpoints import exported, hub, labels, processors, recipes, zoo
from timesformer_cli.checkpoints.folder import (
    RECIPE_FILE,
    find_exported,
    find_weights,
    instead_of_model,
    model_in,
    overlaid,
    parse_json,
    read_config,
    read_json,
    read_processor,
)
from timesformer_cli.checkpoints.recipes import changed, covering
from timesformer_cli.errors import CheckpointError, UsageError
from timesformer_cli.limits import check_current_folder
from timesformer_cli.specs import WEIGHT_FILES, Checkpoint, Dataset, PreprocessSpec, Recipe, TimesformerConfig

if TYPE_CHECKING:
    from timesformer_cli.checkpoints.pyth import TrainingFacts

# Published datasets, by the number of classes of their heads.
_BY_CLASSES: dict[int, Dataset] = {400: "kinetics-400", 600: "kinetics-600", 174: "something-something-v2"}


def resolve(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    quiet: bool = False,
    weights: Path | None = None,
    config: Path | None = None,
    labels_file: Path | None = None,
    recipe: recipes.RecipeName | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Checkpoint:
    """The model that `name` stands for.

    `name` is a short name of the zoo, a folder, a weight file, an exported model, or an id or an address on the Hub;
    they are tried in this order. `revision` and `offline` are for the Hub, and `quiet` hides its progress bars.
    `weights` is a file to use instead of the published weights of a short name. `config` is a config.json to use
    instead of the model's own or the inferred one. `labels_file` names the classes. `recipe` is the preset with which
    the caller replaces the model's recipe; an image processor that is not understood is then no error, and `tell` gets
    a sentence about it.

    The recipe is the original's for published checkpoints, and for others that have the classes of a published
    dataset and the original's statistics. For all others it follows `preprocessor_config.json`. A `recipe.json`
    in the folder overrides both.

    Raises:
        UsageError: an option that does not apply to this kind of model.
        CheckpointError: no such model, or one of its files is missing, unreadable or contradictory.
        SystemLimitError: there is no current folder.
    """
    check_current_folder()
    name, revision = _named(name, revision)
    entry = zoo.ZOO.get(name)
    on_disk = entry is None and os.path.exists(name)
    if not on_disk:
        entry = zoo.find(name)
    if weights is not None and entry is None:
        raise UsageError(f"`weights` goes with a short name of `timesformer models list`, and {name} is not one")
    if exported.has_exported_name(weights):
        raise UsageError(f"`weights={weights}`: an exported model is not a weight file; give it with `model`")
    from_hub = weights is None and not on_disk and not (entry and entry.folder)
    if revision is not None and not from_hub:
        raise UsageError(f"`revision` is for models on the Hub, and {name} is not one")

    changes = _Changes(config, labels_file, recipe, tell)
    if weights is not None:
        return _from_file(weights, name, entry, changes)
    if entry is not None and entry.folder is not None:
        return _from_folder(entry.folder, name, "bundled with timesformer-cli", entry, changes)
    if on_disk and os.path.isdir(name):
        return _from_folder(model_in(Path(name)), name, name, None, changes)
    if on_disk:
        return _from_named_file(Path(name), changes)
    return _from_hub(name, entry, changes, revision=revision, offline=offline, quiet=quiet)


def download(name: str, *, revision: str | None = None, quiet: bool = False) -> Path:
    """Fetch a model from the Hub, even if the cache has an older state of it; returns the folder of its config.

    Raises:
        CheckpointError: the model is not on the Hub, or it cannot be had.
    """
    name, revision = _named(name, revision)
    entry = zoo.find(name)
    if entry is not None and entry.folder is not None:
        return entry.folder
    repo = _hub_repo(name, entry)
    return hub.download(repo, revision or (entry.revision if entry else None), quiet=quiet).folder


def preview(
    name: str,
    *,
    revision: str | None = None,
    weights: Path | None = None,
    config: Path | None = None,
    labels_file: Path | None = None,
    recipe: recipes.RecipeName | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Checkpoint:
    """The result of `resolve`, without a download: a published model that is not cached has no `weights`.

    Raises:
        UsageError, CheckpointError: as `resolve` does, offline.
    """
    name, revision = _named(name, revision)
    entry = zoo.find(name)
    if entry is None and not os.path.exists(name) and hub.is_repo_id(name) and not hub.find_cached(name, revision):
        raise CheckpointError(
            f"{name}: {_NOT_HERE}, and not in the cache of the Hub; `timesformer models download {name}` fetches it, "
            "if the Hub has it"
        )
    if entry is None or entry.folder is not None or weights is not None or _is_cached(name, entry, revision):
        return resolve(
            name,
            revision=revision,
            offline=True,
            weights=weights,
            config=config,
            labels_file=labels_file,
            recipe=recipe,
            tell=tell,
        )
    own = _Changes(config, labels_file, recipe, tell).apply(entry.config(), None)
    original = recipes.preset("original", own, dataset=entry.dataset, stride=entry.stride)
    return Checkpoint(
        name=name,
        config=own,
        recipe=covering(original),
        labels=tuple(own.id2label.values()),
        weights=None,
        source=entry.repo or entry.where,
        dataset=entry.dataset,
    )


_NOT_HERE = "no folder or file of that name here"


def _named(name: str, revision: str | None) -> tuple[str, str | None]:
    """The name, and the revision, that an address on the Hub stands for; other names without slashes at their end.

    Raises:
        CheckpointError: an address of something else than a model.
        UsageError: the address has a different revision than the one given.
    """
    if os.path.exists(name):
        return name, revision
    if (found := hub.parse_address(name)) is not None:
        name, stated = found
        if None not in (stated, revision) and stated != revision:
            raise UsageError(f"`revision={revision}`: the address says {stated}; leave one of them out")
        return name, stated or revision
    return name.rstrip("/") or name, revision


def _is_cached(name: str, entry: zoo.Published, revision: str | None) -> bool:
    repo = _repo(name, entry)
    return repo is not None and hub.find_cached(repo, revision or entry.revision) is not None


def _repo(name: str, entry: zoo.Published | None) -> str | None:
    """The Hub id for `name`: itself, unless it is a short name. None if nothing was published there."""
    return entry.repo if entry is not None and entry.name == name else name


def _hub_repo(name: str, entry: zoo.Published | None) -> str:
    """The Hub id to fetch for `name`. Raises CheckpointError if there is none."""
    repo = _repo(name, entry)
    if repo is None:
        assert entry is not None
        raise CheckpointError(f"{name}: not on the Hub; {entry.where}; name the file with `weights=FILE`")
    if not hub.is_repo_id(repo):
        near = zoo.suggest(name)
        raise CheckpointError(
            f"{name}: no model of that name and no such folder or file; "
            + (f"is it {near}? " if near else "")
            + "`timesformer models list` shows the names; a folder holds config.json and weights; "
            "`model=camera-motion` works without a download"
        )
    return repo


class _Changes:
    """The config, the labels and the preset that a user gives instead of a model's own."""

    def __init__(
        self,
        config: Path | None,
        labels_file: Path | None,
        recipe: recipes.RecipeName | None,
        tell: Callable[[str], None],
    ) -> None:
        self.recipe, self.tell = recipe, tell
        self.config = None if config is None else read_config(config)
        self.labels_file = labels_file
        self.labels = None if labels_file is None else labels.read_file(labels_file)

    def processor(self, folder: Path, config: TimesformerConfig) -> PreprocessSpec | None:
        """What the image processor of a folder says. Raises CheckpointError, unless a preset replaces it anyway."""
        try:
            return read_processor(folder, config)
        except CheckpointError as error:
            if self.recipe is None:
                raise CheckpointError(f"{error}; a preset can replace it: `recipe=NAME`") from error
            self.tell(f"{error}; not used, as the recipe {self.recipe} was named")
            return None

    def apply(self, own: TimesformerConfig, known: tuple[str, ...] | None) -> TimesformerConfig:
        """The config with the names of its classes: the user's, else the `known` ones, else its own."""
        config = own if self.config is None else self.config
        names = self.labels
        if names is None and self.config is None and known is not None and len(known) == config.num_labels:
            names = known
        if names is None:
            return config
        if len(names) != config.num_labels:
            raise CheckpointError(
                f"{self.labels_file}: {len(names)} labels for a model with {config.num_labels} classes; "
                "one for each class, in class order, was expected"
            )
        return replace(config, id2label=dict(enumerate(names)))


def _from_hub(
    name: str, entry: zoo.Published | None, changes: _Changes, *, revision: str | None, offline: bool, quiet: bool
) -> Checkpoint:
    repo = _hub_repo(name, entry)
    if revision is None and entry is not None:
        revision = entry.revision
    try:
        snapshot = hub.fetch(repo, revision, offline=offline, quiet=quiet)
    except hub.UnknownError as error:
        if entry is not None:
            raise
        raise CheckpointError(f"{name}: {_NOT_HERE}, and {error}") from error
    source = f"{repo}@{snapshot.commit}"
    return _from_folder(snapshot.folder, name, source, entry, changes, weights=snapshot.weights)


def _from_folder(
    folder: Path, name: str, source: str, entry: zoo.Published | None, changes: _Changes, weights: Path | None = None
) -> Checkpoint:
    if weights is None and not (folder / "config.json").is_file() and (found := find_exported(folder)):
        return _from_exported(found, name, source, changes)
    if (
        changes.config is None
        and not (folder / "config.json").is_file()
        and (found_instead := instead_of_model(folder))
    ):
        raise CheckpointError(f"{folder}: {found_instead}")
    own = changes.config or read_config(folder / "config.json")
    # The labels in config.json of the published checkpoints were once wrong; the dataset's list is right.
    config = changes.apply(own, labels.read(entry.dataset) if entry and entry.dataset else None)
    names = tuple(config.id2label.values())
    dataset = entry.dataset if entry else labels.dataset_of(names)
    path = folder / RECIPE_FILE
    stated = read_json(path) if path.is_file() else None
    # If the recipe states all preprocessing, the processor file is not needed, and may be one that cannot be read.
    processor = None if stated and "preprocess" in stated else changes.processor(folder, config)
    recipe = _folder_recipe(config, entry, dataset, processor)
    if stated is not None:
        recipe = overlaid(recipe, stated, path)
    try:
        return Checkpoint(
            name=name,
            config=config,
            recipe=recipe,
            labels=names,
            weights=weights or find_weights(folder),
            source=source,
            dataset=dataset,
            processor=processor,
        )
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _from_named_file(path: Path, changes: _Changes) -> Checkpoint:
    if exported.has_exported_name(path):
        home = path.parent.parent if path.parent.name == "onnx" else path.parent
        if (home / "config.json").is_file():
            return _from_folder(home, str(path), str(path), None, changes, weights=path)
        return _from_exported(path, str(path), str(path), changes)
    if path.name in WEIGHT_FILES and (path.parent / "config.json").is_file():
        return _from_folder(path.parent, str(path), str(path), None, changes, weights=path)
    return _from_file(path, str(path), None, changes)


def _from_exported(path: Path, name: str, source: str, changes: _Changes) -> Checkpoint:
    """An exported model, described by its own metadata or by the user."""
    texts = exported.read_metadata(path)
    stated = {key: parse_json(texts[key], path, key) for key in ("config", "recipe") if texts.get(key)}
    if changes.config is None and "config" not in stated:
        raise CheckpointError(
            f"{path}: does not state its frames and classes, and no config.json lies beside it; give one with "
            "`config=FILE`, and names of the classes with `labels_file=FILE` if it has none"
        )
    try:
        own = changes.config or TimesformerConfig.from_dict(stated["config"])
        config = changes.apply(own, None)
        names = tuple(config.id2label.values())
        dataset = labels.dataset_of(names)
        recipe = _folder_recipe(config, None, dataset, None)
        if "recipe" in stated:
            recipe = overlaid(recipe, stated["recipe"], path)
        return Checkpoint(
            name=name, config=config, recipe=recipe, labels=names, weights=path, source=source, dataset=dataset
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _from_file(path: Path, name: str, entry: zoo.Published | None, changes: _Changes) -> Checkpoint:
    """A checkpoint of training code: names, shapes and stored settings determine its config and recipe."""
    from timesformer_cli.checkpoints.layouts import layout_of, to_hub
    from timesformer_cli.checkpoints.pyth import facts_of, infer_config
    from timesformer_cli.checkpoints.weights import read_stored

    stored = read_stored(path)
    facts = facts_of(stored)
    own = changes.config or facts.config or (entry.config() if entry else None)
    if own is None:
        try:
            own = infer_config(to_hub(stored.state), facts)
        except ValueError as error:
            besides = f" (it also holds other weights: {'; '.join(stored.left_out)})" if stored.left_out else ""
            raise CheckpointError(f"{path}: {error}{besides}; give one with `config=FILE`") from error
    known, dataset = _known_classes(own.num_labels, facts, entry)
    config = changes.apply(own, known)
    try:
        return Checkpoint(
            name=name,
            config=config,
            recipe=facts.recipe
            or _training_recipe(config, layout_of(stored.state), facts, entry, facts.dataset or dataset),
            labels=tuple(config.id2label.values()),
            weights=path,
            source=str(path),
            dataset=dataset,
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _known_classes(
    count: int, facts: "TrainingFacts", entry: zoo.Published | None
) -> tuple[tuple[str, ...] | None, Dataset | None]:
    """The names of a head's classes, if its file or their number tells them, and the dataset that has them."""
    if facts.labels is not None:
        return facts.labels, labels.dataset_of(facts.labels)
    dataset = entry.dataset if entry else facts.dataset
    if entry is None and dataset is None and facts.stride is None:  # no settings that name another dataset
        dataset = _BY_CLASSES.get(count)
    if dataset is None or len(labels.read(dataset)) != count:
        return None, None
    return labels.read(dataset), dataset


def _training_recipe(
    config: TimesformerConfig, layout: str, facts: "TrainingFacts", entry: zoo.Published | None, dataset: Dataset | None
) -> Recipe:
    """The recipe with which the code that wrote a checkpoint in `layout` tests it."""
    stride = facts.stride or (entry.stride if entry else None)
    name: recipes.RecipeName = "mmaction2" if layout == "mmaction2" else "original"
    recipe = recipes.preset(name, config, dataset=dataset, stride=stride)
    changes = {name: value for name, value in (("mean", facts.mean), ("std", facts.std)) if value is not None}
    return changed(covering(recipe), changes)


def _folder_recipe(
    config: TimesformerConfig,
    entry: zoo.Published | None,
    dataset: Dataset | None,
    processor: PreprocessSpec | None,
) -> Recipe:
    original = processor is None or processors.has_original_statistics(processor)
    published = entry is not None or (dataset is not None and original)
    recipe = recipes.preset(
        "original", config, dataset=dataset if published else None, stride=entry.stride if entry else None
    )
    if published:
        recipe = covering(recipe)
    elif processor is None:
        # Other models may need a different one, but nothing tells which; image processors cut one crop.
        recipe = changed(covering(recipe), {"crops": 1})
    elif original and processor.stretch is None:
        # No processor class of transformers has these statistics as its default, so the file belongs to a
        # checkpoint that the original code trained.
        preprocess = recipes.original_preprocess(processor.size, config.num_channels, 1)
        recipe = replace(changed(covering(recipe), {"crops": 1}), preprocess=preprocess)
    else:
        recipe = replace(covering(recipe), base=processors.FILES[0], preprocess=processor, changes={})
    return recipe
