"""Words of side and turn in names of classes: as words, in many languages."""

import pytest

from timesformer_cli.checkpoints.labels import read as published
from timesformer_cli.jobs.finetune import sides
from timesformer_cli.jobs.finetune.sides import sides_of, word_of_side


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("turn left", "left"),
        ("TurnLeft", "left"),
        ("LEFT", "left"),
        ("pan_left2", "left"),
        ("right-hand", "right"),
        ("Pushing something from left to right", "left"),
        ("roll counter-clockwise", "counter clockwise"),
        ("Anticlockwise", "anticlockwise"),
        ("Wischen nach rechts", "rechts"),
        ("gegen den Uhrzeigersinn", "gegen den uhrzeigersinn"),
        ("linksaf slaan", "linksaf slaan"),
        ("tourner à gauche", "gauche"),
        ("Sens des aiguilles d'une montre", "sens des aiguilles d une montre"),
        ("girar a la izquierda", "izquierda"),
        ("DERECHA", "derecha"),
        ("girare a sinistra", "sinistra"),
        ("virar à direita", "direita"),
        ("Поворот налево", "налево"),
        ("ПРАВЫЙ поворот", "правый"),
        ("против часовой стрелки", "против часовой стрелки"),
        ("skręt w prawo", "prawo"),
        ("vänster", "vänster"),
        ("vasemmalle", "vasemmalle"),
        ("ΑΡΙΣΤΕΡΌΣ", "αριστερόσ"),
        ("لليسار", "لليسار"),
        ("ימינה", "ימינה"),
        ("向左转", "左"),
        ("逆时针旋转", "逆时针"),
        ("右手を上げる", "右"),
        ("오른쪽으로 돌기", "오른쪽"),
        ("बाएं मुड़ें", "बाएं"),
        ("เลี้ยวซ้าย", "ซ้าย"),
    ],
)
def test_words_of_side_are_found(name: str, word: str) -> None:
    assert word_of_side(name) == word


@pytest.mark.parametrize(
    "name",
    [
        *[
            "bright",
            "lefty",
            "copyright",
            "birthright",
            "cleft",
            "dogleg",
            "правда",
            "rechtschreibung",
            "gauchemar",
            "droitement",
        ],
        *["A", "B", "l", "r", "east", "clock", "turning", "12", "saludo al sol", ""],
    ],
)
def test_parts_of_words_and_words_with_other_meanings_are_not(name: str) -> None:
    assert word_of_side(name) is None
    assert not sides_of([name, "something else"]).any


def test_every_word_is_written_as_names_are_read_and_has_one_sign() -> None:
    tables = (sides._WORDS, sides._DOUBTFUL, sides._INSIDE)
    listed = [word.strip() for table in tables for words in table.values() for word in words.split(",")]
    assert len(sides._SIGN_OF) == len(set(listed)) == len(listed)
    assert [word for word in listed if sides._words(word) != word.casefold()] == []
    assert [word for word in listed if word.casefold() not in sides._SIGN_OF] == []


def test_pairs_are_mirror_images_of_each_other() -> None:
    names = [
        "pan left",
        "pan right",
        "roll clockwise",
        "roll counter-clockwise",
        "move left to right",
        "move right to left",
        "only left",
        "knee l",
        "knee r",
        "walk",
    ]
    found = sides_of(names)
    assert found.pairs == ((0, 1), (2, 3), (4, 5), (7, 8))
    assert found.exchange.tolist() == [1, 0, 3, 2, 5, 4, 6, 8, 7, 9]
    assert sorted(found.words) == [0, 1, 2, 3, 4, 5, 6]
    assert found.unpaired == [6]


@pytest.mark.parametrize(
    "names",
    [
        ("camera 1 left", "camera 2 right"),
        ("lift left arm", "lift right leg"),
        ("left", "right hand"),
        ("move left", "move left to right"),
        ("turn left", "turn-left", "turn right"),  # which of them is the mirror image?
    ],
)
def test_names_that_differ_otherwise_are_no_pairs(names: tuple[str, ...]) -> None:
    found = sides_of(names)
    assert found.pairs == ()
    assert found.unpaired == list(range(len(names)))


def test_doubtful_words_count_only_between_two_classes() -> None:
    assert sides_of(["walk east", "walk west"]).pairs == ((0, 1),)
    assert sides_of(["walk east", "walk west"]).any
    assert not sides_of(["walk east", "run west"]).any


def test_published_classes() -> None:
    assert not sides_of(published("kinetics-400")).any
    found = sides_of(published("something-something-v2"))
    assert sorted(found.names[number] for number in found.words) == sorted(
        name for name in found.names if "left" in name.split() or "right" in name.split()
    )
    assert [tuple(found.names[number] for number in pair) for pair in found.pairs] == [
        ("Pulling something from left to right", "Pulling something from right to left"),
        ("Pushing something from left to right", "Pushing something from right to left"),
        ("Turning the camera left while filming something", "Turning the camera right while filming something"),
    ]
