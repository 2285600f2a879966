"""Exported models through their runtimes: the logits of the network, whatever a file asks for and gives."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from testing.artefacts import CLASSES, CLIP, FORMATS, exported, folder_of, torch_folder, weights, write_linear
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, DeviceError, UsageError
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.runtimes import exported as engines
from timesformer_cli.runtimes import onnx as ort
from timesformer_cli.runtimes import ports
from timesformer_cli.runtimes import pytorch as runtime
from timesformer_cli.runtimes.batching import choose_batch_size
from timesformer_cli.runtimes.ports import to_pixels
from timesformer_cli.specs import Checkpoint


def views(count: int, clip: tuple[int, ...] = CLIP) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal((count, *clip)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Checkpoint:
    return resolve(str(torch_folder()))


@pytest.fixture
def linear(network: Checkpoint, tmp_path: Path) -> Callable[..., Checkpoint]:
    """A checkpoint with a file of `write_linear`."""

    def make(**options: Any) -> Checkpoint:
        return replace(network, name="linear", weights=write_linear(tmp_path / "model.onnx", **options))

    return make


def refusal(checkpoint: Checkpoint, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        engines.open_scorer(checkpoint, **options)(views(1))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{checkpoint.weights}: ")
    return message


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_logits_are_those_of_the_network(network: Checkpoint, format: str, count: int) -> None:
    scorer = RunOptions(device="cpu").open(replace(network, weights=exported(format)))
    expected = runtime.open_scorer(network, device="cpu")(views(count))
    logits = scorer(views(count))
    assert (logits.dtype, logits.shape) == (np.float32, (count, CLASSES))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert np.abs(scorer(views(count)[:, :, ::-1]) - expected).max() > 1e-2  # in other colours they would differ


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_given_is_left_alone_and_what_came_back_stays(network: Checkpoint, format: str) -> None:
    scorer = engines.open_scorer(replace(network, weights=exported(format)), device="cpu")
    pixels = views(2)
    pixels.flags.writeable = False
    first = scorer(pixels)
    kept = first.copy()
    scorer(views(3))
    np.testing.assert_array_equal(pixels, views(2))
    np.testing.assert_array_equal(first, kept)


class TestInputs:
    def test_one_product(self, linear: Callable[..., Checkpoint]) -> None:
        expected = views(3).reshape(3, -1) @ weights()
        np.testing.assert_allclose(engines.open_scorer(linear())(views(3)), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_batches_of_one_size(self, linear: Callable[..., Checkpoint], count: int) -> None:
        scorer = engines.open_scorer(linear(shape=(2, *CLIP)))
        expected = views(count).reshape(count, -1) @ weights()
        np.testing.assert_allclose(scorer(views(count)), expected, rtol=1e-4, atol=1e-4)

    def test_half_precision(self, linear: Callable[..., Checkpoint]) -> None:
        logits = engines.open_scorer(linear(dtype="float16"))(views(2))
        assert logits.dtype == np.float32
        expected = views(2).astype(np.float16).astype(np.float32).reshape(2, -1) @ weights()
        np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-3)

    @pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
    def test_pixels_are_those_that_the_views_were_made_of(
        self, network: Checkpoint, linear: Callable[..., Checkpoint], order: str
    ) -> None:
        """All levels, each through statistics of its own: not one may be rounded to its neighbour."""
        channels = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "gray": (0,)}[order]
        mean, std = (0.485, 0.456, 0.406)[: len(channels)], (0.229, 0.224, 0.225)[: len(channels)]
        pixels = np.random.default_rng(1).integers(0, 256, (2, 4, 32, 32, 3)).astype(np.uint8)
        if order == "gray":
            pixels = np.ascontiguousarray(pixels[..., :1].repeat(3, axis=-1))
        levels = pixels[..., list(channels)].transpose(0, 1, 4, 2, 3).astype(np.float32) / np.float32(255)
        shape = (len(channels), 1, 1)
        made = (levels - np.reshape(mean, shape).astype(np.float32)) / np.reshape(std, shape).astype(np.float32)
        preprocess = replace(network.preprocess, channel_order=order, mean=mean, std=std)  # type: ignore[arg-type]
        np.testing.assert_array_equal(to_pixels(made, preprocess), pixels)
        if order == "gray":
            return
        given = linear(shape=("batch", 4, 32, 32, 3), dtype="uint8", channels=channels, mean=mean, std=std)
        scorer = engines.open_scorer(replace(given, recipe=replace(given.recipe, preprocess=preprocess)))
        np.testing.assert_allclose(scorer(made), made.reshape(2, -1) @ weights(), rtol=1e-3, atol=1e-3)

    def test_views_beyond_white_and_black_become_white_and_black(self, network: Checkpoint) -> None:
        pixels = to_pixels(np.full((1, *CLIP), 99, np.float32), network.preprocess)
        assert (pixels == 255).all()
        assert (to_pixels(np.full((1, *CLIP), -99, np.float32), network.preprocess) == 0).all()

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({"extra_inputs": ("mask",)}, r"its inputs are frames float32 \[any, 4, 3, 32, 32\], mask float32 \[1\]"),
            (
                {"shape": ("batch", 3, 32, 128)},
                r"its inputs are frames float32 \[any, 3, 32, 128\]; its outputs logits",
            ),
            ({"dtype": "int64"}, r"its inputs are frames int64 \[any, 4, 3, 32, 32\]"),
        ],
    )
    def test_a_model_of_other_things(
        self, linear: Callable[..., Checkpoint], options: dict[str, Any], found: str
    ) -> None:
        message = refusal(linear(**options))
        assert "not a model whose only input is videos" in message
        assert re.search(found, message)

    @pytest.mark.parametrize(
        ("shape", "dtype", "taken", "given"),
        [
            (("n", 8, 3, 16, 32), "float32", "[8, 3, 16, 32]", "[4, 3, 32, 32]"),
            (("n", 3, 4, 32, 32), "float32", "[3, 4, 32, 32]", "[4, 3, 32, 32]"),
            (("n", "t", 3, 64, 16), "float32", "[4, 3, 64, 16]", "[4, 3, 32, 32]"),
            (("n", 4, 16, 64, 3), "uint8", "[4, 16, 64, 3]", "[4, 32, 32, 3]"),
        ],
        ids=["size", "channels first", "free frames", "pixels"],
    )
    def test_clips_of_another_shape(
        self, linear: Callable[..., Checkpoint], shape: tuple[int, ...], dtype: str, taken: str, given: str
    ) -> None:
        message = refusal(linear(shape=shape, dtype=dtype))
        assert f"takes clips of {taken}" in message
        assert f"but the recipe original with clips=auto, crops=1 gives {given}" in message

    @pytest.mark.parametrize("format", FORMATS)
    def test_the_recipe_changed_on_the_way(self, network: Checkpoint, format: str) -> None:
        changed = with_overrides(replace(network, weights=exported(format)), fields={"num_frames": 7})
        message = refusal(changed)
        assert "takes clips of [4, 3, 32, 32] (frames, channels, height, width)" in message
        assert "num_frames=7 gives [7, 3, 32, 32]" in message

    def test_a_file_says_for_which_clips_it_was_exported(self, linear: Callable[..., Checkpoint]) -> None:
        """It may be another than the network was trained with, and its sizes may seem to be free."""
        checkpoint = linear(
            shape=("n", "t", "c", "h", "w"), metadata={"num_frames": "2", "image_size": "[32, 64]"}, outputs={"x": "nk"}
        )
        assert "takes clips of [2, 3, 32, 64]" in refusal(checkpoint)
        scorer = engines.open_scorer(with_overrides(checkpoint, fields={"num_frames": 2, "size": (32, 64)}))
        assert scorer(views(1, (2, 3, 32, 64))).shape == (1, CLASSES)

    def test_sizes_that_only_seem_free(self, linear: Callable[..., Checkpoint]) -> None:
        """As in files that were made with another clip than their config has."""
        checkpoint = linear(shape=("n", "t", "c", "h", "w"), clip=(2, 3, 32, 32), outputs={"x": "nk"})
        assert "ONNX Runtime cannot run it" in refusal(checkpoint)


class TestOutputs:
    def test_probabilities_are_logits_up_to_a_constant(self, linear: Callable[..., Checkpoint]) -> None:
        logits = engines.open_scorer(linear(outputs={"probabilities": ("batch", 5)}))(views(3))
        expected = views(3).reshape(3, -1) @ weights()
        difference = logits - expected
        np.testing.assert_allclose(difference, difference[:, :1].repeat(5, axis=1), atol=1e-3)

    def test_a_probability_of_nothing_is_a_number_still(self, linear: Callable[..., Checkpoint]) -> None:
        logits = engines.open_scorer(linear(outputs={"probabilities": ("batch", 5)}, scale=1e3))(views(3))
        assert np.isfinite(logits).all()
        assert logits.min() < -80

    @pytest.mark.parametrize("metadata", [{}, {"output": "probabilities", "activation": "sigmoid"}])
    def test_of_sigmoids_the_logits_are_exact(
        self, linear: Callable[..., Checkpoint], metadata: dict[str, str]
    ) -> None:
        made = linear(outputs={"probabilities": ("batch", 5)}, activation="Sigmoid", scale=0.3, metadata=metadata)
        expected = views(3).reshape(3, -1) @ weights() * np.float32(0.3)
        for asked in ("sigmoid", "softmax")[: 2 if metadata else 1]:
            logits = engines.open_scorer(with_overrides(made, fields={"activation": asked}))(views(3))
            np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)

    def test_a_sigmoid_rounded_to_one_is_a_number_still(self, linear: Callable[..., Checkpoint]) -> None:
        made = linear(outputs={"probabilities": ("batch", 5)}, activation="Sigmoid", scale=1e3)
        logits = engines.open_scorer(with_overrides(made, fields={"activation": "sigmoid"}))(views(3))
        assert np.isfinite(logits).all()
        assert logits.max() > 16
        assert logits.min() < -80

    def test_a_sigmoid_cannot_be_had_of_a_softmax(self, linear: Callable[..., Checkpoint]) -> None:
        """An export of an earlier version, whose config says that videos have several labels."""
        made = linear(outputs={"probabilities": ("batch", 5)}, metadata={"output": "probabilities"})
        message = refusal(with_overrides(made, fields={"activation": "sigmoid"}))
        assert "gives the probabilities of a softmax, from which those of a sigmoid cannot be computed" in message
        assert "`settings=activation=softmax`" in message
        assert engines.open_scorer(made)(views(1)).shape == (1, 5)

    @pytest.mark.parametrize(
        ("outputs", "stated"),
        [
            ({"embedding": ("n", 12288), "logits": ("n", 5)}, None),
            ({"embedding": ("n", 12288), "output_7": ("n", 5)}, None),
            ({"embedding": ("n", "width"), "logits": ("n", "classes")}, None),
            ({"output_7": ("n", "classes")}, None),
            ({"probabilities": ("n", 5), "logits": ("n", 5)}, None),
            ({"output_7": ("n", 5)}, "logits"),
        ],
    )
    def test_the_logits_are_found(
        self, linear: Callable[..., Checkpoint], outputs: Mapping[str, Any], stated: str | None
    ) -> None:
        metadata = {} if stated is None else {"output": stated}
        logits = engines.open_scorer(linear(outputs=outputs, metadata=metadata))(views(2))
        np.testing.assert_allclose(logits, views(2).reshape(2, -1) @ weights(), rtol=1e-4, atol=1e-4)

    def test_a_name_that_says_nothing_may_be_told(self, linear: Callable[..., Checkpoint]) -> None:
        checkpoint = linear(outputs={"embedding": ("n", 5)}, metadata={"output": "embedding"})
        assert "gives embeddings, not classes" in refusal(checkpoint)

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({"outputs": {"embedding": ("n", 12288)}}, "gives embeddings, not classes"),
            ({"outputs": {"a": ("n", 5), "b": ("n", 5)}}, "outputs a float32 [any, 5], b float32 [any, 5]"),
            ({"classes": 7}, "gives [any, 7] (views, classes), but its config and labels name 5 classes"),
            ({"scale": float("inf")}, "numbers that are not finite"),
        ],
    )
    def test_what_no_scores_can_be_made_of(
        self, linear: Callable[..., Checkpoint], options: dict[str, Any], found: str
    ) -> None:
        assert found in refusal(linear(**options))


class TestEmbeddings:
    def test_they_are_found_and_need_no_classes(self, linear: Callable[..., Checkpoint]) -> None:
        stated = linear(outputs={"output_7": ("n", 16)}, classes=16, metadata={"output": "embedding"})
        tokens = engines.open_scorer(stated, output="embedding")(views(3))
        np.testing.assert_allclose(tokens, views(3).reshape(3, -1) @ weights(16), rtol=1e-4, atol=1e-4)

    def test_a_different_width(self, linear: Callable[..., Checkpoint]) -> None:
        checkpoint = linear(outputs={"logits": ("n", 5), "embedding": ("n", 12288)})
        message = refusal(checkpoint, output="embedding")
        assert "gives [1, 12288] (views, numbers), but its config states a hidden size of 16" in message

    def test_a_model_for_classes(self, linear: Callable[..., Checkpoint]) -> None:
        assert "gives classes, not embeddings" in refusal(linear(), output="embedding")
        stated = linear(metadata={"output": "logits"})
        with pytest.raises(UsageError, match="gives classes, not embeddings; export it with `output=embedding`"):
            RunOptions().check(stated, "embedding")
        RunOptions().check(stated)

    @pytest.mark.parametrize(("output", "named"), [("mean", "`feature=mean`"), ("both", "`save_embeddings`")])
    def test_what_no_file_gives(self, linear: Callable[..., Checkpoint], output: Any, named: str) -> None:
        with pytest.raises(UsageError, match=f"^{named}: .* is an exported model, .*; use the model that it was made"):
            RunOptions().check(linear(), output)


class Fake(SimpleNamespace):
    """onnxruntime as it is where it has other providers; sessions are real ones on the CPU."""

    def __init__(self, *available: str, gives: Callable[[list[str]], list[str]] = lambda asked: asked) -> None:
        import onnxruntime

        super().__init__(opened=[], options=[], preload_dlls=lambda: print("no CUDA"), __version__="9.9")
        self.SessionOptions = onnxruntime.SessionOptions
        self.get_available_providers = lambda: [*available, "CPUExecutionProvider"]

        def open_session(path: Path, options: Any, providers: list[tuple[str, dict[str, str]]], **_: Any) -> Any:
            self.opened.append(providers)
            self.options.append(options)
            asked = [name for name, _ in providers]
            given = gives(asked)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            session.get_providers = lambda: given
            return session

        self.InferenceSession = open_session


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    pytest.importorskip("onnxruntime")

    def install(*available: str, **options: Any) -> Fake:
        module = Fake(*available, **options)
        monkeypatch.setattr(ort, "_import", lambda: module)
        return module

    return install


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class TestProviders:
    @pytest.mark.parametrize(
        ("device", "provider", "first", "options"),
        [
            ("auto", "auto", CUDA, {"device_id": "0", "use_tf32": "0"}),
            ("cuda", "auto", CUDA, {"device_id": "0", "use_tf32": "0"}),
            ("cuda:3", "auto", CUDA, {"device_id": "3", "use_tf32": "0"}),
            ("cuda:1", "tensorrt", "TensorrtExecutionProvider", {"device_id": "1"}),
            ("auto", "cuda", CUDA, {"device_id": "0", "use_tf32": "0"}),
            ("cpu", "auto", CPU, {}),
            ("auto", "cpu", CPU, {}),
            ("mps", "auto", "CoreMLExecutionProvider", {}),
            ("cpu", "openvino", "OpenVINOExecutionProvider", {"device_type": "CPU"}),
            ("auto", "directml", "DmlExecutionProvider", {}),
        ],
    )
    def test_device_and_provider(
        self,
        linear: Callable[..., Checkpoint],
        fake: Callable[..., Fake],
        capsys: pytest.CaptureFixture[str],
        device: str,
        provider: Any,
        first: str,
        options: dict[str, str],
    ) -> None:
        module = fake(*(backend.name for backend in ort._BACKENDS.values()))
        scorer = engines.open_scorer(linear(), device=device, provider=provider, tell=pytest.fail)
        assert module.opened[0][0] == (first, options)
        assert module.opened[0][-1][0] == CPU
        assert scorer.kind == {CPU: "cpu", "CoreMLExecutionProvider": "mps", "OpenVINOExecutionProvider": "cpu"}.get(
            first, "cuda"
        )
        assert capsys.readouterr() == ("", "")

    def test_torchrun_numbers_the_gpus(
        self, linear: Callable[..., Checkpoint], fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOCAL_RANK", "5")
        module = fake(CUDA)
        engines.open_scorer(linear())
        engines.open_scorer(linear(), device="cuda:1")
        assert [providers[0][1]["device_id"] for providers in module.opened] == ["5", "1"]

    @pytest.mark.parametrize(("device", "provider"), [("cpu", "cuda"), ("cuda:1", "cpu"), ("mps", "tensorrt")])
    def test_two_that_exclude_each_other(self, linear: Callable[..., Checkpoint], device: str, provider: Any) -> None:
        with pytest.raises(UsageError, match=f"`provider={provider}` and `device={device}` exclude each other"):
            engines.open_scorer(linear(), device=device, provider=provider)

    @pytest.mark.parametrize(("device", "provider"), [("cuda", "auto"), ("auto", "tensorrt"), ("mps", "auto")])
    def test_a_provider_that_is_not_there(
        self, linear: Callable[..., Checkpoint], fake: Callable[..., Fake], device: str, provider: Any
    ) -> None:
        fake("OpenVINOExecutionProvider")
        with pytest.raises(DeviceError, match=r"\(9\.9\) is built without it; it has cpu, openvino; choose one"):
            engines.open_scorer(linear(), device=device, provider=provider)

    def test_a_provider_that_gives_way_to_the_cpu(
        self, linear: Callable[..., Checkpoint], fake: Callable[..., Fake]
    ) -> None:
        module = fake(CUDA, gives=lambda asked: [CPU])
        with pytest.raises(DeviceError, match="CUDAExecutionProvider: this onnxruntime has it, but cannot use it"):
            engines.open_scorer(linear(), device="cuda")
        told: list[str] = []
        assert engines.open_scorer(linear(), tell=told.append).kind == "cpu"
        assert [providers[0][0] for providers in module.opened] == [CUDA, CUDA, CPU]
        assert len(told) == 1
        assert told[0].endswith("; continuing on the CPU")

    def test_a_provider_that_fails(self, linear: Callable[..., Checkpoint], fake: Callable[..., Fake]) -> None:
        def fail(asked: list[str]) -> list[str]:
            raise RuntimeError("libcudnn.so.9: cannot open shared object file\nand more")

        fake(CUDA, gives=fail)
        with pytest.raises(DeviceError, match=r"CUDAExecutionProvider cannot be used here .*libcudnn"):
            engines.open_scorer(linear(), provider="cuda")

    def test_a_damaged_file_is_no_fault_of_the_device(
        self, linear: Callable[..., Checkpoint], fake: Callable[..., Fake]
    ) -> None:
        fake(CUDA)
        checkpoint = linear()
        assert checkpoint.weights is not None
        checkpoint.weights.write_bytes(checkpoint.weights.read_bytes() + b"\x3a\x02\x0a\x7f")  # a second graph
        assert "ONNX Runtime cannot load it" in refusal(checkpoint, tell=pytest.fail)

    def test_threads_wait_without_taking_the_cores(
        self, linear: Callable[..., Checkpoint], fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
        module = fake()
        engines.open_scorer(linear())
        (options,) = module.options
        assert options.intra_op_num_threads == 3
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"

    @pytest.mark.parametrize("stated", ["", "0", "many"])
    def test_otherwise_there_are_as_many_as_cores(self, monkeypatch: pytest.MonkeyPatch, stated: str) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 4, 5}, raising=False)
        assert ports.threads() == 3


@pytest.mark.parametrize(
    "message",
    ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 99", "CUDA out of memory"],
)
def test_batches_that_do_not_fit_are_told_from_other_failures(
    linear: Callable[..., Checkpoint], fake: Callable[..., Fake], message: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(message)

    module = fake()
    open_session = module.InferenceSession

    def open_broken(*args: Any, **options: Any) -> Any:
        session = open_session(*args, **options)
        session.run = fail
        return session

    module.InferenceSession = open_broken
    scorer = engines.open_scorer(linear())
    with pytest.raises(MemoryError):
        scorer(views(2))
    message = "something else"
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot run it"):
        scorer(views(2))


def test_batches_are_sized_for_what_the_model_runs_on(
    linear: Callable[..., Checkpoint], fake: Callable[..., Fake]
) -> None:
    fake(CUDA)
    size = choose_batch_size(None, "auto", print, engines.open_scorer(linear()))
    assert (size.size, size.spans) == (4, True)
    assert not choose_batch_size(None, "auto", print, engines.open_scorer(linear(), device="cpu")).spans


@pytest.mark.parametrize(("format", "package", "extra"), [("onnx", "onnxruntime", "onnx"), ("openvino",) * 3])
def test_a_runtime_that_is_not_installed(
    network: Checkpoint, monkeypatch: pytest.MonkeyPatch, format: str, package: str, extra: str
) -> None:
    checkpoint = replace(network, weights=exported(format))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"pip install 'timesformer-cli\[{extra}\]'") as caught:
        engines.open_scorer(checkpoint)
    assert "\n" not in str(caught.value)


class TestOpenVino:
    @pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
    def test_other_devices(self, network: Checkpoint, device: str) -> None:
        with pytest.raises(DeviceError, match=f"`device={device}`: OpenVINO models run on the CPU"):
            engines.open_scorer(replace(network, weights=exported("openvino")), device=device)

    def test_weights_that_are_missing_or_cut_short(self, network: Checkpoint, tmp_path: Path) -> None:
        checkpoint = replace(network, weights=folder_of("openvino", tmp_path / "x") / "model.xml")
        weights = tmp_path / "x" / "model.bin"
        weights.write_bytes(weights.read_bytes()[:1000])
        assert "OpenVINO cannot load it" in refusal(checkpoint)
        weights.unlink()
        assert "its weights are missing; model.bin must lie beside it" in refusal(checkpoint)

    def test_it_computes_in_full_precision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        openvino = pytest.importorskip("openvino")
        seen: list[dict[str, Any]] = []
        compile_model = openvino.Core.compile_model
        monkeypatch.setattr(
            openvino.Core,
            "compile_model",
            lambda self, model, device, settings: seen.append(settings) or compile_model(self, model, device, settings),
        )
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        engines.open_program(exported("openvino"), {})
        assert seen == [{"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}]


def rewritten(
    source: Path, target: Path, changes: Mapping[str, Callable[[bytes], bytes]], compression: int = zipfile.ZIP_STORED
) -> Path:
    """A copy of a .pt2 with the content of some files changed, or new ones."""
    with zipfile.ZipFile(source) as old:
        folder = old.namelist()[0].partition("/")[0]
        contents = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
    for name, change in changes.items():
        contents[name] = change(contents.get(name, b""))
    with zipfile.ZipFile(target, "w", compression) as new:
        for name, content in contents.items():
            new.writestr(f"{folder}/{name}", content)
    return target


def in_program(change: Callable[[Any], object]) -> dict[str, Callable[[bytes], bytes]]:
    def edit(content: bytes) -> bytes:
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return {"models/model.json": edit}


def with_target(target: str) -> dict[str, Callable[[bytes], bytes]]:
    return in_program(lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=target))


# What torch's hook for enumerations imports, and takes attributes and items of.
ENUM = json.dumps({"__enum__": True, "fqn": "ctypes:cdll", "name": "/nowhere/library.so"})


def with_tree(field: str, tree: object) -> dict[str, Callable[[bytes], bytes]]:
    """The structure of what goes in or comes out replaced."""
    text = json.dumps([1, tree])
    return in_program(
        lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update({field: text})
    )


def nested_tree(depth: int) -> object:
    text = '{"type": null, "context": null, "children_spec": []}'
    for _ in range(depth):
        text = f'{{"type": "builtins.tuple", "context": "null", "children_spec": [{text}]}}'
    return json.loads(text)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("boom",))


def pickled(_: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save((Bomb(),), buffer)
    return buffer.getvalue()


class TestPrograms:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"data/sample_inputs/model.pt": pickled}, "a pickle of example inputs"),
            ({"data/weights/model.pt": pickled}, "data/weights/model.pt"),
            ({"data/constants/custom_obj_0": pickled}, "custom_obj_0"),
            ({"data/constants/opaque_obj_0": pickled}, "opaque_obj_0"),
            (
                {
                    "data/weights/model_weights_config.json": lambda content: content.replace(
                        b'"use_pickle": false', b'"use_pickle": true', 1
                    )
                },
                "a pickle in data/weights",
            ),
            (in_program(lambda program: program["guards_code"].append("print('boom')")), "guards"),
            (
                with_tree("in_spec", {"type": "builtins.dict", "context": ENUM, "children_spec": []}),
                "__enum__",
            ),
            (
                with_tree("out_spec", {"type": "builtins.list", "context": ENUM, "children_spec": []}),
                "__enum__",
            ),
            (with_tree("in_spec", {"type": "collections.namedtuple", "context": "[]", "children_spec": []}), "tree of"),
            (with_tree("in_spec", {"type": None, "context": ENUM, "children_spec": []}), "a leaf with a context"),
            (with_tree("in_spec", nested_tree(20)), "a tree that is too deep"),
            (in_program(lambda program: program.update(unknown=1)), "field 'unknown'"),
            (
                in_program(
                    lambda program: program["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(
                        arg={"as_custom_obj": {"name": "x", "class_fqn": "x"}}
                    )
                ),
                "kind 'as_custom_obj'",
            ),
            (
                in_program(
                    lambda program: program["graph_module"]["graph"]["nodes"][0]["metadata"].update(
                        source_fn_stack="x,torch.os.system"
                    )
                ),
                "source_fn_stack 'x,torch.os.system'",
            ),
            (
                in_program(
                    lambda program: program["range_constraints"].update(u9999999999={"min_val": 0, "max_val": 1})
                ),
                "name 'u9999999999'",
            ),
            *(
                ({"models/model.json": lambda content, text=text: content.replace(b"Integer(4)", text)}, "expr_str")
                for text in (
                    b"Pow(Integer(9), Pow(Integer(9), Integer(10)))",
                    b"Pow(Pow(Integer(9), Integer(8)), Integer(8))",
                    b"Pow(Integer(9), Integer(99))",
                    b"9 ** 9 ** 9",
                    b"Integer(%d)" % 10**40,
                    b"Add(" * 100 + b"Integer(4)" + b")" * 100,
                    b"Add(" + b"Integer(4), " * 1000 + b"Integer(4))",
                    b"Float('1e999999999')",
                )
            ),
            (with_target("torch.os.system"), "target 'torch.os.system'"),
            (with_target("torch.ops.load_library.__call__"), "target 'torch.ops.load_library.__call__'"),
            (with_target("torch.ops.aten.from_file.default"), "target 'torch.ops.aten.from_file.default'"),
            (with_target("torch.ops.aten.save.default"), "target 'torch.ops.aten.save.default'"),
            (with_target("torch.ops.aten.__class__"), "target 'torch.ops.aten.__class__'"),
            (with_target("torch.ops.aten.add.__class__"), "target 'torch.ops.aten.add.__class__'"),
            (with_target("torch.ops.prim.rpc_sync"), "target 'torch.ops.prim.rpc_sync'"),
            (with_target("torch.ops.mine._private.default"), "target 'torch.ops.mine._private.default'"),
            (
                in_program(
                    lambda program: program["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(
                        arg={"as_operator": "torch.os.system"}
                    )
                ),
                "as_operator 'torch.os.system'",
            ),
            (
                {"models/model.json": lambda content: content.replace(b"Integer(4)", b"print(5)")},
                "Mul(print(5)",
            ),
            (
                {"models/model.json": lambda content: content.replace(b"Integer(4)", b"Integer.x()")},
                "Mul(Integer.x()",
            ),
            (
                {"models/model.json": lambda content: content.replace(b'"pixel_values"', b'"x=print(5)"')},
                "name 'x=print(5)'",
            ),
        ],
    )
    def test_code_is_refused(
        self, network: Checkpoint, tmp_path: Path, changes: Any, named: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = rewritten(exported("pt2"), tmp_path / "model.pt2", changes)
        message = refusal(replace(network, weights=path))
        assert "refused: loading it could run code" in message
        assert named in message
        assert capsys.readouterr().out == ""

    def test_files_that_are_larger_than_they_look_are_refused(self, network: Checkpoint, tmp_path: Path) -> None:
        path = rewritten(exported("pt2"), tmp_path / "model.pt2", {}, compression=zipfile.ZIP_DEFLATED)
        assert "weight_0 is compressed" in refusal(replace(network, weights=path))

    def test_a_copy_that_is_changed_in_nothing_is_not(self, network: Checkpoint, tmp_path: Path) -> None:
        path = rewritten(exported("pt2"), tmp_path / "model.pt2", {})
        assert engines.open_scorer(replace(network, weights=path))(views(1)).shape == (1, CLASSES)

    def test_private_operators_of_torch_are_no_code(self, network: Checkpoint, tmp_path: Path) -> None:
        class Casting(torch.nn.Module):
            def forward(self, frames: torch.Tensor) -> torch.Tensor:
                return frames.flatten(1)[:, :CLASSES].double().to(torch.float32)

        sizes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(Casting(), (torch.zeros(2, *CLIP),), dynamic_shapes=sizes)
        assert any("_assert_tensor_metadata" in str(node.target) for node in program.graph.nodes)
        torch.export.save(program, tmp_path / "model.pt2")
        scorer = engines.open_scorer(replace(network, weights=tmp_path / "model.pt2"))
        np.testing.assert_array_equal(scorer(views(3)), views(3).reshape(3, -1)[:, :CLASSES])

    def test_weights_that_are_cut_short(self, network: Checkpoint, tmp_path: Path) -> None:
        changes = {"data/weights/weight_3": lambda content: content[:-4]}
        path = rewritten(exported("pt2"), tmp_path / "model.pt2", changes)
        assert "PyTorch cannot load it" in refusal(replace(network, weights=path))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_device_that_is_not_there(self, network: Checkpoint) -> None:
        with pytest.raises(DeviceError, match="cuda: this machine has no CUDA device"):
            engines.open_scorer(replace(network, weights=exported("pt2")), device="cuda")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_a_program_that_was_saved_on_the_cpu_runs_on_a_gpu(self, network: Checkpoint) -> None:
        expected = runtime.open_scorer(network, device="cpu")(views(3))
        scorer = engines.open_scorer(replace(network, weights=exported("pt2")), device="cuda:0")
        assert scorer.kind == "cuda"
        np.testing.assert_allclose(scorer(views(3)), expected, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled by AOTInductor, in a process of its own: it looks for a compiler, and warns in many ways."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("compiled") / "model.pt2"
    code = (
        "import sys, torch; sys.path[:0] = sys.argv[2:]; from testing.artefacts import Matrix\n"
        # The code that holds the kernels together is compiled once, and computes little.
        "torch._inductor.config.aot_inductor.compile_wrapper_opt_level = 'O0'\n"
        "torch._inductor.config.aot_inductor.precompile_headers = False\n"
        "sizes = ({0: torch.export.Dim('batch')},)\n"
        "program = torch.export.export(Matrix(), (torch.zeros(2, 4, 3, 32, 32),), dynamic_shapes=sizes)\n"
        "torch._inductor.aoti_compile_and_package(program, package_path=sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, path, Path(__file__).parents[2]], check=True, capture_output=True)
    return path


class TestPackages:
    def test_logits(self, network: Checkpoint, package: Path) -> None:
        scorer = engines.open_scorer(replace(network, weights=package))
        assert scorer.kind == "cpu"
        for count in (2, 3):
            expected = views(count).reshape(count, -1) @ weights()
            np.testing.assert_allclose(scorer(views(count)), expected, rtol=1e-4, atol=1e-4)

    def test_another_device(self, network: Checkpoint, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from timesformer_cli.runtimes import exported_program as programs

        monkeypatch.setattr(programs, "find_device", torch.device)
        with pytest.raises(DeviceError, match=r"`device=cuda`: .*model.pt2 was compiled for cpu"):
            engines.open_scorer(replace(network, weights=package), device="cuda")

    def test_another_number_of_classes(self, network: Checkpoint, package: Path) -> None:
        labels = ("a", "b")
        config = replace(network.config, id2label=dict(enumerate(labels)))
        message = refusal(replace(network, weights=package, labels=labels, config=config))
        assert "gives [1, 5] (views, classes), but its config and labels name 2 classes" in message
