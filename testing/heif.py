"""HEIF files (HEIC photographs), made from the first frame of an MP4 file: an item, not a track."""

import struct
from pathlib import Path

import av


def write_photograph(path: Path, video: Path, *, brand: bytes = b"heic", codec: bytes = b"hvc1") -> Path:
    """The first frame of an HEVC video in MP4 as a photograph; `codec` is the type that the file gives its image."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        width, height = stream.width, stream.height
        image = next(bytes(packet) for packet in container.demux(stream) if packet.size)
    content = video.read_bytes()
    start = content.index(b"hvcC") - 4
    settings = content[start : start + int.from_bytes(content[start : start + 4], "big")]
    size = _full_box(b"ispe", struct.pack(">II", width, height))
    # Item 1 has the properties 1 and 2, of which the settings of the decoder are essential.
    properties = _box(b"ipco", settings + size) + _full_box(b"ipma", struct.pack(">IHBBB", 1, 1, 2, 0x81, 0x02))
    entry = _full_box(b"infe", struct.pack(">HH4sx", 1, 0, codec), version=2)
    head = _box(b"ftyp", brand + bytes(4) + b"mif1heic")

    def meta(place: int) -> bytes:
        """With the place of the image in the file."""
        location = struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, place, len(image))
        return _full_box(
            b"meta",
            _full_box(b"hdlr", struct.pack(">I4s13x", 0, b"pict"))
            + _full_box(b"pitm", struct.pack(">H", 1))
            + _full_box(b"iloc", location)
            + _full_box(b"iinf", struct.pack(">H", 1) + entry)
            + _box(b"iprp", properties),
        )

    place = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(place) + _box(b"mdat", image))
    return path


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full_box(kind: bytes, content: bytes, *, version: int = 0) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]) + content)
