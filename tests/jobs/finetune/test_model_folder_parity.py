"""The model folder of a training run, as transformers opens it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from testing.clips import write_model, write_video
from testing.parity import transformers
from testing.reference import relative_difference
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune.head import Head
from timesformer_cli.jobs.finetune.model_folder import write_model as write_new
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions


@pytest.mark.parametrize("multi_label", [False, True])
def test_transformers_gives_the_same_logits(tmp_path: Path, *, multi_label: bool) -> None:
    base = with_overrides(resolve(str(write_model(tmp_path / "base", problem_type="regression"))), fields={"stride": 8})
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(3, 16)).astype(np.float32), rng.normal(size=3).astype(np.float32))
    names = ("waving", "größer, schneller", '"quoted"')
    write_new(tmp_path / "new", base, names, head, multi_label=multi_label, tell=lambda _: None)

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


def test_the_rest_of_the_network_is_that_of_the_base(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    head = Head(np.ones((2, 16), np.float32), np.zeros(2, np.float32))
    write_new(tmp_path / "new", resolve(str(base)), ("a", "b"), head, multi_label=False, tell=lambda _: None)
    before, after = (
        transformers.TimesformerForVideoClassification.from_pretrained(folder).timesformer.state_dict()
        for folder in (base, tmp_path / "new")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
