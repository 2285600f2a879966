"""What `zensical build --strict` lets pass: exits with 1, and a line for each fault, unless the built site is whole.

python docs/check_site.py [FOLDER]

FOLDER is that of zensical.toml; its site is built already. Every page of docs/ must be in the navigation, every link
and image of the site must lead to a file and an anchor there, and nothing that a browser fetches by itself may come
from another host.
"""

import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from re import findall
from typing import Any
from urllib.parse import unquote, urlsplit

LINKS = {("a", "href"), ("area", "href")}  # which the reader follows; the browser fetches everything else
NAMED = {"canonical", "alternate", "next", "prev"}  # relations of <link> that fetch nothing


class Page(HTMLParser):
    """The anchors of a page, and what it refers to: whether a reader follows it, and the address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.refers: list[tuple[bool, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for name, value in attrs if value and (name == "id" or (tag, name) == ("a", "name"))}
        followed = tag == "link" and bool(NAMED & set((values.get("rel") or "").split()))
        for name, value in attrs:
            if name in ("href", "src", "data", "poster") and value and tag != "base":
                self.refers.append((followed or (tag, name) in LINKS, value))
            if name == "srcset" and value:
                self.refers += [(False, part.split()[0]) for part in value.split(",")]


def navigated(nav: list[Any]) -> Iterator[str]:
    """The pages of a navigation, of its groups too."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(value, list):
                yield from navigated(value)
            else:
                yield value


def faults(folder: Path) -> Iterator[str]:
    config = tomllib.loads((folder / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = list(navigated(config["nav"]))
    written = {path.relative_to(folder / "docs").as_posix() for path in (folder / "docs").rglob("*.md")}
    yield from (f"docs/{name} is not in the navigation of zensical.toml" for name in sorted(written - set(listed)))
    yield from (
        f"the navigation of zensical.toml names {name}, which is not in docs/" for name in set(listed) - written
    )
    yield from (f"the navigation of zensical.toml names {name} twice" for name in set(listed) if listed.count(name) > 1)

    site = folder / "site"
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for followed, address in page.refers:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if not followed:
                    yield f"{name} fetches {address}"
                continue
            target = path
            if parts.path:
                target = (
                    site / parts.path[1:] if parts.path[0] == "/" else path.parent / unquote(parts.path)
                ).resolve()
                target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or site.resolve() not in target.resolve().parents:
                yield f"{name} refers to {address}, which does not exist"
            elif parts.fragment and followed and target.suffix == ".html":
                found = pages.get(site / target.resolve().relative_to(site.resolve()))
                if found is None or unquote(parts.fragment) not in found.anchors:
                    yield f"{name} refers to {address}, which has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for address in findall(r"(?:url\(|@import)\s*[\"']?(https?:|//)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} fetches something from another host ({address})"


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    sys.exit("\n".join(found) or 0)
