"""A tool that is missing skips tests, or fails them where none may be skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TESTS = """
import sys

sys.modules["ray"] = sys.modules["torchcodec"] = None  # as if they were not installed

def test_pages(browser): pass
def test_clusters(ray): pass
def test_videos(torchcodec): pass
"""


@pytest.mark.parametrize(("value", "status", "outcome"), [("", 0, "3 skipped"), ("1", 1, "3 errors")])
def test_missing_tools(tmp_path: Path, value: str, status: int, outcome: str) -> None:
    (tmp_path / "test_tools.py").write_text(TESTS)
    environment = os.environ | {
        "PATH": "",  # so that there is no browser
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
        "TIMESFORMER_TEST_ALL": value,
    }
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "conftest", "-p", "no:cacheprovider", "test_tools.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert outcome in done.stdout
    for tool in ("no Chromium with its chromedriver", "no Ray", "no torchcodec that can be imported"):
        assert tool in done.stdout
