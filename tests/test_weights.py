"""Checkpoint folders: written by transformers and by torch, read by us, and the other way round; and broken ones."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel
from timesformer_cli.errors import CheckpointError
from timesformer_cli.weights import WEIGHT_FILES, check_state_dict, find_weights, read_state_dict

transformers = pytest.importorskip("transformers")

CONFIG = TimesformerConfig(
    image_size=16,
    patch_size=8,
    num_frames=3,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    id2label={0: "left", 1: "right", 2: "größer"},
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    network = transformers.TimesformerForVideoClassification(transformers.TimesformerConfig.from_dict(CONFIG.to_dict()))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network.eval()


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    """A checkpoint of transformers, in one safetensors file."""
    theirs.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def keep_only_config(folder: Path) -> Path:
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    return folder


def assert_same_state(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def save_sharded_bin(state: dict[str, Tensor], folder: Path, shards: int = 3) -> None:
    names = list(state)
    files = [f"pytorch_model-{i + 1:05}-of-{shards:05}.bin" for i in range(shards)]
    for i, file in enumerate(files):
        torch.save({name: state[name] for name in names[i::shards]}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": {name: files[i % shards] for i, name in enumerate(names)}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_form(form: str, theirs: Any, folder: Path) -> None:
    state = theirs.state_dict()
    if form == "safetensors":
        theirs.save_pretrained(folder)
        assert find_weights(folder).name == "model.safetensors"
    elif form == "sharded safetensors":
        theirs.save_pretrained(folder, max_shard_size="6KB")
        assert find_weights(folder).name == "model.safetensors.index.json"
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    else:
        theirs.config.save_pretrained(folder)
        if form == "bin":
            torch.save(state, folder / "pytorch_model.bin")
        elif form == "bin of torch before 1.6":
            torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        else:
            save_sharded_bin(state, folder)
        assert ".bin" in find_weights(folder).name


FORMS = ["safetensors", "sharded safetensors", "bin", "bin of torch before 1.6", "sharded bin"]


class TestReading:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_gives_the_tensors_and_logits_of_transformers(
        self, form: str, theirs: Any, tmp_path: Path, pixels: Tensor
    ) -> None:
        write_form(form, theirs, tmp_path)
        network = TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert_same_state(network.state_dict(), theirs.state_dict())
        assert not network.training
        assert all(p.requires_grad and not p.is_meta for p in network.parameters())
        with torch.no_grad():
            assert torch.allclose(network(pixels).logits, theirs(pixels).logits, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("form", FORMS)
    def test_encoder_of_a_classification_checkpoint(self, form: str, theirs: Any, tmp_path: Path) -> None:
        write_form(form, theirs, tmp_path)
        assert_same_state(TimesformerModel.from_pretrained(tmp_path).state_dict(), theirs.timesformer.state_dict())

    def test_encoder_of_an_encoder_checkpoint(self, theirs: Any, tmp_path: Path) -> None:
        theirs.timesformer.save_pretrained(tmp_path)
        assert_same_state(TimesformerModel.from_pretrained(tmp_path).state_dict(), theirs.timesformer.state_dict())

    def test_classifier_of_an_encoder_checkpoint_is_refused(self, theirs: Any, tmp_path: Path) -> None:
        theirs.timesformer.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"keys \d+ missing: timesformer\.embeddings\.cls_token"):
            TimesformerForVideoClassification.from_pretrained(tmp_path)

    def test_folder_as_string(self, folder: Path, theirs: Any) -> None:
        network = TimesformerForVideoClassification.from_pretrained(str(folder))
        assert_same_state(network.state_dict(), theirs.state_dict())

    def test_order_of_preference(self, theirs: Any, tmp_path: Path) -> None:
        """safetensors before .bin, one file before shards."""
        assert WEIGHT_FILES[0] == "model.safetensors"
        theirs.save_pretrained(tmp_path)
        (tmp_path / "pytorch_model.bin").write_bytes(b"not to be opened")
        (tmp_path / "model.safetensors.index.json").write_text("not to be opened")
        assert_same_state(read_state_dict(tmp_path), theirs.state_dict())

    @pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("form", ["safetensors", "bin"])
    def test_other_precisions_load_as_float32(
        self, stored: torch.dtype, form: str, theirs: Any, tmp_path: Path
    ) -> None:
        state = {name: tensor.to(stored) for name, tensor in theirs.state_dict().items()}
        theirs.config.save_pretrained(tmp_path)
        if form == "bin":
            torch.save(state, tmp_path / "pytorch_model.bin")
        else:
            save_file(state, tmp_path / "model.safetensors")
        network = TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert_same_state(network.state_dict(), {name: tensor.float() for name, tensor in state.items()})
        same = TimesformerForVideoClassification.from_pretrained(tmp_path, dtype=stored)
        assert_same_state(same.state_dict(), state)


class TestOpeningCostsLittle:
    @pytest.mark.parametrize("form", FORMS)
    def test_no_random_numbers_are_drawn(self, form: str, theirs: Any, tmp_path: Path) -> None:
        write_form(form, theirs, tmp_path)
        before = torch.get_rng_state()
        TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert torch.equal(torch.get_rng_state(), before)
        TimesformerForVideoClassification(CONFIG)
        assert not torch.equal(torch.get_rng_state(), before), "the control: a new network draws its weights"

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
    @pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
    def test_parameters_lie_in_the_mapped_files(self, form: str, theirs: Any, tmp_path: Path) -> None:
        write_form(form, theirs, tmp_path)
        network = TimesformerForVideoClassification.from_pretrained(tmp_path)
        mapped = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            if str(tmp_path) in line:
                start, end = line.split()[0].split("-")
                mapped.append(range(int(start, 16), int(end, 16)))
        elsewhere = [n for n, p in network.named_parameters() if not any(p.data_ptr() in part for part in mapped)]
        assert elsewhere == []

    def test_changing_parameters_leaves_the_file_alone(self, folder: Path, theirs: Any) -> None:
        network = TimesformerForVideoClassification.from_pretrained(folder)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert_same_state(load_file(folder / "model.safetensors"), theirs.state_dict())


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

    def test_over_the_folder_it_came_from(self, folder: Path, theirs: Any) -> None:
        """The parameters are mapped from the file that is replaced."""
        network = TimesformerForVideoClassification.from_pretrained(folder)
        network.save_pretrained(folder)
        assert_same_state(network.state_dict(), theirs.state_dict())
        assert_same_state(TimesformerForVideoClassification.from_pretrained(folder).state_dict(), theirs.state_dict())
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]

    def test_after_training(self, folder: Path, tmp_path: Path, pixels: Tensor) -> None:
        network = TimesformerForVideoClassification.from_pretrained(folder).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        network(pixels, labels=torch.tensor([0, 2])).loss.backward()
        optimizer.step()
        network.save_pretrained(tmp_path / "trained")
        back = TimesformerForVideoClassification.from_pretrained(tmp_path / "trained")
        assert_same_state(back.state_dict(), network.state_dict())


class TestKeysThatDoNotFit:
    @pytest.fixture
    def state(self, folder: Path) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}

    def refusal(self, folder: Path, state: dict[str, Tensor], network: Any = TimesformerForVideoClassification) -> str:
        save_file(state, folder / "model.safetensors")
        with pytest.raises(CheckpointError) as caught:
            network.from_pretrained(folder)
        message = str(caught.value)
        assert str(folder) in message
        assert "\n" not in message
        return message

    def test_missing(self, folder: Path, state: dict[str, Tensor]) -> None:
        del state["classifier.bias"], state["timesformer.layernorm.weight"]
        assert "2 missing: timesformer.layernorm.weight, classifier.bias" in self.refusal(folder, state)

    def test_unexpected(self, folder: Path, state: dict[str, Tensor]) -> None:
        state["timesformer.pooler.weight"] = torch.zeros(1)
        for network in (TimesformerForVideoClassification, TimesformerModel):
            assert "pooler.weight" in self.refusal(folder, state, network)

    def test_misshapen(self, folder: Path, state: dict[str, Tensor]) -> None:
        state["classifier.weight"] = torch.zeros(7, 16)
        assert "1 of another shape: classifier.weight (7, 16) for (3, 16)" in self.refusal(folder, state)

    def test_all_at_once(self, folder: Path, state: dict[str, Tensor]) -> None:
        state["head.bias"] = state.pop("classifier.bias")
        state["classifier.weight"] = torch.zeros(16, 3)
        message = self.refusal(folder, state)
        assert "1 missing: classifier.bias; 1 unexpected: head.bias; 1 of another shape: classifier.weight" in message

    def test_many_are_counted_and_some_named(self) -> None:
        expected = {f"layer.{i}": torch.zeros(1) for i in range(100)}
        with pytest.raises(CheckpointError, match=r"100 missing: layer\.0, layer\.1, layer\.2, layer\.3 and 96 more$"):
            check_state_dict({}, expected, "here")

    def test_another_attention_type(self, folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"attention_type": "joint_space_time"}))
        with pytest.raises(CheckpointError, match=r"unexpected: .*temporal"):
            TimesformerForVideoClassification.from_pretrained(folder)

    def test_another_number_of_frames(self, folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"num_frames": 8}))
        with pytest.raises(CheckpointError, match=r"time_embeddings \(1, 3, 16\) for \(1, 8, 16\)"):
            TimesformerForVideoClassification.from_pretrained(folder)


class Trap:
    """Pickles as a call that leaves a file behind when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.witness),))


class TestBrokenFiles:
    def refusal(self, folder: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            TimesformerForVideoClassification.from_pretrained(folder)
        message = str(caught.value)
        assert str(folder) in message
        assert "\n" not in message
        assert len(message) < len(str(folder)) + 250
        return message

    def test_no_folder(self, tmp_path: Path) -> None:
        assert "no readable config.json" in self.refusal(tmp_path / "nowhere")

    def test_a_file_for_a_folder(self, folder: Path) -> None:
        assert "no readable config.json" in self.refusal(folder / "model.safetensors")

    def test_no_weights(self, folder: Path) -> None:
        assert "no weights; one of model.safetensors" in self.refusal(keep_only_config(folder))

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ("", "Expecting value"),
            ("{", "Expecting property name"),
            ("[1, 2]", "not a JSON object"),
            ('{"model_type": "videomae"}', "model_type is 'videomae'"),
            ('{"num_frames": "8"}', "num_frames is '8'"),
            ('{"hidden_act": "swoosh"}', "hidden_act is 'swoosh'; known are gelu"),
            ('{"num_labels": 3, "id2label": {"0": "a", "1": "b"}}', "num_labels is 3, but id2label has 2"),
        ],
    )
    def test_config(self, folder: Path, content: str, part: str) -> None:
        (folder / "config.json").write_text(content)
        message = self.refusal(folder)
        assert "config.json: " in message
        assert part in message

    def test_config_that_is_no_text(self, folder: Path) -> None:
        (folder / "config.json").write_bytes(b"\xff\xfe\x00")
        assert "config.json: " in self.refusal(folder)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "legacy"])
    def test_truncated(self, folder: Path, theirs: Any, name: str, share: float) -> None:
        if name != "model.safetensors":
            keep_only_config(folder)
            zipped = name == "pytorch_model.bin"
            name = "pytorch_model.bin"
            torch.save(theirs.state_dict(), folder / name, _use_new_zipfile_serialization=zipped)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * share)])
        message = self.refusal(folder)
        assert "is the file complete?" in message or "is damaged" in message

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    @pytest.mark.parametrize(
        "content",
        [
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 486431123\n",
            b"<!doctype html><html><title>Sign in</title></html>",
            b"\x00" * 100,
        ],
        ids=["pointer of git-lfs", "web page", "zeros"],
    )
    def test_something_else(self, folder: Path, name: str, content: bytes) -> None:
        (keep_only_config(folder) / name).write_bytes(content)
        message = self.refusal(folder)
        assert name in message
        assert "weights_only" not in message, "the advice of torch to load without protection is not passed on"

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_in_a_pickle_is_not_run(self, folder: Path, theirs: Any, tmp_path: Path, zipped: bool) -> None:
        keep_only_config(folder)
        path, witness = folder / "pytorch_model.bin", tmp_path / "witness"
        torch.save({**theirs.state_dict(), "trap": Trap(witness)}, path, _use_new_zipfile_serialization=zipped)
        message = self.refusal(folder)
        assert "refused, it holds more than tensors" in message
        assert "weights_only" not in message
        assert not witness.exists()
        torch.load(path, weights_only=False)
        assert witness.exists(), "the control: the trap works"

    @pytest.mark.parametrize(
        "content",
        [[torch.zeros(1)], {"epoch": 3}, {"model_state": {"a": torch.zeros(1)}}, {3: torch.zeros(1)}],
        ids=["list", "number", "nested", "numbered"],
    )
    def test_bin_of_something_else(self, folder: Path, content: Any) -> None:
        torch.save(content, keep_only_config(folder) / "pytorch_model.bin")
        assert "not a mapping of names to tensors" in self.refusal(folder)

    @pytest.mark.parametrize("form", ["sharded safetensors", "sharded bin"])
    def test_missing_shard(self, theirs: Any, tmp_path: Path, form: str) -> None:
        write_form(form, theirs, tmp_path)
        shard = sorted(path for path in tmp_path.iterdir() if "-00002-of-" in path.name)[0]
        shard.unlink()
        assert f"{shard.name!r}, which is not a file beside it" in self.refusal(tmp_path)

    @pytest.mark.parametrize("absolute", [False, True])
    def test_index_that_points_outside(self, folder: Path, tmp_path: Path, absolute: bool) -> None:
        outside = tmp_path / "outside.safetensors"
        shutil.move(folder / "model.safetensors", outside)
        name = str(outside) if absolute else f"../{outside.name}"
        index = {"weight_map": dict.fromkeys(load_file(outside), name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert f"{name!r}, which is not a file beside it" in self.refusal(folder)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "\x00"])
    def test_index_of_something_else(self, folder: Path, content: str) -> None:
        (keep_only_config(folder) / "model.safetensors.index.json").write_text(content)
        assert "not an index of weight shards" in self.refusal(folder)

    def test_cause_is_kept(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(CheckpointError) as caught:
            read_state_dict(folder)
        assert caught.value.__cause__ is not None


# What the config.json of every published checkpoint has, and what transformers of 2022 wrote beside it.
COMMON = {
    "attention_probs_dropout_prob": 0.0,
    "attention_type": "divided_space_time",
    "drop_path_rate": 0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 16,
    "image_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 20,
    "layer_norm_eps": 1e-06,
    "model_type": "timesformer",
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_frames": 3,
    "num_hidden_layers": 2,
    "patch_size": 8,
    "qkv_bias": True,
    "id2label": {"0": "left", "1": "right", "2": "größer"},
    "label2id": {"left": 0, "right": 1, "größer": 2},
}
OLD = {
    "architectures": ["TimesformerForVideoClassification"],
    "torch_dtype": "float32",
    "transformers_version": "4.25.0.dev0",
}


class TestConfigsOfTheHub:
    """config.json files as published ones look, by their age."""

    @pytest.mark.parametrize(
        "changes",
        [
            OLD,
            OLD
            | {
                "_name_or_path": "facebook/timesformer-base-finetuned-k400",
                "problem_type": "single_label_classification",
            },
            OLD | {"id2label": {"2": "größer", "0": "left", "1": "right"}},
            OLD | {"image_size": [16, 16], "patch_size": [8, 8]},
            OLD | {"drop_path_rate": 0.1, "problem_type": None, "num_labels": 3},
            {
                "architectures": ["TimesformerForVideoClassification"],
                "dtype": "float32",
                "transformers_version": "5.23.0",
            },
            {"output_attentions": True, "return_dict": False, "bos_token_id": None, "pruned_heads": {}},
        ],
        ids=["4.25", "fine-tuned", "labels in disorder", "sizes as lists", "drop path", "5.23", "all base fields"],
    )
    def test_loads(self, theirs: Any, folder: Path, changes: dict[str, Any], pixels: Tensor) -> None:
        (folder / "config.json").write_text(json.dumps(COMMON | changes))
        network = TimesformerForVideoClassification.from_pretrained(folder)
        assert network.config.id2label == {0: "left", 1: "right", 2: "größer"}
        with torch.no_grad():
            assert torch.allclose(network(pixels).logits, theirs(pixels).logits, rtol=1e-4, atol=1e-5)

    def test_labels_left_to_the_default(self, folder: Path) -> None:
        values = {key: value for key, value in COMMON.items() if "label" not in key}
        (folder / "config.json").write_text(json.dumps(values | {"num_labels": 3}))
        network = TimesformerForVideoClassification.from_pretrained(folder)
        assert network.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=r"classifier\.weight \(3, 16\) for \(2, 16\)"):
            TimesformerForVideoClassification.from_pretrained(folder)

    def test_a_new_head_is_a_change_of_the_config(self) -> None:
        config = replace(CONFIG, id2label={0: "yes", 1: "no"})
        assert TimesformerForVideoClassification(config).classifier.out_features == 2
