"""Sort labelled videos into one folder per label, as copies or as links."""

import hashlib
import os
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.files import make_empty
from timesformer_cli.results.namesakes import Namesakes, Video, contents
from timesformer_cli.results.record import Record, spans
from timesformer_cli.video.addresses import is_address, local_path

_LABEL = "{label}"

# The label of videos whose answer was left open.
UNSURE = "unsure"
_BRACES = re.compile(r"\{[^{}]*\}|[{}]")

# What Windows does not allow in names, and `%`, which begins the escape of another character.
_FORBIDDEN = frozenset('<>:"/\\|?*%')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(?=\.|$)", re.IGNORECASE)

# Bytes of a folder's name. File systems allow 255; Windows often no more than 260 characters of a whole path.
_LONGEST = 120


def check_folders(template: str) -> None:
    """Check, before any work is done, that videos can be sorted into the folders of `template`.

    Raises:
        UsageError: a placeholder other than {label}.
        OutputError: the folder before {label} cannot be created or written, or is not a folder.
    """
    fixed = Path(_with_label(template).partition(_LABEL)[0] + "x").parent
    there = next(folder for folder in (fixed, *fixed.parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise OutputError(f"{there}: is not a folder; choose another one to sort videos into")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: cannot be written (permission denied); choose another folder to sort videos into")


def _with_label(template: str) -> str:
    for brace in _BRACES.findall(template):
        if brace != _LABEL:
            raise UsageError(f"{template}: {brace} is unknown; the only placeholder is {_LABEL}")
    return template if _LABEL in template else os.path.join(template, _LABEL)


class Sorter:
    """Puts each labelled video into the folder that `template` names for its label; `labels` are all possible labels.

    A template without {label} is a folder that gets one subfolder per label. With `link`, a symbolic link to the video
    is made, else a copy. `tell` gets a line about what the copy of a folder of images leaves out.
    """

    def __init__(
        self, template: str, labels: Sequence[str], *, link: bool, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._template = _with_label(template)
        self._names = folder_names(labels)
        self._link = link
        self._tell = tell
        self._known: dict[str, Namesakes] = {}  # of names that were met again

    def place(self, record: Record) -> Path | None:
        """Sort the video of `record`, and return its new path; None if it failed, has no label, or is at an address.

        The label is the top label, or `UNSURE`; of a timeline, the one on top for the longest time. Nothing is
        overwritten: a file with the same content is kept, and beside a different file of the same name the video gets a
        number. The copy of a folder of images has its images and its other regular files. Other links, devices, pipes
        and folders are left out: they may lead to content that nobody meant to copy.

        Raises:
            OutputError: it cannot be copied or linked.
        """
        label = _main_label(record)
        if label is None or is_address(record["path"]):
            return None
        source = Path(os.path.abspath(local_path(record["path"])))
        folder = Path(self._template.replace(_LABEL, self._names[label]))
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise OutputError(f"{record['path']}: cannot be sorted into {folder}, which is inside it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._put(source, folder)
        except OSError as error:
            verb = "linked" if self._link else "copied"
            raise OutputError(f"{record['path']}: cannot be {verb} to {folder} ({error.strerror or error})") from error

    def _put(self, source: Path, folder: Path) -> Path:
        first = folder / source.name
        known = self._known.get(str(first))
        if known is None:
            if self._make(source, first):
                return first
            known = Namesakes(first)
        video = Video(source)
        while (found := known.same(video)) is None:
            found = known.next
            made = self._make(source, found)
            known.add(video if made else None)
            if made:
                break
        if known.count > 1:  # most names are not repeated, and a run may have a million
            self._known[str(first)] = known
        return found

    def _make(self, source: Path, target: Path) -> bool:
        """Copy or link; False if there is something at `target`."""
        if os.path.lexists(target):
            return False
        try:
            if self._link:
                os.symlink(source, target, target_is_directory=source.is_dir())
            else:
                self._copy(source, target)
        except FileExistsError:  # another run was faster
            return False
        return True

    def _copy(self, source: Path, target: Path) -> None:
        """Copy a file with its times, or a folder, which gets its name once complete and only if the name is free."""
        # The name is the same in every run, so that the rest of a killed run is overwritten.
        part = target.with_name(f".{_digest(os.fsencode(source))}.part")
        try:
            if source.is_dir():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                taken, left_out = contents(source)
                for name in taken:
                    shutil.copy2(source / name, part / name)
                shutil.copystat(source, part)
                os.rename(part, target)
                if left_out:
                    self._tell(f"{source}: not copied, as they are not regular files: {', '.join(left_out)}")
            else:
                make_empty(part)
                shutil.copy2(source, part)
                _take_name(part, target)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def folder_names(labels: Sequence[str]) -> dict[str, str]:
    """A folder name for each label, valid on Linux, macOS and Windows, and different for different labels.

    Characters that are not valid become %XX, as in addresses. Names that would be too long, or differ only in case or
    in the composition of accents, end in a digest of the label.
    """
    names = {label: _escaped(label) for label in labels}
    alike = Counter(map(_folded, names.values()))
    return {
        label: _shortened(name, label) if alike[_folded(name)] > 1 or not 0 < len(name.encode()) <= _LONGEST else name
        for label, name in names.items()
    }


def _escaped(label: str) -> str:
    last = len(label) - 1
    device = _DEVICE.match(label) is not None
    return "".join(
        "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        if character in _FORBIDDEN
        or unicodedata.category(character) in ("Cc", "Cs")
        or (place == 0 and (device or character == "."))  # a name that begins with a dot is hidden
        or (place == last and character in ". ")
        else character
        for place, character in enumerate(label)
    )


def _folded(name: str) -> str:
    """A key that is equal for names that macOS or Windows treat as the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shortened(name: str, label: str) -> str:
    # No escape begins with "%-", so no other label has this name.
    digest = f"%-{_digest(label.encode('utf-8', 'surrogatepass'))}"
    return name.encode()[: _LONGEST - len(digest)].decode(errors="ignore") + digest


def _main_label(record: Record) -> str | None:
    seconds: defaultdict[str, float] = defaultdict(float)
    for part in spans(record):
        if part["predictions"]:
            label = UNSURE if part.get("abstained") else part["predictions"][0]["label"]
            seconds[label] += part["end"] - part["start"]
    return max(seconds, key=seconds.__getitem__, default=None)


def _take_name(part: Path, target: Path) -> None:
    """Rename a file as `os.replace` does, but only to a free name."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        target.open("xb").close()
        os.replace(part, target)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=4).hexdigest()
