"""Published pipelines: which frames, which pixels, and how scores are combined. Pure, and quick to import."""

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from timesformer_cli.errors import UsageError
from timesformer_cli.specs import (
    Checkpoint,
    Dataset,
    PreprocessSpec,
    Recipe,
    Resize,
    SamplingMethod,
    SamplingSpec,
    Timeline,
    TimesformerConfig,
    require_known,
)

RecipeName = Literal["original", "paper", "transformers", "transformers-4", "mmaction2", "uniform"]

# The name of the recipe of models that `timesformer finetune` makes. They are measured on the clips that cover a video.
FINE_TUNED = "fine-tuned"

# What each is, in a line of help.
RECIPES: Mapping[RecipeName, str] = MappingProxyType(
    {
        "original": "the authors' released code: a clip at the start of the video, three crops, logits averaged",
        "paper": "the paper's appendix: as original, but the clip in the middle, probabilities averaged",
        "transformers": "its pipeline of version 5: frames from the whole video, one centre crop",
        "transformers-4": "its pipeline of version 4, or 5 with an image processor: the first frames, one centre crop",
        "mmaction2": "its tests: a clip in the middle, three crops, colours scaled to -1..1, probabilities averaged",
        "uniform": "frames from the whole video, pixels and scores as original",
    }
)


def preset(
    name: RecipeName,
    config: TimesformerConfig,
    *,
    dataset: Dataset | None = None,
    stride: float | None = None,
    processor: PreprocessSpec | None = None,
) -> Recipe:
    """A published pipeline for a model of that shape.

    `dataset`: what the weights were trained on, if it is known; Something-Something has frames and
    colours of its own. `stride`: the one they were trained with, if it is not the published one;
    `transformers-4` takes every frame all the same. `processor`: what the model's image processor says, which
    only `transformers` and `transformers-4` go by. The activation is that of the config in all of them.

    Raises:
        ValueError: no such pipeline, or a stride that cannot be.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe is {name!r}; known are {', '.join(get_args(RecipeName))}")
    frames = config.num_frames
    if stride is None:
        stride = published_stride(frames)
    if name in ("transformers", "transformers-4"):
        whole = SamplingSpec(num_frames=frames, method="uniform", clips=1)
        # The stride is what the pipeline calls frame_sampling_rate, which is 1 unless it is told.
        start = SamplingSpec(num_frames=frames, stride=1, fps=None, clips=1)
        return Recipe(
            base=name,
            sampling=whole if name == "transformers" else start,
            # Without a processor, what the Hub has beside the published checkpoints.
            preprocess=processor or _preprocess(config.image_hw, config.num_channels, "antialias"),
            activation=config.activation,
        )
    if name == "mmaction2":
        return Recipe(
            base=name,
            sampling=SamplingSpec(
                num_frames=frames,
                method="strided",
                stride=stride,
                fps=None,
                clips=1,
                placement="middle",
                overrun="loop",
            ),
            preprocess=_preprocess(config.image_hw, config.num_channels, "opencv", crops=3, mean=0.5, std=0.5),
            combine="probabilities",
            activation=config.activation,
        )
    original = _original(config, dataset, stride)
    if name == "paper":
        sampling = replace(original.sampling, placement="middle")
        return replace(original, base=name, sampling=sampling, combine="probabilities")
    if name == "uniform":
        return replace(original, base=name, sampling=SamplingSpec(num_frames=frames, method="uniform", clips=1))
    return original


def published_stride(num_frames: int) -> float:
    """The stride that a model of that many frames was published with: 8x32, 16x16 or 96x4.

    The first two cover 256 frames at 30 per second, and so do, as nearly as they can, the windows of
    other numbers of frames, which were never published: the stride is 256 / T, and at least 1.
    """
    return 4 if num_frames == 96 else max(256 / num_frames, 1)


def short_side(spec: PreprocessSpec, crops: Literal[1, 3], method: SamplingMethod = "window") -> int:
    """The short side for `crops`, where a recipe was written for the other number of crops.

    Three crops lie side by side in frames as high as a crop. For one, the original code scales to
    the shortest side that training saw, 256 for crops of 224 and 448 for crops of 448; sizes that
    were never published follow the nearer of the two. mmaction2, when it validates, goes from 256 to
    224 as well. Image processors scale to the crop itself, and so does the original code for
    Something-Something, which `method` segments stands for.
    """
    size = min(spec.size)
    if crops == 1 and spec.resize != "antialias" and method != "segments" and size < 448:
        return round(size * 256 / 224)
    return size


def original_preprocess(size: tuple[int, int], channels: int, crops: Literal[1, 3]) -> PreprocessSpec:
    """The original code's pixels for Kinetics, (height, width) of a crop; one channel is gray."""
    spec = _preprocess(size, channels, "float", crops=crops)
    return replace(spec, short_side=short_side(spec, crops))


def _original(config: TimesformerConfig, dataset: Dataset | None, stride: float) -> Recipe:
    """The released code's test, with three crops."""
    sampling = SamplingSpec(num_frames=config.num_frames, stride=stride, clips=1)
    preprocess = original_preprocess(config.image_hw, config.num_channels, crops=3)
    if dataset == "something-something-v2":
        # Images that FFmpeg extracted at 30 frames per second, read with OpenCV as blue, green and
        # red, are never turned to RGB, though the settings ask for it: that step is skipped for this model.
        sampling = replace(sampling, method="segments")
        if preprocess.channel_order == "rgb":
            preprocess = replace(preprocess, channel_order="bgr")
    return Recipe(base="original", sampling=sampling, preprocess=preprocess, activation=config.activation)


def _preprocess(
    size: tuple[int, int],
    channels: int,
    resize: Resize,
    *,
    crops: Literal[1, 3] = 1,
    mean: float = 0.45,  # these two: every checkpoint that the original code trained
    std: float = 0.225,
) -> PreprocessSpec:
    count = 1 if channels == 1 else 3
    return PreprocessSpec(
        size=size,
        short_side=min(size),
        crops=crops,
        mean=(mean,) * count,
        std=(std,) * count,
        channel_order="gray" if channels == 1 else "rgb",
        resize=resize,
    )


# Seconds of a segment of a timeline, for models whose clips are as long as the video.
_SEGMENT = 8.5


def covering(recipe: Recipe) -> Recipe:
    """`recipe` with as many windows as cover a video, where its frames do not cover it anyway."""
    return changed(recipe, {"clips": None}) if recipe.sampling.method in ("window", "strided") else recipe


def with_overrides(
    checkpoint: Checkpoint, *, recipe: RecipeName | None = None, fields: Mapping[str, Any] | None = None
) -> Checkpoint:
    """The model with a preset recipe in place of its own, then with single `fields` of the recipe changed.

    Fields are those of SamplingSpec and PreprocessSpec, `combine` and `activation`; `clips` may be "auto", and one
    number stands for each of a pair or of the channels. Another number of crops or another size also
    brings the short side that the published pipeline takes for it. The activation belongs to the model's head, so a
    preset keeps it.

    Raises:
        UsageError: a field that means nothing to this model, or a value that cannot be.
    """
    current = checkpoint.recipe
    try:
        if recipe is not None:
            chosen = preset(
                recipe,
                checkpoint.config,
                dataset=checkpoint.dataset,
                stride=current.sampling.stride if current.sampling.method in ("window", "strided") else None,
                processor=checkpoint.processor,
            )
            current = replace(chosen, activation=current.activation)
        if fields:
            current = changed(current, fields)
        return replace(checkpoint, recipe=current)
    except ValueError as error:
        raise UsageError(f"{checkpoint.name}: {error}") from error


def timeline_of(checkpoint: Checkpoint, *, length: float | None = None, hop: float | None = None) -> Timeline:
    """Segments of so many seconds, every `hop` seconds.

    The default are segments side by side that last as long as one clip, where clips have a length in seconds.

    Raises:
        UsageError: segments that cannot be.
    """
    sampling = checkpoint.sampling
    if length is None:
        timed = sampling.method in ("window", "strided") and sampling.fps is not None
        length = round(sampling.num_frames * sampling.stride / (sampling.fps or 1), 3) if timed else _SEGMENT
    try:
        return Timeline(length=length, hop=hop)
    except ValueError as error:
        raise UsageError(f"`timeline`: {error}") from error


# Fields that only some ways of sampling look at.
_ONLY_FOR = {
    "stride": ("window", "strided"),
    "placement": ("window", "strided"),
    "overrun": ("window", "strided"),
    "fps": ("window", "strided", "segments"),
}

_SAMPLING = tuple(field.name for field in fields(SamplingSpec))
_PREPROCESS = tuple(field.name for field in fields(PreprocessSpec))
_SCORES = ("combine", "activation")
RECIPE_FIELDS = (*_SAMPLING, *_PREPROCESS, *_SCORES)


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """`recipe` with other values in some fields, which it remembers. Raises ValueError."""
    require_known(changes, RECIPE_FIELDS)
    method = changes.get("method", recipe.sampling.method)
    for name in changes:
        if method not in _ONLY_FOR.get(name, (method,)):
            raise ValueError(f"`{name}` does not apply: the frames of a clip cover the whole video")
    values = {name: _settled(name, value, recipe.preprocess) for name, value in changes.items()}
    sampling = replace(recipe.sampling, **{name: values[name] for name in _SAMPLING if name in values})
    chosen = {name: values[name] for name in _PREPROCESS if name in values}
    preprocess = recipe.preprocess
    resized = any(
        chosen.get(name, getattr(preprocess, name)) != getattr(preprocess, name) for name in ("size", "crops")
    )
    if resized and "short_side" not in chosen:
        # Sizes are checked against each other, so the short side must be settled with them.
        probe = replace(preprocess, **{**chosen, "short_side": max(chosen.get("size", preprocess.size))})
        chosen["short_side"] = short_side(probe, probe.crops, sampling.method)
    made = replace(
        recipe,
        sampling=sampling,
        preprocess=replace(preprocess, **chosen),
        **{name: values[name] for name in _SCORES if name in values},
    )
    differing = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if _field(made, name) != _field(recipe, name)
    }
    return replace(made, changes={**recipe.changes, **differing})


def _field(recipe: Recipe, name: str) -> Any:
    part = recipe if name in _SCORES else recipe.sampling if name in _SAMPLING else recipe.preprocess
    return getattr(part, name)


def _settled(name: str, value: Any, preprocess: PreprocessSpec) -> Any:
    if name == "clips" and value == "auto":
        return None
    if name == "activation" and value is None:  # what `none` on a command line means for other fields
        return "none"
    if name in ("size", "stretch") and isinstance(value, int):
        return (value, value)
    if name in ("mean", "std") and isinstance(value, (int, float)):
        return (value,) * len(preprocess.mean)
    return value
