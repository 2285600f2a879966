"""How worker processes start, whatever the system lacks: a short folder for a socket, or any folder."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker, util
from types import ModuleType
from typing import Any

from timesformer_cli.limits import starting

# Folders for the fork server's socket if that for temporary files does not do: the address of a socket may have
# only 107 bytes, and it must be written.
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")

_changing = threading.Lock()


def context(modules: Sequence[str]) -> Any:
    """The multiprocessing context for processes that need these modules.

    A server imports them once; it then forks new processes at once. If there is no server or no place for its socket,
    each process imports them itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods() or not has_place_for_socket():
        return multiprocessing.get_context("spawn")
    servers = multiprocessing.get_context("forkserver")
    servers.set_forkserver_preload(["timesformer_cli.pipeline.silence", *modules])
    return servers


def has_place_for_socket() -> bool:
    """Whether the fork server can have its socket; if need be, in a different folder for temporary files."""
    if _takes_socket(None):
        return _in_use()
    place = next((place for place in _PLACES if _takes_socket(place)), None)
    if place is None:
        return False
    with _changing:
        # multiprocessing chooses its folder once, and can be told only so.
        usual, tempfile.tempdir = tempfile.tempdir, place
        try:
            return _in_use()
        finally:
            tempfile.tempdir = usual


def _takes_socket(place: str | None) -> bool:
    """Whether a socket can be bound in a folder like that which multiprocessing makes; None is the usual place."""
    try:
        with tempfile.TemporaryDirectory(prefix="pymp-", dir=place) as folder:
            return _binds(folder)
    except OSError:
        return False


def _in_use() -> bool:
    """Whether the folder that multiprocessing uses, perhaps since long ago, takes a socket."""
    try:
        return _binds(util.get_temp_dir())
    except OSError:
        return False


def _binds(folder: str) -> bool:
    path = os.path.join(folder, "listener-12345678")
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(path)
            os.unlink(path)
    except OSError:
        return False
    return True


def shield() -> None:
    """Keep signals from the processes that this thread starts: groups may get them, and the main process decides.

    Otherwise the server that forks the workers would die of them, and videos being read would count as crashed.
    """
    if hasattr(signal, "pthread_sigmask"):
        with starting():
            resource_tracker.ensure_running()  # it unblocks them after starting its own process
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


_hiding = threading.Lock()


@contextlib.contextmanager
def without_program() -> Iterator[None]:
    """Hide the program from the processes that start meanwhile; they need nothing of it.

    Otherwise they would import it, and a script that labels videos would begin again in each of them, unless it
    has a guard (`if __name__ == "__main__"`).
    """
    with _hiding:
        program, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program
