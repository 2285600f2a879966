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
    yield from faults_of_navigation(folder)
    site = (folder / "site").resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for followed, address in page.refers:
            fault = fault_of(path, followed, address, pages, site)
            if fault is not None:
                yield f"{path.relative_to(site)} {fault}"
    for path in sorted(site.rglob("*.css")):
        for address in findall(r"(?:url\(|@import)\s*[\"']?(https?:|//)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} fetches something from another host ({address})"


def faults_of_navigation(folder: Path) -> Iterator[str]:
    config = tomllib.loads((folder / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = list(navigated(config["nav"]))
    written = {path.relative_to(folder / "docs").as_posix() for path in (folder / "docs").rglob("*.md")}
    yield from (f"docs/{name} is not in the navigation of zensical.toml" for name in sorted(written - set(listed)))
    yield from (
        f"the navigation of zensical.toml names {name}, which is not in docs/" for name in set(listed) - written
    )
    yield from (f"the navigation of zensical.toml names {name} twice" for name in set(listed) if listed.count(name) > 1)


def fault_of(path: Path, followed: bool, address: str, pages: dict[Path, Page], site: Path) -> str | None:
    """What is wrong with an address on the page at `path`, or None."""
    parts = urlsplit(address)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        return None if followed else f"fetches {address}"
    target = path
    if parts.path:
        start = site if parts.path.startswith("/") else path.parent
        target = (start / unquote(parts.path).lstrip("/")).resolve()
        target = target / "index.html" if target.is_dir() else target
    if not target.is_file() or site not in target.parents:
        return f"refers to {address}, which does not exist"
    if (
        not parts.fragment
        or not followed
        or target.suffix != ".html"
        or unquote(parts.fragment) in pages[target].anchors
    ):
        return None
    return f"refers to {address}, which has no such anchor"


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    sys.exit("\n".join(found) or 0)
