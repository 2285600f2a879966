"""The preset that is named after transformers against its image processor."""

import numpy as np
import pytest

from testing.parity import processor_views
from testing.published import SHAPES, pictures
from timesformer_cli import TimesformerConfig
from timesformer_cli.checkpoints.recipes import preset
from timesformer_cli.flow import Frames
from timesformer_cli.specs import Dataset
from timesformer_cli.video.preprocess import make_views


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels(shape: tuple[int, int]) -> None:
    """The class that the published `preprocessor_config.json` names, with what that file says."""
    pixels = pictures(*shape)
    expected = processor_views(
        pixels,
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.45] * 3,
        image_std=[0.225] * 3,
    )
    datasets: tuple[Dataset | None, ...] = (None, "something-something-v2")
    for dataset in datasets:
        spec = preset("transformers", TimesformerConfig(image_size=32), dataset=dataset).preprocess
        views = make_views([Frames(pixels, np.zeros(len(pixels)))], spec)
        np.testing.assert_allclose(views, expected, rtol=0, atol=2e-6)
