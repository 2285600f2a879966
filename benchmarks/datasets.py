"""Opening datasets of the size of Kinetics-400: rows parsed, labels matched, and each video found.

    python -m benchmarks.datasets [--rows 246534] [--rounds 5]

Empty files stand for the videos, and some rows have none, as in CVDF's copy. Each figure is of a fresh process after
its imports, with the file names in the system's cache. Beside it stands the cost of a program that only reads the
annotation file into a string and lists the folder into a list, from a process of the same round.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timesformer_cli.checkpoints import labels
from timesformer_cli.datasets import open_dataset

MISSING = 40  # one row in this many

K400 = labels.read("kinetics-400")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def make(folder: Path, rows: int) -> None:
    """The same clips as one flat folder with an official CSV, and in class folders with a list of numbers."""
    generator = random.Random(0)
    csv, numbers = ["label,youtube_id,time_start,time_end,split,is_cc\n"], []
    for name in ("flat/train", *(f"classes/{name.replace(' ', '_')}" for name in K400)):
        (folder / name).mkdir(parents=True)
    for row in range(rows):
        label, start = generator.randrange(len(K400)), generator.randrange(300)
        youtube_id = "".join(generator.choices(_LETTERS, k=11))
        name = f"{youtube_id}_{start:06}_{start + 10:06}.mp4"
        csv.append(f'"{K400[label]}",{youtube_id},{start},{start + 10},train,0\n')
        numbers.append(f"{K400[label]}/{name} {label}\n")
        if row % MISSING:
            (folder / "flat/train" / name).touch()
            os.link(folder / "flat/train" / name, folder / "classes" / K400[label].replace(" ", "_") / name)
    (folder / "train.csv").write_text("".join(csv), encoding="utf-8")
    (folder / "train.txt").write_text("".join(numbers), encoding="utf-8")


def names_below(folder: Path) -> list[str]:
    return [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]


def measure(folder: Path, root: str, annotations: str, plainly: bool) -> dict[str, float]:
    """Wall-clock and processor seconds, peak MiB, MiB beyond the imports, and the number of videos."""
    file = folder / annotations if annotations else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = time.perf_counter(), time.process_time()
    if plainly:
        content = file.read_text(encoding="utf-8") if file else ""
        count = len(names_below(folder / root)) + 0 * len(content)
    else:
        count = len(open_dataset(folder / root, file, labels=K400).samples)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "processor": processor,
        "more": (peak - before) / 1024,
        "peak": peak / 1024,
        "videos": count,
    }


def measured(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.datasets", "--measure", *arguments]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=246_534)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        folder, root, annotations, plainly = arguments.measure
        print(json.dumps(measure(Path(folder), root, annotations, plainly == "plainly")))
        return
    print(f"Python {platform.python_version()}; {os.cpu_count()} cores; {arguments.rows} rows")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.rows)
        for what, root, annotations in (
            ("Kinetics CSV, flat folder", "flat", "train.csv"),
            ("list of numbers, class folders", "classes", "train.txt"),
            ("only class folders", "classes", ""),
        ):
            rounds = []
            for _ in range(arguments.rounds):
                ours = measured(folder, root, annotations, "")
                rounds.append((ours, measured(folder, root, annotations, "plainly")))
            seconds = [ours["seconds"] for ours, _ in rounds]
            processor = statistics.median(ours["processor"] for ours, _ in rounds)
            ratios = [ours["seconds"] / plain["seconds"] for ours, plain in rounds]
            print(
                f"{what}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
                f"{processor:.2f} s of a core, "
                f"{statistics.median(ratios):.1f} times plain reading ({min(ratios):.1f} to {max(ratios):.1f}); "
                f"peak {max(ours['peak'] for ours, _ in rounds):.0f} MiB, "
                f"{rounds[0][0]['more']:.0f} of it for the dataset; {rounds[0][0]['videos']:.0f} videos",
                flush=True,
            )


if __name__ == "__main__":
    main()
