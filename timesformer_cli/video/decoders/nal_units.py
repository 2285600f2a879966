"""The units in packets of H.264 and HEVC, as far as their first bytes tell (section 7.3.1 of both standards)."""

import re
from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

_START_CODE = re.compile(rb"\x00\x00\x01")


def starts_afresh(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Whether a packet holds an IDR picture: nothing after it refers to anything before it.

    Not all key frames are IDR pictures (open GOP, gradual refresh). The types are those of H.264, table 7-1, and
    H.265, table 7-1.
    """
    hevc = stream.codec_context.name == "hevc"
    types = [_type(unit, hevc) for unit in _units(packet, stream)]
    pictures = [kind for kind in types if (kind < 32 if hevc else 1 <= kind <= 5)]
    return bool(pictures) and all(kind in ((19, 20) if hevc else (5,)) for kind in pictures)


def starts_whole(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Whether all frames shown after the picture of a key packet can be decoded from that packet on.

    This holds for an IDR picture, in HEVC for any picture that the container may call a key (types 16 to 21), and
    in H.264 if a recovery point states that no further picture is needed (D.2.8).
    """
    if stream.codec_context.name == "hevc":
        types = [_type(unit, True) for unit in _units(packet, stream)]
        return any(16 <= kind <= 21 for kind in types)
    # Payload type 6 is a recovery point; its size comes next; a leading one bit is the count 0.
    recoveries = [unit for unit in _units(packet, stream) if _type(unit, False) == 6 and unit[1] == 6]
    return starts_afresh(packet, stream) or any(len(unit) > 3 and unit[3] & 128 for unit in recoveries)


def in_lowest_layer(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Whether the picture of an HEVC packet is in the lowest temporal layer."""
    return all(unit[1] & 7 == 1 for unit in _units(packet, stream) if _type(unit, True) < 32)


def _type(unit: memoryview, hevc: bool) -> int:
    return unit[0] >> 1 & 63 if hevc else unit[0] & 31


def _units(packet: "Packet[VideoStream]", stream: VideoStream) -> Iterator[memoryview]:
    """The units of at least two bytes, separated by lengths (MP4, Matroska) or start codes (AVI).

    With start codes, each unit extends to the end of the packet.
    """
    extradata = stream.codec_context.extradata or b""
    length_at = 21 if stream.codec_context.name == "hevc" else 4
    data = memoryview(packet)
    if len(extradata) <= length_at or extradata[0] != 1:
        yield from (data[match.end() :] for match in _START_CODE.finditer(data, 0, len(data) - 2))
        return
    size = (extradata[length_at] & 3) + 1
    at = 0
    while at + size + 1 < len(data):
        length = int.from_bytes(data[at : at + size], "big")
        if not length:
            return
        if length > 1:
            yield data[at + size : at + size + length]
        at += size + length
