"""Fingerprints of videos: worker processes read videos ahead and hash their frames."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Failure, Item
from timesformer_cli.pipeline.prepare import odd_errors, read_ahead
from timesformer_cli.pipeline.workers import Done, Limits
from timesformer_cli.specs import Reading
from timesformer_cli.video.fingerprints import RATE, Part, read_fingerprints
from timesformer_cli.video.reader import open_video

_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprinted:
    """A video's fingerprints, uint64 (F, 4), as `video.fingerprints` makes them.

    `start` is when its first frame is shown, in seconds as in `flow.VideoInfo`; `width` and `height` are upright.
    `shown` is the share of the frames that is not black bars.
    """

    item: Item
    prints: NDArray[np.uint64]
    start: float
    duration: float
    width: int
    height: int
    shown: float


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """A video of which `seconds` are read, of `duration`."""

    item: Item
    seconds: float
    duration: float


@contextmanager
def fingerprint_all(
    items: Iterable[Item], reading: Reading, *, workers: int, limits: Limits
) -> Iterator[Iterator[Fingerprinted | Reached | Failure]]:
    """The fingerprints of each item, in order, with what is reached of long videos; or why one cannot be read.

    `workers` and `limits` are as for `prepare.prepare_all`.
    """
    with read_ahead(partial(_carried, reading=reading), items, workers=workers, limits=limits) as answers:
        yield _joined(answer for answer in answers if answer is not None)


def _carried(item: Item, threads: int, reading: Reading) -> Generator[Done]:
    """The parts of a video, in a worker; `more` says that another follows."""
    with odd_errors(item), open_video(item, replace(reading, threads=threads)) as reader:
        info = reader.info
        facts = info.start, info.duration, info.width, info.height
        parts = read_fingerprints(reader, reading)
        before = next(parts)
        for part in parts:
            yield Done((facts, before), _NOTHING, more=True)
            before = part
        yield Done((facts, before), _NOTHING)


def _joined(answers: Iterable[tuple[Item, Done | VideoError]]) -> Iterator[Fingerprinted | Reached | Failure]:
    parts: list[Part] = []
    for item, answer in answers:
        if isinstance(answer, VideoError):
            parts = []
            yield Failure(item, answer.kind, str(answer))
            continue
        (start, duration, width, height), part = answer.value
        parts.append(part)
        if answer.more:
            yield Reached(item, sum(len(each.prints) for each in parts) / RATE, duration)
        else:
            prints = np.concatenate([each.prints for each in parts])
            shown = max(each.shown for each in parts)
            yield Fingerprinted(item, prints, start, duration, width, height, shown)
            parts = []
