"""`timesformer embed` and `predict --save-embeddings` as their users meet them."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from testing.clips import write_model, write_video
from testing.command import COMMAND, Run, only_line, started
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.api import embed as embed_one
from timesformer_cli.api import open_model
from timesformer_cli.results.journal import meta_of
from timesformer_cli.results.vectors.reading import open_vectors
from timesformer_cli.video.addresses import item_at

GOOD = [f"clips/{number}.mp4" for number in range(4)]
MIXED = [GOOD[0], "missing.mp4", *GOOD[1:]]
D = 16  # of the tiny network
TIMELINE = ("--timeline", "--window", "1", "--hop", "0.5")
FORMATS = ("parquet", "npz", "npy", "jsonl", "csv")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    write_model(folder / "tiny")
    (folder / "clips").mkdir()
    for number, path in enumerate(GOOD):
        write_video(folder / path, level=number, frames=(10, 11, 25, 2)[number])
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(material)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")


def good(run: Run, *args: str | Path, code: int = 0) -> str:
    outcome = run(*args, "--workers", "0") if args[0] != "merge" else run(*args)
    assert outcome.code == code, outcome.err
    return outcome.out


def refused(run: Run, *args: str | Path, code: int = 2) -> str:
    outcome = run(*args)
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    return only_line(outcome.err)


def vectors(path: Path) -> NDArray[np.float32]:
    file = open_vectors(path)
    return file.take(range(file.count))


def head() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    classifier = TimesformerForVideoClassification.from_pretrained("tiny").classifier
    weight, bias = (each.detach().double().numpy() for each in (classifier.weight, classifier.bias))
    return weight, bias


def same_files(one: Path, other: Path) -> None:
    """Two files of vectors, with what lies beside them."""
    assert one.read_bytes() == other.read_bytes()
    for name in (".meta.json", ".jsonl"):
        first, second = (
            path.with_name(path.name + name) if name == ".meta.json" else path.with_suffix(name)
            for path in (one, other)
        )
        if first.exists() or second.exists():
            assert first.read_bytes() == second.read_bytes()


class TestIdentity:
    """The classifier, applied to a vector, gives the mean logits."""

    @pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time", "space_only"])
    def test_with_logits_of_the_same_run(self, run: Run, tmp_path: Path, attention: str) -> None:
        write_model(tmp_path / "model", attention_type=attention)
        classifier = TimesformerForVideoClassification.from_pretrained(tmp_path / "model").classifier
        labels, logits, saved = tmp_path / "l.jsonl", tmp_path / "l.npz", tmp_path / "v.npz"
        args = ("-m", tmp_path / "model", "--clips", "2", "--crops", "3")
        good(run, "predict", *GOOD, *args, "-o", labels, "--save-logits", logits, "--save-embeddings", saved)
        good(run, "embed", *GOOD, *args, "-o", tmp_path / "e.npz")
        weight, bias = (each.detach().numpy() for each in (classifier.weight, classifier.bias))
        with np.load(logits) as file:
            expected = file["logits"]
        for path in (saved, tmp_path / "e.npz"):
            np.testing.assert_allclose(vectors(path) @ weight.T + bias, expected, rtol=1e-5, atol=1e-5)

    def test_in_timelines(self, run: Run, tmp_path: Path) -> None:
        labels, logits, saved = tmp_path / "l.csv", tmp_path / "l.parquet", tmp_path / "v.parquet"
        args = (*MIXED, *TIMELINE)
        files = ("-o", labels, "--save-logits", logits, "--save-embeddings", saved)
        good(run, "predict", *args, *files, code=3)
        good(run, "embed", *args, "-o", tmp_path / "e.parquet", code=3)
        same_files(saved, tmp_path / "e.parquet")
        weight, bias = head()
        table = parquet.read_table(logits)
        found = open_vectors(saved)
        np.testing.assert_allclose(vectors(saved) @ weight.T + bias, np.stack(table["logits"].to_pylist()), atol=1e-5)
        rows = found.rows(range(found.count))
        assert [(row.path, row.start, row.end) for row in rows] == [
            tuple(row.values()) for row in table.select(["path", "start", "end"]).to_pylist()
        ]

    def test_merged_segments_have_the_mean(self, run: Run, tmp_path: Path) -> None:
        labels, logits, saved = tmp_path / "l.jsonl", tmp_path / "l.npz", tmp_path / "v.npz"
        files = ("-o", labels, "--save-logits", logits, "--save-embeddings", saved)
        good(run, "predict", GOOD[2], *TIMELINE, "--merge", *files)
        weight, bias = head()
        with np.load(logits) as file:
            assert 0 < len(file["logits"]) < 4
            np.testing.assert_allclose(vectors(saved) @ weight.T + bias, file["logits"], atol=1e-5)

    def test_with_the_python_function(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", *GOOD, "-o", tmp_path / "e.npy")
        for path, vector in zip(GOOD, vectors(tmp_path / "e.npy"), strict=True):
            np.testing.assert_allclose(vector, embed_one(path, "tiny"), rtol=1e-5, atol=1e-6)

    def test_labels_are_the_same_without(self, run: Run, tmp_path: Path) -> None:
        for name, extra in (("a", ()), ("b", ("--save-embeddings", tmp_path / "v.npz"))):
            good(run, "predict", *MIXED, "-o", tmp_path / f"{name}.jsonl", *extra, code=3)
        assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


class TestKinds:
    def test_half_precision_and_unit_length(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", *GOOD, "-o", tmp_path / "a.npy")
        good(run, "embed", *GOOD, "-o", tmp_path / "b.npy", "--dtype", "float16", "--normalize")
        plain, stored = vectors(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
        assert stored.dtype == np.float16
        unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
        np.testing.assert_array_equal(stored, unit.astype(np.float16))

    def test_the_mean_of_all_patches(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", *GOOD, "--feature", "mean", "--clips", "2", "-o", tmp_path / "m.npy")
        good(run, "embed", *GOOD, "--feature", "frames", "--clips", "2", "-o", tmp_path / "f.npz")
        whole, frames = vectors(tmp_path / "m.npy"), open_vectors(tmp_path / "f.npz")
        for path, vector in zip(GOOD, whole, strict=True):
            rows = frames.find(path)
            assert len(rows) == 8
            np.testing.assert_allclose(frames.take(rows).mean(0), vector, rtol=1e-5, atol=1e-6)
        tokens = embed_one(GOOD[0], "tiny")
        assert np.abs(whole[0] - tokens).max() > 0.1

    def test_frames_have_the_numbers_of_the_plan_and_its_times(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", GOOD[2], "--feature", "frames", "--clips", "2", "--crops", "3", "-o", tmp_path / "f.parquet")
        file = open_vectors(tmp_path / "f.parquet")
        model = open_model("tiny")
        record = json.loads(good(run, "predict", GOOD[2], "--clips", "2"))
        planned = [number for view in record["views"] for number in view["frames"]]
        rows = file.rows(range(file.count))
        assert [row.frame for row in rows] == planned
        assert [row.time for row in rows] == pytest.approx([number / 10 for number in planned])
        # Crops show the same frames, and are averaged.
        views = model.scored(item_at(GOOD[2]), "embedding").labels
        assert views[0].frames == tuple(planned[:4])

    def test_settings_are_stated(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", GOOD[0], *TIMELINE, "--feature", "mean", "-o", tmp_path / "v.parquet")
        stated = json.loads(parquet.read_schema(tmp_path / "v.parquet").metadata[b"timesformer"])
        assert stated["vectors"] == {"feature": "mean", "dimension": D, "dtype": "float32", "normalized": False}
        assert re.fullmatch(r"[0-9a-f]{64}", stated["weights_sha256"]["model.safetensors"])
        assert stated["timeline"] == {"length": 1.0, "hop": 0.5}


class TestOutputs:
    @pytest.mark.parametrize("format", FORMATS)
    def test_all_formats_hold_the_same(self, run: Run, tmp_path: Path, format: str) -> None:
        good(run, "embed", *MIXED, *TIMELINE, "-o", tmp_path / "a.npz", code=3)
        good(run, "embed", *MIXED, *TIMELINE, "-o", tmp_path / f"b.{format}", code=3)
        one, other = open_vectors(tmp_path / "a.npz"), open_vectors(tmp_path / f"b.{format}")
        np.testing.assert_array_equal(one.take(range(one.count)), other.take(range(other.count)))
        names = [[(row.path, row.start, row.end) for row in file.rows(range(file.count))] for file in (one, other)]
        assert names[0] == names[1]
        failed = [row.path for row in other.entries() if row.vector is None]
        assert failed == ([] if format in ("npz", "npy") else ["missing.mp4"])

    def test_a_pipe_gets_json_lines(self, run: Run, tmp_path: Path) -> None:
        outcome = run("embed", *MIXED, "--workers", "0")
        assert outcome.code == 3
        good(run, "embed", *MIXED, "-o", tmp_path / "v.jsonl", code=3)
        assert outcome.out == (tmp_path / "v.jsonl").read_text()
        assert [record.get("error_kind") for record in outcome.records] == [None, "not_found", None, None, None]
        lines = good(run, "embed", GOOD[0], "-f", "csv").splitlines()
        assert lines[0] == "path,start,end,embedding,error_kind,error_message"

    def test_a_terminal_gets_a_line_for_each_video(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        outcome = run("embed", GOOD[0], "missing.mp4", "--workers", "0")
        norm = float(np.linalg.norm(embed_one(GOOD[0], "tiny").astype(np.float64)))
        first, second = outcome.out.splitlines()
        assert first == f"clips/0.mp4  (16,)  norm {norm:.4g}"
        assert second.startswith("missing.mp4  failed (not_found): ")
        assert "--output clips.parquet saves them" in outcome.err

    def test_the_format_may_be_named(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", GOOD[0], "-f", "npy", "-o", tmp_path / "v.bin")
        assert np.load(tmp_path / "v.bin").shape == (1, D)
        assert (tmp_path / "v.jsonl").is_file()
        good(run, "embed", GOOD[0], "-f", "table", "-o", tmp_path / "v.txt")
        assert (tmp_path / "v.txt").read_text().startswith("clips/0.mp4  (16,)  norm ")

    def test_a_dry_run_lists_the_videos(self, run: Run, tmp_path: Path) -> None:
        outcome = run("embed", *GOOD, "--dry-run", "-o", tmp_path / "v.parquet")
        assert outcome.out.splitlines() == GOOD
        assert "4 videos to embed with tiny" in outcome.err
        assert [*tmp_path.iterdir()] == []

    def test_one_array_for_each_video(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        write_video(tmp_path / "in" / "0.mp4", frames=25)
        (tmp_path / "in" / "0.mkv").write_bytes((tmp_path / "in" / "0.mp4").read_bytes())
        inputs = [*MIXED, tmp_path / "in"]
        folder = tmp_path / "feats"
        good(run, "embed", *inputs, *TIMELINE, "--per-video", "-o", folder, code=3)
        index = json.loads((folder / "index.json").read_text())
        files = [entry.get("file") for entry in index["videos"]]
        below = "/".join(tmp_path.parts[1:])
        assert files[:2] == ["clips/0.npy", None]
        assert files[-2:] == [f"{below}/in/0.npy", f"{below}/in/0.mp4.npy"]
        assert index["videos"][1]["error"]["kind"] == "not_found"
        good(run, "embed", *MIXED, *TIMELINE, "-o", tmp_path / "v.parquet", code=3)
        whole = open_vectors(tmp_path / "v.parquet")
        for entry in (index["videos"][0], *index["videos"][2:5]):
            array = np.load(folder / entry["file"])
            np.testing.assert_array_equal(array, whole.take(whole.find(entry["path"])))
            assert entry["rows"] == len(entry["starts"]) == len(array)
            assert (entry["fps"], entry["num_frames"], entry["feat_stride"]) == (10, 10, 5)
        assert index["settings"]["vectors"]["dimension"] == D
        assert good(run, "embed", *inputs, *TIMELINE, "--per-video", "-o", folder, "--resume", code=3) == ""

    def test_a_folder_that_is_not_needed_is_not_left(self, run: Run, tmp_path: Path) -> None:
        args = ("embed", GOOD[0], "--per-video", "-o", tmp_path / "new")
        assert run(*args, "--dry-run").out == f"{GOOD[0]}\n"
        assert refused(run, *args, "-m", "absent", code=1)
        assert [*tmp_path.iterdir()] == []
        line = refused(run, "embed", GOOD[0], "--per-video", "-o", tmp_path / "a" / "b", code=1)
        assert f"the folder {tmp_path / 'a'} does not exist" in line

    def test_frames_for_each_video(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", GOOD[0], "--feature", "frames", "--per-video", "-o", tmp_path / "f", "--clips", "1")
        (entry,) = json.loads((tmp_path / "f" / "index.json").read_text())["videos"]
        assert np.load(tmp_path / "f" / entry["file"]).shape == (4, D)
        assert len(entry["times"]) == len(entry["frames"]) == 4


def interrupted(folder: Path, *args: str | Path) -> None:
    """Stop a run of `args` with Ctrl-C once it has a record on disk."""
    journal = folder / "v.parquet.part.jsonl"
    command = (*COMMAND, *args, "-o", folder / "v.parquet", "--workers", "0")
    with started(*command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        if process.returncode == 0:
            pytest.skip("it was done before it could be stopped")
        assert process.returncode == 130


class TestRuns:
    """Resumed, sharded and merged files are those of a single run."""

    @pytest.fixture(scope="class")
    @staticmethod
    def many(material: Path) -> Path:
        folder = material / "many"
        folder.mkdir()
        for number in range(36):
            shutil.copyfile(material / GOOD[number % 4], folder / f"{number:02}.mp4")
        (folder / "20.mp4").write_bytes(b"")
        return folder

    def test_resumed(self, run: Run, tmp_path: Path, many: Path) -> None:
        good(run, "embed", many, *TIMELINE, "-o", tmp_path / "whole.parquet", code=3)
        interrupted(tmp_path, "embed", many, *TIMELINE)
        assert not (tmp_path / "v.parquet").exists()
        good(run, "embed", many, *TIMELINE, "-o", tmp_path / "v.parquet", "--resume", code=3)
        same_files(tmp_path / "v.parquet", tmp_path / "whole.parquet")

    @pytest.mark.parametrize("format", ["parquet", "npz", "npy"])
    def test_sharded_and_merged(self, run: Run, tmp_path: Path, many: Path, format: str) -> None:
        good(run, "embed", many, *TIMELINE, "-o", tmp_path / f"whole.{format}", code=3)
        for number in (1, 2, 3):
            codes = {1: 0, 2: 0, 3: 3}  # the broken one is the 21st
            good(
                run,
                "embed",
                many,
                *TIMELINE,
                "-o",
                tmp_path / f"v.{format}",
                "--shard",
                f"{number}/3",
                code=codes[number],
            )
        shards = sorted(tmp_path.glob(f"v.*-of-3.{format}"), reverse=True)
        assert len(shards) == 3
        good(run, "merge", *shards, "-o", tmp_path / f"v.{format}")
        same_files(tmp_path / f"v.{format}", tmp_path / f"whole.{format}")

    def test_merge_converts(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", *MIXED, "-o", tmp_path / "a.parquet", code=3)
        good(run, "embed", *MIXED, "-o", tmp_path / "whole.npy", code=3)
        good(run, "merge", tmp_path / "a.parquet", "-o", tmp_path / "b.npy")
        same_files(tmp_path / "b.npy", tmp_path / "whole.npy")

    def test_vectors_beside_labels_are_sharded_too(self, run: Run, tmp_path: Path) -> None:
        files = ("-o", tmp_path / "l.jsonl", "--save-embeddings", tmp_path / "v.npz")
        for number in (1, 2):
            good(run, "predict", *MIXED, *files, "--shard", f"{number}/2", code=3 if number == 2 else 0)
        good(run, "merge", *tmp_path.glob("v.*-of-2.npz"), "-o", tmp_path / "v.npz")
        good(run, "embed", *MIXED, "-o", tmp_path / "e.npz", code=3)
        same_files(tmp_path / "v.npz", tmp_path / "e.npz")

    def test_a_resumed_run_keeps_its_settings(self, run: Run, tmp_path: Path) -> None:
        good(run, "embed", *GOOD, "-o", tmp_path / "v.npz")
        assert "nothing to do" in run("embed", *GOOD, "-o", tmp_path / "v.npz", "--resume").err
        line = refused(run, "embed", *GOOD, "-o", tmp_path / "v.npz", "--resume", "--feature", "mean", code=1)
        assert "different settings: vectors.feature (cls, now mean)" in line
        assert "already exists" in refused(run, "embed", *GOOD, "-o", tmp_path / "v.npz", code=1)
        files = ("-o", tmp_path / "l.jsonl", "--save-embeddings", tmp_path / "w.npz")
        good(run, "predict", *GOOD, *files)
        (tmp_path / "w.npz").unlink()
        assert "w.npz: does not exist" in refused(run, "predict", *GOOD, *files, "--resume", code=1)

    def test_a_shard_that_was_changed(self, run: Run, tmp_path: Path) -> None:
        for number in (1, 2):
            good(run, "embed", *GOOD, "-o", tmp_path / "v.npz", "--shard", f"{number}/2")
        paths = sorted(tmp_path.glob("v.*.npz"))
        good(run, "embed", GOOD[0], "-o", tmp_path / "one.npz")
        paths[0].write_bytes((tmp_path / "one.npz").read_bytes())
        line = refused(run, "merge", *paths, "-o", tmp_path / "v.npz", code=1)
        assert "has vectors of 1 videos, and its run wrote those of 2" in line
        assert not (tmp_path / "v.npz").exists()


class TestRefused:
    def test_nothing_named(self, run: Run) -> None:
        assert "nothing to embed" in refused(run, "embed")

    @pytest.mark.parametrize(
        ("args", "reason"),
        [
            (("-o", "v.txt"), "vectors are saved as .parquet"),
            (("-f", "npz"), "--format npz cannot be written to a pipe or a terminal; name a file with --output"),
            (("--per-video",), "--per-video needs --output with a folder"),
            (("--per-video", "-o", "new", "-f", "npz"), "leave --format out"),
            (("--window", "3"), "--window and --hop need --timeline"),
            (("--shard", "1/2"), "--shard needs --output with a file"),
            (("--shard", "1/2", "--per-video", "-o", "new"), "--per-video cannot be combined with --shard"),
        ],
    )
    def test_combinations(self, run: Run, args: tuple[str, ...], reason: str) -> None:
        assert reason in refused(run, "embed", GOOD[0], *args)
        assert not Path("new").exists()

    def test_a_name_that_labels_have(self, run: Run, tmp_path: Path) -> None:
        """The rows of v.npy go into v.jsonl."""
        good(run, "predict", GOOD[0], "-o", tmp_path / "v.jsonl")
        args = ("embed", GOOD[0], "-o", tmp_path / "v.npy", "--overwrite")
        assert "v.jsonl: already exists and does not belong to v.npy" in refused(run, *args, code=1)
        meta_of(tmp_path / "v.jsonl").unlink()
        before = (tmp_path / "v.jsonl").read_bytes()
        assert "v.jsonl: already exists and does not belong to v.npy" in refused(run, *args, code=1)
        assert (tmp_path / "v.jsonl").read_bytes() == before
        (tmp_path / "v.jsonl").unlink()
        good(run, *args)
        good(run, *args)
        files = ("-o", tmp_path / "w.jsonl", "--save-embeddings", tmp_path / "w.npy")
        assert "w.jsonl: is the same file as --output" in refused(run, "predict", GOOD[0], *files)

    def test_vectors_without_an_output(self, run: Run, tmp_path: Path) -> None:
        line = refused(run, "predict", GOOD[0], "--save-embeddings", tmp_path / "v.npz")
        assert "--save-embeddings needs --output with a file" in line

    def test_parquet_without_its_library(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from importlib.util import find_spec

        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else find_spec(name))
        line = refused(run, "embed", GOOD[0], "-o", tmp_path / "v.parquet", code=1)
        assert "pip install 'timesformer-cli[parquet]'" in line

    def test_no_video_could_be_read(self, run: Run, tmp_path: Path) -> None:
        outcome = run("embed", "missing.mp4", "also.mp4", "-o", tmp_path / "v.npz", "--workers", "0")
        assert outcome.code == 1
        assert outcome.err.splitlines()[-1] == "error: none of the 2 videos could be read"
        assert vectors(tmp_path / "v.npz").shape == (0, D)

    def test_labels_are_not_merged_into_arrays(self, run: Run, tmp_path: Path) -> None:
        good(run, "predict", GOOD[0], "-o", tmp_path / "l.jsonl")
        assert "only for vectors" in refused(run, "merge", tmp_path / "l.jsonl", "-f", "npz", "-o", tmp_path / "x")
        good(run, "embed", GOOD[0], "-o", tmp_path / "v.npz")
        assert "does not hold vectors" in refused(run, "merge", tmp_path / "v.npz", "-f", "srt", "-o", tmp_path / "x")
        assert "name it with --output" in refused(run, "merge", tmp_path / "v.npz")


def test_the_settings_beside_the_file_say_that_it_is_finished(run: Run, tmp_path: Path) -> None:
    good(run, "embed", *MIXED, "-o", tmp_path / "v.npy", code=3)
    meta: dict[str, Any] = json.loads(meta_of(tmp_path / "v.npy").read_bytes())
    assert (meta["finished"]["videos"], meta["finished"]["failed"]) == (5, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.jsonl", "v.npy", "v.npy.meta.json"]
