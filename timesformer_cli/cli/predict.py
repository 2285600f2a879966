"""`timesformer predict`: label videos."""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import OUTPUT, RUN, Talk, positive
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Inputs, Limit
from timesformer_cli.cli.options.model import Model
from timesformer_cli.cli.options.output import FORMAT_HELP, FormatName, Journal
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running, Sharing
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.errors import SOME_FAILED, InputError, OutputError, UsageError
from timesformer_cli.jobs.reporter import rate
from timesformer_cli.text import duration, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from timesformer_cli.jobs.predict import Job, Tally
    from timesformer_cli.results.copies import Sorter
    from timesformer_cli.results.journal import Beside
    from timesformer_cli.results.record import Excerpt
    from timesformer_cli.specs import Checkpoint, Timeline

TIMELINE = "Timeline"

HELP = """Label videos with their most likely classes and scores.

Writes one record per video, in the order of the inputs. A video that cannot be read gets a record with the reason, \
and the run continues.

Exit codes: 0 all videos labelled; 1 the run failed, or no video could be read; 2 wrong usage; 3 some videos failed; \
130 stopped by Ctrl-C; 143 stopped by SIGTERM. Finished results are kept, and --resume continues the run.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How many labels, in which format."""

    top_k: Annotated[
        int,
        typer.Option(
            "--top-k",
            "-k",
            metavar="K",
            min=1,
            help="Number of labels per video; a K above the number of classes means all.",
            rich_help_panel=OUTPUT,
        ),
    ] = 5
    format: Annotated[
        FormatName,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=FORMAT_HELP,
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Which scores are written, and what else is kept."""

    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", metavar="SCORE", help="Leave out labels with a lower score.", rich_help_panel=OUTPUT
        ),
    ] = None
    raw_logits: Annotated[
        bool,
        typer.Option(
            "--raw-logits",
            help="Write scores as the mean logits of the views, without softmax or sigmoid.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    save_logits: Annotated[
        Path | None,
        typer.Option(
            "--save-logits",
            metavar="PATH",
            help="With --output: also save the mean logits of all classes to this .npz or .parquet file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    copy_to: Annotated[
        str | None,
        typer.Option(
            "--copy-to",
            metavar="DIR/{label}",
            help="Copy each video into the folder of its top label; existing files are never overwritten.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    link: Annotated[
        bool,
        typer.Option("--link", help="With --copy-to: make symbolic links instead of copies.", rich_help_panel=OUTPUT),
    ] = False

    def apply(self, checkpoint: "Checkpoint") -> "Checkpoint":
        """The model, set to the scores that the options ask for."""
        from timesformer_cli.checkpoints.recipes import with_overrides

        return with_overrides(checkpoint, fields={"combine": "raw_logits"} if self.raw_logits else {})

    def check(self, inputs: Inputs) -> None:
        """Check, before any work is done, that videos can be sorted. Raises UsageError and OutputError."""
        if self.copy_to is None:
            if self.link:
                raise UsageError("--link needs --copy-to, which names the folders")
            return
        from timesformer_cli.results.copies import check_folders

        check_folders(self.copy_to)
        _check_not_inside(self.copy_to, inputs.sources)

    def beside(self) -> "Beside":
        """The files that are written beside the output."""
        from timesformer_cli.results.journal import Beside

        return Beside(self.save_logits)

    def sorter(self, checkpoint: "Checkpoint") -> "Sorter | None":
        from timesformer_cli.results.copies import Sorter

        if self.copy_to is None:
            return None
        return Sorter(self.copy_to, checkpoint.labels, link=self.link, tell=console.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Labels for the segments of a video."""

    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline",
            help="Label each segment of a long video instead of the video as a whole.",
            rich_help_panel=TIMELINE,
        ),
    ] = False
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="SECONDS",
            parser=positive,
            help="Length of a segment in seconds; by default the length of one clip of the model.",
            rich_help_panel=TIMELINE,
        ),
    ] = None
    hop: Annotated[
        float | None,
        typer.Option(
            "--hop",
            metavar="SECONDS",
            parser=positive,
            help="Seconds between segment starts; by default the length of a segment, so that none overlap.",
            rich_help_panel=TIMELINE,
        ),
    ] = None
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Merge adjacent segments with the same top label, averaging scores.",
            rich_help_panel=TIMELINE,
        ),
    ] = False

    def check(self) -> None:
        """Raises UsageError."""
        if not self.timeline and (self.window is not None or self.hop is not None or self.merge):
            raise UsageError("--window, --hop and --merge need --timeline")

    def of(self, checkpoint: "Checkpoint") -> "Timeline | None":
        """Raises UsageError."""
        from timesformer_cli.checkpoints.recipes import timeline_of

        return timeline_of(checkpoint, length=self.window, hop=self.hop) if self.timeline else None


def _excerpt(shown: Shown, extras: Extras, segments: Segments) -> "Excerpt":
    """What a record shows of a prediction."""
    from timesformer_cli.results.record import Excerpt

    return Excerpt(
        top_k=shown.top_k,
        threshold=extras.threshold,
        merge=segments.merge,
        logits=extras.save_logits is not None,
        segments=segments.timeline,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much of the work is done here."""

    limit: Limit = None
    sharing: Sharing
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the videos to read, with the model and views to use; label nothing.",
            rich_help_panel=RUN,
        ),
    ] = False


@bundled
def predict(
    inputs: Inputs,
    model: Model,
    shown: Shown,
    journal: Journal,
    extras: Extras,
    segments: Segments,
    views: ViewOptions,
    reading: ReadingOptions,
    running: Running,
    scope: Scope,
    talk: Talk,
) -> None:
    talk.choose()
    inputs.require("label")
    segments.check()
    cluster = scope.sharing.cluster

    from timesformer_cli.jobs.predict import Job
    from timesformer_cli.jobs.predict import predict as label_all

    output = journal.target(shown.format, extras.beside())
    shard = scope.sharing.shard
    if shard is not None:
        output = output.of_shard(shard)
    with ExitStack() as stack:
        if not scope.dry_run:
            stack.enter_context(output.lock())
        output.check()
        extras.check(inputs)
        videos = inputs.find(frames=reading.frames, limit=scope.limit, shard=shard)
        if output.format in ("srt", "vtt") and videos.total() != 1:
            count = videos.total() or "perhaps more"
            raise UsageError(f"{output.format}: subtitles are for one video, and there are {count}")
        checkpoint = extras.apply(model.resolve(views, preview=scope.dry_run))
        timeline = segments.of(checkpoint)
        run = running.options(reading, cluster)
        run.check(checkpoint)
        job = Job(
            checkpoint=checkpoint,
            videos=videos,
            run=run,
            output=output,
            excerpt=_excerpt(shown, extras, segments),
            timeline=timeline,
            shard=shard,
            sorter=extras.sorter(checkpoint),
            fail_fast=scope.sharing.fail_fast,
            on_screen=output.format == "table" and output.path is None and sys.stdout.isatty(),
        )
        if scope.dry_run:
            _show_plan(job)
            return
        tally = label_all(job, console)
    summarise(tally)
    if tally.remote:
        verb = "linked" if extras.link else "copied"
        console.note(f"{tally.remote:,} of them are at remote addresses and were not {verb}")
    _end(tally, may_be_empty=output.may_be_empty)


def _check_not_inside(template: str, sources: list[str]) -> None:
    """Raises UsageError if the copies would be among the inputs, so that a later run would label them too."""
    from timesformer_cli.video.addresses import local_path

    fixed, label, _ = template.partition("{label}")
    folder = Path(os.path.dirname(fixed) if label else fixed).resolve()
    for source in sources:
        path, deep, _ = local_path(source).partition("**")  # ** stands for all folders below
        searched = Path(os.path.dirname(path) if deep else path)
        if searched.is_dir() and folder.is_relative_to(searched.resolve()):
            raise UsageError(
                f"{template}: is inside {source}, so later runs would label the copies too; choose another folder"
            )


def _show_plan(job: "Job") -> None:
    """Print the paths on standard output, and the model and views on standard error."""
    from timesformer_cli.jobs.predict import nothing_left, open_ledger

    ledger, videos = open_ledger(job)
    if (tally := nothing_left(job, ledger, videos, console)) is not None:
        _end(tally, may_be_empty=job.output.may_be_empty)
        return
    checkpoint, timeline, output = job.checkpoint, job.timeline, job.output
    spec = checkpoint.sampling
    count = _print_paths(item.path for item in videos.items)
    clips = "enough clips to cover the video, at most 10," if spec.clips is None else plural(spec.clips, "clip")
    parts = (
        ""
        if timeline is None
        else f" of segments of {timeline.length:g} s, one every {timeline.hop or timeline.length:g} s"
    )
    console.note(f"{plural(count, 'video')} to label with {checkpoint.name} ({checkpoint.source})")
    console.note(
        f"views{parts}: {clips} of {spec.num_frames} frames, {plural(checkpoint.preprocess.crops, 'crop')} of "
        f"{checkpoint.preprocess.size[1]} x {checkpoint.preprocess.size[0]} pixels; recipe {checkpoint.recipe.name}"
    )
    console.note(f"results as {output.format} to {'standard output' if output.path is None else output.path}")


def _print_paths(paths: "Iterable[str]") -> int:
    """Print one path per line, in a pipe byte for byte so that --from-file can read them; returns their number.

    Raises:
        OutputError: standard output cannot be written.
    """
    shown = printable if sys.stdout.isatty() else str
    count = 0
    try:
        for path in paths:
            sys.stdout.buffer.write(os.fsencode(shown(path)) + b"\n")
            count += 1
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error
    return count


def summarise(tally: "Tally") -> None:
    """Print how many videos there were and the speed; nothing for a single video."""
    count = tally.labelled + tally.failed
    if not tally.seconds or (count < 2 and not tally.kept):
        return
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in tally.kinds.most_common())
    text = f"{count:,} videos: {tally.labelled:,} labelled"
    text += f", {tally.failed:,} failed ({kinds})" if tally.failed else ""
    text += f"; {tally.kept:,} done before" if tally.kept else ""
    if tally.labelled:
        speed = rate(count, tally.seconds, "videos ")
        text += f"; {duration(tally.video)} of video in {duration(tally.seconds)}, {speed}"
    console.note(text)


def _end(tally: "Tally", *, may_be_empty: bool) -> None:
    """End with the exit code for the results, including those kept from earlier runs.

    Raises:
        InputError: there was no video, or none could be read.
    """
    count = tally.labelled + tally.failed
    if count + tally.kept == 0:
        if may_be_empty:
            console.note("there are fewer videos than shards, so this shard has none")
            return
        raise InputError("no video to label: the list of paths is empty")
    if count and tally.failed == count and tally.all_failed >= count + tally.kept:
        raise InputError(tally.reason if count == 1 else f"none of the {count} videos could be read")
    if tally.all_failed:
        raise typer.Exit(SOME_FAILED)
