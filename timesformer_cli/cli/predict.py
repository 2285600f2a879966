"""`timesformer predict`: label videos."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console, options
from timesformer_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from timesformer_cli.records import Item, Result
    from timesformer_cli.specs import Checkpoint
    from timesformer_cli.writers import Writer

SOME_FAILED = 3

# How many videos there are, or None as long as that is not known.
Total = Callable[[], int | None]

# Seconds that listing the videos may take before the first is read. Most lists are complete by then, and what is
# wrong with them is told before anything is loaded; the others are listed while the first videos are labelled.
LISTING = 1.0


HELP = """Label videos: the most likely classes of each, with their scores.

Results are one record for each video, in the order of the inputs. A video that cannot be read gets a record that \
says why, and the run goes on.

Exit codes: 0 all done; 1 the run could not be done, or no video could be read; 2 wrong usage; 3 some videos failed; \
130 stopped by Ctrl-C.
"""


def predict(
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    offline: options.Offline = False,
    weights: options.Weights = None,
    config: options.Config = None,
    labels: options.Labels = None,
    top_k: Annotated[
        int,
        typer.Option(
            "--top-k",
            "-k",
            metavar="K",
            min=1,
            help="Labels for each video; more than the model has means all.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 5,
    format: Annotated[
        Literal["auto", "table", "json", "jsonl", "csv"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "table, json (one array), jsonl (one object a line), csv, or auto: by the extension of --output; "
                "else a table on a terminal and jsonl in a pipe."
            ),
            rich_help_panel=options.OUTPUT,
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write the results to this file.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --output if it exists.", rich_help_panel=options.OUTPUT)
    ] = False,
    raw_logits: Annotated[
        bool,
        typer.Option(
            "--raw-logits",
            help="Scores are the mean logits of the views, without softmax.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
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
    batch_size: options.BatchSize = None,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    console.choose_level(verbose=verbose, quiet=quiet)
    if not inputs and from_file is None:
        raise UsageError("nothing to label: name videos, folders or --from-file; see timesformer predict --help")

    from timesformer_cli import writers

    if output == Path("-"):  # as many tools write standard output
        output = None
    chosen = writers.choose_format(output) if format == "auto" else format
    if output is not None:
        writers.check_target(output, overwrite=overwrite)
    items, total = _find(inputs or [], from_file, frames)
    checkpoint = options.resolve_model(
        model,
        revision=revision,
        offline=offline,
        quiet=console.is_quiet(),
        weights=weights,
        config=config,
        labels=labels,
        recipe=recipe,
        changes=options.recipe_changes(
            settings,
            clips=clips,
            crops=crops,
            num_frames=num_frames,
            stride=stride,
            fps=fps,
            placement=placement,
            raw_logits=raw_logits,
        ),
    )

    # With nothing wrong so far, what takes seconds: importing torch.
    from timesformer_cli.batching import choose_batch_size
    from timesformer_cli.pipeline import classify, prepare_all
    from timesformer_cli.runtime import check_device, open_scorer
    from timesformer_cli.specs import Reading
    from timesformer_cli.workers import Limits

    check_device(device)
    reading = Reading(decoder=decoder, max_pixels=max_pixels, max_frames=max_frames, frame_rate=frame_rate)
    count = options.worker_count(workers)
    # The first videos are read while torch is imported.
    with prepare_all(items, checkpoint, reading, workers=count, limits=Limits(timeout=timeout)) as prepared:
        scorer = open_scorer(checkpoint, device=device)
        _describe(checkpoint)
        size = choose_batch_size(batch_size, device, console.note)
        results = classify(prepared, scorer, checkpoint, batch=size)
        with writers.open_writer(output, chosen, checkpoint, top_k=top_k) as writer:
            _report(results, writer, total, on_screen=chosen == "table" and output is None and sys.stdout.isatty())


def _describe(checkpoint: "Checkpoint") -> None:
    console.detail(f"model {checkpoint.name} ({checkpoint.source}): {len(checkpoint.labels)} classes")
    console.detail(f"recipe {checkpoint.recipe.name}: {checkpoint.sampling}; {checkpoint.preprocess}")
    if checkpoint.labels[0] == "LABEL_0":
        console.note(f"{checkpoint.name} does not name its classes; give their names with --labels FILE")


def _find(sources: list[str], from_file: Path | None, frames: bool) -> "tuple[Iterable[Item], Total]":
    """The videos, and their number when it is known. Standard input is read as it comes, so it never is."""
    from timesformer_cli.inputs import STDIN, Listing, find

    items = find(sources, [] if from_file is None else [from_file], frames=frames)
    if STDIN in sources:
        return items, lambda: None
    listing = Listing(items)
    listing.wait(LISTING)
    return listing, lambda: listing.total


def _report(results: "Iterator[Result]", writer: "Writer", total: Total, *, on_screen: bool) -> None:
    """Write the results as they come, tell of failures, and end with the exit code that they call for.

    Raises:
        InputError: no video could be read.
    """
    from timesformer_cli.records import Failure

    labelled = failed = 0
    reason = ""
    with console.progress(total()) as bar:
        for result in results:
            bar.expect(total())
            with bar.step():
                if not isinstance(result, Failure):
                    labelled += 1
                    writer.write(result)
                    continue
                failed += 1
                reason = f"{result.item.path}: {result.message}"
                # Say it once: the table on the screen shows it, and the last line of a run of one video.
                if total() == 1 and on_screen:
                    continue
                writer.write(result)
                if total() != 1 and not on_screen:
                    console.note(f"failed: {reason}")
    count = labelled + failed
    if count == 0:
        raise InputError("no video to label: the list of paths is empty")
    if count > 1:
        console.note(f"{count} videos: {labelled} labelled" + (f", {failed} failed" if failed else ""))
    if labelled == 0:
        raise InputError(reason if count == 1 else f"none of the {count} videos could be read")
    if failed:
        raise typer.Exit(SOME_FAILED)
