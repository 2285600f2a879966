"""The generated test set: made again it is the same, and all its layouts give the same metrics; the ablation on it."""

import csv
import json
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ablation
import av
import bundle
import evaluate
import numpy as np
import pytest
import scenes
import start
import test_set
import textures
import torch
import train

from testing.command import Run
from timesformer_cli import TimesformerForVideoClassification

CLIPS = 12
LAYOUTS = ("kinetics", "folders", "list", "videofolder")
# scikit-learn has these; the others come with the training extra.
PHOTOS = {"sklearn": textures.TEST_PHOTOS["sklearn"]}


@pytest.fixture(scope="module")
def small() -> Any:
    """Stills and frames that take little time, as far as that changes nothing of what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_set, "TEST_PHOTOS", PHOTOS)
        patch.setattr(test_set, "PROCEDURAL_PICTURES", 7)
        patch.setattr(evaluate, "SIZES", ((120, 160), (160, 120)))
        patch.setattr(evaluate, "FRAME_RATES", (12, 15))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    folder = tmp_path_factory.mktemp("camera motion")
    test_set.write(folder, CLIPS, seed=1)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_clip_is_one_file_with_a_name_in_every_layout(folder: Path) -> None:
    videos = {path.name: path for path in folder.glob("kinetics/test/*.mp4")}
    assert len(videos) == CLIPS
    for place in ("folders/test/*", "list/videos", "videofolder/test"):
        links = {path.name: path for path in folder.glob(f"{place}/*.mp4")}
        assert links.keys() == videos.keys()
        assert all(links[name].samefile(path) for name, path in videos.items())
    for path in videos.values():
        with av.open(path) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width * stream.height) == ("h264", 120 * 160)
            assert 2 <= stream.frames / stream.average_rate <= 10.1


def test_the_annotations_are_those_of_the_originals(folder: Path) -> None:
    """Each layout read on its own, without the code that evaluates: all say the same of each clip."""
    with (folder / "kinetics/test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split"]
    kinetics = {
        f"{row['youtube_id']}_{int(row['time_start']):06}_{int(row['time_end']):06}.mp4": row["label"] for row in rows
    }
    assert sorted(Counter(kinetics.values()).values()) == [1] * 6 + [2] * 3
    assert {path.name: path.parent.name for path in folder.glob("folders/test/*/*.mp4")} == kinetics

    labels = (folder / "list/labels.txt").read_text().splitlines()
    lines = (line.split(" ") for line in (folder / "list/test.txt").read_text().splitlines())
    assert {Path(path).name: labels[int(number)] for path, number in lines} == kinetics
    with (folder / "videofolder/test/metadata.csv").open(encoding="utf-8", newline="") as file:
        assert {row["file_name"]: row["label"] for row in csv.DictReader(file)} == kinetics


def test_the_same_seed_gives_the_same_files_however_often_it_is_stopped(
    folder: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_set.write(tmp_path, 2, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "add_grain", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            test_set.write(tmp_path, CLIPS, seed=1)
    test_set.write(tmp_path, CLIPS, seed=1)
    assert contents(tmp_path) == contents(folder)


def test_another_set_is_not_mixed_in(folder: Path, small: None) -> None:
    before = contents(folder)
    with pytest.raises(SystemExit, match="clips of a different or a larger set"):
        test_set.write(folder, CLIPS - 1, seed=1)
    assert contents(folder) == before


@pytest.fixture
def metrics(folder: Path, run: Run, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """`metrics.json` of each layout."""
    for name, arguments in test_set.layouts(folder).items():
        outcome = run("evaluate", *arguments, "-m", "camera-motion", "-o", tmp_path / name, "--workers", "0", "-q")
        assert (outcome.code, outcome.err) == (0, "")
    return {name: json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8")) for name in LAYOUTS}


def test_all_layouts_give_the_same_metrics(metrics: dict[str, dict[str, Any]]) -> None:
    first, *others = (numbers(found) for found in metrics.values())
    assert first["counts/evaluated"] == CLIPS
    assert first["top_1/correct"] >= CLIPS - 1  # the labels are those of the model's motions
    assert first["settings/recipe/sampling/clips"] is None
    for other in others:
        assert other == {name: close(value) if isinstance(value, float) else value for name, value in first.items()}


def close(value: float) -> Any:
    """Layouts have orders of their own, and sums of them other last digits."""
    return pytest.approx(value, rel=1e-5)


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """All of `metrics.json` by the path in it, but for times, and for what says where the videos and labels lie."""
    settings = {name: value for name, value in found["settings"].items() if name != "data_set"}
    rest = {name: value for name, value in found.items() if name not in ("throughput", "run", "settings")}
    return dict(leaves("", rest | {"settings": settings}))


def leaves(path: str, value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, value
    else:
        yield from ((inner, leaf) for name, part in items for inner, leaf in leaves(f"{path}/{name}".strip("/"), part))


@pytest.mark.skipif(find_spec("skimage") is None, reason="needs the training extra")
def test_nothing_is_shared_with_training() -> None:
    def still_names(photos: dict[str, tuple[str, ...]]) -> set[tuple[str, str]]:
        return {(package, name) for package, names in photos.items() for name in names}

    assert not still_names(textures.TEST_PHOTOS) & still_names(textures.TRAIN_PHOTOS)
    trained = {picture.tobytes() for picture in textures.library(textures.TRAIN_PHOTOS, 24, 1, unseen=False)}
    tested = textures.library(textures.TEST_PHOTOS, 14, (evaluate.SEED, 1), unseen=True)
    assert len(tested) == 20
    assert not trained & {picture.tobytes() for picture in tested}


def test_joint_heads_start_a_few_frames_away_at_the_same_place() -> None:
    model = TimesformerForVideoClassification(train.make_config("joint_space_time")).eval()
    torch.manual_seed(0)
    start.start_weights(model)
    embeddings = model.timesformer.embeddings
    patches = embeddings.position_embeddings[0, 1:, None] + embeddings.time_embeddings[0]  # (N, T, D)
    layer = model.timesformer.encoder.layer[0]
    _, weights = layer.attention(layer.layernorm_before(patches.flatten(0, 1)[None]), True)
    for head, shift in enumerate(start.SHIFTS[:4]):
        for place, frame in np.ndindex(patches.shape[:2]):
            if 0 <= frame + shift < 8:
                assert int(weights[0, head, 8 * place + frame].argmax()) == 8 * place + frame + shift


def test_the_ablation_trains_and_measures_three_networks_and_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Nothing is trained: two networks are at their start, and the bundled one takes the place of the third."""
    calls: list[str] = []

    def call(*command: str | Path) -> None:
        """The same in this process, without importing everything each time."""
        script, *arguments = map(str, command)
        calls.append(Path(script).name)
        if script == "-m":
            outcome = run(*arguments[1:], "--workers", "0", "-q")
            assert (outcome.code, outcome.err) == (0, "")
        elif script.endswith("train.py"):
            assert arguments[-2:] == ["--steps=7", "--seed=1"]
            save_start(Path(arguments[1]), arguments[3])
        else:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", [script, *arguments])
                bundle.main()

    def save_start(out: Path, attention: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = TimesformerForVideoClassification(train.make_config(attention))
        if attention == "divided_space_time":
            model = TimesformerForVideoClassification.from_pretrained("camera-motion")
        torch.save({"model": model.state_dict(), "settings": {"attention": attention}}, out / "checkpoint.pt")

    def rows() -> list[list[str]]:
        shown = ablation.table([ablation.measured(folder, tmp_path, name, 7, 1) for name in ablation.ATTENTIONS])
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()[2:]]

    monkeypatch.setattr(ablation, "call", call)
    cells = rows()
    assert calls == ["train.py", "bundle.py", "-m"] * 3
    assert [row[0] for row in cells] == ["`divided_space_time`", "`joint_space_time`", "`space_only`"]
    assert [row[1] for row in cells] == ["901,385", "570,121", "569,097"]
    right = [int(row[4].removesuffix(f" of {CLIPS}")) for row in cells]
    assert right[0] >= CLIPS - 1
    assert max(right[1:]) < CLIPS / 2
    assert [row[5] for row in cells] == ["", *(f"{(n - right[0]) / CLIPS:+.1%}" for n in right[1:])]

    records = tmp_path / "joint_space_time/evaluation/videos.jsonl"
    before = records.stat().st_mtime_ns
    assert rows() == cells
    assert records.stat().st_mtime_ns == before


def test_a_run_is_not_trained_on_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [textures.procedural(family, np.random.default_rng(1)) for family in textures.TRAIN_FAMILIES]
    monkeypatch.setattr(train, "library", lambda *_, **__: pictures)
    options = {"attention": "joint_space_time", "steps": 2, "batch": 2, "rate": 1e-3, "seed": 3}
    train.train(tmp_path, **options)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    train.train(tmp_path, **options)  # is done already
    for changed in ({"steps": 4}, {"seed": 4}, {"attention": "space_only"}):
        with pytest.raises(SystemExit, match="use a different folder"):
            train.train(tmp_path, **(options | changed))
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def test_names_are_those_of_the_labels() -> None:
    """The class numbers of the list are the model's."""
    model = TimesformerForVideoClassification.from_pretrained("camera-motion")
    assert [model.config.id2label[index] for index in range(9)] == list(scenes.LABELS)
