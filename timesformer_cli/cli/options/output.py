"""Where results go, and in which format."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli.options import OUTPUT

if TYPE_CHECKING:
    from timesformer_cli.jobs.output import Output
    from timesformer_cli.results.writers import Format

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
    "table, json (one array), jsonl (one object a line), csv, parquet; srt or vtt (subtitles of one video); html (a "
    "page with pictures); activitynet, labelstudio or fiftyone (JSON that these tools read); or auto: by the extension "
    "of --output, else a table on a terminal and jsonl in a pipe."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A file that results are written to as they come, and that a later run may go on with."""

    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Write the results to this file.", rich_help_panel=OUTPUT),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --output if it exists.", rich_help_panel=OUTPUT)
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help=(
                "Go on with --output where an earlier run with the same settings stopped; videos that it holds are "
                "left out. Not for tables."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = False
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="With --resume: try the videos again that had failed.",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    @property
    def path(self) -> Path | None:
        """None for standard output, which many tools write as `-`."""
        return None if self.output == Path("-") else self.output

    def target(self, format: FormatName = "auto", logits: Path | None = None) -> "Output":
        """Raises UsageError for an extension that says nothing."""
        from timesformer_cli.jobs.output import Output

        return Output(
            path=self.path,
            format=chosen_format(format, self.path),
            logits=logits,
            overwrite=self.overwrite,
            resume=self.resume,
            retry_errors=self.retry_errors,
        )


def chosen_format(format: FormatName, path: Path | None) -> "Format":
    """`format`, or the one that suits the path. Raises UsageError for an extension that says nothing."""
    from timesformer_cli.results.writers import choose_format

    return choose_format(path, terminal=sys.stdout.isatty()) if format == "auto" else format
