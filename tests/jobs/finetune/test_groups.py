"""Groups of videos: the rule that counts for names as people have them, and copies that join."""

import os
import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.finetune import groups as module
from timesformer_cli.jobs.finetune.groups import Grouping, group, join, same_content


def grouped(paths: Sequence[str], about: Sequence[Mapping[str, str]] = (), by: str = "auto") -> Grouping:
    """Of paths `.../CLASS/...`: the class is the first folder below `data`."""
    names = [path.partition("data/")[2].partition("/")[0] for path in paths]
    classes = sorted(set(names))
    return group(paths, [(classes.index(name),) for name in names], about, by=by, classes=classes)


def together(paths: Sequence[str], found: Grouping) -> set[frozenset[str]]:
    """The sets of paths that share a group, if they are more than one."""
    sets: dict[str, set[str]] = {}
    for path, name in zip(paths, found.groups, strict=True):
        sets.setdefault(name, set()).add(path)
    return {frozenset(each) for each in sets.values() if len(each) > 1}


def stems(each: frozenset[str]) -> set[str]:
    return {Path(path).stem for path in each}


UCF = [
    f"data/{label}/v_{label}_g{number:02d}_c{clip:02d}.avi"
    for label in ("Walk", "TaiChi")
    for number in range(1, 8)
    for clip in range(1, 5)
]
HMDB = [
    f"data/{label}/{source}_{label}_{quality}_{number}.avi"
    for label in ("brush_hair", "eat")
    for source, quality in (
        ("April_09", "u_nm_np1_ba_goo"),
        ("Faith_Rewarded", "f_cm_np2_fr_med"),
        ("AmericanGangster", "h_cm_np1_le_bad"),
        ("#20_Rhythm", "l_nm_np1_ri_med"),
        ("21", "u_cm_np1_fr_med"),
    )
    for number in range(3)
]
IDS = [f"-aB{number}_efghi{number}" for number in range(6)]


class TestNames:
    def test_ucf101(self) -> None:
        found = grouped(UCF)
        assert found.rule == "the group in names of UCF101"
        assert found.example == "v_TaiChi_g01_c01.avi is in the group TaiChi_g01"
        assert len(set(found.groups)) == 14
        assert all(len(each) == 4 for each in together(UCF, found))

    def test_hmdb51(self) -> None:
        found = grouped(HMDB)
        assert found.rule == "the source in names of HMDB51"
        assert set(found.groups) == {"April_09", "Faith_Rewarded", "AmericanGangster", "#20_Rhythm", "21"}

    def test_hmdb51_with_classes_that_are_spelled_differently(self) -> None:
        names = ["Brush hair", "eat"]
        found = group([f"clips/{Path(path).name}" for path in HMDB], [(0,)] * 15 + [(1,)] * 15, classes=names)
        assert set(found.groups) == {"April_09", "Faith_Rewarded", "AmericanGangster", "#20_Rhythm", "21"}

    def test_kinetics(self) -> None:
        paths = [f"data/{label}/{id}_{at:06d}_{at + 10:06d}.mp4" for id in IDS for label in "ab" for at in (59, 120)]
        found = grouped(paths)
        assert found.rule == "the YouTube id in names of Kinetics"
        assert set(found.groups) == set(IDS)

    def test_names_of_a_phone_tell_nothing(self) -> None:
        paths = [f"data/{label}/IMG_{number:04d}.MOV" for label in ("jump", "run") for number in range(20)]
        found = grouped(paths)
        assert found.groups == tuple(paths)
        assert found.rule == "file, each by itself"
        assert found.passed_over == ("the name without its last number: only 1 group", "the folder: only 1 group")
        assert found.lines() == [
            "40 groups by file, each by itself",
            "not grouped by the name without its last number: only 1 group",
            "not grouped by the folder: only 1 group",
        ]

    def test_one_name_for_each_class_tells_nothing(self) -> None:
        paths = [f"data/{label}/{label}_{number}.mp4" for label in "abcdef" for number in range(4)]
        found = grouped(paths)
        assert found.groups == tuple(paths)
        assert found.passed_over[0] == (
            'the name without its last number: more than half of the class "a" is in one group'
        )

    def test_the_last_number(self) -> None:
        paths = [
            f"data/{label}/tape{tape} ({number}).mp4" for tape in range(5) for label in "ab" for number in range(3)
        ]
        found = grouped(paths)
        assert found.rule == "the name without its last number"
        assert set(found.groups) == {f"tape{tape}" for tape in range(5)}

    @pytest.mark.parametrize("span", ["_{:03d}_{:03d}", "-{}.5-{}.25", " {}s-{}s", "_00.0{}.10-00.0{}.20", "[{}-{}]"])
    def test_the_time_span(self, span: str) -> None:
        paths = [
            f"data/{label}/talk_{tape}{span.format(at, at + 1)}.mp4"
            for tape in range(5)
            for label, at in (("a", 1), ("a", 2), ("b", 3))
        ]
        found = grouped(paths)
        assert found.rule == "the name without its time span"
        assert set(found.groups) == {f"talk_{tape}" for tape in range(5)}

    def test_subject_and_take_are_no_time_span(self) -> None:
        paths = [
            f"data/{label}/p_{who}_{take}.mp4" for who in range(5) for label, take in (("a", 7), ("b", 8), ("b", 9))
        ]
        found = grouped(paths)
        assert found.passed_over == ("the name without its time span: only 1 group",)
        assert set(found.groups) == {f"p_{who}" for who in range(5)}

    def test_numbers_alone_are_no_name(self) -> None:
        paths = [f"data/{label}/{number}.mp4" for label in "ab" for number in range(9)]
        assert grouped(paths).groups == tuple(paths)

    @pytest.mark.parametrize("layout", ["{label}/{site}/IMG_{number}.MOV", "{site}/{label}/IMG_{number}.MOV"])
    def test_one_folder_for_each_site(self, layout: str) -> None:
        paths = [
            layout.format(label=label, site=f"site {site}", number=number)
            for label in ("Deer", "red fox")
            for site in range(5)
            for number in range(4)
        ]
        found = group(paths, [(number // 20,) for number in range(40)], classes=["deer", "red_fox"])
        assert found.rule == "the folder"
        assert set(found.groups) == {f"site {site}" for site in range(5)}

    def test_the_folder_of_files_without_class_folders(self) -> None:
        paths = [f"{site}/IMG_{number}.MOV" for site in "vwxyz" for number in range(4)]
        found = group(paths, [(number % 2,) for number in range(20)], classes=["deer", "fox"])
        assert found.rule == "the folder"
        assert set(found.groups) == set("vwxyz")

    def test_names_that_fit_only_some_videos(self) -> None:
        paths = UCF[:8] + [f"data/{label}/x{number}y.avi" for label in ("Walk", "TaiChi") for number in range(8)]
        found = grouped(paths)
        assert found.passed_over[0] == "the group in names of UCF101: fits only 8 of 24 videos"


class TestColumns:
    ROWS = tuple({"Site": f"s{number % 6}", "split": "train"} for number in range(len(UCF)))

    def test_come_first(self) -> None:
        found = grouped(UCF, self.ROWS)
        assert found.rule == "the column site"
        assert set(found.groups) == {f"s{number}" for number in range(6)}

    def test_come_in_order(self) -> None:
        rows = [{**row, "video_id": "v", "group": "g"} for row in self.ROWS]
        found = grouped(UCF, rows)
        assert found.passed_over == ("the column group: only 1 group",)
        assert found.rule == "the column site"

    def test_a_video_with_an_empty_cell_is_by_itself(self) -> None:
        rows = [{"site": " "}, *self.ROWS[1:]]
        assert grouped(UCF, rows).groups[0] == UCF[0]

    def test_parts_of_a_file_stay_together(self) -> None:
        paths = [path for path in UCF for _ in range(2)]
        rows = [{"site": f"s{number % 11}"} for number in range(len(paths))]
        found = grouped(paths, rows)
        assert all(found.groups[2 * number] == found.groups[2 * number + 1] for number in range(len(UCF)))

    def test_a_class_that_nothing_divides_stops_no_rule(self) -> None:
        paths = [*UCF, "data/Lonely/v_Lonely_g01_c01.avi", *["data/One/v_One_g01_c01.avi"] * 3]
        assert grouped(paths).rule == "the group in names of UCF101"

    def test_several_labels(self) -> None:
        found = group(UCF, [(0, 1), (1,), (), (0,)] * 14, self.ROWS)
        assert found.rule == "the column site"


class TestAsked:
    def test_for_none(self) -> None:
        assert grouped([*UCF, UCF[0]], by="none").groups == (*UCF, UCF[0])

    def test_for_a_column_whatever_it_gives(self) -> None:
        rows = [{"Who": "a" if number else "b"} for number in range(len(UCF))]
        found = grouped(UCF, rows, by="who")
        assert found.rule == "the column Who"
        assert set(found.groups) == {"a", "b"}

    @pytest.mark.parametrize(("pattern", "group"), [(r"_g(\d+)_", "01"), ("g0[1-9]", "g01"), ("(?:v_)(g99)?Walk", "")])
    def test_for_a_pattern(self, pattern: str, group: str) -> None:
        if not group:
            with pytest.raises(UsageError, match="no path matches, and the columns are: none"):
                grouped(UCF, by=pattern)
            return
        found = grouped(UCF, by=pattern)
        assert found.groups[0] == group
        assert len(set(found.groups)) == 7
        assert found.lines()[0] == f"7 groups by the pattern {pattern}; v_TaiChi_g01_c01.avi is in the group {group}"

    @pytest.mark.parametrize(
        ("by", "message"),
        [
            ("sites", "groups by sites: no path matches, and the columns are: site, who"),
            ("[", r"groups by \[: neither a column nor a regular expression \(unterminated character set"),
            ("data", "groups by data: all videos are in one group, data"),
        ],
    )
    def test_for_nothing_that_exists(self, by: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            grouped(UCF, [{"who": "x", "site": "y"}] * len(UCF), by=by)


@given(st.randoms(use_true_random=False), st.sampled_from([UCF, HMDB, UCF[:3] + HMDB[:3]]))
def test_the_order_of_files_does_not_matter(random: random.Random, paths: list[str]) -> None:
    order = list(range(len(paths)))
    random.shuffle(order)
    one, other = grouped(paths), grouped([paths[number] for number in order])
    assert other.groups == tuple(one.groups[number] for number in order)
    assert one.lines() == other.lines()


class TestCopies:
    def test_files_with_the_same_bytes(self, tmp_path: Path) -> None:
        contents = {
            "a.mp4": b"one",
            "b.mp4": b"two",
            "c.mp4": b"one",
            "d.mp4": b"three",
            "e": b"",
            "f": b"",
            "g": b"one",
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "frames").mkdir()
        paths = [
            *(str(tmp_path / name) for name in contents),
            str(tmp_path / "frames"),
            "http://host/a.mp4",
            "gone.mp4",
        ]
        paths.append(paths[0])  # a second part of the same file
        assert {frozenset(Path(paths[number]).name for number in pair) for pair in same_content(paths)} == {
            frozenset({"a.mp4", "c.mp4"}),
            frozenset({"a.mp4", "g"}),
        }

    def test_only_files_of_equal_size_are_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, size in (("a", 3), ("b", 4), ("c", 5), ("d", 4)):
            (tmp_path / name).write_bytes(os.urandom(size))
        read: list[str] = []
        checksum = module.checksum
        monkeypatch.setattr(
            module, "checksum", lambda files: (read.extend(path.name for path in files), checksum(files))[1]
        )
        assert list(same_content([str(tmp_path / name) for name in "abcd"])) == []
        assert sorted(read) == ["b", "d"]

    def test_join_groups(self) -> None:
        paths = ["a1", "a2", "b1", "b2", "c1", "d1"]
        before = Grouping(("a", "a", "b", "b", "c", "d"), "rule")
        found = join(before, paths, [(0, 1), (1, 4)], [(4, 2, 3.5), (2, 3, 0.0)])
        assert found.groups == ("a", "a", "a", "a", "a", "d")
        assert found.joined == (
            "3 videos of different groups share one, since some of them have the same content: a2 and c1",
            "5 videos of different groups share one, since some of them look alike: b1 and c1",
        )

    def test_nothing_to_join(self) -> None:
        before = Grouping(("a", "a", "b"), "rule")
        assert join(before, ["1", "2", "3"], [(0, 1)], [(1, 0, 2.0)]) == before

    def test_a_crowd_of_look_alikes_is_divided_by_distance(self) -> None:
        """A fixed camera: 60 of 100 videos, of which 1 to 5 and 6 to 8 are nearer."""
        paths = [f"{number:03d}" for number in range(100)]
        pairs = [(one, other, 7.0) for one, other in combinations(range(60), 2)]
        near = [(number, number + 1, 4.0) for number in (1, 2, 3, 4, 6, 7)]
        found = join(Grouping(tuple(paths), "rule"), paths, (), [*pairs, *near, (90, 91, 8.0)])
        assert together(paths, found) == {
            frozenset({"001", "002", "003", "004", "005"}),
            frozenset({"006", "007", "008"}),
            frozenset({"090", "091"}),
        }
        assert found.joined == (
            "10 videos of different groups share one, since some of them look alike: 001 and 002",
            "60 videos look alike, too many for one group: only the nearest of them share one",
        )

    def test_the_same_bytes_join_however_many(self) -> None:
        paths = [f"{number:03d}" for number in range(40)]
        found = join(Grouping(tuple(paths), "rule"), paths, [(0, number) for number in range(1, 40)])
        assert set(found.groups) == {"000"}

    @given(st.randoms(use_true_random=False))
    def test_the_order_of_videos_and_pairs_does_not_matter(self, random: random.Random) -> None:
        count = 30
        paths = [f"{number:02d}" for number in range(count)]
        groups = tuple(random.choice(paths) for _ in paths)
        alike = [(random.randrange(count), random.randrange(count), float(random.randrange(9))) for _ in range(25)]
        same = [(random.randrange(count), random.randrange(count)) for _ in range(3)]
        one = join(Grouping(groups, "rule"), paths, same, alike)
        place = random.sample(range(count), count)  # of each video, in the new order
        order = sorted(range(count), key=place.__getitem__)
        moved_alike = [(place[b], place[a], bits) for a, b, bits in random.sample(alike, len(alike))]
        moved = [(place[a], place[b]) for a, b in random.sample(same, len(same))]
        start = Grouping(tuple(groups[number] for number in order), "rule")
        other = join(start, [paths[number] for number in order], moved, moved_alike)
        assert [other.groups[place[number]] for number in range(count)] == list(one.groups)
        assert other.joined == one.joined
