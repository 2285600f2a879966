"""Processors' files of transformers, read and written."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testing.processors import HALF, NEWER, OLDER, PUBLISHED, WRITTEN, spec
from timesformer_cli import TimesformerConfig
from timesformer_cli.checkpoints.processors import has_original_statistics, read, write
from timesformer_cli.specs import PreprocessSpec

RGB = TimesformerConfig()
GRAY = TimesformerConfig(num_channels=1)

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # The published files, as they stand: that another pipeline is meant is not theirs to say.
        (PUBLISHED | NEWER, spec(mean=(0.45,) * 3, std=(0.225,) * 3)),
        (PUBLISHED | OLDER, spec(mean=(0.45,) * 3, std=(0.225,) * 3)),
        (
            PUBLISHED | NEWER | {"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}},
            spec(448, mean=(0.45,) * 3, std=(0.225,) * 3),
        ),
        ({}, spec()),
        ({"size": None, "image_mean": None, "crop_size": None, "resample": None, "do_resize": None}, spec()),
        # One number, of the first generation, is the crop too; in later ones the crop has a default of its own.
        ({"size": 448}, spec(448)),
        ({"size": {"shortest_edge": 448}}, spec(224, 448)),
        ({"size": {"shortest_edge": 256}, "crop_size": 192}, spec(192, 256)),
        ({"size": 256, "crop_size": {"height": 192, "width": 224}}, spec((192, 224), 256)),
        ({"size": 112, "do_center_crop": False}, spec(112)),
        ({"size": {"shortest_edge": 112}, "do_center_crop": False, "crop_size": 224}, spec(112)),
        (
            {"size": {"height": 120, "width": 160}, "do_center_crop": False},
            spec((120, 160), stretch=(120, 160)),
        ),
        (
            {"size": {"height": 256, "width": 320}, "crop_size": {"height": 224, "width": 256}},
            spec((224, 256), stretch=(256, 320)),
        ),
        ({"size": {"height": 256, "width": 256}}, spec(224, stretch=(256, 256))),
        ({"size": {"width": 224, "height": 224}, "crop_size": 224}, spec(stretch=(224, 224))),
        ({"resample": 0}, spec(interpolation="nearest")),
        ({"resample": 3}, spec(interpolation="bicubic")),
        ({"image_mean": 0.25, "image_std": 0.125}, spec(mean=(0.25,) * 3, std=(0.125,) * 3)),
        ({"do_normalize": False}, spec(mean=(0.0,) * 3, std=(1.0,) * 3)),
        ({"do_rescale": False, "do_normalize": False}, spec(mean=(0.0,) * 3, std=(1 / 255,) * 3)),
        ({"do_rescale": False, "image_mean": 127.5, "image_std": 127.5}, spec()),
        ({"rescale_factor": 1 / 127.5}, spec(mean=(0.25,) * 3, std=(0.25,) * 3)),
        ({"video_processor_type": "TimesformerVideoProcessor"}, spec(**IMAGENET)),
        ({"video_processor_type": "TimesformerVideoProcessor"} | HALF, spec()),
        ({"video_processor_type": "VideoMAEVideoProcessor"}, spec()),
        ({"image_processor_type": "VideoMAEImageProcessorFast"}, spec()),
        ({"image_processor_type": "VideoMAEImageProcessorPil"}, spec()),
        ({"processor_class": "Whatever", "do_convert_rgb": True, "do_sample_frames": False}, spec()),
    ],
)
def test_what_files_say(values: dict[str, Any], expected: PreprocessSpec) -> None:
    assert read(values, RGB) == expected


@pytest.mark.parametrize(
    ("values", "mean"), [(HALF, 0.5), ({"image_mean": [0.45], "image_std": [0.225]}, 0.45), ({"image_mean": 0.2}, 0.2)]
)
def test_gray_networks_take_one_statistic(values: dict[str, Any], mean: float) -> None:
    preprocess = read(values, GRAY)
    assert (preprocess.channel_order, preprocess.mean, len(preprocess.std)) == ("gray", (mean,), 1)


@pytest.mark.parametrize("preprocess", WRITTEN)
def test_what_is_written_is_read_back(preprocess: PreprocessSpec) -> None:
    values = write(preprocess)
    assert read(json.loads(json.dumps(values)), RGB) == preprocess
    gray = replace(preprocess, mean=(0.4,), std=(0.3,), channel_order="gray")
    assert read(write(gray), GRAY) == gray


def test_the_original_statistics() -> None:
    original = PreprocessSpec(size=(224, 224), short_side=256)
    assert has_original_statistics(original)
    assert has_original_statistics(read(write(original), RGB))
    assert has_original_statistics(read(PUBLISHED | NEWER | {"rescale_factor": 0.00392156862745098}, RGB))
    assert has_original_statistics(read(PUBLISHED, GRAY))
    assert not has_original_statistics(read({}, RGB))
    assert not has_original_statistics(read({"video_processor_type": "TimesformerVideoProcessor"}, RGB))
    assert not has_original_statistics(read(PUBLISHED | {"do_normalize": False}, RGB))
    for fields in ({"mean": (0.45, 0.45, 0.5)}, {"std": (0.225, 0.5, 0.225)}):
        assert not has_original_statistics(replace(original, **fields))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"size": "large"}, "size is 'large'"),
        ({"size": True}, "size is True"),
        ({"size": 0}, "size is 0"),
        ({"size": [224, 224]}, "size is [224, 224]"),
        ({"size": {"longest_edge": 3}}, "size is {'longest_edge': 3}"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "longest_edge"),
        ({"size": {"shortest_edge": 2.5}}, "size is 2.5"),
        ({"size": {"height": 224}}, "size is {'height': 224}"),
        ({"crop_size": [224]}, "crop_size is [224]"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size is {'shortest_edge': 224}"),
        ({"crop_size": 300}, "crop_size is (300, 300): larger than frames of size 224"),
        ({"size": {"shortest_edge": 112}}, "crop_size is (224, 224), which is the default: larger than"),
        ({"size": {"height": 112, "width": 448}}, "black borders"),
        ({"size": {"height": 448, "width": 112}}, "black borders"),
        (
            {"resample": 6},
            "resample is 6; expected one of 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming",
        ),
        ({"resample": -1}, "resample is -1"),
        ({"resample": True}, "resample is True"),
        ({"resample": "bilinear"}, "resample is 'bilinear'"),
        ({"do_resize": False}, "do_resize is false, but videos differ in size"),
        ({"image_mean": "gray"}, "image_mean is 'gray'"),
        ({"image_mean": [0.5]}, "mean is (0.5,)"),
        ({"image_mean": {"r": 0.5}}, "image_mean is {'r': 0.5}"),
        ({"image_std": [0, 0, 0]}, "std is"),
        ({"rescale_factor": 0}, "rescale_factor 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor '1/255'"),
        (
            {"image_processor_type": "VivitImageProcessor"},
            "image_processor_type is 'VivitImageProcessor'; expected one of VideoMAEFeatureExtractor, VideoMAEImage",
        ),
        ({"video_processor_type": 5}, "video_processor_type is 5"),
    ],
)
def test_what_is_not_understood_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        read(values, RGB)
    assert "\n" not in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 500) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        | st.fixed_dictionaries({"shortest_edge": inner})
        | st.fixed_dictionaries({"height": inner, "width": inner})
    ),
    max_leaves=4,
)
KEYS = sorted({**PUBLISHED, **NEWER, **OLDER, "video_processor_type": ""})


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=3), st.sampled_from([RGB, GRAY]))
def test_any_json_is_a_recipe_or_one_error(values: dict[str, Any], config: TimesformerConfig) -> None:
    with suppress(ValueError):  # any other exception fails the test
        assert isinstance(read(values, config), PreprocessSpec)


def test_nothing_here_imports_torch() -> None:
    code = "import sys, timesformer_cli.checkpoints.processors; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
