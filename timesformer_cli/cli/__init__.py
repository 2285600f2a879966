"""The command line. `main` turns errors into one line and an exit code; each command has a file of its own."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from timesformer_cli.__about__ import __version__
from timesformer_cli.cli import console, models, runs, streams
from timesformer_cli.cli.benchmark import HELP as BENCHMARK_HELP
from timesformer_cli.cli.benchmark import benchmark
from timesformer_cli.cli.dedup import HELP as DEDUP_HELP
from timesformer_cli.cli.dedup import dedup
from timesformer_cli.cli.doctor import HELP as DOCTOR_HELP
from timesformer_cli.cli.doctor import doctor
from timesformer_cli.cli.embed import HELP as EMBED_HELP
from timesformer_cli.cli.embed import embed
from timesformer_cli.cli.evaluate import HELP as EVALUATE_HELP
from timesformer_cli.cli.evaluate import evaluate
from timesformer_cli.cli.explain import HELP as EXPLAIN_HELP
from timesformer_cli.cli.explain import explain
from timesformer_cli.cli.export import HELP as EXPORT_HELP
from timesformer_cli.cli.export import export
from timesformer_cli.cli.finetune import HELP as FINETUNE_HELP
from timesformer_cli.cli.finetune import finetune
from timesformer_cli.cli.inspect import HELP as INSPECT_HELP
from timesformer_cli.cli.inspect import inspect
from timesformer_cli.cli.merge import HELP as MERGE_HELP
from timesformer_cli.cli.merge import merge
from timesformer_cli.cli.options import Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.pick import HELP as PICK_HELP
from timesformer_cli.cli.pick import pick
from timesformer_cli.cli.predict import HELP, predict
from timesformer_cli.cli.search import HELP as SEARCH_HELP
from timesformer_cli.cli.search import search
from timesformer_cli.errors import OutputError, Terminated, TimesformerError
from timesformer_cli.limits import shortage

INTERRUPTED = 130
TERMINATED = 143  # as shells report a program that SIGTERM ended

# Typer exports only one of its usage errors; their common base class is the base of that one.
_TyperUsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)


class Commands(TyperGroup):
    """The commands, and the former names of four that now have a group of their own: `evaluate rescore` ..."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] == "evaluate" and len(args) > 1 and args[1] in _FORMER:
            args = ["runs", *args[1:]]
        return super().resolve_command(ctx, args)


# A folder of videos with such a name needs ./ before it, as in ./merge.
_FORMER = ("rescore", "compare", "fuse", "merge")

app = typer.Typer(
    name="timesformer",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(help=HELP)(predict)
app.command(help=EMBED_HELP)(embed)
app.command(help=DEDUP_HELP)(dedup)
app.command(help=INSPECT_HELP)(inspect)
app.command(help=MERGE_HELP)(merge)
app.command(help=EXPORT_HELP)(export)
app.command(help=BENCHMARK_HELP)(benchmark)
app.command(help=EVALUATE_HELP)(evaluate)
app.command(help=FINETUNE_HELP)(finetune)
app.command(help=SEARCH_HELP)(search)
app.command(help=EXPLAIN_HELP)(explain)
app.command(help=PICK_HELP)(pick)
app.add_typer(runs.app, name="runs")
app.add_typer(models.app, name="models")
app.command(help=DOCTOR_HELP)(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"timesformer {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@bundled
def timesformer(
    *,
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    talk: Talk,
) -> None:
    """Label videos with TimeSformer."""
    talk.choose()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on `args`, by default the program's own, and exit with its code."""
    streams.prepare()
    console.take_warnings()
    console.set_level("normal")
    # Threads of the network that wait for one another must not take the processor from those that read videos. OpenMP
    # reads it once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's own threads, one for each core in each process, would never have work. Where there are too many processes,
    # they cannot be started, and OpenBLAS sends this program a SIGINT.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if threading.current_thread() is threading.main_thread():  # others cannot set signal handlers
        signal.signal(signal.SIGTERM, _terminate)
    code = _run(args)
    try:
        sys.stdout.flush()
    except OutputError as error:
        code = code or _explain(error)  # one that was there before is about the same
    except OSError:
        pass  # the reader is gone
    streams.let_go()
    sys.exit(code)


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated


def _run(args: Sequence[str] | None) -> int:
    try:
        code = app(args=args, prog_name="timesformer", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Terminated:
        console.error("stopped by SIGTERM; finished results are kept")
        return TERMINATED
    except Exception as error:
        if console.is_verbose():
            traceback.print_exc()
        return _explain(error)
    if code == INTERRUPTED:  # Typer's exit code for a KeyboardInterrupt
        console.error("stopped by Ctrl-C; finished results are kept")
    return code or 0


def _explain(error: Exception) -> int:
    """Print in one line what went wrong, and return the exit code."""
    error = shortage(error) or error
    if isinstance(error, TimesformerError):
        console.error(str(error))
        return error.exit_code
    if isinstance(error, _TyperUsageError):
        command = error.ctx.command_path if error.ctx else "timesformer"
        message = error.format_message().replace("Value error, ", "").rstrip(".")  # a prefix of pydantic's
        if message:  # empty for a group without a command, which has shown its help
            console.error(f"{message}; see {command} --help")
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # Of the file system, and not of this program: a folder without rights, a broken disk, a loop of links.
        console.error(f"{os.fspath(error.filename)}: {error.strerror}; check the path and its permissions")
        return 1
    what = " ".join(f"{type(error).__name__}: {error}".split())
    console.error(f"{what}; this is a bug in timesformer: run again with --verbose for the traceback, and report it")
    return 1
