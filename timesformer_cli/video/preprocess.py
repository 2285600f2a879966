"""RGB frames to network input: resize, crop, normalise. Only NumPy and Pillow, so that workers need no torch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.flow import CropName, Frames, Pixels
from timesformer_cli.specs import PreprocessSpec

# ITU-R 601 luma of red, green and blue.
LUMA = (0.299, 0.587, 0.114)

# Beyond this many pixels a frame of extreme shape is not resized whole: 64 MB, at Pillow's 4 bytes per pixel.
_LARGEST_RESIZED = 2**24


class _Crop(NamedTuple):
    name: CropName
    top: int
    left: int


def make_views(clips: Sequence[Frames], spec: PreprocessSpec, *, levels: bool = False) -> Pixels:
    """Network input of one or more clips of T frames each: contiguous float32 (V, T, C, H, W).

    V goes clip by clip, and inside a clip in the order of `crop_names`. The mean and standard
    deviation of `spec` are in the order of the network's channels. With `levels` it is uint8 and not normalised, for
    models that normalise it themselves: the bytes of the resized frames or, if frames are normalised before resizing
    (`float`), the nearest bytes.
    """
    if levels and spec.resize == "float":
        return to_levels(make_views(clips, spec), spec)
    first = clips[0].pixels
    crops_each = len(crop_names(first.shape[2], first.shape[1], spec))
    views = _empty((len(clips), crops_each, len(first)), spec, levels)
    for clip, clip_views in zip(clips, views, strict=True):
        height, width = clip.pixels.shape[1:3]
        resized = _resized(height, width, spec)
        _cut(clip, resized, _crops(*resized, spec), spec, clip_views, levels)
    return views.reshape(-1, *views.shape[2:])


class Framing(NamedTuple):
    """The part of each frame that one view shows, for training.

    `resized` (height, width) is the size to which frames are resized; the crop begins at row `top` and column `left` of
    that. `mirrored`: left and right are exchanged in the crop.
    """

    resized: tuple[int, int]
    top: int
    left: int
    mirrored: bool = False


def framings(width: int, height: int, spec: PreprocessSpec) -> list[Framing]:
    """Those of the crops that `make_views` makes, in order, of upright frames of `width` x `height` pixels."""
    resized = _resized(height, width, spec)
    return [Framing(resized, crop.top, crop.left) for crop in _crops(*resized, spec)]


def draw_framing(width: int, height: int, spec: PreprocessSpec, generator: np.random.Generator) -> Framing:
    """A random size, and a random crop of it, for upright frames of `width` x `height` pixels.

    The shorter side becomes 256 to 320 pixels long for a crop of 224, and as much longer than other crops. Frames that
    `spec` stretches are stretched to a random size, each of its sides in this proportion to the crop.
    """
    side = min(spec.size)
    short_side = int(generator.integers(round(side * 256 / 224), round(side * 320 / 224), endpoint=True))
    if spec.stretch is None:
        resized = _resized(height, width, spec, short_side)
    else:
        resized = (round(spec.size[0] * short_side / side), round(spec.size[1] * short_side / side))
    top, left = (int(generator.integers(resized[axis] - spec.size[axis] + 1)) for axis in range(2))
    return Framing(resized, top, left)


def make_view(clip: Frames, spec: PreprocessSpec, framing: Framing) -> NDArray[np.float32]:
    """Network input of one view of a clip of T frames: contiguous float32 (T, C, H, W), normalised.

    With a framing of `framings`, it is the view that `make_views` makes, to the bit.
    """
    view = _empty((1, len(clip.pixels)), spec, levels=False)
    crop = _Crop("center", framing.top, framing.left)
    _cut(clip, framing.resized, [crop], spec, view, levels=False)
    return np.ascontiguousarray(mirrored(view[0]) if framing.mirrored else view[0])


def mirrored(views: Pixels) -> Pixels:
    """The same views (..., H, W) with left and right exchanged, without a copy."""
    return views[..., ::-1]


def _empty(shape: tuple[int, ...], spec: PreprocessSpec, levels: bool) -> Pixels:
    """Room for views (*shape, C, H, W)."""
    return np.empty((*shape, len(spec.mean), *spec.size), np.uint8 if levels else np.float32)


def _cut(
    clip: Frames, resized: tuple[int, int], crops: list[_Crop], spec: PreprocessSpec, out: Pixels, levels: bool
) -> None:
    """Write the crops of all frames of a clip to `out` (crops, T, C, H, W)."""
    cut = {"float": _cut_float, "antialias": _cut_antialias, "opencv": _cut_opencv}[spec.resize]
    channels = _channels(spec, levels)
    for number, frame in enumerate(clip.pixels):
        cut(frame, resized, crops, spec, channels, out[:, number])


def to_levels(views: Pixels, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """The bytes (..., C, H, W), in the network's channels, that `spec` would normalise to these views.

    Exact if views were made from bytes; the nearest bytes if they were interpolated after normalising.
    """
    if views.dtype == np.uint8:
        return views
    mean, std = statistics_of(spec)
    levels: NDArray[np.float32] = (views * std + mean) * np.float32(255)
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def normalised(levels: Pixels, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Network input, float32 (..., C, H, W), from levels 0 to 255 in the network's channels."""
    mean, std = statistics_of(spec)
    views: NDArray[np.float32] = (levels.astype(np.float32) / np.float32(255) - mean) / std
    return views


def statistics_of(spec: PreprocessSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation, float32 (C, 1, 1) each."""
    return np.array(spec.mean, np.float32)[:, None, None], np.array(spec.std, np.float32)[:, None, None]


def crop_names(width: int, height: int, spec: PreprocessSpec) -> tuple[CropName, ...]:
    """The crops of one clip, in order, for upright frames of `width` x `height` pixels."""
    return tuple(crop.name for crop in _crops(*_resized(height, width, spec), spec))


def _resized(height: int, width: int, spec: PreprocessSpec, short_side: int | None = None) -> tuple[int, int]:
    """The height and width to which a frame is resized before it is cropped; `short_side` replaces that of `spec`."""
    if short_side is None:
        if spec.stretch is not None:
            return spec.stretch
        short_side = spec.short_side
    portrait = height > width
    short, long = sorted((height, width))
    # A crop that is not square may need more than `short_side`; the published crops never do.
    crop_short, crop_long = (spec.size[1], spec.size[0]) if portrait else spec.size
    new_short = max(short_side, crop_short, math.ceil(crop_long * short / long))
    # The pipelines round the same length differently, which can make a difference of one pixel.
    if new_short == short:
        new_long = long
    elif spec.resize == "float":
        new_long = math.floor(long / short * new_short)
    elif spec.resize == "opencv":
        new_long = int(long * (new_short / short) + 0.5)
    else:
        new_long = int(new_short * long / short)
    new_long = max(new_long, crop_long)
    return (new_long, new_short) if portrait else (new_short, new_long)


def _crops(height: int, width: int, spec: PreprocessSpec) -> list[_Crop]:
    """The places of the crops in a resized frame.

    If a margin is odd, the centre crop is one pixel further right and down in the original code
    (ceil) than in the image processors of transformers and in mmaction2 (int). The last of
    mmaction2's three crops is as far from the centre as the first, so it then omits the last row or
    column.
    """
    margins = (height - spec.size[0], width - spec.size[1])
    top, left = (-(-margin // 2) if spec.resize == "float" else margin // 2 for margin in margins)
    bottom, right = (2 * top, 2 * left) if spec.resize == "opencv" else margins
    center = _Crop("center", top, left)
    if spec.crops == 1:
        return [center]
    if height > width:
        return [_Crop("top", 0, left), center, _Crop("bottom", bottom, left)]
    return [_Crop("left", top, 0), center, _Crop("right", top, right)]


# For each channel of the network: the channels of a frame that add up to it, each with the
# normalised value, float32 (256,), that each byte contributes; or uint8, the byte itself.
_Channels = list[list[tuple[int, Pixels]]]


def _channels(spec: PreprocessSpec, levels: bool) -> _Channels:
    shares = np.arange(256, dtype=np.float32) / np.float32(255)
    tables: list[Pixels] = [
        (shares - np.float32(mean)) / np.float32(std) for mean, std in zip(spec.mean, spec.std, strict=True)
    ]
    if levels:
        tables = [np.arange(256, dtype=np.uint8)] * len(tables)
    if spec.channel_order == "gray" and spec.resize != "float":
        return [[(0, tables[0])]]  # bytes already mixed by _gray
    if spec.channel_order == "gray":
        # The weights add up to one, so normalised values mix as plain ones do.
        return [[(source, np.float32(weight) * tables[0]) for source, weight in enumerate(LUMA)]]
    sources = (0, 1, 2) if spec.channel_order == "rgb" else (2, 1, 0)
    return [[(source, table)] for source, table in zip(sources, tables, strict=True)]


def _mix(pixels: NDArray[np.uint8], parts: list[tuple[int, Pixels]]) -> Pixels:
    """One channel (H, W), normalised or not, from bytes (H, W, channels)."""
    source, table = parts[0]
    plane = table[pixels[..., source]]
    for source, table in parts[1:]:
        plane += table[pixels[..., source]]
    return plane


def _gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R 601 luma (H, W, 1) of RGB bytes (H, W, 3), as Pillow rounds it."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


class _Corners(NamedTuple):
    """The pixels from which a crop of H x W pixels is interpolated, and no others of the frame.

    `pixels`: bytes (2H, 2W, 3), first the upper rows and left columns, then the lower rows and right
    columns. `down`, float32 (H,), and `right`, float32 (W,): the weights of the latter.
    """

    pixels: NDArray[np.uint8]
    down: NDArray[np.float32]
    right: NDArray[np.float32]


def _corners(frame: NDArray[np.uint8], scales: tuple[float, float], crop: _Crop, size: tuple[int, int]) -> _Corners:
    upper, lower, down = _neighbours(frame.shape[0], scales[0], crop.top, size[0])
    before, after, right = _neighbours(frame.shape[1], scales[1], crop.left, size[1])
    return _Corners(frame[np.concatenate([upper, lower])][:, np.concatenate([before, after])], down, right)


def _neighbours(
    length: int, scale: float, start: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two source pixels of each resized pixel from `start` on along one axis, and the second's weight.

    `scale` is source pixels per resized pixel. PyTorch computes the position in float32 with a
    fused multiply-add, OpenCV in float64; float64 rounded once equals both.
    """
    position = ((np.arange(start, start + count) + 0.5) * scale - 0.5).astype(np.float32)
    before = np.floor(position)
    first = before.astype(np.int64)
    # Beyond an edge, both are the edge pixel. OpenCV mixes it with itself, which its rounding shows.
    return np.clip(first, 0, length - 1), np.clip(first + 1, 0, length - 1), position - before


def _cut_float(
    frame: NDArray[np.uint8],
    resized: tuple[int, int],
    crops: list[_Crop],
    spec: PreprocessSpec,
    channels: _Channels,
    out: Pixels,
) -> None:
    """Write the crops of one frame to `out` (crops, C, H, W), as the original code makes them.

    That is: normalise, `F.interpolate(mode="bilinear", align_corners=False)` without antialiasing,
    crop. Each pixel of a crop depends on four pixels of the frame, so only those are read. The result
    is equal up to float32 rounding, and neither time nor memory grows with the size of the frame.
    """
    height, width = spec.size
    scales = (_float_scale(frame.shape[0], resized[0]), _float_scale(frame.shape[1], resized[1]))
    for crop, planes in zip(crops, out, strict=True):
        pixels, down, right = _corners(frame, scales, crop, spec.size)
        for parts, plane in zip(channels, planes, strict=True):
            values = _mix(pixels, parts)
            rows = values[:, :width] * (1 - right) + values[:, width:] * right
            plane[:] = rows[:height] * (1 - down)[:, None] + rows[height:] * down[:, None]


def _float_scale(length: int, resized: int) -> float:
    return float(np.float32(length) / np.float32(resized))


def _cut_opencv(
    frame: NDArray[np.uint8],
    resized: tuple[int, int],
    crops: list[_Crop],
    spec: PreprocessSpec,
    channels: _Channels,
    out: Pixels,
) -> None:
    """Write the crops of one frame to `out` (crops, C, H, W), as mmaction2 makes them.

    That is: resize bytes with OpenCV's `INTER_LINEAR`, which does not antialias, crop, normalise.
    OpenCV uses 11-bit weights, and truncates the sums to 18 and then 10 bits before rounding.
    """
    height, width = spec.size
    # Divided in this order, as in OpenCV: the last place can differ.
    scales = (1 / (resized[0] / frame.shape[0]), 1 / (resized[1] / frame.shape[1]))
    for crop, planes in zip(crops, out, strict=True):
        corners = _corners(frame, scales, crop, spec.size)
        pixels = (_gray(corners.pixels) if spec.channel_order == "gray" else corners.pixels).astype(np.int32)
        down = np.rint(corners.down * 2048).astype(np.int32)[:, None, None]
        right = np.rint(corners.right * 2048).astype(np.int32)[:, None]
        rows = (pixels[:, :width] * (2048 - right) + pixels[:, width:] * right) >> 4
        mixed = (rows[:height] * (2048 - down) >> 16) + (rows[height:] * down >> 16)
        levels = ((mixed + 2) >> 2).astype(np.uint8)
        for parts, plane in zip(channels, planes, strict=True):
            plane[:] = _mix(levels, parts)


def _cut_antialias(
    frame: NDArray[np.uint8],
    resized: tuple[int, int],
    crops: list[_Crop],
    spec: PreprocessSpec,
    channels: _Channels,
    out: Pixels,
) -> None:
    """Write the crops of one frame to `out` (crops, C, H, W), as image processors make them.

    That is: resize bytes with one of Pillow's antialiased filters, crop, normalise.
    """
    picture = Image.fromarray(frame)
    if spec.channel_order == "gray":
        picture = picture.convert("L")
    resample = Image.Resampling[spec.interpolation.upper()]
    height, width = spec.size
    # Resizing only the part that a crop needs can change a byte by one level, or two if much enlarged; whole frames
    # are exact.
    whole = resized[0] * resized[1] <= _LARGEST_RESIZED
    if whole:
        picture = picture.resize((resized[1], resized[0]), resample)
    per_row, per_column = frame.shape[0] / resized[0], frame.shape[1] / resized[1]
    for crop, planes in zip(crops, out, strict=True):
        bottom, right = crop.top + height, crop.left + width
        if whole:
            part = picture.crop((crop.left, crop.top, right, bottom))
        else:
            box = (crop.left * per_column, crop.top * per_row, right * per_column, bottom * per_row)
            part = picture.resize((width, height), resample, box=box)
        pixels = np.asarray(part).reshape(height, width, -1)  # gray has no channel axis
        for parts, plane in zip(channels, planes, strict=True):
            plane[:] = _mix(pixels, parts)
