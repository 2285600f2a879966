"""A small dataset of gestures: a disc for a hand that circles, lifts, pushes or swipes, in front of people's wallpaper.

    python -m testing.gestures gestures

It is laid out as a videofolder of Hugging Face: `train/ann_01.mp4` and so on, with `train/metadata.csv`, and likewise
`test`. Six people are in `train`, and two others in `test`. Each makes each gesture twice, with their own wallpaper,
hand and speed. One label in `train` is wrong, as happens to people who label.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TRAIN = ("ann", "ben", "cleo", "dan", "eve", "finn")
TEST = ("gil", "hana")
WIDTH, HEIGHT, RATE, FRAMES = 96, 72, 15, 24

# The place of the hand, right and down in widths of the frame, and its size, from -1 at the start to 1 at the end.
GESTURES: dict[str, Callable[[float], tuple[float, float, float]]] = {
    "circle": lambda time: (0.2 * np.cos(np.pi * time), 0.2 * np.sin(np.pi * time), 1.0),
    "lift": lambda time: (0.0, -0.3 * time, 1.0),
    "push": lambda time: (0.0, 0.0, 1.2 + 0.7 * time),
    "swipe": lambda time: (0.4 * time, 0.0, 1.0),
}

# One of the videos, and the gesture that its row says instead of its own.
WRONG = ("cleo", "swipe", "lift")


def write(folder: Path, people: Sequence[str] = TRAIN, takes: int = 2) -> Path:
    """Write the dataset, with these people in `train`; returns `folder`. A person's videos are always the same."""
    for split, names in (("train", people), ("test", TEST)):
        (folder / split).mkdir(parents=True)
        rows = [row for person in names for row in _write_person(folder / split, person, takes)]
        with (folder / split / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("file_name", "label"), *rows])
    return folder


def _write_person(folder: Path, person: str, takes: int) -> Iterator[tuple[str, str]]:
    """Write the videos of a person; gives the name and the label of each."""
    rng = np.random.default_rng((*TRAIN, *TEST).index(person))
    wallpaper = rng.integers(0, 160, (HEIGHT // 6, WIDTH // 6, 3)).repeat(6, axis=0).repeat(6, axis=1)
    hand, size, speed = rng.integers(170, 256, 3), rng.uniform(0.13, 0.19), rng.uniform(0.8, 1.2)
    for number in range(takes * len(GESTURES)):
        take, place = divmod(number, len(GESTURES))
        gesture, name = list(GESTURES)[place], f"{person}_{number + 1:02}.mp4"
        times = speed * np.linspace(-1, 1, FRAMES) + rng.uniform(-0.1, 0.1)
        middle = rng.uniform(-0.1, 0.1, 2)
        _encode(folder / name, [_frame(wallpaper, hand, size, middle, GESTURES[gesture](time)) for time in times])
        wrong = take == 0 and (person, gesture) == WRONG[:2]
        yield name, WRONG[2] if wrong else gesture


def _frame(
    wallpaper: NDArray[np.int64],
    hand: NDArray[np.int64],
    size: float,
    middle: NDArray[np.float64],
    at: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """uint8 (HEIGHT, WIDTH, 3)."""
    right, down, scale = at
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    away = np.hypot(x / WIDTH - 0.5 - middle[0] - right, (y - HEIGHT / 2) / WIDTH - middle[1] - down)
    return np.where(away[..., None] < size * scale, hand, wallpaper).astype(np.uint8)


def _encode(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "24"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(f"{write(parser.parse_args().folder)}: the videos are made")


if __name__ == "__main__":
    main()
