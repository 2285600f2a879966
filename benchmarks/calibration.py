"""Measure what `timesformer evaluate --calibrate` and `timesformer predict --min-precision` promise.

    python -m benchmarks.calibration simulate                # the temperature against SciPy's; broken promises
    python -m benchmarks.calibration render FOLDER           # clips that nothing was fitted on
    python -m benchmarks.calibration measure FOLDER          # camera-motion, made three times as sure as it is

`simulate` draws answers of classifiers that are exactly calibrated, so that the true precision of every threshold is
known: 500 sets of 1,000 videos for each precision. `render` writes `FOLDER/train/CLASS/` to calibrate with and
`FOLDER/test/CLASS/` to measure on: clips of the kinds that camera-motion knows, smaller, shorter and slower than those
that it learned from, so that it errs. They are made from images that no training had, and none that both share; a
stopped run continues. `measure` multiplies the head of camera-motion by three, calibrates that model with
`train/`, and measures it on `test/`; a stopped run continues.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.finetune_data import images, place
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.evaluation.calibration import HIGHEST, LOWEST, answers, calibration_error, fit, losses
from timesformer_cli.evaluation.calibration_file import Calibrated, sentences
from timesformer_cli.evaluation.precision import THRESHOLDS, Curve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training" / "camera_motion"))

from evaluate import Clip
from scenes import LABELS, LEVER, Motion, Scene, make_scene, motion_of
from textures import Gray

SEED = 2311  # not the seed of any training
SETS, VIDEOS = 500, 1000
PRECISIONS = (0.8, 0.9, 0.95)
TRAIN, TEST = 112, 168  # clips a class, of nine
TIMES = 3.0  # as sure as the model is
SIZES = ((96, 128), (128, 96), (112, 112))
FRAME_RATES = (8, 10, 12)
ONE = np.ones((1, 1))  # no temperature


def simulate() -> None:
    _against_scipy()
    print("\n| precision | broken | no threshold | coverage, mean | naive threshold: broken |\n|" + " --- |" * 5)
    rng = np.random.default_rng(SEED)
    scores = np.sort(_scores(rng, 400_000))[::-1]
    truth = np.cumsum(scores) / np.arange(1, len(scores) + 1)

    def true(threshold: float) -> tuple[float, float]:
        """Precision and coverage of a threshold."""
        kept = int((scores >= threshold).sum())
        return (float(truth[kept - 1]) if kept else 1.0), kept / len(scores)

    for precision in PRECISIONS:
        broken, none, naive, coverages = 0, 0, 0, []
        for _ in range(SETS):
            drawn = rng.choice(scores, VIDEOS)
            curve = Curve.of(drawn, rng.random(VIDEOS) < drawn)
            found = curve.find(precision)
            if found is None:
                none += 1
            else:
                reached, coverage = true(found.threshold)
                broken += reached < precision
                coverages.append(coverage)
            shares = [each for each in map(curve.at, THRESHOLDS) if each.kept]
            lowest = [each.threshold for each in shares if each.right >= precision * each.kept]
            naive += bool(lowest) and true(lowest[-1])[0] < precision
        shown = (broken / SETS, none / SETS, float(np.mean(coverages)) if coverages else 0.0, naive / SETS)
        print(f"| {precision:g} | " + " | ".join(f"{share:.1%}" for share in shown) + " |")


def _scores(rng: np.random.Generator, videos: int) -> NDArray[np.float64]:
    """The highest scores of a calibrated classifier of five classes, which is right 80 % of the time."""
    logits = 4 * rng.normal(size=(videos, 5))
    chances = np.exp(logits)
    found: NDArray[np.float64] = (chances / chances.sum(axis=1, keepdims=True)).max(axis=1)
    return found


def _against_scipy() -> None:
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(SEED)
    worst = 0.0
    for _ in range(100):
        videos, classes = int(rng.integers(50, 2000)), int(rng.integers(2, 30))
        true = 2 * rng.normal(size=(videos, classes))
        chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
        targets = (rng.random((videos, 1)) > np.cumsum(chances, axis=1)).sum(axis=1).clip(max=classes - 1)
        logits = (true * np.exp(rng.uniform(-1.5, 1.5))).astype(np.float32)

        def loss(temperature: float, z: NDArray[np.float32] = logits, y: NDArray[np.int64] = targets) -> float:
            return float(losses(z, y, np.full((1, 1), temperature)).mean())

        best = minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded", options={"xatol": 1e-10}).x
        worst = max(worst, abs(float(fit(logits, targets)[0]) - best))
    print(f"temperature against SciPy's bounded optimum, 100 sets: largest difference {worst:.1e}")


def draw(rng: np.random.Generator, pictures: Sequence[Gray], label: str) -> Clip:
    """A short clip of a slow motion with a share of others in it."""
    speed = math.exp(rng.uniform(math.log(0.04), math.log(0.25)))
    others = rng.normal(0, 0.22, 4) * (0.06 if label == "static" else speed)
    speeds = motion_of(label, speed).speeds()
    pan, tilt, zoom, roll = np.where(speeds == 0, others, speeds)
    motion = Motion(pan, tilt, zoom / LEVER, roll / LEVER)
    scene: Scene = make_scene(
        rng, pictures, motion, float(rng.uniform(1.6, 2.4)), difficulty=float(rng.uniform(0.3, 1))
    )
    height, width = SIZES[rng.integers(len(SIZES))]
    rate = int(rng.choice(FRAME_RATES))
    return Clip(scene, height, width, rate, grain=float(rng.exponential(3)), crf=int(rng.integers(20, 34)))


def render(folder: Path) -> None:
    """Write the missing clips, with one thread: frames this small take several of them longer."""
    import torch

    torch.set_num_threads(1)
    for part, (name, each) in enumerate((("train", TRAIN), ("test", TEST))):
        pictures = images((SEED, part), 2 * each)
        for label in LABELS:
            for number in range(each):
                target = place(folder, name, label, number)
                if target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                rng = np.random.default_rng((SEED, part, LABELS.index(label), number))
                draft = target.with_name(".draft.mp4")
                draw(rng, pictures, label).write(draft, rng)
                draft.rename(target)
            print(f"{name}: {label}", file=sys.stderr)


def sure_model(folder: Path) -> Path:
    """camera-motion with its head times three."""
    import torch

    from timesformer_cli import TimesformerForVideoClassification

    target = folder / "sure"
    model = TimesformerForVideoClassification.from_pretrained("camera-motion")
    head = model.classifier
    head.weight, head.bias = (torch.nn.Parameter(TIMES * each.detach()) for each in (head.weight, head.bias))
    model.save_pretrained(target)
    return target


def timesformer(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "timesformer_cli", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def measure(folder: Path) -> None:
    run, tested = folder / "calibrated", folder / "tested"
    model = sure_model(folder)
    options = ("--resume", "--workers", "1")
    calibrate = ("--calibrate", "--group-by", "none")
    metrics = json.loads(timesformer("evaluate", folder / "train", "-m", model, *calibrate, "-o", run, *options))
    _tell("clips to calibrate with, cross-validated", metrics["calibration"])
    timesformer("evaluate", folder / "test", "-m", run, "-o", tested, *options)
    with np.load(tested / "scores.npz") as file:
        logits, targets = file["logits"], file["target"]
    temperature = metrics["calibration"]["temperature"]
    measured = [(losses(z, targets, ONE), *answers(z, targets, ONE)) for z in (temperature * logits, logits)]
    (before, *_), (after, scores, right) = measured
    print(f"\ntemperature {temperature:.3f}, top-1 accuracy on the test clips {right.mean():.1%}")
    difference = after - before
    rng = np.random.default_rng(0)
    drawn = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(1000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    print(f"\n| {len(difference):,} test clips | before | after | difference (95 %) |\n|" + " --- |" * 4)
    change = f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f})"
    print(f"| log loss | {before.mean():.4f} | {after.mean():.4f} | {change} |")
    errors = [calibration_error(*each) for _, *each in measured]
    print("| calibration error | " + " | ".join(f"{error.value:.1%}" for error in errors) + " | |")
    print("| of a calibrated model | " + " | ".join(f"{e.low:.1%} to {e.high:.1%}" for e in errors) + " | |")
    _kept(Calibrated.read(resolve(str(run))).curve, scores, right)


def _kept(curve: Curve, scores: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
    """Precision and coverage of the answers to the test clips that are kept."""
    print("\n| precision asked for | threshold | kept | right | precision | coverage |\n|" + " --- |" * 6)
    for precision in (*PRECISIONS, 0.99):
        found = curve.find(precision)
        if found is None:
            print(f"| {precision:g} | none | | | | |")
            continue
        kept = scores >= found.threshold
        print(
            f"| {precision:g} | {found.threshold:g} | {kept.sum():,} of {len(kept):,} | {right[kept].sum():,} | "
            f"{right[kept].mean():.1%} | {kept.mean():.1%} |"
        )


def _tell(what: str, figures: dict[str, Any]) -> None:
    print(f"{what}:", *sentences(figures), sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("simulate").set_defaults(run=lambda _: simulate())
    for name, work in (("render", render), ("measure", measure)):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.set_defaults(run=partial(lambda work, arguments: work(arguments.folder), work))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
