"""Videos whose every frame carries its number, drawn as broad bars that survive any compression."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_BITS = 10
WIDTH, HEIGHT = 16 * (_BITS + 2), 64

# For libx264: key frames every 12 frames and nowhere else, and up to three B-frames in a row.
SHORT_GOP = {"preset": "veryfast", "g": "12", "keyint_min": "12", "sc_threshold": "0", "bf": "3", "crf": "20"}
LONG_GOP = {**SHORT_GOP, "g": "250", "keyint_min": "250"}


def stamp(number: int) -> Pixels:
    """An image (64, 192, 3) of `number`, below 1024: a white bar, its bits, a black bar, and grey below.

    The white, the black and the grey reveal an image that is turned or mirrored.
    """
    bits = [1, *(number >> bit & 1 for bit in reversed(range(_BITS))), 0]
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[: HEIGHT * 5 // 8] = np.repeat(np.array(bits, np.uint8) * 255, 16)[None, :, None]
    return picture


def read_stamp(picture: Pixels) -> int:
    """The number on an image of any size. Raises AssertionError if it is not an upright stamp."""
    height, width = picture.shape[:2]
    grey = picture.mean(2)
    below = grey[height * 3 // 4 : height * 7 // 8]
    assert 100 < below.min() <= below.max() < 156, "no grey below the bars"
    bars = grey[height // 8 : height // 2].mean(0).reshape(_BITS + 2, width // (_BITS + 2))
    middle = bars[:, bars.shape[1] // 4 : -(bars.shape[1] // 4)].mean(1)
    assert all(value < 70 or value > 185 for value in middle), f"bars neither black nor white: {middle.round()}"
    bits = [int(value > 128) for value in middle]
    assert (bits[0], bits[-1]) == (1, 0), "the bars do not stand the right way round"
    return int("".join(map(str, bits[1:-1])), 2)


def read_stamps(pictures: Pixels) -> list[int]:
    """The numbers on images (T, H, W, 3)."""
    return [read_stamp(picture) for picture in pictures]


def write_video(
    path: Path,
    pictures: int | Iterable[Pixels],
    *,
    codec: str = "libx264",
    rate: Fraction | int = 30,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    milliseconds: Sequence[int] | None = None,
    matrix: Sequence[int] | None = None,
    muxer_options: dict[str, str] | None = None,
) -> Path:
    """Encode images, or that many stamps from 0 on; the container follows from the name's ending.

    `milliseconds`: when each frame is shown, for a variable frame rate. `matrix`: a display matrix.
    """
    frames = map(stamp, range(pictures)) if isinstance(pictures, int) else iter(pictures)
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=SHORT_GOP if options is None else options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1  # for frames this small, starting threads is most of the work
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                if matrix is not None:
                    stream.set_display_matrix(matrix)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if milliseconds is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), milliseconds[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True, slots=True)
class Track:
    """A video stream of stamps from `first` on, each `scale` times as large, that starts at `start` seconds."""

    frames: int
    first: int = 0
    scale: int = 1
    start: Fraction = Fraction(0)
    default: bool = True


def write_tracks(path: Path, *tracks: Track, sound: float = 0, muxer_options: dict[str, str] | None = None) -> Path:
    """Video streams of 30 frames per second side by side, and `sound` seconds of silence from 0 on."""
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        streams = []
        for track in tracks:
            stream = container.add_stream("libx264", rate=30, options=SHORT_GOP)
            stream.height, stream.width, stream.pix_fmt = HEIGHT * track.scale, WIDTH * track.scale, "yuv420p"
            stream.codec_context.thread_count = 1
            stream.disposition = Disposition.default if track.default else Disposition(0)
            streams.append(stream)
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for track, stream in zip(tracks, streams, strict=True):
            for number in range(track.frames):
                picture = np.kron(stamp(track.first + number), np.ones((track.scale, track.scale, 1), np.uint8))
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.time_base, frame.pts = Fraction(1, 30), number + round(track.start * 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if audio is not None:
            for start in range(0, round(sound * 16000), 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 16000, start
                container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path
