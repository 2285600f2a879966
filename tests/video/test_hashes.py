"""Hashes of frames: what they bear, what they tell apart, and which videos look alike by them."""

from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.video import hashes as module
from timesformer_cli.video.hashes import LOOK_ALIKE, LookAlikes, distance, frame_hashes, look_alikes, spread

ALL = 2**64 - 1
HALF = 0x5A3C96F00F69C3A5  # half of its bits are set


def film(seed: int, frames: int = 8, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """Smooth random patches that drift to the right."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (9, 30, 3), np.uint8))
    wide = np.asarray(patches.resize((3 * width, height), Image.Resampling.BICUBIC))
    return np.stack([wide[:, 4 * number : 4 * number + width] for number in range(frames)])


def recoded(pixels: NDArray[np.uint8], side: tuple[int, int], quality: int) -> NDArray[np.uint8]:
    """Frames as JPEG of a different size."""
    found = []
    for frame in pixels:
        file = BytesIO()
        Image.fromarray(frame).resize(side, Image.Resampling.BILINEAR).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


def bits(first: int, second: int) -> int:
    return (int(first) ^ int(second)).bit_count()


def flipped(value: int, count: int, start: int = 0) -> int:
    """`value` with the bits from `start` on changed."""
    return value ^ ((2**count - 1) << start)


class TestFrames:
    def test_each_bit_compares_a_part_with_the_one_on_its_left(self) -> None:
        frame = np.zeros((80, 90, 3), np.uint8)
        frame[:10, 10:20] = 200  # the second of nine columns, in the first of eight rows
        frame[70:, 80:] = 200  # the last column in the last row
        (found,) = frame_hashes(frame[None])
        assert f"{int(found):064b}" == "1" + "0" * 62 + "1"

    def test_one_for_each_frame(self) -> None:
        pixels = film(0)
        found = frame_hashes(pixels)
        assert (found.shape, found.dtype) == ((8,), np.uint64)
        assert len(set(found.tolist())) > 4
        np.testing.assert_array_equal(found[3:4], frame_hashes(pixels[3:4]))

    @pytest.mark.parametrize("level", [0, 16, 128, 255])
    def test_frames_of_one_colour_are_zero_with_or_without_noise(self, level: int) -> None:
        plain = np.full((1, 48, 64, 3), level, np.uint8)
        noise = np.random.default_rng(0).integers(-3, 4, plain.shape)
        noisy = (plain + noise).clip(0, 255).astype(np.uint8)
        assert [*frame_hashes(plain), *frame_hashes(noisy)] == [0, 0]

    @pytest.mark.parametrize("side", [(90, 68), (640, 480), (61, 45)])
    def test_size_and_compression_change_few_bits(self, side: tuple[int, int]) -> None:
        pixels = film(1)
        changes = [
            bits(*pair) for pair in zip(frame_hashes(pixels), frame_hashes(recoded(pixels, side, 20)), strict=True)
        ]
        assert max(changes) <= 6

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 3)])
    def test_frames_of_any_size_have_a_hash(self, height: int, width: int) -> None:
        assert frame_hashes(np.zeros((2, height, width, 3), np.uint8)).shape == (2,)


class TestSpread:
    def test_over_the_different_frames_of_all_clips(self) -> None:
        assert spread(np.array([[0, 2, 4, 6], [4, 6, 8, 10], [60, 70, 80, 90]])).tolist() == [
            0,
            2,
            6,
            8,
            10,
            60,
            80,
            90,
        ]

    def test_few_frames_are_repeated(self) -> None:
        assert spread(np.array([[5, 5, 9]])).tolist() == [5, 5, 5, 5, 9, 9, 9, 9]
        assert spread(np.array([[7]])).tolist() == [7] * 8


class TestDistance:
    def test_is_the_median_of_the_nearest(self) -> None:
        first = np.array([HALF, flipped(HALF, 2), flipped(HALF, 4), flipped(HALF, 20)], np.uint64)
        second = np.array([HALF], np.uint64)
        assert distance(first, second) == 0  # all of the second is in the first
        other = np.array([flipped(HALF, 1), flipped(HALF, 30, 30)], np.uint64)
        # The nearest of the first are at 1, 1, 3 and 19 bits, those of the other at 1 and 30.
        assert distance(first, other) == distance(other, first) == 2

    def test_a_part_of_a_video_is_near_to_the_whole(self) -> None:
        whole, part = frame_hashes(film(3, frames=16)), frame_hashes(film(3, frames=16)[12:])
        assert distance(whole, part) == distance(part, whole) == 0

    @pytest.mark.parametrize("blank", [0, ALL, 0b1011, ALL ^ 0b1011])
    def test_frames_without_contrast_count_for_nothing(self, blank: int) -> None:
        black = np.full(8, blank, np.uint64)
        assert distance(black, black) == np.inf
        shown = frame_hashes(film(4))
        mostly = np.concatenate([black[:5], shown[:3]])
        assert distance(mostly, mostly) == np.inf
        faded = np.concatenate([black[:3], shown[:5]])
        assert distance(faded, shown) == 0
        assert distance(np.concatenate([black[:3], frame_hashes(film(5))[:5]]), faded) > LOOK_ALIKE


@st.composite
def crowds(draw: st.DrawFn) -> list[NDArray[np.uint64]]:
    """Videos near to each other: few different frames, some blank, each with some bits changed."""
    frames = st.builds(
        flipped, st.sampled_from([0, ALL, HALF, flipped(HALF, 30)]), st.integers(0, 12), st.integers(0, 52)
    )
    videos = draw(st.lists(st.lists(frames, min_size=4, max_size=4), max_size=9))
    return [np.array(video, np.uint64) for video in videos]


class TestLookAlikes:
    @given(crowds(), st.sampled_from([(64, 1024), (1, 2), (2, 3)]))
    def test_all_pairs_within_the_distance_and_no_others(
        self, crowd: list[NDArray[np.uint64]], block: tuple[int, int]
    ) -> None:
        expected = {
            LookAlikes(first, second, distance(crowd[first], crowd[second]))
            for first, second in combinations(range(len(crowd)), 2)
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_BLOCK", block)
            for most in (LOOK_ALIKE, 0, 3.5):
                found = list(look_alikes(crowd, most))
                assert len(found) == len(set(found))
                assert set(found) == {pair for pair in expected if pair.distance <= most}

    def test_copies_among_different_films(self) -> None:
        films = [film(seed) for seed in range(10)]
        copies = [recoded(films[2], (80, 60), 30), films[7][4:]]
        crowd = [frame_hashes(pixels) for pixels in (*films, *copies)]
        crowd = [np.resize(each, 8) for each in crowd]
        assert [(pair.first, pair.second) for pair in look_alikes(crowd)] == [(2, 10), (7, 11)]

    def test_without_numpy_2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.array([[0, 1, ALL], [HALF, 2**63, 0xFFFF]], np.uint64)
        expected = [[0, 1, 64], [32, 1, 16]]
        assert module.ones(values).tolist() == expected
        monkeypatch.delattr(np, "bitwise_count", raising=False)
        assert module.ones(values).tolist() == expected
        assert module.ones(values[:, ::2]).tolist() == [[0, 64], [32, 16]]
