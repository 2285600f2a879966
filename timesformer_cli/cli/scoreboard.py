"""Metrics on standard output: a table for people, JSON for programs; and the options of commands that show them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import OUTPUT, share
from timesformer_cli.errors import UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from rich.table import Table

TOP_K = (1, 5)

_CONFUSED = 3


def _top_k(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() and 1 <= int(number) <= 100_000 for number in numbers):
        raise typer.BadParameter(f"{text!r} is not a number of at least 1, or several separated by commas")
    return tuple(sorted({1, *map(int, numbers)}))


Json = Annotated[
    bool,
    typer.Option("--json", help="Print metrics as JSON on a terminal too, as in a pipe.", rich_help_panel=OUTPUT),
]


MinTop1 = Annotated[
    float | None,
    typer.Option(
        "--min-top1",
        metavar="SHARE",
        parser=share,
        help="Exit with code 1 if the top-1 accuracy, from 0 to 1, is lower.",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Which accuracies are reported, and how."""

    top_k: Annotated[
        Any,
        typer.Option(
            "--top-k",
            "-k",
            metavar="K,K",
            parser=_top_k,
            help="Values of k for the top-k accuracies to report, by default 1,5; 1 is always included.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    min_top1: MinTop1 = None
    as_json: Json = False

    @property
    def ks(self) -> tuple[int, ...]:
        return self.top_k or TOP_K

    def check(self, *, multi_label: bool) -> None:
        """Raises UsageError if there will be no top-1 accuracy."""
        if self.min_top1 is not None and multi_label:
            raise UsageError("--min-top1: these videos have several labels each, so there is no top-1 accuracy")

    def require(self, summary: dict[str, Any]) -> None:
        """End with exit code 1 if the top-1 accuracy of `metrics.json` is too low."""
        require_top1(summary, self.min_top1)


def require_top1(summary: dict[str, Any], least: float | None) -> None:
    """End with exit code 1 if the top-1 accuracy of `metrics.json` is lower than `least`."""
    if least is None:
        return
    accuracy = summary["top_1"]["accuracy"]
    if accuracy is None or accuracy["value"] < least:
        reached = "there is none" if accuracy is None else f"top-1 accuracy is {accuracy['value']:.4f}"
        console.error(f"--min-top1 {least:g} is not met: {reached}")
        raise typer.Exit(1)


def show(summary: dict[str, Any], *, as_json: bool) -> None:
    """Print the content of `metrics.json` on standard output, and its warning on standard error."""
    if _wants_json(as_json):
        write_json(summary)
    else:
        _print(_table(summary))
        if summary["interval_note"]:
            print(summary["interval_note"])
        print(f"Videos: {_counts(summary['counts'])}.")
        if confused := [_pair(pair) for pair in summary["most_confused"][:_CONFUSED]]:
            print(f"Most confused: {'; '.join(confused)}.")
        if calibration := summary.get("calibration"):
            from timesformer_cli.evaluation.calibration_file import sentences

            print("Calibration:", *sentences(calibration), sep="\n  ")
    if summary["warning"]:
        console.note(f"warning: {summary['warning']}")


def show_comparisons(comparisons: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print the comparisons of runs with the first one."""
    if _wants_json(as_json):
        write_json({"comparisons": list(comparisons)})
        return
    from rich.table import Table

    table = Table("Run", box=None, pad_edge=False)
    for head in ("Videos", "First", "Top-1", "Difference", "95 % interval", "p", "Gained", "Lost"):
        table.add_column(head, justify="right")
    for row in comparisons:
        difference = row["difference"]
        table.add_row(
            printable(row["run"]),
            f"{row['videos']:,}",
            _percent(row["first_top_1"]),
            _percent(row["top_1"]),
            f"{100 * difference['value']:+.2f}",
            f"{100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}",
            f"{row['p_value']:.2g}",
            f"{len(row['gained']):,}",
            f"{len(row['lost']):,}",
        )
    _print(table)
    for row in comparisons:
        if row["interval_note"]:
            print(f"{printable(row['run'])}: {row['interval_note']}")


def write_json(content: dict[str, Any]) -> None:
    from timesformer_cli.files import encoded

    sys.stdout.buffer.write(encoded(json.dumps(content, indent=2, ensure_ascii=False) + "\n"))


def _wants_json(as_json: bool) -> bool:
    return as_json or not sys.stdout.isatty()


def _print(table: "Table") -> None:
    from rich.console import Console

    Console(highlight=False).print(table)


def _table(summary: dict[str, Any]) -> "Table":
    from rich.table import Table

    published = summary["published"]
    table = Table(printable(summary["model"]), box=None, pad_edge=False)
    for head in ("", "95 % interval", "Failures as wrong", f"Published ({published['data']})" if published else ""):
        table.add_column(head, justify="right")
    tops = [name for name in summary if name.startswith("top_")]
    for name in tops:
        top = summary[name]
        if top["accuracy"] is not None:
            shown = published.get(name) if published else None
            table.add_row(
                f"Top-{name[4:]} accuracy",
                *_estimate(top["accuracy"]),
                _failures(top, summary["failed"]),
                f"{_percent(shown['value'])}, {'within' if shown['within_interval'] else 'outside'}" if shown else "",
            )
    if summary["mean_class_accuracy"] is not None:
        table.add_row("Mean class accuracy", *_estimate(summary["mean_class_accuracy"]))
    for name, text, form in (
        ("mean_average_precision", "Mean average precision", _percent),
        ("expected_calibration_error", "Calibration error", _percent),
        ("negative_log_likelihood", "Negative log likelihood", "{:.4f}".format),
    ):
        if summary[name] is not None:
            table.add_row(text, form(summary[name]))
    return table


def _estimate(estimate: dict[str, Any]) -> tuple[str, str]:
    return _percent(estimate["value"]), _interval(estimate["low"], estimate["high"])


def _failures(top: dict[str, Any], failed: int) -> str:
    """The share with failures as wrong, and its interval if it is not that of the accuracy."""
    share = _percent(top["failures_as_wrong"])
    return f"{share} ({_interval(*top['failures_as_wrong_interval'])})" if failed else share


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.2f} to {100 * high:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _counts(counts: dict[str, Any]) -> str:
    listed = f"{counts['evaluated']:,} evaluated of {counts['listed']:,} listed"
    others = {name: number for name, number in counts.items() if name not in ("evaluated", "listed", "failed_by_kind")}
    return ", ".join([listed, *(f"{number:,} {name.replace('_', ' ')}" for name, number in others.items() if number)])


def _pair(pair: dict[str, Any]) -> str:
    return f"{printable(pair['label'])} as {printable(pair['predicted'])}, {pair['videos']:,} times"
