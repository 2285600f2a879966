"""Which of the videos that have one name in one folder, or that name and a number, is a given video."""

import hashlib
import os
from collections import defaultdict
from contextlib import suppress
from functools import cached_property
from pathlib import Path

_Digest = bytes


class Video:
    """A file or a folder of images. Its content is read once, and only if it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def place(self) -> tuple[int, int]:
        """Device and file number, which are those of the file that a link leads to. Raises OSError."""
        status = self.path.stat()
        return status.st_dev, status.st_ino

    @cached_property
    def outline(self) -> _Digest:
        """A digest of the size, or of the names and sizes of images; most videos differ in it. Raises OSError."""
        if self.path.is_dir():
            sizes = [(name, (self.path / name).stat().st_size) for name in contents(self.path)[0]]
            return _digest(repr(sizes).encode())
        return _digest(b"%d" % self.path.stat().st_size)

    @cached_property
    def digest(self) -> _Digest:
        """A digest of the content. Raises OSError."""
        if self.path.is_dir():
            return _digest(b"".join(_digest_of(self.path / name) for name in contents(self.path)[0]))
        return _digest_of(self.path)

    @property
    def was_read(self) -> bool:
        return "digest" in vars(self)

    @property
    def is_copyable(self) -> bool:
        """Whether a copy would be the same: it is a regular file, or a folder of nothing but what is copied with it."""
        return not contents(self.path)[1] if self.path.is_dir() else self.path.is_file()


class Namesakes:
    """What was found or put at NAME, NAME (2), NAME (3) and so on; the numbers that were used are remembered.

    Each of these is looked at once, however many videos of that name come. Content is read only if sizes are equal.
    """

    def __init__(self, first: Path) -> None:
        self.count = 0
        self._first = first
        self._places: dict[tuple[int, int], int] = {}
        self._read: defaultdict[_Digest, dict[_Digest, int]] = defaultdict(dict)  # by outline, then by content
        self._unread: defaultdict[_Digest, list[int]] = defaultdict(list)  # by outline

    @property
    def next(self) -> Path:
        """The first path that was not added yet."""
        return self._path(self.count + 1)

    def add(self, made_of: Video | None = None) -> None:
        """Add the path `next`, at which there is something: a video of others, or one just `made_of` that source."""
        found = Video(self.next)
        self.count += 1
        with suppress(OSError):  # what cannot be looked at, as a dangling link, is the same as no video
            self._places.setdefault(found.place, self.count)
            if not found.is_copyable:
                return
            if made_of is not None and made_of.was_read:
                self._read[found.outline].setdefault(made_of.digest, self.count)
            else:
                self._unread[found.outline].append(self.count)

    def same(self, video: Video) -> Path | None:
        """The added path that is `video`, is a link to it, or has the same content. Raises OSError."""
        number = self._places.get(video.place)
        if number is None:
            for other in self._unread.pop(video.outline, ()):
                with suppress(OSError):
                    self._read[video.outline].setdefault(Video(self._path(other)).digest, other)
            if video.outline in self._read:
                number = self._read[video.outline].get(video.digest)
        path = None if number is None else self._path(number)
        return path if path is not None and path.exists() else None  # it may have been removed meanwhile

    def _path(self, number: int) -> Path:
        first = self._first
        return first if number == 1 else first.with_name(f"{first.stem} ({number}){first.suffix}")


def contents(folder: Path) -> tuple[list[str], list[str]]:
    """Names in a folder of images that are copied with it, and names that are left out; both sorted.

    An image that is a link was read, so its content is no secret; another link may lead to one.
    """
    from timesformer_cli.video.decoders.image_folder import is_numbered  # imports Pillow

    with os.scandir(folder) as entries:
        taken = {entry.name: entry.is_file(follow_symlinks=False) or is_numbered(entry) for entry in entries}
    return sorted(name for name in taken if taken[name]), sorted(name for name in taken if not taken[name])


def _digest_of(path: Path) -> _Digest:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def _digest(data: bytes) -> _Digest:
    return hashlib.blake2b(data, digest_size=16).digest()
