"""Make a labelled test set for `camera-motion`, in the layouts of well-known datasets.

    python training/camera_motion/test_set.py training/camera_motion/runs/test_set --clips 360 --seed 1

Clear clips like those of `evaluate.py`, of 2 to 10 seconds and equally many of each label, rendered from stills that
were never used in training, and encoded to H.264. The seed determines everything. Each clip is one file with a
name in every layout (hard links):

    kinetics/test.csv     label,youtube_id,time_start,time_end,split, and test/ID_START_END.mp4
    folders/test/LABEL/   class folders
    list/test.txt         path and class number, as SlowFast and mmaction2 have it; labels.txt has the names
    videofolder/test/     metadata.csv beside the videos, as Hugging Face has it

A stopped run continues where it was; more clips may be asked for later.
"""

import argparse
import csv
import shlex
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evaluate import PROCEDURAL_PICTURES, SEED, draw_clear, draw_clip
from scenes import LABELS
from textures import TEST_PHOTOS, library


class Entry(NamedTuple):
    """A clip as Kinetics names it: cut from a video, `start` to `end` in whole seconds."""

    label: str
    id: str
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.id}_{self.start:06d}_{self.end:06d}.mp4"


def layouts(folder: Path) -> dict[str, list[str]]:
    """The arguments of `timesformer evaluate` for each layout."""
    return {
        "kinetics": [f"{folder}/kinetics/test", "--annotations", f"{folder}/kinetics/test.csv"],
        "folders": [f"{folder}/folders"],
        "list": ["--annotations", f"{folder}/list/test.txt"],
        "videofolder": [f"{folder}/videofolder"],
    }


def write(folder: Path, clips: int, seed: int) -> None:
    """Write the missing clips, then all layouts. SystemExit if `folder` has clips of a different set."""
    videos = folder / "kinetics" / "test"
    videos.mkdir(parents=True, exist_ok=True)
    pictures = library(TEST_PHOTOS, PROCEDURAL_PICTURES, (SEED, seed), unseen=True)
    part, written, entries = videos / ".part.mp4", {path.name for path in videos.glob("[!.]*")}, []
    for number in range(clips):
        rng = np.random.default_rng((SEED, seed, number))
        label = LABELS[number % len(LABELS)]
        clip = draw_clip(rng, pictures, draw_clear(rng, label))
        start = int(rng.integers(300))
        entry = Entry(label, youtube_id(seed, number), start, start + int(np.ceil(clip.scene.duration)))
        entries.append(entry)
        if entry.name not in written:
            clip.write(part, rng)
            part.rename(videos / entry.name)
            print(f"{number + 1} of {clips} clips", end="\r", file=sys.stderr)
    if others := written - {entry.name for entry in entries}:
        raise SystemExit(f"{videos}: holds clips of a different or a larger set, such as {min(others)}")
    lay_out(folder, entries)


def youtube_id(seed: int, number: int) -> str:
    """Eleven letters, digits, dashes and underscores, as in real ids; some begin with a dash."""
    return urlsafe_b64encode(sha256(f"{seed} {number}".encode()).digest()).decode()[:11]


def lay_out(folder: Path, entries: Sequence[Entry]) -> None:
    """Write the annotations of every layout, and link each clip under its names there."""
    for entry in entries:
        source = folder / "kinetics" / "test" / entry.name
        for place in (f"folders/test/{entry.label}", "list/videos", "videofolder/test"):
            target = folder / place / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.hardlink_to(source)
    columns = ("label", "youtube_id", "time_start", "time_end", "split")
    write_csv(folder / "kinetics/test.csv", [columns, *((*entry, "test") for entry in entries)])
    lines = (f"videos/{entry.name} {LABELS.index(entry.label)}\n" for entry in entries)
    (folder / "list/test.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "list/labels.txt").write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    rows = ((entry.name, entry.label) for entry in entries)
    write_csv(folder / "videofolder/test/metadata.csv", [("file_name", "label"), *rows])


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=360)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write(options.folder, options.clips, options.seed)
    for arguments in layouts(options.folder).values():
        print(shlex.join(["timesformer", "evaluate", *arguments, "--model", "camera-motion"]))


if __name__ == "__main__":
    main()
