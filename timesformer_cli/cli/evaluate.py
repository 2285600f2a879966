"""`timesformer evaluate`: a model on a labelled data set, and what can be done with such runs afterwards."""

import platform
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from timesformer_cli.cli import console, options, scoreboard
from timesformer_cli.cli.repeat import commands
from timesformer_cli.cli.rescore import compare, fuse, merge, rescore
from timesformer_cli.cli.wording import spoken_result
from timesformer_cli.errors import SOME_FAILED, InputError, UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from timesformer_cli.checkpoints.exported import Provider
    from timesformer_cli.datasets import Dataset, DatasetFormat, Problem, Sample
    from timesformer_cli.flow import Result
    from timesformer_cli.results.journal import Ledger
    from timesformer_cli.results.record import Record
    from timesformer_cli.results.settings import Settings
    from timesformer_cli.results.shards import Shard
    from timesformer_cli.runtimes.pytorch import Precision
    from timesformer_cli.specs import Checkpoint, Reading

DATA = "Data set"

HELP = """Run a model on a labelled data set, and report how right it is.

Each video is seen as the model's published numbers were made, unless the options say otherwise. Videos that are \
missing or cannot be read are counted and listed, and never replaced by others. With --output, a folder keeps all \
scores, from which the commands below make other numbers without the model. The metrics come as a table on a terminal, \
and as JSON in a pipe.

Folders of videos that are called as one of these commands go after ./, as in ./merge.

Exit codes: 0 all done; 1 the run could not be done, or --min-top1 is not met; 2 wrong usage; 3 some videos could not \
be read; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. What was done is kept, and --resume goes on.
"""


class CommandAndGroup(TyperGroup):
    """A command with arguments of its own, and commands below it: which of them is meant, the first word says."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = self.commands.get(args[0]) if args else None
        if command is None:
            return super().make_context(info_name, args, parent, **extra)
        return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


app = typer.Typer(
    cls=CommandAndGroup,
    subcommand_metavar="| COMMAND [ARGS]...",
    # As a command has it: options may follow the argument, and no word is left over.
    context_settings={"allow_interspersed_args": True, "allow_extra_args": False},
)
for command in (rescore, compare, fuse, merge):
    app.command()(command)


@app.callback(invoke_without_command=True, help=HELP)
def evaluate(
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="The folder of the videos; without --annotations, the names of its folders are the labels.",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            metavar="FILE",
            help="The file that says which label each video has, in any of the usual formats.",
            rich_help_panel=DATA,
        ),
    ] = None,
    annotations_format: Annotated[
        str,
        typer.Option(
            "--annotations-format",
            metavar="FORMAT",
            help="What format that is, where it cannot be told from the content.",
            rich_help_panel=DATA,
        ),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="The split to take, such as val, where there are several.",
            rich_help_panel=DATA,
        ),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--label-map",
            metavar="FILE",
            help="The names that the annotations' numbers stand for, where the model numbers its classes otherwise.",
            rich_help_panel=DATA,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Take videos of these classes alone, one name a line; the model still chooses among all of its own.",
            rich_help_panel=DATA,
        ),
    ] = None,
    limit: options.Limit = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="S",
            help="With --limit: N videos at random, the same for the same S.",
            rich_help_panel=DATA,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Do not begin if a video of the data set is missing.", rich_help_panel=DATA),
    ] = False,
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
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    offline: options.Offline = False,
    weights: options.Weights = None,
    config: options.Config = None,
    labels: options.Labels = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Keep the run in this folder: metrics, scores, predictions, tables of classes and confusions.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run that --output holds.", rich_help_panel=options.OUTPUT),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with --output where an earlier run with the same settings stopped.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="With --resume: try the videos again that had failed.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    top_k: scoreboard.TopK = None,
    min_top1: scoreboard.MinTop1 = None,
    as_json: scoreboard.Json = False,
    recipe: options.Recipe = None,
    clips: options.Clips = None,
    crops: options.Crops = None,
    num_frames: options.NumFrames = None,
    stride: options.Stride = None,
    fps: options.Fps = None,
    placement: options.Placement = None,
    settings: options.Set = None,
    frames: options.Frames = False,
    frame_rate: options.FrameRate = 30.0,
    decoder: options.Decoder = "auto",
    timeout: options.Timeout = 60.0,
    max_pixels: options.MaxPixels = 2**26,
    max_frames: options.MaxFrames = 2_000_000,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    compile: options.Compile = False,
    provider: options.Provider = "auto",
    batch_size: options.BatchSize = None,
    shard: options.ShardOf = None,
    fail_fast: options.FailFast = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the videos with their labels, and say what is wrong with the data set; evaluate nothing.",
            rich_help_panel=options.RUN,
        ),
    ] = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    console.choose_level(verbose=verbose, quiet=quiet)
    if root is None and annotations is None and from_predictions is None:
        raise UsageError(
            "no data set: name the folder of its videos, or --annotations; see timesformer evaluate --help"
        )
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if retry_errors and not resume:
        raise UsageError("--retry-errors goes with --resume")
    if output is None and (resume or overwrite or shard is not None):
        raise UsageError("--resume, --overwrite and --shard need --output FOLDER")
    if from_predictions is not None and (resume or shard is not None or dry_run):
        raise UsageError("--from-predictions is done at once, without --resume, --shard and --dry-run")

    from timesformer_cli.checkpoints.labels import read_file
    from timesformer_cli.datasets import open_dataset
    from timesformer_cli.evaluation import folder as runfolder
    from timesformer_cli.evaluation.run import data_set_settings, summarise, with_protocol
    from timesformer_cli.evaluation.score_files import match_scores, own_data_set, read_scores
    from timesformer_cli.files import locked
    from timesformer_cli.runtimes.check import check_options
    from timesformer_cli.runtimes.devices import check_device
    from timesformer_cli.specs import Reading

    check_device(device)
    scores = None if from_predictions is None else read_scores(from_predictions)
    names = None
    if scores is not None:
        names = scores.labels if labels is None else read_file(labels)
    if names is None:
        changes = options.recipe_changes(
            settings, clips=clips, crops=crops, num_frames=num_frames, stride=stride, fps=fps, placement=placement
        )
        checkpoint = options.resolve_model(
            model,
            revision=revision,
            offline=offline,
            weights=weights,
            config=config,
            labels=labels,
            recipe=recipe,
            changes=changes,
            preview=dry_run or scores is not None,  # then its labels are enough
        )
        if recipe is None and "clips" not in changes:
            checkpoint = with_protocol(checkpoint)
        if scores is None:
            check_options(checkpoint, precision=precision, compile=compile, provider=provider)
        names = checkpoint.labels
    named = None if classes is None else list(read_file(classes))
    dataset = None
    if root is None and annotations is None and scores is not None:
        data_set = own_data_set(scores)
    else:
        dataset = open_dataset(
            root,
            annotations,
            format=cast("DatasetFormat", annotations_format),  # it says what it knows
            split=split,
            labels=names,
            label_map=label_map,
            frames=frames,
            classes=named,
            limit=limit,
            seed=seed,
        )
        _tell_problems(dataset, strict=strict)
        data_set = data_set_settings(
            dataset,
            root=None if root is None else str(root),
            annotations=None if annotations is None else str(annotations),
            label_map=None if label_map is None else str(label_map),
            classes=named,
            limit=limit,
            seed=seed,
            frames=frames,
        )
    if min_top1 is not None and data_set["multi_label"]:
        raise UsageError("--min-top1: these videos have several labels each, and so no top-1 accuracy")
    if dry_run and dataset is not None:
        _show_plan(dataset, names)
        return
    about: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = output or Path(stack.enter_context(TemporaryDirectory(prefix="timesformer-")))
        if shard is not None:
            folder = shard.output(folder)
        runfolder.open_folder(folder, overwrite=overwrite, resume=resume)
        stack.enter_context(locked(folder / runfolder.VIDEOS))
        if scores is not None:
            run = match_scores(scores, dataset, names, data_set)
            runfolder.remove_results(folder)
            runfolder.write_records(folder, run.settings, run.records())
        elif dataset is not None:
            about = _evaluate(
                Job(
                    folder=folder,
                    checkpoint=checkpoint,
                    dataset=dataset,
                    data_set=data_set,
                    reading=Reading(
                        decoder=decoder, max_pixels=max_pixels, max_frames=max_frames, frame_rate=frame_rate
                    ),
                    timeout=timeout,
                    workers=options.worker_count(workers),
                    device=device,
                    precision=precision,
                    compile=compile,
                    provider=provider,
                    batch_size=batch_size,
                    shard=shard,
                    resume=resume,
                    retry_errors=retry_errors,
                    fail_fast=fail_fast,
                )
            )
        runfolder.write_problems(folder, dataset.problems if dataset else ())
        run = runfolder.read_run(folder)
        summary = summarise(run, run.measure(top_k or scoreboard.TOP_K)) | about
        if output is not None:
            runfolder.write_results(folder, run, summary, commands(run.settings, len(run.labels)))
    scoreboard.show(summary, as_json=as_json)
    if run.failed and not run.paths:
        raise InputError(f"none of the {len(run.failed)} videos could be read; the first: {_reason(run.failed[0])}")
    scoreboard.require(summary, min_top1)
    if run.failed:
        raise typer.Exit(SOME_FAILED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run needs to know, and where it goes."""

    folder: Path
    checkpoint: "Checkpoint"
    dataset: "Dataset"
    data_set: "Settings"
    reading: "Reading"
    timeout: float
    workers: int
    device: str
    precision: "Precision"
    compile: bool
    provider: "Provider"
    batch_size: int | None
    shard: "Shard | None"
    resume: bool
    retry_errors: bool
    fail_fast: bool

    def settings(self) -> "Settings":
        """What decides about the records."""
        from timesformer_cli.evaluation.folder import weight_checksums
        from timesformer_cli.evaluation.run import EXCERPT
        from timesformer_cli.results.settings import settings_of
        from timesformer_cli.runtimes.pytorch import precision_of

        precision = precision_of(self.checkpoint, self.precision, self.device)
        settings = settings_of(self.checkpoint, EXCERPT, frame_rate=self.reading.frame_rate, precision=precision)
        settings |= {"weights_sha256": weight_checksums(self.checkpoint), "data_set": self.data_set}
        return settings if self.shard is None else settings | {"shard": [self.shard.index, self.shard.count]}

    def about(self, videos: int, seconds: float) -> dict[str, Any]:
        """The part of `metrics.json` that tells on what and how quickly it ran."""
        from timesformer_cli.checkpoints.exported import is_exported
        from timesformer_cli.runtimes import runtime_version
        from timesformer_cli.runtimes.devices import find_device

        versions = {name: version(name) for name in ("timesformer-cli", "numpy", "av")}
        exported = is_exported(self.checkpoint.weights)
        versions |= runtime_version(self.checkpoint) if exported else {"torch": version("torch")}
        return {
            "throughput": {
                "videos": videos,
                "seconds": round(seconds, 3),
                "videos_per_second": round(videos / seconds, 3),
            },
            "run": {
                "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
                **asdict(self.reading),
                "timeout": self.timeout,
                "workers": self.workers,
                "device": self.device if exported else str(find_device(self.device)),
                "compile": self.compile,
                "provider": self.provider,
                "batch_size": self.batch_size or "auto",
                "versions": versions | {"python": platform.python_version()},
            },
        }


def _evaluate(job: Job) -> dict[str, Any]:
    """Score the videos that the folder does not hold yet; what `Job.about` says of it."""
    from timesformer_cli.evaluation import folder as runfolder
    from timesformer_cli.results.journal import Ledger

    # There may be fewer videos than shards.
    ledger = Ledger(job.folder / runfolder.VIDEOS, "jsonl", job.settings(), may_be_empty=True)
    if job.resume:
        ledger.resume(retry_errors=job.retry_errors)
    samples = job.dataset.samples if job.shard is None else job.shard.part_of(job.dataset.samples)
    left = [sample for sample in samples if sample.path not in ledger]
    kept = ledger.past.count
    if not left:
        console.note(f"{job.folder}: holds all {kept:,} videos already" if kept else "there is no video for this shard")
        before = runfolder.read_summary(job.folder)
        ledger.finish()
        return {name: before[name] for name in ("throughput", "run") if name in before}
    seconds = _label(job, left, ledger)
    rate = len(left) / seconds
    speed = f"{rate:.1f} videos a second" if rate >= 1 else f"{60 * rate:.1f} videos a minute"
    before_that = f"; {kept:,} were there already" if kept else ""
    console.note(f"{len(left):,} videos in {console.hours(seconds)}, {speed}{before_that}")
    return job.about(len(left), seconds)


def _label(job: Job, samples: "Sequence[Sample]", ledger: "Ledger") -> float:
    """Score videos as predict does, with the same workers and batches; the seconds that took."""
    from timesformer_cli.evaluation import folder as runfolder
    from timesformer_cli.flow import Item
    from timesformer_cli.pipeline.prepare import prepare_all
    from timesformer_cli.pipeline.score import classify
    from timesformer_cli.pipeline.workers import Limits

    items = [Item(sample.path, bool(job.data_set["frames"])) for sample in samples]
    limits = Limits(timeout=job.timeout)
    with prepare_all(items, job.checkpoint, job.reading, workers=job.workers, limits=limits) as prepared:
        from timesformer_cli.runtimes.batching import choose_batch_size
        from timesformer_cli.runtimes.pytorch import open_scorer

        scorer = open_scorer(
            job.checkpoint,
            device=job.device,
            precision=job.precision,
            compile=job.compile,
            provider=job.provider,
            tell=console.note,
        )
        size = choose_batch_size(job.batch_size, job.device, console.note, scorer)
        runfolder.remove_results(job.folder)
        with ledger, console.progress(len(samples)) as meter:
            results = map(spoken_result, classify(prepared, scorer, job.checkpoint, batch=size))
            _write(zip(samples, results, strict=True), job, ledger, meter)
            return meter.seconds


def _write(results: "Iterable[tuple[Sample, Result]]", job: Job, ledger: "Ledger", meter: console.Meter) -> None:
    """Keep each result as it comes, and tell of failures.

    Raises:
        InputError: one failed, and that was to end the run.
    """
    from timesformer_cli.evaluation.run import record_of

    for sample, result in results:
        record = record_of(result, job.checkpoint, sample.labels)
        failed = record["status"] == "error"
        with meter.step(failed=failed):
            ledger.write(record)
            if failed and not job.fail_fast:
                console.note(f"failed: {_reason(record)}")
        if failed and job.fail_fast:
            raise InputError(f"{_reason(record)}; stopped there")


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


def _reason(record: "Record") -> str:
    return f"{record['path']}: {record['error']['message']}"
