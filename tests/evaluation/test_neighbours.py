"""Videos whose nearest neighbours have another label, found as the definition says."""

import numpy as np
import pytest
from numpy.typing import NDArray

from timesformer_cli.evaluation import neighbours as module
from timesformer_cli.evaluation.neighbours import NEIGHBOURS, Contradiction, contradictions


def clusters(each: int = 8) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors around three axes, a class for each, with different lengths."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), each)
    vectors = np.eye(3)[classes] + rng.normal(0, 0.05, (3 * each, 3))
    return (vectors * rng.uniform(1, 9, (3 * each, 1))).astype(np.float32), classes


def test_wrong_labels_are_found_and_right_ones_are_not() -> None:
    vectors, classes = clusters()
    assert contradictions(vectors, classes) == ()
    classes[3], classes[20] = 1, 0
    found = contradictions(vectors, classes)
    assert sorted((each.video, each.label, each.theirs, each.votes) for each in found) == [(3, 1, 0, 5), (20, 0, 2, 5)]
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for each in found:
        cosines = units @ units[each.video]
        cosines[each.video] = -1
        assert each.nearest == cosines.argmax()


@pytest.mark.parametrize("block", [1, 5, 1000])
def test_equals_the_definition_in_any_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    rng = np.random.default_rng(1)
    vectors, classes = rng.normal(size=(90, 4)).astype(np.float32), rng.integers(0, 3, 90)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = set()
    for row in range(90):
        near = [other for other in np.argsort(-(units @ units[row])) if other != row][:NEIGHBOURS]
        votes = np.bincount(classes[near], minlength=3)
        if votes.argmax() != classes[row] and votes.max() >= 4:
            expected.add((row, int(votes.argmax()), int(votes.max())))
    found = contradictions(vectors, classes, most=90)
    assert len(expected) > 3
    assert {(each.video, each.theirs, each.votes) for each in found} == expected
    assert [each.votes for each in found] == sorted((each.votes for each in found), reverse=True)
    assert contradictions(vectors, classes, most=2) == found[:2]


def test_videos_of_one_source_are_not_asked() -> None:
    vectors, classes = clusters()
    # Six parts of one film that look like class 0, but are labelled 2.
    vectors, classes = np.concatenate([vectors, vectors[[0] * 6]]), np.concatenate([classes, [2] * 6])
    assert {each.label for each in contradictions(vectors, classes)} == {0}  # the film's model, among its copies
    groups = np.minimum(np.arange(30), 24)
    found = contradictions(vectors, classes, groups)
    assert {each.video for each in found if each.label == 2} == set(range(24, 30))
    assert {each.theirs for each in found if each.label == 2} == {0}


def test_a_rare_class_has_no_neighbours_of_its_own() -> None:
    vectors, classes = clusters()
    classes[3] = 7
    assert contradictions(vectors, classes) == ()


@pytest.mark.parametrize("wrong", [0.0, np.nan])
def test_vectors_without_a_direction_tell_nothing(wrong: float) -> None:
    vectors, classes = clusters()
    classes[3] = 1
    assert contradictions(vectors, classes) == (Contradiction(3, 1, 0, 5, contradictions(vectors, classes)[0].nearest),)
    vectors[0] = wrong
    assert contradictions(vectors, classes) == ()


def test_too_few_or_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, classes = clusters()
    classes[3] = 1
    assert contradictions(vectors[:5], classes[:5]) == ()
    monkeypatch.setattr(module, "MOST", 23)
    assert contradictions(vectors, classes) == ()
