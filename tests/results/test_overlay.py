"""Heat over frames: where it is, in which colour, and which frames of a video say that they were not seen."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from timesformer_cli.flow import Frames, VideoInfo
from timesformer_cli.results.overlay import AGAINST, FOR, Film, Look, tinted, write_film

GRAY = np.full((40, 60, 3), 100, np.uint8)
BOX = (10.0, 0.0, 50.0, 40.0)


def test_heat_is_in_its_patch_and_its_colour() -> None:
    weights = np.zeros((2, 4), np.float32)
    weights[0, 3], weights[1, 0] = 1, -1
    shown = tinted(GRAY, weights, BOX, 1.0)
    assert (shown[:20, 40:50] == FOR).all()
    assert (shown[20:, 10:20] == AGAINST).all()
    changed = (shown != GRAY).any(axis=2)
    assert changed.sum() == 2 * 200


def test_half_the_weight_is_half_the_colour_and_stripes_are_half_the_heat() -> None:
    weights = np.full((1, 1), 0.5, np.float32)
    half = tinted(GRAY, weights, BOX, 1.0)
    assert half[0, 10].tolist() == [round((100 + colour) / 2) for colour in FOR]
    striped = (tinted(GRAY, weights, BOX, 1.0, hatched=True) != GRAY).any(axis=2)
    assert 0.4 < striped[:, 10:50].mean() < 0.6


@pytest.mark.parametrize(("side", "stripe"), [(240, 6), (720, 12)])
def test_stripes_grow_with_the_frame(side: int, stripe: int) -> None:
    gray = np.full((side, side, 3), 100, np.uint8)
    shown = tinted(gray, np.ones((3, 3), np.float32), (0.0, 0.0, side, side), 1.0, hatched=True)
    place = np.add.outer(np.arange(side), np.arange(side))
    assert ((shown != gray).any(axis=2) == (place // stripe % 2 == 0)).all()


def test_what_was_never_seen_has_no_colours() -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 200
    shown = tinted(red, np.zeros((1, 1), np.float32), BOX, 1.0, grayed=True)
    assert (shown[:, 10:50] == red[:, 10:50]).all()
    assert np.ptp(shown[:, :10], axis=2).max() == np.ptp(shown[:, 50:], axis=2).max() == 0


def test_a_box_beyond_the_frame_is_cut() -> None:
    assert tinted(GRAY, np.ones((3, 3), np.float32), (-5.2, -0.4, 61.0, 40.6), 0.5).shape == GRAY.shape


def test_all_frames_have_one_scale() -> None:
    values = np.zeros((2, 5, 10), np.float32)
    values[0], values[1] = 0.01, 1
    values[1, 0, 0] = -1
    weights = Look().weights(values)
    assert weights[0] == pytest.approx(0.01)
    assert weights[1, 0, 0] == -1
    assert weights[1, 1:] == pytest.approx(1)


def test_only_the_top_is_shown() -> None:
    values = np.arange(-49, 51, dtype=np.float32).reshape(1, 10, 10)
    assert np.count_nonzero(Look(top=0.2).weights(values)) == pytest.approx(20, abs=1)
    assert np.count_nonzero(Look().weights(np.zeros((1, 2, 2), np.float32))) == 0


def film(times: NDArray[np.float64], seen: list[int], width: int = 61, height: int = 41) -> Film:
    weights = np.zeros((len(seen), 1, 1), np.float32)
    weights[-1] = 1
    info = VideoInfo(times, 10.0, width, height, "h264")
    return Film(
        info, seen, weights, np.ones(len(seen)), (0.0, 0.0, float(width), float(height)), 1.0, "a caption in words ü"
    )


def test_frames_between_are_between() -> None:
    found = film(np.array([0.0, 0.1, 0.4, 0.5]), [0, 3])
    assert [found.heat(number).item() for number in range(4)] == pytest.approx([0, 0.2, 0.8, 1])


def test_a_frame_that_is_seen_twice_has_the_mean() -> None:
    found = film(np.arange(3) / 10, [0, 2, 2])
    assert found.heat(2).item() == 0.5


def test_the_video_keeps_size_and_times(tmp_path: Path) -> None:
    times = np.array([0.0, 0.1, 0.25, 0.3, 0.9, 1.0])
    found = film(times, [1, 4])
    pixels = np.full((4, 41, 61, 3), 90, np.uint8)
    write_film(tmp_path / "a.mp4", found, iter([Frames(pixels[:3], times[1:4]), Frames(pixels[3:], times[4:5])]))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(times[1:5] - times[1], abs=2e-3)
    assert frames[0].width == 62
    assert frames[0].height >= 42 + 3 * 15  # the words below are wrapped
    last, between = (frame.to_ndarray(format="rgb24")[:40, :60].astype(int) for frame in (frames[3], frames[2]))
    assert abs(last.mean((0, 1)) - FOR).max() < 25  # all of it, as the model saw it
    assert between[..., 0].std() > 2 * last[..., 0].std()  # stripes
