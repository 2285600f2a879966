"""The standard streams, whatever the program that starts this one made of them."""

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timesformer_cli.errors import OutputError

# The standard streams that were closed when the program began, in words.
closed: list[str] = []


def prepare() -> None:
    """Make the standard streams usable; the first thing that the program does.

    Those that are closed, as service managers leave them, become the null device. Otherwise the next files to be
    opened get their numbers, and messages go among the results. What standard output cannot take is an OutputError,
    whoever prints it.
    """
    for name, mode, words in (
        ("stdin", "r", "standard input"),
        ("stdout", "w", "standard output"),
        ("stderr", "w", "standard error"),
    ):
        if getattr(sys, name) is None:
            # It gets the lowest number that is free, which is its own.
            number = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            os.set_inheritable(number, True)
            closed.append(words)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace"))
    old = sys.stdout
    # A program that calls this one may have set its own.
    if old is sys.__stdout__ and isinstance(old, io.TextIOWrapper):
        buffered = io.BufferedWriter(_Output(old.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(
            buffered, old.encoding, old.errors, line_buffering=old.line_buffering, write_through=old.write_through
        )


def write(lines: Iterable[bytes]) -> None:
    """Write lines to standard output, each as it comes. Raises OutputError if it cannot be written."""
    try:
        for line in lines:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error


def write_to(target: Path | None, lines: Iterable[bytes]) -> None:
    """Write lines to a file, which is complete or absent, or for None to standard output. Raises OutputError."""
    from timesformer_cli.files import replacing

    if target is None:
        write(lines)
        return
    with replacing(target) as part, part.open("wb") as file:
        file.writelines(lines)


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:  # the reader has enough, which is no error
            raise
        except OSError as error:
            raise OutputError(f"standard output: cannot be written ({error.strerror})") from error


def let_go() -> None:
    """Send what the streams cannot take to the null device: Python must not fail because of it when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, OutputError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
