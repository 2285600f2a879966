"""Altered clips: other times, and patches taken away. Clips are (T, C, H, W), normalised or bytes; so are results."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Pixels
from timesformer_cli.jobs.explain.records import Alteration, Fill

_SEED = 0
_MOST_GROUPS = 8
_BLUR = 1 / 16  # of the height: half the width of a box, applied three times


def filled(clip: Pixels, fill: Fill) -> Pixels:
    """The clip with every patch taken away: the mean colour of the clip, its mean frame, or its frames blurred."""
    values = clip.astype(np.float32)
    if fill == "gray":
        whole = values.mean(axis=(0, 2, 3), keepdims=True)
    elif fill == "still":
        whole = values.mean(axis=0, keepdims=True)
    else:
        whole = _blurred(_blurred(_blurred(values)))
    return _like(np.broadcast_to(whole, clip.shape), clip)


def without(clip: Pixels, fill: Pixels, gone: NDArray[np.bool_], patch: tuple[int, int]) -> Pixels:
    """The clip with `fill` (T, C, H, W) at the patches that are `gone`, bool (T, R, C), of `patch` (height, width)."""
    mask = np.zeros((len(clip), *clip.shape[-2:]), np.bool_)  # pixels beyond the last whole patch are not seen
    patches = gone.repeat(patch[0], 1).repeat(patch[1], 2)
    mask[:, : patches.shape[1], : patches.shape[2]] = patches
    return np.where(mask[:, None], fill, clip)


def altered(clip: Pixels, name: Alteration) -> Pixels:
    """The clip with its middle frame only, its frames shuffled or backwards, or its mean frame."""
    if name == "single_frame":
        return np.broadcast_to(clip[len(clip) // 2], clip.shape)
    if name == "still":
        return filled(clip, "still")
    return clip[::-1] if name == "reversed" else clip[shuffled(len(clip))]


def shuffled(frames: int) -> NDArray[np.int64]:
    """An order of `frames` frames, int64 (T,), the same each time: of some random ones, that with the least order."""
    generator = np.random.default_rng(_SEED)
    return min((generator.permutation(frames) for _ in range(32)), key=_orderliness)


def _orderliness(order: NDArray[np.int64]) -> float:
    """How much motion an order still shows: it runs one way, or neighbours stay neighbours."""
    if len(order) < 2:
        return 0.0
    one_way = abs(float(np.corrcoef(order, np.arange(len(order)))[0, 1]))
    return one_way + float((np.abs(np.diff(order)) == 1).mean())


def groups(frames: int) -> NDArray[np.int64]:
    """The group of each of `frames` frames, int64 (T,): at most 8 groups of neighbours, of nearly the same size."""
    return np.arange(frames) * min(frames, _MOST_GROUPS) // frames


def only(clip: Pixels, kept: Sequence[bool]) -> Pixels:
    """The clip with each frame that is not kept replaced by the nearest that is, the earlier of two as near.

    Without any, the mean frame.
    """
    there = np.flatnonzero(kept)
    if not len(there):
        return filled(clip, "still")
    nearest = np.abs(np.arange(len(clip))[:, None] - there).argmin(axis=1)
    found: Pixels = clip[there[nearest]]
    return found


def _blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames (T, C, H, W), each pixel the mean of a box around it."""
    reach = max(round(values.shape[-2] * _BLUR), 1)
    for axis in (-2, -1):
        wide = [(0, 0)] * values.ndim
        wide[axis] = (reach + 1, reach)
        sums = np.pad(values.astype(np.float64), wide, mode="edge").cumsum(axis=axis)
        length = values.shape[axis]
        upper = np.take(sums, np.arange(2 * reach + 1, 2 * reach + 1 + length), axis=axis)
        lower = np.take(sums, np.arange(length), axis=axis)
        values = ((upper - lower) / (2 * reach + 1)).astype(np.float32)
    return values


def _like(values: NDArray[np.float32], clip: Pixels) -> Pixels:
    """The values in the type of the clip: bytes are rounded."""
    return np.rint(values).clip(0, 255).astype(np.uint8) if clip.dtype == np.uint8 else values.astype(clip.dtype)
