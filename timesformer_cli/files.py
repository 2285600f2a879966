"""Helpers for whole files: check targets, write atomically, lock, and compute checksums."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from timesformer_cli.errors import InputError, OutputError, TimesformerError


@contextmanager
def told(path: Path, what: str = "written", error: type[TimesformerError] = OutputError) -> Iterator[None]:
    """An OSError inside becomes an `error` of one line about `path`."""
    try:
        yield
    except OSError as reason:
        raise error(f"{path}: cannot be {what} ({reason.strerror or reason})") from reason


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` once everything is written and synced to disk.

    Raises:
        OSError: it cannot be written; then nothing is left of it.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Like `whole`, but raises OutputError."""
    with told(path), whole(path) as part:
        yield part


def check_target(target: Path, *, overwrite: bool, ways: str = "or `overwrite`") -> None:
    """Check, before any work is done, that `target` can be written; `ways` names the settings for one that exists.

    Raises:
        OutputError: its folder does not exist or cannot be written, it is a folder itself, or it
            exists and may not be overwritten.
    """
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file to write")
    if target.is_file() and not overwrite:
        raise OutputError(f"{target}: already exists; choose another name, {ways}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OutputError(f"{target}: cannot be written (permission denied)")


def encoded(text: str) -> bytes:
    """The text as UTF-8. In JSON, the backslash escape of a byte that is not UTF-8 reads back as the same byte."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Lock an output against other runs, as long as the context lasts.

    The lock ends with the process, however that ends. Some network file systems have no locks; there,
    other runs are not kept away.

    Raises:
        OutputError: another run holds the lock.
    """
    path = target.with_name(target.name + ".lock")
    with told(target):
        file = _locked_file(path)
    if file is None:
        raise OutputError(f"{target}: another run is writing to it; wait until it ends, or choose another file")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove an open file
            path.unlink()
        file.close()


def _locked_file(path: Path) -> IO[bytes] | None:
    while True:
        file = path.open("ab")
        if not _lock(file):
            file.close()
            return None
        # The previous holder may have removed the file since it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def checksum(files: Sequence[Path]) -> str:
    """The sha256, in hex, of the concatenated files. Raises InputError."""
    digest = hashlib.sha256()
    for path in files:
        with told(path, "read", InputError), path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


DIGEST = 16


def digest_of(path: str) -> bytes:
    """A digest of a path, long enough that two paths never have the same one by chance."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


class PathSet:
    """A set of paths that takes 24 to 48 bytes per path; a Python set takes about 200.

    It keeps their digests in an open hash table.
    """

    _EMPTY = bytes(DIGEST)

    def __init__(self) -> None:
        self._table = bytearray(1024 * DIGEST)
        self._count = 0

    def __contains__(self, path: str) -> bool:
        digest = digest_of(path)
        return self._at(self._place(digest)) == digest

    def __len__(self) -> int:
        return self._count

    def add(self, path: str) -> bool:
        """Add a path; returns whether it is new."""
        return self.add_digest(digest_of(path))

    def add_digest(self, digest: bytes) -> bool:
        """Add a digest of `digest_of`; returns whether it is new."""
        place = self._place(digest)
        if self._at(place) == digest:
            return False
        self._table[place : place + DIGEST] = digest
        self._count += 1
        if 3 * self._count * DIGEST > 2 * len(self._table):
            self._grow()
        return True

    def _at(self, place: int) -> bytes:
        return bytes(self._table[place : place + DIGEST])

    def _place(self, digest: bytes) -> int:
        """The place of a digest in the table, or the free place for it."""
        place = int.from_bytes(digest[:8], "little") * DIGEST % len(self._table)
        while self._table[place : place + DIGEST] not in (digest, self._EMPTY):
            place = (place + DIGEST) % len(self._table)
        return place

    def _grow(self) -> None:
        old, self._table = self._table, bytearray(2 * len(self._table))
        for start in range(0, len(old), DIGEST):
            digest = bytes(old[start : start + DIGEST])
            if digest != self._EMPTY:
                place = self._place(digest)
                self._table[place : place + DIGEST] = digest
