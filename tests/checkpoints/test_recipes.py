"""Each preset against the pipeline it is named after, as `pipelines` states it: frames and pixels, whole."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from testing import published as pipelines
from testing.published import SHAPES, pictures
from timesformer_cli.checkpoints.recipes import (
    RECIPES,
    RecipeName,
    changed,
    original_preprocess,
    preset,
    published_stride,
    short_side,
)
from timesformer_cli.flow import Frames, VideoInfo
from timesformer_cli.specs import PreprocessSpec, SamplingSpec, TimesformerConfig
from timesformer_cli.video.preprocess import make_views
from timesformer_cli.video.sampling import plan

BASE = TimesformerConfig()
HR = TimesformerConfig(num_frames=16, image_size=448)
LARGE = TimesformerConfig(num_frames=96)
LARGE_SSV2 = TimesformerConfig(num_frames=64)
SMALL = TimesformerConfig(image_size=32)

SSV2 = "something-something-v2"

# frames, frames a second
VIDEOS = [(300, 30.0), (250, 25.0), (90, 30.0), (299, 30000 / 1001), (48, 12.0), (1, 30.0), (5, 30.0), (2000, 60.0)]

# PyTorch fuses multiplications and additions that NumPy rounds apart.
FLOAT_TOLERANCE = 1e-5
# One level of a byte, for standard deviations of 0.5.
BYTE_TOLERANCE = 1 / 255 / 0.5 + 1e-6


def info(frames: int, fps: float) -> VideoInfo:
    return VideoInfo(np.arange(frames) / fps, fps, width=64, height=48, codec="h264")


def numbers(name: RecipeName, config: TimesformerConfig, video: VideoInfo, **known: object) -> list[int]:
    (window,) = plan(video, preset(name, config, **known).sampling)  # type: ignore[arg-type]
    (clip,) = window.clips.tolist()
    return clip


def views(name: RecipeName, config: TimesformerConfig, pixels: np.ndarray, **known: object) -> np.ndarray:
    recipe = preset(name, config, **known)  # type: ignore[arg-type]
    return make_views([Frames(pixels, np.zeros(len(pixels)))], recipe.preprocess)


class TestFrames:
    @pytest.mark.parametrize(("frames", "fps"), VIDEOS)
    @pytest.mark.parametrize(("config", "stride"), [(BASE, 32), (HR, 16), (LARGE, 4)])
    def test_original_and_paper(self, frames: int, fps: float, config: TimesformerConfig, stride: int) -> None:
        video, count = info(frames, fps), config.num_frames
        assert numbers("original", config, video) == pipelines.original_frames(frames, fps, count, stride)
        expected = pipelines.original_frames(frames, fps, count, stride, middle=True)
        assert numbers("paper", config, video, dataset="kinetics-600") == expected

    @pytest.mark.parametrize("name", ["original", "paper"])
    @pytest.mark.parametrize(("frames", "fps"), VIDEOS)
    @pytest.mark.parametrize("config", [BASE, HR, LARGE_SSV2])
    def test_something_something(self, name: RecipeName, frames: int, fps: float, config: TimesformerConfig) -> None:
        video = info(frames, fps)
        extracted = pipelines.extracted(video.times.tolist(), 1 / fps, 30)
        expected = pipelines.something_frames(extracted, config.num_frames)
        assert numbers(name, config, video, dataset=SSV2) == expected

    @pytest.mark.parametrize("name", ["transformers", "uniform"])
    @pytest.mark.parametrize("dataset", [None, SSV2])
    @pytest.mark.parametrize(("frames", "fps"), VIDEOS)
    @pytest.mark.parametrize("config", [BASE, HR, LARGE])
    def test_the_whole_video(
        self, name: RecipeName, dataset: str | None, frames: int, fps: float, config: TimesformerConfig
    ) -> None:
        expected = pipelines.transformers_frames(frames, config.num_frames)
        assert numbers(name, config, info(frames, fps), dataset=dataset) == expected

    @pytest.mark.parametrize("dataset", [None, SSV2])
    @pytest.mark.parametrize(("frames", "fps"), VIDEOS)
    @pytest.mark.parametrize("config", [BASE, HR, LARGE, LARGE_SSV2])
    @pytest.mark.parametrize("rate", [1, 4, 8, 20])
    def test_transformers_4(self, dataset: Any, frames: int, fps: float, config: TimesformerConfig, rate: int) -> None:
        """The rate that a model was trained with means nothing to it."""
        video, count = info(frames, fps), config.num_frames
        recipe = preset("transformers-4", config, dataset=dataset, stride=7)
        assert numbers("transformers-4", config, video, stride=7) == pipelines.transformers_4_frames(frames, count, 1)
        recipe = changed(recipe, {"stride": rate})
        assert plan(video, recipe.sampling)[0].clips.tolist() == [pipelines.transformers_4_frames(frames, count, rate)]
        by_fields = changed(
            preset("transformers", config, dataset=dataset), {"method": "window", "fps": None, "stride": rate}
        )
        assert (by_fields.sampling, by_fields.preprocess) == (recipe.sampling, recipe.preprocess)
        assert by_fields.combine == recipe.combine

    @pytest.mark.parametrize("dataset", [None, SSV2])
    @pytest.mark.parametrize(("frames", "fps"), VIDEOS)
    @pytest.mark.parametrize(("config", "stride"), [(BASE, 32), (HR, 16), (LARGE, 4)])
    def test_mmaction2(
        self, dataset: str | None, frames: int, fps: float, config: TimesformerConfig, stride: int
    ) -> None:
        expected = pipelines.mmaction2_frames(frames, config.num_frames, stride)
        assert numbers("mmaction2", config, info(frames, fps), dataset=dataset) == expected

    def test_all_differ_where_they_should(self) -> None:
        clips = {name: tuple(numbers(name, BASE, info(400, 25.0))) for name in RECIPES}
        assert len(set(clips.values())) == len(RECIPES) - 1
        assert clips["uniform"] == clips["transformers"]
        of_parts = tuple(numbers("original", BASE, info(400, 25.0), dataset=SSV2))
        assert of_parts not in clips.values()

    @pytest.mark.parametrize("name", ["original", "paper", "mmaction2"])
    def test_another_stride(self, name: RecipeName) -> None:
        video = info(600, 30.0)
        assert preset(name, BASE, stride=8).sampling == replace(preset(name, BASE).sampling, stride=8)
        assert numbers(name, BASE, video, stride=8) != numbers(name, BASE, video)


class TestPixels:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("name", ["original", "paper", "uniform"])
    @pytest.mark.parametrize(("dataset", "bgr"), [(None, False), ("kinetics-400", False), (SSV2, True)])
    def test_original(self, shape: tuple[int, int], name: RecipeName, dataset: str | None, bgr: bool) -> None:
        pixels = pictures(*shape)
        expected = pipelines.original_views(pixels, 32, bgr=bgr)
        actual = views(name, SMALL, pixels, dataset=dataset)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=FLOAT_TOLERANCE)
        other = pipelines.original_views(pixels, 32, bgr=not bgr)
        assert np.abs(actual - other).mean() > 0.1

    @pytest.mark.parametrize("shape", SHAPES)
    def test_mmaction2(self, shape: tuple[int, int]) -> None:
        pixels = pictures(*shape)
        expected = pipelines.mmaction2_views(pixels, 32)
        for dataset in (None, SSV2):
            actual = views("mmaction2", SMALL, pixels, dataset=dataset)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=BYTE_TOLERANCE)
        # Neither antialiasing nor the other pipeline's statistics would pass.
        for name in ("transformers", "original"):
            assert np.abs(views(name, SMALL, pixels)[:1] - expected[:1]).max() > 10 * BYTE_TOLERANCE

    @pytest.mark.parametrize(("config", "size"), [(BASE, 224), (HR, 448), (LARGE, 224)])
    def test_published_sizes(self, config: TimesformerConfig, size: int) -> None:
        pixels = pictures(320, 240, count=1)
        original = pipelines.original_views(pixels, size)
        np.testing.assert_allclose(views("original", config, pixels), original, rtol=0, atol=FLOAT_TOLERANCE)
        mmaction2 = pipelines.mmaction2_views(pixels, size)
        np.testing.assert_allclose(views("mmaction2", config, pixels), mmaction2, rtol=0, atol=BYTE_TOLERANCE)
        assert views("transformers", config, pixels).shape == (1, 1, 3, size, size)

    def test_a_processor_is_for_transformers_alone(self) -> None:
        processor = PreprocessSpec(size=(32, 32), short_side=40, mean=(0.5,) * 3, std=(0.5,) * 3, resize="antialias")
        for name in RECIPES:
            uses_it = preset(name, SMALL, processor=processor).preprocess == processor
            assert uses_it == name.startswith("transformers")


class TestPresets:
    def test_names(self) -> None:
        assert [preset(name, BASE).name for name in RECIPES] == list(RECIPES)

    def test_an_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(
            ValueError, match=r"'pytorchvideo'; known are original, paper, transformers, transformers-4, mm"
        ):
            preset("pytorchvideo", BASE)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "combine"),
        [
            ("original", "logits"),
            ("paper", "probabilities"),
            ("transformers", "logits"),
            ("transformers-4", "logits"),
            ("mmaction2", "probabilities"),
            ("uniform", "logits"),
        ],
    )
    @pytest.mark.parametrize("dataset", [None, SSV2])
    def test_combine(self, name: RecipeName, combine: str, dataset: str | None) -> None:
        assert preset(name, BASE, dataset=dataset).combine == combine  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", RECIPES)
    @pytest.mark.parametrize("dataset", [None, SSV2])
    def test_models_of_one_channel_and_of_other_shapes(self, name: RecipeName, dataset: str | None) -> None:
        config = TimesformerConfig(num_channels=1, image_size=(32, 48), num_frames=4)
        recipe = preset(name, config, dataset=dataset)  # type: ignore[arg-type]
        assert recipe.preprocess.channel_order == "gray"
        assert len(recipe.preprocess.mean) == len(recipe.preprocess.std) == 1
        actual = views(name, config, pictures(64, 50), dataset=dataset)
        assert actual.shape == (recipe.preprocess.crops, 2, 1, 32, 48)
        gray = np.repeat(pictures(64, 50)[..., :1], 3, axis=-1)
        as_rgb = views(name, replace(config, num_channels=3), gray)
        np.testing.assert_allclose(views(name, config, gray), as_rgb[:, :, :1], rtol=0, atol=2e-6)

    @pytest.mark.parametrize(("frames", "stride"), [(8, 32), (16, 16), (96, 4), (32, 8), (10, 25.6), (64, 4), (300, 1)])
    def test_published_stride(self, frames: int, stride: float) -> None:
        assert published_stride(frames) == stride
        sampling = preset("original", TimesformerConfig(num_frames=frames)).sampling
        assert sampling == SamplingSpec(num_frames=frames, stride=stride, clips=1)

    @pytest.mark.parametrize(
        ("name", "size", "one", "three"),
        [
            ("original", 224, 256, 224),
            ("original", 448, 448, 448),
            ("original", 112, 128, 112),
            ("original", (224, 336), 256, 224),
            ("mmaction2", 224, 256, 224),
            ("transformers", 224, 224, 224),
        ],
    )
    def test_short_side(self, name: RecipeName, size: int | tuple[int, int], one: int, three: int) -> None:
        preprocess = preset(name, TimesformerConfig(image_size=size)).preprocess
        assert (short_side(preprocess, 1), short_side(preprocess, 3)) == (one, three)

    def test_original_preprocess_with_one_crop(self) -> None:
        assert original_preprocess((224, 224), 3, crops=1) == PreprocessSpec(size=(224, 224), short_side=256)
