"""Why a file cannot be fetched, in words without its address, which may contain a password."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus

from timesformer_cli.errors import VideoError
from timesformer_cli.video.addresses import HTTP, scheme_of

DOWNLOAD = "download it and give the file"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and the chain of its causes."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def failure(error: Exception, address: str) -> VideoError | MemoryError:
    """The reason for an error of fsspec, aiohttp, httpx or the system, in words for users."""
    links = list(chain(error))
    ours = next((link for link in links if isinstance(link, (VideoError, MemoryError))), None)
    if ours is not None:
        return ours
    if any("Redirect" in type(link).__name__ for link in links):
        return bad_redirect()
    statuses = [status for status in map(_http_status, links) if status is not None]
    if statuses:
        return refusal(statuses[0])
    if any(isinstance(link, socket.gaierror) for link in links):
        return VideoError("unreadable", "the server's name is unknown; is the address right, and the network up?")
    if any(isinstance(link, ssl.SSLError) for link in links):
        return VideoError("unreadable", "no secure connection; is the server's certificate valid?")
    if any(isinstance(link, TimeoutError) or "Timeout" in type(link).__name__ for link in links):
        return VideoError("unreadable", "the server does not answer in time")
    if any(isinstance(link, PermissionError) or "Credentials" in type(link).__name__ for link in links):
        return VideoError("unreadable", "access denied; are the credentials set?")
    numbers = [link.errno for link in links if isinstance(link, OSError) and link.errno not in (None, errno.ENOENT)]
    if numbers:
        return VideoError("unreadable", f"it cannot be fetched ({os.strerror(numbers[0] or 0)})")
    if any(type(link).__name__ in ("ClientPayloadError", "ServerDisconnectedError") for link in links):
        return VideoError("unreadable", "it cannot be fetched (the server ended the connection too early)")
    if isinstance(error, FileNotFoundError):
        hint = "" if scheme_of(address) in HTTP else "; the address of a folder ends in a slash"
        return VideoError("not_found", f"no such file{hint}")
    if any(isinstance(link, ValueError) for link in links):
        return VideoError("unreadable", "not a valid address")
    return VideoError("unreadable", f"it cannot be fetched ({type(links[-1]).__name__})")


def _http_status(error: BaseException) -> int | None:
    """The HTTP status, as aiohttp and httpx store it."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def refusal(status: int, hint: str = "") -> VideoError:
    """The reason of a server that answers with this status."""
    answer = f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return VideoError("not_found", f"no such file ({answer})")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return VideoError("unreadable", f"access denied ({answer}); are the credentials set?")
    return VideoError("unreadable", f"the server answers {answer}{hint}")


def bad_redirect() -> VideoError:
    return VideoError("unreadable", "endless redirects, or a redirect to something other than a web address")


def only_whole(size: int) -> VideoError:
    return VideoError("too_large", f"{size:,} bytes, which the server sends only as a whole; {DOWNLOAD}")
