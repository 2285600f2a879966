"""The second reader: decord, for files from which it reads the same frames as PyAV.

decord bundles FFmpeg of 2018. It seeks to key frames without checking them, counts frames that are never
shown, and can wait for ever, ignoring interrupts, for frames that a container claims but does not hold. So
PyAV inspects the file first, and cases known to go wrong are refused.
"""

from collections.abc import Sequence

import decord
import numpy as np

from timesformer_cli.flow import Frames
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.nal_units import starts_afresh
from timesformer_cli.video.decoders.packets import Source, file_url
from timesformer_cli.video.decoders.pyav import PyavReader
from timesformer_cli.video.decoders.support import Abilities, check, failed, unsupported

ABILITIES = Abilities(
    name="decord",
    # Excluded: MPEG-TS and MPEG-PS, ASF, Ogg, GIF and raw streams (wrong frames, or none).
    containers=frozenset(["mov", "matroska", "avi", "flv"]),
    # Excluded: AV1 and VVC (no decoder), H.263 and Windows Media (wrong frames after a seek), MPEG-2.
    codecs=frozenset(["h264", "hevc", "vp8", "vp9", "mpeg4", "flv1", "ffv1", "mjpeg"]),
    reorders=lambda container, codec: container != "avi" and codec != "mpeg4",
    starts=starts_afresh,
    chooses=False,
    odd=False,
)


class DecordReader:
    """Reads frames of one video by number.

    Raises:
        VideoError: as PyavReader; `unsupported` for files that decord does not read, or reads differently.
    """

    def __init__(self, source: Source, reading: Reading = Reading()) -> None:
        if not isinstance(source, str):
            raise unsupported("decord reads only local files")
        check(source, reading, ABILITIES)
        pyav = PyavReader(source, reading)
        pyav.close()
        self.info = pyav.info
        if pyav.orientation.mirrors:
            raise unsupported("the frames are mirrored")
        if pyav.cropping is not None:
            raise unsupported("the frames are cropped by the container")
        decord.logging.set_level(decord.logging.QUIET)
        try:
            self._video = decord.VideoReader(file_url(source), num_threads=1)
        except (decord.DECORDError, RuntimeError, AssertionError, UnicodeError) as error:
            raise failed(error, "decord cannot open it") from error
        if len(self._video) != self.info.num_frames:
            raise unsupported(f"decord counts {len(self._video)} frames, but {self.info.num_frames} are shown")

    def close(self) -> None:
        del self._video

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        """The requested frames, in the requested order; numbers may repeat.

        Raises:
            VideoError: decord fails, or returns frames of a different size.
            IndexError: a number is outside the video.
        """
        numbers = np.asarray(frame_numbers, np.int64)
        shape = (len(numbers), self.info.height, self.info.width, 3)
        if not len(numbers):
            return Frames(np.empty(shape, np.uint8), np.empty(0))
        if not 0 <= numbers.min() <= numbers.max() < self.info.num_frames:
            raise IndexError(f"frames {numbers.min()} to {numbers.max()} of a video that has {self.info.num_frames}")
        try:
            pixels = self._video.get_batch(numbers.tolist()).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise failed(error, "decord cannot decode it") from error
        if pixels.shape != shape:
            raise unsupported(f"decord returns frames of {pixels.shape[2]} x {pixels.shape[1]} pixels")
        return Frames(pixels, self.info.times[numbers])
