"""`timesformer explain`: what an answer rests on, and how far to trust the picture."""

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli.cli import console, streams
from timesformer_cli.cli.options import OUTPUT, Talk, positive
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Inputs, Limit
from timesformer_cli.cli.options.model import Model
from timesformer_cli.cli.options.output import Overwrite, ResumeRun
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Running
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.errors import SOME_FAILED, InputError, UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from timesformer_cli.flow import Failure
    from timesformer_cli.jobs.explain import Explained, Job
    from timesformer_cli.jobs.explain.files import Folder, Tally
    from timesformer_cli.jobs.explain.records import Options
    from timesformer_cli.jobs.videos import Videos
    from timesformer_cli.results.overlay import Look
    from timesformer_cli.specs import Checkpoint

WHY = "Explanation"

HELP = """Show what the answer for a video rests on, and how far to trust the map.

Says in words what altered clips change: only one frame, frames in another order, time reversed, no motion. Measures \
how much each frame matters, and makes a map over space and time, which is checked: does the score fall faster if \
patches are taken away in its order? --output writes a page, a video with heat, a contact sheet or arrays for one \
video, or a folder of pages for several.

Exit codes: 0 all videos explained; 1 the run failed, or no video could be read; 2 wrong usage; 3 some videos failed; \
130 stopped by Ctrl-C; 143 stopped by SIGTERM. Finished pages of a folder are kept, and --resume continues the run.
"""


def _share(text: str) -> float:
    """A share above 0 and at most 1, from 0.2 or 20%."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{text!r} is not a share such as 20% or 0.2")
    return value


def _second(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else positive(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class What:
    """Which label of which clip."""

    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME|N",
            help="Class to explain, by name or number; can be repeated. Default: the first label of each video.",
            rich_help_panel=WHY,
        ),
    ] = None
    versus: Annotated[
        str | None,
        typer.Option(
            "--versus",
            metavar="NAME|N",
            help="Explain why the label rather than this class: the difference of their logits.",
            rich_help_panel=WHY,
        ),
    ] = None
    clip: Annotated[
        int | None,
        typer.Option(
            "--clip",
            metavar="N",
            min=0,
            help="Explain clip N, from 0, instead of the view with the highest logit of the label.",
            rich_help_panel=WHY,
        ),
    ] = None
    at: Annotated[
        float | None,
        typer.Option(
            "--at",
            metavar="SECONDS",
            parser=_second,
            help="Explain the clip that shows this moment.",
            rich_help_panel=WHY,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """By which method, and how it is checked."""

    method: Annotated[
        Literal["lrp", "lrp+ig", "ig", "gradcam", "attention", "rollout", "occlusion", "ridge", "shapley"] | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            help=(
                "Method of the map: lrp (default), lrp+ig, ig, gradcam, occlusion, ridge, shapley (values of frames), "
                "or attention or rollout, which do not depend on the label. Exported models run only occlusion, ridge "
                "and shapley."
            ),
            rich_help_panel=WHY,
        ),
    ] = None
    fill: Annotated[
        list[Any] | None,
        typer.Option(
            "--fill",
            metavar="still|gray|blur",
            parser=lambda text: _fill(text),
            help=(
                "What stands for a patch that is taken away: the mean frame of the clip, its mean colour, or a "
                "blurred frame, which still shows motion. Can be repeated; the check takes gray and still by default."
            ),
            rich_help_panel=WHY,
        ),
    ] = None
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not check the map.", rich_help_panel=WHY)] = False
    checks: Annotated[
        Literal["default", "all"],
        typer.Option(
            "--checks",
            metavar="default|all",
            help=(
                "all: also compare with random orders, nearness to the centre, and the map of the network with random "
                "weights."
            ),
            rich_help_panel=WHY,
        ),
    ] = "default"

    def check(self) -> None:
        """Raises UsageError."""
        if self.no_check and self.checks == "all":
            raise UsageError("--no-check and --checks all cannot be combined")


def _fill(text: str) -> str:
    if text not in ("still", "gray", "blur"):
        raise typer.BadParameter(f"{text!r} is not one of still, gray, blur")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where explanations go, and how they look."""

    format: Annotated[
        Literal["auto", "text", "json", "jsonl"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=(
                "Format on standard output: text, json (one object, or an array for several), jsonl (one object per "
                "line), or auto: text on a terminal, jsonl in a pipe."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = "auto"
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help=(
                "Write a page (.html), a video with heat (.mp4), a contact sheet with heat (.png) or arrays (.npz) of "
                "one video; or a folder with a page for each video and an index."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Overwrite = False
    resume: ResumeRun = False
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="With --resume: also retry videos that failed.", rich_help_panel=OUTPUT),
    ] = False
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", metavar="SHARE", parser=_share, help="Opacity of the strongest heat.", rich_help_panel=OUTPUT
        ),
    ] = None
    top: Annotated[
        float | None,
        typer.Option(
            "--top",
            metavar="SHARE",
            parser=_share,
            help="Show heat only at this share of the patches, such as 20%: those that matter most.",
            rich_help_panel=OUTPUT,
        ),
    ] = None

    @property
    def look(self) -> "Look":
        from timesformer_cli.results.overlay import Look

        return Look(top=self.top) if self.alpha is None else Look(self.alpha, self.top)

    @property
    def file(self) -> Path | None:
        """The output if it is a file of one video. Raises UsageError for an ending that is none of a folder's name."""
        from timesformer_cli.jobs.explain.files import PICTURES

        if self.output is None or self.output.is_dir():
            return None
        ending = self.output.suffix.lower()
        if ending in PICTURES:
            return self.output
        if ending in (".json", ".jsonl", ".csv", ".txt", ".jpg", ".webm", ".mkv", ".gif"):
            raise UsageError(
                f"--output {self.output}: the name must end in {', '.join(PICTURES)}, or be that of a folder; "
                "JSON goes to standard output"
            )
        return None

    @property
    def folder(self) -> "Folder | None":
        from timesformer_cli.jobs.explain.files import Folder

        if self.output is None or self.file is not None:
            return None
        return Folder(path=self.output, overwrite=self.overwrite, resume=self.resume, retry_errors=self.retry_errors)

    def check(self) -> None:
        """Check, before any work is done, that the output can be written. Raises UsageError and OutputError."""
        from timesformer_cli.files import check_target

        if self.folder is None and (self.resume or self.retry_errors):
            raise UsageError("--resume and --retry-errors need --output with a folder")
        if self.output is None and self.overwrite:
            raise UsageError("--overwrite needs --output")
        if self.file is not None:
            check_target(self.file, overwrite=self.overwrite)


@bundled
def explain(
    inputs: Inputs,
    model: Model,
    what: What,
    how: How,
    target: Target,
    views: ViewOptions,
    reading: ReadingOptions,
    running: Running,
    limit: Limit = None,
    *,
    talk: Talk,
) -> None:
    talk.choose()
    inputs.require("explain")
    how.check()
    target.check()

    from timesformer_cli.jobs.explain import Job
    from timesformer_cli.jobs.explain.files import check_picture

    videos = inputs.find(frames=reading.frames, limit=limit)
    file = target.file
    if file is not None and videos.total() != 1:
        count = videos.total() or "perhaps more"
        raise UsageError(f"{file}: is a file for one video, and there are {count}; name a folder for their pages")
    checkpoint = model.resolve(views)
    job = Job(
        checkpoint=checkpoint,
        items=videos.items,
        options=_options(what, how, checkpoint),
        run=running.options(reading),
        contrast=target.folder is not None or (file is not None and file.suffix.lower() == ".html"),
    )
    job.check()
    if file is not None:
        check_picture(file, job)
    tally = _into_folder(target, job, videos) if target.folder else _shown(target, job, videos)
    _end(tally)


def _options(what: What, how: How, checkpoint: "Checkpoint") -> "Options":
    """Raises UsageError for a class that the model does not have."""
    from timesformer_cli.jobs.explain.records import Options

    return Options(
        labels=tuple(dict.fromkeys(_class(name, checkpoint, "--label") for name in what.label or ())),
        versus=None if what.versus is None else _class(what.versus, checkpoint, "--versus"),
        method=how.method,
        fills=tuple(dict.fromkeys(how.fill or ())),
        checks="none" if how.no_check else how.checks,
        clip=what.clip,
        at=what.at,
    )


def _class(name: str, checkpoint: "Checkpoint", option: str) -> int:
    """The number of a class, by its name in any case, or by its number."""
    from difflib import get_close_matches

    names = [label.casefold() for label in checkpoint.labels]
    if name.casefold() in names:
        return names.index(name.casefold())
    if name.isascii() and name.isdigit() and int(name) < len(names):
        return int(name)
    close = [checkpoint.labels[names.index(each)] for each in get_close_matches(name.casefold(), names, 3, 0.5)]
    known = f"it has {len(names)}, such as {checkpoint.labels[0]!r}"
    known += f"; `timesformer models show {checkpoint.name} --json` lists all"
    hint = f"did you mean {' or '.join(close)}?" if close else known
    raise UsageError(f"{option} {name}: {checkpoint.name} has no such class; {hint}")


def _into_folder(target: Target, job: "Job", videos: "Videos") -> "Tally":
    from timesformer_cli.jobs.explain.files import INDEX, explain_into

    folder = target.folder
    assert folder is not None
    tally = explain_into(folder, job, videos.total, console, target.look)
    if tally.count == 0 and tally.kept:
        console.note(f"{folder.path}: nothing to do: it holds all {tally.kept} videos already")
    elif tally.count:
        before = f"; {tally.kept:,} done before" if tally.kept else ""
        failed = f", {tally.kinds.total():,} failed" if tally.kinds else ""
        console.note(f"{folder.path / INDEX}: {tally.explained:,} explained{failed}{before}")
    return tally


def _shown(target: Target, job: "Job", videos: "Videos") -> "Tally":
    """Print each explanation, and write the file of the one video."""
    from timesformer_cli.flow import Failure
    from timesformer_cli.jobs.explain.files import Tally, explain_each, write_picture

    file = target.file
    tally = Tally()

    def take(explained: "Explained") -> None:
        if file is not None:
            write_picture(file, explained, job, target.look)

    with ExitStack() as stack:
        printer = stack.enter_context(_Printer(_format(target), one=videos.total() == 1))
        for result, meter in explain_each(job, videos.total, take, console):
            tally.add(result)
            with meter.step(failed=isinstance(result, Failure)):
                printer.take(result, job)
    if file is not None and tally.explained:
        console.note(f"{file}: written")
    return tally


def _format(target: Target) -> str:
    if target.format != "auto":
        return target.format
    return "text" if sys.stdout.isatty() else "jsonl"


class _Printer:
    """Prints explanations on standard output. A JSON array is closed at the end, also of a run that is stopped."""

    def __init__(self, format: str, *, one: bool) -> None:
        self._format = format
        self._one = one
        self._count = 0

    def __enter__(self) -> "_Printer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._format == "json" and not self._one:
            _print("]" if self._count else "[]")

    def take(self, result: "Explained | Failure", job: "Job") -> None:
        """Raises OutputError."""
        from timesformer_cli.flow import Failure
        from timesformer_cli.jobs.explain.files import records_of
        from timesformer_cli.jobs.explain.words import block

        if self._format == "text":
            if isinstance(result, Failure):
                if not self._one:  # else the error that ends the run says it
                    console.note(f"failed: {result.item.path}: {result.message}")
                return
            for explanation in result.explanations:
                self._count += 1
                lines = [printable(line) for line in block(explanation)]
                _print(("\n" if self._count > 1 else "") + "\n".join(lines))
            return
        records = records_of(result, job.checkpoint)
        if self._format == "json" and self._one:
            _print(_dumped(records[0] if len(records) == 1 else records))
            return
        for record in records:
            before = "" if self._format == "jsonl" else ",\n" if self._count else "[\n"
            self._count += 1
            _print(before + _dumped(record), end="\n" if self._format == "jsonl" else "")


def _dumped(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def _print(text: str, end: str = "\n") -> None:
    """Print a piece of the results. Raises OutputError if that is impossible."""
    from timesformer_cli.files import encoded

    streams.write([encoded(f"{text}{end}")])


def _end(tally: "Tally") -> None:
    """End with the exit code for the results, including those of earlier runs.

    Raises:
        InputError: there was no video, or none could be read.
    """
    if tally.count + tally.kept == 0:
        raise InputError("no video to explain: the list of paths is empty")
    if tally.count and tally.kinds.total() == tally.count and tally.failed >= tally.count + tally.kept:
        raise InputError(tally.reason if tally.count == 1 else f"none of the {tally.count} videos could be read")
    if tally.failed:
        raise typer.Exit(SOME_FAILED)
