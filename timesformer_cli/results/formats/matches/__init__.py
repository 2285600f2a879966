"""The page of a search: the videos that are most like each query, each played from its second on."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from timesformer_cli.flow import Part
from timesformer_cli.results.html import as_json, fill_player, fragment, url_of, way_from


def texts(
    answers: Iterable[Mapping[str, Any]], played: Iterable[tuple[str, Part] | None], source: str, folder: Path
) -> Iterator[str]:
    """The text of the page, piece by piece.

    `answers` are objects as in JSON lines, and `played` are the video and the part of each query, None if it is no
    video. `source` names the file of vectors. `folder` is that of the page, for links to relative paths.
    """
    way = way_from(folder)
    yield fill_player(Path(__file__).with_name("matches.html"), "Similar videos", run=as_json({"file": source}))
    for answer, own in zip(answers, played, strict=True):
        matches = [dict(match) | {"url": _url(match["path"], _span(match), way)} for match in answer["matches"]]
        url = None if own is None else _url(own[0], own[1], way)
        row = {"query": answer["query"], "url": url, "matches": matches}
        yield f'<script type="application/json">{as_json(row)}</script>\n'
    yield "</div>\n</body>\n</html>\n"


def _span(match: Mapping[str, Any]) -> Part:
    """What is played: the segment, or from its frame on."""
    return (match["time"], match["end"]) if match.get("time") is not None else (match["start"], match["end"])


def _url(path: str, span: Part, way: Path) -> str | None:
    url = url_of(path, way)
    return None if url is None else url + ("" if span == (None, None) else fragment(*span))
