"""Weights: written by us, torch and training code, and read; and broken ones."""

import argparse
import json
import os
import shutil
import sys
import time
import types
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from testing.layouts import mmaction2_state, original_state, save_pyth
from testing.networks import build, clip
from testing.weights import CONFIG, FORMS, assert_same_state, save_sharded_bin, write_form
from timesformer_cli import TimesformerForVideoClassification, TimesformerModel
from timesformer_cli.checkpoints.folder import find_weights, weight_checksums
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.checkpoints.weights import check_state_dict, read_state_dict, read_stored
from timesformer_cli.errors import CheckpointError
from timesformer_cli.runtimes.pytorch import open_scorer
from timesformer_cli.specs import WEIGHT_FILES


def keep_only_config(folder: Path) -> Path:
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    return folder


def not_mapped_from(folder: Path, state: dict[str, Tensor]) -> list[str]:
    """Names of the tensors whose memory is not a mapped file of the folder."""
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(folder) in line:
            start, end = line.split()[0].split("-")
            mapped.append(range(int(start, 16), int(end, 16)))
    return [name for name, tensor in state.items() if not any(tensor.data_ptr() in part for part in mapped)]


@pytest.fixture(scope="module")
def made() -> Any:
    """The network that is saved."""
    return build(CONFIG)


@pytest.fixture
def folder(made: Any, tmp_path: Path) -> Path:
    """A checkpoint of it, in one safetensors file."""
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pixels() -> Tensor:
    return clip(CONFIG)


class TestReading:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_gives_the_same_tensors_and_logits(
        self, form: str, made: Any, tmp_path: Path, pixels: Tensor
    ) -> None:
        write_form(form, made, tmp_path)
        assert find_weights(tmp_path).name == FORMS[form]
        network = TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert_same_state(network.state_dict(), made.state_dict())
        assert not network.training
        assert all(p.requires_grad and not p.is_meta for p in network.parameters())
        with torch.no_grad():
            assert torch.equal(network(pixels).logits, made(pixels).logits)

    @pytest.mark.parametrize("form", FORMS)
    def test_encoder_of_a_classification_checkpoint(self, form: str, made: Any, tmp_path: Path) -> None:
        write_form(form, made, tmp_path)
        assert_same_state(TimesformerModel.from_pretrained(tmp_path).state_dict(), made.timesformer.state_dict())

    def test_encoder_of_an_encoder_checkpoint(self, made: Any, tmp_path: Path) -> None:
        made.timesformer.save_pretrained(tmp_path)
        assert_same_state(TimesformerModel.from_pretrained(tmp_path).state_dict(), made.timesformer.state_dict())

    def test_classifier_of_an_encoder_checkpoint_is_refused(self, made: Any, tmp_path: Path) -> None:
        made.timesformer.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"keys \d+ missing: timesformer\.embeddings\.cls_token"):
            TimesformerForVideoClassification.from_pretrained(tmp_path)

    def test_folder_as_string(self, folder: Path, made: Any) -> None:
        network = TimesformerForVideoClassification.from_pretrained(str(folder))
        assert_same_state(network.state_dict(), made.state_dict())

    def test_the_weight_file_itself(self, folder: Path, made: Any) -> None:
        network = TimesformerForVideoClassification.from_pretrained(folder / "model.safetensors")
        assert_same_state(network.state_dict(), made.state_dict())

    def test_order_of_preference(self, made: Any, tmp_path: Path) -> None:
        """safetensors before .bin, one file before shards."""
        assert WEIGHT_FILES[0] == "model.safetensors"
        made.save_pretrained(tmp_path)
        (tmp_path / "pytorch_model.bin").write_bytes(b"not to be opened")
        (tmp_path / "model.safetensors.index.json").write_text("not to be opened")
        assert_same_state(read_state_dict(find_weights(tmp_path)), made.state_dict())

    @pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("form", ["safetensors", "bin"])
    def test_other_precisions_load_as_float32(self, stored: torch.dtype, form: str, made: Any, tmp_path: Path) -> None:
        state = {name: tensor.to(stored) for name, tensor in made.state_dict().items()}
        made.config.save_pretrained(tmp_path)
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
    def test_no_random_numbers_are_drawn(self, form: str, made: Any, tmp_path: Path) -> None:
        write_form(form, made, tmp_path)
        before = torch.get_rng_state()
        TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert torch.equal(torch.get_rng_state(), before)
        TimesformerForVideoClassification(CONFIG)
        assert not torch.equal(torch.get_rng_state(), before), "the control: a new network draws its weights"

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
    @pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
    def test_parameters_lie_in_the_mapped_files(self, form: str, made: Any, tmp_path: Path) -> None:
        write_form(form, made, tmp_path)
        network = TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert not_mapped_from(tmp_path, dict(network.named_parameters())) == []

    def test_changing_parameters_leaves_the_file_alone(self, folder: Path, made: Any) -> None:
        network = TimesformerForVideoClassification.from_pretrained(folder)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert_same_state(load_file(folder / "model.safetensors"), made.state_dict())


class TestWriting:
    def test_over_the_folder_it_came_from(self, folder: Path, made: Any) -> None:
        """The parameters are mapped from the file that is replaced."""
        network = TimesformerForVideoClassification.from_pretrained(folder)
        network.save_pretrained(folder)
        assert_same_state(network.state_dict(), made.state_dict())
        assert_same_state(TimesformerForVideoClassification.from_pretrained(folder).state_dict(), made.state_dict())
        assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]

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
        assert "1 of a different shape: classifier.weight (7, 16) for (3, 16)" in self.refusal(folder, state)

    def test_all_at_once(self, folder: Path, state: dict[str, Tensor]) -> None:
        state["head.bias"] = state.pop("classifier.bias")
        state["classifier.weight"] = torch.zeros(16, 3)
        message = self.refusal(folder, state)
        assert (
            "1 missing: classifier.bias; 1 unexpected: head.bias; 1 of a different shape: classifier.weight" in message
        )

    def test_many_are_counted_and_some_named(self) -> None:
        expected = {f"layer.{i}": torch.zeros(1) for i in range(100)}
        with pytest.raises(CheckpointError, match=r"100 missing: layer\.0, layer\.1, layer\.2, layer\.3 and 96 more$"):
            check_state_dict({}, expected, "here")

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64], ids=str)
    def test_numbers_that_are_no_floating_point(
        self, folder: Path, state: dict[str, Tensor], dtype: torch.dtype
    ) -> None:
        state["classifier.bias"] = state["classifier.bias"].to(dtype)
        said = f"keys 1 not floating point: classifier.bias ({str(dtype).removeprefix('torch.')})"
        assert self.refusal(folder, state).endswith(said)

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


def packed(path: Path, claimed: int | None = None, **content: Tensor) -> Path:
    """A file of torch's whose parts are compressed; of the largest the archive claims that it has so many bytes."""
    torch.save(content, path.with_name("stored"))
    with (
        zipfile.ZipFile(path.with_name("stored")) as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
        if claimed is not None:
            max(archive.filelist, key=lambda entry: entry.file_size).file_size = claimed
    return path


class TestBombs:
    """Small files that unpack to more than any weights take; nothing of them is unpacked to find out."""

    @pytest.mark.parametrize("command", ["show", "open"])
    def test_an_archive_that_unpacks_to_gigabytes(
        self, folder: Path, command: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
        bomb = packed(folder / "pytorch_model.bin", 6_500_000_000, a=torch.zeros(10_000))
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"refused, it would unpack to 6\.5 GB, more than such weights take"):
            read_stored(bomb) if command == "show" else TimesformerForVideoClassification.from_pretrained(folder)

    def test_a_network_takes_no_more_than_it_needs(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """200 MB would be right for many a network, but not for this one."""
        bomb = packed(folder / "pytorch_model.bin", 200_000_000, a=torch.zeros(10_000))
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"refused, it would unpack to 0\.2 GB"):
            TimesformerForVideoClassification.from_pretrained(folder)
        with pytest.raises(CheckpointError, match="cannot be read as weights"):  # it has no 200 MB
            read_stored(bomb)

    def test_one_that_is_packed_is_read(self, folder: Path, made: Any) -> None:
        packed(folder / "pytorch_model.bin", None, **made.state_dict())
        (folder / "model.safetensors").unlink()
        assert_same_state(TimesformerForVideoClassification.from_pretrained(folder).state_dict(), made.state_dict())

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"num_labels": 10**8}, "num_labels is 100000000; the most is 100000"),
            ({"num_hidden_layers": 3_000_000}, "num_hidden_layers is 3000000; the most is 256"),
            ({"num_frames": 2 * 10**9}, "num_frames is 2000000000; the most is 4096"),
            (
                {"layer_norm_eps": 10**400},
                "not valid JSON (a whole number of 401 digits: 1",
            ),
            ({"hidden_size": 10**9, "num_attention_heads": 10**9}, "hidden_size is 1000000000; the most is 16384"),
            ({"image_size": [16, 10**9]}, "image_size is [16, 1000000000]; the most is 8192"),
            ({"image_size": 8192, "patch_size": 1}, "tokens is 536870912; the most is 1048576"),
            ({"initializer_range": 10**19}, "initializer_range is 1"),
        ],
        ids=str,
    )
    def test_a_config_that_nobody_can_run(self, folder: Path, values: dict[str, Any], says: str) -> None:
        (folder / "config.json").write_text(json.dumps(values))
        started = time.monotonic()
        with pytest.raises(CheckpointError) as caught:
            TimesformerForVideoClassification.from_pretrained(folder)
        assert time.monotonic() - started < 0.5
        assert says in str(caught.value)
        assert len(str(caught.value)) < len(str(folder)) + 250

    @pytest.mark.parametrize(
        ("recipe", "says"),
        [
            ({"sampling": {"num_frames": 2 * 10**9}}, "num_frames is 2000000000; the most is 4096"),
            ({"sampling": {"clips": 2 * 10**9}}, "clips is 2000000000; the most is 100000"),
            ({"sampling": {"stride": 10**400}}, "a whole number of 401 digits"),
            ({"preprocess": {"short_side": 10**9}}, "short_side is 1000000000; the most is 8192"),
            ({"preprocess": {"stretch": [10**9, 10**9]}}, "the most is 8192"),
            ({"preprocess": {"mean": [10**400, 0, 0]}}, "a whole number of 401 digits"),
        ],
        ids=str,
    )
    def test_a_recipe_that_nobody_can_follow(self, folder: Path, recipe: dict[str, Any], says: str) -> None:
        (folder / "recipe.json").write_text(json.dumps(recipe))
        with pytest.raises(CheckpointError) as caught:
            TimesformerForVideoClassification.from_pretrained(folder)
        assert "recipe.json: " in str(caught.value)
        assert says in str(caught.value)

    @pytest.mark.parametrize("content", ["[" * 100_000, " " * 2**26 + "{}"], ids=["nested", "large"])
    def test_a_config_that_nobody_wrote(self, folder: Path, content: str) -> None:
        (folder / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON \((nested|larger than 64 MiB)"):
            TimesformerForVideoClassification.from_pretrained(folder)


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
        assert "no such folder" in self.refusal(tmp_path / "nowhere")

    def test_no_weights(self, folder: Path) -> None:
        assert "no weights; one of model.safetensors" in self.refusal(keep_only_config(folder))

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ("", "Expecting value"),
            ("{", "Expecting property name"),
            ("[1, 2]", "a JSON object"),
            ('{"model_type": "videomae"}', "model_type is 'videomae'"),
            ('{"num_frames": "8"}', "num_frames is '8'"),
            ('{"num_labels": 3, "id2label": {"0": "a", "1": "b"}}', "num_labels is 3, but id2label has 2"),
        ],
    )
    def test_config(self, folder: Path, content: str, part: str) -> None:
        (folder / "config.json").write_text(content)
        message = self.refusal(folder)
        assert "config.json: " in message
        assert part in message

    def test_activation_that_nobody_knows(self, folder: Path) -> None:
        (folder / "config.json").write_text('{"hidden_act": "swoosh"}')
        assert "hidden_act is 'swoosh'; expected one of gelu" in self.refusal(folder)

    def test_config_that_is_no_text(self, folder: Path) -> None:
        (folder / "config.json").write_bytes(b"\xff\xfe\x00")
        assert "config.json: " in self.refusal(folder)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "legacy"])
    def test_truncated(self, folder: Path, made: Any, name: str, share: float) -> None:
        if name != "model.safetensors":
            keep_only_config(folder)
            zipped = name == "pytorch_model.bin"
            name = "pytorch_model.bin"
            torch.save(made.state_dict(), folder / name, _use_new_zipfile_serialization=zipped)
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
    def test_code_in_a_pickle_is_not_run(self, folder: Path, made: Any, tmp_path: Path, zipped: bool) -> None:
        keep_only_config(folder)
        path, witness = folder / "pytorch_model.bin", tmp_path / "witness"
        torch.save({**made.state_dict(), "trap": Trap(witness)}, path, _use_new_zipfile_serialization=zipped)
        message = self.refusal(folder)
        assert "refused, it holds posix.mkdir, more than tensors and plain data" in message
        assert "weights_only" not in message
        assert not witness.exists()
        torch.load(path, weights_only=False)
        assert witness.exists(), "the control: the trap works"

    @pytest.mark.parametrize(
        "content", [[torch.zeros(1)], {"epoch": 3}, {3: torch.zeros(1)}], ids=["list", "number", "numbered"]
    )
    def test_bin_of_something_else(self, folder: Path, content: Any) -> None:
        torch.save(content, keep_only_config(folder) / "pytorch_model.bin")
        assert "not a mapping of names to tensors" in self.refusal(folder)

    @pytest.mark.parametrize("form", ["sharded safetensors", "sharded bin"])
    def test_missing_shard(self, made: Any, tmp_path: Path, form: str) -> None:
        write_form(form, made, tmp_path)
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

    @pytest.mark.parametrize(
        "content",
        [
            *("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "\x00"),
            *('{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": 3, "b": "c"}}'),
            *('{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": "x\\u0000y"}}', '{"weight_map": {"a": "x/y"}}'),
        ],
    )
    def test_index_of_something_else(self, folder: Path, content: str) -> None:
        index = keep_only_config(folder) / "model.safetensors.index.json"
        index.write_text(content)
        assert "not an index of weight shards" in self.refusal(folder)
        assert list(weight_checksums(index)) == [index.name]  # `evaluate` sums the files before it opens them

    def test_cause_is_kept(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(bytes(100))
        with pytest.raises(CheckpointError) as caught:
            read_state_dict(find_weights(folder))
        assert caught.value.__cause__ is not None


STATE = {"blocks.0.weight": torch.arange(6.0).view(2, 3), "blocks.0.bias": torch.ones(2), "cls_token": torch.zeros(1)}


class TestTrainingFiles:
    """What training code saves: the state dict somewhere among other things, under names with something before them."""

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod.", "module._orig_mod."])
    @pytest.mark.parametrize("wrapper", [None, "model_state", "model_state_dict", "state_dict", "net", "module", "ema"])
    def test_wrappers_and_prefixes(self, wrapper: str | None, prefix: str, zipped: bool, tmp_path: Path) -> None:
        content: dict[str, Any] = {prefix + name: tensor for name, tensor in STATE.items()}
        if wrapper is not None:
            content = {"epoch": 3, wrapper: content, "optimizer_state": {"state": {0: torch.ones(9)}}, "best": 0.5}
        torch.save(content, tmp_path / "some.pyth", _use_new_zipfile_serialization=zipped)
        assert_same_state(read_state_dict(tmp_path / "some.pyth"), STATE)

    @pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth", ".pt", ""])
    def test_prefixes_in_files_of_any_name(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"some{suffix}"
        state = {f"module.{name}": tensor for name, tensor in STATE.items()}
        if suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        assert_same_state(read_state_dict(path), STATE)

    def test_prefixes_of_shards(self, tmp_path: Path) -> None:
        """Only what all names have is removed, so one shard alone does not decide."""
        state = {"module.a": torch.ones(1), "module.b": torch.zeros(1), "c": torch.ones(2)}
        save_sharded_bin(state, tmp_path)
        assert_same_state(read_state_dict(tmp_path / "pytorch_model.bin.index.json"), state)
        del state["c"]
        save_sharded_bin(state, tmp_path, shards=2)
        expected = {"a": torch.ones(1), "b": torch.zeros(1)}
        assert_same_state(read_state_dict(tmp_path / "pytorch_model.bin.index.json"), expected)

    @pytest.mark.parametrize("names", [("module.a", "b"), ("modules.a", "modules.b"), ("a.module.b", "a.module.c"), ()])
    def test_other_names_stay(self, names: tuple[str, ...], tmp_path: Path) -> None:
        torch.save({name: torch.ones(1) for name in names}, tmp_path / "some.pth")
        assert tuple(read_state_dict(tmp_path / "some.pth")) == names

    def test_which_wrapper(self, tmp_path: Path) -> None:
        """The original's own first; what is no mapping, a model's name, is none."""
        for content in (
            {"model": {"x": torch.ones(1)}, "model_state": STATE},
            {"model": "vit_base_patch16_224", "state_dict": STATE},
        ):
            torch.save(content, tmp_path / "some.pth")
            assert_same_state(read_state_dict(tmp_path / "some.pth"), STATE)

    def test_two_wrappers_are_told(self, tmp_path: Path) -> None:
        path, average = tmp_path / "some.pth", {"decay": 0.99, "module": {"x": torch.ones(1)}}
        torch.save({"ema": average, "model": STATE, "net": {"width": 3}, "optimizer": {"x": torch.ones(1)}}, path)
        stored = read_stored(path)
        assert_same_state(stored.state, STATE)
        assert stored.note == f"{path}: took its model, and left out its ema, also weights"
        torch.save({"ema": average}, path)
        stored = read_stored(path)
        assert_same_state(stored.state, {"x": torch.ones(1)})
        assert stored.note is None

    def test_wrappers_without_end(self, tmp_path: Path) -> None:
        content: dict[str, Any] = {"epoch": 3}
        content |= {"model": content, "ema": content}
        torch.save(content, tmp_path / "some.pth")
        with pytest.raises(CheckpointError, match="its model is not a mapping of names to tensors"):
            read_stored(tmp_path / "some.pth")

    def test_what_lies_beside(self, tmp_path: Path) -> None:
        kept = {"cfg": "DATA: {}", "meta": {"CLASSES": ["a"], "epoch": 3}, "timesformer_cli": "{}"}
        other = {"epoch": 3, "optimizer_state": {"lr": torch.ones(1)}, "scheduler": {"last": 3}}
        torch.save({**kept, **other, "state_dict": STATE}, tmp_path / "some.pth")
        stored = read_stored(tmp_path / "some.pth")
        assert (stored.path, stored.extras) == (tmp_path / "some.pth", kept)
        torch.save(STATE, tmp_path / "some.pth")
        assert read_stored(tmp_path / "some.pth").extras == {}

    @pytest.mark.parametrize("layout", ["hub", "original", "mmaction2"])
    @pytest.mark.parametrize(
        "prefix", ["", "model.", "net.", "module.model.", "base_model.model.", "recogniser.video."]
    )
    @pytest.mark.parametrize("beside", [(), ("criterion.weight", "train_acc.total")])
    def test_prefixes_that_only_the_network_has(
        self, made: Any, layout: str, prefix: str, beside: tuple[str, ...], tmp_path: Path
    ) -> None:
        """As Lightning's modules with a loss and a metric, and averages of weights."""
        own = made.state_dict()
        wanted = {"hub": dict, "original": original_state, "mmaction2": mmaction2_state}[layout](own)
        bare = {name.removeprefix("model."): tensor for name, tensor in wanted.items()}
        state = {prefix + name: tensor for name, tensor in bare.items()}
        state |= {f"{prefix}encoder.total_ops": torch.zeros(1, dtype=torch.float64), "total_params": torch.zeros(1)}
        state |= {"n_averaged": torch.tensor(7)}
        torch.save({"state_dict": state | dict.fromkeys(beside if prefix else (), torch.ones(2))}, tmp_path / "a.ckpt")
        stored = read_stored(tmp_path / "a.ckpt")
        assert_same_state(stored.state, bare)
        left = [*(beside if prefix else ()), f"{prefix}encoder.total_ops", "total_params", "n_averaged"]
        shown = ", ".join(left[:4]) + (" and 1 more" if len(left) > 4 else "")
        assert stored.note == f"{tmp_path / 'a.ckpt'}: left out {shown}, not part of the network"
        assert read_stored(save_pyth(tmp_path / "b.pyth", own)).note is None

    def test_what_is_left_out_of_a_network_is_told_once(
        self, made: Any, folder: Path, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("timesformer_cli.network.inference._LAYERS_AT_A_TIME", 1)  # so the file is opened twice
        state = {f"model.{name}": tensor for name, tensor in made.state_dict().items()}
        torch.save(state | {"loss.weight": torch.ones(3)}, keep_only_config(folder) / "pytorch_model.bin")
        told: list[str] = []
        network = open_scorer(resolve(str(folder)), device="cpu", tell=told.append)
        assert told == [f"{folder / 'pytorch_model.bin'}: left out loss.weight, not part of the network"]
        with torch.no_grad():
            np.testing.assert_allclose(network(pixels.numpy()), made(pixels).logits.numpy(), rtol=1e-4, atol=1e-5)

    def test_of_two_networks_the_file_s_own_is_read(self, made: Any, tmp_path: Path) -> None:
        own, path = made.state_dict(), tmp_path / "some.ckpt"
        average = {f"ema_model.module.{name}": torch.zeros_like(tensor) for name, tensor in own.items()}
        torch.save({f"model.{name}": tensor for name, tensor in own.items()} | average, path)
        stored = read_stored(path)
        assert_same_state(stored.state, own)
        said = "left out the network under ema_model.module., beside the one under model."
        assert stored.note == f"{path}: {said}"
        torch.save(own | average, path)
        assert_same_state(read_stored(path).state, own)

    @pytest.mark.parametrize("names", [("student", "teacher"), ("model", "net")])
    def test_of_two_networks_none_is_guessed(self, made: Any, names: tuple[str, str], tmp_path: Path) -> None:
        own, path = made.state_dict(), tmp_path / "some.pth"
        torch.save({f"{who}.{name}": tensor for who in names for name, tensor in own.items()}, path)
        said = rf"holds 2 networks, under {names[0]}\. and {names[1]}\.; save the state dict"
        with pytest.raises(CheckpointError, match=said):
            read_stored(path)

    @pytest.mark.parametrize("part", ["lora_A.default", "base_layer", "modules_to_save.default"])
    def test_adapters_that_are_not_merged(self, made: Any, part: str, tmp_path: Path) -> None:
        state = {f"base_model.model.{name}": tensor for name, tensor in made.state_dict().items()}
        state[f"base_model.model.classifier.{part}.weight"] = torch.ones(2, 2)
        torch.save(state, tmp_path / "some.bin")
        with pytest.raises(CheckpointError, match=r"only an adapter, made with PEFT.*`merge_and_unload\(\)`"):
            read_stored(tmp_path / "some.bin")

    def test_settings_of_scripts_are_no_obstacle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """VideoMAE's scripts store their arguments, and Lightning its settings, in a dictionary of its own."""
        parsing = types.ModuleType("pytorch_lightning.utilities.parsing")
        parsing.AttributeDict = type("AttributeDict", (dict,), {"__module__": parsing.__name__})
        for name in ("pytorch_lightning", "pytorch_lightning.utilities", parsing.__name__):
            monkeypatch.setitem(sys.modules, name, parsing)
        args = argparse.Namespace(lr=0.1, output_dir=Path("runs"))
        torch.save({"args": args, "hyper_parameters": parsing.AttributeDict(a=1), "model": STATE}, tmp_path / "a.ckpt")
        assert_same_state(read_state_dict(tmp_path / "a.ckpt"), STATE)

    def test_parameters_become_tensors(self, tmp_path: Path) -> None:
        state = torch.nn.Linear(2, 3).state_dict(keep_vars=True)
        state._metadata = {"": {"version": 1}}
        torch.save(state, tmp_path / "some.pth")
        read = read_state_dict(tmp_path / "some.pth")
        assert_same_state(read, dict(state))
        assert type(read) is dict
        assert {type(tensor) for tensor in read.values()} == {Tensor}
        assert not any(tensor.requires_grad for tensor in read.values())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_precision_stays(self, dtype: torch.dtype, zipped: bool, tmp_path: Path) -> None:
        state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
        torch.save({"state_dict": state}, tmp_path / "some.pth", _use_new_zipfile_serialization=zipped)
        assert_same_state(read_state_dict(tmp_path / "some.pth"), state)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
    def test_mapped_from_the_file(self, tmp_path: Path) -> None:
        torch.save({"model_state": STATE, "optimizer_state": {"m": torch.ones(1000)}}, tmp_path / "some.pyth")
        assert not_mapped_from(tmp_path, read_state_dict(tmp_path / "some.pyth")) == []
        torch.save({"model_state": STATE}, tmp_path / "old.pyth", _use_new_zipfile_serialization=False)
        assert not_mapped_from(tmp_path, read_state_dict(tmp_path / "old.pyth")) == list(STATE), "the control"

    def test_a_repacked_archive(self, tmp_path: Path) -> None:
        """Compressed content cannot be mapped: what lies in the file is not the tensors' bytes."""
        torch.save(STATE, tmp_path / "some.pth")
        with (
            zipfile.ZipFile(tmp_path / "some.pth") as stored,
            zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in stored.namelist():
                packed.writestr(name, stored.read(name))
        assert_same_state(read_state_dict(tmp_path / "packed.pth"), STATE)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_bookkeeping_in_numpys_numbers(self, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """mmaction2 keeps its best score so, and mmengine its losses, in a class of its own."""
        buffers = types.ModuleType("mmengine.logging.history_buffer")
        history = type("HistoryBuffer", (), {"__module__": buffers.__name__})
        buffers.HistoryBuffer = history
        for name in ("mmengine", "mmengine.logging"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, buffers.__name__, buffers)
        losses = history()
        losses.__dict__ = {"max_length": 10, "_log_history": np.arange(3.0), "_count_history": np.arange(3)}
        best = {"best_score": np.float64(0.77), "epoch": np.int64(3)}
        content = {
            "state_dict": STATE,
            "meta": {"hook_msgs": best, "CLASSES": ("a", "b")},
            "message_hub": {"log_scalars": {"loss": losses}},
        }
        path = tmp_path / "some.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        allowed = set(torch.serialization.get_safe_globals())
        stored = read_stored(path)
        assert_same_state(stored.state, STATE)
        assert stored.extras["meta"]["CLASSES"] == ("a", "b")
        assert set(torch.serialization.get_safe_globals()) == allowed, "and what is allowed stays as it was"
        with pytest.raises(UnpicklingError):
            torch.load(path, weights_only=True)


class TestRefusedFiles:
    def refusal(self, path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            read_stored(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert "weights_only" not in message, "the advice of torch to load without protection is not passed on"
        assert len(message) < len(str(path)) + 250
        return message

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        "place",
        [
            lambda trap: {"model_state": STATE, "optimizer_state": {"state": {0: {"step": trap}}}},
            lambda trap: {"model_state": {**STATE, "blocks.1.weight": trap}},
            lambda trap: {"state_dict": STATE, "meta": {"hook_msgs": [trap]}},
            lambda trap: {"state_dict": STATE, "meta": {trap: 1}},
            lambda trap: {"model": trap},
            lambda trap: trap,
        ],
        ids=["optimizer", "weights", "meta", "key", "model", "all"],
    )
    def test_code_is_not_run(self, place: Any, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        path, witness = tmp_path / "some.pyth", tmp_path / "witness"
        torch.save(place(Trap(witness)), path, _use_new_zipfile_serialization=zipped)
        message = self.refusal(path)
        assert "refused, it holds posix.mkdir, more than tensors and plain data; nothing in it was run" in message
        assert "safetensors" in message
        assert not witness.exists()
        torch.load(path, weights_only=False)
        assert witness.exists(), "the control: the trap works"

    def test_code_in_a_shard_is_not_run(self, tmp_path: Path) -> None:
        save_sharded_bin(STATE, tmp_path)
        shard, witness = tmp_path / "pytorch_model-00002-of-00003.bin", tmp_path / "witness"
        torch.save({**torch.load(shard), "trap": Trap(witness)}, shard)
        with pytest.raises(CheckpointError, match=r"00002-of-00003\.bin: refused"):
            read_state_dict(tmp_path / "pytorch_model.bin.index.json")
        assert not witness.exists()

    def test_a_whole_network(self, tmp_path: Path) -> None:
        torch.save(torch.nn.Linear(2, 3), tmp_path / "some.pt")
        assert "it holds torch.nn.modules.linear.Linear, more" in self.refusal(tmp_path / "some.pt")

    @pytest.mark.parametrize("suffix", [".pyth", ".bin", ".safetensors"])
    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (b"", "the file is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 486431123\n", "git lfs pull"),
            (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
            (b"<html lang='de'>" + b" " * 600 + b"\x00", "a web page"),
            (b"No such object: timesformer.pyth\r\n", "a text file"),
            ("Zugriff verweigert \N{EN DASH} größer".encode(), "a text file"),
            (bytes(100), "damaged"),
            (b"PK\x03\x04" + bytes(100), "damaged"),
            (b"\x80\x02}q\x00.", "damaged"),
        ],
        ids=["empty", "pointer", "page", "long page", "text", "German", "zeros", "zip", "pickle"],
    )
    def test_other_files(self, content: bytes, part: str, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"some{suffix}"
        path.write_bytes(content)
        message = self.refusal(path)
        assert part in message or (part == "damaged" and "is the file complete?" in message)

    @pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
    def test_folder_and_nothing(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"some{suffix}"
        assert "No such file" in self.refusal(path)
        path.mkdir()
        assert "a folder" in self.refusal(path)

    @pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_truncated(self, share: float, zipped: bool, tmp_path: Path) -> None:
        path = tmp_path / "some.pyth"
        content = {"model_state": {str(i): torch.ones(1000) for i in range(5)}}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        message = self.refusal(path)
        assert "is the file complete?" in message or "is damaged" in message

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ([STATE], "it is not a mapping"),
            (torch.ones(1), "it is not a mapping"),
            ({"epoch": 3}, "it is not a mapping of names to tensors ('epoch' is not a tensor)"),
            ({**STATE, "step": 3}, "('step' is not a tensor)"),
            ({3: torch.ones(1)}, "(3 is not a tensor)"),
            ({"model_state": {"a": {"b": torch.ones(1)}}}, "its model_state is not a mapping"),
            ({"state_dict": {}, "model_state": {"a": None}}, "its model_state is not a mapping"),
            ({"a": torch.ones(1, device="meta")}, "'a' is not an ordinary tensor"),
            ({"model": {"a": torch.ones(3).to_sparse()}}, "'a' is not an ordinary tensor"),
            ({"head.weight": torch.ones(1, 8).expand(10**8, 8)}, "'head.weight' is not an ordinary tensor"),
        ],
    )
    def test_other_content(self, content: Any, part: str, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "some.pth")
        assert part in self.refusal(tmp_path / "some.pth")

    def test_torchscript(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(2)), tmp_path / "some.pt")
        assert "a TorchScript program, not weights" in self.refusal(tmp_path / "some.pt")


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
    def test_loads(self, made: Any, folder: Path, changes: dict[str, Any], pixels: Tensor) -> None:
        (folder / "config.json").write_text(json.dumps(COMMON | changes))
        network = TimesformerForVideoClassification.from_pretrained(folder)
        assert network.config.id2label == {0: "left", 1: "right", 2: "größer"}
        with torch.no_grad():
            assert torch.allclose(network(pixels).logits, made(pixels).logits, rtol=1e-4, atol=1e-5)

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
