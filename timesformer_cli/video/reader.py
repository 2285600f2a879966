"""Opens videos. All other code goes through here: no other module knows a decoder."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import BinaryIO, Protocol, cast

from timesformer_cli.errors import TimesformerError, VideoError
from timesformer_cli.flow import Frames, Item, VideoInfo
from timesformer_cli.specs import Reading
from timesformer_cli.video.addresses import is_address, local_path
from timesformer_cli.video.remote import RemoteFile


class VideoReader(Protocol):
    """One open video."""

    @property
    def info(self) -> VideoInfo: ...

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        """The frames with these numbers, in the requested order; numbers may repeat.

        If the video changes its resolution, later frames are scaled to the size of the first.

        Raises:
            VideoError: a frame cannot be decoded; no other frame replaces it.
            IndexError: a number is outside the video.
        """


@contextmanager
def open_video(item: Item, reading: Reading = Reading()) -> Iterator[VideoReader]:
    """Open a video file, local or at an address, or a folder of numbered images.

    Raises:
        VideoError: `not_found` and `unreadable` if it is not a readable file; `no_video_stream`;
            `decode` if it is not a video, or damaged; `too_large` if it exceeds the limits of
            `reading`; `unsupported` for playlists, encrypted files, addresses of an unknown kind and
            files that the chosen decoder does not read.
        TimesformerError: the chosen decoder is not installed.
    """
    path = local_path(item.location)
    if is_address(path):
        with _open_remote(item, reading) as reader:
            yield reader
        return
    with closing(_open_pictures(path, reading) if item.frames else _open(path, reading)) as reader:
        yield reader


class _ClosingReader(VideoReader, Protocol):
    def close(self) -> None: ...


# Decoders are imported only where they are used: a command that reads no video, as for help, should not load FFmpeg.


def _open(path: str, reading: Reading) -> _ClosingReader:
    _check_file(path)
    if reading.decoder == "decord":
        try:
            from timesformer_cli.video.decoders.decord import DecordReader
        except (ImportError, OSError) as error:
            raise TimesformerError(
                "decord cannot be imported: `pip install decord` (x86-64 Linux and Windows only), or use `decoder=pyav`"
            ) from error
        return DecordReader(path, reading)
    if reading.decoder == "torchcodec":
        try:
            from timesformer_cli.video.decoders.torchcodec import TorchcodecReader
        except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: it finds no FFmpeg that it supports
            raise TimesformerError(
                "torchcodec cannot be imported: `pip install 'timesformer-cli[torchcodec]'`, and FFmpeg with its"
                " libraries, or use `decoder=pyav`"
            ) from error
        return TorchcodecReader(path, reading)
    from timesformer_cli.video.decoders.pyav import PyavReader

    return PyavReader(path, reading)


def _open_pictures(path: str, reading: Reading) -> _ClosingReader:
    from timesformer_cli.video.decoders.image_folder import PicturesReader

    return PicturesReader(path, reading)


@contextmanager
def _open_remote(item: Item, reading: Reading) -> Iterator[VideoReader]:
    if item.frames:
        raise VideoError("unsupported", "a folder of images is read only from a local disk; download it")
    if reading.decoder not in ("auto", "pyav"):
        raise VideoError("unsupported", f"{reading.decoder} reads only local files; try `decoder=pyav`")
    from timesformer_cli.video.decoders.pyav import PyavReader

    with RemoteFile(item.location, reading) as file:
        head = file.read(64)
        _check_head(head)
        if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise VideoError("unreadable", "a web page, not a video; give the address of the video file itself")
        try:
            reader = PyavReader(cast(BinaryIO, file), reading)
        finally:
            file.check()
        with closing(reader):
            yield _CheckedReader(reader, file)


class _CheckedReader:
    """A reader of a remote file. If a part could not be fetched, that is an error, whatever the decoder returned."""

    def __init__(self, reader: VideoReader, file: RemoteFile) -> None:
        self.info = reader.info
        self._reader = reader
        self._file = file

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        try:
            return self._reader.read(frame_numbers)
        finally:
            self._file.check()


# Where shells put what they hand on as a file: `<(cat a.mp4)`.
_HANDED_ON = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")


def _check_file(path: str) -> None:
    """Refuse anything but a readable, regular file, in our own words instead of FFmpeg's."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            if not os.access(path, os.R_OK | os.X_OK):
                raise VideoError("unreadable", "a folder that cannot be listed (permission denied)")
            raise VideoError("unreadable", "a folder, not a video file")
        if not stat.S_ISREG(mode):
            pipe = "a pipe, which can be read only once; write it to a file, and name that"
            raise VideoError("unreadable", pipe if stat.S_ISFIFO(mode) else "not a regular file")
        with open(path, "rb") as file:
            head = file.read(64)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a zero byte in the name
        if path.startswith(_HANDED_ON):  # only the main process has it
            raise VideoError("unreadable", "a pipe of the shell; write it to a file, and name that") from error
        raise VideoError("not_found", "no such file") from error
    except PermissionError as error:
        raise VideoError("unreadable", "permission denied") from error
    except OSError as error:
        raise VideoError("unreadable", error.strerror or "cannot be opened") from error
    _check_head(head)


# What FFmpeg reads, and photographs are too, or what has no times, by its first bytes; those of WebP follow RIFF's.
_NOT_READ = {
    b"\x89PNG\r\n\x1a\n": "a PNG image, perhaps an animated one (APNG)",
    b"WEBPVP8": "a WebP image, perhaps an animated one",
    b"\xff\xd8\xff": "a JPEG image, or several in a row (raw MJPEG)",
    b"\x1f\x07\x00": "raw DV without a container",
}


def _check_head(head: bytes) -> None:
    """Refuse files whose first bytes show that they are not a video."""
    if not head:
        raise VideoError("decode", "the file is empty")
    if head.startswith(b"#EXTM3U"):
        raise VideoError("unsupported", "a playlist, which names other files or addresses; give the video itself")
    start = head[8:] if head.startswith(b"RIFF") else head
    what = next((what for first, what in _NOT_READ.items() if start.startswith(first)), None)
    if what is not None:
        raise VideoError("unsupported", f"{what}, which is not read as a video; convert moving images to MP4")
