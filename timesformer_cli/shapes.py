"""Shapes of JSON values: small checks that combine, and say in one line what does not fit."""

import re
import sys
from collections.abc import Callable
from typing import Any

# Raises ShapeError for a value of a different shape.
Shape = Callable[[Any], None]


class ShapeError(ValueError):
    """Says which part of a value does not fit."""


def short(value: Any) -> str:
    return repr(value)[:80]


def of(kind: type, name: str, good: Callable[[Any], bool] = lambda _: True) -> Shape:
    """Values of exactly that type that are `good`; messages call them `name`."""

    def check(value: Any) -> None:
        if type(value) is not kind or not good(value):
            raise ShapeError(f"{short(value)} instead of {name}")

    return check


# sympy and floats cannot work with larger numbers.
whole = of(int, "a whole number of 64 bits", lambda value: -(2**63) <= value < 2**64)
count = of(int, "a whole number from 0", lambda value: 0 <= value < 2**63)
flag = of(bool, "true or false")
string = of(str, "a text")


def anything(value: Any) -> None:
    """Every value."""


def number(value: Any) -> None:
    """Finite numbers, and not true or false."""
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise ShapeError(f"{short(value)} instead of a finite number")


def matching(key: str, pattern: str) -> Shape:
    """Texts that match the whole pattern; messages call them `key`."""
    matches = re.compile(pattern, re.ASCII | re.DOTALL).fullmatch

    def check(value: Any) -> None:
        if not isinstance(value, str) or not matches(value):
            raise ShapeError(f"{key} {short(value)}")

    return check


def or_none(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def each(shape: Shape) -> Shape:
    """Lists whose items have the shape."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise ShapeError(f"{short(value)} instead of a list")
        for part in value:
            shape(part)

    return check


def nothing_in(what: str) -> Shape:
    """Empty lists and objects, and null; messages call anything else `what`."""

    def check(value: Any) -> None:
        if value not in ([], {}, None):
            raise ShapeError(what)

    return check


def table(name: Shape, shape: Shape) -> Shape:
    """Objects whose keys have the shape `name`, and their values `shape`."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise ShapeError(f"{short(value)} instead of an object")
        for key, part in value.items():
            name(key)
            shape(part)

    return check


class Maybe:
    """The shape of a field that may be missing."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def record(others: Shape | None = None, /, **fields: Shape | Maybe) -> Shape:
    """Objects with these fields; other fields must have the shape `others`, and without it there may be none."""
    shapes = {key: shape.shape if isinstance(shape, Maybe) else shape for key, shape in fields.items()}
    needed = {key for key, shape in fields.items() if not isinstance(shape, Maybe)}

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise ShapeError(f"{short(value)} instead of an object")
        if not needed <= value.keys():
            raise ShapeError(f"no {' and no '.join(sorted(needed - value.keys()))} in {short(value)}")
        for key, part in value.items():
            shape = shapes.get(key, others)
            if shape is None:
                raise ShapeError(f"field {short(key)}")
            shape(part)

    return check


def one_of(**kinds: Shape) -> Shape:
    """Unions: objects with one key, which names the kind."""

    def check(value: Any) -> None:
        if not isinstance(value, dict) or len(value) != 1:
            raise ShapeError(f"{short(value)} instead of one kind of value")
        ((kind, part),) = value.items()
        if kind not in kinds:
            raise ShapeError(f"kind {short(kind)}")
        kinds[kind](part)

    return check
