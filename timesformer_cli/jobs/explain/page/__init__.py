"""The page of an explanation: one HTML file to scrub through what the model saw. And the index of a folder of pages."""

import base64
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.jobs.explain import Explained
from timesformer_cli.jobs.explain.alterations import altered
from timesformer_cli.jobs.explain.records import Explanation, Map
from timesformer_cli.jobs.explain.words import (
    CAVEAT,
    TITLES,
    frames_sentence,
    map_sentence,
    meaning,
    summary,
    total_sentence,
)
from timesformer_cli.results.html import as_json, fill, fill_player, fragment, url_of, way_from
from timesformer_cli.results.overlay import Look
from timesformer_cli.specs import Checkpoint, PreprocessSpec, Reading
from timesformer_cli.video.reader import open_video
from timesformer_cli.video.render import picture

_HEIGHT = 480  # of the frames, at most, in pixels
_STRIP_HEIGHT = 64
_STRIP_FRAMES = 8
_QUALITY = 70

Json = dict[str, Any]


def render(explained: Explained, checkpoint: Checkpoint, reading: Reading, look: Look, folder: Path) -> str:
    """The page, with a tab for each map. The frames are read again, as the model saw only parts of them.

    `folder` is that of the page, for the link to the video.

    Raises:
        VideoError: the video cannot be read any more.
    """
    first = explained.explanations[0]
    facts: Json = {
        "path": explained.item.path,
        "url": url_of(explained.item.path, way_from(folder)),
        "plays": not explained.item.frames,
        "model": checkpoint.name,
        "alpha": look.alpha,
        "caveat": CAVEAT,
        "views": list(_views(explained, reading)),
        "explanations": [_explanation(each, explained, checkpoint, look) for each in explained.explanations],
        "contrasts": [_map(found, title, first, look) for title, found in explained.contrasts],
    }
    return fill_player(Path(__file__).with_name("page.html"), "Explanation", facts=as_json(facts))


def _views(explained: Explained, reading: Reading) -> Iterator[Json]:
    """The frames of each explained view, whole and upright, as large as a page needs them."""
    with open_video(explained.item, reading) as reader:
        for each in explained.explanations:
            pictures: dict[int, str] = {}
            for number in sorted(set(each.view.frames)):  # one by one: those of a large film do not fit into memory
                frame = Image.fromarray(reader.read([number]).pixels[0])
                share = min(_HEIGHT / frame.height, 1)
                size = max(round(frame.width * share), 1), max(round(frame.height * share), 1)
                pictures[number] = _webp(frame.resize(size, Image.Resampling.BILINEAR))
            width, height = each.info.width, each.info.height
            left, top, right, bottom = each.box
            yield {
                "size": size,
                "part": fragment(round(float(each.times.min()), 3), round(float(each.times.max()), 3)),
                "box": [left / width, top / height, right / width, bottom / height],
                "frames": [
                    {"number": number, "time": round(time, 3), "picture": pictures[number]}
                    for number, time in zip(each.view.frames, each.times.tolist(), strict=True)
                ],
            }


def _explanation(each: Explanation, explained: Explained, checkpoint: Checkpoint, look: Look) -> Json:
    clip = explained.views.pixels[each.number]
    record = each.to_dict()
    times = each.times
    return {
        "label": each.label,
        "versus": each.against,
        "score": each.score,
        "summary": summary(each),
        "view": f"Clip {each.view.clip}, {each.view.crop} crop: view {each.number + 1} of {each.views}, "
        f"{times.min():.2f} to {times.max():.2f} s. The model saw {len(set(each.view.frames))} frames of it.",
        "strip": _strip(clip, checkpoint.preprocess),
        "altered": [
            record["counterfactuals"][found.name]
            | {
                "title": TITLES[found.name],
                "meaning": meaning(found, each),
                "strip": _strip(altered(clip, found.name), checkpoint.preprocess),
            }
            for found in each.counterfactuals
        ],
        "importance": [round(value, 4) for value in each.frames.values.tolist()],
        "importances": frames_sentence(each),
        "map": None if each.map is None else _map(each.map, each.label, each, look),
        "maps": map_sentence(each),
    }


def _map(found: Map, title: str, explanation: Explanation, look: Look) -> Json:
    record = found.to_dict()
    shown = look.weights(found.values)
    values = np.where(shown == 0, 0, found.values)
    scale = float(np.abs(found.values).max()) or 1.0
    return {
        "title": title,
        "view": explanation.number,
        "method": found.method,
        "depends": record["depends_on_label"],
        "verdict": found.verdict,
        "passed": found.check is not None and found.check.passed,
        "total": total_sentence(found),
        "scale": scale,
        # A number of two digits for each patch, and how strongly it is shown.
        "values": np.rint(values / scale * 99).astype(int).tolist(),
        "shown": np.rint(shown * 99).astype(int).tolist(),
        "check": None if found.check is None else found.check.to_dict(),
    }


def _strip(clip: NDArray[Any], spec: PreprocessSpec) -> str:
    """Some frames of a clip side by side, as the model sees them."""
    chosen = [len(clip) * (2 * part + 1) // (2 * _STRIP_FRAMES) for part in range(_STRIP_FRAMES)]
    tiles = [
        Image.fromarray(picture(clip[place], spec))
        for place in (chosen if len(clip) > _STRIP_FRAMES else range(len(clip)))
    ]
    size = max(round(tiles[0].width * _STRIP_HEIGHT / tiles[0].height), 1), _STRIP_HEIGHT
    strip = Image.new("RGB", (len(tiles) * (size[0] + 2), size[1]))
    for number, tile in enumerate(tiles):
        strip.paste(tile.resize(size, Image.Resampling.BILINEAR), (number * (size[0] + 2), 0))
    return _webp(strip)


def _webp(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")


def render_index(records: Iterable[Json], checkpoint: Checkpoint) -> str:
    """The index of a folder of pages, from the records of its videos."""
    rows = [
        {
            "path": record["path"],
            "page": record.get("page"),
            "label": record.get("label"),
            "score": record.get("score"),
            "summary": record["summary"] if record["status"] == "ok" else record["error"]["message"],
            "verdict": (record.get("map") or {}).get("verdict"),
        }
        for record in records
    ]
    facts = {"model": checkpoint.name, "rows": rows}
    return fill(Path(__file__).with_name("index.html"), "Explanations", facts=as_json(facts))
