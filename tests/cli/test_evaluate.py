"""`timesformer evaluate` as its users meet it: a folder of videos in, metrics and a run folder out."""

import csv
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from testing.clips import LABELS, write_model, write_video
from testing.command import COMMAND, Outcome, Run, exit_code, only_line, started
from testing.retrain import train_again
from timesformer_cli.results import journal as durable
from timesformer_cli.results.logits import unpack
from timesformer_cli.runtimes.devices import find_device

VIDEOS = 12
FILES = [
    "confusion.npz",
    "confusion.png",
    "metrics.json",
    "per_class.csv",
    "predictions.csv",
    "problems.csv",
    "report.html",
    "scores.npz",
    "videos.jsonl",
    "videos.jsonl.meta.json",
]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a class folder of each of its labels, and lists of their videos."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_model(folder / "tiny")
    paths = []
    for number in range(VIDEOS):
        path = Path("val", LABELS[number % len(LABELS)], f"ü{number}.mp4")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / path, level=number)
        paths.append(path)
    write_list(folder / "val.csv", {str(path.relative_to("val")): number % 5 for number, path in enumerate(paths)})
    return folder


def write_list(file: Path, numbers: dict[str, int]) -> Path:
    file.write_text("".join(f"{path} {number}\n" for path, number in numbers.items()), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own for each test, with the model and the videos."""
    for name in ("tiny", "val", "val.csv"):
        (tmp_path / name).symlink_to(material / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")


@pytest.fixture
def evaluate(run: Run) -> Run:
    def call(*args: str | Path) -> Outcome:
        return run("evaluate", *args, "--workers", "0")

    return call


@pytest.fixture(scope="module")
def finished(material: Path) -> Path:
    """A run of all videos, left by the command itself."""
    with chdir(material):
        assert exit_code("evaluate", "val", "-a", "val.csv", "-m", "tiny", "-o", "run", "--workers", "0") == 0
    return material / "run"


def loaded(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file."""
    with np.load(path) as arrays:
        return dict(arrays)


def metrics_of(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8"))
    return content


def contents(folder: str | Path) -> dict[str, Any]:
    """All files of a run, but for what tells of time."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    files["metrics.json"] = {
        name: value for name, value in metrics_of(folder).items() if name not in ("throughput", "run")
    }
    files["report.html"] = re.sub(rb'<script [^>]*id="conditions">.*', b"", files["report.html"])
    return files


def add_bad_videos() -> None:
    """A copy of the videos with one that is none, one that no one listed, and one that is listed and not there."""
    shutil.copytree("val", "bad")
    Path("bad/waving/text.mp4").write_text("This is no video.\n" * 20)
    shutil.copy("bad/waving/ü0.mp4", "bad/waving/spare.mp4")
    lines = Path("val.csv").read_text(encoding="utf-8")
    Path("bad.csv").write_text(f"{lines}waving/text.mp4 0\nwaving/gone.mp4 0\n", encoding="utf-8")


class TestRun:
    def test_metrics_are_those_of_the_predictions(self, run: Run, evaluate: Run) -> None:
        outcome = evaluate("val", "-a", "val.csv", "-o", "runs/tiny")
        assert outcome.code == 0
        assert sorted(os.listdir("runs/tiny")) == FILES
        found = metrics_of("runs/tiny")
        assert json.loads(outcome.out) == found

        assert run("predict", "val", "--clips", "1", "--save-logits", "l.npz", "-o", "l.jsonl", "-q").code == 0
        saved = loaded("l.npz")
        targets = np.array([LABELS.index(path.split("/")[1]) for path in saved["path"].tolist()])
        kept = loaded("runs/tiny/scores.npz")
        order = [kept["path"].tolist().index(path) for path in saved["path"].tolist()]
        np.testing.assert_array_equal(kept["logits"][order], saved["logits"])
        exponentials = np.exp(saved["logits"].astype(float))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        top = [sk.top_k_accuracy_score(targets, probabilities, k=k, labels=range(5)) for k in (1, 3)]
        assert found["top_1"]["accuracy"]["value"] == pytest.approx(top[0])
        assert found["negative_log_likelihood"] == pytest.approx(sk.log_loss(targets, probabilities), rel=1e-4)
        assert found["mean_class_accuracy"]["value"] == pytest.approx(
            sk.balanced_accuracy_score(targets, probabilities.argmax(axis=1))
        )
        again = json.loads(run("runs", "rescore", "runs/tiny", "-k", "3").out)
        assert again["top_3"]["accuracy"]["value"] == pytest.approx(top[1])

    def test_what_the_run_folder_says(self, finished: Path) -> None:
        found = metrics_of(finished)
        assert found["counts"] == {
            "listed": VIDEOS,
            "evaluated": VIDEOS,
            "failed": 0,
            "left_out": 0,
            "failed_by_kind": {},
        }
        assert found["published"] is None
        assert found["settings"]["recipe"]["sampling"]["clips"] == 1
        assert found["settings"]["data_set"]["matched_by"] == "index"
        digest = subprocess.run(["sha256sum", "val.csv", "tiny/model.safetensors"], capture_output=True, check=True)
        annotations, weights = (line.split()[0] for line in digest.stdout.decode().splitlines())
        assert found["settings"]["data_set"]["annotations_sha256"] == annotations
        assert found["settings"]["weights_sha256"] == {"model.safetensors": weights}
        assert found["throughput"]["videos"] == VIDEOS
        assert found["run"]["device"] == str(find_device("auto"))
        assert found["run"]["versions"].keys() == {"timesformer-cli", "torch", "numpy", "av", "python"}

    def test_tables_agree_with_the_metrics(self, finished: Path) -> None:
        found = metrics_of(finished)
        with (finished / "predictions.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["path"] for row in rows] == [record["path"] for record in lines(finished / "videos.jsonl")]
        assert sum(int(row["correct"]) for row in rows) == found["top_1"]["correct"]
        assert sum(int(row["label_rank"]) <= 5 for row in rows) == found["top_5"]["correct"]
        assert {row["label"] for row in rows} == set(LABELS)
        assert all((row["label"] == row["predicted"]) == (row["correct"] == "1") for row in rows)
        with (finished / "per_class.csv").open(encoding="utf-8", newline="") as file:
            classes = list(csv.DictReader(file))
        assert [row["label"] for row in classes] == list(LABELS)
        assert sum(int(row["correct"]) for row in classes) == found["top_1"]["correct"]
        matrix = loaded(finished / "confusion.npz")["matrix"]
        assert matrix.sum(axis=1).tolist() == [int(row["videos"]) for row in classes]
        assert np.trace(matrix) == found["top_1"]["correct"]
        assert sum(pair["videos"] for pair in found["most_confused"]) == VIDEOS - found["top_1"]["correct"]
        saved = loaded(finished / "scores.npz")
        assert saved["logits"].dtype == np.float32
        assert [LABELS[index] for index in saved["target"]] == [row["label"] for row in rows]
        assert [LABELS[index] for index in saved["logits"].argmax(axis=1)] == [row["predicted"] for row in rows]

    def test_vectors_are_kept_for_the_report(self, run: Run, evaluate: Run, finished: Path) -> None:
        def vectors(folder: Path) -> dict[str, NDArray[np.float32]]:
            lines = (folder / "videos.jsonl").read_text(encoding="utf-8").splitlines()
            return {record["path"]: unpack(record["_embeddings"][0]) for record in map(json.loads, lines)}

        assert run("embed", "val", "--clips", "1", "-o", "v.npz", "--workers", "0").code == 0
        embedded = loaded("v.npz")
        expected = dict(zip(embedded["path"].tolist(), embedded["embedding"], strict=True))
        found = vectors(finished)
        assert found.keys() == expected.keys()
        for path, vector in expected.items():
            np.testing.assert_allclose(found[path], vector, rtol=1e-5, atol=1e-6)
        assert run("runs", "rescore", finished, "-o", "again").code == 0
        assert {path: vector.tolist() for path, vector in vectors(Path("again")).items()} == {
            path: vector.tolist() for path, vector in found.items()
        }

    def test_few_videos_have_no_neighbours(self, evaluate: Run) -> None:
        assert evaluate("val", "--limit", "5", "-o", "few").code == 0
        assert "_embeddings" not in Path("few/videos.jsonl").read_text(encoding="utf-8")

    def test_without_a_folder_nothing_is_left(self, evaluate: Run) -> None:
        before = sorted(os.listdir())
        outcome = evaluate("val", "--limit", "2")
        assert outcome.code == 0
        assert json.loads(outcome.out)["counts"]["evaluated"] == 2
        assert sorted(os.listdir()) == before

    def test_class_folders_need_no_annotations(self, evaluate: Run, finished: Path) -> None:
        found = json.loads(evaluate("val").out)
        assert found["top_1"] == metrics_of(finished)["top_1"]
        assert (found["settings"]["data_set"]["format"], found["settings"]["data_set"]["matched_by"]) == (
            "folders",
            "name",
        )

    def test_mean_probabilities_where_the_recipe_says_so(self, evaluate: Run) -> None:
        options = ["--set", "combine=probabilities", "--clips", "2", "--stride", "1", "--fps", "10", "-k", "2"]
        outcome = evaluate("val", *options, "-o", "p")
        assert outcome.code == 0
        saved = loaded("p/scores.npz")
        assert {"logits", "probabilities"} <= set(saved)
        np.testing.assert_allclose(saved["probabilities"].sum(axis=1), 1, rtol=1e-5)
        own = saved["probabilities"][np.arange(VIDEOS), saved["target"]]
        expected = (saved["probabilities"] > own[:, None]).sum(axis=1) < 2
        assert json.loads(outcome.out)["top_2"]["correct"] == expected.sum()
        assert json.loads(outcome.out)["negative_log_likelihood"] == pytest.approx(-np.log(own).mean(), rel=1e-4)

    def test_scores_are_sigmoids_if_the_model_has_several_labels(self, run: Run, evaluate: Run) -> None:
        write_model(Path("multi"), problem_type="multi_label_classification")
        args = ["val", "-m", "multi", "--clips", "1"]
        assert evaluate(*args, "-o", "s").code == 0
        assert run("predict", *args, "-o", "p.jsonl", "--save-logits", "p.npz", "-q").code == 0
        best = {record["path"]: record["predictions"][0]["score"] for record in lines(Path("p.jsonl"))}
        with open("s/predictions.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["path"]: float(row["score"]) for row in rows} == pytest.approx(best, rel=1e-4)
        saved = loaded("s/scores.npz")
        own = 1 / (1 + np.exp(-saved["logits"][np.arange(VIDEOS), saved["target"]].astype(float)))
        assert [float(row["label_score"]) for row in rows] == pytest.approx(own.tolist(), rel=1e-4)
        found = metrics_of("s")
        assert found["negative_log_likelihood"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
        assert found["settings"]["recipe"]["activation"] == "sigmoid"
        again = evaluate("val", "--from-predictions", "p.npz", "-o", "f")
        assert json.loads(again.out)["negative_log_likelihood"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
        other = evaluate("val", "--from-predictions", "p.npz", "--set", "activation=softmax")
        assert json.loads(other.out)["negative_log_likelihood"] != pytest.approx(-np.log(own).mean(), rel=1e-4)
        wrong = evaluate("val", "--from-predictions", "p.npz", "--set", "activation=tanh")
        assert (wrong.code, only_line(wrong.err)) == (
            2,
            "error: --set activation=tanh: known are softmax, sigmoid, none",
        )

    def test_amounts_are_not_kept_as_probabilities(self, evaluate: Run) -> None:
        write_model(Path("amounts"), problem_type="regression")
        outcome = evaluate("val", "-m", "amounts", "--set", "combine=probabilities", "--limit", "2", "-o", "amount")
        assert outcome.code == 0
        assert "probabilities" not in loaded("amount/scores.npz")
        found = metrics_of("amount")
        assert (found["negative_log_likelihood"], found["expected_calibration_error"]) == (None, None)
        assert found["top_1"]["accuracy"] is not None

    def test_several_labels_to_a_video(self, evaluate: Run) -> None:
        Path("multi.csv").write_text(
            "".join(f"{line} {number % 5}\n" for number, line in enumerate(Path("val.csv").read_text().splitlines(), 1))
        )
        outcome = evaluate("val", "-a", "multi.csv", "-o", "m")
        assert outcome.code == 0
        found = json.loads(outcome.out)
        saved = loaded("m/scores.npz")
        expected = sk.average_precision_score(saved["target"], saved["logits"])
        assert found["mean_average_precision"] == pytest.approx(expected)
        assert "top_1" not in found
        assert "confusion.npz" not in os.listdir("m")
        assert evaluate("val", "-a", "multi.csv", "--min-top1", "0.1").code == 2
        with open("m/per_class.csv", encoding="utf-8", newline="") as file:
            precisions = [float(row["average_precision"]) for row in csv.DictReader(file)]
        assert np.mean(precisions) == pytest.approx(expected, rel=1e-4)

    def test_numbers_that_look_like_guessing_come_with_a_warning(
        self, evaluate: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("timesformer_cli.evaluation.metrics.chance_warning", lambda _: "labels in another order")
        outcome = evaluate("val", "-o", "w")
        assert outcome.err.splitlines()[-1] == "warning: labels in another order"
        assert metrics_of("w")["warning"] == "labels in another order"

    def test_a_table_on_a_terminal(self, finished: Path, material: Path) -> None:
        shown = on_terminal("runs", "rescore", finished)
        accuracy = metrics_of(finished)["top_1"]["accuracy"]["value"]
        assert f"{100 * accuracy:.2f} %" in shown
        assert f"Videos: {VIDEOS} evaluated of {VIDEOS} listed." in shown
        assert "Most confused: " in shown

    def test_nine_of_nine_are_not_certain(self, run: Run) -> None:
        """All interval forms: what is a share, what is none, and a comparison in which no video flips."""
        write_scores(Path("scores.npz"), videos=9)
        outcome = run("evaluate", "--from-predictions", "scores.npz", "-o", "all")
        for found in (json.loads(outcome.out), json.loads(run("runs", "rescore", "all").out), metrics_of("all")):
            accuracy = found["top_1"]["accuracy"]
            assert (accuracy["value"], accuracy["high"], accuracy["method"]) == (1, 1, "wilson")
            assert accuracy["low"] == pytest.approx(0.7009, abs=5e-5)
            assert found["top_1"]["failures_as_wrong_interval"] == [accuracy["low"], 1]
            assert found["mean_class_accuracy"]["low"] == 1
            assert "the mean class accuracy has no width" in found["interval_note"]
        fused = json.loads(run("runs", "fuse", "all", "all").out)
        assert fused["top_1"]["accuracy"]["low"] == pytest.approx(0.7009, abs=5e-5)
        (compared,) = json.loads(run("runs", "compare", "all", "all").out)["comparisons"]
        assert (compared["difference"]["low"], compared["difference"]["high"]) == (0, 0)
        assert "the difference has no width" in compared["interval_note"]

        shown = on_terminal("runs", "rescore", "all")
        assert "70.09 to 100.00" in shown
        assert "The 95 % interval of the mean class accuracy has no width" in shown
        assert "all: The 95 % interval of the difference has no width" in on_terminal("runs", "compare", "all", "all")


def on_terminal(*args: str | Path) -> str:
    """What a command shows on a terminal of 100 columns."""
    pty = pytest.importorskip("pty")
    text = b""

    def read(descriptor: int) -> bytes:
        nonlocal text
        data = os.read(descriptor, 1024)
        text += data
        return data

    pty.spawn(["env", "COLUMNS=100", "NO_COLOR=1", *COMMAND, *map(str, args)], read)
    return text.decode()


def write_scores(file: Path, *, videos: int) -> None:
    """Scores of videos of three classes in turn, all right, as `evaluate` leaves them."""
    targets = np.arange(videos) % 3
    paths = np.array([f"{number}.mp4" for number in range(videos)])
    np.savez(file, path=paths, labels=np.array(LABELS[:3]), target=targets, logits=np.eye(3, dtype=np.float32)[targets])


class TestWhatIsMissing:
    def test_is_counted_and_listed(self, evaluate: Run) -> None:
        add_bad_videos()
        outcome = evaluate("bad", "-a", "bad.csv", "-o", "r")
        assert outcome.code == 3
        found = metrics_of("r")
        assert found["counts"] == {
            "listed": VIDEOS + 2,
            "evaluated": VIDEOS,
            "failed": 1,
            "left_out": 0,
            "failed_by_kind": {"decode": 1},
            "missing": 1,
            "unlisted": 1,
        }
        top = found["top_1"]
        assert top["accuracy"]["value"] == pytest.approx(top["correct"] / VIDEOS)
        assert top["failures_as_wrong"] == pytest.approx(top["correct"] / (VIDEOS + 1))
        with open("r/problems.csv", encoding="utf-8", newline="") as file:
            problems = [(row["kind"], row["place"]) for row in csv.DictReader(file)]
        assert problems == [("missing", f"bad.csv: line {VIDEOS + 2}"), ("unlisted", "bad/waving/spare.mp4")]
        with open("r/predictions.csv", encoding="utf-8", newline="") as file:
            last = list(csv.DictReader(file))[-1]
        assert (last["path"], last["status"], last["label"], last["predicted"]) == (
            "bad/waving/text.mp4",
            "error",
            "waving",
            "",
        )
        told = outcome.err.splitlines()
        assert told[0].startswith(f"1 missing, the first: bad.csv: line {VIDEOS + 2}: 'waving/gone.mp4'")
        assert told[1] == "1 unlisted, the first: bad/waving/spare.mp4: no row has this video"
        assert told[2].startswith("failed: bad/waving/text.mp4: ")

    def test_is_fatal_with_strict(self, evaluate: Run) -> None:
        add_bad_videos()
        code, _, err = evaluate("bad", "-a", "bad.csv", "--strict", "-o", "r")
        assert code == 1
        assert only_line(err).startswith("error: --strict: 1 of 14 videos are missing; the first: bad.csv: line 14: ")
        assert not Path("r").exists()

    def test_fail_fast(self, evaluate: Run) -> None:
        add_bad_videos()
        code, _, err = evaluate("bad", "-a", "bad.csv", "--fail-fast", "-o", "r", "-q")
        assert code == 1
        assert only_line(err).endswith("; stopped there")
        assert "metrics.json" not in os.listdir("r")

    def test_when_nothing_can_be_read(self, evaluate: Run) -> None:
        Path("none/waving").mkdir(parents=True)
        Path("none/waving/text.mp4").write_text("This is no video.\n" * 20)
        code, _, err = evaluate("none", "-o", "r", "-q")
        assert code == 1
        assert only_line(err).startswith("error: none of the 1 videos could be read; the first: none/waving/text.mp4: ")
        assert metrics_of("r")["top_1"]["accuracy"] is None

    def test_videos_that_failed_are_tried_again(self, evaluate: Run) -> None:
        add_bad_videos()
        evaluate("bad", "-a", "bad.csv", "-o", "r")
        shutil.copy("bad/waving/ü0.mp4", "bad/waving/text.mp4")
        assert evaluate("bad", "-a", "bad.csv", "-o", "r", "--resume").code == 3
        assert evaluate("bad", "-a", "bad.csv", "-o", "r", "--resume", "--retry-errors").code == 0
        assert metrics_of("r")["counts"]["evaluated"] == VIDEOS + 1

    def test_a_dry_run_shows_it(self, evaluate: Run) -> None:
        add_bad_videos()
        code, out, err = evaluate("bad", "-a", "bad.csv", "--dry-run", "-o", "r")
        assert code == 0
        assert out.splitlines()[0] == "bad/waving/ü0.mp4\twaving"
        assert len(out.splitlines()) == VIDEOS + 1
        assert (
            err.splitlines()[-1] == "13 of 14 videos to evaluate, in 5 of 5 classes, matched by index; bad.csv as list"
        )
        assert not Path("r").exists()


class TestProtocol:
    @pytest.mark.parametrize(
        ("options", "clips", "crops"),
        [
            ([], 1, 1),
            (["--clips", "auto"], None, 1),
            (["--clips", "2", "--crops", "3"], 2, 3),
            (["--recipe", "original"], 1, 3),
        ],
    )
    def test_views(self, evaluate: Run, options: list[str], clips: int | None, crops: int) -> None:
        recipe = json.loads(evaluate("val", "--limit", "1", *options).out)["settings"]["recipe"]
        assert (recipe["sampling"]["clips"], recipe["preprocess"]["crops"]) == (clips, crops)

    def test_a_part_of_the_data_set(self, evaluate: Run) -> None:
        chosen = [json.loads(evaluate("val", "--limit", "5", "--seed", "1", "-o", name).out) for name in ("a", "b")]
        assert chosen[0]["settings"] == chosen[1]["settings"]
        assert (chosen[0]["counts"]["evaluated"], chosen[0]["counts"]["listed"]) == (5, VIDEOS)
        Path("two.txt").write_text("sitting\nrunning\n")
        found = json.loads(evaluate("val", "--classes", "two.txt").out)
        assert (found["counts"]["evaluated"], found["classes"], found["classes_with_videos"]) == (4, 5, 2)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestResume:
    @pytest.mark.parametrize("stop", [0, 1, 7, VIDEOS])
    def test_equals_a_run_that_was_never_stopped(
        self, evaluate: Run, finished: Path, monkeypatch: pytest.MonkeyPatch, stop: int
    ) -> None:
        arguments = ("val", "-a", "val.csv", "-o", "run")
        with monkeypatch.context() as patch:
            stop_after(stop, patch)
            assert evaluate(*arguments).code == 130
        assert "metrics.json" not in os.listdir("run")
        assert evaluate(*arguments, "--resume").code == 0
        assert contents("run") == contents(finished)

    def test_after_a_kill(self, run: Run, finished: Path) -> None:
        arguments = ("evaluate", "val", "-a", "val.csv", "-o", "run")
        silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with started(*COMMAND, *arguments, **silent, start_new_session=True) as process:
            journal = Path("run/videos.jsonl")
            while process.poll() is None and not (journal.exists() and journal.stat().st_size):
                time.sleep(0.002)
            os.killpg(process.pid, signal.SIGKILL)
        assert run(*arguments, "--resume").code == 0
        assert contents("run") == contents(finished)

    def test_of_a_run_that_is_finished(self, evaluate: Run, finished: Path) -> None:
        shutil.copytree(finished, "run")
        before = metrics_of("run")
        outcome = evaluate("val", "-a", "val.csv", "-o", "run", "--resume")
        assert (outcome.code, only_line(outcome.err)) == (0, f"run: already holds all {VIDEOS} videos")
        assert metrics_of("run") == before

    def test_with_other_settings_is_refused(self, evaluate: Run, finished: Path) -> None:
        shutil.copytree(finished, "run")
        code, _, err = evaluate("val", "-a", "val.csv", "-o", "run", "--resume", "--clips", "2")
        assert code == 1
        assert "recipe.sampling.clips (1, now 2)" in only_line(err)
        assert contents("run") == contents(finished)

    def test_with_other_videos_is_refused(self, evaluate: Run, finished: Path) -> None:
        shutil.copytree(finished, "run")
        Path("less.csv").write_text(Path("val.csv").read_text().partition("\n")[2])
        code, _, err = evaluate("val", "-a", "less.csv", "-o", "run", "--resume", "-q")
        assert code == 1
        assert "data_set.samples (12, now 11)" in only_line(err)


def stop_after(number: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as that many videos are written."""
    write, written = durable.Ledger.write, 0

    def stopping(ledger: durable.Ledger, record: dict[str, Any]) -> None:
        nonlocal written
        if written == number:
            raise KeyboardInterrupt
        write(ledger, record)
        written += 1

    finish = durable.Ledger.finish

    def unfinished(ledger: durable.Ledger) -> None:
        if written == number:
            raise KeyboardInterrupt
        finish(ledger)

    patch.setattr(durable.Ledger, "write", stopping)
    patch.setattr(durable.Ledger, "finish", unfinished)


class TestShards:
    def test_merged_they_equal_one_run(self, run: Run, evaluate: Run, finished: Path) -> None:
        arguments = ("val", "-a", "val.csv", "-o", "run")
        for index in (1, 2, 3):
            assert evaluate(*arguments, "--shard", f"{index}/3").code == 0
        folders = [f"run.{index}-of-3" for index in (2, 3, 1)]
        outcome = run("runs", "merge", *folders, "-o", "whole")
        assert outcome.code == 0
        assert contents("whole") == contents(finished)
        code, _, err = run("runs", "merge", *folders[:2], "-o", "part")
        assert code == 1
        assert only_line(err) == "error: of 3 shards, number 1 is missing; name the outputs of all"
        assert run("runs", "merge", *folders, "-o", folders[0], "--overwrite").code == 2

    def test_torchrun_counts_each_video_once(
        self, run: Run, evaluate: Run, finished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "5")
        for rank in range(5):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            outcome = evaluate("val", "-a", "val.csv", "-o", "run", "--shard", "auto")
            assert outcome.code == 0
            assert f"--shard auto: this is shard {rank + 1}/5 of the videos" in outcome.err.splitlines()
        assert run("runs", "merge", *(f"run.{index}-of-5" for index in range(1, 6)), "-o", "whole").code == 0
        assert contents("whole") == contents(finished)

    def test_more_shards_than_videos(self, run: Run, evaluate: Run) -> None:
        for index in (1, 2, 3):
            outcome = evaluate("val", "--limit", "2", "-o", "run", "--shard", f"{index}/3")
            assert outcome.code == 0
        assert only_line(outcome.err) == "there is no video for this shard"
        merged = run("runs", "merge", *(f"run.{index}-of-3" for index in (1, 2, 3)), "-o", "whole")
        assert json.loads(merged.out)["counts"]["evaluated"] == 2


class TestParts:
    """Rows with `start` and `end` are parts of videos: 12 frames at 10 per second."""

    ROWS = ("ü0.mp4,0,0.4", "ü0.mp4,0.4,0.8", "ü0.mp4,0.8,", "ü5.mp4,,0.4", "ü5.mp4,,", "ü5.mp4,7,9")

    def write(self, *rows: str) -> None:
        lines = "".join(f"{row.replace(',', ',waving,', 1)}\n" for row in rows or self.ROWS)
        Path("parts.csv").write_text(f"path,label,start,end\n{lines}", encoding="utf-8")

    def evaluate(self, evaluate: Run, *args: str, code: int = 3) -> Outcome:
        outcome = evaluate("val/waving", "-a", "parts.csv", "-o", "r", *args)
        assert outcome.code == code, outcome.err
        return outcome

    @pytest.fixture
    def whole(self, evaluate: Run) -> Path:
        self.write()
        outcome = self.evaluate(evaluate)
        assert "failed: val/waving/ü5.mp4 (7 to 9 s): no frame in the part 7 to 9 s: the video lasts 1.20 s" in (
            outcome.err.splitlines()
        )
        return Path("r")

    def test_are_scored_as_the_segments_of_a_timeline(self, run: Run, whole: Path) -> None:
        timeline = ("--timeline", "--window", "0.4", "--clips", "1", "--save-logits", "l.npz", "-o", "l.jsonl", "-q")
        assert run("predict", "val/waving/ü0.mp4", *timeline, "--workers", "0").code == 0
        np.testing.assert_array_equal(loaded(whole / "scores.npz")["logits"][:3], loaded("l.npz")["logits"])
        segments = json.loads(Path("l.jsonl").read_text(encoding="utf-8"))["segments"]
        records = [json.loads(line) for line in (whole / "videos.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [record["views"] for record in records[:3]] == [segment["views"] for segment in segments]
        assert [[*record][:3] for record in records] == [
            *[["path", "start", "end"]] * 2,
            ["path", "start", "status"],
            ["path", "end", "status"],
            ["path", "status", "model"],
            ["path", "start", "end"],
        ]

    def test_are_told_apart_in_tables(self, run: Run, whole: Path) -> None:
        with (whole / "predictions.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["path"][-6:], row["start"], row["end"], row["status"]) for row in rows] == [
            ("ü0.mp4", "0.0", "0.4", "ok"),
            ("ü0.mp4", "0.4", "0.8", "ok"),
            ("ü0.mp4", "0.8", "", "ok"),
            ("ü5.mp4", "", "0.4", "ok"),
            ("ü5.mp4", "", "", "ok"),
            ("ü5.mp4", "7.0", "9.0", "error"),
        ]
        saved = loaded(whole / "scores.npz")
        nan = float("nan")
        np.testing.assert_array_equal(saved["start"], [0, 0.4, 0.8, nan, nan])
        np.testing.assert_array_equal(saved["end"], [0.4, 0.8, nan, 0.4, nan])
        assert run("runs", "rescore", whole, "-o", "again").code == 0
        for name in ("predictions.csv", "scores.npz"):
            assert Path("again", name).read_bytes() == (whole / name).read_bytes()

    def test_whole_videos_have_no_such_columns(self, evaluate: Run, finished: Path) -> None:
        assert "start" not in loaded(finished / "scores.npz")
        assert (finished / "predictions.csv").read_text(encoding="utf-8").startswith("path,status,")
        self.write("ü0.mp4,,", "ü5.mp4,,")
        self.evaluate(evaluate, code=0)
        assert "start" not in loaded("r/scores.npz")
        assert Path("r/predictions.csv").read_text(encoding="utf-8").startswith("path,status,")

    def test_a_run_goes_on_after_a_part(self, evaluate: Run, whole: Path) -> None:
        before = contents(whole)
        lines = before["videos.jsonl"].splitlines(keepends=True)
        (whole / "videos.jsonl").write_bytes(b"".join(lines[:2]))
        meta = json.loads(before["videos.jsonl.meta.json"])
        (whole / "videos.jsonl.meta.json").write_text(json.dumps(meta | {"finished": None}), encoding="utf-8")
        outcome = self.evaluate(evaluate, "--resume")
        assert "4 videos in" in outcome.err
        assert contents(whole) == before

    def test_shards_are_merged(self, run: Run, evaluate: Run, whole: Path) -> None:
        for number in (1, 2):
            assert evaluate("val/waving", "-a", "parts.csv", "-o", "s", "--shard", f"{number}/2").code in (0, 3)
        assert run("runs", "merge", "s.1-of-2", "s.2-of-2", "-o", "merged").code == 0
        for name in ("videos.jsonl", "videos.jsonl.meta.json", "predictions.csv", "scores.npz"):
            assert Path("merged", name).read_bytes() == (whole / name).read_bytes()

    def test_are_compared_and_fused_part_by_part(self, run: Run, evaluate: Run, whole: Path) -> None:
        rows = ("ü0.mp4,0.4,0.8", "ü0.mp4,0,0.4", "ü0.mp4,0,0.5", "ü5.mp4,,0.4")
        self.write(*rows)
        assert evaluate("val/waving", "-a", "parts.csv", "-o", "other", "--set", "mean=0.9").code == 0
        outcome = run("runs", "compare", whole, "other", "-o", "flips.csv")
        (row,) = json.loads(outcome.out)["comparisons"]
        assert (row["videos"], row["left_out"]) == (3, [2, 1])
        with open("flips.csv", encoding="utf-8", newline="") as file:
            flips = list(csv.DictReader(file))
        assert flips
        told = [{"path": flip["path"]} | times(flip) for flip in flips]
        assert told == row["gained"] + row["lost"]
        assert run("runs", "fuse", whole, "other", "-o", "fused").code == 0
        assert loaded("fused/scores.npz")["start"].tolist()[:2] == [0.0, 0.4]

    def test_scores_of_a_timeline_are_those_of_its_parts(self, run: Run, evaluate: Run) -> None:
        timeline = ("--timeline", "--window", "0.4", "--clips", "1", "--save-logits", "l.npz", "-o", "l.jsonl", "-q")
        assert run("predict", "val/waving", *timeline, "--workers", "0").code == 0
        rows = ("ü0.mp4,0.4,0.8", "ü5.mp4,0,0.4", "ü5.mp4,0.4000001,0.8", "ü0.mp4,0.1,0.3")
        self.write(*rows)
        outcome = evaluate("val/waving", "-a", "parts.csv", "--from-predictions", "l.npz", "-o", "scored")
        assert outcome.code == 3
        self.evaluate(evaluate, code=0)
        scored, own = loaded("scored/scores.npz"), loaded("r/scores.npz")
        np.testing.assert_array_equal(scored["logits"], own["logits"][:3])
        assert scored["start"].tolist() == [0.4, 0.0, 0.4000001]
        (failed,) = [
            line for line in Path("scored/predictions.csv").read_text("utf-8").splitlines() if ",error," in line
        ]
        assert failed.startswith("val/waving/ü0.mp4,0.1,0.3,error,waving,")
        again = evaluate("val/waving", "-a", "parts.csv", "--from-predictions", "scored/scores.npz")
        assert json.loads(again.out)["videos"] == 3
        alone = evaluate("--from-predictions", "scored/scores.npz", "-o", "alone")
        assert alone.code == 0
        assert loaded("alone/scores.npz")["start"].tolist() == [0.4, 0.0, 0.4000001]

    def test_scores_without_times_or_with_segments_are_refused(self, run: Run, evaluate: Run, whole: Path) -> None:
        saved = {name: array for name, array in loaded(whole / "scores.npz").items() if name not in ("start", "end")}
        saved["path"] = np.array([f"{number}.mp4" for number in range(5)])
        np.savez("untimed.npz", **saved)
        outcome = evaluate("val/waving", "-a", "parts.csv", "--from-predictions", "untimed.npz")
        assert outcome.code == 1
        assert "untimed.npz: does not say where videos start and end" in outcome.err.splitlines()[-1]
        outcome = evaluate("val", "-a", "val.csv", "--from-predictions", whole / "scores.npz")
        assert outcome.code == 1
        assert "has videos more than once; segments of a timeline can be evaluated only" in outcome.err.splitlines()[-1]

    def test_a_dry_run_lists_them(self, evaluate: Run) -> None:
        self.write()
        lines = self.evaluate(evaluate, "--dry-run", code=0).out.splitlines()
        assert lines[:3] == [f"val/waving/ü0.mp4\t{part}\twaving" for part in ("0\t0.4", "0.4\t0.8", "0.8\t")]
        assert lines[4] == "val/waving/ü5.mp4\t\t\twaving"


def times(cells: dict[str, str]) -> dict[str, float]:
    return {name: float(cells[name]) for name in ("start", "end") if cells[name]}


class TestAfterTheRun:
    def test_rescore_some_classes(self, run: Run, finished: Path) -> None:
        Path("two.txt").write_text("sitting\nwaving\n")
        outcome = run("runs", "rescore", finished, "--classes", "two.txt", "-o", "less")
        assert outcome.code == 0
        found = json.loads(outcome.out)
        saved = loaded(finished / "scores.npz")
        kept = np.isin(saved["target"], (0, 3))
        expected = (saved["logits"][kept][:, [0, 3]].argmax(axis=1) * 3 == saved["target"][kept]).mean()
        assert found["top_1"]["accuracy"]["value"] == pytest.approx(expected)
        assert (found["classes"], found["videos"]) == (2, kept.sum())
        assert json.loads(run("runs", "rescore", "less").out) == found

    def test_rescoring_changes_nothing(self, run: Run, finished: Path) -> None:
        found = metrics_of(finished)
        del found["throughput"], found["run"]
        assert json.loads(run("runs", "rescore", finished).out) == found

    def test_min_top1(self, run: Run, evaluate: Run, finished: Path) -> None:
        accuracy = metrics_of(finished)["top_1"]["accuracy"]["value"]
        assert run("runs", "rescore", finished, "--min-top1", str(accuracy)).code == 0
        code, out, err = run("runs", "rescore", finished, "--min-top1", "1")
        assert code == 1
        assert only_line(err) == f"error: --min-top1 1 is not met: top-1 accuracy is {accuracy:.4f}"
        assert json.loads(out)
        assert evaluate("val", "--limit", "3", "--min-top1", "1", "-q").code == 1

    def test_compare(self, run: Run, evaluate: Run, finished: Path) -> None:
        assert evaluate("val", "-a", "val.csv", "-o", "bgr", "--set", "mean=0.9").code == 0
        outcome = run("runs", "compare", finished, "bgr", "-o", "flips.csv")
        assert outcome.code == 0
        (row,) = json.loads(outcome.out)["comparisons"]
        first, second = (metrics_of(folder)["top_1"]["accuracy"]["value"] for folder in (finished, "bgr"))
        assert (row["first_top_1"], row["top_1"], row["videos"]) == (first, second, VIDEOS)
        assert row["difference"]["value"] == pytest.approx(second - first)
        assert len(row["gained"]) - len(row["lost"]) == round((second - first) * VIDEOS)
        assert row["gained"] or row["lost"]
        with open("flips.csv", encoding="utf-8", newline="") as file:
            flips = list(csv.DictReader(file))
        assert [flip["path"] for flip in flips] == row["gained"] + row["lost"]
        assert all((flip["second"] == flip["label"]) == (flip["change"] == "gained") for flip in flips)

    def test_fuse(self, run: Run, evaluate: Run, finished: Path) -> None:
        assert evaluate("val", "-a", "val.csv", "-o", "other", "--set", "mean=0.9").code == 0
        outcome = run("runs", "fuse", finished, "other", "--weights", "3,1", "-o", "fused")
        assert outcome.code == 0
        logits = [loaded(Path(folder, "scores.npz"))["logits"].astype(float) for folder in (finished, "other")]
        first, second = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in logits)
        saved = loaded("fused/scores.npz")
        np.testing.assert_allclose(saved["probabilities"], (3 * first + second) / 4, rtol=1e-5)
        assert json.loads(outcome.out)["model"] == "tiny + tiny"
        assert run("runs", "compare", finished, "fused").code == 0

    def test_videos_that_not_all_runs_have(self, run: Run, evaluate: Run, finished: Path) -> None:
        evaluate("val", "-a", "val.csv", "-o", "less", "--limit", "4")
        outcome = run("runs", "fuse", finished, "less")
        assert only_line(outcome.err) == f"{VIDEOS - 4} videos are not in all runs, and were left out"
        assert json.loads(outcome.out)["counts"]["evaluated"] == 4
        assert json.loads(run("runs", "compare", finished, "less").out)["comparisons"][0]["left_out"] == [8, 0]


class TestFromPredictions:
    def test_of_this_tool(self, run: Run, evaluate: Run, finished: Path) -> None:
        assert run("predict", "val", "--clips", "1", "--save-logits", "l.npz", "-o", "l.jsonl", "-q").code == 0
        outcome = evaluate("val", "-a", "val.csv", "--from-predictions", "l.npz", "-o", "r")
        assert outcome.code == 0
        found = json.loads(outcome.out)
        assert found["top_1"] == metrics_of(finished)["top_1"]
        assert found["negative_log_likelihood"] == pytest.approx(
            metrics_of(finished)["negative_log_likelihood"], rel=1e-5
        )
        assert run("runs", "compare", finished, "r").code == 0

    def test_of_a_run(self, evaluate: Run, finished: Path) -> None:
        outcome = evaluate("--from-predictions", finished / "scores.npz")
        assert outcome.code == 0
        assert json.loads(outcome.out)["top_1"] == metrics_of(finished)["top_1"]

    def test_a_pickle_in_the_order_of_the_annotations(self, evaluate: Run, finished: Path) -> None:
        saved = loaded(finished / "scores.npz")
        Path("out.pkl").write_bytes(pickle.dumps(list(saved["logits"])))
        outcome = evaluate("val", "-a", "val.csv", "--from-predictions", "out.pkl", "--labels", "labels.txt")
        assert outcome.code == 1
        Path("labels.txt").write_text("\n".join(label.replace("\t", " ") for label in LABELS), encoding="utf-8")
        outcome = evaluate("val", "-a", "val.csv", "--from-predictions", "out.pkl", "--labels", "labels.txt")
        assert json.loads(outcome.out)["top_1"] == metrics_of(finished)["top_1"]
        outcome = evaluate("val", "-a", "val.csv", "--from-predictions", "out.pkl")
        assert json.loads(outcome.out)["top_1"] == metrics_of(finished)["top_1"]

    def test_videos_without_scores_have_failed(self, evaluate: Run, finished: Path) -> None:
        saved = loaded(finished / "scores.npz")
        np.savez("less.npz", logits=saved["logits"][1:], path=saved["path"][1:], labels=saved["labels"])
        code, out, _ = evaluate("val", "-a", "val.csv", "--from-predictions", "less.npz")
        assert code == 3
        assert json.loads(out)["counts"]["failed_by_kind"] == {"not_found": 1}


WRONG = [
    ((), 2, "no dataset: name the folder"),
    (("none",), 1, "none: no such folder"),
    (("val", "-a", "none.csv"), 1, "none.csv: no such annotation file"),
    (("val", "--resume"), 2, "--resume, --overwrite and --shard need --output FOLDER"),
    (("val", "--shard", "1/2"), 2, "--resume, --overwrite and --shard need --output FOLDER"),
    (("val", "-o", "r", "--resume", "--overwrite"), 2, "--resume and --overwrite cannot be combined"),
    (("val", "-o", "r", "--retry-errors"), 2, "--retry-errors needs --resume"),
    (("val", "-a", "val.csv", "-o", "tiny"), 1, "tiny: holds no run, but other files such as 'config.json'"),
    (("val", "-o", "val.csv"), 1, "val.csv: cannot be written (File exists)"),
    (("val", "-o", "val.csv/r"), 1, "val.csv/r: cannot be written (Not a directory)"),
    (("val", "--min-top1", "77"), 2, "'77' is not a number from 0 to 1"),
    (("val", "-k", "0"), 2, "'0' is not a number of at least 1, or several separated by commas"),
    (("val", "--seed", "1"), 2, "--seed chooses which videos --limit takes"),
    (("val", "--annotations-format", "odd"), 2, "--annotations-format odd: not one of auto, "),
    (("val", "more"), 2, "Got unexpected extra argument"),
    (("val", "--device", "tpu"), 2, "--device tpu: unknown"),
    (("val", "--classes", "none.txt"), 1, "none.txt: no such file"),
    (("val", "--from-predictions", "l.npz", "--dry-run"), 2, "--from-predictions cannot be combined with --resume"),
    (("--from-predictions", "none.npz"), 1, "none.npz: cannot be read (No such file or directory)"),
    (("--from-predictions", "val.csv"), 1, "val.csv: holds no readable scores"),
    (("rescore", "val"), 1, "val: is not the folder of a run, which holds videos.jsonl and videos.jsonl.meta.json"),
    (("compare", "val"), 2, "two or more runs are needed"),
    (("fuse", "val", "val", "--weights", "1,x"), 2, "'1,x' are not numbers of 0 or more"),
    (("merge", "val", "-o", "r"), 1, "val/videos.jsonl: no such file"),
]


@pytest.mark.parametrize(
    ("args", "code", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None
)
def test_what_cannot_work_ends_in_one_line(run: Run, args: tuple[str, ...], code: int, message: str) -> None:
    outcome = run("evaluate", *args)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in only_line(outcome.err)


def test_a_data_set_of_other_classes_shows_both(evaluate: Run) -> None:
    Path("other/abseiling").mkdir(parents=True)
    shutil.copy(next(Path("val/waving").iterdir()), "other/abseiling/a.mp4")
    code, _, err = evaluate("other")
    assert code == 1
    assert "'abseiling' is not a class of the model" in only_line(err)
    assert "'waving'" in err


def test_a_run_is_not_replaced_unasked(evaluate: Run, finished: Path) -> None:
    shutil.copytree(finished, "run")
    code, _, err = evaluate("val", "-o", "run")
    assert code == 1
    assert only_line(err) == "error: run: already holds a run; choose another name, --resume or --overwrite"
    assert evaluate("val", "--limit", "2", "-o", "run", "--overwrite").code == 0
    assert metrics_of("run")["counts"]["evaluated"] == 2


def test_a_run_that_is_not_finished_is_not_read(run: Run, evaluate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        evaluate("val", "-o", "run")
    code, _, err = run("runs", "rescore", "run")
    assert code == 1
    assert only_line(err) == "error: run: its run is not finished; continue it first, with --resume"


RUNS = ("rescore", "compare", "fuse", "merge")


def test_help_shows_what_can_be_done_with_runs(run: Run) -> None:
    shown = run("runs", "--help").out
    assert all(f" {name} " in shown for name in RUNS)


def test_the_former_spellings_go_on(run: Run, evaluate: Run, finished: Path) -> None:
    """Scripts call them `evaluate rescore` and so on; help does not show that."""
    for args in (("rescore", finished), ("compare", finished, finished), ("fuse", finished, finished)):
        now = run("runs", *args)
        assert now.code == 0
        assert run("evaluate", *args) == run("-q", "evaluate", *args) == now
    assert run("evaluate", "merge", finished, "-o", "whole").code == 0
    shown = run("evaluate", "--help").out
    assert not any(f" {name} " in shown for name in RUNS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("ray")
def test_on_a_cluster(run: Run, finished: Path) -> None:
    """Equal to a run here, also where one that was stopped here goes on there."""
    cluster = ("--engine", "ray", "--ray-address", "local", "--device", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(5, patch)
        run("evaluate", "val", "-a", "val.csv", "-o", "run", "--workers", "0")
    assert run("evaluate", "val", "-a", "val.csv", "-o", "run", "--resume", *cluster).code == 0
    assert_equal(contents("run"), contents(finished))


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The files of two runs: scores within rounding, all else to the letter."""
    assert found.keys() == expected.keys()
    for name in sorted(found):
        if name.endswith(".npz"):
            with np.load(io.BytesIO(found[name])) as ours, np.load(io.BytesIO(expected[name])) as theirs:
                for array in theirs.files:
                    if ours[array].dtype.kind == "f":
                        np.testing.assert_allclose(ours[array], theirs[array], rtol=1e-5, atol=1e-6)
                    else:
                        np.testing.assert_array_equal(ours[array], theirs[array])
        elif name in ("confusion.png", "problems.csv", "videos.jsonl.meta.json"):
            assert found[name] == expected[name]
    for name in ("top_1", "counts", "most_confused", "settings"):
        assert found["metrics.json"][name] == expected["metrics.json"][name]


def test_other_weights_are_refused(evaluate: Run, finished: Path) -> None:
    """A folder whose model was trained again under the same name."""
    shutil.copytree(finished, "run")
    shutil.copytree("tiny", "again")
    Path("tiny").unlink()  # a link to what other tests use
    Path("again").rename("tiny")
    train_again(Path("tiny"))
    code, out, err = evaluate("val", "-a", "val.csv", "-o", "run", "--resume")
    assert (code, out) == (1, "")
    assert "was made with different settings: the weights (model.safetensors); " in only_line(err)
    assert contents("run") == contents(finished)
