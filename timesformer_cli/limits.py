"""What the system grants this process: processor time, memory, and what a run cannot do without."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath

from timesformer_cli.errors import SystemLimitError


@cache
def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processor time that Linux grants per second of time, as containers set it; None without a limit.

    It is the least of the control group of this process and of all above it that can be seen. `root` holds `proc`
    and the mounted control groups, of version 2 or 1.
    """
    return min((quota for group in _groups("cpu", root) if (quota := _quota_of(group)) is not None), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory that the control groups grant, found as `cpu_quota`; None without a limit."""
    return _least("memory", ("memory.max", "memory.limit_in_bytes"), root)


def process_limit(root: Path = Path("/")) -> int | None:
    """Processes and threads that the control groups grant, found as `cpu_quota`; None without a limit."""
    return _least("pids", ("pids.max",), root)


def _least(controller: str, names: tuple[str, ...], root: Path) -> int | None:
    """The least number in files of the control groups of this process, whose name depends on their version."""
    found = []
    for group in _groups(controller, root):
        for name in names:
            with suppress(OSError, ValueError):  # ValueError for "max", which is no limit
                found.append(int((group / name).read_text()))
    return min((limit for limit in found if limit < _NO_LIMIT), default=None)


# Version 1 says of memory without a limit that the limit is the largest number of pages, which depends on their size.
_NO_LIMIT = 2**60


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups that may limit this process, as far as they can be seen."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    yield from (root / folder for folder in _folders(controller, groups, mounts))


def _folders(controller: str, groups: list[str], mounts: list[str]) -> Iterator[str]:
    """Those folders without their first slash.

    A line of `cgroup` has a number, controllers and a path; one of `mountinfo` the path that is mounted, where, and
    after a dash the file system and, third, the controllers.
    """
    paths = {tuple(line.split(":", 2)[1].split(",")): line.split(":", 2)[2] for line in groups if line.count(":") > 1}
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, system = left.split(" "), right.split(" ")
        version_1 = system[0] == "cgroup" and controller in system[-1].split(",")
        if len(fields) < 5 or not (version_1 or system[0] == "cgroup2"):
            continue
        path = next((path for names, path in paths.items() if (controller if version_1 else "") in names), None)
        if path is None:
            continue
        mounted, place = PurePosixPath(fields[3]), PurePosixPath(fields[4])
        # A container may see only the mount of its own group, but the path from the host.
        inner = PurePosixPath(path).relative_to(mounted) if PurePosixPath(path).is_relative_to(mounted) else ""
        group = place / inner
        yield from (str(each).lstrip("/") for each in (group, *group.parents) if each.is_relative_to(place))


def _quota_of(group: Path) -> float | None:
    for read in (_version_2, _version_1):
        try:
            quota, period = read(group)
            if quota > 0 and period > 0:
                return quota / period
        except (OSError, ValueError):
            continue
    return None


def _version_2(group: Path) -> tuple[int, int]:
    quota, period = (group / "cpu.max").read_text().split()
    return int(quota), int(period)  # ValueError for "max", which is no limit


def _version_1(group: Path) -> tuple[int, int]:
    return int((group / "cpu.cfs_quota_us").read_text()), int((group / "cpu.cfs_period_us").read_text())


_NO_PROCESS = (
    "the system starts no more processes or threads; raise the limit of processes (`ulimit -u`, or that of the "
    "container), or try `workers=0`"
)


def shortage(error: BaseException) -> SystemLimitError | None:
    """What the system refused, with the remedy, if that is what the error is about."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return SystemLimitError(_too_few_files())
    if isinstance(error, OSError) and error.errno == errno.ENFILE:
        return SystemLimitError("the system opens no more files; end other programs, or raise its limit (fs.file-max)")
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return SystemLimitError(_NO_PROCESS)
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):
        return SystemLimitError(
            "a library looks for the home directory of this user, who has none; set HOME to a folder"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = "" if error.filename is None else f"{error.filename}: "
        return SystemLimitError(
            f"{where}no space left on the disk; free some, or set TMPDIR to a folder on a larger one"
        )
    if isinstance(error, FileNotFoundError) and error.filename is None:
        if not has_current_folder():
            return SystemLimitError(_NO_CURRENT_FOLDER)
        if "temporary directory" in str(error):  # of `tempfile`, with a list of all that it tried
            return SystemLimitError("no folder for temporary files can be written; set TMPDIR to one that can")
    return None


_NO_CURRENT_FOLDER = "the current folder does not exist any more; change to one that exists"


def has_current_folder() -> bool:
    """Whether the current folder exists; somebody may have removed it since this program, or its shell, began."""
    try:
        os.stat(os.getcwd())
    except OSError:
        return False
    return True


def check_current_folder() -> None:
    """Raise SystemLimitError if there is no current folder: oneMKL then ends the program, and no worker starts."""
    if not has_current_folder():
        raise SystemLimitError(_NO_CURRENT_FOLDER)


def resource_limit(name: str) -> int | None:
    """The soft limit of that name in the module `resource`, such as RLIMIT_NOFILE; None if the system sets none."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(getattr(resource, name))[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _too_few_files() -> str:
    limit = resource_limit("RLIMIT_NOFILE")
    shown = "" if limit is None else f" ({limit})"
    return f"the limit of open files is too low{shown}; raise it, for example with `ulimit -n 1024`"


# A server that forks workers needs some 20 open files for itself.
_FEW_FILES = 32


@contextmanager
def starting() -> Iterator[None]:
    """An error of starting a process inside becomes a SystemLimitError.

    A server that was to fork it, and cannot, ends: then the connection to it breaks.
    """
    try:
        yield
    except (OSError, EOFError) as error:
        if isinstance(error, (EOFError, ConnectionError, BlockingIOError)):
            files = resource_limit("RLIMIT_NOFILE")
            few = files is not None and files < _FEW_FILES
            raise SystemLimitError(_too_few_files() if few else _NO_PROCESS) from error
        raise shortage(error) or SystemLimitError(
            f"a process that reads videos cannot be started ({error.strerror or error}); try `workers=0`"
        ) from error
