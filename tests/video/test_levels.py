"""Views as bytes, for models that normalise them: the same pictures as those that are normalised here."""

import numpy as np
import pytest

from timesformer_cli.flow import Frames
from timesformer_cli.specs import ChannelOrder, PreprocessSpec, Resize
from timesformer_cli.video.preprocess import make_views, normalised, to_levels


def spec_of(resize: Resize, order: ChannelOrder) -> PreprocessSpec:
    channels = 1 if order == "gray" else 3
    mean, std = (0.45, 0.4, 0.3)[:channels], (0.225, 0.25, 0.5)[:channels]
    return PreprocessSpec(size=(32, 32), short_side=40, crops=3, mean=mean, std=std, channel_order=order, resize=resize)


@pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("resize", ["float", "antialias", "opencv"])
def test_levels_are_those_of_the_normalised_views(resize: Resize, order: ChannelOrder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 90, 3), np.uint8)
    clip, spec = Frames(pixels, np.arange(2.0)), spec_of(resize, order)
    views, levels = make_views([clip], spec), make_views([clip], spec, levels=True)
    assert (levels.dtype, levels.shape) == (np.uint8, views.shape)
    np.testing.assert_array_equal(levels, to_levels(views, spec))
    assert to_levels(levels, spec) is levels
    # Frames that are normalised before they are resized lose up to half a level.
    lost = 0.5 / 255 / min(spec.std) if resize == "float" else 0
    np.testing.assert_allclose(normalised(levels, spec), views, rtol=0, atol=lost + 1e-6)
