"""Frames to real video files."""

from collections.abc import Iterable
from io import BytesIO
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

# With these settings H.264 is the same each time: one thread, for any number of cores, and no tree of macroblocks,
# whose assembler code gives different numbers from one run to the next.
REPEATABLE = {"threads": "1", "mbtree": "0"}


def encode(
    target: Path | BytesIO,
    pictures: Iterable[NDArray[np.uint8]],
    fps: int,
    options: dict[str, str],
    codec: str = "libx264",
) -> None:
    """Write frames of one size, uint8, gray (H, W) or RGB (H, W, 3), as 8-bit 4:2:0 video.

    The suffix of `target` names the container; in memory it is MP4. `options` are the codec's.
    """
    pictures = iter(pictures)
    first = next(pictures)
    with av.open(target, "w", format="mp4" if isinstance(target, BytesIO) else None) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in chain([first], pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="gray" if picture.ndim == 2 else "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
