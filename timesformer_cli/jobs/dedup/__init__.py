"""Copies among videos, and parts of longer ones: read and hash all, align pairs, and say which to keep.

Nothing is deleted or moved, and no model is needed.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from timesformer_cli.errors import InputError, OutputError, UsageError
from timesformer_cli.files import check_target, locked
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.dedup import hashes
from timesformer_cli.jobs.dedup.groups import Copy, Settings, copies, find_pairs, shared
from timesformer_cli.jobs.reporter import SILENT, Meter, Reporter, in_words, rate
from timesformer_cli.jobs.videos import Videos
from timesformer_cli.pipeline.fingerprinted import Fingerprinted, Reached, fingerprint_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Reading
from timesformer_cli.text import duration, plural
from timesformer_cli.video.addresses import is_address, local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The videos, and `against` which they are compared: those are not compared with each other.

    The hashes are kept beside `output`, and `resume` takes those of an earlier run.
    """

    videos: Videos
    against: Videos | None = None
    settings: Settings = Settings()
    reading: Reading = Reading()
    limits: Limits = Limits()
    workers: int | None = None
    output: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def check(self) -> None:
        """Check, before any work is done, that the output can be written. Raises UsageError and OutputError."""
        if self.resume and self.overwrite:
            raise UsageError("`resume` and `overwrite` cannot be combined")
        if self.output is None:
            if self.resume or self.overwrite:
                raise UsageError(f"`{'resume' if self.resume else 'overwrite'}` needs `output`")
            return
        check_target(self.output, overwrite=self.resume or self.overwrite, ways="`resume` or `overwrite`")
        beside = hashes.hashes_of(self.output)
        if beside.exists() and not (self.resume or self.overwrite):
            raise OutputError(
                f"{beside}: holds the hashes of an earlier run; `resume` takes them, `overwrite` reads all videos again"
            )

    def lock(self) -> ExitStack:
        """Keeps other runs away from the output. Raises OutputError if another run has it."""
        stack = ExitStack()
        if self.output is not None and self.output.parent.is_dir():
            stack.enter_context(locked(self.output))
        return stack


@dataclass(slots=True)
class Found:
    """The rows, and counts of videos: those compared, those with hashes of earlier runs, and those that failed."""

    rows: list[Copy] = field(default_factory=list)
    videos: int = 0
    kept: int = 0
    failed: int = 0
    reason: str = ""


def dedup(job: Job, report: Reporter = SILENT) -> Found:
    """Find the copies. The caller writes the rows.

    Raises:
        InputError: there is no video, or none can be read.
        TimesformerError: as for reading; or the hashes cannot be written.
    """
    found = Found()
    with hashes.opened(job.output, job.reading, resume=job.resume) as kept:
        seen: set[str] = set()
        ours = list(_read(job, _new(job.videos, seen, report), kept, found, report))
        theirs: list[Fingerprinted] = []
        if job.against is not None:
            theirs = list(_read(job, _new(job.against, seen, report), kept, found, report))
    found.videos = len(ours) + len(theirs)
    if not found.videos + found.failed:
        raise InputError("no video to compare: the list of paths is empty")
    if not ours or (found.failed and not theirs and job.against is not None):
        side = " of `against`" if ours else ""
        raise InputError(f"none of {plural(found.failed, 'video')}{side} could be read; see the reasons above")
    videos = [*ours, *theirs]
    if job.against is None:
        found.rows = copies(videos, list(find_pairs(videos, job.settings)))
    else:
        sides = np.arange(len(videos)) >= len(ours)
        found.rows = shared(videos, list(find_pairs(videos, job.settings, sides)), sides)
    return found


def _new(videos: Videos, seen: set[str], report: Reporter) -> list[Item]:
    """The videos that are not yet `seen`, perhaps by the name of a link: a file is no copy of itself."""
    new: list[Item] = []
    count = 0
    for item in videos.items:
        path = local_path(item.location)
        place = path if is_address(path) else os.path.realpath(path)
        count += 1
        if place not in seen:
            seen.add(place)
            new.append(item)
    if count > len(new):
        report.note(f"{plural(count - len(new), 'video')} of `against` left out: the inputs have it too")
    return new


def _read(
    job: Job, items: Sequence[Item], kept: hashes.Kept, found: Found, report: Reporter
) -> Iterator[Fingerprinted]:
    """The fingerprints of the videos in order; those of earlier runs are not made again."""
    left: list[Item] = []
    places: list[Fingerprinted | None] = []
    for item in items:
        before = kept.find(item)
        places.append(None if before is None else replace(before, item=item))
        if before is None:
            left.append(item)
    found.kept += len(places) - len(left)
    workers = available_cores() if job.workers is None else job.workers
    with ExitStack() as stack:
        results: Iterable[Fingerprinted | Reached | Failure] = ()
        if left:
            results = stack.enter_context(
                fingerprint_all(left, job.reading, workers=min(workers, len(left)), limits=job.limits)
            )
        meter = stack.enter_context(report.progress(len(left), long=True))
        fresh = _fresh(iter(results), meter, kept, found, report)
        for place in places:
            video = next(fresh) if place is None else place
            if video is not None:
                yield video
        if len(left) > 1:
            length = f"read {plural(len(left), 'video')} in {duration(meter.seconds)}, "
            report.note(length + rate(len(left), meter.seconds, "videos "))


def _fresh(
    results: Iterator[Fingerprinted | Reached | Failure],
    meter: Meter,
    kept: hashes.Kept,
    found: Found,
    report: Reporter,
) -> Iterator[Fingerprinted | None]:
    """Each video as it is read; None for one that failed."""
    for result in results:
        if isinstance(result, Reached):
            meter.reach(result.item.path, result.seconds, result.duration)
            continue
        with meter.step(failed=isinstance(result, Failure)):
            if isinstance(result, Failure):
                found.failed += 1
                found.reason = f"{result.item.path}: {in_words(result, report).message}"
                report.note(f"failed: {found.reason}")
            else:
                kept.add(result)
        yield None if isinstance(result, Failure) else result
