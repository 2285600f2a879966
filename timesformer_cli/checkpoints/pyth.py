"""Files of training code (.pyth, .pth): reading the facts in their weights and stored settings, and writing one."""

import ast
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer_cli import strict_json
from timesformer_cli.checkpoints import labels
from timesformer_cli.checkpoints.layouts import ENCODER, HEAD, LAYERS, numbers, to_original
from timesformer_cli.checkpoints.weights import Stored, without_collection
from timesformer_cli.errors import CheckpointError
from timesformer_cli.files import whole
from timesformer_cli.specs import AttentionType, Dataset, Recipe, TimesformerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """Facts that a weight file states beside its tensors; None if it does not state them.

    `image_size` is a side or (height, width), in pixels. `stride` is in frames; `mean` and `std` are on
    the 0..1 scale, one number per channel. Files written by `write_pyth` state everything in `config`,
    `recipe`, `labels` and `dataset`.
    """

    num_heads: int | None = None
    num_frames: int | None = None
    image_size: int | tuple[int, int] | None = None
    stride: float | None = None
    dataset: Dataset | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    config: TimesformerConfig | None = None
    recipe: Recipe | None = None


def facts_of(stored: Stored) -> TrainingFacts:
    """The facts in a file's `timesformer_cli` (`write_pyth`), `cfg` (the original) or `meta` (mmaction2).

    Raises:
        CheckpointError: settings of `write_pyth` that cannot be understood.
    """
    own, cfg, meta = (stored.extras.get(name) for name in (_OWN, "cfg", "meta"))
    if own is not None:
        return _read_own(own, stored.path)
    if isinstance(cfg, str):
        return read_cfg(cfg)
    return _read_meta(meta) if isinstance(meta, Mapping) else TrainingFacts()


def _read_own(text: Any, path: Path) -> TrainingFacts:
    try:
        values = strict_json.loads(text)
        config = TimesformerConfig.from_dict(values["config"])
        recipe = Recipe.from_dict({"activation": config.activation, **values["recipe"]})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its {_OWN} settings cannot be read ({error}); was it written by a newer version?"
        ) from error
    names = tuple(config.id2label.values())
    return TrainingFacts(config=config, recipe=recipe, labels=names, dataset=labels.dataset_of(names))


# The Kinetics datasets of published checkpoints, by their number of classes.
_KINETICS: dict[int | None, Dataset] = {400: "kinetics-400", 600: "kinetics-600"}


def read_cfg(text: str) -> TrainingFacts:
    """The facts in the YAML that the original code stores; none if it is malformed."""
    import yaml

    try:
        with without_collection():
            values = yaml.safe_load(text)
    except Exception:  # malformed dates, truth values and so on raise almost anything
        return TrainingFacts()

    def stated(section: str, name: str) -> Any:
        part = values.get(section) if isinstance(values, Mapping) else None
        return part.get(name) if isinstance(part, Mapping) else None

    name, classes = str(stated("TRAIN", "DATASET")).lower(), _count(stated("MODEL", "NUM_CLASSES"))
    # These are the names of the original's dataset readers. Something-Something's reader samples different
    # frames, in different colours, for any model.
    datasets: dict[str, Dataset | None] = {"kinetics": _KINETICS.get(classes), "ssv2": "something-something-v2"}
    heads = (_count(stated(section, "NUM_HEADS")) for section in ("TIMESFORMER", "VIT", "MODEL"))
    return TrainingFacts(
        num_heads=next(filter(None, heads), None),
        num_frames=_count(stated("DATA", "NUM_FRAMES")),
        # The original builds the network for the image size of training.
        image_size=_size(stated("DATA", "TRAIN_CROP_SIZE")) or _size(stated("DATA", "TEST_CROP_SIZE")),
        # Something-Something has no stride, but every configuration states one.
        stride=None if name == "ssv2" else _positive(stated("DATA", "SAMPLING_RATE")),
        dataset=datasets.get(name),
        mean=_each(stated("DATA", "MEAN"), _finite),
        std=_each(stated("DATA", "STD"), _positive),
    )


# Folders and lists of mmaction2's datasets have these names.
_MMACTION2_DATASETS: dict[str, Dataset] = {
    "kinetics400": "kinetics-400",
    "kinetics600": "kinetics-600",
    "sthv2": "something-something-v2",
}


def _read_meta(meta: Mapping[str, Any]) -> TrainingFacts:
    """The facts in mmaction2's `meta`: class names, and the text of the configuration, which is Python code.

    The code is parsed, never run. Version 1 has `cfg` and `dataset_meta`, version 0 `config` and
    `CLASSES`.
    """
    dataset_meta = meta.get("dataset_meta")
    classes = dataset_meta.get("classes") if isinstance(dataset_meta, Mapping) else meta.get("CLASSES")
    named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    text = meta.get("cfg", meta.get("config"))
    stated = _literals(text) if isinstance(text, str) else {}

    def first(name: str, read: Any) -> Any:
        return next((value for value in map(read, stated.get(name, ())) if value is not None), None)

    places = [value for name in stated if name.startswith(("ann_file", "data_root")) for value in stated[name]]
    datasets = (_MMACTION2_DATASETS[key] for key in _MMACTION2_DATASETS for place in places if key in str(place))
    return TrainingFacts(
        num_heads=first("num_heads", _count),
        num_frames=first("num_frames", _count),
        image_size=first("img_size", _size),
        stride=first("frame_interval", _positive),
        dataset=next(datasets, None),
        mean=first("mean", lambda value: _each(value, _finite, 255)),
        std=first("std", lambda value: _each(value, _positive, 255)),
        labels=tuple(classes) if named and classes else None,
    )


def _literals(code: str) -> dict[str, list[Any]]:
    """The literals that a Python text assigns to each name, as a variable or an argument, outermost first."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the strings of others
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, list[Any]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name: str | None = node.targets[0].id
        elif isinstance(node, ast.keyword):
            name = node.arg
        else:
            continue
        try:
            found.setdefault(str(name), []).append(ast.literal_eval(node.value))
        except (ValueError, TypeError, RecursionError):
            continue
    return found


def _finite(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and abs(value) < 1e300 else None  # an int can be larger than any float


def _positive(value: Any) -> float | None:
    return value if _finite(value) is not None and value > 0 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def _size(value: Any) -> int | tuple[int, int] | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_count, value)):
        return value[0], value[1]
    return _count(value)


def _each(values: Any, read: Any, scale: float = 1) -> tuple[float, ...] | None:
    if not isinstance(values, (list, tuple)) or not values or any(read(value) is None for value in values):
        return None
    return tuple(float(value / scale) for value in values)


def infer_config(state: Mapping[str, Tensor], facts: TrainingFacts) -> TimesformerConfig:
    """The config of a network with these weights, under the Hub's names.

    Shapes and names determine everything except the number of heads, the frames of space_only, and the sides
    of images that are not square. These are taken from `facts`, or else are 64 dimensions per head and 8
    frames, as in all published checkpoints. If `facts` contradict the shapes, the shapes count.

    Raises:
        ValueError: not a classification checkpoint of TimeSformer, or a config must be given.
    """
    state = {name.removeprefix(ENCODER): tensor for name, tensor in state.items()}
    kernel = _shape(state, "embeddings.patch_embeddings.projection.weight", 4)
    positions = _shape(state, "embeddings.position_embeddings", 3)
    mlp = _shape(state, f"{LAYERS}0.intermediate.dense.weight", 2)
    if f"{HEAD}weight" not in state:
        raise ValueError("the weights are of an encoder only, without a classification head; a config.json is needed")
    classes, hidden = _shape(state, f"{HEAD}weight", 2)
    frames, attention = _frames_and_attention(state, facts)
    config = TimesformerConfig(
        image_size=_image_size(positions[1] - 1, kernel[2:], facts),
        patch_size=kernel[2] if kernel[2] == kernel[3] else (kernel[2], kernel[3]),
        num_channels=kernel[1],
        num_frames=frames,
        hidden_size=hidden,
        num_hidden_layers=len(numbers(state, LAYERS)),
        num_attention_heads=_heads(hidden, facts),
        intermediate_size=mlp[0],
        layer_norm_eps=1e-6,
        qkv_bias=f"{LAYERS}0.attention.attention.qkv.bias" in state,
        attention_type=attention,
        num_labels=classes,
    )
    if facts.labels is not None and len(facts.labels) == classes:
        config = replace(config, id2label=dict(enumerate(facts.labels)))
    return config


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"the weights are not those of a TimeSformer: no {name} among {_some(state)}")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} has the shape {shape}; {dimensions} dimensions were expected")
    return shape


def _some(state: Mapping[str, Tensor]) -> str:
    return ", ".join([*list(state)[:3], "..."] if len(state) > 3 else state) or "no names at all"


def _frames_and_attention(state: Mapping[str, Tensor], facts: TrainingFacts) -> tuple[int, AttentionType]:
    times = "embeddings.time_embeddings"
    if times not in state:
        return facts.num_frames or 8, "space_only"
    divided = any(name.startswith(f"{LAYERS}0.temporal_") for name in state)
    return _shape(state, times, 3)[1], "divided_space_time" if divided else "joint_space_time"


def _image_size(patches: int, patch: tuple[int, ...], facts: TrainingFacts) -> int | tuple[int, int]:
    stated = facts.image_size
    if stated is not None:
        height, width = (stated, stated) if isinstance(stated, int) else stated
        if (height // patch[0]) * (width // patch[1]) == patches:
            return stated
    side = math.isqrt(patches)
    if side * side != patches or patch[0] != patch[1]:
        raise ValueError(
            f"{patches} patches of {patch[0]}x{patch[1]} pixels do not determine the image size; "
            "a config.json with image_size is needed"
        )
    return side * patch[0]


def _heads(hidden: int, facts: TrainingFacts) -> int:
    if facts.num_heads is not None and hidden % facts.num_heads == 0:
        return facts.num_heads
    if hidden % 64:
        raise ValueError(
            f"a hidden size of {hidden} does not determine the number of attention heads; "
            "a config.json with num_attention_heads is needed"
        )
    return hidden // 64


_OWN = "timesformer_cli"


def write_pyth(path: Path, state: Mapping[str, Tensor], config: TimesformerConfig, *, recipe: Recipe) -> None:
    """Write a file in the original code's format, which its loader and `weights.read_stored` read.

    `state` has the Hub's names; tensors are written as they are. The parts of `config` and `recipe`
    that the original's settings cannot express are stored under a name that the original ignores. An
    existing file is replaced when the new one is whole; tensors may be mapped from it.

    Raises:
        OSError: the file cannot be written.
    """
    settings = {"config": config.to_dict(), "recipe": recipe.to_dict()}
    content = {
        "epoch": 0,
        "model_state": {f"model.{name}": _alone(tensor) for name, tensor in to_original(state).items()},
        "cfg": _write_cfg(config, recipe),
        _OWN: json.dumps(settings),
    }
    try:
        with whole(path) as part, part.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # torch raises this if a write fails
        raise OSError(f"{path}: cannot be written; is the disk full? ({error})") from error


def _alone(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, since torch saves all memory that backs a tensor."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _write_cfg(config: TimesformerConfig, recipe: Recipe) -> str:
    import yaml

    size = config.image_size if isinstance(config.image_size, int) else list(config.image_size)
    values = {
        "DATA": {
            "INPUT_CHANNEL_NUM": [config.num_channels],
            "MEAN": list(recipe.preprocess.mean),
            "NUM_FRAMES": config.num_frames,
            "SAMPLING_RATE": recipe.sampling.stride,
            "STD": list(recipe.preprocess.std),
            "TEST_CROP_SIZE": size,
            "TRAIN_CROP_SIZE": size,
        },
        "MODEL": {"ARCH": "vit", "MODEL_NAME": "vit_base_patch16_224", "NUM_CLASSES": config.num_labels},
        "TIMESFORMER": {"ATTENTION_TYPE": config.attention_type, "NUM_HEADS": config.num_attention_heads},
        # The original has two dataset readers, which sample frames differently.
        "TRAIN": {"DATASET": "ssv2" if recipe.sampling.method == "segments" else "kinetics"},
    }
    return str(yaml.safe_dump(values))
