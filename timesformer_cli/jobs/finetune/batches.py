"""The videos of a training, batch by batch: which ones each step takes, and reading them ahead of the network."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.finetune.augment import Augmentation, View, draw_view
from timesformer_cli.jobs.finetune.randomness import generator_of, order_of
from timesformer_cli.pipeline.prepare import odd_errors, read_ahead
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.workers import Done
from timesformer_cli.specs import Reading, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Which of `videos` videos each step takes: every epoch takes each of them once, in a random order of its own.

    The steps of an epoch are as even as can be, and none has more than `batch_size` videos. Steps count from 0 through
    all epochs.
    """

    videos: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.videos // self.batch_size)

    def epoch_of(self, step: int) -> int:
        return step // self.steps_per_epoch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The numbers of the videos, int64 (videos,), in the order of an epoch."""
        return order_of(self.seed, epoch, self.videos)

    def steps(self, steps: range) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each of `steps` with the numbers of its videos, int64 (B,)."""
        epoch, parts = -1, list[NDArray[np.int64]]()
        for step in steps:
            if self.epoch_of(step) != epoch:
                epoch = self.epoch_of(step)
                parts = np.array_split(self.order(epoch), self.steps_per_epoch)
            yield step, parts[step % self.steps_per_epoch]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """A step's videos, or a part of them, as network input.

    `places` int64 (M,): the numbers of the videos that could be read. `pixels` float32 (M, T, C, H, W): a view of each,
    and `mirrored` bool (M,) whether it is. `failures` are the videos that could not be read; nothing replaces them, so
    M may be 0. `asked` counts the videos of the whole step, on all machines. `last`: no other part of the step follows.
    """

    step: int
    epoch: int
    places: NDArray[np.int64]
    pixels: NDArray[np.float32]
    mirrored: NDArray[np.bool_]
    failures: tuple[Failure, ...]
    asked: int
    last: bool


class Share(NamedTuple):
    """The part of each step's videos that a process takes: those of number `rank`, `rank` + `of`, and so on."""

    rank: int = 0
    of: int = 1


ALL = Share()


class _Request(NamedTuple):
    item: Item
    epoch: int


class _Part(NamedTuple):
    """A batch to come."""

    step: int
    places: NDArray[np.int64]
    asked: int
    last: bool


@contextmanager
def read_batches(
    items: Sequence[Item],
    recipe: Recipe,
    augmentation: Augmentation,
    schedule: Schedule,
    run: RunOptions,
    *,
    steps: range,
    micro_batch: int | None = None,
    share: Share = ALL,
) -> Iterator[Iterator[Batch]]:
    """The batches of `steps`, in order, for as long as the context lasts; nothing is read for the steps before them.

    Each step is a batch or, with `micro_batch`, as many as it takes with at most so many videos, also if all of them
    fail. The processes of `run` read ahead as soon as the context is entered, within its limits of time and memory for
    each video; they change no byte, nor do `micro_batch` and `share`.
    """
    task = partial(_drawn, recipe=recipe, augmentation=augmentation, seed=schedule.seed, reading=run.reading)
    requests = (
        _Request(items[place], schedule.epoch_of(part.step))
        for part in _parts(schedule, steps, micro_batch, share)
        for place in part.places.tolist()
    )
    with read_ahead(task, requests, workers=run.processes, limits=run.limits) as results:
        answers = (_received(*result) for result in results if result is not None)
        shape = (recipe.sampling.num_frames, len(recipe.preprocess.mean), *recipe.preprocess.size)
        yield (
            _batch(part, list(islice(answers, len(part.places))), schedule.epoch_of(part.step), shape)
            for part in _parts(schedule, steps, micro_batch, share)
        )


def _parts(schedule: Schedule, steps: range, micro_batch: int | None, share: Share) -> Iterator[_Part]:
    for step, places in schedule.steps(steps):
        own = places[share.rank :: share.of]
        each = micro_batch or max(len(own), 1)
        starts = range(0, max(len(own), 1), each)
        for start in starts:
            yield _Part(step, own[start : start + each], len(places), last=start == starts[-1])


def _drawn(
    request: _Request, threads: int, recipe: Recipe, augmentation: Augmentation, seed: int, reading: Reading
) -> Generator[Done]:
    """The view of a video in an epoch, in a worker."""
    item, epoch = request
    with odd_errors(item):
        turn = turn_of(seed, epoch, item.key)
        generator = generator_of(seed, epoch, item.key, "view")
        view = draw_view(item, recipe, augmentation, generator, turn=turn, reading=replace(reading, threads=threads))
        yield Done((view.frames, view.mirrored), view.pixels)


def turn_of(seed: int, epoch: int, key: str) -> int:
    """The number of the view that an epoch shows of the sample `key`, if it takes those of the recipe in turn.

    Where the turns begin depends on the video, or an epoch would consist of the beginnings of all videos.
    """
    return int(generator_of(seed, 0, key, "turn").integers(2**32)) + epoch


def _received(request: _Request, answer: Done | VideoError) -> View | Failure:
    if isinstance(answer, VideoError):
        return Failure(request.item, answer.kind, str(answer))
    return View(answer.array, *answer.value)


def _batch(part: _Part, answers: Sequence[View | Failure], epoch: int, shape: tuple[int, ...]) -> Batch:
    """The views of `shape` that could be read."""
    views = [answer for answer in answers if isinstance(answer, View)]
    return Batch(
        step=part.step,
        epoch=epoch,
        places=part.places[[isinstance(answer, View) for answer in answers]],
        pixels=np.stack([view.pixels for view in views]) if views else np.empty((0, *shape), np.float32),
        mirrored=np.array([view.mirrored for view in views], np.bool_),
        failures=tuple(answer for answer in answers if isinstance(answer, Failure)),
        asked=part.asked,
        last=part.last,
    )
