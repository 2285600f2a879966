"""How records become text: what a format writes for each of them, and around them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# One video, as JSON lines have it. Fields that begin with an underscore are for formats that show them, and are
# written in no other: `_thumbnails` and `_logits`, base64, one for each segment (a video as a whole is one).
Record = dict[str, Any]


@dataclass(frozen=True)
class Style:
    """A format: the text of a record, and what stands before the first, between two, and after the last.

    A record that has no place in the format is rendered as an empty text, and leaves no trace. `start` and `end` are
    written even if there is no record.
    """

    render: Callable[[Record], str]
    start: str = ""
    between: str = ""
    end: str = ""

    def texts(self, records: Iterable[Record]) -> Iterator[str]:
        """The text of a whole file, piece by piece."""
        empty = True
        for record in records:
            if text := self.render(record):
                yield (self.start if empty else self.between) + text
                empty = False
        yield (self.start if empty else "") + self.end


@dataclass(frozen=True, slots=True)
class Origin:
    """Which model records come from. `labels` are those of all its classes; `raw`: scores are logits."""

    model: str
    labels: tuple[str, ...]
    recipe: str
    raw: bool


def spans(record: Record) -> list[Record]:
    """The labelled parts of a video in order of time, as `start`, `end` (seconds) and `predictions`.

    These are the segments of a timeline, or the video as a whole; none if it failed.
    """
    if record["status"] == "error":
        return []
    if "segments" in record:
        segments: list[Record] = record["segments"]
        return segments
    return [{"start": 0.0, "end": record["video"]["duration"] or 0.0, "predictions": record["predictions"]}]


def public(record: Record) -> Record:
    """The record without the fields that are for some formats alone."""
    return {name: value for name, value in record.items() if not name.startswith("_")}
