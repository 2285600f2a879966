"""Search folders and match patterns; links are followed, and each folder is entered once.

Nothing here is recursive, so folders may be nested as deeply as the system allows.
"""

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

Entry = os.DirEntry[str]

# Among names, the folder that holds them.
ITSELF = ""


class Names(NamedTuple):
    """The chosen names in a folder, in order, and which of them are folders to search next."""

    names: list[str]
    folders: set[str]


# Chooses among the entries of a folder, which may be a million.
Choose = Callable[[Iterator[Entry]], Names]


class Visited:
    """Folders that were entered, by device and inode, because links give one folder many paths."""

    def __init__(self) -> None:
        self._known: set[tuple[int, int]] = set()

    def add(self, folder: str) -> bool:
        """Whether it is entered for the first time. Raises OSError if it cannot be examined."""
        status = os.stat(folder)
        key = (status.st_dev, status.st_ino)
        new = key not in self._known
        self._known.add(key)
        return new


class RealPaths:
    """Paths without links, as `os.path.realpath` gives them; each folder is resolved once for all its files."""

    _MOST = 4096  # folders that are remembered

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir) or sys.platform == "win32":  # where a name may be a short form
            return os.path.realpath(path)
        real = self._folders.get(folder)
        if real is None:
            if len(self._folders) == self._MOST:
                self._folders.clear()
            real = self._folders[folder] = os.path.realpath(folder)
        joined = os.path.join(real, name)
        return os.path.realpath(joined) if os.path.islink(joined) else joined


def walk(folder: str, choose: Choose, visited: Visited) -> Iterator[str]:
    """Paths of the files that `choose` takes below `folder`, in the order of names.

    A folder that cannot be listed is not skipped: its own path is given instead.
    """
    stack: list[tuple[str, Iterator[str], set[str]]] = []

    def enter(path: str) -> Iterator[str]:
        try:
            chosen = choose(_shown(path)) if visited.add(path) else Names([], set())
        except OSError:
            yield path
            return
        stack.append((path, iter(chosen.names), chosen.folders))

    yield from enter(folder)
    while stack:
        path, names, folders = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
        elif name in folders:
            yield from enter(os.path.join(path, name))
        else:
            yield path if name == ITSELF else os.path.join(path, name)


def matches(pattern: str) -> list[str]:
    """Paths that match a shell pattern, sorted: `*`, `?`, brackets, and `**` for folders of any depth.

    As in Python's `glob`, a star does not match names that begin with a dot. Unlike there, `**` does not follow loops
    of links for ever: a folder is found under each of its names, but entered once.
    """
    root, rest = _split_root(pattern)
    parts = [part for part in re.split(r"[/\\]+" if os.sep == "\\" else "/+", rest) if part]
    folders_only = rest.endswith(("/", os.sep))
    found = [root]
    for number, part in enumerate(parts, 1):
        last = number == len(parts) and not folders_only
        if part == "**":
            found = [path for folder in found for path in _below(folder, last)]
        elif glob.has_magic(part):
            found = [os.path.join(folder, name) for folder in found for name in _matching(folder, part, last)]
        else:
            paths = (os.path.join(folder, part) for folder in found)
            found = [path for path in paths if (os.path.lexists(path) if last else os.path.isdir(path))]
    return sorted(os.path.join(path, "") if folders_only else path for path in dict.fromkeys(found) if path)


def _split_root(pattern: str) -> tuple[str, str]:
    drive, rest = os.path.splitdrive(pattern)
    root = rest[: len(rest) - len(rest.lstrip("/" + os.sep))]
    return drive + root, rest[len(root) :]


def _below(folder: str, files: bool) -> Iterator[str]:
    """A folder and all folders below it, with `files` also all files."""
    visited = Visited()
    waiting = [folder]
    yield folder
    while waiting:
        path = waiting.pop()
        try:
            entries = list(_shown(path)) if visited.add(path or os.curdir) else []
        except OSError:
            continue
        for entry in entries:
            inner = os.path.join(path, entry.name)
            if entry.is_dir():
                waiting.append(inner)
                yield inner
            elif files:
                yield inner


def _matching(folder: str, part: str, files: bool) -> list[str]:
    """Names in a folder that match a part of a pattern: of folders, or with `files` of anything."""
    match = re.compile(fnmatch.translate(os.path.normcase(part))).match
    try:
        with os.scandir(folder or os.curdir) as entries:
            return [
                entry.name
                for entry in entries
                if match(os.path.normcase(entry.name))
                and (part.startswith(".") or not entry.name.startswith("."))
                and (files or entry.is_dir())
            ]
    except OSError:
        return []


def _shown(folder: str) -> Iterator[Entry]:
    """The entries of a folder without hidden ones."""
    with os.scandir(folder or os.curdir) as entries:
        # A dot also begins the "._name.mp4" that macOS leaves on other file systems.
        yield from (entry for entry in entries if not entry.name.startswith("."))
