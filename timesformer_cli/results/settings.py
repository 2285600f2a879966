"""The settings that identify a run: written beside every output, and compared before a run is resumed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from timesformer_cli.__about__ import __version__
from timesformer_cli.checkpoints.folder import weight_checksums
from timesformer_cli.results.record import Excerpt, Origin
from timesformer_cli.shapes import (
    Maybe,
    anything,
    count,
    each,
    flag,
    matching,
    number,
    or_none,
    record,
    string,
    table,
    whole,
)
from timesformer_cli.specs import Activation, Checkpoint, Combine, Recipe, Timeline

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shares of the videos: number `index`, counted from 1, and every `count`-th after it."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def part_of(self, items: Iterable[T]) -> Iterator[T]:
        return islice(items, self.index - 1, None, self.count)

    def output(self, target: Path) -> Path:
        """The output of this shard: labels.2-of-4.jsonl for labels.jsonl."""
        return target.with_name(f"{target.stem}.{self.index}-of-{self.count}{target.suffix}")


@dataclass(frozen=True, slots=True)
class Combination:
    """Replaces the recipe for scores that did not come from one model here: those of another tool, or fused ones."""

    name: str
    combine: Combine
    activation: Activation = "softmax"

    @property
    def raw(self) -> bool:
        """Whether the scores are logits."""
        return self.activation == "none"


# Of which tokens a vector is made: the class token, the mean of all patches, or that of the patches of one frame.
Feature = Literal["cls", "mean", "frames"]

Dtype = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorKind:
    """What the vectors of a file are. `dimension` is D, and `normalized` whether their length is 1."""

    feature: Feature = "cls"
    dimension: int
    dtype: Dtype = "float32"
    normalized: bool = False


_TEXT = Maybe(or_none(string))
_DATA_SET = record(
    anything,
    rows=count,
    samples=count,
    multi_label=flag,
    classes=or_none(each(string)),
    problems=table(string, count),
    limit=Maybe(or_none(count)),
    seed=Maybe(or_none(whole)),
    frames=Maybe(flag),
    root=_TEXT,
    annotations=_TEXT,
    annotations_sha256=_TEXT,
    samples_sha256=_TEXT,
    format=_TEXT,
    split=_TEXT,
    label_map=_TEXT,
    matched_by=_TEXT,
)
_FUSED = record(model=string, weight=number, settings=lambda value: check_settings(value))
_SETTINGS = record(
    anything,
    version=Maybe(string),
    model=string,
    source=string,
    weights_sha256=Maybe(table(string, string)),
    labels=Maybe(each(string)),
    groups=Maybe(table(string, each(string))),
    recipe=record(anything, name=string),
    timeline=Maybe(table(string, anything)),
    precision=Maybe(string),
    frame_rate=Maybe(number),
    shown=Maybe(
        record(
            top_k=count,
            threshold=or_none(number),
            merge=flag,
            logits=flag,
            segments=flag,
            min_precision=Maybe(or_none(number)),
            min_score=Maybe(or_none(number)),
        )
    ),
    vectors=Maybe(
        record(
            feature=matching("feature", "cls|mean|frames"),
            dimension=count,
            dtype=matching("dtype", "float32|float16"),
            normalized=flag,
        )
    ),
    data_set=Maybe(_DATA_SET),
    shard=Maybe(each(count)),
    fused=Maybe(each(_FUSED)),
    explained=Maybe(table(string, anything)),
)


def check_settings(values: Any) -> None:
    """Raise ValueError unless `values`, read from a file, are what `Provenance.to_dict` writes, of their types."""
    _SETTINGS(values)
    if len(values.get("shard", (1, 1))) != 2:
        raise ValueError(f"{values['shard']} instead of a shard and their number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything that affects the results of a run. Runs with equal provenance can resume each other.

    `weights` are sha256 sums, in hex, by file name. `precision` is that of the network, and `frame_rate` that of
    folders of images. `data_set` is what `evaluation.run.dataset_settings` gives, None for videos without labels; its
    name is that of the key in files. For scores that did not come from a model here, unknown fields are None. `fused`
    are the runs whose scores were fused. `vectors` says what a file of vectors holds, and `explained` what a run of
    explanations explains, and how. `groups` are the labels of the model that each of the classes `labels` is made of,
    if a user grouped them; `specs.OTHER` has the rest.
    """

    model: str
    source: str
    labels: tuple[str, ...]
    recipe: Recipe | Combination
    groups: Mapping[str, Sequence[str]] | None = None
    version: str | None = None
    weights: Mapping[str, str] | None = None
    timeline: Timeline | None = None
    precision: str | None = None
    frame_rate: float | None = None
    shown: Excerpt | None = None
    vectors: VectorKind | None = None
    data_set: Mapping[str, Any] | None = None
    shard: Shard | None = None
    fused: tuple["Fused", ...] = ()
    explained: Mapping[str, Any] | None = None

    @property
    def origin(self) -> Origin:
        """What formats say of the model."""
        return Origin(self.model, self.labels, self.recipe.name, self.recipe.raw, self.groups)

    @property
    def of_vectors(self) -> bool:
        """Whether the run makes vectors and no labels."""
        return self.vectors is not None and self.shown is None

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON; unknown fields are left out."""
        values = {
            "version": self.version,
            "model": self.model,
            "source": self.source,
            "weights_sha256": None if self.weights is None else dict(self.weights),
            "labels": list(self.labels),
            "groups": None if self.groups is None else {name: list(each) for name, each in self.groups.items()},
            "recipe": self.recipe.to_dict() if isinstance(self.recipe, Recipe) else asdict(self.recipe),
            "timeline": None if self.timeline is None else asdict(self.timeline),
            "precision": self.precision,
            "frame_rate": self.frame_rate,
            "shown": None if self.shown is None else asdict(self.shown),
            "vectors": None if self.vectors is None else asdict(self.vectors),
            "data_set": None if self.data_set is None else dict(self.data_set),
            "shard": None if self.shard is None else [self.shard.index, self.shard.count],
            "fused": [each.to_dict() for each in self.fused] or None,
            "explained": None if self.explained is None else dict(self.explained),
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ValueError, KeyError or TypeError for other content."""
        recipe = values["recipe"]
        return cls(
            model=values["model"],
            source=values["source"],
            labels=tuple(values["labels"]),
            recipe=Recipe.from_dict(recipe) if "sampling" in recipe else Combination(**recipe),
            groups=values.get("groups"),
            version=values.get("version"),
            weights=values.get("weights_sha256"),
            timeline=Timeline(**values["timeline"]) if "timeline" in values else None,
            precision=values.get("precision"),
            frame_rate=values.get("frame_rate"),
            shown=Excerpt(**values["shown"]) if "shown" in values else None,
            vectors=VectorKind(**values["vectors"]) if "vectors" in values else None,
            data_set=values.get("data_set"),
            shard=Shard(*values["shard"]) if "shard" in values else None,
            fused=tuple(Fused.from_dict(each) for each in values.get("fused", ())),
            explained=values.get("explained"),
        )


@dataclass(frozen=True, slots=True)
class Fused:
    """One of the fused runs and its weight; without the names of its classes."""

    weight: float
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        settings = self.provenance.to_dict()
        del settings["labels"]
        return {"model": self.provenance.model, "weight": self.weight, "settings": settings}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(values["weight"], Provenance.from_dict({**values["settings"], "labels": ()}))

    @classmethod
    def of(cls, provenance: Provenance, weight: float) -> Self:
        return cls(weight, replace(provenance, labels=(), fused=()))


def provenance_of(
    checkpoint: Checkpoint,
    shown: Excerpt | None,
    *,
    precision: str,
    frame_rate: float,
    timeline: Timeline | None = None,
    vectors: VectorKind | None = None,
    data_set: Mapping[str, Any] | None = None,
    shard: Shard | None = None,
) -> Provenance:
    """The identity of a run of this model; `shown` is None for a run without records of labels.

    Reads the weights; raises InputError if they cannot be read.
    """
    return Provenance(
        version=__version__,
        model=checkpoint.name,
        source=checkpoint.source,
        weights=weight_checksums(checkpoint.weights),
        labels=checkpoint.classes,
        groups=None if checkpoint.groups is None else checkpoint.groups.chosen(checkpoint.labels),
        recipe=checkpoint.recipe,
        timeline=timeline,
        precision=precision,
        frame_rate=frame_rate,
        shown=shown,
        vectors=vectors,
        data_set=data_set,
        shard=shard,
    )


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON, with the activation, which earlier versions did not state.

    They knew only the softmax, except that fusing runs on videos with several labels averaged sigmoids.
    """
    recipe = settings.get("recipe")
    if not isinstance(recipe, Mapping) or "activation" in recipe:
        return dict(settings)
    several = (settings.get("data_set") or {}).get("multi_label")
    fused = recipe.get("name") == "fused" and "sampling" not in recipe
    return {**settings, "recipe": {**recipe, "activation": "sigmoid" if fused and several else "softmax"}}


def differences(made: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each setting that differs between two mappings from JSON, with both values."""
    for name in sorted(made.keys() | wanted.keys()):
        before, now = made.get(name), wanted.get(name)
        if before == now or name in ("base", "changes"):  # of a recipe: its name and fields show them
            continue
        if name == "labels":
            yield "labels"
        elif name == "weights_sha256":  # sums cannot be compared by eye
            sums = [{} if each is None else each for each in (before, now)]
            files = sorted(file for file in {*sums[0], *sums[1]} if sums[0].get(file) != sums[1].get(file))
            yield f"the weights ({', '.join(files)})"
        elif isinstance(before, dict) and isinstance(now, dict):
            yield from differences(before, now, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} ({before}, now {now})"
