"""Evaluate a model, or a file of scores, on a labelled dataset; write the folder of the run."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timesformer_cli.checkpoints.folder import MODEL_OF_RUN
from timesformer_cli.datasets import Dataset, Sample
from timesformer_cli.errors import InputError
from timesformer_cli.evaluation import calibration_file
from timesformer_cli.evaluation import folder as folders
from timesformer_cli.evaluation.neighbours import MOST, NEIGHBOURS
from timesformer_cli.evaluation.report import worst
from timesformer_cli.evaluation.run import EXCERPT, Run, record_of, summarise
from timesformer_cli.evaluation.score_files import Scores, match_scores
from timesformer_cli.files import locked
from timesformer_cli.flow import Item, Result
from timesformer_cli.jobs import calibrate
from timesformer_cli.jobs.reporter import SILENT, Meter, Reporter, in_words, rate
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import label
from timesformer_cli.results.journal import Ledger
from timesformer_cli.results.record import Record, part_of
from timesformer_cli.results.settings import Provenance, Shard, provenance_of
from timesformer_cli.runtimes import has_network, runtime_of
from timesformer_cli.runtimes.ports import Output
from timesformer_cli.specs import Activation, Checkpoint, Groups
from timesformer_cli.text import duration, named, plural

# The folder, in that of a run, of pages that explain its mistakes.
EXPLAINED = "explained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The folder of a run; None: nothing is kept.

    `resume`: continue an interrupted run with the same settings; with `retry_errors`, also retry videos that failed.
    `repeat` gives the commands, for the report, that repeat a run of this provenance and number of classes.
    """

    folder: Path | None = None
    overwrite: bool = False
    resume: bool = False
    retry_errors: bool = False
    repeat: Callable[[Provenance, int], Sequence[str]] = lambda provenance, labels: ()

    @contextmanager
    def opened(self, shard: Shard | None = None) -> Iterator[Path]:
        """The folder, locked against other runs. Raises OutputError."""
        with TemporaryDirectory(prefix="timesformer-") as scratch:
            folder = self.folder or Path(scratch)
            folder = folder if shard is None else shard.output(folder)
            folders.open_folder(folder, overwrite=self.overwrite, resume=self.resume)
            with locked(folder / folders.VIDEOS):
                yield folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model, a dataset, and how to evaluate the one on the other.

    `settings` of the dataset are those of `dataset_settings`. With `fail_fast`, the first video that fails ends the
    run. `top_k` are the accuracies to report. `explained`: how many of the worst mistakes get an explanation.
    `calibrated_by` says how the sources of videos are found if the model is also calibrated, as `finetune.groups.group`
    takes it; None: it is not.
    """

    checkpoint: Checkpoint
    dataset: Dataset
    settings: Mapping[str, Any]
    run: RunOptions = RunOptions()
    keeping: Keeping = Keeping()
    shard: Shard | None = None
    fail_fast: bool = False
    top_k: Sequence[int] = (1, 5)
    explained: int = 0
    calibrated_by: str | None = None

    @property
    def scores(self) -> Output:
        """What the network gives: vectors too, at almost no cost, if it can and the report compares them."""
        compared = not self.settings["multi_label"] and NEIGHBOURS < len(self.dataset.samples) <= MOST
        return "both" if compared and has_network(self.checkpoint) else "logits"

    def provenance(self) -> Provenance:
        """The identity of the run. Reads the weights. Raises DeviceError and InputError."""
        return provenance_of(
            self.checkpoint,
            EXCERPT,
            precision=self.run.precision_of(self.checkpoint),
            frame_rate=self.run.reading.frame_rate,
            data_set=self.settings,
            shard=self.shard,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run, and its metrics: the content of `metrics.json`."""

    run: Run
    metrics: dict[str, Any]


def evaluate(job: Job, report: Reporter = SILENT) -> Summary:
    """Score all videos that the folder does not hold yet, and measure the whole run.

    Raises:
        TimesformerError: no model, no device, a folder that cannot be written; videos that do not serve to calibrate
            the model; or a video failed, with `fail_fast`.
    """
    calibrate.refuse_own_folder(job.checkpoint, job.keeping.folder)
    if job.calibrated_by is not None:
        calibrate.check(job.checkpoint, job.dataset)
    with job.keeping.opened(job.shard) as folder:
        about = _score(job, folder, report)
        return _summarise(
            folder,
            job.dataset,
            job.keeping,
            job.top_k,
            about,
            calibrated=lambda run: _calibrate(run, job, folder / MODEL_OF_RUN),
            explain=lambda run: _explain(job, run, folder, report),
        )


def _calibrate(run: Run, job: Job, target: Path) -> dict[str, Any]:
    """Write the calibrated model, if that is asked for, and return the part of `metrics.json` about it."""
    if job.calibrated_by is None:
        return {}
    found, rule = calibrate.of_run(run, job.dataset.samples, job.calibrated_by)
    figures = calibration_file.figures(found, grouped_by=rule)
    calibrate.write(target, job.checkpoint, run, found, figures)
    return {"calibration": figures | {"model": str(target)}}


def evaluate_scores(
    scores: Scores,
    dataset: Dataset | None,
    names: Sequence[str],
    settings: Mapping[str, Any],
    *,
    activation: Activation = "softmax",
    groups: Groups | None = None,
    keeping: Keeping = Keeping(),
    top_k: Sequence[int] = (1, 5),
) -> Summary:
    """Measure the scores of a file. Without a `dataset`, the labels of its videos are in the file too.

    `activation` makes scores of logits, and `groups` classes of the labels, which `names` has.

    Raises:
        InputError: the scores do not match the dataset or the names.
        OutputError: the folder cannot be written.
    """
    with keeping.opened() as folder:
        run = match_scores(scores, dataset, names, settings, activation, groups)
        folders.remove_results(folder)
        folders.write_records(folder, run.provenance, run.records())
        return _summarise(folder, dataset, keeping, top_k, {})


def _summarise(
    folder: Path,
    dataset: Dataset | None,
    keeping: Keeping,
    top_k: Sequence[int],
    about: dict[str, Any],
    *,
    calibrated: Callable[[Run], dict[str, Any]] = lambda _: {},
    explain: Callable[[Run], Mapping[str, str]] = lambda _: {},
) -> Summary:
    folders.write_problems(folder, dataset.problems if dataset else ())
    run = folders.read_run(folder)
    metrics = summarise(run, run.measure(top_k)) | about | calibrated(run)
    if keeping.folder is not None:
        commands = keeping.repeat(run.provenance, len(run.labels))
        folders.write_results(folder, run, metrics, commands, explain(run))
    return Summary(run, metrics)


def _explain(job: Job, run: Run, folder: Path, report: Reporter) -> dict[str, str]:
    """Explain the worst mistakes: the answer, and what is right. The addresses of the pages, by the videos' keys."""
    rows = worst(run, job.explained) if job.explained else []
    if not rows:
        return {}
    from timesformer_cli.jobs.explain import Job as Explaining  # loads torch
    from timesformer_cli.jobs.explain.files import Folder, explain_into, page_name

    frames = bool(job.settings["frames"])
    answers = run.best[0] if run.multi_label else run.outcomes.predicted
    items = [Item(run.paths[row], frames, start=run.part(row)[0], end=run.part(row)[1]) for row in rows]
    right = {item.key: run.targets[row] for item, row in zip(items, rows, strict=True)}
    given = {item.key: int(answers[row]) for item, row in zip(items, rows, strict=True)}
    explaining = Explaining(
        checkpoint=job.checkpoint,
        items=items,
        run=replace(job.run, cluster=None),
        contrast=True,
        own={key: (given[key], *targets) for key, targets in right.items()},
    )
    report.note(f"explaining {plural(len(items), 'mistake')}")
    explain_into(Folder(path=folder / EXPLAINED, overwrite=True), explaining, lambda: len(items), report)
    pages = {item.key: page_name(item) for item in items}
    return {key: f"{EXPLAINED}/{name}" for key, name in pages.items() if (folder / EXPLAINED / name).exists()}


def _score(job: Job, folder: Path, report: Reporter) -> dict[str, Any]:
    """Write a record of each video, and return the part of `metrics.json` about the machine and the speed."""
    # There may be fewer videos than shards.
    ledger = Ledger(folder / folders.VIDEOS, "jsonl", job.provenance(), may_be_empty=True)
    if job.keeping.resume:
        ledger.resume(retry_errors=job.keeping.retry_errors)
    samples = job.dataset.samples if job.shard is None else job.shard.part_of(job.dataset.samples)
    left = [sample for sample in samples if sample.key not in ledger]
    kept = ledger.past.count
    if not left:
        report.note(f"{folder}: already holds all {kept:,} videos" if kept else "there is no video for this shard")
        before = folders.read_summary(folder)
        ledger.finish()
        return {name: before[name] for name in ("throughput", "run") if name in before}
    frames = bool(job.settings["frames"])
    items = [sample.item(frames=frames) for sample in left]
    with score_all(items, job.checkpoint, job.run, output=job.scores, tell=report.note) as scored:
        folders.remove_results(folder)
        with ledger, report.progress(len(left)) as meter:
            _write(zip(left, label(scored, job.checkpoint), strict=True), job, ledger, meter, report)
            seconds = meter.seconds
    before_that = f"; {kept:,} done before" if kept else ""
    speed = rate(len(left), seconds, "videos ")
    report.note(f"{len(left):,} videos in {duration(seconds)}, {speed}{before_that}")
    return _about(job, len(left), seconds)


def _write(results: Iterable[tuple[Sample, Result]], job: Job, ledger: Ledger, meter: Meter, report: Reporter) -> None:
    """Write each result as it comes, and report failures.

    Raises:
        InputError: a video failed, with `fail_fast`.
    """
    for sample, result in results:
        record = record_of(in_words(result, report), job.checkpoint, sample.labels)
        failed = record["status"] == "error"
        with meter.step(failed=failed):
            ledger.write(record)
            if failed and not job.fail_fast:
                report.note(f"failed: {reason_of(record)}")
        if failed and job.fail_fast:
            raise InputError(f"{reason_of(record)}; stopped there")


def reason_of(record: Record) -> str:
    """Why a video failed, with its path, and the part of it."""
    return f"{named(record['path'], *part_of(record))}: {record['error']['message']}"


def _about(job: Job, videos: int, seconds: float) -> dict[str, Any]:
    return {
        "throughput": {
            "videos": videos,
            "seconds": round(seconds, 3),
            "videos_per_second": round(videos / seconds, 3),
        },
        "run": conditions_of(job.run, job.checkpoint),
    }


def conditions_of(run: RunOptions, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `metrics.json` has as "run": when and on what a run was made, and how videos were read."""
    runtime = runtime_of(checkpoint)
    versions = {name: version(name) for name in ("timesformer-cli", "numpy", "av")}
    return {
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        **asdict(run.reading),
        "timeout": run.limits.timeout,
        "workers": run.processes,
        "device": runtime.device_name(run.device),
        "compile": run.compile,
        "provider": run.provider,
        "batch_size": run.batch_size or "auto",
        "versions": {**versions, **runtime.versions(checkpoint), "python": platform.python_version()},
    }
