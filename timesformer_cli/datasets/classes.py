"""The classes of a dataset as its own labels have them, if no model says which there are."""

import re
from collections.abc import Mapping, Sequence

from timesformer_cli.datasets.matching import (
    Classes,
    MatchedBy,
    Matching,
    check_range,
    first_rows,
    normalised,
    number,
)
from timesformer_cli.datasets.reading import Row
from timesformer_cli.errors import InputError

_DIGITS = re.compile(r"([0-9]+)")
_LISTED = 20  # empty classes in a message


def natural(name: str) -> tuple[tuple[int | str, ...], str]:
    """A key that sorts names as people do: a2 before a10, and capitals beside small letters."""
    parts = _DIGITS.split(name)  # digits are at odd places
    return tuple(int(part) if place % 2 else part.casefold() for place, part in enumerate(parts)), name


def own_classes(rows: Sequence[Row], numbered: Sequence[str] | None, wanted: Sequence[str] | None) -> Matching:
    """The classes that the labels of `rows` are, in natural order, or those of them that are `wanted`, in that order.

    `numbered` are the class names for the numbers of the dataset. Without them, numbers name themselves, and the order
    is theirs.

    Raises:
        InputError: a number without a name, or two names that differ only in case, spaces or punctuation.
    """
    first = first_rows(rows)
    names, by = _names(first, numbered)
    _check_alike(first, names)
    if wanted is None:
        # Labels of numbers are sorted by these already.
        order = list(dict.fromkeys(names.values()))
        classes = Classes(sorted(order, key=natural) if by == "name" else order)
        places = {name: place for place, name in enumerate(classes.names)}
    else:
        known, classes = Classes(list(dict.fromkeys(names.values()))), Classes(wanted)
        found = {place: known.index(name) for place, name in enumerate(wanted)}
        places = {known.names[index]: place for place, index in found.items() if index is not None}
    indices = {text: places[name] for text, name in names.items() if name in places}
    return Matching(indices, by, {index: classes.names[index] for index in indices.values()}, classes)


def _names(first: Mapping[str, Row], numbered: Sequence[str] | None) -> tuple[dict[str, str], MatchedBy]:
    """The class name of each label, and what it comes from; labels that are numbers in the order of these."""
    numbers = {text: value for text in first if (value := number(text)) is not None}
    if len(numbers) < len(first):
        return {text: text for text in first}, "name"
    numbers = dict(sorted(numbers.items(), key=lambda entry: entry[1]))
    if numbered is None:
        return {text: str(value) for text, value in numbers.items()}, "index"
    check_range(numbers, first, (), numbered)
    return {text: numbered[value] for text, value in numbers.items()}, "label map"


def _check_alike(first: Mapping[str, Row], names: Mapping[str, str]) -> None:
    alike: dict[str, str] = {}
    for text, name in names.items():
        before = alike.setdefault(normalised(name), text)
        if names[before] != name:
            raise InputError(
                f"{first[text].place}: {name!r} and {names[before]!r} ({first[before].place}) differ only in case, "
                "spaces or punctuation; give one class one name"
            )


def without_empty(name: str, counts: Mapping[int, int], names: Sequence[str], *, asked: bool) -> dict[int, int]:
    """New numbers of the classes that have videos; `counts` are those of the videos, by the number of their class.

    `name` is that of the dataset, and `asked` is whether the user named the classes: then none may be empty.

    Raises:
        InputError: a class that was asked for is empty, or there is only one class.
    """
    empty = [label for index, label in enumerate(names) if not counts.get(index)]
    if asked and empty:
        listed = ", ".join(map(repr, empty[:_LISTED])) + (", ..." if len(empty) > _LISTED else "")
        raise InputError(f"{name}: {len(empty)} of the {len(names)} `classes` have no video: {listed}")
    left = [index for index in range(len(names)) if counts.get(index)]
    if len(left) < 2:
        raise InputError(
            f"{name}: all its videos with a label ({counts[left[0]]:,}) are of one class, {names[left[0]]!r}; "
            "at least two classes are needed"
        )
    return {index: place for place, index in enumerate(left)}
