"""`timesformer evaluate`: a model on a labelled dataset."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from timesformer_cli.cli import console, scoreboard
from timesformer_cli.cli.options import OUTPUT, RUN, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.data import DATA, Labelled
from timesformer_cli.cli.options.inputs import Limit
from timesformer_cli.cli.options.model import Groups, Model
from timesformer_cli.cli.options.output import ResumeRun
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running, Sharing
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.cli.repeat import commands
from timesformer_cli.errors import SOME_FAILED, InputError, UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from timesformer_cli.datasets import Dataset
    from timesformer_cli.evaluation.score_files import Scores
    from timesformer_cli.jobs.evaluate import Keeping, Summary
    from timesformer_cli.specs import Activation, Checkpoint
    from timesformer_cli.specs import Groups as GroupsOf

HELP = """Run a model on a labelled dataset, and report its accuracy.

By default, videos are sampled and cropped as for the model's published accuracy. Videos that are \
missing or cannot be read are counted and listed, never replaced by others. --output keeps all scores in a folder, \
from which `timesformer runs` computes further metrics without the model. Metrics are printed as a table on a \
terminal, and as JSON in a pipe.

Exit codes: 0 all videos evaluated; 1 the run failed, or --min-top1 is not met; 2 wrong usage; 3 some videos could \
not be read; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. Finished results are kept, and --resume continues the run.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Videos with labels, or a file of scores."""

    labelled: Labelled
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Split to evaluate, such as val, if there are several.",
            rich_help_panel=DATA,
        ),
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Evaluate only videos of the classes in FILE, one name per line; the model still chooses among all.",
            rich_help_panel=DATA,
        ),
    ] = None
    groups: Groups = None
    limit: Limit = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="S",
            help="With --limit: choose the N videos at random; the same S gives the same videos.",
            rich_help_panel=DATA,
        ),
    ] = None
    from_predictions: Annotated[
        Path | None,
        typer.Option(
            "--from-predictions",
            metavar="FILE",
            help=(
                "Evaluate the scores in this file instead of running a model: .npz or .parquet of predict "
                "--save-logits, or a pickle of NumPy arrays in the order of the annotations. If the file has no class "
                "names, they come from --labels or --model."
            ),
            rich_help_panel=DATA,
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError if there is neither a dataset nor a file of scores."""
        if self.from_predictions is None:
            self.labelled.check("evaluate")

    @property
    def named(self) -> list[str] | None:
        """The classes whose videos are evaluated. Raises CheckpointError for a file that cannot be read."""
        from timesformer_cli.checkpoints.labels import read_file

        return None if self.classes is None else list(read_file(self.classes))

    def grouped(self, checkpoint: "Checkpoint") -> "Checkpoint":
        """The model with the user's classes, if there are any. Raises UsageError and InputError."""
        from timesformer_cli.datasets.groups import with_groups

        return checkpoint if self.groups is None else with_groups(checkpoint, self.groups)

    def open(
        self, labels: "Sequence[str]", groups: "GroupsOf | None", *, frames: bool
    ) -> "tuple[Dataset, dict[str, Any]]":
        """The dataset, and the settings of it that affect results; prints its problems. The model has these `labels`.

        Raises:
            UsageError, InputError: the dataset is not understood, or does not match the labels or their `groups`.
        """
        from timesformer_cli.datasets import open_dataset
        from timesformer_cli.evaluation.run import dataset_settings

        named = self.named
        dataset = open_dataset(
            self.labelled.root,
            self.labelled.annotations,
            format=self.labelled.format,
            split=self.split,
            labels=labels if groups is None else groups.names,
            groups=None if groups is None else groups.of(labels),
            label_map=self.labelled.label_map,
            frames=frames,
            classes=named,
            limit=self.limit,
            seed=self.seed,
        )
        self.labelled.tell_problems(dataset)
        settings = dataset_settings(
            dataset,
            **self.labelled.settings,
            classes=named,
            limit=self.limit,
            seed=self.seed,
            frames=frames,
        )
        return dataset, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The folder that keeps a run."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Keep the run in this folder: metrics, scores, predictions, results per class, confusion matrix.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run in --output.", rich_help_panel=OUTPUT),
    ] = False
    resume: ResumeRun = False
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="With --resume: also retry videos that failed.",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    explain: Annotated[
        int,
        typer.Option(
            "--explain",
            metavar="N",
            min=0,
            max=24,
            help="With --output: explain the N worst mistakes, with a page for each that the report links to.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0

    def check(self) -> None:
        """Raises UsageError for options that cannot be combined."""
        if self.explain and self.output is None:
            raise UsageError("--explain needs --output FOLDER, where its pages go")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite cannot be combined")
        if self.retry_errors and not self.resume:
            raise UsageError("--retry-errors needs --resume")

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
class Calibration:
    """Whether the model is calibrated, and how."""

    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help=(
                "With --output RUN: also write RUN/model, the same model with scores that say how often it is right. "
                "Give videos that it was not trained on."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = False
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="auto|none|COLUMN|REGEX",
            help=(
                "With --calibrate: what videos of one source have in common, as in finetune; by default auto. Videos "
                "of one source count once."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = None

    def check(self, folder: Folder, sharing: Sharing, data: Data) -> None:
        """Raises UsageError for options that cannot be combined."""
        if self.group_by is not None and not self.calibrate:
            raise UsageError("--group-by needs --calibrate")
        if not self.calibrate:
            return
        if folder.output is None:
            raise UsageError("--calibrate needs --output RUN, the folder for the calibrated model")
        if sharing.shard is not None:
            raise UsageError("--calibrate needs all videos, so it cannot be combined with --shard")
        if data.from_predictions is not None:
            raise UsageError("--calibrate needs the model, so it cannot be combined with --from-predictions")
        if data.groups is not None:
            raise UsageError(
                "--calibrate is for the labels of the model itself, so it cannot be combined with --groups"
            )

    @property
    def by(self) -> str | None:
        """How the sources of videos are found; None: the model is not calibrated."""
        return (self.group_by or "auto") if self.calibrate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much of the work is done here."""

    sharing: Sharing
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the videos with their labels, and the problems of the dataset; evaluate nothing.",
            rich_help_panel=RUN,
        ),
    ] = False


@bundled
def evaluate(
    data: Data,
    model: Model,
    folder: Folder,
    calibration: Calibration,
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
    calibration.check(folder, scope.sharing, data)
    shard, cluster = scope.sharing.shard, scope.sharing.cluster
    if folder.output is None and (folder.resume or folder.overwrite or shard is not None):
        raise UsageError("--resume, --overwrite and --shard need --output FOLDER")
    if data.from_predictions is not None and (folder.resume or shard is not None or scope.dry_run or folder.explain):
        raise UsageError("--from-predictions cannot be combined with --resume, --shard, --dry-run or --explain")

    from timesformer_cli.jobs.evaluate import Job
    from timesformer_cli.jobs.evaluate import evaluate as evaluate_all
    from timesformer_cli.runtimes.devices import check_device

    run = running.options(reading, cluster)
    check_device(run.device)
    if data.from_predictions is not None:
        _finish(_evaluate_scores(data, model, folder, metrics, views, reading), metrics)
        return
    checkpoint = data.grouped(_fed_as_published(model.resolve(views, preview=scope.dry_run), views))
    run.check(checkpoint)
    dataset, settings = data.open(checkpoint.labels, checkpoint.groups, frames=reading.frames)
    metrics.check(multi_label=settings["multi_label"])
    if scope.dry_run:
        _show_plan(dataset, checkpoint.classes)
        return
    job = Job(
        checkpoint=checkpoint,
        dataset=dataset,
        settings=settings,
        run=run,
        keeping=folder.keeping,
        shard=shard,
        fail_fast=scope.sharing.fail_fast,
        top_k=metrics.ks,
        explained=folder.explain,
        calibrated_by=calibration.by,
    )
    _finish(evaluate_all(job, console), metrics)


def _fed_as_published(checkpoint: "Checkpoint", views: ViewOptions) -> "Checkpoint":
    from timesformer_cli.evaluation.run import with_protocol

    return with_protocol(checkpoint) if views.recipe is None and "clips" not in views.changes else checkpoint


def _evaluate_scores(
    data: Data,
    model: Model,
    folder: Folder,
    metrics: scoreboard.Metrics,
    views: ViewOptions,
    reading: ReadingOptions,
) -> "Summary":
    """Evaluate the scores in a file; of the model, only the labels and the activation may be needed."""
    from timesformer_cli.datasets.groups import read_groups
    from timesformer_cli.evaluation.score_files import own_dataset_settings, read_scores
    from timesformer_cli.jobs.evaluate import evaluate_scores

    assert data.from_predictions is not None
    scores = read_scores(data.from_predictions)
    names, activation = _described(scores, model, views)
    groups = None if data.groups is None else read_groups(data.groups, names, activation)
    if data.labelled.is_missing:
        dataset, settings = None, own_dataset_settings(scores)
    else:
        dataset, settings = data.open(names, groups, frames=reading.frames)
    metrics.check(multi_label=settings["multi_label"])
    return evaluate_scores(
        scores,
        dataset,
        names,
        settings,
        activation=activation,
        groups=groups,
        keeping=folder.keeping,
        top_k=metrics.ks,
    )


def _described(scores: "Scores", model: Model, views: ViewOptions) -> "tuple[Sequence[str], Activation]":
    """The class names, and what makes scores of logits.

    Names are from --labels, the file, or the model, in this order. The activation is from --set, the file, or the model
    if it names the classes; files of earlier versions were scored by the softmax.
    """
    from timesformer_cli.checkpoints.labels import read_file
    from timesformer_cli.specs import Activation

    names = scores.labels if model.source.files.labels is None else read_file(model.source.files.labels)
    activation = scores.activation
    if names is None:
        checkpoint = model.resolve(views, preview=True)
        names, activation = checkpoint.labels, activation or checkpoint.activation
    if "activation" in views.changes:
        activation = views.changes["activation"] or "none"
        if activation not in get_args(Activation):
            raise UsageError(f"--set activation={activation}: known are {', '.join(get_args(Activation))}")
    return names, activation or "softmax"


def _finish(summary: "Summary", metrics: scoreboard.Metrics) -> None:
    """Print the metrics, and end with the exit code for them.

    Raises:
        InputError: no video could be read.
    """
    from timesformer_cli.jobs.evaluate import reason_of

    run = summary.run
    scoreboard.show(summary.metrics, as_json=metrics.as_json)
    if calibration := summary.metrics.get("calibration"):
        sys.stdout.flush()  # before the line on standard error
        console.note(f"calibrated model: {calibration['model']}")
    if run.failed and not run.paths:
        raise InputError(f"none of the {len(run.failed)} videos could be read; the first: {reason_of(run.failed[0])}")
    metrics.require(summary.metrics)
    if run.failed:
        raise typer.Exit(SOME_FAILED)


def _show_plan(dataset: "Dataset", labels: "Sequence[str]") -> None:
    """Print the videos with their labels on standard output, and a summary on standard error.

    If the dataset has parts of videos, there are columns for their start and their end.
    """
    from timesformer_cli.flow import WHOLE

    of_parts = any(sample.part != WHOLE for sample in dataset.samples)
    for sample in dataset.samples:
        part = ("" if time is None else f"{time:.10g}" for time in sample.part) if of_parts else ()
        names = "; ".join(labels[index] for index in sample.labels)
        print(printable(sample.path), *part, printable(names), sep="\t")
    source = dataset.annotations or "class folders"
    console.note(
        f"{len(dataset.samples):,} of {dataset.rows:,} videos to evaluate, in {len(dataset.classes)} of {len(labels)} "
        f"classes, matched by {dataset.matched_by}; {source} as {dataset.format}"
    )
