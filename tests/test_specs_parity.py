"""TimesformerConfig against that of transformers."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from testing.parity import transformers
from timesformer_cli import TimesformerConfig


def test_defaults_are_those_of_transformers() -> None:
    theirs, ours = transformers.TimesformerConfig(), TimesformerConfig()
    own = {"extra"}
    for name in {f.name for f in fields(ours)} - own:
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time", "space_only"])
def test_transformers_reads_what_we_write(attention_type: str, tmp_path: Path) -> None:
    config = TimesformerConfig(
        attention_type=attention_type,  # type: ignore[arg-type]
        image_size=32,
        patch_size=8,
        num_frames=5,
        hidden_dropout_prob=0.1,
        qkv_bias=False,
        id2label={0: "a", 1: "b", 2: "c"},
        problem_type="regression",
    )
    config.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs) is transformers.TimesformerConfig
    for name in {f.name for f in fields(config)} - {"extra"}:
        assert getattr(theirs, name) == getattr(config, name), name
    theirs.save_pretrained(tmp_path)
    assert replace(TimesformerConfig.from_pretrained(tmp_path), extra={}) == config
