"""Standard streams that are closed, as service managers leave them, or full."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testing.clips import write_model, write_video
from testing.command import COMMAND, only_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="redirections of a shell")


def redirected(redirection: str, *args: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_model(folder / "tiny")
    write_video(folder / "a.mp4")
    return folder


@pytest.mark.parametrize("args", ["--help", "models list", "inspect a.mp4"])
def test_standard_output_is_closed(material: Path, args: str) -> None:
    done = redirected(">&-", *args.split(), cwd=material)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_streams_are_closed(material: Path) -> None:
    """The results are whole, and neither messages nor what libraries print is among them."""
    args = ["predict", "a.mp4", "nothere.mp4", "--model", "tiny", "--workers", "1", "-o", "all.jsonl"]
    assert redirected("<&- >&- 2>&-", *args, cwd=material).returncode == 3
    records = [json.loads(line) for line in (material / "all.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == ["a.mp4", "nothere.mp4"]


def test_standard_error_is_closed(material: Path) -> None:
    done = redirected("2>&-", "inspect", "--json", "a.mp4", "nothere.mp4", cwd=material)
    assert done.returncode == 3
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 2


def test_a_list_on_standard_input_that_is_closed(material: Path) -> None:
    done = redirected("<&-", "predict", "-", "--model", "tiny", "--dry-run", cwd=material)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("0 videos to label")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", ["--help", "models list", "inspect a.mp4"])
def test_standard_output_is_full(material: Path, args: str) -> None:
    done = redirected("> /dev/full", *args.split(), cwd=material)
    assert done.returncode == 1
    assert only_line(done.stderr) == "error: standard output: cannot be written (No space left on device)"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_messages_that_cannot_be_written_do_not_end_a_command(material: Path) -> None:
    assert redirected("2> /dev/full", "inspect", "a.mp4", "nothere.mp4", cwd=material).returncode == 3
    assert redirected("2> /dev/full", "nosuch").returncode == 2
