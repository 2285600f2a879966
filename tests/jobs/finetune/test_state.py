"""Runs that are stopped and resumed, and what they keep, against runs that are not."""

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from testing.training import Sitting
from timesformer_cli.errors import OutputError, Terminated
from timesformer_cli.jobs.finetune import loop, state
from timesformer_cli.jobs.finetune.progress import Budget, Progress


def kept(folder: Path) -> dict[str, Any]:
    """All that a run leaves but for times and memory; tensors as bytes."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    found: dict[str, Any] = {"names": names}
    for name in names:
        checkpoint = folder / "checkpoints" / name
        found[name] = {
            key: tensor.numpy().tobytes() for key, tensor in load_file(checkpoint / "model.safetensors").items()
        }
        found[f"{name} progress"] = json.loads((checkpoint / "progress.json").read_text()) | {"seconds": 0}
    optimiser = torch.load(folder / "checkpoints" / "last" / "optimiser.pt", weights_only=True)
    found["moments"] = [
        {name: value.numpy().tobytes() for name, value in moments.items()} for moments in optimiser["state"].values()
    ]
    found["rates"] = [group["lr"] for group in optimiser["param_groups"]]
    found["log"] = [line | {"seconds": 0, "memory": 0} for line in log(folder)]
    return found


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# The second validation is the best one.
SCORES = {3: 0.5, 6: 0.9, 9: 0.7}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    reason, progress = Sitting(folder, scores=SCORES).run()
    assert (reason, progress.step, progress.best, progress.best_step, progress.waited) == ("epochs", 9, 0.9, 6, 1)
    return kept(folder)


def test_what_is_kept(uninterrupted: dict[str, Any]) -> None:
    assert uninterrupted["names"] == ["best", "last"]
    assert uninterrupted["best"] != uninterrupted["last"]
    assert uninterrupted["best progress"]["step"] == 6
    steps = [line["step"] for line in uninterrupted["log"] if "loss" in line]
    assert steps == list(range(1, 10))
    assert [line["step"] for line in uninterrupted["log"] if "validation" in line] == [3, 6, 9]
    assert [line["epoch"] for line in uninterrupted["log"]] == [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize("every", [0.0, 600.0])
@pytest.mark.parametrize("stop", [1, 3, 5, 6, 9])
def test_a_killed_run_ends_as_one_that_was_not(
    tmp_path: Path, stop: int, every: float, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_KEEP_EVERY", every)
    with pytest.raises(RuntimeError, match="killed"):
        Sitting(tmp_path, stop=stop, scores=SCORES).run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 1, "st')
    sitting = Sitting(tmp_path, scores=SCORES)
    sitting.run()
    assert kept(tmp_path) == uninterrupted
    # Without a checkpoint in between, from the last validation on.
    assert sitting.events[0].step == (stop if every == 0.0 else 3 * ((stop - 1) // 3) + 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated()])
@pytest.mark.parametrize("stop", [2, 3])
def test_an_interruption_costs_no_step(
    tmp_path: Path, stop: int, error: BaseException, uninterrupted: dict[str, Any]
) -> None:
    with pytest.raises(type(error)):
        Sitting(tmp_path, stop=stop, error=error, scores=SCORES).run()
    sitting = Sitting(tmp_path, scores=SCORES)
    sitting.run()
    assert kept(tmp_path) == uninterrupted
    # After the last step of an epoch, the validation is still to come.
    first = sitting.events[0]
    assert (first.step, isinstance(first, loop.Validation)) == ((3, False) if stop == 2 else (3, True))


def test_an_interruption_amid_an_update_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: torch.optim.AdamW) -> None:
        self.param_groups[0]["params"][0].data.zero_()
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Sitting(tmp_path).run()
    assert not (tmp_path / "checkpoints" / "last").exists()


def test_a_stop_between_the_two_checkpoints(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    budget = Budget(epochs=3, steps=3)
    with pytest.raises(RuntimeError, match="killed"):
        Sitting(tmp_path, stop=4, scores=SCORES).run()
    earlier = tmp_path / "earlier"
    shutil.copytree(tmp_path / "checkpoints" / "best", earlier)
    with pytest.raises(RuntimeError, match="killed"):
        Sitting(tmp_path, budget, stop=7, scores=SCORES).run()
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    earlier.rename(tmp_path / "checkpoints" / "best")
    Sitting(tmp_path, scores=SCORES).run()
    assert kept(tmp_path) == uninterrupted


def test_without_resume_a_run_begins_anew(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        Sitting(tmp_path, stop=7, scores=SCORES).run()
    Sitting(tmp_path, scores=SCORES).run(resume=False)
    assert kept(tmp_path) == uninterrupted


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    Sitting(tmp_path).run()
    again = Sitting(tmp_path)
    assert again.run()[0] == "epochs"
    assert again.events == []


def test_no_best_checkpoint_if_nothing_beats_the_start(tmp_path: Path) -> None:
    budget = Budget(epochs=3, steps=3, patience=2)
    reason, progress = Sitting(tmp_path, budget, scores={3: -1.0, 6: 0.0}).run()
    assert (reason, progress.step, progress.best, progress.best_step) == ("patience", 6, 0.0, 0)
    assert not (tmp_path / "checkpoints" / "best").exists()


class TestFaults:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        with pytest.raises(RuntimeError, match="killed"):
            Sitting(tmp_path, stop=4).run()
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("progress.json", b"{}", "progress.json: no best"),
            ("progress.json", None, "No such file"),
            ("progress.json", b'{"best": 1', "Expecting"),
            ("optimiser.pt", b"", "optimiser.pt is damaged"),
            ("optimiser.pt", None, "No such file"),
            ("optimiser.pt", b"12345678", "optimiser.pt is damaged"),
            ("model.safetensors", b"12", "model.safetensors"),
            ("model.safetensors", None, "model.safetensors"),
        ],
    )
    def test_damaged_checkpoints(self, run: Path, name: str, content: bytes | None, message: str) -> None:
        path = run / "checkpoints" / "last" / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(OutputError, match=message) as caught:
            Sitting(run).run()
        assert "cannot be resumed" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "changes", [{"step": -1}, {"best_step": 4}, {"seconds": None}, {"micro_batch": 0}, {"more": 1}, {"best": "a"}]
    )
    def test_wrong_progress(self, changes: dict[str, Any]) -> None:
        good = Progress(best=0.5, micro_batch=4, step=3, validated=3).to_dict()
        assert Progress.from_dict(good).to_dict() == good
        with pytest.raises(ValueError, match=r"instead of|best_step 4|field 'more'"):
            Progress.from_dict(good | changes)

    def test_programs_are_not_run(self, run: Path) -> None:
        torch.save({"state": {}, "param_groups": Sitting}, run / "checkpoints" / "last" / "optimiser.pt")
        with pytest.raises(OutputError, match="more than tensors and numbers"):
            Sitting(run).run()

    def test_state_of_another_optimiser(self, run: Path) -> None:
        path = run / "checkpoints" / "last" / "optimiser.pt"
        content = torch.load(path, weights_only=True)
        content["state"][0]["exp_avg"] = torch.zeros(2, 2)
        torch.save(content, path)
        with pytest.raises(OutputError, match=r"exp_avg in optimiser\.pt does not fit"):
            Sitting(run).run()

    def test_a_lost_best_checkpoint(self, run: Path) -> None:
        shutil.rmtree(run / "checkpoints" / "best")
        with pytest.raises(RuntimeError, match="killed"):  # the last one is of the same step, and is taken
            Sitting(run, stop=5).run()
        assert (run / "checkpoints" / "best" / "model.safetensors").is_file()

    @pytest.mark.parametrize("fault", ["room", "weights", "optimiser"])
    def test_a_full_disk_leaves_the_checkpoint_before(
        self, run: Path, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = kept(run)

        def full(*_: object) -> None:
            raise (
                RuntimeError("PytorchStreamWriter failed writing file")
                if fault == "optimiser"
                else OSError(errno.ENOSPC, "No space left on device")
            )

        with monkeypatch.context() as patched:
            if fault == "room":
                usage = namedtuple("usage", "free")(10)
                patched.setattr(shutil, "disk_usage", lambda _: usage)
            elif fault == "weights":
                patched.setattr(state, "write_state_dict", full)
            else:
                patched.setattr(torch, "save", full)
            with pytest.raises(OutputError, match="lacks [1-9] MB" if fault == "room" else "No space|disk full"):
                Sitting(run).run()
        after = kept(run)
        assert {name: after[name] for name in ("last", "last progress", "best", "moments")} == {
            name: before[name] for name in ("last", "last progress", "best", "moments")
        }
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best", "last"]
