"""Scores that stay in their file: the same numbers as in memory, without the memory."""

import base64
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timesformer_cli.errors import InputError
from timesformer_cli.evaluation import folder as folders
from timesformer_cli.evaluation import metrics, report, rows
from timesformer_cli.evaluation.rows import Chosen, Computed, FileRows, packed_length
from timesformer_cli.evaluation.run import Run, summarise
from timesformer_cli.evaluation.score_files import read_scores
from timesformer_cli.results.settings import Combination, Provenance

SCORES = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
CHOICES: list[Any] = [
    slice(None),
    slice(10, 20),
    slice(0, 0),
    np.array([3, 1, 2, 49, 49, 0]),
    np.arange(50)[::-1],
    np.array([], np.int64),
]


@pytest.fixture(params=[False, True], ids=["numbers", "base64"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> FileRows:
    """`SCORES`, with a varying number of bytes between the rows."""
    places, content = [], b""
    for number, row in enumerate(SCORES):
        content += b"-" * (number % 5)
        places.append(len(content))
        content += base64.b64encode(row.tobytes()) if request.param else row.tobytes()
    (tmp_path / "scores").write_bytes(content)
    return FileRows(tmp_path / "scores", np.array(places, np.int64), 7, base64=request.param)


class TestFileRows:
    @pytest.mark.parametrize("span", [0, 100, 2**22])
    @pytest.mark.parametrize("choice", CHOICES, ids=str)
    def test_any_rows(self, stored: FileRows, choice: Any, span: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows, "_SPAN", span)
        assert (len(stored), stored.shape) == (50, (50, 7))
        np.testing.assert_array_equal(stored[choice], SCORES[choice])

    def test_a_file_that_is_not_the_same_any_more(self, stored: FileRows) -> None:
        stored.path.write_bytes(stored.path.read_bytes()[:-1])
        assert len(stored[:49]) == 49
        with pytest.raises(InputError, match="scores: was changed while it was read"):
            stored[:]
        stored.path.unlink()
        with pytest.raises(InputError, match="scores: cannot be read"):
            stored[:]


@pytest.mark.parametrize("classes", range(1, 9))
def test_the_length_of_a_row(classes: int) -> None:
    assert packed_length(classes) == len(base64.b64encode(bytes(4 * classes)))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_chosen_and_computed(choice: Any) -> None:
    some, columns = np.arange(50)[::-1], np.array([5, 1])
    np.testing.assert_array_equal(Chosen(SCORES, some)[choice], SCORES[::-1][choice])
    chosen = Chosen(SCORES, some, columns)
    assert (len(chosen), chosen.shape) == (50, (50, 2))
    np.testing.assert_array_equal(chosen[choice], SCORES[::-1][:, columns][choice])
    computed = Computed((50, 7), lambda numbers: 2 * SCORES[numbers])
    assert len(computed) == 50
    np.testing.assert_array_equal(computed[choice], 2 * SCORES[choice])


class TestFiles:
    def test_arrays_of_numpy(self, tmp_path: Path) -> None:
        """As earlier versions left them, and as people make them."""
        others = {"path": [f"{number}.mp4" for number in range(50)], "labels": list("abcdefg")}
        path = tmp_path / "s.npz"
        for save, array in (
            (np.savez, SCORES),
            (np.savez_compressed, SCORES),
            (np.savez, SCORES.astype(np.float64)),
            (np.savez, np.asfortranarray(SCORES)),
            (np.savez, SCORES.astype(">f4")),
        ):
            save(path, logits=array, **others)
            found = read_scores(path)
            np.testing.assert_array_equal(found.scores[:], SCORES)
            assert found.paths == tuple(others["path"])
        np.savez(path, logits=SCORES, **others)
        assert isinstance(read_scores(path).scores, FileRows)

    def test_a_flipped_bit_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "s.npz"
        np.savez(path, logits=SCORES, path=[f"{number}.mp4" for number in range(50)], labels=list("abcdefg"))
        content = bytearray(path.read_bytes())
        place = content.index(SCORES.tobytes()) + 1000
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not an \.npz file.*CRC"):
            read_scores(path)


CLASSES = 200


def large(videos: int, *, multi_label: bool) -> Run:
    """A run with a path that would make all others long if they had one width."""
    data_set = {"multi_label": multi_label, "rows": videos, "samples": videos, "classes": None, "problems": {}}
    provenance = Provenance(
        model="tiny",
        source="tiny",
        labels=tuple(f"class {number}" for number in range(CLASSES)),
        recipe=Combination("original", "logits"),
        data_set=data_set,
    )
    paths = (f"long/{'x' * 900}.mp4", *(f"clips/{number}.mp4" for number in range(1, videos)))
    targets = tuple((number % (CLASSES - 1), CLASSES - 1)[: 1 + multi_label] for number in range(videos))
    scores = np.random.default_rng(0).normal(size=(videos, CLASSES)).astype(np.float32)
    return Run(provenance, paths, targets, {"logits": scores}, ())


def memory(folder: Path, videos: int, *, multi_label: bool) -> int:
    """The peak, in bytes, of reading a run, measuring it, and writing it once more."""
    made = large(videos, multi_label=multi_label)
    first, again = folder / f"{videos}", folder / f"{videos} again"
    first.mkdir()
    again.mkdir()
    folders.write_records(first, made.provenance, made.records())
    expected = summarise(made, made.measure((1, 5)))
    folders.write_results(first, made, expected, ())
    tracemalloc.start()
    try:
        run = folders.read_run(first)
        found = summarise(run, run.measure((1, 5)))
        folders.write_records(again, run.provenance, run.records())
        folders.write_results(again, run, found, ())
        read = read_scores(again / "scores.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == expected
    assert run.paths == made.paths == read.paths
    assert run.targets == made.targets == read.targets
    for name in (folders.VIDEOS, "scores.npz", "predictions.csv", "per_class.csv"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    return peak


@pytest.mark.parametrize("multi_label", [False, True])
def test_memory_does_not_grow_with_the_scores(
    tmp_path: Path, multi_label: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor with memberships, nor with the length of the longest path: each video adds 0.8 kB of scores alone."""
    monkeypatch.setattr(rows, "_ROWS", 32)
    monkeypatch.setattr(metrics, "_COLUMNS", 2**17)
    monkeypatch.setattr("timesformer_cli.evaluation.score_files._BLOCK", 2**14)
    for name, value in (("_MOST", 2**14), ("_GATHER", 0)):  # records that wait for the disk
        monkeypatch.setattr(f"timesformer_cli.results.appender.{name}", value)
    monkeypatch.setattr("timesformer_cli.strict_json.LARGEST", 2**15)  # for which it asks, however little is read
    monkeypatch.setattr(report, "render", lambda *_: "")
    memory(tmp_path, 10, multi_label=multi_label)  # imports
    small, big = (memory(tmp_path, videos, multi_label=multi_label) for videos in (200, 1200))
    assert big - small < 1000 * 4 * CLASSES / 2
