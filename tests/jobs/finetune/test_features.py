"""Features on disk: what is read again, and what is not."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from testing.clips import write_model, write_video
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import OutputError
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.finetune import features
from timesformer_cli.jobs.finetune.features import Features, encode, seconds_for
from timesformer_cli.jobs.reporter import SILENT
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.settings import provenance_of
from timesformer_cli.specs import Checkpoint

RUN = RunOptions(device="cpu", workers=0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Its recipe takes several clips of a video."""
    return with_overrides(resolve(str(write_model(tmp_path / "tiny"))), fields={"stride": 8})


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    return [Item(str(write_video(tmp_path / f"{number}.mp4", level=number, frames=40))) for number in range(3)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that go through the network, as they do."""
    found: list[str] = []
    score_all = features.score_all

    def counted(items: list[Item], *args: object, **options: object) -> object:
        found.extend(item.path for item in items)
        return score_all(items, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "score_all", counted)
    return found


def encoded(
    items: list[Item], checkpoint: Checkpoint, folder: Path, *, mirrored: bool = False
) -> list[Features | Failure]:
    provenance = provenance_of(checkpoint, None, precision="fp32", frame_rate=30.0)
    return encode(items, checkpoint, RUN, folder, provenance, SILENT, mirrored=mirrored)


def test_features_are_the_input_of_the_head(tmp_path: Path, checkpoint: Checkpoint, items: list[Item]) -> None:
    first, *_ = encoded(items, checkpoint, tmp_path / "features")
    assert isinstance(first, Features)
    views = prepare(items[0], checkpoint.recipe)
    expected = RUN.open(checkpoint, output="embedding")(views.pixels)
    assert len(expected) > 1
    np.testing.assert_allclose(first.rows, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.mean, expected.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert first.hashes.shape == (8,)


def test_mirrored_features_are_those_of_mirrored_views(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]
) -> None:
    plain, *_ = encoded(items, checkpoint, tmp_path / "features")
    for _ in range(2):
        first, *_ = encoded(items, checkpoint, tmp_path / "mirrored", mirrored=True)
    assert len(read) == 2 * len(items)
    assert isinstance(plain, Features)
    assert isinstance(first, Features)
    views = prepare(items[0], checkpoint.recipe).pixels[..., ::-1]
    expected = RUN.open(checkpoint, output="embedding")(np.ascontiguousarray(views))
    np.testing.assert_allclose(first.rows, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(first.rows - plain.rows).max() > 1e-3
    np.testing.assert_array_equal(first.hashes, plain.hashes)


def test_nothing_is_read_twice(tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]) -> None:
    before = encoded(items[:2], checkpoint, tmp_path / "features")
    after = encoded(items, checkpoint, tmp_path / "features")
    assert read == [item.path for item in items]
    for one, other in zip(before, after, strict=False):
        assert isinstance(one, Features)
        assert isinstance(other, Features)
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.hashes, other.hashes)


def touch(items: list[Item], checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    os.utime(items[1].path, ns=(1, 1))
    return checkpoint


def tear(items: list[Item], checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    lines = (folder / "videos.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "videos.jsonl").write_bytes(b"".join([lines[0], lines[2], lines[1][:50]]))
    return checkpoint


@pytest.mark.parametrize("change", [touch, tear])
def test_a_changed_file_and_a_torn_record_are_read_again(
    tmp_path: Path,
    checkpoint: Checkpoint,
    items: list[Item],
    read: list[str],
    change: Callable[[list[Item], Checkpoint, Path], Checkpoint],
) -> None:
    folder = tmp_path / "features"
    encoded(items, checkpoint, folder)
    read.clear()
    checkpoint = change(items, checkpoint, folder)
    encoded(items, checkpoint, folder)
    assert read == [items[1].path]
    read.clear()
    encoded(items, checkpoint, folder)
    assert read == []


def test_a_different_recipe_makes_them_anew(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]
) -> None:
    encoded(items, checkpoint, tmp_path / "features")
    read.clear()
    encoded(items, with_overrides(checkpoint, fields={"stride": 1}), tmp_path / "features")
    assert len(read) == len(items)


def test_parts_of_one_file_have_their_own(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]
) -> None:
    parts = [replace(items[0], end=1.0), replace(items[0], start=1.0), items[0]]
    found = encoded(parts, checkpoint, tmp_path / "features")
    assert len(read) == 3
    one, other, _ = (each.mean for each in found if isinstance(each, Features))
    assert np.abs(one - other).max() > 1e-3
    encoded(parts, checkpoint, tmp_path / "features")
    assert len(read) == 3


def test_failures_are_tried_again(tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]) -> None:
    broken = Item(str(tmp_path / "broken.mp4"))
    Path(broken.path).write_bytes(b"no video")
    for _ in range(2):
        first, failed = encoded([items[0], broken], checkpoint, tmp_path / "features")
        assert isinstance(first, Features)
        assert isinstance(failed, Failure)
    assert read == [items[0].path, broken.path, broken.path]


@pytest.mark.parametrize(
    "line",
    [
        b'{"path": "a.mp4", "status": "ok", "stamp": null, "features": "AAAA", "hashes": ""}\n',
        b'{"path": "a.mp4", "status": "ok", "stamp": [1, "b"], "features": "", "hashes": ""}\n',
        b'{"path": "a.mp4", "status": "ok"}\n',
    ],
)
def test_damaged_records_are_one_line(tmp_path: Path, checkpoint: Checkpoint, items: list[Item], line: bytes) -> None:
    encoded(items, checkpoint, tmp_path / "features")
    path = tmp_path / "features/videos.jsonl"
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(OutputError, match="line 1"):
        encoded(items, checkpoint, tmp_path / "features")


def test_the_time_is_measured_on_a_few(checkpoint: Checkpoint, items: list[Item], read: list[str]) -> None:
    assert seconds_for(items * 10, checkpoint, RUN, SILENT) > 0
    assert len(read) == 8
