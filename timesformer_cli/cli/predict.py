"""`timesformer predict`: label videos."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console, options
from timesformer_cli.cli.dry_run import show_plan
from timesformer_cli.cli.results import Run, Tally, Total, summarise
from timesformer_cli.cli.wording import spoken_result
from timesformer_cli.errors import SOME_FAILED, InputError, UsageError
from timesformer_cli.jobs.output import Output

if TYPE_CHECKING:
    from timesformer_cli.flow import Item
    from timesformer_cli.results.journal import Ledger
    from timesformer_cli.results.record import Excerpt
    from timesformer_cli.results.settings import Settings
    from timesformer_cli.results.shards import Shard
    from timesformer_cli.results.writers import Writer
    from timesformer_cli.runtimes.pytorch import Precision
    from timesformer_cli.specs import Checkpoint, Reading

# Seconds that listing the videos may take before the first is read. Most lists are complete by then, and what is
# wrong with them is told before anything is loaded; the others are listed while the first videos are labelled.
LISTING = 1.0

TIMELINE = "Timeline"

FORMAT_HELP = (
    "table, json (one array), jsonl (one object a line), csv, parquet; srt or vtt (subtitles of one video); html (a "
    "page with pictures); activitynet, labelstudio or fiftyone (JSON that these tools read); or auto: by the extension "
    "of --output, else a table on a terminal and jsonl in a pipe."
)

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
        Literal[
            "auto",
            "table",
            "json",
            "jsonl",
            "csv",
            "parquet",
            "srt",
            "vtt",
            "html",
            "activitynet",
            "labelstudio",
            "fiftyone",
        ],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=FORMAT_HELP,
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
                "Go on with --output where an earlier run with the same settings stopped; videos that it holds are "
                "left out. Not for tables."
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
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", metavar="SCORE", help="Leave out labels with lower scores.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    raw_logits: Annotated[
        bool,
        typer.Option(
            "--raw-logits",
            help="Scores are the mean logits of the views, without softmax.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    save_logits: Annotated[
        Path | None,
        typer.Option(
            "--save-logits",
            metavar="PATH",
            help="With --output: the mean logits of all classes too, as .npz or .parquet.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    copy_to: Annotated[
        str | None,
        typer.Option(
            "--copy-to",
            metavar="DIR/{label}",
            help="Copy each video into a folder of its first label; what is there is never overwritten.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="With --copy-to: links in place of copies.", rich_help_panel=options.OUTPUT)
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline", help="Labels for each part of a long video, one after the other.", rich_help_panel=TIMELINE
        ),
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="SECONDS",
            parser=options.positive,
            help="How long a part is; by default as long as a clip of the model.",
            rich_help_panel=TIMELINE,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            "--hop",
            metavar="SECONDS",
            parser=options.positive,
            help="From the start of a part to that of the next; by default they do not overlap.",
            rich_help_panel=TIMELINE,
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Make one part of adjacent ones with the same first label, with the mean of their scores.",
            rich_help_panel=TIMELINE,
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
    precision: options.Precision = "auto",
    compile: options.Compile = False,
    provider: options.Provider = "auto",
    batch_size: options.BatchSize = None,
    limit: options.Limit = None,
    shard: options.ShardOf = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            metavar="local|ray",
            help="ray: the same work on a Ray cluster, its CPUs reading and its GPUs scoring.",
            rich_help_panel=options.RUN,
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="With --engine ray: the cluster's address; otherwise RAY_ADDRESS, one that runs here, or a new one.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    fail_fast: options.FailFast = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the videos that would be read, and say with which model and views; label nothing.",
            rich_help_panel=options.RUN,
        ),
    ] = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    console.choose_level(verbose=verbose, quiet=quiet)
    if not inputs and from_file is None:
        raise UsageError("nothing to label: name videos, folders or --from-file; see timesformer predict --help")
    if not timeline and (window is not None or hop is not None or merge):
        raise UsageError("--window, --hop and --merge go with --timeline")
    if ray_address is not None and engine != "ray":
        raise UsageError("--ray-address goes with --engine ray")
    if engine == "ray":
        from timesformer_cli.pipeline.ray import check_ray
        from timesformer_cli.pipeline.ray import classify as classify_on_cluster

        check_ray()
    if link and copy_to is None:
        raise UsageError("--link goes with --copy-to, which says where to")

    from timesformer_cli.checkpoints.recipes import with_timeline
    from timesformer_cli.pipeline.prepare import prepare_all
    from timesformer_cli.pipeline.score import classify
    from timesformer_cli.pipeline.workers import Limits
    from timesformer_cli.results.copies import Sorter, check_folders
    from timesformer_cli.results.record import Excerpt, to_record
    from timesformer_cli.results.writers import choose_format
    from timesformer_cli.runtimes.check import check_options
    from timesformer_cli.runtimes.devices import check_device
    from timesformer_cli.specs import Reading

    if output == Path("-"):  # as many tools write standard output
        output = None
    chosen = choose_format(output) if format == "auto" else format
    out = Output(
        path=output,
        format=chosen,
        logits=save_logits,
        overwrite=overwrite,
        resume=resume,
        retry_errors=retry_errors,
    )
    if shard is not None:
        out = out.of_shard(shard)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(out.lock())
        out.check()
        if copy_to is not None:
            check_folders(copy_to)
            _check_not_inside(copy_to, inputs or [])
        items, total = _find(inputs or [], from_file, frames, limit, shard)
        if chosen in ("srt", "vtt") and total() != 1:
            raise UsageError(f"{chosen}: subtitles are of one video, and there are {total() or 'perhaps more'}")
        checkpoint = options.resolve_model(
            model,
            revision=revision,
            offline=offline,
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
            preview=dry_run,
        )
        if timeline:
            checkpoint = with_timeline(checkpoint, window=window, hop=hop)
        check_device(device)
        check_options(checkpoint, precision=precision, compile=compile, provider=provider)

        excerpt = Excerpt(top_k=top_k, threshold=threshold, merge=merge, logits=save_logits is not None)
        reading = Reading(decoder=decoder, max_pixels=max_pixels, max_frames=max_frames, frame_rate=frame_rate)
        ledger = None
        if out.path is not None:
            ledger = out.open_ledger(_settings_of(checkpoint, excerpt, reading, precision, device, shard))
        if ledger is not None:
            items, total = _left(items, ledger)
            if total() == 0 and (ledger.past.count or out.may_be_empty):
                if ledger.past.count:
                    console.note(f"{out.path}: nothing to do: it holds all {ledger.past.count} videos already")
                if not dry_run:
                    ledger.finish()
                _end(Tally(kept=ledger.past.count, all_failed=ledger.failed), may_be_empty=out.may_be_empty)
                return
        if dry_run:
            show_plan(items, checkpoint, out)
            return

        if ledger is None:
            writer: Writer | Ledger = stack.enter_context(out.open_writer(checkpoint))
        else:
            writer = stack.enter_context(ledger)
        sorter = None if copy_to is None else Sorter(copy_to, checkpoint.labels, link=link)
        run = Run(
            writer,
            sorter,
            total,
            timeline=checkpoint.sampling.window is not None,
            fail_fast=fail_fast,
            on_screen=chosen == "table" and output is None and sys.stdout.isatty(),
        )
        limits = Limits(timeout=timeout)
        if engine == "ray":
            results = classify_on_cluster(
                items,
                checkpoint,
                reading,
                limits=limits,
                batch=batch_size,
                device=device,
                precision=precision,
                compile=compile,
                provider=provider,
                thumbnails=chosen == "html",
                address=ray_address,
                tell=console.note,
            )
        else:
            count = options.worker_count(workers)
            prepared = stack.enter_context(
                prepare_all(items, checkpoint, reading, workers=count, limits=limits, thumbnails=chosen == "html")
            )
            # What takes seconds, importing torch, while the first videos are read.
            from timesformer_cli.runtimes.batching import choose_batch_size
            from timesformer_cli.runtimes.pytorch import open_scorer

            scorer = open_scorer(
                checkpoint,
                device=device,
                precision=precision,
                compile=compile,
                provider=provider,
                tell=console.note,
            )
            size = choose_batch_size(batch_size, device, console.note, scorer)
            results = classify(run.watch(prepared), scorer, checkpoint, batch=size)
        _describe(checkpoint)
        tally = run.write((result, to_record(result, checkpoint, excerpt)) for result in map(spoken_result, results))
    if ledger is not None:
        tally.kept, tally.all_failed = ledger.past.count, ledger.failed
    summarise(tally)
    if tally.remote:
        console.note(f"{tally.remote:,} of them lie at addresses and were not {'linked' if link else 'copied'}")
    _end(tally, may_be_empty=out.may_be_empty)


def _check_not_inside(template: str, sources: list[str]) -> None:
    """Raises UsageError where copies would lie among the inputs, and a later run would label them too."""
    from timesformer_cli.video.addresses import local_path

    fixed, label, _ = template.partition("{label}")
    folder = Path(os.path.dirname(fixed) if label else fixed).resolve()
    for source in sources:
        path, deep, _ = local_path(source).partition("**")  # which stands for all folders there
        searched = Path(os.path.dirname(path) if deep else path)
        if searched.is_dir() and folder.is_relative_to(searched.resolve()):
            raise UsageError(
                f"{template}: lies inside {source}, where later runs would label the copies too; choose another folder"
            )


def _find(
    sources: list[str], from_file: Path | None, frames: bool, limit: int | None, shard: "Shard | None"
) -> "tuple[Iterable[Item], Total]":
    """The videos, `limit` of them at most, and of those the shard's; and their number when it is known.

    Standard input is read as it comes, so it never is.
    """
    from timesformer_cli.video.inputs import STDIN, find

    items: Iterator[Item] = islice(find(sources, [] if from_file is None else [from_file], frames=frames), limit)
    if shard is not None:
        items = shard.part_of(items)
    return (items, lambda: None) if STDIN in sources else _listed(items)


def _left(items: "Iterable[Item]", ledger: "Ledger") -> "tuple[Iterable[Item], Total]":
    """The videos that the output does not hold, and their number when it is known."""
    from timesformer_cli.video.inputs import Listing

    if ledger.finished:
        ledger.check_finished(item.path for item in items)
        return (), lambda: 0
    left = (item for item in items if item.path not in ledger)
    return _listed(left) if isinstance(items, Listing) else (left, lambda: None)


def _listed(items: "Iterable[Item]") -> "tuple[Iterable[Item], Total]":
    """The same, listed ahead of whoever takes them, and their number when that is done."""
    from timesformer_cli.video.inputs import Listing

    listing = Listing(items)
    listing.wait(LISTING)
    return listing, lambda: listing.total


def _settings_of(
    checkpoint: "Checkpoint",
    excerpt: "Excerpt",
    reading: "Reading",
    precision: "Precision",
    device: str,
    shard: "Shard | None",
) -> "Settings":
    from timesformer_cli.results.settings import settings_of
    from timesformer_cli.runtimes.pytorch import precision_of

    settings = settings_of(
        checkpoint, excerpt, frame_rate=reading.frame_rate, precision=precision_of(checkpoint, precision, device)
    )
    return settings if shard is None else settings | {"shard": [shard.index, shard.count]}


def _describe(checkpoint: "Checkpoint") -> None:
    console.detail(f"model {checkpoint.name} ({checkpoint.source}): {len(checkpoint.labels)} classes")
    console.detail(f"recipe {checkpoint.recipe.name}: {checkpoint.sampling}; {checkpoint.preprocess}")
    if checkpoint.labels[0] == "LABEL_0":
        console.note(f"{checkpoint.name} does not name its classes; give their names with --labels FILE")


def _end(tally: Tally, *, may_be_empty: bool) -> None:
    """End with the exit code that the results call for, those kept from earlier runs among them.

    Raises:
        InputError: there was no video where there should be, or none could be read.
    """
    count = tally.labelled + tally.failed
    if count + tally.kept == 0:
        if may_be_empty:
            console.note("there are fewer videos than shards, and none for this one")
            return
        raise InputError("no video to label: the list of paths is empty")
    if count and tally.failed == count and tally.all_failed >= count + tally.kept:
        raise InputError(tally.reason if count == 1 else f"none of the {count} videos could be read")
    if tally.all_failed:
        raise typer.Exit(SOME_FAILED)
