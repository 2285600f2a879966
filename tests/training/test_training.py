"""The training of the bundled model: what its labels mean, and that a stopped run goes on as if it had not."""

from pathlib import Path

import numpy as np
import pytest
import scenes
import start
import torch
import train
from scenes import LABELS, LEVER, Motion, Scene, motion_of
from textures import TRAIN_FAMILIES, procedural

from timesformer_cli import TimesformerForVideoClassification


@pytest.fixture(scope="module")
def still() -> torch.Tensor:
    leaves = next(family for family in TRAIN_FAMILIES if family.__name__ == "leaves")
    return torch.from_numpy(procedural(leaves, np.random.default_rng(0)).astype(np.float32))[None]


def scene(still: torch.Tensor, motion: Motion) -> Scene:
    return Scene(picture=still, motion=motion, duration=1.0, turned=0.4)


# Where the picture goes, in the film maker's words: x to the right, y down, seen at the right edge of the frame.
@pytest.mark.parametrize(
    ("label", "everywhere", "at_right_edge"),
    [
        ("pan left", (1, 0), (1, 0)),
        ("pan right", (-1, 0), (-1, 0)),
        ("tilt up", (0, 1), (0, 1)),
        ("tilt down", (0, -1), (0, -1)),
        ("zoom in", (0, 0), (1, 0)),
        ("zoom out", (0, 0), (-1, 0)),
        ("roll clockwise", (0, 0), (0, -1)),
        ("roll counter-clockwise", (0, 0), (0, 1)),
    ],
)
def test_labels_are_the_film_makers(
    label: str, everywhere: tuple[int, int], at_right_edge: tuple[int, int], still: torch.Tensor
) -> None:
    motion = motion_of(label, 0.2)
    assert motion.label == label
    flow = scene(still, motion).flow(np.linspace(0, 1, 8), 8)
    mean, right = flow.mean((0, 1, 2)) * 7, flow[:, 3:5, -1].mean((0, 1)) * 7
    np.testing.assert_allclose(mean, np.multiply(everywhere, 0.2), atol=0.03)
    assert np.sign(np.round(right, 1)).tolist() == list(at_right_edge)


@pytest.mark.parametrize("label", LABELS)
def test_pictures_move_as_the_flow_says(label: str, still: torch.Tensor) -> None:
    """A patch around each middle of a grid is found again where the flow points, and better than where it was."""
    times, side, cells = np.array([0.0, 0.12]), 240, 5
    clip = scene(still, motion_of(label, 0.25))
    first, second = clip.render(times, side, side)[..., 0].astype(np.float64)
    flow = clip.flow(times, cells)[0] * side
    kept, found = [], []
    for row, column in np.ndindex(cells, cells):
        y, x = (round((place + 0.5) * side / cells) for place in (row, column))
        dx, dy = np.round(flow[row, column]).astype(int)
        patch, box = first[y - 8 : y + 8, x - 8 : x + 8], (slice(y - 8, y + 8), slice(x - 8, x + 8))
        moved = second[y + dy - 8 : y + dy + 8, x + dx - 8 : x + dx + 8]
        if moved.shape == patch.shape:
            kept.append(np.abs(second[box] - patch).mean())
            found.append(np.abs(moved - patch).mean())
    assert np.mean(found) < (1 if label == "static" else 0.5 * np.mean(kept))


def test_targets_are_sure_of_clear_motions_and_unsure_of_others() -> None:
    assert motion_of("pan left", 0.3).shares()[LABELS.index("pan left")] > 0.99
    assert Motion().shares()[0] == 1
    both = Motion(tilt=0.3, zoom=0.3 / LEVER).shares()
    assert both[LABELS.index("tilt up")] == pytest.approx(0.5, abs=1e-3) == both[LABELS.index("zoom in")]
    tiny = motion_of("roll clockwise", scenes.STILL).shares()
    assert tiny[0] == pytest.approx(0.5, abs=1e-6) == tiny[LABELS.index("roll clockwise")]


def test_objects_in_front_hide_the_still_and_go_their_own_way(still: torch.Tensor) -> None:
    sprite = scenes.Sprite(
        torch.stack([torch.full((8, 8), 255.0), torch.ones(8, 8)]), (-0.4, 0.0), (0.8, 0.0), 0, 0.2, 0
    )
    clip = Scene(picture=still * 0, motion=Motion(), duration=1.0, sprites=(sprite,))
    frames = clip.render(np.array([0.0, 0.5, 1.0]), 50, 50)[..., 0]
    assert [int(np.round((frame > 128).any(0).nonzero()[0].mean())) for frame in frames] == [4, 24, 44]


def test_starting_heads_look_a_few_frames_away() -> None:
    model = TimesformerForVideoClassification(train.make_config("divided_space_time")).eval()
    torch.manual_seed(0)
    start.start_weights(model)
    embeddings = torch.zeros(1, 8, model.config.hidden_size)
    embeddings[0] = model.timesformer.embeddings.time_embeddings[0]
    layer = model.timesformer.encoder.layer[0]
    _, weights = layer.temporal_attention(layer.temporal_layernorm(embeddings), True)
    for head, shift in enumerate(start.SHIFTS[:4]):
        for frame in range(8):
            if 0 <= frame + shift < 8:
                assert int(weights[0, head, frame].argmax()) == frame + shift


@pytest.mark.parametrize("attention", ["divided_space_time", "space_only"])
def test_a_stopped_run_goes_on_as_if_it_had_not(
    attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [procedural(family, np.random.default_rng(1)) for family in TRAIN_FAMILIES]
    monkeypatch.setattr(train, "library", lambda *_, **__: pictures)
    monkeypatch.setattr(train, "compress", lambda pixels, crf: pixels)  # x264 does not always decide alike
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    options = {"attention": attention, "steps": 4, "batch": 2, "rate": 1e-3, "seed": 3}

    def weights(name: str) -> dict[str, torch.Tensor]:
        train.train(tmp_path / name, **options)
        state = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        assert state["step"] == 4
        return state["model"]

    whole = weights("whole")
    with monkeypatch.context() as patch:
        rate = train.learning_rate

        def stop(step: int, *others: float) -> float:
            if step == 3:
                raise KeyboardInterrupt
            return rate(step, *others)

        patch.setattr(train, "learning_rate", stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(tmp_path / "stopped", **options)
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["step"] == 2
    stopped = weights("stopped")
    for name, tensor in whole.items():
        torch.testing.assert_close(stopped[name], tensor, rtol=0, atol=1e-5)
