"""How sure a model is, and how right, as curves with their tables."""

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.evaluation.metrics import Outcomes
from timesformer_cli.evaluation.report.drawing import AXIS, LEFT, SIDE, TOP, box, line, point, svg, table, x

_COUNTS = 40  # pixels: the height of the bars below the square, which count videos
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
            f"{box('hit', left, 0, end, 1)}{box('column', left, 0, end, low)}{box('gap', left, low, end, high)}"
            f"{line('top', [(left, right), (end, right)])}{_count(left, end, videos / most)}</g>"
        )
    marks.append(line("ideal", [(0, 0), (1, 1)]))
    middle = TOP + SIDE + AXIS + _COUNTS / 2
    marks.append(f'<text x="{LEFT - 6}" y="{middle}" class="y">{most:,}</text>')
    label = f"Reliability diagram; the expected calibration error is {found.error:.1%}"
    drawn = svg(label, "score of the answer", marks, below=_COUNTS + 4)
    return drawn + table(("Score", "Videos", "Mean score", "Right"), rows)


def coverage(outcomes: Outcomes) -> str:
    """How many answers are right if only the surest are given, and the least score of these."""
    shares, right, least = _covered(outcomes)
    last = len(shares) - 1
    # Where a handful of videos is all there is, the line would leap up and down.
    places = np.unique(np.linspace(min(_FEW, last // 10), last, _MOST_POINTS).astype(np.int64)).tolist()
    marks = [
        line(kind, [(float(shares[place]), float(values[place])) for place in places])
        for kind, values in (("least", least), ("share", right))
    ]
    rows = []
    for tenth in range(1, 11):
        place = max(-(-tenth * len(shares) // 10) - 1, 0)
        cells = f"{tenth / 10:.0%}", f"{least[place]:.1%}", f"{right[place]:.1%}"
        rows.append(cells)
        marks.append(
            f"<g><title>{cells[0]} of the videos: {cells[2]} right, scores from {cells[1]}</title>"
            f"{box('hit', (tenth - 1) / 10, 0, tenth / 10, 1)}"
            f"{point(float(shares[place]), float(right[place]))}</g>"
        )
    label = f"Accuracy against coverage; of the surest half of the videos, {rows[4][2]} are right"
    drawn = svg(label, "share of the videos, the surest first", marks)
    return drawn + table(("Videos", "Score of at least", "Right"), rows)


def _covered(outcomes: Outcomes) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the videos, how many of these are right, and their least score: float64 (N,), the surest first."""
    order = np.argsort(-outcomes.confidences, kind="stable")
    number = np.arange(1, len(order) + 1)
    right = np.cumsum(outcomes.ranks[order] == 0) / number
    return number / len(order), right, outcomes.confidences[order]


def _count(left: float, right: float, share: float) -> str:
    height = share * _COUNTS
    place = f'x="{x(left)}" y="{TOP + SIDE + AXIS + _COUNTS - height:.2f}"'
    return f'<rect class="count" {place} width="{x(right) - x(left):.2f}" height="{height:.2f}"/>'
