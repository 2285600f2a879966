"""K-centre greedy: each choice is the candidate that is furthest from all that is known or chosen."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from testing.vectors import numbers
from timesformer_cli.errors import InputError
from timesformer_cli.jobs.pick import k_centre as module
from timesformer_cli.jobs.pick.k_centre import Choice, in_order, spread
from timesformer_cli.results.vectors.reading import VectorFile, open_vectors

NONE = np.empty(0, np.int64)


def opened(path: Path, vectors: NDArray[np.float32]) -> VectorFile:
    return open_vectors(numbers(path, [(f"{n}.mp4", None, None) for n in range(len(vectors))], vectors))


def of_angles(*degrees: float) -> NDArray[np.float32]:
    """Vectors of different lengths in a plane."""
    angles = np.radians(degrees)
    lengths = np.arange(1, len(degrees) + 1)
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]).astype(np.float32)


def test_the_first_is_the_most_doubtful_and_the_next_is_furthest_from_it(tmp_path: Path) -> None:
    file = opened(tmp_path / "v.npz", of_angles(0, 10, 90, 200))
    found = spread(file, [1, 0, 2, 3], NONE, 3)
    assert found == [
        Choice(0, None, None),
        Choice(3, pytest.approx(1 - np.cos(np.radians(170)), abs=1e-6), 1),
        Choice(2, pytest.approx(1 - np.cos(np.radians(80)), abs=1e-6), 1),
    ]


def test_what_is_labelled_counts_as_chosen(tmp_path: Path) -> None:
    file = opened(tmp_path / "v.npz", of_angles(0, 10, 90, 200))
    (found,) = spread(file, [0, 1, 2], np.array([3]), 1)
    assert (found.place, found.nearest) == (1, 3)
    assert found.distance == pytest.approx(1 - np.cos(np.radians(170)), abs=1e-6)


def test_of_equally_distant_ones_the_more_doubtful_comes_first(tmp_path: Path) -> None:
    file = opened(tmp_path / "v.npz", of_angles(0, 90, 90, 270))
    assert [each.place for each in spread(file, [3, 2, 1], np.array([0]), 3)] == [0, 1, 2]


def test_no_more_than_there_are(tmp_path: Path) -> None:
    file = opened(tmp_path / "v.npz", of_angles(0, 90))
    assert len(spread(file, [0, 1], NONE, 5)) == 2


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_equals_the_definition_in_any_blocks(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    known, rows = np.arange(20), list(range(20, 60))
    found = spread(opened(tmp_path / "v.npz", vectors), rows, known, 10)
    chosen = known.tolist()
    for each in found:
        distances = 1 - units[rows] @ units[chosen].T
        assert distances.min(axis=1).max() == pytest.approx(each.distance, abs=2e-6)
        assert chosen[int(distances[each.place].argmin())] == each.nearest
        chosen.append(rows[each.place])
    assert len(set(chosen)) == 30


def test_a_given_order_is_kept(tmp_path: Path) -> None:
    file = opened(tmp_path / "v.npz", of_angles(0, 10, 90))
    found = in_order(file, [1, 0, 2], NONE)
    assert [each.place for each in found] == [0, 1, 2]
    assert [each.nearest for each in found] == [None, 1, 1]


@pytest.mark.parametrize("wrong", [0.0, np.nan])
def test_a_vector_without_a_direction_is_named(tmp_path: Path, wrong: float) -> None:
    opened(tmp_path / "v.npy", of_angles(0, 10, 90))
    vectors = np.load(tmp_path / "v.npy")
    vectors[1] = wrong
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(InputError, match=r"the vector of 1\.mp4 is zero or not finite"):
        spread(open_vectors(tmp_path / "v.npy"), [0, 1], NONE, 1)
