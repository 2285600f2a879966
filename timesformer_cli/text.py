"""Text that is fit to be shown on a terminal."""


def plural(count: int, what: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    r"""`text` in one line, with whatever could steer or upset a terminal shown as a backslash escape.

    File names may hold line breaks, escape sequences, direction marks, or bytes that are no UTF-8
    (which Python keeps as lone surrogates).
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
