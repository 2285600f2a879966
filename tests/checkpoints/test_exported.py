"""What exported models say of themselves, and how they are resolved, without the runtime that would run them."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testing.artefacts import FORMATS, exported, folder_of, metadata_of, torch_folder, write_linear
from testing.clips import LABELS
from timesformer_cli.checkpoints import exported as subject
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, UsageError
from timesformer_cli.runtimes import runtime_of

ODD = {"labels": json.dumps(LABELS), "name": "a\"<b>&'c\n\t ü 日本", "dataset": "", "long": "x" * 20_000}


def described(format: str, folder: Path, metadata: dict[str, str]) -> Path:
    """The exported model once more, with metadata that the library of its format wrote."""
    folder.mkdir()
    if format == "onnx":
        onnx = pytest.importorskip("onnx")
        model = onnx.load(exported("onnx"))
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, folder / "model.onnx")
        return folder / "model.onnx"
    if format == "openvino":
        openvino = pytest.importorskip("openvino")
        model = openvino.Core().read_model(exported("openvino"))
        for key, text in metadata.items():
            model.set_rt_info(text, ["timesformer", key])
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
        return folder / "model.xml"
    path = folder / "model.pt2"
    path.write_bytes(exported("pt2").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/metadata.json", json.dumps(metadata))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        subject.read_metadata(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_is_what_was_written(format: str, tmp_path: Path) -> None:
    assert subject.read_metadata(described(format, tmp_path / "x", ODD)) == ODD


@pytest.mark.parametrize("format", FORMATS)
def test_others_write_none(format: str) -> None:
    assert subject.read_metadata(exported(format)) == {}


def test_a_program_is_told_from_a_package(tmp_path: Path) -> None:
    assert not subject.read_archive(exported("pt2")).compiled
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/data/aotinductor/model/x.so", b"")
        archive.writestr("model/extra/metadata.json", '{"task": "x"}')
    assert subject.read_archive(tmp_path / "model.pt2") == (True, {"task": "x"})


def test_every_prefix_of_a_file_is_refused_or_read(tmp_path: Path) -> None:
    """ONNX files are read by us, byte by byte: nothing but our own error may come out of that."""
    whole = write_linear(tmp_path / "whole.onnx", classes=1, clip=(1, 1, 1, 1), metadata={"a": "b"}).read_bytes()
    path = tmp_path / "model.onnx"
    complete = 0
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        try:
            complete += subject.read_metadata(path) == {"a": "b"}
        except CheckpointError:
            continue
    assert subject.read_metadata(tmp_path / "whole.onnx") == {"a": "b"}
    assert complete >= 1


class TestDamage:
    @pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2"])
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"just a text\n",
            b"<html></html>",
            b"\x89PNG\r\n\x1a\n" + bytes(99),
            b"\xff" * 30,
            b"PK\x05\x06" + bytes(18),
        ],
        ids=["empty", "text", "page", "picture", "ones", "empty zip"],
    )
    def test_other_files(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        assert refusal(path)

    @pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2"])
    def test_pointers(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
        assert refusal(tmp_path / name).endswith("(it is a Git LFS pointer; `git lfs pull` fetches what it points to)")

    @pytest.mark.parametrize("format", FORMATS)
    def test_half_a_file(self, tmp_path: Path, format: str) -> None:
        path = tmp_path / exported(format).name
        content = exported(format).read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert refusal(path).startswith("cannot be read as a")

    def test_another_zip(self, tmp_path: Path) -> None:
        path = tmp_path / "model.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "x")
        assert refusal(path) == "not a program saved by torch.export"

    def test_no_file(self, tmp_path: Path) -> None:
        assert "No such file" in refusal(tmp_path / "model.onnx")

    @pytest.mark.parametrize("content", ["[]", "{", "3"])
    def test_metadata_of_another_kind(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "model.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/models/model.json", "{}")
            archive.writestr("m/extra/metadata.json", content)
        assert refusal(path).startswith("cannot be read as a .pt2")


class TestCompanions:
    def test_the_file_beside_an_xml(self) -> None:
        assert subject.companions(Path("a/b.xml")) == ["b.bin"]

    @pytest.mark.parametrize("name", ["model.onnx_data", "model.onnx.data"])
    def test_weights_outside_of_a_graph(self, tmp_path: Path, name: str) -> None:
        onnx = pytest.importorskip("onnx")
        model = onnx.load(write_linear(tmp_path / "whole.onnx"))
        onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location=name)
        assert subject.companions(tmp_path / "model.onnx") == [name]
        assert (tmp_path / name).is_file()

    def test_none(self, tmp_path: Path) -> None:
        assert subject.companions(write_linear(tmp_path / "model.onnx")) == []
        assert subject.companions(exported("pt2")) == []


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({"precision": "bf16"}, "`precision=bf16`: .* was exported in fp32; leave the option out"),
            ({"compile": True}, "`compile`: .* is an exported model, which its runtime compiles"),
        ],
    )
    def test_what_was_decided_when_it_was_exported(self, tmp_path: Path, options: dict[str, Any], found: str) -> None:
        path = described("onnx", tmp_path / "x", {"precision": "fp32"})
        checkpoint = replace(resolve(str(torch_folder())), weights=path)
        given: dict[str, Any] = {"precision": "auto", "compile": False, "provider": "auto", **options}
        with pytest.raises(UsageError, match=found):
            runtime_of(checkpoint).check(checkpoint, **given)
        runtime_of(checkpoint).check(checkpoint, precision="auto", compile=False, provider="cpu")

    @pytest.mark.parametrize("format", [None, "openvino", "pt2"])
    def test_providers_are_of_onnx(self, format: str | None) -> None:
        checkpoint = resolve(str(torch_folder()))
        if format is not None:
            checkpoint = replace(checkpoint, weights=exported(format))
        with pytest.raises(UsageError, match="`provider=cpu` is only for ONNX models"):
            runtime_of(checkpoint).check(checkpoint, precision="auto", compile=False, provider="cpu")


class TestResolve:
    @pytest.mark.parametrize("format", FORMATS)
    def test_a_folder_and_the_file_in_it(self, tmp_path: Path, format: str) -> None:
        folder = folder_of(format, tmp_path / "x")
        checkpoint, original = resolve(str(folder)), resolve(str(torch_folder()))
        assert checkpoint.weights == folder / exported(format).name
        assert (checkpoint.config, checkpoint.recipe, checkpoint.labels) == (
            original.config,
            original.recipe,
            original.labels,
        )
        assert replace(resolve(str(checkpoint.weights)), name=checkpoint.name, source=checkpoint.source) == checkpoint

    def test_the_layout_of_onnx_community(self, tmp_path: Path) -> None:
        folder = folder_of("onnx", tmp_path / "x")
        (folder / "onnx").mkdir()
        (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
        assert resolve(str(folder)).weights == folder / "onnx" / "model.onnx"
        half = write_linear(folder / "onnx" / "model_fp16.onnx")
        assert resolve(str(half)).weights == half
        assert resolve(str(half)).labels == LABELS

    def test_weights_of_pytorch_go_first(self, tmp_path: Path) -> None:
        folder = folder_of("onnx", tmp_path / "x")
        (folder / "model.safetensors").write_bytes((torch_folder() / "model.safetensors").read_bytes())
        assert resolve(str(folder)).weights == folder / "model.safetensors"

    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("named", [True, False])
    def test_a_file_alone_that_says_what_it_is(self, tmp_path: Path, format: str, named: bool) -> None:
        recipe = {"name": "mine", "sampling": {"num_frames": 4, "stride": 7}, "preprocess": {"mean": [0.1, 0.2, 0.3]}}
        metadata = metadata_of(torch_folder(), recipe=json.dumps(recipe))
        path = described(format, tmp_path / "x", metadata)
        checkpoint = resolve(str(path if named else path.parent))
        assert checkpoint.labels == LABELS
        assert (checkpoint.recipe.name, checkpoint.sampling.stride) == ("mine", 7)
        assert checkpoint.preprocess.mean == (0.1, 0.2, 0.3)
        assert checkpoint.weights == path

    def test_a_file_alone_that_says_nothing(self, tmp_path: Path) -> None:
        path = write_linear(tmp_path / "model.onnx")
        with pytest.raises(
            CheckpointError, match=r"no config\.json lies beside it; give one with `config=FILE`.*`labels_file=FILE`"
        ):
            resolve(str(path))
        checkpoint = resolve(str(path), config=torch_folder() / "config.json")
        assert (checkpoint.weights, checkpoint.labels) == (path, LABELS)

    def test_labels_are_the_users(self, tmp_path: Path) -> None:
        names = tmp_path / "labels.txt"
        names.write_text("a\nb\nc\nd\ne\n")
        path = described("onnx", tmp_path / "x", metadata_of(torch_folder()))
        assert resolve(str(path), labels_file=names).labels == ("a", "b", "c", "d", "e")

    @pytest.mark.parametrize(
        ("metadata", "found"),
        [
            ({"config": "{"}, "config in its metadata: not valid JSON"),
            ({"config": "[]"}, "config in its metadata: a JSON object was expected, not list"),
            ({"config": '{"num_frames": 0}'}, "num_frames is 0"),
            ({"config": "{}", "recipe": '{"sampling": 3}'}, "sampling: a JSON object was expected"),
            ({"config": "{}", "recipe": '{"tricks": 3}'}, "unknown tricks"),
        ],
    )
    def test_a_file_that_says_nonsense(self, tmp_path: Path, metadata: dict[str, str], found: str) -> None:
        path = write_linear(tmp_path / "model.onnx", metadata=metadata)
        with pytest.raises(CheckpointError, match=f"^{path}.*{found}"):
            resolve(str(path))

    def test_it_is_no_weights_of_a_published_model(self, tmp_path: Path) -> None:
        path = write_linear(tmp_path / "model.onnx")
        with pytest.raises(UsageError, match="an exported model is not a weight file; give it with `model`"):
            resolve("base-k400", weights=path)

    def test_a_folder_without_any(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes((torch_folder() / "config.json").read_bytes())
        with pytest.raises(
            CheckpointError, match=r"no weights; one of model\.safetensors, .*, model\.onnx, model\.xml"
        ):
            resolve(str(tmp_path))
