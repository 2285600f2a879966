"""Features of videos: each video goes through the network once, and its class tokens stay on disk.

The folder of the features has `videos.jsonl`, with a record of each video that was read: the size and the time of
change of its file, its class tokens, and the hashes of its frames; and `settings.json`, what else they depend on.
"""

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli import strict_json
from timesformer_cli.files import encoded, told, without_links
from timesformer_cli.flow import Failure, Item, Scored
from timesformer_cli.jobs.finetune.folder import write_json
from timesformer_cli.jobs.reporter import Meter, Reporter, in_words, rate
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.appender import Appender
from timesformer_cli.results.journal import read_records
from timesformer_cli.results.logits import pack, unpack
from timesformer_cli.results.record import Record, head_of, identity, json_line
from timesformer_cli.results.settings import Provenance, differences
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.shapes import Maybe, Shape, anything, each, number, or_none, string, whole
from timesformer_cli.shapes import record as shape
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import duration
from timesformer_cli.video.addresses import is_address, local_path
from timesformer_cli.video.preprocess import mirrored as mirror

# Videos that are read to measure the time.
_TRIED = 8

_VIDEOS = "videos.jsonl"
_SETTINGS = "settings.json"

# The size of a file in bytes, and its time of change in nanoseconds; None for addresses.
Stamp = list[int] | None


def video_record(**more: Shape) -> Shape:
    """The shape of the record of a video in a cache, with these fields more."""
    stamp = or_none(each(whole))
    return shape(anything, path=string, start=Maybe(number), end=Maybe(number), stamp=stamp, **more)


_RECORD = video_record(features=string, hashes=string)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What is known of a video once it was read.

    `rows` float32 (V, D): the class token of each view after the last LayerNorm, the input of the head. `hashes` uint64
    (H,): those of some of its frames, from `video.hashes`.
    """

    rows: NDArray[np.float32]
    hashes: NDArray[np.uint64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean over the views, float64 (D,). The head is linear, so it gives the mean logits."""
        mean: NDArray[np.float64] = self.rows.mean(axis=0, dtype=np.float64)
        return mean


def encode(
    items: Sequence[Item],
    checkpoint: Checkpoint,
    run: RunOptions,
    folder: Path,
    provenance: Provenance,
    report: Reporter,
    *,
    mirrored: bool = False,
) -> list[Features | Failure]:
    """The features of each of `items`, in order; what `folder` holds is not made again.

    Features of other settings than `provenance` are dropped. Videos that failed are tried again. With `mirrored`, they
    are those of the mirror images of the videos, which need a folder of their own.

    Raises:
        TimesformerError: as `score_all`; or the folder cannot be written.
    """
    with _opened(folder, provenance, checkpoint.config.hidden_size) as cache:
        found: list[Features | Failure | None] = [cache.find(item) for item in items]
        places = [place for place, kept in enumerate(found) if kept is None]
        if places:
            left = [items[place] for place in places]
            opened = partial(_mirroring, checkpoint, run, report) if mirrored else None
            with (
                score_all(
                    left, checkpoint, run, hashes=True, output="embedding", tell=report.note, opened=opened
                ) as scored,
                report.progress(len(left)) as meter,
            ):
                for place, answer in zip(places, _kept(scored, cache, meter, report), strict=True):
                    found[place] = answer
            before = f"; {len(items) - len(left):,} read before" if len(left) < len(items) else ""
            speed = rate(len(left), meter.seconds, "videos ")
            how = " mirrored" if mirrored else ""
            report.note(f"read {len(left):,}{how} videos in {duration(meter.seconds)}, {speed}{before}")
        return [answer for answer in found if answer is not None]


def _mirroring(checkpoint: Checkpoint, run: RunOptions, report: Reporter) -> Scorer:
    """A scorer of the mirror images of views."""
    scorer = run.open(checkpoint, report.note, "embedding")
    return lambda views: scorer(np.ascontiguousarray(mirror(views)))


def seconds_for(items: Sequence[Item], checkpoint: Checkpoint, run: RunOptions, report: Reporter) -> float:
    """About how long `encode` takes for `items`, measured on a few of them.

    Raises:
        TimesformerError: as `score_all`.
    """
    tried = [items[place] for place in np.unique(np.linspace(0, len(items) - 1, _TRIED).astype(np.int64)).tolist()]
    begin = time.monotonic()
    with score_all(tried, checkpoint, run, hashes=True, output="embedding", tell=report.note) as scored:
        ends = [time.monotonic() for _ in scored]
    # The first one waits for the network to be loaded.
    each = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0
    return ends[0] - begin + each * (len(items) - 1)


def _kept(
    scored: Iterable[Scored | Failure], cache: "_Cache", meter: Meter, report: Reporter
) -> Iterator[Features | Failure]:
    """Each result as it comes; features are written to the cache."""
    for result in scored:
        failed = isinstance(result, Failure)
        answer = in_words(result, report) if isinstance(result, Failure) else cache.add(result)
        with meter.step(failed=failed):
            if isinstance(answer, Failure):
                report.note(f"failed: {answer.item.path}: {answer.message}")
        yield answer


@contextmanager
def _opened(folder: Path, provenance: Provenance, width: int) -> Iterator["_Cache"]:
    """The cache in `folder`, emptied if it has other settings. Raises OutputError."""
    settings = json.loads(json.dumps(provenance.to_dict()))
    path = folder / _VIDEOS
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not has_settings(folder / _SETTINGS, settings):
        with told(path):
            path.unlink(missing_ok=True)
        write_json(folder / _SETTINGS, settings)
    kept: dict[str, tuple[Stamp, Features]] = {}
    end = 0

    def keep(record: Record) -> None:
        _RECORD(record)
        rows = unpack(record["features"]).reshape(-1, width)
        hashes = np.frombuffer(base64.b64decode(record["hashes"]), "<u8").astype(np.uint64)
        kept[identity(record)] = record["stamp"], Features(rows, hashes)

    if path.exists():
        for past, _ in read_records(path, check=keep):
            end = past
    with told(path):
        file = FileIO(path, "r+" if path.exists() else "x+", opener=without_links)
        file.truncate(end)  # a torn record is left out
        file.seek(end)
        appender = Appender(file)
        try:
            yield _Cache(kept, appender)
        finally:
            appender.close()


def has_settings(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the file at `path` holds these settings, as JSON has them."""
    try:
        return not list(differences(strict_json.read(path), settings))
    except (OSError, ValueError, AttributeError):
        return False


class _Cache:
    def __init__(self, kept: dict[str, tuple[Stamp, Features]], appender: Appender) -> None:
        self._kept = kept
        self._appender = appender

    def find(self, item: Item) -> Features | None:
        """The features of a video whose file is still the same."""
        stamp, features = self._kept.get(item.key, (None, None))
        return features if features is not None and stamp == stamp_of(item) else None

    def add(self, scored: Scored) -> Features:
        """Keep the features of a video. Raises OSError."""
        item = scored.item
        hashes = scored.hashes if scored.hashes is not None else np.empty(0, np.uint64)
        features = Features(scored.logits, hashes)
        record = head_of(item.path, item.part) | {
            "status": "ok",
            "stamp": stamp_of(item),
            "features": pack(features.rows),
            "hashes": base64.b64encode(hashes.astype("<u8").tobytes()).decode("ascii"),
        }
        self._appender.write(encoded(json_line(record)))
        return features


def stamp_of(item: Item) -> Stamp:
    """What tells whether the file of a video is still the same.

    Of a folder of images, it is that of the folder, which changes if images are added or removed.
    """
    if is_address(item.location):
        return None
    try:
        status = os.stat(local_path(item.location))
    except OSError:
        return [0, 0]  # reading it says why
    return [status.st_size, status.st_mtime_ns]
