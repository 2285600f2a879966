"""`timesformer finetune`: a model for the user's own classes."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli.cli import console, scoreboard
from timesformer_cli.cli.options import OUTPUT, RUN, Talk, positive, share
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.data import DATA, Labelled
from timesformer_cli.cli.options.model import Model
from timesformer_cli.cli.options.output import ResumeRun
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Device, Workers, views_at_a_time
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.cli.vectors import are_vectors, open_stored
from timesformer_cli.cli.wording import NAMES
from timesformer_cli.errors import SOME_FAILED, PeerError, UsageError
from timesformer_cli.text import duration, plural, printable

if TYPE_CHECKING:
    from timesformer_cli.jobs.finetune import Outcome
    from timesformer_cli.jobs.finetune.data import Asked
    from timesformer_cli.jobs.finetune.stored import Stored
    from timesformer_cli.jobs.finetune.tuning import Tuning
    from timesformer_cli.pipeline.run import RunOptions
    from timesformer_cli.specs import Checkpoint

METHOD = "Method"
OPTIMISATION = "Training of the network"

HELP = """Train a model on your own labelled videos, starting from a checkpoint.

The classes come from the dataset: from the names of its folders, or from --annotations. Every video goes through the \
network of --model once, and a new head is fitted to its output: minutes on a CPU. --method last, lora and full go on \
from there and train the network; if that does not make it better on the videos for validation, only the head is kept. \
RUN/model is a model folder for transformers and all other commands, as in predict --model RUN. RUN/report.html shows \
the accuracy, the labels to look at, and whether more videos would help.

Instead of FOLDER, name a file of vectors that `timesformer embed` wrote, and --annotations: the head is fitted to the \
stored vectors in seconds, the base model is the one that made the file, and no video needs to exist.

Videos from one source never train and measure at the same time (--group-by). Videos that are missing or cannot be \
read are counted and listed, never replaced by others.

Exit codes: 0 done; 1 the run failed, or --min-top1 is not met; 2 wrong usage; 3 done, but some videos could not be \
read; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. --resume continues after a stop.
"""


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is not a number between 0 and 1, such as 0.2")
    return value


_TIME = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")


def _time(text: str) -> float:
    """Seconds of a time such as 90m."""
    found = _TIME.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is not a time, such as 90m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Videos(Labelled):
    """A labelled dataset, or the vectors of one."""

    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER|FILE",
            show_default=False,
            help=(
                "Folder of the videos; without --annotations, the names of its subfolders are the labels. Or a file of "
                "vectors: .parquet, .npz, .npy, .jsonl or .csv."
            ),
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Which videos train, and which measure."""

    labelled: Videos
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Split to train on; by default train, if there are several. A split named test is never read.",
            rich_help_panel=DATA,
        ),
    ] = None
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            metavar="FILE|FOLDER|NAME",
            help=(
                "Videos for validation: an annotation file, a folder with class folders, or a split of the dataset; by "
                "default its split val, and otherwise a part of the training videos."
            ),
            rich_help_panel=DATA,
        ),
    ] = None
    val_part: Annotated[
        float,
        typer.Option(
            "--val-part",
            metavar="SHARE",
            parser=_part,
            help="Share of the training videos for validation, if the dataset has none for it.",
            rich_help_panel=DATA,
        ),
    ] = 0.2
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by",
            metavar="auto|none|COLUMN|REGEX",
            help=(
                "What videos of one source have in common: a column of --annotations, or a regular expression for "
                "their paths; auto: found in the dataset; none: each video is a source of its own."
            ),
            rich_help_panel=DATA,
        ),
    ] = "auto"
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Train only the classes in FILE, one name per line, and number them in this order.",
            rich_help_panel=DATA,
        ),
    ] = None
    shots: Annotated[
        int | None,
        typer.Option(
            "--shots",
            metavar="N",
            min=1,
            help="Train on at most N videos of each class, chosen at random by --seed.",
            rich_help_panel=DATA,
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="S",
            min=0,
            help="Seed of all random choices; the same S gives the same split and the same model.",
            rich_help_panel=DATA,
        ),
    ] = 0

    def asked(self, *, frames: bool) -> "Asked":
        """Raises UsageError without a dataset, and CheckpointError for --classes that cannot be read."""
        from timesformer_cli.checkpoints.labels import read_file
        from timesformer_cli.jobs.finetune.data import Asked

        self.labelled.check("finetune")
        return Asked(
            root=self.labelled.root,
            annotations=self.labelled.annotations,
            format=self.labelled.format,
            label_map=self.labelled.label_map,
            strict=self.labelled.strict,
            frames=frames,
            split=self.split,
            val=self.val,
            val_part=self.val_part,
            group_by=self.group_by,
            classes=None if self.classes is None else read_file(self.classes),
            shots=self.shots,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What is trained, and for how long."""

    method: Annotated[
        Literal["probe", "last", "lora", "full"],
        typer.Option(
            "--method",
            metavar="probe|last|lora|full",
            help=(
                "What is trained: probe (a new head; the network stays as it is); then, starting from it, last (the "
                "last layers), lora (small changes of the attentions) or full (the whole network)."
            ),
            rich_help_panel=METHOD,
        ),
    ] = "probe"
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            metavar="N",
            min=1,
            help="Number of layers that last trains; by default 2.",
            rich_help_panel=METHOD,
        ),
    ] = None
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank",
            metavar="N",
            min=1,
            help="Rank of the changes that lora trains; by default 8.",
            rich_help_panel=METHOD,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            min=1,
            help="Train for exactly N epochs; by default 15 at most (--patience), or as many as 200 steps take.",
            rich_help_panel=METHOD,
        ),
    ] = None
    max_time: Annotated[
        float | None,
        typer.Option(
            "--max-time",
            metavar="TIME",
            parser=_time,
            help="End the training after this time, such as 90m or 2h, added up over all starts of the run.",
            rich_help_panel=METHOD,
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            min=1,
            help="End training after N validations without a better one; by default 5, or never with --epochs.",
            rich_help_panel=METHOD,
        ),
    ] = None
    balance: Annotated[
        Literal["none", "loss"],
        typer.Option(
            "--balance",
            metavar="none|loss",
            help="Classes with few videos: none (each video counts the same) or loss (each class counts the same).",
            rich_help_panel=METHOD,
        ),
    ] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """How the network is trained, after the head."""

    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=1,
            help="Videos per step of the optimisation; --micro-batch says how many are worked on at a time.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = 32
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            metavar="RATE",
            parser=positive,
            help="Highest learning rate, that of the head; by default 5e-4 * batch size / 256, 16 times that for "
            "networks of less than 10 million parameters, and 10 times either for lora.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = None
    weight_decay: Annotated[
        float,
        typer.Option(
            "--weight-decay",
            metavar="SHARE",
            parser=share,
            help="Weight decay of AdamW, for all but biases, norms and embeddings.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = 0.05
    layer_decay: Annotated[
        float,
        typer.Option(
            "--layer-decay",
            metavar="SHARE",
            parser=share,
            help="Learning rate of each layer, as a share of that of the layer above; 1 with lora.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = 0.75
    drop_path: Annotated[
        float,
        typer.Option(
            "--drop-path",
            metavar="SHARE",
            parser=share,
            help="Share of the videos that skip the last layer in training; fewer skip the layers before it.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = 0.1
    augment: Annotated[
        Literal["none", "light"] | None,
        typer.Option(
            "--augment",
            metavar="none|light",
            help="Views in training: light (random clips and crops) or none (those of predict); by default light, or "
            "none with last, which then trains from tokens on disk.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = None
    flip: Annotated[
        Literal["auto", "on", "off", "swap"],
        typer.Option(
            "--flip",
            metavar="auto|on|off|swap",
            help="Mirror half of the views: auto (only if neither names of classes nor a measurement speaks against "
            "it), on, off, or swap (as auto, and exchange pairs of classes such as left and right).",
            rich_help_panel=OPTIMISATION,
        ),
    ] = "auto"
    checkpointing: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            "--checkpointing",
            metavar="auto|on|off",
            help="Gradient checkpointing, which saves memory and takes a third more time; auto: only if needed.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = "auto"

    def tuning(self, method: Method) -> "Tuning":
        from timesformer_cli.jobs.finetune.tuning import Tuning

        return Tuning(
            method=method.method,
            layers=method.layers,
            rank=method.rank,
            epochs=method.epochs,
            max_seconds=method.max_time,
            patience=method.patience,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            drop_path=self.drop_path,
            augment=self.augment,
            flip=self.flip,
            checkpointing=self.checkpointing,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """What the run uses."""

    workers: Workers = None
    on: Device
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            metavar="N|auto",
            parser=views_at_a_time,
            help="Views per pass through the network; auto: as many as fit into memory.",
            rich_help_panel=RUN,
        ),
    ] = None

    def options(self, reading: ReadingOptions) -> "RunOptions":
        from timesformer_cli.pipeline.run import RunOptions

        return RunOptions(
            device=self.on.device,
            precision=self.on.precision,
            batch_size=self.micro_batch,
            workers=self.workers,
            reading=reading.spec,
            limits=reading.limits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The folder of the run, and what is printed."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="RUN",
            help="Folder for the model, its accuracy and its report; needed, except with --dry-run.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the run in --output; videos are read again only if they or the model changed.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    resume: ResumeRun = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the classes, the split, the problems of the dataset, and how long it would take; train nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    min_top1: scoreboard.MinTop1 = None
    as_json: scoreboard.Json = False

    def check(self) -> None:
        """Raises UsageError for options that cannot be combined, or without a folder."""
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite cannot be combined")
        if self.output is None and not self.dry_run:
            raise UsageError("no folder for the model: name one with --output RUN, or look first with --dry-run")


def _stored(parts: Parts, method: Method, views: ViewOptions) -> "Stored | None":
    """The vectors, if the dataset is a file of them.

    Raises:
        UsageError: options that need videos, no labels, or vectors of another kind.
        InputError: the file cannot be read.
    """
    root = parts.labelled.root
    if root is None or not are_vectors(root):
        return None
    if parts.labelled.annotations is None:
        raise UsageError(
            f"{root}: is taken for a file of vectors, which has no labels; name the file of the labels with "
            "--annotations"
        )
    if method.method != "probe":
        raise UsageError(f"--method {method.method}: trains the network, which needs videos; name their folder")
    given = [*([] if views.recipe is None else ["recipe"]), *views.changes]
    if given:
        options = ", ".join(NAMES.get(name, f"--set {name}") for name in given)
        raise UsageError(
            f"{options}: cannot be changed, as the vectors were made before; leave the options out, or make "
            "the vectors again with them, by `timesformer embed`"
        )
    return open_stored(root)


def _base(model: Model, views: ViewOptions, stored: "Stored | None", *, named: bool, preview: bool) -> "Checkpoint":
    """The model to start from: of stored vectors, the one that made them, which `named` says was named here."""
    if stored is None:
        return model.resolve(views, preview=preview)
    from timesformer_cli.jobs.made_by import model_of

    resolve = model.source.preview if preview else model.source.resolve
    return model_of(stored.file, model.model if named else None, lambda name: resolve(name, views))


@bundled
def finetune(
    ctx: typer.Context,
    parts: Parts,
    method: Method,
    optimisation: Optimisation,
    model: Model,
    folder: Folder,
    views: ViewOptions,
    reading: ReadingOptions,
    computing: Computing,
    talk: Talk,
) -> None:
    talk.choose()
    folder.check()
    asked = parts.asked(frames=reading.frames)

    from timesformer_cli.jobs.finetune import Job, follows, plan
    from timesformer_cli.jobs.finetune import finetune as train

    if follows():
        console.set_level("quiet")
    stored = _stored(parts, method, views)
    # A variable of the environment names a model for all commands, and not for this file.
    source = ctx.get_parameter_source("model")
    named = source is not None and source.name == "COMMANDLINE"
    checkpoint = _base(model, views, stored, named=named, preview=folder.dry_run)
    if stored is not None and stored.provenance.frame_rate is not None:
        reading = replace(reading, frame_rate=stored.provenance.frame_rate)
    run = computing.options(reading)
    job = Job(
        checkpoint=checkpoint,
        asked=asked,
        run=run,
        output=folder.output,
        overwrite=folder.overwrite,
        resume=folder.resume,
        tuning=optimisation.tuning(method),
        balance=method.balance,
        stored=stored,
    )
    job.check()
    if folder.dry_run:
        if not follows():
            _show_plan(plan(job, console), as_json=folder.as_json)
        return
    try:
        outcome = train(job, console)
    except PeerError:
        if follows():
            raise typer.Exit(PeerError.exit_code) from None  # the first process says why
        raise
    if outcome is not None:
        _finish(outcome, folder)


def _show_plan(found: dict[str, Any], *, as_json: bool) -> None:
    """Print the classes with their videos, and the time; or all of it as JSON."""
    from timesformer_cli.jobs.finetune.progress import Size

    if as_json or not sys.stdout.isatty():
        scoreboard.write_json(found)
        return
    width = max(len(printable(name)) for name in found["classes"])
    for name, count in found["classes"].items():
        print(f"{printable(name):{width}}  {count:,}")
    if found["seconds"] is None:
        print("The time was not measured, as the model is not on this machine yet.")
    elif not found["seconds"]:
        print("Training on the stored vectors takes seconds.")
    else:
        rest = "; the rest, seconds" if found["network"] is None else ""
        print(f"Reading {plural(found['videos'], 'video')} takes about {duration(found['seconds'])}{rest}.")
    if found["network"] is not None:
        print(Size(**found["network"]))


def _finish(outcome: "Outcome", folder: Folder) -> None:
    """Print the metrics, and end with the exit code for them."""
    scoreboard.show(outcome.metrics, as_json=folder.as_json)
    sys.stdout.flush()  # before the lines on standard error
    for line in outcome.next_steps:
        console.note(line)
    scoreboard.require_top1(outcome.metrics, folder.min_top1)
    if outcome.failures:
        raise typer.Exit(SOME_FAILED)
