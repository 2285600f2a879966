"""Files as a whole: checked before any work, named when they are complete, locked, summed."""

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
    """The path to write to in place of `path`, which it takes over when all is written and on the disk for sure.

    Raises:
        OSError: it cannot be written; then there is no trace of it.
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
    """As `whole`. Raises OutputError."""
    with told(path), whole(path) as part:
        yield part


def check_target(target: Path, *, overwrite: bool, ways: str = "or `overwrite`") -> None:
    """Find out, before any work is done, that `target` cannot be written; `ways` are the settings for one that exists.

    Raises:
        OutputError: its folder does not exist or cannot be written, it is a folder itself, or it
            exists and may not be overwritten.
    """
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file to write")
    if target.is_file() and not overwrite:
        raise OutputError(f"{target}: exists already; choose another name, {ways}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OutputError(f"{target}: cannot be written (permission denied)")


def encoded(text: str) -> bytes:
    """UTF-8. In JSON, the backslash escape of a byte that is no UTF-8 reads back as that very byte."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other runs away from an output as long as the context lasts.

    The lock goes with the process, however that ends. Some network file systems have none, and then
    nothing is kept away.

    Raises:
        OutputError: another run has it.
    """
    path = target.with_name(target.name + ".lock")
    with told(target):
        file = _locked_file(path)
    if file is None:
        raise OutputError(f"{target}: another run is writing to it; wait for that, or choose another file")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            path.unlink()
        file.close()


def _locked_file(path: Path) -> IO[bytes] | None:
    while True:
        file = path.open("ab")
        if not _lock(file):
            file.close()
            return None
        # Whoever had it before may have removed the name since it was opened here.
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
    """The sha256, in hex, of all files one after the other. Raises InputError."""
    digest = hashlib.sha256()
    for path in files:
        with told(path, "read", InputError), path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


DIGEST = 16


def digest_of(path: str) -> bytes:
    """So many bytes that two paths never meet in them by chance."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


class PathSet:
    """A set of paths that takes 24 to 48 bytes for each, where Python's takes some two hundred.

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
        """Whether it is new."""
        return self.add_digest(digest_of(path))

    def add_digest(self, digest: bytes) -> bool:
        """The same for what `digest_of` gave."""
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
        """Where in the table a digest is, or belongs."""
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
