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
    # The middle frames of `count` equal parts.
    chosen = [places[len(places) * (2 * part + 1) // (2 * count)] for part in range(count)]
    tiles = [Image.fromarray(picture(pixels[place], spec)) for place in chosen]
    width, height = (max(round(side * _THUMBNAIL_HEIGHT / tiles[0].height), 1) for side in tiles[0].size)
    strip = Image.new("RGB", (count * width, height))
    for number, tile in enumerate(tiles):
        strip.paste(tile.resize((width, height), Image.Resampling.BILINEAR), (number * width, 0))
    file = BytesIO()
    strip.save(file, "WEBP", quality=_THUMBNAIL_QUALITY)
    return file.getvalue()
