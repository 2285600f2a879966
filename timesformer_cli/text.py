"""Text for terminals."""


def plural(count: int, what: str) -> str:
    """`1 clip`, `2,000 clips`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A duration as 1:23:45, 12:30 or 4.2 s."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    whole, minutes = divmod(minutes, 60)
    return f"{whole}:{minutes:02}:{rest:02}" if whole else f"{minutes}:{rest:02}"


def clock(seconds: float) -> str:
    """A time to a tenth of a second, as 1:02:03.4 or 0:03.4."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    whole, minutes = divmod(minutes, 60)
    shown = f"{whole}:{minutes:02}" if whole else f"{minutes}"
    return f"{shown}:{tenths // 10:02}.{tenths % 10}"


def stretch(start: float | None, end: float | None) -> str:
    """A part of a video: `3 to 5.5 s`, `from 3 s`, `to 5.5 s`."""
    if start is None or end is None:
        return f"to {end:.10g} s" if start is None else f"from {start:.10g} s"
    return f"{start:.10g} to {end:.10g} s"


def named(path: str, start: float | None, end: float | None) -> str:
    """A video, or a part of it, for a message: `a.mp4`, `a.mp4 (3 to 5.5 s)`."""
    return path if start is None and end is None else f"{path} ({stretch(start, end)})"


def printable(text: str) -> str:
    r"""`text` in one line, with all characters that could control a terminal as backslash escapes.

    File names may hold line breaks, escape sequences, direction marks, or bytes that are not UTF-8
    (which Python keeps as lone surrogates).
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
