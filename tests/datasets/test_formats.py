"""Each format of data sets, in the very form that its files have: which videos and classes come out."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow.parquet import write_table

from testing.clips import touch
from timesformer_cli.checkpoints import labels
from timesformer_cli.datasets import Dataset, Problem, listing, open_dataset

K400 = labels.read("kinetics-400")
K600 = labels.read("kinetics-600")
SSV2 = labels.read("something-something-v2")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def opened(root: str | None, annotations: Path | None = None, names: Sequence[str] = K400, **options: Any) -> Dataset:
    return open_dataset(None if root is None else Path(root), annotations, labels=names, **options)


def found(dataset: Dataset, names: Sequence[str] = K400) -> dict[str, str]:
    """Label names by path, several with a + between them."""
    return {sample.path: "+".join(names[label] for label in sample.labels) for sample in dataset.samples}


def problems(dataset: Dataset) -> list[tuple[str, str]]:
    return [(problem.kind, problem.place) for problem in dataset.problems]


class TestRootOfAllFolders:
    """`evaluate / -a list.csv`, for lists with absolute paths."""

    @pytest.mark.parametrize("absolute", [True, False])
    def test_the_disk_is_not_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool) -> None:
        touch("a.mp4")
        name = (tmp_path / "a.mp4").as_posix()
        file = write("list.csv", f"{name if absolute else name.removeprefix('/')},archery\n")
        monkeypatch.setattr(listing, "_entries", lambda *_: pytest.fail("a folder is listed"))
        assert found(opened(tmp_path.anchor, file)) == {str(tmp_path / "a.mp4"): "archery"}


class TestKinetics:
    def test_official(self) -> None:
        touch("videos/---QUuC4vJs_000084_000094.mp4", "videos/_a_b-c_d_-0_000001_000011.mkv")
        file = write(
            "validate.csv",
            "label,youtube_id,time_start,time_end,split\n"
            "testifying,---QUuC4vJs,84,94,validate\n"
            "archery,_a_b-c_d_-0,1.0,11.0,validate\n",
        )
        dataset = opened("videos", file)
        assert found(dataset) == {
            "videos/---QUuC4vJs_000084_000094.mp4": "testifying",
            "videos/_a_b-c_d_-0_000001_000011.mkv": "archery",
        }
        assert (dataset.format, dataset.split, dataset.matched_by, dataset.rows) == ("kinetics", "val", "name", 2)
        assert [sample.line for sample in dataset.samples] == [2, 3]
        assert not dataset.multi_label
        assert not dataset.problems

    def test_cvdf_with_its_folders_and_replacements(self) -> None:
        touch(
            "k400/val/_dbcJuKJQNs_000040_000050.mp4",
            "k400/val/-3B32lodo2M_000059_000069.mp4",
            "k400/train/-zzzzzzzzzz_000001_000011.mp4",
            "k400/replacement/replacement_for_corrupted_k400/-3B32lodo2M_000059_000069.mp4",
            "k400/replacement/replacement_for_corrupted_k400/aaaaaaaaaaa_000001_000011.mp4",
        )
        file = write(
            "k400/annotations/val.csv",
            "label,youtube_id,time_start,time_end,split,is_cc\n"
            '"air drumming",_dbcJuKJQNs,40,50,val,0\n'
            "abseiling,-3B32lodo2M,59,69,val,0\n",
        )
        for split in (None, "validation"):
            dataset = opened("k400", file, split=split)
            assert found(dataset) == {
                "k400/val/_dbcJuKJQNs_000040_000050.mp4": "air drumming",
                "k400/replacement/replacement_for_corrupted_k400/-3B32lodo2M_000059_000069.mp4": "abseiling",
            }
            assert not dataset.problems

    def test_a_clip_is_another_when_its_times_are_others(self) -> None:
        touch("videos/-3B32lodo2M_000059_000069.mp4", "videos/_dbcJuKJQNs_40_50.mp4", "videos/aaaaaaaaaaa.mp4")
        file = write(
            "val.csv",
            "label,youtube_id,time_start,time_end\n"
            "abseiling,-3B32lodo2M,10,20\n"
            "archery,_dbcJuKJQNs,40,50\n"
            "zumba,aaaaaaaaaaa,1,11\n",
        )
        dataset = opened("videos", file, K600)
        assert found(dataset, K600) == {"videos/_dbcJuKJQNs_40_50.mp4": "archery", "videos/aaaaaaaaaaa.mp4": "zumba"}
        assert problems(dataset) == [
            ("missing", "val.csv: line 2"),
            ("unlisted", "videos/-3B32lodo2M_000059_000069.mp4"),
        ]

    def test_one_of_several_splits(self) -> None:
        touch("v/---QUuC4vJs_000084_000094.mp4", "v/-3B32lodo2M_000059_000069.mp4")
        file = write(
            "all.csv",
            "label,youtube_id,time_start,time_end,split\n"
            "testifying,---QUuC4vJs,84,94,train\nabseiling,-3B32lodo2M,59,69,validate\nzumba,aaaaaaaaaaa,1,2,train\n",
        )
        dataset = opened("v", file, split="val")
        assert found(dataset) == {"v/-3B32lodo2M_000059_000069.mp4": "abseiling"}
        assert not dataset.problems
        assert dataset.rows == 1

    def test_class_folders_of_links_beside_the_videos(self) -> None:
        touch("k400/val/-3B32lodo2M_000059_000069.mp4")
        Path("k400/videos/val/abseiling").mkdir(parents=True)
        os.symlink(
            Path("k400/val/-3B32lodo2M_000059_000069.mp4").absolute(),
            "k400/videos/val/abseiling/-3B32lodo2M_000059_000069.mp4",
        )
        file = write("val.csv", "label,youtube_id,time_start,time_end\nabseiling,-3B32lodo2M,59,69\n")
        assert found(opened("k400", file)) == {"k400/val/-3B32lodo2M_000059_000069.mp4": "abseiling"}

    def test_a_spreadsheet_saved_it(self) -> None:
        touch("v/---QUuC4vJs_000084_000094.mp4", "v/-3B32lodo2M_000059_000069.mp4")
        text = '"label";"youtube_id";"time_start";"time_end";"split"\r\n'
        text += '"testifying";"---QUuC4vJs";"84";"94";"validate"\r\n'
        text += "abseiling;-3B32lodo2M;59;69;validate\r\n;;;;\r\n"
        file = Path("val.csv")
        for delimiter in (",", ";", "\t"):
            file.write_bytes(b"\xef\xbb\xbf" + text.replace(";", delimiter).encode())
            # The row of empty cells is one of no video: spreadsheets leave such.
            assert list(found(opened("v", file)).values()) == ["testifying", "abseiling"]


class TestLists:
    def test_paths_and_numbers(self) -> None:
        touch("data/abseiling/0wR5jVB-WPk_000417_000427.mp4", "data/air_drumming/a b 3.mp4")
        file = write(
            "kinetics400_val_list_videos.txt",
            "abseiling/0wR5jVB-WPk_000417_000427.mp4 0\nair drumming/a b 3.mp4 1\nabseiling/gone.mp4 0\n",
        )
        dataset = opened("data", file)
        assert found(dataset) == {
            "data/abseiling/0wR5jVB-WPk_000417_000427.mp4": "abseiling",
            "data/air_drumming/a b 3.mp4": "air drumming",
        }
        assert (dataset.format, dataset.matched_by, dataset.split) == ("list", "index", None)
        assert problems(dataset) == [("missing", "kinetics400_val_list_videos.txt: line 3")]

    @pytest.mark.parametrize(
        "line",
        [
            "a,b.mp4 5",
            "a,b.mp4,5",
            "a,b.mp4\t5",
            "a,b.mp4;5",
            '"a,b.mp4",5',
            '"a,b.mp4 5"',
            '"a,b.mp4" 5',
            "a,b.mp4 , 5",
        ],
    )
    def test_whatever_stands_between(self, line: str) -> None:
        touch("v/a,b.mp4")
        assert found(opened("v", write("val.csv", line + "\n"))) == {"v/a,b.mp4": "archery"}

    def test_without_a_root_paths_count_from_the_list_or_from_here(self) -> None:
        touch("lists/a.mp4", "videos/b.mp4")
        absolute = Path("videos/b.mp4").absolute()
        file = write(
            "lists/test.csv", f"a.mp4 5\nvideos/b.mp4 6\n{absolute} 6\n../gone.mp4 5\nhf://datasets/o/n/c.mp4 7\n"
        )
        dataset = opened(None, file)
        assert list(found(dataset)) == ["lists/a.mp4", "videos/b.mp4", str(absolute), "hf://datasets/o/n/c.mp4"]
        assert problems(dataset) == [("missing", "lists/test.csv: line 4")]

    def test_paths_of_another_machine_end_like_those_here(self) -> None:
        touch("val/abseiling/x.mp4", "val/archery/x.mp4")
        file = write("val.csv", "/data/kinetics/val/archery/x.mp4 5\npath/to/abseiling/x.mp4 0\nzumba/x.mp4 399\n")
        dataset = opened("val", file)
        assert found(dataset) == {"val/archery/x.mp4": "archery", "val/abseiling/x.mp4": "abseiling"}
        # Another video of that name is no replacement for the one in the folder of the class.
        assert problems(dataset) == [("missing", "val.csv: line 3")]

    def test_ids_without_times_and_extension(self) -> None:
        touch("v/-3B32lodo2M_000059_000069.mp4", "v/---QUuC4vJs.mp4")
        assert list(found(opened("v", write("val.csv", "-3B32lodo2M 0\n---QUuC4vJs 1\n"))).values()) == [
            "abseiling",
            "air drumming",
        ]

    def test_a_model_without_names_is_known_by_number(self) -> None:
        touch("v/archery/a.mp4")
        names = tuple(f"LABEL_{number}" for number in range(3))
        assert found(opened("v", write("val.csv", "archery/a.mp4 2\n"), names), names) == {"v/archery/a.mp4": "LABEL_2"}

    def test_several_labels(self) -> None:
        touch("v/a.mp4", "v/b 7.mp4")
        dataset = opened("v", write("list.txt", "a.mp4 3 5\nb 7.mp4 -1\nb 7.mp4 5\n"))
        assert [sample.labels for sample in dataset.samples] == [(3, 5), (5,)]
        assert dataset.multi_label
        assert problems(dataset) == [("unlabelled", "list.txt: line 2")]
        file = write("list.txt", "b 7.mp4 5\na.mp4 3 5\n")
        assert opened("v", file, limit=1).multi_label  # the data set is, whatever is taken of it

    def test_names_after_semicolons(self) -> None:
        touch("20bn/1420.webm", "20bn/7.webm")
        file = write(
            "test-answers.csv", "1420;Throwing something\n7;Laying something on the table on its side, not upright\n"
        )
        assert found(opened("20bn", file, SSV2), SSV2) == {
            "20bn/1420.webm": "Throwing something",
            "20bn/7.webm": "Laying something on the table on its side, not upright",
        }

    def test_names_that_are_no_utf_8(self) -> None:
        name = os.fsdecode(b"caf\xe9.mp4")
        touch(f"v/{name}")
        assert list(found(opened("v", write("val.txt", f"{name} 5\n")))) == [f"v/{name}"]

    def test_folders_of_pictures(self) -> None:
        touch("frames/some/directory-1/img_00001.jpg", "frames/some/directory-2/img_00001.jpg")
        file = write("list.txt", "some/directory-1 163 1\nsome/directory-2 122 5\n")
        dataset = opened("frames", file, frames=True)
        assert dataset.format == "rawframes"
        assert found(dataset) == {"frames/some/directory-1": "air drumming", "frames/some/directory-2": "archery"}

    def test_pictures_of_slowfast(self) -> None:
        touch("frames/AO8RW/AO8RW-000001.jpg", "frames/other/XXXXX-000001.jpg", "frames/YYYYY/YYYYY-000001.jpg")
        file = write(
            "train.csv",
            "original_vido_id video_id frame_id path labels\n"
            'AO8RW 0 0 AO8RW/AO8RW-000001.jpg "5"\n'
            'AO8RW 0 1 AO8RW/AO8RW-000002.jpg "7,5"\n'
            "XXXXX 1 0 other/XXXXX-000001.jpg 9\n"
            'YYYYY 2 0 YYYYY/YYYYY-000001.jpg ""\n',
        )
        dataset = opened("frames", file, frames=True)
        assert [(sample.path, sample.labels, sample.line) for sample in dataset.samples] == [
            ("frames/AO8RW", (5, 7), 2),
            ("frames/other", (9,), 4),
        ]
        assert problems(dataset) == [("unlabelled", "train.csv: line 5")]
        assert dataset.format == "frame-list"


class TestClassFolders:
    def test_names_decide_and_not_their_order(self) -> None:
        # Sorted as folders, these two change places.
        touch("val/skiing_not_slalom_or_crosscountry/a.mp4", "val/skiing_crosscountry/b.mp4")
        touch("val/massaging_person\u2019s_head/c.mp4", "val/passing_American_football_-in_game-/d.avi")
        touch("val/Tai Chi/deeper/e.mp4", "val/loose.mp4", "val/notes.txt", "val/empty/notes.txt")
        dataset = opened("val")
        assert found(dataset) == {
            "val/Tai Chi/deeper/e.mp4": "tai chi",
            "val/massaging_person\u2019s_head/c.mp4": "massaging person's head",
            "val/passing_American_football_-in_game-/d.avi": "passing American football (in game)",
            "val/skiing_crosscountry/b.mp4": "skiing crosscountry",
            "val/skiing_not_slalom_or_crosscountry/a.mp4": "skiing (not slalom or crosscountry)",
        }
        assert [sample.labels for sample in dataset.samples[-2:]] == [(309,), (308,)]
        assert problems(dataset) == [("unlabelled", "val/loose.mp4")]
        assert (dataset.format, dataset.annotations, dataset.checksum) == ("folders", None, None)
        assert dataset.classes[K400.index("tai chi")] == "Tai Chi"

    def test_a_folder_is_no_video_whatever_its_name(self) -> None:
        touch("v/archery/one.mp4/a.mp4")
        assert list(found(opened("v"))) == ["v/archery/one.mp4/a.mp4"]

    def test_of_torchvision(self) -> None:
        touch("root/train/abseiling/a.mp4", "root/val/abseiling/b.mp4", "root/val/air_drumming/c.mp4")
        assert found(opened("root", split="validation")) == {
            "root/val/abseiling/b.mp4": "abseiling",
            "root/val/air_drumming/c.mp4": "air drumming",
        }

    def test_of_pictures(self) -> None:
        touch("root/abseiling/v1/1.jpg", "root/archery/v2/1.jpg", "root/archery/v3/1.jpg")
        assert found(opened("root", frames=True)) == {
            "root/abseiling/v1": "abseiling",
            "root/archery/v2": "archery",
            "root/archery/v3": "archery",
        }

    @pytest.mark.parametrize(
        ("names", "folder", "label"),
        [
            (("left-right", "leftright"), "leftright", "leftright"),  # as it is, before what is left of it
            (("C++", "C"), "c++", "C++"),
            (("हँसना", "हंसना"), "हंसना", "हंसना"),
            (("größer", "kleiner"), "GRÖSSER", "größer"),
        ],
    )
    def test_other_classes(self, names: tuple[str, ...], folder: str, label: str) -> None:
        touch(f"v/{folder}/a.mp4")
        assert list(found(opened("v", names=names), names).values()) == [label]


class TestJson:
    rows = (
        {
            "id": "74225",
            "label": "spinning cube that quickly stops spinning",
            "template": "Spinning [something] that quickly stops spinning",
            "placeholders": ["cube"],
        },
        {
            "id": "116154",
            "label": "x",
            "template": "Touching (without moving) [part] of [something]",
            "placeholders": [],
        },
    )

    @pytest.mark.parametrize("name", ["train.json", "something-something-v2-train.json"])
    @pytest.mark.parametrize("frames", [False, True])
    def test_something_something(self, name: str, frames: bool) -> None:
        if frames:
            touch("v/74225/1.jpg", "v/116154/1.jpg")
        else:
            touch("v/74225.webm", "v/116154.webm")
        dataset = opened("v", write(name, json.dumps(self.rows, indent=1)), SSV2, frames=frames)
        ending = "" if frames else ".webm"
        assert found(dataset, SSV2) == {
            f"v/74225{ending}": "Spinning something that quickly stops spinning",
            f"v/116154{ending}": "Touching (without moving) part of something",
        }
        assert [sample.line for sample in dataset.samples] == [2, 10]  # the first has a line for each of its parts
        assert dataset.format == "ssv2"

    def test_diving48(self) -> None:
        touch("v/1wSJFCs9rpo_00001.mp4")
        row = {"vid_name": "1wSJFCs9rpo_00001", "label": 5, "end_frame": 76, "start_frame": 0}
        dataset = opened("v", write("test.json", json.dumps([row])))
        assert (dataset.format, found(dataset)) == ("diving48", {"v/1wSJFCs9rpo_00001.mp4": "archery"})


class TestSplitFiles:
    names = ("ApplyEyeMakeup", "brush hair", "Archery")

    @pytest.mark.parametrize("number", ["", " 1", " 0"])
    def test_ucf101(self, number: str) -> None:
        touch("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "UCF-101/Archery/v_Archery_g01_c01.mp4")
        # The last is there in another container.
        text = f"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi{number}\nArchery/v_Archery_g01_c01.avi{number}\n"
        dataset = opened("UCF-101", write("testlist01.txt", text), self.names)
        assert (dataset.format, dataset.matched_by) == ("ucf101", "name")
        assert list(found(dataset, self.names).values()) == ["ApplyEyeMakeup", "Archery"]

    def test_hmdb51(self) -> None:
        odd = "#20_Rhythm&(Fun)!_brush_hair_u_nm_np2_le_goo_0"
        touch(f"hmdb/brush_hair/{odd}.avi", "hmdb/brush_hair/b.avi", "hmdb/brush_hair/c.avi", "hmdb/archery/b.avi")
        write("splits/brush_hair_test_split1.txt", f"{odd}.avi 2 \nb.avi 1 \nc.avi 0 \n")
        write("splits/brush_hair_test_split2.txt", f"{odd}.avi 1 \nb.avi 2 \nc.avi 0 \n")
        write("splits/archery_test_split1.txt", "b.avi 2\n")
        dataset = opened("hmdb", Path("splits"), self.names, split="test1")
        assert found(dataset, self.names) == {
            "hmdb/archery/b.avi": "Archery",
            f"hmdb/brush_hair/{odd}.avi": "brush hair",
        }
        assert not dataset.problems
        assert dataset.format == "hmdb51"
        assert dataset.checksum is not None
        single = opened("hmdb", Path("splits/brush_hair_test_split1.txt"), self.names, split="test")
        assert found(single, self.names) == {f"hmdb/brush_hair/{odd}.avi": "brush hair"}


class TestTables:
    def test_csv(self) -> None:
        touch("videos/a.mp4", "videos/sub/b.mp4")
        text = 'Path,Split,Label\nvideos/a.mp4,test,Archery\n"sub/b.mp4",test,air_drumming\na.mp4,test,-1\n'
        dataset = opened("videos", write("labels.csv", text))
        assert problems(dataset) == [("unlabelled", "labels.csv: line 4")]
        assert dataset.format == "table"
        assert found(dataset) == {"videos/a.mp4": "archery", "videos/sub/b.mp4": "air drumming"}

    def test_several_labels_in_csv(self) -> None:
        touch("a.mp4")
        dataset = opened(None, write("labels.csv", "video,labels\na.mp4,archery|abseiling\n"))
        assert found(dataset) == {"a.mp4": "archery+abseiling"}

    def test_json_lines(self) -> None:
        touch("a.mp4", "b.mp4")
        rows = [{"path": "a.mp4", "label": ["archery", "zumba"]}, {"path": "b.mp4", "label": "abseiling"}]
        dataset = opened(None, write("labels.jsonl", "\n".join(map(json.dumps, rows))))
        assert found(dataset) == {"a.mp4": "archery+zumba", "b.mp4": "abseiling"}
        assert [sample.line for sample in dataset.samples] == [1, 2]

    @pytest.mark.parametrize(
        "values",
        [["archery", "zumba", None], [5, 399, None], [5.0, 399.0, float("nan")], [["archery"], ["zumba"], []]],
    )
    def test_parquet(self, values: list[Any]) -> None:
        touch("a.mp4", "b.mp4", "c.mp4")
        write_table(arrow.table({"path": ["a.mp4", "b.mp4", "c.mp4"], "label": values}), "labels.parquet")
        dataset = opened(None, Path("labels.parquet"))
        assert found(dataset) == {"a.mp4": "archery", "b.mp4": "zumba"}
        assert problems(dataset) == [("unlabelled", "labels.parquet: row 3")]

    @pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
    @pytest.mark.parametrize("split", [None, "train"])
    def test_videofolder(self, name: str, split: str | None) -> None:
        folder = f"data/{split}" if split else "data"
        touch(f"{folder}/0001.mp4", f"{folder}/0002.mp4", "data/test/0001.mp4") if split else touch("data/0001.mp4")
        text = (
            "file_name,label\n0001.mp4,archery\n" if name.endswith("csv") else '{"file_name": "0001.mp4", "label": 5}'
        )
        write(f"{folder}/{name}", text)
        dataset = opened("data", split=split)
        assert (dataset.format, dataset.split) == ("videofolder", split)
        assert found(dataset) == {f"{folder}/0001.mp4": "archery"}
        assert problems(dataset) == ([("unlisted", f"{folder}/0002.mp4")] if split else [])


def parts(dataset: Dataset) -> list[tuple[str, float | None, float | None]]:
    return [(sample.path, sample.start, sample.end) for sample in dataset.samples]


class TestParts:
    """Columns `start` and `end`: each row is a part of its video."""

    EXPECTED = (("a.mp4", 1.5, 3.0), ("a.mp4", None, 1.5), ("a.mp4", 3.0, None), ("b.mp4", None, None))
    ROWS = (("a.mp4", 1.5, 3), ("a.mp4", None, 1.5), ("a.mp4", 3, None), ("b.mp4", None, None))

    def file(self, form: str) -> Path:
        touch("a.mp4", "b.mp4")
        rows = [{"path": path, "label": "archery", "start": start, "end": end} for path, start, end in self.ROWS]
        if form == "parquet":
            write_table(arrow.Table.from_pylist(rows), "labels.parquet")
            return Path("labels.parquet")
        if form == "jsonl":  # a row need not have what it does not say
            rows = [{key: value for key, value in row.items() if value is not None} for row in reversed(rows)]
            return write("labels.jsonl", "\n".join(map(json.dumps, reversed(rows))))
        cells = "".join(f"{path},archery,{start or ''},{end or ''}\n" for path, start, end in self.ROWS)
        return write("labels.csv", f"path,label,start,end\n{cells}")

    @pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
    def test_are_read(self, form: str) -> None:
        dataset = opened(None, self.file(form))
        assert tuple(parts(dataset)) == self.EXPECTED
        assert not dataset.problems
        assert dataset.rows == 4

    def test_of_a_videofolder(self) -> None:
        touch("data/1.mp4")
        write("data/metadata.csv", "file_name,label,start,end\n1.mp4,archery,0,2\n1.mp4,zumba,2,\n")
        dataset = opened("data")
        assert parts(dataset) == [("data/1.mp4", 0.0, 2.0), ("data/1.mp4", 2.0, None)]
        assert not dataset.problems

    def test_a_json_line_after_the_first_may_be_the_only_one_with_a_part(self) -> None:
        touch("a.mp4")
        rows = [{"path": "a.mp4", "label": "archery"}, {"path": "a.mp4", "label": "zumba", "start": 3}]
        dataset = opened(None, write("labels.jsonl", "\n".join(map(json.dumps, rows))))
        assert parts(dataset) == [("a.mp4", None, None), ("a.mp4", 3.0, None)]

    def test_kinetics_times_are_not_parts(self) -> None:
        touch("v/---QUuC4vJs_000084_000094.mp4", "a.mp4")
        row = "label,youtube_id,time_start,time_end\ntestifying,---QUuC4vJs,84,94\n"
        table = "path,label,time_start,time_end,start_frame\na.mp4,archery,84,94,7\n"
        for dataset in (opened("v", write("val.csv", row)), opened(None, write("table.csv", table))):
            assert [sample.part for sample in dataset.samples] == [(None, None)]

    def test_equal_ones_are_duplicates_or_conflicts_and_others_are_not(self) -> None:
        touch("v/a.mp4", "v/b.mp4", "v/spare.mp4")
        rows = [
            "a.mp4,archery,1,3",
            "a.mp4,zumba,2,4",  # overlaps
            "a.mp4,archery,1.0,3.000",
            "a.mp4,zumba,,3",
            "a.mp4,archery,,3",
            "b.mp4,archery,,",
            "b.mp4,zumba,1,",
            "gone.mp4,zumba,1,2",
            "gone.mp4,zumba,2,3",
        ]
        dataset = opened("v", write("val.csv", "\n".join(["path,label,start,end", *rows])))
        assert parts(dataset) == [
            ("v/a.mp4", 1.0, 3.0),
            ("v/a.mp4", 2.0, 4.0),
            ("v/b.mp4", None, None),
            ("v/b.mp4", 1.0, None),
        ]
        conflict = "'a.mp4' (to 3 s) has a different label in line 5; neither counts"
        assert list(dataset.problems) == [
            Problem("duplicate", "val.csv: line 4", "'a.mp4' (1 to 3 s) is already in line 2"),
            Problem("conflict", "val.csv: line 6", conflict),
            Problem("missing", "val.csv: line 9", "'gone.mp4' (1 to 2 s) does not exist"),
            Problem("missing", "val.csv: line 10", "'gone.mp4' (2 to 3 s) does not exist"),
            Problem("unlisted", "v/spare.mp4", "no row has this video"),
        ]


class TestLabelMaps:
    def lines(self, order: Sequence[str]) -> Path:
        touch("v/a.mp4", "v/b.mp4")
        return write("val.csv", f"a.mp4 {order.index('archery')}\nb.mp4 {order.index('zumba')}\n")

    @pytest.mark.parametrize(
        "form", ["kinetics_classnames.json", "label_map_k400.txt", "categories.txt", "config.json"]
    )
    def test_numbers_of_another_order(self, form: str) -> None:
        order = K400[::-1]
        content = {
            "kinetics_classnames.json": json.dumps({f'"{name}"': number for number, name in enumerate(order)}),
            "label_map_k400.txt": "\n".join(order),
            "categories.txt": "".join(f"{name}\t{number}\n" for number, name in enumerate(order)),
            "config.json": json.dumps({"id2label": dict(enumerate(order))}),
        }
        dataset = opened("v", self.lines(order), label_map=write(form, content[form]))
        assert list(found(dataset).values()) == ["archery", "zumba"]
        assert dataset.matched_by == "label map"
        assert dataset.classes == {5: "archery", 399: "zumba"}

    def test_a_model_without_names_takes_those_of_the_map(self) -> None:
        nameless = tuple(f"LABEL_{number}" for number in range(400))
        label_map = write("map.txt", "\n".join(K400))
        touch("w/archery/a.mp4")
        assert list(found(opened("w", names=nameless, label_map=label_map)).values()) == ["archery"]
        dataset = opened("v", self.lines(K400), nameless, label_map=label_map)
        assert list(found(dataset).values()) == ["archery", "zumba"]
        assert dataset.matched_by == "index"


class TestSubsets:
    @pytest.fixture
    def listed(self) -> Path:
        touch(*(f"v/{number:02}.mp4" for number in range(30)))
        return write("val.txt", "".join(f"{number:02}.mp4 {number % 3}\n" for number in reversed(range(30))))

    def test_the_order_is_that_of_the_file(self, listed: Path) -> None:
        assert [sample.path for sample in opened("v", listed).samples] == [f"v/{n:02}.mp4" for n in reversed(range(30))]

    def test_the_first(self, listed: Path) -> None:
        assert [sample.path for sample in opened("v", listed, limit=2).samples] == ["v/29.mp4", "v/28.mp4"]

    def test_a_random_choice_stays_in_order_and_is_repeated_by_its_seed(self, listed: Path) -> None:
        one, same, other = ([s.line for s in opened("v", listed, limit=10, seed=n).samples] for n in (1, 1, 2))
        assert one == same == sorted(one)
        assert len(set(one)) == 10
        assert one != other
        assert one != list(range(1, 11))

    def test_more_than_there_are(self, listed: Path) -> None:
        assert len(opened("v", listed, limit=99, seed=3).samples) == 30

    def test_classes(self, listed: Path) -> None:
        dataset = opened("v", listed, classes=["Air_Drumming", "zumba"], limit=3)
        assert set(found(dataset).values()) == {"air drumming"}
        assert (dataset.rows, len(dataset.samples)) == (10, 3)
        assert not dataset.problems

    def test_classes_that_both_have(self) -> None:
        touch("v/acting in play/a.mp4", "v/archery/b.mp4")  # the first is not of Kinetics-400
        assert found(opened("v", classes=["archery"])) == {"v/archery/b.mp4": "archery"}


class TestProblems:
    def test_each_is_listed_with_its_place(self) -> None:
        touch("v/a.mp4", "v/b.mp4", "v/c.mp4", "v/x/e.mp4", "v/y/e.mp4", "v/z/e.mp4", "v/unlisted.mp4")
        file = write(
            "val.csv",
            "path,label\na.mp4,archery\ngone.mp4,archery\na.mp4,archery\nb.mp4,archery\nb.mp4,zumba\nc.mp4,\n"
            "e.mp4,zumba\nx/e.mp4,zumba\n",
        )
        dataset = opened("v", file)
        assert found(dataset) == {"v/a.mp4": "archery", "v/x/e.mp4": "zumba"}
        assert dataset.problems == (
            Problem("missing", "val.csv: line 3", "'gone.mp4' does not exist"),
            Problem("duplicate", "val.csv: line 4", "'a.mp4' is already in line 2"),
            Problem("conflict", "val.csv: line 6", "'b.mp4' has a different label in line 5; neither counts"),
            Problem("unlabelled", "val.csv: line 7", "'c.mp4' has no label"),
            Problem("ambiguous", "val.csv: line 8", "'e.mp4' could be v/x/e.mp4 or v/y/e.mp4 or v/z/e.mp4"),
            Problem("unlisted", "v/unlisted.mp4", "no row has this video"),
        )
        assert str(dataset.problems[0]) == "val.csv: line 3: 'gone.mp4' does not exist"
        assert dataset.rows == 8

    def test_videos_of_other_splits_are_not_unlisted(self) -> None:
        touch("k/train/a.mp4", "k/val/b.mp4", "k/val/c.mp4")
        assert problems(opened("k", write("val.txt", "b.mp4 5\n"))) == [("unlisted", "k/val/c.mp4")]

    def test_an_exact_path_is_not_ambiguous(self) -> None:
        touch("v/a.mp4", "v/sub/a.mp4")
        assert list(found(opened("v", write("val.txt", "a.mp4 5\n")))) == ["v/a.mp4"]

    def test_a_loop_of_links_ends(self) -> None:
        touch("v/archery/a.mp4")
        os.symlink(Path("v").absolute(), "v/archery/back")
        assert list(found(opened("v"))) == ["v/archery/a.mp4"]

    def test_the_checksum_is_that_of_the_file(self) -> None:
        touch("v/a.mp4")
        dataset = opened("v", write("val.txt", "a.mp4 5\n"))
        # printf 'a.mp4 5\n' | sha256sum
        assert dataset.checksum == "3376e2ce4bdb4b94727cf3c152b5872d96a7fd67fcfdb19dc4d582596c8d140f"
