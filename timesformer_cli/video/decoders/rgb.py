"""Decoded frames in RGB."""

from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError

# Above 8 bits the defaults are several levels off the formula; with these flags, at most one.
_DEEP = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


class Converter:
    """Converts frames to RGB with FFmpeg's `scale`, as its command line does.

    PyAV's own `reformat` is slower and different: its results differ for frames that are interlaced, of odd
    size, or of more than 8 bits.
    """

    def __init__(self) -> None:
        self._graph = Graph()
        self._setting: tuple[object, ...] = ()

    def rgb(self, frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
        """The frame scaled to this size, (H, W, 3), RGB; the next call overwrites its memory.

        Raises:
            VideoError: `decode` if FFmpeg cannot convert it.
        """
        kind = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        try:
            if (*kind, width, height) != self._setting:
                self._setting = ()
                self._graph = _graph(frame, width, height)
                self._setting = (*kind, width, height)
            self._graph.vpush(frame)
            plane = self._graph.vpull().planes[0]
        except MemoryError:
            raise
        except FFmpegError as error:
            raise VideoError("decode", f"frames of {frame.format.name} cannot be converted to RGB") from error
        rows = np.asarray(memoryview(plane), np.uint8)[: plane.line_size * height].reshape(height, plane.line_size)
        return rows[:, : 3 * width].reshape(height, width, 3)


def _graph(frame: VideoFrame, width: int, height: int) -> Graph:
    graph = Graph()
    # Starting more threads for each frame takes many times longer than converting it.
    graph.threads = 1
    # Scaling does not use the time.
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    flags = _DEEP if frame.format.components[0].bits > 8 else "bicubic"
    steps = [graph.add("scale", f"{width}:{height}:flags={flags}"), graph.add("format", "rgb24")]
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph
