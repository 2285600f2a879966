"""How the training of the network went: its losses, its rate and its validations over the steps, with their table."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.evaluation.report.drawing import AXIS, LEFT, SIDE, Ticks, box, line, point, svg, table, y
from timesformer_cli.jobs.finetune.log import Log
from timesformer_cli.jobs.finetune.loop import Validation
from timesformer_cli.text import plural

# With more steps, each point of the curve is the mean of several.
_MOST_STEPS = 200
_BINS = 120

# With more validations, only some have a point, and a row in the table.
_MOST_VALIDATIONS = 60

# Pixels: the height of the rate, below the loss.
_STRIP = 40

# Means of the loss that are so many times as high as 98 % of them are cut off; else all others would be a flat line.
_PEAK = 3

# The lowest upper end of the scale of the loss.
_LEAST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Markup: the `lead` sentence, the curves of `loss` and of `quality`, their `table`, and a `note` on them.

    `what` is the quality that was measured.
    """

    lead: str = ""
    what: str = ""
    loss: str = ""
    quality: str = ""
    table: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bin:
    """Some steps, from the `first` to the `last`; their finite losses and their highest rate. NaN: none is finite."""

    first: int
    last: int
    mean: float
    low: float
    high: float
    rate: float


def training_curves(log: Log, probe: Mapping[str, float | None], best_step: int) -> Drawn:
    """The training of `log`, beside what the `probe` was worth on the same videos: figures as those of validations.

    `best_step` is that of the model that was kept, 0 if this is the probe.
    """
    probe = {name: value if value is None or math.isfinite(value) else None for name, value in probe.items()}
    name = next((name for name in probe if name != "loss"), "accuracy")
    bins = list(_bins(log))
    top = _top(bins, [probe.get("loss"), *(each.figures.get("loss") for each in log.validations)])
    shown = _shown(log.validations, best_step)
    return Drawn(
        what=_words(name).capitalize(),
        lead=_lead(log.validations, probe, name, best_step),
        loss=_loss(log, bins, shown, probe.get("loss"), best_step, top),
        quality=_quality(log, shown, probe.get(name), name, best_step),
        table=_table(log, shown, probe, name, best_step),
        note=_note(log, bins, len(shown), top),
    )


def _bins(log: Log) -> Iterator[_Bin]:
    steps = len(log.step)
    count = steps if steps <= _MOST_STEPS else _BINS
    edges = np.linspace(0, steps, count + 1).round().astype(np.int64).tolist()
    for start, end in pairwise(edges):
        losses = _finite(log.loss[start:end])
        mean, low, high = (float(of(losses)) for of in (np.mean, np.min, np.max)) if len(losses) else [math.nan] * 3
        rate = float(log.rate[start:end].max())
        yield _Bin(first=start + 1, last=end, mean=mean, low=low, high=high, rate=rate)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _top(bins: Sequence[_Bin], others: Iterable[float | None]) -> float:
    """The loss at the upper end of the scale."""
    means = _finite(np.array([each.mean for each in bins]))
    highest = _LEAST
    if len(means):
        most = float(np.quantile(means, 0.98))
        highest = max(highest, most if means.max() > _PEAK * most > 0 else float(means.max()))
    highest = max([highest, *(value for value in others if value is not None)])
    step = _nice(highest)
    return math.ceil(highest / step * (1 - 1e-9)) * step


def _nice(length: float) -> float:
    """A round number that fits four or more times into `length`, and at most ten times."""
    power: float = 10.0 ** math.floor(math.log10(length / 4))
    return next(size * power for size in (5, 2, 1) if size * power <= length / 4 * (1 + 1e-9))


def _shown(validations: Sequence[Validation], best_step: int) -> list[Validation]:
    """All validations, or the best one and some others."""
    stride = -(-len(validations) // _MOST_VALIDATIONS)
    last = len(validations) - 1
    return [each for place, each in enumerate(validations) if (last - place) % stride == 0 or each.step == best_step]


# ---- Sentences


def _lead(validations: Sequence[Validation], probe: Mapping[str, float | None], name: str, best_step: int) -> str:
    def figures(of: Mapping[str, float | None]) -> str:
        return f"{_words(name)} {_share(of.get(name))}, loss {_number(of.get('loss'))}"

    best = next((each for each in validations if each.step == best_step), None)
    if best is None:
        return f"No validation was better than the probe, so the model is the probe: {figures(probe)}."
    where = f"step {best.step:,}, in epoch {best.epoch:,}"
    return f"The network was best after {where}: {figures(best.figures)}. The probe had {figures(probe)}."


def _note(log: Log, bins: Sequence[_Bin], shown: int, top: float) -> str:
    notes = []
    if len(bins) < len(log.step):
        each = f"{len(log.step) / len(bins):,.0f}"
        notes.append(f"A point of the training loss is the mean of {each} steps, and the band is from low to high.")
    if (highest := float(np.max(_finite(log.loss), initial=0.0))) > top:
        notes.append(f"Losses above {top:g} are cut off; the highest was {highest:,.4g}.")
    if missed := int((log.applied == 0).sum()):
        notes.append(f"Red marks: {plural(missed, 'step')} not applied, since the loss or its gradient was not finite.")
    if shown < len(log.validations):
        notes.append(f"{shown} of {len(log.validations):,} validations have a point and a row.")
    notes.append("log.csv has all numbers.")
    return " ".join(notes)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


# ---- Curves


def _loss(
    log: Log, bins: Sequence[_Bin], shown: Sequence[Validation], probe: float | None, best_step: int, top: float
) -> str:
    steps = len(log.step)

    def up(loss: float) -> float:
        return min(loss / top, 1.0)

    marks = []
    for each in bins:
        left, right = (each.first - 1) / steps, each.last / steps
        missed = int((log.applied[each.first - 1 : each.last] == 0).sum())
        marks.append(f"<g><title>{_said(each, missed)}</title>{box('hit', left, 0, right, 1)}</g>")
        if missed:
            marks.append(box("missed", left, 0, max(right, left + 2 / SIDE), 0.03))
    for run in _runs(bins):
        places = [((each.first - 1 + each.last) / 2 / steps, each) for each in run]
        if len(run) == 1:  # a line of one point would be invisible
            places = [(edge / steps, run[0]) for edge in (run[0].first - 1, run[0].last)]
        if len(bins) < steps:
            above = [(place, up(each.high)) for place, each in places]
            marks.append(line("band", [*above, *((place, up(each.low)) for place, each in reversed(places))]))
        marks.append(line("steps", [(place, up(each.mean)) for place, each in places]))
    marks += _rates(bins, steps)
    marks += _validated(log, "loss", shown, probe, best_step, up)
    label = f"Loss of training and of validation over {plural(steps, 'step')}"
    each_tick = _nice(top)
    scale = [(place * each_tick / top, f"{place * each_tick:g}") for place in range(round(top / each_tick) + 1)]
    return svg(label, "step", marks, below=_STRIP + 4, ticks=_ticks(steps), up=scale)


def _quality(log: Log, shown: Sequence[Validation], probe: float | None, name: str, best_step: int) -> str:
    marks = _validated(log, name, shown, probe, best_step, lambda share: share)
    label = f"{_words(name).capitalize()} of the validations over {plural(len(log.step), 'step')}"
    return svg(label, "step", marks, ticks=_ticks(len(log.step)))


def _validated(
    log: Log,
    name: str,
    shown: Sequence[Validation],
    probe: float | None,
    best_step: int,
    up: Callable[[float], float],
) -> Iterator[str]:
    """What the validations say, over what the probe was worth."""
    steps = len(log.step)
    if best_step:
        yield line("best", [(best_step / steps, 0), (best_step / steps, 1)])
    if probe is not None:
        yield line("probe", [(0, up(probe)), (1, up(probe))])
    known = [
        (each.step / steps, up(value)) for each in log.validations if (value := each.figures.get(name)) is not None
    ]
    if known:
        yield line("share", known)
    shape = _number if name == "loss" else _share
    for each in shown:
        if (value := each.figures.get(name)) is not None:
            said = f"step {each.step:,}, epoch {each.epoch:,}: {_words(name)} {shape(value)} in the validation"
            yield f"<g><title>{said}</title>{point(each.step / steps, up(value))}</g>"


def _runs(bins: Sequence[_Bin]) -> Iterator[list[_Bin]]:
    """Neighbours whose losses are known."""
    for known, group in groupby(bins, key=lambda each: not math.isnan(each.mean)):
        if known:
            yield list(group)


def _rates(bins: Sequence[_Bin], steps: int) -> Iterator[str]:
    """The rate, in a strip below the axis."""
    peak = max(each.rate for each in bins)
    low, height = -(AXIS + _STRIP) / SIDE, _STRIP / SIDE
    edges = [(edge / steps, each.rate) for each in bins for edge in (each.first - 1, each.last)]
    yield line("grid", [(0, low), (1, low)])
    yield line("steps", [(place, low + height * (rate / peak if peak else 0)) for place, rate in edges])
    shown = f"{peak:.1e}".replace(".0e", "e").replace("e-0", "e-")
    yield f'<text x="{LEFT - 3}" y="{y(low + height)}" class="y">{shown}</text>'


def _said(each: _Bin, missed: int) -> str:
    where = f"step {each.last:,}" if each.first == each.last else f"steps {each.first:,} to {each.last:,}"
    spread = "" if each.low == each.high or math.isnan(each.mean) else f" ({each.low:.4g} to {each.high:.4g})"
    skipped = f"; {missed:,} not applied" if missed else ""
    return f"{where}: training loss {_number(each.mean)}{spread}, learning rate {each.rate:.3g}{skipped}"


def _ticks(steps: int) -> Ticks:
    each = max(_nice(steps), 1)
    return [(place / steps, _short(place)) for place in range(0, steps + 1, int(each))]


def _short(steps: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if steps >= size:
            return f"{steps / size:g}{letter}"
    return str(steps)


def _table(log: Log, shown: Sequence[Validation], probe: Mapping[str, float | None], name: str, best_step: int) -> str:
    rows: list[tuple[str, ...]] = [("probe", "", "", "", _number(probe.get("loss")), _share(probe.get(name)))]
    before = 0
    for each in shown:
        losses = _finite(log.loss[before : each.step])
        before = each.step
        row = (
            f"{each.step:,}",
            f"{each.epoch:,}",
            f"{log.rate[each.step - 1]:.3g}",
            _number(float(losses.mean()) if len(losses) else None),
            _number(each.figures.get("loss")),
            _share(each.figures.get(name)),
        )
        rows.append(tuple(f"<b>{cell}</b>" for cell in row) if each.step == best_step else row)
    head = ("Step", "Epoch", "Rate", "Training loss", "Validation loss", _words(name).capitalize())
    return table(head, rows)
