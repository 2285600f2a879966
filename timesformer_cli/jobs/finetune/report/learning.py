"""The learning curve, with its table."""

import math
from collections.abc import Sequence
from itertools import pairwise

from timesformer_cli.evaluation.report.drawing import box, line, point, svg, table
from timesformer_cli.jobs.finetune.findings import CurvePoint

_ROOM = 0.09  # of the width: ticks that are nearer to each other would overlap


def learning(curve: Sequence[CurvePoint], what: str) -> tuple[str, str]:
    """How `what` grows with the number of videos, whose scale is logarithmic: the curve, and its table.

    Both are empty without points.
    """
    if not curve:
        return "", ""
    places = _places([each.videos for each in curve])
    around = [
        *((place, each.high) for place, each in zip(places, curve, strict=True)),
        *((place, each.low) for place, each in reversed(list(zip(places, curve, strict=True)))),
    ]
    marks = [
        line("band", around),
        line("share", [(place, each.value) for place, each in zip(places, curve, strict=True)]),
    ]
    rows = []
    edges = [0.0, *((one + other) / 2 for one, other in pairwise(places)), 1.0]
    for number, (place, each) in enumerate(zip(places, curve, strict=True)):
        interval = f"{each.low:.1%} to {each.high:.1%}"
        rows.append((f"{each.videos:,.4g}", f"{each.value:.1%}", interval))
        marks.append(
            f"<g><title>{each.videos:,.4g} videos per class: {each.value:.1%}, {interval}</title>"
            f"{box('hit', edges[number], 0, edges[number + 1], 1)}"
            f"{line('whisker', [(place, each.low), (place, each.high)])}{point(place, each.value)}</g>"
        )
    last = rows[-1]
    label = f"Learning curve; with {last[0]} videos per class, the {what} is {last[1]}"
    ticks = _apart([(place, row[0]) for place, row in zip(places, rows, strict=True)])
    drawn = svg(label, "videos for training per class", marks, ticks=ticks)
    return drawn, table(("Videos per class", what.capitalize(), "Worst to best draw"), rows)


def _places(videos: Sequence[float]) -> list[float]:
    least, most = math.log(videos[0]), math.log(videos[-1])
    if least == most:
        return [0.5] * len(videos)
    # Some room on both sides keeps whole points and ticks in view.
    return [0.04 + 0.92 * (math.log(each) - least) / (most - least) for each in videos]


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks that have room, from the last one back."""
    kept: list[tuple[float, str]] = []
    for tick in reversed(ticks):
        if not kept or kept[-1][0] - tick[0] >= _ROOM:
            kept.append(tick)
    return kept[::-1]
