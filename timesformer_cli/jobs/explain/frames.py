"""How much the frames of a clip matter: the score without each group of them, or Shapley values."""

from collections.abc import Iterator
from itertools import product
from math import comb

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Pixels
from timesformer_cli.jobs.explain.alterations import groups, only
from timesformer_cli.jobs.explain.asking import Model
from timesformer_cli.jobs.explain.records import Importance, Question

# Frames up to which Shapley values are exact; and, for more, the orders that they are sampled from: each costs as many
# clips as there are groups, less one, and 8 orders of 8 groups cost 58 with both ends.
_MOST_EXACT = 8
_ORDERS = 8
_SEED = 0


def leave_out(model: Model, question: Question, clip: Pixels, score: float) -> Importance:
    """How far the score falls without each group of frames, which then show their nearest neighbour."""
    group = groups(len(clip))
    count = int(group[-1]) + 1
    if count == 1:  # nothing would be left
        return Importance(np.zeros(len(clip)), group, "leave_out")
    clips = (only(clip, (group != number).tolist()) for number in range(count))
    falls = score - question.scores(model.logits(clips))
    return Importance(falls[group], group, "leave_out")


def shapley(model: Model, question: Question, clip: Pixels) -> Importance:
    """Shapley values: exact for up to 8 frames, else of 8 groups from at most 64 clips.

    They add up to the score less that of the mean frame.
    """
    group = groups(len(clip))
    count = int(group[-1]) + 1
    values = _exact if len(clip) <= _MOST_EXACT else _sampled

    def worth(sets: Iterator[NDArray[np.bool_]]) -> NDArray[np.float64]:
        return question.scores(model.logits(only(clip, kept[group].tolist()) for kept in sets))

    return Importance(values(worth, count)[group] / np.bincount(group)[group], group, "shapley")


def _exact(worth, count: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    sets = np.array(list(product([False, True], repeat=count)))
    scores = worth(iter(sets))
    sizes = sets.sum(axis=1)
    values = np.zeros(count)
    for place in range(count):
        with_it = sets[:, place]
        # The same sets with and without it lie in the same order.
        weights = np.array([1 / (count * comb(count - 1, int(size))) for size in sizes[~with_it]])
        values[place] = (weights * (scores[with_it] - scores[~with_it])).sum()
    return values


def _sampled(worth, count: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(_SEED)
    half = [generator.permutation(count) for _ in range(_ORDERS // 2)]
    orders = [*half, *(order[::-1] for order in half)]  # each with its reverse, whose errors cancel
    inner = [np.isin(np.arange(count), order[:size]) for order in orders for size in range(1, count)]
    ends = [np.zeros(count, np.bool_), np.ones(count, np.bool_)]
    scores = worth(iter([*ends, *inner]))
    values = np.zeros(count)
    for order, between in zip(orders, scores[2:].reshape(len(orders), count - 1), strict=True):
        values[order] += np.diff(np.concatenate([scores[:1], between, scores[1:2]]))
    return values / len(orders)
