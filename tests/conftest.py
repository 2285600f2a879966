"""Fixtures that several test files share."""

import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from testing.command import Outcome, Run, exit_code
from testing.needs import lack
from testing.pages import Page, Show

# A slow machine is no failure.
settings.register_profile("timesformer", deadline=None)
settings.load_profile("timesformer")

_SHARED_VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos"
_MANIFEST = _SHARED_VIDEOS / "MANIFEST.json"

# Files of more than fifteen seconds, the longest first.
_LONG = (
    "jobs/test_export.py",
    "pipeline/test_ray.py",
    "test_docs.py",
    "runtimes/test_pytorch.py",
    "runtimes/test_exported_models.py",
    "video/test_collection.py",
    "training/test_camera_motion_set.py",
    "cli/test_predict_batch.py",
    "cli/test_evaluate.py",
    "cli/test_inspect.py",
    "cli/test_export.py",
    "test_api.py",
    "cli/test_models.py",
    "checkpoints/test_layouts.py",
    "checkpoints/test_hub.py",
)

# The networks are tiny: threads that wait for one another would be most of the work. Child processes have it from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Inductor compiles a few kernels: to start processes that do it would take longer.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_configure() -> None:
    # Each worker process imports the main module anew, which for the script `pytest` takes longer than the test's own
    # work. Not so where that is a package's __main__, as with `python -m pytest`.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("pytest.__main__")
    # Jobs in the background of a shell are deaf to Ctrl-C, and so would be all commands that tests stop with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All tests run in a process for each core, up to four; what is named on the command line runs in this one."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin, so that no process has one left when the others are done."""
    ranks = {name: rank for rank, name in enumerate(_LONG)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0].removeprefix("tests/"), len(ranks)))


def pytest_collection_finish() -> None:
    # What is there now stays to the end; looked through again and again, it would be much of the tests' time.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """A collection of real, odd and broken videos that lies beside the checkout; tests skip without it."""
    if not _MANIFEST.is_file():
        pytest.skip("no ../shared/videos beside this checkout")
    return _SHARED_VIDEOS


@pytest.fixture(scope="session")
def shared_cases(shared_videos: Path) -> Path:
    """Files from reports of what went wrong, beside that collection."""
    cases = shared_videos.parent / "cases"
    if not cases.is_dir():
        pytest.skip("no ../shared/cases beside this checkout")
    return cases


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Calls the command in this process. What libraries print from C counts as well."""

    def call(*args: str | Path) -> Outcome:
        code = exit_code(*args)
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if importlib.util.find_spec("selenium") is None:
        lack("selenium")
    from testing.browser import BROWSER, DRIVER, open_browser

    if BROWSER is None or DRIVER is None:
        lack("Chromium with its chromedriver")
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def ray() -> None:
    if importlib.util.find_spec("ray") is None:
        lack("Ray")


@pytest.fixture(scope="session")
def torchcodec() -> Callable[..., Any]:
    """The reader, where torchcodec is installed and finds FFmpeg's libraries."""
    try:
        module = importlib.import_module("timesformer_cli.video.decoders.torchcodec")
    except (ImportError, OSError, RuntimeError) as error:
        lack(f"torchcodec that can be imported: {str(error).splitlines()[0]}")
    return module.TorchcodecReader  # type: ignore[no-any-return]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Show]:
    """Opens pages in a browser. At the end nothing may have been fetched, and nothing complained of."""
    from testing.browser import resize

    resize(browser, 1280)

    def show_one(text: str, hash: str = "") -> Page:
        path = tmp_path / "page.html"
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
        browser.get("about:blank")
        browser.get_log("performance")
        browser.get(path.as_uri() + hash)
        return Page(browser, path)

    yield show_one
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert any(url.startswith("file:") for url in requests)
    assert browser.get_log("browser") == []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `manifest_entry` runs once for each file of that collection but the bombs."""
    if "manifest_entry" in metafunc.fixturenames:
        files = json.loads(_MANIFEST.read_text(encoding="utf-8"))["files"] if _MANIFEST.is_file() else []
        entries = [entry for entry in files if not entry["file"].startswith("bomb")]
        metafunc.parametrize("manifest_entry", entries, ids=[entry["file"] for entry in entries])
