"""Addresses and paths: telling the two apart, and showing addresses without secrets."""

import os
import re
from hashlib import blake2b
from urllib.parse import unquote
from urllib.request import url2pathname

from timesformer_cli.flow import Item

# At least two letters, since one is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

_FILE = re.compile(r"(?:file|local)://(?:localhost(?=/))?", re.IGNORECASE)

HTTP = ("http", "https")

# Kinds of address of fsspec that have an owner and a repository between "//" and "@".
_REPOSITORIES = ("github", "git")

# Parameters of signed addresses. The rest is what was signed, and identifies the video.
_SIGNATURES = frozenset({"signature", "sig", "sign", "hmac", "hdnts", "hdnea", "hdntl"})
_SIGNED_BY = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
_BESIDE_SIGNATURES = frozenset(
    {"expires", "exp", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "token"}
)
_AZURE = frozenset(
    {"se", "ske", "skoid", "sks", "skt", "sktid", "skv", "sip", "sp", "spr", "sr", "srt", "ss", "st", "sv"}
)

_PASSWORDS = frozenset({"password", "passwd", "passphrase", "pass", "pwd"})
_SECRETS = frozenset({"auth", "authorization", "bearer", "code", "jwt", "key", "session", "sessionid", "sid"})
_SECRET_ENDINGS = ("token", "secret", "credential", "credentials", "apikey", "api_key", "api-key")


def is_address(path: str) -> bool:
    """Whether this is not a local path. `a:b.mp4`, `C:/a.mp4` and any name that exists as a file are local."""
    if "://" not in path:  # most are paths, and a list may have a million
        return False
    return _SCHEME.match(path) is not None and not os.path.lexists(path) and not _FILE.match(path)


def local_path(path: str) -> str:
    """The path in a `file://` address, percent-encoded or plain; any other path is returned unchanged."""
    match = _FILE.match(path) if "://" in path else None
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


def item_at(path: str, frames: bool = False) -> Item:
    """The video at a path or an address, by the name that may be shown."""
    name = shown(path)
    return Item(name, frames, "" if name == path else path)


def shown(path: str) -> str:
    """An address without credentials and signatures, as it is printed and written; any other path unchanged.

    Two addresses that differ only in these are the same video. A token or a key may be what tells one video from
    another: a digest takes its place.
    """
    if not is_address(path):
        return path
    scheme, _, rest = path.partition("://")
    rest = rest if scheme.lower() in _REPOSITORIES else _without_login(rest, keep_user=scheme.lower() not in HTTP)
    parts = re.fullmatch(r"([^?#]*)(\?[^#]*)?(#.*)?", rest, re.DOTALL)
    assert parts is not None
    return f"{scheme}://{parts[1]}{_public(parts[2] or '')}{_public(parts[3] or '')}"


def _without_login(rest: str, *, keep_user: bool) -> str:
    """The part of an address after "//", without the password and the user name, which may be a token."""
    host = re.match(r"[^/?#]*", rest)
    assert host is not None
    end = host.end()
    if "@" not in host[0] and re.search(r"(?<!\]):.*\D", host[0]) and not host[0].startswith("["):
        end = len(rest)  # no port, but a password with a slash
    login, at, _ = rest[:end].rpartition("@")
    user = login.partition(":")[0] + at if keep_user else ""
    return user + rest[len(login) + len(at) :]


def _public(parameters: str) -> str:
    """The parameters after a "?" or "#", with that sign, as they may be shown."""
    parts = parameters[1:].split("&")
    names = [unquote(part.partition("=")[0]).lower() for part in parts]
    signed = not _SIGNATURES.isdisjoint(names) or {"token", "expires"} <= {*names}
    azure = {"sig", "sv"} <= {*names}
    kept = []
    for name, part in zip(names, parts, strict=True):
        if name in _SIGNATURES or name in _PASSWORDS or name.startswith(_SIGNED_BY):
            continue
        if (signed and name in _BESIDE_SIGNATURES) or (azure and name in _AZURE):
            continue
        written, _, value = part.partition("=")
        if value and (name in _SECRETS or name.endswith(_SECRET_ENDINGS)):
            digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8)
            part = f"{written}=hidden-{digest.hexdigest()}"
        kept.append(part)
    return parameters[:1] + "&".join(kept) if kept else ""
