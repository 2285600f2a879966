"""The confusion matrix as an image: dark cells mean that many videos of a class get that prediction."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from timesformer_cli.text import printable

_SIDE = 800  # pixels of the matrix, rounded to whole pixels per class
_MOST_NAMED = 60  # with more classes, names would be too small to read
_MARGIN, _TEXT = 16, 14
_PAPER, _INK, _GRID = (255, 255, 255), (40, 40, 46), (222, 224, 230)
_EMPTY = (240, 240, 240)  # rows of classes without videos
_LEAST, _MOST = np.array((250, 251, 254)), np.array((12, 44, 110))
_LONGEST = 28  # letters of a name


def draw(matrix: NDArray[np.int64], labels: Sequence[str]) -> Image.Image:
    """The image of a matrix (K, K) of `metrics.confusion`: rows are classes, from top to bottom, columns predictions.

    Colours show the square root of the share of the row, so that rare mistakes are visible beside correct results.
    """
    classes = len(matrix)
    cell = max(_SIDE // classes, 1)
    names = [_short(label) for label in labels] if classes <= _MOST_NAMED else []
    room = round(max((_font().getlength(name) for name in names), default=0))
    if names:
        cell = max(cell, _TEXT + 2)
    left, top = _MARGIN + (room + 8 if names else 0) + _TEXT + 6, _MARGIN + (room + 8 if names else 0) + _TEXT + 6
    side = cell * classes
    picture = Image.new("RGB", (left + side + _MARGIN, top + side + _MARGIN), _PAPER)
    cells = Image.fromarray(_colours(matrix)).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(cells, (left, top))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((left - 1, top - 1, left + side, top + side), outline=_GRID)
    pen.text((left, _MARGIN), "predicted", _INK, _font())
    _paste_upright(picture, "label of the dataset", (_MARGIN, top))
    for number, name in enumerate(names):
        middle = cell * number + cell // 2
        pen.text((left - 6, top + middle), name, _INK, _font(), anchor="rm")
        _paste_upright(picture, name, (left + middle - _TEXT // 2 - 1, top - 6), above=True)
    return picture


def _colours(matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    videos = matrix.sum(axis=1, keepdims=True)
    depth = np.sqrt(matrix / np.maximum(videos, 1))[..., None]
    colours: NDArray[np.uint8] = np.rint(_LEAST + depth * (_MOST - _LEAST)).astype(np.uint8)
    colours[videos[:, 0] == 0] = _EMPTY
    return colours


def _paste_upright(picture: Image.Image, text: str, at: tuple[int, int], *, above: bool = False) -> None:
    """Write text upwards: `at` is the upper left corner or, with `above`, the lower left one."""
    length = max(round(_font().getlength(text)), 1)
    strip = Image.new("RGB", (length, _TEXT + 4), _PAPER)
    ImageDraw.Draw(strip).text((0, 0), text, _INK, _font())
    picture.paste(strip.rotate(90, expand=True), (at[0], at[1] - length if above else at[1]))


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT)


def _short(label: str) -> str:
    # Pillow's own font, the same on every machine, has only these letters.
    text = printable(label).encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
