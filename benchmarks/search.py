"""What a search costs in a file of a million vectors, and how soon an answer for a stored row is there.

python -m benchmarks.search make FOLDER
python -m benchmarks.search million FOLDER
python -m benchmarks.search start FOLDER
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from timesformer_cli.jobs.search import Job, search
from timesformer_cli.results.journal import Holdings, finishing, write_final
from timesformer_cli.results.logits import pack
from timesformer_cli.results.settings import Combination, Provenance, VectorKind
from timesformer_cli.results.vectors.rows import VectorRow, vector_format
from timesformer_cli.results.vectors.writing import save_vectors

VIDEOS, SEGMENTS, DIMENSION = 1000, 1000, 768
PROVENANCE = Provenance(
    model="none",
    source="none",
    labels=(),
    recipe=Combination("none", "logits"),
    vectors=VectorKind(dimension=DIMENSION),
)


def name(video: int) -> str:
    return f"films/{video:04d}.mp4"


def rows(videos: int) -> Iterator[VectorRow]:
    """Films of segments that are like those before and after, and a little like those of the same film."""
    rng = np.random.default_rng(0)
    for video in range(videos):
        vectors = rng.standard_normal((SEGMENTS, DIMENSION), np.float32) + rng.standard_normal(DIMENSION, np.float32)
        vectors[1:] += vectors[:-1]
        for place, vector in enumerate(vectors):
            yield VectorRow(video, name(video), vector, 4.0 * place, 4.0 * place + 8.5)


def write(path: Path, videos: int) -> None:
    """A file of vectors with its settings."""
    format = vector_format(path)
    record = {"path": name(0), "status": "ok", "model": "none", "_embeddings": [pack(np.ones(DIMENSION, np.float32))]}
    with finishing(path, PROVENANCE, Holdings().and_record(record)):
        write_final(path, format, PROVENANCE, [record])
    save_vectors(path, rows(videos), PROVENANCE, format=format)


def make(folder: Path) -> None:
    """Write `million.npy` and `million.parquet`, as far as they are missing."""
    for format in ("npy", "parquet"):
        path = folder / f"million.{format}"
        if not path.exists():
            write(path, VIDEOS)


def million(folder: Path) -> None:
    """Print the processor time of searches in the open program, and its memory."""
    for format, rounds in (("npy", 5), ("parquet", 1)):
        if not (folder / f"million.{format}").exists():
            continue
        for queries in (1, 64):
            used = []
            for _ in range(rounds):
                like = [f"{name(video)}#400-408" for video in range(queries)]
                begun = time.process_time()
                answers = list(search(Job(path=folder / f"million.{format}", like=like)))
                used.append(time.process_time() - begun)
                assert len(answers) == queries
            print(f"{format}, {queries} queries: {statistics.median(used):.2f} CPU s (median of {rounds})")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{format}: peak resident {peak:.2f} GiB, with what is mapped of the file")


def start(folder: Path, rounds: int = 5) -> None:
    """Print the time of a search for a stored row in a file of 1,000 rows, of that of `import torch` beside it."""
    small = folder / "small"
    small.mkdir(exist_ok=True)
    commands = {"torch": [sys.executable, "-c", "import torch"]}
    for format in ("npy", "parquet"):
        path = small / f"v.{format}"
        write(path, 1)
        commands[format] = [sys.executable, "-m", "timesformer_cli", "search", str(path), "--like", name(0)]
        commands[format] += ["--overlaps", "-f", "jsonl"]
    shares: dict[str, list[float]] = {"npy": [], "parquet": []}
    for _ in range(rounds):
        used = {each: seconds(command) for each, command in commands.items()}
        for format, found in shares.items():
            found.append(used[format] / used["torch"])
    for format, found in shares.items():
        print(f"{format}: {statistics.median(found):.2f} of `import torch` ({min(found):.2f} to {max(found):.2f})")


def seconds(command: list[str]) -> float:
    """The processor time of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("make", "million", "start"))
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    {"make": make, "million": million, "start": start}[chosen.part](chosen.folder)
