"""Where the rows of a data set come from, and which video each of them means."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from timesformer_cli.datasets.formats import FORMATS, DatasetFormat, detect
from timesformer_cli.datasets.listing import Listing, subfolders
from timesformer_cli.datasets.reading import Probe, Row
from timesformer_cli.datasets.tables import split_name
from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.video.addresses import is_address, local_path

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_UNUSED = "unused"  # what HMDB51 leaves out of a split
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Source:
    """All rows of a data set, and `find`, which gives the paths of the videos that a row's name could mean.

    `file` is what lists the rows, and `listing` what lies in the folder of videos. `split` is what a folder says of
    them; else `Row.split` does, or nothing.
    """

    name: str
    format: DatasetFormat
    rows: list[Row]
    find: Callable[[str], list[str]]
    file: Path | None
    listing: Listing | None
    split: str | None = None

    def unlisted(self) -> Iterator[str]:
        """Videos that `find` never gave. Folders of other splits do not count: it gave nothing in them."""
        if self.listing is None or self.file is None:
            return
        used = {path.partition("/")[0] for path in self.listing.claimed()}
        for path in self.listing.unclaimed():
            top, _, below = path.partition("/")
            if top in used or not below or split_name(top) not in _SPLITS:
                yield os.path.join(self.listing.root, path)


def read_file(
    root: Path | None, file: Path, format: DatasetFormat | Literal["auto"], split: str | None, *, frames: bool
) -> Source:
    """The rows of an annotation file, with the videos below `root` or, without it, where their paths lead."""
    if format == "folders":
        raise UsageError("`annotations_format=folders` takes the labels from folders; leave `annotations` away")
    if format == "auto":
        format = detect(file, frames=frames)
    elif format != "hmdb51" and Probe(file).content == "folder":
        raise InputError(f"{file}: a folder; `annotations_format={format}` is of a file")
    if format in ("rawframes", "frame-list") and not frames:
        raise UsageError(f"{file}: lists folders of pictures, as `annotations_format={format}` does; add `frames`")
    listing = None if root is None else _list_videos(root, split, frames)
    rows = list(FORMATS["table" if format == "videofolder" else format].read(file))
    return Source(str(file), format, rows, _Finder(file.parent, listing), file, listing)


def read_folder(root: Path, format: DatasetFormat | Literal["auto"], split: str | None, *, frames: bool) -> Source:
    """The rows that class folders are, or a metadata file beside the videos; both with or without folders of splits.

    `val/abseiling/x.mp4` is of the class `abseiling`, as torchvision and Hugging Face have it.
    """
    if format not in ("auto", "folders", "videofolder"):
        raise UsageError(f"`annotations_format={format}` needs `annotations=FILE`")
    split, inside = _split_folder(root, split)
    folder = root / inside
    listing = Listing(str(root), [inside], frames=frames)
    if not listing.paths:
        raise InputError(f"{folder}: no {'folders of pictures' if frames else 'video files'} in this folder")
    files = [folder / name for name in _METADATA if os.path.isfile(folder / name)]
    if files and format != "folders":
        if len(files) > 1:
            raise InputError(f"{files[0]}: {files[1].name} is there too; say which with `annotations`")
        rows = list(FORMATS["table"].read(files[0]))
        return Source(str(files[0]), "videofolder", rows, _Finder(folder, listing), files[0], listing, split)
    if format == "videofolder":
        raise InputError(f"{folder}: none of {', '.join(_METADATA)} in this folder")
    rows = []
    for path in listing.paths:
        label, _, below = path.removeprefix(f"{inside}/").partition("/")
        path = os.path.join(root, path)
        rows.append(Row(path, 0, path, (label,) if below else ()))
    if not any(row.labels for row in rows):
        raise InputError(f"{folder}: the videos lie in no class folders; name the file of their labels: `annotations`")
    return Source(str(folder), "folders", rows, lambda path: [path], None, listing, split)


def of_split(source: Source, split: str | None) -> tuple[frozenset[str | None], str | None]:
    """What `Row.split` is for rows of the split that was asked for, or of the only one; and its name."""
    if source.split is not None:
        return frozenset([None]), source.split
    there = sorted({row.split for row in source.rows if row.split and not row.split.startswith(_UNUSED)})
    fits = there
    if split is not None:
        if not there:
            raise InputError(f"{source.name}: says nothing of splits; leave `split` away")
        wanted = split_name(split)
        # Those of HMDB51 are test1, test2 and test3; where there is but one, `test` is enough.
        fits = [name for name in there if name == wanted] or [name for name in there if name[:-1] == wanted]
        if not fits:
            raise InputError(f"{source.name}: no rows of the split {split!r}; there are {', '.join(there)}")
    if len(fits) > 1:
        raise InputError(f"{source.name}: has the splits {', '.join(fits)}; choose one with `split`")
    # Rows that leave the split open are taken when it does not matter.
    return frozenset(fits if split is not None else [*fits, None]), fits[0] if fits else None


def _list_videos(root: Path, split: str | None, frames: bool) -> Listing:
    """What lies below `root` or, where it has a folder for the split, below that."""
    folder = None if split is None else _split_folders(root).get(split_name(split))
    replacements = [name for name in subfolders(str(root)) if name == "replacement"]
    return Listing(str(root), [""] if folder is None else [folder, *replacements], frames=frames)


def _split_folder(root: Path, split: str | None) -> tuple[str | None, str]:
    """The split and its folder in `root`, which is empty where there are no splits."""
    splits = _split_folders(root)
    if split is not None:
        wanted = split_name(split)
        if wanted not in splits:
            has = f"it has {', '.join(splits.values())}" if splits else "leave `split` away"
            raise InputError(f"{root}: no folder of the split {split!r}; {has}")
        return wanted, splits[wanted]
    if len(splits) > 1:
        raise InputError(f"{root}: has the splits {', '.join(splits.values())}; choose one with `split`")
    # A class may be called "train": then others lie beside it.
    return next(iter(splits.items())) if splits and len(subfolders(str(root))) == 1 else (None, "")


def _split_folders(root: Path) -> dict[str, str]:
    """Folders in `root` that are called as splits are, by the usual name."""
    return {split_name(name): name for name in subfolders(str(root)) if split_name(name) in _SPLITS}


class _Finder:
    """Finds the videos that rows name: in the listing and, without one, where the path itself leads."""

    def __init__(self, folder: Path, listing: Listing | None) -> None:
        self._folder = folder
        self._listing = listing
        self._names: dict[str, frozenset[str]] = {}

    def __call__(self, name: str) -> list[str]:
        if "://" in name:
            name = local_path(name)
            if is_address(name):
                return [name]
        if self._listing is not None:
            found = self._listing.find(name)
            if found or not os.path.isabs(name):
                return found
        # Paths count from the annotation file, or from where the command runs.
        paths = (os.path.normpath(os.path.join(self._folder, name)), os.path.normpath(name))
        return [path for path in paths if self._exists(path)][:1]

    def _exists(self, path: str) -> bool:
        """Thousands of videos lie in few folders: each of these is listed once."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder or "."))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]
