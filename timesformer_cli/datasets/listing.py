"""The videos of a folder: listed once, and found by the names that annotation files use."""

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from timesformer_cli.datasets.matching import normalised
from timesformer_cli.datasets.reading import is_video, without_extension
from timesformer_cli.errors import InputError

# CVDF replaces the damaged videos of its Kinetics-400 by intact ones, in a folder beside the others.
REPLACEMENT = "replacement_for_corrupted"

_CLIP = re.compile(r"(.{11})_([0-9]{1,6})_([0-9]{1,6})", re.DOTALL)  # ids of YouTube may hold underscores too
_TRIED = 3  # folders that are searched for images


class Listing:
    """Paths of videos, relative to `root`, sorted; with `frames`, of folders of images. `name` is who has them.

    Paths are looked up by file name. For clips of Kinetics this is the id, so that `id_59_69` in one list and `id` in
    another both find `id_000059_000069.mp4`.
    """

    def __init__(self, root: str, paths: Iterable[str], *, frames: bool, name: str | None = None) -> None:
        self.root = root
        self.name = root if name is None else name
        self._prefix = os.path.join(root, "")
        self._frames = frames
        self.paths = sorted(paths)
        self._claimed = bytearray(len(self.paths))
        self._places: dict[str, int | list[int]] = {}
        for place, path in enumerate(self.paths):
            key, _ = _clip(without_extension(path.rpartition("/")[2]))
            there = self._places.setdefault(key, place)
            if isinstance(there, list):
                there.append(place)
            elif there != place:
                self._places[key] = [there, place]

    @classmethod
    def below(cls, root: str, folders: Sequence[str], *, frames: bool) -> "Listing":
        """The videos below some folders of `root`. Raises InputError for a folder that cannot be listed."""
        each = _image_folders if frames else _videos
        return cls(root, (path for folder in folders for path in each(root, folder)), frames=frames)

    def find_exactly(self, path: str) -> list[str]:
        """The video with exactly this path below `root`, if there is one."""
        place = bisect_left(self.paths, path)
        if self.paths[place : place + 1] != [path]:
            return []
        self._claimed[place] = True
        return [self._prefix + path]

    def find(self, name: str) -> list[str]:
        """The full paths that `name` can mean: none if the video is missing, several if the name is ambiguous.

        Folders before the name must be equal, as far as both paths have them.
        """
        name = os.path.normpath(name).replace(os.sep, "/")
        folder, _, asked = name.rpartition("/")
        stem = without_extension(asked)
        exact = stem != asked and not self._frames
        key, times = _clip(stem)
        places = self._places.get(key, [])
        ranks: dict[int, int] = {}
        for place in [places] if isinstance(places, int) else places:
            path = self.paths[place]
            own_folder, _, own = path.rpartition("/")
            own_stem = without_extension(own)
            if exact and own != asked:
                continue
            if own_stem != stem and times and (others := _clip(own_stem)[1]) and others != times:
                continue
            depth = 0 if REPLACEMENT in own_folder else _common_folders(folder, own_folder)
            if depth is not None:
                ranks[place] = 4 * depth + 2 * (own_stem == stem) + path.startswith(name)
                self._claimed[place] = True
        return self._best(ranks)

    def _best(self, ranks: dict[int, int]) -> list[str]:
        found = list(ranks)
        if len(found) > 1:
            best = max(ranks.values())
            found = [place for place in found if REPLACEMENT in self.paths[place]] or [
                place for place, rank in ranks.items() if rank == best
            ]
        paths = [self._prefix + self.paths[place] for place in found]
        # Copies of Kinetics have links in class folders, beside the files.
        return paths[:1] if len(paths) > 1 and len(set(map(os.path.realpath, paths))) == 1 else paths

    def claimed(self) -> Iterator[str]:
        """The videos that were found by a name."""
        return (path for place, path in enumerate(self.paths) if self._claimed[place])

    def unclaimed(self) -> Iterator[str]:
        """The videos that were not, without replacements, which serve all splits."""
        return (path for place, path in enumerate(self.paths) if not self._claimed[place] and REPLACEMENT not in path)


def _clip(stem: str) -> tuple[str, tuple[int, int] | None]:
    """The id of a clip of Kinetics, and its start and end in seconds; otherwise the name, and None."""
    match = _CLIP.fullmatch(stem)
    return (match[1], (int(match[2]), int(match[3]))) if match else (stem, None)


def _common_folders(asked: str, own: str) -> int | None:
    """How many folders two folder paths have in common, from the end; None if they differ in one that both have."""
    if not asked or not own:
        return 0
    both = list(zip(asked.split("/")[::-1], own.split("/")[::-1], strict=False))
    return len(both) if all(one == other or _same_folder(one, other) for one, other in both) else None


def _same_folder(one: str, other: str) -> bool:
    """Whether two folders name the same class, which may be spelt in several ways."""
    return bool(normalised(one)) and normalised(one) == normalised(other)


def subfolders(path: str) -> list[str]:
    """The names of the subfolders of a folder, sorted."""
    return sorted(entry.name for entry in _entries(path, "", set()) if entry.is_dir())


def _videos(root: str, folder: str) -> Iterator[str]:
    """Files with the extension of a video below a folder of `root`; links are followed, each folder is entered once."""
    folders, visited = [folder], set[tuple[int, int]]()
    while folders:
        inside = folders.pop()
        for entry in _entries(root, inside, visited):
            path = f"{inside}/{entry.name}" if inside else entry.name
            # Checking whether a link leads to a folder is as slow as opening it.
            if is_video(entry.name) and not entry.is_dir(follow_symlinks=False):
                yield path
            elif entry.is_dir():
                folders.append(path)


def _image_folders(root: str, folder: str) -> Iterator[str]:
    """Folders of numbered images below a folder of `root`.

    There may be 200,000 of them with 100 images each, so only the first few in each folder are checked: if one of them
    holds images, all beside it count as folders of images.
    """
    from timesformer_cli.video.decoders.image_folder import is_numbered  # which loads Pillow

    folders, visited = [folder], set[tuple[int, int]]()
    while folders:
        inside = folders.pop()
        names = sorted(entry.name for entry in _entries(root, inside, visited) if entry.is_dir())
        paths = [f"{inside}/{name}" if inside else name for name in names]
        if any(is_numbered(entry) for path in paths[:_TRIED] for entry in _entries(root, path, set())):
            yield from paths
        else:
            folders += paths


def _entries(root: str, folder: str, visited: set[tuple[int, int]]) -> "Iterator[os.DirEntry[str]]":
    """The entries of a folder, without hidden ones; nothing if it was visited before."""
    path = os.path.join(root, folder)
    try:
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be listed ({getattr(error, 'strerror', None) or error})") from error
