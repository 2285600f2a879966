"""`timesformer runs`: what can be done with finished runs of `timesformer evaluate`, without the model."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.cli import console, scoreboard
from timesformer_cli.cli.options import OUTPUT, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.repeat import commands
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.evaluation.run import Flip, Run
    from timesformer_cli.results.record import Record
    from timesformer_cli.results.settings import Provenance

HELP = "Make other numbers of the runs that `timesformer evaluate --output` has left, without the model."

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", show_default=False, help="The folder that evaluate --output has left.")
]
RunArguments = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", show_default=False, help="Folders that evaluate --output has left, two or more."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace --output if it is there.", rich_help_panel=OUTPUT)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A folder for what comes of it."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Keep what comes of it as a run in this folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Overwrite = False


app = typer.Typer(help=HELP, no_args_is_help=True)


@app.command()
@bundled
def rescore(
    *,
    folder: RunArgument,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="As if the model knew these classes alone, one name a line, and the data set no videos of others.",
        ),
    ] = None,
    target: Target,
    metrics: scoreboard.Metrics,
    talk: Talk,
) -> None:
    """Metrics of a run once more: other top-k, or some of the classes alone."""
    talk.choose()
    from timesformer_cli.checkpoints.labels import read_file
    from timesformer_cli.evaluation.folder import read_run
    from timesformer_cli.evaluation.run import restrict

    run = read_run(folder)
    if classes is not None:
        run = restrict(run, read_file(classes))
    _report(run, target, metrics, inputs=[folder])


@app.command()
@bundled
def compare(
    *,
    folders: RunArguments,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The videos that one run alone has right, as CSV.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: scoreboard.Json = False,
    talk: Talk,
) -> None:
    """Compare runs with the first one, on the videos that both have.

    The difference of the top-1 accuracies comes with its 95 % interval, by a bootstrap over pairs, and with the p-value
    of McNemar's exact test. If no video tells the runs apart, that interval has no width, and a note says so. Gained
    are the videos that the later run alone has right, lost those that the first has.
    """
    talk.choose()
    _check_several(folders)
    from timesformer_cli.evaluation import run as evaluation
    from timesformer_cli.evaluation.folder import read_run, write_text
    from timesformer_cli.files import check_target
    from timesformer_cli.results.writers import csv_text

    if output is not None:
        check_target(output, overwrite=overwrite)
    first, *others = map(read_run, folders)
    comparisons: list[dict[str, Any]] = []
    rows: list[Sequence[object]] = [("run", "change", "path", "label", "first", "second")]
    for folder, other in zip(folders[1:], others, strict=True):
        found, flips = evaluation.compare(first, other)
        comparisons.append(
            {
                "first": str(folders[0]),
                "run": str(folder),
                "videos": found.videos,
                "left_out": [len(first.paths) - found.videos, len(other.paths) - found.videos],
                "first_top_1": found.first,
                "top_1": found.second,
                "difference": None if found.difference is None else asdict(found.difference),
                "interval_note": None if found.difference is None else found.difference.no_width("the difference"),
                "p_value": found.p_value,
                "gained": [flip.path for flip in flips if flip.gained],
                "lost": [flip.path for flip in flips if not flip.gained],
            }
        )
        rows += ((str(folder), *_flip_cells(flip, first)) for flip in flips)
    if output is not None:
        write_text(output, csv_text(rows))
    scoreboard.show_comparisons(comparisons, as_json=as_json)


def _flip_cells(flip: "Flip", run: "Run") -> tuple[object, ...]:
    names = (run.labels[index] for index in (flip.target, flip.first, flip.second))
    return "gained" if flip.gained else "lost", flip.path, *names


def _weights(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = (math.nan,)
    if not all(0 <= number < math.inf for number in numbers):
        raise typer.BadParameter(f"{text!r} are not numbers of 0 or more, with commas between them")
    return numbers


@app.command()
@bundled
def fuse(
    *,
    folders: RunArguments,
    weights: Annotated[
        Any,
        typer.Option(
            "--weights",
            "-w",
            metavar="W,W",
            parser=_weights,
            help="A weight for each run, with commas; all the same unless this says otherwise.",
        ),
    ] = None,
    target: Target,
    metrics: scoreboard.Metrics,
    talk: Talk,
) -> None:
    """Late fusion: the weighted mean of the probabilities of several runs, on the videos that all have."""
    talk.choose()
    _check_several(folders)
    from timesformer_cli.evaluation import run as evaluation
    from timesformer_cli.evaluation.folder import read_run

    runs = [read_run(folder) for folder in folders]
    run = evaluation.fuse(runs, weights or (1.0,) * len(runs))
    left_out = max(len(one.paths) for one in runs) - len(run.paths)
    if left_out:
        console.note(f"{left_out:,} videos are not in all runs, and left out")
    _report(run, target, metrics, inputs=folders)


@app.command()
@bundled
def merge(
    *,
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            show_default=False,
            help="Folders of all shards of a run, in any order, all of them finished.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder of the whole run.", show_default=False)
    ],
    overwrite: Overwrite = False,
    metrics: scoreboard.Metrics,
    talk: Talk,
) -> None:
    """Put the runs of `evaluate --shard` together, as one run would have left them."""
    talk.choose()
    from timesformer_cli.evaluation.folder import VIDEOS, read_run, write_results
    from timesformer_cli.evaluation.run import summarise
    from timesformer_cli.results.shards import open_shards

    shards = open_shards([folder / VIDEOS for folder in folders])
    with _written(output, shards.provenance, shards.records(), overwrite=overwrite, inputs=folders):
        run = read_run(output)
        summary = summarise(run, run.measure(metrics.ks))
        write_results(output, run, summary, commands(run.provenance, len(run.labels)))
    scoreboard.show(summary, as_json=metrics.as_json)
    metrics.require(summary)


def _check_several(folders: Sequence[Path]) -> None:
    if len(folders) < 2:
        raise UsageError("two runs or more are needed; name their folders")


def _report(run: "Run", target: Target, metrics: scoreboard.Metrics, *, inputs: Sequence[Path]) -> None:
    """Show what a run is worth, and keep it if that is wanted."""
    from timesformer_cli.evaluation.folder import write_results
    from timesformer_cli.evaluation.run import summarise

    metrics.check(multi_label=run.multi_label)
    summary = summarise(run, run.measure(metrics.ks))
    if target.output is not None:
        with _written(target.output, run.provenance, run.records(), overwrite=target.overwrite, inputs=inputs):
            write_results(target.output, run, summary, commands(run.provenance, len(run.labels)))
    scoreboard.show(summary, as_json=metrics.as_json)
    metrics.require(summary)


@contextmanager
def _written(
    folder: Path, provenance: "Provenance", records: "Iterable[Record]", *, overwrite: bool, inputs: Sequence[Path]
) -> Iterator[None]:
    """The folder of a run with its records, and what was wrong with the data set of the first of `inputs`."""
    from timesformer_cli.evaluation import folder as runfolder
    from timesformer_cli.files import locked

    if any(folder.exists() and folder.samefile(other) for other in inputs):
        raise UsageError(f"{folder}: is one of the runs; name another folder")
    runfolder.open_folder(folder, overwrite=overwrite, resume=False)
    with locked(folder / runfolder.VIDEOS):
        runfolder.remove_results(folder)
        runfolder.write_records(folder, provenance, records)
        runfolder.copy_problems(inputs[0], folder)
        yield
