"""What a file says of its video before anything is decoded: the stream to read and its packets."""

import errno
import os
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError

# Pixels of one picture. 8K (7680 x 4320) is 33 million; less than a megabyte of H.264 can hold one of 256 million.
MAX_PIXELS = 2**26

# Formats that hold their video themselves. Playlists (HLS, DASH, concat, SDP) would make FFmpeg open other
# files or addresses, and its picture formats would pass a photograph off as a video.
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,gif,ogg,h264,hevc,vvc,mpegvideo,m4v,ivf,obu,mxf,nut,yuv4mpegpipe"
)

NO_PTS = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """The packets of one video stream in file order, empty ones left out. Each array is (packets,).

    `pts` int64: when its picture is shown, in the stream's time base; `NO_PTS` where the file does
    not say. `key`: decoding can start there, or so the file says. `hidden`: its picture is decoded
    and never shown. `edited`: an edit list is why some are hidden. `corrupt`: some packet is known to
    be damaged. `encrypted`: some packet is.
    """

    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    edited: bool
    corrupt: bool
    encrypted: bool


def file_url(path: str) -> str:
    """How FFmpeg is told of a file: `concat:a.mp4`, `a:b.mp4` and `-x.mp4` are names and nothing else."""
    return "file:" + os.path.abspath(path)


def open_container(path: str) -> InputContainer:
    """Open a local video file, and nothing else: no address, pipe, playlist or picture.

    Raises:
        VideoError: `decode` for a file that is no video, `unsupported` for a format that is not read.
    """
    # FFmpeg hands max_pixels on to the decoders with which it probes the streams.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)}
    try:
        return av.open(file_url(path), "r", options=options)
    except FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoError(
                "unsupported", "a playlist, a picture or another format that is not read as a video"
            ) from error
        if isinstance(error, PermissionError):
            raise VideoError("unreadable", "permission denied") from error
        raise VideoError(
            "decode", "not a video that FFmpeg knows: a file of another kind, or one that was cut off"
        ) from error


def choose_stream(container: InputContainer) -> VideoStream:
    """The largest video stream, the first of several; cover pictures do not count.

    Raises:
        VideoError: `no_video_stream`; `unsupported` without a decoder; `too_large` for pictures of
            more than `MAX_PIXELS` pixels or an index that cannot be true.
    """
    streams = moving_streams(container)
    if not streams:
        hint = "only a cover picture" if container.streams.video else "is it an audio file?"
        raise VideoError("no_video_stream", f"no video stream; {hint}")
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise VideoError("unsupported", "this build of FFmpeg has no decoder for the video's codec")
    stream = max(streams, key=lambda stream: (stream.width * stream.height, -stream.index))
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(
            "too_large", f"pictures of {stream.width} x {stream.height} pixels; at most {MAX_PIXELS:,} pixels are read"
        )
    # Walking an index of fifty million made-up frames takes gigabytes; a true one has a byte a frame at least.
    if stream.frames > container.size > 0:
        raise VideoError("too_large", f"the header claims {stream.frames:,} frames in {container.size:,} bytes")
    return stream


def moving_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams less cover pictures and thumbnails."""
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def read_packets(container: InputContainer, stream: VideoStream) -> Packets:
    """Read the rest of the file without decoding. What follows a damaged place is not seen.

    Raises:
        VideoError: `decode` when there is no packet at all.
    """
    pts: list[int] = []
    key: list[bool] = []
    hidden: list[bool] = []
    edited = corrupt = encrypted = False
    vp8 = stream.codec_context.name == "vp8"
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            pts.append(NO_PTS if packet.pts is None else packet.pts)
            key.append(packet.is_keyframe)
            # VP8 keeps reference pictures of no moment in time: show_frame in RFC 6386, 9.1.
            hidden.append(packet.is_discard or (vp8 and not memoryview(packet)[0] >> 4 & 1))
            edited = edited or packet.is_discard
            corrupt = corrupt or packet.is_corrupt
            encrypted = encrypted or packet.has_sidedata("encryption_info")
    except FFmpegError:
        corrupt = True
    if not pts:
        raise VideoError("decode", "the video stream is empty; was the file cut off?")
    return Packets(np.array(pts, np.int64), np.array(key), np.array(hidden), edited, corrupt, encrypted)
