"""Exported models: the cost of making them, their size, how close they are to PyTorch, and their speed.

    python -m benchmarks.export table [--model camera-motion] [--calibrate FOLDER] --format onnx onnx:fp16 onnx:int8
    python -m benchmarks.export agreement --model camera-motion --clips FOLDER [--limit N] --format onnx onnx:int8
    python -m benchmarks.export metrics --model camera-motion --clips FOLDER [--annotations FILE] --format pt2 aoti

A format is one of `timesformer export`, with `:fp16`, `:bf16`, `:int8`, or `:calibrated` for int8 with the activations
of the videos of --calibrate. Without --model, a network of the base size with random weights is used.

`table`: each export is a separate process, `timesformer export` from start to end, with its imports and its
verification; its memory is the largest resident set of any one of its processes. Differences and the share of equal
first labels are those of its verification, in batches of 1, 2 and 5 views. Speed is that of `predict`'s scorers, on
the processor, one view at a time: after all exports, all are opened in one process and run in alternation, each round
in the reverse order of the one before.

`agreement`: the same videos through `timesformer predict` with the network in PyTorch and with each export.

`metrics`: the same dataset through `timesformer evaluate`, and the largest difference of any logit, as a share of the
largest logit.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.throughput import spread, write_base
from timesformer_cli.runtimes.devices import available_cores

ROOT = Path(__file__).parents[1]
TIMESFORMER = [sys.executable, "-m", "timesformer_cli", "--quiet"]


class Export(NamedTuple):
    """`found` is what `timesformer export --json` printed."""

    folder: Path
    seconds: float
    memory: float
    found: dict[str, Any]


def export(model: str, name: str, calibrate: Path | None, root: Path) -> Export:
    format, _, kind = name.partition(":")
    options = {
        "": [],
        "int8": ["--quantize", "int8"],
        "calibrated": ["--quantize", "int8", "--calibrate", str(calibrate)],
    }.get(kind, ["--precision", kind])
    folder = root / name.replace(":", "-")
    command = [*TIMESFORMER, "export", model, "--format", format, *options, "--json", "--out", str(folder)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not printed:
        sys.exit(f"{name}: timesformer export ended with {process.returncode}")
    found = json.loads(printed)
    print(f"exported {name}", file=sys.stderr, flush=True)
    return Export(Path(found["path"]), time.perf_counter() - start, usage.ru_maxrss / 1024, found)


def measure_speed(model: str, exports: dict[str, Export], rounds: int) -> dict[str, list[float]]:
    """Seconds of one view in each round, by name; the empty name is the network in PyTorch."""
    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.jobs.export import verify
    from timesformer_cli.runtimes.pytorch import open_scorer

    checkpoint = resolve(model)
    view = verify.sample_views(checkpoint, "frames")[:1]
    scorers = {"": open_scorer(checkpoint, device="cpu")}
    scorers |= {name: open_scorer(resolve(str(made.folder)), device="cpu") for name, made in exports.items()}
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for number in range(rounds + 1):
        for name in list(scorers)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            scorers[name](view)
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}  # the first allocates memory


def milliseconds(seconds: list[float]) -> str:
    """The median, with three digits: 7.36, or 2,860."""
    return f"{float(f'{1000 * statistics.median(seconds):.3g}'):,g}"


def print_table(exports: dict[str, Export], seconds: dict[str, list[float]]) -> None:
    own = seconds[""]
    columns = [
        *("format", "export, s", "peak memory, MiB", "size, MiB", "of fp32", "relative difference"),
        *("same first label", "a view, ms", "PyTorch's time to its, median (lowest, highest)"),
    ]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    print(f"| PyTorch, as `predict` runs it | | | | | | | {milliseconds(own)} | 1 |")
    for name, (_, took, memory, found) in exports.items():
        batches = found["batches"]
        cells = [
            f"{name.replace(':', ', ')}{'' if found['passed'] else ' (not verified)'}",
            f"{took:.1f}",
            f"{memory:,.0f}",
            f"{found['bytes'] / 2**20:.1f}",
            f"{100 * found['share_of_fp32']:.0f} %",
            f"{max(batch['relative'] for batch in batches):.1e}",
            f"{sum(batch['agreement'] for batch in batches)} of {sum(batch['of'] for batch in batches)}",
            milliseconds(seconds[name]),
            spread([a / b for a, b in zip(own, seconds[name], strict=True)]),
        ]
        print(f"| {' | '.join(cells)} |")


def labels_of(model: str, clips: Path, limit: int | None) -> dict[str, list[str]]:
    """The first five labels of each video that can be read, by its path."""
    command = [*TIMESFORMER, "predict", str(clips), "--model", model, "--format", "jsonl", "--top-k", "5"]
    done = subprocess.run([*command, *(["--limit", str(limit)] if limit else [])], stdout=subprocess.PIPE, cwd=ROOT)
    if done.returncode not in (0, 3):  # some of the videos failed
        sys.exit(f"{model}: timesformer predict ended with {done.returncode}")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        record["path"]: [prediction["label"] for prediction in record["predictions"]]
        for record in records
        if record["status"] == "ok"
    }


def print_agreement(model: str, exports: dict[str, Export], clips: Path, limit: int | None) -> None:
    wanted = labels_of(model, clips, limit)
    print("\n| format | same first label | same five | same five in the same order |\n|" + " --- |" * 4)
    for name, made in exports.items():
        found = labels_of(str(made.folder), clips, limit)
        if found.keys() != wanted.keys():
            sys.exit(f"{name}: other videos failed than with PyTorch")
        pairs = [(labels, found[path]) for path, labels in wanted.items()]
        counts = [
            sum(a[0] == b[0] for a, b in pairs),
            sum(set(a) == set(b) for a, b in pairs),
            sum(a == b for a, b in pairs),
        ]
        print(f"| {name.replace(':', ', ')} | {' | '.join(f'{100 * n / len(pairs):.1f} %' for n in counts)} |")
    print(f"\n{len(wanted)} videos.")


def evaluate(model: str, arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The metrics, and the logits float32 (N, K)."""
    command = [*TIMESFORMER, "evaluate", str(arguments.clips), "--model", model, "--output", str(folder)]
    for option in ("annotations", "limit"):
        value = getattr(arguments, option)
        command += [] if value is None else [f"--{option}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{model}: timesformer evaluate ended with {done.returncode}")
    with np.load(folder / "scores.npz") as scores:
        return json.loads((folder / "metrics.json").read_text()), scores["logits"]


def print_metrics(model: str, exports: dict[str, Export], arguments: argparse.Namespace, root: Path) -> None:
    print("\n| format | top-1 | top-5 | negative log-likelihood | largest difference of a logit |\n|" + " --- |" * 5)
    expected = None
    for name, source in {"PyTorch": model, **{name: str(made.folder) for name, made in exports.items()}}.items():
        found, logits = evaluate(source, arguments, root / f"evaluated-{name.replace(':', '-')}")
        expected = logits if expected is None else expected
        rates = " | ".join(f"{100 * found[key]['accuracy']['value']:.1f} %" for key in ("top_1", "top_5"))
        difference = np.abs(logits - expected).max() / np.abs(expected).max()
        loss = found["negative_log_likelihood"]
        print(f"| {name.replace(':', ', ')} | {rates} | {loss:.6f} | {difference:.1e} |", flush=True)
    print(f"\n{found['videos']} videos.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["table", "agreement", "metrics"], help="of the same exports")
    parser.add_argument("--model", help="any model of predict; by default one of the base size with random weights")
    parser.add_argument("--format", nargs="+", required=True)
    parser.add_argument("--calibrate", type=Path, help="videos for the formats that are `:calibrated`")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clips", type=Path, help="agreement, metrics: a folder of videos")
    parser.add_argument("--annotations", type=Path, help="metrics: the labels, unless folders name them")
    parser.add_argument("--limit", type=int, help="agreement, metrics: only the first N of them")
    arguments = parser.parse_args()
    if any(name.endswith(":calibrated") for name in arguments.format) and arguments.calibrate is None:
        parser.error("formats that are :calibrated need --calibrate FOLDER")
    if {*arguments.what} != {"table"} and arguments.clips is None:
        parser.error("agreement and metrics need --clips FOLDER")
    packages = {"onnx": ("onnxruntime",), "openvino": ("openvino", "nncf")}
    wanted = {package for name in arguments.format for package in packages.get(name.partition(":")[0], ())}
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", *sorted(wanted)))
    print(f"Python {platform.python_version()}, {versions}; {available_cores()} cores\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = arguments.model or str(root / "base")
        if arguments.model is None:
            write_base(root / "base")
        exports = {name: export(model, name, arguments.calibrate, root) for name in arguments.format}
        if "table" in arguments.what:
            print_table(exports, measure_speed(model, exports, arguments.rounds))
        if "agreement" in arguments.what:
            print_agreement(model, exports, arguments.clips, arguments.limit)
        if "metrics" in arguments.what:
            print_metrics(model, exports, arguments, root)


if __name__ == "__main__":
    main()
