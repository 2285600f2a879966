"""The videos that fine-tuning is measured on: made again they are the same, and copies of them are found."""

from itertools import product
from pathlib import Path

from benchmarks import finetune_data
from timesformer_cli.video.hashes import LOOK_ALIKE, distance


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.mp4")}


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    finetune_data.render(tmp_path, train=0, test=1)
    made = contents(tmp_path)
    assert made.keys() == {f"test/{label}/0001.mp4" for label in finetune_data.CLASSES}
    for label in ("shake", "object crosses"):
        (tmp_path / f"test/{label}/0001.mp4").unlink()
    finetune_data.render(tmp_path, train=0, test=1)
    assert contents(tmp_path) == made

    copies = finetune_data.copy(tmp_path)
    videos = finetune_data.copied(tmp_path)
    assert len(videos) == len(copies["trimmed"]) == len(copies["reencoded"]) == len(made)
    originals = finetune_data.hashes_of(videos)
    reencoded = finetune_data.hashes_of(copies["reencoded"])
    for (first, source), (second, found) in product(enumerate(originals), enumerate(reencoded)):
        assert (distance(source, found) <= LOOK_ALIKE) == (first == second)
