"""The third reader: torchcodec, for files from which it reads the same frames as PyAV.

It seeks to key frames without checking them, and uses the system's FFmpeg, versions 4 to 9. So PyAV inspects
the file first, and cases known to go wrong are refused. It imports torch.
"""

from collections.abc import Sequence

import numpy as np
from torchcodec.decoders import VideoDecoder

from timesformer_cli.flow import Frames
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.nal_units import starts_whole
from timesformer_cli.video.decoders.packets import Source, file_url
from timesformer_cli.video.decoders.pyav import PyavReader
from timesformer_cli.video.decoders.support import Abilities, check, failed, unsupported

ABILITIES = Abilities(
    name="torchcodec",
    # Excluded: MPEG-TS, MPEG-PS and raw streams (wrong frames, or none).
    containers=frozenset(["mov", "matroska", "avi", "flv", "asf", "ogg", "gif"]),
    # Excluded: H.263 (wrong frames after a seek), MPEG-2, and VVC (no decoder in FFmpeg before 7).
    codecs=frozenset("h264 hevc av1 vp8 vp9 mpeg4 flv1 ffv1 mjpeg theora gif wmv1 wmv2".split()),  # noqa: SIM905
    reorders=lambda container, codec: container != "avi",
    starts=starts_whole,
    chooses=True,
    odd=True,
)

# Seconds by which a frame's time may differ from its packet's: only rounding.
_SAME_TIME = 1e-3


class TorchcodecReader:
    """Reads frames of one video by number, on the CPU.

    Raises:
        VideoError: as PyavReader; `unsupported` for files that torchcodec does not read, or reads differently.
        MemoryError: not enough memory; here and later.
    """

    def __init__(self, source: Source, reading: Reading = Reading()) -> None:
        if not isinstance(source, str):
            raise unsupported("torchcodec reads only local files")
        stream = check(source, reading, ABILITIES)
        pyav = PyavReader(source, reading)
        pyav.close()
        self.info = pyav.info
        if pyav.orientation.mirrors:
            raise unsupported("the frames are mirrored")
        if pyav.cropping is not None:
            raise unsupported("the frames are cropped by the container")
        try:
            self._video = VideoDecoder(
                file_url(source), stream_index=stream, dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu"
            )
        except (RuntimeError, ValueError, UnicodeError) as error:
            raise failed(error, "torchcodec cannot open it") from error
        if len(self._video) != self.info.num_frames:
            raise unsupported(f"torchcodec counts {len(self._video)} frames, but {self.info.num_frames} are shown")

    def close(self) -> None:
        del self._video

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        """The requested frames, in the requested order; numbers may repeat.

        Raises:
            VideoError: torchcodec fails, or returns frames of a different size or time.
            IndexError: a number is outside the video.
        """
        numbers = np.asarray(frame_numbers, np.int64)
        shape = (len(numbers), self.info.height, self.info.width, 3)
        if not len(numbers):
            return Frames(np.empty(shape, np.uint8), np.empty(0))
        if not 0 <= numbers.min() <= numbers.max() < self.info.num_frames:
            raise IndexError(f"frames {numbers.min()} to {numbers.max()} of a video that has {self.info.num_frames}")
        try:
            batch = self._video.get_frames_at(numbers.tolist())
        except (RuntimeError, ValueError) as error:
            raise failed(error, "torchcodec cannot decode it") from error
        pixels, times = batch.data.numpy(), self.info.times[numbers]
        if pixels.shape != shape:
            raise unsupported(f"torchcodec returns frames of {pixels.shape[2]} x {pixels.shape[1]} pixels")
        shown = batch.pts_seconds.numpy() - (self._video.metadata.begin_stream_seconds or 0)
        if not np.allclose(shown, times, rtol=0, atol=_SAME_TIME):
            raise unsupported("torchcodec returns frames of different times")
        return Frames(pixels, times)
