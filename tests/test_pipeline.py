"""From items to results: the right frames, in the right batches, in order, and what becomes of errors."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from clips import write_model, write_video
from numpy.typing import NDArray

from timesformer_cli import pipeline
from timesformer_cli.checkpoint import resolve, with_overrides
from timesformer_cli.errors import CheckpointError
from timesformer_cli.pipeline import classify, prepare, read_clips
from timesformer_cli.preprocess import make_views
from timesformer_cli.records import Failure, Frames, Item, Prediction
from timesformer_cli.runtime import open_scorer
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video import VideoReader, open_video


class FakeScorer:
    """Logits that tell views apart: their mean, in each of five classes times the class number."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(len(views))
        return views.mean(axis=(1, 2, 3, 4))[:, None] * np.arange(5, dtype=np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Three clips of four frames, two apart, and three crops."""
    plain = resolve(str(write_model(tmp_path_factory.mktemp("tiny"))))
    return with_overrides(plain, fields={"stride": 2, "fps": 10, "clips": 3, "crops": 3})


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Item:
    return Item(str(write_video(tmp_path_factory.mktemp("video") / "a.mp4", frames=30)))


def decode_all(item: Item) -> NDArray[np.uint8]:
    with av.open(item.path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class TestPrepare:
    @pytest.mark.parametrize("clips", [[[0, 2, 4, 6], [9, 11, 13, 29]], [[0, 1, 2, 3], [2, 3, 4, 4]], [[5, 5, 5, 5]]])
    def test_the_frames_of_each_clip_are_those_that_were_planned(self, video: Item, clips: list[list[int]]) -> None:
        everything = decode_all(video)
        with open_video(video.path) as reader:
            read = read_clips(reader, np.array(clips))
        for numbers, clip in zip(clips, read, strict=True):
            np.testing.assert_array_equal(clip.pixels, everything[numbers])
            np.testing.assert_allclose(clip.times, np.array(numbers) / 10)

    def test_large_videos_are_read_a_few_clips_at_a_time(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = prepare(video, checkpoint)
        sizes = []

        def counting(reader: VideoReader, clips: NDArray[np.int64]) -> list[Frames]:
            sizes.append(len(clips))
            return read_clips(reader, clips)

        monkeypatch.setattr(pipeline, "read_clips", counting)
        monkeypatch.setattr(pipeline, "MAX_FRAME_BYTES", 2 * 4 * 64 * 48 * 3)  # two clips of three
        parts = prepare(video, checkpoint)
        assert sizes == [2, 1]
        assert parts.labels == whole.labels
        np.testing.assert_array_equal(parts.pixels, whole.pixels)

    def test_views_and_their_labels(self, checkpoint: Checkpoint, video: Item) -> None:
        views = prepare(video, checkpoint)
        everything = decode_all(video)
        clips = [Frames(everything[numbers], numbers / 10) for numbers in views.window.clips]
        np.testing.assert_array_equal(views.pixels, make_views(clips, checkpoint.preprocess))
        assert [(view.clip, view.crop) for view in views.labels] == [
            (clip, crop) for clip in range(3) for crop in ("left", "center", "right")
        ]
        assert all(view.frames == tuple(views.window.clips[view.clip]) for view in views.labels)
        assert all(type(number) is int for view in views.labels for number in view.frames)

    def test_a_portrait_video_is_cropped_from_top_to_bottom(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        item = Item(str(write_video(tmp_path / "tall.mp4", width=48, height=64)))
        assert [view.crop for view in prepare(item, checkpoint).labels[:3]] == ["top", "center", "bottom"]


class TestClassify:
    @pytest.mark.parametrize(("batch", "batches"), [(1, [1] * 9), (4, [4, 4, 1]), (9, [9]), (100, [9])])
    def test_the_scorer_gets_at_most_a_batch(
        self, checkpoint: Checkpoint, video: Item, batch: int, batches: list[int]
    ) -> None:
        scorer = FakeScorer()
        (result,) = classify([video], scorer, checkpoint, batch=batch)
        assert scorer.batches == batches
        mean = prepare(video, checkpoint).pixels.mean()
        exponentials = np.exp(mean * np.arange(5))
        assert isinstance(result, Prediction)
        np.testing.assert_allclose(result.scores, exponentials / exponentials.sum(), rtol=1e-5)

    def test_the_real_network_agrees_at_every_batch_size(self, checkpoint: Checkpoint, video: Item) -> None:
        scorer = open_scorer(checkpoint, device="cpu")
        scores = []
        for batch in (1, 2, 9):
            (result,) = classify([video], scorer, checkpoint, batch=batch)
            assert isinstance(result, Prediction)
            scores.append(result.scores)
        np.testing.assert_allclose(scores[1:], [scores[0]] * 2, rtol=1e-4)
        assert np.ptp(scores[0]) > 0.01

    def test_results_are_in_order_and_failures_are_among_them(
        self, checkpoint: Checkpoint, video: Item, tmp_path: Path
    ) -> None:
        text = tmp_path / "text.mp4"
        text.write_text("not a video")
        items = [Item("missing.mp4"), video, Item(str(text)), video]
        results = list(classify(items, FakeScorer(), checkpoint, batch=4))
        assert [result.item for result in results] == items
        assert [result.kind if isinstance(result, Failure) else "ok" for result in results] == [
            "not_found",
            "ok",
            "decode",
            "ok",
        ]

    def test_results_come_before_the_next_item_is_asked_for(self, checkpoint: Checkpoint, video: Item) -> None:
        def items() -> Iterator[Item]:
            yield video
            raise AssertionError("asked for too early")

        assert isinstance(next(classify(items(), FakeScorer(), checkpoint, batch=4)), Prediction)

    def test_a_video_that_does_not_fit_into_memory(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(pipeline, "make_views", exhausted)
        (result,) = classify([video], FakeScorer(), checkpoint, batch=4)
        assert isinstance(result, Failure)
        assert result.kind == "too_large"

    def test_mistakes_in_the_program_are_not_swallowed(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(pipeline, "make_views", broken)
        with pytest.raises(ZeroDivisionError):
            list(classify([video], FakeScorer(), checkpoint, batch=4))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_scores_that_are_no_numbers_end_the_run(self, checkpoint: Checkpoint, video: Item, bad: float) -> None:
        def scorer(views: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full((len(views), 5), bad, np.float32)

        with pytest.raises(CheckpointError, match="scores are not numbers"):
            list(classify([video], scorer, checkpoint, batch=4))
