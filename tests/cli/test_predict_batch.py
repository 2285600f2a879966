"""Long runs as their users meet them: timelines, logits, sorted copies, stops, full disks, two runs on one output."""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, chdir, suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import numpy as np
import pytest

from testing.clips import LABELS, write_model, write_video
from testing.command import COMMAND, Outcome, Run, exit_code, only_line, started
from testing.retrain import train_again
from testing.stamped import Track, write_tracks

GOOD = [f"clips/{number}.mp4" for number in range(4)]
FAILING = [GOOD[0], "missing.mp4", *GOOD[1:]]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    write_model(folder / "tiny")
    (folder / "clips").mkdir()
    for number, path in enumerate(GOOD):
        write_video(folder / path, level=number, frames=(10, 11, 12, 2)[number])  # the last gets another label
    write_video(folder / "long.mp4", frames=60, level=2)  # and this changes its label as it grows brighter
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(material)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")


def start(*args: str | Path, **options: Any) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    return started(*COMMAND, *args, stderr=subprocess.PIPE, **options)


def write_records(folder: Path, *args: str) -> list[dict[str, Any]]:
    """What a run in that folder writes, for several tests to look at."""
    target = folder / "records.jsonl"
    with chdir(folder):
        assert exit_code(*args, "-m", "tiny", "-o", target, "--overwrite", "-q") == 0
    records = records_in(target)
    for path in folder.glob("records.jsonl*"):
        path.unlink()
    return records


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def records_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def tree(folder: Path) -> dict[str, bytes | str]:
    """All files below a folder with what they hold, and where links lead to."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


TIMELINE = ("predict", "long.mp4", "--timeline", "--window", "1", "--hop", "0.5")


@pytest.fixture(scope="module")
def segments(material: Path) -> list[dict[str, Any]]:
    (record,) = write_records(material, *TIMELINE)
    assert "predictions" not in record
    assert "views" not in record
    segments: list[dict[str, Any]] = record["segments"]
    return segments


@pytest.fixture
def web(material: Path) -> Iterator[str]:
    """Where a server has the material."""
    handler = partial(QuietHandler, directory=str(material))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class TestAddresses:
    """With a password and a signature, which nothing shows."""

    @pytest.mark.parametrize("format", ["jsonl", "json", "csv", "html", "labelstudio", "activitynet", "fiftyone"])
    def test_secrets_are_in_no_output(self, run: Run, web: str, tmp_path: Path, format: str) -> None:
        names = [f"http://me:s3cret@{web}/{name}?Signature=s3cret" for name in (GOOD[0], "missing.mp4", GOOD[1])]
        (tmp_path / "list.txt").write_text(names.pop())
        target = tmp_path / "out"
        outcome = run("predict", *names, "--from-file", tmp_path / "list.txt", "-f", format, "-o", target)
        assert outcome.code == 3
        assert f"failed: http://{web}/missing.mp4: no such file" in outcome.err
        files = [path for path in tmp_path.iterdir() if path.name != "list.txt"]
        assert len(files) == 2
        assert "s3cret" not in outcome.err + "".join(path.read_text() for path in files)

    def test_a_plan_shows_none(self, run: Run, web: str) -> None:
        outcome = run("predict", f"http://me:s3cret@{web}/{GOOD[0]}?Signature=s3cret&v=1", "--dry-run")
        assert outcome.out == f"http://{web}/{GOOD[0]}?v=1\n"
        assert "s3cret" not in outcome.err

    def test_the_last_line_of_a_run_shows_none(self, run: Run, web: str) -> None:
        outcome = run("predict", f"http://me:s3cret@{web}/missing.mp4?Signature=s3cret")
        assert (outcome.code, "s3cret" in outcome.out + outcome.err) == (1, False)

    def test_inspect_shows_none(self, run: Run, web: str) -> None:
        for name in (GOOD[0], "missing.mp4"):
            outcome = run("inspect", f"http://me:s3cret@{web}/{name}?Signature=s3cret")
            assert f"http://{web}/{name}" in outcome.out
            assert "s3cret" not in outcome.out + outcome.err

    def test_a_run_goes_on_with_other_signatures(self, run: Run, web: str, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        first, second = ([f"http://{web}/{name}?Signature={n}" for name in GOOD[:3]] for n in range(2))
        assert run("predict", *first[:2], "-o", target).code == 0
        outcome = run("predict", *second, "-o", target, "--resume")
        assert outcome.code == 0
        assert [record["path"] for record in records_in(target)] == [f"http://{web}/{name}" for name in GOOD[:3]]
        again = run("predict", *first, "-o", target, "--resume")
        assert (again.code, "nothing to do" in again.err) == (0, True)


class TestTimeline:
    def test_windows(self, segments: list[dict[str, Any]]) -> None:
        assert [(part["start"], part["end"]) for part in segments] == [(n / 2, n / 2 + 1) for n in range(11)]
        for part in segments:
            (view,) = part["views"]
            first, last = view["frames"][0], view["frames"][-1]
            assert part["start"] <= first / 10 <= last / 10 < part["end"]
            assert sum(guess["score"] for guess in part["predictions"]) == pytest.approx(1, abs=1e-5)

    def test_side_by_side_without_a_hop(self, run: Run) -> None:
        (record,) = run("predict", "long.mp4", "--timeline", "--window", "2").records
        assert [(part["start"], part["end"]) for part in record["segments"]] == [(0, 2), (2, 4), (4, 6)]

    def test_merge(self, run: Run, segments: list[dict[str, Any]]) -> None:
        groups = [list(g) for _, g in itertools.groupby(segments, lambda part: part["predictions"][0]["label"])]
        assert len(groups) > 1
        assert max(map(len, groups)) > 1
        (record,) = run(*TIMELINE, "--merge").records
        for group, part in zip(groups, record["segments"], strict=True):
            assert (part["start"], part["end"]) == (group[0]["start"], group[-1]["end"])
            assert part["views"] == [view for one in group for view in one["views"]]
            for guess in part["predictions"]:
                scores = [g["score"] for one in group for g in one["predictions"] if g["index"] == guess["index"]]
                assert guess["score"] == pytest.approx(np.mean(scores), rel=1e-5)

    def test_csv(self, run: Run, segments: list[dict[str, Any]]) -> None:
        rows = list(csv.DictReader(run(*TIMELINE, "-f", "csv", "-k", "2").out.splitlines()))
        found = [(float(r["start"]), float(r["end"]), int(r["rank"]), r["label"], float(r["score"])) for r in rows]
        assert found == [
            (part["start"], part["end"], guess["rank"], guess["label"], guess["score"])
            for part in segments
            for guess in part["predictions"][:2]
        ]

    @pytest.mark.parametrize("format", ["srt", "vtt"])
    def test_subtitles(self, run: Run, tmp_path: Path, format: str, segments: list[dict[str, Any]]) -> None:
        target = tmp_path / f"long.{format}"
        assert run(*TIMELINE, "-o", target).code == 0
        cues = re.findall(r"00:00:(\S+) --> 00:00:(\S+)\n(.*) \((\d+) %\)\n", target.read_text(encoding="utf-8"))
        assert len(cues) == len(segments)
        for (begin, end, label, percent), part, after in zip(cues, segments, [*segments[1:], None], strict=True):
            assert float(begin.replace(",", ".")) == part["start"]
            assert float(end.replace(",", ".")) == (after["start"] if after else part["end"])
            assert label == " ".join(part["predictions"][0]["label"].split())
            assert int(percent) == round(100 * part["predictions"][0]["score"])

    def test_activitynet(self, run: Run, segments: list[dict[str, Any]]) -> None:
        results = json.loads(run(*TIMELINE, "-f", "activitynet").out)["results"]
        assert results == {
            "long": [
                {"label": guess["label"], "score": guess["score"], "segment": [part["start"], part["end"]]}
                for part in segments
                for guess in part["predictions"]
            ]
        }

    @pytest.mark.parametrize(
        ("format", "begins", "goes_on"),
        [
            ("jsonl", '"start": 1.5, "end": 2.5', '"start": 2.5, "end": 3.5'),
            ("csv", "1.5,2.5", "2.5,3.5"),
            ("srt", "00:00:01,500 --> 00:00:02,500", "00:00:02,500 --> 00:00:03,500"),
            ("vtt", "00:00:01.500 --> 00:00:02.500", "00:00:02.500 --> 00:00:03.500"),
            ("activitynet", '"segment": [1.5, 2.5]', '"segment": [2.5, 3.5]'),
            ("labelstudio", '{"start": 46, "end": 75}', '{"start": 76, "end": 105}'),
            ("fiftyone", '"timestamps": [1.5, 2.5]', '"timestamps": [2.5, 3.5]'),
            ("html", '"start":1.5,"end":2.5', '"start":2.5,"end":3.5'),
        ],
    )
    def test_of_a_picture_that_starts_late(
        self, run: Run, tmp_path: Path, format: str, begins: str, goes_on: str
    ) -> None:
        """Second 0 is where the sound begins, as in a player."""
        path = write_tracks(tmp_path / "late.mkv", Track(60, start=Fraction(3, 2)), sound=4)
        out = run("predict", path, "--timeline", "--window", "1", "-f", format, "--workers", "0").out
        assert begins in out
        assert goes_on in out
        assert out.index(begins) < out.index(goes_on)

    def test_a_stopped_run_goes_on(self, run: Run, tmp_path: Path) -> None:
        options = ["--timeline", "--window", "1", "--merge"]
        whole, target = tmp_path / "whole.csv", tmp_path / "out.csv"
        assert run("predict", "long.mp4", "missing.mp4", *GOOD, "-o", whole, *options).code == 3
        args = ["predict", "long.mp4", "missing.mp4", *GOOD, "-o", target, *options]
        assert run(*args, "--fail-fast").code == 1
        assert run(*args, "--resume").code == 3
        assert target.read_bytes() == whole.read_bytes()
        code, _, err = run(*args[:-2], "2", "--resume")
        assert code == 1
        assert "timeline.length (1.0, now 2.0)" in only_line(err)


class TestTrainedAgain:
    """The weights behind the name of a model have changed since a run began."""

    @pytest.fixture(autouse=True)
    def model(self, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = shutil.copytree(material / "tiny", tmp_path / "mine")
        monkeypatch.setenv("TIMESFORMER_MODEL", str(folder))
        return folder

    @pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
    def test_their_answers_are_not_mixed(self, run: Run, model: Path, tmp_path: Path, name: str) -> None:
        target = tmp_path / name
        assert run("predict", GOOD[0], "missing.mp4", GOOD[1], "-o", target, "--fail-fast").code == 1
        train_again(model)
        before = tree(tmp_path)
        code, out, err = run("predict", *GOOD, "-o", target, "--resume")
        assert (code, out) == (1, "")
        assert "was made with different settings: the weights (model.safetensors); " in only_line(err)
        assert tree(tmp_path) == before

    def test_nor_are_those_of_shards(self, run: Run, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        assert run("predict", *GOOD, "-o", target, "--shard", "1/2").code == 0
        train_again(model)
        assert run("predict", *GOOD, "-o", target, "--shard", "2/2").code == 0
        shards = sorted(tmp_path.glob("out.*-of-2.jsonl"))
        code, out, err = run("merge", *shards, "-o", tmp_path / "all.jsonl")
        assert (code, out) == (1, "")
        assert "different settings: the weights (model.safetensors)" in only_line(err)
        assert not (tmp_path / "all.jsonl").exists()


class TestThreshold:
    @pytest.mark.parametrize("raw", [False, True])
    def test_lower_scores_are_left_out(self, run: Run, raw: bool) -> None:
        options = ["--raw-logits"] if raw else []
        whole = [record["predictions"] for record in run("predict", "clips", *options).records]
        scores = sorted(guess["score"] for predictions in whole for guess in predictions)
        middle = scores[len(scores) // 2]
        found = [r["predictions"] for r in run("predict", "clips", "--threshold", str(middle), *options).records]
        assert found == [[guess for guess in predictions if guess["score"] >= middle] for predictions in whole]
        assert any(found)
        assert found != whole

    def test_no_label_at_all(self, run: Run, tmp_path: Path) -> None:
        args = ["predict", GOOD[0], "--threshold", "1.1"]
        (record,) = run(*args).records
        assert (record["status"], record["predictions"]) == ("ok", [])
        (row,) = csv.DictReader(run(*args, "-f", "csv").out.splitlines())
        assert (row["path"], row["status"], row["label"], row["score"]) == (GOOD[0], "ok", "", "")
        assert run(*args, "-o", tmp_path / "out.srt").code == 0
        assert (tmp_path / "out.srt").read_text() == ""
        assert run(*args, "--copy-to", tmp_path / "sorted").code == 0
        assert not (tmp_path / "sorted").exists()


class TestLogits:
    def read(self, path: Path) -> dict[str, Any]:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return {name: arrays[name].tolist() for name in arrays.files}
        from pyarrow import parquet

        table = parquet.read_table(path)
        stated = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
        return table.to_pydict() | {"labels": json.loads(stated["labels"]), "activation": stated["activation"]}

    @pytest.mark.parametrize("ending", ["npz", "parquet"])
    def test_they_say_what_makes_scores_of_them(self, run: Run, tmp_path: Path, ending: str) -> None:
        logits = tmp_path / f"logits.{ending}"
        args = ["predict", GOOD[0], "-o", tmp_path / "out.jsonl", "--save-logits", logits]
        assert run(*args, "--set", "activation=sigmoid").code == 0
        saved = self.read(logits)
        assert saved["activation"] == "sigmoid"
        (record,) = records_in(tmp_path / "out.jsonl")
        expected = 1 / (1 + np.exp(-np.array(saved["logits"][0])))
        scores = {guess["index"]: guess["score"] for guess in record["predictions"]}
        assert [scores[index] for index in range(5)] == pytest.approx(expected.tolist(), rel=1e-5)
        assert run(*args, "--resume").code == 1  # the model's own, a softmax

    @pytest.mark.parametrize("ending", ["npz", "parquet"])
    @pytest.mark.parametrize("timeline", [False, True])
    def test_scores_are_their_softmax(self, run: Run, tmp_path: Path, ending: str, timeline: bool) -> None:
        logits, target = tmp_path / f"logits.{ending}", tmp_path / "out.jsonl"
        options = ["--timeline", "--window", "1"] if timeline else []
        assert run("predict", *FAILING, "long.mp4", "-o", target, "--save-logits", logits, *options).code == 3
        saved = self.read(logits)
        assert saved["labels"] == list(LABELS)
        rows = zip(saved["path"], saved["start"], saved["end"], saved["logits"], strict=True)
        for record in records_in(target):
            assert not [name for name in record if name.startswith("_")]
            if record["status"] == "error":
                continue
            whole = {"start": 0.0, "end": record["video"]["duration"], **record}
            for part in record["segments"] if timeline else [whole]:
                path, begin, end, values = next(rows)
                assert (path, begin, end) == (record["path"], part["start"], part["end"])
                powers = np.exp(np.array(values, np.float64))
                scores = {guess["index"]: guess["score"] for guess in part["predictions"]}
                assert [scores[index] for index in range(5)] == pytest.approx(
                    (powers / powers.sum()).tolist(), rel=1e-6
                )
        assert next(rows, None) is None

    @pytest.mark.parametrize("ending", ["npz", "parquet"])
    @pytest.mark.parametrize("format", ["jsonl", "csv"])
    def test_a_stopped_run_goes_on(self, run: Run, tmp_path: Path, ending: str, format: str) -> None:
        def files(name: str) -> tuple[Path, Path]:
            return tmp_path / f"{name}.{format}", tmp_path / f"{name}.{ending}"

        whole, stopped = files("whole"), files("stopped")
        assert run("predict", *FAILING, "-o", whole[0], "--save-logits", whole[1]).code == 3
        args = ["predict", *FAILING, "-o", stopped[0], "--save-logits", stopped[1]]
        assert run(*args, "--fail-fast").code == 1
        assert not any(path.exists() for path in stopped)  # neither gets its name before it is whole
        assert run(*args, "--resume").code == 3
        assert [path.read_bytes() for path in stopped] == [path.read_bytes() for path in whole]
        left = {path.name for path in tmp_path.iterdir() if path.name.startswith("stopped")}
        assert left == {stopped[0].name, f"{stopped[0].name}.meta.json", stopped[1].name}

    def test_a_finished_run_makes_no_other_file(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        assert run("predict", GOOD[0], "-o", target, "--save-logits", tmp_path / "logits.npz").code == 0
        assert run("predict", GOOD[0], "-o", target, "--save-logits", tmp_path / "logits.npz", "--resume").code == 0
        code, _, err = run("predict", GOOD[0], "-o", target, "--save-logits", tmp_path / "other.npz", "--resume")
        assert code == 1
        assert f"{tmp_path / 'other.npz'}: does not exist, though {target} is finished" in only_line(err)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def first(material: Path) -> dict[str, str]:
    """The first label of each video, as the name of a folder."""
    return {
        Path(record["path"]).name: record["predictions"][0]["label"].replace("\t", "%09")
        for record in write_records(material, "predict", "clips", "long.mp4")
    }


class TestSorting:
    def test_copies(self, run: Run, tmp_path: Path, material: Path, first: dict[str, str]) -> None:
        outcome = run("predict", *FAILING, "long.mp4", "--copy-to", tmp_path / "by/{label}/new")
        assert outcome.code == 3
        assert tree(tmp_path) == {
            f"by/{label}/new/{name}": next(material.rglob(name)).read_bytes() for name, label in first.items()
        }
        assert len(set(first.values())) > 1

    def test_links(self, run: Run, tmp_path: Path, material: Path, first: dict[str, str]) -> None:
        assert run("predict", "clips", "long.mp4", "--copy-to", tmp_path, "--link").code == 0
        assert tree(tmp_path) == {f"{label}/{name}": str(next(material.rglob(name))) for name, label in first.items()}

    @pytest.mark.parametrize("link", [(), ("--link",)])
    def test_nothing_is_overwritten(
        self, run: Run, tmp_path: Path, material: Path, first: dict[str, str], link: tuple[str, ...]
    ) -> None:
        mine = tmp_path / first["0.mp4"] / "0.mp4"
        mine.parent.mkdir()
        mine.write_text("another video")
        for _ in range(2):  # the second run finds all in place
            assert run("predict", GOOD[0], "--copy-to", tmp_path, *link).code == 0
            assert mine.read_text() == "another video"
            assert mine.with_name("0 (2).mp4").read_bytes() == (material / GOOD[0]).read_bytes()
            assert len(tree(tmp_path)) == 2

    @pytest.mark.parametrize("link", [(), ("--link",)])
    def test_a_stopped_run_goes_on(self, run: Run, tmp_path: Path, link: tuple[str, ...]) -> None:
        assert run("predict", *FAILING, "--copy-to", tmp_path / "whole", *link).code == 3
        args = ["predict", *FAILING, "-o", tmp_path / "out.jsonl", "--copy-to", tmp_path / "stopped", *link]
        assert run(*args, "--fail-fast").code == 1
        assert len(tree(tmp_path / "stopped")) == 1
        # As if it had been stopped before the record of a copied video was written.
        (tmp_path / "out.jsonl").write_bytes((tmp_path / "out.jsonl").read_bytes()[:20])
        for _ in range(2):
            assert run(*args, "--resume").code == 3
            assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")

    def test_addresses_are_counted(self, run: Run, material: Path, tmp_path: Path) -> None:
        handler = partial(QuietHandler, directory=str(material))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            base = f"http://127.0.0.1:{server.server_port}"
            args = ["predict", GOOD[0], *(f"{base}/{path}" for path in GOOD[1:3]), f"{base}/missing.mp4"]
            outcome = run(*args, "--copy-to", tmp_path)
            alone = run("predict", f"{base}/{GOOD[1]}", "--copy-to", tmp_path, "--link")
            server.shutdown()
        assert outcome.code == 3
        assert [Path(name).name for name in tree(tmp_path)] == ["0.mp4"]
        assert outcome.err.splitlines()[-1] == "2 of them are at remote addresses and were not copied"
        assert (alone.code, only_line(alone.err)) == (0, "1 of them are at remote addresses and were not linked")

    @pytest.mark.parametrize(
        ("source", "template"),
        [
            ("clips", "clips"),
            ("clips", "clips/sorted/{label}"),
            ("./clips/", "tiny/../clips/by-{label}"),
            ("clips/**/*.mp4", "clips/sorted"),
            ("**/*.mp4", "sorted"),
            (".", "{label}"),
            ("link", "clips/sorted"),
            ("clips", "link/sorted"),
        ],
    )
    def test_copies_among_the_inputs_are_refused(
        self, run: Run, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, template: str
    ) -> None:
        (tmp_path / "clips").symlink_to(material / "clips")
        (tmp_path / "link").symlink_to(material / "clips")
        (tmp_path / "tiny").symlink_to(material / "tiny")
        monkeypatch.chdir(tmp_path)
        code, out, err = run("predict", "long.mp4", source, "--copy-to", template)
        assert (code, out) == (2, "")
        assert only_line(err).startswith(f"error: {template}: is inside {source}, so later runs would label")
        assert sorted(os.listdir(material / "clips")) == sorted(Path(path).name for path in GOOD)

    @pytest.mark.parametrize(
        ("source", "template"), [("clips/0.mp4", "clips"), ("clips/*.mp4", "clips/sorted"), ("clips", "clips-sorted")]
    )
    def test_copies_beside_the_inputs_are_not(self, run: Run, source: str, template: str) -> None:
        assert run("predict", source, "--copy-to", template, "--dry-run").code == 0


class TestDryRun:
    def test_it_reads_and_writes_nothing(self, run: Run, material: Path, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo.mp4"
        os.mkfifo(fifo)  # whoever opens it waits for ever
        before = tree(material)
        paths = ["clips", str(fifo), "missing.mp4"]
        args = [*paths, "-o", tmp_path / "out.csv", "--save-logits", tmp_path / "l.npz", "--copy-to", tmp_path / "by"]
        outcome = run("predict", *args, "--dry-run")
        assert outcome.code == 0
        assert outcome.out.splitlines() == [*GOOD, str(fifo), "missing.mp4"]
        first, *_, last = outcome.err.splitlines()
        assert first == "6 videos to label with tiny (tiny)"
        assert last == f"results as csv to {tmp_path / 'out.csv'}"
        assert tree(material) == before
        assert os.listdir(tmp_path) == ["fifo.mp4"]

    def test_what_a_stopped_run_left_stays_as_it_is(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        assert run("predict", *GOOD[:2], "-o", target).code == 0
        with target.open("ab") as file:
            file.write(b'{"path": "clips/2.m')  # torn
        before = tree(tmp_path)
        outcome = run("predict", "clips", "-o", target, "--resume", "--dry-run")
        assert (outcome.code, outcome.out.splitlines()) == (0, GOOD[2:])
        assert tree(tmp_path) == before

    def test_it_needs_no_weights(self, tmp_path: Path) -> None:
        environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "TIMESFORMER_MODEL": "base-k400"}
        command = [*COMMAND, "predict", "clips", "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode, done.stdout.splitlines()) == (0, GOOD)
        assert "4 videos to label with base-k400 " in done.stderr
        assert os.listdir(tmp_path) == []

    def test_paths_go_to_a_list_byte_for_byte(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (b"caf\xe9.mp4", "größe.mp4".encode(), b" space \x1b.mp4"):
            (tmp_path / os.fsdecode(name)).symlink_to(Path(GOOD[0]).resolve())
        monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
        with start("predict", tmp_path, "--dry-run", stdout=subprocess.PIPE) as process:
            paths, _ = process.communicate()
        assert process.returncode == 0
        base = os.fsencode(tmp_path)
        # One video, by three names: the first of them stands for all.
        assert paths == base + b"/ space \x1b.mp4\n"

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    def test_a_full_disk(self) -> None:
        with open("/dev/full", "wb") as full, start("predict", "clips", "--dry-run", stdout=full) as process:
            _, err = process.communicate()
        assert process.returncode == 1
        assert only_line(err.decode()).startswith("error: standard output: cannot be written (No space left")


class TestFailFast:
    @pytest.mark.parametrize("format", ["jsonl", "csv"])
    def test_the_failure_is_written_and_resume_goes_on(self, run: Run, tmp_path: Path, format: str) -> None:
        target = tmp_path / f"out.{format}"
        growing = target if format == "jsonl" else tmp_path / "out.csv.part.jsonl"
        code, _, err = run("predict", *FAILING, "-o", target, "--fail-fast")
        assert code == 1
        assert only_line(err) == "error: missing.mp4: no such file; stopped there, with 1 video labelled"
        assert [record["status"] for record in records_in(growing)] == ["ok", "error"]
        outcome = run("predict", *FAILING, "-o", target, "--fail-fast", "--resume")
        assert outcome.code == 3
        assert only_line(outcome.err).startswith("3 videos: 3 labelled; 2 done before; ")
        whole = tmp_path / f"whole.{format}"
        assert run("predict", *FAILING, "-o", whole).code == 3
        assert target.read_bytes() == whole.read_bytes()

    def test_a_run_without_failures(self, run: Run) -> None:
        assert run("predict", "clips", "--fail-fast").code == 0

    def test_on_standard_output(self, run: Run) -> None:
        code, out, err = run("predict", *FAILING, "--fail-fast", "--quiet")
        assert code == 1
        assert [json.loads(line)["status"] for line in out.splitlines()] == ["ok", "error"]
        assert only_line(err).startswith("error: missing.mp4: no such file")


class TestTalk:
    def test_quiet(self, run: Run, tmp_path: Path) -> None:
        args = ["predict", *FAILING, "-q", "-o", tmp_path / "out.csv", "--copy-to", tmp_path / "by"]
        assert run(*args) == Outcome(3, "", "")
        assert run(*args, "--resume") == Outcome(3, "", "")
        assert run("predict", "clips", "-q", "--dry-run").err == ""

    def test_verbose(self, run: Run, tmp_path: Path) -> None:
        args = ["predict", *FAILING, "-o", tmp_path / "out.csv"]
        usual, verbose = run(*args).err, run(*args, "-v", "--overwrite").err
        for line in usual.splitlines()[:-1]:  # the last has times
            assert line in verbose
        assert "model tiny (tiny): 5 classes" in verbose
        assert "SamplingSpec(" in verbose

    def test_results_are_the_same(self, run: Run) -> None:
        outputs = [run("predict", *FAILING, *talk).out for talk in ((), ("-q",), ("-v",))]
        assert outputs[0] == outputs[1] == outputs[2]

    @pytest.mark.parametrize("format", ["jsonl", "csv", "json", "html"])
    def test_a_limit(self, run: Run, format: str) -> None:
        few, limited = run("predict", *GOOD[:2], "-f", format), run("predict", "clips", "-f", format, "--limit", "2")
        without_date = partial(re.sub, r'"date":"[^"]*"', "")
        assert without_date(limited.out) == without_date(few.out)
        assert run("predict", "clips", "-f", format, "--limit", "9").code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
class TestTwoRuns:
    def test_the_second_is_refused_while_the_first_runs(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        with start("predict", "-", "-o", target, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
            assert first.stdin
            first.stdin.write(b"clips/0.mp4\n")
            first.stdin.flush()  # and stays open: the command waits for more
            wait_for(lambda: target.exists() and target.read_bytes().endswith(b"\n"))
            before = tree(tmp_path)
            for again in ("--resume", "--overwrite"):
                code, _, err = run("predict", "clips", "-o", target, again)
                assert code == 1
                assert only_line(err).startswith(f"error: {target}: another run is writing to it; ")
            shard = tmp_path / "shard.jsonl"
            assert run("predict", "clips/1.mp4", "-o", shard).code == 0
            code, _, err = run("merge", shard, "-o", target, "--overwrite")
            assert code == 1
            assert "another run is writing to it" in only_line(err)
            assert run("predict", "clips", "-o", target, "--resume", "--dry-run").out.splitlines() == GOOD[1:]
            assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("shard")} == before
            first.stdin.write(b"clips/1.mp4\n")
        assert first.returncode == 0
        assert [record["path"] for record in records_in(target)] == GOOD[:2]
        assert not (tmp_path / "out.jsonl.lock").exists()

    def test_the_lock_of_a_killed_run_holds_no_one_up(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.csv"
        growing = tmp_path / "out.csv.part.jsonl"
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        with start("predict", "-", "-o", target, **options) as first:
            assert first.stdin
            first.stdin.write(b"clips/0.mp4\n")
            first.stdin.flush()
            wait_for(lambda: growing.exists() and growing.read_bytes().endswith(b"\n"))
            os.killpg(first.pid, signal.SIGKILL)
        assert (tmp_path / "out.csv.lock").exists()
        outcome = run("predict", "clips", "-o", target, "--resume")
        assert outcome.code == 0
        assert only_line(outcome.err).startswith("3 videos: 3 labelled; 1 done before; ")
        assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.csv.meta.json"]
        assert target.read_text(encoding="utf-8") == run("predict", "clips", "-f", "csv").out


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
class TestReaderOfOneLine:
    """As `| head -1` is one; the next video then meets a closed pipe."""

    def talk(self, to: BinaryIO, back: BinaryIO) -> bytes:
        """Asks for a video, reads one line and leaves, and asks for another."""
        with to:
            to.write(b"clips/0.mp4\n")
            to.flush()
            with back:
                line = back.readline()
            to.write(b"clips/1.mp4\n")
        return line

    def test_of_a_process(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with start("predict", "-", "--workers", "0", **pipes) as process:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            assert json.loads(self.talk(process.stdin, process.stdout))["path"] == GOOD[0]
            err = process.stderr.read()
        assert (process.returncode, err) == (1, b"")

    @pytest.mark.parametrize("format", ["csv", "table"])
    def test_of_other_formats(self, run: Run, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
        (asked, to), (back, said) = os.pipe(), os.pipe()
        with ThreadPoolExecutor() as pool, monkeypatch.context() as patch, suppress(BrokenPipeError):
            line = pool.submit(lambda: self.talk(os.fdopen(to, "wb"), os.fdopen(back, "rb")))
            with open(asked) as stdin, open(said, "w") as stdout:  # which still has something to say as it closes
                patch.setattr(sys, "stdin", stdin)
                patch.setattr(sys, "stdout", stdout)
                outcome = run("predict", "-", "-f", format, "-k", "1", "--workers", "0")
        assert line.result(60)
        assert (outcome.code, outcome.err) == (1, "")


# Runs the commands that it is asked for, a line of JSON each, and answers with what the fixture `run` gives.
SERVER = """
import io, json, sys
from timesformer_cli.cli import main
requests, answers = sys.stdin, sys.stdout
print("ready", file=answers, flush=True)
for request in requests:
    sys.stdout, sys.stderr = streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    try:
        main(json.loads(request))
    except SystemExit as stop:
        texts = [stream.buffer.getvalue().decode() for stream in streams]
        print(json.dumps([stop.code, *texts]), file=answers, flush=True)
"""


class Disk:
    """A file system of its own of 1 MiB, mounted here or, for want of rights, in a namespace with a process in it."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self.path = folder
        self._inside: subprocess.Popen[str] | None = None
        self._prefix: list[str] = []
        if not self._mount():
            self._enter_namespace()

    def _mount(self) -> bool:
        command = [*self._prefix, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.path)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    def _enter_namespace(self) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        try:
            self._inside = subprocess.Popen(["unshare", "-Urm", sys.executable, "-c", SERVER], **pipes)
        except FileNotFoundError:
            pytest.skip("no program that makes namespaces")
        assert self._inside.stdout
        ready = self._inside.stdout.readline()
        target = f"--target={self._inside.pid}"
        self._prefix = ["nsenter", target, "--user", "--mount", "--preserve-credentials"]
        if not ready or not self._mount():
            self.close()
            pytest.skip("no right to mount a small disk")

    def run(self, *args: str | Path) -> Outcome:
        """The command, where it sees the disk."""
        if self._inside is None:
            return self._run(*args)
        assert self._inside.stdin
        assert self._inside.stdout
        print(json.dumps([str(arg) for arg in args]), file=self._inside.stdin, flush=True)
        return Outcome(*json.loads(self._inside.stdout.readline()))

    @property
    def seen(self) -> Path:
        """Where this process sees what is on it."""
        return self.path if self._inside is None else Path(f"/proc/{self._inside.pid}/root{self.path}")

    def fill(self, room: int) -> None:
        """Leave so many KiB."""
        filler = self.seen / "filler"
        filler.unlink(missing_ok=True)
        free = os.statvfs(self.seen)
        filler.write_bytes(bytes(max(free.f_bavail * free.f_frsize - 1024 * room, 0)))

    def make_room(self) -> None:
        (self.seen / "filler").unlink()

    def make_read_only(self) -> None:
        subprocess.run([*self._prefix, "mount", "-o", "remount,ro", str(self.path)], check=True)

    def close(self) -> None:
        if self._inside is None:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)
        else:
            self._inside.kill()
            self._inside.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux has them")
class TestDisks:
    @pytest.fixture
    def disk(self, run: Run, tmp_path: Path) -> Iterator[Disk]:
        folder = tmp_path / "disk"
        folder.mkdir()
        disk = Disk(run, folder)
        yield disk
        disk.close()

    @pytest.mark.parametrize(
        "name", ["out.jsonl", "out.csv", "out.parquet", "out.html", "logits.npz", "logits.parquet"]
    )
    def test_a_full_one(self, run: Run, tmp_path: Path, disk: Disk, name: str) -> None:
        """It fills up at every stage of a run, from the first record to the last form of the output."""
        logits = name.startswith("logits")

        def args(folder: Path, *more: str) -> list[str | Path]:
            output = ["-o", folder / "out.csv", "--save-logits", folder / name] if logits else ["-o", folder / name]
            return ["predict", *FAILING, "--workers", "0", *output, *more]

        (tmp_path / "whole").mkdir()
        assert run(*args(tmp_path / "whole")).code == 3
        whole = self.outputs(tmp_path / "whole")
        reached: set[str] = set()
        for room in itertools.count(0, 4):  # KiB, the least that a file takes
            disk.fill(room)
            outcome = disk.run(*args(disk.path))
            if outcome.code == 3:
                break
            assert outcome.code == 1
            last = outcome.err.splitlines()[-1]
            assert last.startswith("error: ")
            assert last.count("No space left on device") == 1, last
            assert "bug" not in last
            assert not any(line.startswith("error: ") for line in outcome.err.splitlines()[:-1])
            reached.add(last.split(": ")[1].removeprefix(f"{disk.path}/"))
            left = {path.name for path in disk.seen.iterdir()}
            assert not any(other.endswith((".part", ".lock")) for other in left)
            disk.make_room()
            assert disk.run(*args(disk.path, "--resume")).code == 3
            assert self.outputs(disk.seen) == whole
            for path in disk.seen.iterdir():
                path.unlink()
        if name != "out.jsonl":
            assert name in reached  # its last form, too
        assert self.outputs(disk.seen) == whole

    def outputs(self, folder: Path) -> dict[str, bytes]:
        """Without the time when a page was made."""
        names = [path.name for path in folder.iterdir() if path.name != "filler" and path.is_file()]
        return {name: re.sub(rb'"date":"[^"]*"', b"", (folder / name).read_bytes()) for name in names}

    @pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
    def test_one_that_is_read_only(self, disk: Disk, name: str) -> None:
        disk.make_read_only()
        outcome = disk.run("predict", "clips", "-o", disk.path / name)
        assert (outcome.code, outcome.out) == (1, "")
        assert only_line(outcome.err).startswith(f"error: {disk.path / name}: cannot be written (")

    def test_copies_to_a_full_one(self, run: Run, tmp_path: Path, disk: Disk) -> None:
        args = ["predict", "clips", "-o", tmp_path / "out.jsonl", "--copy-to", disk.path]
        disk.fill(12)
        code, _, err = disk.run(*args)
        assert code == 1
        assert re.search(
            r"^error: clips/\d.mp4: cannot be copied to .* \(No space left on device\)$", err, re.MULTILINE
        )
        disk.make_room()
        assert disk.run(*args, "--resume").code == 0
        assert sorted(Path(name).name for name in tree(disk.seen)) == [Path(path).name for path in GOOD]
        assert len(records_in(tmp_path / "out.jsonl")) == 4


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, _, err = run("predict", "clips", "-o", tmp_path / "out.jsonl")
    assert code == 1
    assert only_line(err) == f"error: {tmp_path / 'out.jsonl'}: cannot be written (Permission denied)"


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("--window", "2"), "--window, --hop and --merge need --timeline"),
        (("--hop", "2"), "need --timeline"),
        (("--merge",), "need --timeline"),
        (("--timeline", "--window", "0"), "'0' is not a number above 0"),
        (("--timeline", "--window", "nan"), "'nan' is not a number above 0"),
        (("--timeline", "--hop", "-1"), "'-1' is not a number above 0"),
        (("--threshold", "high"), "--threshold"),
        (("--save-logits", "l.npz"), "--save-logits needs --output"),
        (("--save-logits", "l.npz", "-o", "out.txt", "-f", "table"), "--save-logits needs --output"),
        (("--save-logits", "l.npy", "-o", "out.csv"), "logits are saved as .npz or .parquet"),
        (("--save-logits", "a.parquet", "-o", "./a.parquet"), "a.parquet: is the same file as --output"),
        (("--link",), "--link needs --copy-to"),
        (("--copy-to", "by/{name}"), "{name} is unknown; the only placeholder is {label}"),
        (("--copy-to", "by/{label"), "by/{label: "),
        (("--limit", "0"), "--limit"),
        (("--workers", "-1"), "'-1' is neither a number of processes nor auto"),
        (("--timeout", "0"), "'0' is not a number above 0"),
        (("-f", "srt"), "srt: subtitles are for one video, and there are 4"),
        (("-o", "all.vtt"), "vtt: subtitles are for one video, and there are 4"),
        (("--retry-errors", "-o", "out.jsonl"), "--retry-errors needs --resume"),
        (("--resume", "--overwrite", "-o", "out.jsonl"), "cannot be combined"),
        (("--resume", "-o", "-"), "--resume needs --output"),
    ],
)
def test_wrong_usage(run: Run, material: Path, args: tuple[str, ...], part: str) -> None:
    before = os.listdir(material)
    code, out, err = run("predict", "clips", *args)
    assert (code, out) == (2, "")
    assert only_line(err).startswith("error: ")
    assert part in err
    assert os.listdir(material) == before
