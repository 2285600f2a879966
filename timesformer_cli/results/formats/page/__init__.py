"""The page of labels: one HTML file to browse the results.

Each record is JSON in a `<script>` element of its own, for `page.js` to show.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from timesformer_cli.results.html import as_json, fill, url_of, way_from
from timesformer_cli.results.record import Record, Style, spans

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
        "labels": list(labels),
        "groups": groups or {},
    }
    start = fill(Path(__file__).with_name("page.html"), "Video labels", run=as_json(run))
    way = way_from(folder)
    return Style(lambda record: _element(record, way), start, end="</div>\n</body>\n</html>\n")


def _element(record: Record, way: Path) -> str:
    row: Record = {"path": record["path"], "url": url_of(record["path"], way)}
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
            | ({"abstained": True} if span.get("abstained") else {})
            for span in spans(record)
        ]
        row["pictures"] = record.get("_thumbnails", [])
    return f'<script type="application/json">{as_json(row)}</script>\n'
