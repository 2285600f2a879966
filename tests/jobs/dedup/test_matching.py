"""Which stretches videos share, and which of them to keep, from fingerprints."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from testing.films import film
from timesformer_cli.flow import Item
from timesformer_cli.jobs.dedup import candidates as candidates_module
from timesformer_cli.jobs.dedup.alignment import align
from timesformer_cli.jobs.dedup.candidates import candidates
from timesformer_cli.jobs.dedup.groups import Copy, Settings, copies, find_pairs, shared
from timesformer_cli.pipeline.fingerprinted import Fingerprinted
from timesformer_cli.video.fingerprints import RATE, fingerprints, mirrored, thinned

Prints = NDArray[np.uint64]


def prints(seed: int, frames: int = 80) -> Prints:
    return fingerprints(thinned(film(seed, frames, 45, 80)))


def noisy(values: Prints, bits: int, seed: int = 0) -> Prints:
    """With so many bits of each number turned."""
    places = np.random.default_rng(seed).permuted(np.tile(np.arange(64, dtype=np.uint64), (*values.shape, 1)), axis=-1)
    turned = np.bitwise_or.reduce(np.uint64(1) << places[..., :bits], axis=-1)
    return values ^ turned


def still(seed: int, frames: int) -> Prints:
    return noisy(np.repeat(prints(seed, 1), frames, axis=0), 1, seed)


def video(name: str, values: Prints, *, width: int = 80, height: int = 45, shown: float = 1.0) -> Fingerprinted:
    return Fingerprinted(Item(name), values, 0.0, len(values) / RATE, width, height, shown)


def found(videos: Sequence[Fingerprinted], settings: Settings = Settings()) -> list[Copy]:
    return copies(videos, list(find_pairs(videos, settings)))


def shown(rows: Sequence[Copy]) -> list[tuple[str, str, str, str]]:
    return [(row.path, row.other, row.kind, row.reason) for row in rows]


FILMS = [prints(seed) for seed in range(12)]
BLANK = np.zeros((16, 4), np.uint64)


class TestCandidates:
    def test_copies_among_different_films(self) -> None:
        crowd = [*FILMS, noisy(FILMS[3], 4), mirrored(noisy(FILMS[5], 4)), FILMS[7][30:60]]
        best = {(each.first, each.second, each.mirrored): each.shifts[0] for each in candidates(crowd)}
        assert best[3, 12, False] == 0
        assert best[5, 13, True] == 0
        assert best[7, 14, False] == -30

    def test_only_those_of_different_sides(self) -> None:
        crowd = [FILMS[0], FILMS[0], FILMS[1], FILMS[1], FILMS[0]]
        sides = np.array([False, False, False, True, True])
        pairs = {(each.first, each.second) for each in candidates(crowd, sides)}
        assert {(0, 4), (1, 4), (2, 3)} <= pairs
        assert all(sides[one] != sides[other] for one, other in pairs)

    @pytest.mark.parametrize("crowd", [[], [FILMS[0]], [BLANK, BLANK], [np.empty((0, 4), np.uint64), FILMS[0]]])
    def test_nothing_to_compare(self, crowd: list[Prints]) -> None:
        assert list(candidates(crowd)) == []

    def test_copies_by_the_hundred_are_all_linked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(candidates_module, "_NEXT", (2, 2))
        crowd = [noisy(FILMS[0], 2, seed) for seed in range(20)]
        rows = found([video(str(number), each) for number, each in enumerate(crowd)])
        assert {row.group for row in rows} == {1}


class TestAlignment:
    def test_a_part_of_a_longer_video(self) -> None:
        stretch = align(FILMS[0], noisy(FILMS[0][20:60], 2), -20, threshold=0.68, least=24)
        assert stretch is not None
        assert (stretch.start, stretch.end, stretch.shift) == (20, 60, -20)
        assert stretch.similarity > 0.8
        assert not stretch.still

    def test_a_shift_that_is_nearly_right(self) -> None:
        stretch = align(FILMS[0], FILMS[0][20:60], -22, threshold=0.68, least=24)
        assert stretch is not None
        assert (stretch.shift, stretch.similarity) == (-20, 1)

    def test_the_longest_of_several(self) -> None:
        mixed = np.concatenate([FILMS[0][:25], FILMS[1][25:40], FILMS[0][40:80]])
        stretch = align(FILMS[0], mixed, 0, threshold=0.68, least=24)
        assert stretch is not None
        assert stretch.start == pytest.approx(40, abs=2)
        assert stretch.end == 80

    def test_a_short_gap_does_not_end_it(self) -> None:
        mixed = np.concatenate([FILMS[0][:38], FILMS[1][38:42], FILMS[0][42:]])
        stretch = align(FILMS[0], mixed, 0, threshold=0.68, least=24)
        assert stretch is not None
        assert (stretch.start, stretch.end) == (0, 80)

    def test_short_videos_must_agree_nearly_whole(self) -> None:
        assert align(FILMS[0], FILMS[0][:10], 0, threshold=0.68, least=24) is not None
        mixed = np.concatenate([FILMS[0][:10], FILMS[1][:10]])
        assert align(FILMS[0], mixed, 0, threshold=0.68, least=24) is None

    @pytest.mark.parametrize("shift", [0, 100, -100, 79, -79])
    def test_different_videos_share_nothing(self, shift: int) -> None:
        assert align(FILMS[0], FILMS[1], shift, threshold=0.68, least=24) is None

    def test_blank_frames_agree_with_everything_and_prove_nothing(self) -> None:
        assert align(BLANK, BLANK, 0, threshold=0.68, least=8) is None
        faded = np.concatenate([BLANK, FILMS[0], BLANK])
        stretch = align(faded, faded, 0, threshold=0.68, least=24)
        assert stretch is not None
        assert (stretch.start, stretch.end) == (16, 96)

    def test_where_nothing_moves_it_is_still(self) -> None:
        stretch = align(still(0, 60), still(0, 60), 0, threshold=0.68, least=24)
        assert stretch is not None
        assert stretch.still


class TestGroups:
    def test_the_longest_then_the_largest_then_the_first_is_kept(self) -> None:
        videos = [
            video("small", FILMS[0], width=40, height=22),
            video("part", FILMS[0][20:60], width=800, height=450),
            video("other", FILMS[1]),
            video("large", noisy(FILMS[0], 2)),
            video("same", FILMS[0]),
            video("mirror", mirrored(FILMS[0])),
        ]
        rows = found(videos)
        assert shown(rows) == [
            ("large", "small", "copy", "larger frames"),
            ("large", "part", "part", "longer"),
            ("large", "same", "copy", "named first"),
            ("large", "mirror", "copy", "named first; mirrored"),
        ]
        assert {row.group for row in rows} == {1}
        part = rows[1]
        assert (part.start, part.end, part.other_start, part.other_end) == (2.5, 7.5, 0, 5)

    def test_bars_make_no_video_larger(self) -> None:
        videos = [video("bars", FILMS[0], height=60, shown=0.74), video("plain", FILMS[0])]
        assert shown(found(videos)) == [("bars", "plain", "copy", "named first")]
        videos[0] = video("bars", FILMS[0], height=60, shown=0.6)
        assert shown(found(videos)) == [("plain", "bars", "copy", "larger frames")]

    def test_videos_that_each_have_more_are_no_copies(self) -> None:
        videos = [video("a", FILMS[0][:60]), video("b", FILMS[0][30:])]
        (row,) = found(videos)
        assert (row.kind, row.reason) == ("overlap", "each has more")
        assert (row.start, row.end, row.other_start, row.other_end) == (3.75, 7.5, 0, 3.75)

    def test_a_copy_is_named_once_and_under_a_video_that_holds_it(self) -> None:
        videos = [
            video("first half", FILMS[0][:48]),
            video("second half", FILMS[0][32:]),
            video("in the second", FILMS[0][50:]),
            video("in both", FILMS[0][33:47]),
        ]
        rows = found(videos, Settings(seconds=1))
        assert shown(rows) == [
            ("first half", "in both", "part", "longer"),
            ("second half", "in the second", "part", "longer"),
            ("first half", "second half", "overlap", "each has more"),
        ]

    def test_still_videos_are_told(self) -> None:
        (row,) = found([video("a", still(0, 60)), video("b", still(0, 40))])
        assert row.reason.endswith("; static")

    def test_groups_are_numbered_in_order(self) -> None:
        videos = [video(f"{seed} {copy}", FILMS[seed]) for copy in "ab" for seed in (0, 1, 2)]
        assert [(row.path, row.group) for row in found(videos)] == [("0 a", 1), ("1 a", 2), ("2 a", 3)]

    def test_between_two_sides(self) -> None:
        videos = [video(name, FILMS[seed]) for name, seed in (("a", 0), ("b", 1), ("b again", 1), ("c", 1), ("d", 2))]
        sides = np.array([False, False, False, True, True])
        rows = shared(videos, list(find_pairs(videos, Settings(), sides)), sides)
        assert shown(rows) == [("b", "c", "copy", "in both"), ("b again", "c", "copy", "in both")]

    def test_seconds_and_threshold(self) -> None:
        videos = [video("a", FILMS[0]), video("b", np.concatenate([FILMS[0][:32], FILMS[1]]))]
        assert len(found(videos, Settings(seconds=3.5))) == 1
        assert found(videos, Settings(seconds=5)) == []
        videos = [video("a", FILMS[0]), video("b", noisy(FILMS[0], 5))]
        assert len(found(videos)) == 1
        assert found(videos, Settings(threshold=0.95)) == []
