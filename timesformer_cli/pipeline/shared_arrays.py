"""Arrays that one process leaves in shared memory for another, under names that say whose run they belong to."""

import contextlib
import os
import secrets
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Seconds after which an array that nobody fetched is abandoned.
_ABANDONED = 60.0

# What was left before this process began is not its own, even if it has the number of this process.
_BEGUN = time.time()


def new_name() -> str:
    """A name that no array has, of any process in any container; it starts with the number of this one: see `sweep`.

    Process numbers repeat: in each container the first one is 1. macOS allows 30 characters.
    """
    return f"timesformer-{os.getpid()}-{secrets.token_hex(6)}"


def leave(name: str, array: NDArray[np.float32]) -> bool:
    """Whether it was left. It was not if there is no shared memory, no room in it, or something else of that name.

    Containers have 64 MB of shared memory by default.
    """
    try:
        memory = SharedMemory(name, create=True, size=max(array.nbytes, 1))
    except OSError:
        return False
    try:
        if hasattr(os, "posix_fallocate"):  # without it, writing without room kills the process
            os.posix_fallocate(memory._fd, 0, memory.size)  # type: ignore[attr-defined]
        np.ndarray(array.shape, np.float32, memory.buf)[...] = array
    except OSError:
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
    paths: list[Path] = []
    with contextlib.suppress(OSError):  # containers may have anything there
        paths += Path("/dev/shm").glob("timesformer-*")
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # another user's, or already gone
            # A live process fetches its arrays at once. Process numbers mean nothing in a different container.
            left = path.stat().st_mtime
            if time.time() - left > _ABANDONED and not _is_alive(int(path.name.split("-")[1]), left):
                path.unlink()


def _is_alive(process: int, then: float) -> bool:
    """Whether the process that had this number at that time (in seconds since 1970) may be alive."""
    if process == os.getpid():
        return then >= _BEGUN
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
