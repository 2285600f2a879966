"""Shapes of JSON values: what fits, and the words for what does not."""

from typing import Any

import pytest

from timesformer_cli import shapes
from timesformer_cli.shapes import Maybe, Shape, ShapeError

POINT = shapes.record(x=shapes.whole, name=Maybe(shapes.string))
FITS: list[tuple[Shape, list[Any]]] = [
    (shapes.whole, [0, -(2**63), 2**64 - 1]),
    (shapes.count, [0, 7]),
    (shapes.number, [0, 1.5, -1e308]),
    (shapes.flag, [True, False]),
    (shapes.matching("name", "[a-z]+"), ["a", "abc"]),
    (shapes.or_none(shapes.string), [None, "x"]),
    (shapes.each(shapes.count), [[], [1, 2]]),
    (shapes.nothing_in("guards"), [[], {}, None]),
    (shapes.table(shapes.string, shapes.count), [{}, {"a": 1}]),
    (POINT, [{"x": 1}, {"x": 1, "name": "a"}]),
    (shapes.record(shapes.anything, x=shapes.whole), [{"x": 1, "y": [None]}]),
    (shapes.one_of(as_int=shapes.whole, as_none=shapes.flag), [{"as_int": 1}, {"as_none": True}]),
]
MISFITS: list[tuple[Shape, Any, str]] = [
    (shapes.whole, True, "True instead of a whole number of 64 bits"),
    (shapes.whole, 2**64, "instead of a whole number of 64 bits"),
    (shapes.count, -1, "-1 instead of a whole number from 0"),
    (shapes.number, float("nan"), "nan instead of a finite number"),
    (shapes.number, 10**400, "instead of a finite number"),
    (shapes.number, True, "True instead of a finite number"),
    (shapes.number, "1", "'1' instead of a finite number"),
    (shapes.string, None, "None instead of a text"),
    (shapes.matching("name", "[a-z]+"), "a1", "name 'a1'"),
    (shapes.matching("name", "[a-z]+"), 1, "name 1"),
    (shapes.each(shapes.count), {}, "{} instead of a list"),
    (shapes.each(shapes.count), ["a"], "'a' instead of a whole number from 0"),
    (shapes.nothing_in("guards"), [1], "guards"),
    (shapes.table(shapes.matching("key", "a"), shapes.count), {"b": 1}, "key 'b'"),
    (shapes.table(shapes.string, shapes.count), [], r"\[\] instead of an object"),
    (POINT, {"name": "a"}, "no x in"),
    (POINT, {"x": 1, "y": 2}, "field 'y'"),
    (shapes.record(shapes.count, x=shapes.whole), {"x": 1, "y": "a"}, "'a' instead of a whole number from 0"),
    (shapes.one_of(as_int=shapes.whole), {"as_int": 1, "b": 2}, "instead of one kind of value"),
    (shapes.one_of(as_int=shapes.whole), {"as_str": "a"}, "kind 'as_str'"),
    (shapes.string, ["x" * 10_000], "^.{80} instead of a text$"),
]


@pytest.mark.parametrize(("shape", "values"), FITS)
def test_fits(shape: Shape, values: list[Any]) -> None:
    for value in values:
        shape(value)


@pytest.mark.parametrize(("shape", "value", "message"), MISFITS)
def test_does_not_fit(shape: Shape, value: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        shape(value)
