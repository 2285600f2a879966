"""`timesformer benchmark`: the speed of this machine, stage by stage."""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timesformer_cli import strict_json
from timesformer_cli.cli import console
from timesformer_cli.cli.options import OUTPUT, RUN, Talk, positive
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Sources
from timesformer_cli.cli.options.model import Model
from timesformer_cli.cli.options.reading import Decoder
from timesformer_cli.cli.options.run import Network, Workers
from timesformer_cli.cli.options.views import RecipeOptions
from timesformer_cli.errors import InputError
from timesformer_cli.text import plural, printable

if TYPE_CHECKING:
    from timesformer_cli.flow import Item
    from timesformer_cli.jobs.benchmark import Duel, Measurement

HELP = """Measure this machine: time to start, load, read and run the network, and videos labelled per second.

Without videos, a bundled clip of four seconds is read. The network runs in each precision that the device has \
hardware for, with growing batches. Its speed is given in FLOP/s, counting two per multiply-add of the published \
model, and as a share of the speed of plain matrix products in the same precision. Memory is the peak of the process, \
or on a GPU the peak that PyTorch holds. ± is half the range of the middle half of the rounds, as a share of the \
median; more than a few percent means that other programs use the machine.

Exit codes: 0 done; 1 the run failed, or a video could not be read; 2 wrong usage; 130 stopped by Ctrl-C.
"""

# More videos are left out, as every stage reads each of them several times.
_MOST_VIDEOS = 16

_COLUMNS = ("Stage", "", "Median", "p90", "p99", "±", "Rounds", "Per second", "GFLOP/s", "Of matmul", "Memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """What is measured, and for how long."""

    workers: Workers = None
    network: Network
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="N",
            parser=positive,
            help="Seconds per measurement; longer if two rounds take longer.",
            rich_help_panel=RUN,
        ),
    ] = 2.0
    against: Annotated[
        Literal["transformers"] | None,
        typer.Option(
            "--against",
            metavar="transformers",
            help="Compare with transformers, if installed, by alternating runs: its network on the same weights and "
            "views, and its pipeline on the videos.",
            rich_help_panel=RUN,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Where the numbers go, and what they are compared with."""

    earlier: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="OLD.json",
            help="Show the speed-up of each measurement over an earlier result.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the table.", rich_help_panel=OUTPUT)
    ] = False
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Also write the JSON object to this file.", rich_help_panel=OUTPUT
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it exists.", rich_help_panel=OUTPUT)
    ] = False


@bundled
def benchmark(
    *,
    inputs: Sources = None,
    model: Model,
    recipe: RecipeOptions,
    decoder: Decoder = "auto",
    measuring: Measuring,
    result: Result,
    talk: Talk,
) -> None:
    talk.choose()
    from timesformer_cli.files import check_target, replacing
    from timesformer_cli.pipeline.run import RunOptions
    from timesformer_cli.runtimes.devices import check_device
    from timesformer_cli.specs import Reading

    network = measuring.network
    run = RunOptions(
        device=network.on.device,
        precision=network.on.precision,
        compile=network.compile,
        provider=network.provider,
        workers=measuring.workers,
        reading=Reading(decoder=decoder),
    )
    check_device(run.device)
    if result.output is not None:
        check_target(result.output, overwrite=result.overwrite)
    if measuring.against is not None:
        from timesformer_cli.jobs.benchmark import check_transformers

        check_transformers()
    before = None if result.earlier is None else _read(result.earlier)
    items = _find(inputs or [])
    checkpoint = model.resolve(recipe)
    run.check(checkpoint)

    from timesformer_cli.jobs.benchmark import Settings, compare, measure

    settings = Settings(run=run, seconds=measuring.seconds)
    against = measuring.against is not None
    report = measure(items, checkpoint, settings, against=against, tell=console.note, found=_tell).to_dict()
    if before is not None:
        report["compared"] = {"with": str(result.earlier), **compare(report, before)}
    text = json.dumps(report, indent=2)
    if result.output is not None:
        with replacing(result.output) as part:
            part.write_bytes(f"{text}\n".encode())
    print(text if result.as_json else _page(report))


def _find(sources: list[str]) -> "list[Item]":
    from timesformer_cli.flow import Item
    from timesformer_cli.jobs.benchmark import CLIP
    from timesformer_cli.video.inputs import find

    if not sources:
        return [Item(str(CLIP))]
    items = list(islice(find(sources), _MOST_VIDEOS + 1))
    if not items:
        raise InputError("no video to measure with: the list of paths is empty")
    if len(items) > _MOST_VIDEOS:
        console.note(f"the first {_MOST_VIDEOS} videos are used; name fewer to choose them")
    return items[:_MOST_VIDEOS]


def _read(path: Path) -> dict[str, Any]:
    """Read an earlier result. Raises InputError if it is not one."""
    from timesformer_cli.jobs.benchmark import compare

    try:
        content: dict[str, Any] = strict_json.read(path)
        compare(content, content)  # or a missing field would be found only after minutes
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"{path}: not a result of timesformer benchmark; make one with --output FILE") from error
    return content


def _tell(found: "Measurement | Duel") -> None:
    """Print a result on standard error."""
    from timesformer_cli.jobs.benchmark import Duel

    if isinstance(found, Duel):
        console.note(f"against transformers: {found.name}: {_duration(found.ours.median)}")
    else:
        console.note(f"{found.stage}: {found.name}: {_duration(found.timing.median)}")


def _page(report: dict[str, Any]) -> str:
    machine, versions, chosen, network = (report[name] for name in ("machine", "versions", "settings", "network"))
    compared = report.get("compared", {})
    ratios = compared.get("times_as_fast", [None] * len(report["measurements"]))
    rows = [_row(entry) for entry in report["measurements"]]
    for above, row in zip(report["measurements"], rows[1:], strict=False):  # each stage is named once
        if row[0] == above["stage"]:
            row[0] = ""
    table = [[*_COLUMNS, "Speed-up"], *([*row, _times(ratio)] for row, ratio in zip(rows, ratios, strict=True))]
    lines = [
        f"{chosen['model']}, {chosen['recipe']}: {network['parameters']:,} parameters, "
        f"{_three(network['flops_per_view'] / 1e9)} GFLOP per view",
        f"{machine['processor']}, {plural(machine['cores'], 'core')}, {plural(machine['threads'], 'thread')}"
        f"{''.join(f', {name}' for name in machine['gpus'])}; {machine['system']}",
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}; device {chosen['device']}",
        "",
        *_aligned(table),
    ]
    if report["against"]:
        lines += [
            "",
            f"In alternation with transformers {versions['transformers']}:",
            *_aligned(_duels(report["against"])),
        ]
    if compared:
        lines += ["", f"Speed-up: over {compared['with']}"]
        lines += [f"It differs in: {'; '.join(compared['differences'])}"] if compared["differences"] else []
    return "\n".join(map(printable, lines))


def _row(entry: dict[str, Any]) -> list[str]:
    seconds, achieved, share = entry["seconds"], entry["flops_per_second"], entry["share_of_matrix_product"]
    return [
        entry["stage"],
        entry["name"],
        *(_duration(seconds[name]) for name in ("median", "p90", "p99")),
        f"{100 * seconds['spread']:.0f} %",
        str(seconds["rounds"]),
        ", ".join(f"{_three(rate)} {what}" for what, rate in entry["per_second"].items()),
        "" if achieved is None else f"{achieved / 1e9:,.0f}",
        "" if share is None else f"{100 * share:.0f} %",
        "" if entry["memory"] is None else f"{entry['memory'] / 1e6:,.0f} MB",
    ]


def _duels(duels: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["", "Ours", "Theirs", "±", "Pairs", "Speed-up", "Logits differ by"]]
    for duel in duels:
        ours, theirs, ratio = duel["ours"], duel["theirs"], duel["times_as_fast"]
        rows.append(
            [
                duel["name"],
                _duration(ours["median"]),
                _duration(theirs["median"]),
                f"{100 * ours['spread']:.0f} %, {100 * theirs['spread']:.0f} %",
                str(ours["rounds"]),
                f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})",
                "" if duel["difference"] is None else f"{duel['difference']:.1e}",
            ]
        )
    return rows


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines as wide as necessary; empty columns are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    numbers = [[cell[:1].isdigit() for cell in column[1:] if cell] for column in columns]
    padded = [
        [cell.rjust(width) if all(digits) else cell.ljust(width) for cell in column]
        for column, digits, width in ((c, d, max(map(len, c))) for c, d in zip(columns, numbers, strict=True))
    ]
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    factor, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{_three(factor * seconds)} {unit}"


def _three(value: float) -> str:
    """The value to three digits: 1,234, 123, 12.3 or 0.123."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
