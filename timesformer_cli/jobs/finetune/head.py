"""The head of a probe: L2 logistic regression on the features of videos, fitted in float64.

The features of a video are those of its views, which weigh 1 / V each, so that every video weighs 1. Arrays:

- `features`: float32 or float64 (R, D), a row for each view.
- `owner`: int64 (R,), the number of the video of each row.
- `targets`: int64 (N,), the class of each video; or bool (N, K), which classes each video has (multi-label).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from timesformer_cli.errors import InputError

Floats = NDArray[np.float32] | NDArray[np.float64]
Targets = NDArray[np.int64] | NDArray[np.bool_]

# How far a step moves logits at most, as a share of the largest one: no further, and it is the last. It leaves an error
# that is smaller by far: of less than 1e-5 and 1e-2 of the largest logit.
EXACT = 2e-4
ROUGH = 3e-2

_BLOCK = 2**25  # bytes of the float64 features that are computed with at once
_KEPT = 2**28  # bytes of float64 features that stay in memory; more are made of `features` again and again
_ITERATIONS = 20  # of L-BFGS: at first, and instead of a step of Newton's method that leads astray
_STEPS = 50  # of Newton's method at most
_CONJUGATE = 250  # products with the Hessian in a step at most
_FLAT = 1e-10  # curvature that is taken for none
_ROUNDED = 1e-6  # of the largest value of a feature: what float32 cannot hold is no deviation


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear layer on features: `weight` float32 (K, D), `bias` float32 (K,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: Floats) -> NDArray[np.float32]:
        """The logits float32 (N, K) of features (N, D). Those of a mean of features are the mean of their logits."""
        found = np.empty((len(features), len(self.bias)), np.float32)
        weight, bias = self.weight.T.astype(np.float64), self.bias.astype(np.float64)
        for part in _parts(features):
            found[part] = features[part].astype(np.float64) @ weight + bias
        return found


def _parts(features: Floats) -> Iterator[slice]:
    """Slices of rows whose float64 copies fit in memory."""
    step = max(_BLOCK // (8 * features.shape[1]), 1)
    return (slice(start, start + step) for start in range(0, len(features), step))


def fit(
    features: Floats,
    owner: NDArray[np.int64],
    targets: Targets,
    *,
    classes: int,
    c: float,
    videos: NDArray[np.bool_] | None = None,
    start: Head | None = None,
    balance: bool = False,
    tolerance: float = EXACT,
) -> Head:
    """The head that minimises c * (sum of the losses of the videos) + |W|^2 / 2, as scikit-learn's LogisticRegression.

    W are the weights for features that have mean 0 and deviation 1 over the videos; the bias is free. The loss is that
    of a softmax or, with several labels, the sum of those of K sigmoids. For two classes, the softmax with `c` is
    scikit-learn's binary form with 2 * c. Features that are constant stay out.

    `videos` bool (N,) marks those to fit on; None: all. `start`, with a row for each class, changes the time, not the
    result. With `balance`, each class weighs the same: a video of a class with n of N videos weighs N / (K * n), and
    with several labels, the two sides of each class do so. A class that no video has, or that all have, cannot be
    fitted: its weights are 0, and its bias stands for half a video.

    `tolerance`: EXACT, or ROUGH, which computes in float32 and takes a third of the time.

    Raises:
        InputError: features that are not finite numbers.
        ValueError: no videos, or arrays that do not match.
    """
    marked = np.ones(len(targets), np.bool_) if videos is None else videos
    members = memberships(targets, classes)
    multi_label = targets.ndim == 2
    _check(features, owner, members, marked, classes, start, multi_label=multi_label)
    counts = members[marked].sum(axis=0)
    fitted = (counts > 0) & (counts < marked.sum()) if multi_label else counts > 0
    dtype = torch.float64 if tolerance < ROUGH else torch.float32
    rows = _Rows(features, owner, members[:, fitted], marked, multi_label=multi_label, balance=balance, dtype=dtype)
    known = None if start is None else Head(start.weight[fitted], start.bias[fitted])
    return _folded(rows, _optimise(rows, c, known, tolerance), fitted, counts)


def memberships(targets: Targets, classes: int) -> NDArray[np.bool_]:
    """Which classes each video has, bool (N, K)."""
    if targets.ndim == 2:
        return targets.astype(np.bool_, copy=False)
    return np.equal(targets[:, None], np.arange(classes))


def balanced(members: NDArray[np.bool_], *, multi_label: bool) -> NDArray[np.float64]:
    """Weights that make each class weigh the same: float64 (N, 1) or, with several labels, (N, K)."""
    counts = members.sum(axis=0)
    found: NDArray[np.float64]
    if multi_label:
        having, lacking = (len(members) / (2 * np.maximum(side, 1)) for side in (counts, len(members) - counts))
        found = np.where(members, having, lacking)
    else:
        found = (members @ (len(members) / (len(counts) * np.maximum(counts, 1))))[:, None]
    return found


def _check(
    features: Floats,
    owner: NDArray[np.int64],
    members: NDArray[np.bool_],
    marked: NDArray[np.bool_],
    classes: int,
    start: Head | None,
    *,
    multi_label: bool,
) -> None:
    videos = len(members)
    if members.shape != (videos, classes) or marked.shape != (videos,):
        raise ValueError(f"targets of shape {members.shape} and marks of shape {marked.shape} for {classes} classes")
    there = np.unique(owner)
    if owner.shape != features.shape[:1] or not np.isin(np.flatnonzero(marked), there).all() or there[-1] >= videos:
        raise ValueError(f"{len(features)} rows of features, which are not those of the {videos} videos")
    if not marked.any():
        raise ValueError("no videos to fit a head to")
    if not multi_label and not members[marked].any(axis=1).all():
        raise ValueError(f"class numbers that are not 0 to {classes - 1}")
    if start is not None and start.weight.shape != (classes, features.shape[1]):
        raise ValueError(f"a start of shape {start.weight.shape}, and features of shape {features.shape}")
    bad = np.concatenate([~np.isfinite(features[part]).all(axis=1) for part in _parts(features)])
    if bad.any():
        raise InputError(
            f"the features of {len(np.unique(owner[bad])):,} of {videos:,} videos are not finite numbers; try "
            "`precision=fp32`"
        )


class _Rows:
    """The standardised views of the marked videos, in blocks, and an orthonormal basis in which they vary apart.

    `mean` and `deviation` are float64 (D,). `basis` is float64 (D, A); with fewer views than features, A is the number
    of views. If all coordinates in the basis fit in memory, blocks have these and `turn` is None. Otherwise blocks have
    standardised features, made anew for each pass, and `turn` is the basis.
    """

    def __init__(
        self,
        features: Floats,
        owner: NDArray[np.int64],
        members: NDArray[np.bool_],
        marked: NDArray[np.bool_],
        *,
        multi_label: bool,
        balance: bool,
        dtype: torch.dtype,
    ) -> None:
        self.multi_label = multi_label
        self.dtype = dtype
        self.classes = members.shape[1]
        self.videos = int(marked.sum())
        self._features, self._owner, self._members = features, owner, members
        self._rows = np.flatnonzero(marked[owner])
        views = np.maximum(np.bincount(owner, minlength=len(members)), 1)[:, None]
        self._shares = marked[:, None] / views
        if balance:
            self._weights = np.zeros((len(members), self.classes if multi_label else 1))
            self._weights[marked] = balanced(members[marked], multi_label=multi_label)
            self._weights /= views
        else:
            self._weights = self._shares
        self.turn: Tensor | None = None
        self._standardise()
        self.basis = self._find_basis()
        self._kept: list[tuple[Tensor, Tensor, Tensor]] | None = None
        if 8 * len(self._rows) * max(self.basis.shape[1], self.classes) <= _KEPT:
            turned = ((self._standardised(rows) @ self.basis, rows) for rows in self._parts())
            self._kept = [(block.to(dtype), *self._known(rows)) for block, rows in turned]
        else:
            self.turn = self.basis.to(dtype)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Coordinates or features (B, A or D), memberships bool (B, K), and weights (B, 1) or (B, K)."""
        if self._kept is not None:
            yield from self._kept
            return
        for rows in self._parts():
            yield self._standardised(rows).to(self.dtype), *self._known(rows)

    def _known(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        owner = self._owner[rows]
        return torch.from_numpy(self._members[owner]), torch.from_numpy(self._weights[owner]).to(self.dtype)

    def _parts(self) -> Iterator[NDArray[np.int64]]:
        step = max(_BLOCK // (8 * max(self._features.shape[1], self.classes)), 1)
        return (self._rows[start : start + step] for start in range(0, len(self._rows), step))

    def _raw(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._features[rows]).double()

    def _standardised(self, rows: NDArray[np.int64]) -> Tensor:
        return self._raw(rows).sub_(self.mean).div_(self.deviation)

    def _share(self, rows: NDArray[np.int64]) -> Tensor:
        """The share of each view in all videos, float64 (B, 1); balanced or not, every video has the same."""
        return torch.from_numpy(self._shares[self._owner[rows]]) / self.videos

    def _standardise(self) -> None:
        mean, largest, variance = torch.zeros((3, self._features.shape[1]), dtype=torch.float64)
        for rows in self._parts():
            block = self._raw(rows)
            mean += (self._share(rows) * block).sum(dim=0)
            torch.maximum(largest, block.abs().amax(dim=0), out=largest)
        for rows in self._parts():
            variance += (self._share(rows) * (self._raw(rows) - mean).square_()).sum(dim=0)
        deviation = variance.sqrt()
        self.mean = mean
        self.deviation = torch.where(deviation > _ROUNDED * largest, deviation, 1.0)

    def _find_basis(self) -> Tensor:
        width = self._features.shape[1]
        few = len(self._rows) < width
        first = torch.linalg.qr(self._standardised(self._rows).T)[0] if few else torch.eye(width, dtype=torch.float64)
        spread = torch.zeros((first.shape[1], first.shape[1]), dtype=torch.float64)
        for rows in self._parts():
            block = self._standardised(rows) @ first if few else self._standardised(rows)
            spread += block.T @ (block * self._share(rows))
        basis: Tensor = first @ torch.linalg.eigh(spread)[1]
        return basis


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """Parameters, or what belongs to each: `axes` (A, K), for coordinates in the basis, and `bias` (K,)."""

    axes: Tensor
    bias: Tensor

    @classmethod
    def of(cls, rows: _Rows, start: Head | None) -> "_Point":
        if start is None:
            shape = rows.basis.shape[1], rows.classes
            return cls(torch.zeros(shape, dtype=rows.dtype), torch.zeros(rows.classes, dtype=rows.dtype))
        weight = torch.from_numpy(start.weight.astype(np.float64))
        bias = torch.from_numpy(start.bias.astype(np.float64)) + weight @ rows.mean
        return cls((rows.basis.T @ (weight * rows.deviation).T).to(rows.dtype), bias.to(rows.dtype))

    @classmethod
    def split(cls, flat: Tensor, classes: int) -> "_Point":
        return cls(flat[:-classes].view(-1, classes), flat[-classes:])

    def flat(self) -> Tensor:
        return torch.cat([self.axes.reshape(-1), self.bias])

    def logits(self, coordinates: Tensor) -> Tensor:
        return torch.addmm(self.bias, coordinates, self.axes)


def _optimise(rows: _Rows, c: float, start: Head | None, tolerance: float) -> _Point:
    """The minimum of the mean loss plus |W|^2 / (2 * c * videos).

    L-BFGS goes near it from anywhere. What it lacks then is precision: differences of the objective drown in its
    rounding. Steps of Newton's method need gradients only.
    """
    point = _Point.of(rows, start)
    if not rows.classes:
        return point
    ridge = 1 / (c * rows.videos)
    scale, _ = _survey(rows, point, point, ridge)
    before, point = point, _descend(rows, point, scale, ridge)
    scale, movement = _survey(rows, point, before, ridge)
    for _ in range(_STEPS):
        before, point = point, _step(rows, point, scale, ridge, movement)
        scale, movement = _survey(rows, point, before, ridge)
        if movement <= tolerance:
            break
    # A softmax does not see what all logits share.
    return point if rows.multi_label else _Point(point.axes, point.bias - point.bias.mean())


def _step(rows: _Rows, point: _Point, scale: _Point, ridge: float, movement: float) -> _Point:
    """A step of Newton's method or, if it does not make the gradient smaller, a round of L-BFGS."""
    stretch = scale.flat()
    gradient = _evaluate(rows, point, ridge)[1].flat() * stretch
    curved = _curvature(rows, point, scale, ridge)
    step = _solve(curved, -gradient, min(max(movement, 1e-3), 0.1))
    found = _Point.split(point.flat() + stretch * step, rows.classes)
    shorter = (_evaluate(rows, found, ridge)[1].flat() * stretch).norm() < gradient.norm()
    return found if shorter else _descend(rows, point, scale, ridge)


def _solve(product: Callable[[Tensor], Tensor], target: Tensor, precision: float) -> Tensor:
    """What `product` turns into `target`, by conjugate gradients; the rest is shorter by `precision`."""
    found, rest = torch.zeros_like(target), target.clone()
    direction, square = rest.clone(), float(rest @ rest)
    wanted = precision**2 * square
    for _ in range(_CONJUGATE):
        if square <= wanted:
            break
        turned = product(direction)
        curvature = float(direction @ turned)
        if not curvature > 0:  # lost in the rounding of float32
            break
        length = square / curvature
        found.add_(direction, alpha=length)
        rest.sub_(turned, alpha=length)
        before, square = square, float(rest @ rest)
        direction.mul_(square / before).add_(rest)
    return found


def _curvature(rows: _Rows, point: _Point, scale: _Point, ridge: float) -> Callable[[Tensor], Tensor]:
    """The product of the Hessian at `point` with a direction, both in parameters divided by `scale`."""
    stretch, at = scale.flat(), _turned(rows, point)

    def chances(block: Tensor) -> Tensor:
        logits = at.logits(block)
        return logits.sigmoid_() if rows.multi_label else logits.softmax(dim=1)

    # Kept as the blocks are.
    kept = [chances(block) for block, *_ in rows.blocks()] if rows.turn is None else None

    def product(direction: Tensor) -> Tensor:
        along = _Point.split(direction * stretch, rows.classes)
        turned = _turned(rows, along)
        axes, bias = torch.zeros_like(turned.axes), torch.zeros_like(turned.bias)
        for number, (block, _, weights) in enumerate(rows.blocks()):
            chance = kept[number] if kept is not None else chances(block)
            change = turned.logits(block)
            if rows.multi_label:
                change.mul_(1 - chance)
            else:
                change.sub_((chance * change).sum(dim=1, keepdim=True))
            change.mul_(chance).mul_(weights)
            axes.addmm_(block.T, change)
            bias += change.sum(dim=0)
        return _gradient(rows, axes, bias, along, ridge).flat() * stretch

    return product


def _descend(rows: _Rows, start: _Point, scale: _Point, ridge: float) -> _Point:
    """Iterations of L-BFGS, in parameters divided by `scale`, whose curvatures are all about 1."""
    stretch = scale.flat()
    flat = start.flat() / stretch

    def loss() -> float:
        point = _Point.split(flat * stretch, rows.classes)
        value, gradient = _evaluate(rows, point, ridge)
        flat.grad = gradient.flat() * stretch
        return value

    optimiser = torch.optim.LBFGS(
        [flat],
        max_iter=_ITERATIONS,
        max_eval=4 * _ITERATIONS,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=_ITERATIONS,
        line_search_fn="strong_wolfe",
    )
    optimiser.step(loss)
    return _Point.split(flat * stretch, rows.classes)


def _turned(rows: _Rows, point: _Point) -> _Point:
    """The same for what blocks have."""
    return point if rows.turn is None else _Point(rows.turn @ point.axes, point.bias)


def _gradient(rows: _Rows, axes: Tensor, bias: Tensor, point: _Point, ridge: float) -> _Point:
    """Of sums over the views, as blocks have them, and the penalty at `point`."""
    axes = axes if rows.turn is None else rows.turn.T @ axes
    return _Point(axes / rows.videos + ridge * point.axes, bias / rows.videos)


def _evaluate(rows: _Rows, point: _Point, ridge: float) -> tuple[float, _Point]:
    """The objective and its gradient."""
    turned = _turned(rows, point)
    value, axes, bias = 0.0, torch.zeros_like(turned.axes), torch.zeros_like(turned.bias)
    for block, members, weights in rows.blocks():
        logits = turned.logits(block)
        own = logits.where(members, 0.0)
        if rows.multi_label:
            losses, chances = softplus(logits) - own, logits.sigmoid_()
        else:
            totals = logits.logsumexp(dim=1, keepdim=True)
            losses, chances = totals - own.sum(dim=1, keepdim=True), logits.sub_(totals).exp_()
        value += float((weights * losses).sum())
        pull = chances.sub_(members.to(chances.dtype)).mul_(weights)
        axes.addmm_(block.T, pull)
        bias += pull.sum(dim=0)
    penalty = ridge / 2 * float(point.axes.square().sum())
    return value / rows.videos + penalty, _gradient(rows, axes, bias, point, ridge)


def _survey(rows: _Rows, point: _Point, before: _Point, ridge: float) -> tuple[_Point, float]:
    """Scales by which the curvature along each parameter is 1, and how far logits are from those of `before`.

    The distance is a share of the largest logit. In the basis, curvatures along one axis say nearly all: features
    vary apart there.
    """
    axes, bias = torch.zeros_like(point.axes), torch.zeros_like(point.bias)
    step = _Point(point.axes - before.axes, point.bias - before.bias)
    largest, furthest = 0.0, 0.0
    for block, _, weights in rows.blocks():
        coordinates = block if rows.turn is None else block @ rows.turn
        logits = point.logits(coordinates)
        largest = max(largest, float(logits.abs().max()))
        furthest = max(furthest, float(step.logits(coordinates).abs().max()))
        chances = logits.sigmoid_() if rows.multi_label else logits.softmax(dim=1)
        curvature = (chances * (1 - chances)).mul_(weights)
        axes.addmm_(coordinates.square().T, curvature)
        bias += curvature.sum(dim=0)
    axes = axes.div_(rows.videos).add_(ridge).rsqrt_()
    bias = bias.div_(rows.videos).add_(_FLAT).rsqrt_()
    return _Point(axes, bias), furthest / largest if largest else 0.0


def _folded(rows: _Rows, point: _Point, fitted: NDArray[np.bool_], counts: NDArray[np.int64]) -> Head:
    """The head for features as they are, with the classes that could not be fitted."""
    weight = np.zeros((len(fitted), len(rows.mean)), np.float32)
    bias = np.zeros(len(fitted))
    weight[fitted] = ((rows.basis @ point.axes.double()).T / rows.deviation).float().numpy()
    # Of the rounded weights, so that rounding does not move the logits of average features.
    bias[fitted] = point.bias.double().numpy() - weight[fitted].astype(np.float64) @ rows.mean.numpy()
    if not fitted.all():
        bias[~fitted] = _guesses(rows, point, counts[~fitted])
    return Head(weight, bias.astype(np.float32))


def _guesses(rows: _Rows, point: _Point, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The biases of classes that no video has, or that all have: as if half a video said the opposite."""
    if rows.multi_label:
        return np.log((counts + 0.5) / (rows.videos - counts + 0.5))
    turned = _turned(rows, point)
    totals = [float(turned.logits(block).logsumexp(dim=1).min()) for block, *_ in rows.blocks()]
    return np.full(len(counts), min(totals) - math.log(2 * rows.videos))
