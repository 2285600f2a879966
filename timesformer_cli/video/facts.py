"""Facts from a file, its packets and its first frame."""

import math
import os
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item
from timesformer_cli.specs import Reading
from timesformer_cli.video.addresses import is_address, local_path
from timesformer_cli.video.decoders.cropping import Cropping, stated_croppings
from timesformer_cli.video.remote import RemoteFile

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from timesformer_cli.video.decoders.packets import Packets, Source


# A stream may begin anywhere; if this many packets give no frame, none will come soon.
_PACKETS_TO_A_PICTURE = 500

# High-dynamic-range transfer characteristics, by their numbers in ITU-T H.273.
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class VideoStreamFacts:
    """The facts that a file states about one of its video streams. None: not stated.

    `frames`, `duration` (seconds) and `fps` are claims. `width` and `height` are as stored, in pixels,
    and `pixel_aspect` is a pixel's width:height. `cover`: an image that goes with the file, or a photograph that is the
    file. `read`: this stream is the one read. `cropping`: pixels at the edges of the stored frames that are not shown.
    """

    index: int
    codec: str
    profile: str | None
    pixel_format: str | None
    width: int
    height: int
    pixel_aspect: str | None
    frames: int | None
    duration: float | None
    fps: float | None
    cover: bool
    read: bool
    cropping: Cropping | None = None


@dataclass(frozen=True, slots=True)
class AudioStreamFacts:
    """The facts that a file states about one of its audio streams; `sample_rate` in hertz."""

    index: int
    codec: str
    sample_rate: int | None
    channels: int | None
    language: str | None


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """The number of frames at which decoding can start, and the distances between them (None for fewer than two)."""

    count: int
    smallest: int | None
    median: float | None
    largest: int | None


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Facts from the first frame.

    To stand upright, it is turned by `rotation` degrees clockwise, and then, if `mirrored`, its left
    and right are exchanged. `hdr` is PQ or HLG.
    """

    rotation: int
    mirrored: bool
    interlaced: bool
    hdr: str | None


@dataclass(frozen=True, slots=True)
class PacketFacts:
    """Facts from the packets of the stream that is read, without decoding.

    There are `count` of them, and `hidden` of these are decoded but not shown; `edited`: by an edit list.
    `b_frames` is None if only decoding could tell.
    """

    count: int
    hidden: int
    edited: bool
    damaged: bool
    encrypted: bool
    b_frames: bool | None
    key_frames: KeyFrames


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of a file. `format` and `format_name` are FFmpeg's; `start` and `duration` are claims, in seconds.

    `picture` and `packets` are None if the file has none.
    """

    bytes: int
    format: str
    format_name: str
    start: float | None
    duration: float | None
    video: tuple[VideoStreamFacts, ...]
    audio: tuple[AudioStreamFacts, ...]
    picture: PictureFacts | None
    packets: PacketFacts | None

    @property
    def read(self) -> VideoStreamFacts | None:
        """The video stream that is read."""
        return next((stream for stream in self.video if stream.read), None)


def read_facts(item: Item, reading: Reading) -> Facts | None:
    """Facts from the file, its packets and its first frame; None if the item is not one file.

    Raises:
        VideoError: the file cannot be opened or fetched.
    """
    path = local_path(item.location)
    if is_address(path) and not item.frames:
        with RemoteFile(path, reading) as file:
            facts = _read_facts(cast(BinaryIO, file), reading)
            file.check()
            return facts
    # Never a named pipe, which would block the reader.
    return _read_facts(path, reading) if os.path.isfile(path) else None


def _read_facts(source: "Source", reading: Reading) -> Facts:
    from timesformer_cli.video.decoders.packets import choose_stream, moving_streams, open_container

    picture = read = None
    with closing(open_container(source, reading)) as container:
        moving = {stream.index for stream in moving_streams(container)}
        croppings = stated_croppings(container, source)
        # Streams refused for their size or for lack of a decoder are described too.
        with suppress(VideoError):
            read = choose_stream(container, source, reading)
            picture = _picture_facts(container, read)
        facts = Facts(
            bytes=container.size,
            format=container.format.name,
            format_name=container.format.long_name,
            start=_seconds(container.start_time),
            duration=_seconds(container.duration),
            video=tuple(
                replace(
                    _video_stream(stream, cover=stream.index not in moving, read=stream is read),
                    cropping=croppings.get(stream.index),
                )
                for stream in container.streams.video
            ),
            audio=tuple(_audio_stream(stream) for stream in container.streams.audio),
            picture=picture,
            packets=None,
        )
        reorders = read is not None and read.codec_context.has_b_frames
    if facts.read is not None:
        with suppress(VideoError):
            packets = _packets(source, facts.read.index, reading)
            # AVI counts frames instead.
            return replace(facts, packets=_packet_facts(packets, reorders=reorders, timed=facts.format != "avi"))
    return facts


def _packets(source: "Source", stream: int, reading: Reading) -> "Packets":
    from timesformer_cli.video.decoders.packets import (
        Skimmable,
        open_container,
        read_packets,
        skim_packets,
    )

    skimmed = skim_packets(source, reading) if isinstance(source, Skimmable) else None
    if skimmed is not None:
        return skimmed
    with closing(open_container(source, reading)) as container:
        return read_packets(container, cast("VideoStream", container.streams[stream]), reading.max_frames)


def _seconds(ticks: int | None) -> float | None:
    return None if ticks is None else ticks / 1e6  # of AV_TIME_BASE


def _video_stream(stream: "VideoStream", *, cover: bool, read: bool) -> VideoStreamFacts:
    context = stream.codec_context
    if context is None:  # without a decoder, PyAV does not describe the stream
        return VideoStreamFacts(stream.index, "unknown", None, None, 0, 0, None, None, None, None, cover, read)
    aspect = context.sample_aspect_ratio
    duration = stream.duration
    return VideoStreamFacts(
        index=stream.index,
        codec=context.codec.canonical_name,
        profile=context.profile,
        pixel_format=context.pix_fmt,
        width=stream.width,
        height=stream.height,
        pixel_aspect=f"{aspect.numerator}:{aspect.denominator}" if aspect else None,
        frames=stream.frames or None,
        duration=float(duration * stream.time_base) if duration and stream.time_base else None,
        fps=float(stream.average_rate) if stream.average_rate else None,
        cover=cover,
        read=read,
    )


def _audio_stream(stream: "AudioStream") -> AudioStreamFacts:
    context = stream.codec_context
    language = None if stream.language in (None, "und") else stream.language
    if context is None:
        return AudioStreamFacts(stream.index, "unknown", None, None, language)
    return AudioStreamFacts(
        stream.index, context.codec.canonical_name, context.sample_rate or None, context.channels or None, language
    )


def _picture_facts(container: "InputContainer", stream: "VideoStream") -> PictureFacts | None:
    """From the first frame that can be decoded, if one comes soon."""
    from av.error import FFmpegError

    context = stream.codec_context
    context.thread_count = 1
    for packet in islice(container.demux(stream), _PACKETS_TO_A_PICTURE):
        try:
            frames = context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            continue
        if frames:
            rotation, mirrored = _turn(frames[0])
            return PictureFacts(rotation, mirrored, frames[0].interlaced_frame, _HDR.get(frames[0].color_trc))
    return None


def _turn(frame: "VideoFrame") -> tuple[int, bool]:
    """The rotation, degrees clockwise, and the reflection after it, that turn a frame upright.

    The display matrix holds (a, b, c, d) in [0], [1], [3], [4]: the stored point (x, y) is shown at
    (a x + c y, b x + d y), with y pointing down (ISO/IEC 14496-12, 6.2.2).
    """
    matrix = cast(Any, frame.side_data).get("DISPLAYMATRIX")  # PyAV's stub only lists motion vectors
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    if mirrored:  # with left and right exchanged, a rotation remains
        a, c = -a, -c
    return round(math.degrees(math.atan2(b - c, a + d)) / 90) % 4 * 90, mirrored


def _packet_facts(packets: "Packets", *, reorders: bool, timed: bool) -> PacketFacts:
    """`reorders`: the decoder is prepared for frames shown in a different order than stored.

    `timed`: the format has time stamps, so they show whether frames are reordered.
    """
    from timesformer_cli.video.decoders.packets import NO_PTS

    shown = packets.pts[~packets.hidden]
    reordered = bool((np.diff(shown) < 0).any()) if timed and NO_PTS not in shown else None
    # Counted in shown frames.
    keys = np.cumsum(~packets.hidden)[packets.key]
    apart = np.diff(keys)
    return PacketFacts(
        count=len(packets.pts),
        hidden=int(packets.hidden.sum()),
        edited=packets.edited,
        damaged=packets.corrupt,
        encrypted=packets.encrypted,
        b_frames=reorders and reordered,
        key_frames=KeyFrames(
            count=len(keys),
            smallest=int(apart.min()) if len(apart) else None,
            median=float(np.median(apart)) if len(apart) else None,
            largest=int(apart.max()) if len(apart) else None,
        ),
    )
