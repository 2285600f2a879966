"""The contact sheet: an image with every frame of every view, as the model sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from timesformer_cli.errors import OutputError
from timesformer_cli.flow import ViewLabel, Views
from timesformer_cli.specs import Checkpoint, PreprocessSpec
from timesformer_cli.text import plural, printable
from timesformer_cli.video.render import picture

_PAPER = (24, 26, 31)
_INK = (236, 238, 242)
_DIM = (150, 156, 168)
_REPEATED = (244, 184, 78)

_WIDTH = 1920  # lines of frames are wrapped to fit, unless a single frame is wider
_MARGIN = 24
_GAP = 8
_TITLE, _TEXT, _CAPTION = 22, 16, 14  # heights of letters; lines are 1.5 times as high
_LEAST_WIDTH = 560  # room for the heading

# Smaller crops are enlarged, or a frame number and a time would not fit below them.
_LEAST_TILE = 128
# Limits that most programs can open. Crops are shrunk to stay within them, down to _SMALLEST_TILE.
_MOST_PIXELS = 2**25
_MOST_SIDE = 20_000
_SMALLEST_TILE = 64

# A frame as the network sees it, uint8 (H, W, 3), by the numbers of the view and of the frame in it, to one to show.
Paint = Callable[[int, int, NDArray[np.uint8]], NDArray[np.uint8]]


def _unpainted(view: int, place: int, shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return shown


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on a sheet, in pixels.

    `tile` is (width, height) of one frame as shown. A view has as many `lines` as its frames need,
    `columns` on each. `top` is where the first of the `views` begins: its label, and then its frames.
    """

    tile: tuple[int, int]
    columns: int
    lines: int
    views: int
    top: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole sheet."""
        right = 2 * _MARGIN + self.columns * (self.tile[0] + _GAP) - _GAP
        return max(right, _LEAST_WIDTH), self.label(self.views)[1] + _MARGIN - _GAP

    def label(self, view: int) -> tuple[int, int]:
        """Left and top of the label of view number `view`, in pixels."""
        return _MARGIN, self.top + view * (_height(_TEXT) + self.lines * self._line_height + _GAP)

    def box(self, view: int, place: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the frame at `place` of view number `view`."""
        line, column = divmod(place, self.columns)
        left, top = self.label(view)
        left += column * (self.tile[0] + _GAP)
        top += _height(_TEXT) + line * self._line_height
        return left, top, left + self.tile[0], top + self.tile[1]

    @property
    def _line_height(self) -> int:
        return self.tile[1] + _height(_CAPTION) + _GAP


def draw(
    views: Views,
    checkpoint: Checkpoint,
    notes: Sequence[str] = (),
    *,
    paint: Paint = _unpainted,
    most_pixels: int = _MOST_PIXELS,
) -> tuple[Image.Image, Layout]:
    """The sheet of `views`, and its layout: one row per view, its frames with number and time.

    `notes` are added to the heading, and `paint` changes each frame. Below the heading there are at most `most_pixels`
    pixels.

    Raises:
        OutputError: there are more frames than fit into a usable image.
    """
    layout = _lay_out(views, most_pixels)
    width = layout.size[0] - 2 * _MARGIN
    heading = [*_heading(views, checkpoint), *notes, *_remarks(views, checkpoint.preprocess, layout)]
    lines = [line for text in heading for line in _wrapped(text, width)]
    layout = replace(layout, top=layout.top + len(lines) * _height(_TEXT) + 2 * _GAP)
    sheet = Image.new("RGB", layout.size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), _shortened(views.item.path, width), _INK, _font(_TITLE))
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + _height(_TITLE) + number * _height(_TEXT)), line, _DIM, _font(_TEXT))
    for number, (label, pixels) in enumerate(zip(views.labels, views.pixels, strict=True)):
        _draw_label(pen, layout.label(number), label, views)
        seen: set[int] = set()
        for place, frame in enumerate(label.frames):
            box = layout.box(number, place)
            tile = Image.fromarray(paint(number, place, picture(pixels[place], checkpoint.preprocess)))
            sheet.paste(_resized(tile, layout.tile), box)
            _draw_caption(pen, box, frame, float(views.info.times[frame]), again=frame in seen)
            seen.add(frame)
    return sheet, layout


def _lay_out(views: Views, most_pixels: int = _MOST_PIXELS) -> Layout:
    """The layout below the title, with frames as large as possible."""
    height, width = views.pixels.shape[-2:]
    frames = views.pixels.shape[1]
    enlarged = -(-_LEAST_TILE // width)
    for shrunk in count(1):
        tile = (-(-width * enlarged // shrunk), -(-height * enlarged // shrunk))
        if max(tile) < _SMALLEST_TILE:
            break
        fitting = max((_WIDTH - 2 * _MARGIN + _GAP) // (tile[0] + _GAP), 1)
        lines = -(-frames // fitting)
        columns = -(-frames // lines)  # lines of nearly the same length
        layout = Layout(tile, columns, lines, len(views.pixels), _MARGIN + _height(_TITLE))
        if layout.size[0] * layout.size[1] <= most_pixels and max(layout.size) <= _MOST_SIDE:
            return layout
    raise OutputError(
        f"a contact sheet of {len(views.pixels) * frames:,} frames is too large to view; try fewer `clips` or `crops`"
    )


def _heading(views: Views, checkpoint: Checkpoint) -> list[str]:
    info, spec = views.info, checkpoint.preprocess
    clips = len({label.clip for label in views.labels})
    crops = plural(len(views.labels) // clips, "crop")
    return [
        f"{info.width} x {info.height}, {plural(info.num_frames, 'frame')}, {info.duration:.2f} s, "
        f"{info.fps:.4g} frames per second, {info.codec}",
        f"{checkpoint.name}, recipe {checkpoint.recipe.name}: {plural(clips, 'clip')} of "
        f"{plural(views.pixels.shape[1], 'frame')}, {crops} of {spec.size[1]} x {spec.size[0]} pixels",
    ]


def _remarks(views: Views, spec: PreprocessSpec, layout: Layout) -> list[str]:
    """Sentences on how the sheet differs from the input of the network."""
    remarks = []
    if spec.channel_order == "bgr":
        remarks.append("The model gets the channels in the order blue, green, red; the sheet shows true colours.")
    if spec.channel_order == "gray":
        remarks.append("The model gets only brightness, no colours.")
    width = views.pixels.shape[-1]
    if layout.tile[0] > width:
        remarks.append(f"Shown {layout.tile[0] // width} times as large as the model sees them.")
    if layout.tile[0] < width:
        remarks.append(f"Shown at 1/{round(width / layout.tile[0])} of the size that the model sees.")
    return remarks


def _resized(tile: Image.Image, size: tuple[int, int]) -> Image.Image:
    if tile.size == size:
        return tile
    # Enlarged pixels stay squares, so that each can be seen.
    enlarged = size[0] > tile.width
    return tile.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)


def _draw_label(pen: ImageDraw.ImageDraw, at: tuple[int, int], label: ViewLabel, views: Views) -> None:
    name = f"clip {label.clip}, {label.crop}"
    first, last = (float(views.info.times[frame]) for frame in (label.frames[0], label.frames[-1]))
    pen.text(at, name, _INK, _font(_TEXT))
    after = at[0] + pen.textlength(name, _font(_TEXT)) + 2 * _GAP
    pen.text((after, at[1]), f"{first:.2f} to {last:.2f} s", _DIM, _font(_TEXT))


def _draw_caption(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], frame: int, seconds: float, *, again: bool
) -> None:
    left, _, right, bottom = box
    font, below = _font(_CAPTION), bottom + 3
    number, time = f"{frame} again" if again else str(frame), f"{seconds:.2f} s"
    room = right - left - _GAP
    if font.getlength(number) + font.getlength(time) > room:
        number = str(frame)
    pen.text((left, below), number, _REPEATED if again else _INK, font)
    if font.getlength(number) + font.getlength(time) <= room:
        pen.text((right, below), time, _DIM, font, anchor="ra")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _height(letters: int) -> int:
    return letters * 3 // 2


def _plain(text: str) -> str:
    # Pillow's own font, the same on every machine, has only these letters.
    return printable(text).encode("ascii", "backslashreplace").decode("ascii")


def _shortened(path: str, width: int) -> str:
    """`path`, cut at its beginning to fit the width if necessary."""
    text, font = _plain(path), _font(_TITLE)
    if font.getlength(text) <= width:
        return text
    text = text[-(width // 4) :]  # no letter is narrower
    while font.getlength(f"... {text}") > width:
        text = text[1:]
    return f"... {text}"


def _wrapped(text: str, width: int) -> list[str]:
    font = _font(_TEXT)
    lines = [""]
    for word in _plain(text).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]
