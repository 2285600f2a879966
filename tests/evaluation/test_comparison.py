"""Runs against each other, and as one."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import binomtest, bootstrap

from timesformer_cli.errors import UsageError
from timesformer_cli.evaluation.comparison import common_rows, compare, fuse
from timesformer_cli.evaluation.metrics import measure


def test_difference_and_flipped_videos() -> None:
    first = np.array([True, True, False, False, True])
    second = np.array([True, False, True, True, True])
    found = compare(first, second)
    assert (found.videos, found.first, found.second) == (5, 0.6, 0.8)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.2)
    assert (found.gained.tolist(), found.lost.tolist()) == ([2, 3], [1])


def test_interval_is_that_of_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(500) < 0.6
    second = np.where(rng.random(500) < 0.8, first, rng.random(500) < 0.8)
    found = compare(first, second, resamples=20_000).difference
    assert found is not None
    expected = bootstrap(
        (second, first),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    np.testing.assert_allclose([found.low, found.high], list(expected), atol=2 / 500)
    again = compare(first, second, seed=1).difference
    assert again == compare(first, second, seed=1).difference
    assert again != compare(first, second, seed=2).difference


@pytest.mark.parametrize(
    ("first", "second", "point"),
    [
        ([True] * 9, [True] * 9, True),
        ([True, False, True], [True, False, True], True),
        ([False] * 9, [True] * 9, True),  # every video tells them apart, in the same way
        ([True] * 9, [True] * 8 + [False], False),
    ],
)
def test_an_interval_without_width_is_explained(first: list[bool], second: list[bool], point: bool) -> None:
    found = compare(np.array(first), np.array(second)).difference
    assert found is not None
    assert (found.low == found.high) is point
    note = found.no_width("the difference")
    if point:
        assert note is not None
        assert note.startswith("The 95 % interval of the difference has no width")
    else:
        assert note is None


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (0, 7), (5, 5), (30, 12), (400, 500)])
def test_mcnemars_test_is_the_exact_one(gained: int, lost: int) -> None:
    first = np.repeat([False, True, True], [gained, lost, 40])
    second = np.repeat([True, False, True], [gained, lost, 40])
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert compare(first, second).p_value == pytest.approx(expected, rel=1e-9)


def test_comparing_nothing() -> None:
    none = np.empty(0, np.bool_)
    found = compare(none, none)
    assert (found.videos, found.first, found.difference, found.p_value) == (0, None, None, None)


def test_rows_that_runs_have_in_common() -> None:
    first, second, third = common_rows([["a", "b", "c", "d"], ["d", "x", "b", "a"], ["b", "d", "y"]])
    assert (first.tolist(), second.tolist(), third.tolist()) == ([1, 3], [2, 0], [0, 1])
    assert [rows.tolist() for rows in common_rows([["a"], ["b"]])] == [[], []]
    with pytest.raises(ValueError, match="run 2 has videos more than once"):
        common_rows([["a"], ["a", "b", "a"]])


def test_fusing_is_the_weighted_mean_of_probabilities() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(0, scale, (9000, 5)).astype(np.float32) for scale in (1, 10))
    third = softmax(rng.normal(size=(9000, 5)), axis=1).astype(np.float32)
    found = fuse([first, second, third], [1, 2, 5], ["logits", "raw_logits", "probabilities"])
    expected = (softmax(first, axis=1) + 2 * softmax(second, axis=1) + 5 * third) / 8
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_run_fused_with_nothing_is_itself() -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(100, 8)).astype(np.float32), rng.integers(8, size=100)
    fused = fuse([scores, -scores], [3, 0], ["logits", "logits"])
    alone, found = measure(scores, targets), measure(fused, targets, combine="probabilities")
    assert found.top == alone.top
    assert found.negative_log_likelihood == pytest.approx(alone.negative_log_likelihood, rel=1e-6)


def test_fusing_several_labels_takes_sigmoids() -> None:
    logits = np.array([[-800.0, 0.0, 3.0], [800.0, 1.0, -3.0]], np.float32)
    chances = np.array([[0.5, 0.5, 1.0], [0.0, 1.0, 0.2]], np.float32)
    found = fuse([logits, chances], [1, 1], ["logits", "probabilities"], activation="sigmoid")
    np.testing.assert_allclose(found, (expit(logits.astype(np.float64)) + chances) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "2 runs need 2 weights, not 1"),
        ([1.0, -0.5], "weights 1, -0.5; they must be 0 or more"),
        ([0.0, 0.0], "not all 0"),
        ([float("nan"), 1.0], "weights nan, 1"),
        ([float("inf"), 1.0], "weights inf, 1"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fuse([np.zeros((2, 3))] * 2, weights, ["logits"] * 2)


def test_runs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"runs of different shapes: \(2, 3\), \(2, 4\)"):
        fuse([np.zeros((2, 3)), np.zeros((2, 4))], [1, 1], ["logits"] * 2)
    with pytest.raises(ValueError, match="not finite"):
        fuse([np.zeros((2, 3)), np.full((2, 3), np.nan)], [1, 1], ["logits"] * 2)
    with pytest.raises(ValueError, match="not finite"):
        fuse([np.zeros((2, 3)), np.full((2, 3), np.nan)], [1, 1], ["logits"] * 2, activation="sigmoid")
