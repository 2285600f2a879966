"""What a search costs in a file of a million vectors, and how soon an answer for a stored row is there.

python -m benchmarks.search make FOLDER
python -m benchmarks.search million FOLDER
python -m benchmarks.search start FOLDER
python -m benchmarks.search place FOLDER [--videos VIDEOS]

`make` writes a million vectors of 768 numbers as .npy and as Parquet (3 GB each). `million` searches in each, in a
program of its own with one thread for NumPy, as the command does; the files are in the file cache. `start` compares
the whole command, for a stored row of a file of 1,000 rows, with `import torch`. Linux only.

`place` makes 31 films of two minutes from real clips: pieces of two to six seconds, each with a crop, a movement of the
crop, a speed and a brightness of its own. It embeds them with camera-motion as segments of four seconds, every two
seconds. Parts of the first film are cut out, encoded again (CRF 34, half the size) and searched for: those that are a
segment of the file, and those that start anywhere. A part is found if the first match overlaps it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.dedup import CLIPS, SECONDS, Frames, half_size
from benchmarks.dedup import write as encode
from timesformer_cli.jobs.search import Job, search
from timesformer_cli.results.journal import Holdings, finishing, write_final
from timesformer_cli.results.logits import pack
from timesformer_cli.results.settings import Combination, Provenance, VectorKind
from timesformer_cli.results.vectors.rows import VectorRow, vector_format
from timesformer_cli.results.vectors.writing import save_vectors

VIDEOS, SEGMENTS, DIMENSION = 1000, 1000, 768
FILM, HOP, RATE = 120, 2, 25  # seconds, and frames per second
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
    """Print the processor time of searches in an open program, and its memory, for each file there is."""
    for format in ("npy", "parquet"):
        if (folder / f"million.{format}").exists():
            command = [sys.executable, "-m", "benchmarks.search", format, str(folder)]
            subprocess.run(command, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})


def searches(path: Path, rounds: int) -> None:
    """Print what searches in one file take."""
    resident: list[float] = []
    done = threading.Event()
    sampler = threading.Thread(target=watch, args=(resident, done), daemon=True)
    sampler.start()
    for queries in (1, 64):
        used = []
        for _ in range(rounds):
            like = [f"{name(video)}#400-408" for video in range(queries)]
            begun = time.process_time()
            answers = list(search(Job(path=path, like=like)))
            used.append(time.process_time() - begun)
            assert len(answers) == queries
        spread = f"{min(used):.2f} to {max(used):.2f}"
        print(f"{path.name}, {queries} queries: {statistics.median(used):.2f} CPU s ({spread} in {rounds})", flush=True)
    done.set()
    sampler.join()
    print(f"{path.name}: at most {max(resident):.2f} GiB of memory beside the mapped file", flush=True)


def watch(resident: list[float], done: threading.Event) -> None:
    """Append, ten times per second, how much memory this program has that is no mapped file, in GiB."""
    while not done.wait(0.1):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        resident.append(int(status["RssAnon"].split()[0]) / 2**20)


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


def place(folder: Path, videos: Path, films: int = 31, parts: int = 20) -> None:
    """Print how often a part of a film, cut out and encoded again, finds its own place first."""
    rng = np.random.default_rng(0)
    targets = [folder / "films" / f"{number:02}.mp4" for number in range(films)]
    (folder / "films").mkdir(exist_ok=True)
    if not all(target.exists() for target in targets):
        sources = [shrunk(videos / clip) for clip in CLIPS]
        for target in targets:
            encode(target, make_film(sources, rng), Fraction(RATE), 23)
    frames = whole(targets[0])
    vectors = folder / "films.npy"
    if not vectors.exists():
        segments = ["--timeline", "--window", "4", "--hop", str(HOP), "--model", "camera-motion"]
        embed = [sys.executable, "-m", "timesformer_cli", "embed", str(folder / "films"), *segments]
        subprocess.run([*embed, "-o", str(vectors)], check=True)
    for long, where in ((4, "a segment"), (4, "anywhere"), (12, "anywhere")):
        starts = np.random.default_rng(1).uniform(0, len(frames) / RATE - long, parts)
        starts = np.round(starts / HOP) * HOP if where == "a segment" else starts
        right = own_places(vectors, folder, frames, starts, long)
        print(f"parts of {long} s, {where}: {right} of {parts} found their own place first", flush=True)


def own_places(vectors: Path, folder: Path, frames: Frames, starts: np.ndarray, long: int) -> int:
    """The number of parts of the first film, which has these frames, that find themselves first."""
    queries, found = [folder / f"part-{number:02}.mp4" for number in range(len(starts))], folder / "found.jsonl"
    for query, start in zip(queries, starts, strict=True):
        cut = frames[round(start * RATE) : round((start + long) * RATE)]
        encode(query, half_size(cut), Fraction(RATE), 34)
    asked = [sys.executable, "-m", "timesformer_cli", "search", str(vectors), *map(str, queries), "-k", "1"]
    subprocess.run([*asked, "-o", str(found), "--overwrite", "--quiet"], check=True)
    firsts = [json.loads(line)["matches"][0] for line in found.read_text(encoding="utf-8").splitlines()]
    return sum(
        Path(first["path"]).name == "00.mp4" and first["start"] < start + long and first["end"] > start
        for first, start in zip(firsts, starts, strict=True)
    )


def shrunk(path: Path) -> Frames:
    """The first seconds of a clip, 384 x 216."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        most = int(Fraction(stream.average_rate or 25) * SECONDS)
        frames = [
            frame.reformat(384, 216, "rgb24").to_ndarray()
            for frame, _ in zip(container.decode(stream), range(most), strict=False)
        ]
    return np.stack(frames)


def whole(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def make_film(sources: list[Frames], rng: np.random.Generator) -> Frames:
    """Two minutes, 320 x 180."""
    shown: list[np.ndarray] = []
    while len(shown) < FILM * RATE:
        source = sources[rng.integers(len(sources))]
        count = int(rng.uniform(2, 6) * RATE)
        speed, first = rng.uniform(0.6, 1.4), rng.uniform(0, len(source))
        width = rng.uniform(0.5, 0.9, 2) * 384  # at the start and at the end
        corners = [(rng.uniform(0, 384 - each), rng.uniform(0, 216 - each * 9 / 16)) for each in width]
        light, flip = rng.uniform(0.7, 1.3), rng.random() < 0.5
        for step in range(count):
            share = step / count
            (left, top), wide = (
                np.subtract(corners[1], corners[0]) * share + corners[0],
                width[0] + share * np.diff(width)[0],
            )
            # To the end of the clip and back again.
            at = round(first + step * speed) % (2 * len(source))
            frame = Image.fromarray(source[min(at, 2 * len(source) - 1 - at)])
            box = (left, top, left + wide, top + wide * 9 / 16)
            pixels = np.asarray(frame.resize((320, 180), Image.Resampling.BILINEAR, box))
            pixels = (pixels * light).clip(0, 255).astype(np.uint8)
            shown.append(pixels[:, ::-1] if flip else pixels)
    return np.stack(shown[: FILM * RATE])


def seconds(command: list[str]) -> float:
    """The processor time of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("make", "million", "start", "place", "npy", "parquet"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=Path, default=Path("../shared/videos"))
    chosen = parser.parse_args()
    if chosen.part == "place":
        place(chosen.folder, chosen.videos)
    elif chosen.part in {"npy", "parquet"}:
        searches(chosen.folder / f"million.{chosen.part}", 5 if chosen.part == "npy" else 3)
    else:
        {"make": make, "million": million, "start": start}[chosen.part](chosen.folder)
