"""`--groups`: answers in a user's own classes, in predict and in evaluate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.clips import LABELS, write_model, write_video
from testing.command import Run, only_line

VIDEOS = 5
MINE = {"waving": "hands", "sitting": "still", "running": "legs", "größer, schneller": "legs"}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with softmax and with sigmoids, videos, groups, and annotations with their names."""
    folder = tmp_path_factory.mktemp("groups")
    write_model(folder / "tiny")
    write_model(folder / "several", problem_type="multi_label_classification")
    for number in range(VIDEOS):
        (folder / "clips").mkdir(exist_ok=True)
        write_video(folder / "clips" / f"{number}.mp4", level=number)
    rows = "".join(f'"{label}",{name}\n' for label, name in MINE.items())
    (folder / "mine.csv").write_text(f"label,group\n{rows}", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "several", "clips", "mine.csv"):
        (tmp_path / name).symlink_to(material / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")


def scores_of(record: dict[str, Any]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in record["predictions"]}


def predicted(run: Run, *args: str | Path) -> list[dict[str, Any]]:
    code, out, err = run("predict", "clips", "--workers", "0", "-k", "9", *args)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


class TestPredict:
    def test_probabilities_add_up(self, run: Run) -> None:
        for own, mine in zip(predicted(run), predicted(run, "--groups", "mine.csv"), strict=True):
            labels, groups = scores_of(own), scores_of(mine)
            assert set(groups) == {"hands", "still", "legs", "other"}
            assert groups["legs"] == pytest.approx(labels["running"] + labels["größer, schneller"], rel=1e-5)
            assert groups["other"] == pytest.approx(labels["a\tb"], rel=1e-5)
            assert sorted(each["index"] for each in mine["predictions"]) == [0, 1, 2, 3]

    def test_of_sigmoids_the_largest_counts(self, run: Run) -> None:
        for own, mine in zip(
            predicted(run, "--model", "several"),
            predicted(run, "--model", "several", "--groups", "mine.csv"),
            strict=True,
        ):
            labels, groups = scores_of(own), scores_of(mine)
            assert groups["legs"] == pytest.approx(max(labels["running"], labels["größer, schneller"]), rel=1e-6)

    def test_all_outputs_have_the_groups(self, run: Run) -> None:
        args = ("-o", "l.jsonl", "--groups", "mine.csv", "--save-logits", "l.npz", "--save-embeddings", "v.npz")
        predicted(run, *args, "--copy-to", "sorted/{label}")
        assert {path.name for path in Path("sorted").iterdir()} <= {"hands", "still", "legs", "other"}
        settings = json.loads(Path("l.jsonl.meta.json").read_text())["settings"]
        assert settings["groups"] == {"hands": ["waving"], "still": ["sitting"], "legs": [LABELS[1], "running"]}
        with np.load("l.npz") as file:
            assert file["labels"].tolist() == settings["labels"] == ["hands", "still", "legs", "other"]
            assert file["logits"].shape == (VIDEOS, 4)
        with np.load("v.npz") as file:  # vectors are the model's own, whatever its answers are called
            assert "groups" not in json.loads(str(file["timesformer"]))

    def test_a_page_says_what_the_groups_are_made_of(self, run: Run) -> None:
        predicted(run, "-o", "l.html", "--groups", "mine.csv")
        (facts,) = (line for line in Path("l.html").read_text().splitlines() if 'id="run"' in line)
        facts = json.loads(facts[facts.index("{") : facts.rindex("}") + 1])
        assert facts["labels"] == ["hands", "still", "legs", "other"]
        assert facts["groups"] == {"hands": ["waving"], "still": ["sitting"], "legs": [LABELS[1], "running"]}

    def test_a_run_continues_only_with_the_same_groups(self, run: Run) -> None:
        predicted(run, "-o", "l.jsonl", "--groups", "mine.csv", "--limit", "2")
        predicted(run, "-o", "l.jsonl", "--groups", "mine.csv", "--resume")
        assert len(Path("l.jsonl").read_text().splitlines()) == VIDEOS
        Path("other.csv").write_text("waving,hands\nsitting,legs\n")
        for args in ((), ("--groups", "other.csv")):
            code, _, err = run("predict", "clips", "-k", "9", "-o", "l.jsonl", "--resume", *args)
            assert code == 1
            assert "was made with different settings: groups" in only_line(err)

    def test_a_mistake_is_one_line(self, run: Run) -> None:
        Path("wrong.csv").write_text("label,group\nwavin,hands\n")
        code, out, err = run("predict", "clips", "--groups", "wrong.csv")
        assert (code, out) == (2, "")
        expected = "wrong.csv: line 2: 'wavin' is not a label of the model; did you mean 'waving'?"
        assert only_line(err).endswith(expected)


class TestEvaluate:
    @pytest.fixture
    def truth(self, run: Run) -> list[str]:
        """Annotations in which two of the videos have a different group than the answer."""
        answers = [record["predictions"][0]["label"] for record in predicted(run, "--groups", "mine.csv")]
        right = [*answers[:3], *("still" if answer != "still" else "legs" for answer in answers[3:])]
        rows = "".join(f"{number}.mp4,{label}\n" for number, label in enumerate(right))
        Path("truth.csv").write_text(f"path,label\n{rows}")
        return right

    def test_accuracy_is_that_of_the_groups(self, run: Run, truth: list[str]) -> None:
        args = ("clips", "-a", "truth.csv", "--groups", "mine.csv", "--json", "--workers", "0")
        code, out, err = run("evaluate", *args, "-o", "run")
        assert code == 0, err
        found = json.loads(out)
        assert found["top_1"]["accuracy"]["value"] == pytest.approx(0.6)
        assert found["settings"]["groups"]["legs"] == [LABELS[1], "running"]
        assert {path.name for path in Path("run").iterdir()} >= {"report.html", "scores.npz"}
        report = Path("run/report.html").read_text(encoding="utf-8")
        assert "--groups groups.csv" in report
        assert '["Group still","sitting"]' in report.replace(", ", ",")
        with np.load("run/scores.npz") as file:
            assert file["labels"].tolist() == ["hands", "still", "legs", "other"]
        code, out, _ = run("runs", "rescore", "run", "--json", "-o", "again")
        again = json.loads(out)
        assert code == 0
        assert again["top_1"] == found["top_1"]
        assert again["settings"]["groups"] == found["settings"]["groups"]

    def test_scores_of_a_file_can_be_grouped(self, run: Run, truth: list[str]) -> None:
        predicted(run, "-o", "l.jsonl", "--save-logits", "l.npz")
        data = ("clips", "-a", "truth.csv", "--groups", "mine.csv", "--json")
        _, expected, _ = run("evaluate", *data, "--clips", "auto", "--workers", "0")
        code, out, err = run("evaluate", *data, "--from-predictions", "l.npz")
        assert code == 0, err
        loss = "negative_log_likelihood"
        assert json.loads(out)["top_1"] == json.loads(expected)["top_1"]
        assert json.loads(out)[loss] == pytest.approx(json.loads(expected)[loss], rel=1e-5)

    def test_annotations_with_labels_of_the_model_are_refused(self, run: Run) -> None:
        Path("labels.csv").write_text("path,label\n0.mp4,running\n1.mp4,legs\n")
        code, out, err = run("evaluate", "clips", "-a", "labels.csv", "--groups", "mine.csv", "--workers", "0")
        assert (code, out) == (2, "")
        assert "labels.csv: line 2: 'running' is a label of the model" in only_line(err)
