"""`timesformer runs`: work with finished runs of `timesformer evaluate`, without the model."""

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
from timesformer_cli.cli.options.output import Overwrite
from timesformer_cli.cli.repeat import commands
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.evaluation.run import Flip, Run
    from timesformer_cli.results.record import Record
    from timesformer_cli.results.settings import Provenance

HELP = "Compute further metrics from runs of `timesformer evaluate --output`, without the model."

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", show_default=False, help="Folder written by evaluate --output.")
]
RunArguments = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", show_default=False, help="Two or more folders written by evaluate --output."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The folder of the resulting run."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Keep the resulting run in this folder.",
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
            help="Score as if the model and the dataset had only the classes in FILE, one name per line.",
        ),
    ] = None,
    target: Target,
    metrics: scoreboard.Metrics,
    talk: Talk,
) -> None:
    """Recompute the metrics of a run, with a different --top-k or for only some of the classes."""
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
            help="Write the videos that only one of the runs has right to this CSV file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: scoreboard.Json = False,
    talk: Talk,
) -> None:
    """Compare runs with the first one, on the videos that both have.

    Shows the difference in top-1 accuracy with its 95 % interval, by a bootstrap over pairs, and the p-value of
    McNemar's exact test. If no video tells the runs apart, the interval has no width, and a note says so. "Gained"
    counts videos that only the later run has right, "lost" those that only the first run has right.
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
    of_parts = any(run.has_parts for run in (first, *others))
    part = ("start", "end") if of_parts else ()
    rows: list[Sequence[object]] = [("run", "change", "path", *part, "label", "first", "second")]
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
                "gained": [_flipped(flip) for flip in flips if flip.gained],
                "lost": [_flipped(flip) for flip in flips if not flip.gained],
            }
        )
        rows += ((str(folder), *_flip_cells(flip, first, of_parts=of_parts)) for flip in flips)
    if output is not None:
        write_text(output, csv_text(rows))
    scoreboard.show_comparisons(comparisons, as_json=as_json)


def _flipped(flip: "Flip") -> "str | Record":
    """The path of a video, or the beginning of the record of a part of one."""
    from timesformer_cli.results.record import head_of

    head = head_of(flip.path, flip.part)
    return head if len(head) > 1 else flip.path


def _flip_cells(flip: "Flip", run: "Run", *, of_parts: bool) -> tuple[object, ...]:
    names = (run.labels[index] for index in (flip.target, flip.first, flip.second))
    part = flip.part if of_parts else ()
    return "gained" if flip.gained else "lost", flip.path, *part, *names


def _weights(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = (math.nan,)
    if not all(0 <= number < math.inf for number in numbers):
        raise typer.BadParameter(f"{text!r} are not numbers of 0 or more, separated by commas")
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
            help="Weights of the runs, separated by commas; by default all equal.",
        ),
    ] = None,
    target: Target,
    metrics: scoreboard.Metrics,
    talk: Talk,
) -> None:
    """Fuse several runs: average their probabilities with weights (late fusion), on the videos that all have."""
    talk.choose()
    _check_several(folders)
    from timesformer_cli.evaluation import run as evaluation
    from timesformer_cli.evaluation.folder import read_run

    runs = [read_run(folder) for folder in folders]
    run = evaluation.fuse(runs, weights or (1.0,) * len(runs))
    left_out = max(len(one.paths) for one in runs) - len(run.paths)
    if left_out:
        console.note(f"{left_out:,} videos are not in all runs, and were left out")
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
            help="Folders of all shards of a run, in any order; all must be finished.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the merged run.", show_default=False)
    ],
    overwrite: Overwrite = False,
    metrics: scoreboard.Metrics,
    talk: Talk,
) -> None:
    """Merge the runs of `evaluate --shard` into one, as if the work had not been shared."""
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
        raise UsageError("two or more runs are needed; name their folders")


def _report(run: "Run", target: Target, metrics: scoreboard.Metrics, *, inputs: Sequence[Path]) -> None:
    """Print the metrics of a run, and write its folder if there is a target."""
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
    """Write the records of a run, and the dataset problems of `inputs[0]`; the body writes the results."""
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
