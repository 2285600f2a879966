"""Fusion of views."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from timesformer_cli.flow import Segment
from timesformer_cli.pipeline.aggregate import activated, combine, merge
from timesformer_cli.specs import Groups

LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]], dtype=np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def test_each_rule_is_its_formula() -> None:
    values = LOGITS.astype(np.float64)
    expected = {
        "logits": softmax(values.mean(0)),
        "probabilities": softmax(values).mean(0),
        "raw_logits": values.mean(0),
    }
    for how, scores in expected.items():
        result = combine(LOGITS, how)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, scores, rtol=1e-7)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_each_rule_with_another_activation(activation: Any) -> None:
    values = LOGITS.astype(np.float64)
    apply = expit if activation == "sigmoid" else np.copy
    expected = {"logits": apply(values.mean(0)), "probabilities": apply(values).mean(0), "raw_logits": values.mean(0)}
    for how, scores in expected.items():
        np.testing.assert_allclose(combine(LOGITS, how, activation), scores, rtol=1e-7)


def test_a_single_output_is_not_always_sure() -> None:
    assert combine(np.array([[-2.0]], np.float32), "logits", "sigmoid") == pytest.approx([expit(-2.0)])


def test_the_two_averages_can_rank_differently() -> None:
    logits = np.array([[9.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 5.0, 0.0]], dtype=np.float32)
    assert combine(logits, "logits").argmax() == 1
    logits[0, 0] = 11.0
    assert combine(logits, "logits").argmax() == 0
    assert combine(logits, "probabilities").argmax() == 1


@pytest.mark.parametrize("how", ["logits", "probabilities"])
def test_large_logits_do_not_overflow(how: Any) -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(combine(logits, how), [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(combine(logits, how, "sigmoid"), [1.0, 0.0, 0.5])


@pytest.mark.parametrize("how", ["logits", "probabilities"])
def test_scores_of_many_classes_add_up_to_one(how: str) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (30, 600)).astype(np.float32)
    assert combine(logits, how).sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_one_view_is_its_own_mean() -> None:
    np.testing.assert_array_equal(combine(LOGITS[:1], "raw_logits"), LOGITS[0])


@pytest.mark.parametrize("how", ["logits", "probabilities"])
def test_probabilities_of_groups_are_sums(how: Any) -> None:
    groups = Groups(("both", "one"), (0, 1, 0))
    alone = combine(LOGITS, how).astype(np.float64)
    np.testing.assert_allclose(combine(LOGITS, how, groups=groups), [alone[0] + alone[2], alone[1]], rtol=1e-6)


@pytest.mark.parametrize("how", ["logits", "probabilities"])
def test_groups_of_sigmoids_have_the_largest(how: Any) -> None:
    groups = Groups(("both", "one"), (0, 1, 0))
    alone = combine(LOGITS, how, "sigmoid")
    np.testing.assert_array_equal(combine(LOGITS, how, "sigmoid", groups), [max(alone[0], alone[2]), alone[1]])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_of_groups_are_those_of_their_scores(activation: Any) -> None:
    groups = Groups(("both", "one"), (0, 1, 0))
    logits = combine(LOGITS, "raw_logits", activation, groups)
    np.testing.assert_allclose(
        activated(logits.astype(np.float64), activation), combine(LOGITS, "logits", activation, groups), rtol=1e-6
    )


def test_groups_of_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4, 1e4]], dtype=np.float32)
    np.testing.assert_array_equal(combine(logits, "logits", groups=Groups(("both", "one"), (0, 1, 0))), [1.0, 0.0])


def test_segments_of_one_class_merge_if_both_are_sure_or_neither_is() -> None:
    """Their mean is then as sure, or unsure, as each."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45], [0.3, 0.7]], np.float32)
    segments = [Segment(float(at), at + 1.0, (), np.log(each), each) for at, each in enumerate(scores)]
    assert [(each.start, each.end) for each in merge(segments)] == [(0, 4), (4, 5)]
    merged = merge(segments, 0.7)
    assert [(each.start, each.end) for each in merged] == [(0, 2), (2, 4), (4, 5)]
    assert [each.scores.max() >= 0.7 for each in merged] == [True, False, True]
