"""The published checkpoints: each entry against the network it describes, and against what was published."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.main import get_command

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.checkpoints import labels
from timesformer_cli.checkpoints.zoo import ZOO, Published, find, suggest
from timesformer_cli.cli import app

DOCS = Path(__file__).parents[2] / "docs"

# Name: repository, frames, stride, size, classes, top-1, top-5; as the README of the original states them.
HUB = {
    "base-k400": ("facebook/timesformer-base-finetuned-k400", 8, 32, 224, 400, 77.9, 93.2),
    "hr-k400": ("facebook/timesformer-hr-finetuned-k400", 16, 16, 448, 400, 79.6, 94.0),
    "large-k400": ("fcakyon/timesformer-large-finetuned-k400", 96, 4, 224, 400, 80.6, 94.7),
    "base-k600": ("facebook/timesformer-base-finetuned-k600", 8, 32, 224, 600, 79.1, 94.4),
    "hr-k600": ("facebook/timesformer-hr-finetuned-k600", 16, 16, 448, 600, 81.8, 95.8),
    "large-k600": ("fcakyon/timesformer-large-finetuned-k600", 96, 4, 224, 600, 82.2, 95.6),
    "base-ssv2": ("facebook/timesformer-base-finetuned-ssv2", 8, None, 224, 174, 59.1, 85.6),
    "hr-ssv2": ("facebook/timesformer-hr-finetuned-ssv2", 16, None, 448, 174, 61.8, 86.9),
    "large-ssv2": ("fcakyon/timesformer-large-finetuned-ssv2", 64, None, 224, 174, 62.0, 87.5),
}
FILES = {
    "base-k400": "TimeSformer_divST_8x32_224_K400.pyth",
    "hr-k600": "TimeSformer_divST_16x16_448_K600.pyth",
    "large-k400": "TimeSformer_divST_96x4_224_K400.pyth",
    "base-ssv2": "TimeSformer_divST_8_224_SSv2.pyth",
    "large-ssv2": "TimeSformer_divST_64_224_SSv2.pyth",
    "howto100m-64": "TimeSformer_divST_64x32_224_HowTo100M.pyth",
}
HOWTO100M = {8: (48, 56.8), 32: (12, 61.2), 64: (6, 62.2), 96: (4, 62.6)}

entries = pytest.mark.parametrize("entry", ZOO.values(), ids=ZOO)


def test_every_published_checkpoint_is_there() -> None:
    others = {f"howto100m-{frames}" for frames in HOWTO100M} | {"joint-k400", "space-k400", "camera-motion"}
    assert set(ZOO) == set(HUB) | others
    assert all(entry.name == name for name, entry in ZOO.items())


@pytest.mark.parametrize("name", HUB)
def test_those_on_the_hub(name: str) -> None:
    entry = ZOO[name]
    shape = (entry.num_frames, entry.stride, entry.size, entry.num_labels)
    assert (entry.repo, *shape, entry.top1, entry.top5) == HUB[name]
    assert (entry.revision, entry.attention_type, entry.folder) == ("main", "divided_space_time", None)
    assert (entry.clips, entry.licence) == (1, "CC-BY-NC-4.0")
    assert entry.dataset is not None
    assert len(labels.read(entry.dataset)) == entry.num_labels


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_the_original(name: str) -> None:
    assert ZOO[name].file == FILES[name]


@pytest.mark.parametrize("frames", HOWTO100M)
def test_those_of_howto100m(frames: int) -> None:
    entry = ZOO[f"howto100m-{frames}"]
    assert (entry.repo, entry.dataset, entry.num_labels, entry.top5) == (None, None, 1059, None)
    assert (entry.num_frames, entry.stride, entry.size) == (frames, 32, 224)
    assert (entry.clips, entry.top1) == HOWTO100M[frames]
    assert entry.file is not None
    assert entry.file in entry.where
    # The windows that the paper tests cover the same part of a video, however long they are.
    assert entry.clips is not None
    assert entry.clips * frames * 32 / 30 == pytest.approx(409.6)


@pytest.mark.parametrize(
    ("name", "attention", "top1"), [("joint-k400", "joint_space_time", 77.4), ("space-k400", "space_only", 76.9)]
)
def test_those_of_the_ablation(name: str, attention: str, top1: float) -> None:
    entry = ZOO[name]
    assert (entry.repo, entry.file, entry.attention_type, entry.top1) == (None, None, attention, top1)


def test_the_bundled_one() -> None:
    entry = ZOO["camera-motion"]
    assert entry.folder is not None
    recipe = json.loads((entry.folder / "recipe.json").read_text(encoding="utf-8"))
    config = TimesformerConfig.from_pretrained(entry.folder)
    assert entry.config() == config
    assert entry.num_labels == config.num_labels
    assert entry.num_frames == config.num_frames == recipe["sampling"]["num_frames"]
    assert entry.stride == recipe["sampling"]["stride"]
    assert entry.clips == recipe["sampling"]["clips"]
    assert (entry.size, entry.attention_type) == (config.image_size, config.attention_type)
    assert "license: apache-2.0" in (entry.folder / "README.md").read_text(encoding="utf-8")
    assert (entry.licence, entry.repo) == ("Apache-2.0", None)
    assert [other.name for other in ZOO.values() if other.folder] == ["camera-motion"]


@entries
def test_the_network_of_an_entry(entry: Published) -> None:
    config = entry.config()
    shape = (config.num_frames, config.image_hw, config.num_labels, config.attention_type)
    assert shape == (entry.num_frames, (entry.size, entry.size), entry.num_labels, entry.attention_type)
    if entry.dataset is not None:
        assert labels.dataset_of(tuple(config.id2label.values())) == entry.dataset
    with torch.device("meta"):
        model = TimesformerForVideoClassification(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.tflops])
def test_the_cost_of_a_view(name: str) -> None:
    """Published numbers count multiply-adds, and are those of the network to the last of their digits."""
    entry, config = ZOO[name], ZOO[name].config()
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = TimesformerForVideoClassification(config).eval()
        model(torch.empty(1, config.num_frames, config.num_channels, *config.image_hw))
    assert counter.get_total_flops() / 2e12 == pytest.approx(entry.tflops, rel=0.004)


def test_finding_one() -> None:
    for entry in ZOO.values():
        assert find(entry.name) is entry
        if entry.repo is not None:
            assert find(entry.repo) is entry
    assert find("fcakyon/timesformer-hr-finetuned-ssv2") is ZOO["hr-ssv2"]
    assert find("fcakyon/timesformer-base-finetuned-k400") is ZOO["base-k400"]
    # There is no such repository: Facebook's account never had the large models.
    assert find("facebook/timesformer-large-finetuned-k400") is None
    for name in ("", "base", "base-k700", "Base-k400", "timesformer-base-finetuned-k400", "someone/base-k400"):
        assert find(name) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("base-k40", "base-k400"),
        ("base_k600", "base-k600"),
        ("HR-K400", "hr-k400"),
        ("camera-motions", "camera-motion"),
        ("camera", "camera-motion"),
        ("howto100m", "howto100m-8"),
        ("timesformer-base", "base-k400"),
        ("timesformer-large-finetuned-ssv2", "large-ssv2"),
        ("facebook/timesformer-large-finetuned-k600", "large-k600"),
        ("facebok/timesformer-hr-finetuned-k400", "hr-k400"),
        ("my-model", None),
        ("", None),
        ("x" * 5000, None),
        ("clips/video.mp4", None),
    ],
)
def test_what_was_perhaps_meant(name: str, meant: str | None) -> None:
    assert suggest(name) == meant


def test_entries_cannot_be_changed() -> None:
    entry = ZOO["base-k400"]
    with pytest.raises(FrozenInstanceError):
        entry.top1 = 100.0  # type: ignore[misc]
    assert replace(entry, top1=100.0) != entry


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_checkpoints.py"))


def test_the_page_is_up_to_date(generator: dict[str, Any]) -> None:
    written = (DOCS / "checkpoints.md").read_text(encoding="utf-8")
    assert written == generator["page"](), "run python docs/generate_checkpoints.py"


def test_the_commands_on_the_page_are_understood(generator: dict[str, Any]) -> None:
    """Not run, since they would download, but every option and value is one that the command takes."""
    command: Any = get_command(app)
    predict = command.commands["predict"]
    for entry in ZOO.values():
        words = shlex.split(generator["recipe_row"](entry)[-1].strip("`"))
        assert words[:2] == ["timesformer", "predict"]
        options = predict.make_context("predict", words[2:]).params
        assert (options["inputs"], options["model"]) == (["VIDEOS"], entry.name)
        assert (options["weights"] is None) == bool(entry.repo or entry.folder)
        assert (options["recipe"], options["clips"]) == (
            None if entry.folder else "original",
            entry.clips if entry.name.startswith("howto100m") else None,
        )
    for text in re.findall(r"--[a-z]+ [^`|]*", (DOCS / "checkpoints.md").read_text(encoding="utf-8")):
        option = text.split()[0]
        assert option in {name for param in predict.params for name in param.opts}


@pytest.mark.parametrize(
    ("name", "frames", "pixels"),
    [
        (
            "large-k600",
            "96 spread over 384, at 30 per second, from the start of the video",
            "RGB; (x - 0.45) / 0.225, then short side to 224 without antialiasing; 3 crops of 224 x 224",
        ),
        (
            "hr-ssv2",
            "the middle one of each of 16 equal parts, at 30 per second",
            "BGR; (x - 0.45) / 0.225, then short side to 448 without antialiasing; 3 crops of 448 x 448",
        ),
        (
            "howto100m-32",
            "32 spread over 1024, at 30 per second, in 12 windows",
            "RGB; (x - 0.45) / 0.225, then short side to 224 without antialiasing; 3 crops of 224 x 224",
        ),
        (
            "camera-motion",
            "8 spread over 32, at 30 per second, in as many windows as cover the video, at most 10",
            "gray; short side to 96 with antialiasing, then (x - 0.45) / 0.225; centre crop of 96 x 96",
        ),
    ],
)
def test_recipes_in_words(generator: dict[str, Any], name: str, frames: str, pixels: str) -> None:
    recipe = generator["recipe_of"](ZOO[name])
    assert generator["in_words"](recipe) == (frames, pixels, "logits averaged")


def test_nothing_here_imports_torch() -> None:
    code = (
        "import sys, timesformer_cli.checkpoints.zoo; print({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
