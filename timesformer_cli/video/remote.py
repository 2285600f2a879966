"""Videos at addresses (`https://`, `s3://`, `hf://` and others of fsspec), of which only the parts read are fetched."""

import contextlib
import errno
import io
import os
import re
import socket
import ssl
import struct
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from timesformer_cli.__about__ import __version__
from timesformer_cli.errors import VideoError
from timesformer_cli.specs import Reading
from timesformer_cli.video.addresses import HTTP, scheme_of

_DOWNLOAD = "download it and give the file"

# Bytes of a piece, and the most pieces in one request: a request that continues the last one is twice as long.
_PIECE = 2**18
_LONGEST = 16

# Fragments with less media than this are faster to fetch than to skip.
_WORTH_SKIPPING = 2**20


def search(address: str, reading: Reading = Reading()) -> list[str]:
    """The files below a remote folder, or that match a pattern with stars; sorted, without hidden ones.

    Raises:
        VideoError: the folder cannot be listed.
    """
    # Only stars are special.
    pattern = re.sub(r"[?\[]", r"[\g<0>]", address)
    base = address[: address.index("*")] if "*" in address else address
    base = base[: base.rindex("/") + 1]
    try:
        fs, path = _filesystem(pattern if "*" in address else address, reading)
        if "*" in address:
            found = [name for name, info in fs.glob(path, detail=True).items() if info["type"] == "file"]
        else:
            found = fs.find(path)
        root = _filesystem(base, reading)[1].rstrip("/") + "/"
    except VideoError:
        raise
    except Exception as error:
        raise _failure(error, base) from error
    # The beginning stays as the user typed it.
    names = sorted(name.removeprefix(root).split("/") for name in found)
    return [base + "/".join(parts) for parts in names if not any(part.startswith(".") for part in parts)]


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
                self._fs, self._path = _filesystem(address, reading)
                self._file = stack.enter_context(self._fs.open(self._path, "rb", cache_type="none"))
                size = getattr(self._file, "size", None)
                if size is None:
                    self._fetch_whole()
                else:
                    self.size = size
            except (VideoError, MemoryError):
                raise
            except Exception as error:
                raise _failure(error, address) from error
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
                self._failure = _failure(error, self._address)
        return self._failure is None

    def _fetch(self, piece: int) -> None:
        """Fetch a missing piece, with more of the following ones the longer the file is read in sequence."""
        self._length = min(self._length * 2, _LONGEST) if piece == self._wanted_next else 1
        end = piece + 1
        while end - piece < self._length and end * _PIECE < self.size and end not in self._places:
            end += 1
        self._wanted_next = end
        start, stop = piece * _PIECE, min(end * _PIECE, self.size)
        self._count(stop - start)
        try:
            self._file.seek(start)
            data = self._file.read(stop - start)
        except ValueError:  # fsspec raises this if the server does not support ranges
            self._fetch_whole()
            return
        if len(data) != stop - start:
            raise VideoError("unreadable", f"the server sent {len(data):,} bytes of {stop - start:,}")
        place = self._kept.seek(0, os.SEEK_END)
        self._kept.write(data)
        self._places |= {number: place + (number - piece) * _PIECE for number in range(piece, end)}

    def _fetch_whole(self) -> None:
        if self.size > self._most:
            raise VideoError("too_large", f"{self.size:,} bytes, which the server sends only as a whole; {_DOWNLOAD}")
        self._kept.seek(0)
        with self._fs.open(self._path, "rb", block_size=0) as stream:
            while data := stream.read(_PIECE):
                self._count(len(data))
                self._kept.write(data)
        self.size = self._kept.tell()
        self._places = {place // _PIECE: place for place in range(0, self.size, _PIECE)}

    def _count(self, more: int) -> None:
        self.fetched += more
        if self.fetched > self._most:
            raise VideoError("too_large", f"more than {self._most:,} bytes of it would have to be fetched; {_DOWNLOAD}")


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


def _filesystem(address: str, reading: Reading) -> tuple[Any, str]:
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
        options = _http_options(address, reading.fetch_timeout) if scheme in HTTP else {}
        return url_to_fs(address, **options)  # type: ignore[no-any-return]
    except ImportError as error:
        missing = next((link.name for link in _chain(error) if isinstance(link, ImportError) and link.name), scheme)
        package = "'timesformer-cli[remote]'" if scheme in HTTP else missing
        raise VideoError("unsupported", f"{scheme}:// addresses need {missing}: pip install {package}") from error


def _http_options(address: str, timeout: float) -> dict[str, Any]:
    import aiohttp

    return {
        "headers": {"User-Agent": f"timesformer-cli/{__version__}", "Accept-Encoding": "identity"},
        "client_kwargs": {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            "trust_env": True,  # proxies, and passwords in .netrc
        },
        # A valid address is requested unchanged, since a signature may cover its exact characters.
        "encoded": re.fullmatch(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+", address) is not None,
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and the chain of its causes."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _failure(error: Exception, address: str) -> VideoError:
    """The reason for a failure, without the address, which may contain a password."""
    chain = list(_chain(error))
    if any("Redirect" in type(link).__name__ for link in chain):
        return VideoError("unreadable", "endless redirects, or a redirect to something other than a web address")
    statuses = [status for status in map(_http_status, chain) if status is not None]
    if statuses:
        return _refusal(statuses[0])
    if any(isinstance(link, socket.gaierror) for link in chain):
        return VideoError("unreadable", "the server's name is unknown; is the address right, and the network up?")
    if any(isinstance(link, ssl.SSLError) for link in chain):
        return VideoError("unreadable", "no secure connection; is the server's certificate valid?")
    if any(isinstance(link, TimeoutError) or "Timeout" in type(link).__name__ for link in chain):
        return VideoError("unreadable", "the server does not answer in time")
    if any(isinstance(link, PermissionError) or "Credentials" in type(link).__name__ for link in chain):
        return VideoError("unreadable", "access denied; are the credentials set?")
    numbers = [link.errno for link in chain if isinstance(link, OSError) and link.errno not in (None, errno.ENOENT)]
    if numbers:
        return VideoError("unreadable", f"it cannot be fetched ({os.strerror(numbers[0] or 0)})")
    http = scheme_of(address) in HTTP  # fsspec raises this for every error there; its cause tells more
    if isinstance(error, FileNotFoundError) and not (http and error.__cause__):
        hint = "" if http else "; the address of a folder ends in a slash"
        return VideoError("not_found", f"no such file{hint}")
    if any(isinstance(link, ValueError) for link in chain):
        return VideoError("unreadable", "not a valid address")
    return VideoError("unreadable", f"it cannot be fetched ({type(chain[-1]).__name__})")


def _http_status(error: BaseException) -> int | None:
    """The HTTP status, as aiohttp and httpx store it."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _refusal(status: int) -> VideoError:
    answer = f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return VideoError("not_found", f"no such file ({answer})")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return VideoError("unreadable", f"access denied ({answer}); are the credentials set?")
    return VideoError("unreadable", f"the server answers {answer}")
