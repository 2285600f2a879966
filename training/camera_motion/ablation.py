"""TimeSformer's central ablation on camera motion: divided, joint and space-only attention, with all else equal.

    python training/camera_motion/test_set.py training/camera_motion/runs/test_set
    python training/camera_motion/ablation.py training/camera_motion/runs/test_set training/camera_motion/runs/ablation

Trains one network after the other on the same clips, for as many steps, from the same kind of start; makes a model
folder of each; measures them with `timesformer evaluate` on the output of `test_set.py`, compares them with the first,
and prints the table of docs/results.md. If it is stopped, run the same command again to continue.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from test_set import layouts
from train import make_config

from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.specs import AttentionType

HERE = Path(__file__).parent
ATTENTIONS: tuple[AttentionType, ...] = ("divided_space_time", "joint_space_time", "space_only")


def call(*command: str | Path) -> None:
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def measured(test_set: Path, folder: Path, attention: AttentionType, steps: int, seed: int) -> Path:
    """Train, bundle and evaluate one network; returns the folder of its evaluation."""
    run, model, evaluation = folder / attention, folder / attention / "model", folder / attention / "evaluation"
    call(HERE / "train.py", "--out", run, "--attention", attention, f"--steps={steps}", f"--seed={seed}")
    call(HERE / "bundle.py", run, model)
    arguments = [*layouts(test_set)["kinetics"], "--model", model, "--clips", "auto", "--output", evaluation]
    call("-m", "timesformer_cli", "evaluate", *arguments, "--resume")
    return evaluation


def compared(evaluations: list[Path]) -> list[dict[str, Any]]:
    """The results of `timesformer evaluate compare` for each but the first, against the first."""
    command = [sys.executable, "-m", "timesformer_cli", "evaluate", "compare", *evaluations, "--json"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    comparisons: list[dict[str, Any]] = found["comparisons"]
    return comparisons


def table(evaluations: list[Path]) -> str:
    """Markdown: a row for each of ATTENTIONS."""
    lines = ["| attention | parameters | top-1 | 95 % interval | right | against divided | 95 % interval | p |"]
    lines.append("|" + " --- |" * 8)
    comparisons = [None, *compared(evaluations)]
    for attention, evaluation, comparison in zip(ATTENTIONS, evaluations, comparisons, strict=True):
        metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
        top = metrics["top_1"]
        accuracy, size = top["accuracy"], sum(p.numel() for p in network(attention).parameters())
        cells = [f"`{attention}`", f"{size:,}", f"**{accuracy['value']:.1%}**", interval(accuracy, ".1%")]
        cells.append(f"{top['correct']} of {metrics['videos']}")
        if comparison:
            difference = comparison["difference"]
            p = comparison["p_value"]
            cells += [f"{difference['value']:+.1%}", interval(difference, "+.1%"), f"{p:.2g}"]
        lines.append("| " + " | ".join([*cells, *[""] * (8 - len(cells))]) + " |")
    return "\n".join(lines)


def interval(estimate: dict[str, float], form: str) -> str:
    return f"{estimate['low']:{form}} to {estimate['high']:{form}}"


def network(attention: AttentionType) -> TimesformerForVideoClassification:
    return TimesformerForVideoClassification(make_config(attention))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test_set", type=Path, help="folder that test_set.py wrote")
    parser.add_argument("folder", type=Path, help="folder for the three networks and their measurements")
    parser.add_argument("--steps", type=int, default=2000, help="number of batches to train each network on")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    evaluations = [measured(options.test_set, options.folder, a, options.steps, options.seed) for a in ATTENTIONS]
    print(table(evaluations))


if __name__ == "__main__":
    main()
