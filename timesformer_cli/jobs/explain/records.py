"""What is asked of a clip, and what is found: plain records, and their JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Item, VideoInfo, ViewLabel
from timesformer_cli.pipeline.aggregate import activated
from timesformer_cli.results.record import head_of
from timesformer_cli.specs import Activation

Fill = Literal["still", "gray", "blur"]
Method = Literal["lrp", "lrp+ig", "ig", "gradcam", "attention", "rollout", "occlusion", "ridge", "shapley"]
Checks = Literal["none", "default", "all"]

# Methods that need the gradients or the attention of the network; the rest only need its scores.
INSIDE: tuple[Method, ...] = ("lrp", "lrp+ig", "ig", "gradcam", "attention", "rollout")
OUTSIDE: tuple[Method, ...] = ("occlusion", "ridge", "shapley")

# The same map for every label.
WITHOUT_LABEL: tuple[Method, ...] = ("attention", "rollout")

BETTER = "better than random order"
NO_BETTER = "no better than chance for this clip"
UNCHECKED = "not checked"

# A gap below this is no better than chance.
LEAST_GAP = 0.10

# Frames are alike if none is further than this from their median, in score.
_ALIKE = 0.10

# An altered clip that keeps this share of the score keeps the label.
_KEEPS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What to explain, and how.

    `labels`: numbers of classes; none means the first label of each video. `versus`: explain the difference to this
    class. `method`: None means `lrp`, or no map for a model without a network. `fills`: what stands for a patch that is
    taken away; none means those of the method, and gray and still for the check. `clip` and `at` (seconds) choose the
    clip; without them it is the view with the highest logit of the label.
    """

    labels: tuple[int, ...] = ()
    versus: int | None = None
    method: Method | None = None
    fills: tuple[Fill, ...] = ()
    checks: Checks = "default"
    clip: int | None = None
    at: float | None = None

    @property
    def check_fills(self) -> tuple[Fill, ...]:
        return self.fills or ("gray", "still")

    def to_dict(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """The settings as JSON, with the names of the classes."""
        return {
            "labels": [labels[index] for index in self.labels],
            "versus": None if self.versus is None else labels[self.versus],
            "method": self.method,
            "fills": list(self.fills),
            "checks": self.checks,
            "clip": self.clip,
            "at": self.at,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """Why a label, or why a label rather than another: numbers of classes."""

    label: int
    versus: int | None = None
    activation: Activation = "softmax"

    def direction(self, classes: int) -> NDArray[np.float32]:
        """The weights of the logits, float32 (K,), whose sum is explained."""
        weights = np.zeros(classes, np.float32)
        weights[self.label] = 1
        if self.versus is not None:
            weights[self.versus] = -1
        return weights

    def margins(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logit of the label, or its difference to that of the other, float64 (N,), of logits (N, K)."""
        values = logits.astype(np.float64)
        own: NDArray[np.float64] = values[:, self.label]
        return own if self.versus is None else own - values[:, self.versus]

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The score of the label, float64 (N,), of logits (N, K); against another, that of the label among the two."""
        if self.versus is not None:
            return activated(self.margins(logits), "sigmoid")
        scores: NDArray[np.float64] = activated(logits.astype(np.float64), self.activation)[:, self.label]
        return scores


Alteration = Literal["single_frame", "shuffled", "reversed", "still"]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """An altered clip: its first label and the score of that, and the score of the label that is explained."""

    name: Alteration
    label: str
    label_score: float
    score: float

    def keeps(self, score: float) -> bool:
        """Whether enough of the `score` of the clip as it is remains."""
        return self.score >= _KEEPS * score


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """How much the frames of a clip matter, float64 (T,), in score; `groups` int64 (T,) are left out together.

    `method` is `leave_out` or `shapley`.
    """

    values: NDArray[np.float64]
    groups: NDArray[np.int64]
    method: Literal["leave_out", "shapley"]

    @property
    def alike(self) -> bool:
        """Whether no moment decides."""
        return bool(abs(self.values[self.outlier] - np.median(self.values)) < _ALIKE)

    @property
    def outlier(self) -> int:
        """The place of the frame that is furthest from the median."""
        return int(np.abs(self.values - np.median(self.values)).argmax())


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """How the score falls if patches are taken away in the order of a map, by fill.

    `deletion` starts with the most important, `reverse` with the least: scores at even shares of patches taken away,
    none to all. `gap` is the area under `reverse` less that under `deletion`: 0 is chance. `random` has the gaps of
    random orders, `band` their lowest and highest scores at each share, `centre` the gap of nearness to the centre, and
    `untrained` the rank correlation of the map with that of the network with random weights: all None or empty unless
    asked for.
    """

    deletion: Mapping[Fill, tuple[float, ...]]
    reverse: Mapping[Fill, tuple[float, ...]]
    gap: Mapping[Fill, float]
    random: Mapping[Fill, tuple[float, ...]] = field(default_factory=dict)
    band: Mapping[Fill, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    centre: Mapping[Fill, float] = field(default_factory=dict)
    untrained: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the gap is large enough with at least one fill, and larger than those of random orders."""
        return any(gap >= LEAST_GAP and gap > max(self.random.get(fill, (0.0,))) for fill, gap in self.gap.items())

    def to_dict(self) -> dict[str, Any]:
        rounded = {
            name: {fill: [round(value, 4) for value in values] for fill, values in getattr(self, name).items()}
            for name in ("deletion", "reverse", "random")
        }
        gaps = {name: {fill: round(gap, 4) for fill, gap in getattr(self, name).items()} for name in ("gap", "centre")}
        untrained = None if self.untrained is None else round(self.untrained, 4)
        band = {fill: [[round(value, 4) for value in end] for end in ends] for fill, ends in self.band.items()}
        found = {**rounded, "random_band": band, **gaps, "untrained_correlation": untrained}
        return {name: value for name, value in found.items() if value not in (None, {})}


@dataclass(frozen=True, slots=True)
class Total:
    """The `sum` of the shares of patches, and the logits `of` which they are shares.

    For integrated gradients, `points` are those of the integral, and `reached` says whether it adds up as it should.
    """

    sum: float
    of: float
    points: int | None = None
    reached: bool = True

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {"sum": round(self.sum, 4), "of": round(self.of, 4)}
        return record if self.points is None else record | {"points": self.points, "reached": self.reached}


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """How much each patch speaks for the label, float32 (T, R, C), signed.

    `fill` stood for patches if the method needs one. `total` is for methods that give shares of logits; of `lrp+ig`, it
    is that of its integrated gradients. `check` is None if it was left out.
    """

    method: Method
    values: NDArray[np.float32]
    fill: Fill | None = None
    total: Total | None = None
    check: Check | None = None

    @property
    def verdict(self) -> str:
        if self.check is None:
            return UNCHECKED
        return BETTER if self.check.passed else NO_BETTER

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {"method": self.method, "shape": list(self.values.shape), "fill": self.fill}
        record["depends_on_label"] = self.method not in WITHOUT_LABEL
        if self.total is not None:
            record["adds_up"] = self.total.to_dict()
        return record | ({} if self.check is None else self.check.to_dict()) | {"verdict": self.verdict}


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why one view of a video got a label.

    `score` is that of the label in this view, `against` the class that it is compared with, if any. `runner_up` is the
    class with the next score. `constant`: all frames of the clip are the same. `box` is what the model saw of an
    upright frame: left, top, right, bottom in pixels. `forwards` counts clips through the network.
    """

    item: Item
    model: str
    info: VideoInfo
    view: ViewLabel
    number: int
    views: int
    label: str
    score: float
    against: str | None
    runner_up: str
    counterfactuals: tuple[Counterfactual, ...]
    frames: Importance
    map: Map | None
    box: tuple[float, float, float, float]
    constant: bool
    forwards: int

    @property
    def times(self) -> NDArray[np.float64]:
        """When the frames of the view are shown: seconds from the first frame of the video, float64 (T,)."""
        times: NDArray[np.float64] = self.info.times[np.array(self.view.frames)]
        return times

    def to_dict(self) -> dict[str, Any]:
        """The record of the command line's contract."""
        from timesformer_cli.jobs.explain.words import meaning, summary

        frames = zip(self.view.frames, self.times.tolist(), self.frames.values, self.frames.groups, strict=True)
        return head_of(self.item.path, self.item.part) | {
            "status": "ok",
            "model": self.model,
            "view": {"number": self.number, "of": self.views, "clip": self.view.clip, "crop": self.view.crop}
            | {"frames": list(self.view.frames)},
            "label": self.label,
            "score": round(self.score, 4),
            "versus": self.against,
            "runner_up": self.runner_up,
            "summary": summary(self),
            "counterfactuals": {
                each.name: {
                    "label": each.label,
                    "score": round(each.score, 4),
                    "label_score": round(each.label_score, 4),
                    "meaning": meaning(each, self),
                }
                for each in self.counterfactuals
            },
            "frames": [
                {"frame": frame, "time": round(time, 3), "importance": round(float(value), 4), "group": int(group)}
                for frame, time, value, group in frames
            ],
            "frames_method": self.frames.method,
            "frames_alike": self.frames.alike,
            "map": None if self.map is None else self.map.to_dict(),
            "box": [round(side, 1) for side in self.box],
            "forwards": self.forwards,
        }
