"""`timesformer search`: the videos or segments that are most like an example."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console, streams
from timesformer_cli.cli.options import MODEL, OUTPUT, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.model import Offline
from timesformer_cli.cli.options.output import Overwrite, ToFile
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running

if TYPE_CHECKING:
    from timesformer_cli.jobs.search.formats import Format

HELP = """Find the videos or segments most like an example, in a file of vectors.

FILE is a file that `timesformer embed` wrote. A query is a video, a part of one such as 'film.mp4#12-20' (seconds), \
or another file of vectors, each row of which is a query. The search is exact. Texts cannot be searched for, since \
TimeSformer has only videos as input.

Exit codes: 0 all queries answered; 1 the search failed, or a query could not be read; 2 wrong usage; 130 stopped by \
Ctrl-C; 143 stopped by SIGTERM. An output file is complete or absent.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is searched for, and where."""

    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", show_default=False, help="File of vectors: .parquet, .npy, .npz, .jsonl or .csv."
        ),
    ]
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY", show_default=False, help="Videos, parts of videos, or files of vectors."),
    ] = None
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="PATH",
            help=(
                "Search for the stored vector of this path of FILE, or of a part such as PATH#12-20; loads no model. "
                "Can be repeated."
            ),
        ),
    ] = None
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--not",
            metavar="PATH",
            help="Subtract the vector of this path of FILE, or of this video, from each query. Can be repeated.",
        ),
    ] = None
    mean: Annotated[
        bool, typer.Option("--mean", help="Make one query of all, the mean of their vectors scaled to length 1.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """The model of the file, if its name is not enough."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Where the model of FILE is now; a model with different weights is refused.",
            rich_help_panel=MODEL,
        ),
    ] = None
    offline: Offline = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(ToFile):
    """How many matches, and where they go."""

    count: Annotated[
        int, typer.Option("-k", metavar="K", min=1, help="Number of matches per query.", rich_help_panel=OUTPUT)
    ] = 10
    overlaps: Annotated[
        bool,
        typer.Option(
            "--overlaps",
            help="Also show segments that overlap the query itself, or a better match of the same video.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write the matches to this file: .jsonl, .csv, or .html, a page that plays each match.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    format: Annotated[
        Literal["auto", "table", "jsonl", "csv", "html"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "Format of the matches: table, jsonl (one object per query), csv, html, or auto: from the extension of "
                "--output, or without --output a table on a terminal and jsonl in a pipe."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"
    overwrite: Overwrite = False

    def chosen(self) -> "Format":
        """Raises UsageError for an unknown extension."""
        from timesformer_cli.jobs.search.formats import EXTENSIONS

        return self.format_of(self.format, EXTENSIONS)


@bundled
def search(
    asked: Asked,
    made: MadeBy,
    shown: Shown,
    reading: ReadingOptions,
    running: Running,
    talk: Talk,
) -> None:
    talk.choose()
    format = shown.chosen()

    from timesformer_cli.files import check_target, encoded
    from timesformer_cli.jobs.search import Job
    from timesformer_cli.jobs.search import search as find
    from timesformer_cli.jobs.search.formats import texts

    target = shown.path
    if target is not None:
        check_target(target, overwrite=shown.overwrite)
    job = Job(
        path=asked.file,
        names=asked.names or (),
        like=asked.like or (),
        without=asked.without or (),
        mean=asked.mean,
        count=shown.count,
        overlaps=shown.overlaps,
        model=made.model,
        offline=made.offline,
        frames=reading.frames,
        run=lambda: running.options(reading),
    )
    lines = map(encoded, texts(find(job, console), format, asked.file, Path() if target is None else target.parent))
    streams.write_to(target, lines)
