"""Class lists: the three that are built in, and files that users have."""

import json
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timesformer_cli.checkpoints import labels
from timesformer_cli.errors import CheckpointError
from timesformer_cli.specs import Dataset

DATASETS: tuple[Dataset, ...] = get_args(Dataset)
NAMES = ("abseiling", "air drumming", "Letting something roll, so it (it) rolls back", "größer")


@pytest.mark.parametrize(
    ("dataset", "count", "known"),
    [
        (
            "kinetics-400",
            400,
            {0: "abseiling", 5: "archery", 81: "cutting nails", 115: "eating ice cream", 290: "sharpening knives"},
        ),
        # In the order of the labels; names of folders, with _ for spaces, sort these four the other way round.
        (
            "kinetics-600",
            600,
            {122: "curling (sport)", 123: "curling hair", 220: "hugging (not baby)", 221: "hugging baby", 599: "zumba"},
        ),
        (
            "something-something-v2",
            174,
            {0: "Approaching something with your camera", 173: "Wiping something off of something"},
        ),
    ],
)
def test_the_published_classes(dataset: Dataset, count: int, known: dict[int, str]) -> None:
    names = labels.read(dataset)
    assert len(names) == len(set(names)) == count
    assert {number: names[number] for number in known} == known
    assert [name for name in names if name != name.strip() or not name] == []
    assert names == tuple(sorted(names))  # as all three were published


def test_a_data_set_is_known_by_its_classes() -> None:
    for dataset in DATASETS:
        assert labels.dataset_of(list(labels.read(dataset))) == dataset
    names = labels.read("kinetics-400")
    for others in (names[:-1], names[::-1], (*names[:-1], "Zumba"), (*names, "more"), (), ("LABEL_0",)):
        assert labels.dataset_of(others) is None


def numbered(names: tuple[str, ...], pattern: str) -> str:
    """One line a name, the last class first: numbers count, not lines."""
    return "".join(pattern.format(number=number, name=name) for number, name in reversed(list(enumerate(names))))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("labels.txt", "\n".join(NAMES)),
        ("labels.txt", "\n".join(NAMES) + "\n\n \n"),
        ("labels", "\ufeff" + "".join(f"{name}  \r\n" for name in NAMES)),
        ("labels.txt", "".join(f'"{name}"\n' for name in NAMES)),
        ("ids.txt", numbered(NAMES, "{number}\t{name}\n")),
        ("ids.tsv", "\ufeff" + numbered(NAMES, "{number}\t{name}\r\n")),
        ("categories.txt", numbered(NAMES, "{name}\t{number}\n")),
        ("labels.json", json.dumps(NAMES)),
        ("labels.txt", json.dumps(NAMES, indent=1)),
        ("labels.txt", "\n " + json.dumps(NAMES)),
        ("id2label.json", json.dumps(dict(reversed(list(enumerate(NAMES)))))),
        ("label2id.json", json.dumps({name: number for number, name in reversed(list(enumerate(NAMES)))})),
        # labels.json of Something-Something, and kinetics_classnames.json of SlowFast.
        ("labels.json", json.dumps({name: str(number) for number, name in reversed(list(enumerate(NAMES)))})),
        ("kinetics_classnames.json", json.dumps({f'"{name}"': number for number, name in enumerate(NAMES)})),
        (
            "config.json",
            json.dumps(
                {
                    "model_type": "timesformer",
                    "id2label": {str(number): name for number, name in enumerate(NAMES)},
                    "label2id": {name: number for number, name in enumerate(NAMES)},
                }
            ),
        ),
    ],
)
def test_files_that_users_have(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_bytes(content.encode())
    assert labels.read_file(tmp_path / file) == NAMES


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[Something] colliding\n[Part] of [something]", ("[Something] colliding", "[Part] of [something]")),
        ("zebra\napple", ("zebra", "apple")),  # never sorted
        ("1 ApplyEyeMakeup\n2 ApplyLipstick", ("1 ApplyEyeMakeup", "2 ApplyLipstick")),  # a space says nothing
        ("run\nrun", ("run", "run")),  # two classes of one name
        ('say "hi"\n"a" or "b"', ('say "hi"', '"a" or "b"')),
        ("0\t1\n1\t0", ("1", "0")),
        ("one\x0bclass\u2028name", ("one\x0bclass\u2028name",)),
        ('{"0": "1", "1": "0"}', ("1", "0")),
        ('{"5": 0}', ("5",)),
    ],
)
def test_names_are_taken_as_they_are(tmp_path: Path, content: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "labels.txt").write_bytes(content.encode())
    assert labels.read_file(tmp_path / "labels.txt") == expected


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_built_in_lists_are_such_files(dataset: Dataset) -> None:
    assert labels.read_file(Path(labels.__file__).parent / f"{dataset}.txt") == labels.read(dataset)


def error_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        labels.read_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        (" \n\t\r\n", "empty"),
        ("a\n\nb", "line 2 has no name"),
        ('a\n""', "line 2 has no name"),
        ("0\ta\n1\tb\nc", "line 3 is 'c'; a number, a tab and a name were expected"),
        ("a\t0\nb", "line 2 is 'b'; a name, a tab and a number were expected"),
        ("a\nb\tc", "line 1 is 'a'"),
        ("0\ta\tb", "line 1 is '0\\ta\\tb'"),
        ("0\ta\n-1\tb", "line 2"),
        ("0\ta\n٣\tb", "line 2"),
        ("0\ta\n0\tb", "two labels have the number 0: 'a' and 'b'"),
        ("1\ta\n2\tb", "none has the number 0"),
        ("0\ta\n2\tb\n", "2 labels up to number 2, but none has the number 1"),
        ("{", "not valid JSON"),
        ('["a", ', "not valid JSON"),
        ("[" * 100_000 + '"', "nested too deeply"),
        ("[]", "no labels"),
        ("{}", "no labels"),
        ("[1, 2]", "item 0 is 1; a name was expected"),
        ('["a", ""]', "item 1 has no name"),
        ('["a", null]', "item 1 is None"),
        ('{"0": "a", "2": "b"}', "none has the number 1"),
        ('{"0": "a", "00": "b"}', "two labels have the number 0"),
        ('{"0": "a", "0": "b"}', "'0' is listed twice"),
        ('{"0": "a", "1": ""}', "key '1' has no name"),
        ('{"a": 0, "b": 0}', "two labels have the number 0: 'a' and 'b'"),
        ('{"a": 0, "a": 1}', "'a' is listed twice"),
        (json.dumps({str(number): number for number in range(300_000)})[:-1] + ', "7": 7}', "'7' is listed twice"),
        ('{"a": 0, "b": true}', "'b' stands for True"),
        ('{"a": 0, "b": 1.0}', "'b' stands for 1.0"),
        ('{"a": 0, "b": "x"}', "'b' stands for 'x'"),
        ('{"": 0}', "number 0 has no name"),
        ('{"sports": ["archery", "bowling"]}', "'sports' stands for ['archery', 'bowling']"),
        ('{"model_type": "timesformer", "num_labels": 3}', "'model_type' stands for 'timesformer'"),
        ('{"id2label": {"1": "a"}}', "none has the number 0"),
        ("[" + "9" * 5000 + "]", "a whole number of 5000 digits"),
        (b"\xff\xfea\0b\0", "not text in UTF-8"),
        (b"\x89PNG\r\n", "not text in UTF-8"),
        (b"PK\3\4\0\0", "not text"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in error_of(path)


def test_json_files_hold_json(tmp_path: Path) -> None:
    (tmp_path / "labels.JSON").write_text("[something]\n")
    assert "not valid JSON" in error_of(tmp_path / "labels.JSON")
    (tmp_path / "labels.JSON").write_text('"archery"')
    assert "'archery' is not a list of labels" in error_of(tmp_path / "labels.JSON")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "missing.txt")
    assert "a folder" in error_of(tmp_path)
    assert "cannot be read" in error_of(tmp_path / "nul\0")
    assert "cannot be read" in error_of(tmp_path / ("x" * 300))
    large = tmp_path / "model.safetensors"
    with large.open("wb") as file:
        file.truncate(2**24 + 1)
    assert "larger than 16 MB" in error_of(large)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.binary(max_size=40)
    | st.text(max_size=40).map(str.encode)
    | st.from_regex(r"[\[\]{}\":,a0\t\n ]{0,20}").map(str.encode)
)
def test_any_bytes_are_labels_or_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with suppress(CheckpointError):  # any other exception fails the test
        names = labels.read_file(path)
        assert names
        assert all(name == name.strip() != "" for name in names)
