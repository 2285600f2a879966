"""How far to trust a map: does the score fall faster if patches are taken away in its order?"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Pixels
from timesformer_cli.jobs.explain.alterations import filled
from timesformer_cli.jobs.explain.asking import Model
from timesformer_cli.jobs.explain.records import Check, Fill, Question

# Even shares of patches taken away, between none and all.
_POINTS = 6
_RANDOM_ORDERS = 5
_SEED = 0

Curve = tuple[float, ...]


def check_map(
    model: Model,
    question: Question,
    clip: Pixels,
    score: float,
    values: NDArray[np.float32],
    fills: Sequence[Fill],
    *,
    untrained: NDArray[np.float32] | None = None,
    more: bool = False,
) -> Check:
    """Take patches of a clip away in the order of a map (T, R, C), and in the reverse, by each fill.

    `score` is that of the clip as it is.
    `more` does the same for random orders and for nearness to the centre. `untrained` is the map of the network with
    random weights.
    """
    deletion: dict[Fill, Curve] = {}
    reverse: dict[Fill, Curve] = {}
    gaps: dict[Fill, float] = {}
    random: dict[Fill, tuple[float, ...]] = {}
    band: dict[Fill, tuple[Curve, Curve]] = {}
    centre: dict[Fill, float] = {}
    generator = np.random.default_rng(_SEED)
    orders = [generator.random(values.shape) for _ in range(_RANDOM_ORDERS if more else 0)]
    for fill in fills:
        whole = filled(clip, fill)
        end = float(question.scores(model.logits([whole]))[0])

        def curves(order: NDArray[np.float64], whole: Pixels = whole, end: float = end) -> list[Curve]:
            scores = question.scores(model.logits_without(clip, whole, _masks(order)))
            return [(score, *half.tolist(), end) for half in np.split(scores, 2)]

        deletion[fill], reverse[fill] = curves(values.astype(np.float64))
        gaps[fill] = gap(deletion[fill], reverse[fill])
        if more:
            pairs = [curves(order) for order in orders]
            random[fill] = tuple(gap(*pair) for pair in pairs)
            each = np.array(pairs).reshape(-1, len(deletion[fill]))  # the reverse of a random order is one too
            band[fill] = tuple(each.min(axis=0).tolist()), tuple(each.max(axis=0).tolist())
            centre[fill] = gap(*curves(_nearness(values.shape)))
    correlation = None if untrained is None else abs(rank_correlation(values, untrained))
    return Check(deletion, reverse, gaps, random, band, centre, correlation)


def gap(deletion: Curve, reverse: Curve) -> float:
    """The area between the curves of the least and of the most important first; they share both ends."""
    return float(sum(reverse) - sum(deletion)) / (len(deletion) - 1)


def _masks(order: NDArray[np.float64]) -> Iterator[NDArray[np.bool_]]:
    """The patches that are gone at each point, bool (T, R, C): the highest values first, then the lowest first."""
    ranks = ranked(order)
    for place in (ranks, ranks.size - 1 - ranks):
        for point in range(1, _POINTS + 1):
            yield place >= place.size - round(place.size * point / (_POINTS + 1))


def ranked(values: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The place of each value in ascending order, int64 of the same shape; of equal values, the earlier is higher."""
    order = np.argsort(-values.ravel(), kind="stable")[::-1]
    ranks = np.empty(values.size, np.int64)
    ranks[order] = np.arange(values.size)
    return ranks.reshape(values.shape)


def rank_correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Spearman's, of two maps of the same shape; 0 if all values of one are equal."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(ranked(one).ravel(), ranked(other).ravel())[0, 1])


def _nearness(shape: tuple[int, ...]) -> NDArray[np.float64]:
    _, rows, columns = shape
    down = (np.arange(rows) - (rows - 1) / 2)[:, None] / rows
    right = (np.arange(columns) - (columns - 1) / 2) / columns
    return np.broadcast_to(-np.hypot(down, right), shape)
