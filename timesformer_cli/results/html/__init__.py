"""HTML files that need no other files and no network: the page of labels, and the report of an evaluation.

Paths, labels and messages are never part of the markup. They are JSON in `<script>` elements that browsers do not run,
and a script shows them as text. The Content-Security-Policy lets the browser run only that script, and fetch nothing
but the videos that a page plays.
All pages share `base.css` and `base.js`, and those that play videos also `player.css` and `player.js`.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from timesformer_cli.video.addresses import is_address, local_path

_HERE = Path(__file__).parent
_HTTP = re.compile(r"https?://", re.IGNORECASE)


def fill(template: Path, title: str, *, shared: Sequence[Path] = (), **parts: str) -> str:
    """The document with the body `template`, and the style and script of the same name beside it.

    `shared` are pages whose style and script come first. `title` and `parts`, which fill the placeholders, are markup.
    """
    return _filled(template, title, shared, "", parts)


def fill_player(template: Path, title: str, *, shared: Sequence[Path] = (), **parts: str) -> str:
    """The same, for a document that plays videos by `player.js`: the browser may fetch those, from disk or the web."""
    return _filled(template, title, (_HERE / "player", *shared), " media-src file: http: https:;", parts)


def _filled(template: Path, title: str, shared: Sequence[Path], media: str, parts: Mapping[str, str]) -> str:
    pages = (_HERE / "base", *shared, template)
    css, script = ("".join(_read(page.with_suffix(kind)) for page in pages) for kind in (".css", ".js"))
    body = Template(_read(template)).substitute(script=script, **parts).rstrip("\n")
    return Template(_read(_HERE / "document.html")).substitute(
        media=media,
        title=title,
        css=css,
        css_hash=_hash(css),
        script_hash=_hash(script),
        body=body,
    )


def as_json(value: object) -> str:
    """JSON that can stand in a `<script>` element."""
    # Only "<" could end the element, or begin a comment in it; in JSON it occurs only inside strings.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def way_from(folder: Path) -> Path:
    """The path from `folder` to the working directory, where relative paths begin."""
    try:
        return Path(os.path.relpath(os.curdir, folder))
    except ValueError:  # on another drive of Windows
        return Path.cwd()


def url_of(path: str, way: Path) -> str | None:
    """The target of a link to a video: a web address, an absolute file path, or a path relative to the document.

    `way` is the result of `way_from`. None if a browser cannot open the address.
    """
    if is_address(path):
        return path if _HTTP.match(path) else None
    local = way / local_path(path)
    try:
        return local.as_uri() if local.is_absolute() else quote(os.fsencode(local.as_posix()))
    except UnicodeEncodeError:  # no file can have such a name
        return None


def fragment(start: float | None, end: float | None) -> str:
    """The end of a link to a part of a video, with which players show only that: `#t=3.0,5.5`."""
    return f"#t={'' if start is None else start}{'' if end is None else f',{end}'}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """The hash that identifies the source of an element in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
