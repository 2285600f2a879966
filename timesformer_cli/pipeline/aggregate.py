"""Combine the logits of a video's views into scores, and merge adjacent segments."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Segment
from timesformer_cli.specs import Activation, Combine, Groups


def combine(
    logits: NDArray[np.float32], how: Combine, activation: Activation = "softmax", groups: Groups | None = None
) -> NDArray[np.float32]:
    """Scores float32 (K,) from views' logits (V, K), or of G `groups` (G,); sums are computed in float64.

    `logits` is the activation of the mean logits: the original adds up logits, which ranks the same.
    `probabilities` is the mean of the activations, as the paper describes; it can rank differently.
    `raw_logits` is the mean of the logits. Groups are made of the mean, so that they add up to what a user sees.
    """
    values = logits.astype(np.float64)
    scores: NDArray[np.float64] = (activated(values, activation) if how == "probabilities" else values).mean(axis=0)
    if groups is not None:
        scores = grouped(scores, groups, activation, how)
    if how == "logits":
        scores = activated(scores, activation)
    return scores.astype(np.float32)


def grouped(values: NDArray[np.float64], groups: Groups, activation: Activation, how: Combine) -> NDArray[np.float64]:
    """Values (..., K) of a model's labels as those of the groups (..., G): probabilities or, for other `how`, logits.

    Probabilities of a softmax add up; of sigmoids, which do not share one whole, a group has the largest. The logits of
    groups are those of which the activation makes these probabilities.
    """
    join = np.maximum if activation == "sigmoid" else np.add if how == "probabilities" else np.logaddexp
    result = np.full((len(groups.names), *values.shape[:-1]), 0.0 if how == "probabilities" else -np.inf)
    join.at(result, np.array(groups.members), np.moveaxis(values, -1, 0))
    return np.moveaxis(result, 0, -1)


def activated(values: NDArray[np.float64], activation: Activation) -> NDArray[np.float64]:
    """The activation of logits (..., K), of the same shape."""
    if activation == "none":
        return values
    result: NDArray[np.float64]
    if activation == "sigmoid":
        result = np.exp(-np.logaddexp(0, -values))
    else:
        result = np.exp(values - values.max(axis=-1, keepdims=True))
        result /= result.sum(axis=-1, keepdims=True)
    return result


def merge(segments: Iterable[Segment], min_score: float | None = None) -> tuple[Segment, ...]:
    """Merge adjacent segments with the same top class, with the means of their logits, scores and embeddings.

    That class stays the top one, since what is largest in each is largest in the mean. With `min_score`, the scores of
    that class are all below it, or none is.
    """

    def alike(segment: Segment) -> tuple[int, bool]:
        return int(segment.scores.argmax()), min_score is not None and bool(segment.scores.max() < min_score)

    groups = groupby(segments, key=alike)
    return tuple(_merged(list(group)) for _, group in groups)


def _merged(group: Sequence[Segment]) -> Segment:
    first = group[0]
    if len(group) == 1:
        return first
    views = tuple(view for segment in group for view in segment.views)
    logits, scores, embedding = (
        None
        if getattr(first, name) is None
        else combine(np.stack([getattr(segment, name) for segment in group]), "raw_logits")
        for name in ("logits", "scores", "embedding")
    )
    assert logits is not None
    assert scores is not None
    return Segment(first.start, group[-1].end, views, logits, scores, first.thumbnail, embedding)
