"""Make the videos that `timesformer finetune` is measured on: motions that `camera-motion` does not know.

    python -m benchmarks.finetune_data render FOLDER             # 36 videos a class to train on, 24 to test
    python -m benchmarks.finetune_data pans FOLDER               # as many of "A" and "B", pans to left and right
    python -m benchmarks.finetune_data look-alikes FOLDER        # which copies of them the frame hashes find
    python -m benchmarks.finetune_data phone FOLDER              # 40 clips with the names and flaws of a phone's

`FOLDER/train/CLASS/` and `FOLDER/test/CLASS/` are H.264 of 1.6 to 3 seconds, with sides of 120 to 240 pixels. The
generator of `camera-motion` renders them from images that no training had, and none that both share. The seed decides
everything, and a stopped run continues where it was. `FOLDER/copies/` has 12 of the test videos again: re-encoded at
3/4 of the size with CRF 32, and with the first quarter cut off.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from testing.stamped import write_video
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import prepare_spans
from timesformer_cli.video.hashes import LOOK_ALIKE, distance, look_alikes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training" / "camera_motion"))

from encoding import REPEATABLE, encode
from evaluate import Clip
from scenes import LEVER, Motion, Scene, Wobble, make_scene, make_sprite
from textures import TRAIN_FAMILIES, UNSEEN_FAMILIES, Gray, procedural

SEED = 1905  # not the seed of any training, nor of the test set of camera-motion
TRAIN, TEST = 36, 24  # videos a class
COPIED = 12
SIZES = ((120, 160), (160, 120), (136, 240), (180, 240), (240, 180), (144, 192), (160, 160))
FRAME_RATES = (12, 15, 24, 25, 30)

Draw = Callable[[np.random.Generator, Sequence[Gray], float], Scene]


def shake(rng: np.random.Generator, pictures: Sequence[Gray], seconds: float) -> Scene:
    """A hand that trembles, quickly and without a direction."""
    scene = make_scene(rng, pictures, Motion(), seconds, difficulty=float(rng.uniform(0, 1)))
    size = rng.uniform(0.01, 0.04) * rng.exponential(0.5, (3, 4))
    frequency, phase = rng.uniform(3, 8, (3, 4)), rng.uniform(0, 2 * np.pi, (3, 4))
    return replace(scene, wobble=Wobble(np.stack([size, frequency, phase], -1)))


def sway(rng: np.random.Generator, pictures: Sequence[Gray], seconds: float) -> Scene:
    """A slow swing to and fro, mostly sideways."""
    scene = make_scene(rng, pictures, Motion(), seconds, difficulty=float(rng.uniform(0, 1)))
    angle, frequency = rng.normal(0, 0.4), rng.uniform(0.5, 1.1)
    size, phase = rng.uniform(0.06, 0.2), rng.uniform(0, 2 * np.pi)
    across, down = ((size * share, frequency, phase) for share in (np.cos(angle), np.sin(angle)))
    return replace(scene, wobble=Wobble(np.array([[across], [down], [(0.0, frequency, phase)]])))


def object_crosses(rng: np.random.Generator, pictures: Sequence[Gray], seconds: float) -> Scene:
    """A camera that stands still, and one large object that goes from side to side."""
    scene = make_scene(rng, pictures, Motion(), seconds, difficulty=float(rng.uniform(0, 0.5)))
    size, side = float(rng.uniform(0.3, 0.7)), float(rng.choice((-1.0, 1.0)))
    way = side * float(rng.uniform(0.8, 1.2))
    sprite = replace(
        make_sprite(rng, pictures, size, 0.0),
        start=(-way / 2, float(rng.uniform(-0.25, 0.25))),
        velocity=(way / seconds, float(rng.normal(0, 0.04))),
        spin=float(rng.normal(0, 0.3)),
        follows=0.0,
    )
    return replace(scene, sprites=(sprite,))


def diagonal(rng: np.random.Generator, pictures: Sequence[Gray], seconds: float) -> Scene:
    """Pan and tilt at once, about equally fast."""
    pan, tilt = rng.choice((-1, 1), 2) * rng.uniform(0.1, 0.5) * rng.uniform(0.8, 1.25, 2)
    motion = Motion(pan=float(pan), tilt=float(tilt))
    return make_scene(rng, pictures, motion, seconds, difficulty=float(rng.uniform(0, 1)))


def spiral(rng: np.random.Generator, pictures: Sequence[Gray], seconds: float) -> Scene:
    """Zoom and roll at once, about equally fast."""
    zoom, roll = rng.choice((-1, 1), 2) * rng.uniform(0.08, 0.3) * rng.uniform(0.8, 1.25, 2) / LEVER
    motion = Motion(zoom=float(zoom), roll=float(roll))
    return make_scene(rng, pictures, motion, seconds, difficulty=float(rng.uniform(0, 1)))


def pan(rng: np.random.Generator, pictures: Sequence[Gray], seconds: float, way: int) -> Scene:
    """A pan of the camera: to the left if `way` is -1, to the right if it is 1."""
    motion = Motion(pan=way * float(rng.uniform(0.1, 0.5)))
    return make_scene(rng, pictures, motion, seconds, difficulty=float(rng.uniform(0, 1)))


CLASSES: dict[str, Draw] = {
    "shake": shake,
    "sway": sway,
    "object crosses": object_crosses,
    "diagonal": diagonal,
    "spiral": spiral,
}

# Classes that a mirror exchanges, under names that do not tell.
PANS: dict[str, Draw] = {"A": partial(pan, way=-1), "B": partial(pan, way=1)}


def draw_clip(rng: np.random.Generator, pictures: Sequence[Gray], draw: Draw) -> Clip:
    """A clip of 1.6 to 3 seconds."""
    scene = draw(rng, pictures, float(rng.uniform(1.6, 3)))
    height, width = SIZES[rng.integers(len(SIZES))]
    return Clip(
        scene,
        height,
        width,
        int(rng.choice(FRAME_RATES)),
        grain=float(rng.exponential(3)),
        crf=int(rng.integers(18, 32)),
    )


def images(seed: Sequence[int], count: int) -> list[Gray]:
    """Procedural stills of all families in turn."""
    rng = np.random.default_rng(seed)
    families = UNSEEN_FAMILIES + TRAIN_FAMILIES
    return [procedural(families[number % len(families)], rng) for number in range(count)]


def render(
    folder: Path, train: int = TRAIN, test: int = TEST, seed: int = SEED, classes: Mapping[str, Draw] = CLASSES
) -> None:
    """Write the missing videos of `train/` and `test/`, so many of each class: `CLASS/0001.mp4` and so on.

    It computes with one thread: frames this small take several of them longer.
    """
    torch.set_num_threads(1)
    for part, (name, each) in enumerate((("train", train), ("test", test))):
        wanted = [(label, number) for label in classes for number in range(each)]
        missing = [pair for pair in wanted if not place(folder, name, *pair).exists()]
        if not missing:
            continue
        pictures = images((seed, part), 2 * each)
        for done, (label, number) in enumerate(missing):
            rng = np.random.default_rng((seed, part, list(classes).index(label), number))
            target = place(folder, name, label, number)
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(".draft.mp4")
            draw_clip(rng, pictures, classes[label]).write(draft, rng)
            draft.rename(target)
            if (done + 1) % 20 == 0:
                print(f"{name}: {done + 1} of {len(missing)} videos", file=sys.stderr)


# A quarter turn to the right, as phones that are held upright record it.
UPRIGHT = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)


def phone(folder: Path, seed: int = SEED) -> None:
    """Write 40 clips of the five classes as they come off a phone: `CLASS/IMG_0001.MOV` and so on, in order of time.

    They are of 1 to 9 seconds, at 30 or 60 frames per second, and half of them are upright by a display matrix. One is
    cut off, and one is empty.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng((seed, 2))
    pictures = images((seed, 3), 20)
    labels = rng.permutation(np.repeat(list(CLASSES), 8))
    for number, label in enumerate(labels):
        target = folder / label / f"IMG_{number + 1:04d}.MOV"
        target.parent.mkdir(parents=True, exist_ok=True)
        scene = CLASSES[label](rng, pictures, float(np.exp(rng.uniform(0, np.log(9)))))
        fps, upright = int(rng.choice((30, 60))), bool(rng.random() < 0.5)
        times = np.arange(round(scene.duration * fps)) / fps
        gray = scene.render(times, *((320, 180) if upright else (180, 320)))
        frames = np.rot90(gray, 1, (1, 2)) if upright else gray
        options = {"crf": "26", "preset": "veryfast", **REPEATABLE}
        # Phones write the index behind the frames, so what is cut off cannot be read.
        write_video(
            target,
            np.ascontiguousarray(frames.repeat(3, -1)),
            rate=fps,
            options=options,
            matrix=UPRIGHT * upright or None,
        )
        if number in (12, 33):
            target.write_bytes(target.read_bytes()[: 5000 if number == 12 else 0])


def place(folder: Path, part: str, label: str, number: int) -> Path:
    return folder / part / label / f"{number + 1:04d}.mp4"


def copied(folder: Path) -> list[Path]:
    """The test videos that have copies: some of each class."""
    videos = sorted((folder / "test").rglob("[0-9]*.mp4"))
    return videos[:: max(len(videos) // COPIED, 1)][:COPIED]


def copy(folder: Path) -> dict[str, list[Path]]:
    """Write `copies/reencoded/` and `copies/trimmed/`: 3/4 of the size with CRF 32, and without the first quarter."""
    made: dict[str, list[Path]] = {"reencoded": [], "trimmed": []}
    for source in copied(folder):
        frames, rate = frames_of(source)
        height, width = frames.shape[1:3]
        smaller = [
            av.VideoFrame.from_ndarray(frame, format="rgb24")
            .reformat(width=width * 3 // 8 * 2, height=height * 3 // 8 * 2)
            .to_ndarray(format="rgb24")
            for frame in frames
        ]
        for kind, pictures, crf in (("reencoded", smaller, 32), ("trimmed", frames[len(frames) // 4 :], 23)):
            target = folder / "copies" / kind / f"{source.parent.name} {source.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            encode(target, pictures, rate, {"crf": str(crf), "preset": "veryfast", **REPEATABLE})
            made[kind].append(target)
    return made


def frames_of(path: Path) -> tuple[NDArray[np.uint8], int]:
    """All frames, uint8 (T, H, W, 3), and the frame rate."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert rate is not None
    return np.stack(frames), round(rate)


def hashes_of(paths: Iterable[Path]) -> list[NDArray[np.uint64]]:
    """The hashes that training keeps of each video, with the recipe of `camera-motion`."""
    recipe = resolve("camera-motion").recipe
    found = []
    for path in paths:
        (views,) = prepare_spans(Item(str(path)), recipe, hashes=True)
        assert views.hashes is not None
        found.append(views.hashes)
    return found


def measure(folder: Path) -> None:
    """Print the copies that are found among all videos, and the pairs that are found but are none."""
    render(folder)
    copies = copy(folder)
    videos = sorted(chain((folder / "train").rglob("[0-9]*.mp4"), (folder / "test").rglob("[0-9]*.mp4")))
    begun = time.process_time()
    hashes = hashes_of(videos)
    print(f"{len(videos)} videos read and hashed in {time.process_time() - begun:.1f} s of a core")
    others = sorted(distance(first, second) for first, second in combinations(hashes, 2))
    print(f"different videos: nearest {others[0]:g}, 1 in 10,000 {others[len(others) // 10_000]:g}, 1 % ", end="")
    print(f"{others[len(others) // 100]:g}, median {statistics.median(others):g}; at most {LOOK_ALIKE}: ", end="")
    print(f"{sum(each <= LOOK_ALIKE for each in others)} of {len(others)} pairs")
    for kind, paths in copies.items():
        originals = [hashes[videos.index(source)] for source in copied(folder)]
        found = [distance(*pair) for pair in zip(originals, hashes_of(paths), strict=True)]
        near = sum(each <= LOOK_ALIKE for each in found)
        print(f"{kind}: {near} of {len(found)} found; distances {', '.join(f'{each:g}' for each in sorted(found))}")
    crowd = np.random.default_rng(0).integers(0, 2**64, (10_000, 8), np.uint64)
    begun = time.process_time()
    pairs = sum(1 for _ in look_alikes(crowd))
    print(f"10,000 made-up videos compared in {time.process_time() - begun:.1f} s of a core: {pairs} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "pans", "look-alikes", "phone"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    pans = partial(render, classes=PANS)
    {"render": render, "pans": pans, "look-alikes": measure, "phone": phone}[options.what](options.folder)


if __name__ == "__main__":
    main()
