"""`timesformer predict`: label videos."""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import OUTPUT, Talk, share
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Inputs
from timesformer_cli.cli.options.model import Groups, Model
from timesformer_cli.cli.options.output import FORMAT_HELP, FormatName, Journal
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running
from timesformer_cli.cli.options.timeline import TIMELINE, Segmented
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.cli.passes import Scope, end, show_plan, summarise
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.evaluation.precision import Kept
    from timesformer_cli.results.copies import Sorter
    from timesformer_cli.results.journal import Beside
    from timesformer_cli.results.record import Excerpt
    from timesformer_cli.results.settings import VectorKind
    from timesformer_cli.specs import Checkpoint, Timeline

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


def _precision(text: str) -> float:
    value = share(text)
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is not a number above 0 and below 1, such as 0.95")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Which scores are written, and what else is kept."""

    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", metavar="SCORE", help="Leave out labels with a lower score.", rich_help_panel=OUTPUT
        ),
    ] = None
    groups: Groups = None
    min_precision: Annotated[
        Any,
        typer.Option(
            "--min-precision",
            metavar="P",
            parser=_precision,
            help=(
                "Answer only if a share of at least P of such answers is right, such as 0.95, and leave the others "
                "open; for models of evaluate --calibrate and of finetune."
            ),
            rich_help_panel=OUTPUT,
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
    save_embeddings: Annotated[
        Path | None,
        typer.Option(
            "--save-embeddings",
            metavar="PATH",
            help=(
                "With --output: also save the vectors that `timesformer embed` makes to this .parquet, .npz, .npy, "
                ".jsonl or .csv file, at almost no cost."
            ),
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
        """The model, set to the scores that the options ask for. Raises UsageError and InputError."""
        from timesformer_cli.checkpoints.recipes import with_overrides
        from timesformer_cli.datasets.groups import with_groups

        checkpoint = with_overrides(checkpoint, fields={"combine": "raw_logits"} if self.raw_logits else {})
        return checkpoint if self.groups is None else with_groups(checkpoint, self.groups)

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

        return Beside(self.save_logits, self.save_embeddings)

    def vectors(self, checkpoint: "Checkpoint") -> "VectorKind | None":
        """What the vectors are, if any are saved: those of `embed` without options."""
        from timesformer_cli.results.settings import VectorKind

        return None if self.save_embeddings is None else VectorKind(dimension=checkpoint.config.hidden_size)

    def kept(self, checkpoint: "Checkpoint", timeline: "Timeline | None") -> "Kept | None":
        """The answers that --min-precision keeps. Raises UsageError if the model's calibration cannot tell."""
        if self.min_precision is None:
            return None
        from timesformer_cli.evaluation.calibration_file import Calibrated

        calibrated = Calibrated.read(checkpoint)
        calibrated.require_same(checkpoint, timeline)
        kept = calibrated.curve.require(self.min_precision)
        console.note(
            f"answers with a score of at least {kept.threshold:g} are kept, as for {100 * kept.coverage:.0f} % of the "
            f"videos that calibrated it; a share of at least {self.min_precision:g} is right, with 95 % confidence"
        )
        return kept

    def sorter(self, checkpoint: "Checkpoint") -> "Sorter | None":
        from timesformer_cli.results.copies import UNSURE, Sorter

        if self.copy_to is None:
            return None
        labels = checkpoint.classes if self.min_precision is None else (*checkpoint.classes, UNSURE)
        return Sorter(self.copy_to, labels, link=self.link, tell=console.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Labels for the segments of a video."""

    spread: Segmented
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
        spread = self.spread
        if not spread.timeline and (spread.window is not None or spread.hop is not None or self.merge):
            raise UsageError("--window, --hop and --merge need --timeline")


def _excerpt(shown: Shown, extras: Extras, segments: Segments, kept: "Kept | None") -> "Excerpt":
    """What a record shows of a prediction."""
    from timesformer_cli.results.record import Excerpt

    return Excerpt(
        top_k=shown.top_k,
        threshold=extras.threshold,
        merge=segments.merge,
        logits=extras.save_logits is not None,
        segments=segments.spread.timeline,
        min_precision=extras.min_precision,
        min_score=None if kept is None else kept.threshold,
    )


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
        timeline = segments.spread.of(checkpoint)
        run = running.options(reading, cluster)
        job = Job(
            checkpoint=checkpoint,
            videos=videos,
            run=run,
            output=output,
            excerpt=_excerpt(shown, extras, segments, extras.kept(checkpoint, timeline)),
            vectors=extras.vectors(checkpoint),
            timeline=timeline,
            shard=shard,
            sorter=extras.sorter(checkpoint),
            fail_fast=scope.sharing.fail_fast,
            on_screen=output.format == "table" and output.path is None and sys.stdout.isatty(),
        )
        run.check(checkpoint, job.scores)
        if scope.dry_run:
            show_plan(job)
            return
        tally = label_all(job, console)
    summarise(tally)
    if tally.remote:
        verb = "linked" if extras.link else "copied"
        console.note(f"{tally.remote:,} of them are at remote addresses and were not {verb}")
    end(tally, may_be_empty=output.may_be_empty)


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
