"""Material for `timesformer finetune`: a tiny model, and class folders of videos that differ."""

import os
import shutil
from pathlib import Path

from testing.clips import write_model, write_video

EACH = 6
CLASSES = ("bright", "dark", "wide")


def write_material(folder: Path) -> Path:
    """`tiny/`, a model that knows one of the classes, and `clips/CLASS/`, whose videos differ most between classes."""
    write_model(folder / "tiny", labels=("other", "dark", "third", "fourth", "fifth"))
    for place, name in enumerate(CLASSES):
        for number in range(EACH):
            path = folder / "clips" / name / f"{name}_{number:02}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, level=1 + number + 10 * place, width=64 + 32 * place, frames=12 + 6 * place)
    return folder


def bring(material: Path, folder: Path) -> None:
    """Put the material into a `folder` where it may be changed."""
    (folder / "tiny").symlink_to(material / "tiny")
    shutil.copytree(material / "clips", folder / "clips", copy_function=os.link)
