"""Tokens of videos on disk: each view goes through the frozen layers once, and training begins behind them.

The folder has `tokens.bin`, the tokens of all views one after the other, float16; `videos.jsonl`, with a record of each
video: the size and the time of change of its file, the number of its first view in `tokens.bin`, and how many there
are; and `settings.json`, what else they depend on.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.files import encoded, sync, told, without_links
from timesformer_cli.flow import Failure, Item, Scored
from timesformer_cli.jobs.finetune.features import Stamp, has_settings, stamp_of, video_record
from timesformer_cli.jobs.finetune.folder import write_json
from timesformer_cli.jobs.finetune.frozen import tokens_shape
from timesformer_cli.jobs.reporter import Reporter, in_words, rate
from timesformer_cli.network.inference import InferenceNetwork
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.appender import sync_names
from timesformer_cli.results.journal import read_records
from timesformer_cli.results.record import Record, head_of, identity, json_line
from timesformer_cli.results.settings import Provenance
from timesformer_cli.runtimes import pytorch
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.shapes import count
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import duration

_TOKENS = "tokens.bin"
_VIDEOS = "videos.jsonl"
_SETTINGS = "settings.json"

# Seconds between two syncs to the disk.
_SYNC = 3.0

# What the disk must have room for besides: checkpoints of the training and the new model, as a multiple of the network.
_BESIDE = 4

_RECORD = video_record(first=count, views=count)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tokens:
    """The tokens of videos: `shape` (L, D) for each view. `failures` are videos that could not be read.

    `places` are the numbers of a video's views in the file at `path`, by the key of its item.
    """

    path: Path
    shape: tuple[int, int]
    places: Mapping[str, range]
    failures: tuple[Failure, ...] = ()

    def views_of(self, item: Item) -> int:
        """The number of views of a video; 0 if it could not be read."""
        return len(self.places.get(item.key, ()))

    def read(self, item: Item, view: int) -> NDArray[np.float16]:
        """The tokens float16 (L, D) of a view of a video, in the order of `pipeline.prepare`. Raises OutputError."""
        place = self.places[item.key][view]
        # A mapping that stays would count as memory of the process, as much of it as was ever read.
        with told(self.path, "read"):
            mapped = np.memmap(self.path, "<f2", "r", place * _bytes_of(self.shape), self.shape)
            return np.array(mapped, np.float16)


def keep_tokens(
    items: Sequence[Item],
    views: Sequence[int],
    checkpoint: Checkpoint,
    run: RunOptions,
    folder: Path,
    provenance: Provenance,
    report: Reporter,
    *,
    layers: int,
    open_model: Callable[[], TimesformerForVideoClassification],
) -> Tokens | None:
    """The tokens of `items` that enter the last `layers` layers; what `folder` holds is not made again.

    `views` are the numbers of views of each, and `open_model` opens the network, made for the views of `checkpoint`; it
    is called several times, and must return a model that may be changed. Tokens of other settings than `provenance`
    are dropped. Videos that failed are tried again.

    Returns None if the disk has no room for the tokens, or if they are too large for float16; `report` gets the reason.

    Raises:
        TimesformerError: as `score_all`; or the folder cannot be written.
    """
    model = open_model()
    config, needed = model.config, _BESIDE * sum(tensor.nbytes for tensor in model.state_dict().values())
    del model
    settings = provenance.to_dict() | {"layers": layers}
    with _opened(folder, json.loads(json.dumps(settings)), tokens_shape(config)) as cache:
        places = [place for place, item in enumerate(items) if not cache.has(item)]
        needed += sum(views[place] for place in places) * cache.bytes_each
        with told(folder):
            missing = needed - shutil.disk_usage(folder).free
        if places and missing > 0:
            report.note(
                f"{folder}: the disk lacks {missing / 1e9:.1f} GB for the output of the layers that are not trained; "
                "each step computes it again, which takes longer"
            )
            return None
        left = [items[place] for place in places]
        opened = partial(_scorer, open_model, config.num_hidden_layers - layers, run.device)
        failures = _make(left, len(items) - len(left), checkpoint, run, cache, report, opened) if left else []
        if failures is None:
            return None
        return cache.tokens(items, failures)


def _scorer(open_model: Callable[[], TimesformerForVideoClassification], layer: int, device: str) -> Scorer:
    """Makes tokens float32 (N, L, D) of views.

    The network for inference makes them, whose tokens differ from those of training by much less than their rounding to
    float16. It computes in float32, also on devices that train with less, since the tokens serve all epochs.
    """
    target = find_device(device)
    network = InferenceNetwork(open_model, device=target)
    return pytorch.scorer_with(lambda pixels: network.tokens_before(layer, pixels).float(), target, "fp32")


def _make(
    left: Sequence[Item],
    before: int,
    checkpoint: Checkpoint,
    run: RunOptions,
    cache: "_Cache",
    report: Reporter,
    opened: Callable[[], Scorer],
) -> list[Failure] | None:
    """Make the tokens of `left`; returns the videos that failed, or None if there are numbers too large for float16."""
    failures = []
    with (
        score_all(left, checkpoint, run, tell=report.note, opened=opened) as scored,
        report.progress(len(left)) as meter,
    ):
        for result in scored:
            with meter.step(failed=isinstance(result, Failure)):
                if isinstance(result, Failure):
                    failures.append(in_words(result, report))
                    report.note(f"failed: {result.item.path}: {failures[-1].message}")
                elif not cache.add(result):
                    report.note(
                        f"{result.item.path}: the output of the layers that are not trained is too large for the 16 "
                        "bits in which it is kept; each step computes it again, which takes longer"
                    )
                    return None
    kept = f"; {before:,} kept before" if before else ""
    speed = rate(len(left), meter.seconds, "videos ")
    report.note(
        f"kept what enters the trained layers, of {len(left):,} videos in {duration(meter.seconds)}, {speed}{kept}"
    )
    return failures


def _bytes_of(size: tuple[int, int]) -> int:
    """Bytes of a view."""
    return 2 * size[0] * size[1]


def _read_index(folder: Path, size: tuple[int, int]) -> tuple[dict[str, tuple[Stamp, range]], int]:
    """The stamp and the views of each video, by its key, and the number of bytes of the whole records.

    Videos whose tokens were lost, by a power cut, are left out. Raises OutputError.
    """
    path = folder / _VIDEOS
    kept: dict[str, tuple[Stamp, range]] = {}
    end = 0
    if path.exists():
        with told(folder / _TOKENS, "read"):
            most = (folder / _TOKENS).stat().st_size // _bytes_of(size)
        for past, record in read_records(path, check=_RECORD):
            views = range(record["first"], record["first"] + record["views"])
            if views.stop > most:
                break
            kept[identity(record)] = record["stamp"], views
            end = past
    return kept, end


def _is_kept(item: Item, kept: Mapping[str, tuple[Stamp, range]]) -> bool:
    return item.key in kept and kept[item.key][0] == stamp_of(item)


@contextmanager
def _opened(folder: Path, settings: Mapping[str, Any], size: tuple[int, int]) -> Iterator["_Cache"]:
    """The cache in `folder`, emptied if it has other settings. Raises OutputError."""
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not has_settings(folder / _SETTINGS, settings) or not (folder / _TOKENS).exists():
        with told(folder):
            (folder / _VIDEOS).unlink(missing_ok=True)
            (folder / _TOKENS).unlink(missing_ok=True)
        write_json(folder / _SETTINGS, settings)
    kept, end = _read_index(folder, size)
    with told(folder), _file(folder / _VIDEOS) as index, _file(folder / _TOKENS) as data:
        cache = _Cache(folder, kept, index, end, data, size)
        try:
            yield cache
        finally:
            cache.settle()


def _file(path: Path) -> FileIO:
    return FileIO(path, "r+" if path.exists() else "x+", opener=without_links)


class _Cache:
    """Adds to both files, which are cut behind what is known: `end` bytes of the index, and the views of `kept`."""

    def __init__(
        self,
        folder: Path,
        kept: dict[str, tuple[Stamp, range]],
        index: FileIO,
        end: int,
        data: FileIO,
        size: tuple[int, int],
    ) -> None:
        self.bytes_each = _bytes_of(size)
        self._folder, self._kept, self._size = folder, kept, size
        self._index, self._data = index, data
        self._views = max((views.stop for _, views in kept.values()), default=0)
        self._waiting: list[Record] = []
        self._synced = time.monotonic()
        for file, length in ((index, end), (data, self._views * self.bytes_each)):
            file.truncate(length)
            file.seek(length)

    def has(self, item: Item) -> bool:
        """Whether there are tokens of a video, and its file is still the same."""
        return _is_kept(item, self._kept)

    def add(self, scored: Scored) -> bool:
        """Keep the tokens (V, L, D) of a video; False if they are too large for float16. Raises OSError."""
        with np.errstate(over="ignore"):
            tokens = scored.logits.astype("<f2")
        if not np.isfinite(tokens).all():
            return False
        item, views = scored.item, range(self._views, self._views + len(tokens))
        _write(self._data, tokens.reshape(-1).view(np.uint8).data)
        self._views = views.stop
        self._kept[item.key] = stamp_of(item), views
        about = {"status": "ok", "stamp": stamp_of(item), "first": views.start, "views": len(views)}
        self._waiting.append(head_of(item.path, item.part) | about)
        if time.monotonic() - self._synced > _SYNC:
            self.settle()
        return True

    def settle(self) -> None:
        """Sync to the disk: tokens first, so that a record never tells of what is not there. Raises OSError."""
        if self._waiting:
            sync(self._data.fileno(), self._folder / _TOKENS)
            _write(self._index, memoryview(encoded("".join(json_line(record) for record in self._waiting))))
            sync(self._index.fileno(), self._folder / _VIDEOS)
            sync_names(self._folder)
            self._waiting.clear()
        self._synced = time.monotonic()

    def tokens(self, items: Sequence[Item], failures: Sequence[Failure]) -> Tokens:
        """Those of `items`."""
        lost = {failure.item.key for failure in failures}
        places = {item.key: self._kept[item.key][1] for item in items if item.key not in lost}
        return Tokens(path=self._folder / _TOKENS, shape=self._size, places=places, failures=tuple(failures))


def _write(file: FileIO, content: memoryview) -> None:
    """Write all of it. Raises OSError."""
    while content:
        content = content[file.write(content) :]
