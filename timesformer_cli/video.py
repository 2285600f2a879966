"""Opening a video. The only way in: nothing else in the package knows a decoder."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Protocol

from timesformer_cli.errors import TimesformerError, UsageError, VideoError
from timesformer_cli.records import Frames, VideoInfo

# auto is pyav, the reference: it reads most and is right about what it reads.
DECODERS = ("auto", "pyav", "decord")


class VideoReader(Protocol):
    """One open video."""

    @property
    def info(self) -> VideoInfo: ...

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        """The frames of these numbers, in the order asked; numbers may repeat.

        Should the video change its resolution, later pictures are scaled to the size of the first.

        Raises:
            VideoError: a frame cannot be had; no other is put in its place.
            IndexError: a number outside the video.
        """


@contextmanager
def open_video(path: str, decoder: str = "auto") -> Iterator[VideoReader]:
    """Open a local video file with one of `DECODERS`.

    Raises:
        VideoError: `not_found` and `unreadable` for what is no readable file; `no_video_stream`;
            `decode` for what is no video, or damaged; `too_large` for pictures beyond 8K;
            `unsupported` for playlists, encrypted files and what the chosen decoder does not read.
        UsageError: an unknown decoder.
        TimesformerError: decord was asked for and is not installed.
    """
    if decoder not in DECODERS:
        raise UsageError(f"unknown decoder {decoder!r}; known are {', '.join(DECODERS)}")
    _check_file(path)
    with closing(_open(path, decoder)) as reader:
        yield reader


class _ClosingReader(VideoReader, Protocol):
    def close(self) -> None: ...


def _open(path: str, decoder: str) -> _ClosingReader:
    # Imported here: a run that reads no video, such as --help, should not load FFmpeg.
    if decoder == "decord":
        try:
            from timesformer_cli.decoders.decord import DecordReader
        except (ImportError, OSError) as error:
            raise TimesformerError(
                "decord cannot be imported: `pip install decord` (x86-64 Linux and Windows only), or use --decoder pyav"
            ) from error
        return DecordReader(path)
    from timesformer_cli.decoders.pyav import PyavReader

    return PyavReader(path)


def _check_file(path: str) -> None:
    """Refuse what is no readable, regular file, in words of our own rather than FFmpeg's."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise VideoError("unreadable", "a folder, not a video file")
        if not stat.S_ISREG(mode):
            raise VideoError("unreadable", "not a regular file")
        with open(path, "rb") as file:
            head = file.read(16)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a zero byte in the name
        raise VideoError("not_found", "no such file") from error
    except PermissionError as error:
        raise VideoError("unreadable", "permission denied") from error
    except OSError as error:
        raise VideoError("unreadable", error.strerror or "cannot be opened") from error
    if not head:
        raise VideoError("decode", "the file is empty")
    if head.startswith(b"#EXTM3U"):
        raise VideoError("unsupported", "a playlist, which names other files or addresses; give it the video itself")
