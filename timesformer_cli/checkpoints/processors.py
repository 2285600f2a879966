"""Files of transformers' image and video processors: what preprocessing they describe, and how to recognise them."""

from collections.abc import Mapping, Sequence
from typing import Any

from timesformer_cli.specs import Interpolation, PreprocessSpec, TimesformerConfig

# Saved by image processors and, since version 5, by video processors; the first that exists is read.
# (processor_config.json belongs to models with other inputs than video, such as text.)
FILES = ("preprocessor_config.json", "video_preprocessor_config.json")

_Statistics = Mapping[str, Sequence[float]]

# The defaults of the classes, if a file states no statistics.
_HALF: _Statistics = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_IMAGENET: _Statistics = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_CLASSES = {
    "VideoMAEFeatureExtractor": _HALF,
    "VideoMAEImageProcessor": _HALF,
    "VideoMAEVideoProcessor": _HALF,
    "TimesformerVideoProcessor": _IMAGENET,
}
_CLASS_KEYS = ("video_processor_type", "image_processor_type", "feature_extractor_type")

_DEFAULT_SIZE = 224
# Pillow's filters, by the number that Pillow and `resample` give them.
_FILTERS: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

# Mean and standard deviation of every checkpoint that the original code trained. No processor class of
# transformers has them as its default, so a file that states them belongs to such a checkpoint.
_ORIGINAL_MEAN, _ORIGINAL_STD = 0.45, 0.225


def read(values: Mapping[str, Any], config: TimesformerConfig) -> PreprocessSpec:
    """The preprocessing that a processor's file describes, for a network of `config.num_channels`.

    Raises:
        ValueError: a field that is not understood or not supported; the message names it.
    """
    values = {key: value for key, value in values.items() if value is not None}  # a null means the default
    assumed = _assumed_statistics(values)
    size, short_side, stretch = _sizes(values)
    mean, std = _statistics(values, assumed, config.num_channels)
    return PreprocessSpec(
        size=size,
        short_side=short_side,
        stretch=stretch,
        mean=mean,
        std=std,
        channel_order="gray" if config.num_channels == 1 else "rgb",
        resize="antialias",
        interpolation=_interpolation(values.get("resample", _FILTERS.index("bilinear"))),
    )


def write(preprocess: PreprocessSpec) -> dict[str, Any]:
    """A `preprocessor_config.json` with as much of a recipe as transformers understands.

    It cannot express three crops, BGR, or resizing without antialiasing.
    """
    size = {"shortest_edge": preprocess.short_side}
    if preprocess.stretch is not None:
        size = _height_and_width(preprocess.stretch)
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": _FILTERS.index(preprocess.interpolation),
        "do_center_crop": True,
        "crop_size": _height_and_width(preprocess.size),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _height_and_width(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def has_original_statistics(preprocess: PreprocessSpec) -> bool:
    """Whether mean and standard deviation are those of the checkpoints that the original code trained."""
    return set(preprocess.mean) == {_ORIGINAL_MEAN} and set(preprocess.std) == {_ORIGINAL_STD}


def _assumed_statistics(values: Mapping[str, Any]) -> _Statistics:
    """The default mean and standard deviation of a processor's class, for a file that states none."""
    key = next((key for key in _CLASS_KEYS if key in values), None)
    if key is None:
        return _HALF
    name = values[key]
    # The same classes, with the name of the library that computes them.
    known = _CLASSES.get(name.removesuffix("Fast").removesuffix("Pil")) if isinstance(name, str) else None
    if known is None:  # other classes resize, crop or scale differently
        raise ValueError(f"{key} is {name!r}; expected one of {', '.join(_CLASSES)}")
    return known


def _sizes(values: Mapping[str, Any]) -> tuple[tuple[int, int], int, tuple[int, int] | None]:
    """Crops' (height, width), the short side before cropping, and the size that frames are stretched to, if any."""
    if not values.get("do_resize", True):
        raise ValueError("do_resize is false, but videos differ in size; true was expected")
    size = values.get("size", _DEFAULT_SIZE)
    # The first generation stated one number, for both the short side and the crop.
    default_crop = size if isinstance(size, int) else _DEFAULT_SIZE
    if isinstance(size, dict) and list(size) == ["shortest_edge"]:
        size = size["shortest_edge"]
    resized = _height_width("size", size)
    stretch = resized if isinstance(size, dict) else None
    # Without a crop, only square frames fit the network, and a square crop leaves these as they are.
    crop = resized
    if values.get("do_center_crop", True):
        crop = _height_width("crop_size", values.get("crop_size", default_crop))
    too_large = min(crop) > resized[0] if stretch is None else crop[0] > stretch[0] or crop[1] > stretch[1]
    if too_large:
        stated = "" if "crop_size" in values else ", which is the default"
        raise ValueError(
            f"crop_size is {crop}{stated}: larger than frames of size {size}; black borders are not supported"
        )
    return crop, resized[0] if stretch is None else min(crop), stretch


def _height_width(name: str, value: object) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else ()
    if isinstance(value, dict) and set(value) == {"height", "width"}:
        sides = (value["height"], value["width"])
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"{name} is {value!r}; a number of pixels, or a height and a width, was expected")
    return sides


def _interpolation(resample: object) -> Interpolation:
    if type(resample) is not int or not 0 <= resample < len(_FILTERS):
        known = ", ".join(f"{number} {name}" for number, name in enumerate(_FILTERS))
        raise ValueError(f"resample is {resample!r}; expected one of {known}")
    return _FILTERS[resample]


def _statistics(
    values: Mapping[str, Any], assumed: _Statistics, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the 0..1 scale, for any scale that the processor uses."""
    scale = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    stated = {name: values.get(name, fallback) for name, fallback in assumed.items()}
    if not values.get("do_normalize", True):
        stated = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    statistics = []
    for name, numbers in stated.items():
        if isinstance(numbers, (int, float)):
            numbers = [numbers] * 3
        try:
            numbers = tuple(number * (1 / 255 / scale) for number in numbers)
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"{name} is {numbers!r} and rescale_factor {scale!r}; numbers were expected") from error
        # Gray frames count as three equal channels, so a file may state their statistics three times.
        statistics.append(numbers[:1] if channels == 1 and len(set(numbers)) == 1 else numbers)
    return statistics[0], statistics[1]
