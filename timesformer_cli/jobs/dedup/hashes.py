"""The fingerprints of videos on disk: beside the output, a line for each video that was read.

A video is read again if its file has changed since, or if it is read in a different way.
"""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np

from timesformer_cli import strict_json
from timesformer_cli.errors import OutputError
from timesformer_cli.files import encoded, told, without_links
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.fingerprinted import Fingerprinted
from timesformer_cli.results.appender import Appender
from timesformer_cli.results.record import json_line
from timesformer_cli.shapes import anything, count, number, record, string
from timesformer_cli.specs import Reading
from timesformer_cli.video.addresses import is_address, local_path

# Of what a fingerprint is: a different number for each change of `video.fingerprints` that changes them.
VERSION = 1

_RECORD = record(
    anything,
    path=string,
    key=string,
    start=number,
    duration=number,
    width=count,
    height=count,
    shown=number,
    fingerprints=string,
)


def hashes_of(target: Path) -> Path:
    """The file of the fingerprints for an output."""
    return target.with_name(target.name + ".hashes.jsonl")


class Kept:
    """The fingerprints of earlier runs, and those of this one as they come."""

    def __init__(self, found: dict[str, Fingerprinted], reading: Reading, appender: Appender | None) -> None:
        self._found = found
        self._reading = reading
        self._appender = appender

    def find(self, item: Item) -> Fingerprinted | None:
        """Those of an earlier run, if the file is still the same."""
        return self._found.get(_key(item, self._reading))

    def add(self, video: Fingerprinted) -> None:
        """Raises OSError."""
        if self._appender is None:
            return
        line = {
            "path": video.item.path,
            "key": _key(video.item, self._reading),
            "start": video.start,
            "duration": video.duration,
            "width": video.width,
            "height": video.height,
            "shown": video.shown,
            "fingerprints": base64.b64encode(video.prints.astype("<u8").tobytes()).decode("ascii"),
        }
        self._appender.write(encoded(json_line(line)))


@contextmanager
def opened(target: Path | None, reading: Reading, *, resume: bool) -> Iterator[Kept]:
    """The fingerprints beside `target`, those of earlier runs only with `resume`; kept nowhere without a target.

    Raises:
        OutputError: they cannot be read or written, or are something else.
    """
    if target is None:
        yield Kept({}, reading, None)
        return
    path = hashes_of(target)
    with told(path):
        if not resume:
            path.unlink(missing_ok=True)
        found, end = _read(path) if path.exists() else ({}, 0)
        file = FileIO(path, "r+" if path.exists() else "x+", opener=without_links)
        file.truncate(end)
        file.seek(end)
        appender = Appender(file)
        try:
            yield Kept(found, reading, appender)
        finally:
            appender.close()


def _read(path: Path) -> tuple[dict[str, Fingerprinted], int]:
    """What the file holds by key, and where its last whole line ends."""
    found: dict[str, Fingerprinted] = {}
    end = 0
    with path.open("rb") as file:
        for line in file:
            try:
                key, video = _parsed(line)
            except ValueError as error:
                if file.read(1):
                    raise OutputError(
                        f"{path}: the line at byte {end:,} is not of the hashes of a video ({error}); start again with "
                        "`overwrite`"
                    ) from error
                break  # torn by a stop
            found[key] = video
            end += len(line)
    return found, end


def _parsed(line: bytes) -> tuple[str, Fingerprinted]:
    """Raises ValueError."""
    values = strict_json.loads(line)
    if not line.endswith(b"\n"):
        raise ValueError("it has no end")
    _RECORD(values)
    prints = np.frombuffer(base64.b64decode(values["fingerprints"], validate=True), "<u8").astype(np.uint64)
    video = Fingerprinted(
        Item(values["path"]),
        prints.reshape(-1, 4),
        float(values["start"]),
        float(values["duration"]),
        values["width"],
        values["height"],
        float(values["shown"]),
    )
    return values["key"], video


def _key(item: Item, reading: Reading) -> str:
    """What the fingerprints of a video depend on: its path, the size of its file and when it was changed, and more."""
    parts: list[object] = [VERSION, *([reading.frame_rate] if item.frames else [])]
    if not is_address(item.location):
        try:
            status = os.stat(local_path(item.location))
        except OSError:
            parts += ["missing"]  # reading it says why
        else:
            parts += [status.st_size, status.st_mtime_ns]
    return "\0".join([*map(str, parts), item.path])
