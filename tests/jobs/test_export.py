"""Exported models: what they compute, what they say of themselves, and what is left when something goes wrong."""

import errno
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from testing.clips import write_random_model
from testing.exports import each_graph_once
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.exported import read_metadata
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, InputError, OutputError, Terminated, UsageError
from timesformer_cli.flow import Item, Prediction
from timesformer_cli.jobs.export import ExportSpec, bundle, check, export, readme, verify
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import label, score
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video.inputs import find
from timesformer_cli.video.reader import open_video

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
openvino = pytest.importorskip("openvino")

LABELS = ("waving", 'größer "schneller" & <b>', "two\nlines", "</script>", "sitting", "running", "jumping")

SAMPLES = Path(__file__).parents[2] / "sample_videos"

Make = Callable[[ExportSpec], Path]


@pytest.fixture(scope="module", autouse=True)
def once() -> Iterator[None]:
    with each_graph_once():
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny network of random weights, biases and embeddings of time too, in the colours of Something-Something."""
    folder = write_random_model(tmp_path_factory.mktemp("network"), LABELS)
    fields = {"channel_order": "bgr", "mean": (0.3, 0.4, 0.5), "std": (0.2, 0.25, 0.3), "stride": 8}
    return with_overrides(resolve(str(folder)), fields=fields)


@pytest.fixture(scope="session")
def make(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Exports as asked for, each once."""
    made: dict[ExportSpec, Path] = {}
    root = tmp_path_factory.mktemp("exports")

    def call(spec: ExportSpec) -> Path:
        if spec not in made:
            folder = root / str(len(made))
            assert export(checkpoint, spec, folder).passed
            made[spec] = folder
        return made[spec]

    return call


PLAIN = ExportSpec(format="onnx")
PT2 = ExportSpec(format="pt2")


def frames_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 4, 3, 32, 32)).astype(np.float32)


def pixels_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 4, 32, 32, 3)).astype(np.uint8)


def expected(checkpoint: Checkpoint, values: np.ndarray, output: str = "logits") -> np.ndarray:
    """What the network gives, computed here from its parts."""
    model = TimesformerForVideoClassification.from_checkpoint(checkpoint)
    if values.dtype == np.uint8:
        spec = checkpoint.preprocess
        levels = values[..., ::-1] if spec.channel_order == "bgr" else values
        values = ((levels / 255 - spec.mean) / spec.std).transpose(0, 1, 4, 2, 3).astype(np.float32)
    with torch.inference_mode():
        frames = torch.from_numpy(np.ascontiguousarray(values))
        if output == "embedding":
            return model.timesformer(frames).last_hidden_state[:, 0].numpy()
        logits = model(frames).logits
        return (logits.softmax(-1) if output == "probabilities" else logits).numpy()


Runner = Callable[[np.ndarray], np.ndarray]


def open_onnx(folder: Path, name: str) -> Runner:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda values: cast("np.ndarray", session.run(None, {name: values})[0])


def open_openvino(folder: Path, name: str) -> Runner:
    model = openvino.compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda values: np.array(model({name: values})[0])


def open_pt2(folder: Path, _: str) -> Runner:
    model = torch.export.load(folder / "model.pt2").module()
    return torch.inference_mode()(lambda values: model(torch.from_numpy(values)).numpy())


def open_aoti(folder: Path, _: str) -> Runner:
    model = torch._inductor.aoti_load_package(str(folder / "model.pt2"))
    return lambda values: model(torch.from_numpy(values)).numpy()


OPEN = {"onnx": open_onnx, "openvino": open_openvino, "pt2": open_pt2, "aoti": open_aoti}


def compile_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that holds the kernels together is compiled once, and computes little."""
    monkeypatch.setattr("torch._inductor.config.aot_inductor.compile_wrapper_opt_level", "O0")
    monkeypatch.setattr("torch._inductor.config.aot_inductor.precompile_headers", False)


@pytest.mark.parametrize(
    ("spec", "tolerance"),
    [
        (PLAIN, 1e-5),
        (ExportSpec(format="onnx", precision="fp16", input="pixels", output="probabilities", opset=21), 5e-3),
        (ExportSpec(format="onnx", output="embedding", external_data=True), 1e-5),
        (ExportSpec(format="openvino"), 1e-5),
        (ExportSpec(format="openvino", precision="fp16", input="pixels", output="embedding"), 5e-3),
        (PT2, 1e-6),
        (ExportSpec(format="pt2", precision="bf16", input="pixels"), 4e-2),
        (ExportSpec(format="pt2", precision="fp16", output="probabilities"), 5e-3),
        (ExportSpec(format="aoti"), 1e-5),
    ],
    ids=lambda value: f"{value.format}-{value.kind}" if isinstance(value, ExportSpec) else "",
)
def test_each_format_computes_what_the_network_computes(
    make: Make, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, spec: ExportSpec, tolerance: float
) -> None:
    if spec.format == "aoti":
        if shutil.which("g++") is None:
            pytest.skip("no g++")
        compile_quickly(monkeypatch)
    run = OPEN[spec.format](make(spec), "pixels" if spec.input == "pixels" else "pixel_values")
    for count in (1, 2, 5):
        values = pixels_of(count) if spec.input == "pixels" else frames_of(count)
        result, wanted = run(values), expected(checkpoint, values, spec.output)
        assert result.dtype == np.float32
        assert result.shape == wanted.shape
        assert np.abs(result - wanted).max() <= tolerance * np.abs(wanted).max()
    # Frames in another order are another video.
    other = run(np.ascontiguousarray(values[:, ::-1]))
    assert np.abs(other - wanted).max() > tolerance * np.abs(wanted).max()


SIGMOIDS = ExportSpec(format="onnx", output="probabilities")


@pytest.fixture(scope="module")
def several(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """The same network for videos with several labels, and its export with their probabilities."""
    config = replace(checkpoint.config, problem_type="multi_label_classification")
    made = with_overrides(replace(checkpoint, config=config), fields={"activation": config.activation})
    folder = tmp_path_factory.mktemp("several") / "made"
    found = export(made, SIGMOIDS, folder)
    assert found.passed
    assert max(batch.relative for batch in found.comparison.batches) < 1e-5
    return made, folder


def test_probabilities_of_several_labels_are_sigmoids(several: tuple[Checkpoint, Path]) -> None:
    checkpoint, folder = several
    values = frames_of(3)
    result = open_onnx(folder, "pixel_values")(values)
    wanted = torch.from_numpy(expected(checkpoint, values)).sigmoid().numpy()
    np.testing.assert_allclose(result, wanted, rtol=1e-4)
    assert read_metadata(folder / "model.onnx")["activation"] == "sigmoid"
    assert "the sigmoid of the logits" in (folder / "README.md").read_text(encoding="utf-8")
    assert check(folder).passed
    assert check(folder / "model.onnx", checkpoint).passed
    logits = RunOptions(device="cpu").open(resolve(str(folder)))(values)
    np.testing.assert_allclose(logits, expected(checkpoint, values), rtol=1e-4, atol=1e-4)


def test_a_sigmoid_that_is_wrong_is_not_verified() -> None:
    right = np.random.default_rng(0).normal(0, 3, (5, 4)).astype(np.float32)
    views = np.zeros((5, 1, 1, 1, 1), np.float32)

    def compared(change: np.ndarray) -> float:
        off = iter([*(right + change)[:, None], (right + change)[1:3], right + change])
        found = verify.compare(lambda _: next(off), right, views, "probabilities", "sigmoid")
        return max(batch.relative for batch in found.batches)

    assert compared(np.zeros_like(right)) == 0
    assert compared(np.full_like(right, 0.1)) > 1e-3


def test_scores_that_are_no_probabilities_are_not_exported_as_such(checkpoint: Checkpoint, tmp_path: Path) -> None:
    other = with_overrides(checkpoint, fields={"activation": "none"})
    with pytest.raises(UsageError, match="are no probabilities"):
        export(other, SIGMOIDS, tmp_path / "made")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("combine", ["logits", "probabilities", "raw_logits"])
def test_the_example_of_several_labels(
    several: tuple[Checkpoint, Path],
    pictures: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Make,
    combine: str,
) -> None:
    for spec, folder in ((SIGMOIDS, several[1]), (PLAIN, make(PLAIN))):
        other = with_overrides(several[0], fields={"clips": 2, "combine": combine})
        code = "\n".join(readme.example(other, spec)).replace("'frames'", repr(str(pictures["landscape"])))
        monkeypatch.chdir(folder)
        exec(code, {})
        shown = capsys.readouterr().out
        tolerance = 0.05 if combine == "raw_logits" else 0.01  # logits span more than shares
        assert_labelled(shown, replace(other, weights=folder / "model.onnx"), pictures["landscape"], tolerance)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("pan_left.mp4", "zoom_out.mp4", "static_with_traffic.mp4"):
        shutil.copy(SAMPLES / name, folder)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_whole_numbers_of_eight_bits(
    tmp_path: Path,
    videos: Path,
    checkpoint: Checkpoint,
    format: Any,
    calibrated: bool,
) -> None:
    if format == "openvino":
        pytest.importorskip("nncf")
    folder = videos if calibrated else None
    spec = ExportSpec(format=format, quantize="int8", calibrate=folder, calibration_views=6, input="pixels")
    told: list[str] = []
    found = export(checkpoint, spec, tmp_path / "made", tell=told.append)
    # Activations of so narrow a network do not take NNCF's rounding as those of real ones do.
    narrow = format == "openvino" and calibrated
    assert found.passed or narrow
    made = tmp_path / ("made" if found.passed else "made.unverified")
    assert (f"calibrating with 3 videos of {videos}" in told) == calibrated
    values = pixels_of(5)
    result, wanted = OPEN[format](made, "pixels")(values), expected(checkpoint, values)
    off = np.abs(result - wanted).max() / np.abs(wanted).max()
    assert 1e-4 < off < (0.5 if narrow else 0.15)  # more than rounding of float32: it is quantized
    file = made / ("model.onnx" if format == "onnx" else "model.xml")
    assert read_metadata(file)["precision"] == "int8"
    if format == "onnx":
        types = {node.op_type for node in onnx.load(file).graph.node}
        assert ("QuantizeLinear" in types) == calibrated
        assert ("MatMulInteger" in types) != calibrated
        stored = [tensor for tensor in onnx.load(file).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        assert sum(int(np.prod(tensor.dims)) for tensor in stored) > 3000  # of the one layer
        shapes = {tuple(tensor.dims) for tensor in stored}
        assert (16, 3, 8, 8) in shapes  # the projection of patches too
        assert sorted(path.name for path in made.glob("*.onnx")) == ["model.onnx"]


def test_calibration_without_a_video(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    spec = ExportSpec(format="onnx", quantize="int8", calibrate=tmp_path)
    with pytest.raises(InputError, match="none of its 1 videos can be read"):
        export(checkpoint, spec, tmp_path / "made")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4"]


def test_the_graph_of_onnx_is_clean(make: Make) -> None:
    model = onnx.load(make(PLAIN) / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.producer_name == "timesformer-cli"
    (taken,), (given,) = model.graph.input, model.graph.output
    sizes = [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim]
    assert (taken.name, sizes) == ("pixel_values", ["batch", 4, 3, 32, 32])
    sizes = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert (given.name, sizes) == ("logits", ["batch", len(LABELS)])
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    params = {d.dim_param for value in model.graph.value_info for d in value.type.tensor_type.shape.dim if d.dim_param}
    assert params
    assert all("batch" in param for param in params)
    names = {tensor.name for tensor in model.graph.initializer}
    assert "timesformer.encoder.layer.0.attention.attention.qkv.bias" in names


def test_opsets(make: Make, checkpoint: Checkpoint, tmp_path: Path) -> None:
    spec = ExportSpec(format="onnx", precision="fp16", input="pixels", output="probabilities", opset=21)
    model = onnx.load(make(spec) / "model.onnx")
    assert [entry.version for entry in model.opset_import] == [21]
    with pytest.raises(UsageError, match="`opset=99`: PyTorch cannot write this model with it"):
        export(checkpoint, replace(PLAIN, opset=99), tmp_path / "made")
    assert os.listdir(tmp_path) == []


def test_weights_of_onnx_beside_the_graph(make: Make) -> None:
    folder = make(ExportSpec(format="onnx", output="embedding", external_data=True))
    assert (folder / "model.onnx_data").stat().st_size > 4 * 5000
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    places = {entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert places == {"model.onnx_data"}


def test_weights_that_no_single_file_can_hold(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before the minutes that the exporter would take for so large a network."""
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(UsageError, match="do not fit into one ONNX file; add `external_data`"):
        export(checkpoint, replace(PLAIN, max_onnx_bytes=10_000), tmp_path / "made")


def test_a_pt2_does_without_its_example(make: Make) -> None:
    file = make(PT2) / "model.pt2"
    assert torch.export.load(file).example_inputs is None


@pytest.mark.parametrize(
    ("spec", "file"),
    [(PLAIN, "model.onnx"), (ExportSpec(format="openvino"), "model.xml"), (PT2, "model.pt2")],
    ids=["onnx", "openvino", "pt2"],
)
def test_the_file_tells_what_it_is(make: Make, checkpoint: Checkpoint, spec: ExportSpec, file: str) -> None:
    stated = read_metadata(make(spec) / file)
    weights = cast("Path", checkpoint.weights)
    assert stated["source_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert stated["licence"] == "unknown: see the model it was exported from"
    assert tuple(json.loads(stated["labels"])) == LABELS
    assert [
        stated[name] for name in ("task", "precision", "input", "output", "layout", "num_frames", "channel_order")
    ] == [*("video-classification", "fp32", "frames", "logits", "BTCHW", "4", "bgr")]
    # On its own it is the same model.
    alone = resolve(str(make(spec) / file))
    assert alone.recipe == checkpoint.recipe
    assert alone.labels == checkpoint.labels
    assert alone.config == checkpoint.config


def test_names_that_no_file_could_hold(checkpoint: Checkpoint, tmp_path: Path) -> None:
    named = replace(checkpoint, name="a\nb\udcff<`", source="c\x00d\udcff")
    assert export(named, PT2, tmp_path / "made").passed
    stated = read_metadata(tmp_path / "made" / "model.pt2")
    assert stated["name"] == "a\\nb\\udcff<`"
    assert "# a\\nb\\udcff<', for" in (tmp_path / "made" / "README.md").read_text(encoding="utf-8")


def test_the_licence_of_a_published_model(tmp_path: Path) -> None:
    stated = bundle.metadata(resolve("camera-motion"), PLAIN)
    assert stated["licence"] == "Apache-2.0"
    assert stated["channel_order"] == "gray"


def test_what_lies_beside_the_model(make: Make, checkpoint: Checkpoint) -> None:
    folder = make(PLAIN)
    assert sorted(os.listdir(folder)) == [
        *("README.md", "SHA256SUMS", "config.json", "labels.txt", "model.onnx"),
        *("preprocessor_config.json", "recipe.json", "verification.json"),
    ]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    lines = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert lines == ["waving", LABELS[1], "two lines", *LABELS[3:], ""]
    kept = json.loads((folder / "verification.json").read_text(encoding="utf-8"))
    assert [batch["views"] for batch in kept["batches"]] == [1, 2, 5]
    assert kept["bytes"] == (folder / "model.onnx").stat().st_size
    assert kept["torch_seconds_per_view"] > 0
    views = verify.sample_views(checkpoint, "frames")
    assert np.array_equal(np.array(kept["reference"], np.float32), expected_alone(checkpoint, views))


def expected_alone(checkpoint: Checkpoint, views: np.ndarray) -> np.ndarray:
    return np.concatenate([expected(checkpoint, view[None]) for view in views])


def test_views_to_verify_with(checkpoint: Checkpoint) -> None:
    views = verify.sample_views(checkpoint, "frames")
    assert views.shape == (5, 4, 3, 32, 32)
    assert np.array_equal(views[1], views[0][..., ::-1])
    assert len({view.tobytes() for view in views}) == 5
    spec = checkpoint.preprocess
    pixels = verify.sample_views(checkpoint, "pixels").transpose(0, 1, 3, 4, 2) * spec.std + spec.mean
    assert np.abs(pixels * 255 - np.rint(pixels * 255)).max() < 1e-3
    assert np.abs(verify.sample_views(checkpoint, "pixels") - views).max() <= 0.51 / 255 / min(spec.std)


def test_a_check_later(make: Make, checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(make(PT2), folder)
    found = check(folder)
    assert found.passed
    assert found.comparison.torch_seconds is None
    assert check(folder, checkpoint).comparison.torch_seconds is not None
    assert check(folder / "model.pt2", checkpoint).passed
    with pytest.raises(CheckpointError, match="nothing to compare it with; name the model"):
        check(folder / "model.pt2")
    (folder / "verification.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not written by an export"):
        check(folder)


def test_a_hub_folder_is_checked_in_its_own_precision(make: Make) -> None:
    found = check(make(ExportSpec(format="hub", precision="fp16")))
    assert (found.format, found.precision, found.passed) == ("hub", "fp16", True)


def test_another_model_is_found_out(make: Make, tmp_path: Path, checkpoint: Checkpoint) -> None:
    torch.manual_seed(1)
    TimesformerForVideoClassification(checkpoint.config).save_pretrained(tmp_path)
    other = replace(checkpoint, weights=tmp_path / "model.safetensors")
    assert not check(make(PLAIN) / "model.onnx", other).passed


def test_a_changed_file_is_found_out(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(make(PLAIN), folder)
    model = onnx.load(folder / "model.onnx")
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "classifier.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, folder / "model.onnx")
    found = check(folder)
    assert (found.passed, found.changed) == (False, ("model.onnx",))
    bundle.write_sums(folder)  # the numbers tell as well
    found = check(folder)
    assert (found.passed, found.changed) == (False, ())
    assert found.comparison.batches[0].max_difference == pytest.approx(0.01, rel=1e-2)


HUB = ExportSpec(format="hub")


def test_what_differs_is_left_under_another_name(
    checkpoint: Checkpoint, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made"
    shutil.copytree(make(PT2), folder)
    before = (folder / "model.pt2").read_bytes()
    save = TimesformerForVideoClassification.save_pretrained

    def save_damaged(model: TimesformerForVideoClassification, path: Path) -> None:
        with torch.no_grad():
            model.timesformer.encoder.layer[0].output.dense.weight[0, 0] += 1
        save(model, path)

    monkeypatch.setattr(TimesformerForVideoClassification, "save_pretrained", save_damaged)
    for _ in range(2):  # the second takes the place of the first
        assert not export(checkpoint, HUB, folder, overwrite=True).passed
        assert sorted(os.listdir(tmp_path)) == ["made", "made.unverified"]
    assert (folder / "model.pt2").read_bytes() == before
    assert not json.loads((tmp_path / "made.unverified" / "verification.json").read_text())["passed"]
    assert not check(tmp_path / "made.unverified").passed


def test_a_folder_is_replaced_without_a_loss(checkpoint: Checkpoint, tmp_path: Path, make: Make) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    assert export(checkpoint, HUB, folder).passed  # an empty one is as good as none
    with pytest.raises(OutputError, match="already exists; choose another name, or `overwrite`"):
        export(checkpoint, PT2, folder)
    shutil.rmtree(folder)
    shutil.copytree(make(PT2), folder)
    assert export(checkpoint, HUB, folder, overwrite=True).format == "hub"
    assert "model.pt2" not in os.listdir(folder)
    assert os.listdir(tmp_path) == ["made"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds 'notes\.txt', which is not from an export"):
        export(checkpoint, PT2, folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_targets_that_cannot_be(checkpoint: Checkpoint, tmp_path: Path, make: Make) -> None:
    own = cast("Path", checkpoint.weights).parent
    with pytest.raises(OutputError, match="which is not from an export"):
        export(checkpoint, PT2, own, overwrite=True)
    hub = resolve(str(make(ExportSpec(format="hub"))))
    with pytest.raises(OutputError, match="holds the model itself"):
        export(hub, PT2, Path(hub.name), overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        export(checkpoint, PT2, tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="does not exist; make it first"):
        export(checkpoint, PT2, tmp_path / "no" / "made")
    (tmp_path / "made.unverified").mkdir()
    (tmp_path / "made.unverified" / "mine").touch()
    with pytest.raises(OutputError, match="holds 'mine', which is not from an export"):
        export(checkpoint, PT2, tmp_path / "made")
    with pytest.raises(UsageError, match="an exported model; give the model that it was made from"):
        export(resolve(str(make(PT2))), PT2, tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["file", "made.unverified"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file grows beyond that many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2", "hub"])
def test_a_full_disk_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path, format: Any) -> None:
    with full_disk(20_000), pytest.raises(OutputError, match="made: cannot be written"):
        export(checkpoint, ExportSpec(format=format), tmp_path / "made")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated, OSError(errno.ENOSPC, "No space left on device")])
def test_a_stop_at_the_end_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    def fail(folder: Path) -> None:
        raise stop

    monkeypatch.setattr(bundle, "write_sums", fail)
    with pytest.raises(OutputError if isinstance(stop, OSError) else stop):
        export(checkpoint, ExportSpec(format="hub"), tmp_path / "made")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"format": "onnx", "precision": "bf16"}, "`precision=bf16`: `format=onnx` has fp32, fp16"),
        ({"format": "openvino", "precision": "bf16"}, "`format=openvino` has fp32, fp16"),
        ({"format": "aoti", "precision": "fp16"}, "`format=aoti` has fp32, bf16"),
        ({"format": "pt2", "quantize": "int8"}, "`quantize=int8`: needs `format=onnx or openvino`"),
        ({"format": "onnx", "quantize": "int8", "precision": "fp16"}, "leave out `precision`"),
        ({"format": "onnx", "calibrate": Path("x")}, "`calibrate` needs `quantize=int8`"),
        ({"format": "hub", "input": "pixels"}, "`input` and `output` need another format"),
        ({"format": "hub", "output": "embedding"}, "`input` and `output` need another format"),
        ({"format": "pt2", "opset": 18}, "need `format=onnx`"),
        ({"format": "openvino", "external_data": True}, "need `format=onnx`"),
        ({"format": "onnx", "opset": 17}, "the oldest that PyTorch writes is 18"),
        ({"format": "onnx", "quantize": "int8", "external_data": True}, "small enough for one file"),
    ],
)
def test_combinations_that_cannot_be(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExportSpec(**wanted)


@pytest.mark.parametrize(
    ("spec", "package", "command"),
    [
        (PLAIN, "onnxscript", r"needs onnxscript; install it with: pip install 'timesformer-cli\[onnx\]'"),
        (ExportSpec(format="openvino"), "openvino", r"pip install 'timesformer-cli\[openvino\]'"),
        (ExportSpec(format="openvino", quantize="int8"), "nncf", r"pip install 'timesformer-cli\[nncf\]'"),
    ],
)
def test_a_missing_package(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: ExportSpec,
    package: str,
    command: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=command):
        export(checkpoint, spec, tmp_path / "made")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Frames of a video as pictures, in landscape and portrait."""
    root = tmp_path_factory.mktemp("pictures")
    folders = {}
    for name, video in (("landscape", "pan_left.mp4"), ("portrait", "tilt_up_portrait.mp4")):
        folders[name] = root / name / "frames"
        folders[name].mkdir(parents=True)
        with open_video(Item(str(SAMPLES / video))) as reader:
            numbers = list(range(0, reader.info.num_frames, 2))
            for number, pixels in enumerate(reader.read(numbers).pixels):
                Image.fromarray(pixels).save(folders[name] / f"{number:05}.png", compress_level=1)
    return folders


def assert_labelled(shown: str, checkpoint: Checkpoint, pictures: Path, tolerance: float = 0.01) -> None:
    """Lines of scores and labels are those of `predict --frames`, up to bytes that were rounded in between."""
    scorer = RunOptions(device="cpu").open(checkpoint)
    with prepare_all(find([str(pictures)], frames=True), checkpoint.recipe, workers=0, limits=Limits()) as prepared:
        (result,) = label(score(filter(None, prepared), scorer), checkpoint)
    assert isinstance(result, Prediction)
    scores = result.segments[0].scores
    lines = [line.partition(" ") for line in shown.splitlines()]
    found = [float(score) for score, _, _ in lines]
    assert found == pytest.approx(sorted(scores.tolist(), reverse=True)[:5], abs=tolerance)
    names = [" ".join(label.splitlines()) for label in checkpoint.labels]
    assert found == pytest.approx([scores[names.index(label)] for _, _, label in lines], abs=tolerance)


@pytest.mark.parametrize("shape", ["landscape", "portrait"])
@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        (None, {}),
        (None, {"crops": 3, "size": 32}),
        (None, {"crops": 3, "short_side": 40}),
        (None, {"clips": 1, "placement": "middle"}),
        (None, {"clips": 3, "combine": "probabilities"}),
        ("mmaction2", {}),
        ("mmaction2", {"clips": 2, "stride": 30}),
        ("mmaction2", {"clips": "auto", "crops": 1, "stride": 9}),
        ("transformers", {}),
        ("uniform", {"stretch": (32, 32), "crops": 1}),
    ],
)
def test_the_example_labels_as_predict_does(
    make: Make,
    checkpoint: Checkpoint,
    pictures: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shape: str,
    recipe: Any,
    fields: dict[str, Any],
) -> None:
    folder = make(PLAIN)
    other = with_overrides(checkpoint, recipe=recipe, fields=fields)
    code = "\n".join(readme.example(other, PLAIN)).replace("'frames'", repr(str(pictures[shape])))
    monkeypatch.chdir(folder)
    exec(code, {})
    assert_labelled(capsys.readouterr().out, replace(other, weights=folder / "model.onnx"), pictures[shape])


def with_frames(exported: Path, folder: Path, pictures: Path) -> str:
    """A copy of an exported folder with pictures of a video in it; the example of its README."""
    shutil.copytree(exported, folder)
    (folder / "frames").symlink_to(pictures)
    return (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def files_of_packages(names: Iterable[str]) -> set[Path]:
    """What lies in site-packages of packages and of all that they need."""
    found: set[Path] = set()
    pending, seen = list(names), set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        package = distribution(name)
        needed = map(Requirement, package.requires or ())
        pending += [other.name for other in needed if other.marker is None or other.marker.evaluate({"extra": ""})]
        tops = {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}
        found |= {Path(str(package.locate_file(top))) for top in tops}
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with numpy, pillow and onnxruntime, and no more than they need."""
    root = tmp_path_factory.mktemp("bare")
    venv.create(root, symlinks=True)
    python = root / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = subprocess.run([python, "-I", "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    for path in files_of_packages(["numpy", "pillow", "onnxruntime"]):
        Path(place, path.name).symlink_to(path)
    return python


@pytest.mark.parametrize(
    "spec",
    [
        PLAIN,
        ExportSpec(format="onnx", precision="fp16", input="pixels", output="probabilities", opset=21),
    ],
    ids=["frames", "pixels"],
)
def test_the_example_runs_with_numpy_pillow_and_onnxruntime_alone(
    make: Make, checkpoint: Checkpoint, pictures: dict[str, Path], tmp_path: Path, bare_python: Path, spec: ExportSpec
) -> None:
    code = with_frames(make(spec), tmp_path / "exported", pictures["landscape"])
    absent = "torch", "typer", "timesformer_cli", "transformers", "onnx", "av", "openvino", "huggingface_hub", "pytest"
    ask = f"from importlib.util import find_spec; print([name for name in {absent!r} if find_spec(name)])"
    done = subprocess.run([bare_python, "-I", "-c", ask], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    done = subprocess.run(
        [bare_python, "-I", "-X", "utf8", "-c", code], cwd=tmp_path / "exported", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_labelled(done.stdout, checkpoint, pictures["landscape"])


@pytest.mark.parametrize(
    ("spec", "runtime"), [(ExportSpec(format="openvino"), "openvino"), (PT2, "torch")], ids=["openvino", "pt2"]
)
def test_the_example_needs_nothing_of_ours(
    make: Make, checkpoint: Checkpoint, pictures: dict[str, Path], tmp_path: Path, spec: ExportSpec, runtime: str
) -> None:
    folder = tmp_path / "exported"
    code = with_frames(make(spec), folder, pictures["landscape"])
    refused = {"timesformer_cli", "torch", "transformers", "onnx", "av", "openvino", "onnxruntime"} - {runtime}
    blocker = f"import sys; sys.modules.update(dict.fromkeys({refused!r}))\n"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", blocker + code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_labelled(done.stdout, checkpoint, pictures["landscape"])
