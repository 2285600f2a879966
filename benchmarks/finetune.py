"""What `timesformer finetune` reaches on five classes that `camera-motion` does not know, and what it costs.

    python -m benchmarks.finetune FOLDER [--draws 4]

FOLDER is for the videos, which `benchmarks.finetune_data` renders if they are missing: 36 of each class to train on, 24
to measure on. It prints the table of docs/finetune.md: accuracies with all videos and with few, each few in
several draws, and CPU seconds of whole commands, imports included. Then it compares the head with scikit-learn's
optimum, on the same features. Linux and macOS only.
"""

import argparse
import base64
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.finetune_data import CLASSES, TEST, TRAIN, render
from timesformer_cli.jobs.finetune.head import fit

SHOTS = (1, 2, 5, 10, 20)


def finetune(folder: Path, run: Path, *options: object) -> tuple[dict[str, Any], float]:
    """The metrics of a run of the command, and its CPU seconds with those of its processes."""
    command = [sys.executable, "-m", "timesformer_cli", "-q", "finetune", folder / "train", "--val", folder / "test"]
    command += ["-m", "camera-motion", "-o", run, *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def accuracies(folder: Path, run: Path, draws: int) -> None:
    found, seconds = finetune(folder, run)
    rows = [(f"{TRAIN} (all)", [found], seconds)]
    for shots in SHOTS:
        runs = [finetune(folder, run, "--overwrite", "--shots", shots, "--seed", seed) for seed in range(draws)]
        rows.insert(-1, (str(shots), [metrics for metrics, _ in runs], statistics.mean(cost for _, cost in runs)))
    print(f"{len(CLASSES)} classes, {TEST * len(CLASSES)} videos to measure on; {draws} draws of few videos")
    print("| videos a class | accuracy | log-loss | calibration error | CPU s |\n| --- | --- | --- | --- | --- |")
    for videos, metrics, cost in rows:
        values = [each["top_1"]["accuracy"]["value"] for each in metrics]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        loss, error = (
            statistics.mean(each[name] for each in metrics)
            for name in ("negative_log_likelihood", "expected_calibration_error")
        )
        print(f"| {videos} | {statistics.mean(values):.3f}{spread} | {loss:.3f} | {error:.3f} | {cost:.1f} |")
    interval = found["top_1"]["accuracy"]
    print(f"95 % interval with all: {interval['low']:.3f} to {interval['high']:.3f}; C = {found['training']['c']:g}")
    _, seconds = finetune(folder, run, "--overwrite", "--balance", "loss")
    print(f"again with a different setting, no video read: {seconds:.1f} CPU s")


def compare(run: Path) -> None:
    """Print how far logits are from those of scikit-learn's optimum, with the features of the run's first views."""
    rows = [json.loads(line) for line in (run / "features/videos.jsonl").read_bytes().splitlines()]
    rows = [row for row in rows if "/train/" in row["path"]]
    width = json.loads((run / "model/config.json").read_text())["hidden_size"]
    features: NDArray[np.float32] = np.stack(
        [np.frombuffer(base64.b64decode(row["features"]), "<f4").reshape(-1, width)[0] for row in rows]
    )
    targets = np.array([list(CLASSES).index(row["path"].split(os.sep)[-2]) for row in rows], np.int64)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    for c in (0.01, 0.1, 1.0):
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(scaled, targets)
        expected = reference.decision_function(scaled)
        found = fit(features, np.arange(len(rows)), targets, classes=len(CLASSES), c=c).logits(features)
        # A softmax does not see what all logits of a row share.
        difference = np.abs((found - found.mean(1, keepdims=True)) - (expected - expected.mean(1, keepdims=True)))
        print(f"C = {c:g}: logits within {difference.max() / np.abs(expected).max():.1e} of the largest logit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=4)
    options = parser.parse_args()
    render(options.folder)
    scratch = Path(tempfile.mkdtemp())
    try:
        accuracies(options.folder, scratch / "run", options.draws)
        compare(scratch / "run")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
