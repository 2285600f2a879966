"""The head of a probe is scikit-learn's optimum, whatever the data looks like."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from timesformer_cli.errors import InputError
from timesformer_cli.jobs.finetune import head as heads
from timesformer_cli.jobs.finetune.head import ROUGH, Head, Targets, fit

Floats = NDArray[np.float32]
WIDTH = 40


class Data:
    """Features of videos with up to three views, correlated and on different scales, and labels for them."""

    def __init__(self, videos: int = 90, classes: int = 4, *, seed: int = 0, views: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.classes = classes
        self.labels = np.concatenate([np.arange(classes), rng.integers(0, classes, videos - classes)])
        self.members = rng.random((videos, classes)) < 0.3
        self.owner = np.repeat(np.arange(videos), rng.integers(1, 4, videos) if views else 1)
        mixing = rng.standard_normal((WIDTH, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.7
        signal = rng.standard_normal((classes, WIDTH)) * 0.5
        of_video = rng.standard_normal((videos, WIDTH)) + signal[self.labels] + self.members @ signal
        noise = 0.3 * rng.standard_normal((len(self.owner), WIDTH))
        self.features = ((of_video[self.owner] + noise) @ mixing + 3 * rng.standard_normal(WIDTH)).astype(np.float32)

    @property
    def weights(self) -> NDArray[np.float64]:
        return 1 / np.bincount(self.owner)[self.owner]

    def fit(self, targets: Targets | None = None, c: float = 0.1, **options: Any) -> Head:
        found = self.labels if targets is None else targets
        return fit(self.features, self.owner, found, classes=self.classes, c=c, **options)


def reference(
    data: Data, targets: NDArray[Any], c: float, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The logits (R, K) of scikit-learn's optimum or, for two classes, the differences of logits (R,)."""
    scaler = StandardScaler().fit(data.features.astype(np.float64), sample_weight=data.weights)
    features = scaler.transform(data.features.astype(np.float64))
    model = LogisticRegression(C=c, tol=1e-9, max_iter=10_000, solver="newton-cg")
    model.fit(features, targets[data.owner], sample_weight=data.weights if weights is None else weights)
    logits: NDArray[np.float64] = model.decision_function(features)
    return logits


def centred(logits: NDArray[Any]) -> NDArray[Any]:
    """A softmax does not see what all logits of a row share."""
    return logits - logits.mean(axis=1, keepdims=True)


def distance(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


class TestScikitLearn:
    @pytest.mark.parametrize("c", [0.01, 0.1, 1])
    @pytest.mark.parametrize("videos", [16, 200], ids=["fewer views than features", "more"])
    def test_one_label(self, c: float, videos: int) -> None:
        data = Data(videos)
        logits = data.fit(c=c).logits(data.features)
        assert distance(centred(logits), centred(reference(data, data.labels, c))) < 2e-5

    @pytest.mark.parametrize("c", [0.01, 0.1, 1])
    def test_several_labels(self, c: float) -> None:
        data = Data()
        logits = data.fit(data.members, c).logits(data.features)
        wanted = np.stack([reference(data, member, c) for member in data.members.T], axis=1)
        assert distance(logits, wanted) < 2e-5

    @pytest.mark.parametrize("c", [0.01, 1])
    def test_two_classes_are_the_binary_form_with_twice_c(self, c: float) -> None:
        data = Data(classes=2)
        logits = data.fit(c=c).logits(data.features)
        assert distance(logits[:, 1] - logits[:, 0], reference(data, data.labels, 2 * c)) < 2e-5

    def test_balanced_classes(self) -> None:
        data = Data()
        data.labels[10:60] = 2
        counts = np.bincount(data.labels)
        weights = data.weights * (90 / (4 * counts))[data.labels[data.owner]]
        logits = data.fit(balance=True).logits(data.features)
        assert distance(centred(logits), centred(reference(data, data.labels, 0.1, weights))) < 2e-5

    def test_balanced_sides_of_several_labels(self) -> None:
        data = Data()
        logits = data.fit(data.members, balance=True).logits(data.features)
        for member, found in zip(data.members.T, logits.T, strict=True):
            weights = data.weights * np.where(member, 45 / member.sum(), 45 / (~member).sum())[data.owner]
            assert distance(found, reference(data, member, 0.1, weights)) < 2e-5

    def test_data_that_can_be_separated(self) -> None:
        data = Data(24)
        data.features[:, 0] += 50 * data.labels[data.owner]
        logits = data.fit(c=1).logits(data.features)
        assert (logits.argmax(axis=1) == data.labels[data.owner]).all()
        assert distance(centred(logits), centred(reference(data, data.labels, 1))) < 2e-5


class TestFolding:
    def test_features_with_large_means_lose_no_precision(self) -> None:
        data = Data()
        moved = Data()
        data.features = np.round(data.features * 256) / 256  # sums below are exact
        moved.features = data.features + np.float32(512)
        found, wanted = (centred(each.fit().logits(each.features)) for each in (moved, data))
        assert distance(found, wanted) < 1e-5

    def test_the_mean_of_the_views_gives_the_mean_logits(self) -> None:
        data = Data()
        head = data.fit()
        views = np.bincount(data.owner)[:, None]
        means = np.stack([np.bincount(data.owner, column) for column in data.features.T], axis=1) / views
        of_views = head.logits(data.features)
        wanted = np.stack([np.bincount(data.owner, column) for column in of_views.T], axis=1) / views
        np.testing.assert_allclose(head.logits(means), wanted, atol=1e-5)

    def test_features_that_are_constant_stay_out(self) -> None:
        data = Data()
        wanted = data.fit()
        data.features = np.insert(data.features, 3, 7.1, axis=1)
        data.features[::2, 3] = np.nextafter(np.float32(7.1), np.float32(8))  # what rounding leaves is no deviation
        found = data.fit()
        assert np.abs(found.weight[:, 3]).max() < 1e-6
        np.testing.assert_allclose(np.delete(found.weight, 3, axis=1), wanted.weight, atol=1e-5)


class TestSameAnswer:
    def test_twice(self) -> None:
        one, other = (Data().fit() for _ in range(2))
        assert (one.weight.tobytes(), one.bias.tobytes()) == (other.weight.tobytes(), other.bias.tobytes())

    def test_in_any_order_of_the_videos(self) -> None:
        data = Data(views=False)
        order = np.random.default_rng(1).permutation(90)
        wanted = data.fit().logits(data.features)[order]
        data.features, data.labels = data.features[order], data.labels[order]
        assert distance(data.fit().logits(data.features), wanted) < 2e-5

    @pytest.mark.parametrize("several", [False, True])
    def test_from_any_start(self, several: bool) -> None:
        data = Data()
        targets = data.members if several else data.labels
        rng = np.random.default_rng(1)
        start = Head(rng.standard_normal((4, WIDTH)).astype("f4"), np.array([9, 0, 3, 5], "f4"))
        found = data.fit(targets, start=start).logits(data.features)
        assert distance(found, data.fit(targets).logits(data.features)) < 2e-5

    def test_a_start_near_the_optimum_saves_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, calls = Data(), []
        evaluate = heads._evaluate
        monkeypatch.setattr(heads, "_evaluate", lambda *args: calls.append(1) or evaluate(*args))
        cold = data.fit(), len(calls)
        calls.clear()
        data.fit(start=cold[0])
        assert len(calls) < cold[1]

    @pytest.mark.parametrize("several", [False, True])
    def test_in_blocks(self, several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """As with more features than memory should hold."""
        data = Data(150)
        targets = data.members if several else data.labels
        wanted = data.fit(targets).logits(data.features)
        monkeypatch.setattr(heads, "_KEPT", 0)
        monkeypatch.setattr(heads, "_BLOCK", 8 * WIDTH * 17)
        assert distance(data.fit(targets).logits(data.features), wanted) < 1e-5

    def test_roughly_is_near(self) -> None:
        data = Data()
        found = data.fit(c=1, tolerance=ROUGH).logits(data.features)
        assert distance(found, data.fit(c=1).logits(data.features)) < 1e-2

    def test_of_chosen_videos(self) -> None:
        data = Data()
        chosen = np.arange(90) % 3 > 0
        found = data.fit(videos=chosen)
        rows = chosen[data.owner]
        part = fit(data.features[rows], np.cumsum(chosen)[data.owner[rows]] - 1, data.labels[chosen], classes=4, c=0.1)
        assert distance(found.logits(data.features), part.logits(data.features)) < 1e-5


class TestOddData:
    def test_one_video_of_each_class(self) -> None:
        data = Data(4)
        logits = data.fit(c=1).logits(data.features)
        assert (logits.argmax(axis=1) == data.labels[data.owner]).all()

    def test_a_class_without_videos_gets_half_a_video(self) -> None:
        data = Data()
        wanted = fit(data.features, data.owner, data.labels, classes=4, c=0.1)
        data.classes = 6
        found = data.fit()
        np.testing.assert_array_equal(found.weight, np.pad(wanted.weight, ((0, 2), (0, 0))))
        logits = found.logits(data.features).astype(np.float64)
        shares = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
        assert shares[:, 4:].max() == pytest.approx(0.5 / 90, rel=0.02)

    def test_several_labels_that_all_or_none_have(self) -> None:
        data = Data()
        data.members[:, 1], data.members[:, 2] = True, False
        found = data.fit(data.members)
        assert not found.weight[1:3].any()
        assert found.bias[1:3] == pytest.approx([np.log(90.5 / 0.5), np.log(0.5 / 90.5)])

    def test_one_class_only(self) -> None:
        data = Data(classes=2)
        data.labels[:] = 1
        found = data.fit()
        assert not found.weight.any()
        assert found.bias[1] > found.bias[0]

    def test_features_that_say_nothing(self) -> None:
        data = Data()
        data.features[:] = 5
        found = data.fit()
        shares = np.exp(found.logits(data.features[:1]).astype(np.float64))
        np.testing.assert_allclose(shares[0] / shares.sum(), np.bincount(data.labels) / 90, atol=1e-6)

    def test_features_that_are_no_numbers(self) -> None:
        data = Data()
        data.features[[0, 1, 50], 2] = np.nan
        count = len(set(data.owner[[0, 1, 50]]))
        with pytest.raises(InputError, match=f"^the features of {count} of 90 videos are not finite numbers; try "):
            data.fit()

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: data.fit(videos=np.zeros(90, np.bool_)),
            lambda data: data.fit(data.members[:, :3]),
            lambda data: data.fit(data.labels[:-1]),
            lambda data: data.fit(np.append(data.labels, 0)),
            lambda data: data.fit(data.labels + 1),
            lambda data: data.fit(start=Head(np.zeros((3, WIDTH), "f4"), np.zeros(3, "f4"))),
        ],
        ids=["no videos", "classes", "fewer videos", "more videos", "numbers", "start"],
    )
    def test_arrays_that_do_not_match(self, change: Callable[[Data], Head]) -> None:
        with pytest.raises(ValueError, match=r"shape|rows|videos|class numbers"):
            change(Data())


def test_memory_does_not_grow_with_the_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no float64 copies of all features or logits; torch's memory is counted by its blocks."""
    monkeypatch.setattr(heads, "_KEPT", 2**18)
    monkeypatch.setattr(heads, "_BLOCK", 2**18)
    largest: list[int] = []
    standardised = heads._Rows._standardised
    monkeypatch.setattr(
        heads._Rows, "_standardised", lambda self, rows: largest.append(len(rows)) or standardised(self, rows)
    )
    peaks = []
    for videos in (4000, 12_000):
        data = Data(videos, views=False)
        tracemalloc.start()
        data.fit(tolerance=ROUGH)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # For each video: its memberships, weights and marks.
    assert peaks[1] - peaks[0] < 8000 * 60
    assert max(largest) <= 2**18 / (8 * WIDTH)


def test_a_curvature_that_rounding_loses_ends_the_search() -> None:
    """In float32, the curvature along a direction can be zero, and a step along it endless."""
    target = torch.tensor([1.0, 0.0])
    assert heads._solve(torch.zeros_like, target, 0.1).tolist() == [0, 0]
