"""Drawings as SVG with their tables: nothing but numbers goes into this markup, and `pieces.css` has its colours.

Places are shares from 0 to 1: x from left to right, y from the bottom up.
"""

from collections.abc import Iterable, Sequence

# Pixels: the square, and what is around it.
SIDE, LEFT, TOP, RIGHT, AXIS = 320, 46, 8, 22, 44

Ticks = Sequence[tuple[float, str]]
SHARES: Ticks = tuple((share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1))


def svg(
    label: str, across: str, marks: Iterable[str], *, below: float = 0, ticks: Ticks = SHARES, up: Ticks = SHARES
) -> str:
    """A square with its axes and what is drawn in it: upwards with the ticks `up`, and `across` with the `ticks`.

    `below` is the height of what is drawn below it, in pixels.
    """
    axes = []
    for share, text in ticks:
        axes.append(line("grid", [(share, 0), (share, 1)]))
        axes.append(f'<text x="{x(share)}" y="{y(0) + 16}" class="x">{text}</text>')
    for share, text in up:
        axes.append(line("grid", [(0, share), (1, share)]))
        axes.append(f'<text x="{LEFT - 6}" y="{y(share)}" class="y">{text}</text>')
    axes.append(f'<text x="{x(0.5)}" y="{y(0) + 34}" class="x">{across}</text>')
    size = f"0 0 {LEFT + SIDE + RIGHT} {TOP + SIDE + AXIS + below:g}"
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">{"".join([*axes, *marks])}</svg>\n'


def x(share: float) -> float:
    return round(LEFT + share * SIDE, 2)


def y(share: float) -> float:
    return round(TOP + (1 - share) * SIDE, 2)


def box(kind: str, left: float, low: float, right: float, high: float) -> str:
    size = f'width="{x(right) - x(left):.2f}" height="{y(low) - y(high):.2f}"'
    return f'<rect class="{kind}" x="{x(left)}" y="{y(high)}" {size}/>'


def line(kind: str, points: Iterable[tuple[float, float]]) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{x(across)} {y(up)}" for across, up in points)}"/>'


def point(across: float, up: float) -> str:
    return f'<circle cx="{x(across)}" cy="{y(up)}" r="3"/>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """What is drawn, in numbers."""
    lines = [
        "".join(f"<{cell}>{text}</{cell}>" for text in row)
        for cell, group in (("th", [head]), ("td", rows))
        for row in group
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<details><summary>In numbers</summary><table>{body}</table></details>"
