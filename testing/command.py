"""The command as the tests call it: in their own process with the fixture `run`, or in a separate one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from timesformer_cli.cli import main

COMMAND = [sys.executable, "-c", "from timesformer_cli.cli import main; main()"]


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


def exit_code(*args: str | Path) -> int:
    """Call the command in this process; its output goes where the caller captures it."""
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@contextmanager
def started(*command: str | Path, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a separate process, which has ended when the block ends; a failing test kills it.

    Otherwise it would run on, and the next test would get warnings of pipes left open.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
            if process.stdin and not process.stdin.closed:
                process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def scores(run: Run, *args: str | Path) -> list[float]:
    """The logits of all classes for a.mp4, in their order."""
    code, out, err = run("predict", "a.mp4", "--raw-logits", "-k", "1000", *args)
    assert (code, err) == (0, ""), err
    predictions = json.loads(out)["predictions"]
    return [p["score"] for p in sorted(predictions, key=lambda p: p["index"])]
