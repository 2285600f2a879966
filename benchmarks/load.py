"""Time and memory to open a checkpoint of the base size: this package against transformers.

    python -m benchmarks.load [--rounds 7]

Every opening happens in a fresh process, after its imports; the two take turns, and the ratio is taken within a round.
"Open" ends when `from_pretrained` returns; mapped weights may not have been read by then, so "open and read" goes on
until every weight has been summed once. Memory is the peak of resident memory over what the imports took.
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
from pathlib import Path

import torch

WHO = ("timesformer", "transformers")


def opening(who: str, folder: str) -> dict[str, float]:
    """Open `folder` in this process: seconds and peak MiB, until opened and until read."""
    if who == "transformers":
        from transformers import TimesformerForVideoClassification
        from transformers.utils import logging

        logging.disable_progress_bar()
    else:
        from timesformer_cli.model import TimesformerForVideoClassification
    before, start = resident("VmRSS"), time.perf_counter()
    network = TimesformerForVideoClassification.from_pretrained(folder)
    opened, peak_opened = time.perf_counter(), resident("VmHWM")
    assert all(torch.isfinite(parameter.sum()) for parameter in network.parameters())
    read, peak_read = time.perf_counter(), resident("VmHWM")
    return {
        "open, s": opened - start,
        "open, MiB": peak_opened - before,
        "open and read, s": read - start,
        "open and read, MiB": peak_read - before,
    }


def resident(field: str) -> float:
    """MiB of resident memory now (VmRSS) or at its peak (VmHWM); Linux alone tells."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def write_checkpoint(folder: str, form: str) -> None:
    from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification

    network = TimesformerForVideoClassification(TimesformerConfig(num_labels=400))
    network.save_pretrained(folder)
    if form == "pytorch_model.bin":
        (Path(folder) / "model.safetensors").unlink()
        torch.save(network.state_dict(), Path(folder) / form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--open", nargs=2, metavar=("WHO", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(opening(*arguments.open)))
        return
    print(f"Python {platform.python_version()}, torch {torch.__version__}; {os.cpu_count()} cores")
    print(f"median of {arguments.rounds} rounds\n\n| file | figure | {' | '.join(WHO)} | ratio (lowest, highest) |")
    print("| --- | --- | --- | --- | --- |")
    for form in ("model.safetensors", "pytorch_model.bin"):
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(folder, form)
            rounds = [{who: measure(who, folder) for who in WHO} for _ in range(arguments.rounds)]
        for figure in rounds[0][WHO[0]]:
            ours, theirs = ([r[who][figure] for r in rounds] for who in WHO)
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            middle = statistics.median
            cells = f"{middle(ours):.3g} | {middle(theirs):.3g} | {middle(ratios):.2f}"
            print(f"| {form} | {figure} | {cells} ({min(ratios):.2f}, {max(ratios):.2f}) |", flush=True)


def measure(who: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", "--open", who, folder]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
