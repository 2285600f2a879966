"""What the checks find, and how they are carried out: whatever breaks in one is its finding."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from timesformer_cli.errors import TimesformerError
from timesformer_cli.limits import shortage

Status = Literal["ok", "warning", "problem"]

# What a finding belongs to, in the order of the report.
Group = Literal["versions", "devices", "decoders", "hub", "limits", "trial"]

REPORT = "report it, with everything that this command prints"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    `name` is unique in its group. `message` and `remedy` are one line each; the remedy is empty only if all is well.
    `facts` hold the same for programs, as JSON has it. `trace` is the traceback if the check itself failed.
    """

    group: Group
    name: str
    message: str
    status: Status = "ok"
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question with one answer or more.

    If `find` itself fails, that is a problem of this group and name, with this remedy. `find` runs in a fresh process
    if `apart`, since some libraries end or block theirs, and must be importable.
    """

    group: Group
    name: str
    find: Callable[[], list[Finding]]
    remedy: str = REPORT
    apart: bool = False

    def carry_out(self) -> list[Finding]:
        """What it finds in this process; never raises an Exception."""
        try:
            return self.find()
        except Exception as error:
            return [self.failed(error)]

    def failed(self, error: Exception) -> Finding:
        message, remedy = explained(error)
        trace = "".join(traceback.format_exception(error))
        return self.problem(message, remedy or self.remedy, trace)

    def problem(self, message: str, remedy: str, trace: str = "") -> Finding:
        return Finding(group=self.group, name=self.name, status="problem", message=message, remedy=remedy, trace=trace)


def explained(error: BaseException) -> tuple[str, str]:
    """An error in one line, and its remedy if the error is one that users can cause; else an empty text."""
    error = shortage(error) or error
    if isinstance(error, TimesformerError):
        message, _, remedy = " ".join(str(error).split()).partition("; ")
        return message, remedy
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}", "check the path and its permissions"
    message = f"{type(error).__name__}: {first_line(error)}"
    return message, remedy_of(message)


# What the system says when libraries fail for want of something, and the remedy.
_WANTS = {
    "Resource temporarily unavailable": "raise the limit of processes (`ulimit -u`, or that of the container)",
    "Cannot allocate memory": "give the machine or the container more memory",
    "No usable temporary directory": "set TMPDIR to a folder that can be written",
    "No space left on device": "free space, or set TMPDIR to a folder on a larger disk",
}


def remedy_of(message: str) -> str:
    """The remedy if a message is about what the system lacks, else an empty text."""
    return next((remedy for words, remedy in _WANTS.items() if words in message), "")


def first_line(error: BaseException) -> str:
    """The first line of its message: libraries write pages."""
    return shortened((str(error).strip().splitlines() or ["no message"])[0])


def shortened(line: str) -> str:
    return line if len(line) <= 200 else f"{line[:200]}..."
