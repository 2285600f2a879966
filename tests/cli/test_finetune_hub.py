"""From a dataset on the Hub to a model on the Hub, with the commands of huggingface_hub, as users type them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing import gestures
from testing.clips import write_model, write_video
from testing.command import Run
from testing.hub_server import Hub, serve


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    with serve() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        yield server


def hf(hub: Hub, *args: str, token: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", *args]
    home = hub.environment(Path("home"), token=token)
    return subprocess.run(command, env=home, capture_output=True, text=True, encoding="utf-8", timeout=120)


def test_from_a_dataset_on_the_hub_to_a_model_on_the_hub(hub: Hub, run: Run) -> None:
    dataset = gestures.write(Path("made"), gestures.TRAIN[:5], takes=1)
    (dataset / "README.md").write_text("---\ntask_categories: [video-classification]\n---\n")
    (dataset / ".gitattributes").write_text("*.mp4 filter=lfs\n")
    hub.add_repo("datasets/you/gestures", dataset)
    write_model(Path("tiny"))

    done = hf(hub, "download", "--repo-type", "dataset", "you/gestures", "--local-dir", "gestures")
    assert done.returncode == 0, done.stderr
    code, out, err = run("finetune", "gestures", "--model", "tiny", "-o", "runs/mine", "--workers", "0")
    assert code == 0, err
    assert json.loads(out)["counts"]["evaluated"] == 5 * len(gestures.GESTURES)
    assert json.loads(out)["groups"]["count"] == 5

    upload = ("upload", "you/mine", "runs/mine/model")
    for token, why in ((None, "401"), ("hf_stranger", "403")):
        done = hf(hub, *upload, token=token)
        assert (done.returncode, why in done.stdout + done.stderr) == (1, True)
    assert hub.repo("you/mine") is None
    done = hf(hub, *upload, token="hf_member")
    assert done.returncode == 0, done.stderr
    files = {path.name: path.read_bytes() for path in Path("runs/mine/model").iterdir()}
    repo = hub.repo("you/mine")
    assert repo is not None
    uploaded = repo.commits[repo.refs["main"]]
    assert {name: uploaded[name] for name in files} == files
    assert [(each.server, each.token) for each in hub.log if each.method == "PUT"] == [("cdn", None)]

    clip = write_video(Path("clip.mp4"))
    found = [run("predict", clip, "--model", model, "--workers", "0") for model in ("you/mine", "runs/mine")]
    assert [each.code for each in found] == [0, 0], found[0].err
    theirs, ours = (each.records[0]["predictions"] for each in found)
    assert theirs == ours
    assert {each["label"] for each in ours} == set(gestures.GESTURES)
