"""The peer that a benchmark sets against us: the network and the pipeline of transformers."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from testing.clips import write_video
from testing.parity import transformers
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item
from timesformer_cli.jobs.benchmark import Settings, first_view, peer
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.runtimes.pytorch import open_scorer
from timesformer_cli.specs import Checkpoint

QUICK = Settings(run=RunOptions(device="cpu", workers=1), seconds=0.001, max_call=math.inf, turns=(1,))


def test_the_same_logits(checkpoint: Checkpoint, view: Any) -> None:
    score, theirs = peer.open_peer(checkpoint, "fp32", "cpu")
    assert isinstance(theirs, transformers.TimesformerForVideoClassification)
    expected = open_scorer(checkpoint, device="cpu", precision="fp32")(view)
    np.testing.assert_allclose(score(view), expected, rtol=1e-5, atol=1e-5)


def test_turns(checkpoint: Checkpoint, view: Any, items: list[Item]) -> None:
    told: list[str] = []
    *networks, pipeline = peer.face_transformers(
        items, checkpoint, view, replace(QUICK, turns=Settings().turns), told.append
    )
    assert [duel.name for duel in networks] == [f"network, fp32, {n}" for n in ("1 view", "4 views", "32 views")]
    assert [duel.counts["views"] for duel in networks] == [1, 4, 32]
    assert all(duel.difference is not None and duel.difference < 1e-5 for duel in networks)
    assert (pipeline.name, dict(pipeline.counts)) == ("pipeline on videos", {"videos": 2})
    assert pipeline.difference is None
    assert told == []


def test_gray_views(view: Any, tmp_path: Path, items: list[Item]) -> None:
    checkpoint = resolve("camera-motion")
    view = first_view(items, checkpoint, QUICK.run.reading)
    told: list[str] = []
    duels = list(peer.face_transformers(items, checkpoint, view, QUICK, told.append))
    assert all(duel.name.startswith("network") for duel in duels)
    assert told == ["transformers' pipeline is left out: its image processors do not make gray views"]


def test_videos_that_are_too_short(checkpoint: Checkpoint, view: Any, tmp_path: Path, items: list[Item]) -> None:
    short = Item(str(write_video(tmp_path / "short.mp4", frames=3)))
    told: list[str] = []
    list(peer.face_transformers([*items, short], checkpoint, view, QUICK, told.append))
    assert told == ["transformers' pipeline is left out: it takes 4 frames of a video, and one here has 3"]
