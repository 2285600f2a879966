"""Time and memory to open a checkpoint of the base size, in every form, against reading its file and transformers.

    python -m benchmarks.load [--rounds 7]

Every figure is of a fresh process, after its imports; the programs run in alternation, and ratios are taken within a
round. "Open" ends when `from_pretrained` returns. Mapped weights may not have been read by then, so "open and read"
continues until every weight has been summed once. "Reading once" reads the weight files from beginning to end into one
buffer of 8 MiB. Memory is the peak of resident memory, mapped files included, beyond what the imports took.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from timesformer_cli.specs import TimesformerConfig

OURS, READING, THEIRS = "timesformer", "reading once", "transformers"


def opening(who: str, path: str) -> dict[str, float]:
    """Open a checkpoint in this process: seconds and peak MiB, until it is open and until it is read."""
    if who == READING:
        return reading(Path(path))
    if who == THEIRS:
        from transformers import TimesformerForVideoClassification
        from transformers.utils import logging

        logging.disable_progress_bar()
    else:
        from timesformer_cli.network.model import TimesformerForVideoClassification
    before, start = resident("VmRSS"), time.perf_counter()
    network = TimesformerForVideoClassification.from_pretrained(path)
    opened, peak_opened = time.perf_counter(), resident("VmHWM")
    assert all(torch.isfinite(parameter.sum()) for parameter in network.parameters())
    read, peak_read = time.perf_counter(), resident("VmHWM")
    return {
        "open, s": opened - start,
        "open and read, s": read - start,
        "open, peak MiB": peak_opened - before,
        "open and read, peak MiB": peak_read - before,
    }


def reading(path: Path) -> dict[str, float]:
    """Read the weight files; the figures of memory are the size of the files."""
    buffer = bytearray(8 << 20)
    total, start = 0, time.perf_counter()
    for file in [path] if path.is_file() else sorted(path.glob("*model*")):
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                total += count
    seconds, size = time.perf_counter() - start, total / 2**20
    return {"open, s": seconds, "open and read, s": seconds, "open, peak MiB": size, "open and read, peak MiB": size}


def resident(field: str) -> float:
    """MiB of resident memory now (VmRSS) or at its peak (VmHWM); Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def _folder(folder: Path, network: Any) -> Path:
    network.save_pretrained(folder)
    return folder


def _sharded(folder: Path, network: Any) -> Path:
    from safetensors.torch import save_file

    state, names = network.state_dict(), list(network.state_dict())
    files = {name: f"model-{i * 4 // len(names) + 1:05}-of-00004.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: state[name] for name in names if files[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    network.config.save_pretrained(folder)
    return folder


def _bin(folder: Path, network: Any) -> Path:
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    network.config.save_pretrained(folder)
    return folder


def _pyth(folder: Path, network: Any) -> Path:
    import yaml

    from testing.layouts import original_state

    # About as many settings beside the weights as the original code stores.
    settings: dict[str, Any] = {f"SECTION_{i}": {f"KEY_{j}": j for j in range(15)} for i in range(20)}
    settings["DATA"] = {"NUM_FRAMES": 8, "SAMPLING_RATE": 32, "TRAIN_CROP_SIZE": 224}
    content = {"epoch": 14, "model_state": original_state(network.state_dict()), "cfg": yaml.safe_dump(settings)}
    torch.save(content, folder / "base.pyth")
    return folder / "base.pyth"


def _mmaction2(folder: Path, network: Any) -> Path:
    from testing.layouts import save_mmaction2

    return save_mmaction2(folder / "base.pth", network.state_dict())


FORMS: dict[str, Callable[[Path, Any], Path]] = {
    "model.safetensors": _folder,
    "4 shards of safetensors": _sharded,
    "pytorch_model.bin": _bin,
    "the original's .pyth": _pyth,
    "mmaction2's .pth": _mmaction2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--open", nargs=2, metavar=("WHO", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(opening(*arguments.open)))
        return
    from timesformer_cli.network.model import TimesformerForVideoClassification

    network = TimesformerForVideoClassification(TimesformerConfig(num_labels=400))
    print(f"Python {platform.python_version()}, torch {torch.__version__}; {os.cpu_count()} cores")
    print(f"median of {arguments.rounds} rounds; ratios with the lowest and the highest\n")
    print(f"| file | figure | {OURS} | {READING} | ratio | {THEIRS} | ratio |\n|{' --- |' * 7}")
    for form, write in FORMS.items():
        who = [OURS, READING] + [THEIRS] * (write in (_folder, _sharded, _bin))
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), network)
            rounds = [{name: measure(name, path) for name in who} for _ in range(arguments.rounds)]
        for figure in rounds[0][OURS]:
            ours = [r[OURS][figure] for r in rounds]
            cells = [form, figure, f"{statistics.median(ours):.3g}"]
            for other in who[1:]:
                figures = [r[other][figure] for r in rounds]
                cells += [
                    f"{statistics.median(figures):.3g}",
                    spread([a / b for a, b in zip(ours, figures, strict=True)]),
                ]
            print(f"| {' | '.join(cells + [''] * (7 - len(cells)))} |", flush=True)


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"


def measure(who: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", "--open", who, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
