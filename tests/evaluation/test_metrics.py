"""Metrics against torchmetrics, scikit-learn and SciPy, and where they differ by definition."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import binom, binomtest
from sklearn import metrics as sk
from sklearn.exceptions import UndefinedMetricWarning

from timesformer_cli.evaluation.metrics import (
    average_precision,
    binomial_tail,
    chance_warning,
    confusion,
    measure,
    measure_multi_label,
    most_confused,
    outcomes,
    per_class,
    reliability,
    restrict,
    wilson,
)
from timesformer_cli.evaluation.rows import chunks


def draw(
    videos: int, classes: int, *, seed: int = 0, ties: bool = False, labels: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores in which the label tends to lead; `labels` leaves out the higher classes."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(labels or classes, size=videos)
    scores = rng.normal(0, 2, (videos, classes)) + 2 * (np.arange(classes) == targets[:, None])
    return (np.round(scores) if ties else scores).astype(np.float32), targets


def draw_multi_label(videos: int, classes: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(videos)
    targets = rng.random((videos, classes)) < rng.uniform(0.05, 0.4, classes)
    scores = rng.normal(0, 1, targets.shape) + targets
    return (np.round(scores) if ties else scores).astype(np.float32), targets


CASES = {
    "plain": draw(500, 10),
    "ties": draw(500, 10, ties=True),
    "classes missing": draw(500, 10, labels=4),
    "classes missing, ties": draw(500, 10, labels=4, ties=True),
    "more classes than videos": draw(300, 400),
    "two classes": draw(200, 2),
    "one video": draw(1, 7),
    "all scores equal": (np.zeros((50, 3), np.float32), np.arange(50) % 3),
}


@pytest.mark.parametrize(("scores", "targets"), CASES.values(), ids=CASES)
class TestAgainstScikitLearn:
    def test_top_k(self, scores: np.ndarray, targets: np.ndarray) -> None:
        """It puts the higher class first where scores are equal, so the classes are turned round."""
        classes = scores.shape[1]
        for top in measure(scores, targets, ks={1, min(5, classes - 1), classes - 1}).top:
            hits = sk.top_k_accuracy_score(
                classes - 1 - targets,
                scores[:, ::-1] if classes > 2 else scores[:, 0] - scores[:, 1],
                k=top.k,
                labels=range(classes),
                normalize=False,
            )
            assert top.correct == hits
            assert top.accuracy is not None
            assert top.accuracy.value == hits / len(targets)

    @pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
    def test_mean_class_accuracy(self, scores: np.ndarray, targets: np.ndarray) -> None:
        found = measure(scores, targets)
        assert found.mean_class_accuracy is not None
        expected = sk.balanced_accuracy_score(targets, scores.argmax(axis=1))
        assert found.mean_class_accuracy.value == pytest.approx(expected, abs=1e-12)
        assert found.classes_with_videos == len(set(targets))

    def test_negative_log_likelihood(self, scores: np.ndarray, targets: np.ndarray) -> None:
        probabilities = softmax(scores.astype(np.float64), axis=1)
        expected = sk.log_loss(targets, probabilities, labels=range(scores.shape[1]))
        assert measure(scores, targets).negative_log_likelihood == pytest.approx(expected, rel=1e-12)

    def test_confusion(self, scores: np.ndarray, targets: np.ndarray) -> None:
        predicted = outcomes(scores, targets).predicted
        classes = scores.shape[1]
        matrix = confusion(predicted, targets, classes)
        np.testing.assert_array_equal(matrix, sk.confusion_matrix(targets, predicted, labels=range(classes)))
        precision, recall, _, support = sk.precision_recall_fscore_support(
            targets, predicted, labels=range(classes), zero_division=np.nan
        )
        table = per_class(matrix)
        assert [row.videos for row in table] == support.tolist()
        for rows, expected in (([r.accuracy for r in table], recall), ([r.precision for r in table], precision)):
            np.testing.assert_allclose(np.array(rows, dtype=np.float64), expected, rtol=1e-12)


def torchmetric(name: str, *arguments: Any, **options: Any) -> Any:
    import torchmetrics.classification

    metric = getattr(torchmetrics.classification, name)(**options)
    return metric(*map(torch.from_numpy, arguments)).numpy()


@pytest.mark.parametrize(("videos", "classes"), [(500, 10), (300, 400), (1, 7), (200, 2)])
def test_equals_torchmetrics(videos: int, classes: int) -> None:
    scores, targets = draw(videos, classes)
    found = measure(scores, targets, ks=(1, 2))
    for top in found.top:
        expected = torchmetric("MulticlassAccuracy", scores, targets, num_classes=classes, top_k=top.k, average="micro")
        assert top.correct / videos == pytest.approx(float(expected), rel=1e-6)
    expected = torchmetric("MulticlassCalibrationError", scores, targets, num_classes=classes, n_bins=15, norm="l1")
    assert found.expected_calibration_error == pytest.approx(float(expected), abs=1e-6)


def test_torchmetrics_counts_classes_without_videos_as_wrong() -> None:
    scores, targets = draw(500, 10, labels=4)
    found = measure(scores, targets)
    assert found.mean_class_accuracy is not None
    theirs = float(torchmetric("MulticlassAccuracy", scores, targets, num_classes=10, average="macro"))
    predicted = len(set(scores.argmax(axis=1)) | set(targets))
    assert predicted > 4
    assert theirs == pytest.approx(found.mean_class_accuracy.value * 4 / predicted, rel=1e-6)


def test_torchmetrics_gives_full_confidence_a_bin_of_its_own() -> None:
    scores = np.array([[200.0, 0], [200, 0], [3, 0], [3, 0]], np.float32)
    targets = np.array([0, 1, 0, 0])
    found = measure(scores, targets)
    sure = float(softmax([3.0, 0.0])[0])  # in the last bin, with the two of confidence 1
    assert found.expected_calibration_error == pytest.approx((2 + 2 * sure) / 4 - 3 / 4)
    theirs = torchmetric("MulticlassCalibrationError", scores, targets, num_classes=2, n_bins=15)
    assert float(theirs) == pytest.approx(0.5 * 0.5 + 0.5 * (1 - sure))


def test_scikit_learn_cuts_the_loss_of_sure_mistakes_off() -> None:
    scores, targets = np.array([[3000.0, 0.0]], np.float32), np.array([1])
    assert measure(scores, targets).negative_log_likelihood == pytest.approx(3000)
    assert sk.log_loss(targets, softmax(scores.astype(np.float64), axis=1), labels=[0, 1]) < 40


def test_more_labels_asked_for_than_classes() -> None:
    scores, targets = draw(50, 3)
    one, many = measure(scores, targets, ks=(5, 1)).top
    assert (one.k, many.k) == (1, 5)
    assert many.correct == 50
    with pytest.warns(UndefinedMetricWarning, match="greater than or equal"):
        assert sk.top_k_accuracy_score(targets, scores, k=5) == 1
    with pytest.raises(ValueError, match="top_k"):
        torchmetric("MulticlassAccuracy", scores, targets, num_classes=3, top_k=5)


def test_a_single_class() -> None:
    found = measure(np.ones((4, 1), np.float32), np.zeros(4, np.int64), ks=(1,))
    assert found.top[0].correct == 4
    assert str(found.negative_log_likelihood) == "0.0"  # not -0.0
    assert found.expected_calibration_error == 0
    assert chance_warning(found) is None


def test_no_video() -> None:
    found = measure(np.empty((0, 5), np.float32), np.empty(0, np.int64), failed=3)
    assert (found.videos, found.failed, found.classes_with_videos) == (0, 3, 0)
    assert found.top[0].accuracy is None
    assert found.top[0].failures_as_wrong == 0
    assert found.mean_class_accuracy is found.negative_log_likelihood is found.expected_calibration_error is None
    assert measure(np.empty((0, 5), np.float32), np.empty(0, np.int64)).top[0].failures_as_wrong is None
    precisions = average_precision(np.empty((0, 5), np.float32), np.empty((0, 5), np.bool_))
    none = measure_multi_label(precisions, videos=0)
    assert none.mean_average_precision is None
    assert per_class(np.zeros((2, 2), np.int64))[0].accuracy is None
    assert most_confused(np.zeros((2, 2), np.int64)) == []


def test_failures_count_as_wrong_beside_the_accuracy() -> None:
    scores, targets = draw(80, 5)
    with_failures, without = measure(scores, targets, failed=20).top[0], measure(scores, targets).top[0]
    assert with_failures.accuracy == without.accuracy
    assert with_failures.failures_as_wrong == with_failures.correct / 100


def test_metrics_go_to_json() -> None:
    found = json.loads(json.dumps(measure(*draw(80, 5), failed=2).to_json(), allow_nan=False))
    assert found["top_1"]["accuracy"]["low"] < found["top_1"]["accuracy"]["value"] < found["top_1"]["accuracy"]["high"]
    assert set(found["top_5"]) == {"correct", "accuracy", "failures_as_wrong", "failures_as_wrong_interval"}
    assert set(found["definitions"]) >= {name for name, value in found.items() if isinstance(value, float)}


def test_rows_in_pieces_are_the_same() -> None:
    scores, targets = draw(20_000, 10, ties=True)
    assert len(list(chunks(len(scores)))) > 2
    found = outcomes(scores, targets)
    for start in range(0, len(scores), 1000):
        rows = slice(start, start + 1000)
        few = outcomes(scores[rows], targets[rows])
        for name in ("predicted", "ranks", "confidences", "losses"):
            np.testing.assert_array_equal(getattr(found, name)[rows], getattr(few, name))


def test_sigmoids_are_the_probabilities_of_each_class_by_itself() -> None:
    scores = np.random.default_rng(3).normal(0, 4, (50, 4)).astype(np.float32)
    targets = np.arange(50) % 4
    chances = expit(scores.astype(np.float64))
    found = outcomes(scores, targets, "logits", "sigmoid")
    np.testing.assert_allclose(found.confidences, chances.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.own, chances[np.arange(50), targets], rtol=1e-12)
    np.testing.assert_allclose(found.losses, -np.log(found.own), rtol=1e-9)
    for given, combine in ((scores, "logits"), (chances, "probabilities")):
        measured = measure(given, targets, combine=combine, activation="sigmoid")
        assert measured.negative_log_likelihood == pytest.approx(float(found.losses.mean()), rel=1e-9)
        fewer, renumbered, _ = restrict(given, targets, np.array([True, True, False, False]))
        less = outcomes(fewer, renumbered, combine, "sigmoid")  # no other class changes them
        np.testing.assert_allclose(less.own, found.own[targets < 2], rtol=1e-9)


def test_without_an_activation_there_are_no_probabilities() -> None:
    scores = np.array([[30.0, -7.5], [2.0, 2.5]])
    found = outcomes(scores, np.array([1, 1]), "logits", "none")
    assert (found.confidences.tolist(), found.own.tolist()) == ([30.0, 2.5], [-7.5, 2.5])
    measured = measure(scores, np.array([1, 1]), activation="none")
    assert measured.top[0].correct == 1
    assert (measured.negative_log_likelihood, measured.expected_calibration_error) == (None, None)
    with pytest.raises(ValueError, match="not finite"):
        outcomes(np.array([[np.nan]]), np.array([0]), "logits", "none")


def test_probabilities_are_taken_as_they_are() -> None:
    scores, targets = draw(200, 10)
    logits = measure(scores, targets)
    probabilities = measure(softmax(scores.astype(np.float64), axis=1), targets, combine="probabilities")
    assert probabilities.top == logits.top
    assert probabilities.negative_log_likelihood == pytest.approx(logits.negative_log_likelihood, rel=1e-12)
    assert probabilities.expected_calibration_error == pytest.approx(logits.expected_calibration_error, rel=1e-12)


def test_a_probability_of_zero_has_a_loss() -> None:
    found = outcomes(np.array([[1.0, 0.0]], np.float32), np.array([1]), "probabilities")
    assert found.losses[0] == pytest.approx(-np.log(2**-149), rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3, np.int64), "2 rows of scores, and targets of shape"),
        (np.zeros((2, 3)), np.array([0, 3]), "labels from 0 to 3, and scores for classes 0 to 2"),
        (np.zeros((2, 3)), np.array([-1, 0]), "labels from -1 to 0"),
        (np.array([[0.0, np.nan]]), np.array([0]), "not finite"),
        (np.array([[0.0, np.inf]]), np.array([0]), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(scores: np.ndarray, targets: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(scores, targets)


def test_several_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="targets of shape"):
        average_precision(np.zeros((2, 3)), np.zeros((3, 3), np.bool_))
    with pytest.raises(ValueError, match="not finite"):
        average_precision(np.full((2, 3), np.nan), np.zeros((2, 3), np.bool_))


# Intervals


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 9, 50, 360, 1000, 19_881])
def test_wilsons_interval_is_scipys(trials: int) -> None:
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        expected = binomtest(successes, trials).proportion_ci(method="wilson")
        low, high = wilson(successes, trials)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= low < high <= 1
    assert wilson(0, trials)[0] == 0
    assert wilson(trials, trials)[1] == 1


def test_shares_of_videos_have_wilsons_interval() -> None:
    scores, targets = draw(400, 10)
    for top in measure(scores, targets, failed=25, ks=(1, 3, 10)).top:
        low, high = binomtest(top.correct, 400).proportion_ci(method="wilson")
        assert top.accuracy is not None
        assert top.accuracy.method == "wilson"
        assert (top.accuracy.low, top.accuracy.high) == pytest.approx((low, high), abs=1e-12)
        low, high = binomtest(top.correct, 425).proportion_ci(method="wilson")
        assert top.failures_as_wrong_interval == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("targets", "predicted", "point"),
    [
        ([0] * 4 + [1] * 5, [0] * 4 + [1] * 5, True),  # all are right
        ([0] * 4 + [1] * 5, [1] * 4 + [0] * 5, True),  # all are wrong
        ([1], [1], True),
        ([0, 0, 0], [0, 0, 0], True),
        ([0, 0, 0], [0, 0, 1], False),
        ([0] * 4 + [1] * 5, [0] * 4 + [1] * 4 + [0], False),
    ],
)
def test_a_bootstrap_that_is_a_point_is_explained(targets: list[int], predicted: list[int], point: bool) -> None:
    scores = np.eye(2, dtype=np.float32)[predicted]
    found = measure(scores, np.array(targets)).to_json()
    mean, share = found["mean_class_accuracy"], found["top_1"]["accuracy"]
    assert (mean["low"] == mean["high"]) is point
    assert mean["method"] == "bootstrap"
    assert share["low"] < share["high"]
    note = found["interval_note"]
    if point:
        assert note.startswith("The 95 % interval of the mean class accuracy has no width because every resample")
        assert note.endswith("This does not make the value certain.")
    else:
        assert note is None


def test_interval_of_mean_class_accuracy_is_that_of_a_bootstrap() -> None:
    """Classes of one video to many, so that some are missing from most resamples."""
    rng = np.random.default_rng(3)
    targets = np.repeat(np.arange(8), [1, 1, 2, 3, 5, 10, 30, 60])
    right = rng.random(len(targets)) < np.linspace(0.9, 0.3, 8)[targets]
    scores = np.zeros((len(targets), 9), np.float32)
    scores[np.arange(len(targets)), np.where(right, targets, 8)] = 1
    draws = rng.integers(len(targets), size=(5_000, len(targets)))
    means = [np.mean([right[row][targets[row] == c].mean() for c in np.unique(targets[row])]) for row in draws]
    found = measure(scores, targets, resamples=20_000).mean_class_accuracy
    assert found is not None
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.025, 0.975]), atol=0.01)


def test_intervals_follow_the_seed() -> None:
    scores, targets = draw(300, 10)
    assert measure(scores, targets, seed=1) == measure(scores, targets, seed=1)
    assert measure(scores, targets, seed=1) != measure(scores, targets, seed=2)


# Several labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("videos", "classes"), [(300, 12), (1, 40), (40, 1)])
def test_average_precision_is_scikit_learns(videos: int, classes: int, ties: bool) -> None:
    scores, targets = draw_multi_label(videos, classes, ties=ties)
    there = targets.any(axis=0)
    assert there.any()
    expected = [sk.average_precision_score(targets[:, c], scores[:, c]) for c in np.flatnonzero(there)]
    found = average_precision(scores, targets)
    np.testing.assert_allclose(found[there], expected, rtol=1e-12)
    assert np.isnan(found[~there]).all()
    whole = measure_multi_label(found, videos=videos, failed=1)
    assert whole.mean_average_precision == pytest.approx(np.mean(expected), rel=1e-12)
    assert (whole.videos, whole.failed, whole.classes_with_videos) == (videos, 1, there.sum())


def test_the_libraries_count_classes_without_videos_as_zero() -> None:
    scores, targets = draw_multi_label(300, 12)
    targets[:, :3] = False
    found = measure_multi_label(average_precision(scores, targets), videos=300).mean_average_precision
    assert found is not None
    with pytest.warns(UserWarning, match="No positive class"):
        theirs = sk.average_precision_score(targets, scores, average="macro")
    assert theirs == pytest.approx(found * 9 / 12)
    with pytest.warns(UserWarning, match="No positive samples"):
        theirs = torchmetric("MultilabelAveragePrecision", expit(scores), targets.astype(np.int64), num_labels=12)
    assert float(theirs) == pytest.approx(found * 9 / 12, rel=1e-5)


# What is wrong, and where


def test_most_confused() -> None:
    matrix = np.array([[50, 4, 0], [2, 0, 4], [0, 9, 3]])
    found = most_confused(matrix, 3)
    assert [(pair.target, pair.predicted, pair.videos) for pair in found] == [(2, 1, 9), (1, 2, 4), (0, 1, 4)]
    assert found[1].share == pytest.approx(4 / 6)
    assert len(most_confused(matrix)) == 4


def test_table_of_classes() -> None:
    matrix = np.zeros((5, 5), np.int64)
    matrix[0] = [9, 2, 3, 1, 3]
    matrix[1, 0] = 1
    first, second, third = per_class(matrix)[:3]
    assert (first.videos, first.correct, first.predicted, first.accuracy) == (18, 9, 10, 0.5)
    assert first.confusions == ((2, 3), (4, 3), (1, 2))
    assert (second.accuracy, second.precision, second.confusions) == (0, 0, ((0, 1),))
    assert (third.videos, third.accuracy, third.precision, third.confusions) == (0, None, 0, ())


def test_reliability() -> None:
    found = reliability(np.array([0.05, 0.5, 0.51, 0.95, 1.0]), np.array([False, True, False, True, True]), bins=10)
    assert found.videos.tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 0, 2]
    np.testing.assert_allclose(found.accuracy[[0, 4, 5, 9]], [0, 1, 0, 1])
    assert np.isnan(found.confidence[1])
    assert found.error == pytest.approx((0.05 + 0.5 + 0.51 + 0.05) / 5)


# A subset of the classes


def test_restricting_to_classes() -> None:
    scores, targets = draw(300, 6)
    kept = np.array([True, False, True, True, False, False])
    fewer, renumbered, rows = restrict(scores, targets, kept)
    np.testing.assert_array_equal(rows, np.isin(targets, [0, 2, 3]))
    np.testing.assert_array_equal(np.array([0, 2, 3])[renumbered], targets[rows])
    np.testing.assert_array_equal(fewer, scores[rows][:, [0, 2, 3]])
    expected = sk.log_loss(renumbered, softmax(fewer.astype(np.float64), axis=1), labels=range(3))
    assert measure(fewer, renumbered).negative_log_likelihood == pytest.approx(expected)
    probabilities = softmax(scores.astype(np.float64), axis=1)
    fewer, renumbered, _ = restrict(probabilities, targets, kept)
    again = measure(fewer, renumbered, combine="probabilities")
    assert again.negative_log_likelihood == pytest.approx(expected)


# Chance


def test_labels_in_another_order_are_noticed() -> None:
    scores, targets = draw(2000, 50)
    assert chance_warning(measure(scores, targets)) is None
    shuffled = np.random.default_rng(0).permutation(50)[targets]
    warning = chance_warning(measure(scores, shuffled))
    assert warning is not None
    assert "cannot be told from guessing (2.00 %); the likely cause is that the annotations number" in warning
    assert chance_warning(measure(scores[:19], shuffled[:19])) is None
    assert "top-5" in (chance_warning(measure(scores, shuffled, ks=(5,))) or "")
    assert chance_warning(measure(scores[:, :5], targets % 5, ks=(5,))) is None


@pytest.mark.parametrize(("trials", "chance"), [(1, 0.5), (20, 0.0025), (501, 0.5), (20_000, 0.0025)])
def test_binomial_tail_is_scipys(trials: int, chance: float) -> None:
    for successes in {0, 1, trials // 3, trials // 2, int(trials * chance) + 3, trials}:
        if successes <= trials:
            expected = binom.sf(successes - 1, trials, chance)
            assert binomial_tail(successes, trials, chance) == pytest.approx(expected, rel=1e-9, abs=1e-300)
