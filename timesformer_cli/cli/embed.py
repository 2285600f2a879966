"""`timesformer embed`: vectors of videos."""

import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import OUTPUT, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Inputs
from timesformer_cli.cli.options.model import Model
from timesformer_cli.cli.options.output import Journal
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running
from timesformer_cli.cli.options.timeline import Segmented
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.cli.passes import Scope, end, show_plan, summarise
from timesformer_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from timesformer_cli.jobs.output import Output
    from timesformer_cli.results.settings import VectorKind
    from timesformer_cli.results.vectors.rows import VectorOutput
    from timesformer_cli.specs import Checkpoint

HELP = """Compute vectors of videos, for search, clustering and training.

Writes one vector per video, or per segment with --timeline: the class token that the classifier of the model reads, \
averaged over the views. There are no vectors of texts, since TimeSformer has only videos as input.

Exit codes: 0 all videos embedded; 1 the run failed, or no video could be read; 2 wrong usage; 3 some videos failed; \
130 stopped by Ctrl-C; 143 stopped by SIGTERM. Finished results are kept, and --resume continues the run.
"""

FormatName = Literal["auto", "table", "parquet", "npz", "npy", "jsonl", "csv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Which vectors, and how they are written."""

    feature: Annotated[
        Literal["cls", "mean", "frames"],
        typer.Option(
            "--feature",
            metavar="cls|mean|frames",
            help=(
                "cls: the class token; mean: the mean of all patches; frames: one vector per sampled frame, the mean "
                "of its patches. Exported models give only cls, if they were exported with --output embedding."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = "cls"
    dtype: Annotated[
        Literal["float32", "float16"],
        typer.Option(
            "--dtype",
            metavar="float32|float16",
            help="Type of the numbers; float16 halves the file.",
            rich_help_panel=OUTPUT,
        ),
    ] = "float32"
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Scale each vector to length 1, after averaging; the classifier then no longer fits it.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    format: Annotated[
        FormatName,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "parquet, npz, npy (with paths and times in a .jsonl file), jsonl, csv, table (no vectors), or "
                "auto: from the extension of --output, or without --output a table on a terminal and jsonl in a pipe."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"
    per_video: Annotated[
        bool,
        typer.Option(
            "--per-video",
            help="Make --output a folder with one .npy file per video and index.json, for temporal localisation.",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    def output(self, journal: Journal) -> "Output":
        """Where the vectors go. Raises UsageError and OutputError."""
        from timesformer_cli.jobs.output import Output
        from timesformer_cli.results.vectors.per_video import INDEX

        path = journal.path
        if self.per_video:
            if path is None:
                raise UsageError("--per-video needs --output with a folder")
            if self.format != "auto":
                raise UsageError("--per-video writes .npy files; leave --format out")
            if path.is_file():
                raise OutputError(f"{path}: is a file; name a folder for --per-video")
            path = path / INDEX
        return Output(
            path=path,
            format="folder" if self.per_video else self._format(path),
            vectors=True,
            overwrite=journal.overwrite,
            resume=journal.resume,
            retry_errors=journal.retry_errors,
        )

    def _format(self, path: Path | None) -> "VectorOutput | Literal['table']":
        from timesformer_cli.results.vectors.rows import vector_format

        if self.format != "auto":
            return self.format
        if path is not None:
            return vector_format(path)
        return "table" if sys.stdout.isatty() else "jsonl"

    def of(self, checkpoint: "Checkpoint") -> "VectorKind":
        """What the vectors of this model are."""
        from timesformer_cli.results.settings import VectorKind

        return VectorKind(
            feature=self.feature,
            dimension=checkpoint.config.hidden_size,
            dtype=self.dtype,
            normalized=self.normalize,
        )


@bundled
def embed(
    inputs: Inputs,
    model: Model,
    kind: Kind,
    journal: Journal,
    segments: Segmented,
    views: ViewOptions,
    reading: ReadingOptions,
    running: Running,
    scope: Scope,
    talk: Talk,
) -> None:
    talk.choose()
    inputs.require("embed")
    segments.check()
    cluster = scope.sharing.cluster

    from timesformer_cli.jobs.predict import Job
    from timesformer_cli.jobs.predict import predict as embed_all

    output = kind.output(journal)
    shard = scope.sharing.shard
    if shard is not None:
        output = output.of_shard(shard)
    with ExitStack() as stack:
        if not scope.dry_run:
            if kind.per_video:
                stack.enter_context(_folder(output))
            stack.enter_context(output.lock())
        output.check()
        videos = inputs.find(frames=reading.frames, limit=scope.limit, shard=shard)
        checkpoint = model.resolve(views, preview=scope.dry_run)
        job = Job(
            checkpoint=checkpoint,
            videos=videos,
            run=running.options(reading, cluster),
            output=output,
            vectors=kind.of(checkpoint),
            timeline=segments.of(checkpoint),
            shard=shard,
            fail_fast=scope.sharing.fail_fast,
            on_screen=output.format == "table" and output.path is None and sys.stdout.isatty(),
        )
        job.run.check(checkpoint, job.scores)
        if scope.dry_run:
            show_plan(job)
            return
        tally = embed_all(job, console)
    summarise(tally, job.verb)
    if job.on_screen and tally.labelled:
        console.note("the vectors themselves were not kept; --output clips.parquet saves them")
    end(tally, may_be_empty=output.may_be_empty, verb="embed")


@contextmanager
def _folder(output: "Output") -> "Iterator[None]":
    """The folder of --per-video is made, and removed if nothing is written to it. Raises OutputError."""
    from timesformer_cli.files import told

    assert output.path is not None
    folder = output.path.parent
    if folder.exists() or not folder.parent.is_dir():
        yield
        return
    with told(folder):
        folder.mkdir()
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
