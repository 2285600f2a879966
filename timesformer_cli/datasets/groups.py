"""A user's own classes, each made of several labels of a model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timesformer_cli.datasets.matching import Classes
from timesformer_cli.datasets.reading import cells, header, lines, place, short
from timesformer_cli.errors import UsageError
from timesformer_cli.specs import OTHER, Activation, Checkpoint, Groups

_HEADER = ("label", "group")
_EXPECTED = f"two columns, {_HEADER[0]} and {_HEADER[1]}: a label of the model, and your own name for it"


def with_groups(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The model with the classes of `read_groups` for its answers.

    Raises:
        UsageError, InputError: as for `read_groups`.
    """
    return replace(checkpoint, groups=read_groups(path, checkpoint.labels, checkpoint.activation))


def read_groups(path: Path, labels: Sequence[str], activation: Activation) -> Groups:
    """The groups of a CSV file with a label of the model and a name in each row.

    The model has `labels`, and `activation` makes its scores.

    Groups are in the order of the file. Labels that it does not list are in the group `specs.OTHER`, the last one. The
    header `label,group` may be missing; cells are separated by commas, semicolons or tabs. Labels may be written as in
    annotations, without regard to case, spaces and punctuation.

    Raises:
        UsageError: an empty file, a row of other columns, a label that the model does not have, or a label with two
            different names; or scores of which no group can be made, or only one.
        InputError: the file cannot be read.
    """
    if activation == "none":
        raise UsageError(f"{path}: the model gives raw values, which do not add up as probabilities do")
    known = Classes(labels)
    found: dict[int, tuple[str, int]] = {}
    first = next((text for _, text in lines(path) if text.strip()), "")
    delimiter, columns = header(first)
    rows = cells(path, delimiter)
    if tuple(columns) == _HEADER:
        next(rows)
    for line, row in rows:
        where = place(path, line)
        if len(row) != 2 or not all(row):
            raise UsageError(f"{where}: {short(delimiter.join(row))} instead of {_EXPECTED}")
        text, name = row
        if (index := known.index(text)) is None:
            raise UsageError(f"{where}: {text!r} is not a label of the model; {_hint(text, known)}")
        before, at = found.setdefault(index, (name, line))
        if before != name:
            raise UsageError(f"{where}: {text!r} is in the group {name!r}, and in {before!r} by line {at}; remove one")
    if not found:
        raise UsageError(f"{path}: has no row; it needs {_EXPECTED}")
    names = [*dict.fromkeys(name for name, _ in found.values() if name != OTHER)]
    if len(found) < len(labels) or any(name == OTHER for name, _ in found.values()):
        names.append(OTHER)
    if len(names) == 1 and activation == "softmax":
        raise UsageError(f"{path}: puts all {len(labels)} labels of the model into {names[0]!r}; name two groups")
    numbers = {name: number for number, name in enumerate(names)}
    return Groups(tuple(names), tuple(numbers[found.get(index, (OTHER, 0))[0]] for index in range(len(labels))))


def _hint(text: str, known: Classes) -> str:
    near = known.near(text)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"it has {len(known.names)}, such as {known.names[0]!r}"
