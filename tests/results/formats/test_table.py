"""The table: whatever the terminal and the scores, no score is cut."""

import pytest

from timesformer_cli.results.formats.table import Table

LABELS = ["archery", "a label that is much longer than those of most datasets are"]


def rows(scores: list[float], *, raw: bool) -> str:
    predictions = [{"score": score, "label": label} for score, label in zip(scores, LABELS, strict=True)]
    table = Table(LABELS, raw=raw, plain=True)
    return table.rows({"path": "videos/a.mp4", "status": "ok", "predictions": predictions})


@pytest.mark.parametrize("columns", ["1", "20", "30", "41", "80", "200"])
@pytest.mark.parametrize(
    ("scores", "raw", "shown"),
    [([1.0, 0.5], False, ["100.0 %", "50.0 %"]), ([123456.789, -98765432.1], True, ["123456.79", "-98765432.10"])],
)
def test_scores_are_whole(
    monkeypatch: pytest.MonkeyPatch, columns: str, scores: list[float], raw: bool, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = rows(scores, raw=raw)
    assert all(score in text for score in shown)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
