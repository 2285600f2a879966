"""What answers are worth: by right answers first, then by log loss."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import ErrorKind
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.finetune.answers import Answers, gathered, worth
from timesformer_cli.specs import Recipe

TARGETS = np.array([0, 1, 2, 1])


def answers(*logits: tuple[float, float, float], places: tuple[int, ...] = (0, 1, 2, 3)) -> Answers:
    return Answers(
        places=np.array(places, np.int64), logits=np.reshape(np.array(logits, np.float32), (-1, 3)), probabilities=None
    )


def test_accuracy_and_log_loss_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 3)).astype(np.float32)
    found = worth(Answers(places=np.arange(4), logits=logits, probabilities=None), TARGETS)
    assert found.accuracy == (logits.argmax(1) == TARGETS).mean()
    chances = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(1, keepdims=True)
    assert found.loss == pytest.approx(log_loss(TARGETS, chances))


def test_more_right_answers_come_before_a_lower_loss() -> None:
    timid = worth(answers((1, 0.9, 0), (0.9, 1, 0), (0, 0.9, 1), (1, 0.9, 0)), TARGETS)
    bold = worth(answers((9, 0, 0), (0, 9, 0), (9, 0, 0), (9, 0, 0)), TARGETS)
    assert (timid.accuracy, bold.accuracy) == (0.75, 0.5)
    assert timid.score > bold.score
    surer = worth(answers((9, 0, 0), (0, 9, 0), (0, 0, 9), (1, 0.9, 0)), TARGETS)
    assert (surer.accuracy, surer.score > timid.score) == (0.75, True)


def test_videos_that_could_not_be_read_count_as_wrong() -> None:
    rows = ((9.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 9.0))
    fewer = worth(answers(*rows, places=(0, 1, 2)), TARGETS)
    assert fewer.accuracy == 1
    assert fewer.score < worth(answers(*rows, (0, 9, 0)), TARGETS).score
    assert worth(answers(places=()), TARGETS).score == 0


def test_several_labels_are_ranked_by_average_precision() -> None:
    rng = np.random.default_rng(1)
    targets = rng.random((20, 3)) < 0.4
    logits = rng.standard_normal((20, 3)).astype(np.float32)
    found = worth(Answers(places=np.arange(20), logits=logits, probabilities=None), targets)
    expected = np.mean([average_precision_score(targets[:, number], logits[:, number]) for number in range(3)])
    assert found.score == found.accuracy == pytest.approx(expected)
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert found.loss == pytest.approx(np.mean([log_loss(targets[:, n], chances[:, n]) for n in range(3)]))


def test_answers_keep_their_places() -> None:
    kind: ErrorKind = "decode"
    recipe: Recipe = resolve("camera-motion").recipe
    row = np.arange(3, dtype=np.float32)
    found = gathered([(row, row), Failure(Item("a.mp4"), kind, "gone"), (2 * row, row)], 3, recipe)
    assert found.places.tolist() == [0, 2]
    assert found.logits.tolist() == [[0, 1, 2], [0, 2, 4]]
    assert [failure.item.path for failure in found.failures] == ["a.mp4"]
