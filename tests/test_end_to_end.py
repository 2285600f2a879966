"""The whole way, from real encoded clips to labels, through the command and the bundled model."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

from testing.command import Run
from testing.stamped import write_video

SAMPLES = Path(__file__).parents[1] / "sample_videos"
MODEL = ("--model", "camera-motion")


def ranking(records: list[dict[str, Any]]) -> list[list[tuple[str, float]]]:
    return [[(p["label"], p["score"]) for p in record["predictions"]] for record in records]


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    with (SAMPLES / "labels.csv").open(encoding="utf-8") as file:
        return {row["path"]: row["label"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """From a process of its own, as users have it."""
    command = [sys.executable, "-m", "timesformer_cli", "predict", *MODEL, SAMPLES, "--top-k", "9"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_sample_gets_its_label(answers: dict[str, str], records: list[dict[str, Any]]) -> None:
    first = {Path(record["path"]).name: record["predictions"][0]["label"] for record in records}
    assert first == answers
    assert list(first) == sorted(first)


def test_samples_are_short_small_and_of_several_kinds(records: list[dict[str, Any]]) -> None:
    assert {Path(record["path"]).suffix for record in records} == {".mp4", ".mkv", ".webm"}
    assert sum(Path(record["path"]).stat().st_size for record in records) < 8_000_000
    assert any(record["video"]["height"] > record["video"]["width"] for record in records)
    assert len({record["video"]["fps"] for record in records}) > 2


def test_two_moves_in_a_row_are_both_found(records: list[dict[str, Any]]) -> None:
    (record,) = [record for record in records if record["path"].endswith("pan_right_then_tilt_up.mp4")]
    assert [p["label"] for p in record["predictions"][:2]] == ["pan right", "tilt up"]


def test_scores_are_a_distribution_in_falling_order(records: list[dict[str, Any]]) -> None:
    for scores in [[score for _, score in row] for row in ranking(records)]:
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("options", [("--batch-size", "64"), ("--decoder", "decord")], ids=" ".join)
def test_what_changes_the_speed_does_not_change_the_answer(
    run: Run, options: tuple[str, ...], records: list[dict[str, Any]]
) -> None:
    if "decord" in options:
        pytest.importorskip("decord")
    again = run("predict", *MODEL, SAMPLES, "--top-k", "9", *options).records
    assert [record["views"] for record in again] == [record["views"] for record in records]
    for ours, theirs in zip(ranking(again), ranking(records), strict=True):
        assert [label for label, _ in ours] == [label for label, _ in theirs]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-5)


def test_motion_is_seen_in_time_and_not_in_single_pictures(
    run: Run, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    """Played backwards, every move is its opposite: a model that looked at pictures could not know."""
    opposite = {"pan left": "pan right", "zoom out": "zoom in", "roll clockwise": "roll counter-clockwise"}
    for name in ("pan_left.mp4", "zoom_out.mp4", "roll_clockwise.mkv"):
        with av.open(str(SAMPLES / name)) as source:
            frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
            rate = source.streams.video[0].average_rate
        write_video(tmp_path / name, reversed(frames), rate=rate, options={})
    forward = {Path(record["path"]).name: record["predictions"][0]["label"] for record in records}
    backward = run("predict", *MODEL, tmp_path).records
    assert len(backward) == 3
    for record in backward:
        assert record["predictions"][0]["label"] == opposite[forward[Path(record["path"]).name]]
