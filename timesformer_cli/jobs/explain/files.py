"""Where explanations go: one file for one video, or a folder with a page for each and an index."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from timesformer_cli.errors import OutputError, UsageError, VideoError
from timesformer_cli.files import check_target, locked, replacing
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.explain import Explained, Job, explain
from timesformer_cli.jobs.explain.page import render, render_index
from timesformer_cli.jobs.explain.pictures import film, no_map, save_arrays, sheet
from timesformer_cli.jobs.reporter import SILENT, Meter, Reporter, Total, in_words
from timesformer_cli.results.journal import Ledger, read_records
from timesformer_cli.results.overlay import Look
from timesformer_cli.results.record import Record, to_record
from timesformer_cli.results.settings import Provenance, provenance_of
from timesformer_cli.runtimes import has_network
from timesformer_cli.specs import Checkpoint

# What one video is explained in, by the ending of the file.
PICTURES = (".html", ".mp4", ".png", ".npz")

RECORDS = "explanations.jsonl"
INDEX = "index.html"

_LONGEST_NAME = 80


def records_of(result: Explained | Failure, checkpoint: Checkpoint) -> list[Record]:
    """The records of a video: one for each label, or that of its failure."""
    if isinstance(result, Failure):
        return [to_record(result, checkpoint)]
    return [each.to_dict() for each in result.explanations]


def check_picture(path: Path, job: Job) -> None:
    """Refuse, before any work, a picture of a map that there will not be. Raises UsageError."""
    ending = path.suffix.lower()
    if ending in (".mp4", ".png") and job.options.method is None and not has_network(job.checkpoint):
        raise no_map(ending.removeprefix("."))


def write_picture(path: Path, explained: Explained, job: Job, look: Look) -> None:
    """Write one of `PICTURES`.

    Raises:
        VideoError: the video, which is read again, cannot be read any more.
        UsageError: there is no map to draw.
        OutputError: the file cannot be written, or a sheet would be too large.
    """
    ending, reading = path.suffix.lower(), job.run.reading
    with replacing(path) as part:
        if ending == ".html":
            part.write_bytes(_encoded(render(explained, job.checkpoint, reading, look, path.parent)))
        elif ending == ".mp4":
            film(part, explained, look, reading)
        elif ending == ".png":
            sheet(explained, job.checkpoint, look).save(part, "png")
        else:
            with part.open("wb") as file:
                save_arrays(file, explained)


def _encoded(page: str) -> bytes:
    return page.encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of pages. `resume` continues an interrupted run with the same settings."""

    path: Path
    overwrite: bool = False
    resume: bool = False
    retry_errors: bool = False

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The file of its records, locked against other runs. Raises UsageError and OutputError."""
        if self.resume and self.overwrite:
            raise UsageError("`resume` and `overwrite` cannot be combined")
        if self.retry_errors and not self.resume:
            raise UsageError("`retry_errors` needs `resume`")
        if not self.path.parent.is_dir():
            raise OutputError(f"{self.path}: the folder {self.path.parent} does not exist; make it first")
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file; name a folder, or a file that ends in {', '.join(PICTURES)}")
        records = self.path / RECORDS
        if (
            self.path.is_dir()
            and any(self.path.iterdir())
            and not (records.exists() and (self.resume or self.overwrite))
        ):
            known = "holds explanations; add `resume` or `overwrite`" if records.exists() else "holds other files"
            raise OutputError(f"{self.path}: {known}, or choose another folder")
        self.path.mkdir(exist_ok=True)
        check_target(records, overwrite=self.overwrite or self.resume)
        with locked(records):
            yield records


@dataclass(slots=True)
class Tally:
    """Counts of videos: `explained` and `kinds` (failures by kind) of this run, `kept` of earlier ones.

    `failed` counts the failures of all runs, and `reason` is the message of the last.
    """

    explained: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    failed: int = 0
    reason: str = ""

    def add(self, result: Explained | Failure) -> None:
        if isinstance(result, Failure):
            self.kinds[result.kind] += 1
            self.failed += 1
            self.reason = f"{result.item.path}: {result.message}"
        else:
            self.explained += 1

    @property
    def count(self) -> int:
        return self.explained + self.kinds.total()


def explain_each(
    job: Job, total: Total, take: Callable[[Explained], None], report: Reporter = SILENT
) -> Iterator[tuple[Explained | Failure, Meter]]:
    """The result of each video, after `take` made its files; a video that cannot be read again has failed.

    Raises:
        TimesformerError: as `explain`; or what `take` raises.
    """
    with explain(job, report.note) as results, report.progress(total(), long=False) as meter:
        for result in results:
            meter.expect(total())
            if isinstance(result, Explained):
                try:
                    take(result)
                except VideoError as error:
                    result = Failure(result.item, error.kind, str(error))
            yield in_words(result, report), meter


def explain_into(folder: Folder, job: Job, total: Total, report: Reporter = SILENT, look: Look = Look()) -> Tally:
    """Write a page for each video that the folder does not hold yet, and the index of all.

    Raises:
        TimesformerError: as `explain`; or the folder cannot be written, or was made with different settings.
    """
    job.check()
    with folder.opened() as path:
        ledger = Ledger(path, "jsonl", provenance(job))
        if folder.resume:
            ledger.resume(retry_errors=folder.retry_errors)
        left = replace(job, items=(item for item in job.items if item.key not in ledger))

        def take(explained: Explained) -> None:
            write_picture(folder.path / page_name(explained.item), explained, left, look)

        tally = Tally(kept=ledger.past.count)
        with ledger:
            for result, meter in explain_each(left, total, take, report):
                with meter.step(failed=isinstance(result, Failure)):
                    ledger.write(_record(result, job.checkpoint))
                    tally.add(result)
                    if isinstance(result, Failure):
                        report.note(f"failed: {tally.reason}")
        tally.failed = ledger.failed
        if tally.count + tally.kept:
            _write_index(folder.path, path, job.checkpoint)
    return tally


def _record(result: Explained | Failure, checkpoint: Checkpoint) -> Record:
    """One record for a video, with the name of its page; further labels are within it."""
    first, *more = records_of(result, checkpoint)
    if isinstance(result, Explained):
        first["page"] = page_name(result.item)
    return first | ({"labels": more} if more else {})


def page_name(item: Item) -> str:
    """The file name of a video's page: the same in each run, and different for videos of one name."""
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in Path(item.path).stem)
    digest = sha256(item.key.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{stem[:_LONGEST_NAME].lstrip('.-') or 'video'}-{digest}.html"


def _write_index(folder: Path, records: Path, checkpoint: Checkpoint) -> None:
    rows: Iterable[dict[str, Any]] = (record for _, record in read_records(records, check=lambda _: None))
    with replacing(folder / INDEX) as part:
        part.write_bytes(_encoded(render_index(rows, checkpoint)))


def provenance(job: Job) -> Provenance:
    """The identity of a run. Reads the weights. Raises DeviceError and InputError."""
    found = provenance_of(
        job.checkpoint,
        None,
        precision=job.run.precision_of(job.checkpoint),
        frame_rate=job.run.reading.frame_rate,
    )
    return replace(found, explained=job.options.to_dict(job.checkpoint.labels))
