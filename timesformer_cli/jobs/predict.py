"""Videos to records: label or embed them, write the records as they come, report failures, and count."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

from timesformer_cli.errors import InputError
from timesformer_cli.flow import Embedded, Embedding, Failure, Prediction, Result, Scored
from timesformer_cli.jobs.output import Output
from timesformer_cli.jobs.reporter import SILENT, Meter, Reporter, in_words
from timesformer_cli.jobs.videos import Videos
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import embed, label
from timesformer_cli.results.copies import Sorter
from timesformer_cli.results.formats.page.films import MOST_FILMS, Films
from timesformer_cli.results.journal import Ledger
from timesformer_cli.results.record import Excerpt, Record, origin_of, to_record, to_vectors
from timesformer_cli.results.settings import Feature, Provenance, Shard, VectorKind, provenance_of
from timesformer_cli.results.writers import Writer
from timesformer_cli.runtimes.ports import Output as Scores
from timesformer_cli.specs import Checkpoint, Timeline
from timesformer_cli.text import plural
from timesformer_cli.video.addresses import is_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The videos to label, the model, and the output.

    If the output is a file of vectors, or one is beside it, `vectors` says which; without labels, `excerpt` is unused.
    `sorter` also puts each labelled video into a folder. With `fail_fast`, the first failure ends the run.
    `on_screen`: the results are a table on the terminal, which shows failures too.
    """

    checkpoint: Checkpoint
    videos: Videos
    run: RunOptions = RunOptions()
    output: Output = Output()
    excerpt: Excerpt = Excerpt()
    vectors: VectorKind | None = None
    timeline: Timeline | None = None
    shard: Shard | None = None
    sorter: Sorter | None = None
    fail_fast: bool = False
    on_screen: bool = False

    def provenance(self) -> Provenance:
        """The identity of the run. Reads the weights. Raises DeviceError and InputError."""
        labelled = not self.output.vectors
        provenance = provenance_of(
            self.checkpoint,
            self.excerpt if labelled else None,
            precision=self.run.precision_of(self.checkpoint),
            frame_rate=self.run.reading.frame_rate,
            timeline=self.timeline,
            vectors=self.vectors,
            shard=self.shard,
        )
        return provenance if labelled else replace(provenance, labels=())

    @property
    def scores(self) -> Scores:
        """What the network is to give."""
        if self.vectors is None:
            return "logits"
        return SCORES[self.vectors.feature] if self.output.vectors else "both"

    @property
    def verb(self) -> str:
        return "embedded" if self.output.vectors else "labelled"


# What the network gives for each feature.
SCORES: Mapping[Feature, Scores] = {"cls": "embedding", "mean": "mean", "frames": "frames"}


@dataclass(slots=True)
class Tally:
    """Counts of videos: those of this run and, with `resume`, those of earlier runs.

    `labelled` and `kinds` (failures by kind) are of this run, `kept` are records of earlier runs, `all_failed` are the
    failures of all runs. `video` is how many seconds of video were labelled, and `seconds` how long that took. `reason`
    is the message of the last failure. `remote` videos are at addresses and so could not be sorted into folders.
    """

    labelled: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    video: float = 0.0
    seconds: float = 0.0
    kept: int = 0
    all_failed: int = 0
    reason: str = ""
    remote: int = 0

    @property
    def failed(self) -> int:
        return self.kinds.total()


def open_ledger(job: Job) -> tuple[Ledger | None, Videos]:
    """The ledger of the output with the results of earlier runs (None if it cannot be resumed), and the videos left.

    Raises:
        OutputError: the output was made with different settings, or not by a run.
    """
    if not job.output.durable:
        return None, job.videos
    ledger = job.output.ledger(job.provenance())
    return ledger, job.videos.left(ledger)


def nothing_left(job: Job, ledger: Ledger | None, videos: Videos, report: Reporter) -> Tally | None:
    """The tally of earlier runs if they did everything, else None."""
    if ledger is None or videos.total() != 0 or not (ledger.past.count or job.output.may_be_empty):
        return None
    if ledger.past.count:
        report.note(f"{job.output.path}: nothing to do: it holds all {ledger.past.count} videos already")
    return Tally(kept=ledger.past.count, all_failed=ledger.failed)


def predict(job: Job, report: Reporter = SILENT) -> Tally:
    """Label all videos that the output does not hold. If it ends early, the records written so far are whole.

    Raises:
        TimesformerError: no model, no device, an output that cannot be written; or a video failed, with `fail_fast`.
    """
    ledger, videos = open_ledger(job)
    if ledger is not None and (done := nothing_left(job, ledger, videos, report)) is not None:
        ledger.finish()
        return done
    with ExitStack() as stack:
        into: AbstractContextManager[Writer | Ledger] = _writer(job) if ledger is None else ledger
        writer = stack.enter_context(into)
        scored = stack.enter_context(
            score_all(
                videos.items,
                job.checkpoint,
                job.run,
                timeline=job.timeline,
                thumbnails="frames" if job.output.format == "html" else None,
                output=job.scores,
                tell=report.note,
            )
        )
        _describe(job.checkpoint, report, labelled=not job.output.vectors)
        tally = _write(job, videos, scored, writer, report)
    if ledger is not None:
        tally.kept, tally.all_failed = ledger.past.count, ledger.failed
    return tally


def _writer(job: Job) -> AbstractContextManager[Writer]:
    """The writer of an output that cannot be resumed."""
    if job.output.vectors:
        assert job.vectors is not None
        return job.output.vector_writer(job.vectors)
    return job.output.writer(origin_of(job.checkpoint))


def _describe(checkpoint: Checkpoint, report: Reporter, *, labelled: bool) -> None:
    report.detail(f"model {checkpoint.name} ({checkpoint.source}): {len(checkpoint.labels)} classes")
    report.detail(f"recipe {checkpoint.recipe.name}: {checkpoint.sampling}; {checkpoint.preprocess}")
    if labelled and checkpoint.labels[0] == "LABEL_0":
        report.note(f"{checkpoint.name} does not name its classes; give their names with `labels_file=FILE`")


def _write(
    job: Job, videos: Videos, scored: Iterable[Scored | Failure], writer: Writer | Ledger, report: Reporter
) -> Tally:
    tally, films = Tally(), Films()
    with report.progress(videos.total(), long=job.timeline is not None) as meter:
        for result in _results(job, _reached(scored, meter) if job.timeline else scored):
            meter.expect(videos.total())
            failed = isinstance(result, Failure)
            with meter.step(failed=failed):
                result = in_words(result, report)
                record = films.limited(_record(job, result))
                if isinstance(result, Failure):
                    tally.kinds[result.kind] += 1
                    tally.reason = f"{result.item.path}: {result.message}"
                    _write_failure(job, videos, record, tally.reason, writer, report)
                else:
                    _write_label(job, result, record, tally, writer)
                if isinstance(writer, Ledger) and (warning := writer.warning()) is not None:
                    report.note(warning)
            if failed and job.fail_fast:
                raise InputError(f"{tally.reason}; stopped there, with {plural(tally.labelled, 'video')} {job.verb}")
        tally.seconds = meter.seconds
    if films.too_many:
        report.note(
            f"browsers do not play {films.count:,} of the videos or segments; the page moves the frames of the first "
            f"{MOST_FILMS} and shows stills of the rest"
        )
    tally.all_failed = tally.failed
    return tally


def _results(job: Job, scored: Iterable[Scored | Failure]) -> Iterator[Result | Embedded]:
    return embed(scored, job.checkpoint) if job.output.vectors else label(scored, job.checkpoint)


def _record(job: Job, result: Result | Embedded) -> Record:
    if isinstance(result, Embedding) or job.output.vectors:
        assert not isinstance(result, Prediction)
        return to_vectors(result, job.checkpoint, segments=job.timeline is not None)
    return to_record(result, job.checkpoint, job.excerpt)


def _reached(scored: Iterable[Scored | Failure], meter: Meter) -> Iterator[Scored | Failure]:
    """Passes everything on, and reports to the meter the time reached within each video."""
    for each in scored:
        if isinstance(each, Scored):
            meter.reach(each.item.path, each.span.end - each.info.start, each.info.duration)
        yield each


def _write_label(
    job: Job, result: Prediction | Embedding, record: Record, tally: Tally, writer: Writer | Ledger
) -> None:
    tally.labelled += 1
    tally.video += result.info.duration
    if job.sorter is not None:  # before writing, so that a resumed run repeats it after a stop
        job.sorter.place(record)
        tally.remote += is_address(record["path"])
    writer.write(record)


def _write_failure(
    job: Job, videos: Videos, record: Record, reason: str, writer: Writer | Ledger, report: Reporter
) -> None:
    # Report it once: the table on the screen shows it, and so does the last line of a run of one video.
    last = videos.total() == 1 or job.fail_fast
    if last and job.on_screen:
        return
    writer.write(record)
    if not last and not job.on_screen:
        report.note(f"failed: {reason}")
