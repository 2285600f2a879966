"""Splits by groups: what holds for any data, and for data as people have it."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from timesformer_cli.jobs.finetune.groups import group
from timesformer_cli.jobs.finetune.split import absent, folds, overlap, shots, split

Data = tuple[list[str], list[tuple[int, ...]]]


@st.composite
def single(draw: st.DrawFn) -> Data:
    """Groups that hold one class each, of one to seven videos."""
    sizes = draw(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=9), min_size=1, max_size=6))
    groups = [f"{c} {g}" for c, of_class in enumerate(sizes) for g, size in enumerate(of_class) for _ in range(size)]
    return groups, [(int(name.split()[0]),) for name in groups]


@st.composite
def mixed(draw: st.DrawFn) -> Data:
    """Groups of any classes; videos have any number of labels."""
    videos = draw(st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 4), max_size=3)), max_size=50))
    return [f"g{number}" for number, _ in videos], [tuple(sorted(numbers)) for _, numbers in videos]


ANY = st.one_of(single(), mixed())
SEEDS = st.integers(0, 3)


def groups_of(data: Data) -> dict[int, Counter[str]]:
    """For each class the videos in each group."""
    found: dict[int, Counter[str]] = {}
    for name, numbers in zip(*data, strict=True):
        for number in numbers:
            found.setdefault(number, Counter())[name] += 1
    return found


def shuffled(data: Data, order: random.Random) -> tuple[list[int], Data]:
    numbers = list(range(len(data[0])))
    order.shuffle(numbers)
    return numbers, ([data[0][number] for number in numbers], [data[1][number] for number in numbers])


class TestSplit:
    @given(ANY, SEEDS)
    def test_no_group_is_on_both_sides(self, data: Data, seed: int) -> None:
        val = split(*data, seed=seed)
        assert (val.shape, val.dtype) == ((len(data[0]),), np.bool_)
        names = np.array(data[0])
        assert not set(names[val]) & set(names[~val])

    @given(ANY, SEEDS, st.randoms(use_true_random=False))
    def test_the_order_of_videos_does_not_matter(self, data: Data, seed: int, order: random.Random) -> None:
        numbers, moved = shuffled(data, order)
        np.testing.assert_array_equal(split(*moved, seed=seed), split(*data, seed=seed)[numbers])
        np.testing.assert_array_equal(folds(*moved, seed=seed), folds(*data, seed=seed)[numbers])

    @given(single(), SEEDS, st.sampled_from([0.1, 0.2, 0.3, 0.5]))
    def test_each_class_is_near_its_share_and_on_both_sides(self, data: Data, seed: int, part: float) -> None:
        groups, labels = data
        val = split(groups, labels, part=part, seed=seed)
        for number, of_group in groups_of(data).items():
            inside = sum(of_group[name] for name in {groups[video] for video in np.nonzero(val)[0]})
            total = sum(of_group.values())
            if len(of_group) == 1:
                assert inside == 0, number
            else:
                assert 0 < inside < total
                assert abs(inside - part * total) <= max(of_group.values())

    @given(mixed(), SEEDS)
    def test_a_class_with_one_group_trains(self, data: Data, seed: int) -> None:
        val = split(*data, seed=seed)
        for number, of_group in groups_of(data).items():
            if len(of_group) == 1:
                assert number in absent(data[1], val)
                assert number not in absent(data[1], ~val)

    @pytest.mark.parametrize("each", [5, 6, 7, 8, 12])
    def test_rounding_does_not_add_up(self, each: int) -> None:
        groups = [f"{label} {number}" for label in range(40) for number in range(each)]
        val = split(groups, [(int(name.split()[0]),) for name in groups])
        assert abs(val.sum() - 0.2 * len(groups)) <= 1

    def test_classes_that_cannot_be_near_take_nothing_from_the_rest(self) -> None:
        """Two groups of fifty each: one of them validates, and yet a fifth of the class after them."""
        groups = [f"{label} {number % 2}" for label in "abc" for number in range(100)]
        groups += [f"d {number}" for number in range(100)]
        val = split(groups, [("abcd".index(name[0]),) for name in groups])
        assert 19 <= val[300:].sum() <= 21

    def test_sites_that_hold_all_classes(self) -> None:
        rng = np.random.default_rng(0)
        groups = [f"site {number}" for number in rng.integers(0, 25, 500)]
        labels = [(int(number),) for number in rng.integers(0, 4, 500)]
        val = split(groups, labels)
        assert 0.15 <= val.mean() <= 0.25
        assert absent(labels, val) == absent(labels, ~val) == ()

    def test_a_class_whose_groups_others_sent_to_training_gets_one_back(self) -> None:
        """Three rarer classes send their large groups to training, and with them all that hold the last class."""
        groups, labels = [], []
        for label in range(3):
            groups += [f"{label} large"] * 5 + [f"{label} too"] * 5 + [f"{label} small"]
            labels += [(label, 3)] * 4 + [(label,)] * 7
        val = split(groups, labels)
        assert absent(labels, val) == absent(labels, ~val) == ()

    @given(mixed(), SEEDS)
    def test_a_class_is_only_on_one_side_if_no_group_could_move(self, data: Data, seed: int) -> None:
        groups, labels = data
        val = split(groups, labels, seed=seed)
        for number, of_group in groups_of(data).items():
            if len(of_group) == 1 or number not in (*absent(labels, val), *absent(labels, ~val)):
                continue
            for name in of_group:
                moved = val ^ (np.array(groups) == name)
                lost = set(absent(labels, moved)) - set(absent(labels, val))
                lost |= set(absent(labels, ~moved)) - set(absent(labels, ~val))
                assert lost, f"{name} could have moved for the sake of class {number}"

    def test_seeds_give_different_splits(self) -> None:
        groups = [str(number) for number in range(50)]
        labels = [(number % 2,) for number in range(50)]
        found = {split(groups, labels, seed=seed).tobytes() for seed in range(4)}
        assert len(found) == 4

    def test_nothing(self) -> None:
        assert split([], []).tolist() == folds([], []).tolist() == []


class TestFolds:
    @given(ANY, SEEDS, st.integers(2, 6))
    def test_whole_groups_in_as_many_folds_as_there_may_be(self, data: Data, seed: int, most: int) -> None:
        groups, labels = data
        found = folds(groups, labels, most=most, seed=seed)
        assert len({(name, fold) for name, fold in zip(groups, found.tolist(), strict=True)}) == len(set(groups))
        assert set(found.tolist()) <= set(range(min(most, len(set(groups)))))

    @given(single(), SEEDS)
    def test_each_class_is_spread(self, data: Data, seed: int) -> None:
        groups, labels = data
        found = folds(groups, labels, seed=seed)
        count = min(5, len(set(groups)))
        for number, of_group in groups_of(data).items():
            inside = Counter(found[[numbers == (number,) for numbers in labels]].tolist())
            assert len(inside) == min(count, len(of_group))
            assert max(inside.values()) - min((inside[fold] for fold in range(count)), default=0) <= 2 * max(
                of_group.values()
            )

    def test_folds_are_of_one_size(self) -> None:
        groups = [f"{label} {number}" for label in range(9) for number in range(7)]
        found = folds(groups, [(int(name.split()[0]),) for name in groups])
        assert sorted(Counter(found.tolist()).values()) == [12, 12, 13, 13, 13]


class TestShots:
    @given(ANY, SEEDS, st.integers(1, 4), st.randoms(use_true_random=False))
    def test_so_many_of_each_class(self, data: Data, seed: int, count: int, order: random.Random) -> None:
        groups, labels = data
        keys = [f"video {number}" for number in range(len(groups))]
        among = ~split(groups, labels)
        taken = shots(count, keys, groups, labels, among, seed=seed)
        assert not (taken & ~among).any()
        for number in {number for numbers in labels for number in numbers}:
            has = np.array([number in numbers for numbers in labels])
            assert (taken & has).sum() >= min(count, (among & has).sum())
        if all(len(numbers) == 1 for numbers in labels):
            assert all(value <= count for value in Counter(np.array(labels)[taken].ravel().tolist()).values())
        numbers, moved = shuffled(data, order)
        again = shots(count, [keys[number] for number in numbers], *moved, among[numbers], seed=seed)
        np.testing.assert_array_equal(again, taken[numbers])

    def test_are_of_different_groups_first(self) -> None:
        groups = ["a"] * 10 + ["b"] * 2 + ["c"]
        keys = [str(number) for number in range(13)]
        taken = shots(5, keys, groups, [(0,)] * 13, np.ones(13, np.bool_))
        assert Counter(np.array(groups)[taken].tolist()) == {"a": 2, "b": 2, "c": 1}


def is_val(names: Sequence[str], held: set[str]) -> NDArray[np.bool_]:
    return np.array([name in held for name in names])


class TestGiven:
    def test_files_and_groups_on_both_sides(self) -> None:
        paths = ["x/v_Run_g01_c01.avi", "x/v_Run_g01_c02.avi", "x/v_Run_g02_c01.avi", "y/a.mp4", "y/a.mp4", "y/b.mp4"]
        groups = ["g01", "g01", "g02", "a", "a", "a"]
        found = overlap(paths, groups, np.array([False, True, True, False, True, True]))
        assert found.lines() == [
            "1 file in training and validation: y/a.mp4",
            "1 group in training and validation: g01 has v_Run_g01_c01.avi and v_Run_g01_c02.avi",
        ]
        assert overlap(paths, groups, is_val(groups, {"a"})).lines() == []

    def test_classes_that_a_side_lacks(self) -> None:
        labels = [(0,), (1,), (0, 2), (), (3,)]
        val = np.array([True, False, False, True, True])
        assert absent(labels, val) == (1, 2)
        assert absent(labels, ~val) == (3,)


@pytest.mark.parametrize(
    ("names", "sources"),
    [
        ([f"v_C_g{g:02d}_c{c:02d}.avi" for g in range(1, 26) for c in range(1, 5)], 25),
        ([f"IMG_{number:04d}.MOV" for number in range(40)], 40),
        ([f"site{site}/IMG_{number:04d}.MOV" for site in range(8) for number in range(6)], 8),
        ([f"-aB{id}_efghi{id}_{at:06d}_{at + 10:06d}.mp4" for id in range(9) for at in (5, 15, 40)], 9),
        ([f"Film{film}_C_u_cm_np1_fr_med_{number}.avi" for film in "KLMNOPQRST" for number in range(5)], 10),
    ],
    ids=["ucf101", "phone", "sites", "kinetics", "hmdb51"],
)
def test_data_as_people_have_it(names: list[str], sources: int) -> None:
    """By names alone, a fifth of each class validates, from sources of its own."""
    classes = ["C", "D"]
    paths = [f"{label}/{name}".replace("_C_", f"_{label}_") for label in classes for name in names]
    labels = [(number,) for number in range(2) for _ in names]
    found = group(paths, labels, classes=classes)
    assert len({name for name, numbers in zip(found.groups, labels, strict=True) if numbers == (0,)}) == sources
    val = split(found.groups, labels)
    assert overlap(paths, found.groups, val).lines() == []
    assert 0.1 <= val.mean() <= 0.3
    assert absent(labels, val) == absent(labels, ~val) == ()
