"""The table for people: one row per video, printed as soon as the video is done."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from timesformer_cli.results.record import OPEN
from timesformer_cli.text import clock, printable

_SCORE_WIDTH = 7  # "100.0 %"
_GAP = 2
_LEAST = 40


class Table:
    """Text of the rows: `plain` for a file, else coloured as far as the terminal on standard output allows.

    The first row is printed before the last is known, so the widths depend only on the terminal and the labels; a
    longer path is wrapped beside the further labels of its video.
    """

    def __init__(self, labels: Sequence[str], *, raw: bool, plain: bool) -> None:
        self._console = Console(file=io.StringIO() if plain else None, highlight=False)
        self._console.width = max(self._console.width, _LEAST)  # narrower terminals wrap it; no score is cut
        self._raw = raw
        longest = max((cell_len(printable(label)) for label in labels), default=0)
        self._label_width = min(max(longest, 24), self._console.width // 2)
        rest = self._console.width - self._label_width - _SCORE_WIDTH - 2 * _GAP
        self._path_width = max(min(rest, 60), 10)

    def header(self) -> str:
        return self._row("Video", self._ranks([("Score", "Label")], ["dim"]), "dim")

    def rows(self, record: Mapping[str, Any]) -> str:
        """The rows of one record of `record.to_record`."""
        path = printable(record["path"])
        if record["status"] == "error":
            return self._row(path, Text(printable(record["error"]["message"]), "red"))
        if "segments" not in record:
            return self._row(path, self._predictions(record))
        rows = (
            self._row(f"  {clock(part['start'])} to {clock(part['end'])}", self._predictions(part))
            for part in record["segments"]
        )
        return self._row(path, Text()) + "".join(rows)

    def _predictions(self, part: Mapping[str, Any]) -> Grid | Text:
        predictions = part["predictions"]
        if not predictions:
            return Text("no label above the threshold", "dim")
        if part.get("abstained"):
            return Text(OPEN, "dim")
        pairs = [(self._score(p["score"]), printable(p["label"])) for p in predictions]
        return self._ranks(pairs, ["bold", *["dim"] * (len(pairs) - 1)])

    def _score(self, score: float) -> str:
        return f"{score:.2f}" if self._raw else f"{100 * score:.1f} %"

    def _ranks(self, pairs: Sequence[tuple[str, str]], styles: Sequence[str]) -> Grid:
        grid = Grid.grid(padding=(0, _GAP, 0, 0))
        width = max(_SCORE_WIDTH, *(len(score) for score, _ in pairs))  # of logits
        grid.add_column(width=width, justify="right", no_wrap=True)
        grid.add_column(width=max(self._label_width + _SCORE_WIDTH - width, 1), overflow="fold")
        for (score, label), style in zip(pairs, styles, strict=True):
            grid.add_row(Text(score, style), Text(label, style))
        return grid

    def _row(self, path: str, right: Grid | Text, style: str = "") -> str:
        grid = Grid.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(width=self._path_width, overflow="fold")
        grid.add_column(width=_SCORE_WIDTH + _GAP + self._label_width, overflow="fold")
        grid.add_row(Text(path, style), right)
        with self._console.capture() as capture:
            self._console.print(grid)
        # The padding of cells would be in the way when the text is copied.
        return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())
