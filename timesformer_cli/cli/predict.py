"""`timesformer predict`: label videos."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console, options
from timesformer_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from timesformer_cli.durable import Ledger, LedgerWriter
    from timesformer_cli.records import Item, Result
    from timesformer_cli.specs import Checkpoint
    from timesformer_cli.writers import Format, Writer

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
130 stopped by Ctrl-C; 143 stopped by SIGTERM. What was done is kept, and --resume goes on.
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
        Literal["auto", "table", "json", "jsonl", "csv", "parquet"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "table, json (one array), jsonl (one object a line), csv, parquet, or auto: by the extension of "
                "--output; else a table on a terminal and jsonl in a pipe."
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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help=(
                "Go on with --output, a jsonl, csv or parquet file, where an earlier run with the same settings "
                "stopped; videos that it holds are left out."
            ),
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
    limit: options.Limit = None,
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
    durable = _check_output(output, chosen, overwrite=overwrite, resume=resume, retry_errors=retry_errors)
    items, total = _find(inputs or [], from_file, frames, limit)
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

    ledger = None
    if output is not None and durable:
        ledger = _open_ledger(output, chosen, checkpoint, top_k, frame_rate, resume=resume, retry_errors=retry_errors)
        items, total = _left(items, ledger)
        if total() == 0 and ledger.past.count:
            ledger.finish()
            console.note(f"{output}: nothing to do: it holds all {ledger.past.count} videos already")
            _end(Tally(0, 0, ledger.past.count, ledger.failed))
            return

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
        with _open_writer(output, chosen, checkpoint, ledger, top_k=top_k) as writer:
            on_screen = chosen == "table" and output is None and sys.stdout.isatty()
            tally = _write(results, writer, total, on_screen=on_screen)
    if ledger is not None:
        tally = replace(tally, kept=ledger.past.count, all_failed=ledger.failed)
    _summarise(tally)
    _end(tally)


@dataclass(frozen=True)
class Tally:
    """Videos of this run, and with `--resume` of those before it: the records that were `kept`, and how many failed."""

    labelled: int
    failed: int
    kept: int = 0
    all_failed: int = 0
    reason: str = ""


def _check_output(output: Path | None, format: "Format", *, overwrite: bool, resume: bool, retry_errors: bool) -> bool:
    """Whether the output can be continued by another run; find out what is wrong with it before any work."""
    from timesformer_cli.durable import FORMATS, check_journal, is_durable
    from timesformer_cli.parquet import check_pyarrow
    from timesformer_cli.writers import check_target

    if retry_errors and not resume:
        raise UsageError("--retry-errors goes with --resume")
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if resume and (output is None or format not in FORMATS):
        raise UsageError(f"--resume needs --output with one of the formats {', '.join(FORMATS)}")
    if format == "parquet":
        check_pyarrow()
    if output is None:
        if format == "parquet":
            raise UsageError("Parquet cannot be written to standard output; name a file with --output")
        return False
    check_target(output, overwrite=overwrite or resume)
    durable = is_durable(output, format)
    if durable and not (overwrite or resume):
        check_journal(output, format)
    return durable


def _open_ledger(
    output: Path,
    format: "Format",
    checkpoint: "Checkpoint",
    top_k: int,
    frame_rate: float,
    *,
    resume: bool,
    retry_errors: bool,
) -> "Ledger":
    from timesformer_cli.durable import Ledger, settings_of

    ledger = Ledger(output, format, settings_of(checkpoint, top_k=top_k, frame_rate=frame_rate))
    if resume:
        ledger.resume(retry_errors=retry_errors)
    return ledger


def _left(items: "Iterable[Item]", ledger: "Ledger") -> "tuple[Iterable[Item], Total]":
    """The videos that the output does not hold, and their number when it is known."""
    from timesformer_cli.inputs import Listing

    left = (item for item in items if item.path not in ledger)
    return _listed(left) if isinstance(items, Listing) else (left, lambda: None)


def _open_writer(
    output: Path | None, format: "Format", checkpoint: "Checkpoint", ledger: "Ledger | None", *, top_k: int
) -> "AbstractContextManager[Writer | LedgerWriter]":
    from timesformer_cli.durable import open_ledger
    from timesformer_cli.writers import open_writer

    if ledger is not None:
        return open_ledger(ledger, checkpoint, top_k=top_k)
    return open_writer(output, format, checkpoint, top_k=top_k)


def _describe(checkpoint: "Checkpoint") -> None:
    console.detail(f"model {checkpoint.name} ({checkpoint.source}): {len(checkpoint.labels)} classes")
    console.detail(f"recipe {checkpoint.recipe.name}: {checkpoint.sampling}; {checkpoint.preprocess}")
    if checkpoint.labels[0] == "LABEL_0":
        console.note(f"{checkpoint.name} does not name its classes; give their names with --labels FILE")


def _find(
    sources: list[str], from_file: Path | None, frames: bool, limit: int | None
) -> "tuple[Iterable[Item], Total]":
    """The videos, `limit` of them at most, and their number when it is known.

    Standard input is read as it comes, so it never is.
    """
    from timesformer_cli.inputs import STDIN, find

    items = islice(find(sources, [] if from_file is None else [from_file], frames=frames), limit)
    return (items, lambda: None) if STDIN in sources else _listed(items)


def _listed(items: "Iterable[Item]") -> "tuple[Iterable[Item], Total]":
    """The same, listed ahead of whoever takes them, and their number when that is done."""
    from timesformer_cli.inputs import Listing

    listing = Listing(items)
    listing.wait(LISTING)
    return listing, lambda: listing.total


def _write(results: "Iterator[Result]", writer: "Writer | LedgerWriter", total: Total, *, on_screen: bool) -> Tally:
    """Write the results as they come, and tell of failures."""
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
    return Tally(labelled, failed, all_failed=failed, reason=reason)


def _summarise(tally: Tally) -> None:
    count = tally.labelled + tally.failed
    if count > 1 or tally.kept:
        parts = [f"{tally.labelled} labelled"]
        parts += [f"{tally.failed} failed"] if tally.failed else []
        there = f"; {tally.kept} were there already" if tally.kept else ""
        console.note(f"{count} videos: {', '.join(parts)}{there}")


def _end(tally: Tally) -> None:
    """End with the exit code that the results call for, those kept from earlier runs among them.

    Raises:
        InputError: there was no video, or none could be read.
    """
    count = tally.labelled + tally.failed
    if count + tally.kept == 0:
        raise InputError("no video to label: the list of paths is empty")
    if count and tally.failed == count and tally.all_failed >= count + tally.kept:
        raise InputError(tally.reason if count == 1 else f"none of the {count} videos could be read")
    if tally.all_failed:
        raise typer.Exit(SOME_FAILED)
