"""Fingerprints: what each bit says, mirror images, bars, and how alike frames are."""

from pathlib import Path

import numpy as np
import pytest

from testing.films import film, write_film
from timesformer_cli.flow import Item
from timesformer_cli.specs import Reading
from timesformer_cli.video import fingerprints as module
from timesformer_cli.video.fingerprints import (
    fingerprints,
    likeness,
    mirrored,
    read_fingerprints,
    thinned,
    told,
    without_bars,
)
from timesformer_cli.video.reader import open_video

ALL = 2**64 - 1


def gray(seed: int, frames: int = 8) -> np.ndarray:
    return thinned(film(seed, frames))


class TestFingerprints:
    def test_each_bit_compares_neighbours(self) -> None:
        frame = np.zeros((72, 72), np.uint8)
        frame[:9, 8:16] = 200  # of 8 rows and 9 columns, the second column of the first row
        right, left, down, up = (f"{int(value):064b}" for value in fingerprints(frame[None])[0])
        assert right == "1" + "0" * 63
        assert left == "01" + "0" * 62
        # Of 9 rows and 8 columns, it is in the first row, and a little in the second; at the left in two columns.
        assert (down, up) == ("0" * 64, "11" + "0" * 6 + "11" + "0" * 54)

    def test_mirror_images_have_mirrored_fingerprints(self) -> None:
        frames = gray(0)
        np.testing.assert_array_equal(mirrored(fingerprints(frames)), fingerprints(frames[:, :, ::-1]))
        np.testing.assert_array_equal(mirrored(mirrored(fingerprints(frames))), fingerprints(frames))

    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_plain_frames_tell_nothing(self, level: int) -> None:
        noise = np.random.default_rng(0).integers(-3, 4, (2, 90, 160))
        plain = fingerprints((level + noise).clip(0, 255).astype(np.uint8))
        assert not plain.any()
        assert not told(plain).any()
        assert told(fingerprints(gray(0))).all()

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 3)])
    def test_frames_of_any_size(self, height: int, width: int) -> None:
        assert fingerprints(thinned(np.zeros((2, height, width, 3), np.uint8))).shape == (2, 4)


class TestBars:
    @pytest.mark.parametrize(
        ("rows", "columns"), [((11, 11), (0, 0)), ((0, 0), (20, 20)), ((8, 3), (5, 0)), ((0, 0), (0, 0))]
    )
    def test_are_cut_off(self, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        frames = gray(1)
        barred = np.pad(frames, ((0, 0), rows, columns), constant_values=16)
        np.testing.assert_array_equal(without_bars(barred), frames)

    def test_dark_frames_stay_whole(self) -> None:
        dark = np.full((3, 90, 160), 10, np.uint8)
        assert without_bars(dark).shape == dark.shape
        dark[:, 40:50, 40:50] = 200  # too little would be left
        assert without_bars(dark).shape == dark.shape

    def test_a_border_that_is_dark_for_a_while_stays(self) -> None:
        frames = gray(2).copy()
        frames[:5, :20] = 0
        assert without_bars(frames).shape == frames.shape


class TestLikeness:
    def test_counts_the_places_where_either_tells(self) -> None:
        first = np.array([0b1111, 0, 0, 0], np.uint64)
        second = np.array([0b0011, 0b0100, 0, 0b1], np.uint64)
        # Right: two the same, one against left, one told by the first only. Below: one told by the second only.
        assert float(likeness(first, second)) == pytest.approx(2 / 5)
        assert float(likeness(second, second)) == 1
        assert float(likeness(np.zeros(4, np.uint64), np.zeros(4, np.uint64))) == 0
        assert float(likeness(np.array([ALL, 0, ALL, 0], np.uint64), np.array([0, ALL, 0, ALL], np.uint64))) == 0

    def test_of_different_films_is_far_below_that_of_copies(self) -> None:
        films = [fingerprints(gray(seed)) for seed in range(8)]
        alike = [float(likeness(a, b).mean()) for n, a in enumerate(films) for b in films[:n]]
        dimmed = fingerprints((gray(0) * 0.7).astype(np.uint8))
        assert max(alike) < 0.6
        assert float(likeness(films[0], dimmed).mean()) > 0.9


class TestReading:
    def test_eight_frames_per_second_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        frames = film(3, frames=30)
        path = write_film(tmp_path / "a.mp4", frames, rate=12, crf=1)
        with open_video(Item(str(path))) as reader:
            (whole,) = read_fingerprints(reader)
            monkeypatch.setattr(module, "PART", 8)
            parts = list(read_fingerprints(reader, Reading(max_frame_bytes=3 * 90 * 160 * 3)))
        shown = [int(place / 8 * 12 + 1e-6) for place in range(20)]
        expected = fingerprints(thinned(frames[shown]))
        assert float(likeness(whole.prints, expected).min()) > 0.9
        assert whole.shown == 1
        assert [len(part.prints) for part in parts] == [8, 8, 4]
        np.testing.assert_array_equal(np.concatenate([part.prints for part in parts]), whole.prints)

    def test_a_single_frame(self, tmp_path: Path) -> None:
        path = write_film(tmp_path / "a.mp4", film(4, frames=1), rate=30)
        with open_video(Item(str(path))) as reader:
            (part,) = read_fingerprints(reader)
        assert part.prints.shape == (1, 4)
