"""JSON that a stranger may have written, read with bounds; whatever is wrong with it is a ValueError."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Far above every file that this package or the Hub's libraries write, and safe for recursive functions.
_MOST_DEPTH = 100

# Digits of a whole number. Larger ones than 64 bits become numbers without a limit, which floats cannot hold.
_MOST_DIGITS = 20

# Bytes of a file. The largest known is the index of a model with 100,000 shards or labels.
LARGEST = 64 * 2**20


def loads(text: str | bytes, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value that `text` (UTF-8, -16 or -32) states; `pairs` makes objects, as in `json.loads`.

    Raises:
        ValueError: not JSON, nested more than 100 deep, or with a whole number of more than 20 digits.
    """
    try:
        value = json.loads(text, parse_int=_whole, object_pairs_hook=pairs)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value, _brackets(text))
    return value


def raw_decode(text: str, position: int) -> tuple[Any, int]:
    """The value that begins at `position`, and the position after it. Raises ValueError as `loads` does."""
    try:
        value, end = _DECODER.raw_decode(text, position)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value, text.count("[", position, end) + text.count("{", position, end))
    return value, end


def read(path: Path) -> Any:
    """The content of a file in UTF-8. Raises OSError if it cannot be read, and ValueError as `loads` does."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"larger than {LARGEST / 2**20:.0f} MiB")
    return loads(content.decode("utf-8"))


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits: {digits[:_MOST_DIGITS]}...")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_whole)


def _brackets(text: str | bytes) -> int:
    return text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")


def _check_depth(value: Any, brackets: int) -> None:
    """Raise ValueError if `value` is nested too deeply, which takes at least as many `brackets`."""
    level = [value] if brackets > _MOST_DEPTH else []
    for _ in range(_MOST_DEPTH):
        level = [part for each in level for part in _parts(each) if isinstance(part, (dict, list))]
        if not level:
            return
    raise _too_deep()


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep() -> ValueError:
    return ValueError(f"nested too deeply, more than {_MOST_DEPTH} levels")
