"""Labels as subtitles: SRT and WebVTT, with one cue for each labelled span of a video."""

import html
import re
from collections.abc import Iterator
from itertools import count, zip_longest

from timesformer_cli.results.record import OPEN, Record, Style, answers, spans


def srt_style(*, raw: bool) -> Style:
    """SRT, for VLC, mpv and ELAN. With `raw`, scores are logits."""
    numbers = count(1)

    def render(record: Record) -> str:
        cues = _cues(record, raw=raw)
        return "\n".join(
            f"{next(numbers)}\n{_clock(a, ',')} --> {_clock(b, ',')}\n{_plain(text)}\n" for a, b, text in cues
        )

    return Style(render, between="\n")


def _plain(text: str) -> str:
    """The same to the eye, without markup: players read `<b>` and `{\\an8}` in a label as such.

    SRT has no escapes; a word joiner (U+2060), which has no width, keeps players from it.
    """
    return re.sub(r"[<{](?=\S)", "\\g<0>\u2060", text)


def vtt_style(*, raw: bool) -> Style:
    """WebVTT, for browsers. With `raw`, scores are logits."""

    def render(record: Record) -> str:
        cues = _cues(record, raw=raw)
        return "\n".join(
            f"{_clock(a, '.')} --> {_clock(b, '.')}\n{html.escape(text, quote=False)}\n" for a, b, text in cues
        )

    return Style(render, start="WEBVTT\n\n", between="\n")


def _cues(record: Record, *, raw: bool) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and one line of text, of each span that has a label.

    If segments overlap, a cue ends when the next segment begins.
    """
    parts = spans(record)
    for part, following in zip_longest(parts, parts[1:]):
        if not part["predictions"]:
            continue
        end = part["end"] if following is None else min(part["end"], following["start"])
        start_ms, end_ms = round(1000 * part["start"]), round(1000 * end)
        first = part["predictions"][0]
        score = f"{first['score']:.2f}" if raw else f"{100 * first['score']:.0f} %"
        text = f"{' '.join(first['label'].split())} ({score})" if answers(part) else OPEN
        # A blank line would end the cue. A cue must not end at its start, as with a video of unknown duration.
        yield start_ms, max(end_ms, start_ms + 1), text


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"
