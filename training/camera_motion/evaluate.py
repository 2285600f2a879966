"""Measure a camera-motion model on clips made from stills that were never trained on.

    python training/camera_motion/evaluate.py --clips training/camera_motion/runs/clips \\
        timesformer_cli/bundled/camera-motion training/camera_motion/runs/space_only/model

Clips of 2 to 10 seconds, of many shapes and frame rates, are rendered and encoded to H.264 once, then
labelled through `timesformer predict`, as a user would. Prints Markdown: accuracy by class, the
confusion matrix, and how sure the model is of clear, mixed and tiny motions.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from encoding import REPEATABLE, encode
from numpy.typing import NDArray
from scenes import LABELS, LEVER, Motion, Scene, make_scene, motion_of
from textures import TEST_PHOTOS, Gray, library

SEED = 77  # not the seed of any training
PROCEDURAL_PICTURES = 60
SIZES = ((240, 320), (256, 340), (360, 640), (480, 854), (320, 240), (640, 360), (288, 288))
FRAME_RATES = (12, 15, 24, 25, 30, 30, 50, 60)


def draw_clear(rng: np.random.Generator, label: str) -> Motion:
    """A motion of one kind that a viewer would name at once, with a little of the others mixed in."""
    fastest = 0.9 if label.startswith(("pan", "tilt")) else 0.4
    speed = math.exp(rng.uniform(math.log(0.08), math.log(fastest)))
    others = rng.normal(0, 0.05, 4) * (0.1 if label == "static" else speed)
    speeds = motion_of(label, speed).speeds()
    pan, tilt, zoom, roll = np.where(speeds == 0, others, speeds)
    return Motion(pan, tilt, zoom / LEVER, roll / LEVER)


def draw_mixed(rng: np.random.Generator) -> Motion:
    """Two kinds of motion, equally fast."""
    speeds = np.zeros(4)
    speeds[rng.choice(4, 2, replace=False)] = rng.choice((-1, 1), 2) * rng.uniform(0.1, 0.35)
    return Motion(speeds[0], speeds[1], speeds[2] / LEVER, speeds[3] / LEVER)


def draw_tiny(rng: np.random.Generator) -> Motion:
    """A motion that hardly differs from standing still: three to four picture heights in 100 seconds."""
    return motion_of(LABELS[rng.integers(1, len(LABELS))], float(rng.uniform(0.03, 0.04)))


@dataclass(frozen=True)
class Clip:
    """A scene, and the file that it becomes."""

    scene: Scene
    height: int
    width: int
    fps: int
    grain: float  # standard deviation, gray levels
    crf: int

    def write(self, path: Path, rng: np.random.Generator) -> None:
        """Encode to H.264; `rng` draws the grain."""
        times = np.arange(round(self.scene.duration * self.fps)) / self.fps
        parts = (self.scene.render(times[i : i + 8], self.height, self.width)[..., 0] for i in range(0, len(times), 8))
        noisy = (picture for part in parts for picture in add_grain(rng, part, self.grain))
        encode(path, noisy, self.fps, {"crf": str(self.crf), "preset": "veryfast", **REPEATABLE})


def draw_clip(rng: np.random.Generator, pictures: Sequence[Gray], motion: Motion) -> Clip:
    """A clip of 2 to 10 seconds that shows `motion`."""
    # Slow moves may take long; fast ones would leave the still.
    longest = min(10.0, max(2.0, 1.6 / max(np.abs(motion.speeds()).max(), 0.01)))
    seconds = float(rng.uniform(2, longest))
    scene = make_scene(rng, pictures, motion, seconds, difficulty=float(rng.uniform(0, 1)))
    height, width = SIZES[rng.integers(len(SIZES))]
    fps = int(rng.choice(FRAME_RATES))
    grain = float(rng.exponential(3))
    return Clip(scene, height, width, fps, grain, crf=int(rng.integers(18, 32)))


def render(folder: Path, per_class: int) -> None:
    """Write the clips and `truth.json`, a list of [file name, kind, label]."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = library(TEST_PHOTOS, PROCEDURAL_PICTURES, SEED, unseen=True)
    wanted = [("clear", label) for label in LABELS for _ in range(per_class)]
    wanted += [("mixed", "")] * (2 * per_class) + [("tiny", "")] * (2 * per_class)
    truth = []
    for number, (kind, label) in enumerate(wanted):
        rng = np.random.default_rng((SEED, number))
        draw = {"mixed": draw_mixed, "tiny": draw_tiny}.get(kind)
        name = f"{number:04d}.mp4"
        draw_clip(rng, pictures, draw(rng) if draw else draw_clear(rng, label)).write(folder / name, rng)
        truth.append((name, kind, label))
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


def add_grain(rng: np.random.Generator, pixels: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def predict(folder: Path, model: str) -> dict[str, list[tuple[str, float]]]:
    """File name to (label, score), best first, from `timesformer predict`."""
    command = [sys.executable, "-m", "timesformer_cli", "predict", str(folder), "--model", model]
    output = subprocess.run([*command, "--format", "jsonl"], stdout=subprocess.PIPE, text=True, check=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    return {Path(record["path"]).name: [(p["label"], p["score"]) for p in record["predictions"]] for record in records}


def report(model: str, folder: Path, truth: list[tuple[str, str, str]]) -> None:
    answers = predict(folder, model)
    clear = [(label, *answers[name][0]) for name, kind, label in truth if kind == "clear"]
    right = np.mean([label == answer for label, answer, _ in clear])
    print(f"\n### {model}\n\nTop-1 on {len(clear)} clear clips: **{right:.1%}**\n")
    names = [label.replace("counter-clockwise", "ccw").replace("clockwise", "cw") for label in LABELS]
    print("| true \\ answered | " + " | ".join(names) + " | right |\n|" + " --- |" * (len(LABELS) + 2))
    for label, name in zip(LABELS, names, strict=True):
        row = [answer for true, answer, _ in clear if true == label]
        counts = [str(row.count(other) or "") for other in LABELS]
        print(f"| **{name}** | " + " | ".join(counts) + f" | {row.count(label) / len(row):.0%} |")
    print("\n| clips | median score of the first label | share with a score of at least 0.8 |\n| --- | --- | --- |")
    for wanted in ("clear", "mixed", "tiny"):
        scores = np.array([answers[name][0][1] for name, kind, _ in truth if kind == wanted])
        print(f"| {wanted} ({len(scores)}) | {np.median(scores):.2f} | {np.mean(scores >= 0.8):.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="model folders, or names that `timesformer predict` knows")
    parser.add_argument("--clips", type=Path, required=True, help="folder for the clips; kept and used again")
    parser.add_argument("--per-class", type=int, default=40)
    options = parser.parse_args()
    if not (options.clips / "truth.json").exists():
        render(options.clips, options.per_class)
    truth = json.loads((options.clips / "truth.json").read_text(encoding="utf-8"))
    for model in options.models:
        report(model, options.clips, truth)


if __name__ == "__main__":
    main()
