"""Videos at addresses (`https://`, `s3://`, `hf://` and others of fsspec), of which only the parts read are fetched."""

import contextlib
import io
import os
import re
import struct
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

from timesformer_cli.errors import VideoError
from timesformer_cli.specs import Reading
from timesformer_cli.video.addresses import HTTP, scheme_of
from timesformer_cli.video.fetch_errors import DOWNLOAD, chain, failure, only_whole

# Bytes of a piece, and the most pieces in one request: a request that continues the last one is twice as long.
_PIECE = 2**18
_LONGEST = 16

# Fragments with less media than this are faster to fetch than to skip.
_WORTH_SKIPPING = 2**20


def search(address: str) -> Iterator[str]:
    """The files below a remote folder, or that match a pattern with stars, without hidden ones.

    They are listed as they are asked for: on S3 page by page in the order of their keys, elsewhere (and for a pattern
    of several levels) folder by folder in the order of names.

    Raises:
        VideoError: a folder cannot be listed.
    """
    # Only stars are special.
    pattern = re.sub(r"[?\[]", r"[\g<0>]", address) if "*" in address else ""
    base = address[: address.index("*")] if pattern else address
    base = base[: base.rindex("/") + 1]
    rest = address[len(base) :]
    try:
        fs, folder = _filesystem(base)
        root = folder.rstrip("/") + "/"
        depth = None if "**" in rest or not pattern else rest.count("/") + 1
        matches = _matcher(_filesystem(pattern)[1]) if pattern else None
        paged = hasattr(fs, "call_s3") and depth in (None, 1)
        for name in _keys(fs, folder, deep=depth is None) if paged else _walk(fs, folder, depth):
            # The beginning stays as the user typed it.
            below = name.removeprefix(root)
            if (matches is None or matches(name)) and not re.search(r"(^|/)\.", below):
                yield base + below
    except VideoError:
        raise
    except Exception as error:
        raise failure(error, base) from error


def _matcher(pattern: str) -> Callable[[str], object]:
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]

    return re.compile(glob_translate(pattern)).match


def _keys(fs: Any, folder: str, *, deep: bool) -> Iterator[str]:
    """Files in a folder of s3fs, and `deep` in it; its own functions fetch all pages before they return."""
    bucket, key, _ = fs.split_path(folder)
    asked = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else "", "Delimiter": "" if deep else "/"}
    page = {"IsTruncated": True}
    while page.get("IsTruncated"):
        page = fs.call_s3("list_objects_v2", **asked)
        yield from (f"{bucket}/{found['Key']}" for found in page.get("Contents", ()) if found["Key"][-1] != "/")
        asked["ContinuationToken"] = page.get("NextContinuationToken", "")


def _walk(fs: Any, folder: str, depth: int | None) -> Iterator[str]:
    """Files at most so many folders deep; folders are listed when their turn comes."""
    stack = [_entries(fs, folder)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif entry["type"] != "directory":
            yield entry["name"]
        elif depth is None or len(stack) < depth:
            stack.append(_entries(fs, entry["name"]))


def _entries(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """What is in a folder and not hidden, by name; nothing if it does not exist."""
    try:
        found = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return
    own = folder.rstrip("/")
    named = ((entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in found)
    for name, entry in sorted(named, key=lambda pair: pair[0]):
        if not name.startswith(".") and entry["name"].rstrip("/") != own:
            yield entry


class RemoteFile(io.RawIOBase):
    """The file at an address, readable and seekable; `fetched` counts the bytes that were fetched for it.

    Fetched data is kept in a nameless temporary file, so it is fetched only once. A server that sends
    only whole files sends it whole.

    If something cannot be fetched, now or later, FFmpeg would take that for the end of the file. So
    reads just end there, and `check` raises the reason; call it before trusting the data.

    Raises:
        VideoError: `not_found`, `unreadable`; `unsupported` for an unknown kind of address, or if its
            package is not installed; `too_large` for files sent whole.
    """

    def __init__(self, address: str, reading: Reading = Reading()) -> None:
        super().__init__()
        self.size = 0
        self.fetched = 0
        self._address = address
        self._most = reading.max_fetched_bytes
        self._position = 0
        self._skimming = False
        self._failure: VideoError | MemoryError | None = None
        self._places: dict[int, int] = {}  # of fetched pieces: their position in the temporary file
        self._wanted_next, self._length = -1, 1
        self._boxes = _MediaBoxes(self)
        with contextlib.ExitStack() as stack:
            self._kept = stack.enter_context(tempfile.TemporaryFile())
            try:
                self._source = stack.enter_context(contextlib.closing(_open(address, reading, self._count)))
                if self._source.size is None:
                    self._fetch_whole()
                else:
                    self.size = self._source.size
                    self._keep(0, self._source.first)
            except (VideoError, MemoryError):
                raise
            except Exception as error:
                raise failure(error, address) from error
            self._closing = stack.pop_all()
        self.read_at(0, 1)
        try:
            self.check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):  # of a connection that is no longer needed
                self._closing.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        size = self.size if size < 0 else size
        data = self._skimmed(size) if self._skimming else self.read_at(self._position, size)
        self._position += len(data)
        return data

    def check(self) -> None:
        """Raise the error that occurred since the file was opened, if any."""
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def skimming(self) -> Iterator[None]:
        """Meanwhile, the content of an MP4 file's `mdat` boxes reads as zeros, and is not fetched.

        For reading the packets of a file whose index is elsewhere, without their content.
        A buffer over this file holds zeros afterwards.
        """
        self._skimming = True
        try:
            yield
        finally:
            self._skimming = False

    def read_at(self, start: int, count: int) -> bytes:
        """The bytes from `start` on, at most `count`; none if they cannot be fetched."""
        stop = min(start + count, self.size)
        parts: list[bytes] = []
        while start < stop:
            piece, offset = divmod(start, _PIECE)
            if not self._ensure(piece):
                return b""
            self._kept.seek(self._places[piece] + offset)
            parts.append(self._kept.read(min(_PIECE - offset, stop - start)))
            start += len(parts[-1])
        return b"".join(parts)

    def _skimmed(self, count: int) -> bytes:
        """Data at the position: zeros or content, up to where one becomes the other."""
        start, stop = self._boxes.after(self._position)
        if self._position < start:
            return self.read_at(self._position, min(count, start - self._position))
        return bytes(max(min(count, stop - self._position), 0))

    def _ensure(self, piece: int) -> bool:
        """Fetch a piece unless it is already here; False if that fails, or something failed before."""
        if self._failure is None and piece not in self._places:
            try:
                self._fetch(piece)
            except (VideoError, MemoryError) as error:
                self._failure = error
            except Exception as error:
                self._failure = failure(error, self._address)
        return self._failure is None

    def _fetch(self, piece: int) -> None:
        """Fetch a missing piece, with more of the following ones the longer the file is read in sequence."""
        self._length = min(self._length * 2, _LONGEST) if piece == self._wanted_next else 1
        end = piece + 1
        while end - piece < self._length and end * _PIECE < self.size and end not in self._places:
            end += 1
        self._wanted_next = end
        start, stop = piece * _PIECE, min(end * _PIECE, self.size)
        if self.fetched + stop - start > self._most:
            raise self._too_large()
        data = self._source.read(start, stop)
        if data is None:
            self._fetch_whole()
        else:
            self._keep(piece, data)

    def _fetch_whole(self) -> None:
        if self.size > self._most:
            raise only_whole(self.size)
        self._kept.seek(0)
        self._source.save(self._kept)
        saved = self._kept.tell()
        if self.size not in (0, saved):
            raise VideoError("unreadable", f"the server sent {saved:,} bytes of {self.size:,}")
        self.size = saved
        self._places = {place // _PIECE: place for place in range(0, self.size, _PIECE)}

    def _keep(self, piece: int, data: bytes) -> None:
        """Keep that piece, and those that follow it in `data`."""
        place = self._kept.seek(0, os.SEEK_END)
        self._kept.write(data)
        self._places |= {piece + offset // _PIECE: place + offset for offset in range(0, len(data), _PIECE)}

    def _count(self, more: int) -> None:
        self.fetched += more
        if self.fetched > self._most:
            raise self._too_large()

    def _too_large(self) -> VideoError:
        return VideoError("too_large", f"more than {self._most:,} bytes of it would have to be fetched; {DOWNLOAD}")


class _MediaBoxes:
    """The places of the `mdat` boxes in an MP4 file (ISO/IEC 14496-12, 4.2), found one after another."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._next = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    def after(self, position: int) -> tuple[int, int]:
        """Start and end of the content of the first box that ends after `position`; both are the end of the file if
        there is none."""
        while not self._ends or self._ends[-1] <= position:
            if not self._step():
                return self._file.size, self._file.size
        number = bisect_right(self._ends, position)
        return self._starts[number], self._ends[number]

    def _step(self) -> bool:
        """Read the next box; False if there is none."""
        header = self._file.read_at(self._next, 16)
        if len(header) < 16:
            return False
        size, kind = struct.unpack(">I4s", header[:8])
        start = self._next + (16 if size == 1 else 8)
        end = self._next + (int.from_bytes(header[8:]) if size == 1 else size or self._file.size)
        if not start <= end <= self._file.size:
            end = self._file.size  # truncated, or not an MP4
        if kind == b"mdat" and end - start >= _WORTH_SKIPPING:
            self._starts.append(start)
            self._ends.append(end)
        self._next = end
        return True


class _Source(Protocol):
    """Where a file comes from. `size` is None if it can only be had as a whole; `first` is its beginning."""

    size: int | None
    first: bytes

    def read(self, start: int, stop: int) -> bytes | None:
        """None if the file can only be had as a whole after all."""

    def save(self, file: IO[bytes]) -> None:
        """Replace the content of `file` by the whole."""

    def close(self) -> None: ...


class _StoredFile:
    """A file of one of fsspec's file systems, which read all that the server sends at once."""

    first = b""

    def __init__(self, address: str, count: Callable[[int], None]) -> None:
        self._count = count
        self._fs, self._path = _filesystem(address)
        self._file = self._fs.open(self._path, "rb", cache_type="none")
        self.size: int | None = getattr(self._file, "size", None)
        self.close = self._file.close

    def read(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        data: bytes = self._file.read(stop - start)
        self._count(len(data))
        if len(data) != stop - start:
            raise VideoError("unreadable", f"the server sent {len(data):,} bytes of {stop - start:,}")
        return data

    def save(self, file: IO[bytes]) -> None:
        with self._fs.open(self._path, "rb", block_size=0) as stream:
            while data := stream.read(_PIECE):
                self._count(len(data))
                file.write(data)


def _open(address: str, reading: Reading, count: Callable[[int], None]) -> _Source:
    if scheme_of(address) not in HTTP:
        return _StoredFile(address, count)
    try:
        from timesformer_cli.video.http_file import HttpFile
    except ImportError as error:
        package = "pip install 'timesformer-cli[remote]'"
        raise VideoError("unsupported", f"{scheme_of(address)}:// addresses need {error.name}: {package}") from error
    return HttpFile(address, reading, count, _PIECE)


def _filesystem(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        VideoError: `unsupported` if the kind of address is unknown, or its package is missing.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]
    from fsspec.registry import available_protocols  # type: ignore[import-untyped]

    scheme = scheme_of(address)
    if scheme not in available_protocols():
        raise VideoError("unsupported", f"{scheme}:// addresses are not read; http, https, s3, gs, hf and others are")
    try:
        return url_to_fs(address)  # type: ignore[no-any-return]
    except ImportError as error:
        missing = next((link.name for link in chain(error) if isinstance(link, ImportError) and link.name), scheme)
        raise VideoError("unsupported", f"{scheme}:// addresses need {missing}: pip install {missing}") from error
