"""Exported folders as transformers reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from testing.clips import tiny_config, write_random_model
from testing.parity import transformers
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.jobs.export import ExportSpec, export


@pytest.mark.parametrize(("precision", "stated", "tolerance"), [("fp32", "float32", 1e-5), ("fp16", "float16", 5e-3)])
def test_a_hub_folder_holds_the_same_weights(tmp_path: Path, precision: Any, stated: str, tolerance: float) -> None:
    checkpoint = resolve(str(write_random_model(tmp_path / "network", ["waving", "sitting", "running"])))
    folder = tmp_path / "made"
    assert export(checkpoint, ExportSpec(format="hub", precision=precision), folder).passed
    assert json.loads((folder / "config.json").read_text())["dtype"] == stated
    ours = TimesformerForVideoClassification.from_checkpoint(checkpoint)
    theirs = transformers.TimesformerForVideoClassification.from_pretrained(folder, dtype="float32").eval()
    frames = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, wanted = theirs(frames).logits, ours(frames).logits
    assert (logits - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("format", ["hub", "pt2"])
def test_labels_that_utf8_has_not(tmp_path: Path, format: Any) -> None:
    labels = ("bytes \udcff\udc80", "back\\slash \ud83d", "größer 😀")
    TimesformerForVideoClassification(tiny_config(labels, num_hidden_layers=1)).save_pretrained(tmp_path / "network")
    assert export(resolve(str(tmp_path / "network")), ExportSpec(format=format), tmp_path / "made").passed
    for folder in ("network", "made"):
        assert resolve(str(tmp_path / folder)).labels == labels
        assert tuple(transformers.TimesformerConfig.from_pretrained(tmp_path / folder).id2label.values()) == labels
        assert "größer 😀" in (tmp_path / folder / "config.json").read_text(encoding="utf-8")
