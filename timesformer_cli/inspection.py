"""What a video is, and exactly what a model would see of it.

`to_record` has it as plain data, and `save_tensors` the array itself: an .npz file that `numpy.load` reads, with

    pixels  float32 (V, T, C, H, W): what enters the network, a view after another, clip by clip
    frames  int64 (V, T): the frame number of each
    times   float64 (V, T): seconds from the first frame of the video
    clip    int64 (V,): which clip a view shows
    crop    text (V,): which crop of it
    mean, std      float64 (C,): of the normalisation, on a scale from 0 to 1, channel by channel
    channel_order  text: rgb, bgr or gray
    labels  text (K,): the names of the network's classes, in the order of its scores
    path, model, recipe  text
"""

import math
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.devices import available_cores
from timesformer_cli.errors import OutputError, VideoError
from timesformer_cli.pipeline import prepare
from timesformer_cli.records import Failure, Item, VideoInfo, ViewLabel, Views
from timesformer_cli.sources import RemoteFile, is_address, local_path
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.workers import OUT_OF_MEMORY, Done, Limits, Pool

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from timesformer_cli.decoders.packets import Packets, Source

# A stream may begin anywhere; where so many packets give no picture, none will come soon.
_PACKETS_TO_A_PICTURE = 500

# What a header says and what is there may differ by rounding, or by the last frame's duration.
_TOLERANCE, _TOLERANCE_SECONDS = 0.05, 0.5

# Endings of names that leave no doubt of the format, by FFmpeg's name for it.
_FORMAT_OF_NAME = {
    **dict.fromkeys(("mp4", "m4v", "mov"), "mov"),
    **dict.fromkeys(("mkv", "webm"), "matroska"),
    **{name: name for name in ("avi", "flv", "gif")},
}

# Transfer characteristics of high dynamic range, by their numbers in ITU-T H.273.
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class VideoStreamFacts:
    """What a file says of one of its video streams. None: it does not say.

    `frames`, `duration` (seconds) and `fps` are claims. `width` and `height` are as stored, in pixels,
    and `pixel_aspect` is width:height of one. `cover`: a picture to go with the file. `read`: the
    stream that is read.
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


@dataclass(frozen=True, slots=True)
class AudioStreamFacts:
    """What a file says of one of its audio streams; `sample_rate` in hertz."""

    index: int
    codec: str
    sample_rate: int | None
    channels: int | None
    language: str | None


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """How many frames decoding can start at, and from one of them to the next (None: there is one at most)."""

    count: int
    smallest: int | None
    median: float | None
    largest: int | None


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the first picture says.

    To stand upright it is turned by `rotation` degrees clockwise, and then, if `mirrored`, its left
    and right are exchanged. `hdr` is PQ or HLG.
    """

    rotation: int
    mirrored: bool
    interlaced: bool
    hdr: str | None


@dataclass(frozen=True, slots=True)
class PacketFacts:
    """What the packets of the stream that is read say, without decoding.

    `count` of them, of which `hidden` are decoded and not shown; `edited`: by an edit list.
    `b_frames` is None where that takes decoding.
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
    """What a file is. `format` and `format_name` are FFmpeg's; `start` and `duration` are claims, in seconds.

    `picture` and `packets` are None where there are none.
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


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What was found out about one video: `views`, or the `failure` that is in their place.

    `facts` is None for what is no container of video, or cannot be opened.
    """

    item: Item
    facts: Facts | None
    views: Views | None
    failure: Failure | None


def examine(item: Item, checkpoint: Checkpoint, reading: Reading) -> Inspection:
    """What a video is, and what the model of `checkpoint` would see of it."""
    try:
        facts = read_facts(item, reading)
    except VideoError:  # reading it will say why, in its own words
        facts = None
    try:
        return Inspection(item, facts, prepare(item, checkpoint, reading), None)
    except VideoError as error:
        return Inspection(item, facts, None, Failure(item, error.kind, str(error)))


@contextmanager
def examine_all(
    items: Iterable[Item], checkpoint: Checkpoint, reading: Reading, *, keep: bool, workers: int, limits: Limits
) -> Iterator[Iterator[Inspection]]:
    """What comes of each item, in order; `keep`: with the pixels of its views.

    `workers` processes do it, and `limits` is what one video may take. Without workers it is done
    here as it is asked for, and a decoder that hangs or crashes takes the program with it.
    """
    if workers == 0:
        alone = replace(reading, threads=available_cores())
        yield (_examined(item, checkpoint, alone) for item in items)
        return
    task = partial(_carried, checkpoint=checkpoint, reading=reading, keep=keep)
    with Pool(task, items, workers=workers, limits=limits) as pool:
        yield (_received(item, answer) for item, answer in pool.results())


def _examined(item: Item, checkpoint: Checkpoint, reading: Reading) -> Inspection:
    try:
        return examine(item, checkpoint, reading)
    except MemoryError:
        return Inspection(item, None, None, Failure(item, "too_large", OUT_OF_MEMORY))


def _carried(item: Item, threads: int, checkpoint: Checkpoint, reading: Reading, keep: bool) -> Generator[Done]:
    """`examine` in a worker. The pixels go apart from the rest, if they are wanted."""
    inspection = examine(item, checkpoint, replace(reading, threads=threads))
    views = inspection.views
    if views is None:
        yield Done(inspection, np.empty(0, np.float32))
        return
    none = views.pixels[:0]
    yield Done(replace(inspection, views=replace(views, pixels=none)), views.pixels if keep else none)


def _received(item: Item, answer: Done | VideoError) -> Inspection:
    if isinstance(answer, VideoError):
        return Inspection(item, None, None, Failure(item, answer.kind, str(answer)))
    inspection: Inspection = answer.value
    if inspection.views is None:
        return inspection
    return replace(inspection, views=replace(inspection.views, pixels=answer.array))


def read_facts(item: Item, reading: Reading) -> Facts | None:
    """What the file says of itself, its packets and its first picture; None for what is not one file.

    Raises:
        VideoError: it cannot be opened or fetched.
    """
    path = local_path(item.path)
    if is_address(path) and not item.frames:
        with RemoteFile(path) as file:
            facts = _read_facts(cast(BinaryIO, file), reading)
            file.check()
            return facts
    # Never a named pipe, which would keep whoever opens it waiting.
    return _read_facts(path, reading) if os.path.isfile(path) else None


def _read_facts(source: "Source", reading: Reading) -> Facts:
    from timesformer_cli.decoders.packets import choose_stream, moving_streams, open_container

    picture = read = None
    with closing(open_container(source, reading)) as container:
        moving = {stream.index for stream in moving_streams(container)}
        # What is refused, for its size or for want of a decoder, is still described.
        with suppress(VideoError):
            read = choose_stream(container, reading)
            picture = _picture_facts(container, read)
        facts = Facts(
            bytes=container.size,
            format=container.format.name,
            format_name=container.format.long_name,
            start=_seconds(container.start_time),
            duration=_seconds(container.duration),
            video=tuple(
                _video_stream(stream, cover=stream.index not in moving, read=stream is read)
                for stream in container.streams.video
            ),
            audio=tuple(_audio_stream(stream) for stream in container.streams.audio),
            picture=picture,
            packets=None,
        )
        reorders = read is not None and read.codec_context.has_b_frames
    if read is not None:
        with suppress(VideoError):
            packets = _packets(source, reading)
            # AVI counts frames instead.
            return replace(facts, packets=_packet_facts(packets, reorders=reorders, timed=facts.format != "avi"))
    return facts


def _packets(source: "Source", reading: Reading) -> "Packets":
    from timesformer_cli.decoders.packets import Skimmable, choose_stream, open_container, read_packets, skim_packets

    skimmed = skim_packets(source, reading) if isinstance(source, Skimmable) else None
    if skimmed is not None:
        return skimmed
    with closing(open_container(source, reading)) as container:
        return read_packets(container, choose_stream(container, reading), reading.max_frames)


def _seconds(ticks: int | None) -> float | None:
    return None if ticks is None else ticks / 1e6  # of AV_TIME_BASE


def _video_stream(stream: "VideoStream", *, cover: bool, read: bool) -> VideoStreamFacts:
    context = stream.codec_context
    if context is None:  # no decoder, and then PyAV does not say what it is
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
    """From the first picture that can be decoded, if one comes soon."""
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
    """The rotation, degrees clockwise, and the reflection after it, that make a picture stand upright.

    The display matrix holds (a, b, c, d) in [0], [1], [3], [4]: the stored point (x, y) is shown at
    (a x + c y, b x + d y), with y pointing down (ISO/IEC 14496-12, 6.2.2).
    """
    matrix = cast(Any, frame.side_data).get("DISPLAYMATRIX")  # PyAV's stub only lists motion vectors
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    if mirrored:  # its left and right exchanged, what is left is a rotation
        a, c = -a, -c
    return round(math.degrees(math.atan2(b - c, a + d)) / 90) % 4 * 90, mirrored


def _packet_facts(packets: "Packets", *, reorders: bool, timed: bool) -> PacketFacts:
    """`reorders`: the decoder is ready for pictures to be shown in another order than they are stored.

    `timed`: the format has time stamps, so that it can be seen whether they are.
    """
    from timesformer_cli.decoders.packets import NO_PTS

    shown = packets.pts[~packets.hidden]
    reordered = bool((np.diff(shown) < 0).any()) if timed and NO_PTS not in shown else None
    # Counted in frames that are shown.
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


def warnings(inspection: Inspection) -> list[str]:
    """Where a file is not what it says it is, or is damaged: a sentence each."""
    facts = inspection.facts
    if facts is None:
        return []
    found = [*_wrong_name(inspection.item, facts), *_damage(facts)]
    if inspection.views is not None:
        found += _wrong_claims(facts, inspection.views.info)
    return found


def _wrong_name(item: Item, facts: Facts) -> Iterator[str]:
    ending = os.path.splitext(item.path)[1][1:].lower()
    if _FORMAT_OF_NAME.get(ending, facts.format) not in facts.format:
        yield f"it is named .{ending}, and its format is {facts.format_name}"


def _damage(facts: Facts) -> Iterator[str]:
    if facts.packets is None:
        return
    if facts.packets.encrypted:
        yield "it is encrypted"
    if facts.packets.damaged:
        yield "parts of it are damaged or missing"


def _wrong_claims(facts: Facts, info: VideoInfo) -> Iterator[str]:
    stream, packets = facts.read, facts.packets
    if stream is None:
        return
    if stream.frames is not None and stream.frames != info.num_frames:
        reason = "; its edit list leaves out the others" if packets is not None and packets.edited else ""
        yield f"it claims {_plural(stream.frames, 'frame')}, and {info.num_frames} are shown{reason}"
    duration = stream.duration or facts.duration
    if duration is not None and not _agree(duration, info.duration):
        yield f"it claims to last {duration:.2f} s, and its frames last {info.duration:.2f} s"
    # Of few frames the last one's duration, which not every format knows, makes a difference.
    if stream.fps is not None and abs(stream.fps / info.fps - 1) > max(_TOLERANCE, 1 / info.num_frames):
        yield f"it claims {stream.fps:.4g} frames a second, and they come {info.fps:.4g} a second"


def _agree(claimed: float, true: float) -> bool:
    return abs(claimed - true) <= max(_TOLERANCE * true, _TOLERANCE_SECONDS)


def notes(inspection: Inspection) -> list[str]:
    """What to know of how a video is shown to the model: a sentence each."""
    facts = inspection.facts
    if facts is None:
        return []
    found = []
    stream, picture = facts.read, facts.picture
    if stream is not None and stream.pixel_aspect is not None and not _is_square(stream.pixel_aspect):
        found.append(f"its pixels are not square ({stream.pixel_aspect}): the model sees the picture as it is stored")
    if picture is not None and picture.interlaced:
        found.append("it is interlaced: the model sees both fields of a frame at once")
    if picture is not None and picture.hdr is not None:
        found.append(
            f"its colours are {picture.hdr} (high dynamic range): the model sees them flat, as they are stored"
        )
    moving = [stream for stream in facts.video if not stream.cover]
    if stream is not None and len(moving) > 1:
        found.append(f"it has {len(moving)} video streams: stream {stream.index}, the largest, is read")
    return found


def _is_square(aspect: str) -> bool:
    # Sizes that were rounded to whole pixels lead to aspects such as 640:639, which no one can see.
    width, height = map(int, aspect.split(":"))
    return abs(width / height - 1) < 0.02


def to_record(inspection: Inspection, checkpoint: Checkpoint) -> dict[str, Any]:
    """All of it as JSON, with the fields of the records that label videos where they mean the same."""
    head: dict[str, Any] = {"path": inspection.item.path, "status": "ok", "model": checkpoint.name}
    failure, views = inspection.failure, inspection.views
    if failure is not None:
        head |= {"status": "error", "error": {"kind": failure.kind, "message": failure.message}}
    if views is not None:
        head["video"] = _video_record(views.info)
        head["clips"] = [_clip_record(clip, frames, views.info) for clip, frames in enumerate(views.window.clips)]
        head["views"] = [_view_record(view) for view in views.labels]
        head["input"] = [len(views.labels), *views.pixels.shape[1:]]
    head |= {
        "recipe": checkpoint.recipe.name,
        "sampling": asdict(checkpoint.sampling),
        "preprocess": asdict(checkpoint.preprocess),
        "file": None if inspection.facts is None else asdict(inspection.facts),
        "warnings": warnings(inspection),
        "notes": notes(inspection),
    }
    return head


def _video_record(info: VideoInfo) -> dict[str, Any]:
    apart = np.diff(info.times)
    return {
        "duration": _rounded(info.duration),
        "fps": _rounded(info.fps),
        "frames": info.num_frames,
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "frame_spacing": {
            "smallest": _rounded(apart.min()),
            "median": _rounded(np.median(apart)),
            "largest": _rounded(apart.max()),
        }
        if len(apart)
        else None,
        "variable_rate": _is_variable(apart),
    }


def _is_variable(apart: NDArray[np.float64]) -> bool:
    """Whether frames come at uneven times, and not only because times are whole milliseconds."""
    if not len(apart):
        return False
    median = float(np.median(apart))
    return bool(np.abs(apart - median).max() > max(0.0021, 0.05 * median))


def _clip_record(clip: int, frames: NDArray[np.int64], info: VideoInfo) -> dict[str, Any]:
    times = info.times[frames]
    # Between different frames, and forwards: a clip may show one again, or start the video again.
    on = np.diff(frames) > 0
    return {
        "clip": clip,
        "frames": frames.tolist(),
        "times": [_rounded(time) for time in times],
        "start": _rounded(times.min()),
        "end": _rounded(times.max()),
        "stride": float(np.median(np.diff(frames)[on])) if on.any() else None,
        "stride_seconds": _rounded(np.median(np.diff(times)[on])) if on.any() else None,
        "repeated": len(frames) - len(np.unique(frames)),
    }


def _view_record(view: ViewLabel) -> dict[str, Any]:
    record: dict[str, Any] = {"clip": view.clip, "crop": view.crop, "frames": list(view.frames)}
    repeated = len(view.frames) - len(set(view.frames))
    return record | ({"repeated": repeated} if repeated else {})


def _rounded(value: float) -> float | None:
    # A container can state a rate that makes no finite number, and JSON has no other kind.
    return round(float(value), 3) if math.isfinite(value) else None


def save_tensors(file: IO[bytes], views: Views, checkpoint: Checkpoint) -> None:
    """Write what enters the network as .npz; see the module for what it holds."""
    frames = np.array([view.frames for view in views.labels], np.int64)
    spec = checkpoint.preprocess
    np.savez(
        file,
        pixels=views.pixels,
        frames=frames,
        times=views.info.times[frames],
        clip=np.array([view.clip for view in views.labels], np.int64),
        crop=np.array([view.crop for view in views.labels]),
        mean=np.array(spec.mean, np.float64),
        std=np.array(spec.std, np.float64),
        channel_order=np.array(spec.channel_order),
        labels=np.array(checkpoint.labels),
        path=np.array(views.item.path),
        model=np.array(checkpoint.name),
        recipe=np.array(checkpoint.recipe.name),
    )


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file that gets the name `target` when it is whole.

    Raises:
        OutputError: it cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
