"""Append lines to a file in a thread of its own, and sync them to the disk every few seconds."""

import os
import sys
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

from timesformer_cli.files import sync

# Seconds that the first waiting line waits for others, and between two syncs.
_GATHER = 0.1
_SYNC = 3.0

# Bytes: so many lines are written without waiting for more, and so many may wait before `write` does.
_ENOUGH = 2**20
_MOST = 2**24


class Appender:
    """Appends lines to `file`, which is open at its end; a slow disk does not hold up whoever writes.

    Lines that wait are written at once, in their order, so that a stop leaves whole lines and at most one torn one.
    What was written before the last sync survives a power cut. What `file` raises is raised by the next `write`, or by
    `close`; then whole lines stay, and those that still waited are lost.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._path = Path(os.fsdecode(file.name))
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes
        self._due: float | None = None  # when what was written is to be synced
        self._named = False
        self._closing = False
        self._error: BaseException | None = None
        self._told = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="appender")
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take a line, which ends in a newline. Raises OSError if it or an earlier one cannot be written."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < _MOST or self._error)
            self._raise()
            self._lines.append(line)
            self._waiting += len(line)
            if len(self._lines) == 1 or self._waiting >= _ENOUGH:
                self._changed.notify_all()

    def close(self) -> None:
        """Write and sync what waits, and close the file. Raises OSError if it cannot, unless `write` said so."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._file.close()
        if not self._told:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as error:
            with self._changed:
                self._error = error
                self._lines = []
                self._changed.notify_all()

    def _step(self) -> bool:
        """Wait for lines or for the time to sync; write, and sync if it is time. False at the end."""
        with self._changed:
            pause = None if self._due is None else max(self._due - time.monotonic(), 0)
            self._changed.wait_for(lambda: self._lines or self._closing, pause)
            if self._lines:
                self._changed.wait_for(lambda: self._waiting >= _ENOUGH or self._closing, _GATHER)
            lines, closing = self._lines, self._closing
            self._lines, self._waiting = [], 0
            self._changed.notify_all()
        if lines:
            self._write(b"".join(lines))
            self._due = self._due or time.monotonic() + _SYNC
        if self._due is not None and (closing or time.monotonic() >= self._due):
            sync(self._file.fileno(), self._path)
            self._sync_name()
            self._due = None
        return not closing

    def _sync_name(self) -> None:
        """Sync the name of the file, once: it may be new, and so may others beside it."""
        if not self._named:
            self._named = True
            sync_names(self._path.parent)

    def _write(self, data: bytes) -> None:
        start, done = self._file.tell(), 0
        try:
            while done < len(data):
                done += self._file.write(memoryview(data)[done:])
        except OSError:
            with suppress(OSError):  # leave whole lines; a resumed run would cut off a torn one
                self._file.truncate(start + data.rfind(b"\n", 0, done) + 1)
                sync(self._file.fileno(), self._path)
            raise


def sync_names(folder: Path) -> None:
    """Sync the names of files that were created, renamed or removed in `folder`, as far as the system can."""
    if sys.platform == "win32":  # it opens no folders
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
