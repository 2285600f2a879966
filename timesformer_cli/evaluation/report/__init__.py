"""The report of a run on a labelled dataset: one HTML file with numbers, curves, classes, mistakes and protocol."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from timesformer_cli.datasets import Problem
from timesformer_cli.evaluation.neighbours import MOST, Contradiction, contradictions
from timesformer_cli.evaluation.report import pieces, protocol
from timesformer_cli.evaluation.run import Run
from timesformer_cli.flow import key_of
from timesformer_cli.results.record import part_of
from timesformer_cli.specs import Recipe
from timesformer_cli.text import named

# The mistakes that are shown, at most.
WORST = 24

Json = dict[str, Any]


def render(
    run: Run,
    summary: Json,
    problems: Iterable[Problem],
    folder: Path,
    commands: Sequence[str],
    pages: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The whole report; the worst mistakes are read again for their pictures.

    `summary` is the content of `metrics.json`. Links to videos lead from `folder`. `commands` are what makes such a run
    once more. `pages` are addresses from `folder` of pages that explain an answer, by the keys of the videos. Only the
    element "conditions" tells of time and machine: all else is the same for the same run.
    """
    facts: Json = {
        "summary": {name: value for name, value in summary.items() if name not in ("run", "throughput", "settings")},
        "data": run.data_set.get("root") or run.data_set.get("annotations"),
        **pieces.of_run(run),
        "mistakes": list(_mistakes(run, summary.get("run", {}), folder, pages)),
        **_disagreeing(run, summary.get("run", {}), folder),
        "left_out": list(_left_out(run, problems)),
        "protocols": list(_protocols(run)),
        "commands": list(commands),
    }
    recipe = run.provenance.recipe
    if isinstance(recipe, Recipe):
        facts["views"] = {"clips": recipe.sampling.clips, "crops": recipe.preprocess.crops}
    template = Path(__file__).with_name("report.html")
    conditions = protocol.conditions(summary)
    return pieces.document(template, "Evaluation", run, facts, conditions, summary.get("calibration"))


def worst(run: Run, most: int = WORST) -> list[int]:
    """Rows of the videos that are wrong with the highest scores, the highest first, at most `most`."""
    if run.multi_label:
        best, scores = run.best
        pairs = zip(best.tolist(), run.targets, strict=True)
        wrong = np.array([answer not in target for answer, target in pairs], np.bool_)
    else:
        wrong, scores = run.outcomes.ranks > 0, run.outcomes.confidences
    rows = np.flatnonzero(wrong)
    order: list[int] = rows[np.argsort(-scores[rows], kind="stable")][:most].tolist()
    return order


def _mistakes(run: Run, conditions: Json, folder: Path, pages: Mapping[str, str]) -> Iterator[Json]:
    rows = worst(run)
    cards = pieces.cards(run, [(run.paths[row], run.part(row)) for row in rows], conditions, folder)
    for row, card in zip(rows, cards, strict=True):
        answer = int(run.best[0][row] if run.multi_label else run.outcomes.predicted[row])
        mistake: Json = card | {"targets": run.targets[row], "answer": answer}
        if (page := pages.get(key_of(run.paths[row], run.part(row)))) is not None:
            mistake["page"] = page
        if run.multi_label:
            mistake["score"] = float(run.best[1][row])
        else:
            found = run.outcomes
            mistake["score"] = float(found.confidences[row])
            mistake["own"] = {"score": float(found.own[row]), "rank": int(found.ranks[row]) + 1}
        yield mistake


def _disagreeing(run: Run, conditions: Json, folder: Path) -> Json:
    found: tuple[Contradiction, ...] = ()
    if run.embeddings is not None and not run.multi_label and len(run.paths) <= MOST:
        found = contradictions(run.embeddings[:], run.classes)
    cards = pieces.cards(run, [(run.paths[each.video], run.part(each.video)) for each in found], conditions, folder)
    return pieces.disagreeing(found, {each.nearest: run.named(each.nearest) for each in found}, cards)


def _left_out(run: Run, problems: Iterable[Problem]) -> Iterator[Json]:
    """What is not among the evaluated videos, by kinds."""
    failed = [
        (record["error"]["kind"], named(record["path"], *part_of(record)), record["error"]["message"])
        for record in run.failed
    ]
    yield from pieces.left_out(failed, "predictions.csv", failed=True)
    found = [(problem.kind, problem.place, problem.message) for problem in problems]
    yield from pieces.left_out(found, "problems.csv", failed=False)


def _protocols(run: Run) -> Iterator[protocol.Rows]:
    """That of each model of a fused run, or the one."""
    for part in run.provenance.fused:
        yield [("Weight", f"{part.weight:g}"), *protocol.protocol(part.provenance)]
    if not run.provenance.fused:
        yield protocol.protocol(run.provenance)
