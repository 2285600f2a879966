"""A Ray cluster gives what the program itself gives, also if it loses nodes; if it cannot, it says why in one line."""

import importlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
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
from timesformer_cli.flow import Failure, Item, Prediction, Result, Scored, Views
from timesformer_cli.pipeline import ray as cluster
from timesformer_cli.pipeline import ray_schedule
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.ray_remote import Network, Node
from timesformer_cli.pipeline.ray_schedule import HeadLostError, Plan, Schedule, _Block, _Network, _Span
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
    ("nodes", "asked", "networks", "device", "readers"),
    [
        ([(2, 0)], "auto", 1, "auto", 1),
        ([(0, 0), (16, 0), (8, 0)], "cpu", 2, "cpu", 23),
        ([(16, 0), (1, 0)], "cpu", 1, "cpu", 22),  # of 0.75 CPUs
        ([(1, 0), (1, 0), (1, 0)], "cpu", 3, "cpu", 3),
        ([(1, 0)], "cpu", 1, "cpu", 1),
        ([(16, 2), (16, 4)], "auto", 6, "cuda", 29),
        ([(16, 2), (16, 4)], "cuda", 6, "cuda", 29),
        ([(16, 2), (16, 4)], "cpu", 2, "cpu", 31),
    ],
)
def test_a_network_for_each_gpu_or_node(
    nodes: list[tuple[int, int]], asked: str, networks: int, device: str, readers: int
) -> None:
    """And room for both on each node, since it may be the last that is left."""
    plan = cluster._plan(Nodes(*nodes), asked)
    assert (plan.networks, plan.device, plan.readers) == (networks, device, readers)
    assert plan.reading + plan.ask["num_cpus"] <= min(cpus for cpus, _ in nodes if cpus)  # or the last one waits
    assert plan.networks * plan.ask["num_cpus"] + readers * plan.reading <= sum(cpus for cpus, _ in nodes)
    assert plan.ask.get("num_gpus") == (1 if device == "cuda" else None)


@pytest.mark.parametrize(
    ("nodes", "device", "message"),
    [
        ((8, 0), "cuda", "the Ray cluster has no GPU; try `device=cpu`"),
        ((0, 0), "cpu", "a cluster of 0 CPUs is too small"),
        ((4, 8), "auto", "a cluster of 4 CPUs is too small"),
    ],
)
def test_clusters_that_could_never_do_it(nodes: tuple[int, int], device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        cluster._plan(Nodes(nodes), device)


def test_gpus_get_many_views_at_a_time(checkpoint: Checkpoint) -> None:
    assert cluster._rows_at_a_time(checkpoint, "cuda") == 14  # of nine views
    assert cluster._rows_at_a_time(with_overrides(checkpoint, fields={"clips": None}), "cuda") == 4  # of up to thirty
    assert cluster._rows_at_a_time(checkpoint, "cpu") == 1


def test_views_of_several_videos_are_scored_together(checkpoint: Checkpoint, folder: Path) -> None:
    items = [Item(str(folder / name)) for name in ("0.mp4", "1.mp4", "2.mp4")]
    with prepare_all(items, checkpoint.recipe, workers=0, limits=Limits()) as prepared:
        views = [each for each in prepared if isinstance(each, Views)]
    network = Network(checkpoint, RunOptions(batch_size=12, device="cpu", precision="fp32"))
    assert network.load() is None
    network._told.append("a note")
    told, scored = network.score(*views)
    assert isinstance(scored, list)
    assert told == ["a note"]
    assert_same(list(label(scored, checkpoint)), run_here(items, checkpoint))


def block_of(*answers: Failure) -> _Block:
    """Two videos, of which a task returned these answers."""
    block = _Block(deque([Item("a.mp4"), Item("b.mp4")]), was_read=True)
    block.pending.extend(_Span(block, answer=answer) for answer in answers)
    return block


@pytest.mark.parametrize(
    ("returned", "message"),
    [(["b.mp4"], "returned .*b.mp4.* instead of .*a.mp4"), (["a.mp4"], "did not return .*b.mp4")],
)
def test_what_ray_loses_or_confuses_is_noticed(returned: list[str], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        block_of(*(Failure(Item(path), "decode", "damaged") for path in returned)).settle()


def schedule_without_ray(answers: Callable[[], bool] = lambda: True, rows: int = 1) -> Schedule:
    """A schedule that makes no call of Ray."""
    return Schedule(
        SimpleNamespace(),
        [[Item("a.mp4")]],
        lambda: Plan(1, {"num_cpus": 0.5}, "cpu", 1, 1),
        answers=answers,
        read=lambda *_: None,
        open=lambda _: None,
        rows=rows,
        tell=print,
    )


def test_a_head_that_no_longer_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would end the program without a word, and before that not return from any call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert cluster._answers(address)
    assert not cluster._answers(address)
    monkeypatch.setattr(ray_schedule, "_LOOK", 0)
    monkeypatch.setattr(ray_schedule, "_HEADLESS", 0)
    schedule = schedule_without_ray(partial(cluster._answers, address))
    with pytest.raises(HeadLostError, match="its head no longer answers"):
        list(schedule.results())


def test_networks_leave_to_others_what_is_on_their_nodes() -> None:
    """As long as there is something else: videos that were read on their own node, or on one without a network."""
    schedule = schedule_without_ray(rows=2)
    first, second = (_Network(None, None, Node(number, "")) for number in "12")
    schedule._networks += [first, second]
    for number in "231231":
        schedule._unscored.append(_Span(_Block(deque(), node=Node(number, ""))))

    def next_to(network: Any) -> list[str | None]:
        return [span.block.node and span.block.node.number for span in schedule._next_to(network)]

    assert [next_to(network) for network in (first, first, first)] == [["3", "1"], ["3", "1"], ["2", "2"]]
    assert not schedule._unscored


@needs_ray
def test_a_cluster_that_is_started_for_the_run(
    checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "_TASKS_EACH", 1)  # each starts a process
    monkeypatch.chdir(folder.parent)
    paths = sorted(f"{folder.name}/{path.name}" for path in folder.iterdir())
    items = [Item(path) for path in [*paths, f"{folder.name}/missing.mp4", f"../{folder.parent.name}/{paths[0]}"]]
    if sys.platform == "linux":  # elsewhere names are Unicode
        shutil.copyfile(paths[1], os.fsencode(folder.name) + b"/caf\xe9 \n.mp4")
        items.insert(2, Item(folder.name + "/caf\udce9 \n.mp4"))
    items += [replace(items[-1], start=start, end=start + 0.5) for start in (0.5, 99.0)]
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
@pytest.mark.parametrize(
    ("scheme", "message"),
    [("http", "HOST:6379, or `ray_address=auto`"), ("https", "dashboard"), ("ray", "client cannot stream results")],
)
def test_addresses_of_other_servers(checkpoint: Checkpoint, scheme: str, message: str) -> None:
    """They are refused at once, also if something listens there: Ray itself would wait for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"`ray_address={address}`: .*{message}") as caught:
            run_there([Item("a.mp4")], checkpoint, address)
    assert "\n" not in str(caught.value)


def refused(address: str | None, error: Exception) -> str:
    """What is said if Ray raises that error as it connects."""
    with pytest.raises(TimesformerError) as caught:
        cluster._connect(SimpleNamespace(init=lambda *_, **__: failing(error)), address)
    return str(caught.value)


def failing(error: Exception) -> None:
    raise error


def test_why_a_cluster_cannot_be_joined() -> None:
    """Ray takes a cluster that wants a token, and gets none, for one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        said = refused(address, ConnectionError("failed to\nconnect"))
        assert said.startswith(f"`ray_address={address}`: no Ray cluster answers there (failed to connect); if ")
        assert "RAY_AUTH_TOKEN" in said
        said = refused(address, RuntimeError("other version"))
        assert said == f"`ray_address={address}`: the Ray cluster cannot be joined (other version)"
    assert "RAY_AUTH_TOKEN" not in refused("auto", ConnectionError("none is running"))
    assert refused(None, RuntimeError("odd")) == "`engine=ray`: no Ray cluster can be started here (odd)"
    assert "set HOME to a folder" in refused(None, RuntimeError("Could not determine home directory."))


def reading_each(look: Callable[[Item, int], Any]) -> Callable[..., Iterator[Any]]:
    """`read`, with a look at each video before each thing that is made of it; what that gives replaces the video."""

    # Ray sends functions in functions as they are. Of others it sends the name, and nodes would import this module.
    def read_and_look(items: list[Item], *options: Any) -> Iterator[Any]:
        from timesformer_cli.pipeline import ray_remote

        yield ray_remote.here()
        for item in items:
            answer = look(item, 0)
            if answer is not None:
                yield answer
                continue
            for number, made in enumerate(ray_remote.read([item], *options)):
                if number:  # the first is the node
                    look(item, number)
                    yield made

    return read_and_look


PLAN = cluster._plan


def at_most(networks: int, patch: pytest.MonkeyPatch) -> None:
    def plan(*options: Any) -> Plan:
        found = PLAN(*options)
        return replace(found, networks=min(found.networks, networks))

    patch.setattr(cluster, "_plan", plan)


@needs_ray
class TestClusterOfThree:
    """Three nodes of one CPU each, and a GPU of which only Ray is told. The last test leaves one node."""

    @pytest.fixture(scope="class", autouse=True)
    def nodes(self) -> Iterator[Any]:
        ray = importlib.import_module("ray")
        cluster_utils = importlib.import_module("ray.cluster_utils")

        options: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args=options | {"num_gpus": 1})
        try:
            for _ in range(2):
                nodes.add_node(**options)
            # Connected once, so that the processes of one run serve the next.
            ray.init(nodes.address, log_to_driver=False, configure_logging=False)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()

    @pytest.fixture(autouse=True)
    def one_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Instead of three: each takes seconds to load torch."""
        at_most(1, monkeypatch)

    def test_what_takes_too_long_costs_itself(self, checkpoint: Checkpoint, folder: Path) -> None:
        items = [Item(str(folder / f"{number}.mp4")) for number in range(2)]
        for result in run_there(items, checkpoint, device="cpu", limits=Limits(timeout=1e-4)):
            assert isinstance(result, Failure)
            assert result.kind == "timeout"

    @pytest.mark.parametrize("output", ["embedding", "frames"])
    def test_vectors_and_hashes(self, checkpoint: Checkpoint, folder: Path, output: str) -> None:
        asked: dict[str, Any] = {"hashes": True, "output": output}
        here, there = (RunOptions(device="cpu", workers=0), RunOptions(device="cpu", cluster=Cluster()))
        with score_all([Item(str(folder / "0.mp4"))], checkpoint, here, **asked) as scored:
            (expected,) = scored
        with score_all([Item(str(folder / "0.mp4"))], checkpoint, there, **asked) as scored:
            (found,) = scored
        assert isinstance(found, Scored)
        assert isinstance(expected, Scored)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
        assert found.hashes is not None
        np.testing.assert_array_equal(found.hashes, expected.hashes)

    def test_errors_of_the_network_end_the_run(self, checkpoint: Checkpoint, folder: Path) -> None:
        broken = replace(checkpoint, weights=folder / "gone.safetensors")
        with pytest.raises(CheckpointError, match="cannot be read"):
            run_there([Item(str(folder / "0.mp4"))], broken, device="cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device")
    def test_the_network_goes_where_the_gpus_are(self, checkpoint: Checkpoint, folder: Path) -> None:
        with pytest.raises(DeviceError, match="no CUDA device that PyTorch can use"):
            run_there([Item(str(folder / "0.mp4"))], checkpoint)

    def test_a_video_that_kills_its_reader_costs_one_record(
        self, checkpoint: Checkpoint, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And none if the next try works, half-way through its segments. What it shares a task with is read again."""
        items = [*copies(folder, tmp_path, 5), Item(str(folder / "broken.mp4"))]
        deadly, once, tries = items[2].path, items[4].path, tmp_path / "tries"

        def kill(item: Item, made: int) -> None:
            if item.path == deadly or (item.path == once and made == 4 and not os.path.exists(f"{tries}-once")):
                time.sleep(0.2)  # what was made before arrives
                with open(tries if item.path == deadly else f"{tries}-once", "a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(cluster, "read", reading_each(kill))
        monkeypatch.setattr(cluster, "_TASKS_EACH", 1)
        monkeypatch.setattr(ray_schedule, "_LONGEST_PAUSE", 0.1)
        expected = run_here(items[:2] + items[3:], checkpoint, TIMELINE)
        assert isinstance(expected[3], Prediction)
        assert len(expected[3].segments) > 4
        found = run_there(items, checkpoint, device="cpu", timeline=TIMELINE)
        killed = found.pop(2)
        assert isinstance(killed, Failure)
        assert (killed.item, killed.kind) == (items[2], "crash")
        assert "reading it killed Ray's worker 3 times (" in killed.message
        assert tries.read_text() == "xxxx"  # once in its block
        assert os.path.exists(f"{tries}-once")
        assert_same(found, expected)

    def test_a_node_that_does_not_see_the_videos(
        self, checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "read", reading_each(lambda item, _: Failure(item, "not_found", "no such file")))
        (missing,) = run_there([Item(str(folder / "missing.mp4"))], checkpoint, device="cpu")
        assert isinstance(missing, Failure)  # nor does it exist here
        items = [Item(str(folder / "0.mp4"))]
        message = rf"the node [\d.]+ does not find {items[0].path}, which exists here; all nodes must have the videos"
        with pytest.raises(TimesformerError, match=message):
            run_there(items, checkpoint, device="cpu")

    def test_a_node_without_the_package(
        self, checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(item: Item, made: int) -> None:
            raise ModuleNotFoundError("No module named 'timesformer_cli'")

        monkeypatch.setattr(cluster, "read", reading_each(fail))
        message = r"the node [\d.]+ lacks this package; install it there, .*: pip install 'timesformer-cli\[ray\]=="
        with pytest.raises(TimesformerError, match=message) as caught:
            run_there([Item(str(folder / "0.mp4"))], checkpoint, device="cpu")
        assert "\n" not in str(caught.value)

    def test_a_network_that_always_dies(
        self, checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run gives up, and says how to go on."""

        class Dying:
            def __init__(self, *_: Any) -> None: ...

            def where(self) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(cluster, "Network", Dying)
        monkeypatch.setattr(ray_schedule, "_SETBACKS", 0)
        with pytest.raises(TimesformerError, match=r"the cluster failed \(.*\); .* with `resume`") as caught:
            run_there([Item(str(folder / "0.mp4"))], checkpoint, device="cpu")
        assert "\n" not in str(caught.value)

    def test_a_busy_cluster(self, checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is missing is told while the run waits for it."""
        ray = importlib.import_module("ray")
        monkeypatch.setattr(ray_schedule, "_PATIENCE", 0.5)
        others = importlib.import_module("ray.util").placement_group([{"CPU": 1}] * 3)
        ray.get(others.ready())
        told: list[str] = []

        def tell(message: str) -> None:
            told.append(message)
            ray.util.remove_placement_group(others)

        items = [Item(str(folder / "0.mp4"))]
        assert_same(run_there(items, checkpoint, device="cpu", tell=tell), run_here(items, checkpoint))
        waiting = "waiting for the Ray cluster, which is busy: 0 of 3 CPUs are free, and 0.25 is needed for the network"
        assert told == [waiting]

    def test_lost_nodes_cost_nothing(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        nodes: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Two of three are lost, and a network with them; the run goes on, with the results of a local run."""
        at_most(2, monkeypatch)
        monkeypatch.setattr(cluster, "_TASKS_EACH", 2)
        items = copies(folder, tmp_path, 20)
        expected = run_here(items, checkpoint)
        capfd.readouterr()
        run = RunOptions(cluster=Cluster(), device="cpu")
        found: list[Result] = []
        with score_all(items, checkpoint, run, thumbnails="frames") as scored:
            for result in label(scored, checkpoint):
                if len(found) == 5:
                    for node in list(nodes.worker_nodes):
                        nodes.remove_node(node, allow_graceful=False)
                found.append(result)
        assert_same(found, expected)
        assert all(isinstance(result, Prediction) and result.segments[0].thumbnail is not None for result in found)
        assert capfd.readouterr().out == ""  # Ray would print about the nodes among the records


def copies(folder: Path, at: Path, count: int) -> list[Item]:
    """So many videos, of five kinds."""
    for number in range(count):
        shutil.copyfile(folder / f"{number % 5}.mp4", at / f"{number}.mp4")
    return [Item(str(at / f"{number}.mp4")) for number in range(count)]
