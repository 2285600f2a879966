"""The model folder of a training run, as transformers opens it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from testing.clips import write_model, write_video
from testing.parity import transformers
from testing.reference import relative_difference
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import UsageError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune.head import Head
from timesformer_cli.jobs.finetune.model_folder import network_of, resizing
from timesformer_cli.jobs.finetune.model_folder import write_model as write_new
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions


@pytest.mark.parametrize("multi_label", [False, True])
def test_transformers_gives_the_same_logits(tmp_path: Path, *, multi_label: bool) -> None:
    base = with_overrides(resolve(str(write_model(tmp_path / "base", problem_type="regression"))), fields={"stride": 8})
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(3, 16)).astype(np.float32), rng.normal(size=3).astype(np.float32))
    names = ("waving", "größer, schneller", '"quoted"')
    write_new(tmp_path / "new", network_of(base, names, head, multi_label=multi_label, tell=lambda _: None))

    model = transformers.TimesformerForVideoClassification.from_pretrained(tmp_path / "new").eval()
    assert tuple(model.config.id2label.values()) == names
    assert model.config.problem_type == ("multi_label_classification" if multi_label else "single_label_classification")
    checkpoint = resolve(str(tmp_path / "new"))
    assert checkpoint.activation == ("sigmoid" if multi_label else "softmax")
    views = prepare(Item(str(write_video(tmp_path / "a.mp4", frames=40))), checkpoint.recipe).pixels
    ours = RunOptions(device="cpu").open(checkpoint)(views)
    features = RunOptions(device="cpu").open(base, output="embedding")(views)
    with torch.no_grad():
        theirs = model(torch.from_numpy(views)).logits.numpy()
    assert len(views) > 1
    assert relative_difference(ours, theirs) < 1e-5
    assert relative_difference(head.logits(features), theirs) < 1e-5
    assert relative_difference(head.logits(features[::-1]), theirs) > 1e-3


@pytest.mark.parametrize(
    ("fields", "attention", "told"),
    [
        (
            {"num_frames": 6, "size": 48},
            "divided_space_time",
            "time embeddings from 4 to 6 frames, position embeddings from 4 x 4 to 6 x 6 patches",
        ),
        ({"num_frames": 1}, "joint_space_time", "time embeddings from 4 to 1 frame"),
        ({"size": (24, 40)}, "divided_space_time", "position embeddings from 4 x 4 to 3 x 5 patches"),
        ({"num_frames": 2, "size": 36}, "space_only", None),  # 4 x 4 whole patches, and no time embeddings
    ],
)
def test_another_size_of_clips_is_that_of_the_model(
    tmp_path: Path, fields: dict[str, Any], attention: str, told: str | None
) -> None:
    write_model(tmp_path / "base", attention_type=attention)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    torch.manual_seed(1)
    for name in weights.keys() & {"timesformer.embeddings.time_embeddings"}:  # zeros, which no mistake could change
        weights[name].normal_()
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    base = with_overrides(resolve(str(tmp_path / "base")), fields={"crops": 1, **fields})
    assert resizing(base) == (None if told is None else f"resized for the new model: {told}")
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(2, 16)).astype(np.float32), rng.normal(size=2).astype(np.float32))
    network = network_of(base, ("a", "b"), head, multi_label=False, tell=lambda _: None)
    write_new(tmp_path / "new", network)

    frames, size = base.sampling.num_frames, base.preprocess.size
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["num_frames"] == frames
    assert config["image_size"] == (size[0] if size[0] == size[1] else list(size))
    views = rng.normal(size=(2, frames, 3, *size)).astype(np.float32)
    expected = head.logits(RunOptions(device="cpu").open(base, output="embedding")(views))
    pixels = torch.from_numpy(views)
    with torch.no_grad():
        assert relative_difference(network(pixels).logits.numpy(), expected) < 1e-5
        # transformers knows only square frames, and does not average those of space_only.
        if size[0] == size[1] and attention != "space_only":
            theirs = transformers.TimesformerForVideoClassification.from_pretrained(tmp_path / "new").eval()
            assert relative_difference(theirs(pixels).logits.numpy(), expected) < 1e-5
    checkpoint = resolve(str(tmp_path / "new"))
    assert resizing(checkpoint) is None
    assert relative_difference(RunOptions(device="cpu").open(checkpoint)(views), expected) < 1e-5
    assert (checkpoint.sampling, checkpoint.preprocess) == (base.sampling, base.preprocess)


def test_more_tokens_than_any_network_takes_are_refused(tmp_path: Path) -> None:
    base = with_overrides(resolve(str(write_model(tmp_path / "base"))), fields={"num_frames": 4096, "size": 2048})
    with pytest.raises(UsageError, match=r"tokens is .* fewer frames"):
        resizing(base)


def test_the_rest_of_the_network_is_that_of_the_base(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    head = Head(np.ones((2, 16), np.float32), np.zeros(2, np.float32))
    network = network_of(resolve(str(base)), ("a", "b"), head, multi_label=False, tell=lambda _: None)
    write_new(tmp_path / "new", network)
    before, after = (
        transformers.TimesformerForVideoClassification.from_pretrained(folder).timesformer.state_dict()
        for folder in (base, tmp_path / "new")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
