"""The same work on a Ray cluster: its CPUs read the videos, and networks score them, one on each GPU or each node."""

import importlib
import importlib.util
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import DeviceError, TimesformerError
from timesformer_cli.flow import Failure, Item, Scored, Views
from timesformer_cli.pipeline.prepare import Prepared
from timesformer_cli.pipeline.run import RunOptions, check_cluster
from timesformer_cli.pipeline.score import scored_views
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Checkpoint, Recipe, Timeline
from timesformer_cli.video.addresses import is_address, local_path
from timesformer_cli.video.sampling import MAX_AUTO_CLIPS

# Videos that one task reads in turn. A task starts a process for them, and Ray has some overhead for each task. But a
# task is also repeated as a whole if a node is lost, and each CPU should get several.
_MOST_ITEMS = 32
_TASKS_EACH = 4

# How often Ray repeats the work of a lost node. By default it would do so for ever, even if the videos themselves
# crash the nodes.
_RETRIES = 2

# A network's share of a node's CPUs, as Ray counts them; it computes on all of them. It must differ from the 1 of a
# task that reads: Ray fuses stages with equal requests, and would then read all videos one by one in the network's.
_NETWORK_CPUS = 0.5

# Views that go to a GPU at a time, before `BatchSize` divides them: half a gigabyte of the base size.
_VIEWS_AT_A_TIME = 128


def score_on_cluster(
    items: Iterable[Item],
    checkpoint: Checkpoint,
    run: RunOptions,
    *,
    timeline: Timeline | None = None,
    thumbnails: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Scored | Failure]:
    """The results of `score` for the items, in order; all items are listed before the first result.

    Every node must have this package, and find the videos and the weights under the same paths as this machine. `run`
    has its usual meaning, with three exceptions: Ray numbers the GPUs, `cuda` uses all of them, and Ray's own tasks
    replace the workers. Exported models get a GPU only if the device or the provider names one.

    Raises:
        UsageError: as `check_cluster`.
        DeviceError: a GPU was asked for and the cluster has none; or it has too few CPUs.
        TimesformerError: there is no cluster at the address, or it fails; or the network raised an error.
    """
    check_cluster(run.device)
    listed = list(items)
    if not listed:
        return
    with _connected(run.cluster.address if run.cluster else None) as ray:
        blocks = max(-(-len(listed) // _MOST_ITEMS), min(len(listed), _TASKS_EACH * int(_count(ray, "CPU"))))
        asked = runtime_of(checkpoint).cluster_device(run.device, run.provider)
        networks, ask, device = _networks(ray, asked)
        run = replace(run, device=device)
        # Videos stay where they are: only their paths and the frames to read go through Ray.
        data = ray.data.from_arrow(_pack(_absolute(item) for item in listed), override_num_blocks=blocks)
        with warnings.catch_warnings(action="ignore"):  # Ray warns that this, the only way to set retries, will change
            data = data.map_batches(
                _prepare,
                fn_kwargs={
                    "recipe": checkpoint.recipe,
                    "run": replace(run, workers=1),
                    "timeline": timeline,
                    "thumbnails": thumbnails,
                },
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                max_retries=_RETRIES,
            )
            data = data.map_batches(
                _Network,
                fn_constructor_args=(checkpoint, run),
                batch_size=_rows_at_a_time(checkpoint, device),
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=min(networks, blocks)),
                max_task_retries=_RETRIES,
                **ask,
            )
        yield from _scored(data, listed, tell)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, without its output."""
    # Under `uv run`, Ray would start each worker with uv too, and upload the working directory.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = importlib.import_module("ray")
    importlib.import_module("ray.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = not ray.is_initialized()
    try:
        if ours:
            _connect(ray, address or os.environ.get("RAY_ADDRESS"))
        context = ray.data.DataContext.get_current()  # later datasets inherit it
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        yield ray
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).strip().splitlines()[-1].split())
        raise TimesformerError(f"`engine=ray`: the cluster failed ({reason})") from error
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one."""
    try:
        if address is not None:
            _check_address(address)
        with _undisturbed():
            ray.init(address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError) as error:
        raise TimesformerError(f"`ray_address={address}`: no Ray cluster answers there ({error})") from error


def _check_address(address: str) -> None:
    """Raise ConnectionError if nothing listens at HOST:PORT; Ray itself takes minutes to notice."""
    url = urlsplit(address if "://" in address else f"//{address}")
    if url.hostname is None or url.port is None:  # auto or local
        return
    try:
        socket.create_connection((url.hostname, url.port), timeout=10).close()
    except OSError as error:
        raise ConnectionError(error.strerror or error) from error


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


def _networks(ray: Any, device: str) -> tuple[int, dict[str, float], str]:
    """The number of networks, the cluster resources that each asks for, and their device."""
    ask, gpus = {"num_cpus": _NETWORK_CPUS}, int(_count(ray, "GPU"))
    if device == "cuda" and gpus == 0:
        raise DeviceError("`device=cuda`: the Ray cluster has no GPU; try `device=cpu`")
    if device in ("auto", "cuda") and gpus:
        networks, device = gpus, "cuda"
        ask["num_gpus"] = 1
    else:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 1]
        networks = max(len(nodes), 1)
    cpus = _count(ray, "CPU")
    if cpus < networks * _NETWORK_CPUS + 1:  # otherwise it would wait for ever
        raise DeviceError(f"`engine=ray`: a cluster of {cpus:g} CPUs is too small to read videos beside the network")
    return networks, ask, device


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


def _prepare(rows: Any, recipe: Recipe, run: RunOptions, **asked: Any) -> Iterator[Any]:
    """A task of Ray: read videos in a separate process, so that a hang or a crash costs only one video."""
    with run.prepare(_unpack(rows), recipe, **asked) as prepared:
        for views in prepared:
            if views is not None:
                yield _pack([views])


class _Network:
    """An actor of Ray: score prepared views."""

    def __init__(self, checkpoint: Checkpoint, run: RunOptions) -> None:
        # Ray has set the cores to the CPUs that it counts for the actor.
        runtime_of(checkpoint).use_cores(available_cores())
        self._told: list[str] = []
        self._error: TimesformerError | None = None
        try:
            self._scorer = run.open(checkpoint, self._told.append)
            self._size = run.batch(self._scorer, self._told.append)
        except TimesformerError as error:  # raised here, it would reach the caller as a different error
            self._error = error

    def __call__(self, rows: Any) -> Any:
        """Scored views for prepared ones, after any messages; or an error that ends the run."""
        try:
            if self._error is not None:
                raise self._error
            scored = self._score(_unpack(rows))
        except TimesformerError as error:
            return _pack([error])
        told, self._told[:] = self._told.copy(), []
        return _pack([*told, *scored])

    def _score(self, prepared: list[Prepared]) -> list[Scored | Failure]:
        views = [each for each in prepared if isinstance(each, Views)]
        logits: list[NDArray[np.float32]] = []
        if views:
            together = self._size.score(self._scorer, np.concatenate([each.pixels for each in views]))
            logits = np.split(together, np.cumsum([len(each.pixels) for each in views])[:-1])
        following = iter(logits)
        return [scored_views(each, next(following)) if isinstance(each, Views) else each for each in prepared]


def _scored(data: Any, items: Sequence[Item], tell: Callable[[str], None]) -> Iterator[Scored | Failure]:
    """The networks' results, matched to the items in order."""
    left = iter(items)
    item = next(left, None)
    told = set()
    for row in data.iter_rows():
        answer = pickle.loads(row["row"])
        if isinstance(answer, TimesformerError):
            raise answer
        if isinstance(answer, str):
            if answer not in told:  # by a different network
                tell(answer)
            told.add(answer)
            continue
        if item is None or answer.item != _absolute(item):
            raise RuntimeError(f"Ray returned {answer.item} instead of {item}")
        yield replace(answer, item=item)
        if isinstance(answer, Failure) or not answer.more:
            item = next(left, None)
    if item is not None:
        raise RuntimeError(f"Ray did not return {item}")


def _pack(values: Iterable[object]) -> Any:
    """A table of the values, pickled: Arrow turns integers beside nulls into floats, and rejects odd file names."""
    import pyarrow

    return pyarrow.table({"row": pyarrow.array([pickle.dumps(value) for value in values], pyarrow.large_binary())})


def _unpack(rows: Any) -> list[Any]:
    return [pickle.loads(row.as_buffer()) for row in rows["row"]]
