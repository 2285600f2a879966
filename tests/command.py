"""What a call of the command gave, for the fixture `run`."""

import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]


class Run(Protocol):
    def __call__(self, *args: str | Path) -> Outcome: ...


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line
