"""Whether to mirror videos: what names decide, what is measured, and what the line says."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Failure, Frames, Item
from timesformer_cli.jobs.finetune.augment import Flip
from timesformer_cli.jobs.finetune.features import Features
from timesformer_cli.jobs.finetune.flips import Answers, Decision, answers_of, compare, decide
from timesformer_cli.jobs.finetune.head import Head, fit
from timesformer_cli.runtimes.pytorch import open_scorer
from timesformer_cli.video.preprocess import make_views, mirrored

NAMES = ("A", "B", "C")


def answers(counts: Sequence[tuple[int, int, int]], classes: int = 3) -> Answers:
    """For each triple, so many videos, of which some are right as they are, and some mirrored: the first ones."""
    upright, after, targets = [], [], []
    for number, (videos, right, still) in enumerate(counts):
        for place in range(videos):
            for rows, count in ((upright, right), (after, still)):
                row = np.zeros(classes, np.float32)
                row[number if place < count else (number + 1) % classes] = 1
                rows.append(row)
            targets.append(number)
    return Answers(np.stack(upright), np.stack(after), np.array(targets, np.int64))


def unasked() -> Answers:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize(
    ("counts", "flip", "reason"),
    [
        # videos of each class, right as they are, right mirrored
        ([(20, 18, 18)] * 3, True, "no class loses more than 10 points"),
        ([(20, 18, 19), (20, 18, 17), (20, 18, 18)], True, "no class loses more than 10 points"),
        ([(20, 19, 0), (20, 19, 0), (20, 19, 19)], False, "'A' (and 1 more) falls from 95% to 0% of its 20 videos"),
        ([(20, 19, 18), (20, 19, 12), (20, 19, 19)], False, "'B' falls from 95% to 60% of its 20 videos"),
        # More than 10 points, but within two standard errors.
        ([(10, 9, 7), (10, 9, 9), (10, 9, 9)], True, "no class loses"),
        # Far beyond two standard errors, but no more than 10 points; so is the whole.
        ([(1000, 900, 830)] * 3, False, "a loss of more than 2 standard errors of 0.5 points"),
        ([(1000, 900, 850), (1000, 900, 925), (1000, 900, 925)], True, "no class loses"),
        # A model that guesses is as right on mirror images, which tells nothing.
        (
            [(30, 10, 10)] * 3,
            False,
            "no better than chance on 90 held-out videos (33.3% of a class right, 33.3% by chance)",
        ),
        ([(90, 90, 90), (5, 0, 0), (5, 0, 0)], False, "no better than chance"),
        ([(1, 1, 0), (1, 1, 1), (1, 1, 1)], False, "'A' falls from 100% to 0% of its 1 video"),
    ],
)
def test_flips_are_safe_only_if_mirrored_videos_are_as_right(
    counts: list[tuple[int, int, int]], flip: bool, reason: str
) -> None:
    found = decide("auto", NAMES, lambda: answers(counts))
    assert found.flip is flip
    assert found.reason.startswith(f"flips: {'on' if flip else 'off'}; ")
    assert reason in found.reason
    assert found.measured is not None
    assert found.measured.videos == sum(videos for videos, _, _ in counts)
    assert found.exchange == (0, 1, 2)


def test_the_numbers_are_those_of_the_videos() -> None:
    found = compare(*answers([(10, 10, 4), (30, 24, 24)], classes=2), np.arange(2))
    assert (found.upright, found.mirrored) == (0.85, 0.7)
    losses = np.array([0] * 4 + [1] * 6 + [0] * 30)
    assert found.error == pytest.approx(losses.std(ddof=1) / np.sqrt(40))
    assert found.balanced == pytest.approx(0.9)
    assert found.chance == 0.5
    assert [(each.number, each.videos, each.upright, each.mirrored) for each in found.lost] == [(0, 10, 1.0, 0.4)]


def test_with_several_labels_each_counts() -> None:
    targets = np.array([[True, True, False], [False, True, False], [False, False, True], [False, False, False]])
    upright = np.array([[3, 2, 1], [0, 1, 0], [1, 0, 2], [9, 9, 9]], np.float32)
    after = np.array([[3, 1, 2], [0, 1, 0], [1, 0, 2], [0, 0, 0]], np.float32)
    found = compare(upright, after, targets, np.arange(3))
    assert found.videos == 3  # one has no label
    assert (found.upright, found.mirrored) == (1.0, pytest.approx((0.5 + 1 + 1) / 3))
    assert found.chance == pytest.approx((2 / 3 + (2 / 3 + 1 / 3) / 2 + 1 / 3) / 3)
    assert found.lost == ()


@pytest.mark.parametrize(
    ("asked", "names", "flip", "reason"),
    [
        ("auto", ("turn left", "turn right", "wave"), False, "flips: off; names of classes say a side or a turn: "
         "'turn left' ('left'), 'turn right' ('right')"),
        ("auto", ("knee l", "knee r", "wave"), False, "flips: off; names of classes say a side or a turn: "
         "'knee l' and 'knee r'"),
        ("on", NAMES, True, "flips: on, as asked"),
        ("on", ("links", "B", "C"), True, "flips: on, as asked, though classes say a side or a turn: "
         "'links' ('links')"),
        ("off", NAMES, False, "flips: off, as asked"),
        ("swap", NAMES, False, "flips: off; no two names of classes differ only by a side or a turn, so there are no "
         "labels to exchange"),
        ("swap", ("pan left", "pan right", "look left"), False, "flips: off; no class is the mirror image of "
         "'look left'"),
    ],
)  # fmt: skip
def test_names_and_the_user_decide_without_a_measurement(
    asked: Flip, names: tuple[str, ...], flip: bool, reason: str
) -> None:
    assert decide(asked, names, unasked) == Decision(asked=asked, flip=flip, exchange=(0, 1, 2), reason=reason)


def test_a_swap_exchanges_labels_if_the_measurement_agrees() -> None:
    names = ("pan left", "pan right", "still")
    upright, _, targets = answers([(20, 19, 0), (20, 19, 0), (20, 19, 0)])
    swapped = upright[:, [1, 0, 2]]
    found = decide("swap", names, lambda: Answers(upright, swapped, targets))
    assert (found.flip, found.exchange) == (True, (1, 0, 2))
    assert found.reason.startswith(
        "flips: on, with 1 pair of labels exchanged; of 60 held-out videos, the probe has 95.0%"
    )
    record = json.loads(json.dumps(found.to_dict()))
    assert record["pairs"] == [[0, 1]]
    assert record["measured"]["mirrored"] == pytest.approx(0.95)
    # Names that say a side, of videos that do not: their mirror images keep their label.
    kept = decide("swap", names, lambda: Answers(upright, upright, targets))
    assert (kept.flip, kept.exchange) == (False, (0, 1, 2))
    assert "'pan right' (and 1 more) falls from 95% to 0% of its 20 videos" in kept.reason


def test_without_videos_nothing_is_mirrored() -> None:
    none = np.empty((0, 3), np.float32)
    found = decide("auto", NAMES, lambda: Answers(none, none, np.empty(0, np.int64)))
    assert (found.flip, found.measured) == (False, None)
    assert found.reason == "flips: off; no held-out video could be read again to measure them"


@pytest.mark.parametrize("how", ["held out", "crossed"])
def test_answers_are_those_of_heads_that_were_not_fitted_to_the_videos(how: str) -> None:
    rng = np.random.default_rng(0)
    features = [Features(rng.standard_normal((views, 5), np.float32), np.empty(0, np.uint64)) for views in (1, 3, 2, 1)]
    heads = [Head(rng.standard_normal((3, 5), np.float32), np.zeros(3, np.float32)) for _ in range(3)]
    measured = np.array([7, 2, 4, 5])
    videos: Any = SimpleNamespace(names=NAMES, targets=np.arange(9) % 3)
    division: Any = SimpleNamespace(how=how, measured=measured, folds=np.array([0, 1, 1, 0]))
    upright = rng.standard_normal((4, 3), np.float32)
    probe: Any = SimpleNamespace(head=heads[2], choice=SimpleNamespace(heads=heads[:2]), logits=upright)
    failed = Failure(Item("gone.mp4"), "not_found", "no such file")
    found = answers_of(videos, division, probe, [features[0], failed, *features[2:]])
    np.testing.assert_array_equal(found.upright, upright[[0, 2, 3]])
    np.testing.assert_array_equal(found.targets, [1, 1, 2])
    used = [heads[0], heads[1], heads[0]] if how == "crossed" else [heads[2]] * 3
    kept = [features[0], *features[2:]]
    expected = [head.logits(each.rows).mean(axis=0) for head, each in zip(used, kept, strict=True)]
    np.testing.assert_allclose(found.mirrored, expected, rtol=1e-5, atol=1e-6)
    assert len(answers_of(videos, division, probe, [failed] * 4).targets) == 0


def pan(rng: np.random.Generator, step: int) -> Frames:
    """A camera over a wall of random tiles: 8 frames of 96 x 96, `step` columns apart."""
    wall = np.kron(rng.integers(0, 256, (24, 60)), np.ones((8, 8))).astype(np.uint8)
    starts = 150 + step * (np.arange(8) - 4)
    frames = np.stack([wall[48:144, start : start + 96] for start in starts])
    return Frames(np.repeat(frames[..., None], 3, axis=-1), np.arange(8) / 8)


def test_pans_called_a_and_b_are_found_by_measurement() -> None:
    """Names without a side, of videos with one: the features of a real network tell."""
    checkpoint = resolve("camera-motion")
    rng = np.random.default_rng(0)
    scorer = open_scorer(checkpoint, device="cpu", output="embedding")
    targets = np.arange(24) % 2
    views = make_views([pan(rng, 12 if target else -12) for target in targets], checkpoint.recipe.preprocess)
    upright, after = scorer(views), scorer(np.ascontiguousarray(mirrored(views)))
    head = fit(upright[:12], np.arange(12), targets[:12], classes=2, c=0.1)
    measured = Answers(head.logits(upright[12:]), head.logits(after[12:]), targets[12:])
    found = decide("auto", ("A", "B"), lambda: measured)
    assert not found.flip
    assert found.measured is not None
    assert found.measured.upright >= 0.95
    assert found.measured.mirrored <= 0.05
    assert "(and 1 more) falls from 100% to 0% of its 6 videos" in found.reason
    # With the exchange that such names would tell, mirror images are as right.
    assert decide("swap", ("pan left", "pan right"), lambda: measured).flip
