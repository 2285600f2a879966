"""What can be done with finished runs of `timesformer evaluate`, without the model."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.cli import console, options, scoreboard
from timesformer_cli.cli.repeat import commands
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.evaluation.run import Flip, Run
    from timesformer_cli.results.record import Record
    from timesformer_cli.results.settings import Settings

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", show_default=False, help="The folder that evaluate --output has left.")
]
RunArguments = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", show_default=False, help="Folders that evaluate --output has left, two or more."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Keep what comes of it as a run in this folder.",
        rich_help_panel=options.OUTPUT,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace --output if it is there.", rich_help_panel=options.OUTPUT)
]


def rescore(
    folder: RunArgument,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="As if the model knew these classes alone, one name a line, and the data set no videos of others.",
        ),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    top_k: scoreboard.TopK = None,
    min_top1: scoreboard.MinTop1 = None,
    as_json: scoreboard.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Metrics of a run once more: other top-k, or some of the classes alone."""
    console.choose_level(verbose=verbose, quiet=quiet)
    from timesformer_cli.checkpoints.labels import read_file
    from timesformer_cli.evaluation.folder import read_run
    from timesformer_cli.evaluation.run import restrict

    run = read_run(folder)
    if classes is not None:
        run = restrict(run, read_file(classes))
    _report(run, output, overwrite=overwrite, inputs=[folder], top_k=top_k, min_top1=min_top1, as_json=as_json)


def compare(
    folders: RunArguments,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The videos that one run alone has right, as CSV.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: scoreboard.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare runs with the first one, on the videos that both have.

    The difference of the top-1 accuracies comes with its 95 % interval, by a bootstrap over pairs, and with the p-value
    of McNemar's exact test. Gained are the videos that the later run alone has right, lost those that the first has.
    """
    console.choose_level(verbose=verbose, quiet=quiet)
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


def fuse(
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
    output: Output = None,
    overwrite: Overwrite = False,
    top_k: scoreboard.TopK = None,
    min_top1: scoreboard.MinTop1 = None,
    as_json: scoreboard.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Late fusion: the weighted mean of the probabilities of several runs, on the videos that all have."""
    console.choose_level(verbose=verbose, quiet=quiet)
    _check_several(folders)
    from timesformer_cli.evaluation import run as evaluation
    from timesformer_cli.evaluation.folder import read_run

    runs = [read_run(folder) for folder in folders]
    run = evaluation.fuse(runs, weights or (1.0,) * len(runs))
    left_out = max(len(one.paths) for one in runs) - len(run.paths)
    if left_out:
        console.note(f"{left_out:,} videos are not in all runs, and left out")
    _report(run, output, overwrite=overwrite, inputs=folders, top_k=top_k, min_top1=min_top1, as_json=as_json)


def merge(
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
    top_k: scoreboard.TopK = None,
    min_top1: scoreboard.MinTop1 = None,
    as_json: scoreboard.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Put the runs of `evaluate --shard` together, as one run would have left them."""
    console.choose_level(verbose=verbose, quiet=quiet)
    from timesformer_cli.evaluation.folder import VIDEOS, read_run, write_results
    from timesformer_cli.evaluation.run import summarise
    from timesformer_cli.results.shards import open_shards

    shards = open_shards([folder / VIDEOS for folder in folders])
    with _written(output, shards.settings, shards.records(), overwrite=overwrite, inputs=folders):
        run = read_run(output)
        summary = summarise(run, run.measure(top_k or scoreboard.TOP_K))
        write_results(output, run, summary, commands(run.settings, len(run.labels)))
    scoreboard.show(summary, as_json=as_json)
    scoreboard.require(summary, min_top1)


def _check_several(folders: Sequence[Path]) -> None:
    if len(folders) < 2:
        raise UsageError("two runs or more are needed; name their folders")


def _report(
    run: "Run",
    output: Path | None,
    *,
    overwrite: bool,
    inputs: Sequence[Path],
    top_k: Sequence[int] | None,
    min_top1: float | None,
    as_json: bool,
) -> None:
    """Show what a run is worth, and keep it if that is wanted."""
    from timesformer_cli.evaluation.folder import write_results
    from timesformer_cli.evaluation.run import summarise

    if run.multi_label and min_top1 is not None:
        raise UsageError("--min-top1: these videos have several labels each, and so no top-1 accuracy")
    summary = summarise(run, run.measure(top_k or scoreboard.TOP_K))
    if output is not None:
        with _written(output, run.settings, run.records(), overwrite=overwrite, inputs=inputs):
            write_results(output, run, summary, commands(run.settings, len(run.labels)))
    scoreboard.show(summary, as_json=as_json)
    scoreboard.require(summary, min_top1)


@contextmanager
def _written(
    folder: Path, settings: "Settings", records: "Iterable[Record]", *, overwrite: bool, inputs: Sequence[Path]
) -> Iterator[None]:
    """The folder of a run with its records, and what was wrong with the data set of the first of `inputs`."""
    from timesformer_cli.evaluation import folder as runfolder
    from timesformer_cli.files import locked

    if any(folder.exists() and folder.samefile(other) for other in inputs):
        raise UsageError(f"{folder}: is one of the runs; name another folder")
    runfolder.open_folder(folder, overwrite=overwrite, resume=False)
    with locked(folder / runfolder.VIDEOS):
        runfolder.remove_results(folder)
        runfolder.write_records(folder, settings, records)
        runfolder.copy_problems(inputs[0], folder)
        yield
