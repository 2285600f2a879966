"""What commands that go through videos share: how much is done here, the plan of a dry run, and the last lines."""

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import RUN
from timesformer_cli.cli.options.inputs import Limit
from timesformer_cli.cli.options.run import Sharing
from timesformer_cli.errors import SOME_FAILED, InputError, OutputError
from timesformer_cli.jobs.reporter import rate
from timesformer_cli.text import duration, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from timesformer_cli.jobs.predict import Job, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much of the work is done here."""

    limit: Limit = None
    sharing: Sharing
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the videos to read, with the model and views to use; process nothing.",
            rich_help_panel=RUN,
        ),
    ] = False


def show_plan(job: "Job") -> None:
    """Print the paths on standard output, and the model and views on standard error."""
    from timesformer_cli.jobs.predict import nothing_left, open_ledger

    ledger, videos = open_ledger(job)
    if (tally := nothing_left(job, ledger, videos, console)) is not None:
        end(tally, may_be_empty=job.output.may_be_empty)
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
    verb = "embed" if output.vectors else "label"
    console.note(f"{plural(count, 'video')} to {verb} with {checkpoint.name} ({checkpoint.source})")
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


def summarise(tally: "Tally", verb: str = "labelled") -> None:
    """Print how many videos there were and the speed; nothing for a single video."""
    count = tally.labelled + tally.failed
    if not tally.seconds or (count < 2 and not tally.kept):
        return
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in tally.kinds.most_common())
    text = f"{count:,} videos: {tally.labelled:,} {verb}"
    text += f", {tally.failed:,} failed ({kinds})" if tally.failed else ""
    text += f"; {tally.kept:,} done before" if tally.kept else ""
    if tally.labelled:
        speed = rate(count, tally.seconds, "videos ")
        text += f"; {duration(tally.video)} of video in {duration(tally.seconds)}, {speed}"
    console.note(text)


def end(tally: "Tally", *, may_be_empty: bool, verb: str = "label") -> None:
    """End with the exit code for the results, including those kept from earlier runs.

    Raises:
        InputError: there was no video, or none could be read.
    """
    count = tally.labelled + tally.failed
    if count + tally.kept == 0:
        if may_be_empty:
            console.note("there are fewer videos than shards, so this shard has none")
            return
        raise InputError(f"no video to {verb}: the list of paths is empty")
    if count and tally.failed == count and tally.all_failed >= count + tally.kept:
        raise InputError(tally.reason if count == 1 else f"none of the {count} videos could be read")
    if tally.all_failed:
        raise typer.Exit(SOME_FAILED)
