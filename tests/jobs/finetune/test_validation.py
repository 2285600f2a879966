"""Cross-validation of a probe, its learning curve, and what a person should look at."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from timesformer_cli.evaluation import metrics
from timesformer_cli.jobs.finetune import learning_curve as curves
from timesformer_cli.jobs.finetune.checks import chance, chance_multi_label, labels_to_look_at
from timesformer_cli.jobs.finetune.head import EXACT
from timesformer_cli.jobs.finetune.learning_curve import LearningCurve, Point, learning_curve
from timesformer_cli.jobs.finetune.validation import Choice, Examples, choose

WIDTH = 12
FOLDS = 3


def make(
    videos: int = 60, classes: int = 3, *, signal: float = 1.0, several: bool = False, views: bool = True, seed: int = 0
) -> Examples:
    rng = np.random.default_rng(seed)
    labels = np.arange(videos) % classes
    members = rng.random((videos, classes)) < 0.4
    owner = np.repeat(np.arange(videos), rng.integers(1, 4, videos) if views else 1)
    means = rng.standard_normal((classes, WIDTH)) * signal
    of_video = rng.standard_normal((videos, WIDTH)) + (members @ means if several else means[labels])
    features = of_video[owner] + 0.3 * rng.standard_normal((len(owner), WIDTH))
    return Examples(
        features=features.astype(np.float32), owner=owner, targets=members if several else labels, classes=classes
    )


def folds_of(examples: Examples) -> NDArray[np.int64]:
    return np.arange(len(examples)) // 4 % FOLDS


def groups_of(examples: Examples) -> NDArray[np.int64]:
    """Pairs of videos, in a fold together."""
    return np.arange(len(examples)) // 2


class TestExamples:
    def test_means_of_views(self) -> None:
        examples = make(3000)
        wanted = [examples.features[examples.owner == video].mean(axis=0) for video in range(3000)]
        np.testing.assert_allclose(examples.means, wanted, atol=1e-6)

    def test_a_video_without_views(self) -> None:
        examples = make(6)
        kept = examples.owner != 2
        less = replace(examples, features=examples.features[kept], owner=examples.owner[kept])
        assert np.isnan(less.means[2]).all()
        np.testing.assert_array_equal(less.means[3:], examples.means[3:])

    def test_one_view_each_is_no_copy(self) -> None:
        examples = make(views=False)
        assert examples.means is examples.features


class TestChoose:
    @pytest.mark.parametrize("several", [False, True])
    def test_numbers_are_those_of_videos_that_were_held_out(self, several: bool) -> None:
        examples = make(several=several)
        folds = folds_of(examples)
        found = choose(examples, folds)
        for fold in range(FOLDS):
            held = folds == fold
            head = examples.fit(found.c, ~held, tolerance=EXACT)
            np.testing.assert_allclose(found.logits[held], head.logits(examples.means[held]), atol=0.02)
        (tried,) = [tried for tried in found.table if tried.c == found.c]
        kind: Any = "sigmoid" if several else "softmax"
        logs = metrics.log_probabilities(found.logits, "logits", kind)
        if several:
            other = metrics.log_probabilities(-found.logits, "logits", kind)
            assert tried.log_loss == pytest.approx(-np.where(examples.targets, logs, other).mean())
            assert tried.score == pytest.approx(metrics.average_precision(found.logits, examples.members).mean())
        else:
            assert tried.log_loss == pytest.approx(-logs[np.arange(60), examples.targets].mean())
            assert tried.score == (found.logits.argmax(axis=1) == examples.targets).mean()
        assert tried.log_loss == min(tried.log_loss for tried in found.table)
        assert [tried.c for tried in found.table] == [1e-3, 1e-2, 1e-1, 1]

    def test_what_is_held_out_says_nothing_to_its_own_head(self) -> None:
        examples = make()
        folds = folds_of(examples)
        wanted = choose(examples, folds, candidates=[0.1])
        changed = examples.features.copy()
        changed[(folds == 0)[examples.owner]] *= 100  # their means and deviations would be, too
        other = choose(replace(examples, features=changed), folds, candidates=[0.1])
        np.testing.assert_array_equal(other.heads[0].weight, wanted.heads[0].weight)
        assert np.abs(other.heads[1].weight - wanted.heads[1].weight).max() > 1e-3

    def test_videos_that_no_fold_holds_out(self) -> None:
        examples = make()
        folds = np.where(np.arange(60) < 40, -1, 0)
        found = choose(examples, folds)
        assert np.isnan(found.logits[:40]).all()
        assert (found.held_out == (folds >= 0)).all()
        assert len(found.heads) == 1
        (tried,) = [tried for tried in found.table if tried.c == found.c]
        assert tried.score == (found.logits[40:].argmax(axis=1) == examples.targets[40:]).mean()

    def test_a_class_that_other_folds_lack(self) -> None:
        examples = make()
        folds = folds_of(examples)
        folds[examples.targets == 2] = 0
        found = choose(examples, folds)
        assert found.unseen == 20
        assert np.isfinite(found.logits).all()
        seen = examples.targets != 2
        logs = metrics.log_probabilities(found.logits, "logits")[np.arange(60), examples.targets]
        (tried,) = [tried for tried in found.table if tried.c == found.c]
        assert tried.log_loss == pytest.approx(-logs[seen].mean())
        assert tried.score == ((found.logits.argmax(axis=1) == examples.targets) & seen).mean()
        assert found.notes[-1].startswith("20 held-out videos are of a class that the heads of their folds never saw")

    def test_twice_and_from_a_start(self) -> None:
        examples = make()
        one, other = (choose(examples, folds_of(examples)) for _ in range(2))
        np.testing.assert_array_equal(one.logits, other.logits)
        assert one.table == other.table
        begun = choose(examples, folds_of(examples), start=examples.fit(1))
        assert begun.c == one.c
        np.testing.assert_allclose(begun.logits, one.logits, atol=0.02)

    def test_balanced_losses(self) -> None:
        examples = replace(make(), targets=np.repeat([0, 1, 2], [6, 24, 30]), balance=True)
        folds = np.arange(60) % FOLDS
        found = choose(examples, folds, candidates=[0.1])
        logs = metrics.log_probabilities(found.logits, "logits")[np.arange(60), examples.targets]
        assert found.table[0].log_loss == pytest.approx(
            -np.mean([logs[examples.targets == label].mean() for label in range(3)])
        )

    def test_a_best_at_the_end_is_told(self) -> None:
        found = choose(make(), folds_of(make()))
        assert (found.c, found.at_end, found.tied) == (1, "highest", ())
        assert found.notes == ("C = 1 is the highest value that was tried; the best may lie beyond it.",)
        assert choose(make(), folds_of(make()), candidates=[0.1]).at_end is None

    def test_a_tie_is_told(self) -> None:
        found = choose(make(signal=0, views=False), folds_of(make()))
        assert (found.c, found.at_end, found.tied) == (0.01, None, (0.001,))
        assert found.notes == ("The log-loss does not tell C = 0.01 from 0.001.",)

    @pytest.mark.parametrize("folds", [np.full(60, -1), np.zeros(59, np.int64)])
    def test_folds_that_do_not_match(self, folds: NDArray[np.int64]) -> None:
        with pytest.raises(ValueError, match=r"^folds of shape"):
            choose(make(), folds)


def curve_of(examples: Examples, **options: Any) -> LearningCurve:
    folds = folds_of(examples)
    found = learning_curve(examples, folds, groups_of(examples), choose(examples, folds, candidates=[0.1]), **options)
    assert found is not None
    return found


class TestLearningCurve:
    @pytest.mark.parametrize("several", [False, True])
    def test_points(self, several: bool) -> None:
        examples = make(144, several=several)
        found = curve_of(examples)
        assert [point.share for point in found.points] == [0.125, 0.25, 0.5, 1]
        assert [point.draws for point in found.points] == [3, 3, 3, 1]
        last = found.points[-1]
        choice = choose(examples, folds_of(examples), candidates=[0.1])
        assert last.score == last.low == last.high == choice.table[0].score
        assert last.videos == 96
        for point in found.points[:-1]:
            assert point.low <= point.score <= point.high
            assert point.videos == pytest.approx(96 * point.share, rel=0.9 if several else 0.5)
        assert found.measure == ("mean average precision" if several else "accuracy")
        if not several:
            assert last.videos_per_class == 32

    def test_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(curves, "_plan", lambda *_: ([0, 1], 2, (0.25,)))
        assert curve_of(make()) == curve_of(make())
        assert curve_of(make(), seed=1).points[0] != curve_of(make()).points[0]

    def test_draws_are_of_whole_groups_and_nested(self) -> None:
        examples = make(96)
        groups, among = groups_of(examples), np.arange(96) % 8 < 4

        def drawn(share: float) -> NDArray[np.bool_]:
            return curves._draw(examples, groups, among, share, np.random.default_rng(0))

        before = drawn(0.125)
        for share in (0.25, 0.5, 1):
            found = drawn(share)
            assert not (before & ~found).any()
            assert not (found & ~among).any()
            assert (found == found.reshape(-1, 2).all(axis=1).repeat(2)).all()
            counts = np.bincount(examples.targets[found], minlength=3)
            assert (counts >= share * 16).all()
            before = found
        assert (before == among).all()

    def test_with_much_data_less_is_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        examples = make(144)
        plans = []
        for budget in (1e9, 6e6, 3e6, 2e6, 1e6, 6e5, 0):
            monkeypatch.setattr(curves, "_BUDGET", budget)
            plans.append(curves._plan(examples, folds_of(examples)))
        work = [len(places) * draws * sum(shares) for places, draws, shares in plans]
        assert work == sorted(work, reverse=True)
        assert plans[0] == ([0, 1, 2], 3, (0.125, 0.25, 0.5))
        assert (work[-1], len({str(plan) for plan in plans})) == (0, 7)
        assert learning_curve(examples, folds_of(examples), groups_of(examples), choice_of(examples)) is None

    def test_of_some_folds_all_points_are_of_the_same_videos(self, monkeypatch: pytest.MonkeyPatch) -> None:
        examples = make(144)
        monkeypatch.setattr(curves, "_plan", lambda *_: ([0], 1, (0.5,)))
        choice = choice_of(examples)
        found = learning_curve(examples, folds_of(examples), groups_of(examples), choice)
        assert found is not None
        assert found.points[-1].score == examples.score(choice.logits, folds_of(examples) == 0)

    def test_shares_that_are_one_video_are_one_point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(curves, "_plan", lambda *_: ([0, 1, 2], 1, (0.125, 0.25, 0.5)))
        examples = make(9, 3)
        choice = choose(examples, np.arange(9) // 3, candidates=[0.1])
        found = learning_curve(examples, np.arange(9) // 3, np.arange(9), choice)
        assert found is not None
        assert [point.videos_per_class for point in found.points] == [1, 2]
        pairs = make(6, 3)
        monkeypatch.setattr(curves, "_plan", lambda *_: ([0, 1], 1, (0.25, 0.5)))
        choice = choose(pairs, np.arange(6) // 3, candidates=[0.1])
        assert learning_curve(pairs, np.arange(6) // 3, np.arange(6), choice) is None

    @pytest.mark.parametrize(
        ("videos", "classes", "signal", "verdict"),
        [(300, 6, 0.5, "more would help"), (300, 3, 3, "more would help little"), (24, 3, 0.5, "unclear")],
    )
    def test_verdicts(
        self, videos: int, classes: int, signal: float, verdict: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(curves, "_plan", lambda *_: ([0, 1, 2], 2, (0.5,)))
        assert curve_of(make(videos, classes, signal=signal, views=False, seed=1)).verdict == verdict

    @pytest.mark.parametrize(
        ("scores", "noise", "sentence"),
        [
            (
                (0.7, 0.76),
                0.02,
                "More videos would help: from 18 to 36 videos per class, accuracy changed by +6.0 points with a "
                "standard error of 2.0. Twice as many may add about 4.8 points.",
            ),
            (
                (0.75, 0.76),
                0.02,
                "It is unclear whether more videos would help: from 18 to 36 videos per class, accuracy changed by "
                "+1.0 points with a standard error of 2.0.",
            ),
            (
                (0.76, 0.755),
                0.01,
                "More videos of this kind would help little: from 18 to 36 videos per class, accuracy changed by -0.5 "
                "points with a standard error of 1.0.",
            ),
            (
                (0.7, 0.9),
                None,
                "It is unclear whether more videos would help: from 18 to 36 videos per class, accuracy changed by "
                "+20.0 points.",
            ),
            (
                (0.95, 1.0),
                0.01,
                "More videos of this kind would help little: from 18 to 36 videos per class, accuracy changed by +5.0 "
                "points with a standard error of 1.0.",
            ),
        ],
    )
    def test_sentences(self, scores: tuple[float, float], noise: float | None, sentence: str) -> None:
        points = tuple(
            Point(share, 180 * share, 36 * share, score, score, score, 1)
            for share, score in zip((0.5, 1), scores, strict=True)
        )
        assert curves._judge(False, points, noise).sentence == sentence

    def test_the_noise_is_about_that_of_other_samples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(curves, "_plan", lambda *_: ([0, 1, 2], 1, (0.5,)))
        found = [curve_of(make(120, signal=0.4, views=False, seed=seed)) for seed in range(10)]
        noise = np.mean([curve.noise or 0 for curve in found])
        assert 0.6 < noise / np.std([curve.gain for curve in found]) < 2


def choice_of(examples: Examples) -> Choice:
    return choose(examples, folds_of(examples), candidates=[0.1])


class TestLabelsToLookAt:
    def test_wrong_labels_come_first(self) -> None:
        examples = make(120, signal=2)
        targets = examples.targets.copy()
        targets[[5, 50, 77]] = (targets[[5, 50, 77]] + 1) % 3
        logits = choice_of(replace(examples, targets=targets)).logits
        found = labels_to_look_at(logits, targets)
        assert {suspect.video for suspect in found[:3]} == {5, 50, 77}
        own = [suspect.own for suspect in found]
        assert own == sorted(own)
        chances = np.exp(metrics.log_probabilities(logits, "logits"))
        for suspect in found:
            assert suspect.label == targets[suspect.video]
            assert suspect.own == pytest.approx(chances[suspect.video, suspect.label])
            assert suspect.likelier == chances[suspect.video].argmax() != suspect.label
            assert suspect.score == chances[suspect.video].max()
        assert labels_to_look_at(logits, targets, most=2) == found[:2]

    def test_of_several_labels_it_is_the_least_likely(self) -> None:
        logits = np.array([[4, -3, 2], [4, 3, -2], [-5, 1, 0], [0, 0, 0], [1, 2, 3]], np.float32)
        targets = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], np.bool_)
        found = labels_to_look_at(logits, targets)
        assert [(suspect.video, suspect.label, suspect.likelier) for suspect in found] == [(2, 0, 1), (0, 1, 2)]
        assert (found[0].own, found[0].score) == pytest.approx((1 / (1 + np.exp(5)), 1 / (1 + np.exp(-1))))

    def test_videos_without_scores_are_left_out(self) -> None:
        logits = np.array([[np.nan, np.nan], [0, 1]], np.float32)
        assert [suspect.video for suspect in labels_to_look_at(logits, np.array([0, 0]))] == [1]
        assert labels_to_look_at(logits[:1], np.array([0])) == ()


class TestChance:
    def measure(self, right: int, targets: NDArray[np.int64], classes: int = 5) -> metrics.Metrics:
        scores = np.zeros((len(targets), classes), np.float32)
        answers = np.where(np.arange(len(targets)) < right, targets, (targets + 1) % classes)
        scores[np.arange(len(targets)), answers] = 1
        return metrics.measure(scores, targets, ks=(1,))

    def test_of_equal_classes(self) -> None:
        targets = np.arange(100) % 5
        assert chance(self.measure(27, targets), targets) == (
            "a model at chance: accuracy 27.0 % (19.3 to 36.4 %), and always giving the most frequent class reaches "
            "20.0 %; look at the labels, add videos, or start from a different model"
        )
        assert chance(self.measure(20, targets), targets) is not None
        assert chance(self.measure(2, targets), targets) is not None
        assert chance(self.measure(40, targets), targets) is None

    def test_one_frequent_class(self) -> None:
        targets = np.where(np.arange(100) < 80, 0, np.arange(100) % 5)
        found = self.measure(80, targets)
        assert "always giving the most frequent class reaches 84.0 %" in str(chance(found, targets))
        assert "any guess reaches 20.0 %" in str(chance(self.measure(0, targets), targets, balance=True))
        assert chance(self.measure(99, targets), targets, balance=True) is None

    def test_of_several_labels(self) -> None:
        examples = make(90, several=True)
        logits = choice_of(examples).logits
        assert chance_multi_label(logits, examples.members) is None
        shuffled = np.random.default_rng(3).permutation(examples.members)
        assert str(chance_multi_label(logits, shuffled)).startswith("a model at chance: mean average precision ")
        assert chance_multi_label(logits, np.zeros_like(examples.members)) is None
