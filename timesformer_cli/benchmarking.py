"""How fast this machine is: each stage of a run by itself, all of them together, and another library in turns with us.

A stage gives a `Measurement` of each thing that it times, when that is done. Times are wall clock. A first round, which
fills caches and chooses kernels, does not count; medians stand for the rest.
"""

import importlib.util
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli import processors
from timesformer_cli.batching import choose_batch_size
from timesformer_cli.checkpoint import with_overrides
from timesformer_cli.devices import available_cores, find_device
from timesformer_cli.durable import differences
from timesformer_cli.engines import runtime_version
from timesformer_cli.engines.ports import Engine, Scorer, threads
from timesformer_cli.errors import CheckpointError, DeviceError, InputError, TimesformerError, UsageError
from timesformer_cli.export.verify import CLIP as CLIP
from timesformer_cli.exported import Provider, is_exported, read_metadata
from timesformer_cli.pipeline import classify, prepare, prepare_all, read_clips
from timesformer_cli.preprocess import make_views
from timesformer_cli.records import Failure, Item, Prediction, Result, Views
from timesformer_cli.runtime import Cost, Dtype, Precision, choose_precision, measure_cost, open_scorer, torch_dtype
from timesformer_cli.sampling import plan
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.terminal import plural
from timesformer_cli.video import open_video
from timesformer_cli.workers import Limits

Stage = Literal["start", "load", "reading", "matrix product", "network", "end to end"]
Tell = Callable[[str], None]

# Sizes of a batch double up to these, as long as they fit.
_MOST_VIEWS = {"cpu": 32, "mps": 32, "cuda": 256}

# Twice as many views at a time are tried as long as one call does not take this many times what a measurement may.
_LONGEST = 6

# Two sizes in a row that are not faster by this factor than the best are the last ones.
_GAIN = 1.05

# Rows and columns of square matrices: the best size differs between machines.
_MATRICES = {"cpu": (1024, 2048, 4096), "mps": (2048, 4096), "cuda": (4096, 8192, 16384)}

# Views at a time, where another library takes turns with us.
_TURNS = (1, 4, 32)

_MOST_ROUNDS = 1000

# Arguments of Python.
_STARTS = {"import torch": ("-c", "import torch"), "timesformer --help": ("-m", "timesformer_cli", "--help")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the model is run, in the words of `runtime.open_scorer`; `seconds` is what one measurement may take.

    At least two rounds are made, however long they are.
    """

    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False
    provider: Provider = "auto"
    reading: Reading = Reading()
    workers: int = 1
    seconds: float = 2.0

    def open(self, checkpoint: Checkpoint, precision: Precision | None = None, tell: Tell = lambda _: None) -> Scorer:
        return open_scorer(
            checkpoint,
            device=self.device,
            precision=precision or self.precision,
            compile=self.compile,
            provider=self.provider,
            tell=tell,
        )


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that each round took."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """How far the middle half of the rounds lies around the median, as a share of it."""
        # Of three rounds or fewer these are the fastest and the slowest: nothing between them is made up.
        low, high = np.quantile(self.seconds, (0.25, 0.75), method="inverted_cdf")
        return float(high - low) / 2 / self.median

    def percentile(self, percent: int) -> float | None:
        """None where the rounds are too few to tell: ten for the 90th, a hundred for the 99th."""
        if len(self.seconds) * (100 - percent) < 100:
            return None
        return float(np.percentile(self.seconds, percent))

    def to_dict(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "p90": self.percentile(90),
            "p99": self.percentile(99),
            "spread": self.spread,
            "rounds": len(self.seconds),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one thing takes. A round of it does `counts`: {"videos": 3, "frames": 24}, say.

    `flops` are those of a round, two for each multiply-add; `product` is what matrix products reach here, in FLOP/s of
    the same precision. `memory` is the peak of this process in bytes, or of what torch holds on the GPU.
    """

    stage: Stage
    name: str
    timing: Timing
    counts: Mapping[str, float] = field(default_factory=dict)
    flops: float | None = None
    product: float | None = None
    memory: int | None = None

    @property
    def rates(self) -> dict[str, float]:
        """Of each thing that is counted, so many a second."""
        return {what: count / self.timing.median for what, count in self.counts.items()}

    @property
    def flops_per_second(self) -> float | None:
        return None if self.flops is None else self.flops / self.timing.median

    def to_dict(self) -> dict[str, Any]:
        achieved = self.flops_per_second
        return {
            "stage": self.stage,
            "name": self.name,
            "seconds": self.timing.to_dict(),
            "counts": dict(self.counts),
            "per_second": self.rates,
            "flops_per_second": achieved,
            "share_of_matrix_product": None if achieved is None or self.product is None else achieved / self.product,
            "memory": self.memory,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """The same work by us and by another library, turn by turn; `counts` are of one turn.

    `difference` is that of the logits, as a share of the largest.
    """

    name: str
    ours: Timing
    theirs: Timing
    counts: Mapping[str, float]
    difference: float | None = None

    @property
    def ratios(self) -> NDArray[np.float64]:
        """How many times as fast as the other we were in each pair of turns."""
        return np.divide(self.theirs.seconds, self.ours.seconds)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": self.ours.to_dict(),
            "theirs": self.theirs.to_dict(),
            "counts": dict(self.counts),
            "times_as_fast": {
                "median": float(np.median(self.ratios)),
                "least": float(self.ratios.min()),
                "most": float(self.ratios.max()),
            },
            "difference": self.difference,
        }


# ---- Time and memory


def rounds(seconds: float, least: int = 2) -> Iterator[int]:
    """Numbers of the rounds that fit into that time, and of the `least` there must be."""
    end = time.perf_counter() + seconds
    for number in range(_MOST_ROUNDS):
        if number >= least and time.perf_counter() >= end:
            return
        yield number


def repeat(call: Callable[[], object], seconds: float) -> Timing:
    """Time the call over and over. The first does not count, unless it alone takes longer than all may."""
    first = _time(call)
    kept = [first] if first > seconds else []
    return Timing((*kept, *(_time(call) for _ in rounds(seconds, 2 - len(kept)))))


def take_turns(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[Timing, Timing]:
    """Time two calls in at least three pairs, each as often the first of its pair; a first pair counts as above."""
    calls = (ours, theirs)
    first = [_time(call) for call in calls]
    taken = [[each] if sum(first) > seconds else [] for each in first]
    for _ in rounds(seconds, 3 - len(taken[0])):
        for who in (0, 1) if len(taken[0]) % 2 == 0 else (1, 0):
            taken[who].append(_time(calls[who]))
    return Timing(tuple(taken[0])), Timing(tuple(taken[1]))


def _time(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # Linux alone knows it, and not every container lets it
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> int | None:
    """Bytes since the peak was reset, or from the start of the process where it cannot be; None if no one knows."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) or None  # runtimes other than torch have memory of their own
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    with suppress(ImportError):
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None


def _device(scorer: Scorer, asked: str) -> str:
    """What it computes on, as torch calls it."""
    return scorer.kind if isinstance(scorer, Engine) else str(find_device(asked))


# ---- Stages


def measure_start(seconds: float) -> Iterator[Measurement]:
    """Fresh processes that import torch and do nothing else, or show the help of the command."""
    for name, arguments in _STARTS.items():
        command = [sys.executable, *arguments]
        timing = repeat(lambda: subprocess.run(command, check=True, capture_output=True), seconds)  # noqa: B023
        yield Measurement(stage="start", name=name, timing=timing)


def measure_load(checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings) -> Iterator[Measurement]:
    """From the checkpoint to the first answer for a view (1, T, C, H, W), in fresh processes.

    Raises:
        DeviceError: such a process has died.
    """
    steps: list[tuple[float, float, float]] = []
    memory = None
    _load_afresh(checkpoint, view, settings)
    for _ in rounds(settings.seconds):
        begin = time.perf_counter()
        load, first, memory = _load_afresh(checkpoint, view, settings)
        steps.append((time.perf_counter() - begin, load, first))
    whole, load_times, first_times = (Timing(times) for times in zip(*steps, strict=True))
    yield Measurement(stage="load", name="network, from the checkpoint", timing=load_times)
    yield Measurement(stage="load", name="first answer of the network", timing=first_times)
    yield Measurement(stage="load", name="both, in a fresh process", timing=whole, memory=memory)


def _load_afresh(
    checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings
) -> tuple[float, float, int | None]:
    """`_load` in a process of its own; what that says on standard error is of no use, an interrupted import least."""
    command = [sys.executable, "-c", f"from {__name__} import serve_load; serve_load()"]
    done = subprocess.run(command, input=pickle.dumps((checkpoint, view, settings)), capture_output=True, check=False)
    if done.returncode:
        raise DeviceError(f"{checkpoint.name}: a process that loaded it died; is there memory for it twice?")
    result: tuple[float, float, int | None] | TimesformerError = pickle.loads(done.stdout)
    if isinstance(result, TimesformerError):
        raise result
    return result


def serve_load() -> None:
    """The other side of `_load_afresh`."""
    output = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    result: tuple[float, float, int | None] | TimesformerError
    try:
        result = _load(*pickle.load(sys.stdin.buffer))
    except TimesformerError as error:
        result = error
    with open(output, "wb") as file:
        pickle.dump(result, file)


def _load(checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings) -> tuple[float, float, int | None]:
    """Seconds to load the network and to its first answer, after what must be imported; and the peak of memory."""
    if not is_exported(checkpoint.weights):
        import torch  # noqa: F401
    begin = time.perf_counter()
    scorer = settings.open(checkpoint)
    loaded = time.perf_counter()
    scorer(view)
    return loaded - begin, time.perf_counter() - loaded, _peak(_device(scorer, settings.device))


def measure_reading(items: Sequence[Item], checkpoint: Checkpoint, settings: Settings) -> Iterator[Measurement]:
    """Decoding and preprocessing in this process, and both in as many workers as there are to be.

    Raises:
        InputError: a video cannot be read.
    """
    # First by the workers, which survive files that would take this process with them.
    _read_ahead(items, len(items), 0, checkpoint, settings)
    decode: list[float] = []
    preprocess: list[float] = []
    for _ in rounds(settings.seconds):
        decoded, prepared, frames, views = _read_once(items, checkpoint, settings.reading)
        decode.append(decoded)
        preprocess.append(prepared)
    counts = {"videos": len(items), "frames": frames, "views": views}
    for name, times in (("decode", decode), ("preprocess", preprocess)):
        yield Measurement(
            stage="reading", name=f"{name}, one process", timing=Timing(tuple(times)), counts=_without(counts, name)
        )
    if settings.workers:
        each = float(np.median(decode) + np.median(preprocess)) / len(items)
        lead = settings.workers
        count = _videos(settings.workers / each, settings.seconds, 2 * lead)
        timing = Timing(tuple(_read_ahead(items, count, lead, checkpoint, settings) for _ in rounds(settings.seconds)))
        share = count / len(items)
        yield Measurement(
            stage="reading",
            name=f"both, {plural(settings.workers, 'worker')}",
            timing=timing,
            counts={what: number * share for what, number in counts.items()},
        )


def _without(counts: Mapping[str, float], name: str) -> dict[str, float]:
    """What a stage counts: views are made by preprocessing alone."""
    return {what: count for what, count in counts.items() if (name, what) != ("decode", "views")}


def _read_once(items: Sequence[Item], checkpoint: Checkpoint, reading: Reading) -> tuple[float, float, int, int]:
    """Seconds of decoding and of preprocessing, and how many frames and views that were."""
    decode = preprocess = 0.0
    frames = views = 0
    for item in items:
        begin = time.perf_counter()
        with open_video(item, reading) as reader:
            (window,) = plan(reader.info, checkpoint.sampling)
            for clip in read_clips(reader, window.clips):
                decoded = time.perf_counter()
                decode += decoded - begin
                frames += len(clip.pixels)
                views += len(make_views([clip], checkpoint.preprocess))
                begin = time.perf_counter()
                preprocess += begin - decoded
        decode += time.perf_counter() - begin
    return decode, preprocess, frames, views


def _read_ahead(items: Sequence[Item], count: int, lead: int, checkpoint: Checkpoint, settings: Settings) -> float:
    """Seconds in which the workers prepare that many videos, after the first `lead` of them."""
    with prepare_all(
        islice(cycle(items), lead + count),
        checkpoint,
        settings.reading,
        workers=settings.workers,
        limits=Limits(),
    ) as prepared:
        return _flow((each for each in prepared if each is not None), lead)


def _flow(results: Iterable[Result | Views], lead: int) -> float:
    """Seconds from the result of that number, by which all is going, to the last. Raises InputError for failures."""
    begin = last = time.perf_counter()
    for number, result in enumerate(results, 1):
        if isinstance(result, Failure):
            raise InputError(f"{result.item.path}: {result.message}")
        last = time.perf_counter()
        if number == lead:
            begin = last
    return last - begin


def _videos(rate: float, seconds: float, least: int) -> int:
    """How many to take for a flow of so many a second; a thousand at most."""
    return int(np.clip(seconds * rate, least, 1000))


def precisions(checkpoint: Checkpoint, settings: Settings) -> tuple[Precision, ...]:
    """fp32, and what else the device computes in; or the one that was asked for. `auto`: exported models have theirs.

    Raises:
        DeviceError: a device that this machine does not have, or one that cannot do the precision.
    """
    if is_exported(checkpoint.weights):
        return ("auto",)
    chosen = choose_precision(settings.precision, settings.device)
    if settings.precision != "auto":
        return (chosen,)
    import torch

    target = find_device(settings.device)
    if target.type == "cuda":
        return ("fp32", "bf16", "fp16") if torch.cuda.get_device_capability(target) >= (8, 0) else ("fp32", "fp16")
    if target.type == "mps":
        return ("fp32", "fp16")
    # As processors of Intel and AMD have it, and those of ARM; PyTorch tells from 2.10 on.
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return ("fp32", "bf16") if any(known.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) else ("fp32",)


def measure_product(precision: Dtype, device: str, seconds: float) -> Measurement:
    """The fastest product of two square matrices, as a bound of what a network can reach."""
    import torch

    target = find_device(device)
    dtype = torch_dtype(precision)
    found: list[Measurement] = []
    for size in _MATRICES[target.type]:
        left, right = (torch.randn(size, size, device=target).to(dtype) for _ in range(2))

        def multiply(left: torch.Tensor = left, right: torch.Tensor = right) -> None:
            torch.mm(left, right)
            if target.type == "cuda":
                torch.cuda.synchronize(target)
            elif target.type == "mps":
                torch.mps.synchronize()

        timing = repeat(multiply, seconds / len(_MATRICES[target.type]))
        name = f"{precision}, square matrices"
        found.append(Measurement(stage="matrix product", name=name, timing=timing, flops=2 * size**3))
        if 8 * timing.median > seconds:  # what the next would take
            break
    return max(found, key=lambda each: each.flops_per_second or 0)


def measure_network(
    checkpoint: Checkpoint, view: NDArray[np.float32], cost: Cost, settings: Settings, tell: Tell
) -> Iterator[Measurement]:
    """The network by precision and by size of batch, after the matrix product of the same; `view` is (1, T, C, H, W).

    Raises:
        DeviceError: a device or a precision that is not there, or not memory for one view.
    """
    for precision in precisions(checkpoint, settings):
        try:
            scorer = settings.open(checkpoint, precision, tell)
            scorer(view)  # a first answer is part of loading
        except MemoryError:
            raise DeviceError(
                "a single view does not fit into the memory of the device; try a smaller model, or --device cpu"
            ) from None
        except DeviceError as error:
            if settings.precision != "auto" or precision in ("auto", "fp32"):
                raise
            tell(f"{precision} is left out: {error}")
            continue
        product = _bound(checkpoint, precision, scorer, settings)
        if product is not None:
            yield product
        name = "as exported" if precision == "auto" else precision
        for count, timing, memory in _by_batch(scorer, view, settings):
            yield Measurement(
                stage="network",
                name=f"{name}, {plural(count, 'view')}",
                timing=timing,
                counts={"views": count},
                flops=cost.flops * count,
                product=None if product is None else product.flops_per_second,
                memory=memory,
            )
        del scorer  # before the next one is loaded


def _bound(checkpoint: Checkpoint, precision: Precision, scorer: Scorer, settings: Settings) -> Measurement | None:
    """The matrix product that bounds this network; None where its runtime has a GPU that torch here has not."""
    stated: str = precision
    if checkpoint.weights is not None and precision == "auto":  # what was exported says in what
        stated = read_metadata(checkpoint.weights).get("precision", "")
    with suppress(DeviceError):
        known: dict[str, Dtype] = {"bf16": "bf16", "fp16": "fp16"}
        return measure_product(known.get(stated, "fp32"), _device(scorer, settings.device), settings.seconds)
    return None


def _by_batch(
    scorer: Scorer, view: NDArray[np.float32], settings: Settings
) -> Iterator[tuple[int, Timing, int | None]]:
    """Times of sizes that double, as long as they fit, are not too slow, and are of use."""
    device = _device(scorer, settings.device)
    count, best, in_vain = 1, 0.0, 0
    while count <= _MOST_VIEWS[device.partition(":")[0]] and in_vain < 2:
        views = np.repeat(view, count, axis=0)
        _reset_peak(device)
        try:
            timing = repeat(lambda: scorer(views), settings.seconds)  # noqa: B023
        except MemoryError:
            return
        yield count, timing, _peak(device)
        rate = count / timing.median
        in_vain = 0 if rate >= best * _GAIN else in_vain + 1
        best = max(best, rate)
        if 2 * timing.median > _LONGEST * settings.seconds:
            return
        count *= 2


class Flow(NamedTuple):
    """Videos a second, and the number of the first after which they come at that rate."""

    rate: float
    lead: int


def measure_whole(
    items: Sequence[Item], checkpoint: Checkpoint, settings: Settings, flow: Flow, tell: Tell
) -> Measurement:
    """Videos as `predict` labels them, from when it has got going; `flow` is what is expected of it."""
    scorer = settings.open(checkpoint, tell=tell)
    size = choose_batch_size(None, settings.device, tell, scorer)
    count = _videos(flow.rate, settings.seconds, flow.lead)

    def run() -> float:
        with prepare_all(
            islice(cycle(items), flow.lead + count),
            checkpoint,
            settings.reading,
            workers=settings.workers,
            limits=Limits(),
        ) as prepared:
            return _flow(classify(prepared, scorer, checkpoint, batch=size), flow.lead)

    if _device(scorer, settings.device) != "cpu":
        run()  # which finds the size of a batch
    timing = Timing(tuple(run() for _ in rounds(settings.seconds)))
    name = "in this process" if settings.workers == 0 else plural(settings.workers, "worker")
    return Measurement(stage="end to end", name=f"predict, {name}", timing=timing, counts={"videos": count})


def expected_flow(measurements: Iterable[Measurement], settings: Settings) -> Flow:
    """Of a run that is as fast as the slower of reading and the network, as they were measured."""
    found = list(measurements)
    reading = [each for each in found if each.stage == "reading"]
    # By the workers, if there are any; or one after the other.
    seconds = sum(1 / each.rates["videos"] for each in reading[2:] or reading)
    views = max(each.rates["views"] for each in found if each.stage == "network")
    videos = views * reading[-1].counts["videos"] / reading[-1].counts["views"]
    # The first results of all workers come together; behind a slower network they wait in line.
    return Flow(1 / seconds, max(settings.workers, 1)) if 1 / seconds < videos else Flow(videos, 1)


# ---- Another library


def check_transformers() -> None:
    """Raises UsageError where it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UsageError("--against transformers needs transformers; install it with: pip install transformers")


def face_transformers(
    items: Sequence[Item], checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings, tell: Tell
) -> Iterator[Duel]:
    """The network of transformers with the same weights, views and threads; and its pipeline, where that can be run.

    Raises:
        UsageError: it cannot run this model.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    asked = choose_precision(settings.precision, settings.device)
    wanted: tuple[Dtype, ...] = (asked,) if settings.precision != "auto" or asked == "fp32" else ("fp32", asked)
    for precision in wanted:
        scorer = settings.open(checkpoint, precision, tell)
        peer, network = open_peer(checkpoint, precision, settings.device)
        yield from _face_network(precision, scorer, peer, view, settings)
    try:
        yield _face_pipeline(items, checkpoint, scorer, network, settings)
    except _NoPipelineError as error:
        tell(f"transformers' pipeline is left out: {error}")


def open_peer(checkpoint: Checkpoint, precision: Dtype, device: str) -> tuple[Scorer, Any]:
    """The network of transformers as a scorer, and itself.

    Raises:
        UsageError: it does not take this config.
    """
    import torch
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    from timesformer_cli import model as own

    target = find_device(device)
    dtype = torch_dtype(precision)
    weights = own.TimesformerForVideoClassification.from_checkpoint(checkpoint).state_dict()
    try:
        with torch.device("meta"):
            network: Any = TimesformerForVideoClassification(TimesformerConfig.from_dict(checkpoint.config.to_dict()))
        network.load_state_dict(weights, strict=True, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--against transformers: it does not take {checkpoint.name} ({reason})") from error
    network.to(target, dtype).eval()

    def score(views: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = torch.from_numpy(views).to(target).to(dtype)
            logits: NDArray[np.float32] = network(pixel_values=pixels).logits.float().cpu().numpy()
        return logits

    return score, network


def _face_network(
    precision: Dtype, ours: Scorer, theirs: Scorer, view: NDArray[np.float32], settings: Settings
) -> Iterator[Duel]:
    for count in _TURNS:
        views = np.repeat(view, count, axis=0)
        try:
            own, other = ours(views), theirs(views)
            timings = take_turns(lambda: ours(views), lambda: theirs(views), settings.seconds)  # noqa: B023
        except (MemoryError, RuntimeError) as error:  # torch has its own for memory
            if count == 1:
                raise DeviceError(f"transformers does not score one view here ({error})") from error
            return
        yield Duel(
            name=f"network, {precision}, {plural(count, 'view')}",
            ours=timings[0],
            theirs=timings[1],
            counts={"views": count},
            difference=float(abs(own - other).max() / abs(other).max()),
        )
        if 4 * sum(timing.median for timing in timings) > settings.seconds * _LONGEST:
            return


class _NoPipelineError(Exception):
    """Why the pipeline of transformers cannot be compared with."""


def _face_pipeline(
    items: Sequence[Item], checkpoint: Checkpoint, scorer: Scorer, network: Any, settings: Settings
) -> Duel:
    """One centre view of each video, as the pipeline takes it; ours with workers, which start anew in each turn."""
    spec = checkpoint.preprocess
    if spec.channel_order == "gray":
        raise _NoPipelineError("its image processors do not make gray views")
    checkpoint = with_overrides(checkpoint, fields={"clips": 1, "crops": 1})
    frames = checkpoint.sampling.num_frames
    fewest = min(_num_frames(item, settings.reading) for item in items)
    if fewest < frames:
        raise _NoPipelineError(f"it takes {frames} frames of a video, and one here has {fewest}")
    label = _open_pipeline(checkpoint, network, settings.device)
    # It reads on from the first frame; no video may end before it has all.
    stride = min(round(checkpoint.sampling.stride), fewest // frames)
    paths = [item.path for item in items]
    size = choose_batch_size(None, settings.device, lambda _: None, scorer)
    try:
        each = min(_time(lambda: label(paths[:1], frame_sampling_rate=stride)) for _ in range(2))
    except Exception as error:  # of the decoders and processors that it happens to have
        raise _NoPipelineError(f"it fails here ({' '.join(str(error).split())[:200]})") from error
    count = _videos(1 / each, settings.seconds, 2)
    stream = list(islice(cycle(items), count))

    def ours() -> None:
        with prepare_all(stream, checkpoint, settings.reading, workers=settings.workers, limits=Limits()) as prepared:
            for result in classify(prepared, scorer, checkpoint, batch=size):
                assert isinstance(result, Prediction), result

    def theirs() -> None:
        label([item.path for item in stream], frame_sampling_rate=stride)

    timings = take_turns(ours, theirs, settings.seconds)
    return Duel(name="pipeline on videos", ours=timings[0], theirs=timings[1], counts={"videos": count})


def _num_frames(item: Item, reading: Reading) -> int:
    with open_video(item, reading) as reader:
        return reader.info.num_frames


def _open_pipeline(checkpoint: Checkpoint, network: Any, device: str) -> Callable[..., Any]:
    import json

    try:
        from transformers import AutoImageProcessor, pipeline

        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(processors.write(checkpoint.preprocess))
            Path(folder, "preprocessor_config.json").write_text(text, encoding="utf-8")
            processor = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        return pipeline("video-classification", model=network, image_processor=processor, device=find_device(device))
    except ImportError as error:
        raise _NoPipelineError(" ".join(str(error).split())[:200]) from error


# ---- The whole, and an earlier one


def first_view(items: Sequence[Item], checkpoint: Checkpoint, reading: Reading) -> NDArray[np.float32]:
    """float32 (1, T, C, H, W): what the network is timed with."""
    return prepare(items[0], with_overrides(checkpoint, fields={"clips": 1}), reading).pixels[:1].copy()


def describe(checkpoint: Checkpoint, items: Sequence[Item], settings: Settings, cost: Cost) -> dict[str, Any]:
    """What the numbers hold for: the machine, the versions, the settings and the network."""
    import torch

    exported = is_exported(checkpoint.weights)
    versions = {name: version(name) for name in ("timesformer-cli", "torch", "numpy", "av")}
    versions |= {"python": platform.python_version()} | (dict(runtime_version(checkpoint)) if exported else {})
    return {
        "machine": {
            "processor": _processor(),
            "cores": available_cores(),
            "threads": threads() if exported else torch.get_num_threads(),
            "memory": _memory(),
            "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
            "system": platform.platform(),
        },
        "versions": versions,
        "settings": {
            "model": checkpoint.name,
            "recipe": checkpoint.recipe.name,
            "device": settings.device if exported else str(find_device(settings.device)),
            "precision": settings.precision,
            "compile": settings.compile,
            "provider": settings.provider,
            "decoder": settings.reading.decoder,
            "workers": settings.workers,
            "seconds": settings.seconds,
            "videos": ["the clip of the package" if item.path == str(CLIP) else item.path for item in items],
        },
        "network": {"parameters": cost.parameters, "flops_per_view": cost.flops},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    """The name that its maker gave it, where the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    """Bytes of the machine's memory; None where the system does not tell in this way."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Report:
    """All that a run has found; `about` as `describe` has it."""

    about: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    duels: tuple[Duel, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.about,
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "against": [duel.to_dict() for duel in self.duels],
        }


def compare(report: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Two reports as `Report.to_dict` has them: what differs between their machines, versions and settings; and of each
    measurement how many times as fast it is now, None where the earlier report does not have it.

    Raises:
        LookupError, TypeError, AttributeError, ZeroDivisionError: the earlier one is no such report.
    """
    about = ("machine", "versions", "settings")
    before = {(entry["stage"], entry["name"]): _pace(entry) for entry in earlier["measurements"]}
    keys = [(entry["stage"], entry["name"]) for entry in report["measurements"]]
    return {
        "differences": list(
            differences({name: earlier[name] for name in about}, {name: report[name] for name in about})
        ),
        "times_as_fast": [
            None if key not in before else _pace(entry) / before[key]
            for key, entry in zip(keys, report["measurements"], strict=True)
        ],
    }


def _pace(entry: Mapping[str, Any]) -> float:
    """Rounds in a second, or of what a round does; the product of matrices of the best size, whichever that is."""
    rates = [entry["flops_per_second"]] if entry["stage"] == "matrix product" else list(entry["per_second"].values())
    return float(rates[0] if rates else 1 / entry["seconds"]["median"])


def measure(
    items: Sequence[Item],
    checkpoint: Checkpoint,
    settings: Settings,
    *,
    against: bool = False,
    tell: Tell = lambda _: None,
    found: Callable[[Measurement | Duel], None] = lambda _: None,
) -> Report:
    """All stages; `found` gets each result as it comes.

    Raises:
        TimesformerError: a video, a model or a device that is not as it should be.
    """
    measurements: list[Measurement] = []
    duels: list[Duel] = []

    def keep(stage: Iterator[Measurement]) -> None:
        for measurement in stage:
            measurements.append(measurement)
            found(measurement)

    if against and is_exported(checkpoint.weights):
        raise UsageError(
            f"--against transformers: {checkpoint.weights} was exported; give the model that it was made from"
        )
    try:
        cost = measure_cost(checkpoint.config)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
    about = describe(checkpoint, items, settings, cost)
    if (about["load_average"] or 0) > available_cores() / 2:
        tell(
            f"other programs are at work (load {about['load_average']:.1f}, {plural(available_cores(), 'core')}): "
            "this machine is faster than what follows says"
        )
    if against:
        about["versions"]["transformers"] = version("transformers")
    keep(measure_start(settings.seconds))
    keep(measure_reading(items, checkpoint, settings))
    view = first_view(items, checkpoint, settings.reading)
    keep(measure_load(checkpoint, view, settings))
    keep(measure_network(checkpoint, view, cost, settings, tell))
    keep(iter([measure_whole(items, checkpoint, settings, expected_flow(measurements, settings), tell)]))
    if against:
        for duel in face_transformers(items, checkpoint, view, settings, tell):
            duels.append(duel)
            found(duel)
    return Report(about, tuple(measurements), tuple(duels))
