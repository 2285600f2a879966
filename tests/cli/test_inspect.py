"""`timesformer inspect` as its users meet it: pages, health checks, sheets, tensors, and what goes wrong."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from testing.clips import write_audio, write_model, write_video
from testing.collection import KINDS
from testing.command import Run, only_line, started
from testing.cropped import write_cropped
from testing.stamped import Track, stamp, write_tracks


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
    write_audio(bad / "audio.mp4")
    (bad / "truncated.mp4").write_bytes((folder / "a.mp4").read_bytes()[:1500])
    good = folder / "good"
    good.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(folder / name, good / name)
    shutil.copy(folder / "a.mp4", good / "not.webm")
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(material)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")


def rows(page: str) -> dict[str, str]:
    """The lines of a page by their names; of several with one name, the last."""
    cut = [line.strip().split("  ", 1) for line in page.splitlines() if line.startswith("  ")]
    return {parts[0]: parts[-1].strip() for parts in cut}


class TestPages:
    def test_one_video(self, run: Run) -> None:
        code, out, err = run("inspect", "a.mp4")
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == "a.mp4"
        page = rows(out)
        assert page["file"] == f"QuickTime / MOV (mov,mp4,m4a,3gp,3g2,mj2), {os.path.getsize('a.mp4'):,} bytes"
        assert page["video"] == "h264 (Constrained Baseline), yuv420p, 64 x 48"
        assert page["shown"] == "64 x 48, as stored, progressive"
        assert page["frames"] == "12, as the file states"
        assert page["duration"] == "1.20 s, as the file states"
        assert page["rate"] == "10 frames per second, constant"
        assert page["audio"] == "none"
        assert page["model"] == "tiny"

    def test_a_picture_that_starts_late(self, run: Run, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "late.mkv", Track(60, start=Fraction(31, 10)), sound=6)
        page = rows(run("inspect", path, "--clips", "1").out)
        assert page["start"] == "3.10 s after the earliest stream of the file"
        assert page["duration"].startswith("2.00 s")
        assert page["clip 0"].startswith("0.00 to 1.97 s (3.10 to 5.07 s of the file)")
        record = run("inspect", path, "--json").records[0]
        assert (record["video"]["start"], record["file"]["start"]) == (3.1, 0)

    def test_a_cropping(self, run: Run, tmp_path: Path) -> None:
        path = write_cropped(tmp_path / "a.mkv", map(stamp, range(3)), (180, 1, 40, 1, 2, 1, -8, 1))
        page = rows(run("inspect", path).out)
        edges = "4 at the top, 20 at the bottom, 8 at the left, 4 at the right"
        assert page["shown"] == f"180 x 40, cropped by the container ({edges}), progressive"
        assert page["video"].endswith("192 x 64")
        record = run("inspect", path, "--json").records[0]
        assert record["file"]["video"][0]["cropping"] == {"left": 8, "right": 4, "top": 4, "bottom": 20}
        assert (record["video"]["width"], record["video"]["height"]) == (180, 40)
        # Of a file that is refused, the size is known all the same.
        assert rows(run("inspect", path, "--decoder", "decord").out)["shown"] == page["shown"]

    def test_frames_and_times_are_those_of_predict(self, run: Run) -> None:
        options = ["a.mp4", "--clips", "2", "--crops", "3", "--num-frames", "3", "--stride", "2", "--fps", "10"]
        views = run("predict", *options).records[0]["views"]
        record = run("inspect", *options, "--json").records[0]
        assert record["views"] == views
        assert [clip["frames"] for clip in record["clips"]] == [views[0]["frames"], views[3]["frames"]]
        lines = [line.split() for line in run("inspect", *options).out.splitlines()]
        assert [line[1:] for line in lines if line[:1] == ["frame"]] == [
            [str(frame) for frame in clip["frames"]] for clip in record["clips"]
        ]
        assert [line[1:] for line in lines if line[:1] == ["second"]] == [
            [f"{frame / 10:.2f}" for frame in clip["frames"]] for clip in record["clips"]
        ]

    def test_a_short_video_says_what_repeats(self, run: Run) -> None:
        page = rows(run("inspect", "a.mp4", "--stride", "8", "--fps", "10", "--clips", "1").out)
        assert page["repeated"] == "frame 11, the last, fills 2 of 4 places"

    def test_a_loop_says_what_repeats(self, run: Run) -> None:
        options = ["--recipe", "mmaction2", "--clips", "1", "--crops", "1", "--num-frames", "4", "--stride", "6"]
        page = rows(run("inspect", "a.mp4", *options).out)
        assert page["repeated"] == "frame 0 2 times, frame 6 2 times"

    def test_several(self, run: Run) -> None:
        code, out, err = run("inspect", "a.mp4", "bad/audio.mp4", "b.mp4")
        assert code == 3
        pages = out.split("\n\n")
        assert [page.splitlines()[0] for page in (pages[0], pages[2], pages[3])] == ["a.mp4", "bad/audio.mp4", "b.mp4"]
        assert rows(pages[2])["error"] == "no_video_stream: no video stream; is it an audio file?"
        assert rows(pages[2])["audio"] == "aac, 16000 Hz, 1 channel"
        assert only_line(err) == "3 videos: 2 ok, 1 bad (1 no_video_stream)"

    def test_one_that_cannot_be_read(self, run: Run) -> None:
        code, out, err = run("inspect", "missing.mp4")
        assert code == 1
        assert rows(out) == {"error": "not_found: no such file"}
        assert only_line(err) == "error: missing.mp4: no such file"

    def test_warnings(self, run: Run) -> None:
        page = rows(run("inspect", "good/not.webm").out)
        assert page["warning"] == "Its extension is .webm, but its format is QuickTime / MOV."

    def test_folders_of_pictures(self, run: Run, tmp_path: Path) -> None:
        for number in range(1, 7):
            Image.fromarray(np.full((48, 64, 3), number, np.uint8)).save(tmp_path / f"{number:05}.jpg")
        code, out, _ = run("inspect", "--frames", "--frame-rate", "10", tmp_path)
        assert code == 0
        assert rows(out)["frames"] == "6"
        assert rows(out)["duration"] == "0.60 s"

    def test_names_cannot_steer_the_terminal(self, run: Run, material: Path, tmp_path: Path) -> None:
        path = tmp_path / "a\x1b[31m\n.mp4"
        shutil.copy(material / "a.mp4", path)
        assert "\x1b" not in run("inspect", path).out
        assert json.loads(run("inspect", path, "--json").out)["path"] == str(path)


class TestHealthChecks:
    def test_a_folder(self, run: Run) -> None:
        code, out, err = run("inspect", ".")
        assert code == 3
        assert [line.split(": ")[:2] for line in out.splitlines()] == [
            ["ok   ./a.mp4"],
            ["ok   ./b.mp4"],
            ["bad  ./bad/audio.mp4", "no_video_stream"],
            ["bad  ./bad/text.mp4", "decode"],
            ["bad  ./bad/truncated.mp4", "decode"],
            ["ok   ./c.mp4"],
            ["ok   ./good/a.mp4"],
            ["ok   ./good/b.mp4"],
            ["ok   ./good/not.webm; its extension is .webm, but its format is QuickTime / MOV"],
        ]
        assert only_line(err) == "9 videos: 6 ok, 3 bad (2 decode, 1 no_video_stream)"

    def test_a_folder_of_few_is_one_too(self, run: Run) -> None:
        code, out, err = run("inspect", "good")
        assert (code, len(out.splitlines())) == (0, 3)
        assert only_line(err) == "3 videos: 3 ok"

    def test_none_is_good(self, run: Run) -> None:
        code, out, err = run("inspect", "bad")
        assert (code, len(out.splitlines())) == (1, 3)
        assert err.splitlines() == [
            "3 videos: 0 ok, 3 bad (2 decode, 1 no_video_stream)",
            "error: none of the 3 videos could be read",
        ]

    def test_many_that_are_named(self, run: Run) -> None:
        outcome = run("inspect", "a.mp4", "b.mp4", "c.mp4", "good/a.mp4")
        assert outcome.out.splitlines() == ["ok   a.mp4", "ok   b.mp4", "ok   c.mp4", "ok   good/a.mp4"]

    def test_lists(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "list.txt").write_text("b.mp4\n")
        assert run("inspect", "--from-file", tmp_path / "list.txt").out == "ok   b.mp4\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c.mp4\n")))
        assert run("inspect", "-").out == "ok   c.mp4\n"

    def test_ok_means_that_the_frames_can_be_read(self, run: Run, tmp_path: Path) -> None:
        """A file whose header is sound, and whose frames are not."""
        data = bytearray(Path("a.mp4").read_bytes())
        start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
        data[start:end] = bytes(end - start)
        (tmp_path / "zeroed.mp4").write_bytes(data)
        record = run("inspect", "--json", tmp_path / "zeroed.mp4", "a.mp4").records[0]
        assert record["status"] == "error"
        assert record["error"]["kind"] == "decode"
        assert record["file"]["video"][0]["frames"] == 12


class TestJson:
    def test_fields(self, run: Run) -> None:
        (record,) = run("inspect", "a.mp4", "--json").records
        assert list(record) == [
            "path",
            "status",
            "model",
            "video",
            "clips",
            "views",
            "input",
            "recipe",
            "sampling",
            "preprocess",
            "file",
            "warnings",
            "notes",
        ]
        predicted = run("predict", "a.mp4").records[0]
        assert {key: record[key] for key in ("path", "status", "model", "recipe")} == {
            key: predicted[key] for key in ("path", "status", "model", "recipe")
        }
        assert record["video"].items() >= predicted["video"].items()
        assert record["input"] == [1, 4, 3, 32, 32]

    def test_failures_have_the_shape_of_those_of_predict(self, run: Run) -> None:
        files = ["a.mp4", "missing.mp4", "bad/text.mp4", "bad/audio.mp4"]
        inspected, predicted = (run(*command, *files).records for command in (("inspect", "--json"), ("predict",)))
        for one, other in zip(inspected[1:], predicted[1:], strict=True):
            assert one.items() >= other.items()

    def test_names_that_are_no_text(self, run: Run, material: Path, tmp_path: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("names are text here")
        path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
        shutil.copy(material / "a.mp4", path)
        targets = ["--sheet", tmp_path / "out.png", "--tensors", tmp_path / "out.npz"]
        code, out, _ = run("inspect", path, "--json", *targets)
        assert code == 0
        assert json.loads(out)["path"] == str(path)
        with np.load(tmp_path / "out.npz") as saved:
            assert saved["path"] == str(path)


class TestFiles:
    def test_sheet_and_tensors(self, run: Run, tmp_path: Path) -> None:
        sheet, tensors = tmp_path / "out.png", tmp_path / "out.npz"
        code, _, err = run("inspect", "a.mp4", "--crops", "3", "--sheet", sheet, "--tensors", tensors)
        assert code == 0
        with np.load(tensors) as saved:
            assert saved["pixels"].shape == (3, 4, 3, 32, 32)
            assert saved["crop"].tolist() == ["left", "center", "right"]
        with Image.open(sheet) as image:
            assert image.format == "PNG"
            size = image.size
        assert err.splitlines() == [f"{tensors}: 3 x 4 x 3 x 32 x 32 values", f"{sheet}: {size[0]} x {size[1]} pixels"]

    def test_notes_are_on_the_sheet(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from timesformer_cli.jobs import inspect as inspection

        plain, noted = tmp_path / "plain.png", tmp_path / "noted.png"
        run("inspect", "a.mp4", "--sheet", plain)
        monkeypatch.setattr(inspection, "notes", lambda _: ["one more line"])
        run("inspect", "a.mp4", "--sheet", noted)
        with Image.open(plain) as one, Image.open(noted) as other:
            assert other.height > one.height

    @pytest.mark.parametrize(("option", "name"), [("--sheet", "out.png"), ("--tensors", "out.npz")])
    def test_existing_files_are_kept(self, run: Run, tmp_path: Path, option: str, name: str) -> None:
        target = tmp_path / name
        target.write_text("old")
        code, out, err = run("inspect", "a.mp4", option, target)
        assert (code, out) == (1, "")
        assert "--overwrite" in only_line(err)
        assert target.read_text() == "old"
        assert run("inspect", "a.mp4", option, target, "--overwrite").code == 0
        assert target.read_bytes() != b"old"

    @pytest.mark.parametrize(("option", "name"), [("--sheet", "out.png"), ("--tensors", "out.npz")])
    @pytest.mark.parametrize("inputs", [["a.mp4", "b.mp4"], ["good"], ["-"]])
    def test_they_take_one_video(
        self, run: Run, tmp_path: Path, option: str, name: str, inputs: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c.mp4\n")))
        code, out, err = run("inspect", *inputs, option, tmp_path / name)
        assert (code, out) == (2, "")
        assert f"{option} takes one video" in only_line(err)
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_written_of_a_video_that_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        assert run("inspect", "bad/text.mp4", "--sheet", tmp_path / "out.png").code == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("option", ["--sheet", "--tensors"])
    @pytest.mark.parametrize("name", ["out.jpg", "out", "no/such/folder/out{}"])
    def test_targets_that_cannot_be(self, run: Run, tmp_path: Path, option: str, name: str) -> None:
        target = tmp_path / name.format(".png" if option == "--sheet" else ".npz")
        code, out, err = run("inspect", "a.mp4", option, target)
        assert (code, out) == (1 if "folder" in name else 2, "")
        assert str(target) in only_line(err)

    def test_too_many_frames_for_a_sheet(self, run: Run, tmp_path: Path) -> None:
        options = ["--num-frames", "3000", "--clips", "2", "--sheet", tmp_path / "out.png"]
        code, _, err = run("inspect", "a.mp4", *options)
        assert code == 1
        assert "6,000 frames is too large" in only_line(err)


class TestErrors:
    @pytest.mark.parametrize(
        "args",
        [
            [],
            ["a.mp4", "--crops", "2"],
            ["a.mp4", "--decoder", "nope"],
            ["a.mp4", "--set", "nope=1"],
            ["a.mp4", "--timeout", "0"],
            ["a.mp4", "--no-such-option"],
            ["a.mp4", "-q", "-v"],
        ],
    )
    def test_wrong_usage(self, run: Run, args: list[str]) -> None:
        code, out, err = run("inspect", *args)
        assert (code, out) == (2, "")
        only_line(err)

    def test_no_such_model(self, run: Run) -> None:
        code, out, err = run("inspect", "a.mp4", "-m", "no-such-model")
        assert (code, out) == (1, "")
        assert "no-such-model" in only_line(err)

    def test_an_empty_list(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
        code, _, err = run("inspect", "-")
        assert code == 1
        assert "empty" in only_line(err)

    def test_quiet(self, run: Run) -> None:
        assert run("inspect", "-q", "a.mp4", "missing.mp4").err == ""

    def test_without_workers(self, run: Run) -> None:
        assert run("inspect", "--workers", "0", "a.mp4").out == run("inspect", "--workers", "1", "a.mp4").out

    @pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
    def test_ctrl_c(self, material: Path, tmp_path: Path) -> None:
        for number in range(500):  # seconds of work
            os.link(material / "a.mp4", tmp_path / f"{number:03}.mp4")
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
        with started(sys.executable, "-m", "timesformer_cli", "inspect", tmp_path, **pipes) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ok   %s/000.mp4\n" % os.fsencode(tmp_path)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, b"Traceback" in err) == (130, False), err


def test_nothing_is_downloaded_or_loaded(material: Path, tmp_path: Path) -> None:
    """A model that is not on this machine is still known, and the network is not."""
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "from timesformer_cli.cli import app\n"
        "app(['inspect', 'a.mp4', '--json', '-m', 'base-k400', '--workers', '0'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=material, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert record["model"] == "base-k400"
    assert record["input"] == [3, 8, 3, 224, 224]


# What of the collection is not what it says it is, or not whole.
WARNED = {
    "avi_inside.mp4": ["its extension is .mp4, but its format is AVI (Audio Video Interleaved)"],
    "bogus_1000fps.flv": ["it claims 1000 frames per second, but has 29.99"],
    "cleanjerk_edit_list.mp4": ["it claims 300 frames, but 201 are shown; its edit list leaves out the others"],
    "edit_list_preroll.mp4": ["it claims 17 frames, but 16 are shown; its edit list leaves out the others"],
    "encrypted_cenc.mp4": ["it is encrypted"],
    "header_only_index.mp4": ["parts of it are damaged or missing"],
    "mpeg4_avi_96_of_98.avi": ["it claims 98 frames, but 96 are shown"],
    "resolution_change.ts": ["parts of it are damaged or missing"],  # joined, and its packets are counted
    "truncated.mkv": ["it claims to last 10.38 s, but its frames last 5.47 s"],
    "truncated_faststart.mp4": [
        "parts of it are damaged or missing",
        "it claims 300 frames, but 158 are shown",
        "it claims to last 10.00 s, but its frames last 5.27 s",
    ],
    "two_mkv_joined.mkv": ["it claims to last 1.57 s, but its frames last 3.13 s"],
    "weightlifting_starts_mid_gop.ts": ["it claims to last 11.47 s, but its frames last 8.92 s"],
}

# Of these few frames are read, from their start; of the others all that a clip may be of.
LARGE = ("archery_8k_hevc.mp4", "long_4k60_av1_21766_frames.mp4", "ntu_drink_water_1080p.avi")

# Bombs are read in workers, within their limits.
BOMBS = {"bomb_16000x16000_h264.mp4": "too_large", "bomb_index_5e7_frames.mov": "too_large"}


def test_the_collection(run: Run, shared_videos: Path) -> None:
    """Every file has its expected outcome, and is described as it is."""
    manifest = json.loads((shared_videos / "MANIFEST.json").read_text(encoding="utf-8"))
    entries = {str(shared_videos / entry["file"]): entry for entry in manifest["files"]}
    options = ("inspect", "--json", "-m", "camera-motion", "--clips", "1", "--workers", "2", "--timeout", "120")
    large = [path for path, entry in entries.items() if entry["file"] in LARGE]
    outcomes = (
        run(*options, "--num-frames", "2", "--stride", "1", "--", *large),
        run(*options, "--", *(path for path in entries if path not in large)),
    )
    assert [outcome.code for outcome in outcomes] == [0, 3]
    records = {record["path"]: record for outcome in outcomes for record in outcome.records}
    assert records.keys() == entries.keys()
    for path, entry in entries.items():
        name, record = entry["file"], records[path]
        kind = {**KINDS, **BOMBS}.get(name)
        assert record["status"] == ("error" if kind else "ok"), name
        assert record.get("error", {}).get("kind") == kind
        assert record["warnings"] == WARNED.get(name, []), name
        if not kind:
            check_facts(record, entry)


def check_facts(record: dict[str, Any], entry: dict[str, Any]) -> None:
    """Compare with what ffprobe found."""
    (stream,) = (stream for stream in record["file"]["video"] if stream["read"])
    picture = record["file"]["picture"]
    assert record["file"]["bytes"] == entry["bytes"]
    assert record["file"]["format"] == entry["container"]
    assert stream["index"] == entry["video_stream_index"]
    assert (stream["width"], stream["height"]) == (entry["width"], entry["height"])
    assert (stream["codec"], stream["frames"]) == (entry["codec"], entry["nb_frames_header"])
    assert picture["rotation"] == -entry["rotation"] % 360
    assert picture["mirrored"] == (entry["file"] == "rotate_and_reflect.mp4")
    assert picture["interlaced"] == (entry["field_order"] in ("tt", "bb"))
    assert entry["sar"] is None or stream["pixel_aspect"] in (None, entry["sar"])
    assert bool(record["file"]["audio"]) == entry["has_audio"]
    moving = [stream for stream in record["file"]["video"] if not stream["cover"]]
    assert len(moving) == entry["video_streams"]
