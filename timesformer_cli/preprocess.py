"""RGB frames to network input: resize, crop, normalise. NumPy and Pillow alone, so that workers need no torch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.records import CropName, Frames
from timesformer_cli.specs import PreprocessSpec

# ITU-R 601 luma of red, green and blue.
_LUMA = (0.299, 0.587, 0.114)

# Beyond this many pixels a frame of extreme shape is not resized whole: 64 MB, at Pillow's 4 bytes a pixel.
_LARGEST_RESIZED = 2**24


class _Crop(NamedTuple):
    name: CropName
    top: int
    left: int


def make_views(clips: Sequence[Frames], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Network input of one or more clips of T frames each: contiguous float32 (V, T, C, H, W).

    V goes clip by clip, and inside a clip in the order of `crop_names`. The mean and standard
    deviation of `spec` are in the order of the network's channels.
    """
    first = clips[0].pixels
    channels = _channels(spec)
    crops_each = len(crop_names(first.shape[2], first.shape[1], spec))
    views = np.empty((len(clips), crops_each, len(first), len(channels), *spec.size), np.float32)
    for clip, clip_views in zip(clips, views, strict=True):
        height, width = clip.pixels.shape[1:3]
        resized = _resized(height, width, spec)
        crops = _crops(*resized, spec)
        cut = _cut_float if spec.resize == "float" else _cut_bytes
        for number, frame in enumerate(clip.pixels):
            cut(frame, resized, crops, spec, channels, clip_views[:, number])
    return views.reshape(-1, *views.shape[2:])


def crop_names(width: int, height: int, spec: PreprocessSpec) -> tuple[CropName, ...]:
    """The crops of one clip, in order, for upright frames of `width` x `height` pixels."""
    return tuple(crop.name for crop in _crops(*_resized(height, width, spec), spec))


def _resized(height: int, width: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Height and width that a frame is resized to before it is cropped."""
    if spec.resize == "stretch":
        return spec.size
    portrait = height > width
    short, long = sorted((height, width))
    # A crop that is not square may need more than `short_side`; the published crops never do.
    crop_short, crop_long = (spec.size[1], spec.size[0]) if portrait else spec.size
    new_short = max(spec.short_side, crop_short, math.ceil(crop_long * short / long))
    # The two pipelines round the same ratio in different orders, which can differ by one pixel.
    if new_short == short:
        new_long = long
    elif spec.resize == "float":
        new_long = math.floor(long / short * new_short)
    else:
        new_long = int(new_short * long / short)
    new_long = max(new_long, crop_long)
    return (new_long, new_short) if portrait else (new_short, new_long)


def _crops(height: int, width: int, spec: PreprocessSpec) -> list[_Crop]:
    """Where the crops lie in a resized frame.

    An odd margin puts the centre crop one pixel further right and down in the original code
    (ceil) than in the image processors of transformers (int).
    """
    margins = (height - spec.size[0], width - spec.size[1])
    top, left = (-(-margin // 2) if spec.resize == "float" else margin // 2 for margin in margins)
    center = _Crop("center", top, left)
    if spec.crops == 1:
        return [center]
    if height > width:
        return [_Crop("top", 0, left), center, _Crop("bottom", margins[0], left)]
    return [_Crop("left", top, 0), center, _Crop("right", top, margins[1])]


# For each channel of the network: the channels of a frame that it is the sum of, with the
# normalised value, float32 (256,), that each byte contributes.
_Channels = list[list[tuple[int, NDArray[np.float32]]]]


def _channels(spec: PreprocessSpec) -> _Channels:
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    tables = [(levels - np.float32(mean)) / np.float32(std) for mean, std in zip(spec.mean, spec.std, strict=True)]
    if spec.channel_order == "gray" and spec.resize != "float":
        return [[(0, tables[0])]]  # Pillow has mixed the bytes
    if spec.channel_order == "gray":
        # The weights add up to one, so normalised values mix as the plain ones do.
        return [[(source, np.float32(weight) * tables[0]) for source, weight in enumerate(_LUMA)]]
    sources = (0, 1, 2) if spec.channel_order == "rgb" else (2, 1, 0)
    return [[(source, table)] for source, table in zip(sources, tables, strict=True)]


def _mix(pixels: NDArray[np.uint8], parts: list[tuple[int, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """One normalised channel (H, W) of bytes (H, W, channels)."""
    source, table = parts[0]
    plane = table[pixels[..., source]]
    for source, table in parts[1:]:
        plane += table[pixels[..., source]]
    return plane


def _cut_float(
    frame: NDArray[np.uint8],
    resized: tuple[int, int],
    crops: list[_Crop],
    spec: PreprocessSpec,
    channels: _Channels,
    out: NDArray[np.float32],
) -> None:
    """Write the crops of one frame to `out` (crops, C, H, W), as the original code makes them.

    That is: normalise, `F.interpolate(mode="bilinear", align_corners=False)` without antialiasing,
    crop. Each pixel of a crop depends on four pixels of the frame, so only those are looked up:
    equal to float32 rounding, and neither time nor memory grows with the size of the frame.
    """
    height, width = spec.size
    for crop, planes in zip(crops, out, strict=True):
        upper, lower, down = _neighbours(frame.shape[0], resized[0], crop.top, height)
        before, after, right = _neighbours(frame.shape[1], resized[1], crop.left, width)
        pixels = frame[np.concatenate([upper, lower])][:, np.concatenate([before, after])]
        for parts, plane in zip(channels, planes, strict=True):
            corners = _mix(pixels, parts)  # (2H, 2W): upper and lower rows, left and right columns
            rows = corners[:, :width] * (1 - right) + corners[:, width:] * right
            plane[:] = rows[:height] * (1 - down)[:, None] + rows[height:] * down[:, None]


def _neighbours(
    length: int, resized: int, start: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two source pixels of each resized pixel from `start` on along one axis, and the second's weight.

    PyTorch computes the position in float32 with a fused multiply-add; float64 rounded once is the same.
    """
    scale = float(np.float32(length) / np.float32(resized))
    position = ((np.arange(start, start + count) + 0.5) * scale - 0.5).astype(np.float32)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), length - 1)
    second = np.minimum(first + 1, length - 1)
    return first, second, position - first.astype(np.float32)


def _cut_bytes(
    frame: NDArray[np.uint8],
    resized: tuple[int, int],
    crops: list[_Crop],
    spec: PreprocessSpec,
    channels: _Channels,
    out: NDArray[np.float32],
) -> None:
    """Write the crops of one frame to `out` (crops, C, H, W), as image processors make them.

    That is: resize bytes with Pillow's antialiased bilinear filter, crop, normalise.
    """
    picture = Image.fromarray(frame)
    if spec.channel_order == "gray":
        picture = picture.convert("L")
    height, width = spec.size
    # Resizing only what a crop needs can round a byte differently, by one level; whole frames are exact.
    whole = resized[0] * resized[1] <= _LARGEST_RESIZED
    if whole:
        picture = picture.resize((resized[1], resized[0]), Image.Resampling.BILINEAR)
        per_row = per_column = 1.0
    else:
        per_row, per_column = frame.shape[0] / resized[0], frame.shape[1] / resized[1]
    for crop, planes in zip(crops, out, strict=True):
        bottom, right = crop.top + height, crop.left + width
        box = (crop.left * per_column, crop.top * per_row, right * per_column, bottom * per_row)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
        pixels = pixels.reshape(height, width, -1)  # gray comes without an axis for its one channel
        for parts, plane in zip(channels, planes, strict=True):
            plane[:] = _mix(pixels, parts)
