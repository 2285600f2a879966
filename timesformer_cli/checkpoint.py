"""Models on disk: a name becomes the whole recipe, and a recipe becomes files. Only `load_model` imports torch."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from timesformer_cli.errors import CheckpointError, UsageError
from timesformer_cli.specs import Checkpoint, Combine, Placement, PreprocessSpec, SamplingSpec, TimesformerConfig

if TYPE_CHECKING:
    from timesformer_cli.model import TimesformerForVideoClassification

# Models inside the package, by name, with their folders.
BUNDLED = {"camera-motion": Path(__file__).parent / "models" / "camera-motion"}

RECIPE_FILE = "recipe.json"
# What image processors and, since version 5, video processors of transformers save.
PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")

# Mean and standard deviation of every checkpoint that the original code trained. No processor of
# transformers has them as its own, so a file that states them belongs to such a checkpoint.
_ORIGINAL_MEAN, _ORIGINAL_STD = 0.45, 0.225

_BILINEAR = 2  # the number that Pillow and the processors' files give it

_Spec = TypeVar("_Spec", SamplingSpec, PreprocessSpec)


def resolve(name: str) -> Checkpoint:
    """The model that `name` stands for: a bundled one, or a folder with `config.json` and weights.

    A folder's `recipe.json` says how to feed the model. Without it, `preprocessor_config.json` gives
    size, statistics and resizing, and the number of frames the window. The weights are not looked at.

    Raises:
        CheckpointError: no such model, or a file of it that is missing, unreadable or contradictory.
    """
    if name in BUNDLED:
        return _read_folder(BUNDLED[name], name, "bundled with timesformer-cli")
    if os.path.isdir(name):
        return _read_folder(Path(name), name, name)
    problem = (
        "it is a file, not a model folder" if os.path.exists(name) else "no model of that name, and no such folder"
    )
    raise CheckpointError(
        f"{name}: {problem}; give a folder that holds config.json and weights, or a bundled model "
        f"({', '.join(BUNDLED)}): --model {next(iter(BUNDLED))} works without a download"
    )


def load_model(checkpoint: Checkpoint) -> "TimesformerForVideoClassification":
    """The network with its weights, float32, in eval mode, on the CPU.

    Raises:
        CheckpointError: missing or unreadable weights, or weights that do not fit `config.json`.
    """
    from timesformer_cli.model import TimesformerForVideoClassification

    return TimesformerForVideoClassification.from_pretrained(checkpoint.folder)


def with_overrides(
    checkpoint: Checkpoint,
    *,
    num_frames: int | None = None,
    stride: float | None = None,
    fps: float | None = None,
    clips: int | Literal["auto"] | None = None,
    crops: Literal[1, 3] | None = None,
    placement: Placement | None = None,
    combine: Combine | None = None,
) -> Checkpoint:
    """The recipe with a user's options in place of the model's own; None leaves a field as it is.

    Another number of crops also brings the short side that the original code takes for it.

    Raises:
        UsageError: an option that means nothing to this model, or a value that cannot be.
    """
    sampling, preprocess = checkpoint.sampling, checkpoint.preprocess
    given = {"num_frames": num_frames, "stride": stride, "fps": fps, "clips": clips, "placement": placement}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("stride", "fps", "placement"):
        if sampling.method != "window" and name in changes:
            raise UsageError(f"--{name} does not apply to {checkpoint.name}: its frames cover the whole video")
    if clips == "auto":
        changes["clips"] = None
    try:
        sampling = replace(sampling, **changes)
        if crops is not None and crops != preprocess.crops:
            preprocess = replace(preprocess, crops=crops, short_side=_short_side(preprocess, crops))
        return replace(checkpoint, sampling=sampling, preprocess=preprocess, combine=combine or checkpoint.combine)
    except ValueError as error:
        raise UsageError(f"{checkpoint.name}: {error}") from error


def save_recipe(folder: Path, sampling: SamplingSpec, preprocess: PreprocessSpec, combine: Combine = "logits") -> None:
    """Write `recipe.json`, and for transformers as much of it as a `preprocessor_config.json` can say."""
    height, width = preprocess.size
    size = {"height": height, "width": width}
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": size if preprocess.resize == "stretch" else {"shortest_edge": preprocess.short_side},
        "resample": _BILINEAR,
        "do_center_crop": preprocess.resize != "stretch",
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    }
    recipe = {"sampling": asdict(sampling), "preprocess": asdict(preprocess), "combine": combine}
    for name, content in ((RECIPE_FILE, recipe), (PROCESSOR_FILES[0], processor)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_folder(folder: Path, name: str, source: str) -> Checkpoint:
    path = folder / "config.json"
    try:
        config = TimesformerConfig.from_dict(_read_json(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    path = folder / RECIPE_FILE
    recipe = _read_json(path) if path.is_file() else {}
    _refuse_unknown(recipe, ("sampling", "preprocess", "combine"), str(path))
    sampling = _overlay(_published_window(config.num_frames), recipe.get("sampling", {}), f"{path}: sampling")
    if "preprocess" in recipe:
        original = _original(config.image_hw, config.num_channels)
        preprocess = _overlay(original, recipe["preprocess"], f"{path}: preprocess")
    else:
        preprocess = _from_processor(folder, config)
    try:
        return Checkpoint(
            name=name,
            config=config,
            sampling=sampling,
            preprocess=preprocess,
            combine=recipe.get("combine", "logits"),
            labels=tuple(config.id2label.values()),
            folder=folder,
            source=source,
        )
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: no {path.name}; is it a model folder?") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object was expected, not {type(content).__name__}")
    return content


def _overlay(spec: _Spec, values: object, where: str) -> _Spec:
    """`spec` with the fields that a recipe states."""
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: a JSON object was expected, not {type(values).__name__}")
    _refuse_unknown(values, tuple(field.name for field in fields(spec)), where)
    try:
        return replace(spec, **values)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise CheckpointError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}")


def _published_window(num_frames: int) -> SamplingSpec:
    """The window that a model of that many frames was published with: 8x32, 16x16 or 96x4.

    The first two cover 256 frames at 30 a second, and so do, as nearly as they can, the windows of
    other numbers of frames, which were never published: the stride is 256 / T, and at least 1.
    """
    return SamplingSpec(num_frames=num_frames, stride=4 if num_frames == 96 else max(256 / num_frames, 1))


def _short_side(spec: PreprocessSpec, crops: int) -> int:
    """The short side for `crops`, where a recipe was written for the other number of crops.

    Three crops lie side by side in frames as high as a crop. For one, the original code scales to
    the shortest side that training saw, 256 for crops of 224 and 448 for crops of 448; sizes that
    were never published follow the nearer of the two. Image processors scale to the crop itself.
    """
    size = min(spec.size)
    if crops == 1 and spec.resize == "float" and size < 448:
        return round(size * 256 / 224)
    return size


def _original(size: tuple[int, int], channels: int) -> PreprocessSpec:
    """The preprocessing of the original code, with one crop."""
    gray = channels == 1
    mean, std = (_ORIGINAL_MEAN,) * (1 if gray else 3), (_ORIGINAL_STD,) * (1 if gray else 3)
    spec = PreprocessSpec(size=size, short_side=min(size), mean=mean, std=std, channel_order="gray" if gray else "rgb")
    return replace(spec, short_side=_short_side(spec, crops=1))


def _from_processor(folder: Path, config: TimesformerConfig) -> PreprocessSpec:
    """What a processor's file says, or the original code's way where there is none."""
    path = next((folder / name for name in PROCESSOR_FILES if (folder / name).is_file()), None)
    if path is None:
        return _original(config.image_hw, config.num_channels)
    # A null stands for the default, as in config.json.
    values = {key: value for key, value in _read_json(path).items() if value is not None}
    try:
        size, short_side = _sizes(values)
        mean, std = _statistics(values, config.num_channels)
        original = set(mean) == {_ORIGINAL_MEAN} and set(std) == {_ORIGINAL_STD}
        if original and short_side is not None:
            return _original(size, config.num_channels)
        return PreprocessSpec(
            size=size,
            short_side=min(size) if short_side is None else short_side,
            mean=mean,
            std=std,
            channel_order="gray" if config.num_channels == 1 else "rgb",
            resize="stretch" if short_side is None else "antialias",
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _sizes(values: Mapping[str, Any]) -> tuple[tuple[int, int], int | None]:
    """(height, width) of a processor's crops, and the short side before cropping; None for stretched frames."""
    if not values.get("do_resize", True):
        raise ValueError("do_resize is false, but videos differ in size; true was expected")
    if values.get("resample", _BILINEAR) != _BILINEAR:
        raise ValueError(f"resample is {values['resample']!r}; only {_BILINEAR}, bilinear, is supported")
    size = values.get("size", 224)
    if isinstance(size, dict) and list(size) == ["shortest_edge"]:
        size = size["shortest_edge"]
    if isinstance(size, dict):
        short_side, crop = None, _height_width("size", size)
    else:
        short_side = _height_width("size", size)[0]
        crop = (short_side, short_side)
    # Without a crop only square frames fit the network, and to those a square crop does nothing.
    if values.get("do_center_crop", True) and "crop_size" in values:
        crop = _height_width("crop_size", values["crop_size"])
        if short_side is None and crop != _height_width("size", size):
            raise ValueError(f"crop_size is {crop}, but only the size that frames are stretched to is supported")
    return crop, short_side


def _height_width(name: str, value: object) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else ()
    if isinstance(value, dict) and set(value) == {"height", "width"}:
        sides = (value["height"], value["width"])
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"{name} is {value!r}; a number of pixels, or a height and a width, was expected")
    return sides


def _statistics(values: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the 0..1 scale, whatever scale the processor uses."""
    scale = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    # What the classes of transformers assume: image processors 0.5, video processors ImageNet's.
    video = "video_processor_type" in values
    fallback = {
        "image_mean": [0.485, 0.456, 0.406] if video else [0.5] * 3,
        "image_std": [0.229, 0.224, 0.225] if video else [0.5] * 3,
    }
    if not values.get("do_normalize", True):
        values = {**values, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    statistics = []
    for name in fallback:
        numbers = values.get(name, fallback[name])
        if isinstance(numbers, (int, float)):
            numbers = [numbers] * 3
        try:
            numbers = tuple(number * (1 / 255 / scale) for number in numbers)
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"{name} is {numbers!r} and rescale_factor {scale!r}; numbers were expected") from error
        # Gray frames are taken as three equal channels, so their statistics may be stated three times.
        statistics.append(numbers[:1] if channels == 1 and len(set(numbers)) == 1 else numbers)
    return statistics[0], statistics[1]
