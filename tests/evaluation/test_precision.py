"""The score from which answers are kept: bounds against SciPy, and the promise against simulated videos."""

import numpy as np
import pytest
from scipy.stats import beta

from timesformer_cli.errors import UsageError
from timesformer_cli.evaluation.precision import THRESHOLDS, Curve, lower_bound, needed


@pytest.mark.parametrize(("right", "kept"), [(1, 5), (58, 59), (93, 94), (1900, 2000), (3, 2000), (10, 10)])
def test_the_bound_is_exact(right: int, kept: int) -> None:
    assert lower_bound(right, kept) == pytest.approx(beta.ppf(0.05, right, kept - right + 1), abs=1e-12)


def test_the_bound_without_a_right_answer() -> None:
    assert lower_bound(0, 9) == 0


@pytest.mark.parametrize(
    ("precision", "expected"),
    [(0.8, [14, 22, 30, 37]), (0.9, [29, 46, 61, 76]), (0.95, [59, 93, 124, 153]), (0.99, [299, 473, 628, 773])],
)
def test_how_many_answers_are_needed(precision: float, expected: list[int]) -> None:
    assert [needed(precision, wrong) for wrong in range(4)] == expected


def curve(*answers: tuple[float, int, int]) -> Curve:
    """Of so many right and wrong answers with each score."""
    scores = [score for score, right, wrong in answers for _ in range(right + wrong)]
    found = [number < right for _, right, wrong in answers for number in range(right + wrong)]
    return Curve.of(np.array(scores), np.array(found))


def test_the_sequence_starts_where_it_can_pass_and_ends_where_it_fails() -> None:
    # 59 right answers from 0.9 on pass 0.95; with three wrong ones from 0.8 on it fails, and is not tried again below,
    # though 150 more right ones would pass.
    found = curve((0.975, 40, 0), (0.905, 19, 0), (0.805, 5, 3), (0.505, 150, 0))
    kept = found.require(0.95)
    assert (kept.threshold, kept.kept, kept.right, kept.videos) == (0.81, 59, 59, 217)
    assert kept.coverage == pytest.approx(59 / 217)
    assert found.at(0.5).low > 0.95
    assert [each.threshold for each in found.tested(0.95)][:2] == [0.9, 0.89]
    assert found.tested(0.95)[-1].threshold == 0.8


def test_a_score_at_the_threshold_is_kept() -> None:
    assert curve((0.9, 1, 0), (0.8, 1, 0)).at(0.9).kept == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            curve((0.99, 58, 0)),
            "with 58 independent videos, and 59 right answers without an error are needed; the most that can be had "
            "is 0.94,",
        ),
        (
            curve((0.99, 60, 2)),
            "of the 62 surest answers, 2 are wrong, and with so many, 124 answers are needed; the most that can be had "
            "is 0.9,",
        ),
        (curve((0.99, 3, 57)), "no lower precision can be had either"),
    ],
)
def test_why_there_is_none(found: Curve, said: str) -> None:
    assert found.find(0.95) is None
    with pytest.raises(UsageError, match=said):
        found.require(0.95)


def test_the_thresholds_go_down_from_the_top() -> None:
    assert THRESHOLDS[:4] == (0.999, 0.995, 0.99, 0.98)
    assert THRESHOLDS[-1] == 0
    assert list(THRESHOLDS) == sorted(THRESHOLDS, reverse=True)


def test_the_promise_is_kept() -> None:
    """In at most 5 % of sets of videos, fewer of the kept answers are right; the share that was measured promises
    nothing.
    """
    rng = np.random.default_rng(0)
    scores = np.sort(rng.beta(4, 1.5, 200_000))[::-1]
    truth = np.cumsum(scores) / np.arange(1, len(scores) + 1)  # of calibrated scores, from the highest on
    sets, broken, naive = 100, 0, 0
    for _ in range(sets):
        drawn = rng.choice(scores, 400)
        found = Curve.of(drawn, rng.random(400) < drawn)
        lowest = [each.threshold for each in map(found.at, THRESHOLDS) if each.kept and each.right >= 0.9 * each.kept]
        kept = found.find(0.9)
        for threshold in [kept.threshold] if kept else []:
            broken += truth[int((scores >= threshold).sum()) - 1] < 0.9
        for threshold in lowest[-1:]:
            naive += truth[int((scores >= threshold).sum()) - 1] < 0.9
    assert broken <= 0.05 * sets
    assert naive > 0.3 * sets
