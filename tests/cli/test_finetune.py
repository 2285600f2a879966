"""`timesformer finetune` as its users meet it: labelled videos in, a model and its measurements out."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from testing.artefacts import write_linear
from testing.class_folders import CLASSES, EACH, bring, write_material
from testing.clips import write_video
from testing.command import Outcome, Run
from testing.pages import Elements
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.evaluation.calibration import calibrate
from timesformer_cli.jobs.finetune import features


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bring(material, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")
    return tmp_path


@pytest.fixture
def finetune(run: Run) -> Run:
    def call(*args: str | Path) -> Outcome:
        return run("finetune", *args, "--workers", "0")

    return call


def table(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def head_of(folder: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    network = TimesformerForVideoClassification.from_pretrained(folder)
    return network.classifier.weight.detach().numpy(), network.classifier.bias.detach().numpy()


def test_class_folders_become_a_model(finetune: Run, run: Run) -> None:
    code, out, err = finetune("clips", "-o", "runs/mine")
    assert code == 0, err
    metrics = json.loads(out)
    assert metrics == json.loads(Path("runs/mine/metrics.json").read_text())
    assert metrics["method"] == "probe"
    assert 0 <= metrics["top_1"]["accuracy"]["low"] <= metrics["top_1"]["accuracy"]["value"] <= 1
    assert set(os.listdir("runs/mine")) == {
        "data.csv", "features", "metrics.json", "model", "problems.csv", "report.html", "settings.json", "val",
    }  # fmt: skip
    assert set(os.listdir("runs/mine/model")) == {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "recipe.json",
    }  # fmt: skip
    rows = table("runs/mine/data.csv")
    assert list(rows[0]) == ["path", "start", "end", "label", "group", "split", "used"]
    assert len(rows) == len(CLASSES) * EACH
    assert {row["label"] for row in rows} == set(CLASSES)
    # The folder of the run is a name of the model.
    code, out, err = run("predict", "clips/dark/dark_00.mp4", "--model", "runs/mine", "--workers", "0")
    assert code == 0, err
    assert {each["label"] for each in json.loads(out)["predictions"]} == set(CLASSES)
    assert run("evaluate", "clips", "--model", "runs/mine", "--workers", "0").code == 0
    assert run("models", "show", "runs/mine").code == 0
    assert run("inspect", "clips/dark/dark_00.mp4", "--model", "runs/mine").code == 0


def test_the_report_shows_the_run(finetune: Run) -> None:
    Path("clips/dark/broken.mp4").write_bytes(b"no video")
    code, out, err = finetune("clips", "-o", "run")
    assert code == 3, err
    page = Elements(Path("run/report.html").read_text(encoding="utf-8"))
    facts, conditions = page.json
    assert facts["labels"] == list(CLASSES)
    assert facts["summary"]["top_1"] == json.loads(out)["top_1"]
    assert [each["training"] for each in facts["classes"]] == [EACH] * len(CLASSES)
    assert facts["left_out"][0]["videos"][0][0] == "clips/dark/broken.mp4"
    assert "model.safetensors, sha256" in dict(facts["protocol"])["Weights"]
    assert "torch 2" in dict(conditions)["Versions"]
    link = next(dict(attributes)["href"] for tag, attributes in page.tags if tag == "a")
    assert Path("run", link or "").is_file()
    for folder in ("run", "run/val"):
        assert json.loads(Path(folder, "metrics.json").read_text())["run"]["timeout"] == 60


def test_the_measured_scores_are_those_of_the_model(finetune: Run, run: Run) -> None:
    """With videos given for validation, evaluating the model on them gives the same."""
    for name in CLASSES:
        Path("held", name).mkdir(parents=True)
        shutil.move(f"clips/{name}/{name}_05.mp4", f"held/{name}")
    assert finetune("clips", "--val", "held", "-o", "run").code == 0
    assert run("evaluate", "held", "--model", "run", "-o", "again", "--workers", "0").code == 0
    one, other = (np.load(f"{folder}/scores.npz") for folder in ("run/val", "again"))
    assert one["path"].tolist() == other["path"].tolist()
    np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-5, atol=1e-5)
    found, again = (json.loads(Path(folder, "metrics.json").read_text()) for folder in ("run", "again"))
    assert found["top_1"] == again["top_1"]
    assert found["settings"]["data_set"] == again["settings"]["data_set"]
    code, out, _ = run("runs", "compare", "run/val", "again")
    assert (code, json.loads(out)["comparisons"][0]["difference"]["value"]) == (0, 0)


def test_a_dry_run_writes_nothing(finetune: Run, here: Path) -> None:
    before = sorted(here.rglob("*"))
    code, out, err = finetune("clips", "--dry-run")
    assert code == 0, err
    assert sorted(here.rglob("*")) == before
    plan = json.loads(out)
    assert plan["classes"] == dict.fromkeys(CLASSES, EACH)
    assert plan["seconds"] > 0


def test_another_number_of_frames_and_size_is_that_of_the_model(finetune: Run) -> None:
    code, _, err = finetune("clips", "-o", "run", "--num-frames", "6", "--set", "size=48", "--crops", "1")
    assert code == 0, err
    told = "resized for the new model: time embeddings from 4 to 6 frames, position embeddings from 4 x 4 to 6 x 6"
    assert err.count(told) == 1
    config = json.loads(Path("run/model/config.json").read_text())
    assert (config["num_frames"], config["image_size"]) == (6, 48)


def test_more_tokens_than_a_network_takes_are_refused_before_a_video_is_read(finetune: Run) -> None:
    code, _, err = finetune("clips", "-o", "run", "--num-frames", "4096", "--set", "size=2048")
    assert code == 2
    assert "tokens is 268435456; the most is 1048576" in err
    assert not Path("run").exists()


def test_a_second_run_reads_no_video_again(finetune: Run, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    assert finetune("clips", "-o", "run").code == 0
    head = head_of("run/model")
    Path("labels.csv").write_text(
        "path,label\n"
        + "".join(f"{path},{'a' if i % 2 else 'b'}\n" for i, path in enumerate(sorted(Path("clips").rglob("*.mp4"))))
    )

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a video is read again")

    monkeypatch.setattr(features, "score_all", refuse)
    code, _, err = finetune("clips", "-a", "labels.csv", "-o", "run", "--overwrite")
    assert code == 0, err
    assert resolve("run").labels == ("a", "b")
    code, _, err = finetune("clips", "-o", "run", "--overwrite")
    assert code == 0, err
    for one, other in zip(head, head_of("run/model"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_resume_goes_on_after_a_stop(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finetune("clips", "-o", "whole").code == 0
    add, seen = features._Cache.add, 0

    def stop(self: features._Cache, scored: object) -> features.Features:
        nonlocal seen
        seen += 1
        if seen == 8:
            raise KeyboardInterrupt
        return add(self, scored)  # type: ignore[arg-type]

    monkeypatch.setattr(features._Cache, "add", stop)
    assert finetune("clips", "-o", "run").code == 130
    assert not Path("run/model").exists()
    assert not Path("run/metrics.json").exists()
    assert finetune("clips", "-o", "run").code == 1
    seen = 100
    assert finetune("clips", "-o", "run", "--resume").code == 0
    assert seen == 100 + len(CLASSES) * EACH - 7
    for name in ("data.csv", "model/model.safetensors", "model/config.json", "val/scores.npz"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes(), name


def test_other_settings_are_not_resumed(finetune: Run) -> None:
    assert finetune("clips", "-o", "run").code == 0
    code, _, err = finetune("clips", "-o", "run", "--resume", "--seed", "1")
    assert code == 1
    assert "data.seed (0, now 1)" in err.splitlines()[-1]
    code, _, err = finetune("clips", "-o", "run", "--resume", "--model", "camera-motion")
    assert code == 1
    assert "base_model.source" in err.splitlines()[-1]
    shutil.rmtree("clips/wide")
    code, _, err = finetune("clips", "-o", "run", "--resume")
    assert code == 1
    assert "labels" in err.splitlines()[-1]


def test_broken_videos_are_counted_and_never_replaced(finetune: Run) -> None:
    Path("clips/dark/broken.mp4").write_bytes(b"no video")
    code, out, err = finetune("clips", "-o", "run")
    assert code == 3
    assert "failed: clips/dark/broken.mp4" in err
    (row,) = [row for row in table("run/data.csv") if "broken" in row["path"]]
    assert row["used"] == "0"
    assert len(table("run/data.csv")) == len(CLASSES) * EACH + 1
    assert any("broken" in row["place"] for row in table("run/problems.csv"))
    assert json.loads(out)["failed"] == 1


def change_names() -> None:
    shutil.copytree("clips/dark", "clips/Dark", copy_function=os.link)


def write_rows(*rows: tuple[str, str]) -> None:
    Path("labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))


def break_many(count: int = 4) -> None:
    for number in range(count):
        Path(f"clips/dark/dark_0{number}.mp4").unlink()
        Path(f"clips/dark/dark_0{number}.mp4").write_bytes(b"no video")


def occupy() -> None:
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("before", "args", "code", "said"),
    [
        (lambda: [shutil.rmtree(f"clips/{name}") for name in CLASSES[1:]], ["clips"], 1, "of one class"),
        (lambda: None, ["clips/dark"], 1, "not in class folders"),
        (lambda: None, ["nowhere"], 1, "no such folder"),
        (lambda: None, [], 2, "no dataset"),
        (change_names, ["clips"], 1, "'Dark'"),
        (break_many, ["clips", "--strict"], 1, "4 of 18 videos could not be read (4 decode)"),
        (lambda: break_many(EACH), ["clips"], 1, "could be read of 1 of 3 classes: 'dark'"),
        (occupy, ["clips"], 1, "other files"),
        (lambda: Path("run").write_text("a file"), ["clips"], 1, "run: cannot be written"),
        (lambda: Path("names.txt").write_text("dark\nlight\n"), ["clips", "--classes", "names.txt"], 1, "'light'"),
        (lambda: write_rows(("clips/dark/dark_00.mp4", "")), ["-a", "labels.csv"], 1, "has a label"),
        (
            lambda: write_rows(*((f"clips/dark/dark_0{number}.mp4", name) for number in range(3) for name in "ab")),
            ["-a", "labels.csv"],
            1,
            "has a different label",
        ),
        (
            lambda: write_linear(Path("model.onnx")),
            ["clips", "--model", "model.onnx", "--config", "tiny/config.json"],
            2,
            "an exported model",
        ),
        (lambda: None, ["clips", "--val", "test"], 2, "neither"),
        (lambda: None, ["clips", "--val", "clips"], 1, "both for training and for validation"),
        (lambda: None, ["clips", "--group-by", "("], 2, "regular expression"),
        (lambda: None, ["clips", "--resume", "--overwrite"], 2, "cannot be combined"),
        (lambda: None, ["clips", "--model", "nothing-like-it"], 1, "nothing-like-it"),
        (lambda: None, ["clips", "--device", "abacus"], 2, "abacus"),
    ],
)
def test_bad_input(finetune: Run, before: Callable[[], object], args: list[str], code: int, said: str) -> None:
    before()
    found, out, err = finetune(*args, "-o", "run")
    assert (found, out) == (code, ""), err
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert "bug" not in err


def test_many_unreadable_videos_are_a_warning(finetune: Run) -> None:
    break_many()
    code, _, err = finetune("clips", "-o", "run")
    assert code == 3
    assert "warning: 4 of 18 videos could not be read (4 decode); the first: clips/dark/dark_00.mp4" in err


def test_a_full_disk_ends_the_run_before_the_model_is_written(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        code, _, err = finetune("clips", "-o", "run")
    assert code == 1
    assert "the disk lacks 20 MB" in err.splitlines()[-1]
    assert not Path("run/model").exists()
    assert finetune("clips", "-o", "run", "--resume").code == 0


def test_a_conflict_is_left_out_and_counted(finetune: Run) -> None:
    paths = sorted(map(str, Path("clips").rglob("*.mp4")))
    write_rows(*((path, Path(path).parent.name) for path in paths), (paths[0], "dark"))
    code, _, err = finetune("-a", "labels.csv", "-o", "run")
    assert code == 0
    assert "1 conflict, the first: labels.csv: line 20" in err
    assert len(table("run/data.csv")) == len(paths) - 1
    code, _, err = finetune("-a", "labels.csv", "-o", "strict", "--strict")
    assert code == 1
    assert "line 20" in err.splitlines()[-1]


def test_a_class_that_is_not_measured_is_told(finetune: Run) -> None:
    for name in CLASSES[1:]:
        Path("held", name).mkdir(parents=True)
        shutil.move(f"clips/{name}/{name}_05.mp4", f"held/{name}")
    Path("held/unknown").mkdir()
    write_video(Path("held/unknown/u.mp4"), level=77)
    code, _, err = finetune("clips", "--val", "held", "-o", "run")
    assert code == 0
    assert "1 of 3 classes are only in training, so they are not measured: 'bright'" in err
    assert "1 unknown" in err
    assert finetune("clips", "--val", "held", "-o", "strict", "--strict").code == 1


def test_a_probe_at_chance_is_told(finetune: Run) -> None:
    """Labels that have nothing to do with the videos."""
    paths = sorted(map(str, Path("clips/dark").rglob("*.mp4")))
    write_rows(*((path, "ab"[number % 2]) for number, path in enumerate(paths)))
    code, out, err = finetune("-a", "labels.csv", "-o", "run")
    assert code == 0
    assert "warning: a model at chance" in err
    assert json.loads(out)["warning"]


def test_several_labels_for_each_video(finetune: Run, run: Run) -> None:
    paths = sorted(map(str, Path("clips").rglob("*.mp4")))
    rows = [f"{path},{Path(path).parent.name}|{'odd' if number % 2 else 'even'}" for number, path in enumerate(paths)]
    Path("labels.csv").write_text("\n".join(["path,labels", *rows, ""]))
    code, out, err = finetune("-a", "labels.csv", "-o", "run")
    assert code == 0, err
    assert 0 < json.loads(out)["mean_average_precision"] <= 1
    checkpoint = resolve("run")
    assert checkpoint.activation == "sigmoid"
    assert checkpoint.config.problem_type == "multi_label_classification"
    code, out, _ = run("predict", paths[0], "--model", "run", "--workers", "0")
    scores = [each["score"] for each in json.loads(out)["predictions"]]
    assert code == 0
    assert sum(scores) != pytest.approx(1, abs=1e-3)
    assert run("evaluate", "-a", "labels.csv", "--model", "run", "--workers", "0").code == 0


def test_classes_shots_and_groups(finetune: Run) -> None:
    Path("names.txt").write_text("wide\ndark\n")
    code, _, err = finetune("clips", "--classes", "names.txt", "--shots", "4", "-o", "run", "--balance", "loss")
    assert code == 0, err
    assert resolve("run").labels == ("wide", "dark")
    rows = table("run/data.csv")
    assert len(rows) == 2 * EACH
    assert sum(row["used"] == "1" for row in rows) == 2 * 4
    code, _, err = finetune("clips", "--group-by", r"_0(\d)", "-o", "other", "--min-top1", "1.0")
    assert "6 groups by the pattern" in err
    assert {row["group"] for row in table("other/data.csv")} == set("012345")
    assert code == (json.loads(Path("other/metrics.json").read_text())["top_1"]["accuracy"]["value"] < 1)


def mix_labels() -> None:
    """Labels that no head can tell apart, in `mixed.csv`."""
    paths = sorted(Path("clips").rglob("*.mp4"))
    rows = [f"{path.relative_to('clips')},{'ABC'[number % 3]}\n" for number, path in enumerate(paths)]
    Path("mixed.csv").write_text("path,label\n" + "".join(rows))


def test_the_new_model_is_calibrated_by_what_it_did_not_see(
    finetune: Run, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix_labels()
    monkeypatch.setattr("timesformer_cli.evaluation.calibration.LEAST_SOURCES", 10)
    options = ("clips", "-a", "mixed.csv", "--group-by", "none", "-o")
    code, out, err = finetune(*options, "run")
    assert code == 0, err
    told = json.loads(out)["calibration"]
    file = json.loads(Path("run/model/calibration.json").read_text())
    assert {name: file[name] for name in told} == told
    assert (file["measured_by"], told["videos"], told["sources"]) == ("crossed", 18, 18)
    assert told["log_loss"]["after"]["value"] <= told["log_loss"]["before"]["value"]
    assert '<section id="calibration">' in Path("run/report.html").read_text(encoding="utf-8")
    code, _, err = run("predict", "clips", "--model", "run", "--min-precision", "0.95", "--workers", "0")
    assert (code, "with 18 independent videos, and 59 right answers" in err) == (2, True)

    fitted = calibrate
    monkeypatch.setattr(
        "timesformer_cli.jobs.calibrate.calibrate",
        lambda *args, **options: replace(fitted(*args, **options), temperatures=np.array([2.0])),
    )
    assert finetune(*options, "halved").code == 0  # the new model gives the scores that were measured
    one, other = (np.concatenate([weight.ravel(), bias]) for weight, bias in map(head_of, ("run", "halved")))
    np.testing.assert_allclose(one * told["temperature"], 2 * other, rtol=1e-4)
    scores = [np.load(f"{name}/val/scores.npz")["logits"] for name in ("run", "halved")]
    np.testing.assert_allclose(scores[0] * told["temperature"], 2 * scores[1], rtol=1e-4, atol=1e-6)


def test_few_videos_leave_the_scores_as_they_are(finetune: Run) -> None:
    Path("run/model").mkdir(parents=True)
    Path("run/settings.json").touch()
    Path("run/model/calibration.json").write_text("{}")
    code, out, err = finetune("clips", "-o", "run", "--overwrite", "--group-by", "none")
    assert code == 0, err
    assert "scores were not calibrated: 18 independent sources of videos are too few" in err
    assert json.loads(out)["calibration"] is None
    assert not Path("run/model/calibration.json").exists()
