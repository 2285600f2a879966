"""Temperatures against SciPy, and what is measured of them against simulated scores."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from timesformer_cli.errors import InputError
from timesformer_cli.evaluation.calibration import (
    FEW_SOURCES,
    HIGHEST,
    LEAST_SOURCES,
    LOWEST,
    Targets,
    calibrate,
    calibration_error,
    fit,
    losses,
)
from timesformer_cli.evaluation.calibration_file import figures, sentences
from timesformer_cli.evaluation.metrics import reliability
from timesformer_cli.evaluation.precision import THRESHOLDS


def simulated(videos: int, *, sure: float, seed: int = 0, classes: int = 5) -> tuple[NDArray[np.float32], Any]:
    """Logits of a model that is `sure` times as sure as it may be, and the classes that its videos turned out to be."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(videos, classes))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (rng.random((videos, 1)) > np.cumsum(chances, axis=1)).sum(axis=1)
    return (sure * logits).astype(np.float32), targets.clip(max=classes - 1)


def several(videos: int, *, sure: NDArray[np.float64], seed: int = 0) -> tuple[NDArray[np.float32], Any]:
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(videos, len(sure)))
    return (sure * logits).astype(np.float32), rng.random(logits.shape) < 1 / (1 + np.exp(-logits))


def best(logits: NDArray[np.float32], targets: Targets) -> float:
    """The temperature that SciPy finds."""

    def loss(temperature: float) -> float:
        return float(losses(logits, targets, np.full((1, 1), temperature)).mean())

    found = minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded", options={"xatol": 1e-9})
    return float(found.x)


@pytest.mark.parametrize("sure", [0.2, 1.0, 2.5, 9.0])
def test_the_temperature_is_the_best_one(sure: float) -> None:
    logits, targets = simulated(300, sure=sure)
    assert fit(logits, targets) == pytest.approx([best(logits, targets)], abs=1e-4)


def test_the_temperature_does_not_depend_on_what_all_logits_share() -> None:
    logits, targets = simulated(300, sure=2)
    assert fit(logits + 500, targets) == pytest.approx(fit(logits, targets), rel=1e-3)


def test_each_class_of_sigmoids_has_its_best_temperature() -> None:
    logits, targets = several(300, sure=np.array([0.5, 1, 4]))
    expected = [best(logits[:, [place]], targets[:, [place]]) for place in range(3)]
    assert fit(logits, targets) == pytest.approx(expected, abs=1e-4)


def test_a_temperature_has_bounds() -> None:
    logits = np.tile(np.float32([[3, 0], [0, 3]]), (20, 1))
    right, wrong = np.tile([0, 1], 20), np.tile([1, 0], 20)
    assert (fit(logits, right), fit(logits, wrong)) == (LOWEST, HIGHEST)
    assert fit(np.zeros_like(logits), right) == 1
    found = calibrate(logits, right, np.arange(40))
    assert found.at_bound
    assert any("end of what is fitted" in line for line in sentences(figures(found, grouped_by="")))
    left = calibrate(logits, right, np.arange(40), careful=True)
    assert left.temperatures == 1
    assert left.curve.scores.max() == pytest.approx(1 / (1 + np.exp(-3)))


def test_a_model_that_is_too_sure() -> None:
    logits, targets = simulated(1000, sure=2)
    found = calibrate(logits, targets, np.arange(1000))
    low, high = found.interval or (0, 0)
    assert low < 2 < high < low + 0.5
    assert found.loss_difference.high < 0
    assert found.loss_difference.value == pytest.approx(found.loss_after.value - found.loss_before.value)
    assert found.loss_before.value == pytest.approx(losses(logits, targets, np.ones((1, 1))).mean())
    assert found.error_before.value > found.error_before.high
    assert found.error_after.low < found.error_after.value < found.error_after.high


def test_a_calibrated_model_is_not_made_worse() -> None:
    for seed in range(2):
        logits, targets = simulated(400, sure=1, seed=seed)
        found = calibrate(logits, targets, np.arange(400))
        assert found.loss_difference.low <= 0
        careful = calibrate(logits, targets, np.arange(400), careful=True)
        assert careful.loss_difference.value <= 0
        assert careful.changes == (found.loss_difference.value < 0)


@pytest.mark.parametrize("videos", [100, 20_000])  # 20,000: the sums of whole bins are drawn
def test_a_calibrated_model_shows_an_error_too(videos: int) -> None:
    """As many draws of answers as their scores say, each measured like answers of a model."""
    rng = np.random.default_rng(1)
    scores = rng.beta(3, 1.5, videos)
    drawn = [reliability(scores, rng.random(videos) < scores).error for _ in range(300)]
    found = calibration_error(scores, np.ones(videos, np.bool_))
    assert found.expected == pytest.approx(np.mean(drawn), rel=0.05)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), rel=0.15)
    assert found.value == pytest.approx(1 - scores.mean())


def test_the_temperature_of_a_video_is_fitted_without_its_source() -> None:
    """Copies of one video tell nothing about each other, so no temperature is known better for them."""
    logits, targets = simulated(40, sure=3)
    alone = calibrate(logits, targets, np.arange(40))
    copies = calibrate(np.tile(logits, (10, 1)), np.tile(targets, 10), np.tile(np.arange(40), 10))
    assert (copies.videos, copies.sources, len(copies.curve)) == (400, 40, 40)
    assert copies.temperatures == pytest.approx(alone.temperatures)
    assert copies.interval == pytest.approx(alone.interval)
    assert copies.loss_after.value == pytest.approx(alone.loss_after.value)
    assert copies.curve.scores == pytest.approx(alone.curve.scores)
    as_if_different = calibrate(np.tile(logits, (10, 1)), np.tile(targets, 10), np.arange(400))
    fitted_to_all = losses(logits, targets, alone.temperatures[None]).mean()
    assert as_if_different.loss_after.value == pytest.approx(fitted_to_all, abs=5e-3)
    assert alone.loss_after.value > fitted_to_all + 0.01


def test_classes_with_few_videos_keep_their_scores() -> None:
    logits, targets = several(200, sure=np.array([3.0, 3.0, 3.0]))
    targets[40:, 1] = False
    targets[:, 2] = True
    found = calibrate(logits, targets, np.arange(200))
    assert found.fitted.tolist() == [True, False, False]
    assert found.temperatures[1:].tolist() == [1, 1]
    assert found.temperatures[0] == pytest.approx(3, rel=0.4)
    assert "1 of 3 classes have temperatures of their own" in sentences(figures(found, grouped_by=""))[0]


@pytest.mark.parametrize(
    ("videos", "targets", "said"),
    [
        (LEAST_SOURCES - 1, np.arange(LEAST_SOURCES - 1) % 2, f"{LEAST_SOURCES - 1} independent sources"),
        (30, np.zeros(30, np.int64), "of one class"),
        (60, np.arange(60)[:, None] >= 11, "the most is 49"),
    ],
)
def test_what_tells_too_little_is_refused(videos: int, targets: Targets, said: str) -> None:
    classes = 2 if targets.ndim == 1 else targets.shape[1]
    logits = np.random.default_rng(0).normal(size=(videos, classes)).astype(np.float32)
    with pytest.raises(InputError, match=said):
        calibrate(logits, targets, np.arange(videos))


def test_what_is_said() -> None:
    logits, targets = simulated(FEW_SOURCES - 1, sure=2)
    found = figures(calibrate(logits, targets, np.arange(len(logits))), grouped_by="file")
    lines = " ".join(sentences(found))
    assert f"{FEW_SOURCES - 1} independent sources are few" in lines
    assert f"{found['log_loss']['difference']['value']:+.4f}" in lines
    assert [each["precision"] for each in found["min_precision"]] == [0.8, 0.9, 0.95, 0.99]
    assert found["min_precision"][0]["threshold"] in THRESHOLDS
    assert found["min_precision"][-1]["threshold"] is None
