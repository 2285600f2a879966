"""Features of a file of vectors: which rows a sample gets, what it lacks, and copies."""

from pathlib import Path

import numpy as np
import pytest

from testing.vectors import Row, numbers
from timesformer_cli.datasets import Sample, open_dataset
from timesformer_cli.flow import WHOLE, Failure, Part
from timesformer_cli.jobs.finetune.features import Features
from timesformer_cli.jobs.finetune.stored import Stored, stored_in
from timesformer_cli.results.vectors.reading import open_vectors

# A film with segments of two seconds that overlap, a video as a whole, and a part of one.
ROWS: list[Row] = [
    *(("films/a.mp4", float(start), start + 2.0) for start in range(5)),
    ("films/whole.mp4", None, None),
    ("https://host/b.mp4", 3.0, 4.0),
]


@pytest.fixture(params=["npy", "parquet", "csv"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    vectors = np.arange(len(ROWS) * 4, dtype=np.float32).reshape(-1, 4)
    return stored_in(open_vectors(numbers(tmp_path / f"v.{request.param}", ROWS, vectors)))


def sample(path: str, part: Part = WHOLE) -> Sample:
    return Sample(path, (0,), 1, "", *part)


@pytest.mark.parametrize(
    ("path", "part", "rows"),
    [
        ("films/a.mp4", WHOLE, [0, 1, 2, 3, 4]),
        ("films/a.mp4", (2.0, 4.0), [1, 2, 3]),  # middles of 2, 3 and 4 seconds
        ("films/a.mp4", (3.5, None), [3, 4]),
        ("films/a.mp4", (None, 1.0), [0]),
        ("films/whole.mp4", WHOLE, [5]),
        ("https://host/b.mp4", (3.0, 4.0), [6]),
        ("https://host/b.mp4", WHOLE, [6]),
    ],
)
def test_the_rows_of_a_sample(stored: Stored, path: str, part: Part, rows: list[int]) -> None:
    (found,) = stored.features([sample(path, part)])
    assert isinstance(found, Features)
    assert (found.rows[:, 0] / 4).tolist() == rows
    assert found.rows.dtype == np.float32


def test_each_sample_gets_its_own_rows(stored: Stored) -> None:
    asked = [sample("films/whole.mp4"), sample("films/a.mp4", (90.0, 91.0)), sample("films/a.mp4", (0.0, 1.5))]
    one, none, two = stored.features(asked)
    assert isinstance(one, Features)
    assert isinstance(two, Features)
    assert (one.rows[:, 0] / 4).tolist() == [5]
    assert (two.rows[:, 0] / 4).tolist() == [0]
    assert isinstance(none, Failure)
    assert (none.item.part, none.kind) == ((90.0, 91.0), "decode")
    assert none.message.endswith("has no vector for 90 to 91 s of it")
    (missing,) = stored.features([sample("films/whole.mp4", (0.0, 1.0))])
    assert isinstance(missing, Failure)
    assert "has a vector only for the whole of it" in missing.message


def test_equal_vectors_are_copies(tmp_path: Path) -> None:
    vectors = np.array([[1, 2], [3, 4], [1, 2], [1, 2]], np.float32)
    rows: list[Row] = [("a.mp4", 0.0, 1.0), ("b.mp4", None, None), ("c.mp4", None, None), ("d.mp4", None, None)]
    stored = stored_in(open_vectors(numbers(tmp_path / "v.npz", rows, vectors)))
    samples = [sample(path) for path, _, _ in rows]
    features = [each for each in stored.features(samples) if isinstance(each, Features)]
    assert list(stored.copies(samples, features)) == [(0, 2), (0, 3)]
    # Parts of one video are no copies of each other.
    assert list(stored.copies([samples[0]] * 2, [features[0]] * 2)) == []


def test_what_the_model_can_be_asked_for_again(stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [sample("films/a.mp4"), sample("films/whole.mp4"), sample("https://host/b.mp4")]
    assert [stored.can_read(each) for each in asked] == [False, False, False]
    Path("films").mkdir()
    for name in ("a", "whole"):
        Path(f"films/{name}.mp4").touch()
    assert [stored.can_read(each) for each in asked] == [False, True, False]


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ("films/a.mp4", "films/a.mp4"),
        ("a.mp4", "films/a.mp4"),
        ("/data/films/a", "films/a.mp4"),
        ("https://host/b.mp4", "https://host/b.mp4"),
        ("https://user:secret@host/b.mp4", "https://host/b.mp4"),
        ("https://other/b.mp4", None),
        ("other/a.mp4", None),
    ],
)
def test_rows_find_their_vectors(stored: Stored, tmp_path: Path, row: str, path: str | None) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"path,label\n{row},one\nwhole.mp4,two\n")
    found = open_dataset(stored.file.path, file, labels=["one", "two"], stored=stored.paths)
    assert [each.path for each in found.samples] == [*([path] if path else []), "films/whole.mp4"]
    assert any(problem.kind == "missing" for problem in found.problems) == (path is None)
