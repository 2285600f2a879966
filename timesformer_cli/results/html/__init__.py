"""HTML files that need no others and no network, as the page of labels and the report of an evaluation are.

Paths, labels and messages never stand in their markup. They are JSON in `<script>` elements that no browser runs, and a
script shows them as text. The Content-Security-Policy lets the browser run that script alone and fetch nothing.
`base.css` and `base.js` are what all of them share.
"""

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from string import Template
from urllib.parse import quote

from timesformer_cli.video.addresses import is_address, local_path

_HERE = Path(__file__).parent
_HTTP = re.compile(r"https?://", re.IGNORECASE)


def fill(template: Path, title: str, **parts: str) -> str:
    """The document with the body `template` and, beside it under the same name, its style and its script.

    `title` and `parts`, what its other places take, are markup.
    """
    css, script = (_read(_HERE / f"base.{kind}") + _read(template.with_suffix(f".{kind}")) for kind in ("css", "js"))
    body = Template(_read(template)).substitute(script=script, **parts).rstrip("\n")
    return Template(_read(_HERE / "document.html")).substitute(
        title=title, css=css, css_hash=_hash(css), script_hash=_hash(script), body=body
    )


def as_json(value: object) -> str:
    """JSON that can stand in a `<script>` element."""
    # Only "<" could end the element, or begin a comment in it; JSON has it inside of strings alone.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def way_from(folder: Path) -> Path:
    """The way from `folder` to the working directory, which relative paths begin at."""
    try:
        return Path(os.path.relpath(os.curdir, folder))
    except ValueError:  # on another drive of Windows
        return Path.cwd()


def url_of(path: str, way: Path) -> str | None:
    """What a link to a video leads to: a web address, a file by its whole path, or by its path from the document.

    `way` is that of `way_from`.
    """
    if is_address(path):
        return path if _HTTP.match(path) else None
    local = way / local_path(path)
    try:
        return local.as_uri() if local.is_absolute() else quote(os.fsencode(local.as_posix()))
    except UnicodeEncodeError:  # no file can have such a name
        return None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """By what a Content-Security-Policy knows the source of an element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
