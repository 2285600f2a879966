"""`timesformer finetune` with methods that train the network: what comes out, what a stop leaves, what goes wrong."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from testing.class_folders import CLASSES, EACH, bring, write_material
from testing.command import Outcome, Run
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.errors import Terminated, VideoError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune import batches, probe, stages, validation
from timesformer_cli.jobs.finetune.trainer import Batch, Step, Trainer
from timesformer_cli.jobs.finetune.training import NetworkTraining

# So many videos are held out of the 18, and so many steps make an epoch of the others.
HELD, STEPS = 4, 4

FULL = ("--method", "full", "--epochs", "3", "--batch-size", "4", "--lr", "0.01")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("network"))


@pytest.fixture(autouse=True)
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bring(material, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")
    return tmp_path


@pytest.fixture
def finetune(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with a probe that is fitted in no time."""
    for module in (probe, validation):
        monkeypatch.setattr(module, "CANDIDATES", (0.01,))

    def call(*args: str | Path) -> Outcome:
        return run("finetune", "clips", *args, "--workers", "0")

    return call


def log_of(folder: str) -> list[dict[str, Any]]:
    """The lines of the log, without what differs from time to time."""
    lines = [json.loads(line) for line in Path(folder, "log.jsonl").read_bytes().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "memory")} for line in lines]


def weights_of(folder: str) -> dict[str, torch.Tensor]:
    return TimesformerForVideoClassification.from_pretrained(folder).state_dict()


def changed(folder: str) -> set[str]:
    """The parameters of a new model that differ from those of the model it was made from, without the head."""
    before, after = weights_of("tiny"), weights_of(folder)
    return {name for name in before if not name.startswith("classifier") and not torch.equal(before[name], after[name])}


def test_the_whole_network_is_trained_and_measured_as_evaluate_does(finetune: Run, run: Run) -> None:
    code, out, err = finetune(*FULL, "-o", "run")
    assert code == 0, err
    metrics = json.loads(out)
    network = metrics["network"]
    assert (metrics["method"], network["kept"], network["ended_by"]) == ("full", True, "epochs")
    assert (network["epochs"], network["steps"], network["micro_batch"]) == (3, 3 * STEPS, 4)
    assert network["measured"]["accuracy"] == metrics["top_1"]["accuracy"]["value"]
    better = [(found["accuracy"], -found["loss"]) for found in (network["measured"], network["probe"])]
    assert better[0] > better[1]
    assert network["measured"]["loss"] == pytest.approx(metrics["negative_log_likelihood"], rel=1e-6)
    lines = log_of("run")
    assert [(line["epoch"], line["step"]) for line in lines if "loss" in line] == [
        (1 + step // STEPS, 1 + step) for step in range(3 * STEPS)
    ]
    (best,) = [line for line in lines if "validation" in line and line["step"] == network["best_step"]]
    assert best["validation"]["accuracy"] == network["measured"]["accuracy"]
    with Path("run/log.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * STEPS
    with Path("run/data.csv").open(newline="") as file:
        held = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    assert len(held) == metrics["counts"]["evaluated"] == HELD
    Path("held.csv").write_text("path,label\n" + "".join(f"{path},{Path(path).parent.name}\n" for path in held))
    assert run("evaluate", "-a", "held.csv", "--model", "run", "-o", "again", "--workers", "0").code == 0
    one, other = (np.load(f"{folder}/scores.npz") for folder in ("run/val", "again"))
    assert one["path"].tolist() == other["path"].tolist()
    np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-5, atol=1e-5)
    assert len(changed("run")) == len(weights_of("tiny")) - 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_stopped_run_resumes_to_the_same(
    finetune: Run, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    code, out, err = finetune(*FULL, "-o", "whole")
    assert code == 0, err
    take = Trainer.step

    def step(self: Trainer, batch: Batch, epoch: int, number: int) -> Step:
        if number == 7:
            raise stop
        return take(self, batch, epoch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        assert finetune(*FULL, "-o", "run").code == (130 if stop is KeyboardInterrupt else 143)
    assert not Path("run/model").exists()
    assert json.loads(Path("run/checkpoints/last/progress.json").read_text())["step"] == 6
    code, again, err = finetune(*FULL, "-o", "run", "--resume")
    assert code == 0, err
    assert log_of("run") == log_of("whole")
    for name in ("model/model.safetensors", "checkpoints/last/model.safetensors", "val/scores.npz", "data.csv"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes(), name
    found, expected = (json.loads(text)["network"] for text in (again, out))
    assert found | {"seconds": 0} == expected | {"seconds": 0}
    # And once more, when nothing is left to do.
    code, again, err = finetune(*FULL, "-o", "run", "--resume")
    assert code == 0, err
    assert Path("run/model/model.safetensors").read_bytes() == Path("whole/model/model.safetensors").read_bytes()


def test_other_settings_are_not_resumed_but_other_limits_are(finetune: Run) -> None:
    code, out, err = finetune(*FULL, "-o", "run", "--max-time", "0.001s")
    assert code == 0, err
    assert json.loads(out)["network"]["ended_by"] == "max_time"
    steps = len([line for line in log_of("run") if "loss" in line])
    assert steps < 3 * STEPS
    code, _, err = finetune(*FULL, "-o", "run", "--resume", "--drop-path", "0.2")
    assert code == 1
    assert "drop_path (0.1, now 0.2)" in err.splitlines()[-1]
    less = ("--micro-batch", "2", "--checkpointing", "on")
    code, out, err = finetune(*FULL, "-o", "run", "--resume", "--max-time", "2h", *less)
    assert code == 0, err
    network = json.loads(out)["network"]
    assert (network["steps"], network["micro_batch"], network["checkpointing"]) == (3 * STEPS, 2, True)


def test_a_dry_run_tells_what_the_training_takes(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = [finetune(*args, "--dry-run").out.splitlines()[-1] for args in ((), FULL)]
    assert shown[0].endswith("; the rest, seconds.")
    assert shown[1].startswith("training: 7,139 parameters, 3 epochs of 4 steps, about ")
    plan = json.loads(finetune("--method", "last", "--layers", "1", "--epochs", "2", "--dry-run", "--json").out)
    assert (plan["network"]["epochs"], plan["network"]["steps"], plan["network"]["micro_batch"]) == (2, 2, 32)


@pytest.mark.parametrize(
    ("args", "trained"),
    [
        (("--method", "last", "--layers", "1"), {"encoder.layer.0.", "timesformer.layernorm."}),
        (("--method", "last", "--layers", "1", "--augment", "light"), {"encoder.layer.0.", "timesformer.layernorm."}),
        (("--method", "lora", "--rank", "2"), {".attention.attention.qkv.weight", ".temporal_attention."}),
    ],
)  # fmt: skip
def test_other_methods_change_only_a_part(finetune: Run, args: tuple[str, ...], trained: set[str]) -> None:
    code, out, err = finetune(*args, "--epochs", "2", "--batch-size", "4", "--lr", "0.02", "-o", "run")
    assert code == 0, err
    network = json.loads(out)["network"]
    assert network["kept"]
    assert ("flips: off, since views are not augmented (--augment none)" in err) == (network["augment"] == "none")
    names = changed("run")
    assert names
    assert all(any(part in name for part in trained) for name in names)
    assert all(any(part in name for name in names) for part in trained)


def test_the_probe_is_kept_if_it_is_better(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkTraining, "won", False)
    code, out, err = finetune("--method", "full", "--epochs", "1", "-o", "run")
    assert code == 0, err
    metrics = json.loads(out)
    assert not metrics["network"]["kept"]
    assert "the probe is better, and kept" in err
    # Then it has learnt from all videos, as without the training.
    assert finetune("-o", "probe").code == 0
    assert metrics["measured_by"] == "crossed"
    assert Path("run/model/model.safetensors").read_bytes() == Path("probe/model/model.safetensors").read_bytes()


def test_a_video_that_fails_later_is_counted_and_never_replaced(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, seen = batches.draw_view, 0

    def fail(item: Item, *args: Any, **settings: Any) -> Any:
        nonlocal seen
        if item.path.endswith("dark_00.mp4"):
            seen += 1
            if seen > 1:
                raise VideoError("decode", "it is gone")
        return draw(item, *args, **settings)

    monkeypatch.setattr(batches, "draw_view", fail)
    code, out, err = finetune(*FULL, "-o", "run")
    assert code == 3, err
    assert seen == 3
    assert err.count("failed: clips/dark/dark_00.mp4: it is gone") == 1
    assert json.loads(out)["unreadable"] == 1
    assert "dark_00" in Path("run/problems.csv").read_text()
    assert len([line for line in log_of("run") if "loss" in line]) == 3 * STEPS


def test_losses_that_are_no_numbers_end_the_run_with_the_last_good_state(
    finetune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stages.Stage._batch

    def broken(self: Any, read: batches.Batch) -> Batch:
        batch = made(self, read)
        if read.step >= STEPS + 1:
            batch.pixels[0] = float("nan")
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(stages.Stage, "_batch", broken)
        code, out, err = finetune(*FULL, "-o", "run")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert "in 3 steps in a row" in last
    assert ".mp4" in last
    assert "0.001, a tenth" in last
    assert "step 6: not applied" in err
    assert json.loads(Path("run/checkpoints/last/progress.json").read_text())["step"] == STEPS
    code, _, err = finetune(*FULL, "-o", "run", "--resume")
    assert code == 0, err


def test_flips_exchange_the_labels_of_pairs(finetune: Run) -> None:
    for name, new in (("bright", "turn left"), ("dark", "turn right")):
        Path("clips", name).rename(Path("clips", new))
    code, out, err = finetune(*FULL, "-o", "auto")
    assert code == 0, err
    flips = json.loads(out)["network"]["flips"]
    assert not flips["flip"]
    assert "'turn left' ('left')" in flips["reason"]
    assert flips["reason"] in err
    code, _, err = finetune(*FULL, "-o", "swap", "--flip", "swap")
    assert code == 0, err
    assert "mirrored" in err


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--epochs", "3"], 2, "--epochs: --method probe has no use for it; try --method full"),
        (["--method", "full", "--layers", "3"], 2, "--layers: --method full has no use for it; try --method last"),
        (["--method", "last", "--rank", "3"], 2, "--rank: --method last has no use for it; try --method lora"),
        (["--method", "last", "--layers", "3"], 2, "--layers 3: the network has only 1; train all with --method full"),
        (["--method", "full", "--precision", "fp16"], 2, "--precision fp16: networks are trained in bf16 or fp32"),
        (["--method", "full", "--max-time", "soon"], 2, "'soon' is not a time, such as 90m or 2h"),
        (["--method", "full", "--lr", "0"], 2, "not a number above 0"),
        (["--method", "full", "--drop-path", "2"], 2, "not a number from 0 to 1"),
    ],
)
def test_options_that_cannot_be(finetune: Run, args: list[str], code: int, said: str) -> None:
    found, out, err = finetune(*args, "-o", "run")
    assert (found, out) == (code, ""), err
    assert said in err.splitlines()[-1]
    assert not Path("run").exists()


def test_two_processes_train_as_one(run: Run) -> None:
    assert run("finetune", "clips", *FULL, "-o", "one", "--workers", "0").code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command = [sys.executable, "-m", "timesformer_cli", "finetune", "clips", *FULL, "-o", "two", "--workers", "0"]
    done = subprocess.run(
        [*launcher, *command], capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(Path("two/metrics.json").read_text())
    assert done.stderr.count("data: 18 videos") == 1
    one, two = log_of("one"), log_of("two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], abs=1e-6)
    assert two[-1]["validation"]["loss"] == pytest.approx(one[-1]["validation"]["loss"], abs=1e-3)
    assert len(CLASSES) * EACH == 14 + HELD
