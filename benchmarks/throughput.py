"""Videos per second of whole runs: `timesformer predict` against the video-classification pipeline of transformers.

    python -m benchmarks.throughput base [--clips 200] [--rounds 5] [--device cuda]
    python -m benchmarks.throughput motion [--clips 1000] [--rounds 5]
    python -m benchmarks.throughput memory [--clips 5000] [--early 500]
    python -m benchmarks.throughput evaluate [--clips 300] [--rounds 5]

The clips are ten seconds of 340 x 256, H.264, 30 frames per second, a key frame every 250 frames: ten are encoded from
the footage of sample_videos, and the rest are further names of these. `base` is a network of the base size with
random weights, written by transformers; `motion` is camera-motion, so small that decoding is the limit.

The clips are divided over the rounds. In each round all programs run in alternation, each in a separate process, on the
same clips. All get the same frames (8 over the first 256, which the pipeline takes with `frame_sampling_rate=32`), one
centre crop, resizing with antialiasing to a short side equal to the crop, statistics, weights, precision and device;
the answers are compared. Each program decodes, resizes, batches and divides the work in its own way. The pipeline has
its own defaults, one video after another in one process, unless `--peer-batch` and `--peer-workers` say otherwise.
Without torchvision, it resizes with Pillow. camera-motion sees gray, which image processors cannot make: the pipeline
gets a network that mixes it from three channels in its first layer.

"Whole" is a process from start to end. "Running" excludes the start: each program labels a single clip as well, and the
difference counts. For only the network, the views of clips are ready in memory; ours takes them in the batches of
`predict`. The share of time that the network waits is what the stages of `predict` spend outside it after its first
views; copies to a GPU and gaps between its kernels count as its own. Memory is of `predict` with camera-motion and all
its processes, as the median over 40 clips: the sum of their resident sets, and with shared pages counted once.
`evaluate` is the network of `base` again, `timesformer evaluate` against `timesformer predict` on the same views.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_cli.runtimes.devices import available_cores

ROOT = Path(__file__).parents[1]
STRIDE = 32
ORIGINALS = 10
CLIPS = {"base": 30, "motion": 300, "memory": 1000, "evaluate": 30}


# ---- Clips and networks


def make_clips(folder: Path, count: int) -> list[str]:
    from benchmarks.decode import RATE, SAMPLES, encode, footage

    samples = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".mp4", ".mkv", ".webm"))
    frames = footage([path for path in samples if "portrait" not in path.name], 340, 256, ORIGINALS * 10 * RATE)
    originals = []
    for number in range(min(count, ORIGINALS)):
        clip = list(itertools.islice(frames, 10 * RATE))
        for place, frame in enumerate(clip):
            frame.pts = place
        originals.append(encode(folder / f"original{number}.mp4", iter(clip), keys=250, preset="medium"))
    names = [folder / f"{number:05}.mp4" for number in range(count)]
    for number, name in enumerate(names):
        name.hardlink_to(originals[number % ORIGINALS])
    return [str(name) for name in names]


def write_base(folder: Path) -> None:
    """The base size for 400 classes, with weights so large that each clip gets its own answer."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.TimesformerConfig(num_labels=400, initializer_range=0.05)
    transformers.TimesformerForVideoClassification(config).save_pretrained(folder)
    statistics = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
    transformers.VideoMAEImageProcessor(size={"shortest_edge": 224}, **statistics).save_pretrained(folder)


def write_camera_motion(folder: Path) -> None:
    """camera-motion with three channels, weighted as gray weights them."""
    from dataclasses import replace

    import torch

    from timesformer_cli import TimesformerForVideoClassification
    from timesformer_cli.checkpoints import processors

    gray = TimesformerForVideoClassification.from_pretrained("camera-motion")
    assert gray.recipe is not None
    state = gray.state_dict()
    name = "timesformer.embeddings.patch_embeddings.projection.weight"
    state[name] = state[name] * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    network = TimesformerForVideoClassification(replace(gray.config, num_channels=3))
    network.load_state_dict(state)
    network.save_pretrained(folder)
    seen = gray.recipe.preprocess
    seen = replace(seen, channel_order="rgb", mean=seen.mean * 3, std=seen.std * 3)
    (folder / "preprocessor_config.json").write_text(json.dumps(processors.write(seen)))


def fields(size: int) -> dict[str, Any]:
    """The recipe's fields for what the pipeline does to a video."""
    return {"clips": 1, "crops": 1, "stride": STRIDE, "resize": "antialias", "short_side": size}


# ---- The programs: each a process that prints one JSON object per line


def run_pipeline(arguments: argparse.Namespace, paths: list[str]) -> None:
    from transformers import pipeline

    label = pipeline(
        "video-classification", model=arguments.theirs, device=arguments.device, dtype=torch_dtype(arguments)
    )
    options = {"batch_size": arguments.peer_batch, "num_workers": arguments.peer_workers}
    for path, found in zip(paths, label(paths, frame_sampling_rate=STRIDE, top_k=1, **options), strict=True):
        print(json.dumps({"path": path, "predictions": found}))


def run_network(arguments: argparse.Namespace, paths: list[str]) -> None:
    from timesformer_cli.runtimes.batching import BatchSize, choose_batch_size
    from timesformer_cli.runtimes.pytorch import open_scorer

    views = ready_views(arguments, paths)
    scorer = open_scorer(open_checkpoint(arguments), device=arguments.device, precision=arguments.precision)
    size = choose_batch_size(None, arguments.device, print)
    if not size.spans:  # videos do not share batches, and each has one view
        size = BatchSize(1)
    time_scoring(lambda views: size.score(scorer, views), views, arguments.device)


def run_pipelines_network(arguments: argparse.Namespace, paths: list[str]) -> None:
    import torch
    from transformers import TimesformerForVideoClassification

    dtype = torch_dtype(arguments)
    network = TimesformerForVideoClassification.from_pretrained(arguments.theirs, dtype=dtype)
    network = network.to(arguments.device).eval()

    @torch.inference_mode()
    def score(views: Any) -> None:
        pixels = torch.from_numpy(views).expand(-1, -1, 3, -1, -1).to(dtype)
        for batch in pixels.split(arguments.peer_batch):
            network(batch.to(arguments.device)).logits.float().cpu()

    time_scoring(score, ready_views(arguments, paths), arguments.device)


def time_scoring(score: Callable[[Any], object], views: Any, device: str) -> None:
    # The first call selects kernels, allocates memory, and on a GPU finds the best batch size.
    score(views[:1] if device == "cpu" else views)
    start = time.perf_counter()
    score(views)
    print(json.dumps({"result": len(views) / (time.perf_counter() - start)}))


def run_decoders(arguments: argparse.Namespace, paths: list[str]) -> None:
    """Everything before the network, in its processes, without a network."""
    from timesformer_cli.flow import Item, Views
    from timesformer_cli.pipeline.prepare import prepare_all
    from timesformer_cli.pipeline.workers import Limits

    items, checkpoint = [Item(path) for path in paths], open_checkpoint(arguments)
    with prepare_all(items, checkpoint.recipe, workers=arguments.workers, limits=Limits()) as prepared:
        for views in prepared:
            assert views is None or isinstance(views, Views), views


def run_waits(arguments: argparse.Namespace, paths: list[str]) -> None:
    """`predict`, with a clock around the network."""
    from timesformer_cli.flow import Item
    from timesformer_cli.pipeline.run import RunOptions
    from timesformer_cli.pipeline.score import label, score

    inside = begin = 0.0

    def timed(views: Any) -> Any:
        nonlocal inside, begin
        start = time.perf_counter()
        begin = begin or start
        logits = scorer(views)
        inside += time.perf_counter() - start
        return logits

    items, checkpoint = [Item(path) for path in paths], open_checkpoint(arguments)
    run = RunOptions(device=arguments.device, precision=arguments.precision)
    with run.prepare(items, checkpoint.recipe) as prepared:
        scorer = run.open(checkpoint)
        size = run.batch(scorer, print)
        for result in label(score(prepared, timed, size), checkpoint):
            assert result.item.path in paths
    print(json.dumps({"result": 1 - inside / (time.perf_counter() - begin)}))


ROLES: dict[str, Callable[[argparse.Namespace, list[str]], None]] = {
    "pipeline": run_pipeline,
    "network": run_network,
    "pipelines-network": run_pipelines_network,
    "decoders": run_decoders,
    "waits": run_waits,
}


def open_checkpoint(arguments: argparse.Namespace) -> Any:
    from timesformer_cli.checkpoints.recipes import with_overrides
    from timesformer_cli.checkpoints.resolve import resolve

    return with_overrides(resolve(arguments.ours), fields=fields(arguments.size))


def ready_views(arguments: argparse.Namespace, paths: list[str]) -> Any:
    """float32 (N, T, C, H, W): one view of each clip, on the CPU of a quarter of them; at most 2.4 GB of base size."""
    import numpy as np

    from timesformer_cli.flow import Item
    from timesformer_cli.pipeline.prepare import prepare

    checkpoint = open_checkpoint(arguments)
    different = [prepare(Item(path), checkpoint.recipe).pixels for path in paths[:ORIGINALS]]
    count = max(len(paths) // 4, 2) if arguments.device == "cpu" else min(len(paths), 512)
    return np.concatenate(list(itertools.islice(itertools.cycle(different), count)))


def torch_dtype(arguments: argparse.Namespace) -> Any:
    from timesformer_cli.runtimes import pytorch as runtime

    return runtime.torch_dtype(runtime.choose_precision(arguments.precision, arguments.device))


# ---- Turns


class Turn(NamedTuple):
    """Videos per second of a process as a whole, and without that of a single clip; and what it printed."""

    whole: float | None
    running: float
    lines: list[dict[str, Any]]


Command = Callable[[list[str]], list[str]]


class Setting:
    """The commands of the compared programs, for a list of clips."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, ours: str, theirs: str, size: int) -> None:
        self._folder = folder
        self._model, self._size = ours, size
        self._run = ["--device", arguments.device, "--precision", arguments.precision]
        self._role = ["--ours", ours, "--theirs", theirs, "--size", str(size), *self._run]
        self._role += ["--peer-batch", str(arguments.peer_batch), "--peer-workers", str(arguments.peer_workers)]

    def predict(self, paths: list[str]) -> list[str]:
        command = [sys.executable, "-m", "timesformer_cli", "predict", "--quiet", "--from-file", self._list(paths)]
        command += ["--model", self._model, "--format", "jsonl", "--top-k", "1", *self._run]
        return command + [part for name, value in fields(self._size).items() for part in ("--set", f"{name}={value}")]

    def evaluate(self, paths: list[str]) -> list[str]:
        annotations = self._folder / f"{len(paths)}.csv"
        annotations.write_text("".join(f"{Path(path).name} {number % 400}\n" for number, path in enumerate(paths)))
        command = [sys.executable, "-m", "timesformer_cli", "evaluate", "--quiet", str(self._folder), "--json"]
        command += ["--annotations", str(annotations), "--model", self._model, *self._run]
        command += ["-o", str(self._folder / f"run{len(paths)}"), "--overwrite"]
        return command + [part for name, value in fields(self._size).items() for part in ("--set", f"{name}={value}")]

    def role(self, name: str, workers: int = 0) -> Command:
        command = [sys.executable, "-m", "benchmarks.throughput", name, *self._role, "--workers", str(workers)]
        return lambda paths: [*command, "--list", self._list(paths)]

    def _list(self, paths: list[str]) -> str:
        path = self._folder / f"{len(paths)}.txt"
        path.write_text("".join(f"{path}\n" for path in paths))
        return str(path)


def run(command: list[str], *, lines: bool = True) -> tuple[float, list[dict[str, Any]]]:
    """The seconds that it takes, and its output: an object per line."""
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, [json.loads(line) for line in done.stdout.splitlines()] if lines else []


def time_process(command: Command, paths: list[str]) -> Turn:
    start, _ = run(command(paths[:1]))
    whole, lines = run(command(paths))
    return Turn(len(paths) / whole, (len(paths) - 1) / (whole - start), lines)


def ask_process(command: Command, paths: list[str]) -> Turn:
    """A process that times itself and prints the result."""
    _, lines = run(command(paths))
    return Turn(None, lines[-1]["result"], lines)


def compare(arguments: argparse.Namespace, setting: Setting, paths: list[str], *, decoders: bool) -> None:
    predict, pipeline = "timesformer predict", "transformers' pipeline"
    cores = available_cores()
    processes: dict[str, Command] = {predict: setting.predict, pipeline: setting.role("pipeline")}
    if decoders:
        for workers in sorted({1, cores}):
            processes[f"only decoders, {workers} at work"] = setting.role("decoders", workers)
    networks = {
        "only the network": setting.role("network"),
        "only transformers' network": setting.role("pipelines-network"),
    }
    waits = "the network waits"
    turns: dict[str, list[Turn]] = {who: [] for who in [*processes, *networks, waits]}
    difference = 0.0
    share = len(paths) // arguments.rounds
    for number in range(arguments.rounds):
        part = paths[number * share :][:share]
        for who in list(turns)[:: -1 if number % 2 else 1]:
            if who in processes:
                turns[who].append(time_process(processes[who], part))
            else:
                turns[who].append(ask_process(networks.get(who, setting.role("waits")), part))
            print(f"round {number + 1}: {who}: {turns[who][-1].running:.3g}", file=sys.stderr, flush=True)
        difference = max(difference, check_answers(turns[predict][-1].lines, turns[pipeline][-1].lines))
    waiting = [turn.running for turn in turns.pop(waits)]
    print_table(turns)
    print(f"\nThe network waits {spread([100 * share for share in waiting])} % of the time.")
    print(f"{arguments.rounds} rounds of {share} clips; the labels agree, and their scores within {difference:.1e}.")


def compare_evaluate(setting: Setting, paths: list[str], rounds: int) -> None:
    turns: dict[str, list[Turn]] = {"timesformer evaluate": [], "timesformer predict": []}
    commands = [setting.evaluate, setting.predict]
    share = len(paths) // rounds
    for number in range(rounds):
        part = paths[number * share :][:share]
        for who, command in list(zip(turns, commands, strict=True))[:: -1 if number % 2 else 1]:
            start, _ = run(command(part[:1]), lines=False)
            whole, _ = run(command(part), lines=False)
            turns[who].append(Turn(share / whole, (share - 1) / (whole - start), []))
            print(f"round {number + 1}: {who}: {turns[who][-1].running:.3g}", file=sys.stderr, flush=True)
    print_table(turns)
    print(f"\n{rounds} rounds of {share} clips.")


def check_answers(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    """The largest difference between two scores; exits if labels differ."""
    differences = []
    for a, b in zip(ours, theirs, strict=True):
        (our_best,), (their_best,) = a["predictions"], b["predictions"]
        if a["path"] != b["path"] or our_best["label"] != their_best["label"]:
            sys.exit(f"the answers differ: {a} and {b}")
        differences.append(abs(our_best["score"] - their_best["score"]))
    return max(differences)


def print_table(turns: dict[str, list[Turn]]) -> None:
    """Print videos per second, medians over the rounds, and the ratio of the first program to each."""
    (_, own), *_ = turns.items()
    print("| | videos per second, whole | running | the first against it, whole | running |\n|" + " --- |" * 5)
    for who, measured in turns.items():
        cells = []
        for kind in range(2):
            rates = [turn[kind] for turn in measured if turn[kind] is not None]
            ratios = [a[kind] / b[kind] for a, b in zip(own, measured, strict=True)] if rates else []
            cells.append((f"{statistics.median(rates):.3g}", spread(ratios)) if rates else ("", ""))
        (whole, whole_ratio), (running, running_ratio) = cells
        ratio = [whole_ratio, running_ratio] if measured is not own else ["1", "1"]
        print(f"| {who} | {' | '.join([whole, running, *ratio])} |")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


# ---- Memory


def watch_memory(setting: Setting, paths: list[str], early: int) -> None:
    """Print the memory of `predict` around clip number `early` and near the last; Linux only."""
    from benchmarks.workers import memory

    samples: dict[int, list[tuple[float, float]]] = {early: [], len(paths): []}
    with subprocess.Popen(setting.predict(paths), stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for number, _ in enumerate(process.stdout, 1):
            for place, found in samples.items():
                # Near the end less is in progress, and finally a process is gone.
                if place - 80 <= number < place - 40:
                    found.append((resident(process.pid), memory(process.pid)))
    if process.returncode:
        sys.exit(f"predict ended with {process.returncode}")
    print("| after | resident sets, MiB | shared pages counted once, MiB |\n| --- | --- | --- |")
    for place, found in samples.items():
        sums = [statistics.median(kind) for kind in zip(*found, strict=True)]
        print(f"| {place} clips | {sums[0]:.0f} | {sums[1]:.0f} |")


def resident(process: int) -> float:
    """MiB of the resident sets of a process and all its descendants."""
    folder = Path(f"/proc/{process}")
    pages = int((folder / "statm").read_text().split()[1])
    children = [child for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()]
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident(int(child)) for child in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*CLIPS, *ROLES], metavar="|".join(CLIPS))
    parser.add_argument("--clips", type=int, help=f"by default {CLIPS}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--early", type=int, default=500, help="memory: the clip of the first measurement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--peer-batch", type=int, default=1, help="batch_size of the pipeline")
    parser.add_argument("--peer-workers", type=int, default=0, help="num_workers of the pipeline")
    for name, kind in (("ours", str), ("theirs", str), ("size", int), ("workers", int), ("list", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what in ROLES:
        ROLES[arguments.what](arguments, arguments.list.read_text().splitlines())
        return
    count = arguments.clips or CLIPS[arguments.what]
    if count < 2 * arguments.rounds or (arguments.what == "memory" and not 80 < arguments.early <= count):
        parser.error("too few --clips for that")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "av", "transformers", "pillow"))
    print(
        f"Python {platform.python_version()}, {versions}; {available_cores()} cores; {arguments.device}\n", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_clips(folder, count)
        if arguments.what in ("base", "evaluate"):
            write_base(folder / "base")
            setting = Setting(arguments, folder, str(folder / "base"), str(folder / "base"), 224)
        else:
            write_camera_motion(folder / "motion")
            setting = Setting(arguments, folder, "camera-motion", str(folder / "motion"), 96)
        if arguments.what == "memory":
            watch_memory(setting, paths, arguments.early)
        elif arguments.what == "evaluate":
            compare_evaluate(setting, paths, arguments.rounds)
        else:
            compare(arguments, setting, paths, decoders=arguments.what == "motion")


if __name__ == "__main__":
    main()
