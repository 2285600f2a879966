"""The facts that a file states about its video before decoding: the stream to read and its packets."""

import errno
import math
import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Protocol, cast, runtime_checkable

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.nal_units import in_lowest_layer

# A path, or a seekable binary file object, which stays open.
Source = str | BinaryIO


@runtime_checkable
class Skimmable(Protocol):
    """A file object that can be told to read zeros for the frames and sound of MP4 files, instead of fetching them."""

    def skimming(self) -> AbstractContextManager[None]: ...


# Formats that hold their video themselves. Playlists (HLS, DASH, concat, SDP) would make FFmpeg open other
# files or addresses, and its image formats would read a photograph as a video.
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,gif,ogg,h264,hevc,vvc,mpegvideo,m4v,ivf,obu,mxf,nut,yuv4mpegpipe"
)

# A video stream with fewer frames than this share of the longest one's is a preview or a poster, not the film.
_FEW = 0.01

# The main brands of photographs: HEIF in general, and with HEVC, AVC and AV1 (ISO/IEC 23008-12, annexes B to E).
_PHOTOGRAPHS = frozenset(["mif1", "mif2", "heic", "heix", "heim", "heis", "avci", "avif"])

# Codecs whose packets mark frames that no other refers to, or have a type for them (B-pictures of MPEG).
_SPARE = ("h264", "mpeg1video", "mpeg2video")

NO_PTS = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """The packets of one video stream in file order, without empty ones. Each array is (packets,).

    `pts` int64: when its frame is shown, in the stream's time base; `NO_PTS` if the file does not
    state it. `key`: decoding can start there, according to the file. `hidden`: its frame is decoded
    but never shown. `edited`: an edit list hides some of them. `corrupt`: some packet is known to be
    damaged. `encrypted`: the first packet is. `spare`: FFmpeg's mark of frames that no other frame
    refers to can be trusted.
    """

    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    edited: bool
    corrupt: bool
    encrypted: bool
    spare: bool


def file_url(path: str) -> str:
    """The URL of a file for FFmpeg, so that `concat:a.mp4`, `a:b.mp4` and `-x.mp4` are only names."""
    return "file:" + os.path.abspath(path)


def open_container(source: Source, reading: Reading = Reading(), *, parse: bool = True) -> InputContainer:
    """Open one video file, and nothing else: no address, pipe, playlist or image.

    A file object is read from its beginning. Errors that it raises pass through, here and later. Without
    `parse`, FFmpeg does not look into packets for more than the container states.

    Raises:
        VideoError: `decode` if the file is not a video, `unsupported` if its format is not read.
        MemoryError: not enough memory.
    """
    # FFmpeg passes max_pixels to the decoders with which it probes the streams.
    options = {"format_whitelist": CONTAINERS, "max_pixels": str(reading.max_pixels)}
    if not parse:
        options["fflags"] = "noparse"
    try:
        if isinstance(source, str):
            return av.open(
                file_url(source), "r", metadata_errors="replace", options=options | {"protocol_whitelist": "file"}
            )
        source.seek(0)
        return av.open(source, "r", metadata_errors="replace", options=options | {"protocol_whitelist": ""})
    except MemoryError:
        raise
    except FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoError(
                "unsupported", "a playlist, an image or another format that is not read as a video"
            ) from error
        if isinstance(error, PermissionError):
            raise VideoError("unreadable", "permission denied") from error
        raise VideoError(
            "decode", "not a video that FFmpeg knows: a different kind of file, or a truncated one"
        ) from error


def choose_stream(container: InputContainer, source: Source, reading: Reading = Reading()) -> VideoStream:
    """The stream of the film in `container`, which was opened from `source` and stays as it is.

    Cover images and photographs do not count. Of several streams, those of one frame, or of fewer than 1 % of the
    frames of the longest, come last. Then the one that the container marks as default goes before others, the larger
    one before the smaller, the longer before the shorter, and the first before the next.

    Raises:
        VideoError: `no_video_stream`; `unsupported` for photographs and without a decoder; `too_large` if frames
            exceed the limit or the index cannot be true.
        MemoryError: FFmpeg ran out of memory.
    """
    streams = moving_streams(container)
    if not streams:
        raise _no_stream(container)
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise VideoError("unsupported", "this build of FFmpeg has no decoder for the video's codec")
    stream = streams[0] if len(streams) == 1 else _film(container, streams, source, reading)
    pixels = stream.width * stream.height
    if pixels > reading.max_pixels:
        raise VideoError(
            "too_large",
            f"frames of {stream.width} x {stream.height} = {pixels:,} pixels; `max_pixels` is {reading.max_pixels:,}",
        )
    # Reading an index of fifty million made-up frames takes gigabytes; a true one has at least one byte per frame.
    if stream.frames > container.size > 0:
        raise VideoError("too_large", f"the header claims {stream.frames:,} frames in {container.size:,} bytes")
    return stream


def _no_stream(container: InputContainer) -> VideoError:
    videos = container.streams.video
    brand = container.metadata.get("major_brand", "")
    if any(is_photograph(container, stream) for stream in videos) or (not videos and brand in _PHOTOGRAPHS):
        return VideoError("unsupported", "a photograph (HEIC, AVIF or another HEIF), which is not read as a video")
    return VideoError(
        "no_video_stream", f"no video stream; {'only a cover image' if videos else 'is it an audio file?'}"
    )


def _film(container: InputContainer, streams: list[VideoStream], source: Source, reading: Reading) -> VideoStream:
    extents = _extents(container, streams, source, reading)
    longest = max(extents[stream.index].frames for stream in streams)
    films = [s for s in streams if extents[s.index].frames > 1 and extents[s.index].frames >= _FEW * longest]

    def rank(stream: VideoStream) -> tuple[bool, int, float, int]:
        is_default = bool(stream.disposition & Disposition.default)
        return is_default, stream.width * stream.height, extents[stream.index].seconds, -stream.index

    return max(films or streams, key=rank)


@dataclass(slots=True)
class _Extent:
    """The length of a stream by its packets; `first` and `last` are times in seconds."""

    frames: int = 0
    first: float = math.inf
    last: float = -math.inf

    @property
    def seconds(self) -> float:
        return max(self.last - self.first, 0.0)

    def add(self, packet: "Packet[Stream]") -> None:
        self.frames += 1
        if packet.pts is not None:
            time = float(packet.pts * packet.time_base)
            self.first, self.last = min(self.first, time), max(self.last, time)


def _extents(
    container: InputContainer, streams: list[VideoStream], source: Source, reading: Reading
) -> dict[int, _Extent]:
    """The extents of streams by their numbers: headers are often wrong about them, or silent.

    The file is opened a second time, so that `container` stays where it is. Reading ends after `reading.max_frames`
    frames of one stream.
    """
    extents = {stream.index: _Extent() for stream in streams}
    with ExitStack() as stack:
        if not isinstance(source, str):
            stack.callback(source.seek, source.tell())
        skimmable = source if isinstance(source, Skimmable) and _is_mp4(container) else None
        other = stack.enter_context(open_container(source, reading, parse=skimmable is None))
        for stream in other.streams:
            if stream.index not in extents:
                stream.discard = Discard.all
        if skimmable is not None:
            stack.enter_context(skimmable.skimming())
        try:
            for packet in other.demux(*(other.streams[number] for number in extents)):
                if packet.size and not packet.is_discard:
                    extents[packet.stream_index].add(packet)
                    if extents[packet.stream_index].frames > reading.max_frames:
                        break
        except MemoryError:
            raise
        except FFmpegError:
            pass  # a damaged place: the packets before it decide
    return extents


def earliest_start(container: InputContainer) -> Fraction | None:
    """The earliest start of any stream, in seconds on the clock of the file; None if the file does not say.

    Images have no time. In formats without an index, subtitles and data count only if they start less than a second
    before the rest, as for FFmpeg: there, they are seldom in step.
    """
    still = {stream.index for stream in container.streams.video} - {each.index for each in moving_streams(container)}
    starts: dict[bool, list[Fraction]] = {True: [], False: []}
    for stream in container.streams:
        if stream.start_time is not None and stream.time_base is not None and stream.index not in still:
            starts[stream.type in ("video", "audio")].append(stream.start_time * stream.time_base)
    first = min(starts[True], default=None)
    others = [start for start in starts[False] if is_indexed(container) or (first is not None and first - start < 1)]
    return min([*starts[True], *others], default=None)


def read_alone(container: InputContainer, stream: VideoStream) -> None:
    """Discard the packets of all other streams."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def moving_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams except cover images, thumbnails and photographs."""
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [
        stream
        for stream in container.streams.video
        if not (stream.disposition & still or is_photograph(container, stream))
    ]


def is_photograph(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a stream is an image of HEIF (HEIC, AVIF): an item of the file, not a track of frames with times.

    FFmpeg gives items one frame, without a duration, on a clock of whole seconds.
    """
    return _is_mp4(container) and stream.frames == 1 and stream.duration is None and stream.time_base == 1


def is_indexed(container: InputContainer) -> bool:
    """Whether its format has an index that can be trusted; transport streams, AVI and the rest have none."""
    return container.format.name.split(",")[0] in ("mov", "matroska")


def _is_mp4(container: InputContainer) -> bool:
    return container.format.name.startswith("mov,")


def skim_packets(source: Skimmable, reading: Reading) -> Packets | None:
    """The packets of an MP4 file, fetching hardly more than its index; None for other files.

    Raises:
        VideoError: as `choose_stream` and `read_packets`.
    """
    with open_container(cast(BinaryIO, source), reading, parse=False) as container:
        stream = choose_stream(container, cast(BinaryIO, source), reading)
        if not _is_mp4(container) or _looks_inside(stream):
            return None
        with source.skimming():
            return read_packets(container, stream, reading.max_frames, skimmed=True)


def _looks_inside(stream: VideoStream) -> bool:
    return stream.codec_context.name == "vp8"


def read_packets(container: InputContainer, stream: VideoStream, max_frames: int, *, skimmed: bool = False) -> Packets:
    """Read the rest of the file without decoding. Packets after a damaged place are not seen.

    `skimmed`: the packets hold only zeros.

    Raises:
        VideoError: `decode` if there is no packet, `too_large` at the first packet too many.
        MemoryError: FFmpeg ran out of memory.
    """
    pts: list[int] = []
    key: list[bool] = []
    hidden: list[bool] = []
    edited = corrupt = encrypted = False
    inside = _looks_inside(stream)
    # In HEVC the mark holds only for a picture's own temporal layer.
    layers = stream.codec_context.name == "hevc"
    spare = stream.codec_context.name in _SPARE or (layers and not skimmed)
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if len(pts) == max_frames:
                raise VideoError("too_large", f"more frames than `max_frames`, which is {max_frames:,}")
            encrypted = encrypted or (not pts and packet.has_sidedata("encryption_info"))
            pts.append(NO_PTS if packet.pts is None else packet.pts)
            key.append(packet.is_keyframe)
            # VP8 has reference frames that are never shown: show_frame in RFC 6386, 9.1.
            hidden.append(packet.is_discard or (inside and not memoryview(packet)[0] >> 4 & 1))
            edited = edited or packet.is_discard
            spare = spare and not (layers and not in_lowest_layer(packet, stream))
            corrupt = corrupt or packet.is_corrupt
    except MemoryError:
        raise
    except FFmpegError:
        corrupt = True
    if not pts:
        raise VideoError("decode", "the video stream is empty; is the file truncated?")
    return Packets(np.array(pts, np.int64), np.array(key), np.array(hidden), edited, corrupt, encrypted, spare)
