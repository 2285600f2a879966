"""Checkpoints of transformers read by us, and ours by transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from testing.networks import build, clip
from testing.parity import counterpart, transformers
from testing.weights import CONFIG, FORMS, assert_same_state, write_form
from timesformer_cli import TimesformerForVideoClassification, TimesformerModel
from timesformer_cli.checkpoints.folder import find_weights


@pytest.fixture(scope="module")
def theirs() -> Any:
    return counterpart(build(CONFIG))


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    """A checkpoint of transformers, in one safetensors file."""
    theirs.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pixels() -> Tensor:
    return clip(CONFIG)


class TestReading:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_gives_the_tensors_and_logits_of_transformers(
        self, form: str, theirs: Any, tmp_path: Path, pixels: Tensor
    ) -> None:
        if form == "sharded safetensors":
            theirs.save_pretrained(tmp_path, max_shard_size="6KB")
            assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
        else:
            write_form(form, theirs, tmp_path)
        assert find_weights(tmp_path).name == FORMS[form]
        network = TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert_same_state(network.state_dict(), theirs.state_dict())
        assert not network.training
        assert all(p.requires_grad and not p.is_meta for p in network.parameters())
        with torch.no_grad():
            assert torch.allclose(network(pixels).logits, theirs(pixels).logits, rtol=1e-4, atol=1e-5)

    def test_encoder_of_an_encoder_checkpoint(self, theirs: Any, tmp_path: Path) -> None:
        theirs.timesformer.save_pretrained(tmp_path)
        assert_same_state(TimesformerModel.from_pretrained(tmp_path).state_dict(), theirs.timesformer.state_dict())


class TestWriting:
    def test_transformers_reads_it(self, folder: Path, theirs: Any, tmp_path: Path, pixels: Tensor) -> None:
        network = TimesformerForVideoClassification.from_pretrained(folder)
        network.save_pretrained(tmp_path / "ours")
        with safe_open(tmp_path / "ours" / "model.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}, "transformers before 5 refuses a file without"
        back, info = transformers.TimesformerForVideoClassification.from_pretrained(
            tmp_path / "ours", output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert_same_state(back.state_dict(), theirs.state_dict())
        assert back.config.id2label == {0: "left", 1: "right", 2: "größer"}
        with torch.no_grad():
            assert torch.equal(back.eval()(pixels).logits, theirs(pixels).logits)

    def test_transformers_reads_the_encoder(self, folder: Path, theirs: Any, tmp_path: Path) -> None:
        TimesformerModel.from_pretrained(folder).save_pretrained(tmp_path / "ours")
        back = transformers.TimesformerModel.from_pretrained(tmp_path / "ours")
        assert_same_state(back.state_dict(), theirs.timesformer.state_dict())
        assert_same_state(
            TimesformerModel.from_pretrained(tmp_path / "ours").state_dict(), theirs.timesformer.state_dict()
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_config_states_class_and_precision(self, folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
        """transformers opens weights in the precision that the config states, whatever the file holds."""
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"torch_dtype": "float64"}))
        network = TimesformerForVideoClassification.from_pretrained(folder).to(dtype)
        network.save_pretrained(tmp_path / "ours")
        written = json.loads((tmp_path / "ours" / "config.json").read_text())
        assert written["architectures"] == ["TimesformerForVideoClassification"]
        assert written["dtype"] == str(dtype).removeprefix("torch.")
        assert "torch_dtype" not in written
        back = transformers.TimesformerForVideoClassification.from_pretrained(tmp_path / "ours")
        assert_same_state(back.state_dict(), network.state_dict())

    def test_unknown_keys_of_the_config_survive(self, folder: Path, tmp_path: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | {
            "trained_by": {"name": "Zoë"},
            "finetuning_task": None,
        }
        (folder / "config.json").write_text(json.dumps(values))
        TimesformerForVideoClassification.from_pretrained(folder).save_pretrained(tmp_path / "ours")
        written = json.loads((tmp_path / "ours" / "config.json").read_text())
        assert written == values
