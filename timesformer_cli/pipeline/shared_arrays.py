"""Arrays that one process leaves in shared memory for another, under names that say whose run they belong to."""

import contextlib
import errno
import itertools
import os
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Seconds after which an array that nobody fetched is abandoned.
_ABANDONED = 60.0

_serial = itertools.count()


def new_name() -> str:
    """A name that no other array has, with the number of this process: see `sweep`. Parts of an item add theirs."""
    return f"timesformer-{os.getpid()}-{next(_serial)}"


def leave(name: str, array: NDArray[np.float32]) -> bool:
    """Whether there was room for it: containers have 64 MB of shared memory by default."""
    memory = SharedMemory(name, create=True, size=max(array.nbytes, 1))
    try:
        if hasattr(os, "posix_fallocate"):  # without it, writing without room kills the process
            os.posix_fallocate(memory._fd, 0, memory.size)  # type: ignore[attr-defined]
        np.ndarray(array.shape, np.float32, memory.buf)[...] = array
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        memory.unlink()
        return False
    finally:
        memory.close()
    return True


def fetch(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A copy of an array that was left; its memory is free afterwards."""
    memory = SharedMemory(name)
    try:
        return np.ndarray(shape, np.float32, memory.buf).copy()
    finally:
        memory.close()
        memory.unlink()


def discard(name: str) -> None:
    """Free the memory of an array, if it was left or only begun."""
    with contextlib.suppress(OSError, ValueError):
        memory = SharedMemory(name)
        memory.close()
        memory.unlink()


def sweep() -> None:
    """Remove arrays that killed runs left; only on Linux is shared memory a folder that can be searched."""
    for path in Path("/dev/shm").glob("timesformer-*"):
        with contextlib.suppress(OSError, ValueError):  # another user's, or already gone
            # A live process fetches its arrays at once. Process numbers mean nothing in a different container.
            if time.time() - path.stat().st_mtime > _ABANDONED and not _is_alive(int(path.name.split("-")[1])):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
