"""The folder of a new model: an ordinary checkpoint with the new head, and its model card."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from timesformer_cli.__about__ import __version__
from timesformer_cli.checkpoints import zoo
from timesformer_cli.checkpoints.hub import is_repo_id
from timesformer_cli.checkpoints.recipes import FINE_TUNED
from timesformer_cli.errors import UsageError
from timesformer_cli.files import encoded, replacing, told
from timesformer_cli.jobs.finetune.folder import require_space
from timesformer_cli.specs import Checkpoint, Recipe, TimesformerConfig
from timesformer_cli.text import plural, printable

if TYPE_CHECKING:
    from timesformer_cli.jobs.finetune.head import Head
    from timesformer_cli.network.model import TimesformerForVideoClassification

README = "README.md"

# Bytes of a run besides its weights, more or less.
_MARGIN = 20_000_000

_TEMPLATE = Path(__file__).with_name("card_template.md")

# Names of classes that the card spells out.
_SHOWN = 30

_STATED = re.compile(r"^license:\s*['\"]?([\w.+-]+)['\"]?\s*$", re.MULTILINE)
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_CARD = 2**16  # bytes of a model card that are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the model card says of the training: `method`, `data` and `accuracy` are sentences."""

    method: str
    data: str
    accuracy: str


def resized(base: Checkpoint) -> TimesformerConfig:
    """The config of `base` with the number of frames and the image size that its recipe takes.

    Raises:
        UsageError: no network takes so many tokens.
    """
    preprocess, frames = base.recipe.preprocess, base.recipe.sampling.num_frames
    height, width = preprocess.size
    size = base.config.image_size
    if preprocess.size != base.config.image_hw:
        size = height if height == width else preprocess.size
    try:
        return replace(base.config, num_frames=frames, image_size=size)
    except ValueError as error:
        raise UsageError(f"{base.name}: {error}; try fewer frames, or smaller ones") from error


def resizing(base: Checkpoint) -> str | None:
    """A sentence on the embeddings that the new model has in another size; None if there are none.

    Raises:
        UsageError: as `resized`.
    """
    old, new = base.config, resized(base)
    parts = []
    if new.num_frames != old.num_frames and old.attention_type != "space_only":
        parts.append(f"time embeddings from {old.num_frames} to {plural(new.num_frames, 'frame')}")
    if new.grid != old.grid:
        before, after = ("{} x {}".format(*config.grid) for config in (old, new))
        parts.append(f"position embeddings from {before} to {after} patches")
    return f"resized for the new model: {', '.join(parts)}" if parts else None


def described(base: Checkpoint, names: Sequence[str], *, multi_label: bool) -> tuple[TimesformerConfig, Recipe]:
    """Config and recipe of a model with new classes, which is made for what the recipe of `base` feeds it.

    Raises:
        UsageError: as `resized`.
    """
    extra = {key: value for key, value in base.config.extra.items() if not key.startswith("_")}
    config = replace(
        resized(base),
        id2label=dict(enumerate(names)),
        problem_type="multi_label_classification" if multi_label else "single_label_classification",
        extra=extra,
    )
    recipe = replace(base.recipe, base=FINE_TUNED, changes={}, activation=config.activation)
    if recipe.combine == "raw_logits":
        recipe = replace(recipe, combine="logits")
    return config, recipe


def network_of(
    base: Checkpoint,
    names: Sequence[str],
    head: "Head",
    *,
    multi_label: bool,
    tell: Callable[[str], None],
) -> "TimesformerForVideoClassification":
    """The network of `base` with the `head` for the classes `names`, as `described`.

    It is on the CPU, float32, in eval mode. Its embeddings are those that `base` interpolates to for each clip of its
    recipe, so its outputs are the same.

    Raises:
        CheckpointError: the weights of `base` cannot be read.
        UsageError: as `resized`.
    """
    import torch

    from timesformer_cli.network.model import TimesformerForVideoClassification

    config, recipe = described(base, names, multi_label=multi_label)
    model = TimesformerForVideoClassification.from_checkpoint(base, tell=tell)
    model.timesformer.embeddings.resize(config)
    classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.bias.copy_(torch.from_numpy(head.bias))
    model.classifier, model.recipe = classifier, recipe
    model.config = model.timesformer.config = config
    return model


def write_model(folder: Path, model: "TimesformerForVideoClassification") -> None:
    """Write a network of `network_of`, all files or none.

    Raises:
        OutputError: the folder cannot be written; then it is as it was.
    """
    require_room(folder, model)
    with told(folder):
        model.save_pretrained(folder)


def require_room(folder: Path, model: "TimesformerForVideoClassification") -> None:
    """Raises OutputError if the disk has no room for a network in `folder`."""
    require_space(folder.parent, sum(tensor.nbytes for tensor in model.state_dict().values()) + _MARGIN)


def write_card(folder: Path, base: Checkpoint, names: Sequence[str], card: Card) -> None:
    """Write the model card. Raises OutputError."""
    with replacing(folder / README) as part:
        part.write_bytes(encoded(_text(folder, base, names, card)))


def _text(folder: Path, base: Checkpoint, names: Sequence[str], card: Card) -> str:
    licence = licence_of(base)
    repo = _repo(base)
    shown = ", ".join(f"`{_plain(name)}`" for name in names[:_SHOWN])
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        licence_id=licence.lower() if licence else "other",  # the Hub has small letters
        base_line="" if repo is None else f"base_model: {json.dumps(repo)}\n",
        title=_plain(folder.parent.name or folder.name),
        count=len(names),
        classes=shown + (" and others" if len(names) > _SHOWN else ""),
        version=__version__,
        base=_plain(base.name),
        method=card.method,
        data=card.data,
        accuracy=card.accuracy,
        licence=(
            f"The weights of the base model are under {licence}, and so are these, which were made from them."
            if licence
            else "That of the base model, which states none that could be read here. The weights of the TimeSformer "
            "authors are under CC-BY-NC-4.0."
        ),
    )


def licence_of(checkpoint: Checkpoint) -> str | None:
    """The licence of the weights, from the list of published models or the model card beside them; None if unknown."""
    entry = zoo.find(checkpoint.name)
    if entry is not None:
        return entry.licence
    try:
        if checkpoint.weights is None:
            return None
        with (checkpoint.weights.parent / README).open("rb") as file:
            text = file.read(_CARD).decode("utf-8", "replace")
    except OSError:
        return None
    front = _FRONT.match(text)
    stated = _STATED.search(front[1]) if front else None
    return stated[1] if stated else None


def _repo(base: Checkpoint) -> str | None:
    """The id of the base model on the Hub, if it came from there."""
    entry = zoo.find(base.name)
    if entry is not None:
        return entry.repo
    repo, at, _ = base.source.partition("@")
    return repo if at and is_repo_id(repo) else None


def _plain(text: str) -> str:
    return printable(text).replace("`", "'")
