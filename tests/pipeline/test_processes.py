"""Workers start whatever the system lacks: a short folder for the socket of their server, or any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from testing.surroundings import with_mounts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no server forks workers")

CODE = """
import sys
from testing.tasks import act
from timesformer_cli.pipeline import processes
from timesformer_cli.pipeline.workers import Pool
if len(sys.argv) > 1:
    processes._PLACES = sys.argv[1:]
with Pool(act, ["x:3", "parts:3"], workers=2) as pool:
    shapes = [answer.array.shape for _, answer in pool.results()]
print(pool._context.get_start_method(), *shapes)
"""
SHAPES = "(2, 3) (1000,) (1000,) (2, 3)"


def run(*before: str, folder: Path | str, places: tuple[str, ...] = ()) -> str:
    """Run the tasks with that folder for temporary files; returns how the workers were started, and their results.

    The current folder, in which Python looks last for a place, cannot be written.
    """
    variables = [f"TMPDIR={folder}", f"PYTHONPATH={Path(__file__).parents[2]}"]
    command = [*before, "env", *variables, sys.executable, "-c", CODE, *places]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/proc")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    folder = tmp_path / "deep".ljust(100, "_")
    folder.mkdir()
    return folder


def test_a_long_name_of_the_folder_for_temporary_files(deep: Path) -> None:
    assert run(folder=deep) == f"forkserver {SHAPES}"
    assert list(deep.iterdir()) == []


def test_no_place_for_a_socket(deep: Path) -> None:
    assert run(folder=deep, places=("/nowhere", "/proc")) == f"spawn {SHAPES}"
    assert list(deep.iterdir()) == []


def test_nothing_can_be_written() -> None:
    folders = ("/tmp", "/var/tmp", "/dev/shm", "/usr/tmp")
    assert (
        run(*with_mounts(*(f"-t tmpfs -o ro none {each}" for each in folders if Path(each).exists())), folder="/tmp")
        == f"spawn {SHAPES}"
    )


def test_shared_memory_is_missing() -> None:
    """A folder instead in which nothing can be made."""
    assert run(*with_mounts("--rbind /proc /dev/shm"), folder="/tmp") == f"forkserver {SHAPES}"
