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


def printable(text: str) -> str:
    r"""`text` in one line, with all characters that could control a terminal as backslash escapes.

    File names may hold line breaks, escape sequences, direction marks, or bytes that are not UTF-8
    (which Python keeps as lone surrogates).
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
