"""Random numbers that belong to samples."""

import itertools

import numpy as np

from timesformer_cli.jobs.finetune.randomness import drop_path_draws, generator_of, order_of


def test_each_part_of_the_name_counts() -> None:
    names = list(itertools.product((0, 1), (0, 1, 11), ("a", "b", "1a", "a.mp4\0", "\udcff"), ("crop", "flip")))
    first = {generator_of(*name).random() for name in names}
    assert len(first) == len(names)
    assert first == {generator_of(*name).random() for name in names}


def test_numbers_stay_what_they_are() -> None:
    """Else a run that was begun with an earlier version would go on with different ones."""
    assert generator_of(3, 2, "a.mp4", "crop").integers(0, 1000, 4).tolist() == [930, 188, 402, 648]
    assert order_of(0, 1, 6).tolist() == [1, 4, 3, 5, 0, 2]


def test_an_epoch_has_every_sample_once() -> None:
    orders = [order_of(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_draws_belong_to_samples() -> None:
    draws = drop_path_draws(0, 1, ["a", "b", "c"], (2, 30))
    assert draws.shape == (3, 2, 30)
    assert draws.dtype == np.float32
    assert np.array_equal(drop_path_draws(0, 1, ["c", "a"], (2, 30)), draws[[2, 0]])
    assert len(np.unique(draws)) == draws.size
    assert 0 <= draws.min() < 0.1
    assert 0.9 < draws.max() < 1
