"""Opening a video. The only way in: nothing else in the package knows a decoder."""

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
        """The frames of these numbers, in the order asked; numbers may repeat.

        Should the video change its resolution, later pictures are scaled to the size of the first.

        Raises:
            VideoError: a frame cannot be had; no other is put in its place.
            IndexError: a number outside the video.
        """


@contextmanager
def open_video(item: Item, reading: Reading = Reading()) -> Iterator[VideoReader]:
    """Open a video file, here or at an address, or a folder of numbered pictures.

    Raises:
        VideoError: `not_found` and `unreadable` for what is no readable file; `no_video_stream`;
            `decode` for what is no video, or damaged; `too_large` for what is beyond the limits of
            `reading`; `unsupported` for playlists, encrypted files, addresses of an unknown kind and
            what the chosen decoder does not read.
        TimesformerError: the chosen decoder is not installed.
    """
    path = local_path(item.path)
    if is_address(path):
        with _open_remote(item, reading) as reader:
            yield reader
        return
    with closing(_open_pictures(path, reading) if item.frames else _open(path, reading)) as reader:
        yield reader


class _ClosingReader(VideoReader, Protocol):
    def close(self) -> None: ...


# Decoders are imported where they are used: a run that reads no video, as for its help, should not load FFmpeg.


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
        except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: it finds no FFmpeg to its liking
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
        raise VideoError("unsupported", "a folder of pictures is read from a local disk alone; download it")
    if reading.decoder not in ("auto", "pyav"):
        raise VideoError("unsupported", f"{reading.decoder} reads local files alone; try `decoder=pyav`")
    from timesformer_cli.video.decoders.pyav import PyavReader

    with RemoteFile(item.path, reading) as file:
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
    """A reader of a remote file. What could not be fetched is an error, whatever the decoder made of its absence."""

    def __init__(self, reader: VideoReader, file: RemoteFile) -> None:
        self.info = reader.info
        self._reader = reader
        self._file = file

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        try:
            return self._reader.read(frame_numbers)
        finally:
            self._file.check()


def _check_file(path: str) -> None:
    """Refuse what is no readable, regular file, in words of our own rather than FFmpeg's."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise VideoError("unreadable", "a folder, not a video file")
        if not stat.S_ISREG(mode):
            raise VideoError("unreadable", "not a regular file")
        with open(path, "rb") as file:
            head = file.read(64)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a zero byte in the name
        raise VideoError("not_found", "no such file") from error
    except PermissionError as error:
        raise VideoError("unreadable", "permission denied") from error
    except OSError as error:
        raise VideoError("unreadable", error.strerror or "cannot be opened") from error
    _check_head(head)


def _check_head(head: bytes) -> None:
    """Refuse what is known from the first bytes of a file to be no video."""
    if not head:
        raise VideoError("decode", "the file is empty")
    if head.startswith(b"#EXTM3U"):
        raise VideoError("unsupported", "a playlist, which names other files or addresses; give it the video itself")
