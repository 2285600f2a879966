"""Limits of the system and of a container: cores, memory, files, processes, places to write."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from timesformer_cli import limits
from timesformer_cli.jobs.doctor.findings import Check, Finding, Status

_GIB = 2**30

# Bytes of memory that the default model takes together with a few processes that read videos.
_MEMORY = 2 * _GIB

# Open files and processes, threads among them: those of a run, and more for each core.
_FILES, _FILES_EACH = 200, 8
_PROCESSES, _PROCESSES_EACH = 32, 8
# Fewer open files than a run needs.
_TOO_FEW_FILES = 20

# Bytes of shared memory for a few views of the larger models, each 40 MB.
_SHARED = 256 * 2**20
_SHARED_FOLDER = Path("/dev/shm")

# Bytes for a video at an address, or a part of it: below the first none fits, below the second not every one.
_NO_ROOM, _ROOM = 16 * 2**20, _GIB


def checks(closed: Sequence[str]) -> Iterator[Check]:
    """`closed`: the standard streams that were closed when the program began."""
    finders = (_cores, _memory, _open_files, _processes, _shared_memory, _temporary_folder, _current_folder)
    for find in finders:
        yield Check(group="limits", name=find.__name__.removeprefix("_"), find=find)
    yield Check(group="limits", name="standard_streams", find=partial(_standard_streams, tuple(closed)))


def _cores() -> list[Finding]:
    from timesformer_cli.runtimes.devices import available_cores

    usable, all_cores, quota = available_cores(), os.cpu_count() or 1, limits.cpu_quota()
    threads = os.environ.get("OMP_NUM_THREADS")
    facts = {"usable": usable, "machine": all_cores, "quota": quota, "OMP_NUM_THREADS": threads}
    message = f"{usable} of {all_cores}"
    message += "" if quota is None else f"; the container grants the time of {quota:g}"
    message += "" if threads is None else f"; OMP_NUM_THREADS is {threads}"
    return [Finding(group="limits", name="cores", message=message, facts=facts)]


def _memory() -> list[Finding]:
    machine = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    container, process = limits.memory_limit(), limits.resource_limit("RLIMIT_AS")
    facts = {"bytes": machine, "container": container, "process": process}
    sizes = {"the machine": machine, "the container": container, "a process (ulimit -v)": process}
    given = {whose: size for whose, size in sizes.items() if size is not None}
    if not given:
        return [Finding(group="limits", name="memory", message="not known on this system", facts=facts)]
    message = ", ".join(f"{size / _GIB:.1f} GiB for {whose}" for whose, size in given.items())
    if min(given.values()) >= _MEMORY:
        return [Finding(group="limits", name="memory", message=message, facts=facts)]
    remedy = f"give it {_MEMORY // _GIB} GiB for the default model; otherwise `batch_size=1` and `workers=1` save some"
    return [Finding(group="limits", name="memory", status="warning", message=message, remedy=remedy, facts=facts)]


def _open_files() -> list[Finding]:
    from timesformer_cli.runtimes.devices import available_cores

    limit = limits.resource_limit("RLIMIT_NOFILE")
    enough = _FILES + _FILES_EACH * available_cores()
    status: Status = "ok"
    if limit is not None and limit < enough:
        status = "problem" if limit < _TOO_FEW_FILES else "warning"
    remedy = "" if status == "ok" else "raise it, for example with `ulimit -n 1024`"
    message = "no limit" if limit is None else f"at most {limit:,}"
    facts = {"limit": limit}
    return [Finding(group="limits", name="open_files", status=status, message=message, remedy=remedy, facts=facts)]


def _processes() -> list[Finding]:
    from timesformer_cli.runtimes.devices import available_cores

    user, container = limits.resource_limit("RLIMIT_NPROC") if sys.platform != "win32" else None, limits.process_limit()
    facts = {"user": user, "container": container}
    given = [limit for limit in (user, container) if limit is not None]
    message = f"at most {min(given):,}, with threads" if given else "no limit"
    if not given or min(given) >= _PROCESSES + _PROCESSES_EACH * available_cores():
        return [Finding(group="limits", name="processes", message=message, facts=facts)]
    remedy = "raise it (`ulimit -u`, or the pids limit of the container), or use fewer `workers`"
    return [Finding(group="limits", name="processes", status="warning", message=message, remedy=remedy, facts=facts)]


def _shared_memory() -> list[Finding]:
    import numpy as np

    from timesformer_cli.pipeline import shared_arrays

    name = shared_arrays.new_name()
    usable = shared_arrays.leave(name, np.zeros(2**18, np.float32))
    shared_arrays.discard(name)
    size = free = None
    if _SHARED_FOLDER.is_dir():
        usage = shutil.disk_usage(_SHARED_FOLDER)
        size, free = usage.total, usage.free
    facts = {"usable": usable, "bytes": size, "bytes_free": free}
    message = "works" if free is None or size is None else f"{_size(free)} of {_size(size)} free in {_SHARED_FOLDER}"
    if usable and (free is None or free >= _SHARED):
        return [Finding(group="limits", name="shared_memory", message=message, facts=facts)]
    if not usable:
        message = f"{_why_not()}, so frames go through a pipe, which is slower"
    remedy = "give the container more: docs/troubleshooting.md, under shared memory in containers"
    return [
        Finding(group="limits", name="shared_memory", status="warning", message=message, remedy=remedy, facts=facts)
    ]


def _why_not() -> str:
    if sys.platform == "linux" and not _SHARED_FOLDER.is_dir():
        return f"there is no {_SHARED_FOLDER}"
    if sys.platform == "linux" and not os.access(_SHARED_FOLDER, os.W_OK):
        return f"{_SHARED_FOLDER} cannot be written"
    return "there is no room in shared memory"


def _temporary_folder() -> list[Finding]:
    from timesformer_cli.pipeline.processes import has_place_for_socket

    asked = next((value for name in ("TMPDIR", "TEMP", "TMP") if (value := os.environ.get(name))), None)
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        message = "none can be written, so videos at addresses cannot be read, and workers start more slowly"
        return [_of_folder("problem", message, "set TMPDIR to a folder that can be written", {"path": None})]
    free = shutil.disk_usage(folder).free
    socket = has_place_for_socket()
    facts = {"path": folder, "bytes_free": free, "takes_socket": socket}
    message = f"{folder}, {_size(free)} free"
    usual = os.path.abspath(asked) if asked else None if sys.platform == "win32" else "/tmp"
    if free < _ROOM:
        status: Status = "problem" if free < _NO_ROOM else "warning"
        message += ": too little for a video at an address" if free < _NO_ROOM else ""
        return [_of_folder(status, message, "free space there, or set TMPDIR to a folder on a larger disk", facts)]
    if usual is not None and folder != usual:
        message += f"; {usual} cannot be written"
        return [_of_folder("warning", message, "make it writable, or set TMPDIR to a folder that is", facts)]
    if not socket:
        message += "; its path is too long for a socket, so workers start more slowly"
        return [_of_folder("warning", message, "set TMPDIR to a folder with a short path", facts)]
    return [_of_folder("ok", message, "", facts)]


def _of_folder(status: Status, message: str, remedy: str, facts: dict[str, object]) -> Finding:
    return Finding(group="limits", name="temporary_folder", status=status, message=message, remedy=remedy, facts=facts)


def _current_folder() -> list[Finding]:
    """Processes start in it, so it must exist; its path is nobody's business."""
    if limits.has_current_folder():
        return [Finding(group="limits", name="current_folder", message="exists", facts={"exists": True})]
    return [
        Finding(
            group="limits",
            name="current_folder",
            status="problem",
            message="does not exist any more, so no model can be run",
            remedy="change to a folder that exists",
            facts={"exists": False},
        )
    ]


def _standard_streams(closed: tuple[str, ...]) -> list[Finding]:
    facts = {"closed": list(closed)}
    if not closed:
        return [Finding(group="limits", name="standard_streams", message="all are open", facts=facts)]
    message = f"closed: {', '.join(closed)}"
    remedy = "give the service a log for its messages; closed streams count as empty, and what goes there is lost"
    return [
        Finding(group="limits", name="standard_streams", status="warning", message=message, remedy=remedy, facts=facts)
    ]


def _size(count: int) -> str:
    """A number of bytes for people."""
    for size, unit in ((_GIB, "GiB"), (2**20, "MiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
