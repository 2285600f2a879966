"""Exported models: what they cost to make, their size, how close they are to PyTorch, and how quick.

    python -m benchmarks.export table [--model camera-motion] [--calibrate FOLDER] --format onnx onnx:fp16 onnx:int8
    python -m benchmarks.export agreement --model camera-motion --clips FOLDER [--limit N] --format onnx onnx:int8

A format is one of `timesformer export`, with `:fp16`, `:bf16`, `:int8`, or `:calibrated` for int8 with the activations
of the videos of --calibrate. Without --model it is a network of the base size with random weights.

`table`: each export is a process of its own, `timesformer export` from its start to its end, with its imports and its
verification; its memory is the largest resident set of any one of its processes. Differences and the share of equal
first labels are those of its verification, in batches of 1, 2 and 5 views. Speed is of the scorers that `predict` has,
on the processor, one view at a time: after all exports all are opened in one process and take turns, each round in the
reverse order of the one before.

`agreement`: the same videos through `timesformer predict` with the network in PyTorch and with each export.
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

from benchmarks.throughput import spread, write_base
from timesformer_cli.devices import available_cores

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
    """Seconds of one view in each round, by name; that of the network in PyTorch is empty."""
    from timesformer_cli.checkpoint import resolve
    from timesformer_cli.export import verify
    from timesformer_cli.runtime import open_scorer

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
    return {name: values[1:] for name, values in seconds.items()}  # the first asks for memory


def print_table(exports: dict[str, Export], seconds: dict[str, list[float]]) -> None:
    own = seconds[""]
    columns = [
        *("format", "export, s", "peak memory, MiB", "size, MiB", "of fp32", "relative difference"),
        *("same first label", "a view, ms", "PyTorch's time to its, median (lowest, highest)"),
    ]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    print(f"| PyTorch, as `predict` runs it | | | | | | | {1000 * statistics.median(own):.3g} | 1 |")
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
            f"{1000 * statistics.median(seconds[name]):.3g}",
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
    print("| format | same first label | same five | same five in the same order |\n|" + " --- |" * 4)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "agreement"])
    parser.add_argument("--model", help="whatever predict takes; by default one of the base size, of random weights")
    parser.add_argument("--format", nargs="+", required=True)
    parser.add_argument("--calibrate", type=Path, help="videos for the formats that are `:calibrated`")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clips", type=Path, help="agreement: a folder of videos")
    parser.add_argument("--limit", type=int, help="agreement: the first so many of them")
    arguments = parser.parse_args()
    if any(name.endswith(":calibrated") for name in arguments.format) and arguments.calibrate is None:
        parser.error("formats that are :calibrated need --calibrate FOLDER")
    if arguments.what == "agreement" and arguments.clips is None:
        parser.error("agreement needs --clips FOLDER")
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
        if arguments.what == "table":
            print_table(exports, measure_speed(model, exports, arguments.rounds))
        else:
            print_agreement(model, exports, arguments.clips, arguments.limit)


if __name__ == "__main__":
    main()
