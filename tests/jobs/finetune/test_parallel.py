"""Two processes that train together: what they compute is what one computes, and how they end."""

import os
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from testing.ranks import STEPS, Ended, part_of, trained, weights_of
from testing.training import batch_of, trainer_of
from timesformer_cli.errors import DeviceError, UsageError
from timesformer_cli.jobs.finetune import parallel
from timesformer_cli.jobs.finetune.launch import Launch
from timesformer_cli.jobs.finetune.parallel import ALONE, World, _device_of, joined

RunsOfTwo = dict[str, list[Ended]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    quiet = os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # as `launch_of_this_process` sets it
    subprocess.run([sys.executable, "-m", "testing.ranks", folder], check=True, env=quiet, timeout=300)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> RunsOfTwo:
    found: RunsOfTwo = pickle.loads((folder / "all.pickle").read_bytes())
    return found


def results(ended: list[Ended]) -> list[Any]:
    assert [(each.code, each.out, each.err) for each in ended] == [(0, "", "")] * 2
    return [each.result for each in ended]


def near(found: Any, expected: Any, limit: float = 1e-6) -> bool:
    """Whether the difference is at most `limit` of the whole."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return bool(np.linalg.norm(found - expected) <= limit * np.linalg.norm(expected))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return trained(ALONE)


class TestSteps:
    def test_the_gradient_is_that_of_one_process(self, runs: RunsOfTwo, alone: dict[str, Any]) -> None:
        for rank in results(runs["steps"]):
            assert near(rank["gradient"], alone["gradient"])

    @pytest.mark.parametrize("kind", ["full", "checkpointing", "lora", "unequal"])
    def test_three_steps_are_those_of_one_process(self, runs: RunsOfTwo, alone: dict[str, Any], kind: str) -> None:
        first, second = (rank[kind] for rank in results(runs["steps"]))
        assert first["steps"] == second["steps"]
        assert np.array_equal(first["weights"], second["weights"])
        for found, expected in zip(first["steps"], alone[kind]["steps"], strict=True):
            assert found[0] == pytest.approx(expected[0], rel=1e-6)
            assert found[1] == pytest.approx(expected[1], rel=1e-5)
            assert found[2] == ()
        assert near(first["weights"], alone[kind]["weights"])

    def test_too_little_memory_in_one_process(self, runs: RunsOfTwo) -> None:
        first, second = results(runs["short"])
        assert first[0] == second[0]
        assert np.array_equal(first[1], second[1])
        assert first[2:] == second[2:] == (2, True)
        trainer = trainer_of()
        losses = [trainer.step(batch_of(1, list(range(8 * n, 8 * n + 8))), 1, n + 1).loss for n in range(2)]
        assert first[0] == pytest.approx(losses, rel=1e-6)
        assert near(first[1], weights_of(trainer).numpy())

    def test_a_number_that_is_not_finite_in_one_process(self, runs: RunsOfTwo) -> None:
        assert results(runs["not_finite"]) == [(("3.mp4",), None, True)] * 2

    def test_a_batch_needs_the_total_of_all(self) -> None:
        world = World()
        world.size = 2
        with pytest.raises(ValueError, match="needs its total"):
            trainer_of(world=world).accumulate(batch_of(1, [0]), 1)


class TestTogether:
    def test_results_are_gathered_in_order(self, runs: RunsOfTwo) -> None:
        found = ["0 by 0", "1 by 1", "2 by 0", "3 by 1", "4 by 0"]
        assert results(runs["objects"]) == [(found, ["0 by 0"], 0, 2, 2, "cpu")] * 2

    def test_clips_at_a_time_are_those_of_the_least_memory(self, runs: RunsOfTwo) -> None:
        assert results(runs["fitted"]) == [(4, True)] * 2

    def test_all_go_on_from_the_state_of_the_first(self, runs: RunsOfTwo) -> None:
        first, second = results(runs["spread"])
        assert np.array_equal(first, second)
        trainer = trainer_of()
        trainer.step(batch_of(1, STEPS[0]), 1, 1)
        trainer.step(batch_of(1, STEPS[2]), 1, 2)
        assert near(first, weights_of(trainer).numpy())

    def test_the_clock_of_the_first_counts(self, runs: RunsOfTwo) -> None:
        first, second = results(runs["time_is_over"])
        assert first == second
        assert first[0] == "max_time"
        assert first[1].step > 1

    def test_alone(self) -> None:
        assert ALONE.gathered([1, 2, 3], 3) == [1, 2, 3]
        assert (ALONE.exchange("x"), ALONE.of_first("x"), ALONE.share(3)) == (["x"], "x", range(3))
        with joined(None, "cpu", pytest.fail) as world:
            assert (world.size, world.is_first, world.device) == (1, True, "cpu")
        whole = batch_of(1, STEPS[0])
        assert part_of(ALONE, STEPS[0]).keys == whole.keys


class TestEnds:
    @pytest.mark.parametrize(
        ("name", "code"), [("sigterm_to_one", 143), ("sigint_to_both", 130), ("sigint_while_reading", 130)]
    )
    def test_signals_stop_all_after_the_same_step(self, runs: RunsOfTwo, folder: Path, name: str, code: int) -> None:
        assert [(each.code, each.out, each.err) for each in runs[name]] == [(code, "", "")] * 2
        kept = (folder / name / "kept").read_text()
        assert kept in ("4", "5")  # the one that the signal came in, or the next one
        assert {(folder / name / f"step{rank}").read_text() for rank in (0, 1)} == {"4"}

    @pytest.mark.parametrize(("name", "bad"), [("fails", 1), ("fails_while_reading", 0)])
    def test_the_failure_of_one_ends_all(self, runs: RunsOfTwo, folder: Path, name: str, bad: int) -> None:
        ended = runs[name]
        assert [each.code for each in ended] == [1, 1]
        assert ended[bad].err == "error: the disk is full\n"
        assert ended[1 - bad].err == f"error: rank {bad} failed: the disk is full\n"
        assert bad == 0 or (folder / name / "kept").read_text() == "4"

    @pytest.mark.parametrize(
        ("name", "bad", "said"),
        [
            ("killed", 1, "it ended without a word, as if killed"),
            ("first_killed", 0, "it, or what started it, ended without a word, as if killed"),
            ("frozen", 1, "no sign of it for 2 seconds, as if it were killed"),
        ],
    )
    def test_a_killed_one_ends_all(self, runs: RunsOfTwo, folder: Path, name: str, bad: int, said: str) -> None:
        ended = runs[name]
        assert (ended[bad].code, ended[1 - bad].code) == (-9, 1)
        assert ended[1 - bad].err == f"error: rank {bad} failed: {said}\n"
        assert bad == 0 or (folder / name / "kept").read_text() == "4"

    def test_one_that_cannot_be_interrupted_ends_at_once(self, runs: RunsOfTwo) -> None:
        ended = runs["deaf"]
        assert [each.code for each in ended] == [1, 1]
        assert ended[1].err == "at once: rank 0 failed: the disk is full\n"

    def test_others_that_do_not_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parallel, "_TO_START", timedelta(seconds=0.2))
        launch = Launch(rank=1, size=2, local_rank=1, host="127.0.0.1", port=9)
        with (
            pytest.raises(DeviceError, match=r"rank 1 of 2 does not find the others at 127\.0\.0\.1:9 .*MASTER_ADDR"),
            joined(launch, "cpu", pytest.fail),
        ):
            pass


class TestDevice:
    def launch(self, local_rank: int, **more: Any) -> Launch:
        return Launch(rank=local_rank, size=4, local_rank=local_rank, host="here", port=1, **more)

    @pytest.fixture
    def gpus(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def have(count: int) -> None:
            monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
            monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)

        return have

    def test_each_process_has_its_own(self, gpus: Any) -> None:
        gpus(4)
        assert [_device_of(self.launch(rank), "auto") for rank in range(4)] == [f"cuda:{rank}" for rank in range(4)]
        assert _device_of(self.launch(2), "cuda") == "cuda:2"
        assert _device_of(self.launch(2), "cpu") == "cpu"
        gpus(0)
        assert _device_of(self.launch(2), "auto") == "cpu"

    def test_slurm_may_show_each_process_its_own_only(self, gpus: Any) -> None:
        gpus(1)
        assert _device_of(self.launch(2, alone_on_gpu=True), "auto") == "cuda:0"

    def test_too_few(self, gpus: Any) -> None:
        gpus(2)
        with pytest.raises(DeviceError, match=r"has 2 CUDA devices .* process 3 finds none; start one process for"):
            _device_of(self.launch(2), "auto")

    @pytest.mark.parametrize("device", ["cuda:1", "mps"])
    def test_one_for_all(self, gpus: Any, device: str) -> None:
        gpus(4)
        with pytest.raises(UsageError, match=f"`device={device}`: 4 processes cannot share it; choose cuda"):
            _device_of(self.launch(1), device)
