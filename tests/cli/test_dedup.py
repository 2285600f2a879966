"""`timesformer dedup` as its users meet it: copies, parts of longer videos, leaks, and what goes wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from testing.command import COMMAND, Run, only_line, started
from testing.films import film, write_film


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film, a worse copy of it, a part of it, mirrored, and another film; and a file that is no video."""
    folder = tmp_path_factory.mktemp("footage")
    frames = film(0, 64)
    write_film(folder / "raw" / "film.mp4", frames)
    write_film(folder / "raw" / "other.mp4", film(1, 48))
    write_film(folder / "web" / "copy.mp4", frames[:, ::2, ::2], crf=32)
    write_film(folder / "web" / "part.mkv", frames[16:48, :, ::-1], crf=28)
    (folder / "bad").mkdir()
    (folder / "bad" / "text.mp4").write_text("This is no video.\n" * 20)
    return folder


@pytest.fixture(autouse=True)
def here(footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(footage)


COPY = {
    "path": "raw/film.mp4",
    "start": 0.0,
    "end": 8.0,
    "other": "web/copy.mp4",
    "other_start": 0.0,
    "other_end": 8.0,
    "group": 1,
    "reason": "larger frames",
    "kind": "copy",
}
PART = COPY | {
    "start": 2.0,
    "end": 6.0,
    "other": "web/part.mkv",
    "other_end": 4.0,
    "reason": "longer; mirrored",
    "kind": "part",
}


class TestRows:
    def test_copies_and_parts(self, run: Run) -> None:
        code, out, err = run("dedup", "raw", "web", "--workers", "0")
        assert code == 0
        rows = [json.loads(line) for line in out.splitlines()]
        assert all(0.8 < row.pop("similarity") <= 1 for row in rows)
        assert rows == [COPY, PART]
        assert "4 videos compared: 1 copy, 1 part of longer videos" in err

    def test_csv_has_the_columns_of_the_contract_first(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "copies.csv"
        assert run("dedup", "raw", "web", "--workers", "0", "-o", target).code == 0
        with target.open(newline="") as file:
            columns, *rows = csv.reader(file)
        assert columns[:9] == [
            "path",
            "start",
            "end",
            "other",
            "other_start",
            "other_end",
            "similarity",
            "group",
            "reason",
        ]
        assert [row[0] for row in rows] == ["raw/film.mp4"] * 2

    def test_table(self, run: Run) -> None:
        code, out, _ = run("dedup", "raw", "web", "--workers", "0", "-f", "table")
        assert code == 0
        title, copy, part = out.splitlines()
        assert title == "group 1  raw/film.mp4"
        assert copy.split()[0::2] == ["copy", "web/copy.mp4", "frames)"]
        assert part.endswith("web/part.mkv  (longer; mirrored; 0:00.0 to 0:04.0 is 0:02.0 to 0:06.0 above)")

    def test_list_of_whole_copies(self, run: Run) -> None:
        assert run("dedup", "raw", "web", "--workers", "0", "--list-copies").out == "web/copy.mp4\nweb/part.mkv\n"

    def test_against(self, run: Run) -> None:
        code, out, _ = run("dedup", "web", "--against", "raw", "--workers", "0")
        assert code == 0
        rows = [json.loads(line) for line in out.splitlines()]
        assert [(row["path"], row["other"], row["kind"], row["reason"]) for row in rows] == [
            ("web/copy.mp4", "raw/film.mp4", "copy", "in both"),
            ("web/part.mkv", "raw/film.mp4", "longer", "in both; mirrored"),
        ]

    def test_no_copies(self, run: Run) -> None:
        code, out, err = run("dedup", "raw", "--workers", "0")
        assert (code, out) == (0, "")
        assert "2 videos compared: no copies" in err

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
    def test_a_link_is_no_copy_of_its_file(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "link.mp4").symlink_to(Path("raw/film.mp4").resolve())
        assert run("dedup", "raw", tmp_path, "--workers", "0")[:2] == (0, "")
        code, out, err = run("dedup", tmp_path, "--against", "raw", "--workers", "0")
        assert (code, out) == (0, "")
        assert "1 video of --against left out: the inputs have it too" in err


class TestHashes:
    def test_resume_reads_only_what_is_new_or_changed(self, run: Run, tmp_path: Path) -> None:
        target, copied = tmp_path / "copies.jsonl", tmp_path / "film.mp4"
        copied.write_bytes(Path("raw/film.mp4").read_bytes())
        assert run("dedup", "web", copied, "--workers", "0", "-o", target).code == 0
        first = target.read_bytes()
        assert len(first.splitlines()) == 2
        code, _, err = run("dedup", "web", copied, "raw/other.mp4", "--workers", "0", "-o", target, "--resume")
        assert (code, target.read_bytes()) == (0, first)
        assert "(3 by hashes of earlier runs)" in err
        copied.write_bytes(Path("raw/other.mp4").read_bytes())
        code, _, err = run("dedup", "web", copied, "--workers", "0", "-o", target, "--resume")
        assert code == 0
        assert "(2 by hashes of earlier runs)" in err
        assert target.read_bytes() != first

    def test_a_torn_line_is_read_again(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "copies.jsonl"
        assert run("dedup", "web", "raw", "--workers", "0", "-o", target).code == 0
        hashes = tmp_path / "copies.jsonl.hashes.jsonl"
        whole = hashes.read_bytes()
        hashes.write_bytes(whole[:-30])
        code, _, err = run("dedup", "web", "raw", "--workers", "0", "-o", target, "--resume")
        assert (code, hashes.read_bytes()) == (0, whole)
        assert "(3 by hashes of earlier runs)" in err
        hashes.write_bytes(b"{}\n" + whole)
        code, _, err = run("dedup", "web", "raw", "--workers", "0", "-o", target, "--resume")
        assert code == 1
        assert only_line(err).startswith(f"error: {hashes}: the line at byte 0 is not of the hashes of a video")

    def test_nothing_is_replaced_unasked(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "copies.csv"
        assert run("dedup", "web", "--workers", "0", "-o", target).code == 0
        code, _, err = run("dedup", "web", "--workers", "0", "-o", target)
        assert code == 1
        assert "already exists; choose another name, --resume or --overwrite" in only_line(err)
        target.unlink()
        code, _, err = run("dedup", "web", "--workers", "0", "-o", target)
        assert code == 1
        assert "holds the hashes of an earlier run; --resume takes them" in only_line(err)
        assert run("dedup", "web", "--workers", "0", "-o", target, "--overwrite").code == 0


def write_still(path: Path, frames: NDArray[np.uint8], count: int) -> Path:
    """One frame again and again, quickly: the same packet."""
    with av.open(str(write_film(path.with_suffix(".mkv"), frames))) as container:
        given = container.streams.video[0]
        (data,) = (bytes(packet) for packet in container.demux(given) if packet.size)
        with av.open(str(path), "w") as film:
            stream = film.add_stream_from_template(given)
            for number in range(count):
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 8), True
                packet.pts = packet.dts = number
                film.mux(packet)
    path.with_suffix(".mkv").unlink()
    return path


class TestFailures:
    def test_some_fail(self, run: Run) -> None:
        code, out, err = run("dedup", "raw", "web", "bad", "--workers", "0")
        assert code == 3
        assert len(out.splitlines()) == 2
        assert "failed: bad/text.mp4: " in err
        assert "1 could not be read" in err

    def test_all_fail(self, run: Run) -> None:
        for inputs, reason in (
            (["bad", "none.mp4"], "none of 2 videos could be read"),
            (["raw", "--against", "bad"], "none of 1 video of --against could be read"),
        ):
            code, out, err = run("dedup", *inputs, "--workers", "0")
            assert (code, out) == (1, "")
            assert "failed: bad/text.mp4: " in err
            assert err.splitlines()[-1] == f"error: {reason}; see the reasons above"

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            ([], 2, "nothing to dedup: name videos, folders or --from-file"),
            (["raw", "-o", "copies.txt"], 2, "copies.txt: no format has this extension"),
            (["raw", "-o", "none/copies.csv"], 1, "the folder none does not exist"),
            (["raw", "--resume"], 2, "--resume needs --output"),
            (["raw", "--resume", "--overwrite", "-o", "a.csv"], 2, "--resume and --overwrite cannot be combined"),
            (["none/*.mp4"], 1, "none/*.mp4"),
            (["raw", "--against", "none/*.mp4"], 1, "none/*.mp4"),
            (["raw", "--threshold", "1.1"], 2, "'1.1' is not a number above 0 and at most 1"),
            (["raw", "--seconds", "0"], 2, "'0' is not a number above 0"),
        ],
    )
    def test_wrong_calls(self, run: Run, args: list[str], code: int, message: str) -> None:
        done = run("dedup", *args, "--workers", "0")
        assert done.code == code
        assert message in only_line(done.err)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
    def test_ctrl_c_keeps_the_hashes_and_leaves_no_output(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "copies.csv"
        hashes = tmp_path / "copies.csv.hashes.jsonl"
        os.mkfifo(tmp_path / "list")
        command = [*COMMAND, "dedup", "--from-file", tmp_path / "list", "-o", target, "--workers", "1"]
        names = ["raw/film.mp4", "web/copy.mp4", "raw/other.mp4"]
        slow = write_still(tmp_path / "slow.mp4", film(5, 1, 720, 1280), 4000)
        with started(*command, stderr=subprocess.PIPE) as process:
            (tmp_path / "list").write_text("\n".join([*names, str(slow)]))
            while not hashes.exists() or len(hashes.read_bytes().splitlines()) < 3:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            err = process.stderr.read().decode()
        assert process.returncode == 130
        assert "stopped by Ctrl-C" in err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copies.csv.hashes.jsonl", "list", "slow.mp4"]
        code, _, err = run("dedup", *names, "-o", target, "--resume", "--workers", "0")
        assert code == 0
        assert "(3 by hashes of earlier runs)" in err


def test_no_torch_is_imported(footage: Path) -> None:
    code = (
        "import sys, timesformer_cli.cli as cli\n"
        "try: cli.main(['dedup', 'raw', '--workers', '0'])\n"
        "finally: print([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
