"""The curves of the training in the report of a run."""

import math
import re
from dataclasses import replace

import pytest

from testing.logs import log_of
from timesformer_cli.evaluation.report.drawing import LEFT, SIDE, TOP
from timesformer_cli.jobs.finetune.report.training_curves import training_curves

PROBE = {"accuracy": 0.5, "loss": 0.9}
BOTTOM, RIGHT = TOP + SIDE, LEFT + SIDE


def rows(table: str) -> list[list[str]]:
    return [re.findall("<t[hd]>(.*?)</t[hd]>", line) for line in re.findall("<tr>(.*?)</tr>", table)]


def paths(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    """The points of the lines of a kind, but for those below the axis."""
    found = [
        [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)]
        for path in re.findall(f'<path class="{kind}" d="(.*?)"', svg)
    ]
    return [path for path in found if path[0][1] <= BOTTOM]


def ticks(svg: str, axis: str) -> list[str]:
    return re.findall(f'class="{axis}">(.*?)<', svg)


def test_table() -> None:
    head, *found = rows(training_curves(log_of(6, every=2), PROBE, 4).table)
    assert head == ["Step", "Epoch", "Rate", "Training loss", "Validation loss", "Accuracy"]
    assert found == [
        ["probe", "", "", "", "0.9", "50.0%"],
        ["2", "1", "6e-05", "0.7", "0.6", "30.0%"],
        ["<b>4</b>", "<b>2</b>", "<b>6e-05</b>", "<b>0.4</b>", "<b>0.5</b>", "<b>60.0%</b>"],
        ["6", "3", "6e-05", "0.1", "0.4", "90.0%"],
    ]


def test_the_step_that_was_kept_is_marked() -> None:
    drawn = training_curves(log_of(8, every=2), PROBE, 4)
    middle = LEFT + SIDE / 2
    assert paths(drawn.loss, "best") == paths(drawn.quality, "best") == [[(middle, BOTTOM), (middle, TOP)]]
    assert drawn.lead == (
        "The network was best after step 4, in epoch 2: accuracy 60.0%, loss 0.5. The probe had accuracy 50.0%, loss "
        "0.9."
    )


def test_the_probe_may_be_what_was_kept() -> None:
    drawn = training_curves(log_of(8, every=2), PROBE, 0)
    assert not paths(drawn.loss, "best")
    assert "<b>" not in drawn.table
    assert drawn.lead == (
        "No validation was better than the probe, so the model is the probe: accuracy 50.0%, loss 0.9."
    )


def test_the_curves_are_on_the_scale_of_their_axes() -> None:
    drawn = training_curves(log_of(3, every=1), PROBE, 1)
    assert ticks(drawn.loss, "y") == ["0", "0.2", "0.4", "0.6", "0.8", "1", "6e-5"]
    (training,) = paths(drawn.loss, "steps")
    assert [x for x, _ in training] == pytest.approx([LEFT + SIDE * share / 6 for share in (1, 3, 5)], abs=0.01)
    assert [y for _, y in training] == pytest.approx([BOTTOM - SIDE * loss for loss in (0.7, 0.4, 0.1)], abs=0.01)
    (validated,) = paths(drawn.loss, "share")
    assert [x for x, _ in validated] == pytest.approx([LEFT + SIDE * share / 3 for share in (1, 2, 3)], abs=0.01)
    assert [y for _, y in validated] == pytest.approx([BOTTOM - SIDE * loss for loss in (0.6, 0.5, 0.4)], abs=0.01)
    (validated,) = paths(drawn.quality, "share")
    assert [y for _, y in validated] == pytest.approx([BOTTOM - SIDE * share for share in (0.3, 0.6, 0.9)], abs=0.01)
    for svg, value in ((drawn.loss, 0.9), (drawn.quality, 0.5)):
        (probe,) = paths(svg, "probe")
        assert probe == [(LEFT, pytest.approx(BOTTOM - SIDE * value)), (RIGHT, pytest.approx(BOTTOM - SIDE * value))]


def test_the_learning_rate_is_below() -> None:
    log = log_of(4, every=2)
    log.rate[:] = [0, 1e-3, 5e-4, 0]
    svg = training_curves(log, PROBE, 2).loss
    (rate,) = [
        path for path in re.findall(r'<path class="steps" d="M(.*?)"', svg) if float(path.split()[1][:5]) > BOTTOM
    ]
    heights = [float(point.split()[1]) for point in rate.split("L")]
    low, top = max(heights), min(heights)
    assert heights == pytest.approx([low, low, top, top, (low + top) / 2, (low + top) / 2, low, low], abs=0.01)
    assert ticks(svg, "y")[-1] == "1e-3"


def test_a_step_that_was_not_applied_is_a_gap_with_a_mark() -> None:
    drawn = training_curves(log_of(6, every=2, losses={3: math.nan}), PROBE, 4)
    before, after = paths(drawn.loss, "steps")
    assert len(before) == 2
    assert len(after) == 3
    assert drawn.loss.count('class="missed"') == 1
    assert "Red marks: 1 step not applied" in drawn.note
    assert "step 3: training loss -, learning rate 6e-05; 1 not applied" in drawn.loss
    assert "nan" not in f"{drawn.loss}{drawn.table}{drawn.note}"
    assert rows(drawn.table)[3][3] == "<b>0.4</b>"


def test_a_step_without_neighbours_is_as_long_as_it_took() -> None:
    (training,) = paths(training_curves(log_of(4, every=2, losses={1: math.nan, 3: math.nan}), PROBE, 2).loss, "steps")[
        :1
    ]
    assert [x for x, _ in training] == pytest.approx([LEFT + SIDE / 4, LEFT + SIDE / 2])


def test_nothing_but_steps_that_were_not_applied() -> None:
    log = replace(log_of(2, every=1, losses={1: math.nan, 2: math.nan}), validations=())
    drawn = training_curves(log, {"accuracy": None, "loss": math.inf}, 0)
    assert paths(drawn.loss, "steps") == []
    assert "2 steps not applied" in drawn.note
    assert "nan" not in f"{drawn}"
    assert "inf" not in f"{drawn}"


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        (1, ["0", "1"]),
        (3, ["0", "1", "2", "3"]),
        (200, ["0", "50", "100", "150", "200"]),
        (100_000, ["0", "20k", "40k", "60k", "80k", "100k"]),
        (1_000_000, ["0", "200k", "400k", "600k", "800k", "1M"]),
    ],
)
def test_steps_are_on_the_axis(steps: int, shown: list[str]) -> None:
    drawn = training_curves(log_of(steps, every=steps), PROBE, 0)
    for svg in (drawn.loss, drawn.quality):
        assert ticks(svg, "x") == [*shown, "step"]


def test_many_steps_are_drawn_as_means_in_a_band() -> None:
    drawn = training_curves(log_of(60_000, every=6000, losses={100: 0.2, 200: 1.2}), PROBE, 6000)
    (means,) = paths(drawn.loss, "steps")
    (band,) = paths(drawn.loss, "band")
    assert (len(means), len(band)) == (120, 240)
    assert means[0][1] == pytest.approx(BOTTOM - SIDE * 0.7 / 1, abs=0.01)
    assert (band[0][1], band[-1][1]) == pytest.approx((TOP, BOTTOM - SIDE * 0.2), abs=0.01)
    assert "steps 1 to 500: training loss 0.7 (0.2 to 1.2)" in drawn.loss
    assert "the mean of 500 steps" in drawn.note
    assert len(drawn.loss) < 50_000


def test_a_peak_does_not_flatten_the_rest() -> None:
    drawn = training_curves(log_of(120, every=60, losses={50: 1e6}), PROBE, 60)
    assert ticks(drawn.loss, "y")[-2] == "1"
    (training,) = paths(drawn.loss, "steps")
    assert min(y for _, y in training) == TOP
    assert "Losses above 1 are cut off; the highest was 1e+06." in drawn.note


def test_of_many_validations_some_are_shown_and_the_best() -> None:
    log = log_of(400, every=2)
    drawn = training_curves(log, PROBE, 6)
    assert drawn.quality.count("<circle") == len(rows(drawn.table)) - 2 == 51
    assert [row[0] for row in rows(drawn.table)][:4] == ["Step", "probe", "<b>6</b>", "8"]
    assert len(paths(drawn.quality, "share")[0]) == 200
    assert "51 of 200 validations have a point and a row." in drawn.note


def test_of_several_labels() -> None:
    log = log_of(4, every=2, quality="mean_average_precision")
    drawn = training_curves(log, {"mean_average_precision": 0.5, "loss": 0.9}, 4)
    assert drawn.what == rows(drawn.table)[0][-1] == "Mean average precision"
    assert "mean average precision 60.0%, loss 0.5" in drawn.lead
    assert len(paths(drawn.quality, "share")[0]) == 2
