"""What a script imports: labels, failures and class tokens of videos, and models that stay open."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import timesformer_cli
from timesformer_cli import Failure, Prediction, RunOptions, embed, label, label_all, open_model
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, InputError, UsageError, VideoError

ROOT = Path(__file__).parents[1]
VIDEOS = sorted(map(str, (ROOT / "sample_videos").glob("*.mp4")))
HERE = RunOptions(device="cpu", workers=0)


@pytest.fixture(scope="module")
def model() -> timesformer_cli.Model:
    return open_model("camera-motion", run=HERE)


def test_a_video_is_labelled(model: timesformer_cli.Model) -> None:
    (first,) = label(ROOT / "sample_videos" / "zoom_out.mp4", "camera-motion", top_k=1)
    assert first.label == "zoom out"
    assert model.checkpoint.labels[first.index] == "zoom out"
    assert label(ROOT / "sample_videos" / "zoom_out.mp4", model, top_k=1) == [first]
    scores = [each.score for each in label(VIDEOS[0], model, top_k=99)]
    assert len(scores) == len(model.checkpoint.labels)
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)


def test_a_video_that_cannot_be_read_raises(model: timesformer_cli.Model) -> None:
    with pytest.raises(VideoError, match=r"^no\.mp4: ") as caught:
        label("no.mp4", model)
    assert caught.value.kind == "not_found"


def test_many_videos_give_one_result_each_in_order(model: timesformer_cli.Model) -> None:
    paths = [*VIDEOS[:2], "no.mp4", VIDEOS[0]]
    results = list(label_all(iter(paths), model))
    assert [result.item.path for result in results] == paths
    kinds = [type(result) for result in results]
    assert kinds == [Prediction, Prediction, Failure, Prediction]
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, Prediction):
            assert result.top(2) == label(path, model, top_k=2)


def test_a_folder_gives_its_videos(model: timesformer_cli.Model) -> None:
    results = list(label_all(ROOT / "sample_videos", model))
    assert len(results) == 9
    assert {os.path.basename(result.item.path) for result in results} > set(map(os.path.basename, VIDEOS))
    with pytest.raises(InputError, match="no video files"):
        list(label_all(ROOT / "docs", model))


def test_workers_give_the_same(model: timesformer_cli.Model) -> None:
    with_workers = open_model("camera-motion", run=RunOptions(device="cpu", workers=2))
    assert [result.top() for result in label_all(VIDEOS, with_workers) if isinstance(result, Prediction)] == [
        label(path, model) for path in VIDEOS
    ]


def test_the_classifier_makes_logits_of_what_embed_gives(model: timesformer_cli.Model) -> None:
    network = timesformer_cli.TimesformerForVideoClassification.from_pretrained("camera-motion")
    (result,) = label_all(VIDEOS[:1], model)
    assert isinstance(result, Prediction)
    vector = embed(VIDEOS[0], model)
    assert vector.shape == (network.config.hidden_size,)
    assert vector.dtype == np.float32
    weight, bias = (each.detach().numpy() for each in (network.classifier.weight, network.classifier.bias))
    np.testing.assert_allclose(weight @ vector + bias, result.segments[0].logits, atol=1e-5)


def test_a_recipe_of_ones_own() -> None:
    from timesformer_cli.checkpoints.recipes import with_overrides

    checkpoint = with_overrides(resolve("camera-motion"), fields={"clips": 2})
    (result,) = label_all(VIDEOS[:1], checkpoint, run=HERE)
    assert isinstance(result, Prediction)
    assert {view.clip for view in result.segments[0].views} == {0, 1}


def test_what_cannot_be(model: timesformer_cli.Model) -> None:
    with pytest.raises(CheckpointError, match="no model of that name"):
        open_model("no-such-model")
    with pytest.raises(UsageError, match="the model is already open"):
        label(VIDEOS[0], model, run=HERE)
    with pytest.raises(UsageError, match="abacus"):
        label(VIDEOS[0], "camera-motion", run=RunOptions(device="abacus"))
    with pytest.raises(AttributeError, match="no attribute 'labels'"):
        timesformer_cli.labels  # noqa: B018


SCRIPT = """\
from timesformer_cli import RunOptions, label_all, open_model
model = open_model("camera-motion", run=RunOptions(device="cpu", workers=1))
for result in label_all({videos!r}, model):
    print(result.item.path, result.top(1)[0].label)
"""


@pytest.mark.parametrize("how", ["a script", "-c", "standard input"])
def test_no_guard_is_needed(how: str, tmp_path: Path) -> None:
    code = SCRIPT.format(videos=VIDEOS[:2])
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    args = {"a script": [str(script)], "-c": ["-c", code], "standard input": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, *args],
        input=code if how == "standard input" else "",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == VIDEOS[:2]
