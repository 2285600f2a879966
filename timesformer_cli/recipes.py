"""Published pipelines: which frames, which pixels, and how scores are combined. Pure, and quick to import."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, get_args

from timesformer_cli.specs import (
    Dataset,
    PreprocessSpec,
    Recipe,
    Resize,
    SamplingMethod,
    SamplingSpec,
    TimesformerConfig,
)

RecipeName = Literal["original", "paper", "transformers", "mmaction2", "uniform"]

# What each is, in a line of help.
RECIPES: Mapping[RecipeName, str] = MappingProxyType(
    {
        "original": "the authors' released code: a clip at the start of the video, three crops, logits averaged",
        "paper": "the paper's appendix: as original, but the clip in the middle, probabilities averaged",
        "transformers": "its video-classification pipeline: frames from the whole video, one centre crop",
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
    colours of its own. `stride`: the one they were trained with, if it is not the published one.
    `processor`: what the model's image processor says, which `transformers` alone goes by.

    Raises:
        ValueError: no such pipeline, or a stride that cannot be.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe is {name!r}; known are {', '.join(get_args(RecipeName))}")
    frames = config.num_frames
    if stride is None:
        stride = published_stride(frames)
    if name == "transformers":
        return Recipe(
            name=name,
            sampling=SamplingSpec(num_frames=frames, method="uniform", clips=1),
            # Without a processor, what the Hub has beside the published checkpoints.
            preprocess=processor or _preprocess(config.image_hw, config.num_channels, "antialias"),
        )
    if name == "mmaction2":
        return Recipe(
            name=name,
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
        )
    original = _original(config, dataset, stride)
    if name == "paper":
        sampling = replace(original.sampling, placement="middle")
        return replace(original, name=name, sampling=sampling, combine="probabilities")
    if name == "uniform":
        return replace(original, name=name, sampling=SamplingSpec(num_frames=frames, method="uniform", clips=1))
    return original


def published_stride(num_frames: int) -> float:
    """The stride that a model of that many frames was published with: 8x32, 16x16 or 96x4.

    The first two cover 256 frames at 30 a second, and so do, as nearly as they can, the windows of
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
        # Pictures that FFmpeg extracted at 30 frames a second, read with OpenCV as blue, green and
        # red, are never turned to RGB, though the settings ask for it: that step is skipped for this model.
        sampling = replace(sampling, method="segments")
        if preprocess.channel_order == "rgb":
            preprocess = replace(preprocess, channel_order="bgr")
    return Recipe(name="original", sampling=sampling, preprocess=preprocess)


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
