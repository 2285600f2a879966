"""From items to results: the right frames, in the right batches, in order, and what becomes of errors."""

import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from testing.clips import write_model, write_video
from testing.mutants import write_mutants
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, TimesformerError
from timesformer_cli.flow import Failure, Frames, Item, Prediction, Result, Views
from timesformer_cli.pipeline import prepare as pipeline
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.prepare import Prepared, prepare, prepare_all, prepare_spans, read_clips
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import label, score
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.runtimes.batching import BatchSize
from timesformer_cli.runtimes.pytorch import open_scorer
from timesformer_cli.specs import Checkpoint, Reading, Timeline
from timesformer_cli.video.hashes import frame_hashes, spread
from timesformer_cli.video.preprocess import make_views
from timesformer_cli.video.reader import VideoReader, open_video

SAMPLES = Path(__file__).parents[2] / "sample_videos"


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
        with open_video(video) as reader:
            read = list(read_clips(reader, np.array(clips)))
        for numbers, clip in zip(clips, read, strict=True):
            np.testing.assert_array_equal(clip.pixels, everything[numbers])
            np.testing.assert_allclose(clip.times, np.array(numbers) / 10)

    def test_large_videos_are_read_a_few_clips_at_a_time(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = prepare(video, checkpoint.recipe)
        counting = Counting()
        monkeypatch.setattr(pipeline, "open_video", counting.open)
        parts = prepare(video, checkpoint.recipe, Reading(max_frame_bytes=2 * 4 * 64 * 48 * 3))  # two clips of three
        assert [len(numbers) for numbers in counting.reads if numbers] == [8, 3]  # one is shared
        assert parts.labels == whole.labels
        np.testing.assert_array_equal(parts.pixels, whole.pixels)

    def test_views_and_their_labels(self, checkpoint: Checkpoint, video: Item) -> None:
        views = prepare(video, checkpoint.recipe)
        everything = decode_all(video)
        clips = [Frames(everything[numbers], numbers / 10) for numbers in views.span.clips]
        np.testing.assert_array_equal(views.pixels, make_views(clips, checkpoint.preprocess))
        assert [(view.clip, view.crop) for view in views.labels] == [
            (clip, crop) for clip in range(3) for crop in ("left", "center", "right")
        ]
        assert all(view.frames == tuple(views.span.clips[view.clip]) for view in views.labels)
        assert all(type(number) is int for view in views.labels for number in view.frames)

    def test_a_portrait_video_is_cropped_from_top_to_bottom(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        item = Item(str(write_video(tmp_path / "tall.mp4", width=48, height=64)))
        assert [view.crop for view in prepare(item, checkpoint.recipe).labels[:3]] == ["top", "center", "bottom"]

    def test_frames_are_hashed_as_they_are_decoded(self, checkpoint: Checkpoint, video: Item) -> None:
        (views,) = prepare_spans(video, checkpoint.recipe, hashes=True)
        numbers = spread(views.span.clips)
        assert views.hashes is not None
        np.testing.assert_array_equal(views.hashes, frame_hashes(decode_all(video)[numbers]))
        assert len(set(views.hashes.tolist())) > 2
        assert prepare(video, checkpoint.recipe).hashes is None

    def test_class_tokens_come_with_the_hashes(self, checkpoint: Checkpoint, video: Item) -> None:
        views = prepare(video, checkpoint.recipe)
        tokens = open_scorer(checkpoint, device="cpu", output="embedding")(views.pixels)
        for workers in (0, 1):
            run = RunOptions(device="cpu", workers=workers)
            with score_all([video], checkpoint, run, hashes=True, output="embedding") as scored:
                (found,) = scored
            assert not isinstance(found, Failure)
            np.testing.assert_allclose(found.logits, tokens, rtol=1e-5, atol=1e-6)
            assert found.hashes is not None
            np.testing.assert_array_equal(found.hashes, frame_hashes(decode_all(video)[spread(views.span.clips)]))


TIMELINE = Timeline(length=1.2, hop=0.5)


class TestTimelines:
    """Segments of 12 frames, every 5, of a video of 30."""

    def test_views_of_each_segment(self, checkpoint: Checkpoint, video: Item) -> None:
        everything = decode_all(video)
        spans = list(prepare_spans(video, checkpoint.recipe, timeline=TIMELINE))
        assert [views.span.start for views in spans] == [0, 0.5, 1, 1.5, 2]
        for views in spans:
            clips = [Frames(everything[numbers], numbers / 10) for numbers in views.span.clips]
            np.testing.assert_array_equal(views.pixels, make_views(clips, checkpoint.preprocess))
            assert views.labels[3].frames == tuple(views.span.clips[1])

    @pytest.mark.parametrize("most", [12, 20, 1000])
    def test_frames_are_decoded_once_however_many_are_held(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch, most: int
    ) -> None:
        whole = list(prepare_spans(video, checkpoint.recipe, timeline=TIMELINE))
        counting = Counting()
        monkeypatch.setattr(pipeline, "open_video", counting.open)
        reading = Reading(max_frame_bytes=most * 64 * 48 * 3)
        parts = list(prepare_spans(video, checkpoint.recipe, reading, timeline=TIMELINE))
        read = [number for numbers in counting.reads for number in numbers]
        assert len(read) == len(set(read)) > 20
        assert max(map(len, counting.reads)) <= max(most, 4)
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)

    def test_a_segment_for_each(self, checkpoint: Checkpoint, video: Item) -> None:
        spans = list(prepare_spans(video, checkpoint.recipe, timeline=TIMELINE))
        assert [views.more for views in spans] == [True] * 4 + [False]
        (result,) = label(score(spans, FakeScorer(), 4), checkpoint)
        assert isinstance(result, Prediction)
        for views, segment in zip(spans, result.segments, strict=True):
            (alone,) = label(score([replace(views, more=False)], FakeScorer()), checkpoint)
            assert (segment.start, segment.end, segment.views) == (views.span.start, views.span.end, views.labels)
            np.testing.assert_allclose(segment.scores, scores(alone), rtol=1e-5)

    def test_workers_yield_the_same(self, checkpoint: Checkpoint, video: Item) -> None:
        asked: dict[str, Any] = {"timeline": TIMELINE, "hashes": True}
        here = list(prepare_spans(video, checkpoint.recipe, **asked))
        with prepare_all([video, video], checkpoint.recipe, **asked, workers=2, limits=Limits()) as prepared:
            there = [views for views in prepared if isinstance(views, Views)]
        assert len(there) == 2 * len(here)
        for one, other in zip(there, here * 2, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.hashes is not None
            np.testing.assert_array_equal(one.hashes, other.hashes)
            assert (one.span.start, one.more) == (other.span.start, other.more)

    def test_a_video_that_fails_on_the_way_is_a_failure_alone(self, checkpoint: Checkpoint, video: Item) -> None:
        spans = list(prepare_spans(video, checkpoint.recipe, timeline=TIMELINE))
        failure = Failure(video, "decode", "damaged")
        found = list(label(score([*spans[:2], failure, *spans], FakeScorer(), 3), checkpoint))
        assert found[0] is failure
        assert isinstance(found[1], Prediction)
        assert len(found[1].segments) == len(spans)


def scores(result: Result) -> NDArray[np.float32]:
    """Those of a video as a whole."""
    assert isinstance(result, Prediction)
    (segment,) = result.segments
    return segment.scores


class Counting:
    """Opens videos, and notes which frames are read at a time."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []

    @contextmanager
    def open(self, item: Item, reading: Reading) -> Iterator[VideoReader]:
        with open_video(item, reading) as reader:
            counting = self

            class Reader:
                info = reader.info

                def read(self, frame_numbers: Sequence[int]) -> Frames:
                    counting.reads.append(list(frame_numbers))
                    return reader.read(frame_numbers)

            yield Reader()


class TestClassify:
    @pytest.mark.parametrize(("batch", "batches"), [(1, [1] * 9), (4, [4, 4, 1]), (9, [9]), (100, [9])])
    def test_the_scorer_gets_at_most_a_batch(
        self, checkpoint: Checkpoint, video: Item, batch: int, batches: list[int]
    ) -> None:
        scorer = FakeScorer()
        views = prepare(video, checkpoint.recipe)
        (result,) = label(score([views], scorer, batch), checkpoint)
        assert scorer.batches == batches
        exponentials = np.exp(views.pixels.mean() * np.arange(5))
        np.testing.assert_allclose(scores(result), exponentials / exponentials.sum(), rtol=1e-5)
        assert isinstance(result, Prediction)
        np.testing.assert_allclose(result.segments[0].logits, views.pixels.mean() * np.arange(5), rtol=1e-5)

    def test_the_real_network_agrees_at_every_batch_size(self, checkpoint: Checkpoint, video: Item) -> None:
        scorer = open_scorer(checkpoint, device="cpu")
        found = []
        for batch in (1, 2, 9):
            (result,) = label(score([prepare(video, checkpoint.recipe)], scorer, batch), checkpoint)
            found.append(scores(result))
        np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-4)
        assert np.ptp(found[0]) > 0.01

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_scores_that_are_no_numbers_end_the_run(self, checkpoint: Checkpoint, video: Item, bad: float) -> None:
        def scorer(views: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full((len(views), 5), bad, np.float32)

        with pytest.raises(CheckpointError, match="scores are not numbers"):
            list(label(score([prepare(video, checkpoint.recipe)], scorer, 4), checkpoint))


class TestBatchesOfSeveralVideos:
    """Videos of 9, 1 and 4 views, cut out of one of nine, among them some that failed."""

    @pytest.fixture
    def stream(self, checkpoint: Checkpoint, video: Item) -> list[Prepared]:
        whole = prepare(video, checkpoint.recipe)
        failure = Failure(Item("missing.mp4"), "not_found", "no such file")
        cuts = [slice(9), slice(3, 4), slice(2, 6), slice(8, 9)]
        views = [replace(whole, labels=whole.labels[cut], pixels=whole.pixels[cut]) for cut in cuts]
        return [failure, views[0], views[1], failure, failure, views[2], views[3], failure]

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 15, 64])
    def test_results_are_those_of_each_video_alone_and_in_order(
        self, checkpoint: Checkpoint, stream: list[Prepared], size: int
    ) -> None:
        scorer = open_scorer(checkpoint, device="cpu")
        together = list(label(score(stream, scorer, size), checkpoint))
        for prepared, result in zip(stream, together, strict=True):
            if isinstance(prepared, Failure):
                assert result is prepared
                continue
            (alone,) = label(score([prepared], scorer, 1), checkpoint)
            assert isinstance(result, Prediction)
            assert result.segments[0].views == prepared.labels
            np.testing.assert_allclose(scores(result), scores(alone), rtol=1e-4)

    def test_batches_are_full_but_for_the_last(self, checkpoint: Checkpoint, stream: list[Prepared]) -> None:
        scorer = FakeScorer()
        list(label(score(stream, scorer, 4), checkpoint))
        assert scorer.batches == [4, 4, 4, 3]

    def test_nothing_waits_for_a_video_that_is_not_there(self, checkpoint: Checkpoint, stream: list[Prepared]) -> None:
        _, nine, one, *_ = stream
        scorer = FakeScorer()

        def coming() -> Iterator[Prepared | None]:
            yield nine
            yield one
            yield None
            assert scorer.batches == [8, 2]
            yield None
            assert scorer.batches == [8, 2]
            yield one

        results = label(score(coming(), scorer, 8), checkpoint)
        assert isinstance(next(results), Prediction)
        assert isinstance(next(results), Prediction)
        assert len(list(results)) == 1
        assert scorer.batches == [8, 2, 1]

    def test_a_result_comes_with_the_last_of_its_views(self, checkpoint: Checkpoint, stream: list[Prepared]) -> None:
        failure, nine, *_ = stream

        def coming() -> Iterator[Prepared]:
            yield failure
            yield nine
            raise AssertionError("asked for too early")

        results = label(score(coming(), FakeScorer(), 3), checkpoint)
        assert next(results) is failure
        assert isinstance(next(results), Prediction)

    def test_sizes_may_change_on_the_way(self, checkpoint: Checkpoint, stream: list[Prepared]) -> None:
        scorer = FakeScorer()

        def small(views: NDArray[np.float32]) -> NDArray[np.float32]:
            if len(views) > 3:
                raise MemoryError
            return scorer(views)

        expected = [scores(r) for r in label(score(stream, FakeScorer()), checkpoint) if isinstance(r, Prediction)]
        found = [scores(r) for r in label(score(stream, small, 8), checkpoint) if isinstance(r, Prediction)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert scorer.batches == [2] * 7 + [1]


def results(items: Iterable[Item], checkpoint: Checkpoint, workers: int, **limits: Any) -> list[Result]:
    with prepare_all(items, checkpoint.recipe, workers=workers, limits=Limits(**limits)) as prepared:
        return list(label(score(prepared, FakeScorer(), 4), checkpoint))


def test_a_batch_may_be_kept_to_one_video(checkpoint: Checkpoint, video: Item) -> None:
    scorer = FakeScorer()
    views = prepare(video, checkpoint.recipe)
    found = list(label(score([views, None, views], scorer, BatchSize(4, spans=False)), checkpoint))
    assert len(found) == 2
    assert scorer.batches == [4, 4, 1, 4, 4, 1]


class TestPrepareAll:
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_results_are_in_order_and_failures_are_among_them(
        self, checkpoint: Checkpoint, video: Item, tmp_path: Path, workers: int
    ) -> None:
        text = tmp_path / "text.mp4"
        text.write_text("not a video")
        items = [Item("missing.mp4"), video, Item(str(text)), video]
        found = results(items, checkpoint, workers)
        assert [result.item for result in found] == items
        assert [result.kind if isinstance(result, Failure) else "ok" for result in found] == [
            "not_found",
            "ok",
            "decode",
            "ok",
        ]

    def test_workers_prepare_what_is_prepared_here(self, checkpoint: Checkpoint, video: Item) -> None:
        here = prepare(video, checkpoint.recipe)
        with prepare_all([video], checkpoint.recipe, workers=1, limits=Limits()) as prepared:
            (there,) = (views for views in prepared if views is not None)
        assert isinstance(there, Views)
        np.testing.assert_array_equal(there.pixels, here.pixels)
        np.testing.assert_array_equal(there.info.times, here.info.times)
        np.testing.assert_array_equal(there.span.clips, here.span.clips)
        assert (there.item, there.labels, there.info.codec) == (here.item, here.labels, here.info.codec)

    def test_without_workers_results_come_before_the_next_item_is_asked_for(
        self, checkpoint: Checkpoint, video: Item
    ) -> None:
        def items() -> Iterator[Item]:
            yield video
            raise AssertionError("asked for too early")

        with prepare_all(items(), checkpoint.recipe, workers=0, limits=Limits()) as prepared:
            assert isinstance(next(prepared), Views)
            assert next(prepared) is None  # so that it is scored before the next one is read

    def test_a_video_that_does_not_fit_into_memory(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(pipeline, "make_views", exhausted)
        (result,) = results([video], checkpoint, workers=0)
        assert isinstance(result, Failure)
        assert result.kind == "too_large"

    @pytest.mark.parametrize("error", [ZeroDivisionError("a mistake"), UnicodeDecodeError("utf-8", b"x", 0, 1, "y")])
    def test_a_mistake_of_ours_costs_one_video_too(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(pipeline, "make_views", broken)
        (result,) = results([video], checkpoint, workers=0)
        assert isinstance(result, Failure)
        assert result.kind == "crash"
        assert type(error).__name__ in result.message

    def test_a_decoder_that_is_not_there_ends_the_run(
        self, checkpoint: Checkpoint, video: Item, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(*_: object) -> None:
            raise TimesformerError("not installed")

        monkeypatch.setattr(pipeline, "open_video", missing)
        with pytest.raises(TimesformerError, match="not installed"):
            results([video], checkpoint, workers=0)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers")
    def test_a_video_may_take_only_so_long(self, checkpoint: Checkpoint, video: Item) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            slow = Item(f"http://127.0.0.1:{silent.getsockname()[1]}/slow.mp4")
            first, second = results([slow, video], checkpoint, workers=1, timeout=1.0)
        assert isinstance(first, Failure)
        assert first.kind == "timeout"
        assert isinstance(second, Prediction)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_videos_end_in_a_record_each(checkpoint: Checkpoint, tmp_path: Path, seed: int) -> None:
    """The same by the thousand is in benchmarks/mutants.py."""
    clips = [write_video(tmp_path / "a.mp4", frames=30), *SAMPLES.glob("roll_*")]
    mutants = write_mutants(clips, tmp_path, 36, seed)
    found = results([Item(str(path)) for path in mutants], checkpoint, 2, timeout=20)
    assert [result.item.path for result in found] == [str(path) for path in mutants]
    kinds = {result.kind if isinstance(result, Failure) else "ok" for result in found}
    assert {"ok", "decode"} <= kinds
    assert "crash" not in kinds
