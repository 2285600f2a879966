"""The published pipelines again, step by step on whole frames, as a reference for the tests.

They share no code with the package. Pixels go in as uint8 (T, H, W, 3), RGB, and come out as float32
(crops, T, C, S, S), crops from left to right or from top to bottom.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Views = NDArray[np.float32]

# (width, height) of frames for the comparison.
SHAPES = [(64, 48), (48, 64), (50, 50), (32, 32), (340, 256), (341, 256), (45, 97), (9, 7), (1280, 720)]


def pictures(width: int, height: int, count: int = 2) -> Pixels:
    """Frames with a coloured slope under noise, each different."""
    rng = np.random.default_rng(width * height)
    y, x = np.mgrid[0:height, 0:width]
    slope = np.stack([x * 180 / width, y * 180 / height, (x + y) * 90 / (width + height)], axis=-1)
    return (slope + rng.integers(0, 76, (count, height, width, 3))).astype(np.uint8)


def original_frames(frames: int, fps: float, count: int, stride: float, *, middle: bool = False) -> list[int]:
    """The released code's single clip for Kinetics; with `middle`, where the paper places it."""
    clip = stride * count / 30 * fps
    start = max(frames - clip, 0) / 2 if middle else 0.0
    return torch.linspace(start, start + clip - 1, count).clamp(0, frames - 1).long().tolist()


def original_views(pixels: Pixels, size: int, *, bgr: bool = False) -> Views:
    """The released code's three crops: normalise, resize without antialiasing, crop."""
    if bgr:
        pixels = pixels[..., ::-1].copy()
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225
    height, width = x.shape[2:]
    if min(height, width) != size:
        if width < height:
            height, width = math.floor(height / width * size), size
        else:
            height, width = size, math.floor(width / height * size)
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    crops = []
    for position in range(3):
        top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
        if height > width:
            top = [0, top, height - size][position]
        else:
            left = [0, left, width - size][position]
        crops.append(x[:, :, top : top + size, left : left + size])
    return torch.stack(crops).numpy()


def extracted(times: Sequence[float], duration: float, rate: float) -> list[int]:
    """The frames of a video that FFmpeg 4, at an output rate of `rate` per second, writes one after the other.

    `times` and `duration` of each frame are in seconds.
    """
    pictures: list[int] = []
    for number, time in enumerate(times):
        stamp = round(time * rate * 65536) / 65536
        stamp += 1 / 131072 if stamp > 0 else -1 / 131072
        length: float = round(float(np.float32(duration * rate)))
        if length == 0:
            length = min(duration * rate, 1)
        begin = stamp - len(pictures)
        end = begin + length
        if end < -1.1:
            continue
        copies = round(end) if end > 1.1 else 1
        before = round(begin - 0.6) if begin > 1.1 else 0
        pictures += [max(number - 1, 0)] * before + [number] * (copies - before)
    return pictures


def something_frames(pictures: Sequence[int], count: int) -> list[int]:
    """The released code's clip for Something-Something, of the images that FFmpeg extracted."""
    part = float(len(pictures) - 1) / count
    chosen = []
    for i in range(count):
        begin, end = int(np.round(part * i)), int(np.round(part * (i + 1)))
        chosen.append(pictures[(begin + end) // 2])
    return chosen


def transformers_frames(frames: int, count: int) -> list[int]:
    """The frames that the video-classification pipeline of transformers 5 takes from a video."""
    return [i * frames // count for i in range(count)]


def transformers_4_frames(frames: int, count: int, rate: int) -> list[int]:
    """What its pipeline takes in version 4, and in 5 with an image processor; the last frame fills short videos."""
    return np.minimum(np.linspace(0, count * rate - 1, num=count, dtype=np.int64), frames - 1).tolist()


def mmaction2_frames(frames: int, count: int, stride: int) -> list[int]:
    """SampleFrames of mmaction2 in test mode with one clip and `out_of_bound_opt="loop"`."""
    offset = max(frames - ((count - 1) * stride + 1), 0) // 2
    return [(offset + i * stride) % frames for i in range(count)]


def mmaction2_views(pixels: Pixels, size: int) -> Views:
    """Resize, ThreeCrop and the normalisation of mmaction2, with exact bilinear resizing rounded to bytes."""
    height, width = pixels.shape[1:3]
    scale = size / min(height, width)
    height, width = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = np.stack([_bilinear_bytes(frame, height, width) for frame in pixels])
    step = ((height - size) // 2, (width - size) // 2)
    crops = []
    for times in (0, 1, 2):
        top, left = step[0] * times, step[1] * times
        crop = resized[:, top : top + size, left : left + size]
        crops.append((crop.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5)
    return np.stack(crops)


def _bilinear_bytes(frame: Pixels, height: int, width: int) -> Pixels:
    columns = _along(frame.astype(np.float64).transpose(1, 0, 2), width).transpose(1, 0, 2)
    return np.rint(_along(columns, height)).astype(np.uint8)


def _along(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    rows = []
    for i in range(length):
        position = min(max((i + 0.5) * len(values) / length - 0.5, 0), len(values) - 1)
        first = int(position)
        second = min(first + 1, len(values) - 1)
        rows.append(values[first] * (1 - (position - first)) + values[second] * (position - first))
    return np.stack(rows)
