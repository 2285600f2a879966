"""The command as its users meet it: records, exit codes, and one clear line for whatever goes wrong."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from testing.clips import LABELS, write_audio, write_model, write_video
from testing.command import COMMAND, Run, only_line, started
from timesformer_cli import __version__
from timesformer_cli.cli import console
from timesformer_cli.errors import InputError
from timesformer_cli.text import duration


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a few videos, good and bad."""
    folder = tmp_path_factory.mktemp("material")
    write_model(folder / "tiny")
    for level, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_video(folder / name, level=level)
    bad = folder / "bad"
    bad.mkdir()
    (bad / "text.mp4").write_text("This is no video.\n" * 20)
    (bad / "empty.mp4").touch()
    write_audio(bad / "audio.mp4")
    (bad / "truncated.mp4").write_bytes((folder / "a.mp4").read_bytes()[:1500])
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(material)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")


class TestRecords:
    def test_one_video(self, run: Run) -> None:
        code, out, err = run("predict", "a.mp4")
        assert (code, err) == (0, "")
        record = json.loads(out)
        assert list(record) == ["path", "status", "model", "predictions", "video", "views", "recipe"]
        assert (record["path"], record["status"], record["model"]) == ("a.mp4", "ok", "tiny")
        assert [p["rank"] for p in record["predictions"]] == [1, 2, 3, 4, 5]
        assert {LABELS[p["index"]] for p in record["predictions"]} == set(LABELS)
        assert all(p["label"] == LABELS[p["index"]] for p in record["predictions"])
        scores = [p["score"] for p in record["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert record["video"] == {
            "duration": 1.2,
            "fps": 10.0,
            "frames": 12,
            "width": 64,
            "height": 48,
            "codec": "h264",
            "container": "mov,mp4,m4a,3gp,3g2,mj2",
            "pixel_format": "yuv420p",
        }
        assert record["views"] == [{"clip": 0, "crop": "center", "frames": [0, 11, 11, 11], "repeated": 2}]

    def test_several_videos_keep_their_order(self, run: Run) -> None:
        code, out, err = run("predict", "c.mp4", "a.mp4", "./c.mp4", "b.mp4")
        assert code == 0
        assert [json.loads(line)["path"] for line in out.splitlines()] == ["c.mp4", "a.mp4", "b.mp4"]
        assert re.fullmatch(r"3 videos: 3 labelled; [0-9.]+ s of video in .* videos per second", only_line(err))

    def test_different_videos_get_different_scores(self, run: Run) -> None:
        records = run("predict", "a.mp4", "b.mp4").records
        assert records[0]["predictions"] != records[1]["predictions"]

    def test_failures_are_records_among_the_others(self, run: Run) -> None:
        outcome = run("predict", "a.mp4", "missing.mp4", "bad/audio.mp4", "b.mp4")
        assert outcome.code == 3
        assert [record["status"] for record in outcome.records] == ["ok", "error", "error", "ok"]
        failure = outcome.records[1]
        assert list(failure) == ["path", "status", "model", "error"]
        assert failure["error"]["kind"] == "not_found"
        assert outcome.records[2]["error"]["kind"] == "no_video_stream"
        lines = outcome.err.splitlines()
        assert lines[0] == f"failed: missing.mp4: {failure['error']['message']}"
        (last,) = lines[2:]
        assert last.startswith("4 videos: 2 labelled, 2 failed (1 not_found, 1 no_video_stream); ")

    def test_a_folder(self, run: Run) -> None:
        outcome = run("predict", ".")
        assert outcome.code == 3
        assert [record["path"] for record in outcome.records] == [
            "./a.mp4",
            "./b.mp4",
            "./bad/audio.mp4",
            "./bad/empty.mp4",
            "./bad/text.mp4",
            "./bad/truncated.mp4",
            "./c.mp4",
        ]

    def test_a_glob(self, run: Run) -> None:
        assert [record["path"] for record in run("predict", "[bc].mp4").records] == ["b.mp4", "c.mp4"]

    def test_standard_input_and_lists(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c.mp4\n")))
        (tmp_path / "list.txt").write_text("# good ones\nb.mp4\n")
        outcome = run("predict", "-", "--from-file", tmp_path / "list.txt")
        assert outcome.code == 0
        assert [record["path"] for record in outcome.records] == ["c.mp4", "b.mp4"]

    def test_unusual_names(self, run: Run, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TIMESFORMER_MODEL", str(material / "tiny"))
        names = ["-dash.mp4", "a:b %03d [1].mp4", "太極 ü\n.mp4"]
        if sys.platform == "linux":
            names.append(os.fsdecode(b"caf\xe9.mp4"))
        for name in names:
            shutil.copy(material / "a.mp4", tmp_path / name)
        code, out, _ = run("predict", "-k", "1", "--", *names)
        assert code == 0
        assert [json.loads(line)["path"] for line in out.splitlines()] == names


class TestOptions:
    def test_top_k(self, run: Run) -> None:
        assert len(run("predict", "a.mp4", "-k", "2").records[0]["predictions"]) == 2
        assert len(run("predict", "a.mp4", "--top-k", "1000").records[0]["predictions"]) == len(LABELS)

    def test_views(self, run: Run) -> None:
        options = ["--clips", "2", "--crops", "3", "--num-frames", "2", "--stride", "1", "--fps", "10"]
        views = run("predict", "a.mp4", *options).records[0]["views"]
        assert [(view["clip"], view["crop"]) for view in views] == [
            (clip, crop) for clip in (0, 1) for crop in ("left", "center", "right")
        ]
        assert [view["frames"] for view in views] == [[0, 1]] * 3 + [[5, 6]] * 3

    def test_clips_auto_covers_the_video(self, run: Run) -> None:
        views = run("predict", "a.mp4", "--clips", "auto", "--stride", "1", "--fps", "10").records[0]["views"]
        assert [view["frames"] for view in views] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]

    def test_placement(self, run: Run) -> None:
        options = ["predict", "a.mp4", "--clips", "1", "--stride", "1", "--fps", "10", "--placement"]
        assert run(*options, "first").records[0]["views"][0]["frames"] == [0, 1, 2, 3]
        assert run(*options, "middle").records[0]["views"][0]["frames"] == [4, 5, 6, 7]

    def test_raw_logits(self, run: Run) -> None:
        plain = run("predict", "a.mp4").records[0]["predictions"]
        raw = run("predict", "a.mp4", "--raw-logits").records[0]["predictions"]
        assert [p["index"] for p in raw] == [p["index"] for p in plain]
        softmax = torch.tensor([p["score"] for p in raw], dtype=torch.float64).softmax(0)
        assert softmax.tolist() == pytest.approx([p["score"] for p in plain], rel=1e-4)

    @pytest.mark.parametrize(
        ("labels", "problem"),
        [(LABELS, "multi_label_classification"), (("falls",), None), (("speed",), "regression")],
    )
    def test_scores_are_what_the_problem_asks_for(
        self, run: Run, tmp_path: Path, labels: Sequence[str], problem: Any
    ) -> None:
        model = write_model(tmp_path / "model", labels, problem_type=problem)
        views = ["predict", "a.mp4", "b.mp4", "--model", model, "--clips", "1", "--stride", "1", "--fps", "10"]
        for combine in ("logits", "probabilities"):
            found = run(*views, "--set", f"combine={combine}").records
            raw = run(*views, "--raw-logits").records
            for one, other in zip(found, raw, strict=True):
                scores, logits = (
                    torch.tensor([guess["score"] for guess in record["predictions"]]) for record in (one, other)
                )
                expected = logits if problem == "regression" else logits.sigmoid()
                assert scores.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
        assert found[0]["predictions"] != found[1]["predictions"]  # a softmax of one output is always 1
        half = run(*views, "--threshold", "0.5").records
        assert all(guess["score"] >= 0.5 for record in half for guess in record["predictions"])
        table = run(*views, "-f", "table").out
        assert ("%" in table) == (problem != "regression")
        shown = run("models", "show", model).out
        assert f"  activation  {'none' if problem == 'regression' else 'sigmoid'}" in re.sub(" {2,}", "  ", shown)

    def test_batch_size_does_not_change_the_labels(self, run: Run) -> None:
        one, many = (
            run("predict", "a.mp4", "--clips", "3", "--crops", "3", "--batch-size", size).records[0]["predictions"]
            for size in ("1", "16")
        )
        assert [p["score"] for p in one] == pytest.approx([p["score"] for p in many], rel=1e-4)

    def test_the_model_option_wins_over_the_variable(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TIMESFORMER_MODEL", "no-such-model")
        assert run("predict", "a.mp4", "-m", "./tiny").records[0]["model"] == "./tiny"

    def test_decoders_read_the_same_frames(self, run: Run) -> None:
        pytest.importorskip("decord")
        records = [run("predict", "a.mp4", "--decoder", name).records[0] for name in ("pyav", "decord")]
        assert records[0] == records[1]

    def test_quiet(self, run: Run) -> None:
        assert run("-q", "predict", "a.mp4", "missing.mp4").err == ""
        assert run("predict", "a.mp4", "missing.mp4", "--quiet").err == ""

    @pytest.mark.parametrize("args", [("-v", "predict", "a.mp4"), ("predict", "a.mp4", "-v")])
    def test_verbose(self, run: Run, args: tuple[str, ...]) -> None:
        code, out, err = run(*args)
        assert code == 0
        assert json.loads(out)
        assert "tiny" in err


class TestFormats:
    def test_json(self, run: Run) -> None:
        code, out, _ = run("predict", "a.mp4", "missing.mp4", "-f", "json")
        assert code == 3
        assert [record["status"] for record in json.loads(out)] == ["ok", "error"]

    def test_csv(self, run: Run) -> None:
        code, out, _ = run("predict", "a.mp4", "-f", "csv", "-k", "2")
        assert code == 0
        assert out.splitlines()[0].startswith("path,status,model,start,end,rank,index,label,score,")
        assert len(out.splitlines()) == 3

    def test_table(self, run: Run) -> None:
        code, out, _ = run("predict", "a.mp4", "missing.mp4", "-f", "table", "-k", "1")
        assert code == 3
        assert len(out.splitlines()) == 3
        assert "no such file" in out

    @pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv"])
    def test_output_is_what_would_be_printed(self, run: Run, tmp_path: Path, name: str) -> None:
        target = tmp_path / name
        code, out, _ = run("predict", "a.mp4", "b.mp4", "-o", target)
        assert (code, out) == (0, "")
        printed = run("predict", "a.mp4", "b.mp4", "-f", target.suffix[1:]).out
        assert target.read_text(encoding="utf-8") == printed

    def test_overwrite(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        target.write_text("old\n")
        assert run("predict", "a.mp4", "-o", target).code == 1
        assert target.read_text() == "old\n"
        assert run("predict", "a.mp4", "-o", target, "--overwrite").code == 0
        assert json.loads(target.read_text(encoding="utf-8"))["path"] == "a.mp4"

    def test_a_dash_is_standard_output(self, run: Run) -> None:
        assert run("predict", "a.mp4", "-o", "-").records[0]["path"] == "a.mp4"


class TestBadInput:
    """One clear line, the right exit code, and the record where there is a video to record."""

    @pytest.mark.parametrize(
        ("path", "kind", "line"),
        [
            ("missing.mp4", "not_found", "error: missing.mp4: no such file"),
            ("bad/text.mp4", "decode", "error: bad/text.mp4: not a video"),
            ("bad/audio.mp4", "no_video_stream", "error: bad/audio.mp4: no video stream"),
            ("bad/truncated.mp4", "decode", "error: bad/truncated.mp4: "),
            ("bad/empty.mp4", "decode", "error: bad/empty.mp4: the file is empty"),
        ],
    )
    def test_a_video_that_cannot_be_read(self, run: Run, path: str, kind: str, line: str) -> None:
        outcome = run("predict", path)
        assert outcome.code == 1
        assert only_line(outcome.err).startswith(line)
        assert [record["error"]["kind"] for record in outcome.records] == [kind]

    def test_no_video_of_several_can_be_read(self, run: Run) -> None:
        outcome = run("predict", "bad")
        assert outcome.code == 1
        assert len(outcome.records) == 4
        assert outcome.err.splitlines()[-2:] == [
            "4 videos: 0 labelled, 4 failed (3 decode, 1 no_video_stream)",
            "error: none of the 4 videos could be read",
        ]

    def test_a_folder_without_videos(self, run: Run) -> None:
        code, out, err = run("predict", "a.mp4", "tiny")
        assert (code, out) == (1, "")
        assert only_line(err).startswith("error: tiny: no video files in this folder; looked for the extensions ")

    def test_a_glob_without_matches(self, run: Run) -> None:
        code, _, err = run("predict", "nothing*.mp4")
        assert code == 1
        assert only_line(err) == "error: nothing*.mp4: no file matches this pattern"

    def test_an_empty_list(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("# nothing\n")
        code, _, err = run("predict", "--from-file", tmp_path / "list.txt")
        assert code == 1
        assert only_line(err).startswith("error: no video to label")

    def test_an_unknown_model(self, run: Run) -> None:
        code, out, err = run("predict", "a.mp4", "-m", "no-such-model")
        assert (code, out) == (1, "")
        assert only_line(err).startswith("error: no-such-model: ")
        assert "camera-motion" in err

    def test_a_model_with_missing_keys(self, run: Run, material: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(material / "tiny", broken)
        state = load_file(broken / "model.safetensors")
        del state["classifier.weight"]
        save_file(state, broken / "model.safetensors")
        code, out, err = run("predict", "a.mp4", "-m", broken)
        assert (code, out) == (1, "")
        assert only_line(err).startswith("error: ")
        assert "1 missing: classifier.weight" in err

    @pytest.mark.parametrize(
        ("args", "part"),
        [
            (("predict", "a.mp4", "--top-k", "0"), "--top-k"),
            (("predict", "a.mp4", "--top-k", "many"), "--top-k"),
            (("predict", "a.mp4", "--no-such-option"), "--no-such-option"),
            (("predict", "a.mp4", "--format", "xml"), "'xml' is not one of"),
            (("predict", "a.mp4", "--clips", "0"), "'0' is neither a number of at least 1 nor auto"),
            (("predict", "a.mp4", "--stride", "-1"), "'-1' is not a number above 0"),
            (("predict", "a.mp4", "--fps", "fast"), "'fast' is not a number above 0"),
            (("predict", "a.mp4", "--crops", "2"), "--crops"),
            (("predict", "a.mp4", "--batch-size", "0"), "--batch-size"),
            (("predict", "a.mp4", "--batch-size", "many"), "--batch-size"),
            (("predict", "a.mp4", "--device", "toaster"), "toaster"),
            (("predict", "a.mp4", "-o", "out.xyz"), "no format has this extension"),
            (("predict", "a.mp4", "-q", "-v"), "cannot be combined"),
            (("predict",), "nothing to label"),
            (("label", "a.mp4"), "No such command 'label'"),
        ],
    )
    def test_wrong_usage(self, run: Run, args: tuple[str, ...], part: str) -> None:
        code, out, err = run(*args)
        assert (code, out) == (2, "")
        assert only_line(err).startswith("error: ")
        assert part in err

    def test_no_command_shows_the_help(self, run: Run) -> None:
        code, out, _ = run()
        assert code == 2
        assert "predict" in out

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_a_device_that_is_not_there(self, run: Run) -> None:
        code, out, err = run("predict", "a.mp4", "--device", "cuda")
        assert (code, out) == (1, "")
        assert only_line(err).startswith("error: cuda: ")

    def test_an_output_folder_that_does_not_exist(self, run: Run) -> None:
        code, _, err = run("predict", "a.mp4", "-o", "none/out.jsonl")
        assert code == 1
        assert only_line(err) == "error: none/out.jsonl: the folder none does not exist; make it first"

    def test_an_output_that_is_there_already(self, run: Run) -> None:
        code, _, err = run("predict", "a.mp4", "-o", "b.mp4", "-f", "jsonl")
        assert code == 1
        assert only_line(err).startswith("error: b.mp4: already exists")

    def test_a_name_cannot_steer_the_terminal(self, run: Run) -> None:
        _, _, err = run("predict", "\x1b[31m\nerror: b.mp4")
        assert only_line(err) == "error: \\x1b[31m\\nerror: b.mp4: no such file"

    def test_tracebacks_are_for_the_verbose(self, run: Run) -> None:
        code, _, err = run("-v", "predict", "missing.mp4")
        assert code == 1
        assert "Traceback" in err
        assert err.splitlines()[-1] == "error: missing.mp4: no such file"

    def test_the_file_system_is_no_bug(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model in a folder without rights, for example, of which even the names cannot be looked at."""

        def closed(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "closed/config.json")

        monkeypatch.setattr("timesformer_cli.checkpoints.resolve.resolve", closed)
        code, out, err = run("predict", "a.mp4", "--model", "closed")
        assert (code, out) == (1, "")
        assert only_line(err) == "error: closed/config.json: Permission denied; check the path and its permissions"

    @pytest.mark.skipif(os.name != "posix", reason="elsewhere a current folder cannot be removed")
    def test_the_current_folder_is_gone(
        self, run: Run, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a fresh process, oneMKL would end the program with a line of its own."""
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        for video in (material / "a.mp4", "a.mp4"):
            code, out, err = run("predict", video, "--model", material / "tiny", "--workers", "0")
            assert (code, out) == (1, "")
            assert only_line(err) == "error: the current folder does not exist any more; change to one that exists"
        assert run("predict", "--help").code == 0

    def test_a_bug_says_that_it_is_one(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("by\nzero")

        monkeypatch.setattr("timesformer_cli.jobs.predict.label", broken)
        code, _, err = run("predict", "a.mp4")
        assert code == 1
        assert only_line(err).startswith("error: ZeroDivisionError: by zero; this is a bug in timesformer")
        assert "--verbose" in err


class TestLongLists:
    """Not listed to the end when the first video is read."""

    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def paths(*_: object) -> Iterator[str]:
            yield from ("a.mp4", "b.mp4")
            time.sleep(0.3)
            yield "a.mp4"

        monkeypatch.setattr("timesformer_cli.jobs.videos.LISTING", 0.0)
        monkeypatch.setattr("timesformer_cli.video.inputs._paths", paths)

    def test_give_the_same_results(self, run: Run) -> None:
        outcome = run("predict", "footage")
        assert [record["path"] for record in outcome.records] == ["a.mp4", "b.mp4"]
        assert only_line(outcome.err).startswith("2 videos: 2 labelled; ")

    def test_what_is_wrong_with_them_comes_after_the_results(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def paths(*_: object) -> Iterator[str]:
            yield "a.mp4"
            time.sleep(0.3)
            raise InputError("list.txt: the list cannot be read")

        monkeypatch.setattr("timesformer_cli.video.inputs._paths", paths)
        code, out, err = run("predict", "footage")
        assert code == 1
        assert json.loads(out)["path"] == "a.mp4"
        assert only_line(err) == "error: list.txt: the list cannot be read"


class TestMeters:
    def test_a_bar_learns_how_many_videos_there_are(self) -> None:
        from rich.progress import Progress

        progress = Progress(disable=True)
        meter = console._BarMeter(None, progress)
        for total in (None, 7):
            meter.expect(total)
            assert progress.tasks[0].total == total
        with meter.step(failed=True):
            assert meter.done == 0
        assert (progress.tasks[0].completed, meter.failed) == (1, 1)

    def test_lines_come_every_half_minute(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        meter = console._LineMeter(1000, lambda: now)
        for number in range(100):
            now += 1.3
            with meter.step(failed=number % 10 == 0):
                pass
        lines = capsys.readouterr().err.splitlines()
        assert lines == [
            "24 of 1,000 videos, 3 failed, 46.2 per minute, 21:09 left",
            "48 of 1,000 videos, 5 failed, 46.2 per minute, 20:38 left",
            "72 of 1,000 videos, 8 failed, 46.2 per minute, 20:06 left",
            "96 of 1,000 videos, 10 failed, 46.2 per minute, 19:35 left",
        ]

    def test_a_long_video(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        meter = console._LineMeter(1, lambda: now)
        for number in range(70):
            now += 1
            meter.reach("film.mp4", 60.0 * number, 7200)
        assert capsys.readouterr().err.splitlines() == ["film.mp4: 29:00 of 2:00:00", "film.mp4: 59:00 of 2:00:00"]

    def test_lines_without_a_total(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        meter = console._LineMeter(None, lambda: now)
        for _ in range(200):
            now += 0.2
            meter.count(failed=False)
        assert capsys.readouterr().err == "151 videos, 5.0 per second\n"

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1:00"), (3599.6, "1:00:00"), (86_400, "24:00:00")],
    )
    def test_lengths_of_time(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text


class TestQuickAnswers:
    def test_what_needs_no_network_does_not_import_torch(self) -> None:
        calls: dict[str, int] = {
            "--help": 0,
            "-h": 0,
            "--version": 0,
            "predict --help": 0,
            "predict -h": 0,
            "": 2,
            "predict": 2,
            "--no-such-option": 2,
            "predict --no-such-option": 2,
            "predict a.mp4 --top-k 0": 2,
            "predict a.mp4 --device toaster": 2,
            "predict a.mp4 -o none/out.json": 1,
            "predict nothing*.mp4": 1,
            "predict a.mp4 -m no-such-model": 1,
        }
        script = (
            "import json, sys\n"
            "from timesformer_cli.cli import main\n"
            "for call in json.loads(sys.argv[1]):\n"
            "    try:\n        main(call.split())\n"
            "    except SystemExit as stop:\n"
            "        loaded = [name for name in ('torch', 'av', 'decord', 'huggingface_hub') if name in sys.modules]\n"
            "        print(json.dumps(['answer', call, stop.code, loaded]))\n"
        )
        command = [sys.executable, "-c", script, json.dumps(list(calls))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["answer"')]
        assert answers == [["answer", call, code, []] for call, code in calls.items()]
        assert "Traceback" not in done.stderr

    def test_version(self, run: Run) -> None:
        assert run("--version") == (0, f"timesformer {__version__}\n", "")


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
class TestStops:
    def test_ctrl_c_keeps_what_was_done(self, tmp_path: Path) -> None:
        growing = tmp_path / "out.json.part.jsonl"
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with started(*COMMAND, "predict", "-", "-o", tmp_path / "out.json", **pipes) as process:
            assert process.stdin
            process.stdin.write(b"a.mp4\nb.mp4\n")
            process.stdin.flush()  # and stays open: the command waits for more
            wait_for(lambda: growing.exists() and growing.read_text(encoding="utf-8").count('"path"') == 2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out == b""
        assert only_line(err.decode()) == "error: stopped by Ctrl-C; finished results are kept"
        lines = growing.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["path"] for line in lines] == ["a.mp4", "b.mp4"]
        assert set(os.listdir(tmp_path)) == {growing.name, "out.json.meta.json"}

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    def test_a_full_disk(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            code, _, err = run("predict", "a.mp4", "b.mp4")
        assert code == 1
        assert only_line(err) == f"error: standard output: cannot be written ({os.strerror(errno.ENOSPC)})"


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
class TestTerminal:
    CALLS = (
        "import json, sys\n"
        "from timesformer_cli.cli import main\n"
        "for call in json.loads(sys.argv[1]):\n"
        "    try:\n        main(call)\n"
        "    except SystemExit:\n        print(end='\\0')\n"
    )

    def on_a_terminal(self, *calls: Sequence[str]) -> list[str]:
        """What a terminal of 80 columns receives of each call, on standard output and standard error together."""
        import fcntl
        import pty
        import struct
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
            environment.pop(name, None)
        terminal: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        with started(sys.executable, "-c", self.CALLS, json.dumps(calls), **terminal, env=environment):
            os.close(theirs)
            received = b""
            while True:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:  # how Linux says that the other side has closed
                    break
                if not chunk:
                    break
                received += chunk
        os.close(ours)
        return received.decode().split("\0")[:-1]

    def test_a_table_and_a_bar(self) -> None:
        text, failure = self.on_a_terminal(
            ("predict", "a.mp4", "missing.mp4", "b.mp4", "-k", "1"), ("predict", "missing.mp4")
        )
        assert "Video" in text
        assert "/3" in text  # the bar counts
        assert "\x1b[1m" in text  # bold
        assert "no such file" in text
        assert "failed: " not in text  # the table has said so
        assert text.rstrip().splitlines()[-1].rpartition("\x1b[2K")[2].startswith("3 videos: 2 labelled, 1 failed (")
        assert failure == "error: missing.mp4: no such file\r\n"  # and not a second time


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_threads_without_work_are_not_started() -> None:
    """If there is a limit of processes, those of NumPy would count, one for each core in each process."""
    code = (
        "import os, timesformer_cli.cli as cli\n"
        "try:\n    cli.main(['--version'])\n"
        "except SystemExit:\n    import numpy; print(len(os.listdir('/proc/self/task')))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "1"
