"""Copies that `timesformer dedup` finds, what it takes for copies that are none, and its time for an hour of film.

python -m benchmarks.dedup copies FOLDER
python -m benchmarks.dedup negatives FOLDER
python -m benchmarks.dedup hour FOLDER
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frames = NDArray[np.uint8]  # (T, H, W, 3)

# Clips of different scenes, among the videos that the tests share, and the most seconds of each that are used.
CLIPS = (
    *("arm_wrestling.mp4", "ucf_apply_eye_makeup.avi", "clean_and_jerk.mp4", "tai_chi.mp4", "flipping_pancake.mkv"),
    *("eating_spaghetti.mp4", "hitting_baseball.mp4", "yoga_outdoors.mp4", "weightlifting_19.62fps.mp4"),
    *("ntu_drink_water_1080p.avi", "cricket_shot.gif", "archery_720p.mp4", "sign_language_eat.mkv", "dog_petting.mp4"),
    *("egocentric_stirring_pan.mp4", "drumming_portrait.mp4", "skateboarding_dog_fragmented.mp4"),
    *("bottles_long_gop.mp4", "seek_needs_first_packet_444.mp4", "two_video_streams_nasa.mp4", "vp8_30s.webm"),
    *("h263_vfr_phone.3gp", "mpeg4_avi_96_of_98.avi"),
)
SECONDS = 20
FILM = "bottles_long_gop.mp4"  # 640 x 360, H.264


def resized(frames: Frames, width: int, height: int) -> Frames:
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height))) for each in frames])


def half_size(frames: Frames) -> Frames:
    return resized(frames, frames.shape[2] // 4 * 2, frames.shape[1] // 4 * 2)


def brighter(frames: Frames) -> Frames:
    return (frames.astype(np.float32) * 1.25 + 20).clip(0, 255).astype(np.uint8)


def cropped(frames: Frames) -> Frames:
    """Without 5 % on each side."""
    down, right = frames.shape[1] // 20, frames.shape[2] // 20
    return frames[:, down:-down, right:-right]


def with_logo(frames: Frames) -> Frames:
    height, width = frames.shape[1:3]
    shown = []
    for frame in frames:
        image = Image.fromarray(frame)
        draw = ImageDraw.Draw(image)
        box = (width * 0.72, height * 0.06, width * 0.94, height * 0.2)
        draw.rectangle(box, fill=(250, 210, 40))
        draw.ellipse((box[0] + 4, box[1] + 4, box[0] + height * 0.12, box[3] - 4), fill=(20, 30, 160))
        shown.append(np.asarray(image))
    return np.stack(shown)


def with_bars(frames: Frames) -> Frames:
    """A sixth of the height more, black, above and below."""
    bar = frames.shape[1] // 12 * 2
    return np.pad(frames, ((0, 0), (bar, bar), (0, 0), (0, 0)))


def gray(frames: Frames) -> Frames:
    return np.stack([np.asarray(Image.fromarray(each).convert("L").convert("RGB")) for each in frames])


# Each change of the frames, the factor of the frame rate, and the quality (CRF) of the encoding.
CHANGES: dict[str, tuple[Callable[[Frames], Frames], Fraction, int]] = {
    "quality": (lambda frames: frames, Fraction(1), 42),
    "half the size": (half_size, Fraction(1), 28),
    "brighter": (brighter, Fraction(1), 28),
    "cropped": (cropped, Fraction(1), 28),
    "logo": (with_logo, Fraction(1), 28),
    "black bars": (with_bars, Fraction(1), 28),
    "half the rate": (lambda frames: frames[::2], Fraction(1, 2), 28),
    "late start": (lambda frames: frames, Fraction(1), 28),
    "mirrored": (lambda frames: frames[:, :, ::-1], Fraction(1), 28),
    "gray": (gray, Fraction(1), 28),
}
LATE = 0.5  # seconds

DEDUP = [sys.executable, "-m", "timesformer_cli", "dedup"]


def read(path: Path) -> tuple[Frames, Fraction]:
    """The frames of the first seconds, and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        rate = Fraction(stream.average_rate or 25).limit_denominator(1000)
        frames = [
            frame.to_ndarray(format="rgb24")
            for frame in itertools.islice(container.decode(stream), int(rate * SECONDS))
        ]
    return np.stack(frames), rate


def write(path: Path, frames: Frames, rate: Fraction, crf: int = 28) -> None:
    """H.264; frames of odd size lose a row or column."""
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    draft = path.with_name(f".draft{path.suffix}")
    with av.open(str(draft), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for each in frames:
            pixels = np.ascontiguousarray(each[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    draft.rename(path)


def make_copies(videos: Path, folder: Path) -> None:
    """Write `originals/` and `copies/CHANGE/`, as far as they are missing."""
    for name in CLIPS:
        original = folder / "originals" / f"{Path(name).stem}.mp4"
        original.parent.mkdir(parents=True, exist_ok=True)
        targets = {change: folder / "copies" / change / original.name for change in CHANGES}
        if original.exists() and all(target.exists() for target in targets.values()):
            continue
        frames, rate = read(videos / name)
        write(original, frames, rate, 18)
        for change, (make, speed, crf) in CHANGES.items():
            targets[change].parent.mkdir(parents=True, exist_ok=True)
            first = round(LATE * rate) if change == "late start" else 0
            write(targets[change], make(frames[first:]), rate * speed, crf)


def found_in(output: Path, *inputs: Path) -> list[dict[str, Any]]:
    """The rows of `timesformer dedup`; hashes of an earlier run are used."""
    output.unlink(missing_ok=True)
    subprocess.run([*DEDUP, *map(str, inputs), "-o", str(output), "--resume"], check=True)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def copies(videos: Path, folder: Path) -> None:
    """Print how many copies of each change are in the group of their original, and the pairs of different clips."""
    make_copies(videos, folder)
    rows = found_in(folder / "copies.jsonl", folder / "originals", folder / "copies")
    group = {row[name]: row["group"] for row in rows for name in ("path", "other")}
    for change in CHANGES:
        made = sorted((folder / "copies" / change).glob("*.mp4"))
        missed = [
            path.stem
            for path in made
            if group.get(str(path), 0) != group.get(str(folder / "originals" / path.name), -1)
        ]
        print(f"{change}: {len(made) - len(missed)} of {len(made)}{'; missed ' if missed else ''}{', '.join(missed)}")
    false = [row for row in rows if Path(row["path"]).stem != Path(row["other"]).stem]
    pairs = len(CLIPS) * (len(CLIPS) - 1) // 2
    print(f"false: {len(false)} rows; {pairs} pairs of different clips, {pairs * (len(CHANGES) + 1) ** 2:,} of copies")
    for row in false:
        print(f"  {row['path']} {row['other']} {row['similarity']} {row['reason']}")


def slides(title: str, seed: int) -> Frames:
    """Ten seconds of five slides of one template: a title, lines of text, one box."""
    rng = np.random.default_rng(seed)
    shown = []
    for number in range(5):
        image = Image.new("RGB", (640, 360), (250, 250, 250))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, 640, 50), fill=(30, 60, 120))
        draw.text((20, 15), f"{title} {number + 1}", fill=(255, 255, 255), font_size=24)
        for line in range(int(rng.integers(3, 8))):
            draw.rectangle((40, 80 + 32 * line, int(rng.integers(150, 600)), 94 + 32 * line), fill=(70, 70, 70))
        left, top = rng.integers(60, 400), rng.integers(80, 240)
        draw.rectangle((left, top, left + 160, top + 90), fill=tuple(rng.integers(0, 200, 3).tolist()))
        shown += [np.asarray(image)] * 50
    return np.stack(shown)


def make_negatives(videos: Path, folder: Path) -> None:
    """Write videos that are no copies of each other, as far as they are missing."""
    rng = np.random.default_rng(0)
    made: dict[str, Callable[[], Frames]] = {
        f"slides {number}": lambda number=number: slides(f"Lecture {number}", number) for number in range(6)
    }
    made |= {
        f"black {number}": lambda number=number: np.full((250, 360, 640, 3), number, np.uint8) for number in (0, 4)
    }
    made |= {f"noise {number}": lambda: rng.integers(0, 256, (125, 180, 320, 3), np.uint8) for number in range(3)}
    stretches = (
        ("moving", "vp8_30s.webm", 8),
        ("moving dog", "skateboarding_dog_fragmented.mp4", 6),
        ("moving lifter", "weightlifting_19.62fps.mp4", 8),
        ("still", FILM, 9),
    )
    for name, source, seconds in stretches:
        for part in (0, 1):
            made[f"{name} {part}"] = lambda source=source, seconds=seconds, part=part: stretch(
                videos / source, seconds, last=part == 1
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in made.items():
        target = folder / f"{name}.mp4"
        if not target.exists():
            write(target, draw(), Fraction(25), 26)


def stretch(path: Path, seconds: int, *, last: bool) -> Frames:
    """The first or the last of the seconds that are used."""
    frames, rate = read(path)
    count = round(rate * seconds)
    return frames[-count:] if last else frames[:count]


def negatives(videos: Path, folder: Path) -> None:
    """Print the pairs that are found among videos that are no copies; two stretches of a still camera may be."""
    make_negatives(videos, folder / "negatives")
    rows = found_in(folder / "negatives.jsonl", folder / "negatives")
    count = len(list((folder / "negatives").glob("*.mp4")))
    print(f"{len(rows)} found among {count} videos")
    for row in rows:
        print(f"  {row['path']} {row['other']} {row['similarity']} {row['kind']}, {row['reason']}")


def hour(videos: Path, folder: Path) -> None:
    """Print how long it takes to find the clips in a film of an hour, which shows them again and again."""
    make_copies(videos, folder)
    (folder / "hour").mkdir(exist_ok=True)
    scene, film = folder / "scene.mp4", folder / "hour" / "film.mp4"
    if not scene.exists():
        frames = [resized(read(path)[0][:250], 640, 360) for path in sorted((folder / "originals").glob("*.mp4"))]
        write(scene, np.concatenate(frames), Fraction(25), 26)
    if not film.exists():
        repeat(scene, film, 3600)
    command = [*DEDUP, str(folder / "hour"), str(folder / "originals"), "-f", "jsonl", "--workers", "0"]
    begun = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    seconds, used = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    inside = {row["other"] for row in rows if row["path"] == str(film)}
    print(
        f"a film of an hour and {len(CLIPS)} clips: {used.ru_utime + used.ru_stime:.0f} CPU s, {seconds:.0f} s in all"
    )
    print(f"{len(inside)} clips found in the film; peak memory {used.ru_maxrss / 1024:.0f} MiB")


def repeat(source: Path, target: Path, seconds: int) -> None:
    """The packets of a video again and again, until it is so long."""
    with av.open(str(target), "w") as film:
        stream = None
        shift = 0
        while stream is None or shift * stream.time_base < seconds:
            with av.open(str(source)) as container:
                given = container.streams.video[0]
                stream = stream or film.add_stream_from_template(given)
                for packet in container.demux(given):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        film.mux(packet)
                shift += given.duration or 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("copies", "negatives", "hour"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=Path, default=Path("../shared/videos"))
    chosen = parser.parse_args()
    {"copies": copies, "negatives": negatives, "hour": hour}[chosen.part](chosen.videos, chosen.folder)
