"""The report of a run on a labelled dataset: one HTML file with numbers, curves, classes, mistakes and protocol."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.datasets import Problem
from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.report import curves, protocol
from timesformer_cli.evaluation.report.pictures import read_pictures
from timesformer_cli.evaluation.run import Run
from timesformer_cli.results.html import as_json, fill, url_of, way_from
from timesformer_cli.specs import Recipe

_WORST = 24
_MOST_LISTED = 1000  # of what is wrong with videos, for each kind; the tables of the run have all
_MOST_ORDERED = 2000  # classes; the time for putting like beside like grows with their cube

Json = dict[str, Any]


def render(run: Run, summary: Json, problems: Iterable[Problem], folder: Path, commands: Sequence[str]) -> str:
    """The whole report; the worst mistakes are read again for their pictures.

    `summary` is the content of `metrics.json`. Links to videos lead from `folder`. `commands` are what makes such a run
    once more. What tells of time and machine is in
    the element "conditions" alone: all else is the same for the same run.
    """
    single = bool(run.paths) and not run.multi_label
    facts: Json = {
        "summary": {name: value for name, value in summary.items() if name not in ("run", "throughput", "settings")},
        "labels": run.labels,
        "data": run.data_set.get("root") or run.data_set.get("annotations"),
        "multi_label": run.multi_label,
        "raw": run.activation == "none",
        "classes": list(_classes(run)) if run.paths else [],
        "mistakes": _mistakes(run, summary.get("run", {}), folder),
        "left_out": list(_left_out(run, problems)),
        "protocols": list(_protocols(run)),
        "commands": list(commands),
    }
    recipe = run.provenance.recipe
    if isinstance(recipe, Recipe):
        facts["views"] = {"clips": recipe.sampling.clips, "crops": recipe.preprocess.crops}
    if single:
        targets, predicted = np.nonzero(run.confusion)
        cells = np.stack([targets, predicted, run.confusion[targets, predicted]], axis=1)
        facts |= {"cells": cells.tolist(), "alike": alike(run.confusion)}
    return fill(
        Path(__file__).with_name("report.html"),
        "Evaluation",
        # Both are of shares, which scores without an activation are not.
        reliability=curves.reliability(run.outcomes) if single and run.activation != "none" else "",
        coverage=curves.coverage(run.outcomes) if single and run.activation != "none" else "",
        facts=as_json(facts),
        conditions=as_json(protocol.conditions(summary)),
    )


def worst(run: Run) -> list[int]:
    """Rows of the videos that are wrong with the highest scores, the highest first."""
    if run.multi_label:
        best, scores = run.best
        pairs = zip(best.tolist(), run.targets, strict=True)
        wrong = np.array([answer not in target for answer, target in pairs], np.bool_)
    else:
        wrong, scores = run.outcomes.ranks > 0, run.outcomes.confidences
    rows = np.flatnonzero(wrong)
    order: list[int] = rows[np.argsort(-scores[rows], kind="stable")][:_WORST].tolist()
    return order


def alike(confusion: NDArray[np.int64]) -> list[int]:
    """The classes in an order that has those beside one another that are taken for each other.

    The two groups with the highest mean of shares between them become one, again and again, each turned so that the
    more similar ends meet.
    """
    classes = len(confusion)
    if classes > _MOST_ORDERED:
        return list(range(classes))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    near = shares + shares.T
    links = near.copy()
    np.fill_diagonal(links, -1)
    groups = [[number] for number in range(classes)]
    while classes and links.max() > 0:
        one, other = divmod(int(links.argmax()), classes)
        sizes = len(groups[one]), len(groups[other])
        links[one] = links[:, one] = np.average([links[one], links[other]], axis=0, weights=sizes)
        links[other] = links[:, other] = links[one, one] = -1
        turned = [
            (left, right) for left in (groups[one], groups[one][::-1]) for right in (groups[other], groups[other][::-1])
        ]
        left, right = max(turned, key=lambda pair: near[pair[0][-1], pair[1][0]])
        groups[one], groups[other] = left + right, []
    return [number for group in groups for number in group]


def _classes(run: Run) -> Iterator[Json]:
    if run.multi_label:
        for videos, precision in zip(run.supports.tolist(), run.precisions.tolist(), strict=True):
            yield {"videos": videos, "value": precision if videos else None}
        return
    for result in metrics.per_class(run.confusion):
        low, high = metrics.wilson(result.correct, result.videos) if result.videos else (None, None)
        yield {
            "videos": result.videos,
            "correct": result.correct,
            "value": result.accuracy,
            "low": low,
            "high": high,
            "precision": result.precision,
            "taken": result.confusions,
        }


def _mistakes(run: Run, conditions: Json, folder: Path) -> list[Json]:
    rows = worst(run)
    strips = read_pictures(run.provenance, [run.paths[row] for row in rows], conditions)
    way = way_from(folder)
    mistakes: list[Json] = []
    for row in rows:
        path = run.paths[row]
        answer = int(run.best[0][row] if run.multi_label else run.outcomes.predicted[row])
        mistake: Json = {"path": path, "url": url_of(path, way), "targets": run.targets[row], "answer": answer}
        if run.multi_label:
            mistake["score"] = float(run.best[1][row])
        else:
            found = run.outcomes
            mistake["score"] = float(found.confidences[row])
            mistake["own"] = {"score": float(found.own[row]), "rank": int(found.ranks[row]) + 1}
        if path in strips:
            mistake["picture"] = base64.b64encode(strips[path]).decode("ascii")
        mistakes.append(mistake)
    return mistakes


def _left_out(run: Run, problems: Iterable[Problem]) -> Iterator[Json]:
    """What is not among the evaluated videos, by kinds."""
    failed = [(record["error"]["kind"], record["path"], record["error"]["message"]) for record in run.failed]
    listed = [(problem.kind, problem.place, problem.message) for problem in problems]
    for file, rows in (("predictions.csv", failed), ("problems.csv", listed)):
        for kind, group in groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0]):
            videos = [row[1:] for row in group]
            yield {
                "kind": kind,
                "failed": rows is failed,
                "count": len(videos),
                "videos": videos[:_MOST_LISTED],
                "file": file,
            }


def _protocols(run: Run) -> Iterator[protocol.Rows]:
    """That of each model of a fused run, or the one."""
    for part in run.provenance.fused:
        yield [("Weight", f"{part.weight:g}"), *protocol.protocol(part.provenance)]
    if not run.provenance.fused:
        yield protocol.protocol(run.provenance)
