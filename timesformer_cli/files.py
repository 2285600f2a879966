"""Whole files and folders: check targets, write atomically, lock, and compute checksums."""

import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from timesformer_cli.errors import InputError, OutputError, TimesformerError

_log = logging.getLogger(__name__)


@contextmanager
def told(path: Path, what: str = "written", error: type[TimesformerError] = OutputError) -> Iterator[None]:
    """An OSError inside becomes an `error` of one line about `path`."""
    try:
        yield
    except OSError as reason:
        raise error(f"{path}: cannot be {what} ({reason.strerror or reason})") from reason


def without_links(path: str | os.PathLike[str], flags: int) -> int:
    """An `opener` for files with names of our own: a symbolic link that somebody put there is an OSError."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def make_empty(path: Path) -> int:
    """Create an empty file, replacing any file or link of that name; returns its mode (POSIX bits)."""
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=without_links) as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` once everything is written and synced to disk.

    Raises:
        OSError: it cannot be written; then nothing is left of it.
    """
    part = path.with_name(path.name + ".part")
    mode = make_empty(part)
    try:
        yield part
        _settle(part, mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _settle(path: Path, mode: int | None = None) -> None:
    """Sync a file to disk, with that mode; safetensors makes its files readable for their owner only."""
    with open(path, "rb+", opener=without_links) as file:
        if mode is not None and sys.platform != "win32":
            os.fchmod(file.fileno(), mode)
        sync(file.fileno(), path)


# What mounts answer that cannot sync files, as some of cluster storage cannot.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def sync(number: int, path: Path) -> None:
    """Sync the open file with that number, which is at `path`, to disk. If its mount cannot, a log says so once.

    Raises:
        OSError: it could, and failed.
    """
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        _warn_of_no_sync(path.parent)


@cache
def _warn_of_no_sync(folder: Path) -> None:
    _log.warning("%s: this disk cannot sync files, so a power cut may cost what was written last", folder)


# Seconds after which a staging folder that nobody holds is abandoned. A new one is held a moment after it is made, and
# on some disks of clusters nobody sees what is held on a different machine.
_ABANDONED = 3600.0


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new hidden folder beside `folder`, for `put_folder`; removed at the end, with what it holds then.

    Those that killed programs left for a folder of this name are removed too.

    Raises:
        OSError: it cannot be created.
    """
    _sweep(folder)
    staging = folder.with_name(f".{folder.name[:50]}.{uuid.uuid4().hex[:8]}.partial")
    try:
        staging.mkdir()
        with _held(staging, folder):  # the old folder may get the name of the new one
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sweep(folder: Path) -> None:
    names = re.compile(rf"\.{re.escape(folder.name[:50])}\.[0-9a-f]{{8}}\.partial")
    with suppress(OSError):
        for name in filter(names.fullmatch, os.listdir(folder.parent)):
            with suppress(OSError):
                left = folder.with_name(name)
                if time.time() - left.stat().st_mtime > _ABANDONED and not _is_held(left):
                    shutil.rmtree(left)


@contextmanager
def _held(*folders: Path) -> Iterator[None]:
    """Show that these folders are in use, as far as the system and the disk can."""
    with ExitStack() as stack:
        if sys.platform != "win32":
            import fcntl

            for folder in folders:
                with suppress(OSError):
                    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                    stack.callback(os.close, number)
                    fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def _is_held(folder: Path) -> bool:
    """Whether a folder is in use, or may be. Raises OSError for a link."""
    if sys.platform == "win32":
        return True
    import fcntl

    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is, or the disk has no locks
        return True
    finally:
        os.close(number)
    return False


@contextmanager
def whole_folder(folder: Path, key: str) -> Iterator[Path]:
    """A new folder to write files to; at the end they replace those of the same names in `folder`, all at once.

    A stop at any moment leaves the old files or the new ones. Other files in `folder` stay. If it cannot be replaced
    as a whole (it contains folders, is a mount or the current folder, or its parent cannot be written), files are
    replaced one by one, and meanwhile it lacks `key`, the file without which it is not read.

    Raises:
        OSError: it cannot be written; then it is as it was.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = not folder.is_dir() or (os.access(folder.parent, os.W_OK) and not os.path.ismount(folder))
    with staged(folder if beside else folder / folder.name) as staging:
        yield staging
        others = _linked_others(folder, staging) if beside and not _is_current(folder) else None
        if others is not None:
            put_folder(staging, folder)
            _rescue(staging, folder, others)
        else:
            _replace_each(staging, folder, key)


def put_folder(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`; an existing `folder` gets the name of `staging`. Raises OSError."""
    for path in staging.iterdir():
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:  # others are links to old files
            _settle(path)
    if not os.path.lexists(folder):
        staging.rename(folder)
    elif not _exchange(staging, folder):
        old = staging.with_name(f"{staging.name}.old")
        folder.rename(old)
        try:
            staging.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        old.rename(staging)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, if the system and the disk can; Python has no function for it."""
    if sys.platform != "linux":
        return False
    import ctypes

    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def _is_current(folder: Path) -> bool:
    return folder.is_dir() and folder.samefile(os.curdir)


def _linked_others(folder: Path, staging: Path) -> set[str] | None:
    """Link the files that only `folder` holds into `staging`. Returns all names in `folder`, or None if it fails."""
    if not folder.is_dir():
        return set()
    shutil.copymode(folder, staging)
    names = set(os.listdir(folder))
    ours = set(os.listdir(staging))
    try:
        for name in names - ours:
            os.link(folder / name, staging / name, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a folder, or a disk without hard links
        for name in names - ours:
            (staging / name).unlink(missing_ok=True)
        return None
    return names


def _rescue(old: Path, folder: Path, known: set[str]) -> None:
    """Move files that appeared in the old folder while it was replaced."""
    if old.is_dir():
        for name in set(os.listdir(old)) - known:
            if not os.path.lexists(folder / name):
                (old / name).rename(folder / name)


def _replace_each(staging: Path, folder: Path, key: str) -> None:
    for path in staging.iterdir():
        _settle(path)
    if (staging / key).exists():
        (folder / key).unlink(missing_ok=True)
    for name in sorted(os.listdir(staging), key=lambda name: name == key):
        (staging / name).replace(folder / name)


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


def is_locked(target: Path) -> bool:
    """Whether a run holds the lock of an output. Where there are no locks, nobody knows, and it is False."""
    try:
        file = target.with_name(target.name + ".lock").open("ab+" if sys.platform == "win32" else "rb")
    except OSError:
        return False
    with file:
        return not _lock(file)


def _locked_file(path: Path) -> IO[bytes] | None:
    while True:
        file = os.fdopen(without_links(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
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
