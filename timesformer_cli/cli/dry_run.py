"""What `timesformer predict --dry-run` shows."""

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from timesformer_cli.cli import console
from timesformer_cli.errors import OutputError
from timesformer_cli.jobs.output import Output
from timesformer_cli.text import plural, printable

if TYPE_CHECKING:
    from timesformer_cli.flow import Item
    from timesformer_cli.specs import Checkpoint


def show_plan(items: "Iterable[Item]", checkpoint: "Checkpoint", out: Output) -> None:
    """The paths on standard output, and what would be done with them on standard error."""
    count = _print_paths(items)
    spec = checkpoint.sampling
    clips = "as many clips as cover it, at most 10" if spec.clips is None else plural(spec.clips, "clip")
    parts = "" if spec.window is None else f" every {spec.hop or spec.window:g} s for {spec.window:g} s"
    console.note(f"{plural(count, 'video')} to label with {checkpoint.name} ({checkpoint.source})")
    console.note(
        f"views{parts}: {clips} of {spec.num_frames} frames, {plural(checkpoint.preprocess.crops, 'crop')} of "
        f"{checkpoint.preprocess.size[1]} x {checkpoint.preprocess.size[0]} pixels; recipe {checkpoint.recipe.name}"
    )
    console.note(f"results as {out.format} to {'standard output' if out.path is None else out.path}")


def _print_paths(items: "Iterable[Item]") -> int:
    """One a line, and to a pipe byte for byte, so that --from-file can read them; how many there are.

    Raises:
        OutputError: they cannot be written.
    """
    shown = printable if sys.stdout.isatty() else str
    count = 0
    try:
        for item in items:
            sys.stdout.buffer.write(os.fsencode(shown(item.path)) + b"\n")
            count += 1
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error
    return count
