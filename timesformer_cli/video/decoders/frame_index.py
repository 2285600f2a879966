"""Frame numbers, times and frame rate from time stamps; only arithmetic."""

from dataclasses import dataclass

import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from timesformer_cli.video.decoders.packets import NO_PTS, Packets

# In other codecs a packet may hold no frame to show, without marking it: MPEG-4 has "not coded" ones.
_ONE_FRAME_PER_PACKET = frozenset(
    "h264 hevc vvc av1 vp8 vp9 prores dnxhd mjpeg ffv1 rawvideo mpeg1video mpeg2video".split(" ")  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, eq=False)
class Numbering:
    """Frames identified by their time stamps; each array is int64 (frames,), in the order shown.

    `pts`: the time stamp. `place`: the number of the packet in the file that holds the frame. `start`: the packet to
    begin decoding at; all 0 if decoding must start at the beginning of the file.
    """

    pts: NDArray[np.int64]
    place: NDArray[np.int64]
    start: NDArray[np.int64]

    def runs(self, numbers: list[int]) -> list[tuple[int, list[int]]]:
        """Sorted frame numbers in runs, each with the packet to begin decoding at.

        A new run begins if jumping to its packet skips packets that reading on would decode.
        """
        runs: list[tuple[int, list[int]]] = []
        reached = 0
        for number in numbers:
            start = int(self.start[number])
            if not runs or start > reached:
                runs.append((start, []))
            runs[-1][1].append(number)
            reached = max(reached, int(self.place[number]) + 1)
        return runs


def number_by_time(packets: Packets, codec: str, *, indexed: bool) -> Numbering | None:
    """Frame n is the shown frame with the n-th smallest time stamp; None if time stamps cannot be relied on.

    `indexed`: the container can jump to a packet.
    """
    shown = np.flatnonzero(~packets.hidden)
    place = shown[np.argsort(packets.pts[shown])]
    pts = packets.pts[place]
    sound = codec in _ONE_FRAME_PER_PACKET and not packets.corrupt and bool(packets.key[0]) and len(pts) > 0
    if not sound or pts[0] == NO_PTS or not np.all(np.diff(pts) > 0):
        return None
    start = _key_before(packets, place) if indexed and not packets.edited else None
    return Numbering(pts, place, np.zeros_like(place) if start is None else start)


def _key_before(packets: Packets, place: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """For each frame, the last key packet before it in the file that is not shown after it."""
    keys = np.flatnonzero(packets.key)
    index = np.searchsorted(keys, place, side="right") - 1
    # Frames shown before an open key frame, though stored after it, need the key frame before that.
    while (early := packets.pts[place] < packets.pts[keys[index]]).any():
        index[early] -= 1
        if index.min() < 0:
            return None
    return keys[index]


def times_and_rate(pts: NDArray[np.int64], stream: VideoStream) -> tuple[NDArray[np.float64], float]:
    """Seconds from the first frame, float64 (frames,), and frames per second.

    If time stamps do not grow (AVI with B-frames, raw and joined streams), the frames are spaced evenly.
    """
    if stream.time_base and NO_PTS not in pts and np.all(np.diff(pts) > 0):
        times = (pts - pts[0]) * np.float64(stream.time_base.numerator) / stream.time_base.denominator
        return times, _frame_rate(stream, times)
    fps = _frame_rate(stream, np.zeros(1))
    return np.arange(len(pts)) / fps, fps


def _frame_rate(stream: VideoStream, times: NDArray[np.float64]) -> float:
    """The rate that the container states if the frames agree within 2 %, else the rate of their spacing."""
    measured = (len(times) - 1) / float(times[-1]) if len(times) > 1 else None
    for stated in (stream.average_rate, stream.guessed_rate):
        if stated and (measured is None or abs(float(stated) / measured - 1) < 0.02):
            return float(stated)
    return measured or 25.0
