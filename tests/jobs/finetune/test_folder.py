"""The folder of a run, as it is opened again."""

from pathlib import Path

import pytest

from timesformer_cli.errors import OutputError
from timesformer_cli.jobs.finetune.folder import opened

TRAINING = {"log.jsonl", "checkpoints", "features"}


def trained(folder: Path) -> Path:
    """A run that was stopped in its training, after a table of an earlier one."""
    with opened(folder, {"lr": 1}, resume=False, overwrite=False):
        for name in ("log.jsonl", "log.csv"):
            (folder / name).write_text("")
        for name in ("checkpoints/last", "features"):
            (folder / name).mkdir(parents=True)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"settings.json", "settings.json.lock"}


def test_resume_finds_the_training_and_no_results(tmp_path: Path) -> None:
    with opened(trained(tmp_path / "run"), {"lr": 1}, resume=True, overwrite=False):
        assert names(tmp_path / "run") == TRAINING


def test_a_run_that_is_begun_anew_finds_no_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    with opened(run, {"lr": 2}, resume=False, overwrite=True):
        pass
    with opened(run, {"lr": 2}, resume=True, overwrite=False):
        assert names(run) == {"features"}


def test_checkpoints_without_settings_are_of_no_known_run(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    (run / "settings.json").unlink()
    with opened(run, {"lr": 1}, resume=True, overwrite=False):
        assert names(run) == {"features"}


def test_a_refused_run_keeps_its_training(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    with (
        pytest.raises(OutputError, match="different settings: lr"),
        opened(run, {"lr": 2}, resume=True, overwrite=False),
    ):
        pass
    assert names(run) == TRAINING | {"log.csv"}
