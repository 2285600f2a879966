"""`timesformer doctor`: what this machine has, what would not work here, and what to do about it."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.__about__ import __version__
from timesformer_cli.cli import console, streams
from timesformer_cli.cli.options import Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.text import plural, printable

if TYPE_CHECKING:
    from timesformer_cli.jobs.doctor.findings import Finding

HELP = """Check this machine: versions, devices, decoders, the Hub, limits, and a small run from end to end.

Each line says `ok`, `warning` or `problem`; below a warning or a problem is its remedy. The output has no tokens, and \
neither your home directory nor your user name: put it into bug reports.

Exit codes: 0 everything works, perhaps with warnings; 1 something would not work; 2 wrong usage; 130 stopped by Ctrl-C.
"""

# Of the columns of status and name.
_STATUS, _NAME = 7, 20


@bundled
def doctor(
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the Hub whether it answers. HF_HUB_OFFLINE=1 does the same.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all checks and their details.")
    ] = False,
    talk: Talk,
) -> None:
    talk.choose()
    from timesformer_cli.jobs.doctor import checks, diagnose

    findings = _with_details(diagnose(checks(offline=offline, closed=streams.closed)))
    seen = list(findings if as_json else _printed(findings))
    if as_json:
        print(json.dumps(_report(seen), indent=2, ensure_ascii=False))
    broken = [f"{finding.group}.{finding.name}" for finding in seen if finding.status == "problem"]
    if broken:
        console.error(f"{plural(len(broken), 'problem')}: {', '.join(broken)}; the remedies are in the report")
        raise typer.Exit(1)


def _with_details(findings: "Iterable[Finding]") -> "Iterator[Finding]":
    """Tells, if asked for details, the tracebacks of checks that failed themselves."""
    for finding in findings:
        for line in finding.trace.splitlines():
            console.detail(line)
        yield finding


def _printed(findings: "Iterable[Finding]") -> "Iterator[Finding]":
    """Prints each finding as it comes."""
    group = ""
    for finding in findings:
        if finding.group != group:
            print(f"{chr(10) if group else ''}{finding.group}")
            group = finding.group
        name = finding.name.replace("_", " ")
        print(f"  {finding.status:{_STATUS}}  {name:{_NAME}}  {_line(finding.message)}".rstrip(), flush=True)
        if finding.remedy:
            print(f"  {'':{_STATUS}}  {'':{_NAME}}  -> {_line(finding.remedy)}", flush=True)
        yield finding


def _line(text: str) -> str:
    return printable(console.spoken(text))


def _report(findings: "list[Finding]") -> dict[str, Any]:
    from timesformer_cli.jobs.doctor import worst

    groups: dict[str, dict[str, Any]] = {}
    for finding in findings:
        groups.setdefault(finding.group, {})[finding.name] = {
            "status": finding.status,
            "message": console.spoken(finding.message),
            "remedy": console.spoken(finding.remedy) or None,
            "facts": finding.facts,
        }
    return {"timesformer": __version__, "status": worst(findings), "checks": groups}
