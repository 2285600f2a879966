"""Explanations of whole videos by tiny networks, and by the bundled model of motion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from testing.clips import write_model, write_video
from timesformer_cli.bundled import CLIP
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import UsageError
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.explain import Explained, Job, explain
from timesformer_cli.jobs.explain.maps import Network, inside
from timesformer_cli.jobs.explain.records import NO_BETTER, UNCHECKED, WITHOUT_LABEL, Method, Options, Question
from timesformer_cli.jobs.explain.words import block
from timesformer_cli.network import relevance
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.specs import Checkpoint

HERE = RunOptions(workers=0, device="cpu", precision="fp32")
ATTENTION_TYPES = ["divided_space_time", "joint_space_time", "space_only"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    folder = tmp_path_factory.mktemp("models")

    def made(attention_type: str) -> Checkpoint:
        path = folder / attention_type
        return resolve(str(path if path.exists() else write_model(path, attention_type=attention_type)))

    return made


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Item:
    return Item(str(write_video(tmp_path_factory.mktemp("videos") / "a.mp4", frames=60)))


def explained(checkpoint: Checkpoint, item: Item, **options: Any) -> Explained | Failure:
    contrast = options.pop("contrast", False)
    job = Job(checkpoint=checkpoint, items=[item], options=Options(**options), run=HERE, contrast=contrast)
    with explain(job) as results:
        (found,) = results
    return found


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("method", get_args(Method))
def test_every_method_maps_every_kind_of_attention(
    tiny: Callable[[str], Checkpoint], video: Item, attention_type: str, method: Any
) -> None:
    found = explained(tiny(attention_type), video, method=method, checks="none")
    assert isinstance(found, Explained)
    (explanation,) = found.explanations
    assert explanation.map is not None
    assert explanation.map.values.shape == (4, 4, 4)
    assert np.isfinite(explanation.map.values).all()
    record = explanation.to_dict()["map"]
    assert record["depends_on_label"] == (method not in WITHOUT_LABEL)
    assert record["verdict"] == UNCHECKED
    assert ("adds_up" in record) == (method in ("lrp", "ig", "lrp+ig"))
    if method in ("ig", "lrp+ig"):
        assert record["adds_up"]["reached"]
        assert record["adds_up"]["sum"] == pytest.approx(record["adds_up"]["of"], rel=0.02, abs=2e-4)


def test_the_difference_of_two_labels_is_the_difference_of_their_maps(
    tiny: Callable[[str], Checkpoint], video: Item
) -> None:
    checkpoint = tiny("divided_space_time")
    clip = {"clip": 0, "checks": "none"}
    first, second, both = (
        explained(checkpoint, video, **clip, **options)
        for options in ({"labels": (1,)}, {"labels": (3,)}, {"labels": (1,), "versus": 3})
    )
    one, other, difference = (each.explanations[0].map.values for each in (first, second, both))  # type: ignore[union-attr]
    assert difference == pytest.approx(one - other, abs=1e-5)
    assert both.explanations[0].to_dict()["versus"] == checkpoint.labels[3]  # type: ignore[union-attr]


def test_the_view_is_that_with_the_highest_logit(tiny: Callable[[str], Checkpoint], video: Item) -> None:
    checkpoint = tiny("divided_space_time")
    from timesformer_cli import api

    scored = api.open_model(checkpoint, run=HERE).scored(video, "logits")
    for label in range(5):
        found = explained(checkpoint, video, labels=(label,), checks="none", method="attention")
        assert found.explanations[0].number == int(scored.logits[:, label].argmax())  # type: ignore[union-attr]
    last = explained(checkpoint, video, clip=0, checks="none", method="attention")
    assert last.explanations[0].view.clip == 0  # type: ignore[union-attr]


def test_several_labels_give_several_explanations(tiny: Callable[[str], Checkpoint], video: Item) -> None:
    found = explained(tiny("space_only"), video, labels=(2, 0), checks="none", contrast=True)
    assert isinstance(found, Explained)
    names = tiny("space_only").labels
    assert [each.label for each in found.explanations] == [names[2], names[0]]
    assert len(found.contrasts) == 2
    assert found.explanations[1].forwards == 4 + 4  # without those of the views, which both share


def test_a_network_with_random_weights_is_no_better_than_chance(tiny: Callable[[str], Checkpoint], video: Item) -> None:
    found = explained(tiny("divided_space_time"), video)
    assert found.explanations[0].map.verdict == NO_BETTER  # type: ignore[union-attr]
    lines = "\n".join(block(found.explanations[0]))  # type: ignore[union-attr]
    assert NO_BETTER in lines


def test_gradients_that_do_not_add_up_are_told(
    tiny: Callable[[str], Checkpoint], video: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relevance, "ADDS_UP", 1e-9)
    monkeypatch.setattr(relevance, "_NOISE", 0)
    monkeypatch.setattr(relevance, "_MOST_POINTS", 12)
    for method in ("ig", "lrp+ig"):
        found = explained(tiny("divided_space_time"), video, method=method, checks="none").explanations[0]  # type: ignore[union-attr]
        total = found.map.total  # type: ignore[union-attr]
        lines = "\n".join(block(found))
        assert f"add up to {total.sum:.2f} instead of {total.of:.2f}, after 12 points" in lines
        assert not found.to_dict()["map"]["adds_up"]["reached"]


def test_frames_and_gaps_are_told_in_words(tiny: Callable[[str], Checkpoint], video: Item) -> None:
    (found,) = explained(tiny("divided_space_time"), video).explanations  # type: ignore[union-attr]
    assert found.map is not None
    assert found.map.check is not None
    check = replace(found.map.check, gap={"gray": -0.001, "still": 0.2})
    third = f"{found.times[2]:.2f} s"
    for values, sentence in (
        ([0, -0.001, 0.09, 0], "0.00 0.00 0.09 0.00   all alike: no single moment decides"),
        ([0, 0.01, 0.3, 0], f"0.00 0.01 0.30 0.00   most at {third}"),
        ([0, 0.01, -0.3, 0], f"0.00 0.01 -0.30 0.00   most against it at {third}"),
    ):
        frames = replace(found.frames, values=np.array(values, np.float64))
        lines = list(block(replace(found, frames=frames, map=replace(found.map, check=check))))
        assert f"  frames    {sentence}" in lines
        assert "  map (lrp)   gap +0.00 (gray), +0.20 (still): better than random order" in lines


def test_the_bundled_model_needs_the_order_of_frames() -> None:
    found = explained(resolve("camera-motion"), Item(str(CLIP)), checks="all")
    assert isinstance(found, Explained)
    record = found.explanations[0].to_dict()
    assert set(record["counterfactuals"]) == {"single_frame", "shuffled", "reversed", "still"}
    assert set(record["map"]["gap"]) == {"gray", "still"}
    assert record["map"]["untrained_correlation"] < 0.5
    assert record["map"]["verdict"] == "better than random order"
    assert len(record["frames"]) == 8
    assert record["forwards"] > 100


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"clip": 9}, "`clip=9`: it has clips 0 to"), ({"at": 100.0}, "`at=100`: it lasts 6.00 s")],
)
def test_a_clip_that_does_not_exist_is_a_failure(
    tiny: Callable[[str], Checkpoint], video: Item, options: dict[str, Any], reason: str
) -> None:
    found = explained(tiny("space_only"), video, **options)
    assert isinstance(found, Failure)
    assert found.message.startswith(reason)


def test_a_moment_chooses_the_clip_that_shows_it(tmp_path: Path) -> None:
    checkpoint = resolve("camera-motion")
    video = Item(str(write_video(tmp_path / "a.mp4", frames=60)))
    starts = []
    for moment in (0.0, 3.0, 5.9):
        found = explained(checkpoint, video, at=moment, checks="none")
        times = found.explanations[0].times  # type: ignore[union-attr]
        assert times.min() - 0.6 <= moment <= times.max() + 0.6
        starts.append(float(times.min()))
    assert starts == sorted(set(starts))


def test_a_video_that_cannot_be_read_is_a_failure(tiny: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    found = explained(tiny("space_only"), Item(str(tmp_path / "none.mp4")))
    assert isinstance(found, Failure)
    assert found.kind == "not_found"


def test_a_clip_of_one_frame_is_told(tiny: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    item = Item(str(write_video(tmp_path / "one.mp4", frames=1)))
    found = explained(tiny("divided_space_time"), item)
    assert isinstance(found, Explained)
    assert found.explanations[0].constant
    record = found.explanations[0].to_dict()
    assert record["summary"].startswith("All frames of this clip are the same")
    assert record["frames_alike"]


def test_values_are_not_explained(tmp_path: Path, video: Item) -> None:
    checkpoint = resolve(str(write_model(tmp_path / "model", problem_type="regression")))
    with pytest.raises(UsageError, match="only scores can be explained"):
        explained(checkpoint, video)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (64, 64)])
def test_the_box_is_the_crop_in_the_upright_frame(tmp_path: Path, width: int, height: int) -> None:
    checkpoint = resolve(str(write_model(tmp_path / "model")))
    item = Item(str(write_video(tmp_path / "a.mp4", width=width, height=height)))
    found = explained(checkpoint, item, checks="none", method="attention")
    left, top, right, bottom = found.explanations[0].box  # type: ignore[union-attr]
    side = min(width, height) * 32 / checkpoint.preprocess.short_side
    assert (right - left, bottom - top) == pytest.approx((side, side), abs=1.5)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((width / 2, height / 2), abs=1.5)


def _texture(seed: int) -> Any:
    coarse = np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("method", "place"), [("lrp", (2, 1, 4)), ("lrp", (5, 4, 1)), ("lrp", (1, 5, 3)), ("ig", (5, 1, 3))]
)
def test_one_moving_patch_is_found_in_time_height_and_width(
    method: Any, place: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On gray frames of the bundled model, one patch shows a texture that moves in three frames."""
    monkeypatch.setattr(relevance, "ADDS_UP", 1.0)  # a coarse map will do
    checkpoint = resolve("camera-motion")
    moment, row, column = place
    clip = np.zeros((8, 1, 96, 96), np.float32)
    for step in range(3):
        rows, columns = slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16)
        clip[moment - 1 + step, 0, rows, columns] = 2 * _texture(0)[:16, 4 * step : 4 * step + 16]
    network = Network(checkpoint, "cpu").trained
    found = np.abs(inside(network, method, Question(checkpoint.labels.index("static")), clip).values)
    frame, *where = np.unravel_index(found.argmax(), found.shape)
    assert where == [row, column]
    assert abs(int(frame) - moment) <= 1
