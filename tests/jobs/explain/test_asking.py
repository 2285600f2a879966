"""Altered clips, frames, maps and their check, with models whose answers are known by arithmetic."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError
from timesformer_cli.jobs.explain import alterations, check, frames, maps
from timesformer_cli.jobs.explain.alterations import altered, filled, groups, only, shuffled, without
from timesformer_cli.jobs.explain.asking import Model
from timesformer_cli.jobs.explain.records import LEAST_GAP, Check, Importance, Options, Question
from timesformer_cli.runtimes.batching import BatchSize

PATCH = (2, 2)
RATHER = Question(0, 1)  # its score is the sigmoid of the first logit, as the second is 0


def clip_of(frames: int = 4, size: tuple[int, int] = (6, 8), seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((frames, 1, *size)).astype(np.float32)


def model_of(value: Any, size: int = 3) -> Model:
    """A model whose first logit is `value` of a clip, and whose second is 0."""

    def score(clips: NDArray[np.float32]) -> NDArray[np.float32]:
        assert len(clips) <= size
        return np.array([[value(clip), 0] for clip in clips], np.float32)

    return Model(score, BatchSize(size), PATCH)


def patches_of(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    return clip[:, 0].reshape(len(clip), 3, 2, 4, 2).mean((2, 4))


class TestAlterations:
    def test_gray_and_still_are_means_and_blur_keeps_the_mean(self) -> None:
        clip = clip_of()
        assert filled(clip, "gray") == pytest.approx(clip.mean())
        assert filled(clip, "still")[1] == pytest.approx(clip.mean(0))
        flat = np.full_like(clip, 3)
        assert filled(flat, "blur") == pytest.approx(flat)
        one = np.zeros((1, 1, 48, 48), np.float32)
        one[0, 0, 24, 24] = 1
        spread = filled(one, "blur")
        assert spread.sum() == pytest.approx(1, rel=1e-4)
        assert np.unravel_index(spread.argmax(), spread.shape) == (0, 0, 24, 24)
        assert spread.max() < 0.05

    def test_bytes_stay_bytes(self) -> None:
        clip = np.array([[[[0, 255]]], [[[1, 255]]]], np.uint8)
        assert filled(clip, "still").tolist() == [[[[0, 255]]]] * 2
        assert filled(clip, "gray").dtype == np.uint8
        assert altered(clip, "still").dtype == np.uint8

    def test_only_the_patches_that_are_gone_change(self) -> None:
        clip, fill = np.zeros((2, 3, 5, 7), np.float32), np.ones((2, 3, 5, 7), np.float32)
        gone = np.zeros((2, 2, 3), np.bool_)
        gone[1, 1, 2] = True
        changed = np.argwhere(without(clip, fill, gone, PATCH)[:, 0])
        assert changed.tolist() == [[1, 2, 4], [1, 2, 5], [1, 3, 4], [1, 3, 5]]

    def test_times_are_altered(self) -> None:
        clip = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
        assert altered(clip, "reversed").ravel().tolist() == [4, 3, 2, 1, 0]
        assert altered(clip, "single_frame").ravel().tolist() == [2] * 5
        assert altered(clip, "still").ravel().tolist() == [2] * 5
        assert sorted(altered(clip, "shuffled").ravel().tolist()) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("count", [4, 5, 8, 16, 96])
    def test_shuffled_frames_run_neither_way(self, count: int) -> None:
        order = shuffled(count)
        assert sorted(order) == list(range(count))
        assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.5
        assert order.tolist() == shuffled(count).tolist()

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_frames_have_few_orders(self, count: int) -> None:
        assert sorted(shuffled(count)) == list(range(count))

    @pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 3), (8, 8), (9, 8), (16, 8), (96, 8)])
    def test_groups_are_of_neighbours_and_nearly_equal(self, count: int, expected: int) -> None:
        sizes = np.bincount(groups(count))
        assert len(sizes) == expected
        assert np.ptp(sizes) <= 1
        assert (np.diff(groups(count)) >= 0).all()

    def test_frames_that_are_left_out_show_their_neighbours(self) -> None:
        clip = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1)
        kept = [False, True, False, False, False, True]
        assert only(clip, kept).ravel().tolist() == [1, 1, 1, 1, 5, 5]
        assert only(clip, [False] * 6).ravel().tolist() == [2.5] * 6

    def test_a_box_of_a_pixel_blurs_small_frames(self) -> None:
        assert filled(clip_of(2, (1, 1)), "blur").shape == (2, 1, 1, 1)
        assert alterations.filled(clip_of(2, (3, 3)), "blur").shape == (2, 1, 3, 3)


class TestModel:
    def test_clips_go_in_batches_and_are_counted(self) -> None:
        model = model_of(lambda clip: clip.sum())
        clips = [clip_of(seed=seed) for seed in range(7)]
        assert model.logits(iter(clips))[:, 0] == pytest.approx([clip.sum() for clip in clips], rel=1e-5)
        assert model.forwards == 7
        assert model.grid(clips[0]) == (4, 3, 4)

    def test_scores_that_are_no_numbers_are_refused(self) -> None:
        with pytest.raises(CheckpointError, match="not numbers"):
            model_of(lambda clip: float("nan")).logits([clip_of()])


class TestFrames:
    def test_the_group_that_matters_is_found(self) -> None:
        clip = np.zeros((16, 1, 2, 2), np.float32)
        clip[6:8] = 5
        found = frames.leave_out(model_of(lambda clip: clip.sum() - 20), RATHER, clip, 1.0)
        assert found.values.argmax() in (6, 7)
        assert found.values[6] == found.values[7] > 0.9
        assert not found.alike

    def test_frames_that_are_the_same_are_alike(self) -> None:
        clip = np.ones((8, 1, 2, 2), np.float32)
        assert frames.leave_out(model_of(lambda clip: clip.sum()), RATHER, clip, 1.0).alike

    def test_a_single_frame_cannot_be_left_out(self) -> None:
        model = model_of(lambda clip: clip.sum())
        assert frames.leave_out(model, RATHER, clip_of(1), 0.7).values.tolist() == [0]
        assert model.forwards == 0

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_shapley_values_are_means_over_all_orders(self, count: int) -> None:
        clip = clip_of(count, seed=3)
        model = model_of(lambda clip: float(clip[:, 0, 0, 0] @ clip[::-1, 0, 1, 1]) + float(clip.max()))
        found = frames.shapley(model, RATHER, clip).values
        assert model.forwards == 2**count
        expected = np.zeros(count)
        orders = list(permutations(range(count)))
        for order in orders:
            kept = [False] * count
            before = RATHER.scores(model.logits([only(clip, kept)]))[0]
            for frame in order:
                kept[frame] = True
                after = RATHER.scores(model.logits([only(clip, kept)]))[0]
                expected[frame] += (after - before) / len(orders)
                before = after
        assert found == pytest.approx(expected, abs=1e-6)

    def test_sampled_shapley_values_add_up_at_a_bounded_price(self) -> None:
        clip = clip_of(12)
        model = model_of(lambda clip: clip[:, 0, 0, 0].sum())
        found = frames.shapley(model, RATHER, clip)
        assert model.forwards <= 64
        scores = RATHER.scores(model.logits([clip, filled(clip, "still")]))
        assert found.values.sum() == pytest.approx(scores[0] - scores[1])

    def test_alike_is_a_matter_of_what_stands_out(self) -> None:
        group = np.arange(4)
        assert Importance(np.array([0.5, 0.55, 0.5, 0.52]), group, "shapley").alike
        assert not Importance(np.array([0.1, 0.1, 0.3, 0.1]), group, "shapley").alike
        against = Importance(np.array([0.1, -0.2, 0.12, 0.1]), group, "leave_out")
        assert (against.alike, against.outlier) == (False, 1)


WEIGHTS = np.random.default_rng(5).standard_normal((4, 3, 4)).astype(np.float32)


def weighed(clip: NDArray[np.float32]) -> float:
    return float((patches_of(clip) * WEIGHTS).sum())


class TestMaps:
    @pytest.mark.parametrize("method", ["occlusion", "ridge"])
    def test_a_linear_model_is_found(self, method: Any) -> None:
        clip = clip_of()
        found = maps.outside(model_of(weighed), method, Question(0), clip, "gray")
        exact = (patches_of(clip) - clip.mean()) * WEIGHTS
        assert check.rank_correlation(found.values, exact) > (0.999 if method == "occlusion" else 0.95)
        if method == "occlusion":
            assert found.values == pytest.approx(exact, abs=1e-4)
        assert found.fill == "gray"

    @pytest.mark.parametrize("shape", [(8, 6, 6), (8, 14, 14), (16, 28, 28), (96, 14, 14), (1, 1, 1), (3, 5, 7)])
    def test_cells_are_blocks_and_few(self, shape: tuple[int, int, int]) -> None:
        cells = maps.cells_of(shape)
        assert cells.shape == shape
        counts = np.bincount(cells.ravel())
        assert 0 < len(counts) <= 300
        assert counts.min() > 0
        if np.prod(shape) <= 300:
            assert len(counts) == np.prod(shape)
        for number in range(0, len(counts), 17):
            places = np.argwhere(cells == number)
            assert len(places) == np.prod(np.ptp(places, axis=0) + 1)

    def test_shapley_is_one_value_for_each_frame(self) -> None:
        clip = clip_of()
        model = model_of(weighed)
        found = maps.map_of(model, None, RATHER, clip, Options(method="shapley"))
        assert found.values.shape == (4, 3, 4)
        assert (np.ptp(found.values.reshape(4, -1), axis=1) == 0).all()
        assert found.values.sum((1, 2)) == pytest.approx(frames.shapley(model, RATHER, clip).values, abs=1e-6)


class TestCheck:
    def test_the_true_map_is_better_and_its_opposite_worse(self) -> None:
        clip, model = clip_of(), model_of(weighed)
        score = float(RATHER.scores(model.logits([clip]))[0])
        exact = (patches_of(clip) - clip.mean()) * WEIGHTS
        model.forwards = 0
        good = check.check_map(model, RATHER, clip, score, exact, ["gray", "still"])
        assert model.forwards == 26
        bad = check.check_map(model, RATHER, clip, score, -exact, ["gray"])
        assert good.gap["gray"] > 0.3
        assert bad.gap["gray"] == pytest.approx(-good.gap["gray"], abs=1e-6)
        assert good.passed
        assert not bad.passed
        assert len(good.deletion["still"]) == 8
        assert good.deletion["gray"][0] == good.reverse["gray"][0] == score
        assert good.deletion["gray"][-1] == good.reverse["gray"][-1]

    def test_everything_at_once(self) -> None:
        clip, model = clip_of(), model_of(weighed)
        exact = (patches_of(clip) - clip.mean()) * WEIGHTS
        found = check.check_map(model, RATHER, clip, 0.5, exact, ["gray"], untrained=-exact, more=True)
        assert len(found.random["gray"]) == 5
        assert abs(np.mean(found.random["gray"])) < found.gap["gray"]
        low, high = (np.array(end) for end in found.band["gray"])
        assert low[0] == high[0] == 0.5
        assert low[-1] == high[-1] == found.deletion["gray"][-1]
        assert (low[1:-1] < high[1:-1]).all()
        assert (low[3:5] > found.deletion["gray"][3:5]).all()
        assert (high[3:5] < found.reverse["gray"][3:5]).all()
        assert found.untrained == pytest.approx(1)
        assert set(found.to_dict()) >= {"random", "random_band", "centre", "untrained_correlation"}

    def test_the_verdict_needs_a_gap_above_those_of_random_orders(self) -> None:
        curve = {"gray": (1.0, 0.0), "still": (1.0, 0.0)}
        assert Check(curve, curve, {"gray": 0.0, "still": LEAST_GAP}).passed  # type: ignore[arg-type]
        assert not Check(curve, curve, {"gray": LEAST_GAP - 0.01, "still": 0.0}).passed  # type: ignore[arg-type]
        random = {"gray": (0.0, 0.3), "still": (0.0,)}
        assert not Check(curve, curve, {"gray": 0.2, "still": 0.0}, random).passed  # type: ignore[arg-type]
        assert Check(curve, curve, {"gray": 0.31, "still": 0.0}, random).passed  # type: ignore[arg-type]

    def test_a_flat_map_is_in_order_and_correlates_with_nothing(self) -> None:
        flat = np.zeros((2, 2, 2), np.float32)
        assert check.ranked(flat).ravel().tolist() == list(range(7, -1, -1))
        assert check.rank_correlation(flat, np.arange(8, dtype=np.float32).reshape(2, 2, 2)) == 0


@pytest.mark.parametrize(
    ("question", "direction", "margin", "score"),
    [
        (Question(1), [0, 1, 0], 2.0, np.exp(2) / (1 + np.exp(2) + np.exp(-1))),
        (Question(1, 2), [0, 1, -1], 3.0, 1 / (1 + np.exp(-3))),
        (Question(2, activation="sigmoid"), [0, 0, 1], -1.0, 1 / (1 + np.exp(1))),
    ],
)
def test_a_question_weighs_logits(question: Question, direction: list[int], margin: float, score: float) -> None:
    logits = np.array([[0, 2, -1]], np.float32)
    assert question.direction(3).tolist() == direction
    assert question.margins(logits) == pytest.approx([margin])
    assert question.scores(logits) == pytest.approx([score])
