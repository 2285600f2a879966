"""Files at web addresses, read in parts or as a whole. A lying server cannot make the client read without end."""

import asyncio
import atexit
import errno
import re
import socket
import time
import weakref
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import IO, Any, NamedTuple, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.helpers import get_env_proxy_for_url
from fsspec.asyn import get_loop, sync  # type: ignore[import-untyped]
from yarl import URL

from timesformer_cli.__about__ import __version__
from timesformer_cli.errors import VideoError
from timesformer_cli.specs import Reading
from timesformer_cli.video.addresses import HTTP
from timesformer_cli.video.fetch_errors import bad_redirect, chain, only_whole, refusal

R = TypeVar("R")

# How often a request is tried if its failure may pass, and the longest wait (seconds) that a server may ask for.
_TRIES = 4
_LONGEST_WAIT = 10.0
_PASSING_ANSWERS = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_BROKEN_CONNECTION = (errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE)

_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

# A valid address is requested unchanged, since a signature may cover its exact characters.
_VALID = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")

# Where clouds serve the credentials of a machine, besides the link-local 169.254.169.254.
_METADATA = (ip_address("fd00:ec2::254"), ip_address("100.100.100.200"))
_NAT64 = IPv6Network("64:ff9b::/96")


class HttpFile:
    """The file at a web address. `size` is None if it can only be had as a whole; `first` is its beginning.

    `count` is called with the length of all received data, and may raise. A request whose failure may pass is tried
    again, with longer and longer waits. An address that is not local never leads to a local one: not by a redirect,
    and not if its name suddenly resolves to a different machine.

    Raises:
        VideoError: the server does not send the requested data; here and later. `fetch_errors.failure` explains the
            errors of aiohttp, fsspec and the system.
    """

    def __init__(self, address: str, reading: Reading, count: Callable[[int], None], first: int) -> None:
        self.size: int | None = None
        self.first = b""
        self._url = URL(address, encoded=_VALID.fullmatch(address) is not None)
        self._reading = reading
        self._count = count
        self._is_local: bool | None = None
        self._whole: aiohttp.ClientResponse | None = None  # an answer with the whole file, not read yet
        self.first = self.read(0, first) or b""

    def close(self) -> None:
        if self._whole is not None:
            sync(get_loop(), self._drop)

    async def _drop(self) -> None:
        if self._whole is not None:
            self._whole.close()
            self._whole = None

    def read(self, start: int, stop: int) -> bytes | None:
        """The bytes from `start` to `stop`, or to the end; None if the server sends only the whole file."""
        return self._tried(self._part, start, stop)

    def save(self, file: IO[bytes]) -> None:
        """Replace the content of `file` by the whole file."""
        self._tried(self._save, file)

    def _tried(self, request: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> R:
        wait, tries = self._reading.fetch_wait, 0
        while True:
            tries += 1
            try:
                result: R = sync(get_loop(), request, *args)
                return result
            except Exception as error:
                if tries == _TRIES or not _may_pass(error):
                    raise
                time.sleep(max(wait, _asked_to_wait(error)))
            wait *= 2

    async def _part(self, start: int, stop: int) -> bytes | None:
        response = await self._get({"Range": f"bytes={start}-{stop - 1}"})
        if response.status == HTTPStatus.OK:
            await self._drop()
            self._whole = response
            return None
        async with response:
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                self.size = self.size or 0
                return b""
            return await self._read_part(response, start, stop)

    async def _read_part(self, response: aiohttp.ClientResponse, start: int, stop: int) -> bytes | None:
        part = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if part is None or int(part[1]) != start or not start <= int(part[2]) < stop:
            raise VideoError("unreadable", "the server sends a different part of the file than requested")
        if part[3] == "*":
            return None
        if self.size is None:
            self.size = int(part[3])
        elif self.size != int(part[3]):
            raise VideoError("unreadable", f"the file had {self.size:,} bytes, and now has {int(part[3]):,}")
        wanted = min(stop, self.size) - start
        data = bytearray()
        async for chunk in response.content.iter_any():
            self._count(len(chunk))
            data += chunk
            if len(data) > wanted:
                raise VideoError("unreadable", f"the server sends more than the {wanted:,} requested bytes")
        if len(data) < wanted:
            raise VideoError("unreadable", f"the server sent {len(data):,} bytes of {wanted:,}")
        return bytes(data)

    async def _save(self, file: IO[bytes]) -> None:
        response, self._whole = self._whole or await self._get({}), None
        async with response:
            if response.status != HTTPStatus.OK:
                raise VideoError("unreadable", "the server sends only a part of the file instead of the whole")
            if (response.content_length or 0) > self._reading.max_fetched_bytes:
                raise only_whole(response.content_length or 0)
            file.seek(0)
            file.truncate()
            async for chunk in response.content.iter_any():
                self._count(len(chunk))
                file.write(chunk)

    async def _get(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The answer after all redirects, with its body not read: 200, 206, or 416 for an empty file."""
        url, may_be_local = self._url, self._is_local is not False
        for _ in range(_MOST_REDIRECTS):
            response, may_be_local = await self._ask(url, headers, may_be_local=may_be_local)
            if self._is_local is None:
                self._is_local = may_be_local
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                return _checked(response)
            response.release()
            url = _redirected(url, response.headers["Location"])
        raise bad_redirect()

    async def _ask(
        self, url: URL, headers: dict[str, str], *, may_be_local: bool
    ) -> tuple[aiohttp.ClientResponse, bool]:
        """The answer, and whether the machine that gave it is local."""
        sessions = await _sessions_here()
        seconds = self._reading.fetch_timeout
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        try:
            if is_local(url.raw_host or ""):
                raise _LocalError
            # A proxy may itself be local, and only the proxy knows where it finds the host.
            session = sessions.anywhere if await asyncio.to_thread(_has_proxy, url) else sessions.public
            return await session.get(url, headers=headers, allow_redirects=False, timeout=timeout), False
        except _LocalError:
            if not may_be_local:
                raise VideoError("unreadable", "leads from a public address to a local one, which is refused") from None
        return await sessions.anywhere.get(url, headers=headers, allow_redirects=False, timeout=timeout), True


def is_local(host: str) -> bool:
    """Whether a host, as written, is this machine, a neighbour on its link, or the metadata service of a cloud."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    return any(
        each.is_loopback or each.is_link_local or each.is_unspecified or each in _METADATA
        for each in (address, *_embedded(address))
    )


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses embedded in an IPv6 address."""
    if isinstance(address, IPv4Address):
        return []
    found = [each for each in (address.ipv4_mapped, address.sixtofour) if each is not None]
    low = IPv4Address(int(address) % 2**32)
    return [*found, low] if address in _NAT64 or int(address) < 2**32 else found


class _LocalError(Exception):
    """A host is local."""


class _PublicResolver(AbstractResolver):
    """Leaves out local addresses. aiohttp connects to exactly the addresses from here."""

    def __init__(self) -> None:
        self._resolver = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if not is_local(each["host"])]
        if not public:
            raise _LocalError
        return public

    async def close(self) -> None:
        await self._resolver.close()


class _Sessions(NamedTuple):
    """They share cookies, but not connections: one to a local host must not serve requests for public ones."""

    public: aiohttp.ClientSession
    anywhere: aiohttp.ClientSession


_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sessions] = weakref.WeakKeyDictionary()


async def _sessions_here() -> _Sessions:
    """The sessions of the running loop; after a fork there is a new one."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        cookies = aiohttp.CookieJar()
        resolvers = (_PublicResolver(), aiohttp.DefaultResolver())
        _sessions[loop] = _Sessions(*(_session(cookies, resolver) for resolver in resolvers))
        atexit.register(_close, loop)
    return _sessions[loop]


def _session(cookies: aiohttp.CookieJar, resolver: AbstractResolver) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver),
        cookie_jar=cookies,
        headers={"User-Agent": f"timesformer-cli/{__version__}", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=True,  # proxies, and passwords in .netrc
    )


def _close(loop: asyncio.AbstractEventLoop) -> None:
    if loop.is_running():
        for session in _sessions.pop(loop):
            sync(loop, session.close, timeout=1)


def _has_proxy(url: URL) -> bool:
    try:
        get_env_proxy_for_url(url)
    except LookupError:
        return False
    return True


def _redirected(url: URL, location: str) -> URL:
    """The target of a redirect from `url`. A password is kept only on the same server."""
    target = url.join(URL(location, encoded=_VALID.fullmatch(location) is not None))
    if target.scheme not in HTTP or not target.raw_host:
        raise bad_redirect()
    if target.origin() == url.origin() and target.user is None and url.user is not None:
        target = target.with_user(url.user).with_password(url.password)
    return target


def _total(response: aiohttp.ClientResponse) -> int | None:
    """The length of the file, from an answer without any of it."""
    found = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _checked(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and _total(response) == 0:
        return response
    response.raise_for_status()
    if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        response.close()
        raise refusal(response.status)
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        response.close()
        raise VideoError("unreadable", "the server sends it compressed, though uncompressed data was requested")
    return response


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed soon."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _PASSING_ANSWERS
    return any(
        isinstance(link, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError))
        or (isinstance(link, socket.gaierror) and link.errno == socket.EAI_AGAIN)
        or (isinstance(link, OSError) and link.errno in _BROKEN_CONNECTION)
        for link in chain(error)
    )


def _asked_to_wait(error: Exception) -> float:
    """Seconds that the server asks to wait. Raises VideoError if they are too many."""
    if not isinstance(error, aiohttp.ClientResponseError):
        return 0.0
    seconds = _seconds_until(error.headers.get("Retry-After", "") if error.headers else "")
    if seconds > _LONGEST_WAIT:
        raise refusal(error.status, f", and asks to wait for {seconds:,.0f} seconds") from error
    return seconds


def _seconds_until(moment: str) -> float:
    """The seconds of a Retry-After header, which has seconds or a date."""
    if re.fullmatch(r"[0-9]{1,9}", moment):
        return float(moment)
    try:
        date = parsedate_to_datetime(moment)
    except ValueError:
        return 0.0
    return max((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
