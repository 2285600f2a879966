"""`timesformer finetune` on a file of vectors: the model of a run on the videos, without the videos."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.class_folders import CLASSES, EACH, bring, write_material
from testing.clips import write_model, write_video
from testing.command import Outcome, Run, exit_code, only_line
from testing.vectors import numbers
from timesformer_cli.results.vectors.reading import open_vectors

COUNT = len(CLASSES) * EACH


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, videos, and their vectors of one view; also of a copy and of a broken video."""
    folder = write_material(tmp_path_factory.mktemp("vectors"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("clips/dark/broken.mp4").write_bytes(b"no video")
        shutil.copy("clips/bright/bright_00.mp4", "clips/bright/copy.mp4")
        command = ["embed", "clips", "-m", "tiny", "--crops", "1", "--clips", "1", "--workers", "0"]
        assert exit_code(*command, "-o", "v.parquet") == 3
        for name in ("dark/broken.mp4", "bright/copy.mp4"):
            Path("clips", name).unlink()
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bring(material, tmp_path)
    for name in ("v.parquet", "v.parquet.meta.json"):
        shutil.copy(material / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    # Of all commands; the file knows its own.
    monkeypatch.setenv("TIMESFORMER_MODEL", "nothing-like-it")
    write_rows(*names())
    return tmp_path


@pytest.fixture
def finetune(run: Run) -> Run:
    def call(*args: str | Path) -> Outcome:
        return run("finetune", *args, "--workers", "0")

    return call


def names() -> list[str]:
    return [f"clips/{name}/{name}_{number:02}.mp4" for name in CLASSES for number in range(EACH)]


def write_rows(*paths: str, file: str = "labels.csv") -> None:
    Path(file).write_text("\n".join(["path,label", *(f"{path},{Path(path).stem[:-3]}" for path in paths), ""]))


def table(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_model_is_that_of_a_run_on_the_videos(finetune: Run) -> None:
    code, out, err = finetune("v.parquet", "-a", "labels.csv", "-o", "run")
    assert code == 0, err
    assert f"vectors: {COUNT + 1} in v.parquet, made with tiny" in err
    assert "not compared" not in err
    assert finetune(
        "clips", "-a", "labels.csv", "-m", "tiny", "--crops", "1", "--clips", "1", "-o", "from-videos"
    ).code == 0  # fmt: skip
    for name in ("model/model.safetensors", "model/config.json", "model/recipe.json", "data.csv", "val/scores.npz"):
        assert Path("run", name).read_bytes() == Path("from-videos", name).read_bytes(), name
    assert not Path("run/features").exists()
    settings, other = (json.loads(Path(folder, "settings.json").read_text()) for folder in ("run", "from-videos"))
    assert settings["vectors"]["file"] == "v.parquet"
    assert len(settings["vectors"]["sha256"]) == 64
    assert settings["base_model"] == other["base_model"]
    assert json.loads(out)["top_1"] == json.loads(Path("from-videos/metrics.json").read_text())["top_1"]


def test_a_wrong_label_is_listed_with_its_neighbours(finetune: Run) -> None:
    file = open_vectors(Path("v.parquet"))
    vectors = np.concatenate([file.take(file.find(name)) for name in names()])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # A video and those that are most like it are one class, but for its own label.
    order = np.argsort(-(units @ units[0]), kind="stable")
    labels = dict.fromkeys(names(), "far") | {names()[row]: "near" for row in order[1:9]}
    Path("labels.csv").write_text("".join(f"{row}\n" for row in ("path,label", *map(",".join, labels.items()))))
    code, out, err = finetune("v.parquet", "-a", "labels.csv", "-o", "run", "--group-by", "none")
    assert code == 0, err
    found = {each["path"]: each for each in json.loads(out)["neighbours_that_disagree"]}[names()[0]]
    assert found == {
        "path": names()[0],
        "label": "far",
        "theirs": "near",
        "votes": 5,
        "neighbours": 5,
        "nearest": names()[order[1]],
    }
    assert f'"disagreeing":[{{"path":"{names()[0]}"' in Path("run/report.html").read_text().replace(", ", ",").replace(
        ": ", ":"
    )


def test_the_videos_need_not_exist(finetune: Run) -> None:
    """The rows find their vectors by the names of files, as they find files in a folder; what failed is counted."""
    shutil.rmtree("clips")
    write_rows(*(Path(name).name for name in names()[:-1]), "dark_77.mp4")
    Path("labels.csv").write_text(Path("labels.csv").read_text() + "broken.mp4,dark\ncopy.mp4,bright\n")
    code, out, err = finetune("v.parquet", "-a", "labels.csv", "-o", "run")
    assert code == 3
    assert "the new model was not compared with the vectors" in err
    assert f"1 missing, the first: labels.csv: line {COUNT + 1}: 'dark_77.mp4' is not in v.parquet" in err
    assert f"1 unlisted, the first: {names()[-1]}: no row has this video" in err
    assert json.loads(out)["unreadable"] == 1
    groups = {row["path"]: row["group"] for row in table("run/data.csv")}
    assert list(groups) == [*names()[:-1], "clips/dark/broken.mp4", "clips/bright/copy.mp4"]
    assert "share one, since some of them have the same content: bright_00.mp4 and copy.mp4" in err
    assert (
        groups["clips/bright/copy.mp4"] == groups["clips/bright/bright_00.mp4"] != groups["clips/bright/bright_01.mp4"]
    )
    assert {row["place"]: row["kind"] for row in table("run/problems.csv")}["clips/dark/broken.mp4"] == "decode"
    # The folder is that of these vectors.
    shutil.copy("v.parquet", "again.parquet")
    assert finetune("v.parquet", "-a", "labels.csv", "-o", "run").code == 1
    code, _, err = finetune("again.parquet", "-a", "labels.csv", "-o", "run", "--resume")
    assert code == 1
    assert "vectors.file (v.parquet, now again.parquet)" in err.splitlines()[-1]


def test_a_video_that_changed_is_told(finetune: Run) -> None:
    for name in names():
        Path(name).unlink()  # it is a link to the file of all tests
        write_video(Path(name), level=50)
    code, _, err = finetune("v.parquet", "-a", "labels.csv", "-o", "run")
    assert code == 1
    assert (
        "from those of v.parquet; is the video still the same? If not, make its vectors again" in err.splitlines()[-1]
    )
    assert not Path("run/metrics.json").exists()


def test_other_videos_are_told(finetune: Run) -> None:
    write_rows("else/a_00.mp4", "else/b_00.mp4")
    code, _, err = finetune("v.parquet", "-a", "labels.csv", "-o", "run")
    assert code == 1
    assert "'else/a_00.mp4' is not in v.parquet" in only_line(err.splitlines()[-1])
    assert err.splitlines()[-1].endswith("; v.parquet has different ones, such as 'clips/bright/bright_00.mp4'")


def test_a_dry_run_writes_nothing(finetune: Run, here: Path) -> None:
    before = sorted(here.rglob("*"))
    code, out, err = finetune("v.parquet", "-a", "labels.csv", "--dry-run")
    assert code == 0, err
    assert sorted(here.rglob("*")) == before
    assert json.loads(out)["classes"] == dict.fromkeys(CLASSES, EACH)
    assert json.loads(out)["seconds"] == 0


def test_videos_for_validation(finetune: Run) -> None:
    held = [name for name in names() if name.endswith("05.mp4")]
    write_rows(*(name for name in names() if name not in held))
    write_rows(*held, file="held.csv")
    rows = [f"{name},{Path(name).parent.name},{'val' if name in held else 'train'}" for name in names()]
    Path("splits.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    for args in (["-a", "labels.csv", "--val", "held.csv"], ["-a", "splits.csv"]):
        code, out, err = finetune("v.parquet", *args, "--dry-run")
        assert code == 0, err
        plan = json.loads(out)
        assert (plan["measured_by"], plan["measured"], plan["training"]) == ("given", len(held), COUNT - len(held))


def rows_of(file: str, **kind: Any) -> None:
    """Vectors of the model `none`, of another kind."""
    vectors = np.random.default_rng(0).standard_normal((COUNT, 16)).astype(np.float32)
    numbers(Path(file), [(name, None, None) for name in names()], vectors, **kind)


def not_finite() -> None:
    rows_of("bad.npy")
    vectors = np.load("bad.npy")
    vectors[3, 5] = np.nan
    np.save("bad.npy", vectors)


@pytest.mark.parametrize(
    ("before", "args", "code", "said"),
    [
        (lambda: None, ["v.parquet"], 2, "v.parquet: is taken for a file of vectors, which has no labels"),
        (lambda: None, ["labels.csv"], 2, "name the file of the labels with --annotations"),
        (lambda: None, ["v.parquet", "-a", "labels.csv", "--method", "last"], 2, "--method last: trains the network"),
        (
            lambda: None,
            ["v.parquet", "-a", "labels.csv", "--clips", "2", "--set", "mean=0.5", "--recipe", "paper"],
            2,
            "--recipe, --set mean, --clips: cannot be changed",
        ),
        (lambda: None, ["v.parquet", "-a", "labels.csv", "--val", "clips"], 2, "--val clips: a folder has no vectors"),
        (lambda: None, ["nowhere.npz", "-a", "labels.csv"], 1, "nowhere.npz: no such file"),
        (lambda: None, ["labels.csv", "-a", "labels.csv"], 1, "labels.csv.meta.json, which holds its settings"),
        (not_finite, ["bad.npy", "-a", "labels.csv"], 1, f"bad.npy: the vector of {names()[3]} has numbers that are"),
        (lambda: rows_of("n.npz"), ["n.npz", "-a", "labels.csv"], 1, "n.npz was made with this model; --model says"),
        (
            lambda: write_model(Path("other"), labels=("a", "b")),
            ["v.parquet", "-a", "labels.csv", "-m", "other"],
            1,
            "other: its weights are not those that made v.parquet (with tiny)",
        ),
    ],
)
def test_bad_input(finetune: Run, before: Callable[[], object], args: list[str], code: int, said: str) -> None:
    before()
    found, out, err = finetune(*args, "-o", "run")
    assert (found, out) == (code, "")
    assert said in only_line(err)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ({"feature": "mean"}, "--feature mean"),
        ({"feature": "frames", "dtype": "float16"}, "--feature frames --dtype float16"),
        ({"normalized": True}, "--normalize"),
    ],
)
def test_other_vectors_are_refused_with_the_command_for_them(finetune: Run, kind: dict[str, Any], options: str) -> None:
    rows_of("n.npz", **kind)
    code, out, err = finetune("n.npz", "-a", "labels.csv", "-o", "run")
    assert (code, out) == (2, "")
    assert f"n.npz: was made with {options}, " in only_line(err)
    assert "with `timesformer embed clips --model none -o n-cls.npz`" in err


def test_the_command_makes_what_is_needed(finetune: Run, run: Run) -> None:
    options = ["--timeline", "--window", "1", "--hop", "0.5", "--crops", "1"]
    made = run("embed", "clips", "-m", "tiny", *options, "--normalize", "-o", "my vectors.npz", "--workers", "0")
    assert made.code == 0, made.err
    code, _, err = finetune("my vectors.npz", "-a", "labels.csv", "-o", "run")
    assert code == 2
    line = err.split("`")[1]
    assert line.endswith("--timeline --window 1 --hop 0.5 --set=clips=auto --set=crops=1 -o 'my vectors-cls.npz'")
    assert run(*shlex.split(line)[1:], "--workers", "0").code == 0
    assert finetune("my vectors-cls.npz", "-a", "labels.csv", "--dry-run").code == 0
