"""Pages of labels, and the records that they show."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from testing.pages import Page
from timesformer_cli.results.formats import page
from timesformer_cli.results.record import Record
from timesformer_cli.video.render import FILM_FRAMES, film

LABELS = ("archery", "baking cookies", "canoeing", "dancing ballet", "eating cake", "flying kite", "golf putting")


def ranked(*scores: tuple[int, float], labels: Sequence[str] = LABELS) -> list[Record]:
    return [
        {"rank": rank, "index": index, "label": labels[index], "score": score}
        for rank, (index, score) in enumerate(scores, 1)
    ]


def video(path: str, duration: float | None = 10.0, **fields: Any) -> Record:
    facts = {"duration": duration, "fps": 29.97, "frames": 300, "width": 340, "height": 256, "codec": "h264"}
    return {"path": path, "status": "ok", "model": "base-k400", "video": facts, **fields}


def whole(path: str, *scores: tuple[int, float], duration: float | None = 10.0, **fields: Any) -> Record:
    return video(path, duration, predictions=ranked(*scores), views=[], **fields)


def failure(path: str, kind: str = "decode", message: str = "no frame can be decoded") -> Record:
    return {"path": path, "status": "error", "model": "base-k400", "error": {"kind": kind, "message": message}}


def timeline(path: str, *parts: tuple[float, float, list[tuple[int, float]]], **fields: Any) -> Record:
    segments = [{"start": start, "end": end, "predictions": ranked(*scores)} for start, end, scores in parts]
    return video(path, parts[-1][1], segments=segments, **fields)


def strip(red: int, frames: int = 4) -> str:
    """A strip of square frames, as records have them."""
    file = io.BytesIO()
    Image.new("RGB", (64 * frames, 64), (red, 80, 80)).save(file, "WEBP")
    return base64.b64encode(file.getvalue()).decode("ascii")


def column(red: int = 90, frames: int = FILM_FRAMES) -> str:
    """A film, each frame a little brighter."""
    return base64.b64encode(
        film([Image.new("RGB", (60, 40), (red, 20 * number, 90)) for number in range(frames)])
    ).decode()


def text_of(records: Sequence[Record], labels: Sequence[str] = LABELS, **options: Any) -> str:
    style = page.style("base-k400", labels, **{"raw": False, "recipe": "original", **options})
    return style.start + style.between.join(map(style.render, records)) + style.end


class PageOfLabels(Page):
    def paths(self) -> list[str]:
        return self.texts("main .video > bdi")

    def ask(self, **fields: str) -> None:
        """Fill in the form as a person would, and see what is left in the list."""
        script = """
            const form = document.querySelector("form");
            for (const [name, value] of Object.entries(arguments[0])) form.elements[name].value = value;
            form.dispatchEvent(new Event("input", {bubbles: true}));
            form.dispatchEvent(new Event("change", {bubbles: true}));
        """
        self.run(script, fields)
