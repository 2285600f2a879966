"""Contents of files of the Hub, in the `blobs` of its cache: fetched within bounds, checked, and given their names."""

import hashlib
import io
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from timesformer_cli.files import sync

# Errors of a connection that breaks in the middle of a file, as the HTTP clients of huggingface_hub's versions
# (requests, httpx) name them. No version resumes after all of these; some keep the received bytes for the next attempt.
_BROKEN_TRANSFERS = ("ReadError", "RemoteProtocolError", "ConnectionError", "ChunkedEncodingError")


class WrongContentError(Exception):
    """The received data is not the file that the repository lists."""


class _Bounded(io.FileIO):
    """A new file that takes no more than `limit` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(str(path), "x+")
        self._limit = limit

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        if self.tell() + len(rest) > self._limit:
            raise WrongContentError(f"more than the {self._limit:,} bytes that the repository lists")
        while rest:  # a file without a buffer may take less than all
            rest = rest[super().write(rest) :]
        return len(data)


def fetch(blob: Path, name: str, url: str, location: str, size: int, digest: str | None) -> None:
    """Download a file to `blob`, which gets its name once it is complete and matches the listing.

    `location` is where the server redirects `url` to, `size` in bytes. Without a `digest` only the size is checked.

    Raises:
        WrongContentError: more was sent than `size`, or different content.
        OSError: it cannot be written. Errors of the transfer are those of the library's HTTP client.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers()
    if urlsplit(location)[:2] not in (urlsplit(url)[:2], ("https", "huggingface.co")):
        headers.pop("authorization", None)  # a token is for the Hub, not for whoever stores its files
    partial = blob.with_name(f"{blob.name}.{uuid.uuid4().hex[:8]}.incomplete")
    try:
        with _Bounded(partial, size) as file:
            for last in (False, True):
                try:
                    http_get(
                        location,
                        file,
                        resume_size=file.tell(),
                        headers=headers,
                        expected_size=size,
                        displayed_filename=name,
                    )
                    break
                except Exception as error:
                    if last or type(error).__name__ not in _BROKEN_TRANSFERS:
                        raise
                    time.sleep(1)
            sync(file.fileno(), partial)
        if digest is not None:
            _check_content(partial, size, digest)
        partial.replace(blob)
    finally:
        partial.unlink(missing_ok=True)


def _check_content(path: Path, size: int, digest: str) -> None:
    """Raise WrongContentError unless the file has the listed hash; see `hub._Listing`."""
    found = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    if found.hexdigest() != digest.lower():
        raise WrongContentError(f"its content differs from the listed file (hash {found.hexdigest()[:12]}...)")


def link(blob: Path, path: Path, *, fresh: bool) -> None:
    """Give a blob its name in a snapshot: by a link or, on a disk without symbolic links, as a file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        try:
            os.symlink(os.path.relpath(blob, path.parent), part)
        except OSError:
            if fresh:
                blob.replace(path)
                return
            shutil.copyfile(blob, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
