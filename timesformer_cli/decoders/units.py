"""The units that a packet of H.264 or HEVC is made of, as far as their headers tell (ITU-T H.264 and H.265, 7.3.1)."""

import re
from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

_START_CODE = re.compile(rb"\x00\x00\x01(..)", re.DOTALL)


def starts_afresh(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Whether a packet holds an IDR picture: nothing after it refers to anything before it.

    Key frames need not (open GOP, gradual refresh). The types are those of H.264, table 7-1, and
    H.265, table 7-1.
    """
    hevc = stream.codec_context.name == "hevc"
    types = [first >> 1 & 63 if hevc else first & 31 for first, _ in _headers(packet, stream)]
    pictures = [kind for kind in types if (kind < 32 if hevc else 1 <= kind <= 5)]
    return bool(pictures) and all(kind in ((19, 20) if hevc else (5,)) for kind in pictures)


def in_lowest_layer(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Whether the picture of an HEVC packet is of the lowest temporal layer."""
    return all(second & 7 == 1 for first, second in _headers(packet, stream) if first >> 1 & 63 < 32)


def _headers(packet: "Packet[VideoStream]", stream: VideoStream) -> Iterator[tuple[int, int]]:
    """The first two bytes of each unit, whether lengths (MP4, Matroska) or start codes (AVI) part them."""
    extradata = stream.codec_context.extradata or b""
    length_at = 21 if stream.codec_context.name == "hevc" else 4
    data = memoryview(packet)
    if len(extradata) <= length_at or extradata[0] != 1:
        yield from ((match[1][0], match[1][1]) for match in _START_CODE.finditer(data))
        return
    size = (extradata[length_at] & 3) + 1
    at = 0
    while at + size + 1 < len(data):
        length = int.from_bytes(data[at : at + size], "big")
        if not length:
            return
        yield data[at + size], data[at + size + 1]
        at += size + length
