"""The nearest rows are those that all cosines together give, whatever the blocks."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from testing.vectors import numbers
from timesformer_cli.errors import InputError
from timesformer_cli.jobs.search import scan as module
from timesformer_cli.jobs.search.scan import Chance, nearest
from timesformer_cli.results.vectors.reading import VectorFile, open_vectors

N, D = 300, 16
NONE = np.empty(0, np.int64)


def drawn(count: int = N, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32) * 3


def opened(path: Path, vectors: NDArray[np.float32], **kind: bool) -> VectorFile:
    return open_vectors(numbers(path, [(f"{n}.mp4", None, None) for n in range(len(vectors))], vectors, **kind))


def units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("extension", ["npy", "parquet"])
@pytest.mark.parametrize("block", [7, 299, 2048])
def test_equals_the_sorted_cosines(tmp_path: Path, extension: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    vectors, queries = drawn(), units(drawn(5, 1))
    file = opened(tmp_path / f"v.{extension}", vectors)
    found = nearest(file, queries, [NONE] * 5, 20, Chance(N))
    cosines = queries @ units(vectors).T
    np.testing.assert_array_equal(found.rows, np.argsort(-cosines, axis=1)[:, :20])
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :20], atol=1e-6)


def test_equal_rows_are_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 2)
    vectors = np.repeat(drawn(1), 9, axis=0)
    found = nearest(opened(tmp_path / "v.npy", vectors), units(vectors[:1]), [NONE], 4, Chance(9))
    assert found.rows.tolist() == [[0, 1, 2, 3]]


def test_rows_are_left_out_for_each_query_alone(tmp_path: Path) -> None:
    vectors = drawn()
    queries = units(vectors[[3, 3]])
    found = nearest(opened(tmp_path / "v.npy", vectors), queries, [np.array([3, 5]), NONE], N, Chance(N))
    assert found.rows[1, 0] == 3
    assert set(found.rows[0][np.isfinite(found.cosines[0])].tolist()) == set(range(N)) - {3, 5}


def test_vectors_of_length_one_are_taken_as_they_are(tmp_path: Path) -> None:
    vectors = units(drawn())
    plain = nearest(opened(tmp_path / "a.npy", vectors), vectors[:2], [NONE] * 2, 9, Chance(N))
    known = nearest(opened(tmp_path / "b.npy", vectors, normalized=True), vectors[:2], [NONE] * 2, 9, Chance(N))
    np.testing.assert_array_equal(plain.rows, known.rows)
    np.testing.assert_allclose(plain.cosines, known.cosines, atol=1e-6)


def test_a_vector_of_zeros_is_near_to_nothing(tmp_path: Path) -> None:
    vectors = drawn(3)
    vectors[1] = 0
    found = nearest(opened(tmp_path / "v.npy", vectors), units(vectors[:1]), [NONE], 3, Chance(3))
    assert found.cosines[0][found.rows[0].tolist().index(1)] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    vectors = drawn()
    file = opened(tmp_path / "v.npy", vectors)
    array = np.lib.format.open_memmap(tmp_path / "v.npy", mode="r+")
    array[77, 3] = value
    array.flush()
    with pytest.raises(InputError, match=r"v\.npy: the vector of 77\.mp4 has numbers that are not finite"):
        nearest(file, units(vectors[:1]), [NONE], 3, Chance(N))


class TestChance:
    def test_the_percentile_is_that_of_random_pairs(self, tmp_path: Path) -> None:
        vectors = drawn()
        chance = Chance(N)
        nearest(opened(tmp_path / "v.npy", vectors), units(vectors[:1]), [NONE], 3, chance)
        cosines = (units(vectors) @ units(vectors).T)[np.triu_indices(N, 1)]
        for cosine in (-0.3, 0.0, 0.4):
            assert chance.percentile(cosine) == pytest.approx(100 * (cosines < cosine).mean(), abs=1e-2)
        assert (chance.percentile(-1.1), chance.percentile(1.1)) == (0, 100)

    def test_is_the_same_each_time_and_in_each_format(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_SAMPLED", 50)
        monkeypatch.setattr(module, "_PAIRS", 200)
        vectors, found = drawn(), []
        for extension in ("npy", "parquet", "npy"):
            chance = Chance(N)
            nearest(opened(tmp_path / f"v.{extension}", vectors), units(vectors[:1]), [NONE], 3, chance)
            found.append([chance.percentile(cosine / 10) for cosine in range(-10, 11)])
        assert found[0] == found[1] == found[2]
        assert {round(2 * each) / 2 for each in found[0] if each is not None} == set(found[0])  # of 200 pairs

    def test_of_a_single_row_there_is_none(self, tmp_path: Path) -> None:
        chance = Chance(1)
        nearest(opened(tmp_path / "v.npy", drawn(1)), units(drawn(1)), [NONE], 1, chance)
        assert chance.percentile(0.5) is None
