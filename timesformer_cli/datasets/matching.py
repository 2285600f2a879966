"""Class names of a data set and of a model, brought together: by name first, else by number. Never by position."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

from timesformer_cli.datasets.reading import Row
from timesformer_cli.errors import InputError

MatchedBy = Literal["name", "index", "label map"]

_SHOWN = 3  # names of classes in a message
_NUMBER = re.compile(r"(-?[0-9]{1,9})(\.0*)?")  # pandas writes whole numbers as 3.0 where a cell is empty
_ACCENTS = str.maketrans("", "", "`\u00b4")  # stand for apostrophes, and are no punctuation to Unicode
_LEFT_OUT = frozenset(["Cc", "Cf", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Zl", "Zp", "Zs"])


@lru_cache(maxsize=10_000)
def normalised(name: str) -> str:
    """What is left of a name without case, spaces and punctuation.

    Copies of a data set differ in them: "massaging person's head" is "massaging_persons_head" as a folder, and
    "Spinning [something]" of a template is "Spinning something" as a class.
    """
    text = unicodedata.normalize("NFKC", name.translate(_ACCENTS)).casefold()
    return "".join(character for character in text if unicodedata.category(character) not in _LEFT_OUT)


def number(text: str) -> int | None:
    """The class number that a label is, if it is one; -1 stands for a class that is not known."""
    match = _NUMBER.fullmatch(text.strip())
    return int(match[1]) if match else None


class Classes:
    """Class names, to be found as they are, or by what is left of them when that tells them apart."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._exact = _unique(self.names)
        self._loose = _unique([normalised(name) for name in names])
        self._loose.pop("", None)

    def index(self, name: str) -> int | None:
        index = self._exact.get(name)
        return self._loose.get(normalised(name)) if index is None else index

    def near(self, name: str) -> str | None:
        """The class that was perhaps meant by a name that is none."""
        likely = get_close_matches(normalised(name), self._loose, n=1, cutoff=0.8)
        return self.names[self._loose[likely[0]]] if likely else None


def _unique(names: Sequence[str]) -> dict[str, int]:
    """Places of the names that are there once."""
    count = Counter(names)
    return {name: place for place, name in enumerate(names) if count[name] == 1}


@dataclass(frozen=True, slots=True)
class Matching:
    """`indices` has the class of the model for each label of the data set that the model knows.

    `own` is what the data set calls those classes, and `classes` are all of the model.
    """

    indices: Mapping[str, int]
    by: MatchedBy
    own: Mapping[int, str]
    classes: "Classes"


def match(
    rows: Sequence[Row], labels: Sequence[str], data_set_names: Sequence[str] | None, *, partly: bool
) -> Matching:
    """The classes of the model, named `labels`, that the labels of `rows` stand for.

    `data_set_names` says which names the data set's numbers stand for; a model whose own classes have no names takes
    them over. With `partly`, labels that the model does not know are left out.

    Raises:
        InputError: a label that the model has no class for, by the first row that has it; numbers in another order
            than the model's, as far as the folders of the videos tell.
    """
    first: dict[str, Row] = {}
    for row in rows:
        for text in row.labels:
            first.setdefault(text, row)
    classes = Classes(labels)
    if data_set_names is not None and _nameless(labels):
        if len(data_set_names) != len(labels):
            raise InputError(f"the label map has {len(data_set_names)} classes, and the model {len(labels)}")
        classes, data_set_names = Classes(data_set_names), None

    found = {text: index for text in first if (index := classes.index(text)) is not None}
    numbers = {text: value for text in first if (value := number(text)) is not None}
    if len(found) == len(first) or len(numbers) < len(first):
        unknown = {text: (row, text) for text, row in first.items() if text not in found}
        if unknown and not partly:
            raise _mismatch(unknown, len(first), classes)
        return Matching(found, "name", {index: text for text, index in reversed(found.items())}, classes)

    _check_range(numbers, first, classes.names, data_set_names)
    if data_set_names is None:
        if not _nameless(classes.names):
            _compare_with_folders(rows, numbers, classes)
        return Matching(numbers, "index", {value: text for text, value in numbers.items()}, classes)
    names = {text: data_set_names[value] for text, value in numbers.items()}
    unknown = {text: (first[text], name) for text, name in names.items() if classes.index(name) is None}
    if unknown and not partly:
        raise _mismatch(unknown, len(first), classes)
    found = {text: index for text, name in names.items() if (index := classes.index(name)) is not None}
    return Matching(found, "label map", {index: names[text] for text, index in found.items()}, classes)


def _check_range(
    numbers: Mapping[str, int], first: Mapping[str, Row], model: Sequence[str], data_set: Sequence[str] | None
) -> None:
    count = len(model if data_set is None else data_set)
    lowest, highest = min(numbers.values()), max(numbers.values())
    outside = next((text for text, value in numbers.items() if not 0 <= value < count), None)
    if outside is not None:
        whose = "model" if data_set is None else "label map"
        hint = "; do they begin with 1?" if (lowest, highest) == (1, count) else ""
        raise InputError(
            f"{first[outside].place}: label {outside} is out of range: the {whose} has {count} classes, 0 to "
            f"{count - 1}, and the data set's numbers go from {lowest} to {highest}{hint}"
        )


def _nameless(labels: Sequence[str]) -> bool:
    """Whether these are what a config has in place of names."""
    return all(label == f"LABEL_{index}" for index, label in enumerate(labels))


def _mismatch(unknown: Mapping[str, tuple[Row, str]], count: int, classes: Classes) -> InputError:
    """`unknown` has the first row and the name of each label that is no class, of `count` labels."""
    row, name = next(iter(unknown.values()))
    near = classes.near(name)
    if _nameless(classes.names):
        return InputError(
            f"{row.place}: the label is {name!r}, but the model's {len(classes.names)} classes have no names; "
            "`labels_file=FILE` gives them theirs"
        )
    return InputError(
        f"{row.place}: {name!r} is no class of the model{f' (is it {near!r}?)' if near else ''}; "
        f"of the data set's {count} classes it lacks {len(unknown)}, {quoted([name for _, name in unknown.values()])}; "
        f"it has {len(classes.names)}, {quoted(classes.names)}; `classes` evaluates those that both have"
    )


def quoted(names: Sequence[str]) -> str:
    """The first few of them, for a message."""
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _compare_with_folders(rows: Sequence[Row], numbers: Mapping[str, int], classes: Classes) -> None:
    """Compares numbers with the class folders that videos lie in, where they do.

    Lists numbered in the order of folders, or for another release of the data set, would be evaluated without
    complaint, and score near nothing. A few videos whose label was corrected do not matter: what counts is the folder
    that most videos of a number lie in.
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
            f"{row.place}: label {value} is {classes.names[value]!r} to the model, but its videos lie in the folder of "
            f"{classes.names[wrong[value]]!r}; {len(wrong)} numbers differ so; "
            "`label_map=FILE` says what the numbers of the data set mean"
        )
