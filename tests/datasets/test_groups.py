"""A user's own classes, read from a file, and labels of datasets that are matched with them."""

from pathlib import Path

import pytest

from timesformer_cli.datasets.groups import read_groups
from timesformer_cli.datasets.matching import match
from timesformer_cli.datasets.reading import Row
from timesformer_cli.errors import InputError, TimesformerError, UsageError
from timesformer_cli.specs import Activation, Groups

LABELS = ("archery", "bowling", "hand washing", "making tea", "yoga")


def read(folder: Path, text: str, activation: Activation = "softmax") -> Groups:
    (folder / "mine.csv").write_text(text, encoding="utf-8")
    return read_groups(folder / "mine.csv", LABELS, activation)


class TestFiles:
    @pytest.mark.parametrize(
        "text",
        [
            "label,group\narchery,sport\nmaking tea,kitchen\nbowling,sport\n",
            "archery,sport\nmaking tea,kitchen\nbowling,sport\nbowling,sport\n",
            "\ufeffLabel;Group\n\nArchery;sport\nmaking_tea;kitchen\n bowling ; sport\n",
            'label\tgroup\n"archery"\tsport\nmaking tea\tkitchen\nbowling\tsport',
            "archery,sport\nmaking tea,kitchen\nbowling,sport\nyoga,other\n",
        ],
    )
    def test_several_labels_to_one_name(self, tmp_path: Path, text: str) -> None:
        groups = read(tmp_path, text)
        assert groups == Groups(("sport", "kitchen", "other"), (0, 0, 2, 1, 2))
        assert groups.chosen(LABELS) == {"sport": ["archery", "bowling"], "kitchen": ["making tea"]}
        assert groups.of(LABELS)["yoga"] == "other"

    def test_no_other_if_all_labels_have_a_group(self, tmp_path: Path) -> None:
        text = "".join(f"{label},{'calm' if label == 'yoga' else 'busy'}\n" for label in LABELS)
        assert read(tmp_path, text) == Groups(("busy", "calm"), (0, 0, 0, 0, 1))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "mine.csv: has no row; it needs two columns, label and group"),
            ("label,group\n", "mine.csv: has no row"),
            ("label,group\narchry,sport\n", "line 2: 'archry' is not a label of the model; did you mean 'archery'?"),
            ("chess,games\n", "line 1: 'chess' is not a label of the model; it has 5, such as 'archery'"),
            (
                "archery,sport\nyoga,calm\nArchery,fun\n",
                "line 3: 'Archery' is in the group 'fun', and in 'sport' by line 1; remove one",
            ),
            ("archery,sport,1\n", "line 1: 'archery,sport,1' instead of two columns"),
            ("archery\n", "line 1: 'archery' instead of two columns"),
            ("archery,\n", "line 1: 'archery,' instead of two columns"),
            ("".join(f"{label},all\n" for label in LABELS), "puts all 5 labels of the model into 'all'"),
        ],
    )
    def test_what_cannot_be_groups(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UsageError) as error:
            read(tmp_path, text)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_one_group_of_sigmoids_can_be(self, tmp_path: Path) -> None:
        text = "".join(f"{label},any\n" for label in LABELS)
        assert read(tmp_path, text, "sigmoid") == Groups(("any",), (0,) * 5)

    def test_raw_values_do_not_add_up(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="raw values"):
            read(tmp_path, "archery,sport\n", "none")

    def test_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"gone\.csv: cannot be read \(No such file"):
            read_groups(tmp_path / "gone.csv", LABELS, "softmax")


class TestMatching:
    GROUPS = Groups(("sport", "kitchen", "other"), (0, 0, 2, 1, 2))

    def matched(self, *labels: str) -> dict[str, int]:
        rows = [Row("a.csv", line, f"{line}.mp4", (label,)) for line, label in enumerate(labels, 2)]
        found = match(rows, self.GROUPS.names, None, partly=False, groups=self.GROUPS.of(LABELS))
        return dict(found.indices)

    def test_annotations_have_the_users_names(self) -> None:
        assert self.matched("Sport", "other", "kitchen") == {"Sport": 0, "other": 2, "kitchen": 1}

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ("sports", "a.csv: line 3: 'sports' is not one of the groups; did you mean 'sport'?"),
            ("music", "'music' is not one of the groups; they are 'sport', 'kitchen', 'other'"),
            ("bowling", "'bowling' is a label of the model; annotations have to name its group, 'sport'"),
            ("1", "'1' is not one of the groups"),
        ],
    )
    def test_a_label_that_no_group_has(self, label: str, message: str) -> None:
        with pytest.raises(TimesformerError) as error:
            self.matched("sport", label)
        assert message in str(error.value)
        assert error.value.exit_code == 2

    def test_numbers_are_no_places_among_the_groups(self) -> None:
        with pytest.raises(UsageError, match="'1' is not one of the groups, and 1 more are none"):
            self.matched("1", "0")
