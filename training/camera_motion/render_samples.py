"""Render the clips of `sample_videos/`: short, real, encoded videos whose camera motion is known.

    python training/camera_motion/render_samples.py sample_videos

The stills are drawn by `textures` or are photographs under CC0 that scikit-image ships; none was
trained on.
"""

import argparse
import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from encoding import encode
from numpy.typing import NDArray
from PIL import Image
from scenes import Motion, Scene, Sprite, make_sprite, make_wobble
from textures import TRAIN_FAMILIES, UNSEEN_FAMILIES, photograph_path, procedural
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One file: its consecutive moves, and its encoding."""

    name: str
    label: str
    moves: tuple[tuple[Motion, float], ...]  # each with its seconds
    still: str
    scale: float
    height: int = 360
    width: int = 640
    fps: int = 30
    codec: str = "libx264"
    sprites: int = 0


SAMPLES = (
    Sample("pan_left.mp4", "pan left", ((Motion(pan=-0.28), 5.0),), "town", 0.5),
    Sample(
        "pan_right_then_tilt_up.mp4",
        "pan right",
        ((Motion(pan=0.3), 4.0), (Motion(tilt=0.3), 2.0)),
        "leaves",
        0.34,
        fps=24,
    ),
    Sample("tilt_up_portrait.mp4", "tilt up", ((Motion(tilt=0.2), 4.0),), "town", 0.5, height=640, width=360),
    Sample("tilt_down.mkv", "tilt down", ((Motion(tilt=-0.25), 3.0),), "leaves", 0.45, fps=25),
    Sample("zoom_in.webm", "zoom in", ((Motion(zoom=0.25), 4.0),), "coffee.png", 0.42, codec="libvpx-vp9", fps=25),
    Sample("zoom_out.mp4", "zoom out", ((Motion(zoom=-0.3), 3.0),), "chelsea.png", 0.5, width=480, fps=60),
    Sample("roll_clockwise.mkv", "roll clockwise", ((Motion(roll=0.35), 4.0),), "chelsea.png", 0.6, width=480),
    Sample(
        "roll_counter_clockwise.webm",
        "roll counter-clockwise",
        ((Motion(roll=-0.3), 3.0),),
        "coffee.png",
        0.6,
        codec="libvpx",
    ),
    Sample("static_with_traffic.mp4", "static", ((Motion(), 5.0),), "town", 0.55, fps=25, sprites=4),
)


def still(name: str, rng: np.random.Generator) -> Tensor:
    """A colour picture, float32 (3, h, w): a CC0 photograph, or a procedural one between two tints."""
    if "." in name:
        picture = np.asarray(Image.open(photograph_path("skimage", name)).convert("RGB"))
        return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)
    family = next(f for f in TRAIN_FAMILIES + UNSEEN_FAMILIES if f.__name__ == name)
    gray = procedural(family, rng).astype(np.float32) / 255
    dark, light = rng.uniform(0, 70, 3), rng.uniform(170, 255, 3)
    tinted = dark[:, None, None] + gray * (light - dark)[:, None, None]
    return torch.from_numpy(tinted.astype(np.float32))


def coloured(sprite: Sprite, rng: np.random.Generator) -> Sprite:
    tint = torch.from_numpy(rng.uniform(0.3, 1, (3, 1, 1)).astype(np.float32))
    return replace(sprite, picture=torch.cat([sprite.picture[:1] * tint, sprite.picture[1:]]))


def frames_of(sample: Sample, rng: np.random.Generator) -> NDArray[np.uint8]:
    """All frames, uint8 (T, H, W, 3). Each move begins where the previous one ended."""
    picture = still(sample.still, rng)
    rows, columns = picture.shape[1:]
    gray = [np.asarray(Image.fromarray(picture.mean(0).numpy().astype(np.uint8)))]
    sprites = tuple(
        coloured(
            replace(make_sprite(rng, gray, 0.16, 0.0), start=(-1.1 + 0.3 * i, 0.32), velocity=(0.25 + 0.1 * i, 0.0)),
            rng,
        )
        for i in range(sample.sprites)
    )
    unit = 2 * sample.scale * min(rows, columns)
    parts = []
    # grid_sample's coordinates of the middle of the frame, here and at the start of the next move.
    here = -path_of(*sample.moves[0], unit, rows, columns) / 2
    for motion, seconds in sample.moves:
        path = path_of(motion, seconds, unit, rows, columns)
        middle = here + path / 2
        scene = Scene(
            picture=picture,
            motion=motion,
            duration=seconds,
            scale=sample.scale,
            centre=(float(middle[0]), float(middle[1])),
            focal=50.0,  # so long that consecutive moves join without a jump in perspective
            wobble=make_wobble(rng, 0.002) if len(sample.moves) == 1 else None,
            sprites=sprites,
        )
        times = np.arange(round(seconds * sample.fps)) / sample.fps
        parts.append(
            np.concatenate(
                [scene.render(times[i : i + 16], sample.height, sample.width) for i in range(0, len(times), 16)]
            )
        )
        here = here + path
    return np.concatenate(parts)


def path_of(motion: Motion, seconds: float, unit: float, rows: int, columns: int) -> NDArray[np.float64]:
    """The way of the frame's middle across the still during a move, in grid_sample's coordinates (x, y)."""
    return np.array([motion.pan * unit / columns, -motion.tilt * unit / rows]) * seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("path", "label"))
        for number, sample in enumerate(SAMPLES):
            options = {"crf": "24", "preset": "slow"} if sample.codec == "libx264" else {"crf": "32", "b": "600k"}
            frames = frames_of(sample, np.random.default_rng(number))
            encode(folder / sample.name, frames, sample.fps, options, sample.codec)
            table.writerow((sample.name, sample.label))


if __name__ == "__main__":
    main()
