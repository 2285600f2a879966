"""`evaluate --calibrate` and `predict --min-precision`."""

import csv
import json
import os
import shutil
from contextlib import chdir
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from testing.clips import write_model, write_video
from testing.command import Outcome, Run, exit_code, only_line
from testing.pages import Elements
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.evaluation.calibration import calibrate
from timesformer_cli.evaluation.calibration_file import FILE, write
from timesformer_cli.evaluation.precision import Curve
from timesformer_cli.results.record import OPEN
from timesformer_cli.specs import Recipe

VIDEOS = 21


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, videos, and labels for them: most of them those that the model gives."""
    folder = tmp_path_factory.mktemp("calibrate")
    write_model(folder / "tiny")
    (folder / "clips").mkdir()
    for number in range(VIDEOS):
        write_video(folder / f"clips/{chr(ord('a') + number)}.mp4", level=number, frames=6)
    with chdir(folder):
        options = ("-m", "tiny", "--workers", "0", "-o", "found.jsonl", "-q", "--clips", "1")
        assert exit_code("predict", "clips", *options) == 0
    rows: list[tuple[str, ...]] = [("path", "label")]
    for number, line in enumerate((folder / "found.jsonl").read_text(encoding="utf-8").splitlines()):
        ranks = json.loads(line)["predictions"]
        rows.append((Path(json.loads(line)["path"]).name, ranks[number % 3 == 0]["label"]))
    write_table(folder / "labels.csv", rows)
    with chdir(folder):
        options = ("-a", "labels.csv", "-m", "tiny", "--workers", "0", "-q", "--calibrate", "-o", "done")
        assert exit_code("evaluate", "clips", *options) == 0
    return folder


def write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "clips", "labels.csv"):
        (tmp_path / name).symlink_to(material / name)
    shutil.copytree(material / "done", tmp_path / "done")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def evaluate(run: Run) -> Run:
    def call(*args: str | Path) -> Outcome:
        return run("evaluate", "clips", "-a", "labels.csv", "--workers", "0", *args)

    return call


@pytest.fixture
def predict(run: Run) -> Run:
    def call(*args: str | Path) -> Outcome:
        return run("predict", *args, "-m", "done", "--workers", "0")

    return call


def loaded(path: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


def logits_of(folder: str) -> NDArray[np.float32]:
    with np.load(f"{folder}/scores.npz") as file:
        found: NDArray[np.float32] = file["logits"]
    return found


class TestEvaluate:
    def test_every_command_sees_the_divided_scores(self, evaluate: Run) -> None:
        temperature = loaded("done/metrics.json")["calibration"]["temperature"]
        assert 0.05 < temperature < 20
        assert temperature != pytest.approx(1, abs=0.05)
        code, out, err = evaluate("-m", "done", "-o", "again")
        assert code == 0, err
        np.testing.assert_allclose(logits_of("again"), logits_of("done") / temperature, rtol=1e-4, atol=1e-5)
        found, before = json.loads(out), loaded("done/metrics.json")
        assert found["top_1"] == before["top_1"]
        assert found["negative_log_likelihood"] < before["negative_log_likelihood"]
        assert "calibration" not in found
        assert resolve("done").recipe == resolve("done/model").recipe

    def test_what_is_kept(self) -> None:
        file, metrics = loaded(f"done/model/{FILE}"), loaded("done/metrics.json")
        told = metrics["calibration"]
        assert {name: file[name] for name in told if name != "model"} | {"model": told["model"]} == told
        assert (told["videos"], told["sources"], told["sources_by"]) == (VIDEOS, VIDEOS, "file, each by itself")
        assert told["log_loss"]["before"]["value"] == pytest.approx(metrics["negative_log_likelihood"], rel=1e-5)
        assert told["calibration_error"]["before"]["value"] == pytest.approx(metrics["expected_calibration_error"])
        assert file["samples_sha256"] == metrics["settings"]["data_set"]["samples_sha256"]
        assert len(file["curve"]["score"]) == len(file["curve"]["right"]) == VIDEOS
        assert file["coverage"][-1] == {
            "threshold": 0, "coverage": 1, "precision": metrics["top_1"]["accuracy"]["value"],
            "precision_low": file["coverage"][-1]["precision_low"],
        }  # fmt: skip
        assert Recipe.from_dict(file["recipe"]) == resolve("done").recipe

    def test_the_report_and_the_card_tell_it(self) -> None:
        text = Path("done/report.html").read_text(encoding="utf-8")
        page = Elements(text)
        assert ("section", [("id", "calibration")]) in page.tags
        temperature = loaded("done/metrics.json")["calibration"]["temperature"]
        assert f"Temperature {temperature:.3f} (95 % interval" in text
        assert "temperature that was fitted to 21 videos of 21 sources" in Path("done/model/README.md").read_text()

    def test_a_new_run_has_no_old_model(self, evaluate: Run) -> None:
        assert evaluate("-m", "tiny", "-o", "done", "--overwrite").code == 0
        assert not Path("done/model").exists()

    def test_a_finished_run_is_calibrated_without_the_network(self, evaluate: Run) -> None:
        before = loaded("done/metrics.json")["calibration"]
        shutil.rmtree("done/model")
        code, out, err = evaluate("-m", "tiny", "-o", "done", "--resume", "--calibrate")
        assert code == 0, err
        assert "already holds all 21 videos" in err
        assert json.loads(out)["calibration"] == before
        assert Path("done/model/model.safetensors").is_file()

    def test_the_model_of_the_run_is_not_replaced_by_it(self, evaluate: Run) -> None:
        code, _, err = evaluate("-m", "done", "-o", "done", "--overwrite")
        assert (code, only_line(err)) == (
            1, "error: done: holds the model that is evaluated; name another folder",
        )  # fmt: skip
        assert Path("done/model/model.safetensors").is_file()

    def test_videos_of_one_source_count_once(self, evaluate: Run) -> None:
        with Path("labels.csv").open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        sources = [("site", *head), *((f"site {max(number - 1, 0)}", *row) for number, row in enumerate(rows))]
        write_table(Path("sites.csv"), [tuple(row) for row in sources])
        code, out, err = evaluate("-a", "sites.csv", "-m", "tiny", "--calibrate", "-o", "sites")
        assert code == 0, err
        told = json.loads(out)["calibration"]
        assert (told["videos"], told["sources"], told["sources_by"]) == (VIDEOS, VIDEOS - 1, "the column site")
        assert evaluate("-m", "tiny", "--calibrate", "-o", "b", "--group-by", "nothing").code == 2

    def test_several_labels(self, run: Run) -> None:
        """With fewer than 50 videos of a class, no class has a temperature of its own."""
        write_model(Path("sigmoid"), problem_type="multi_label_classification")
        code, _, err = run(
            "evaluate", "clips", "-a", "labels.csv", "-m", "sigmoid", "--calibrate", "-o", "many", "--workers", "0"
        )
        assert code == 1
        assert "no class has videos of 50 independent sources" in err


TRAINED = "path,start,end,label,group,split,used\n"


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ("clips/c.mp4,,,sitting,c,train,1\n", True),
        ("../{here}/clips/c.mp4,,,sitting,c,train,1\n", True),
        ("clips/c.mp4,0.1,0.2,sitting,c,train,1\n", True),
        ("clips/c.mp4,,,sitting,c,val,1\nclips/d.mp4,,,sitting,c,train,0\nother/c.mp4,,,sitting,c,train,1\n", False),
    ],
)
def test_videos_of_the_training_are_refused(evaluate: Run, rows: str, refused: bool) -> None:
    shutil.copytree("tiny", "runs/1/model")
    Path("runs/1/data.csv").write_text(TRAINED + rows.format(here=Path.cwd().name), encoding="utf-8")
    code, _, err = evaluate("-m", "runs/1", "--calibrate", "-o", "new")
    assert code == (1 if refused else 0), err
    if refused:
        assert "clips/c.mp4: runs/1 was trained on it" in only_line(err)
        assert not Path("new").exists()
        return
    # The calibrated model remembers what it was trained on.
    assert Path("new/model/data.csv").read_text(encoding="utf-8").startswith(TRAINED)


def test_another_part_of_a_video_of_the_training_is_not_refused(run: Run) -> None:
    shutil.copytree("tiny", "runs/1/model")
    Path("runs/1/data.csv").write_text(TRAINED + "clips/c.mp4,0,0.2,sitting,c,train,1\n", encoding="utf-8")
    with Path("labels.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    parts = [(path, "0.2", "0.5", label) for path, label in rows]
    write_table(Path("parts.csv"), [("path", "start", "end", "label"), *parts])
    arguments = ("clips", "-a", "parts.csv", "-m", "runs/1", "--calibrate", "-o", "parts", "--workers", "0")
    code, _, err = run("evaluate", *arguments)
    assert code == 0, err
    assert loaded(f"parts/model/{FILE}")["whole_videos"] is False


def one_class() -> None:
    with Path("labels.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    write_table(Path("one.csv"), [tuple(head), *((path, "sitting") for path, _ in rows)])


def amounts() -> None:
    write_model(Path("amounts"), problem_type="regression")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 2, "--calibrate needs --output RUN"),
        (["-o", "x", "--shard", "1/2"], 2, "cannot be combined with --shard"),
        (["-o", "x", "--from-predictions", "done/scores.npz"], 2, "cannot be combined with --from-predictions"),
        (["-o", "x", "--groups", "groups.csv"], 2, "cannot be combined with --groups"),
        (["-o", "x", "--limit", "5"], 1, "5 independent sources of videos are too few"),
        (["-o", "x", "-a", "one.csv"], 1, "all videos are of one class"),
        (["-o", "x", "--set", "combine=probabilities"], 2, "evaluate it with --set combine=logits"),
        (["-o", "x", "-m", "amounts"], 2, "amounts and not probabilities"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated(evaluate: Run, args: list[str], code: int, said: str) -> None:
    one_class()
    if "amounts" in args:
        amounts()
    found, _, err = evaluate("-m", "tiny", "--calibrate", *args)
    assert found == code, err
    assert said in err.splitlines()[-1]


def test_a_group_needs_a_calibration(evaluate: Run) -> None:
    code, _, err = evaluate("-m", "tiny", "--group-by", "none")
    assert (code, only_line(err)) == (2, "error: --group-by needs --calibrate")


@pytest.fixture
def threshold() -> float:
    """A score from which the model `sure` is right, and below which it is not; half of the clips have it."""
    logits = logits_of("done").astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    least = float(np.floor(100 * np.median(chances.max(axis=1))) / 100)
    shutil.copytree("done/model", "sure", ignore=shutil.ignore_patterns(FILE))
    shutil.copy("tiny/model.safetensors", "sure")
    logits = np.random.default_rng(0).normal(size=(150, 5))
    found = calibrate(logits.astype(np.float32), np.arange(150) % 5, np.arange(150))
    scores = np.where(np.arange(150) < 100, least + 0.005, least - 0.005)
    found = replace(found, curve=Curve.of(scores, np.arange(150) < 100))
    write(Path("sure"), found, {}, resolve("sure").recipe, whole_videos=True)
    return least


class TestPredict:
    def test_unsure_answers_are_left_open(self, run: Run, threshold: float) -> None:
        plain = run("predict", "clips", "-m", "sure", "--workers", "0").records
        code, out, err = run("predict", "clips", "-m", "sure", "--workers", "0", "--min-precision", "0.95")
        assert code == 0, err
        records = [json.loads(line) for line in out.splitlines()]
        assert [{**record, "abstained": None} for record in records] == [{**each, "abstained": None} for each in plain]
        unsure = [record["predictions"][0]["score"] < threshold for record in records]
        assert [record.get("abstained", False) for record in records] == unsure
        assert 0 < sum(unsure) < VIDEOS
        assert f"answers with a score of at least {threshold:g} are kept, as for 67 %" in err

    def test_formats(self, run: Run, threshold: float) -> None:
        ask = ("-m", "sure", "--workers", "0", "--min-precision", "0.95")
        scores = logits_of("done").max(axis=1) - np.log(np.exp(logits_of("done")).sum(axis=1))
        unsure, sure = (f"clips/{chr(ord('a') + place)}.mp4" for place in (scores.argmin(), scores.argmax()))
        for kind in ("csv", "parquet", "table", "html", "labelstudio", "fiftyone", "activitynet"):
            assert run("predict", unsure, sure, *ask, "-f", kind, "-o", f"out.{kind}").code == 0
        with Path("out.csv").open(encoding="utf-8", newline="") as file:
            rows = {row["path"]: row["abstained"] for row in csv.DictReader(file)}
        assert (rows[unsure], rows[sure]) == ("true", "")
        pyarrow = pytest.importorskip("pyarrow.parquet")
        column = {row["path"]: row["abstained"] for row in pyarrow.read_table("out.parquet").to_pylist()}
        assert (column[unsure], column[sure]) == (True, None)
        lines = Path("out.table").read_text(encoding="utf-8").splitlines()
        assert next(line for line in lines if unsure in line).split() == [unsure, OPEN]
        assert "%" in next(line for line in lines if sure in line)
        (_, *shown) = Elements(Path("out.html").read_text(encoding="utf-8")).json
        parts = {row["path"]: row["parts"][0] for row in shown}
        assert (parts[unsure].get("abstained"), parts[sure].get("abstained")) == (True, None)
        tasks = {task["data"]["path"]: task["predictions"] for task in json.loads(Path("out.labelstudio").read_text())}
        assert (tasks[unsure], len(tasks[sure])) == ([], 1)
        labels = json.loads(Path("out.fiftyone").read_text())["labels"]
        assert (labels[os.path.abspath(unsure)], len(labels[os.path.abspath(sure)])) == ([], 1)
        results = json.loads(Path("out.activitynet").read_text())["results"]
        assert (results[Path(unsure).stem], len(results[Path(sure).stem])) == ([], 5)
        for kind in ("srt", "vtt"):
            texts = [run("predict", path, *ask, "-f", kind).out.splitlines()[-1] for path in (unsure, sure)]
            assert texts[0] == OPEN
            assert texts[1].endswith("%)")

    def test_videos_without_an_answer_are_put_apart(self, run: Run, threshold: float) -> None:
        ask = ("-m", "sure", "--workers", "0", "--min-precision", "0.95", "--copy-to", "sorted", "--link")
        records = run("predict", "clips", *ask).records
        unsure = {Path(record["path"]).name for record in records if record.get("abstained")}
        assert set(os.listdir("sorted/unsure")) == unsure
        assert len(list(Path("sorted").rglob("*.mp4"))) == VIDEOS

    def test_another_precision_is_not_resumed(self, run: Run, threshold: float) -> None:
        ask = ("predict", "clips/a.mp4", "-m", "sure", "--workers", "0", "-o", "out.jsonl", "--min-precision")
        assert run(*ask, "0.95").code == 0
        assert run(*ask, "0.95", "--resume").code == 0
        code, _, err = run(*ask, "0.9", "--resume")
        assert code == 1
        assert "shown.min_precision (0.95, now 0.9)" in err

    def test_segments(self, run: Run, threshold: float) -> None:
        """They need a calibration of parts; then those that are merged are all sure, or all unsure."""
        few = [f"clips/{letter}.mp4" for letter in "abcdefgh"]
        ask = ("predict", *few, "-m", "sure", "--workers", "0", "--timeline", "--window", "0.1")
        code, _, err = run(*ask, "--min-precision", "0.95")
        assert (code, "calibrated with whole videos" in err) == (2, True)
        path = Path("sure", FILE)
        path.write_text(path.read_text().replace('"whole_videos": true', '"whole_videos": false'))
        plain, merged = (run(*ask, "--min-precision", "0.95", *more).records for more in ([], ["--merge"]))
        sides = [[self.side(each, threshold) for each in record["segments"]] for record in plain]
        assert {unsure for record in sides for _, unsure in record} == {False, True}
        expected = [[side for side, _ in groupby(record)] for record in sides]
        assert [[self.side(each, threshold) for each in record["segments"]] for record in merged] == expected
        by_label = [[label for label, _ in groupby(record, lambda side: side[0])] for record in sides]
        assert sum(map(len, by_label)) < sum(map(len, expected)) < sum(map(len, sides))

    @staticmethod
    def side(segment: dict[str, Any], threshold: float) -> tuple[str, bool]:
        """The label of a segment, and whether it is unsure, which its record must say."""
        first = segment["predictions"][0]
        assert segment.get("abstained", False) == (first["score"] < threshold)
        return first["label"], first["score"] < threshold

    def test_why_there_is_no_threshold(self, predict: Run) -> None:
        code, _, err = predict("clips", "--min-precision", "0.95")
        assert code == 2
        assert "with 21 independent videos, and 59 right answers without an error are needed" in only_line(err)

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["-m", "tiny"], "tiny was not calibrated"),
            (["--clips", "2"], "calibrated with different settings: sampling.clips (1, now 2)"),
            (["--raw-logits"], "the scores are logits; leave out --raw-logits"),
            (["--groups", "groups.csv"], "the labels of the model were calibrated, and not --groups of them"),
            (["--weights", "x"], "goes with a short name"),
        ],
    )
    def test_another_use_is_refused(self, run: Run, threshold: float, args: list[str], said: str) -> None:
        write_table(Path("groups.csv"), [("sitting", "still")])
        code, _, err = run("predict", "clips/a.mp4", "-m", "sure", *args, "--min-precision", "0.95")
        assert code == 2
        assert said in only_line(err)

    @pytest.mark.parametrize("value", ["0", "1", "95", "x"])
    def test_a_precision_is_a_share(self, predict: Run, value: str) -> None:
        assert predict("clips", "--min-precision", value).code == 2

    def test_other_weights_and_damaged_files_are_refused(self, run: Run, threshold: float) -> None:
        ask = ("predict", "clips", "-m", "sure", "--min-precision", "0.95")
        shutil.copy("done/model/model.safetensors", "sure")
        code, _, err = run(*ask)
        assert (code, "of different weights than sure/model.safetensors" in only_line(err)) == (2, True)
        text = Path("sure", FILE).read_text()
        for damaged in (text[:100], "[]", text.replace('"right": [1, ', '"right": [')):
            Path("sure", FILE).write_text(damaged)
            code, _, err = run(*ask)
            assert (code, "is damaged" in only_line(err)) == (2, True)
