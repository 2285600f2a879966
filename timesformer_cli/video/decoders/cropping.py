"""The cropping that a container states: edges of the stored frames that players do not show.

FFmpeg knows it, but PyAV does not pass it on, and decoders do not apply it. So it is read from the file: the clean
aperture of MP4 (ISO/IEC 14496-12, 12.1.4), and PixelCropTop and its like of Matroska (RFC 9559, 5.1.4.1.28).
"""

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.container import InputContainer

# From its content on, where a sample entry of MP4 has its width and height, and where its boxes begin.
_SIZE_AT, _BOXES_AT = 24, 78

# Ids of elements of Matroska.
_SEGMENT, _TRACKS, _TRACK, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0
_WIDTH, _HEIGHT = 0xB0, 0xBA
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
_VIDEO_TYPE = 1

# Start and end of a part of a file.
_Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cropping:
    """How many pixels of a stored frame are not shown, at each of its edges."""

    left: int
    right: int
    top: int
    bottom: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that are left."""
        return width - self.left - self.right, height - self.top - self.bottom

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of `picture` (H, W, 3) without these edges."""
        width, height = self.size(picture.shape[1], picture.shape[0])
        return picture[self.top : self.top + height, self.left : self.left + width]


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a track says of its frames."""

    width: int
    height: int
    cropping: Cropping

    @property
    def crops(self) -> bool:
        """Whether it says something that can be: at least one pixel is left out, and one is shown."""
        edges = (self.cropping.left, self.cropping.right, self.cropping.top, self.cropping.bottom)
        return max(edges) > 0 <= min(edges) and min(self.cropping.size(self.width, self.height)) > 0


def stated_croppings(container: "InputContainer", source: str | BinaryIO) -> dict[int, Cropping]:
    """The cropping of each video stream that has one, by its number in `container`, which was opened from `source`.

    A file object stays at its position.
    """
    kind = container.format.name.split(",")[0]
    if kind not in ("mov", "matroska"):
        return {}
    if isinstance(source, str):
        with open(source, "rb") as file:
            return _of_streams(container, kind, file)
    position = source.tell()
    try:
        return _of_streams(container, kind, source)
    finally:
        source.seek(position)


def _of_streams(container: "InputContainer", kind: str, file: BinaryIO) -> dict[int, Cropping]:
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    whole = (0, file.seek(0, os.SEEK_END))
    if kind == "mov":
        by_number = _mp4_tracks(file, whole)
        stated = [by_number.get(stream.id) for stream in streams]
    else:
        stated = list(_matroska_tracks(file, whole))
        if len(stated) != len(streams):  # it cannot be told which track is which stream
            return {}
    return {
        stream.index: track.cropping
        for stream, track in zip(streams, stated, strict=True)
        # If the stream crops its own frames to this size, it is not done again.
        if track is not None
        and track.crops
        and (stream.width, stream.height) != track.cropping.size(track.width, track.height)
    }


# ---- MP4


def _mp4_tracks(file: BinaryIO, whole: _Place) -> dict[int, _Stated]:
    """What each track with a clean aperture says, by its number."""
    found: dict[int, _Stated] = {}
    for moov in islice(_inside(file, whole, b"moov"), 1):
        for trak in _inside(file, moov, b"trak"):
            for stsd in _inside(file, trak, b"mdia", b"minf", b"stbl", b"stsd"):
                # The first sample entry, after a version and a count.
                for _, start, end in islice(_boxes(file, (stsd[0] + 8, stsd[1])), 1):
                    size = _at(file, start + _SIZE_AT, 4)
                    for clap in _inside(file, (start + _BOXES_AT, end), b"clap"):
                        aperture = _at(file, clap[0], min(clap[1] - clap[0], 32))
                        if len(size) == 4 and len(aperture) == 32:
                            width, height = struct.unpack(">HH", size)
                            found[_track_number(file, trak)] = _clean_aperture(width, height, aperture)
    return found


def _track_number(file: BinaryIO, trak: _Place) -> int:
    """0, which no track has, if it is not stated."""
    for start, _ in _inside(file, trak, b"tkhd"):
        head = _at(file, start, 24)
        return int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16])
    return 0


def _clean_aperture(width: int, height: int, content: bytes) -> _Stated:
    """The aperture is centred, but for its offsets.

    It is rounded as FFmpeg does: pixels that lie in it in part are shown, and it may reach over the edge by less than
    one.
    """
    numbers = struct.unpack(">IIIIiIiI", content)
    if 0 in numbers[1::2]:
        return _Stated(width, height, Cropping(0, 0, 0, 0))
    aperture_width, aperture_height, right, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
    left, top = (width - aperture_width) / 2 + right, (height - aperture_height) / 2 + down
    cropping = Cropping(
        math.trunc(left),
        math.ceil(width - aperture_width - left),
        math.trunc(top),
        math.ceil(height - aperture_height - top),
    )
    return _Stated(width, height, cropping)


def _inside(file: BinaryIO, place: _Place, *path: bytes) -> Iterator[_Place]:
    """The contents of the boxes at this path."""
    if not path:
        yield place
        return
    for kind, start, end in _boxes(file, place):
        if kind == path[0]:
            yield from _inside(file, (start, end), *path[1:])


def _boxes(file: BinaryIO, place: _Place) -> Iterator[tuple[bytes, int, int]]:
    """The boxes at a place: kind, start and end of the content."""
    start, end = place
    while start + 8 <= end:
        head = _at(file, start, 16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        content = start + (16 if size == 1 else 8)
        stop = {0: end, 1: start + int.from_bytes(head[8:])}.get(size, start + size)
        if stop < content:
            return
        yield kind, content, min(stop, end)
        start = stop


# ---- Matroska


def _matroska_tracks(file: BinaryIO, whole: _Place) -> Iterator[_Stated]:
    """What each video track says."""
    for tracks in islice(_below(file, whole, _SEGMENT, _TRACKS), 1):
        for track in _below(file, tracks, _TRACK):
            if _numbers(file, track).get(_TYPE) == _VIDEO_TYPE:
                video: dict[int, int] = {}
                for place in _below(file, track, _VIDEO):
                    video = _numbers(file, place)
                cropping = Cropping(*(video.get(edge, 0) for edge in (_LEFT, _RIGHT, _TOP, _BOTTOM)))
                yield _Stated(video.get(_WIDTH, 0), video.get(_HEIGHT, 0), cropping)


def _numbers(file: BinaryIO, place: _Place) -> dict[int, int]:
    """The elements there that are as short as numbers, as numbers."""
    return {
        name: int.from_bytes(_at(file, start, end - start))
        for name, start, end in _elements(file, place)
        if end - start <= 8
    }


def _below(file: BinaryIO, place: _Place, *path: int) -> Iterator[_Place]:
    """The contents of the elements at this path."""
    if not path:
        yield place
        return
    for name, start, end in _elements(file, place):
        if name == path[0]:
            yield from _below(file, (start, end), *path[1:])


def _elements(file: BinaryIO, place: _Place) -> Iterator[tuple[int, int, int]]:
    """The elements at a place: id, start and end of the content. One of unknown size reaches to the end of the place.

    The first byte of an id and of a size tells its length by its leading zeros (RFC 8794, 4 and 5).
    """
    start, end = place
    while start < end:
        head = _at(file, start, 12)
        name_length = 9 - head[0].bit_length() if head else 9
        if name_length > 4 or len(head) <= name_length:
            return
        length = 9 - head[name_length].bit_length()
        if length > 8 or len(head) < name_length + length:
            return
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(head[name_length : name_length + length]) & unknown
        content = start + name_length + length
        stop = end if size == unknown else content + size
        yield int.from_bytes(head[:name_length]), content, min(stop, end)
        start = stop


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
