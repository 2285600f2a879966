"""Speed, memory and exactness of the network and of a cold start, against transformers and between our own variants.

    python -m benchmarks.speed forward --size base --batch 1 4 [--rounds 5]   # or --model FOLDER
    python -m benchmarks.speed savings --size base --batch 1 [--rounds 5]
    python -m benchmarks.speed cold VIDEO --size base [--rounds 7]            # or --model FOLDER, camera-motion
    python -m benchmarks.speed precision [--clips 2000] [--device cuda]
    python -m benchmarks.speed equal [--layers 12]

`forward`: one call of the network on noise that is ready in memory, by each program in a separate process. The
processes stay alive and run in alternation, so that no two compute at once. On a GPU a turn is ten calls, and their
median counts. The first turn, which selects kernels and gives the compared logits, does not count. The matrix product
takes turns too: ten of square matrices in the requested precision, with 2048 rows on the CPU and 8192 on a GPU. A
network's share of it is in operations of the plain network, even if it does fewer. Memory is resident memory of the
process at its peak, mapped weights included, or torch's allocations on a GPU; "after imports" is resident memory before
anything is loaded. Linux only.

`savings`: the same for our network without one of its savings, against the network with all of them.

`cold`: whole processes with a warm file cache, each with its own defaults. `timesformer predict VIDEO` reads as many
views as cover the video; the code in transformers' documentation reads only the first frames. transformers' image
processors make no gray, so its camera-motion mixes gray from three channels in its first layer. Memory is the peak of
all processes together, sampled in a first round that is not timed, with the ratio to the pipeline's in brackets. Pages
shared with other processes count in part: run no other torch meanwhile.

`precision`: how often bf16 gives clips the label of fp32, with camera-motion. The clips are made as for its training,
from images that it was not trained on. A margin is the difference of the probabilities of the top two labels.

`equal`: max|a - b| / max|b| of the logits, between the network for inference and the plain one of `model.py`: two views
of noise, with random weights of large scale or those of camera-motion. Over 2e-5 in float32 or 1e-10 in float64, the
exit code is 1.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import throughput
from benchmarks.throughput import ROOT, spread
from timesformer_cli.network import inference
from timesformer_cli.runtimes.devices import available_cores

SIZES: dict[str, dict[str, int]] = {
    "base": {"num_frames": 8, "image_size": 224},
    "hr": {"num_frames": 16, "image_size": 448},
    "large": {"num_frames": 96, "image_size": 224},
}
OURS, PLAIN, THEIRS, PRODUCT = "timesformer", "our plain network", "transformers", "matrix product"
ENVIRONMENT = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}


def write_model(folder: str, size: str, layers: int) -> None:
    """A network for 400 classes as transformers writes it, with weights so large that each view gets its own answer."""
    import torch
    from transformers import TimesformerConfig, TimesformerForVideoClassification, VideoMAEImageProcessorPil, logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    names = {number: f"class {number}" for number in range(400)}
    config = TimesformerConfig(id2label=names, num_hidden_layers=layers, initializer_range=0.05, **SIZES[size])
    TimesformerForVideoClassification(config).save_pretrained(folder)
    sizes = {
        "size": {"shortest_edge": config.image_size},
        "crop_size": dict.fromkeys(("height", "width"), config.image_size),
    }
    VideoMAEImageProcessorPil(image_mean=[0.45] * 3, image_std=[0.225] * 3, **sizes).save_pretrained(folder)


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_header(*cells: str) -> None:
    print_row(*cells)
    print("|" + " --- |" * len(cells))


# ---- One call of the network


def serve(job: dict[str, Any]) -> None:
    """Take a turn for each line of the input and print an object for each, and at the end one for memory."""
    from benchmarks.load import resident
    from timesformer_cli.checkpoints.resolve import resolve

    who, on_cpu = job["who"], job["device"] == "cpu"
    modules = {
        OURS: "timesformer_cli.network.inference",
        THEIRS: "transformers.models.timesformer.modeling_timesformer",
    }
    importlib.import_module(modules.get(who, "timesformer_cli.network.model"))
    import torch

    imported = resident("VmRSS")
    config = resolve(job["model"]).config
    shape = (job["batch"], config.num_frames, config.num_channels, *config.image_hw)
    views = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    call = open_call(**job)
    for _ in sys.stdin:
        seconds = []
        for _ in range(1 if on_cpu and who != PRODUCT else 10):
            start = time.perf_counter()
            found = call(views)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": statistics.median(seconds), "found": found.tolist()}), flush=True)
    peak = resident("VmHWM") if on_cpu else torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"imported": imported, "peak": peak}))


def open_call(*, who: str, model: str, device: str, precision: Any, **_: Any) -> Callable[[Any], Any]:
    """float32 views (B, T, C, H, W) to logits float32 (B, K); of the matrix product to the number of its operations."""
    import torch

    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.runtimes.pytorch import open_scorer, torch_dtype

    if who in LEFT_OUT:
        LEFT_OUT[who]()
    if who == OURS or who in LEFT_OUT:
        return open_scorer(resolve(model), device=device, precision=precision)
    dtype = torch_dtype(precision)
    if who == PRODUCT:
        rows = 2048 if device == "cpu" else 8192
        left, right = torch.randn(2, rows, rows, device=device).to(dtype)

        def multiply(_: Any) -> Any:
            (left @ right)[0, 0].item()  # this waits for a GPU
            return np.array(2 * rows**3)

        return multiply
    package = importlib.import_module("timesformer_cli" if who == PLAIN else "transformers")
    if who == THEIRS:
        package.logging.disable_progress_bar()
    network = package.TimesformerForVideoClassification.from_pretrained(model, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def score(views: Any) -> Any:
        return network(torch.from_numpy(views).to(device).to(dtype)).logits.float().cpu().numpy()

    return score


# ---- Without one of the savings


def without_tiles() -> None:
    inference._TILE = 10**9


def without_packed_weights() -> None:
    inference._packs = lambda _: False  # type: ignore[assignment]


def with_a_whole_last_layer() -> None:
    class Whole(inference.InferenceLayer):
        def __call__(self, x: Any) -> Any:
            super().__call__(x)
            return x[:, :, 0]

    inference.LastLayer = Whole  # type: ignore[assignment, misc]


def with_two_projections() -> None:
    class TwoProjections(inference.TemporalAttention):
        def __init__(self, layer: Any) -> None:
            super().__init__(layer)
            maps = layer.temporal_attention.output.dense, layer.temporal_dense
            first, second = (inference.Linear(each.weight, each.bias) for each in maps)
            self._attention._output = lambda x: second(first(x))  # type: ignore[assignment]

    inference.TemporalAttention = TwoProjections  # type: ignore[misc]


LEFT_OUT = {
    "without tiles": without_tiles,
    "without weights laid out for the processor": without_packed_weights,
    "with a whole last layer": with_a_whole_last_layer,
    "with two temporal projections": with_two_projections,
}


def savings(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.model:
            write_model(folder, arguments.size, arguments.layers)
        print_header("views", "", "seconds", f"of {OURS}'s", "peak, MiB", "difference of logits")
        for batch in arguments.batch:
            job = {"model": arguments.model or folder, "device": "cpu", "batch": batch, "precision": "fp32"}
            peers = [Peer(who=who, **job) for who in (OURS, *LEFT_OUT, PLAIN)]
            logits = [np.array(peer.ask()["found"]) for peer in peers]
            take_turns(peers, arguments.rounds)
            for peer, found in zip(peers, logits, strict=True):
                ratios = [own / full for own, full in zip(peer.seconds, peers[0].seconds, strict=True)]
                seconds, peak = statistics.median(peer.seconds), peer.ask(end=True)["peak"]
                difference = abs(found - logits[-1]).max() / abs(logits[-1]).max()
                print_row(batch, peer.name, f"{seconds:.3g}", spread(ratios), f"{peak:.0f}", f"{difference:.1e}")


class Peer:
    """The other side of `serve`."""

    def __init__(self, **job: Any) -> None:
        self.name = f"{job['who']}, {job['precision']}"
        self.seconds: list[float] = []
        command = [sys.executable, "-m", "benchmarks.speed", "serve", json.dumps(job)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
        )

    def ask(self, *, end: bool = False) -> dict[str, Any]:
        """The result of its next turn, or at the end of all turns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if end:
                self._process.stdin.close()
            else:
                print(file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: its process has died")
        found: dict[str, Any] = json.loads(line)
        return found


def take_turns(peers: list[Peer], rounds: int) -> None:
    for number in range(rounds):
        for peer in peers[:: -1 if number % 2 else 1]:
            peer.seconds.append(peer.ask()["seconds"])


def forward(arguments: argparse.Namespace) -> None:
    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.network.cost import measure_cost

    with tempfile.TemporaryDirectory() as folder:
        if not arguments.model:
            write_model(folder, arguments.size, arguments.layers)
        config = resolve(arguments.model or folder).config
        flops = measure_cost(config).flops
        views = " x ".join(map(str, (config.num_frames, *config.image_hw)))
        print(f"{config.num_hidden_layers} x {config.hidden_size}; a view of {views} takes {flops / 1e9:.0f} GFLOP\n")
        columns = ["seconds", f"of {THEIRS}'", "of the matrix product", "after imports, MiB", "peak, MiB"]
        print_header("views", "", *columns, f"of {THEIRS}'", "difference of logits")
        for batch in arguments.batch:
            job = {"model": arguments.model or folder, "device": arguments.device, "batch": batch}
            compare(job, arguments.precision, arguments.rounds, flops * batch)


def compare(job: dict[str, Any], precision: str, rounds: int, flops: int) -> None:
    """Print the rows of one batch size; logits are compared with transformers' in float32, the last."""
    peers = [Peer(who=who, precision=precision, **job) for who in (PRODUCT, OURS, PLAIN, THEIRS)]
    theirs = peers[-1]
    if precision != "fp32":
        peers.append(Peer(who=THEIRS, precision="fp32", **job))
    operations, *logits = (np.array(peer.ask()["found"]) for peer in peers)
    take_turns(peers, rounds)
    memory = {peer: peer.ask(end=True) for peer in peers}
    product, *networks = peers
    rates = [float(operations) / seconds for seconds in product.seconds]
    for peer, found in zip(networks, logits, strict=True):
        ratios = [own / other for own, other in zip(peer.seconds, theirs.seconds, strict=True)]
        shares = [flops / seconds / rate for seconds, rate in zip(peer.seconds, rates, strict=True)]
        peak = memory[peer]["peak"]
        print_row(
            job["batch"],
            peer.name,
            f"{statistics.median(peer.seconds):.3g}",
            spread(ratios),
            f"{statistics.median(shares):.0%}",
            f"{memory[peer]['imported']:.0f}",
            f"{peak:.0f}",
            f"{peak / memory[theirs]['peak']:.2f}",
            "" if peer is peers[-1] else f"{abs(found - logits[-1]).max() / abs(logits[-1]).max():.1e}",
        )
    rate = f"{statistics.median(rates) / 1e9:,.0f} GFLOP/s"
    print_row(job["batch"], product.name, f"{statistics.median(product.seconds):.3g}", "", rate, "", "", "", "")


# ---- From nothing

SCRIPT = """\
import sys
from transformers import pipeline
classify = pipeline("video-classification", model=sys.argv[1])
print(classify(sys.argv[2], top_k=5))
"""


def cold(arguments: argparse.Namespace) -> None:
    predict, pipeline = "timesformer predict", "transformers' pipeline"
    with tempfile.TemporaryDirectory() as name:
        ours = arguments.model or name
        if arguments.model == "camera-motion":
            throughput.write_camera_motion(Path(name))
        elif not arguments.model:
            write_model(name, arguments.size, arguments.layers)
        theirs = name if ours == "camera-motion" else ours
        commands = {
            predict: [sys.executable, "-m", "timesformer_cli", "predict", arguments.video, "--model", ours],
            pipeline: [sys.executable, "-c", SCRIPT, theirs, arguments.video],
            "import torch": [sys.executable, "-c", "import torch"],
        }
        memory = {who: watch_memory(command) for who, command in commands.items()}
        seconds: dict[str, list[float]] = {who: [] for who in commands}
        for number in range(arguments.rounds):
            for who in list(commands)[:: -1 if number % 2 else 1]:
                taken, lines = throughput.run(commands[who], lines=who == predict)
                seconds[who].append(taken)
                if who == predict:
                    views = len(lines[0]["views"])
    print(f"Views of the video: {views} of {predict}, 1 of {pipeline}.\n")
    print_header("", "seconds", f"of {pipeline}", "resident sets, MiB", "shared pages counted once, MiB")
    for who, times in seconds.items():
        ratios = [own / other for own, other in zip(times, seconds[pipeline], strict=True)]
        peaks = [f"{own:.0f} ({own / other:.2f})" for own, other in zip(memory[who], memory[pipeline], strict=True)]
        print_row(who, f"{statistics.median(times):.3g}", spread(ratios), *peaks)


def watch_memory(command: list[str]) -> tuple[float, float]:
    """The peak MiB of its processes together: of resident sets, and with shared pages counted once."""
    from benchmarks.workers import memory  # imports much that peers of `serve` must not load

    peaks = (0.0, 0.0)
    environment = {"cwd": ROOT, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **environment) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # of a process that has just ended
                found = throughput.resident(process.pid), memory(process.pid)
                peaks = max(peaks[0], found[0]), max(peaks[1], found[1])
            time.sleep(0.01)
    return peaks


# ---- Exactness


def precision(arguments: argparse.Namespace) -> None:
    import torch

    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.runtimes.pytorch import open_scorer

    checkpoint = resolve("camera-motion")
    views = render(arguments.clips)
    batches = np.array_split(views, -(-len(views) // 64))
    scorers = [open_scorer(checkpoint, device=arguments.device, precision=kind) for kind in ("fp32", "bf16")]
    wide, narrow = (np.concatenate([score(batch) for batch in batches]) for score in scorers)
    first, second = torch.from_numpy(wide).softmax(1).topk(2).values.numpy().T
    other = wide.argmax(1) != narrow.argmax(1)
    print_header("bf16", "clips", "share", "margin of fp32 under 0.05", "its median")
    for name, which in (("the same label", ~other), ("a different label", other)):
        margins = (first - second)[which]
        cells = [f"{(margins < 0.05).mean():.1%}", f"{np.median(margins):.3f}"] if len(margins) else ["", ""]
        print_row(name, len(margins), f"{which.mean():.2%}", *cells)
    print(f"\nLogits differ by at most {abs(wide - narrow).max() / abs(wide).max():.1e} of the largest.")


def render(count: int) -> Any:
    """Views float32 (N, T, 1, H, W); needs the extra `training`."""
    sys.path.insert(0, str(ROOT / "training" / "camera_motion"))
    from scenes import make_scene
    from textures import TEST_PHOTOS, library
    from train import PREPROCESS, SIDE, degrade, draw_motion, draw_times

    from timesformer_cli.flow import Frames
    from timesformer_cli.video.preprocess import make_views

    rng = np.random.default_rng(0)
    pictures = library(TEST_PHOTOS, 60, 0, unseen=True)
    views = []
    for _ in range(count):
        times, length = draw_times(rng)
        scene = make_scene(rng, pictures, draw_motion(rng), length, difficulty=float(rng.uniform()))
        gray = degrade(rng, scene.render(times, SIDE, SIDE)[..., 0])
        views.append(make_views([Frames(np.repeat(gray[..., None], 3, -1), times)], PREPROCESS)[0])
    return np.stack(views)


def equal(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.parity import BASE, LIMITS, build, clip, relative_difference
    from timesformer_cli import TimesformerForVideoClassification
    from timesformer_cli.network.inference import InferenceNetwork

    bundled = TimesformerForVideoClassification.from_pretrained("camera-motion")
    base = replace(BASE, num_hidden_layers=arguments.layers)
    configs = {"camera-motion": bundled.config} | {name: replace(base, **size) for name, size in SIZES.items()}
    configs |= {f"base, {kind}": replace(base, attention_type=kind) for kind in ("joint_space_time", "space_only")}
    close = True
    print_header("network", "layers", "precision", "difference of logits")
    for name, config in configs.items():
        for dtype, limit in LIMITS.items():
            network = bundled.to(dtype) if config is bundled.config else build(config, dtype)
            views = clip(config, dtype, config.num_frames, config.image_hw)
            with torch.inference_mode():
                plain = network(views).logits
            difference = relative_difference(InferenceNetwork(lambda: network, dtype=dtype)(views), plain)  # noqa: B023
            print_row(name, config.num_hidden_layers, str(dtype)[6:], f"{difference:.1e}")
            close &= difference <= limit
    sys.exit(0 if close else "a difference is over the limit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True, metavar="forward|savings|cold|precision|equal")
    runs = {run.__name__: run for run in (forward, savings, cold, precision, equal)}
    of_forward, of_savings, of_cold, of_precision, of_equal = (kinds.add_parser(name) for name in runs)
    for command in (of_forward, of_savings, of_cold):
        command.add_argument("--size", choices=SIZES, default="base", help="of a network with random weights")
        command.add_argument("--layers", type=int, default=12, help="of that network")
        command.add_argument("--model", help="model to use instead of it")
        command.add_argument("--rounds", type=int, default=5)
    for command in (of_forward, of_savings):
        command.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    of_forward.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    for command in (of_forward, of_precision):
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    of_cold.add_argument("video")
    of_precision.add_argument("--clips", type=int, default=2000)
    of_equal.add_argument("--layers", type=int, default=2)
    kinds.add_parser("serve").add_argument("job", type=json.loads)
    arguments = parser.parse_args()
    if arguments.what == "serve":
        serve(arguments.job)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "av", "numpy"))
    print(f"Python {platform.python_version()}, {versions}; {available_cores()} cores\n", flush=True)
    runs[arguments.what](arguments)


if __name__ == "__main__":
    main()
