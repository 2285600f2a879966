"""What labels are worth that `timesformer pick` asks for: accuracy by number of labels, against a random choice.

    python -m benchmarks.pick FOLDER [--seeds 5]

FOLDER is for the videos of docs/finetune.md, which `benchmarks.finetune_data` renders if they are missing, and for
their vectors by `camera-motion`. Each seed starts with 5 labelled videos of each of the five classes, drawn at random,
and adds 10 in each of five rounds: those that `pick` chooses with the labels of a head that was fitted to the labels
so far, or as many at random (`by=random`). The head is always fitted to the labelled vectors, and measured on the 120
test videos. It prints the table of docs/pick.md.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.finetune_data import CLASSES, render
from timesformer_cli.flow import likeliest
from timesformer_cli.jobs.finetune.head import Head, fit
from timesformer_cli.jobs.pick import By, Job, pick
from timesformer_cli.results.journal import Holdings, finishing, write_final
from timesformer_cli.results.record import Excerpt, Record
from timesformer_cli.results.vectors.reading import VectorFile, open_vectors

NAMES = tuple(CLASSES)
FIRST, ROUNDS, ADDED = 5, 5, 10
C = 0.1
RULES: tuple[By, ...] = ("margin", "entropy", "random")


def vectors_of(folder: Path, part: str) -> tuple[VectorFile, NDArray[np.float32], NDArray[np.int64], list[str]]:
    """The file of vectors of a part, its vectors (N, D), the classes (N,) and the paths; made if it is missing."""
    file = folder / f"{part}.npz"
    if not file.exists():
        command = [sys.executable, "-m", "timesformer_cli", "-q", "embed", part, "-m", "camera-motion", "-o", file.name]
        subprocess.run(command, cwd=folder, check=True)
    opened = open_vectors(file)
    paths = [row.path for row in opened.rows(range(opened.count))]
    targets = np.array([NAMES.index(Path(path).parent.name) for path in paths], np.int64)
    return opened, opened.take(range(opened.count)), targets, paths


def trained(vectors: NDArray[np.float32], targets: NDArray[np.int64], labelled: Sequence[int]) -> Head:
    rows = np.array(labelled)
    return fit(vectors[rows], np.arange(len(rows)), targets[rows], classes=len(NAMES), c=C)


def chances(head: Head, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = head.logits(vectors).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def write_run(target: Path, file: VectorFile, paths: Sequence[str], head: Head, vectors: NDArray[np.float32]) -> None:
    """What `predict` leaves with a model that has this head: JSON lines, and the logits beside them."""
    provenance = replace(file.provenance, vectors=None, labels=NAMES, shown=Excerpt(top_k=len(NAMES), logits=True))
    facts = {"duration": 1.0, "fps": 30.0, "frames": 30, "width": 160, "height": 120, "codec": "h264"}
    records: list[Record] = []
    holds = Holdings()
    for path, scores in zip(paths, chances(head, vectors), strict=True):
        shown = [
            {"rank": rank, "index": each.index, "label": each.label, "score": each.score}
            for rank, each in enumerate(likeliest(scores, NAMES, len(NAMES)), 1)
        ]
        record = {"path": path, "status": "ok", "model": "head", "predictions": shown, "video": facts}
        records.append(record)
        holds = holds.and_record(record)
    with finishing(target, provenance, holds):
        write_final(target, "jsonl", provenance, records)
    spans = {"start": np.zeros(len(paths)), "end": np.ones(len(paths)), "path": paths, "labels": NAMES}
    np.savez(target.with_suffix(".npz"), logits=head.logits(vectors), activation="softmax", **spans)


def chosen(
    folder: Path, by: By, file: VectorFile, paths: Sequence[str], labelled: Sequence[int], seed: int
) -> list[int]:
    """The rows that `pick` chooses, of the run in `folder`."""
    known = folder / "labelled.csv"
    with known.open("w", newline="") as opened:
        csv.writer(opened).writerows([("path", "label"), *((paths[row], "known") for row in labelled)])
    job = Job(
        results=folder / "run.jsonl",
        vectors=file.path,
        labelled=known,
        count=ADDED,
        by=by,
        logits=folder / "run.npz" if by == "entropy" else None,
        seed=seed if by == "random" else None,
    )
    return [paths.index(each.path) for each in pick(job).picks]


def curve(folder: Path, by: By, seed: int) -> list[float]:
    """The accuracy with 25, 35, ... labelled videos."""
    file, vectors, targets, paths = vectors_of(folder, "train")
    _, tested, answers, _ = vectors_of(folder, "test")
    rng = np.random.default_rng(seed)
    labelled = [int(row) for k in range(len(NAMES)) for row in rng.choice(np.flatnonzero(targets == k), FIRST, False)]
    found: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(ROUNDS + 1):
            head = trained(vectors, targets, labelled)
            found.append(float((head.logits(tested).argmax(axis=1) == answers).mean()))
            if turn < ROUNDS:
                write_run(Path(scratch) / "run.jsonl", file, paths, head, vectors)
                labelled += chosen(Path(scratch), by, file, paths, labelled, seed * ROUNDS + turn)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    render(options.folder)
    found = {by: [curve(options.folder, by, seed) for seed in range(options.seeds)] for by in RULES}
    print(f"| labelled videos | {' | '.join(RULES)} |\n| --- |{' --- |' * len(RULES)}")
    for turn in range(ROUNDS + 1):
        columns = [[each[turn] for each in found[by]] for by in RULES]
        cells = (f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" for values in columns)
        print(f"| {FIRST * len(NAMES) + turn * ADDED} | {' | '.join(cells)} |")
    for by in RULES[:2]:
        better = [mine[-1] - theirs[-1] for mine, theirs in zip(found[by], found["random"], strict=True)]
        print(f"{by} minus random at the end, by seed: {json.dumps([round(each, 3) for each in better])}")


if __name__ == "__main__":
    main()
