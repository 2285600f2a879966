"""Curves as SVG with their tables: nothing but numbers goes into this markup, and `report.css` has its colours."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.metrics import Outcomes

# Pixels: the square for shares from 0 to 1, what is around it, and the bars below it that count videos.
_SIDE, _LEFT, _TOP, _RIGHT, _AXIS, _COUNTS = 320, 46, 8, 22, 44, 40
_MOST_POINTS = 400
_FEW = 20


def reliability(outcomes: Outcomes) -> str:
    """How many answers of each confidence are right: a bar for each bin, and how far it is from what was claimed."""
    found = metrics.reliability(outcomes.confidences, outcomes.ranks == 0)
    bins, most = len(found.videos), int(found.videos.max())
    marks, rows = [], []
    for index in np.flatnonzero(found.videos).tolist():
        videos, claimed, right = int(found.videos[index]), float(found.confidence[index]), float(found.accuracy[index])
        span = f"{index / bins:.0%} to {(index + 1) / bins:.0%}"
        rows.append((span, f"{videos:,}", f"{claimed:.1%}", f"{right:.1%}"))
        left, end = index / bins, (index + 1) / bins
        low, high = sorted((right, claimed))
        marks.append(
            f"<g><title>{span}: {videos:,} videos, {right:.1%} right</title>"
            f"{_box('hit', left, 0, end, 1)}{_box('column', left, 0, end, low)}{_box('gap', left, low, end, high)}"
            f"{_line('top', [(left, right), (end, right)])}{_count(left, end, videos / most)}</g>"
        )
    marks.append(_line("ideal", [(0, 0), (1, 1)]))
    below = _TOP + _SIDE + _AXIS + _COUNTS
    marks.append(f'<text x="{_LEFT - 6}" y="{below - _COUNTS / 2}" class="y">{most:,}</text>')
    label = f"Reliability diagram; the expected calibration error is {found.error:.1%}"
    svg = _svg(label, "score of the answer", marks, below + 4)
    return svg + _table(("Score", "Videos", "Mean score", "Right"), rows)


def coverage(outcomes: Outcomes) -> str:
    """How many answers are right if only the surest are given, and the least score of these."""
    shares, right, least = _covered(outcomes)
    last = len(shares) - 1
    # Where a handful of videos is all there is, the line would leap up and down.
    places = np.unique(np.linspace(min(_FEW, last // 10), last, _MOST_POINTS).astype(np.int64)).tolist()
    marks = [
        _line(kind, [(float(shares[place]), float(values[place])) for place in places])
        for kind, values in (("least", least), ("share", right))
    ]
    rows = []
    for tenth in range(1, 11):
        place = max(-(-tenth * len(shares) // 10) - 1, 0)
        cells = f"{tenth / 10:.0%}", f"{least[place]:.1%}", f"{right[place]:.1%}"
        rows.append(cells)
        marks.append(
            f"<g><title>{cells[0]} of the videos: {cells[2]} right, scores from {cells[1]}</title>"
            f"{_box('hit', (tenth - 1) / 10, 0, tenth / 10, 1)}"
            f'<circle cx="{_x(float(shares[place]))}" cy="{_y(float(right[place]))}" r="3"/></g>'
        )
    label = f"Accuracy against coverage; of the surest half of the videos, {rows[4][2]} are right"
    svg = _svg(label, "share of the videos, the surest first", marks, _TOP + _SIDE + _AXIS)
    return svg + _table(("Videos", "Score of at least", "Right"), rows)


def _covered(outcomes: Outcomes) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the videos, how many of these are right, and their least score: float64 (N,), the surest first."""
    order = np.argsort(-outcomes.confidences, kind="stable")
    number = np.arange(1, len(order) + 1)
    right = np.cumsum(outcomes.ranks[order] == 0) / number
    return number / len(order), right, outcomes.confidences[order]


def _svg(label: str, across: str, marks: Iterable[str], height: float) -> str:
    """A square with its axes from 0 to 100 %, and what is drawn in it."""
    axes = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        axes.append(_line("grid", [(share, 0), (share, 1)]) + _line("grid", [(0, share), (1, share)]))
        axes.append(f'<text x="{_x(share)}" y="{_y(0) + 16}" class="x">{share:.0%}</text>')
        axes.append(f'<text x="{_LEFT - 6}" y="{_y(share)}" class="y">{share:.0%}</text>')
    axes.append(f'<text x="{_x(0.5)}" y="{_y(0) + 34}" class="x">{across}</text>')
    size = f"0 0 {_LEFT + _SIDE + _RIGHT} {height:g}"
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">{"".join([*axes, *marks])}</svg>\n'


def _x(share: float) -> float:
    return round(_LEFT + share * _SIDE, 2)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * _SIDE, 2)


def _box(kind: str, left: float, low: float, right: float, high: float) -> str:
    size = f'width="{_x(right) - _x(left):.2f}" height="{_y(low) - _y(high):.2f}"'
    return f'<rect class="{kind}" x="{_x(left)}" y="{_y(high)}" {size}/>'


def _count(left: float, right: float, share: float) -> str:
    height = share * _COUNTS
    place = f'x="{_x(left)}" y="{_TOP + _SIDE + _AXIS + _COUNTS - height:.2f}"'
    return f'<rect class="count" {place} width="{_x(right) - _x(left):.2f}" height="{height:.2f}"/>'


def _line(kind: str, points: Iterable[tuple[float, float]]) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{_x(x)} {_y(y)}" for x, y in points)}"/>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """What is drawn, in numbers."""
    lines = [
        "".join(f"<{cell}>{text}</{cell}>" for text in row)
        for cell, group in (("th", [head]), ("td", rows))
        for row in group
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<details><summary>In numbers</summary><table>{body}</table></details>"
