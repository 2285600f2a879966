"""Views against two references: the original's steps on whole frames in PyTorch, and transformers' processor."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VideoMAEImageProcessorPil

from timesformer_cli import preprocess
from timesformer_cli.preprocess import crop_names, make_views
from timesformer_cli.records import Frames
from timesformer_cli.specs import PreprocessSpec

# PyTorch's kernel fuses multiplications and additions that NumPy rounds apart: a few units in the last place.
FLOAT_TOLERANCE = 2e-6

# (width, height): landscape, portrait, square, smaller than the crop, odd, extreme.
SIZES = [(320, 240), (240, 320), (256, 256), (341, 256), (64, 48), (639, 361), (1280, 16), (16, 1280), (1, 1)]


def noise(width: int, height: int, frames: int = 2, seed: int = 0) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(frames, dtype=np.float64))


def original_views(clip: Frames, size: int, short_side: int, crops: int) -> np.ndarray:
    """(crops, T, C, H, W): the whole frames normalised, resized, and only then cropped."""
    x = (torch.from_numpy(clip.pixels).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    height, width = x.shape[2:]
    if min(height, width) != short_side:
        if width < height:
            to = (math.floor(height / width * short_side), short_side)
        else:
            to = (short_side, math.floor(width / height * short_side))
        x = F.interpolate(x, size=to, mode="bilinear", align_corners=False)
    height, width = x.shape[2:]
    views = []
    for position in [1] if crops == 1 else [0, 1, 2]:
        top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
        if height > width:
            top = (0, top, height - size)[position]
        else:
            left = (0, left, width - size)[position]
        views.append(x[:, :, top : top + size, left : left + size])
    return torch.stack(views).numpy()


@pytest.mark.parametrize(("short_side", "crops"), [(224, 3), (256, 1)])
@pytest.mark.parametrize("shape", SIZES)
def test_float_is_the_original_s(shape: tuple[int, int], short_side: int, crops: int) -> None:
    clip = noise(*shape)
    views = make_views([clip], PreprocessSpec(size=(224, 224), short_side=short_side, crops=crops))
    assert views.shape == (crops, 2, 3, 224, 224)
    assert views.dtype == np.float32
    assert views.flags.c_contiguous
    np.testing.assert_allclose(views, original_views(clip, 224, short_side, crops), rtol=0, atol=FLOAT_TOLERANCE)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 64), st.integers(0, 32), st.sampled_from([1, 3]))
def test_float_is_the_original_s_at_any_size(width: int, height: int, size: int, more: int, crops: int) -> None:
    clip = noise(width, height, frames=1)
    views = make_views([clip], PreprocessSpec(size=(size, size), short_side=size + more, crops=crops))
    expected = original_views(clip, size, size + more, crops)
    np.testing.assert_allclose(views, expected, rtol=0, atol=FLOAT_TOLERANCE)


def test_a_frame_of_the_right_size_is_only_normalised() -> None:
    clip = noise(32, 32)
    views = make_views([clip], PreprocessSpec(size=(32, 32), short_side=32))
    plain = (torch.from_numpy(clip.pixels).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    np.testing.assert_array_equal(views[0], plain.numpy())


@pytest.mark.parametrize("shape", SIZES[:-1])  # the processor takes a frame of one pixel for a gray one
def test_antialias_is_the_image_processor_s(shape: tuple[int, int]) -> None:
    """The same bytes as transformers' Pillow processor; only the normalisation rounds differently."""
    clip = noise(*shape)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    processor = VideoMAEImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 36}, image_mean=mean, image_std=std
    )
    expected = np.asarray(processor(list(clip.pixels), return_tensors="np")["pixel_values"])
    spec = PreprocessSpec(size=(32, 36), short_side=40, mean=mean, std=std, resize="antialias")
    views = make_views([clip], spec)
    np.testing.assert_allclose(views, expected, rtol=0, atol=2e-6)


def test_stretch_is_the_image_processor_s() -> None:
    clip = noise(101, 57)
    size = {"height": 32, "width": 48}
    processor = VideoMAEImageProcessorPil(size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    expected = np.asarray(processor(list(clip.pixels), return_tensors="np")["pixel_values"])
    spec = PreprocessSpec(size=(32, 48), short_side=32, mean=(0.5,) * 3, std=(0.5,) * 3, resize="stretch")
    np.testing.assert_allclose(make_views([clip], spec), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(1280, 16), (16, 1280), (640, 360)])
@pytest.mark.parametrize("crops", [1, 3])
def test_extreme_frames_are_resized_in_part(
    shape: tuple[int, int], crops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the whole resized frame would be too large, each byte is within one level of it."""
    spec = PreprocessSpec(
        size=(64, 64), short_side=64, crops=crops, mean=(0.0,) * 3, std=(1 / 255,) * 3, resize="antialias"
    )
    clip = noise(*shape)
    whole = make_views([clip], spec)
    monkeypatch.setattr(preprocess, "_LARGEST_RESIZED", 0)
    part = make_views([clip], spec)
    assert np.abs(part - whole).max() < 1.001


@pytest.mark.parametrize("resize", ["float", "antialias"])
def test_a_frame_that_would_grow_huge_costs_little(resize: str) -> None:
    # Resized whole, this frame alone would be 64 x 1,048,576 pixels.
    spec = PreprocessSpec(size=(64, 64), short_side=64, crops=3, resize=resize)
    views = make_views([noise(16384, 1, frames=1)], spec)
    assert views.shape == (3, 1, 3, 64, 64)
    assert np.isfinite(views).all()


@pytest.mark.parametrize(
    ("shape", "crops", "names"),
    [
        ((320, 240), 3, ("left", "center", "right")),
        ((240, 320), 3, ("top", "center", "bottom")),
        ((240, 240), 3, ("left", "center", "right")),
        ((240, 320), 1, ("center",)),
    ],
)
def test_crop_names(shape: tuple[int, int], crops: int, names: tuple[str, ...]) -> None:
    assert crop_names(*shape, PreprocessSpec(size=(224, 224), short_side=224, crops=crops)) == names


@pytest.mark.parametrize("resize", ["float", "antialias"])
@pytest.mark.parametrize("portrait", [False, True])
def test_crops_show_what_their_names_say(resize: str, portrait: bool) -> None:
    # Red grows from black to white along the longer side.
    ramp = np.zeros((1, 48, 96, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 96).astype(np.uint8)
    pixels = ramp.transpose(0, 2, 1, 3) if portrait else ramp
    spec = PreprocessSpec(size=(24, 24), short_side=24, crops=3, resize=resize)
    means = make_views([Frames(np.ascontiguousarray(pixels), np.zeros(1))], spec)[:, 0, 0].mean((1, 2))
    assert means[0] < means[1] < means[2]
    assert means[1] == pytest.approx((0.5 - 0.45) / 0.225, abs=0.05)


@pytest.mark.parametrize("resize", ["float", "antialias"])
@pytest.mark.parametrize("size", [(24, 64), (64, 24)])
@pytest.mark.parametrize("shape", [(100, 80), (80, 100), (90, 90), (400, 20), (20, 400)])
@pytest.mark.parametrize("crops", [1, 3])
def test_crops_that_are_not_square(resize: str, size: tuple[int, int], shape: tuple[int, int], crops: int) -> None:
    flat = np.full((1, shape[1], shape[0], 3), 255, dtype=np.uint8)
    spec = PreprocessSpec(size=size, short_side=24, crops=crops, resize=resize)
    views = make_views([Frames(flat, np.zeros(1))], spec)
    assert views.shape == (crops, 1, 3, *size)
    np.testing.assert_allclose(views, (1 - 0.45) / 0.225, rtol=1e-5)  # nothing was padded


@pytest.mark.parametrize("resize", ["float", "antialias"])
def test_channel_orders(resize: str) -> None:
    clip = noise(50, 40)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    rgb = make_views([clip], PreprocessSpec(size=(24, 24), short_side=24, mean=mean, std=std, resize=resize))
    bgr = make_views(
        [clip],
        PreprocessSpec(
            size=(24, 24), short_side=24, mean=mean[::-1], std=std[::-1], channel_order="bgr", resize=resize
        ),
    )
    np.testing.assert_array_equal(bgr, rgb[:, :, ::-1])


def test_gray_is_luma() -> None:
    spec = {"size": (24, 24), "short_side": 24, "mean": (0.0,), "std": (1 / 255,), "channel_order": "gray"}
    clip = noise(24, 24)
    luma = clip.pixels @ np.array([0.299, 0.587, 0.114])
    exact = make_views([clip], PreprocessSpec(**spec))
    rounded = make_views([clip], PreprocessSpec(**spec, resize="antialias"))
    assert exact.shape == (1, 2, 1, 24, 24)
    np.testing.assert_allclose(exact[0, :, 0], luma, atol=1e-3)
    np.testing.assert_allclose(rounded[0, :, 0], luma, atol=0.51)
    np.testing.assert_allclose(rounded, np.round(rounded), atol=1e-3)


def test_views_go_clip_by_clip() -> None:
    spec = PreprocessSpec(size=(24, 24), short_side=24, crops=3)
    clips = [noise(50, 40, seed=1), noise(50, 40, seed=2)]
    both = make_views(clips, spec)
    np.testing.assert_array_equal(both, np.concatenate([make_views([clip], spec) for clip in clips]))
