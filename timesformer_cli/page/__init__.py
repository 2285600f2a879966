"""The page of labels: one HTML file that needs no other and no network, to look through what was labelled.

Paths, labels and messages never stand in its markup. They are JSON in `<script>` elements that no browser runs, each
record in one of its own, and `page.js` shows them as text. Its Content-Security-Policy lets the browser run that script
alone and fetch nothing.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from string import Template
from urllib.parse import quote

from timesformer_cli.sources import is_address, local_path
from timesformer_cli.styles import Record, Style, spans

_HTTP = re.compile(r"https?://", re.IGNORECASE)


def style(model: str, labels: Sequence[str], *, raw: bool, recipe: str, folder: Path = Path()) -> Style:
    """The page of a run with the model of that name; `raw` is whether scores are logits.

    `folder` is where the page will lie: links to relative paths lead from there.
    """
    css, script, page = (_read(name) for name in ("page.css", "page.js", "page.html"))
    run = {
        "model": model,
        "recipe": recipe,
        "raw": raw,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "labels": list(labels),
    }
    start = Template(page).substitute(
        css=css, css_hash=_hash(css), script=script, script_hash=_hash(script), run=_json(run)
    )
    base = _way(folder)
    return Style(lambda record: _element(record, base), start, end="</div>\n</body>\n</html>\n")


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """By what a Content-Security-Policy knows the source of an element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _json(value: object) -> str:
    # Only "<" could end the element, or begin a comment in it; JSON has it inside of strings alone.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def _element(record: Record, base: Path) -> str:
    row: Record = {"path": record["path"], "url": _url(record["path"], base)}
    if record["status"] == "error":
        row["error"] = record["error"]
    else:
        row["video"] = record["video"]
        row["timeline"] = "segments" in record
        row["parts"] = [
            {
                "start": span["start"],
                "end": span["end"],
                "ranks": [[prediction["index"], prediction["score"]] for prediction in span["predictions"]],
            }
            for span in spans(record)
        ]
        row["pictures"] = record.get("_thumbnails", [])
    return f'<script type="application/json">{_json(row)}</script>\n'


def _way(folder: Path) -> Path:
    """The way from `folder` to the working directory, which relative paths begin at."""
    try:
        return Path(os.path.relpath(os.curdir, folder))
    except ValueError:  # on another drive of Windows
        return Path.cwd()


def _url(path: str, base: Path) -> str | None:
    """What a link to the video leads to: a web address, a file by its whole path, or by its path from the page."""
    if is_address(path):
        return path if _HTTP.match(path) else None
    local = base / local_path(path)
    try:
        return local.as_uri() if local.is_absolute() else quote(os.fsencode(local.as_posix()))
    except UnicodeEncodeError:  # no file can have such a name
        return None
