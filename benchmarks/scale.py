"""Seconds and memory of what a run does besides reading and scoring, from 10,000 videos to a million.

    python -m benchmarks.scale [--videos 10000 100000 1000000] [--steps predict resume ...] [--classes 400]

Reading is stubbed: each video is the same ten seconds, its scores are drawn from a few thousand rows of random logits,
and its path, which a list names, does not exist. All else is the command itself, each step in a fresh process. The
figures are seconds by the clock and of the processor, and the peak of the resident memory in MiB, imports included. An
output is removed once no other step needs it: a million videos of 400 classes need 16 GB of disk. Linux only.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from timesformer_cli.flow import Item, Scored, Span, VideoInfo, ViewLabel
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.specs import Checkpoint

SHARDS = 8
LONG = 200  # of so many videos one has a path of 1,000 characters

Step = Callable[[Path, int], None]


@contextmanager
def stubbed(
    items: Iterable[Item], checkpoint: Checkpoint, run: RunOptions, *, thumbnails: str | None = None, **_: object
) -> Iterator[Iterator[Scored]]:
    """Stands for `score_all`."""
    logits = np.random.default_rng(0).normal(size=(4096, 1, len(checkpoint.labels))).astype(np.float32)
    info = VideoInfo(
        np.arange(300) / 30, 30.0, 340, 256, "h264", container="mov,mp4,m4a,3gp,3g2,mj2", pixel_format="yuv420p"
    )
    span = Span(0.0, 10.0, np.arange(8)[None])
    labels = (ViewLabel(0, "center", tuple(range(0, 256, 32))),)
    thumbnail = bytes(4500) if thumbnails else None
    yield (
        Scored(item, info, span, labels, logits[number % 4096], thumbnail=thumbnail)
        for number, item in enumerate(items)
    )


def command(*arguments: object) -> None:
    """The command line, with reading stubbed."""
    from timesformer_cli.cli import main
    from timesformer_cli.jobs import predict

    predict.score_all = stubbed
    sys.argv = ["timesformer", "-q", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def predict(ending: str, *options: str) -> Step:
    def step(folder: Path, videos: int) -> None:
        model = folder / "model"
        command("predict", "--from-file", folder / "list.txt", "-m", model, "-o", folder / f"out{ending}", *options)

    return step


def shards(folder: Path, videos: int) -> None:
    for number in range(1, SHARDS + 1):
        predict(".jsonl", "--shard", f"{number}/{SHARDS}")(folder, videos)


def merge(folder: Path, videos: int) -> None:
    command("merge", *sorted(folder.glob("out.*-of-*.jsonl")), "-o", folder / "merged.jsonl")


def evaluate(folder: Path, videos: int) -> None:
    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.datasets import Dataset, Sample
    from timesformer_cli.evaluation.run import dataset_settings
    from timesformer_cli.jobs import evaluate as job
    from timesformer_cli.jobs.reporter import SILENT

    checkpoint = resolve(str(folder / "model"))
    classes = len(checkpoint.labels)
    paths = (folder / "list.txt").read_text(encoding="utf-8").splitlines()
    samples = tuple(Sample(path, (number % classes,), number + 1) for number, path in enumerate(paths))
    names = checkpoint.labels
    dataset = Dataset("list", None, None, None, videos, samples, (), names, dict(enumerate(names)), "index", False)
    settings = dataset_settings(dataset, root=None, annotations=None, label_map=None, classes=None, frames=False)
    job.score_all = stubbed
    keeping = job.Keeping(folder=folder / "run")
    job.evaluate(job.Job(checkpoint=checkpoint, dataset=dataset, settings=settings, keeping=keeping), SILENT)


def rescore(folder: Path, videos: int) -> None:
    command("runs", "rescore", folder / "run", "--top-k", "1,5", "-o", folder / "rescored", "--json")


def scores(folder: Path, videos: int) -> None:
    command("evaluate", "--from-predictions", folder / "run" / "scores.npz", "--json")


# Each step with the outputs that it removes at its end, since no other step needs them.
STEPS: dict[str, tuple[Step, tuple[str, ...]]] = {
    "predict": (predict(".jsonl"), ()),
    "resume": (predict(".jsonl", "--resume"), ("out.jsonl*",)),
    "csv": (predict(".csv"), ("out.csv*",)),
    "parquet": (predict(".parquet"), ("out.parquet*",)),
    "page": (predict(".html"), ("out.html*",)),
    "logits": (predict(".jsonl", "--save-logits", "logits.npz"), ("out.jsonl*", "logits.npz")),
    "shards": (shards, ()),
    "merge": (merge, ("out.*-of-*", "merged.*")),
    "evaluate": (evaluate, ()),
    "rescore": (rescore, ("rescored",)),
    "scores": (scores, ("run",)),
}


def make(folder: Path, videos: int, classes: int) -> None:
    """The list of paths, a few of them long, and a model."""
    from testing.clips import write_model

    with (folder / "list.txt").open("w", encoding="utf-8") as file:
        for number in range(videos):
            part = f"{number // 1000:04}" if number % LONG else "x" * 200
            path = "/".join([str(folder / "clips"), *[part] * (1 if number % LONG else 4), f"{number:07}.mp4"])
            file.write(path + "\n")
    write_model(folder / "model", [f"class {number:03}" for number in range(classes)])


def measured(step: str, folder: Path, videos: int) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.scale", "--step", step, str(folder), str(videos)]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_step(step: str, folder: Path, videos: int) -> None:
    start = time.perf_counter()
    os.chdir(folder)
    STEPS[step][0](folder, videos)
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    print()
    print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": peak()}))


def peak() -> float:
    """MiB of this process; `ru_maxrss` would be at least that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder, videos = arguments.step
        run_step(step, Path(folder), int(videos))
        return
    print(f"Python {platform.python_version()}; {os.cpu_count()} cores; {arguments.classes} classes")
    print("| videos | step | seconds | of the processor | peak, MiB |\n| --- | --- | --- | --- | --- |")
    for videos in arguments.videos:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, videos, arguments.classes)
            for step in arguments.steps:
                figures = measured(step, folder, videos)
                cells = (f"{figures['seconds']:,.1f}", f"{figures['cpu']:,.1f}", f"{figures['peak']:,.0f}")
                print(f"| {videos:,} | {step} | {' | '.join(cells)} |", flush=True)
                remove(folder, STEPS[step][1])


def remove(folder: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
