"""Views against references: the original's steps on whole frames, and OpenCV's bytes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from testing.clips import SIZES, noise
from timesformer_cli.flow import Frames
from timesformer_cli.specs import PreprocessSpec
from timesformer_cli.video import preprocess
from timesformer_cli.video.preprocess import crop_names, draw_framing, framings, make_view, make_views

# PyTorch's kernel fuses multiplications and additions that NumPy rounds apart: a few units in the last place.
FLOAT_TOLERANCE = 2e-6


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


@settings(max_examples=60)
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


@pytest.mark.parametrize("resize", ["float", "opencv"])
def test_stretch_without_antialiasing(resize: str) -> None:
    """The same as frames of that shape that were resized to it before, by the rule of `resize`."""
    clip = noise(101, 57)
    spec = PreprocessSpec(
        size=(20, 30), short_side=20, stretch=(33, 49), mean=(0.0,) * 3, std=(1.0,) * 3, resize=resize
    )
    whole = torch.from_numpy(clip.pixels).permute(0, 3, 1, 2).float()
    whole = F.interpolate(whole, size=(33, 49), mode="bilinear", align_corners=False) / 255
    top, left = (7, 10) if resize == "float" else (6, 9)
    expected = whole[None, :, :, top : top + 20, left : left + 30].numpy()
    tolerance = 1e-5 if resize == "float" else 1 / 255 + 1e-5
    np.testing.assert_allclose(make_views([clip], spec), expected, rtol=0, atol=tolerance)


# Recorded by running cv2.resize, with its default INTER_LINEAR, of OpenCV 4.5.5 on 9 x 13 bytes.
OPENCV_SOURCE = (np.arange(9 * 13) * 37 % 256).astype(np.uint8).reshape(9, 13)
OPENCV = [
    [
        [69, 82, 162, 133, 67, 147],
        [188, 68, 93, 173, 165, 77],
        [119, 199, 73, 103, 183, 157],
        [49, 129, 209, 33, 114, 194],
    ],
    [
        [0, 24, 52, 80, 109, 137, 165, 193, 222, 54, 23, 51, 79, 107, 136, 164, 188],
        [141, 61, 33, 61, 89, 118, 146, 174, 203, 157, 78, 31, 60, 88, 116, 145, 169],
        [213, 134, 66, 38, 66, 94, 123, 151, 179, 208, 151, 76, 36, 65, 93, 121, 145],
        [190, 214, 150, 41, 45, 71, 99, 128, 156, 184, 213, 175, 43, 47, 70, 98, 122],
        [167, 191, 206, 176, 33, 48, 76, 104, 133, 161, 189, 208, 201, 58, 46, 75, 99],
        [144, 167, 196, 207, 162, 72, 53, 81, 110, 138, 166, 194, 217, 172, 89, 52, 76],
        [120, 144, 172, 201, 229, 144, 80, 58, 86, 114, 143, 171, 199, 228, 162, 91, 52],
        [97, 121, 149, 178, 206, 234, 157, 59, 63, 91, 120, 148, 176, 204, 233, 171, 29],
        [74, 98, 126, 154, 182, 211, 224, 183, 40, 68, 96, 125, 153, 181, 210, 147, 6],
        [51, 74, 103, 131, 159, 188, 216, 184, 17, 45, 73, 101, 130, 158, 186, 181, 143],
        [27, 51, 80, 108, 136, 164, 193, 183, 89, 44, 50, 78, 106, 135, 163, 191, 215],
        [8, 32, 60, 88, 117, 145, 173, 201, 230, 62, 31, 59, 87, 115, 144, 172, 196],
    ],
]


@pytest.mark.parametrize("expected", OPENCV, ids=["smaller", "larger"])
def test_opencv_is_opencv_s(expected: list[list[int]]) -> None:
    size = np.shape(expected)
    spec = PreprocessSpec(
        size=size, short_side=min(size), stretch=size, mean=(0.0,) * 3, std=(1 / 255,) * 3, resize="opencv"
    )
    pixels = np.stack([OPENCV_SOURCE, 255 - OPENCV_SOURCE, OPENCV_SOURCE], axis=-1)[None]
    views = make_views([Frames(pixels, np.zeros(1))], spec)
    np.testing.assert_array_equal(np.rint(views[0, 0, ::2]), [expected, expected])
    np.testing.assert_allclose(views, np.rint(views), rtol=0, atol=1e-4)
    inverted = np.rint(views[0, 0, 1]) - (255 - np.array(expected))
    assert np.abs(inverted).max() <= 1


@pytest.mark.parametrize("portrait", [False, True])
def test_opencv_crops_are_mmaction2_s(portrait: bool) -> None:
    # 37 pixels leave a margin of 13 beside a crop of 24: crops begin at 0, 6 and 12, not 13.
    pixels = noise(24, 37).pixels if portrait else noise(37, 24).pixels
    spec = PreprocessSpec(size=(24, 24), short_side=24, crops=3, mean=(0.0,) * 3, std=(1 / 255,) * 3, resize="opencv")
    views = make_views([Frames(pixels, np.zeros(2))], spec)
    for view, start in zip(views, (0, 6, 12), strict=True):
        expected = pixels[:, start : start + 24] if portrait else pixels[:, :, start : start + 24]
        np.testing.assert_allclose(view, expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(make_views([Frames(pixels, np.zeros(2))], replace(spec, crops=1)), views[1:2])


@pytest.mark.parametrize(("width", "resized"), [(340, 298), (341, 298), (342, 299), (427, 374)])
def test_opencv_rounds_the_long_side(width: int, resized: int) -> None:
    # As mmcv rescales: int(427 * (224 / 256) + 0.5) is 374, where the other pipelines cut it down to 373.
    assert preprocess._resized(256, width, PreprocessSpec(size=(224, 224), short_side=224, resize="opencv")) == (
        224,
        resized,
    )


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


@pytest.mark.parametrize("resize", ["float", "antialias", "opencv"])
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


@pytest.mark.parametrize("resize", ["float", "antialias", "opencv"])
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


@pytest.mark.parametrize("resize", ["float", "antialias", "opencv"])
@pytest.mark.parametrize("size", [(24, 64), (64, 24)])
@pytest.mark.parametrize("shape", [(100, 80), (80, 100), (90, 90), (400, 20), (20, 400)])
@pytest.mark.parametrize("crops", [1, 3])
def test_crops_that_are_not_square(resize: str, size: tuple[int, int], shape: tuple[int, int], crops: int) -> None:
    flat = np.full((1, shape[1], shape[0], 3), 255, dtype=np.uint8)
    spec = PreprocessSpec(size=size, short_side=24, crops=crops, resize=resize)
    views = make_views([Frames(flat, np.zeros(1))], spec)
    assert views.shape == (crops, 1, 3, *size)
    np.testing.assert_allclose(views, (1 - 0.45) / 0.225, rtol=1e-5)  # nothing was padded


@pytest.mark.parametrize("resize", ["float", "antialias", "opencv"])
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
    assert exact.shape == (1, 2, 1, 24, 24)
    np.testing.assert_allclose(exact[0, :, 0], luma, atol=1e-3)
    for resize in ("antialias", "opencv"):
        rounded = make_views([clip], PreprocessSpec(**spec, resize=resize))
        np.testing.assert_allclose(rounded[0, :, 0], luma, atol=0.51)
        np.testing.assert_allclose(rounded, np.round(rounded), atol=1e-3)


def test_views_go_clip_by_clip() -> None:
    spec = PreprocessSpec(size=(24, 24), short_side=24, crops=3)
    clips = [noise(50, 40, seed=1), noise(50, 40, seed=2)]
    both = make_views(clips, spec)
    np.testing.assert_array_equal(both, np.concatenate([make_views([clip], spec) for clip in clips]))


RESIZES = ["float", "antialias", "opencv"]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", SIZES)
def test_plain_views_are_a_special_case(shape: tuple[int, int], resize: str) -> None:
    clip = noise(*shape)
    for spec in (
        PreprocessSpec(size=(32, 48), short_side=40, resize=resize),
        PreprocessSpec(size=(32, 48), short_side=40, crops=3, resize=resize),
        PreprocessSpec(size=(32, 48), short_side=40, stretch=(36, 50), resize=resize),
        PreprocessSpec(size=(32, 32), short_side=32, channel_order="gray", mean=(0.5,), std=(0.2,), resize=resize),
    ):
        for expected, framing in zip(make_views([clip], spec), framings(*shape, spec), strict=True):
            view = make_view(clip, spec, framing)
            assert view.flags.c_contiguous
            np.testing.assert_array_equal(view, expected)
            mirrored = make_view(clip, spec, framing._replace(mirrored=True))
            assert mirrored.flags.c_contiguous
            np.testing.assert_array_equal(mirrored[..., ::-1], expected)


@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(RESIZES),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_random_crops_are_inside(
    width: int, height: int, size: tuple[int, int], resize: str, stretched: bool, seed: int
) -> None:
    stretch = size if stretched else None
    spec = PreprocessSpec(size=size, short_side=min(size), stretch=stretch, resize=resize)
    framing = draw_framing(width, height, spec, np.random.default_rng(seed))
    assert 0 <= framing.top <= framing.resized[0] - size[0]
    assert 0 <= framing.left <= framing.resized[1] - size[1]
    assert framing == draw_framing(width, height, spec, np.random.default_rng(seed))
    if stretched or size[0] == size[1]:
        assert round(min(size) * 256 / 224) <= min(framing.resized) <= round(min(size) * 320 / 224)


def test_random_sizes_and_crops_take_all_of_the_range() -> None:
    spec = PreprocessSpec(size=(28, 28), short_side=28)
    generator = np.random.default_rng(0)
    drawn = [draw_framing(64, 32, spec, generator) for _ in range(3000)]
    assert {framing.resized for framing in drawn} == {(side, 2 * side) for side in range(32, 41)}
    assert {framing.top for framing in drawn if framing.resized == (32, 64)} == set(range(5))
    assert {framing.left for framing in drawn if framing.resized == (32, 64)} == set(range(37))


def test_a_random_view_is_a_crop_of_the_resized_frames() -> None:
    clip = noise(90, 70)
    spec = PreprocessSpec(size=(56, 56), short_side=56)
    framing = draw_framing(90, 70, spec, np.random.default_rng(3))
    x = (torch.from_numpy(clip.pixels).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    resized = F.interpolate(x, size=framing.resized, mode="bilinear", align_corners=False).numpy()
    expected = resized[..., framing.top :, framing.left :][..., :56, :56]
    np.testing.assert_allclose(make_view(clip, spec, framing), expected, rtol=0, atol=FLOAT_TOLERANCE)
