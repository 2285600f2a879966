"""Addresses and paths: telling the two apart."""

import os
import re
from urllib.request import url2pathname

# At least two letters, since one is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

_FILE = re.compile(r"(?:file|local)://(?:localhost(?=/))?", re.IGNORECASE)

HTTP = ("http", "https")


def is_address(path: str) -> bool:
    """Whether this is not a local path. `a:b.mp4`, `C:/a.mp4` and any name that exists as a file are local."""
    return _SCHEME.match(path) is not None and not os.path.lexists(path) and not _FILE.match(path)


def local_path(path: str) -> str:
    """The path in a `file://` address, percent-encoded or plain; any other path is returned unchanged."""
    match = _FILE.match(path)
    if match is None or os.path.lexists(path):
        return path
    rest = path[match.end() :]
    return rest if os.path.lexists(rest) else url2pathname(rest)


def is_folder(address: str) -> bool:
    """Whether an address names many files: it ends in a slash or contains a star, and its scheme can list folders."""
    return scheme_of(address) not in HTTP and (address.endswith("/") or "*" in address)


def scheme_of(address: str) -> str:
    match = _SCHEME.match(address)
    return match[1].lower() if match else ""
