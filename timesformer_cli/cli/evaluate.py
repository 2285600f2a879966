"""`timesformer evaluate`: a model on a labelled data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from timesformer_cli.cli import console, scoreboard
from timesformer_cli.cli.options import OUTPUT, RUN, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Limit
from timesformer_cli.cli.options.model import Model
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running, Sharing
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.cli.repeat import commands
from timesformer_cli.errors import SOME_FAILED, InputError, UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from timesformer_cli.datasets import Dataset, DatasetFormat, Problem
    from timesformer_cli.evaluation.score_files import Scores
    from timesformer_cli.jobs.evaluate import Keeping, Summary
    from timesformer_cli.specs import Checkpoint

DATA = "Data set"

HELP = """Run a model on a labelled data set, and report how right it is.

Each video is seen as the model's published numbers were made, unless the options say otherwise. Videos that are \
missing or cannot be read are counted and listed, and never replaced by others. With --output, a folder keeps all \
scores, from which `timesformer runs` makes other numbers without the model. The metrics come as a table on a \
terminal, and as JSON in a pipe.

Exit codes: 0 all done; 1 the run could not be done, or --min-top1 is not met; 2 wrong usage; 3 some videos could not \
be read; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. What was done is kept, and --resume goes on.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Videos with labels, or scores of them."""

    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="The folder of the videos; without --annotations, the names of its folders are the labels.",
        ),
    ] = None
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            metavar="FILE",
            help="The file that says which label each video has, in any of the usual formats.",
            rich_help_panel=DATA,
        ),
    ] = None
    annotations_format: Annotated[
        str,
        typer.Option(
            "--annotations-format",
            metavar="FORMAT",
            help="What format that is, where it cannot be told from the content.",
            rich_help_panel=DATA,
        ),
    ] = "auto"
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="The split to take, such as val, where there are several.",
            rich_help_panel=DATA,
        ),
    ] = None
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--label-map",
            metavar="FILE",
            help="The names that the annotations' numbers stand for, where the model numbers its classes otherwise.",
            rich_help_panel=DATA,
        ),
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Take videos of these classes alone, one name a line; the model still chooses among all of its own.",
            rich_help_panel=DATA,
        ),
    ] = None
    limit: Limit = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="S",
            help="With --limit: N videos at random, the same for the same S.",
            rich_help_panel=DATA,
        ),
    ] = None
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Do not begin if a video of the data set is missing.", rich_help_panel=DATA),
    ] = False
    from_predictions: Annotated[
        Path | None,
        typer.Option(
            "--from-predictions",
            metavar="FILE",
            help=(
                "Evaluate the scores in this file, and run no model: .npz or .parquet of predict --save-logits, or a "
                "pickle of NumPy arrays in the order of the annotations. Classes without names in it have those of "
                "--labels or --model."
            ),
            rich_help_panel=DATA,
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError where none is named."""
        if self.root is None and self.annotations is None and self.from_predictions is None:
            raise UsageError(
                "no data set: name the folder of its videos, or --annotations; see timesformer evaluate --help"
            )

    @property
    def named(self) -> list[str] | None:
        """The classes whose videos are taken. Raises CheckpointError for a file that cannot be read."""
        from timesformer_cli.checkpoints.labels import read_file

        return None if self.classes is None else list(read_file(self.classes))

    def open(self, labels: "Sequence[str]", *, frames: bool) -> "tuple[Dataset, dict[str, Any]]":
        """The data set, and what of it decides about results; what is wrong with it is told.

        Raises:
            UsageError, InputError: it is not understood, or does not go with the labels.
        """
        from timesformer_cli.datasets import open_dataset
        from timesformer_cli.evaluation.run import data_set_settings

        named = self.named
        dataset = open_dataset(
            self.root,
            self.annotations,
            format=cast("DatasetFormat", self.annotations_format),  # it says what it knows
            split=self.split,
            labels=labels,
            label_map=self.label_map,
            frames=frames,
            classes=named,
            limit=self.limit,
            seed=self.seed,
        )
        _tell_problems(dataset, strict=self.strict)
        asked = {name: getattr(self, name) for name in ("root", "annotations", "label_map")}
        settings = data_set_settings(
            dataset,
            **{name: None if path is None else str(path) for name, path in asked.items()},
            classes=named,
            limit=self.limit,
            seed=self.seed,
            frames=frames,
        )
        return dataset, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that keeps a run."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Keep the run in this folder: metrics, scores, predictions, tables of classes and confusions.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run that --output holds.", rich_help_panel=OUTPUT),
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with --output where an earlier run with the same settings stopped.",
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

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")
        if self.retry_errors and not self.resume:
            raise UsageError("--retry-errors goes with --resume")

    @property
    def keeping(self) -> "Keeping":
        from timesformer_cli.jobs.evaluate import Keeping

        return Keeping(
            folder=self.output,
            overwrite=self.overwrite,
            resume=self.resume,
            retry_errors=self.retry_errors,
            repeat=commands,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much of the work is done here."""

    sharing: Sharing
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the videos with their labels, and say what is wrong with the data set; evaluate nothing.",
            rich_help_panel=RUN,
        ),
    ] = False


@bundled
def evaluate(
    data: DataSet,
    model: Model,
    folder: Folder,
    metrics: scoreboard.Metrics,
    views: ViewOptions,
    reading: ReadingOptions,
    running: Running,
    scope: Scope,
    talk: Talk,
) -> None:
    talk.choose()
    data.check()
    folder.check()
    shard, cluster = scope.sharing.shard, scope.sharing.cluster
    if folder.output is None and (folder.resume or folder.overwrite or shard is not None):
        raise UsageError("--resume, --overwrite and --shard need --output FOLDER")
    if data.from_predictions is not None and (folder.resume or shard is not None or scope.dry_run):
        raise UsageError("--from-predictions is done at once, without --resume, --shard and --dry-run")

    from timesformer_cli.jobs.evaluate import Job
    from timesformer_cli.jobs.evaluate import evaluate as evaluate_all
    from timesformer_cli.runtimes.devices import check_device

    run = running.options(reading, cluster)
    check_device(run.device)
    if data.from_predictions is not None:
        _finish(_evaluate_scores(data, model, folder, metrics, views, reading), metrics)
        return
    checkpoint = _fed_as_published(model.resolve(views, preview=scope.dry_run), views)
    run.check(checkpoint)
    dataset, settings = data.open(checkpoint.labels, frames=reading.frames)
    metrics.check(multi_label=settings["multi_label"])
    if scope.dry_run:
        _show_plan(dataset, checkpoint.labels)
        return
    job = Job(
        checkpoint=checkpoint,
        dataset=dataset,
        data_set=settings,
        run=run,
        keeping=folder.keeping,
        shard=shard,
        fail_fast=scope.sharing.fail_fast,
        top_k=metrics.ks,
    )
    _finish(evaluate_all(job, console), metrics)


def _fed_as_published(checkpoint: "Checkpoint", views: ViewOptions) -> "Checkpoint":
    from timesformer_cli.evaluation.run import with_protocol

    return with_protocol(checkpoint) if views.recipe is None and "clips" not in views.changes else checkpoint


def _evaluate_scores(
    data: DataSet,
    model: Model,
    folder: Folder,
    metrics: scoreboard.Metrics,
    views: ViewOptions,
    reading: ReadingOptions,
) -> "Summary":
    """What the scores in a file are worth, without a model; its labels may be needed."""
    from timesformer_cli.evaluation.score_files import own_data_set, read_scores
    from timesformer_cli.jobs.evaluate import evaluate_scores

    assert data.from_predictions is not None
    scores = read_scores(data.from_predictions)
    names = _names_of(scores, model, views)
    if data.root is None and data.annotations is None:
        dataset, settings = None, own_data_set(scores)
    else:
        dataset, settings = data.open(names, frames=reading.frames)
    metrics.check(multi_label=settings["multi_label"])
    return evaluate_scores(scores, dataset, names, settings, keeping=folder.keeping, top_k=metrics.ks)


def _names_of(scores: "Scores", model: Model, views: ViewOptions) -> "Sequence[str]":
    """Of the classes: those of --labels, of the file, or of the model, whose labels are enough."""
    from timesformer_cli.checkpoints.labels import read_file

    if model.source.files.labels is not None:
        return read_file(model.source.files.labels)
    return scores.labels or model.resolve(views, preview=True).labels


def _finish(summary: "Summary", metrics: scoreboard.Metrics) -> None:
    """Show it, and end with the exit code that it calls for.

    Raises:
        InputError: no video could be read.
    """
    from timesformer_cli.jobs.evaluate import reason_of

    run = summary.run
    scoreboard.show(summary.metrics, as_json=metrics.as_json)
    if run.failed and not run.paths:
        raise InputError(f"none of the {len(run.failed)} videos could be read; the first: {reason_of(run.failed[0])}")
    metrics.require(summary.metrics)
    if run.failed:
        raise typer.Exit(SOME_FAILED)


def _tell_problems(dataset: "Dataset", *, strict: bool) -> None:
    """One line for each kind of problem.

    Raises:
        InputError: with `strict`, videos are missing.
    """
    found: dict[str, list[Problem]] = {}
    for problem in dataset.problems:
        found.setdefault(problem.kind, []).append(problem)
    missing = [*found.get("missing", ()), *found.get("ambiguous", ())]
    if strict and missing:
        raise InputError(
            f"--strict: {len(missing):,} of {dataset.rows:,} videos are not there; the first: {missing[0]}"
        )
    for kind, problems in found.items():
        console.note(f"{len(problems):,} {kind}, the first: {problems[0]}")


def _show_plan(dataset: "Dataset", labels: "Sequence[str]") -> None:
    """The videos with their labels on standard output, what is to be known about them on standard error."""
    for sample in dataset.samples:
        print(f"{printable(sample.path)}\t{printable('; '.join(labels[index] for index in sample.labels))}")
    source = dataset.annotations or "class folders"
    console.note(
        f"{len(dataset.samples):,} of {dataset.rows:,} videos to evaluate, in {len(dataset.classes)} of {len(labels)} "
        f"classes, matched by {dataset.matched_by}; {source} as {dataset.format}"
    )
