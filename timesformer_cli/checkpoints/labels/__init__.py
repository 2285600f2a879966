"""Names of classes: the lists of the published datasets, and users' own files."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from timesformer_cli import strict_json
from timesformer_cli.errors import CheckpointError
from timesformer_cli.specs import Dataset

# Far larger than any list of labels: a weight file that is named by mistake is not read whole.
_LARGEST_FILE = 2**24  # bytes

_NUMBER = re.compile(r"[0-9]{1,9}")
_LINE_END = re.compile(r"\r\n|\r|\n")
# Something-Something's templates, which are text, begin with a bracket too, but a letter follows it.
_JSON = re.compile(r"\s*(\{|\[\s*([^\w\s]|\d))")


@cache
def read(dataset: Dataset) -> tuple[str, ...]:
    """The classes of a published dataset, in the order of the published heads."""
    text = (Path(__file__).parent / f"{dataset}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def dataset_of(names: Sequence[str]) -> Dataset | None:
    """The dataset that has exactly these classes in this order."""
    return next((dataset for dataset in get_args(Dataset) if read(dataset) == tuple(names)), None)


def read_file(path: Path) -> tuple[str, ...]:
    """The classes that a file lists, in the order of their numbers.

    Text in UTF-8: one name per line, or a number and a name (in either order) with a tab between them.
    JSON: a list of names, numbers to names, names to numbers, or a `config.json` with `id2label`.
    Numbers go from 0 to n - 1, in any order. Quotation marks around a whole name, as in the class names
    of SlowFast and the tables of Kinetics, are removed.

    Raises:
        CheckpointError: no such file, none of these forms, or numbers that skip a class.
    """
    text = _read_text(path)
    try:
        if path.suffix.lower() == ".json" or _JSON.match(text):
            return _from_json(text)
        return _from_lines(_LINE_END.split(text))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; a list of labels was expected") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path}: a folder, not a list of labels; name the file in it") from error
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise CheckpointError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(content) > _LARGEST_FILE:
        raise CheckpointError(f"{path}: larger than {_LARGEST_FILE >> 20} MB; is it a list of labels?")
    try:
        text = content.decode("utf-8-sig")  # spreadsheets write a byte order mark first
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not text in UTF-8; is it a list of labels?") from error
    if "\0" in text:
        raise CheckpointError(f"{path}: not text; is it a list of labels?")
    if not text.strip():
        raise CheckpointError(f"{path}: empty; one label per line was expected")
    return text


def _from_lines(lines: list[str]) -> tuple[str, ...]:
    while not lines[-1].strip():
        lines = lines[:-1]
    if any("\t" in line.strip() for line in lines):
        return _from_columns(lines)
    # If a blank line between names were skipped, each later class would get its neighbour's name.
    return tuple(_name(line, f"line {number}") for number, line in enumerate(lines, 1))


def _from_columns(lines: list[str]) -> tuple[str, ...]:
    """Numbers and names, in the same order on every line."""
    rows = [[cell.strip() for cell in line.strip().split("\t")] for line in lines]
    # If the first name has only digits, both orders fit; then the number is taken to come first.
    first = _NUMBER.fullmatch(rows[0][0]) is not None
    found: dict[int, str] = {}
    for line, row in enumerate(rows, 1):
        number, name = (row if first else row[::-1]) if len(row) == 2 else ("", "")
        if not _NUMBER.fullmatch(number):
            order = "a number, a tab and a name" if first else "a name, a tab and a number"
            raise ValueError(f"line {line} is {_short(lines[line - 1])}; {order} were expected, or names without tabs")
        _add(found, int(number), name, f"line {line}")
    return _in_order(found)


def _from_json(text: str) -> tuple[str, ...]:
    try:
        content = strict_json.loads(text, pairs=_without_doubles)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if isinstance(content, dict) and isinstance(content.get("id2label"), dict):
        content = content["id2label"]
    if isinstance(content, list):
        names = tuple(_name(value, f"item {index}") for index, value in enumerate(content))
    elif isinstance(content, dict):
        names = _from_mapping(content)
    else:
        raise ValueError(f"{_short(content)} is not a list of labels; a JSON list or object was expected")
    if not names:
        raise ValueError("it lists no labels")
    return names


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys all differ; of two equal keys, Python would keep only the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        double = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"{_short(double)} is listed twice")
    return content


def _from_mapping(content: Mapping[str, Any]) -> tuple[str, ...]:
    numbers_first = all(map(_NUMBER.fullmatch, content)) and all(isinstance(name, str) for name in content.values())
    found: dict[int, str] = {}
    for key, value in content.items():
        if numbers_first:
            _add(found, int(key), value, f"key {_short(key)}")
            continue
        number = str(value) if type(value) in (int, str) else ""  # type(): True is an int too
        if not _NUMBER.fullmatch(number):
            raise ValueError(
                f"{_short(key)} stands for {_short(value)}; numbers to names, or names to numbers, were expected"
            )
        _add(found, int(number), key, f"number {number}")
    return _in_order(found)


def _add(found: dict[int, str], number: int, name: object, where: str) -> None:
    label = _name(name, where)
    if number in found:
        raise ValueError(f"two labels have the number {number}: {found[number]!r} and {label!r}")
    found[number] = label


def _in_order(found: Mapping[int, str]) -> tuple[str, ...]:
    missing = next((number for number in range(len(found)) if number not in found), None)
    if missing is not None:
        raise ValueError(
            f"{len(found)} labels up to number {max(found)}, but none has the number {missing}; "
            "numbers must go from 0, without gaps"
        )
    return tuple(found[number] for number in range(len(found)))


def _name(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is {_short(value)}; a name was expected")
    name = value.strip()
    if len(name) >= 2 and name[0] == name[-1] == '"' and '"' not in name[1:-1]:
        name = name[1:-1].strip()
    if not name:
        raise ValueError(f"{where} has no name; without it, all following classes would shift")
    return name


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
