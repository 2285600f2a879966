"""Match the classes of a dataset with those of a model: first by name, else by number. Never by position."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

from timesformer_cli.datasets.reading import Row
from timesformer_cli.errors import InputError, UsageError

MatchedBy = Literal["name", "index", "label map"]

_SHOWN = 3  # names of classes in a message
_NUMBER = re.compile(r"(-?[0-9]{1,9})(\.0*)?")  # pandas writes integers as 3.0 if a cell of the column is empty
_ACCENTS = str.maketrans("", "", "`\u00b4")  # used as apostrophes, but not punctuation in Unicode
_LEFT_OUT = frozenset(["Cc", "Cf", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Zl", "Zp", "Zs"])


@lru_cache(maxsize=10_000)
def normalised(name: str) -> str:
    """A name without case, spaces and punctuation.

    Copies of a dataset differ in these: the folder of "massaging person's head" is "massaging_persons_head", and the
    class of the template "Spinning [something]" is "Spinning something".
    """
    text = unicodedata.normalize("NFKC", name.translate(_ACCENTS)).casefold()
    return "".join(character for character in text if unicodedata.category(character) not in _LEFT_OUT)


def number(text: str) -> int | None:
    """The class number that a label is, if it is a number; -1 means an unknown class."""
    match = _NUMBER.fullmatch(text.strip())
    return int(match[1]) if match else None


class Classes:
    """Class names, looked up as they are, or by `normalised` if that is unique."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._exact = _unique(self.names)
        self._loose = _unique([normalised(name) for name in names])
        self._loose.pop("", None)

    def index(self, name: str) -> int | None:
        index = self._exact.get(name)
        if index is None and (value := number(name)) is not None:
            return self._exact.get(str(value))  # "3.0" is 3, and not the 30 that it is without punctuation
        return self._loose.get(normalised(name)) if index is None else index

    def near(self, name: str) -> str | None:
        """The class that an unknown name may have meant."""
        likely = get_close_matches(normalised(name), self._loose, n=1, cutoff=0.8)
        return self.names[self._loose[likely[0]]] if likely else None


def _unique(names: Sequence[str]) -> dict[str, int]:
    """The positions of names that occur only once."""
    count = Counter(names)
    return {name: place for place, name in enumerate(names) if count[name] == 1}


@dataclass(frozen=True, slots=True)
class Matching:
    """`indices` has the class number of the model for each label of the dataset that the model knows.

    `own` has the dataset's names of these classes, by class number, and `classes` are all classes of the model.
    """

    indices: Mapping[str, int]
    by: MatchedBy
    own: Mapping[int, str]
    classes: "Classes"


def match(
    rows: Sequence[Row],
    labels: Sequence[str],
    dataset_names: Sequence[str] | None,
    *,
    partly: bool,
    groups: Mapping[str, str] | None = None,
) -> Matching:
    """Match the labels of `rows` with the classes of the model, whose names are `labels`.

    `dataset_names` are the class names for the numbers of the dataset; a model without class names takes them over.
    With `partly`, labels that the model does not know are left out. If `labels` are groups of a user, `groups` has the
    group of each label of the model, and numbers are names, too.

    Raises:
        InputError: the model has no class for a label (names the first row that has it), or the numbers are in a
            different order than the model's, judging by the folders of the videos.
        UsageError: no group has the name of a label.
    """
    first = first_rows(rows)
    classes = Classes(labels)
    if dataset_names is not None and _nameless(labels):
        if len(dataset_names) != len(labels):
            raise InputError(f"the label map has {len(dataset_names)} classes, and the model {len(labels)}")
        classes, dataset_names = Classes(dataset_names), None

    found = {text: index for text in first if (index := classes.index(text)) is not None}
    numbers = {text: value for text in first if (value := number(text)) is not None}
    # A model may have been trained on numbers that skip some: then its names are numbers, but not those of its classes.
    by_name = len(numbers) < len(first) or all(name.isdecimal() for name in classes.names)
    if len(found) == len(first) or by_name or (groups is not None and dataset_names is None):
        unknown = {text: (row, text) for text, row in first.items() if text not in found}
        if unknown and not partly:
            raise _mismatch(unknown, len(first), classes) if groups is None else _no_group(unknown, classes, groups)
        return Matching(found, "name", {index: text for text, index in reversed(found.items())}, classes)

    check_range(numbers, first, classes.names, dataset_names)
    if dataset_names is None:
        if not _nameless(classes.names):
            _compare_with_folders(rows, numbers, classes)
        return Matching(numbers, "index", {value: text for text, value in numbers.items()}, classes)
    names = {text: dataset_names[value] for text, value in numbers.items()}
    unknown = {text: (first[text], name) for text, name in names.items() if classes.index(name) is None}
    if unknown and not partly:
        raise _mismatch(unknown, len(first), classes) if groups is None else _no_group(unknown, classes, groups)
    found = {text: index for text, name in names.items() if (index := classes.index(name)) is not None}
    return Matching(found, "label map", {index: names[text] for text, index in found.items()}, classes)


def first_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """The first row that has each label."""
    first: dict[str, Row] = {}
    for row in rows:
        for text in row.labels:
            first.setdefault(text, row)
    return first


def check_range(
    numbers: Mapping[str, int], first: Mapping[str, Row], model: Sequence[str], dataset: Sequence[str] | None
) -> None:
    """Raise InputError unless all numbers are classes of the dataset's names or, without them, of the model."""
    count = len(model if dataset is None else dataset)
    lowest, highest = min(numbers.values()), max(numbers.values())
    outside = next((text for text, value in numbers.items() if not 0 <= value < count), None)
    if outside is not None:
        whose = "model" if dataset is None else "label map"
        hint = "; do they start at 1?" if (lowest, highest) == (1, count) else ""
        raise InputError(
            f"{first[outside].place}: label {outside} is out of range: the {whose} has {count} classes, 0 to "
            f"{count - 1}, and the dataset's numbers go from {lowest} to {highest}{hint}"
        )


def _nameless(labels: Sequence[str]) -> bool:
    """Whether these are the placeholders of a config without names."""
    return all(label == f"LABEL_{index}" for index, label in enumerate(labels))


def _mismatch(unknown: Mapping[str, tuple[Row, str]], count: int, classes: Classes) -> InputError:
    """The error for `unknown` labels, of `count` in all: each with its first row and its name."""
    row, name = next(iter(unknown.values()))
    near = classes.near(name)
    if _nameless(classes.names):
        return InputError(
            f"{row.place}: the label is {name!r}, but the model's {len(classes.names)} classes have no names; "
            "give their names with `labels_file=FILE`"
        )
    return InputError(
        f"{row.place}: {name!r} is not a class of the model{f' (did you mean {near!r}?)' if near else ''}; "
        f"of the dataset's {count} classes, the model lacks {len(unknown)}: "
        f"{quoted([name for _, name in unknown.values()])}; it has {len(classes.names)}: {quoted(classes.names)}; "
        "to evaluate only those that both have, use `classes`"
    )


def _no_group(unknown: Mapping[str, tuple[Row, str]], classes: Classes, groups: Mapping[str, str]) -> UsageError:
    """The error for labels that are not among the groups, which are `classes`."""
    row, name = next(iter(unknown.values()))
    more = f", and {len(unknown) - 1} more are none" if len(unknown) > 1 else ""
    label = Classes(tuple(groups)).index(name)
    if label is not None:
        return UsageError(
            f"{row.place}: {name!r} is a label of the model{more}; annotations have to name its group, "
            f"{tuple(groups.values())[label]!r}"
        )
    near = classes.near(name)
    hint = f"did you mean {near!r}?" if near else f"they are {quoted(classes.names)}"
    return UsageError(f"{row.place}: {name!r} is not one of the groups{more}; {hint}")


def quoted(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _compare_with_folders(rows: Sequence[Row], numbers: Mapping[str, int], classes: Classes) -> None:
    """Compare numbers with the class folders of the videos, if there are any. Raises InputError if they contradict.

    Otherwise, lists numbered in the order of folders, or for a different release of the dataset, would be evaluated
    without an error, with an accuracy near zero. A few videos with corrected labels do not matter: only the folder of
    most videos of a number counts.
    """
    folders: dict[int, Counter[int]] = {}
    for row in rows:
        folder = row.name.rsplit("/", 2)[-2:-1]
        index = classes.index(folder[0]) if folder and len(row.labels) == 1 else None
        if index is not None:
            folders.setdefault(numbers[row.labels[0]], Counter())[index] += 1
    wrong = {value: most for value, seen in folders.items() if (most := seen.most_common(1)[0][0]) != value}
    if wrong:
        row = next(row for row in rows if len(row.labels) == 1 and numbers[row.labels[0]] in wrong)
        value = numbers[row.labels[0]]
        raise InputError(
            f"{row.place}: label {value} is {classes.names[value]!r} in the model, but its videos are in the folder of "
            f"{classes.names[wrong[value]]!r}; {len(wrong)} numbers differ in this way; "
            "name the classes of the dataset's numbers with `label_map=FILE`"
        )
