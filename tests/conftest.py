"""Fixtures that several test files share."""

import json
from pathlib import Path

import pytest

_SHARED_VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos"
_MANIFEST = _SHARED_VIDEOS / "MANIFEST.json"


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """A collection of real, odd and broken videos that lies beside the checkout; tests skip without it."""
    if not _MANIFEST.is_file():
        pytest.skip("no ../shared/videos beside this checkout")
    return _SHARED_VIDEOS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `manifest_entry` runs once for each file of that collection but the bombs."""
    if "manifest_entry" in metafunc.fixturenames:
        files = json.loads(_MANIFEST.read_text(encoding="utf-8"))["files"] if _MANIFEST.is_file() else []
        entries = [entry for entry in files if not entry["file"].startswith("bomb")]
        metafunc.parametrize("manifest_entry", entries, ids=[entry["file"] for entry in entries])
