"""One view of a video for training: what it may show, and that the same generator gives the same one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from testing.clips import write_video
from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune import augment
from timesformer_cli.jobs.finetune.augment import Augmentation, View, draw_view
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.specs import PreprocessSpec, Recipe, SamplingSpec
from timesformer_cli.video.sampling import plan

RECIPE = Recipe(
    base="test",
    sampling=SamplingSpec(num_frames=4, stride=3, fps=None, clips=3),
    preprocess=PreprocessSpec(size=(24, 24), short_side=32, crops=3),
)
NONE, LIGHT = Augmentation(kind="none"), Augmentation()
METHODS = ("window", "strided", "segments", "uniform")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Item:
    return Item(str(write_video(tmp_path_factory.mktemp("video") / "a.mp4", frames=40)))


def view(item: Item, augmentation: Augmentation, seed: int = 0, recipe: Recipe = RECIPE, turn: int = 0) -> View:
    return draw_view(item, recipe, augmentation, np.random.default_rng(seed), turn=turn)


@pytest.mark.parametrize("part", [(None, None), (1.0, 3.0)])
def test_without_augmentation_the_recipe_s_views_take_turns(
    video: Item, part: tuple[float | None, float | None]
) -> None:
    video = replace(video, start=part[0], end=part[1])
    plain = prepare(video, RECIPE)
    assert len(plain.pixels) == 9
    for turn in range(11):
        drawn = view(video, NONE, seed=turn, turn=turn)
        np.testing.assert_array_equal(drawn.pixels, plain.pixels[turn % 9])
        assert drawn.frames == plain.labels[turn % 9].frames
        assert not drawn.mirrored


@pytest.mark.parametrize("method", METHODS)
def test_the_plain_view_is_a_special_case(video: Item, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation that draws the recipe's clip and its crop gives the recipe's view."""
    sampling = SamplingSpec(num_frames=4, method=method, stride=3, fps=None, clips=1)
    recipe = replace(RECIPE, sampling=sampling, preprocess=replace(RECIPE.preprocess, crops=1))
    monkeypatch.setattr(augment, "draw", lambda info, spec, generator, part: plan(info, spec, part=part)[0])
    monkeypatch.setattr(
        augment, "draw_framing", lambda width, height, spec, generator: augment.framings(width, height, spec)[0]
    )
    np.testing.assert_array_equal(view(video, LIGHT, recipe=recipe).pixels, prepare(video, recipe).pixels[0])


@pytest.mark.parametrize("method", METHODS)
def test_light_views_stay_inside_the_part(video: Item, method: str) -> None:
    video = replace(video, start=1.0, end=3.0)
    clips = None if method in ("segments", "uniform") else 3
    sampling = SamplingSpec(num_frames=4, method=method, stride=2, fps=None, clips=clips)
    recipe = replace(RECIPE, sampling=sampling)
    drawn = [view(video, LIGHT, seed, recipe) for seed in range(12)]
    assert len({each.frames for each in drawn}) > 1
    assert len({each.pixels.tobytes() for each in drawn}) == 12
    for each in drawn:
        assert each.pixels.shape == (4, 3, 24, 24)
        assert each.pixels.dtype == np.float32
        assert list(each.frames) == sorted(each.frames)
        assert 10 <= each.frames[0] <= each.frames[-1] < 30


def test_the_same_generator_gives_the_same_bytes(video: Item) -> None:
    flips = replace(LIGHT, flip=True)
    one, same = (view(video, flips, seed=7) for _ in range(2))
    assert one.pixels.tobytes() == same.pixels.tobytes()
    assert (one.frames, one.mirrored) == (same.frames, same.mirrored)


@pytest.mark.parametrize("kind", [NONE, LIGHT])
def test_flips_mirror_about_half_of_the_views_and_change_nothing_else(video: Item, kind: Augmentation) -> None:
    count = 0
    for seed in range(20):
        plain, drawn = view(video, kind, seed), view(video, replace(kind, flip=True), seed)
        count += drawn.mirrored
        assert plain.frames == drawn.frames
        expected = plain.pixels[..., ::-1] if drawn.mirrored else plain.pixels
        np.testing.assert_array_equal(drawn.pixels, expected)
    assert 4 <= count <= 16


def test_only_the_frames_of_the_view_are_decoded(video: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_clips = augment.read_clips

    def counted(reader: object, clips: np.ndarray, reading: object) -> object:
        read.extend(np.unique(clips).tolist())
        return read_clips(reader, clips, reading)  # type: ignore[arg-type]

    monkeypatch.setattr(augment, "read_clips", counted)
    for kind in (NONE, LIGHT):
        read.clear()
        assert tuple(read) == () != view(video, kind).frames == tuple(read)


def test_what_cannot_be_read_is_an_error(tmp_path: Path, video: Item) -> None:
    with pytest.raises(VideoError, match="no frame in the part"):
        view(replace(video, start=50.0), LIGHT)
    with pytest.raises(VideoError, match="no such file"):
        view(Item(str(tmp_path / "missing.mp4")), LIGHT)
