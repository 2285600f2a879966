"""Models of transformers as the command takes them, and what it makes for transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from testing.clips import write_model, write_video
from testing.command import Run, scores
from testing.layouts import save_mmaction2
from testing.parity import transformers
from testing.processors import HALF
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import prepare


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
@pytest.mark.parametrize("processor_file", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_a_checkpoint_of_the_community(
    run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path, attention_type: str, processor_file: str
) -> None:
    """Written by transformers, with a config like none that was published: the same logits for the same pixels."""
    config = transformers.TimesformerConfig(
        image_size=64,
        patch_size=32,
        num_channels=1,
        num_frames=10,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=40,
        hidden_act="relu",
        qkv_bias=False,
        attention_type=attention_type,
        initializer_range=0.3,
        id2label={0: "left", 1: "right", 2: "up"},
    )
    torch.manual_seed(0)
    theirs = transformers.TimesformerForVideoClassification(config).eval()
    folder = tmp_path / "theirs"
    theirs.save_pretrained(folder)
    stated = {"image_processor_type": "VideoMAEImageProcessor", "size": {"height": 72, "width": 72}, "crop_size": 64}
    (folder / processor_file).write_text(json.dumps(HALF | stated))
    checkpoint = resolve(str(folder))
    assert checkpoint.preprocess.stretch == (72, 72)
    write_video(tmp_path / "a.mp4", frames=40)
    views = torch.from_numpy(prepare(Item("a.mp4"), checkpoint.recipe).pixels)
    with torch.inference_mode():
        expected = theirs(views).logits.mean(0)
    capfd.readouterr()  # transformers draws a bar
    np.testing.assert_allclose(scores(run, "-m", folder), expected, rtol=2e-5, atol=1e-6)


def test_other_layouts_become_a_folder_that_transformers_reads(run: Run, tmp_path: Path) -> None:
    save_mmaction2(tmp_path / "tiny.pth", load_file(write_model(tmp_path / "tiny") / "model.safetensors"))
    assert run("models", "convert", "tiny.pth", "m", "--config", "tiny/config.json").code == 0
    pixels = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = transformers.TimesformerForVideoClassification.from_pretrained("m")
    ours = TimesformerForVideoClassification.from_pretrained("tiny")
    with torch.inference_mode():
        torch.testing.assert_close(theirs(pixels).logits, ours(pixels).logits, rtol=2e-5, atol=1e-6)
    assert resolve("m").recipe.name == "mmaction2 with clips=auto"
