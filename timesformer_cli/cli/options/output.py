"""Where results go, and in which format."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from timesformer_cli.cli.options import OUTPUT
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.jobs.output import Output
    from timesformer_cli.results.journal import Beside
    from timesformer_cli.results.writers import Format

F = TypeVar("F", bound=str)

FormatName = Literal[
    "auto",
    "table",
    "json",
    "jsonl",
    "csv",
    "parquet",
    "srt",
    "vtt",
    "html",
    "activitynet",
    "labelstudio",
    "fiftyone",
]

FORMAT_HELP = (
    "Format of the results: table, json (one array), jsonl (one object per line), csv, parquet, srt or vtt (subtitles "
    "of one video), html (a page to play the videos and correct the labels), activitynet, labelstudio or fiftyone "
    "(JSON for these tools), or auto: from the extension of --output, or without --output a table on a terminal and "
    "jsonl in a pipe."
)


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --output if it exists.", rich_help_panel=OUTPUT)]

ResumeRun = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the interrupted run in --output, with the same settings.",
        rich_help_panel=OUTPUT,
    ),
]


class ToFile:
    """What bundles with the option `output` have in common."""

    __slots__ = ()

    output: Path | None

    @property
    def path(self) -> Path | None:
        """None for standard output, which can also be given as `-`."""
        return None if self.output == Path("-") else self.output

    def format_of(self, asked: F | Literal["auto"], extensions: Mapping[str, F]) -> F | Literal["table", "jsonl"]:
        """The format that is asked for, or the one that suits the file; on a terminal, a table.

        Raises UsageError for an unknown extension.
        """
        if asked != "auto":
            return asked
        if self.path is None:
            return "table" if sys.stdout.isatty() else "jsonl"
        if self.path.suffix.lower() not in extensions:
            known = ", ".join(extensions)
            raise UsageError(f"{self.path}: no format has this extension; use one of {known}, or --format")
        return extensions[self.path.suffix.lower()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal(ToFile):
    """A file that results are written to as they come, and that a later run can resume."""

    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Write the results to this file.", rich_help_panel=OUTPUT),
    ] = None
    overwrite: Overwrite = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help=(
                "Continue the interrupted run in --output, with the same settings: only videos without a result are "
                "processed. Not for tables."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = False
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="With --resume: also retry videos that failed.",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    def target(self, format: FormatName = "auto", beside: "Beside | None" = None) -> "Output":
        """Raises UsageError for an unknown extension."""
        from timesformer_cli.jobs.output import Output
        from timesformer_cli.results.journal import Beside

        return Output(
            path=self.path,
            format=chosen_format(format, self.path),
            beside=beside or Beside(),
            overwrite=self.overwrite,
            resume=self.resume,
            retry_errors=self.retry_errors,
        )


def chosen_format(format: FormatName, path: Path | None) -> "Format":
    """`format`, or the one that suits the path. Raises UsageError for an unknown extension."""
    from timesformer_cli.results.writers import choose_format

    return choose_format(path, terminal=sys.stdout.isatty()) if format == "auto" else format
