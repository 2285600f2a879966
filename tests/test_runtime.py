"""The scorer on the CPU, and devices that are not there."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.checkpoint import resolve
from timesformer_cli.errors import CheckpointError, DeviceError, UsageError
from timesformer_cli.runtime import _upload, open_scorer
from timesformer_cli.specs import Checkpoint


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

    monkeypatch.setattr(TimesformerForVideoClassification, "forward", failing)
    with pytest.raises(MemoryError):
        scorer(views(2))
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        scorer(views(2))


@pytest.mark.skipif(sys.platform != "linux", reason="what the allocator says")
def test_an_allocation_that_fails_on_the_cpu(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = open_scorer(checkpoint, device="cpu")
    monkeypatch.setattr(TimesformerForVideoClassification, "forward", lambda *_, **__: torch.empty(2**60))
    with pytest.raises(MemoryError, match="alloc"):
        scorer(views(2))


def test_auto_finds_a_device(checkpoint: Checkpoint) -> None:
    assert open_scorer(checkpoint)(views(1)).shape == (1, 5)


@pytest.mark.parametrize("device", ["gpu", "CUDA", "", "cuda:", "cuda:-1", "cuda:999", "cpu:0", "cuda,cpu"])
def test_unknown_devices_are_wrong_usage(checkpoint: Checkpoint, device: str) -> None:
    with pytest.raises(UsageError, match="known are auto, cpu, cuda, cuda:N, mps"):
        open_scorer(checkpoint, device=device)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "cuda: this machine has no CUDA device that PyTorch can use; try --device cpu"),
        ("cuda:1", "cuda:1: this machine has no CUDA device that PyTorch can use; try --device cpu"),
        ("mps", "mps: this machine has no Apple GPU that PyTorch can use; try --device cpu"),
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
def test_cuda_scores_as_the_cpu_does(checkpoint: Checkpoint) -> None:
    expected = open_scorer(checkpoint, device="cpu")(views(4))
    np.testing.assert_allclose(open_scorer(checkpoint, device="cuda:0")(views(4)), expected, rtol=1e-2, atol=1e-3)


def test_weights_that_do_not_fit(tmp_path: Path, model: Any) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(CheckpointError, match=r"missing: .*encoder\.layer\.2"):
        open_scorer(resolve(str(tmp_path)), device="cpu")
