"""The page of labels: one HTML file to browse the results.

Each record is JSON in a `<script>` element of its own, for `page.js` to show.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import repeat
from pathlib import Path

from timesformer_cli.files import digest_of
from timesformer_cli.results.formats.page.films import MOST_FILMS, Films
from timesformer_cli.results.html import as_json, fill_player, url_of, way_from
from timesformer_cli.results.record import Record, Style, part_of, spans

Groups = Mapping[str, Sequence[str]] | None


def style(
    model: str, labels: Sequence[str], *, raw: bool, recipe: str, folder: Path = Path(), groups: Groups = None
) -> Style:
    """The page of a run with the model of that name; `raw` is whether scores are logits.

    `folder` is the folder of the page, for links to relative paths. `groups` are as for `Origin`.
    """
    run = {
        "model": model,
        "recipe": recipe,
        "raw": raw,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "key": _key(model, labels, recipe),
        "labels": list(labels),
        "groups": groups or {},
        "most_films": MOST_FILMS,
    }
    here = Path(__file__)
    start = fill_player(
        here.with_name("page.html"), "Video labels", shared=[here.with_name("review")], run=as_json(run)
    )
    way, films = way_from(folder), Films()
    return Style(lambda record: _element(films.limited(record), way), start, end="</div>\n</body>\n</html>\n")


def _key(model: str, labels: Sequence[str], recipe: str) -> str:
    """What identifies the run among all whose corrections a browser keeps: some share them among all pages on disk.

    A run with the same model in the same folder is the same one, so corrections stay if the page is written again.
    """
    return digest_of("\0".join([model, recipe, os.getcwd(), *labels])).hex()


def _element(record: Record, way: Path) -> str:
    row: Record = {"path": record["path"], "url": url_of(record["path"], way)}
    if record["status"] == "error":
        row["error"] = record["error"]
    else:
        row["video"] = record["video"]
        row["timeline"] = "segments" in record
        row["part"] = part_of(record)
        runners_up = record.get("_runners_up") or repeat(())
        row["parts"] = [
            {
                "start": span["start"],
                "end": span["end"],
                "ranks": [[prediction["index"], prediction["score"]] for prediction in span["predictions"]],
                "next": further,
            }
            | ({"abstained": True} if span.get("abstained") else {})
            for span, further in zip(spans(record), runners_up, strict=False)
        ]
        row["pictures"] = record.get("_thumbnails", [])
        row["films"] = record.get("_films", [])
    return f'<script type="application/json">{as_json(row)}</script>\n'
