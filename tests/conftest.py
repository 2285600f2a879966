"""Fixtures that several test files share."""

import json
from pathlib import Path

import pytest
from command import Outcome, Run

from timesformer_cli.cli import main

_SHARED_VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos"
_MANIFEST = _SHARED_VIDEOS / "MANIFEST.json"


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """A collection of real, odd and broken videos that lies beside the checkout; tests skip without it."""
    if not _MANIFEST.is_file():
        pytest.skip("no ../shared/videos beside this checkout")
    return _SHARED_VIDEOS


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Calls the command in this process. What libraries print from C counts as well."""

    def call(*args: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, *capfd.readouterr())

    return call


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `manifest_entry` runs once for each file of that collection but the bombs."""
    if "manifest_entry" in metafunc.fixturenames:
        files = json.loads(_MANIFEST.read_text(encoding="utf-8"))["files"] if _MANIFEST.is_file() else []
        entries = [entry for entry in files if not entry["file"].startswith("bomb")]
        metafunc.parametrize("manifest_entry", entries, ids=[entry["file"] for entry in entries])
