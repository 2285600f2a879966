"""Files that other readers show wrongly, recognised before these readers open them.

These readers assume that key frames are what they claim, that the order of frames in the file or its time stamps
identify frames, and that all frames convert alike. If that does not hold, they show different frames, mostly
without an error.
"""

from collections.abc import Callable
from dataclasses import dataclass

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from timesformer_cli.errors import VideoError
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.packets import (
    choose_stream,
    is_photograph,
    moving_streams,
    open_container,
)


@dataclass(frozen=True, slots=True)
class Abilities:
    """The files that a reader is trusted with.

    `containers`, `codecs`: FFmpeg's names. `reorders`: containers whose B-frames it tells apart.
    `starts`: whether it shows the right frames from a key packet of H.264 or HEVC on. `chooses`: it
    can be told which of several video streams to read. `odd`: it converts frames of odd size like others.
    """

    name: str
    containers: frozenset[str]
    codecs: frozenset[str]
    reorders: Callable[[str, str], bool]
    starts: Callable[["Packet[VideoStream]", VideoStream], bool]
    chooses: bool
    odd: bool

    def refused(self) -> list[str]:
        """What it does not read of these containers and codecs, in words."""
        return [
            *("addresses", "photographs beside the video", "more than 8 bits", "mirrored frames", "cropped frames"),
            *([] if self.chooses else ["several video streams"]),
            *([] if self.odd else ["frames of odd size"]),
        ]


def check(path: str, reading: Reading, abilities: Abilities) -> int:
    """The number of the stream to read in a local file.

    Raises:
        VideoError: as `open_container` and `choose_stream`; `unsupported` for files that the reader is
            not trusted with.
    """
    with open_container(path, reading) as container:
        stream = choose_stream(container, path, reading)
        _check_format(container, stream, abilities)
        _check_keys(container, stream, abilities)
        return stream.index


def unsupported(reason: str) -> VideoError:
    return VideoError("unsupported", f"{reason}; try `decoder=pyav`")


def failed(error: Exception, what: str) -> Exception:
    """The error to raise for an error of a library that has only one kind."""
    words = str(error)
    return MemoryError(words) if "allocate memory" in words or "bad_alloc" in words else unsupported(what)


def _check_format(container: InputContainer, stream: VideoStream, abilities: Abilities) -> None:
    context, who = stream.codec_context, abilities.name
    name, codec = container.format.name.split(",")[0], context.codec.canonical_name
    if name not in abilities.containers:
        raise unsupported(f"{who} does not read {name} files reliably")
    if codec not in abilities.codecs:
        raise unsupported(f"{who} does not read {codec} video reliably")
    if context.has_b_frames and not abilities.reorders(name, codec):
        raise unsupported(f"B-frames without time stamps of their own, which {who} mistakes for one another")
    if len(moving_streams(container)) > 1 and not abilities.chooses:
        raise unsupported(f"several video streams, and {who} may choose a different one")
    if any(is_photograph(container, other) for other in container.streams.video):
        raise unsupported(f"a photograph beside the video, which {who} may count as a stream or not")
    if not abilities.odd and (stream.width % 2 or stream.height % 2):
        raise unsupported(f"{who} blurs frames of odd size ({stream.width} x {stream.height})")
    if context.format is not None and context.format.components[0].bits > 8:
        raise unsupported(f"{who} converts colours of more than 8 bits differently")


def _check_keys(container: InputContainer, stream: VideoStream, abilities: Abilities) -> None:
    if stream.codec_context.name not in ("h264", "hevc"):
        return
    try:
        keys = (packet for packet in container.demux(stream) if packet.size and packet.is_keyframe)
        sound = all(abilities.starts(packet, stream) for packet in keys)
    except MemoryError:
        raise
    except FFmpegError as error:
        raise unsupported("the file is damaged") from error
    if not sound:
        raise unsupported(f"not every key frame can be decoded by itself, but {abilities.name} assumes that they can")
