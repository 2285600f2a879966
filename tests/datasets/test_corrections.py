"""The file of corrections of a page of labels, as annotations of a dataset."""

import os
from pathlib import Path

import pytest

from testing.clips import touch
from testing.command import Run, only_line
from timesformer_cli.datasets import open_dataset
from timesformer_cli.errors import UsageError

HEADER = "path,start,end,label,was,score,reviewed_at\r\n"
AT = "2026-01-02T03:04:05.678Z"
ROWS = [
    f"clips/a.mp4,,,wave,nod,0.5,{AT}",
    f"clips/b.mp4,,,,nod,0.5,{AT}",
    f'"clips/c, d.mp4",,,nod,nod,0.75,{AT}',
    f"film.mp4,0,2.5,wave,nod,0.5,{AT}",
    f"film.mp4,2.5,4,nod,,,{AT}",
]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch("clips/a.mp4", "clips/b.mp4", "clips/c, d.mp4", "film.mp4")


def corrections(*rows: str) -> Path:
    path = Path("downloads/corrections.csv")
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\r\n" for row in rows), newline="")
    return path


@pytest.mark.parametrize("root", [None, "."])
def test_rows_are_videos_and_segments(root: str | None) -> None:
    dataset = open_dataset(None if root is None else Path(root), corrections(*ROWS), labels=None)
    assert [
        (os.path.normpath(sample.path), dataset.names[sample.labels[0]], sample.part) for sample in dataset.samples
    ] == [
        ("clips/a.mp4", "wave", (None, None)),
        ("clips/c, d.mp4", "nod", (None, None)),
        ("film.mp4", "wave", (0.0, 2.5)),
        ("film.mp4", "nod", (2.5, 4.0)),
    ]
    (problem,) = dataset.problems
    assert str(problem) == "downloads/corrections.csv: line 3: 'clips/b.mp4' has no label"  # it was unsure


def test_names_that_the_model_lacks_are_told() -> None:
    with pytest.raises(Exception, match=r"line 2: 'wave' is not a class of the model"):
        open_dataset(None, corrections(*ROWS), labels=["nod", "clap"])


@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_corrections_of_other_videos(command: str, run: Run) -> None:
    rows = [f"x/a{number}.mp4,,,{label},static,0.5,{AT}" for number, label in enumerate(["pan left", "", "static"], 1)]
    path = corrections(*rows)
    outcome = run(command, "clips", "-a", path, "--model", "camera-motion", "--dry-run")
    assert (outcome.code, outcome.out) == (2, "")
    assert only_line(outcome.err).endswith(
        f"{path}: these are corrections of other videos: none of the 2 is there, the first: {path}: line 2: 'x/a1.mp4' "
        "does not exist; go to the folder where they were labelled, or name the folder of the videos"
    )


def test_a_damaged_file_is_another_fault() -> None:
    path = corrections(*ROWS, f"clips/a.mp4,,,nod,nod,0.5,{AT}", f"clips/x.mp4,,,nod,nod,0.5,{AT}")
    kinds = [problem.kind for problem in open_dataset(None, path, labels=None).problems]
    assert kinds == ["unlabelled", "conflict", "missing"]
    path.write_text("path,label\nclips/x.mp4,nod\nclips/y.mp4,wave\n")
    with pytest.raises(Exception, match="none of its 2 videos can be used") as caught:
        open_dataset(None, path, labels=None)
    assert not isinstance(caught.value, UsageError)
