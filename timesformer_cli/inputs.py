"""What the user named, as items: files, folders, globs, and lists of paths."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from timesformer_cli.errors import InputError
from timesformer_cli.records import Item

# Files in a folder are taken by these extensions, in any case; a file that is named itself is always taken.
_EXTENSIONS = (
    "3g2 3gp asf avi f4v flv gif h264 h265 264 265 hevc ivf m2t m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf nut"
    " obu ogg ogv ts vob webm wmv y4m"
)
VIDEO_EXTENSIONS = frozenset(_EXTENSIONS.split())

STDIN = "-"


def find(sources: Sequence[str], lists: Sequence[Path] = ()) -> Iterator[Item]:
    """The videos that `sources` and then the files of paths in `lists` name, in that order.

    A source is a file, a folder (searched with its subfolders, sorted, without hidden entries), a
    glob when no file of that name exists, or `-` for one path a line on standard input, which is
    read as it comes. A path that does not exist is an item too: reading it fails, and that
    becomes its record. A file that was named before, by whatever path, is left out.

    Raises:
        InputError: a folder without videos, a glob that matches nothing, an unreadable list.
    """
    seen: set[str] = set()
    for path in _paths(sources, lists):
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield Item(path)


def _paths(sources: Sequence[str], lists: Sequence[Path]) -> Iterator[str]:
    for source in sources:
        if source == STDIN:
            yield from _listed(_lines(sys.stdin.buffer, "standard input"))
        elif not os.path.lexists(source) and glob.has_magic(source):
            yield from _globbed(source)
        elif os.path.isdir(source):
            yield from _searched(source)
        else:
            yield source
    for path in lists:
        yield from _listed(_read_list(path))


def _searched(folder: str) -> Iterator[str]:
    videos = _walk(folder, set())
    first = next(videos, None)
    if first is None:
        raise InputError(f"{folder}: no video files in this folder; looked for the extensions {_EXTENSIONS}")
    yield first
    yield from videos


def _globbed(pattern: str) -> Iterator[str]:
    found = False
    for match in sorted(glob.iglob(pattern, recursive=True)):
        for path in _walk(match, set()) if os.path.isdir(match) else (match,):
            found = True
            yield path
    if not found and not {"*", "?"} & set(pattern):  # brackets alone are common in file names: one that is missing
        yield pattern
    elif not found:
        raise InputError(f"{pattern}: no file matches this pattern")


def _listed(paths: Iterable[str]) -> Iterator[str]:
    # A long list must not stop half way: what is wrong with one of its lines becomes that line's record.
    for path in paths:
        if os.path.isdir(path):
            videos = _walk(path, set())
            yield next(videos, path)
            yield from videos
        else:
            yield path


def _walk(folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Video files below `folder`, sorted name by name; links are followed, each folder is entered once."""
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder  # a folder that cannot be listed is not passed over: reading it fails, with a record
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):  # also the "._name.mp4" that macOS leaves on other file systems
            continue
        path = os.path.join(folder, entry.name)
        if entry.is_dir():
            yield from _walk(path, visited)
        elif _is_video_name(entry.name) and (entry.is_file() or entry.is_symlink()):
            yield path


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


def _lines(file: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines that are not blank, as paths: any bytes are a path, but for the zero byte."""
    for number, line in enumerate(file, 1):
        if b"\0" in line:
            raise InputError(f"{name}: line {number} holds a zero byte; give one path a line, as plain text")
        path = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).rstrip("\r\n")
        if path.strip():
            yield path
