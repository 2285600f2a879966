"""Whether this machine can do the work: checks, each of which answers with findings, whatever is broken.

Heavy libraries are imported inside the checks: one that cannot be imported is a finding too.
"""

from collections.abc import Iterable, Iterator, Sequence

from timesformer_cli.jobs.doctor import apart, decoders, devices, hub, privacy, system, trial, versions
from timesformer_cli.jobs.doctor.findings import Check, Finding, Status

_WORST: tuple[Status, ...] = ("problem", "warning", "ok")


def checks(*, offline: bool = False, closed: Sequence[str] = ()) -> Iterator[Check]:
    """All checks, group by group. `offline`: the Hub is not asked. `closed`: standard streams that are closed."""
    yield from versions.checks()
    yield from devices.checks()
    yield from decoders.checks()
    yield from hub.checks(offline=offline)
    yield from system.checks(closed)
    yield from trial.checks()


def diagnose(all_checks: Iterable[Check]) -> Iterator[Finding]:
    """The findings of each check, as they come, without secrets and without the user's name."""
    for check in all_checks:
        findings = apart.carry_out(check) if check.apart else check.carry_out()
        yield from map(privacy.cleaned, findings)


def worst(findings: Iterable[Finding]) -> Status:
    """The status of all together."""
    return min((finding.status for finding in findings), key=_WORST.index, default="ok")
