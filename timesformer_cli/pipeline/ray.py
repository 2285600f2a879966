"""The same work on a Ray cluster: its CPUs read the videos, and networks score them, one on each GPU or each node."""

import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from timesformer_cli.errors import DeviceError, TimesformerError, UsageError
from timesformer_cli.flow import Failure, Item, Scored
from timesformer_cli.limits import shortage
from timesformer_cli.pipeline.prepare import Thumbnails
from timesformer_cli.pipeline.ray_remote import Network, read
from timesformer_cli.pipeline.ray_schedule import OBJECTS_AHEAD, HeadLostError, Plan, Schedule, reason_of
from timesformer_cli.pipeline.run import RunOptions, check_cluster
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.ports import Output
from timesformer_cli.specs import Checkpoint, Timeline
from timesformer_cli.video.addresses import is_address, local_path
from timesformer_cli.video.sampling import MAX_AUTO_CLIPS

# Videos that one task reads in turn. A task starts a process for them, and Ray has some overhead for each task. But a
# task is also repeated if a node is lost, and each CPU should get several.
_MOST_ITEMS = 32
_TASKS_EACH = 4

# CPUs, as Ray counts them, of a task that reads and of a network, which computes on all CPUs of its node. If a node has
# only one, both must find room there: it may be the last that is left.
_SHARES = (1.0, 0.5)
_SHARES_OF_ONE = (0.75, 0.25)

# Views that go to a GPU at a time, before `BatchSize` divides them: half a gigabyte of the base size.
_VIEWS_AT_A_TIME = 128


def score_on_cluster(
    items: Iterable[Item],
    checkpoint: Checkpoint,
    run: RunOptions,
    *,
    timeline: Timeline | None = None,
    thumbnails: Thumbnails | None = None,
    hashes: bool = False,
    output: Output = "logits",
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Scored | Failure]:
    """The results of `score` for the items, in order; all items are listed before the first result.

    Every node must have this package, and find the videos and the weights under the same paths as this machine. `run`
    has its usual meaning, with three exceptions: Ray numbers the GPUs, `cuda` uses all of them, and Ray's own tasks
    replace the workers. Exported models get a GPU only if the device or the provider names one.

    The work of a node that is lost is done by the rest. A video that kills Ray's own worker becomes a `crash`.

    Raises:
        UsageError: as `check_cluster`, or an address of a kind that cannot work.
        DeviceError: a GPU was asked for and the cluster has none; or it has too few CPUs.
        TimesformerError: there is no cluster at the address, or it fails too often; a node lacks this package or does
            not find a video that exists here; or the network raised an error.
    """
    check_cluster(run.device)
    listed = list(items)
    if not listed:
        return
    with _connected(run.cluster.address if run.cluster else None) as ray:
        asked = runtime_of(checkpoint).cluster_device(run.device, run.provider)
        run = replace(run, device=_plan(ray, asked).device)
        plan = partial(_plan, ray, "cuda" if run.device == "cuda" else "cpu")  # of a cluster that grows or shrinks
        # Videos stay where they are: only their paths go to the tasks, and only their views to the networks.
        reader = ray.remote(
            num_returns="streaming",
            max_retries=0,
            scheduling_strategy="SPREAD",
            _generator_backpressure_num_objects=OBJECTS_AHEAD,
        )(read)
        network = ray.remote(max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(Network)
        of_video = {"timeline": timeline, "thumbnails": thumbnails, "hashes": hashes}
        schedule = Schedule(
            ray,
            _blocks([_absolute(item) for item in listed], int(_count(ray, "CPU"))),
            plan,
            answers=partial(_answers, ray.get_runtime_context().gcs_address),
            read=lambda block, plan: reader.options(num_cpus=plan.reading).remote(
                block, checkpoint.recipe, replace(run, workers=1), of_video
            ),
            open=lambda plan: network.options(**plan.ask).remote(checkpoint, run, output),
            rows=_rows_at_a_time(checkpoint, run.device),
            tell=tell,
        )
        left = iter(listed)
        item = next(left)
        for answer in schedule.results():
            yield replace(answer, item=item)
            if isinstance(answer, Failure) or not answer.more:
                item = next(left, item)


def _blocks(items: list[Item], cpus: int) -> Iterator[list[Item]]:
    """The items that one task each reads."""
    tasks = max(-(-len(items) // _MOST_ITEMS), min(len(items), _TASKS_EACH * cpus))
    size = -(-len(items) // max(tasks, 1))
    return (items[start : start + size] for start in range(0, len(items), size))


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, without its output."""
    # Under `uv run`, Ray would start each worker with uv too, and upload the working directory.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = importlib.import_module("ray")
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ours = not ray.is_initialized()
    try:
        if ours:
            _connect(ray, address or os.environ.get("RAY_ADDRESS"))
        with _silent():
            yield ray
    except (HeadLostError, ray.exceptions.RayError) as error:
        ours = ours and not isinstance(error, HeadLostError)  # to leave the cluster, Ray would wait for its head
        raise TimesformerError(
            f"`engine=ray`: the cluster failed ({reason_of(error)}); go on with the videos that are left with `resume`"
        ) from error
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one."""
    listens = False
    try:
        listens = address is not None and _listens(address)
        with _undisturbed():
            ray.init(address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError) as error:
        # Ray does not say that a token is missing or wrong.
        hint = "; if the cluster asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" if listens else ""
        raise TimesformerError(
            f"`ray_address={address}`: no Ray cluster answers there ({_line(error)}){hint}"
        ) from error
    except RuntimeError as error:  # another version of Ray or Python, a connection that breaks
        what = "`engine=ray`: no Ray cluster can be started here"
        if address is not None:
            what = f"`ray_address={address}`: the Ray cluster cannot be joined"
        raise shortage(error) or TimesformerError(f"{what} ({_line(error)})") from error


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError:
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _listens(address: str) -> bool:
    """Whether something is known to listen there; of `auto` and `local` it is not.

    Raises UsageError for an address that Ray cannot use, and ConnectionError if nothing listens at HOST:PORT. Ray
    itself takes minutes to notice either.
    """
    url = urlsplit(address if "://" in address else f"//{address}")
    if url.scheme not in ("", "ray"):
        raise UsageError(
            f"`ray_address={address}`: Ray's dashboard and job server have such addresses; give that of the cluster, "
            "HOST:6379, or `ray_address=auto` on one of its machines"
        )
    if url.hostname is None or url.port is None:
        return False
    try:
        socket.create_connection((url.hostname, url.port), timeout=10).close()
    except OSError as error:
        raise ConnectionError(error.strerror or error) from error
    if url.scheme:
        raise UsageError(
            f"`ray_address={address}`: Ray's client cannot stream results; run this on a machine of the cluster, "
            "with `ray_address=auto`"
        )
    return True


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what Ray prints about lost nodes: it has no switch for that, and would print it among our records."""
    worker: Any = importlib.import_module("ray._private.worker")
    original = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = original


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the handler of SIGTERM, and suppress on standard error what Ray's native code prints regardless."""
    handler = signal.getsignal(signal.SIGTERM)
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
        if threading.current_thread() is threading.main_thread():  # only the main thread may set it
            signal.signal(signal.SIGTERM, handler)


def _plan(ray: Any, device: str) -> Plan:
    """How the cluster, as it is now, divides the work of networks on `device`.

    Raises:
        DeviceError: it lacks a GPU, or CPUs.
    """
    sizes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    reading, share = _SHARES_OF_ONE if any(1 <= size < sum(_SHARES) for size in sizes) else _SHARES
    ask, gpus, cpus = {"num_cpus": share}, int(_count(ray, "GPU")), _count(ray, "CPU")
    if device == "cuda" and gpus == 0:
        raise DeviceError("`device=cuda`: the Ray cluster has no GPU; try `device=cpu`")
    if device in ("auto", "cuda") and gpus:
        networks, device = gpus, "cuda"
        ask["num_gpus"] = 1
    else:
        networks = sum(size > 1 for size in sizes) or max(sum(size == 1 for size in sizes), 1)
    if cpus < networks * share + reading:  # otherwise it would wait for ever
        raise DeviceError(f"`engine=ray`: a cluster of {cpus:g} CPUs is too small to read videos beside the network")
    return Plan(networks, ask, device, max(int((cpus - networks * share) / reading), 1), reading)


def _rows_at_a_time(checkpoint: Checkpoint, device: str) -> int:
    """Rows that go to a network at a time: on a GPU, as many as have some hundred views; elsewhere one.

    So a batch on the CPU holds one video, as in `choose_batch_size`.
    """
    if device != "cuda":
        return 1
    return max(_VIEWS_AT_A_TIME // ((checkpoint.sampling.clips or MAX_AUTO_CLIPS) * checkpoint.preprocess.crops), 1)


def _count(ray: Any, resource: str) -> float:
    return float(ray.cluster_resources().get(resource, 0))


def _absolute(item: Item) -> Item:
    """The item with an absolute path, since Ray's workers have different working directories."""
    if is_address(item.location):
        return item
    return replace(item, path=os.path.join(os.getcwd(), local_path(item.path)))
