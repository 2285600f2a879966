"""`timesformer dedup`: copies among videos, and parts of longer ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console, streams
from timesformer_cli.cli.options import OUTPUT, Talk, positive
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Inputs, Limit
from timesformer_cli.cli.options.output import ToFile
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Workers
from timesformer_cli.errors import SOME_FAILED
from timesformer_cli.text import plural

if TYPE_CHECKING:
    from timesformer_cli.jobs.dedup import Found
    from timesformer_cli.jobs.dedup.groups import Settings
    from timesformer_cli.jobs.dedup.rows import Format
    from timesformer_cli.jobs.videos import Videos

HELP = """Find copies among videos, and parts of longer videos, without a model.

Compares the frames of all videos by hashes that hardly change if a video is encoded again, resized, cropped, \
mirrored, or gets bars or a logo. Reports which video of each group to keep, and why. Never deletes or moves a file.

Exit codes: 0 all videos compared; 1 the run failed, or no video could be read; 2 wrong usage; 3 some videos could not \
be read; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. With --output, hashes are kept, and --resume continues the run.
"""


def _share(text: str) -> float:
    value = positive(text)
    if value > 1:
        raise typer.BadParameter(f"{text!r} is not a number above 0 and at most 1")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared with what, and what counts as a copy."""

    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="INPUT",
            help=(
                "Report only pairs of a video of the inputs and a video of this file, folder or glob; can be repeated. "
                "Pairs within either side are not reported."
            ),
        ),
    ] = None
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="SECONDS",
            parser=positive,
            help="Shortest stretch that two videos must share; of shorter videos, nearly all.",
        ),
    ] = 3.0
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            metavar="SHARE",
            parser=_share,
            help="Least similarity of a shared stretch, from 0 to 1: the share of equal bits of its hashes.",
        ),
    ] = 0.68

    @property
    def settings(self) -> "Settings":
        from timesformer_cli.jobs.dedup.groups import Settings

        return Settings(seconds=self.seconds, threshold=self.threshold)

    def others(self, *, frames: bool) -> "Videos | None":
        """The videos to compare with. Raises InputError."""
        from timesformer_cli.jobs.videos import Videos

        return Videos.find(self.against, [], frames=frames) if self.against else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(ToFile):
    """Where the rows go, and in which format."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write the copies to this .csv or .jsonl file, and the hashes of all videos beside it.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    format: Annotated[
        Literal["auto", "table", "jsonl", "csv"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "Format of the copies: table, jsonl, csv, or auto: from the extension of --output, or without --output "
                "a table on a terminal and jsonl in a pipe."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"
    list_copies: Annotated[
        bool,
        typer.Option(
            "--list-copies",
            help="Print only the paths of videos that are wholly in a video to keep, one path per line.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace --output and the hashes if they exist.", rich_help_panel=OUTPUT),
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Use the hashes beside --output for files that have not changed, and replace --output.",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    def chosen(self) -> "Format":
        """Raises UsageError for an unknown extension."""
        from timesformer_cli.jobs.dedup.rows import EXTENSIONS

        return self.format_of(self.format, EXTENSIONS)


@bundled
def dedup(
    inputs: Inputs,
    comparison: Comparison,
    rows: Rows,
    reading: ReadingOptions,
    workers: Workers = None,
    limit: Limit = None,
    *,
    talk: Talk,
) -> None:
    talk.choose()
    inputs.require("dedup")
    format = rows.chosen()

    from timesformer_cli.files import encoded, replacing
    from timesformer_cli.jobs.dedup import Job
    from timesformer_cli.jobs.dedup import dedup as compare
    from timesformer_cli.jobs.dedup.rows import texts

    job = Job(
        videos=inputs.find(frames=reading.frames, limit=limit),
        against=comparison.others(frames=reading.frames),
        settings=comparison.settings,
        reading=reading.spec,
        limits=reading.limits,
        workers=workers,
        output=rows.path,
        resume=rows.resume,
        overwrite=rows.overwrite,
    )
    job.check()
    with job.lock():
        found = compare(job, console)
        if rows.path is not None:
            with replacing(rows.path) as part:
                part.write_bytes(b"".join(map(encoded, texts(found.rows, format))))
    if rows.list_copies:
        streams.write([os.fsencode(row.other) + b"\n" for row in found.rows if row.kind in ("copy", "part")])
    elif rows.path is None:
        streams.write(map(encoded, texts(found.rows, format)))
    _summarise(found)
    if found.failed:
        raise typer.Exit(SOME_FAILED)


def _summarise(found: "Found") -> None:
    def count(kind: str) -> int:
        return len({row.other for row in found.rows if row.kind == kind})

    whole, parts, longer, overlaps = map(count, ("copy", "part", "longer", "overlap"))
    told = [f"{whole:,} {'copy' if whole == 1 else 'copies'}"] if whole else []
    told += [f"{plural(parts, 'part')} of longer videos"] if parts else []
    told += [f"{plural(longer, 'longer video')}"] if longer else []
    told += [f"{plural(overlaps, 'video')} that share a stretch"] if overlaps else []
    failed = f"; {found.failed:,} could not be read" if found.failed else ""
    kept = f" ({found.kept:,} by hashes of earlier runs)" if found.kept else ""
    console.note(f"{plural(found.videos, 'video')} compared{kept}: {', '.join(told) or 'no copies'}{failed}")
