"""Network input as images for people."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.flow import Pixels, ViewLabel
from timesformer_cli.specs import PreprocessSpec
from timesformer_cli.video.preprocess import to_levels

# Ten thousand thumbnails of four frames fit into one page, at some 3 kB each.
_THUMBNAIL_HEIGHT = 72
_THUMBNAIL_QUALITY = 55

# Frames of a moving picture, and the pixels that each has at most: wide, high. It has some 30 kB.
FILM_FRAMES = 8
_FILM_SIZE = (240, 320)
_FILM_QUALITY = 50


def picture(pixels: Pixels, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Network input (C, H, W) as an image for people, RGB (H, W, 3).

    Channels that the network takes in a different order are put back in order, and gray is shown as gray.
    """
    levels = to_levels(pixels, spec)
    if spec.channel_order == "bgr":
        levels = levels[::-1]
    return np.broadcast_to(levels.transpose(1, 2, 0), (*levels.shape[1:], 3)).copy()


def thumbnail(pixels: Pixels, labels: Sequence[ViewLabel], spec: PreprocessSpec, count: int) -> bytes:
    """A WebP image of `count` of the network's frames side by side, in order of time.

    `pixels` (V, T, C, H, W) are the network's input, `labels` those of its views. Of several crops, it shows the
    middle one.
    """
    shown = [number for number, label in enumerate(labels) if label.crop == "center"]
    places = [(view, frame) for view in shown for frame in range(pixels.shape[1])]
    return strip([still(picture(pixels[places[at]], spec)) for at in middles(len(places), count)])


def middles(length: int, count: int) -> list[int]:
    """The middle places of `count` equal parts of a sequence; places repeat if it is shorter."""
    return [length * (2 * part + 1) // (2 * count) for part in range(count)]


def still(frame: NDArray[np.uint8]) -> Image.Image:
    """A frame, RGB (H, W, 3), as a thumbnail shows it."""
    return _scaled(Image.fromarray(frame), _THUMBNAIL_HEIGHT / frame.shape[0])


def film_frame(frame: NDArray[np.uint8]) -> Image.Image:
    """A frame, RGB (H, W, 3), as a film shows it."""
    image = Image.fromarray(frame)
    return _scaled(image, min(1.0, *(most / side for most, side in zip(_FILM_SIZE, image.size, strict=True))))


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    width, height = (max(round(side * scale), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def strip(stills: Sequence[Image.Image]) -> bytes:
    """Frames of one size side by side, as a WebP image."""
    width, height = stills[0].size
    sheet = Image.new("RGB", (len(stills) * width, height))
    for number, each in enumerate(stills):
        sheet.paste(each, (number * width, 0))
    return _webp(sheet, _THUMBNAIL_QUALITY)


def film(frames: Sequence[Image.Image]) -> bytes:
    """`FILM_FRAMES` of one size in a column, as a WebP image; a page moves it, and shows one frame at a time."""
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, len(frames) * height))
    for number, each in enumerate(frames):
        sheet.paste(each, (0, number * height))
    return _webp(sheet, _FILM_QUALITY)


def stills_of(film: bytes, count: int) -> bytes:
    """A `strip` of `count` frames of a film."""
    with Image.open(BytesIO(film), formats=["WEBP"]) as column:
        height = column.height // FILM_FRAMES
        tops = [place * height for place in middles(FILM_FRAMES, count)]
        frames = [column.crop((0, top, column.width, top + height)) for top in tops]
    return strip([still(np.asarray(frame)) for frame in frames])


def _webp(image: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", quality=quality)
    return file.getvalue()
