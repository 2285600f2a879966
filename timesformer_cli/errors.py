"""What a user can cause. Each message says where, what, and what to try; `main()` prints it as one line.

Messages name settings as Python does, between backticks: `device`, `device=cpu`. `cli.wording` makes options of them.
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

# The exit code of a run that came to its end, without some of its videos.
SOME_FAILED = 3


class TimesformerError(Exception):
    """Base of every error that is the user's to mend; the command ends with `exit_code`."""

    exit_code = 1


class Terminated(BaseException):
    """SIGTERM: ends the program as KeyboardInterrupt does, past every `except Exception`."""


class UsageError(TimesformerError):
    """The command was called in a way that cannot work, whatever the files hold."""

    exit_code = 2


class InputError(TimesformerError):
    """No video to read, or a data set that is not understood: a path that does not exist, a broken list of labels."""


class OutputError(TimesformerError):
    """The results cannot be written where they were wanted."""


class CheckpointError(TimesformerError):
    """A model that is not there, or whose files do not fit together."""


class DeviceError(TimesformerError):
    """A device was asked for that this machine does not have, or whose memory is too small."""


class VideoError(TimesformerError):
    """One video that cannot be read. It becomes a `Failure` record; the run goes on.

    The message leaves out the path: the record carries it.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind

    def __reduce__(self) -> tuple[type["VideoError"], tuple[ErrorKind, str]]:
        # Exceptions rebuild from `args` alone; without this the kind is lost between processes.
        return (VideoError, (self.kind, str(self)))
