"""Ray on this machine alone gives what the program itself gives, and says why it cannot in one line."""

import importlib.util
import os
import pickle
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from testing.clips import write_audio, write_model, write_video
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, DeviceError, TimesformerError, UsageError
from timesformer_cli.flow import Failure, Item, Prediction, Result
from timesformer_cli.pipeline import ray as cluster
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.run import Cluster, RunOptions
from timesformer_cli.pipeline.score import label
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.specs import Checkpoint, Timeline

needs_ray = pytest.mark.usefixtures("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Three clips of four frames, two apart, and three crops."""
    plain = resolve(str(write_model(tmp_path_factory.mktemp("tiny"))))
    return with_overrides(plain, fields={"stride": 2, "fps": 10, "clips": 3, "crops": 3})


# Segments of 12 frames, every 5.
TIMELINE = Timeline(length=1.2, hop=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        write_video(folder / f"{number}.mp4", frames=20 + 7 * number, level=number)
    write_audio(folder / "sound.mp4")
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    return folder


def run_here(items: list[Item], checkpoint: Checkpoint, timeline: Timeline | None = None) -> list[Result]:
    with score_all(items, checkpoint, RunOptions(workers=1, device="cpu"), timeline=timeline) as scored:
        return list(label(scored, checkpoint))


def run_there(items: list[Item], checkpoint: Checkpoint, address: str | None = None, **options: Any) -> list[Result]:
    """On a cluster."""
    of_run = {name: options.pop(name) for name in ("device", "limits") if name in options}
    run = RunOptions(cluster=Cluster(address), **of_run)
    with score_all(items, checkpoint, run, **options) as scored:
        return list(label(scored, checkpoint))


def assert_same(found: list[Result], expected: list[Result]) -> None:
    assert [result.item for result in found] == [result.item for result in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, Failure) or isinstance(theirs, Failure):
            assert ours == theirs
            continue
        assert (ours.info.codec, ours.info.num_frames) == (theirs.info.codec, theirs.info.num_frames)
        for mine, other in zip(ours.segments, theirs.segments, strict=True):
            assert (mine.start, mine.end, mine.views) == (other.start, other.end, other.views)
            np.testing.assert_allclose(mine.logits, other.logits, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(mine.scores, other.scores, rtol=1e-5, atol=1e-6)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray as far as it is looked for."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())


def test_without_ray_the_extra_is_named(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"needs Ray; install it with: pip install 'timesformer-cli\[ray\]'"):
        run_there([Item("a.mp4")], checkpoint)


def test_no_videos_need_no_cluster(checkpoint: Checkpoint, fake_ray: None) -> None:
    assert run_there([], checkpoint, "nowhere:1") == []


def test_gpus_have_no_numbers(checkpoint: Checkpoint, fake_ray: None) -> None:
    with pytest.raises(UsageError, match="cuda:1`: Ray itself assigns the GPUs of its cluster; use `device=cuda`"):
        run_there([Item("a.mp4")], checkpoint, device="cuda:1")


class Nodes(SimpleNamespace):
    """What Ray tells of a cluster of nodes with so many CPUs and GPUs."""

    def __init__(self, *nodes: tuple[int, int]) -> None:
        super().__init__(counts=nodes)

    def cluster_resources(self) -> dict[str, float]:
        totals = {
            "CPU": float(sum(cpus for cpus, _ in self.counts)),
            "GPU": float(sum(gpus for _, gpus in self.counts)),
        }
        return {name: total for name, total in totals.items() if total}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(cpus)}} for cpus, _ in self.counts]


@pytest.mark.parametrize(
    ("nodes", "asked", "networks", "device"),
    [
        ([(2, 0)], "auto", 1, "auto"),
        ([(0, 0), (16, 0), (8, 0), (1, 0)], "cpu", 2, "cpu"),
        ([(16, 2), (16, 4)], "auto", 6, "cuda"),
        ([(16, 2), (16, 4)], "cuda", 6, "cuda"),
        ([(16, 2), (16, 4)], "cpu", 2, "cpu"),
    ],
)
def test_a_network_for_each_gpu_or_node(nodes: list[tuple[int, int]], asked: str, networks: int, device: str) -> None:
    count, ask, chosen = cluster._networks(Nodes(*nodes), asked)
    assert (count, chosen) == (networks, device)
    assert ask["num_cpus"] != 1
    assert ask.get("num_gpus") == (1 if device == "cuda" else None)


@pytest.mark.parametrize(
    ("nodes", "device", "message"),
    [
        ((8, 0), "cuda", "the Ray cluster has no GPU; try `device=cpu`"),
        ((1, 0), "cpu", "a cluster of 1 CPUs is too small"),
        ((4, 8), "auto", "a cluster of 4 CPUs is too small"),
    ],
)
def test_clusters_that_could_never_do_it(nodes: tuple[int, int], device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        cluster._networks(Nodes(nodes), device)


def test_gpus_get_many_views_at_a_time(checkpoint: Checkpoint) -> None:
    assert cluster._rows_at_a_time(checkpoint, "cuda") == 14  # of nine views
    assert cluster._rows_at_a_time(with_overrides(checkpoint, fields={"clips": None}), "cuda") == 4  # of up to thirty
    assert cluster._rows_at_a_time(checkpoint, "cpu") == 1


def test_views_of_several_videos_are_scored_together(checkpoint: Checkpoint, folder: Path) -> None:
    pytest.importorskip("pyarrow")
    items = [Item(str(folder / name)) for name in ("0.mp4", "broken.mp4", "1.mp4", "2.mp4")]
    with prepare_all(items, checkpoint.recipe, workers=0, limits=Limits()) as prepared:
        network = cluster._Network(checkpoint, RunOptions(batch_size=12, device="cpu", precision="fp32"))
        network._told.append("a note")
        rows = network(cluster._pack(views for views in prepared if views is not None))
    data = SimpleNamespace(iter_rows=lambda: [{"row": row.as_py()} for row in rows["row"]] * 2)
    told: list[str] = []
    scored = cluster._scored(data, items * 2, told.append)
    assert_same(list(label(scored, checkpoint)), run_here(items, checkpoint) * 2)
    assert told == ["a note"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [(["b.mp4"], "returned .*b.mp4.* instead of .*a.mp4"), (["a.mp4"], "did not return .*b.mp4")],
)
def test_what_ray_loses_or_confuses_is_noticed(returned: list[str], message: str) -> None:
    answers = [Failure(cluster._absolute(Item(path)), "decode", "damaged") for path in returned]
    data = SimpleNamespace(iter_rows=lambda: [{"row": pickle.dumps(answer)} for answer in answers])
    with pytest.raises(RuntimeError, match=message):
        list(cluster._scored(data, [Item("a.mp4"), Item("b.mp4")], print))


@needs_ray
def test_a_cluster_that_is_started_for_the_run(
    checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(folder.parent)
    paths = sorted(f"{folder.name}/{path.name}" for path in folder.iterdir())
    items = [Item(path) for path in [*paths, f"{folder.name}/missing.mp4", f"../{folder.parent.name}/{paths[0]}"]]
    if sys.platform == "linux":  # elsewhere names are Unicode
        shutil.copyfile(paths[1], os.fsencode(folder.name) + b"/caf\xe9 \n.mp4")
        items.insert(2, Item(folder.name + "/caf\udce9 \n.mp4"))
    expected = run_here(items, checkpoint)
    assert {result.kind for result in expected if isinstance(result, Failure)} == {
        "decode",
        "no_video_stream",
        "not_found",
    }
    handler = signal.getsignal(signal.SIGTERM)
    capfd.readouterr()
    told: list[str] = []
    found = run_there(items, checkpoint, "local", device="cpu", tell=told.append)
    assert_same(found, expected)
    assert told == []
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not ray.is_initialized()


@needs_ray
@pytest.mark.parametrize("address", ["HOST:PORT", "ray://HOST:PORT", "HOST"])
def test_no_cluster_at_the_address(checkpoint: Checkpoint, address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = address.replace("HOST", "127.0.0.1").replace("PORT", str(port))
    with pytest.raises(TimesformerError, match=f"`ray_address={address}`: no Ray cluster answers there") as caught:
        run_there([Item("a.mp4")], checkpoint, address)
    assert "\n" not in str(caught.value)


@needs_ray
class TestRunningCluster:
    @pytest.fixture(scope="class", autouse=True)
    def three_cpus(self) -> Iterator[None]:
        """And a GPU, of which only Ray is told."""
        import ray

        ray.init("local", num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()

    def test_timelines(self, checkpoint: Checkpoint, folder: Path) -> None:
        items = [Item(str(path)) for path in sorted(folder.iterdir())]
        expected = run_here(items, checkpoint, TIMELINE)
        assert max(len(result.segments) for result in expected if isinstance(result, Prediction)) > 4
        assert_same(run_there(items, checkpoint, device="cpu", timeline=TIMELINE), expected)

    def test_many_videos_share_a_task(self, checkpoint: Checkpoint, folder: Path, tmp_path: Path) -> None:
        items = []
        for number in range(70):
            items.append(Item(str(tmp_path / f"{number}.mp4")))
            shutil.copyfile(folder / f"{number % 5}.mp4", items[-1].path)
        found = run_there(items, checkpoint, device="cpu", thumbnails=True)
        assert [result.item for result in found] == items
        for number, result in enumerate(found):
            assert isinstance(result, Prediction)
            assert result.info.num_frames == 20 + 7 * (number % 5)
            assert result.segments[0].thumbnail is not None

    def test_what_takes_too_long_costs_itself(self, checkpoint: Checkpoint, folder: Path) -> None:
        items = [Item(str(folder / f"{number}.mp4")) for number in range(2)]
        for result in run_there(items, checkpoint, device="cpu", limits=Limits(timeout=1e-4)):
            assert isinstance(result, Failure)
            assert result.kind == "timeout"

    def test_errors_of_the_network_end_the_run(self, checkpoint: Checkpoint, folder: Path) -> None:
        broken = replace(checkpoint, weights=folder / "gone.safetensors")
        with pytest.raises(CheckpointError, match="cannot be read"):
            run_there([Item(str(folder / "0.mp4"))], broken, device="cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device")
    def test_the_network_goes_where_the_gpus_are(self, checkpoint: Checkpoint, folder: Path) -> None:
        with pytest.raises(DeviceError, match="no CUDA device that PyTorch can use"):
            run_there([Item(str(folder / "0.mp4"))], checkpoint)
