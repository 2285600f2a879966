"""What is wrong with data sets: one line each, with file and line. And no other error, whatever a file holds."""

import json
import os
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import write_table

from timesformer_cli.checkpoints import labels
from timesformer_cli.datasets import Dataset, DatasetFormat, open_dataset
from timesformer_cli.errors import InputError, TimesformerError, UsageError

K400 = labels.read("kinetics-400")
HEADER = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("v/a.mp4", "v/b.mp4", "v/-3B32lodo2M_000059_000069.mp4", "v/7.webm"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).touch()


def opened(text: str | bytes, name: str = "val.csv", names: Sequence[str] = K400, **options: Any) -> Dataset:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    return open_dataset(Path("v"), path, labels=names, **options)


GOOD = "a.mp4 5\n" * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Wrong delimiters, and lines that end too soon.
        ("a.mp4|5\nb.mp4|5\n", "line 1: 'a.mp4|5' fits no known format; expected a video, then a space"),
        ("b.mp4 5\na.mp4 7\n\nb.mp4\n", "line 4: expected a path and a number with a space between them, not 'b.mp4'"),
        (GOOD + "b.mp4 five\n", "line 4: expected a path and a number .* not 'b.mp4 five'"),
        ("a.mp4,archery\nb.mp4,\nc.mp4\n", "line 3: expected a path and a label with a comma .* not 'c.mp4'"),
        (GOOD.replace(" ", ",") + ",5\n", "line 4: no path before the label"),
        ("a.mp4\nb.mp4\n", "line 1: 'a.mp4' fits no known format"),
        # Parts of videos.
        ("path,label,start,end\na.mp4,archery,1,2\na.mp4,archery,x,2\n", "line 3: 'start' is 'x'; expected seconds"),
        ("path,label,start,end\na.mp4,archery,-1,2\n", "line 2: 'start' is -1.0; expected seconds, such as 12.5"),
        ("path,label,start,end\na.mp4,archery,,00:10\n", "line 2: 'end' is '00:10'; expected seconds"),
        ("path,label,start,end\na.mp4,archery,nan,2\n", "line 2: 'start' is 'nan'; expected seconds"),
        ("path,label,start,end\na.mp4,archery,0,inf\n", "line 2: 'end' is 'inf'; expected seconds"),
        ("path,label,start,end\na.mp4,archery,0,1e999\n", "line 2: 'end' is inf; expected seconds"),
        ("path,label,start,end\na.mp4,archery,1_0,20\n", "line 2: 'start' is '1_0'; expected seconds"),
        ("path,label,start,end\na.mp4,archery,2,2.0\n", "line 2: the end .2 s. is not after the start .2 s."),
        ("path,label,end\na.mp4,archery,0\n", "line 2: the end .0 s. is not after the start .0 s."),
        ('{"path": "a.mp4", "label": "zumba", "start": true}', "line 1: 'start' is True; expected seconds"),
        ('{"path": "a.mp4", "label": "zumba", "end": [3]}', r"line 1: 'end' is \[3\]; expected seconds"),
        # Headers.
        ("archery,-3B32lodo2M,59,69,val\n", "line 1: expected a header with youtube_id, time_start, time_end, not"),
        ("label,youtube_id,time_start\nx,y,1\n", "line 1: expected a header with youtube_id, .* not 'label,y"),
        ("path,split\na.mp4,val\n", r"line 1: no column of labels in \['path', 'split'\]; expected"),
        (HEADER + "archery,-3B32lodo2M,59,69\n", "line 2: 4 columns, but 5 in the header"),
        (HEADER + "arch,ery,-3B32lodo2M,59,69,val\n", "line 2: 6 columns, but 5 in the header"),
        (HEADER + "archery,-3B32lodo2M,59,end,val\n", "line 2: expected an id and two times .* '59', 'end'"),
        (HEADER + 'archery,-3B32lodo2M,59,69,"val\n', "line 2: .*; is a quote not closed"),
        (HEADER, "lists no videos"),
        ("", "is empty; an annotation file was expected"),
        ("\n \n", "is empty"),
        # Labels.
        ("a.mp4 5\nb.mp4 400\n", "line 2: label 400 is out of range: the model has 400 classes, 0 to 399, .* to 400$"),
        ("a.mp4 5\nb.mp4 -2\n", "line 2: label -2 is out of range"),
        ("path,label\na.mp4,archry\n", "line 2: 'archry' is not a class of .* .did you mean 'archery'"),
        ("a.mp4 -1\n", "none of its videos has a label; to label them, use `timesformer predict`"),
        ("youtube_id,time_start,time_end,split\n-3B32lodo2M,59,69,test\n", "none of its videos has a label"),
        # Videos.
        ("c.mp4 5\nd.mp4 5\n", "none of its 2 videos .* the first: .* 'c.mp4' .*; v has different ones, such as"),
        # Splits.
        (
            HEADER + "archery,-3B32lodo2M,59,69,val\nzumba,-3B32lodo2M,59,69,train\n",
            "has the splits train, val; choose one with `split`",
        ),
        # Other things than lists.
        ("path,label\na.mp4,archery\n".encode("utf-16"), "text in UTF-16; save it in UTF-8"),
        (b"a.mp4 \x00 5\n", "not text; is it an annotation file"),
        (GOOD.encode() + b" " * 70_000 + b"\nb.mp4 \x00 5\n", "line 5: holds a zero byte"),
        (b"PAR1 and so on", r"not readable as Parquet \(.*\); is it damaged"),
        # JSON.
        ('[{"id": "7", "template": "archery"},\n{"id"\n\n', r"line 4: not valid JSON \(Expecting ':' delimiter\)$"),
        ('{"id": ' + "1" * 5_000, "line 1: not valid JSON .a whole number of 5000 digits"),
        ('[{"id": "7", "template": "archery"}\n', "line 1: the JSON list is not closed; was the file cut off"),
        ('[{"id": "7", "template": "archery"},\n5]', "line 2: expected a JSON object for each video, not 5"),
        ('[{"id": "7", "template": {}}]', "line 1: {} is not a label"),
        ('[{"id": true, "template": "archery"}]', "line 1: expected a video as 'id', not True"),
        (r'{"path": "a.mp4\u0000", "label": "archery"}', r"line 1: expected a video as 'path', not 'a.mp4\\x00'"),
        ('[{"id": "7"}, {"id": "8"}]', "none of its videos has a label"),
        ('{"Approaching something with your camera": "0"}', r"line 1: columns \['Approaching .* no known"),
        ('{"id": ' + "[" * 100_000, "line 1: not valid JSON .nested too deeply"),
        ("[]", r"line 1: columns \[\] fits no known format"),
    ],
)  # fmt: skip
def test_bad_files(text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match="^val.csv: " + message) as error:
        opened(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("kinetics", "", "val.csv: line 1: expected a header with"),
        ("list", "a.mp4 x\n", "val.csv: line 1: expected a path and a number"),
        ("table", GOOD, r"val.csv: line 1: no column of paths in \['a.mp4_5'\]"),
        ("ssv2", GOOD, "val.csv: line 1: not valid JSON"),
        ("ssv2", '[{"id": "7", "template": "archery"}]\n[]', None),
        ("diving48", '{"id": "7"}', "val.csv: line 1: expected a video as 'vid_name', not None"),
        ("ucf101", "a/v_a.avi 1\na.mp4 5\n", "val.csv: line 2: expected CLASS/v_NAME.avi, not 'a.mp4 5'"),
        ("hmdb51", GOOD, "val.csv: expected a name like CLASS_test_split1.txt, which holds the class"),
        ("folders", GOOD, "`annotations_format=folders` takes the labels from folders; leave out `annotations`"),
        (
            "rawframes",
            GOOD,
            "val.csv: is read as `annotations_format=rawframes`, a list of folders of images; add `frames`",
        ),
        ("nonsense", GOOD, "`annotations_format=nonsense`: not one of auto, kinetics, .*, folders"),
    ],
)
def test_files_of_another_format_than_was_said(format: str, text: str, message: str | None) -> None:
    if message is None:
        assert len(opened(text, format=format).samples) == 1
        return
    with pytest.raises(TimesformerError, match="^" + message):
        opened(text, format=format)


def test_lists_of_pictures() -> None:
    for path in ("v/one/1.jpg", "v/two/1.jpg"):
        Path(path).parent.mkdir()
        Path(path).touch()
    with pytest.raises(
        InputError, match=r"^a.txt: line 2: expected a folder, a number of frames and a label, not 'two"
    ):
        opened("one 163 5\ntwo 5\none 7 9\n", "a.txt", frames=True)
    with pytest.raises(
        InputError, match=r"^a.txt: line 3: expected original_vido_id video_id frame_id path labels, not 'two 0'"
    ):
        opened("original_vido_id video_id frame_id path labels\none 0 0 one/1.jpg 5\ntwo 0\n", "a.txt", frames=True)


def test_what_could_be_two_formats_is_asked_for() -> None:
    text = "some/directory-1 163 1\nsome/directory-2 122 5\n"
    message = r"^val.csv: fits several formats: list \(path label\) or rawframes \(.*\); choose one with `annotations_f"
    with pytest.raises(InputError, match=message):
        opened(text)
    Path("v/some").mkdir()
    Path("v/some/directory-1.mp4").touch()
    assert opened(text, format="list").samples[0].labels == (163, 1)


def test_ids_of_a_table_are_not_taken_for_another_format() -> None:
    assert opened('{"id": 1, "path": "a.mp4", "label": "archery"}').format == "table"


def test_names_of_another_data_set() -> None:
    rows = "".join(f"a.mp4,{name}\n" for name in labels.read("kinetics-600"))
    with pytest.raises(InputError) as error:
        opened("path,label\n" + rows)
    lacking = len(set(labels.read("kinetics-600")) - set(K400)) - 1  # one differs by a capital letter alone
    assert str(error.value) == (
        "val.csv: line 3: 'acting in play' is not a class of the model; "
        f"of the dataset's 600 classes, the model lacks {lacking}: "
        "'acting in play', 'adjusting glasses', 'alligator wrestling', ...; it has 400: 'abseiling', 'air drumming', "
        "'answering questions', ...; to evaluate only those that both have, use `classes`"
    )


def test_a_model_without_names() -> None:
    with pytest.raises(
        InputError, match=r"^val.csv: line 2: the label is 'archery', but the model's 3 classes have no names"
    ):
        opened("path,label\na.mp4,archery\n", names=("LABEL_0", "LABEL_1", "LABEL_2"))


def test_numbers_that_begin_with_1() -> None:
    with pytest.raises(InputError, match=r"label 3 is out of range: .* go from 1 to 3; do they start at 1\?"):
        opened("a.mp4 1\nb.mp4 3\n", names=("x", "y", "z"))


class TestOrderOfClasses:
    """Numbers of another order than the model's would give an accuracy near nothing, without a word."""

    order = sorted(K400, key=lambda name: name.replace(" ", "_").replace("(", "").replace(")", ""))

    def lines(self, order: Sequence[str]) -> str:
        names = ["abseiling", "skiing crosscountry", "skiing (not slalom or crosscountry)", "zumba"]
        rows = [f"{name.replace(' ', '_')}/{part}.mp4 {order.index(name)}\n" for name in names for part in range(3)]
        for row in rows:
            path = Path("v", row.rpartition(" ")[0])
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return "".join(rows)

    def test_folders_tell(self) -> None:
        with pytest.raises(InputError) as error:
            opened(self.lines(self.order))
        assert str(error.value) == (
            "val.csv: line 4: label 308 is 'skiing (not slalom or crosscountry)' in the model, but its videos are in "
            "the folder of 'skiing crosscountry'; 2 numbers differ in this way; "
            "name the classes of the dataset's numbers with `label_map=FILE`"
        )

    def test_a_label_map_tells(self) -> None:
        Path("map.txt").write_text("\n".join(self.order), encoding="utf-8")
        dataset = opened(self.lines(self.order), label_map=Path("map.txt"))
        assert [K400[sample.labels[0]] for sample in dataset.samples[::3]] == [
            "abseiling",
            "skiing crosscountry",
            "skiing (not slalom or crosscountry)",
            "zumba",
        ]

    def test_single_corrections_are_no_other_order(self) -> None:
        text = self.lines(K400).replace("zumba/1.mp4 399", "zumba/1.mp4 0")
        assert [sample.labels for sample in opened(text).samples if sample.path == "v/zumba/1.mp4"] == [(0,)]


class TestLabelMap:
    def test_a_number_beyond_it(self) -> None:
        Path("map.txt").write_text("archery\nzumba\n", encoding="utf-8")
        message = r"^val.csv: line 2: label 2 is out of range: the label map has 2 classes"
        with pytest.raises(InputError, match=message):
            opened("a.mp4 1\nb.mp4 2\n", label_map=Path("map.txt"))

    def test_a_name_that_the_model_lacks(self) -> None:
        Path("map.txt").write_text("archery\nwaltz\n", encoding="utf-8")
        with pytest.raises(
            InputError, match=r"^val.csv: line 2: 'waltz' is not a class of the model; .* the model lacks 1: 'waltz'"
        ):
            opened("a.mp4 0\nb.mp4 1\n", label_map=Path("map.txt"))
        dataset = opened("a.mp4 0\nb.mp4 1\n", label_map=Path("map.txt"), classes=["archery"])
        assert [sample.path for sample in dataset.samples] == ["v/a.mp4"]

    def test_of_another_length_than_a_model_without_names(self) -> None:
        Path("map.txt").write_text("archery\nzumba\n", encoding="utf-8")
        with pytest.raises(InputError, match=r"^the label map has 2 classes, and the model 3"):
            opened(GOOD, names=("LABEL_0", "LABEL_1", "LABEL_2"), label_map=Path("map.txt"))


class TestFolders:
    @pytest.fixture(autouse=True)
    def _folders(self, tmp_path: Path) -> None:
        for path in ("split/train/archery/a.mp4", "split/val/zumba/b.mp4", "flat/val/a.mp4", "other/waltz/a.mp4"):
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).touch()
        (tmp_path / "empty").mkdir()

    @pytest.mark.parametrize(
        ("root", "options", "message"),
        [
            ("gone", {}, "gone: no such folder"),
            ("empty", {}, "empty: no video files in this folder"),
            ("split", {}, "split: has the splits train, val; choose one with `split`"),
            ("split", {"split": "test"}, "split: no folder of the split 'test'; it has train, val"),
            ("other", {"split": "test"}, "other: no folder of the split 'test'; leave out `split`"),
            ("flat", {"split": "val"}, "flat/val: the videos are not in class folders; name the file of their labels"),
            ("flat", {}, "flat/val: the videos are not in class folders"),
            (
                "other",
                {},
                "other/waltz/a.mp4: 'waltz' is not a class of the model; of the dataset's 1 classes, the model lacks 1",
            ),
            ("other", {"classes": ["zumba"]}, "other: no video of the classes 'zumba'"),
            ("split", {"format": "videofolder", "split": "val"}, "split/val: none of metadata.csv, metadata.jsonl"),
            ("split", {"format": "kinetics"}, "`annotations_format=kinetics` needs `annotations=FILE`"),
        ],
    )
    def test_one_line_each(self, root: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(TimesformerError, match="^" + message):
            open_dataset(Path(root), None, labels=K400, **options)

    def test_two_metadata_files(self) -> None:
        Path("v/metadata.csv").touch()
        Path("v/metadata.jsonl").touch()
        with pytest.raises(
            InputError, match=r"^v/metadata.csv: metadata.jsonl exists too; choose one with `annotations`"
        ):
            open_dataset(Path("v"), None, labels=K400)

    def test_a_folder_that_cannot_be_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match=r"^split/?: cannot be listed \(Permission denied\)"):
            open_dataset(Path("split"), None, labels=K400)

    def test_annotations_that_are_a_folder(self) -> None:
        with pytest.raises(
            InputError, match=r"^split: is a folder; name the annotation file in it, one of \['train', 'val'\]"
        ):
            open_dataset(Path("v"), Path("split"), labels=K400)
        with pytest.raises(InputError, match=r"^split: is a folder; `annotations_format=list` needs a file"):
            open_dataset(Path("v"), Path("split"), labels=K400, format="list")

    @pytest.mark.skipif(sys.platform == "win32", reason="no pipes by name")
    def test_annotations_that_can_be_read_only_once(self) -> None:
        os.mkfifo("pipe")
        with pytest.raises(InputError, match=r"^pipe: not a regular file; save the annotations to one"):
            open_dataset(Path("v"), Path("pipe"), labels=K400)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limit": 0}, UsageError, "`limit` is 0"),
        ({"seed": 1}, UsageError, "`seed` chooses which videos `limit` takes; give `limit=N` too"),
        (
            {"classes": ["archry"]},
            UsageError,
            "`classes`: 'archry' is not a class of the model; did you mean 'archery'",
        ),
        (
            {"classes": ["%"]},
            UsageError,
            "`classes`: '%' is not a class of the model; it has 'abseiling', 'air drumming', ",
        ),
        ({"classes": ["zumba"]}, InputError, "val.csv: no video of the classes 'zumba'"),
        ({"split": "val"}, InputError, "val.csv: has no splits; leave out `split`"),
    ],
)
def test_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + message):
        opened(GOOD, **options)


def test_a_split_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"^val.csv: no rows of the split 'test'; it has train, val"):
        opened(HEADER + "archery,-3B32lodo2M,59,69,validate\nzumba,-3B32lodo2M,59,69,train\n", split="test")


def test_several_splits_of_hmdb51() -> None:
    Path("splits").mkdir()
    for number in (1, 2):
        Path(f"splits/archery_test_split{number}.txt").write_text("a.avi 2\nb.avi 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^splits: has the splits test1, test2; choose one with `split`"):
        open_dataset(Path("v"), Path("splits"), labels=K400, split="test")
    Path("splits/archery_test_split1.txt").write_text("a.avi 2\nb.avi 3\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"^splits/archery_test_split1.txt: line 2: expected a file and 0, 1 or 2, not 'b.avi 3'"
    ):
        open_dataset(Path("v"), Path("splits"), labels=K400, split="test")


def test_neither_folder_nor_file() -> None:
    with pytest.raises(UsageError, match=r"^a dataset needs the folder of its videos, or `annotations=FILE`, or both"):
        open_dataset(None, None, labels=K400)
    with pytest.raises(InputError, match=r"^gone.csv: no such annotation file"):
        open_dataset(None, Path("gone.csv"), labels=K400)
    Path("val.csv").write_text(HEADER + "archery,-3B32lodo2M,59,69,val\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: '-3B32lodo2M_000059_000069' .*; name the folder of the videos too$"):
        open_dataset(None, Path("val.csv"), labels=K400)


@pytest.mark.parametrize("name", ["val.csv", "splits"])
def test_annotations_that_cannot_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    Path("val.csv").touch()
    Path("splits").mkdir()
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match=rf"^{name}: cannot be read \(Permission denied\)"):
        open_dataset(Path("v"), Path(name), labels=K400)


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        InputError, match=r"^val.csv: Parquet needs pyarrow; install it with: pip install 'timesformer-cli"
    ):
        opened(b"PAR1")


FORMATS: tuple[DatasetFormat, ...] = get_args(DatasetFormat)
SEEDS = (
    HEADER + 'testifying,---QUuC4vJs,84,94,validate\n"air drumming",-3B32lodo2M,59.0,69.0,val\n',
    "abseiling/x y.mp4 0\na.mp4 3 5\n",
    "some/directory-1 163 1\n",
    'original_vido_id video_id frame_id path labels\nAO8RW 0 0 AO8RW/AO8RW-000001.jpg "104,105"\n',
    '[{"id": "7", "label": "x", "template": "Spinning [something]", "placeholders": ["cube"]}]',
    '{"vid_name": "a", "label": 0}\n{"path": "a.mp4", "label": ["archery"], "split": null}',
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n",
    "path,label,split\na.mp4,archery,val\n",
    "1420;Throwing something\n",
)


def open_anything(content: bytes, format: DatasetFormat | None, options: dict[str, Any]) -> None:
    Path("archery_test_split1.txt").write_bytes(content)
    for root in (Path("v"), None):
        with suppress(TimesformerError):
            open_dataset(root, Path("archery_test_split1.txt"), format=format or "auto", labels=K400, **options)


OPTIONS = st.sampled_from([{}, {"split": "val"}, {"classes": ["archery"], "limit": 1}, {"frames": True}])


# Cut out of real files, so that every reader gets some way.
PIECES = st.sampled_from(SEEDS).flatmap(
    lambda text: st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(
        lambda ends: text[min(ends) : max(ends)].encode()
    )
)
MARKS = st.sampled_from("\n\r\t ,;\"'[]{}:|\\/-0159é\x00\ufeff\u2028").map(str.encode)


class TestWhateverAFileHolds:
    """Only errors of ours come out."""

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.one_of(PIECES, MARKS, st.binary(max_size=8)), max_size=8),
        st.sampled_from([None, *FORMATS]),
        OPTIONS,
    )
    def test_text(self, pieces: list[bytes], format: DatasetFormat | None, options: dict[str, Any]) -> None:
        open_anything(b"".join(pieces), format, options)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["id", "template", "label", "labels", "path", "file_name", "vid_name", "split"]),
                st.recursive(
                    st.one_of(
                        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("a.mp4")
                    ),
                    lambda inner: st.lists(inner, max_size=3),
                    max_leaves=4,
                ),
            ),
            max_size=4,
        ),
        st.sampled_from([None, *FORMATS]),
        OPTIONS,
    )
    def test_json(self, records: list[dict[str, Any]], format: DatasetFormat | None, options: dict[str, Any]) -> None:
        open_anything(json.dumps(records).encode(), format, options)

    def test_parquet(self) -> None:
        write_table(arrow.table({"path": ["a.mp4", "b.mp4"], "label": ["archery", "zumba"]}), "whole.parquet")
        whole = Path("whole.parquet").read_bytes()
        generator = random.Random(0)
        for _ in range(200):
            content = bytearray(whole)
            for _ in range(generator.randrange(1, 4)):
                content[generator.randrange(len(content))] = generator.randrange(256)
            open_anything(
                bytes(content[: generator.choice([len(content), generator.randrange(len(content))])]), None, {}
            )


def test_credentials_in_addresses_are_for_reading_only() -> None:
    addresses = [f"https://me:s3cret@host/{name}.mp4?Signature=s3cret{name}{row}" for row, name in enumerate("aab")]
    rows = [f"{address} {row % 2}" for row, address in enumerate(addresses)]
    found = opened("\n".join(rows), "val.txt")
    assert [sample.path for sample in found.samples] == ["https://host/b.mp4"]
    assert found.samples[0].source == addresses[2]
    assert [problem.kind for problem in found.problems if problem.kind != "unlisted"] == ["conflict"]
    assert "s3cret" not in f"{found}"
