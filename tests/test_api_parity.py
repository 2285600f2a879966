"""Labels of whole videos against transformers' pipeline with an image processor, which reads them by itself."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from transformers.pipelines import video_classification

from testing.clips import LABELS, tiny_config, write_video
from testing.parity import counterpart, transformers
from testing.reference import relative_difference
from timesformer_cli import TimesformerForVideoClassification, embed, label
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.video.reader import open_video
from timesformer_cli.video.sampling import plan

SAMPLES = Path(__file__).parent.parent / "sample_videos"
VIDEOS = ["made.mp4", "pan_left.mp4", "roll_clockwise.mkv", "zoom_in.webm"]
RATES = [1, 3, 6]
TOLERANCE = 6e-7  # of a probability


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose answers depend on its frames, as transformers saves one, and videos."""
    folder = tmp_path_factory.mktemp("parity")
    torch.manual_seed(0)
    network = TimesformerForVideoClassification(tiny_config(LABELS, num_hidden_layers=2, initializer_range=0.4))
    with torch.no_grad():
        network.timesformer.embeddings.time_embeddings.normal_()
    counterpart(network).save_pretrained(folder / "model")
    processor().save_pretrained(folder / "model")
    write_video(folder / "made.mp4", frames=40, width=96, height=72, rate=25)
    write_video(folder / "short.mp4", frames=3)
    for name in VIDEOS[1:]:
        (folder / name).symlink_to(SAMPLES / name)
    return folder


def processor() -> Any:
    """What version 4 makes of a TimeSformer's `preprocessor_config.json`."""
    return transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.45] * 3, image_std=[0.225] * 3
    )


def network_of(folder: Path) -> Any:
    return transformers.TimesformerForVideoClassification.from_pretrained(folder / "model").eval()


def fed(folder: Path, rate: int) -> Checkpoint:
    return with_overrides(resolve(str(folder / "model")), recipe="transformers-4", fields={"stride": rate})


def probabilities(video: Path, checkpoint: Checkpoint) -> dict[str, float]:
    return {found.label: found.score for found in label(video, checkpoint, top_k=len(LABELS))}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", VIDEOS)
def test_transformers_4_is_its_pipeline(folder: Path, name: str, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[int]] = []
    read = video_classification.read_video_pyav

    def watched(container: Any, indices: Any) -> Any:
        taken.append(indices.tolist())
        return read(container, indices)

    monkeypatch.setattr(video_classification, "read_video_pyav", watched)
    pipeline = transformers.pipeline("video-classification", model=network_of(folder), image_processor=processor())
    theirs = pipeline(str(folder / name), frame_sampling_rate=rate, top_k=len(LABELS))
    expected = {row["label"]: row["score"] for row in theirs}

    checkpoint = fed(folder, rate)
    with open_video(Item(str(folder / name)), Reading()) as reader:
        (span,) = plan(reader.info, checkpoint.sampling)
    assert span.clips.tolist() == taken
    found = probabilities(folder / name, checkpoint)
    assert found == pytest.approx(expected, abs=TOLERANCE)
    by_fields = {"method": "window", "fps": None, "stride": rate}
    other = with_overrides(resolve(str(folder / "model")), recipe="transformers", fields=by_fields)
    assert probabilities(folder / name, other) == found


def test_several_labels_get_sigmoids(folder: Path) -> None:
    network = network_of(folder)
    network.config.problem_type = "multi_label_classification"
    network.save_pretrained(folder / "several")
    pipeline = transformers.pipeline("video-classification", model=network, image_processor=processor())
    theirs = pipeline(str(folder / "made.mp4"), top_k=len(LABELS), function_to_apply="sigmoid")
    checkpoint = with_overrides(resolve(str(folder / "several")), recipe="transformers-4")
    found = probabilities(folder / "made.mp4", checkpoint)
    assert found == pytest.approx({row["label"]: row["score"] for row in theirs}, abs=TOLERANCE)
    assert sum(found.values()) > 1.5


@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "flipping_pancake.mkv", "ucf_apply_eye_makeup.avi"])
def test_transformers_4_is_its_pipeline_on_real_clips(folder: Path, shared_videos: Path, name: str) -> None:
    pipeline = transformers.pipeline("video-classification", model=network_of(folder), image_processor=processor())
    for rate in RATES:
        theirs = pipeline(str(shared_videos / name), frame_sampling_rate=rate, top_k=len(LABELS))
        expected = {row["label"]: row["score"] for row in theirs}
        assert probabilities(shared_videos / name, fed(folder, rate)) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("name", VIDEOS)
def test_the_rate_changes_the_answer(folder: Path, name: str) -> None:
    """So that the tolerance above means something."""
    first, second = (probabilities(folder / name, fed(folder, rate)) for rate in (1, 6))
    assert max(abs(first[label] - second[label]) for label in LABELS) > 100 * TOLERANCE


def test_a_video_that_ends_early_shows_its_last_frame_again(folder: Path) -> None:
    """The pipeline gives a network for 4 frames only 3, which it mixes up: its layers go by its config."""
    network = network_of(folder)
    pipeline = transformers.pipeline("video-classification", model=network, image_processor=processor())
    assert pipeline.preprocess(str(folder / "short.mp4"))["pixel_values"].shape[:2] == (1, 3)
    with av.open(str(folder / "short.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = [frames[min(number, 2)] for number in np.linspace(0, 3, 4, dtype=np.int64)]
    with torch.inference_mode():
        logits = network(**processor()(shown, return_tensors="pt")).logits[0]
    expected = dict(zip(LABELS, logits.softmax(0).tolist(), strict=True))
    assert probabilities(folder / "short.mp4", fed(folder, 1)) == pytest.approx(expected, abs=TOLERANCE)


def test_vectors_are_its_class_tokens(folder: Path) -> None:
    checkpoint = resolve(str(folder / "model"))
    views = prepare(Item(str(folder / "made.mp4")), checkpoint.recipe).pixels
    with torch.inference_mode():
        tokens = network_of(folder).timesformer(torch.from_numpy(views)).last_hidden_state[:, 0]
    assert relative_difference(embed(folder / "made.mp4", checkpoint), tokens.mean(0)) < 2e-5
    assert relative_difference(embed(folder / "short.mp4", checkpoint), tokens.mean(0)) > 1e-2
