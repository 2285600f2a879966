"""Processors' files against the classes of transformers: their defaults, and what they make of frames."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from testing.clips import noise
from testing.parity import processor_views
from testing.processors import HALF, NEWER, OLDER, PUBLISHED, WRITTEN
from timesformer_cli import TimesformerConfig
from timesformer_cli.checkpoints.processors import read, write
from timesformer_cli.specs import PreprocessSpec
from timesformer_cli.video.preprocess import make_views

RGB = TimesformerConfig()


@pytest.mark.parametrize(
    ("module", "name", "key"),
    [
        ("videomae.image_processing_pil_videomae", "VideoMAEImageProcessorPil", "image_processor_type"),
        ("videomae.video_processing_videomae", "VideoMAEVideoProcessor", "video_processor_type"),
        ("timesformer.video_processing_timesformer", "TimesformerVideoProcessor", "video_processor_type"),
    ],
)
def test_the_defaults_are_those_of_the_classes(module: str, name: str, key: str) -> None:
    reference = getattr(import_module(f"transformers.models.{module}"), name)
    names = ("size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor")
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    stated = {field: getattr(reference, field) for field in names + steps} | {"resample": int(reference.resample)}
    assert read({key: name}, RGB) == read(stated, RGB)


def check(values: dict[str, Any], preprocess: PreprocessSpec, width: int, height: int) -> None:
    clip = noise(width, height)
    expected = processor_views(clip.pixels, **values)
    np.testing.assert_allclose(make_views([clip], preprocess), expected, rtol=2e-6, atol=2e-6)


SHAPES = pytest.mark.parametrize(("width", "height"), [(320, 180), (90, 160), (341, 257)])


@pytest.mark.parametrize(
    "values",
    [
        {},
        PUBLISHED | NEWER,
        PUBLISHED | OLDER,
        HALF | {"size": {"shortest_edge": 256}, "crop_size": {"height": 192, "width": 224}},
        HALF | {"size": {"shortest_edge": 64}, "crop_size": 48},
        {"size": {"shortest_edge": 300}},
        NEWER | {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"size": {"height": 120, "width": 160}, "do_center_crop": False},
        {"size": {"height": 120, "width": 160}, "crop_size": {"height": 111, "width": 96}},
        {"size": {"height": 240, "width": 225}},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
    ],
)
@SHAPES
def test_views_are_those_of_transformers(values: dict[str, Any], width: int, height: int) -> None:
    check(values, read(values, RGB), width, height)


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("size", [{"shortest_edge": 64}, {"height": 70, "width": 90}])
@SHAPES
def test_every_filter_of_transformers(resample: int, size: dict[str, int], width: int, height: int) -> None:
    values = {"resample": resample, "size": size, "crop_size": 64}
    check(values, read(values, RGB), width, height)


@pytest.mark.parametrize("preprocess", WRITTEN)
def test_what_is_written_says_the_same_to_transformers(preprocess: PreprocessSpec) -> None:
    check(write(preprocess), preprocess, 320, 180)
