"""Batches for training: the same bytes whoever reads them, in order, and nothing in place of a failure."""

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from testing.clips import write_video
from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune import batches
from timesformer_cli.jobs.finetune.augment import Augmentation
from timesformer_cli.jobs.finetune.batches import ALL, Batch, Schedule, Share, read_batches
from timesformer_cli.jobs.finetune.randomness import generator_of
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.specs import PreprocessSpec, Recipe, SamplingSpec

RECIPE = Recipe(
    base="test",
    sampling=SamplingSpec(num_frames=4, stride=2, fps=None),
    preprocess=PreprocessSpec(size=(16, 16), short_side=16),
)
AUGMENTATION = Augmentation(flip=True)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Seven videos, of which the third cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    made = [Item(str(write_video(folder / f"{level}.mp4", level=level, frames=20))) for level in range(7)]
    Path(made[2].path).write_bytes(b"no video")
    return made


def read(
    items: Sequence[Item],
    steps: range,
    *,
    workers: int = 0,
    micro_batch: int | None = None,
    share: Share = ALL,
    augmentation: Augmentation = AUGMENTATION,
    limits: Limits = Limits(),
) -> list[Batch]:
    run = RunOptions(device="cpu", workers=workers, limits=limits)
    schedule = Schedule(videos=len(items), batch_size=3, seed=5)
    with read_batches(
        items, RECIPE, augmentation, schedule, run, steps=steps, micro_batch=micro_batch, share=share
    ) as found:
        return list(found)


def content(found: Sequence[Batch]) -> dict[tuple[int, int], tuple[bool, bytes]]:
    """What each step shows of each video."""
    return {
        (batch.step, place): (bool(mirrored), pixels.tobytes())
        for batch in found
        for place, mirrored, pixels in zip(batch.places.tolist(), batch.mirrored, batch.pixels, strict=True)
    }


def test_each_epoch_takes_every_video_once_in_another_order() -> None:
    schedule = Schedule(videos=10, batch_size=4, seed=1)
    assert schedule.steps_per_epoch == 3
    taken = dict(schedule.steps(range(6)))
    assert [len(places) for places in taken.values()] == [4, 3, 3, 4, 3, 3]
    epochs = [np.concatenate([taken[step] for step in steps]).tolist() for steps in (range(3), range(3, 6))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert [schedule.epoch_of(step) for step in (0, 2, 3)] == [0, 0, 1]
    np.testing.assert_array_equal(dict(schedule.steps(range(4, 5)))[4], taken[4])
    assert Schedule(videos=10, batch_size=4, seed=2).order(0).tolist() != epochs[0]


def test_generators_belong_to_what_they_are_for() -> None:
    asked = [(0, 0, "a", "view"), (1, 0, "a", "view"), (0, 1, "a", "view"), (0, 0, "b", "view"), (0, 0, "a", "turn")]
    drawn = [generator_of(*each).integers(2**62) for each in asked]
    assert len(set(drawn)) == len(asked)
    assert drawn == [generator_of(*each).integers(2**62) for each in asked]


def test_workers_change_no_byte(items: list[Item]) -> None:
    here, *others = (content(read(items, range(4), workers=workers)) for workers in (0, 1, 2))
    assert len(here) == 9  # six of the first epoch, and three of the second
    assert others == [here, here]


def test_what_fails_is_told_and_not_replaced(items: list[Item]) -> None:
    for found in (read(items, range(3), workers=workers) for workers in (0, 1)):
        failures = [failure for batch in found for failure in batch.failures]
        assert [failure.item for failure in failures] == [items[2]]
        assert sorted(place for batch in found for place in batch.places.tolist()) == [0, 1, 3, 4, 5, 6]
        assert [batch.asked for batch in found] == [3, 2, 2]
        assert all(batch.asked == len(batch.pixels) + len(batch.failures) for batch in found)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers")
def test_a_video_may_take_only_so_long(items: list[Item]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = Item(f"http://127.0.0.1:{silent.getsockname()[1]}/slow.mp4")
        (batch,) = read([slow, items[0]], range(1), workers=1, limits=Limits(timeout=1.0))
    assert [failure.kind for failure in batch.failures] == ["timeout"]
    assert batch.places.tolist() == [1]


def test_a_step_of_failures_is_empty(items: list[Item]) -> None:
    (batch,) = read([items[2]], range(1))
    assert batch.pixels.shape == (0, 4, 3, 16, 16)
    assert (batch.places.shape, batch.mirrored.shape, batch.asked) == ((0,), (0,), 1)


def test_a_later_start_reads_nothing_of_the_steps_before(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content(read(items, range(5)))
    drawn: list[str] = []
    draw_view = batches.draw_view

    def counted(item: Item, *args: object, **options: object) -> object:
        drawn.append(item.path)
        return draw_view(item, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(batches, "draw_view", counted)
    later = read(items, range(4, 5))
    assert content(later) == {key: value for key, value in whole.items() if key[0] == 4}
    assert len(drawn) == later[0].asked == 2


def test_micro_batches_and_shares_have_the_same_views(items: list[Item]) -> None:
    whole = read(items, range(3))
    parts = read(items, range(3), micro_batch=2)
    assert [(batch.step, batch.last) for batch in parts] == [(0, False), (0, True), (1, True), (2, True)]
    assert content(parts) == content(whole)
    shares = [read(items, range(3), share=Share(rank, 2)) for rank in range(2)]
    assert content([*shares[0], *shares[1]]) == content(whole)
    for one, other, both in zip(*shares, whole, strict=True):
        assert one.asked == other.asked == both.asked == len(one.pixels) + len(other.pixels) + len(both.failures)
    assert [batch.asked for batch in read(items[:1], range(1), share=Share(1, 2))] == [1]


def test_views_of_a_video_change_with_the_epoch(items: list[Item]) -> None:
    found = content(read(items[:1], range(6)))
    assert len({pixels for _, pixels in found.values()}) == 6


def test_without_augmentation_every_epoch_shows_the_next_of_the_recipe_s_views(items: list[Item]) -> None:
    plain = [pixels.tobytes() for pixels in prepare(items[0], RECIPE).pixels]
    assert len(set(plain)) == 2
    shown = [
        pixels for _, pixels in content(read(items[:1], range(4), augmentation=Augmentation(kind="none"))).values()
    ]
    assert set(shown) == set(plain)
    assert shown[:2] == shown[2:]
