"""The reference reader: PyAV, with shortcuts only where they are safe.

Frame numbers have one of two meanings, decided when the file is opened.

By time: frame n is the frame with the n-th smallest time stamp. Frames are recognised by their time
stamps, so jumping and skipping cannot confuse them. This requires packets that can be relied on
(see `number_by_time`), and first frames that are decoded as the packets promise.

By count: everything else (raw streams, AVI with B-frames, joined or damaged files). Frame n is the
n-th frame that comes out when the file is decoded from its beginning; this is done once at opening to
count the frames.
"""

from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Frames, VideoInfo
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.cropping import stated_croppings
from timesformer_cli.video.decoders.frame_index import Numbering, number_by_time, times_and_rate
from timesformer_cli.video.decoders.packets import (
    NO_PTS,
    Skimmable,
    Source,
    choose_stream,
    earliest_start,
    is_indexed,
    open_container,
    read_alone,
    read_packets,
    skim_packets,
)
from timesformer_cli.video.decoders.rgb import Converter

# The number of first frames compared with what the packets promise: two, in case a packet holds half a frame,
# and more without an index.
_PROBED = 2
_PROBED_WITHOUT_INDEX = 50

# Memory of a decoder for each pixel: 16 frames of up to three bytes.
_BYTES_PER_PIXEL = 48

# Takes a frame's number, the decoded frame, and its converter, which no other thread uses.
_Put = Callable[[int, VideoFrame, Converter], None]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored frame is turned upright: transposed first, then flipped."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def mirrors(self) -> bool:
        return (self.transpose + self.flip_rows + self.flip_columns) % 2 == 1

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of `picture` (H, W, 3), upright."""
        if self.transpose:
            picture = picture.transpose(1, 0, 2)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def _orientation(frame: VideoFrame) -> Orientation:
    """From the display matrix, rounded to quarter turns, reflections included.

    The matrix is nine 32-bit numbers; [0], [1], [3], [4] hold (a, b, c, d): the stored point
    (x, y) is shown at (a x + c y, b x + d y), up to a shift (ISO/IEC 14496-12, 6.2.2).
    """
    matrix = cast(Any, frame.side_data).get("DISPLAYMATRIX")  # PyAV's stub only lists motion vectors
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(flip_rows=d < 0, flip_columns=a < 0)


def _start(pts: int, container: InputContainer, stream: VideoStream) -> float:
    """When the frame with the time stamp `pts` is shown: seconds from the earliest start of any stream."""
    earliest = earliest_start(container)
    if earliest is None or pts == NO_PTS or not stream.time_base:
        return 0.0
    # AVI counts frames as they are stored, so those that wait for a B-frame get a later number than their own.
    waits = container.format.name == "avi" and stream.codec_context.has_b_frames
    return max(float((pts - int(waits)) * stream.time_base - earliest), 0.0)


class _Unreliable(Exception):
    """A shortcut did not lead where the packets said, or led through damage: decode everything instead."""


class _Cursor:
    """Decodes one open file forward and keeps its position.

    `packets` and `pictures` count the packets in and the frames out, `pts` is the last frame's time stamp;
    `damaged`: some packet could not be decoded.
    """

    def __init__(self, container: InputContainer, stream: int, reading: Reading) -> None:
        self.stream = cast(VideoStream, container.streams[stream])
        read_alone(container, self.stream)
        self.packets = 0
        self.pictures = 0
        self.pts: int | None = None
        self.damaged = False
        self._container = container
        self._context = self.stream.codec_context
        # FFmpeg's threads for one video cost more in total than they save, and hide damage differently.
        self._context.thread_count = 1
        self._context.options = {"max_pixels": str(reading.max_pixels)}
        self._coming = container.demux(self.stream)
        self._peeked: Packet[VideoStream] | None = None

    def jump(self, pts: int) -> int:
        """Go to a key packet at or before `pts`, and return the time stamp of the packet found there.

        Raises:
            _Unreliable: there is no such packet.
        """
        try:
            self._container.seek(pts, stream=self.stream)
        except MemoryError:
            raise
        except FFmpegError as error:
            raise _Unreliable from error
        self._coming = self._container.demux(self.stream)
        self.pts = None
        self.damaged = False
        self._peeked = self._next()
        if self._peeked is None or self._peeked.pts is None:
            raise _Unreliable
        return self._peeked.pts

    def decode(
        self, wanted: Container[int | None] | None = None, last: int | None = None
    ) -> Iterator[list[tuple[int, VideoFrame]]]:
        """The frames after each packet, in the order shown, each with the number of frames before it.

        With `wanted`, a set of time stamps, other frames are skipped if no frame refers to them. With
        `last`, a packet's number, decoding ends with that packet, and only a jump continues. Packets that
        cannot be decoded are skipped, as by FFmpeg's own tools.
        """
        while (last is None or self.packets <= last) and (packet := self._next()):
            self.packets += 1
            self._context.skip_frame = "DEFAULT" if wanted is None or packet.pts in wanted else "NONREF"
            yield self._decoded(packet)
        yield self._decoded(None)

    def _decoded(self, packet: "Packet[VideoStream] | None") -> list[tuple[int, VideoFrame]]:
        try:
            frames = self._context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            self.damaged = True
            return []
        numbered = list(enumerate(frames, self.pictures))
        if frames:
            self.pictures += len(frames)
            self.pts = frames[-1].pts
        return numbered

    def _next(self) -> "Packet[VideoStream] | None":
        packet, self._peeked = self._peeked, None
        while packet is None or not packet.size:  # an empty packet would mean the end to the decoder
            try:
                packet = next(self._coming, None)
            except MemoryError:
                raise
            except FFmpegError:
                return None
            if packet is None:
                return None
        return packet


class PyavReader:
    """Reads frames of one video by number; the module explains what the numbers mean.

    Frames of a different size than the first (a change of resolution) are scaled to the first one's.

    Raises:
        VideoError: as `timesformer_cli.video.reader.open_video` says.
        MemoryError: not enough memory; here and later.
    """

    def __init__(self, source: Source, reading: Reading = Reading()) -> None:
        self._source = source
        self._reading = reading
        self._converter = Converter()
        self._kept: dict[int, VideoFrame] = {}
        packets = skim_packets(source, reading) if isinstance(source, Skimmable) else None
        self._container = open_container(source, reading)
        try:
            # Streams end with their container, which may be opened again; their numbers stay.
            self._number = choose_stream(self._container, source, reading).index
            self._cursor = _Cursor(self._container, self._number, reading)
            self.cropping = stated_croppings(self._container, source).get(self._number)
            self._packets = packets or read_packets(self._container, self._cursor.stream, reading.max_frames)
            codec = self._cursor.stream.codec_context.codec.canonical_name
            self._indexed = is_indexed(self._container)
            self._numbering = number_by_time(self._packets, codec, indexed=self._indexed)
            first, pts = self._first_picture()
            self._shortcuts = self._numbering is not None
            self.orientation = _orientation(first)
            self._stored = (first.width, first.height)
            if self.cropping is not None and min(self.cropping.size(*self._stored)) <= 0:
                self.cropping = None  # it is that of larger frames
            shown = self._stored if self.cropping is None else self.cropping.size(*self._stored)
            width, height = reversed(shown) if self.orientation.transpose else shown
            stream = self._cursor.stream
            times, fps = times_and_rate(pts, stream)
            self.info = VideoInfo(
                times,
                fps,
                width,
                height,
                codec,
                has_stream_duration=stream.duration is not None,
                start=_start(int(pts[0]), self._container, stream),
                container=self._container.format.name,
                pixel_format=stream.codec_context.pix_fmt or "",
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._kept.clear()
        self._container.close()

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        """The requested frames, in the requested order; numbers may repeat.

        Raises:
            VideoError: `decode` if one of them cannot be decoded.
            IndexError: a number is outside the video.
        """
        numbers = np.asarray(frame_numbers, np.int64)
        wanted, slots = np.unique(numbers, return_inverse=True)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.info.num_frames:
            raise IndexError(f"frames {wanted[0]} to {wanted[-1]} of a video that has {self.info.num_frames}")
        pixels = np.empty((len(numbers), self.info.height, self.info.width, 3), np.uint8)
        missing = set(wanted.tolist())

        def put(number: int, frame: VideoFrame, converter: Converter) -> None:
            pixels[wanted[slots] == number] = self._picture(frame, converter)
            missing.discard(number)

        for number in sorted(missing & self._kept.keys()):
            put(number, self._kept[number], self._converter)
        self._read(sorted(missing), put)
        if missing:
            raise VideoError("decode", f"frame {min(missing)} of {self.info.num_frames} is damaged beyond decoding")
        return Frames(pixels, self.info.times[numbers])

    def _first_picture(self) -> tuple[VideoFrame, NDArray[np.int64]]:
        """The first frame and the time stamps of all; decides what frame numbers mean."""
        if self._numbering is not None:
            probed = _PROBED if self._indexed else _PROBED_WITHOUT_INDEX
            first = self._probe(self._numbering.pts[:probed].tolist())
            if first is not None:
                return first, self._numbering.pts
            self._numbering = None
        return self._count()

    def _probe(self, promised: list[int]) -> VideoFrame | None:
        """The first frame; None if the first ones have different time stamps than the packets promise."""
        self._restart()
        first: VideoFrame | None = None
        for pictures in self._cursor.decode():
            for _, frame in pictures:
                first = first or frame
                if frame.pts != promised.pop(0):
                    return None
                if not promised:
                    if not first.is_corrupt:
                        self._kept = {0: first}
                    return first
        return None

    def _count(self) -> tuple[VideoFrame, NDArray[np.int64]]:
        """Decode everything, for the first frame and the time stamps of all."""
        self._restart()
        first: VideoFrame | None = None
        pts: list[int] = []
        room = self._reading.max_kept_bytes
        for pictures in self._cursor.decode():
            for number, frame in pictures:
                first = first or frame
                pts.append(NO_PTS if frame.pts is None else frame.pts)
                room -= sum(plane.buffer_size for plane in frame.planes)
                if room >= 0:
                    self._kept[number] = frame
                else:
                    self._kept.clear()
        if first is not None:
            return first, np.array(pts, np.int64)
        if self._packets.encrypted:
            raise VideoError("unsupported", "the video is encrypted")
        raise VideoError("decode", "no frame can be decoded; the file is damaged or truncated")

    def _restart(self) -> None:
        """Return to the beginning of the file."""
        if self._numbering is not None and self._indexed:
            try:
                self._jump(self._cursor, self._numbering, 0)
            except _Unreliable:
                pass
            else:
                return
        self._container.close()
        self._container = open_container(self._source, self._reading)
        self._cursor = _Cursor(self._container, self._number, self._reading)

    def _jump(self, cursor: _Cursor, numbering: Numbering, place: int) -> None:
        """Move the cursor to the packet `place` of the file, or to a key packet before it.

        Raises:
            _Unreliable: the packet found there is later, not a key, or unknown.
        """
        pts = cursor.jump(int(self._packets.pts[place]))
        number = int(np.searchsorted(numbering.pts, pts))
        if number == len(numbering.pts) or numbering.pts[number] != pts:
            raise _Unreliable
        landed = int(numbering.place[number])
        if landed > place or not self._packets.key[landed]:
            raise _Unreliable
        cursor.packets = landed

    def _read(self, numbers: list[int], put: _Put) -> None:
        """Read the frames with these sorted numbers that can be decoded; if one comes twice, the last is right."""
        if not numbers:
            return
        if self._shortcuts and self._numbering is not None:
            try:
                self._read_runs(self._numbering, numbers, put)
                return
            except _Unreliable:
                self._shortcuts = False
                self._restart()
        for number, frame in self._through(numbers):
            put(number, frame, self._converter)

    def _read_runs(self, numbering: Numbering, numbers: list[int], put: _Put) -> None:
        """The same, decoding little else, with as many threads as the work is worth.

        The threads together do what one thread would do, and every frame comes out the same.

        Raises:
            _Unreliable: a frame was not decoded, or not whole.
        """
        runs = numbering.runs(numbers)
        last_start, _ = runs[-1]

        def read_run(cursor: _Cursor, converter: Converter, start: int, run: list[int]) -> None:
            for number, frame in self._from_key(cursor, numbering, start, run, jumps=start != last_start):
                put(number, frame, converter)

        threads = self._threads_for(numbering, runs)
        if threads == 1:
            for run in runs:
                read_run(self._cursor, self._converter, *run)
            return
        waiting = iter(runs)

        def read_waiting() -> None:
            with closing(open_container(self._source, self._reading)) as container:
                cursor, converter = _Cursor(container, self._number, self._reading), Converter()
                next(cursor.decode())  # x264 states its version there, and decoders work around its old bugs
                for run in waiting:
                    read_run(cursor, converter, *run)

        with ThreadPoolExecutor(threads) as executor:
            futures = [executor.submit(read_waiting) for _ in range(threads)]
            try:
                for future in futures:
                    future.result()
            finally:
                deque(waiting, maxlen=0)

    def _threads_for(self, numbering: Numbering, runs: list[tuple[int, list[int]]]) -> int:
        """The number of threads to read the runs with; each opens the file again."""
        reading = self._reading
        if reading.threads == 1 or not isinstance(self._source, str):
            return 1
        size = self._stored[0] * self._stored[1]
        work = size * sum(int(numbering.place[run].max()) + 1 - start for start, run in runs)
        if work < reading.min_shared_pixels:
            return 1
        return max(min(reading.threads, len(runs), reading.max_decoder_bytes // (size * _BYTES_PER_PIXEL)), 1)

    def _from_key(
        self, cursor: _Cursor, numbering: Numbering, start: int, numbers: list[int], *, jumps: bool
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Frames that can be decoded from packet `start` on, decoding little else; `jumps`: a jump comes next.

        Raises:
            _Unreliable: `start` or a wanted frame was not decoded, or not whole.
        """
        wanted = {int(numbering.pts[number]): number for number in numbers}
        places = numbering.place[numbers]
        start_pts = int(self._packets.pts[start])
        contiguous = start <= cursor.packets <= places.min()
        if not contiguous and (start or cursor is not self._cursor):
            self._jump(cursor, numbering, start)
        elif not contiguous:
            self._restart()
            cursor = self._cursor
        started = contiguous or not start
        # Frames come out some packets late. Before a jump, the decoder is flushed.
        last = int(places.max()) if jumps else None
        for pictures in cursor.decode(wanted if self._packets.spare else None, last):
            for _, frame in pictures:
                started = started or frame.pts == start_pts
                if frame.pts is None or (frame.is_corrupt and frame.pts >= start_pts):
                    raise _Unreliable
                # With gradual refresh, the frame at the so-called key does not come out.
                if frame.pts in wanted:
                    if not started:
                        raise _Unreliable
                    yield wanted.pop(frame.pts), frame
            if cursor.damaged:
                raise _Unreliable
            if not wanted:
                return
        raise _Unreliable

    def _through(self, numbers: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The same, decoding every frame from the beginning of the file."""
        if self._numbering is None:
            wanted = {number: number for number in numbers}
            passed = self._cursor.pictures > numbers[0]
        else:
            wanted = {int(self._numbering.pts[number]): number for number in numbers}
            passed = self._cursor.pts is not None and self._cursor.pts >= min(wanted)
        if passed:
            self._restart()
        for pictures in self._cursor.decode():
            for count, frame in pictures:
                name = count if self._numbering is None else frame.pts
                if name in wanted:
                    yield wanted.pop(name), frame
            if not wanted:
                return

    def _picture(self, frame: VideoFrame, converter: Converter) -> NDArray[np.uint8]:
        """RGB (H, W, 3), cropped, upright, of the first frame's size; valid until the next call."""
        stored = converter.rgb(frame, *self._stored)
        return self.orientation.apply(stored if self.cropping is None else self.cropping.apply(stored))
