"""What the reports of `evaluate` and `finetune` share: facts of a run, sections that show them, and videos."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.calibration_file import sentences
from timesformer_cli.evaluation.neighbours import AGREEING, NEIGHBOURS, Contradiction
from timesformer_cli.evaluation.report import curves
from timesformer_cli.evaluation.report.pictures import read_pictures
from timesformer_cli.evaluation.run import Run
from timesformer_cli.flow import WHOLE, Part, key_of
from timesformer_cli.results.html import as_json, fill, fragment, url_of, way_from
from timesformer_cli.text import stretch

_HERE = Path(__file__).parent
_MOST_LISTED = 1000  # of what is wrong with videos, for each kind; the tables of the run have all
_MOST_ORDERED = 2000  # classes; the time for putting like beside like grows with their cube

Json = dict[str, Any]


def document(
    template: Path, title: str, run: Run, facts: Json, conditions: object, calibration: Json | None = None, **parts: str
) -> str:
    """The page with the body `template`, whose placeholders `calibration`, `curves`, `confusion`, `classes` and
    `neighbours` are sections.

    `facts` are those of the page, besides `of_run`. `conditions` are what tells of time and machine. `calibration` is
    what `metrics.json` has of it, if the model was calibrated. `parts` are markup.
    """
    # Both curves are of shares, which scores without an activation are not.
    drawn = bool(run.paths) and not run.multi_label and run.activation != "none"
    return fill(
        template,
        title,
        shared=(_HERE / "pieces",),
        calibration=_calibration(calibration),
        curves=Template(_section("curves")).substitute(
            reliability=curves.reliability(run.outcomes) if drawn else "",
            coverage=curves.coverage(run.outcomes) if drawn else "",
        ),
        confusion=_section("confusion"),
        classes=_section("classes"),
        neighbours=_section("neighbours"),
        facts=as_json(facts),
        conditions=as_json(conditions),
        **parts,
    )


def _calibration(figures: Json | None) -> str:
    """The section on the calibration; empty without one."""
    if figures is None:
        return ""
    lines = "".join(f"<li>{line}</li>\n" for line in sentences(figures))
    return f'<section id="calibration">\n<h2>Calibration</h2>\n<ul>\n{lines}</ul>\n</section>'


def _section(name: str) -> str:
    return (_HERE / f"{name}.html").read_text(encoding="utf-8").rstrip("\n")


def of_run(run: Run) -> Json:
    """What the shared sections show of a run."""
    facts: Json = {
        "labels": run.labels,
        "multi_label": run.multi_label,
        "raw": run.activation == "none",
        "classes": list(_classes(run)) if run.paths else [],
    }
    if run.paths and not run.multi_label:
        targets, predicted = np.nonzero(run.confusion)
        cells = np.stack([targets, predicted, run.confusion[targets, predicted]], axis=1)
        facts |= {"cells": cells.tolist(), "alike": alike(run.confusion)}
    return facts


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


def cards(run: Run, videos: Sequence[tuple[str, Part]], conditions: Mapping[str, Any], folder: Path) -> list[Json]:
    """Where videos are, from a page in `folder`, and their pictures; `conditions` are as for `read_pictures`."""
    strips = read_pictures(run.provenance, videos, conditions)
    way = way_from(folder)
    found: list[Json] = []
    for path, part in videos:
        card: Json = {"path": path, "url": url_of(path, way)}
        if part != WHOLE:
            card |= {"part": stretch(*part), "url": card["url"] and card["url"] + fragment(*part)}
        if (strip := strips.get(key_of(path, part))) is not None:
            card["picture"] = base64.b64encode(strip).decode("ascii")
        found.append(card)
    return found


def disagreeing(found: Sequence[Contradiction], names: Mapping[int, str], videos: Sequence[Json]) -> Json:
    """Facts of the section `neighbours`: the `cards` of the videos, and the `names` of the nearest neighbours."""
    shown = [
        card | {"label": each.label, "theirs": each.theirs, "votes": each.votes, "nearest": names[each.nearest]}
        for each, card in zip(found, videos, strict=True)
    ]
    return {"disagreeing": shown, "neighbours": NEIGHBOURS, "agreeing": AGREEING}


def left_out(rows: Iterable[tuple[str, str, str]], file: str, *, failed: bool) -> Iterator[Json]:
    """By kind, what is wrong: `rows` are kind, place and message. The first are listed; `file` has them all.

    `failed` is true for videos that could not be read.
    """
    for kind, group in groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0]):
        videos = [row[1:] for row in group]
        yield {
            "kind": kind,
            "failed": failed,
            "count": len(videos),
            "videos": videos[:_MOST_LISTED],
            "file": file,
        }
