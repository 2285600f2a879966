"""`timesformer pick`: the videos whose labels would teach a model most."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console, streams
from timesformer_cli.cli.options import OUTPUT, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.output import Overwrite, ToFile

if TYPE_CHECKING:
    from timesformer_cli.jobs.pick.formats import Format

HELP = """Choose the videos to label next.

RESULTS are the JSON lines of `timesformer predict`, and VECTORS the file that --save-embeddings wrote in the same \
run. Videos, or segments, are picked that the model is unsure of, and that are unlike each other and unlike what is \
labelled. No model is loaded.

Exit codes: 0 videos picked; 1 the files cannot be read, or are of different runs; 2 wrong usage; 130 stopped by \
Ctrl-C; 143 stopped by SIGTERM. An output file is complete or absent.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """From what to pick, and how."""

    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", show_default=False, help="JSON lines of a finished run.")
    ]
    vectors: Annotated[
        Path, typer.Argument(metavar="VECTORS", show_default=False, help="Vectors of the same run, in any format.")
    ]
    labelled: Annotated[
        Path | None,
        typer.Option(
            "--labelled",
            metavar="FILE",
            help="Annotations of what is labelled already, in any format of evaluate; it is not picked again.",
        ),
    ] = None
    count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Number of videos to pick.")] = 50
    by: Annotated[
        Literal["margin", "entropy", "random"],
        typer.Option(
            "--by",
            metavar="RULE",
            help=(
                "How to tell what the model is unsure of: margin, the difference of its two best scores; entropy of "
                "all scores, which needs --logits; or random, a choice without regard to scores and vectors."
            ),
        ),
    ] = "margin"
    logits: Annotated[
        Path | None,
        typer.Option("--logits", metavar="FILE", help="With --by entropy: the file that predict --save-logits wrote."),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", min=0, help="With --by random: the same S gives the same choice."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(ToFile):
    """Where the picks go."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help=(
                "Write the picks to this file: .csv, .jsonl, .html (the page of predict, to label them), or .json "
                "(tasks for Label Studio)."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    format: Annotated[
        Literal["auto", "table", "jsonl", "csv", "html", "labelstudio"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "Format of the picks: table, jsonl, csv, html, labelstudio, or auto: from the extension of --output, "
                "or without --output a table on a terminal and jsonl in a pipe."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"
    overwrite: Overwrite = False

    def chosen(self) -> "Format":
        """Raises UsageError for an unknown extension."""
        from timesformer_cli.jobs.pick.formats import EXTENSIONS

        return self.format_of(self.format, EXTENSIONS)


@bundled
def pick(asked: Asked, shown: Shown, talk: Talk) -> None:
    talk.choose()
    format = shown.chosen()

    from timesformer_cli.files import check_target, encoded
    from timesformer_cli.jobs.pick import Job
    from timesformer_cli.jobs.pick import pick as choose
    from timesformer_cli.jobs.pick.formats import texts

    target = shown.path
    if target is not None:
        check_target(target, overwrite=shown.overwrite)
    job = Job(
        results=asked.results,
        vectors=asked.vectors,
        labelled=asked.labelled,
        count=asked.count,
        by=asked.by,
        logits=asked.logits,
        seed=asked.seed,
    )
    lines = map(encoded, texts(choose(job, console), format, target))
    streams.write_to(target, lines)
