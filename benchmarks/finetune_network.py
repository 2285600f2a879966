"""What training the network adds to the probe, and what a killed run comes to.

    python -m benchmarks.finetune_network methods FOLDER [--epochs 15]    # full, last and lora beside the probe
    python -m benchmarks.finetune_network pans FOLDER                     # two classes that a mirror exchanges
    python -m benchmarks.finetune_network kills FOLDER [--seed 0]         # SIGKILL at five random moments

FOLDER is for the videos, which `benchmarks.finetune_data` renders if they are missing. `methods` trains at the learning
rate of the rule, at 4 times and at 16 times as much. It prints the accuracy and the log loss on the test videos: those
of the best epoch, which was chosen on the same videos, and those of the last one, which nobody chose. `kills` compares
a run that was killed and resumed with one that was not: the SHA-256 of the weights, and the losses in the log; it exits
with 1 if they differ. Linux and macOS only.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.finetune import finetune
from benchmarks.finetune_data import PANS, render
from timesformer_cli.jobs.finetune.optimisers import learning_rate

BATCH = 16
STOPS = 5


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_bytes().splitlines()]


def methods(folder: Path, scratch: Path, epochs: int, seed: int) -> None:
    run = scratch / "run"
    found, cost = finetune(folder, run)
    print("| method | rate | accuracy, best | log loss, best | accuracy, last | log loss, last | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    accuracy, loss = found["top_1"]["accuracy"]["value"], found["negative_log_likelihood"]
    print(f"| probe | | {accuracy:.3f} | {loss:.3f} | | | {cost:.0f} |", flush=True)
    for method in ("full", "last", "lora"):
        for times in (1, 4, 16):
            rate = times * learning_rate(BATCH, 10**8) * (10 if method == "lora" else 1)
            options = ["--method", method, "--batch-size", BATCH, "--lr", rate, "--epochs", epochs, "--seed", seed]
            found, cost = finetune(folder, run, "--overwrite", *options)
            best = found["network"]["measured"]
            last = next(line["validation"] for line in reversed(lines_of(run)) if "validation" in line)
            cells = [f"{each[name]:.3f}" for each in (best, last) for name in ("accuracy", "loss")]
            print(f"| {method} | {rate:.1e} (x {times}) | {' | '.join(cells)} | {cost:.0f} |", flush=True)


def pans(folder: Path, scratch: Path) -> None:
    render(folder, classes=PANS)
    options = ["--method", "full", "--batch-size", BATCH]
    found, cost = finetune(folder, scratch / "run", *options)
    network = found["network"]
    print(network["flips"]["reason"])
    print(f"probe: {network['probe']}; full: {network['measured']}; kept: {network['kept']}; {cost:.0f} CPU s")


def kills(folder: Path, scratch: Path, seed: int) -> bool:
    """Whether a run that is killed at random moments comes to the same as one that is not."""
    options: Sequence[object] = ["--method", "full", "--batch-size", BATCH, "--epochs", 12, "--lr", 5e-4]
    command = [sys.executable, "-m", "timesformer_cli", "-q", "finetune", folder / "train", "-m", "camera-motion"]
    whole, killed = ([str(word) for word in (*command, *options, "-o", scratch / name)] for name in ("whole", "killed"))
    begin = time.monotonic()
    subprocess.run(whole, stdout=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - begin
    rng = random.Random(seed)
    # Most of the run is training; a stop before it, while videos are read for the probe, is among them too.
    moments = [seconds * rng.uniform(0.1, 0.8) / 2 for _ in range(STOPS)]
    for moment in moments:
        process = subprocess.Popen([*killed, "--resume"], stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kept = scratch / "killed" / "checkpoints" / "last" / "progress.json"
        step = json.loads(kept.read_text())["step"] if kept.exists() else "none"
        print(f"killed after {moment:.1f} s; checkpoint of step {step}", flush=True)
    subprocess.run([*killed, "--resume"], stdout=subprocess.DEVNULL, check=True)
    files = [Path(folder, "model.safetensors") for folder in ("model", "checkpoints/best", "checkpoints/last")]
    digests = [
        [hashlib.sha256((scratch / name / file).read_bytes()).hexdigest() for file in files]
        for name in ("whole", "killed")
    ]
    losses = [
        [(line["step"], line.get("loss"), line.get("validation")) for line in lines_of(scratch / name)]
        for name in ("whole", "killed")
    ]
    steps = sum(loss is not None for _, loss, _ in losses[0])
    same = digests[0] == digests[1], losses[0] == losses[1]
    print(f"{steps} steps; the same model and checkpoints: {same[0]}; the same log: {same[1]}")
    for name, *pair in zip(files, *digests, strict=True):
        print(f"{name}: {pair[0][:16]} {pair[1][:16]}")
    return all(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("methods", "pans", "kills"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    try:
        if options.what == "pans":
            pans(options.folder, scratch)
        else:
            render(options.folder)
            if options.what == "methods":
                methods(options.folder, scratch, options.epochs, options.seed)
            elif not kills(options.folder, scratch, options.seed):
                sys.exit(1)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
