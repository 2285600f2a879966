"""The source of the rows of a dataset, and the video that each row means."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from timesformer_cli.datasets.formats import FORMATS, DatasetFormat, detect
from timesformer_cli.datasets.listing import Listing, subfolders
from timesformer_cli.datasets.reading import Probe, Row
from timesformer_cli.datasets.tables import split_name
from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.video.addresses import is_address, local_path, shown

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_UNUSED = "unused"  # videos that a split of HMDB51 leaves out
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Source:
    """All rows of a dataset, and `find`, which gives the paths of the videos that a row's name could mean.

    `file` is the annotation file, and `listing` the videos that are there, if they were listed. `split` is set if the
    rows come from the folder of a split; otherwise `Row.split` may say it. `absent` says what it means that a row's
    video was not found.
    """

    name: str
    format: DatasetFormat
    rows: list[Row]
    find: Callable[[str], list[str]]
    file: Path | None
    listing: Listing | None
    split: str | None = None
    absent: str = "does not exist"

    def unlisted(self) -> Iterator[str]:
        """Videos that `find` never returned, without the folders of other splits, in which it found nothing."""
        if self.listing is None or self.file is None:
            return
        used = {path.partition("/")[0] for path in self.listing.claimed()}
        for path in self.listing.unclaimed():
            top, _, below = path.partition("/")
            if top in used or not below or split_name(top) not in _SPLITS:
                yield os.path.join(self.listing.root, path)


def read_file(
    root: Path | None,
    file: Path,
    format: DatasetFormat | Literal["auto"],
    split: str | None,
    *,
    frames: bool,
    group_column: str | None,
) -> Source:
    """The rows of an annotation file, with the videos below `root`.

    Without it, or if it is the root of all folders, the videos are at their paths.
    """
    format = _format_of(file, format, frames=frames)
    listing, folder = None, file.parent
    if root is not None and root.resolve() == root.resolve().parent:
        folder = root  # to list the whole disk would take hours
    elif root is not None:
        listing = _list_videos(root, split, frames)
    rows = list(_reader(format)(file, group_column))
    return Source(str(file), format, rows, _Finder(folder, listing), file, listing)


def read_stored(
    name: str,
    paths: Sequence[str],
    file: Path,
    format: DatasetFormat | Literal["auto"],
    *,
    frames: bool,
    group_column: str | None,
) -> Source:
    """The rows of an annotation file, for videos with these `paths`, which `name` has; the videos need not exist."""
    listing = Listing("", paths, frames=frames, name=name)
    format = _format_of(file, format, frames=frames)
    rows = list(_reader(format)(file, group_column))

    def find(row: str) -> list[str]:
        path = local_path(row)
        return listing.find_exactly(shown(path)) or ([] if is_address(path) else listing.find(path))

    return Source(str(file), format, rows, find, file, listing, absent=f"is not in {name}")


def _format_of(file: Path, format: DatasetFormat | Literal["auto"], *, frames: bool) -> DatasetFormat:
    """The format of an annotation file. Raises UsageError or InputError for one that it cannot have."""
    if format == "folders":
        raise UsageError("`annotations_format=folders` takes the labels from folders; leave out `annotations`")
    if format == "auto":
        format = detect(file, frames=frames)
    elif format != "hmdb51" and Probe(file).content == "folder":
        raise InputError(f"{file}: is a folder; `annotations_format={format}` needs a file")
    if format in ("rawframes", "frame-list") and not frames:
        raise UsageError(f"{file}: is read as `annotations_format={format}`, a list of folders of images; add `frames`")
    return format


def _reader(format: DatasetFormat) -> Callable[[Path, str | None], Iterator[Row]]:
    return FORMATS["table" if format == "videofolder" else format].read


def read_folder(
    root: Path,
    format: DatasetFormat | Literal["auto"],
    split: str | None,
    *,
    frames: bool,
    group_column: str | None,
) -> Source:
    """The rows from class folders, or from a metadata file beside the videos; both with or without folders of splits.

    `val/abseiling/x.mp4` has the class `abseiling`, as in torchvision and Hugging Face.
    """
    if format not in ("auto", "folders", "videofolder"):
        raise UsageError(f"`annotations_format={format}` needs `annotations=FILE`")
    split, inside = _split_folder(root, split)
    folder = root / inside
    listing = Listing.below(str(root), [inside], frames=frames)
    if not listing.paths:
        raise InputError(f"{folder}: no {'folders of images' if frames else 'video files'} in this folder")
    file = None if format == "folders" else _metadata(folder)
    if file is not None:
        rows = list(_reader("videofolder")(file, group_column))
        return Source(str(file), "videofolder", rows, _Finder(folder, listing), file, listing, split)
    if group_column is not None:
        raise UsageError(f"{folder}: has no table, and so no column {group_column!r}")
    if format == "videofolder":
        raise InputError(f"{folder}: none of {', '.join(_METADATA)} in this folder")
    rows = []
    for path in listing.paths:
        label, _, below = path.removeprefix(f"{inside}/").partition("/")
        path = os.path.join(root, path)
        rows.append(Row(path, 0, path, (label,) if below else ()))
    if not any(row.labels for row in rows):
        raise InputError(
            f"{folder}: the videos are not in class folders; name the file of their labels with `annotations`"
        )
    return Source(str(folder), "folders", rows, lambda path: [path], None, listing, split)


def _metadata(folder: Path) -> Path | None:
    """The metadata file of a videofolder, if there is any. Raises InputError if there are several."""
    files = [folder / name for name in _METADATA if os.path.isfile(folder / name)]
    if len(files) > 1:
        raise InputError(f"{files[0]}: {files[1].name} exists too; choose one with `annotations`")
    return files[0] if files else None


def splits(
    root: Path | None, file: Path | None, format: DatasetFormat | Literal["auto"], *, frames: bool
) -> tuple[str, ...]:
    """The splits of a source: train, val and test first. Lists no videos."""
    if file is None:
        assert root is not None
        folders = _split_folders(root)
        if len(folders) > 1 or (folders and len(subfolders(str(root))) == 1):
            return tuple(sorted(folders, key=_split_order))
        file = None if format == "folders" else _metadata(root)
        if file is None:
            return ()
        format = "videofolder"
    rows = _reader(_format_of(file, format, frames=frames))(file, None)
    return tuple(sorted(_splits_in(rows), key=_split_order))


def _splits_in(rows: Iterable[Row]) -> set[str]:
    return {row.split for row in rows if row.split and not row.split.startswith(_UNUSED)}


def _split_order(name: str) -> tuple[int, str]:
    known = next((place for place, split in enumerate(_SPLITS) if name.startswith(split)), len(_SPLITS))
    return known, name


def of_split(source: Source, split: str | None) -> tuple[frozenset[str | None], str | None]:
    """The values of `Row.split` for rows of the chosen split, or of the only one; and the name of the split."""
    if source.split is not None:
        return frozenset([None]), source.split
    there = sorted(_splits_in(source.rows))
    fits = there
    if split is not None:
        if not there:
            raise InputError(f"{source.name}: has no splits; leave out `split`")
        wanted = split_name(split)
        # Those of HMDB51 are test1, test2 and test3; if there is only one, `test` is enough.
        fits = [name for name in there if name == wanted] or [name for name in there if name[:-1] == wanted]
        if not fits:
            raise InputError(f"{source.name}: no rows of the split {split!r}; it has {', '.join(there)}")
    if len(fits) > 1:
        raise InputError(f"{source.name}: has the splits {', '.join(fits)}; choose one with `split`")
    # Rows without a split are taken if none was chosen.
    return frozenset(fits if split is not None else [*fits, None]), fits[0] if fits else None


def _list_videos(root: Path, split: str | None, frames: bool) -> Listing:
    """The videos below `root` or, if it has a folder for the split, below that folder."""
    folder = None if split is None else _split_folders(root).get(split_name(split))
    replacements = [name for name in subfolders(str(root)) if name == "replacement"]
    return Listing.below(str(root), [""] if folder is None else [folder, *replacements], frames=frames)


def _split_folder(root: Path, split: str | None) -> tuple[str | None, str]:
    """The split and its folder in `root`; None and an empty path if there are no splits."""
    splits = _split_folders(root)
    if split is not None:
        wanted = split_name(split)
        if wanted not in splits:
            has = f"it has {', '.join(splits.values())}" if splits else "leave out `split`"
            raise InputError(f"{root}: no folder of the split {split!r}; {has}")
        return wanted, splits[wanted]
    if len(splits) > 1:
        raise InputError(f"{root}: has the splits {', '.join(splits.values())}; choose one with `split`")
    # A class may be named "train": then it is not the only folder.
    return next(iter(splits.items())) if splits and len(subfolders(str(root))) == 1 else (None, "")


def _split_folders(root: Path) -> dict[str, str]:
    """Folders in `root` that are named like splits, by the usual name of the split."""
    return {split_name(name): name for name in subfolders(str(root)) if split_name(name) in _SPLITS}


class _Finder:
    """Finds the videos that rows name: in the listing, or without one at the path itself."""

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
        # Paths are relative to that folder, most often the one of the annotation file, or to the current one.
        paths = (os.path.normpath(os.path.join(self._folder, name)), os.path.normpath(name))
        return [path for path in paths if self._exists(path)][:1]

    def _exists(self, path: str) -> bool:
        """Whether a file exists. Each folder is listed only once, as it may hold thousands of videos."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder or "."))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]
