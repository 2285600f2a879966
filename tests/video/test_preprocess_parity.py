"""Views against those of transformers' image processor."""

import numpy as np
import pytest

from testing.clips import SIZES, noise
from testing.parity import processor_views
from timesformer_cli.specs import PreprocessSpec
from timesformer_cli.video.preprocess import make_views


@pytest.mark.parametrize("shape", SIZES[:-1])  # the processor takes a frame of one pixel for a gray one
def test_antialias_is_the_image_processor_s(shape: tuple[int, int]) -> None:
    """The same bytes as transformers' Pillow processor; only the normalisation rounds differently."""
    clip = noise(*shape)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    size, crop_size = {"shortest_edge": 40}, {"height": 32, "width": 36}
    expected = processor_views(clip.pixels, size=size, crop_size=crop_size, image_mean=mean, image_std=std)
    spec = PreprocessSpec(size=(32, 36), short_side=40, mean=mean, std=std, resize="antialias")
    views = make_views([clip], spec)
    np.testing.assert_allclose(views, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("crop", [(32, 48), (20, 31)])
def test_stretch_is_the_image_processor_s(crop: tuple[int, int]) -> None:
    clip = noise(101, 57)
    expected = processor_views(
        clip.pixels,
        size={"height": 32, "width": 48},
        crop_size={"height": crop[0], "width": crop[1]},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    spec = PreprocessSpec(
        size=crop, short_side=min(crop), stretch=(32, 48), mean=(0.5,) * 3, std=(0.5,) * 3, resize="antialias"
    )
    np.testing.assert_allclose(make_views([clip], spec), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "number"), [("nearest", 0), ("lanczos", 1), ("bilinear", 2), ("bicubic", 3), ("box", 4), ("hamming", 5)]
)
def test_interpolations_are_pillow_s(name: str, number: int) -> None:
    clip = noise(101, 57)
    expected = processor_views(
        clip.pixels,
        size={"shortest_edge": 33},
        crop_size={"height": 32, "width": 36},
        resample=number,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    settings = {"size": (32, 36), "short_side": 33, "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": "antialias"}
    np.testing.assert_allclose(
        make_views([clip], PreprocessSpec(**settings, interpolation=name)), expected, rtol=0, atol=2e-6
    )
    if name != "bilinear":
        assert np.abs(make_views([clip], PreprocessSpec(**settings)) - expected).max() > 0.02
