"""Errors that a user can cause. Each message says where, what, and what to try; `main()` prints it as one line.

Messages name settings as in Python, between backticks: `device`, `device=cpu`. `cli.wording` turns them into options.
"""

from typing import Literal

# The `error.kind` values of a record, fixed by the command line's contract.
ErrorKind = Literal[
    "not_found",
    "unreadable",
    "no_video_stream",
    "decode",
    "too_large",
    "timeout",
    "crash",
    "unsupported",
]

# The exit code of a run that finished, but with some failed videos.
SOME_FAILED = 3


class TimesformerError(Exception):
    """Base of all errors that the user can fix; the command ends with `exit_code`."""

    exit_code = 1


class Terminated(BaseException):
    """SIGTERM: ends the program as KeyboardInterrupt does, past every `except Exception`."""


class UsageError(TimesformerError):
    """The call cannot work, whatever the files hold."""

    exit_code = 2


class InputError(TimesformerError):
    """There is no video to read, or a dataset is not understood: a path does not exist, a list of labels is broken."""


class OutputError(TimesformerError):
    """The results cannot be written to the wanted place."""


class CheckpointError(TimesformerError):
    """A model does not exist, or its files do not match."""


class DeviceError(TimesformerError):
    """The machine does not have the wanted device, or the memory of the device is too small."""


class TrainingError(TimesformerError):
    """The loss of a training run is not a finite number any more."""


class PeerError(TimesformerError):
    """Another process of the same run failed, and so this one cannot go on."""


class SystemLimitError(TimesformerError):
    """The system refuses what a run cannot do without: processes, threads, open files, a place to write."""


class VideoError(TimesformerError):
    """One video that cannot be read. It becomes a `Failure` record; the run goes on.

    The message leaves out the path: the record carries it.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind

    def __reduce__(self) -> tuple[type["VideoError"], tuple[ErrorKind, str]]:
        # Exceptions are rebuilt only from `args`; without this, the kind is lost between processes.
        return (VideoError, (self.kind, str(self)))
