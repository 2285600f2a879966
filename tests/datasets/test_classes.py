"""Classes, splits and groups as data sets have them themselves, for training: no model says which there are."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow.parquet import write_table

from testing.clips import touch
from timesformer_cli.datasets import Dataset, Problem, open_dataset, splits_of
from timesformer_cli.datasets.classes import natural
from timesformer_cli.errors import InputError, UsageError


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(*rows: str, columns: str = "path,label", name: str = "labels.csv") -> Path:
    """An annotation file whose videos exist, but for those called gone."""
    touch(*(path for row in rows if "gone" not in (path := row.replace(" ", ",").partition(",")[0])))
    Path(name).write_text("\n".join([columns, *rows]), encoding="utf-8")
    return Path(name)


def opened(annotations: Path | None, root: str | None = None, **options: Any) -> Dataset:
    options = {"labels": None} | options
    return open_dataset(None if root is None else Path(root), annotations, **options)


def found(dataset: Dataset) -> list[str]:
    """The label names of each sample."""
    return ["+".join(dataset.names[label] for label in sample.labels) for sample in dataset.samples]


class TestClasses:
    def test_class_folders_in_natural_order(self) -> None:
        touch(*(f"clips/{name}/{number}.mp4" for name in ("step 10", "step 2", "Run", "jump") for number in range(2)))
        dataset = opened(None, "clips")
        assert dataset.names == ("jump", "Run", "step 2", "step 10")
        assert found(dataset) == [name for name in ("Run", "jump", "step 10", "step 2") for _ in range(2)]
        assert dataset.classes == dict(enumerate(dataset.names))
        assert (dataset.matched_by, dataset.multi_label) == ("name", False)

    @pytest.mark.parametrize(
        "names", [["a", "a2", "a2b", "a10", "b"], ["1st", "2nd", "10th", "x"], ["A", "b", "C"], ["", "07", "7"]]
    )
    def test_natural_order(self, names: list[str]) -> None:
        assert sorted([*names[2:], *names[:2]], key=natural) == names

    def test_those_of_a_list_in_its_order(self) -> None:
        rows = ("0.mp4,walk", "1.mp4,Push up", "2.mp4,run", "3.mp4,walk")
        dataset = opened(table(*rows), classes=["walk", "push-up"])
        assert dataset.names == ("walk", "push-up")
        assert found(dataset) == ["walk", "push-up", "walk"]
        assert dataset.rows == 3
        assert not dataset.problems

    @pytest.mark.parametrize("of_a_row", ["gone.mp4,jump", "2.mp4,"])
    def test_a_class_of_a_list_without_a_video(self, of_a_row: str) -> None:
        file = table("0.mp4,walk", "1.mp4,run", of_a_row)
        with pytest.raises(InputError, match=r"^labels\.csv: 2 of the 4 `classes` have no video: 'fly', 'jump'$"):
            opened(file, classes=["fly", "walk", "run", "jump"])

    def test_a_class_whose_videos_are_all_missing_is_none(self) -> None:
        rows = ("0.mp4,walk", "gone.mp4,jump", "1.mp4,run", "2.mp4,walk", "2.mp4,sit")
        dataset = opened(table(*rows))
        assert dataset.names == ("run", "walk")
        assert found(dataset) == ["walk", "run"]
        assert [problem.kind for problem in dataset.problems] == ["missing", "conflict"]
        assert dataset.classes == {0: "run", 1: "walk"}

    def test_several_labels(self) -> None:
        dataset = opened(table("0.mp4,b|a", "1.mp4,c", columns="path,labels"))
        assert (dataset.names, dataset.multi_label) == (("a", "b", "c"), True)
        assert found(dataset) == ["b+a", "c"]

    def test_numbers_without_names_are_their_own(self) -> None:
        dataset = opened(table("0.mp4 10", "1.mp4 2", "2.mp4 10", "3.mp4 0", "4.mp4 -1", columns=""))
        assert (dataset.names, dataset.matched_by) == (("0", "2", "10"), "index")
        assert found(dataset) == ["10", "2", "10", "0"]
        assert [problem.kind for problem in dataset.problems] == ["unlabelled"]

    def test_numbers_of_parquet_with_an_empty_cell(self) -> None:
        touch("a.mp4", "b.mp4", "c.mp4")
        columns = {"path": ["a.mp4", "b.mp4", "c.mp4"], "label": [3.0, 1.0, float("nan")]}
        write_table(arrow.table(columns), "labels.parquet")
        assert found(opened(Path("labels.parquet"))) == ["3", "1"]

    def test_numbers_with_names(self) -> None:
        Path("map.txt").write_text("walk\nrun\njump\nfly\n")
        file = table("0.mp4 3", "1.mp4 0", "2.mp4 3", columns="")
        dataset = opened(file, label_map=Path("map.txt"))
        assert (dataset.names, dataset.matched_by) == (("walk", "fly"), "label map")
        assert found(dataset) == ["fly", "walk", "fly"]
        assert opened(file, label_map=Path("map.txt"), classes=["fly", "walk"]).names == ("fly", "walk")
        with pytest.raises(InputError, match="line 3: label 9 is out of range: the label map has 4 classes"):
            opened(table("0.mp4 3", "1.mp4 9", columns=""), label_map=Path("map.txt"))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                ("0.mp4,Walk", "1.mp4,run", "2.mp4,walk"),
                r"line 4: 'walk' and 'Walk' \(labels\.csv: line 2\) differ only in case, spaces or punctuation",
            ),
            (("0.mp4,push_up", "1.mp4,push up"), "line 3: 'push up' and 'push_up' .* give one class one name"),
            (("0.mp4,walk", "1.mp4,walk"), r"all its videos with a label \(2\) are of one class, 'walk'; at least two"),
            (("0.mp4,walk", "gone.mp4,run"), r"all its videos with a label \(1\) are of one class, 'walk'"),
            (("0.mp4,", "1.mp4,"), "none of its videos has a label$"),
            (("gone.mp4,walk", "gone2.mp4,run"), "none of its 2 videos can be used; the first: .*'gone.mp4' does not"),
        ],
    )
    def test_what_nothing_can_be_learned_from(self, rows: Sequence[str], message: str) -> None:
        with pytest.raises(InputError, match=rf"^labels\.csv: {message}"):
            opened(table(*rows))

    def test_videos_without_class_folders(self) -> None:
        touch("clips/a.mp4", "clips/b.mp4")
        with pytest.raises(InputError, match="the videos are not in class folders; name the file of their labels"):
            opened(None, "clips")

    def test_the_model_s_names_are_those_of_a_dataset_for_it(self) -> None:
        assert opened(table("0.mp4,b"), labels=("a", "b")).names == ("a", "b")


class TestOtherPart:
    """The validation part, with the classes of the training part."""

    TRAIN = ("walk", "run")
    ROWS = ("0.mp4,run", "1.mp4,fly", "gone.mp4,jump", "2.mp4,walk", "gone.mp4,run")

    def test_unknown_classes_are_left_out_and_told_if_asked(self) -> None:
        file = table(*self.ROWS)
        with pytest.raises(InputError, match="line 3: 'fly' is not a class of the model"):
            opened(file, labels=self.TRAIN)
        dataset = opened(file, labels=self.TRAIN, leave_out_unknown=True)
        assert (found(dataset), dataset.rows) == (["run", "walk"], 5)
        message = "has the class '{}', which the training part lacks; left out"
        assert dataset.problems[:2] == (
            Problem("unknown", "labels.csv: line 3", f"'1.mp4' {message.format('fly')}"),
            Problem("unknown", "labels.csv: line 4", f"'gone.mp4' {message.format('jump')}"),
        )
        assert [problem.kind for problem in dataset.problems[2:]] == ["missing"]

    def test_nothing_is_left(self) -> None:
        with pytest.raises(InputError, match=r"none of its 1 videos can be used; the first: .*'fly'"):
            opened(table("0.mp4,fly"), labels=self.TRAIN, leave_out_unknown=True)

    def test_a_video_keeps_its_known_labels(self) -> None:
        file = table("0.mp4,run|fly", columns="path,labels")
        dataset = opened(file, labels=self.TRAIN, leave_out_unknown=True)
        assert (found(dataset), dataset.problems) == (["run"], ())

    @pytest.mark.parametrize("labels", [("0", "2", "10"), ("2", "10", "0")])
    def test_numbers_are_names_and_not_places(self, labels: tuple[str, ...]) -> None:
        file = table("0.mp4 2", "1.mp4 1", "2.mp4 10", columns="")
        dataset = opened(file, labels=labels, leave_out_unknown=True)
        assert (found(dataset), [problem.kind for problem in dataset.problems]) == (["2", "10"], ["unknown"])
        with pytest.raises(InputError, match="line 3: '1' is not a class of the model"):
            opened(file, labels=labels)

    def test_a_number_with_a_point_is_that_number(self) -> None:
        touch("a.mp4", "b.mp4", "c.mp4")
        columns = {"path": ["a.mp4", "b.mp4", "c.mp4"], "label": [3.0, 30.0, float("nan")]}
        write_table(arrow.table(columns), "labels.parquet")
        assert found(opened(Path("labels.parquet"), labels=("3", "30", "x"))) == ["3", "30"]


class TestSplits:
    def test_of_a_column(self) -> None:
        rows = (
            "0.mp4,a,Validation",
            "1.mp4,b,train",
            "2.mp4,a,test",
            "3.mp4,b,extra",
            "gone.mp4,b,training",
            "4.mp4,a,",
        )
        file = table(*rows, columns="path,label,split")
        assert splits_of(None, file) == splits_of(Path(), file, format="table") == ("train", "val", "test", "extra")
        assert splits_of(None, table("0.mp4,a")) == ()

    def test_of_folders(self) -> None:
        touch("data/train/a/0.mp4", "data/validation/b/1.mp4", "data/other/a/2.mp4")
        assert splits_of(Path("data"), None) == ("train", "val")
        touch("one/train/a/0.mp4")
        assert splits_of(Path("one"), None) == ("train",)
        touch("one/run/0.mp4")  # now it is a class
        assert splits_of(Path("one"), None) == ()

    def test_of_metadata(self) -> None:
        touch("data/0.mp4", "data/1.mp4")
        file = Path("data/metadata.jsonl")
        rows = [{"file_name": f"{n}.mp4", "label": "a", "split": split} for n, split in enumerate(("train", "test"))]
        file.write_text("\n".join(map(json.dumps, rows)))
        assert splits_of(Path("data"), None) == ("train", "test")
        assert splits_of(Path("data"), None, format="folders") == ()

    def test_of_lists(self) -> None:
        for split in (1, 2):
            text = "a.avi 1\nb.avi 2\nc.avi 0\n"
            Path("splits").mkdir(exist_ok=True)
            Path(f"splits/wave_test_split{split}.txt").write_text(text)
        assert splits_of(None, Path("splits")) == ("train1", "train2", "test1", "test2")

    def test_without_a_dataset(self) -> None:
        with pytest.raises(UsageError, match="a dataset needs the folder of its videos"):
            splits_of(None, None)
        with pytest.raises(InputError, match="no such annotation file"):
            splits_of(None, Path("gone.csv"))


class TestAbout:
    COLUMNS = "path,label,Video ID,site,lens,camera"
    ROWS = ("0.mp4,a,x1, north ,wide,", "1.mp4,b,x1,north,wide,", "2.mp4,b,,,tele,")

    def test_columns_that_may_name_a_group(self) -> None:
        dataset = opened(table(*self.ROWS, columns=self.COLUMNS))
        north = {"video_id": "x1", "site": "north"}
        assert [sample.about for sample in dataset.samples] == [north, north, {}]
        assert dataset.samples[0].about is dataset.samples[1].about

    @pytest.mark.parametrize("column", ["lens", "Lens"])
    def test_the_column_that_is_asked_for(self, column: str) -> None:
        dataset = opened(table(*self.ROWS, columns=self.COLUMNS), group_column=column)
        assert [sample.about[column] for sample in dataset.samples] == ["wide", "wide", "tele"]

    def test_of_json_and_parquet(self) -> None:
        touch("0.mp4", "1.mp4")
        rows = [{"path": "0.mp4", "label": "a"}, {"path": "1.mp4", "label": "b", "group": 7, "lens": None}]
        Path("labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert [sample.about for sample in opened(Path("labels.jsonl")).samples] == [{}, {"group": "7"}]
        columns = {"path": ["0.mp4", "1.mp4"], "label": ["a", "b"], "lens": ["wide", None], "site": [None, 2]}
        write_table(arrow.table(columns), "labels.parquet")
        samples = opened(Path("labels.parquet"), group_column="lens").samples
        assert [sample.about for sample in samples] == [{"lens": "wide"}, {"site": "2"}]

    def test_of_kinetics(self) -> None:
        rows = ("a,---QUuC4vJs,84,94,north", "b,-3B32lodo2M,59,69,south")
        touch("v/---QUuC4vJs_000084_000094.mp4", "v/-3B32lodo2M_000059_000069.mp4")
        Path("val.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,site", *rows]))
        assert [sample.about for sample in opened(Path("val.csv"), "v").samples] == [
            {"site": "north"},
            {"site": "south"},
        ]

    def test_nothing_costs_nothing(self) -> None:
        dataset = opened(table("0.mp4,a", "1.mp4,b"))
        assert dataset.samples[0].about is dataset.samples[1].about
        touch("clips/a/0.mp4", "clips/b/0.mp4")
        (one, other) = opened(None, "clips").samples
        assert one.about is other.about is dataset.samples[0].about
        assert hash(one) != hash(other)
        assert sys.getsizeof(one.about) <= sys.getsizeof({})

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"columns": "path,label"}, InputError, "labels.csv: no column 'lens'; it has path, label"),
            ({"columns": "0.mp4,a"}, UsageError, "labels.csv: is not a table, so it has no column 'lens'"),
        ],
    )
    def test_no_such_column(self, options: dict[str, str], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            opened(table("1.mp4,a", "2.mp4,b", **options), group_column="lens")

    def test_no_such_column_in_folders(self) -> None:
        touch("clips/a/0.mp4", "clips/b/0.mp4")
        with pytest.raises(UsageError, match="clips: has no table, and so no column 'lens'"):
            opened(None, "clips", group_column="lens")
