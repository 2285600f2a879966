"""A folder with one array for each video, as programs for temporal localisation read it."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from timesformer_cli.errors import OutputError
from timesformer_cli.files import encoded, replacing, told
from timesformer_cli.results.record import Record
from timesformer_cli.results.settings import Provenance
from timesformer_cli.results.vectors.rows import VectorRow, described, rows_in
from timesformer_cli.results.vectors.writing import converted

INDEX = "index.json"

# What some file system cannot have in a name.
_SPECIAL = re.compile(r'[\x00-\x1f<>:"\\|?*]+')


def save_per_video(index: Path, records: Iterable[Record], provenance: Provenance) -> None:
    """Write an array (T, D) for each video into the folder of `index`, and then `index` itself.

    The vectors of a video are in order of time; they are converted as `provenance.vectors` says. The index is JSON:
    `settings`, and `videos`, a list. Each has `path`; `file`, its array; `rows` (T); `duration` (seconds) and `fps` of
    the video; and `starts` and `ends` of its segments in seconds, or `times` and `frames` of its frames. Vectors of
    segments also have `num_frames`, the frames of the video that one segment spans, and `feat_stride`, those from one
    start to the next, which are numbers with a fraction. A video that failed has its `error` instead of a file.

    Raises:
        OutputError: a file cannot be written, or a vector is not finite.
    """
    taken: set[str] = set()
    with replacing(index) as part, part.open("wb") as file:
        file.write(encoded('{"settings": ' + json.dumps(described(provenance)) + ', "videos": ['))
        for number, record in enumerate(records):
            entry = _saved(index.parent, record, provenance, taken)
            file.write(encoded((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False)))
        file.write(b"\n]}\n")


def _saved(folder: Path, record: Record, provenance: Provenance, taken: set[str]) -> dict[str, Any]:
    """The entry of a video in the index, once its array is written."""
    kind = provenance.vectors
    assert kind is not None
    head = {"path": record["path"]}
    if record["status"] == "error":
        return head | {"error": record["error"]}
    rows = list(rows_in([record]))
    name = _name(record["path"], taken)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):  # a link in the folder leads out of it
        raise OutputError(f"{path}: leads out of {folder}; choose an empty folder")
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, np.stack([converted(row, kind) for row in rows]))
    video = record["video"]
    known = {"file": name, "rows": len(rows), "duration": video["duration"], "fps": video["fps"]}
    return head | known | (_of_frames(rows) if kind.feature == "frames" else _of_segments(rows, provenance, video))


def _of_frames(rows: list[VectorRow]) -> dict[str, Any]:
    return {"times": [row.time for row in rows], "frames": [row.frame for row in rows]}


def _of_segments(rows: list[VectorRow], provenance: Provenance, video: Mapping[str, Any]) -> dict[str, Any]:
    timeline, rate = provenance.timeline, video["fps"]
    times = {"starts": [row.start for row in rows], "ends": [row.end for row in rows]}
    if timeline is None or rate is None:
        return times
    hop = timeline.length if timeline.hop is None else timeline.hop
    return times | {"num_frames": round(timeline.length * rate, 6), "feat_stride": round(hop * rate, 6)}


def _name(path: str, taken: set[str]) -> str:
    """The name of the array of a video: its path below the folder, without its extension if that is still free."""
    parts = [_SPECIAL.sub("_", part) for part in re.split(r"[/\\]+", path) if part not in ("", ".")]
    parts = [encoded(part.replace("..", "_")).decode("utf-8") for part in parts]
    whole = "/".join(parts)
    short = "/".join([*parts[:-1], Path(parts[-1]).stem])
    name = next(name for name in _candidates(short, whole) if name.lower() not in taken)
    taken.add(name.lower())
    return f"{name}.npy"


def _candidates(short: str, whole: str) -> Iterable[str]:
    yield short
    yield whole
    number = 2
    while True:
        yield f"{whole} ({number})"
        number += 1
