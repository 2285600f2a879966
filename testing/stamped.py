"""Videos whose every frame carries its number, drawn as broad bars that survive any compression."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
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
