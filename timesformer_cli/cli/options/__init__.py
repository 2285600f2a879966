"""Options that commands share, in bundles: a command that takes a bundle has its options."""

import math
from dataclasses import dataclass
from typing import Annotated

import typer

from timesformer_cli.cli import console

# Panels of the help.
MODEL = "Model"
OUTPUT = "Output"
VIEWS = "Views (default: as the model was trained)"
READING = "Reading"
RUN = "Run"


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not a number from 0 to 1, such as 0.77")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """How much is printed on standard error; the flags work before and after the command."""

    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print details on standard error, and tracebacks of errors.")
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing on standard error except the error that ends a run.")
    ] = False

    def choose(self) -> None:
        """Apply the flags. Raises UsageError."""
        console.choose_level(verbose=self.verbose, quiet=self.quiet)
