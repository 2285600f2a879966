"""JSON from strangers: what is refused, and that it costs no more than reading it."""

import json
from pathlib import Path

import pytest

from timesformer_cli import strict_json

DEEP = "[" * 100_000
LONG = "1" * 401


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "nested too deeply"),
        (DEEP + "]" * 100_000, "nested too deeply"),
        ("[" * 101 + "]" * 101, "nested too deeply, more than 100 levels"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply"),
        (LONG, "a whole number of 401 digits"),
        ('{"a": [-' + LONG + "]}", "a whole number of 402 digits"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
    ],
)
def test_refused(text: str, message: str) -> None:
    for read in (strict_json.loads, lambda text: strict_json.raw_decode(text, 0)):
        with pytest.raises(ValueError, match=message):
            read(text)
    with pytest.raises(ValueError, match=message):
        strict_json.loads(text.encode())


def test_taken() -> None:
    wide = [{"a": [1, 2.5, None, True, "x"]}] * 1000
    deep = json.loads("[" * 100 + "]" * 100)
    for value in (wide, deep, 2**63, -(2**63), "[" * 1000):
        text = json.dumps(value)
        assert strict_json.loads(text) == value
        assert strict_json.loads(text.encode()) == value
        assert strict_json.raw_decode(f"  {text} rest", 2) == (value, 2 + len(text))


def test_pairs() -> None:
    assert strict_json.loads('{"a": {"b": 1}}', pairs=list) == [("a", [("b", 1)])]


def test_a_file_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text('["ä"]', encoding="utf-8")
    assert strict_json.read(path) == ["ä"]
    monkeypatch.setattr(strict_json, "LARGEST", 5)
    with pytest.raises(ValueError, match="larger than 0 MiB"):
        strict_json.read(path)
    with pytest.raises(FileNotFoundError):
        strict_json.read(tmp_path / "b.json")
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        strict_json.read(path)
