"""The scorer on the CPU, in its precisions and compiled, and devices that are not there."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, DeviceError, UsageError
from timesformer_cli.flow import Item
from timesformer_cli.network.inference import InferenceNetwork
from timesformer_cli.runtimes import pytorch as runtime
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.pytorch import _compile, _upload, choose_precision, open_scorer
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video.preprocess import make_views
from timesformer_cli.video.reader import open_video

SAMPLES = Path(__file__).parents[2] / "sample_videos"


@pytest.fixture(scope="module")
def model() -> TimesformerForVideoClassification:
    torch.manual_seed(0)
    # Weights large enough that views differ far beyond rounding.
    config = TimesformerConfig(
        image_size=16,
        patch_size=8,
        num_frames=3,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=5,
        initializer_range=0.5,
    )
    return TimesformerForVideoClassification(config).eval()


@pytest.fixture(scope="module")
def checkpoint(model: TimesformerForVideoClassification, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return resolve(str(folder))


def views(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_scorer_gives_the_network_s_logits(
    checkpoint: Checkpoint, model: TimesformerForVideoClassification, count: int
) -> None:
    logits = open_scorer(checkpoint, device="cpu")(views(count))
    assert logits.dtype == np.float32
    assert logits.shape == (count, 5)
    with torch.inference_mode():
        expected = model(torch.from_numpy(views(count))).logits.numpy()
    # Not to the bit: sums are formed in another order where memory-mapped weights are aligned otherwise.
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_scores_as_its_views_do_alone(checkpoint: Checkpoint) -> None:
    scorer = open_scorer(checkpoint, device="cpu")
    together = scorer(views(8))
    alone = np.concatenate([scorer(view[None]) for view in views(8)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert np.abs(together - together[::-1]).max() > 0.1  # the order matters


@pytest.mark.parametrize(("stated", "threads"), [(None, 1), ("2", 2)])
def test_threads_keep_to_the_quota_of_a_container(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, stated: str | None, threads: int
) -> None:
    """But OMP_NUM_THREADS is obeyed."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    if stated is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    monkeypatch.setattr(runtime, "available_cores", lambda: 1)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        open_scorer(checkpoint, device="cpu")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(usual)


def test_arrays_that_torch_would_warn_about(checkpoint: Checkpoint) -> None:
    scorer = open_scorer(checkpoint, device="cpu")
    expected = scorer(views(4)[::2])
    frozen = views(4)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(scorer(frozen[::2]), expected)


def test_only_cuda_is_fed_through_pinned_memory() -> None:
    calls: list[object] = []

    class Pixels(torch.Tensor):
        def pin_memory(self, *_: Any) -> "Pixels":
            calls.append("pin")
            return self

        def to(self, *args: Any, **options: Any) -> torch.Tensor:
            calls.append((*args, options))
            return self

    for name in ("cpu", "mps", "cuda:1"):
        _upload(Pixels(), torch.device(name))
    assert calls == [
        (torch.device("cpu"), {}),
        (torch.device("mps"), {}),
        "pin",
        (torch.device("cuda:1"), {"non_blocking": True}),
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
    ],
)
def test_want_of_memory_is_told_from_other_errors(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    scorer = open_scorer(checkpoint, device="cpu")

    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(InferenceNetwork, "__call__", failing)
    with pytest.raises(MemoryError):
        scorer(views(2))
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        scorer(views(2))


@pytest.mark.skipif(sys.platform != "linux", reason="what the allocator says")
def test_an_allocation_that_fails_on_the_cpu(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = open_scorer(checkpoint, device="cpu")
    monkeypatch.setattr(InferenceNetwork, "__call__", lambda *_: torch.empty(2**60))
    with pytest.raises(MemoryError, match="alloc"):
        scorer(views(2))


class TestPrecision:
    @pytest.mark.parametrize(
        ("asked", "device", "capability", "chosen"),
        [
            ("auto", "cpu", None, "fp32"),
            ("bf16", "cpu", None, "bf16"),
            ("auto", "mps", None, "fp32"),
            ("fp16", "mps", None, "fp16"),
            ("auto", "cuda", (7, 5), "fp32"),
            ("fp16", "cuda", (7, 5), "fp16"),
            ("auto", "cuda:1", (8, 0), "bf16"),
            ("auto", "auto", (9, 0), "bf16"),
            ("fp32", "cuda", (9, 0), "fp32"),
        ],
    )
    def test_what_is_chosen(
        self,
        asked: runtime.Precision,
        device: str,
        capability: tuple[int, int] | None,
        chosen: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: device == "mps")
        assert choose_precision(asked, device) == chosen

    def test_fp16_on_the_cpu_is_refused(self, checkpoint: Checkpoint) -> None:
        with pytest.raises(
            DeviceError, match="`precision=fp16`: it is several times slower than fp32 on the CPU; try bf16"
        ):
            open_scorer(checkpoint, device="cpu", precision="fp16")

    # Of the largest logit. Roundings of 2^-9 and 2^-12 add up over two layers of large weights: up to 5.8e-2 and
    # 1.6e-2 were measured, here and with the plain network.
    @pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 1e-1), ("fp16", 3e-2)])
    def test_logits_are_those_of_fp32_but_for_rounding(
        self,
        checkpoint: Checkpoint,
        precision: runtime.Precision,
        tolerance: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        expected = open_scorer(checkpoint, device="cpu")(views(64))
        monkeypatch.setattr(runtime, "choose_precision", lambda asked, _: asked)
        logits = open_scorer(checkpoint, device="cpu", precision=precision)(views(64))
        assert logits.dtype == np.float32
        error = np.abs(logits - expected).max() / np.abs(expected).max()
        assert tolerance / 20 < error < tolerance
        # The head computes in float32: its sums are not rounded, and no two classes tie for that.
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        assert (torch.from_numpy(logits).to(dtype).float().numpy() != logits).mean() > 0.5

    def test_a_trained_network_says_the_same_of_real_clips(self) -> None:
        checkpoint = resolve("camera-motion")
        clips = []
        for path in sorted(SAMPLES.glob("*.[mw]*[4vm]")):
            with open_video(Item(str(path))) as reader:
                clips += [reader.read(range(start, start + 32, 4)) for start in (0, 40)]
        pixels = np.concatenate([make_views([clip], checkpoint.preprocess) for clip in clips])
        assert len(pixels) == 18
        expected = open_scorer(checkpoint, device="cpu")(pixels)
        logits = open_scorer(checkpoint, device="cpu", precision="bf16")(pixels)
        assert (logits.argmax(1) == expected.argmax(1)).all()
        assert len(set(expected.argmax(1))) > 4
        np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())

    def test_numbers_too_large_for_fp16(
        self, model: TimesformerForVideoClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "choose_precision", lambda asked, _: asked)
        model.save_pretrained(tmp_path)
        checkpoint = resolve(str(tmp_path))
        for precision in ("fp32", "fp16"):
            assert np.isfinite(open_scorer(checkpoint, device="cpu", precision=precision)(views(2))).all()
        state = model.state_dict()
        for name in state:
            if "intermediate" in name:
                state[name] = state[name] * 1e5
        large = TimesformerForVideoClassification(model.config)
        large.load_state_dict(state)
        large.save_pretrained(tmp_path)
        assert np.isfinite(open_scorer(checkpoint, device="cpu", precision="fp32")(views(2))).all()
        with pytest.raises(
            DeviceError, match="`precision=fp16`: numbers in this network are too large for it; try bf16 or fp32"
        ):
            open_scorer(checkpoint, device="cpu", precision="fp16")(views(2))


# Parts of torch that torch.compile imports are deprecated by torch itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestCompile:
    @pytest.fixture(autouse=True)
    def nothing_compiled(self) -> Iterator[None]:
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    @pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
    def test_batches_of_all_sizes_run_what_was_compiled_at_the_start(self, checkpoint: Checkpoint) -> None:
        told: list[str] = []
        model = TimesformerForVideoClassification.from_checkpoint(checkpoint)
        network = _compile(model, torch.from_numpy(views(2)), told.append)
        assert network is not None
        first, second = told
        assert first == "`compile`: compiling the network, which takes about a minute"
        assert re.fullmatch(r"`compile`: compiled the network in \d+ seconds", second)
        eager = open_scorer(checkpoint, device="cpu")
        with torch.compiler.set_stance("fail_on_recompile"), torch.inference_mode():
            for count in (1, 2, 3, 7, 64):
                logits = network(torch.from_numpy(views(count))).numpy()
                np.testing.assert_allclose(logits, eager(views(count)), rtol=1e-4, atol=1e-5)
        with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
            network(torch.from_numpy(views(2)[:, :1]))  # a single frame takes other code, and this would have told

    def test_where_it_cannot_be_done_the_network_runs_as_it_is(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch._inductor import compile_fx
        from torch._inductor.exc import InvalidCxxCompiler

        def fail(*_: Any, **__: Any) -> None:
            raise InvalidCxxCompiler("g++")

        monkeypatch.setattr(compile_fx, "compile_fx", fail)
        told: list[str] = []
        model = TimesformerForVideoClassification.from_checkpoint(checkpoint)
        assert _compile(model, torch.from_numpy(views(2)), told.append) is None
        _, second = told
        assert second.startswith("`compile`: continuing without it, since PyTorch cannot compile the network here (")
        assert "g++ is not found" in second
        assert "\n" not in second
        assert model(torch.from_numpy(views(2))).logits.shape == (2, 5)

    def test_on_the_cpu_the_network_is_faster_without(self, checkpoint: Checkpoint) -> None:
        told: list[str] = []
        scorer = open_scorer(checkpoint, device="cpu", compile=True, tell=told.append)
        assert [line.partition(",")[0] for line in told] == ["`compile`: continuing without it"]
        np.testing.assert_array_equal(scorer(views(3)), open_scorer(checkpoint, device="cpu")(views(3)))


def test_auto_finds_a_device(checkpoint: Checkpoint) -> None:
    assert open_scorer(checkpoint)(views(1)).shape == (1, 5)


@pytest.mark.parametrize("device", ["gpu", "CUDA", "", "cuda:", "cuda:-1", "cuda:999", "cpu:0", "cuda,cpu"])
def test_unknown_devices_are_wrong_usage(checkpoint: Checkpoint, device: str) -> None:
    with pytest.raises(UsageError, match="choose one of auto, cpu, cuda, cuda:N, mps"):
        open_scorer(checkpoint, device=device)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "cuda: this machine has no CUDA device that PyTorch can use; try `device=cpu`"),
        ("cuda:1", "cuda:1: this machine has no CUDA device that PyTorch can use; try `device=cpu`"),
        ("mps", "mps: this machine has no Apple GPU that PyTorch can use; try `device=cpu`"),
    ],
)
def test_devices_that_are_not_there(
    checkpoint: Checkpoint, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError) as caught:
        open_scorer(checkpoint, device=device)
    assert str(caught.value) == message


def test_one_device_too_far(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"cuda:2: the last CUDA device of this machine is cuda:1"):
        open_scorer(checkpoint, device="cuda:2")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("bf16", 4e-2), ("fp16", 1e-2)])
def test_cuda_scores_as_the_cpu_does(checkpoint: Checkpoint, precision: runtime.Precision, tolerance: float) -> None:
    expected = open_scorer(checkpoint, device="cpu")(views(4))
    logits = open_scorer(checkpoint, device="cuda:0", precision=precision)(views(4))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_weights_that_do_not_fit(tmp_path: Path, model: Any) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(CheckpointError, match=r"missing: .*encoder\.layer\.2"):
        open_scorer(resolve(str(tmp_path)), device="cpu")


@pytest.mark.parametrize(
    ("rank", "name"), [(None, "cuda"), ("0", "cuda:0"), ("3", "cuda:3"), ("5", "cuda:1"), ("x", "cuda")]
)
def test_each_process_of_torchrun_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, name: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(find_device("auto")) == name
    assert str(find_device("cpu")) == "cpu"
