"""How unsure a model is of a video."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.evaluation.rows import chunks
from timesformer_cli.evaluation.score_files import read_scores
from timesformer_cli.jobs.pick.candidates import Candidate, Results
from timesformer_cli.pipeline.aggregate import activated
from timesformer_cli.text import named


def margin(one: Candidate, results: Results) -> float:
    """How far the model is from a different answer; 0 if two are equally good.

    Of a softmax, it is the first score minus the second. Of sigmoids, where each class is an answer of its own, it is
    the distance from the middle of the score that is nearest to it.

    Raises:
        UsageError: the record does not show enough labels for it, or its scores are no answers.
    """
    if results.provenance.recipe.activation == "none":
        raise UsageError(f"{results.path}: its model gives raw values, which have no margin; pick with `by=random`")
    found = known_margin(one, results)
    if found is None:
        raise UsageError(
            f"{results.path}: {named(one.path, *one.part)} has {len(one.best)} labels, too few for a margin; predict "
            "with at least `top_k=2`, and without `threshold`"
        )
    return found


def known_margin(one: Candidate, results: Results) -> float | None:
    """The same, or None."""
    recipe = results.provenance.recipe
    scores = [each.score for each in one.best]
    if recipe.activation == "sigmoid" and scores:
        middle = 0.0 if recipe.raw else 0.5
        return min(abs(score - middle) for score in scores)
    if recipe.activation == "softmax" and len(scores) > 1:
        return scores[0] - scores[1]
    return None


def entropies(path: Path, results: Results, found: Sequence[Candidate]) -> NDArray[np.float64]:
    """The entropy of the scores of all classes, in nats, float64 (N,); of sigmoids the sum over the classes.

    Raises:
        InputError: the file of logits cannot be read, or is not of these results.
        UsageError: its scores are no probabilities.
    """
    scores = read_scores(path)
    activation = scores.activation or results.provenance.recipe.activation
    if activation == "none":
        raise UsageError(f"{path}: has raw values, which have no entropy; pick with `by=random`")
    if scores.paths is None or scores.times is None or scores.combine != "logits":
        raise InputError(f"{path}: is not a file of `save_logits`, which says which video each row is of")
    if scores.labels != results.provenance.labels:
        raise InputError(f"{path}: has different classes than {results.path}; name the file of the same run")
    rows = {
        (name, *times): row
        for row, (name, times) in enumerate(zip(scores.paths, scores.times.round(3).tolist(), strict=True))
    }
    wanted = np.empty(len(found), np.int64)
    for place, one in enumerate(found):
        row = rows.get((one.path, round(one.start, 3), round(one.end, 3)))
        if row is None:
            raise InputError(f"{path}: has no scores of {named(one.path, *one.part)}; name the file of the same run")
        wanted[place] = row
    values = np.empty(len(found))
    for part in chunks(len(found)):
        chances = activated(scores.scores[wanted[part]].astype(np.float64), activation)
        values[part] = _terms(chances).sum(axis=1)
        if activation == "sigmoid":
            values[part] += _terms(1 - chances).sum(axis=1)
    return values


def _terms(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p log p, 0 for p = 0."""
    terms: NDArray[np.float64] = -chances * np.log(np.maximum(chances, np.finfo(np.float64).tiny))
    return terms
