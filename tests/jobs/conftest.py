"""A tiny model, two videos and a view, for tests that measure them."""

from typing import Any

import numpy as np
import pytest

from testing.artefacts import CLIP
from testing.clips import write_model, write_video
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item
from timesformer_cli.specs import Checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write_model(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("videos")
    return [Item(str(write_video(folder / f"{level}.mp4", level=level))) for level in range(2)]


@pytest.fixture
def view() -> Any:
    return np.random.default_rng(0).standard_normal((1, *CLIP)).astype(np.float32)
