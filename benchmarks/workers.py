"""Reading many small clips ahead of the network: two workers against one, and memory over the run.

    python -m benchmarks.workers [--clips 500] [--rounds 3]

The clips are 10 seconds of H.264, 340 x 256, made once and then read again under different names. They go through
everything before the network, as base-k400 needs them: 8 frames, three crops. One and two workers run in alternation.
Memory is that of the main process and its workers together, shared pages counted once: medians around the 50th clip and
at the end.
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from timesformer_cli.checkpoints import recipes, zoo
from timesformer_cli.flow import Item, Views
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.specs import Checkpoint


def make_clips(folder: Path, count: int) -> list[Item]:
    from testing.clips import write_video

    originals = [
        write_video(folder / f"original{level}.mp4", frames=300, width=340, height=256, rate=30, level=level)
        for level in range(10)
    ]
    copies = [folder / f"{number:04}.mp4" for number in range(count)]
    for number, copy in enumerate(copies):
        shutil.copyfile(originals[number % len(originals)], copy)
    return [Item(str(copy)) for copy in copies]


def base_k400() -> Checkpoint:
    entry = zoo.ZOO["base-k400"]
    config = entry.config()
    recipe = recipes.preset("original", config)
    labels = tuple(config.id2label.values())
    return Checkpoint(name=entry.name, config=config, recipe=recipe, labels=labels, weights=None, source="")


def memory(process: int) -> float:
    """MiB of a process and all its descendants, shared pages counted once; Linux only."""
    total, processes = 0, [process]
    while processes:
        process = processes.pop()
        folder = Path(f"/proc/{process}")
        rollup = (folder / "smaps_rollup").read_text().splitlines()
        total += int(next(line for line in rollup if line.startswith("Pss:")).split()[1])
        processes += [
            int(child) for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()
        ]
    return total / 1024


def read_all(items: list[Item], checkpoint: Checkpoint, workers: int) -> tuple[float, float, float]:
    """Seconds for all items, and MiB around the 50th of them and at the end."""
    early: list[float] = []
    late: list[float] = []
    start = time.perf_counter()
    with prepare_all(items, checkpoint.recipe, workers=workers, limits=Limits()) as prepared:
        for number, views in enumerate((views for views in prepared if views is not None), 1):
            assert isinstance(views, Views), views
            # Memory rises and falls with every clip, by the arrays in transit, so many samples are taken.
            if 30 < number <= 70:
                early.append(memory(os.getpid()))
            elif number > len(items) - 40:
                late.append(memory(os.getpid()))
    return time.perf_counter() - start, statistics.median(early), statistics.median(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    checkpoint = base_k400()
    print(f"Python {platform.python_version()}; {os.cpu_count()} cores; {arguments.clips} clips")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        items = make_clips(Path(folder), arguments.clips)
        for _ in range(arguments.rounds):
            seconds = {}
            for workers in (1, 2):
                seconds[workers], early, late = read_all(items, checkpoint, workers)
                print(
                    f"{workers} workers: {seconds[workers]:.1f} s, "
                    f"{len(items) / seconds[workers]:.0f} clips per second; "
                    f"{early:.0f} MiB after 50 clips, {late:.0f} at the end ({late / early:.3f})",
                    flush=True,
                )
            ratios.append(seconds[1] / seconds[2])
    print(f"two workers against one: {statistics.median(ratios):.2f} times ({min(ratios):.2f}, {max(ratios):.2f})")


if __name__ == "__main__":
    main()
