"""The user's inputs as items: files, folders, globs, addresses, folders of images, and lists of all these."""

import codecs
import glob
import itertools
import os
import pickle
import sys
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import BinaryIO

from timesformer_cli.errors import InputError, VideoError
from timesformer_cli.files import PathSet
from timesformer_cli.flow import Item
from timesformer_cli.video import addresses, folders, remote

# Files in a folder are taken by these extensions, in any case; a file named directly is always taken.
_EXTENSIONS = (
    "3g2 3gp asf avi f4v flv gif h264 h265 264 265 hevc ivf m2t m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf nut"
    " obu ogg ogv ts vob webm wmv y4m"
)
VIDEO_EXTENSIONS = frozenset(_EXTENSIONS.split())

STDIN = "-"


def find(sources: Sequence[str], lists: Sequence[Path] = (), *, frames: bool = False) -> Iterator[Item]:
    """The videos that `sources`, and then the files of paths in `lists`, name, in that order.

    A source is a file, a folder (searched with its subfolders, sorted, without hidden entries), a
    glob if no file of that name exists, an address, or `-` for one path per line on standard input,
    which is read as it arrives. An address that ends in a slash or contains a star stands for the videos
    there, if its scheme can list them (http cannot). A path that does not exist is an item too: reading
    it fails, and the failure becomes its record. A file that was named before, by any path, is skipped.

    With `frames`, folders of numbered images are searched for instead of files.

    Raises:
        InputError: a folder without videos, a glob that matches nothing, an unreadable list.
    """
    search = _Search(frames)
    seen, real = PathSet(), folders.RealPaths()
    for path in _paths(sources, lists, search):
        item = addresses.item_at(path, frames)
        if seen.add(item.path if addresses.is_address(path) else real.of(addresses.local_path(path))):
            yield item


class Listing:
    """Items that a thread lists ahead of their consumer, so that their number is known early.

    The first can be taken before the last is found. Those in between wait in compressed blocks, some ten
    bytes each. It can be iterated once.
    """

    _BLOCK = 1000
    _PATIENCE = 0.02  # seconds

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items
        self._blocks: deque[bytes] = deque()
        self._last: list[Item] = []  # the block being filled
        self._count = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._list, daemon=True, name="listing").start()

    @property
    def total(self) -> int | None:
        """The number of items, once it is known."""
        return self._count if self._ended and self._error is None else None

    def wait(self, seconds: float) -> None:
        """Wait until all is listed, but at most `seconds`. Raises what listing raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, seconds)
        if self._error is not None:
            raise self._error

    def __iter__(self) -> Iterator[Item]:
        while block := self._take():
            yield from block
        if self._error is not None:
            raise self._error

    def _take(self) -> list[Item]:
        with self._changed:
            # A block is worth a short wait: to hand over single items would cost more than to find them.
            if not self._changed.wait_for(lambda: self._blocks or self._ended, self._PATIENCE):
                self._changed.wait_for(lambda: self._blocks or self._last or self._ended)
            if not self._blocks:
                block, self._last = self._last, []
                return block
            packed = self._blocks.popleft()
        return list(starmap(Item, pickle.loads(zlib.decompress(packed))))

    def _list(self) -> None:
        try:
            for item in self._items:
                self._put(item)
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, item: Item) -> None:
        with self._changed:
            self._last.append(item)
            self._count += 1
            if len(self._last) == self._BLOCK:
                fields = [(item.path, item.frames, item.source, *item.part) for item in self._last]
                self._blocks.append(zlib.compress(pickle.dumps(fields), level=1))
                self._last = []
                self._changed.notify_all()
            elif len(self._last) == 1:
                self._changed.notify_all()


class _Search:
    """What folders are searched for: video files, or with `frames` folders of images."""

    def __init__(self, frames: bool) -> None:
        self.frames = frames
        self.missing = (
            "no folder with numbered images in this folder; their names must differ in a number"
            if frames
            else f"no video files in this folder; looked for the extensions {_EXTENSIONS}"
        )

    def below(self, folder: str, visited: folders.Visited | None = None) -> Iterator[str]:
        """Paths of the matches below a folder, sorted; folders already visited are left out."""
        choose = _image_folders if self.frames else _videos
        return folders.walk(folder, choose, folders.Visited() if visited is None else visited)


def _paths(sources: Sequence[str], lists: Sequence[Path], search: _Search) -> Iterator[str]:
    for source in sources:
        path = addresses.local_path(source)
        if source == STDIN:
            yield from _listed(_lines(_standard_input(), "standard input"), search)
        elif addresses.is_address(source):
            yield from _found_at(source, search)
        elif not os.path.lexists(path) and glob.has_magic(path):
            yield from _globbed(path, search)
        elif os.path.isdir(path):
            yield from _searched(path, search)
        else:
            yield source
    for file in lists:
        yield from _listed(_read_list(file), search)


def _standard_input() -> BinaryIO:
    """Our own reader: a thread that waits in `sys.stdin`'s when the program ends makes Python abort."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:  # without a file descriptor
        return sys.stdin.buffer


def _searched(folder: str, search: _Search) -> Iterator[str]:
    videos = search.below(folder)
    first = next(videos, None)
    if first is None:
        raise InputError(f"{folder}: {search.missing}")
    yield first
    yield from videos


def _found_at(address: str, search: _Search) -> Iterator[str]:
    if search.frames or not addresses.is_folder(address):
        yield address
        return
    found = False
    try:
        for video in _videos_at(address):
            found = True
            yield video
    except VideoError as error:
        raise InputError(f"{addresses.shown(address)}: {error}") from error
    if not found:
        raise InputError(f"{addresses.shown(address)}: no video files there; looked for the extensions {_EXTENSIONS}")


def _videos_at(address: str) -> Iterator[str]:
    return filter(_is_video_name, remote.search(address))


def _globbed(pattern: str, search: _Search) -> Iterator[str]:
    found = False
    visited = folders.Visited()
    for match in folders.matches(pattern):
        if os.path.isdir(match):
            below = search.below(match, visited)
        elif search.frames:
            continue
        else:
            below = iter((match,))
        for path in below:
            found = True
            yield path
    if not found and not {"*", "?"} & set(pattern):  # only brackets, which are common in file names: a missing file
        yield pattern
    elif not found:
        kind = "folder of numbered images" if search.frames else "file"
        raise InputError(f"{pattern}: no {kind} matches this pattern")


def _listed(paths: Iterable[str], search: _Search) -> Iterator[str]:
    # A long list must not stop half way: an error in one of its lines becomes that line's record.
    for path in paths:
        local = addresses.local_path(path)
        if addresses.is_address(path):
            yield from _listed_at(path, search)
        elif os.path.isdir(local):
            videos = search.below(local)
            yield next(videos, path)
            yield from videos
        else:
            yield path


def _listed_at(address: str, search: _Search) -> Iterator[str]:
    # Lines are names, not patterns.
    listed = False
    if addresses.is_folder(address) and "*" not in address and not search.frames:
        try:
            for video in _videos_at(address):
                listed = True
                yield video
        except VideoError:
            listed = False  # the record of the folder will tell
    if not listed:
        yield address


def _videos(entries: Iterator[folders.Entry]) -> folders.Names:
    """The videos and folders among the entries of a folder."""
    names: list[str] = []
    inner: set[str] = set()
    for entry in entries:
        if entry.is_dir():
            inner.add(entry.name)
        elif not (_is_video_name(entry.name) and (entry.is_file() or entry.is_symlink())):
            continue
        names.append(entry.name)
    return folders.Names(sorted(names), inner)


def _image_folders(entries: Iterator[folders.Entry]) -> folders.Names:
    """The folders among the entries of one, after the folder itself if it holds numbered images."""
    from timesformer_cli.video.decoders.image_folder import is_numbered  # imports Pillow

    listed = sorted(entries, key=lambda entry: entry.name)
    inner = [entry.name for entry in listed if entry.is_dir()]
    return folders.Names([folders.ITSELF] * any(map(is_numbered, listed)) + inner, set(inner))


def _is_video_name(name: str) -> bool:
    return os.path.splitext(name)[1][1:].lower() in VIDEO_EXTENSIONS


def _read_list(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for line in _lines(file, str(path)):
                if not line.lstrip().startswith("#"):
                    yield line
    except OSError as error:
        raise InputError(f"{path}: the list cannot be read ({error.strerror})") from error


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Lines that are not blank, as paths: a path may have any bytes except the zero byte."""
    first = file.readline()
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from _wide_lines(first, file, name)
        return
    for number, line in enumerate(itertools.chain([first], file), 1):
        if b"\0" in line:
            raise InputError(f"{name}: line {number} holds a zero byte; give one path per line, as plain text")
        path = os.fsdecode(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip("\r\n")
        if path.strip():
            yield _meant(path)


def _wide_lines(first: bytes, file: BinaryIO, name: str) -> Iterator[str]:
    """The same for UTF-16, as Windows writes it; `first` was read of the file and ends within a character."""
    decode = codecs.getincrementaldecoder("utf-16")().decode
    rest = ""
    try:
        for data in itertools.chain([first], iter(lambda: file.read(2**16), b""), [None]):
            *lines, rest = (rest + decode(data or b"", final=data is None)).split("\n")
            for line in lines if data is not None else [*lines, rest]:
                if line.strip():
                    yield _meant(line.rstrip("\r"))
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: begins as UTF-16 and is not; give one path per line, as plain text") from error


def _meant(line: str) -> str:
    """The path of a line as it is, if it exists; else without the spaces and quotes around it, and with ~ for home."""
    path = line.strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
        path = path[1:-1]
    if path.startswith("~"):
        path = os.path.expanduser(path)
    return line if path == line or os.path.lexists(line) else path
