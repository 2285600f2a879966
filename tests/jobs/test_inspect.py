"""What a video is, and what a model would see of it: facts, warnings, records and tensors."""

import io
import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from testing.clips import write_audio
from testing.stamped import HEIGHT, LONG_GOP, SHORT_GOP, WIDTH, read_stamps, stamp, write_video
from timesformer_cli.errors import OutputError
from timesformer_cli.files import replacing
from timesformer_cli.flow import Item, Prediction, Segment, Span, VideoInfo, Views
from timesformer_cli.jobs import inspect as inspection
from timesformer_cli.jobs.inspect import Inspection, examine, examine_all, notes, save_tensors, to_record, warnings
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.results.record import to_record as predict_record
from timesformer_cli.specs import Checkpoint, PreprocessSpec, Reading, Recipe, SamplingSpec, TimesformerConfig
from timesformer_cli.video.facts import (
    AudioStreamFacts,
    Facts,
    KeyFrames,
    PacketFacts,
    PictureFacts,
    VideoStreamFacts,
    read_facts,
)
from timesformer_cli.video.render import picture

READING = Reading()

# Stamps fill a view whole: four frames, three apart, in two clips.
CHECKPOINT = Checkpoint(
    name="stamps",
    config=TimesformerConfig(image_size=(HEIGHT, WIDTH), num_frames=4, id2label={0: "öne", 1: "two"}),
    recipe=Recipe(
        base="test",
        sampling=SamplingSpec(num_frames=4, method="strided", stride=3, fps=None, clips=2),
        preprocess=PreprocessSpec(
            size=(HEIGHT, WIDTH), short_side=HEIGHT, crops=1, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3)
        ),
    ),
    labels=("öne", "two"),
    weights=None,
    source="here",
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Item:
    return Item(str(write_video(tmp_path_factory.mktemp("video") / "a.mp4", 40, rate=25)))


def facts_of(path: Path) -> Facts:
    facts = read_facts(Item(str(path)), READING)
    assert facts is not None
    return facts


def packets_of(path: Path) -> PacketFacts:
    packets = facts_of(path).packets
    assert packets is not None
    return packets


def picture_of(path: Path) -> PictureFacts:
    picture = facts_of(path).picture
    assert picture is not None
    return picture


def labelled(views: Views) -> Prediction:
    scores = np.zeros(2, np.float32)
    return Prediction(views.item, views.info, (Segment(0, 1, views.labels, scores, scores),), ())


class TestFacts:
    def test_of_a_plain_file(self, video: Item) -> None:
        facts = facts_of(Path(video.path))
        assert facts.bytes == os.path.getsize(video.path)
        assert (facts.format.split(",")[0], facts.format_name) == ("mov", "QuickTime / MOV")
        assert (facts.start, facts.duration) == (0, 1.6)
        assert facts.video == (
            VideoStreamFacts(0, "h264", "High", "yuv420p", WIDTH, HEIGHT, None, 40, 1.6, 25.0, cover=False, read=True),
        )
        assert facts.read is facts.video[0]
        assert facts.audio == ()
        assert facts.picture == PictureFacts(rotation=0, mirrored=False, interlaced=False, hdr=None)
        assert facts.packets == PacketFacts(
            count=40,
            hidden=0,
            edited=False,
            damaged=False,
            encrypted=False,
            b_frames=True,
            key_frames=KeyFrames(4, 12, 12, 12),
        )

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (LONG_GOP, KeyFrames(1, None, None, None)),
            (SHORT_GOP, KeyFrames(4, 12, 12, 12)),
            ({**SHORT_GOP, "forced-idr": "1", "x264-params": "keyint=20:min-keyint=20"}, KeyFrames(2, 20, 20, 20)),
        ],
    )
    def test_key_frames(self, tmp_path: Path, options: dict[str, str], expected: KeyFrames) -> None:
        assert packets_of(write_video(tmp_path / "a.mkv", 40, options=options)).key_frames == expected

    @pytest.mark.parametrize(
        ("ending", "between", "expected"),
        [("mp4", 0, False), ("mp4", 3, True), ("mkv", 0, False), ("mkv", 3, True), ("avi", 0, False), ("avi", 3, None)],
    )
    def test_b_frames(self, tmp_path: Path, ending: str, between: int, expected: bool | None) -> None:
        path = write_video(tmp_path / f"a.{ending}", 20, options={**SHORT_GOP, "bf": str(between)})
        assert packets_of(path).b_frames is expected

    @pytest.mark.parametrize(
        "matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
    )
    def test_rotation_and_reflection(self, tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
        """Turned and mirrored as the facts say, the stored picture stands upright."""
        a, b, c, d = matrix
        x, y = np.meshgrid(np.arange(WIDTH if a else HEIGHT), np.arange(HEIGHT if a else WIDTH))
        column, row = a * x + c * y, b * x + d * y
        stored = stamp(5)[row - row.min(), column - column.min()]
        display = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
        path = write_video(tmp_path / "turned.mp4", [stored], matrix=display)
        facts = facts_of(path)
        assert facts.picture is not None
        shown = np.rot90(stored, -facts.picture.rotation // 90)
        np.testing.assert_array_equal(shown[:, ::-1] if facts.picture.mirrored else shown, stamp(5))
        assert facts.read is not None
        assert (facts.read.width, facts.read.height) == (stored.shape[1], stored.shape[0])

    def test_interlaced(self, tmp_path: Path) -> None:
        for name, params in (("plain", ""), ("interlaced", "tff=1:interlaced=1")):
            path = write_video(tmp_path / f"{name}.mp4", 3, options={**SHORT_GOP, "x264-params": params})
            assert picture_of(path).interlaced == (name == "interlaced")

    @pytest.mark.parametrize(("transfer", "expected"), [("bt709", None), ("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
    def test_high_dynamic_range(self, tmp_path: Path, transfer: str, expected: str | None) -> None:
        options = {**SHORT_GOP, "x264-params": f"transfer={transfer}"}
        assert picture_of(write_video(tmp_path / "a.mp4", 3, options=options)).hdr == expected

    def test_pixels_that_are_not_square(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", 3, options={**SHORT_GOP, "aspect": "2:1"})
        stream = facts_of(path).read
        assert stream is not None
        assert stream.pixel_aspect == "2:1"

    def test_sound(self, tmp_path: Path) -> None:
        facts = facts_of(write_audio(tmp_path / "a.mp4"))
        assert facts.audio == (AudioStreamFacts(0, "aac", 16000, 1, None),)
        assert (facts.video, facts.read, facts.picture, facts.packets) == ((), None, None, None)

    def test_what_is_refused_is_described(self, video: Item) -> None:
        facts = read_facts(video, Reading(max_pixels=WIDTH * HEIGHT - 1))
        assert facts is not None
        assert (facts.video[0].width, facts.video[0].height) == (WIDTH, HEIGHT)
        assert (facts.read, facts.picture, facts.packets) == (None, None, None)

    def test_too_many_packets_are_not_counted(self, video: Item) -> None:
        facts = read_facts(video, Reading(max_frames=39))
        assert facts is not None
        assert facts.picture is not None
        assert facts.packets is None

    @pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
    def test_at_an_address_they_are_the_same(self, tmp_path: Path, ending: str) -> None:
        path = write_video(tmp_path / f"a.{ending}", 40)
        files = fsspec.filesystem("memory")
        files.pipe(f"/a.{ending}", path.read_bytes())
        try:
            assert read_facts(Item(f"memory://a.{ending}"), READING) == facts_of(path)
        finally:
            files.rm(f"/a.{ending}")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_named_pipe_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.mp4")
        assert read_facts(Item(str(tmp_path / "pipe.mp4")), READING) is None


def made_up(path: str = "a.mp4", frames: int = 40, **changes: Any) -> Inspection:
    """An inspection of a sound MP4 of 40 frames at 25 a second, but for `changes` to the facts of its parts."""
    stream = VideoStreamFacts(0, "h264", "High", "yuv420p", 64, 48, "1:1", 40, 1.6, 25.0, cover=False, read=True)
    facts = Facts(
        bytes=1000,
        format=changes.pop("format", "mov,mp4,m4a,3gp,3g2,mj2"),
        format_name="FORMAT",
        start=0.0,
        duration=changes.pop("container_duration", 1.6),
        video=(
            replace(stream, **{key: value for key, value in changes.items() if hasattr(stream, key)}),
            *changes.pop("more", ()),
        ),
        audio=(),
        picture=PictureFacts(0, False, changes.pop("interlaced", False), changes.pop("hdr", None)),
        packets=PacketFacts(
            frames,
            0,
            changes.pop("edited", False),
            changes.pop("damaged", False),
            changes.pop("encrypted", False),
            False,
            KeyFrames(1, None, None, None),
        ),
    )
    info = VideoInfo(np.arange(frames) / 25, 25.0, 64, 48, "h264", start=changes.pop("start", 0.0))
    views = Views(Item(path), info, Span(0, 1, np.zeros((1, 4), np.int64)), (), np.empty((0, 4, 3, 8, 8), np.float32))
    return Inspection(Item(path), facts, views, None)


class TestWarnings:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, []),
            ({"path": "A.MOV"}, []),
            ({"path": "a"}, []),
            ({"path": "a.ogv", "format": "ogg"}, []),
            ({"path": "a.mp4", "format": "avi"}, ["its extension is .mp4, but its format is FORMAT"]),
            ({"path": "a.webm"}, ["its extension is .webm, but its format is FORMAT"]),
            ({"frames": 1, "duration": 0.04}, ["it claims 40 frames, but 1 are shown"]),
            (
                {"edited": True, "frames": 38},
                ["it claims 40 frames, but 38 are shown; its edit list leaves out the others"],
            ),
            ({"damaged": True}, ["parts of it are damaged or missing"]),
            ({"encrypted": True}, ["it is encrypted"]),
            ({"duration": 3.0}, ["it claims to last 3.00 s, but its frames last 1.60 s"]),
            ({"duration": 2.0}, []),  # less than half a second more
            ({"duration": None, "container_duration": 9.0}, ["it claims to last 9.00 s, but its frames last 1.60 s"]),
            ({"duration": None, "container_duration": None}, []),
            ({"duration": None, "container_duration": 4.6, "start": 3.0}, []),  # counted from the earliest stream
            (
                {"duration": None, "container_duration": 9.0, "start": 3.0},
                ["it claims to last 9.00 s, but its frames last 1.60 s, from 3.00 s on"],
            ),
            ({"start": 3.0}, []),  # the stream states its own duration
            ({"fps": 1000.0}, ["it claims 1000 frames per second, but has 25"]),
            ({"fps": 25.5}, []),
            ({"fps": None}, []),
        ],
    )
    def test_where_a_file_is_not_what_it_says(self, given: dict[str, Any], expected: list[str]) -> None:
        assert warnings(made_up(**given)) == expected

    @pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts", "mov", "flv", "nut"])
    @pytest.mark.parametrize("rate", [Fraction(30000, 1001), 7])
    def test_sound_files_give_none(self, tmp_path: Path, ending: str, rate: Fraction | int) -> None:
        path = write_video(tmp_path / f"a.{ending}", 30, rate=rate)
        found = examine(Item(str(path)), CHECKPOINT.recipe, READING)
        assert warnings(found) == []

    def test_none_of_what_cannot_be_opened(self) -> None:
        assert warnings(Inspection(Item("a.mp4"), None, None, None)) == []
        assert notes(Inspection(Item("a.mp4"), None, None, None)) == []

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, []),
            ({"pixel_aspect": None}, []),
            ({"pixel_aspect": "640:639"}, []),
            (
                {"pixel_aspect": "64:45"},
                ["its pixels are not square (64:45): the model sees the frames as they are stored"],
            ),
            ({"interlaced": True}, ["it is interlaced: the model sees both fields of a frame at once"]),
            (
                {"hdr": "PQ"},
                ["its colours are PQ (high dynamic range): the model sees them flat, as they are stored"],
            ),
        ],
    )
    def test_notes(self, given: dict[str, Any], expected: list[str]) -> None:
        assert notes(made_up(**given)) == expected

    def test_a_note_on_several_streams_but_not_on_covers(self) -> None:
        other = VideoStreamFacts(3, "h264", None, None, 32, 24, None, None, None, None, cover=False, read=False)
        assert notes(made_up(more=(replace(other, cover=True),))) == []
        assert notes(made_up(more=(other,))) == ["it has 2 video streams: only stream 0 is read"]


class TestExamine:
    def test_views_are_what_the_pipeline_makes(self, video: Item) -> None:
        views = examine(video, CHECKPOINT.recipe, READING).views
        expected = prepare(video, CHECKPOINT.recipe, READING)
        assert views is not None
        assert (views.item, views.labels) == (video, expected.labels)
        np.testing.assert_array_equal(views.pixels, expected.pixels)
        # 40 frames; a clip of four frames, three apart, spans ten.
        assert [view.frames for view in views.labels] == [(0, 3, 6, 9), (30, 33, 36, 39)]
        for view, pixels in zip(views.labels, views.pixels, strict=True):
            shown = np.stack([picture(frame, CHECKPOINT.preprocess) for frame in pixels])
            assert tuple(read_stamps(shown)) == view.frames

    def test_the_record_has_the_fields_of_predict(self, video: Item) -> None:
        found = examine(video, CHECKPOINT.recipe, READING)
        assert found.views is not None
        views = found.views
        expected = predict_record(labelled(views), CHECKPOINT)
        record = to_record(found, CHECKPOINT)
        assert record["video"].items() >= expected.pop("video").items()
        del expected["predictions"]
        assert record.items() >= expected.items()

    def test_the_record_of_a_short_video(self, tmp_path: Path) -> None:
        item = Item(str(write_video(tmp_path / "short.mp4", 5, rate=10)))
        found = examine(item, CHECKPOINT.recipe, READING)
        assert found.views is not None
        expected = predict_record(labelled(found.views), CHECKPOINT)
        record = json.loads(json.dumps(to_record(found, CHECKPOINT), allow_nan=False))
        assert record["views"] == expected["views"]
        assert record["clips"][0] == {
            "clip": 0,
            "frames": [0, 3, 4, 4],
            "times": [0, 0.3, 0.4, 0.4],
            "start": 0,
            "end": 0.4,
            "stride": 2,
            "stride_seconds": 0.2,
            "repeated": 1,
        }
        assert record["input"] == [2, 4, 3, HEIGHT, WIDTH]

    def test_one_frame(self, tmp_path: Path) -> None:
        item = Item(str(write_video(tmp_path / "one.mp4", 1)))
        record = to_record(examine(item, CHECKPOINT.recipe, READING), CHECKPOINT)
        assert record["video"]["frame_spacing"] is None
        assert record["video"]["variable_rate"] is False
        assert record["clips"][0]["stride"] is None
        assert record["clips"][0]["repeated"] == 3

    @pytest.mark.parametrize(
        ("ending", "milliseconds", "variable"),
        [
            ("mp4", [0, 40, 80, 120, 160], False),
            ("mkv", [0, 33, 67, 100, 133], False),  # whole milliseconds of 30 a second
            ("mp4", [0, 40, 80, 150, 190], True),
        ],
    )
    def test_variable_rate(self, tmp_path: Path, ending: str, milliseconds: list[int], variable: bool) -> None:
        path = write_video(tmp_path / f"a.{ending}", 5, milliseconds=milliseconds)
        record = to_record(examine(Item(str(path)), CHECKPOINT.recipe, READING), CHECKPOINT)
        assert record["video"]["variable_rate"] is variable
        apart = np.diff(milliseconds) / 1000
        spacing = record["video"]["frame_spacing"]
        assert (spacing["smallest"], spacing["largest"]) == (apart.min(), apart.max())

    def test_failures_keep_the_facts(self, tmp_path: Path) -> None:
        found = examine(Item(str(write_audio(tmp_path / "a.mp4"))), CHECKPOINT.recipe, READING)
        assert found.views is None
        assert found.failure is not None
        assert found.failure.kind == "no_video_stream"
        record = to_record(found, CHECKPOINT)
        assert record["error"] == {"kind": "no_video_stream", "message": found.failure.message}
        assert record["file"]["audio"][0]["codec"] == "aac"
        assert list(record)[:4] == ["path", "status", "model", "error"]
        assert "video" not in record

    def test_failures_without_facts(self, tmp_path: Path) -> None:
        for name in ("missing.mp4", "text.mp4"):
            (tmp_path / "text.mp4").write_text("no video")
            record = to_record(examine(Item(str(tmp_path / name)), CHECKPOINT.recipe, READING), CHECKPOINT)
            assert record["status"] == "error"
            assert record["file"] is None
            assert (record["warnings"], record["notes"]) == ([], [])


class TestExamineAll:
    def test_workers_change_nothing(self, video: Item, tmp_path: Path) -> None:
        items = [video, Item(str(tmp_path / "missing.mp4")), Item(str(write_audio(tmp_path / "sound.mp4")))]
        found = []
        for workers in (0, 1):
            limits = Limits()
            with examine_all(
                items, CHECKPOINT.recipe, RunOptions(reading=READING, workers=workers, limits=limits), keep=True
            ) as results:
                found.append(list(results))
        assert [to_record(one, CHECKPOINT) for one in found[0]] == [to_record(one, CHECKPOINT) for one in found[1]]
        assert [one.views is None for one in found[1]] == [False, True, True]
        for here, there in zip(*found, strict=True):
            if here.views is not None and there.views is not None:
                assert here.views.pixels.size > 0
                np.testing.assert_array_equal(here.views.pixels, there.views.pixels)

    def test_pixels_stay_behind_unless_they_are_wanted(self, video: Item) -> None:
        with examine_all([video], CHECKPOINT.recipe, RunOptions(reading=READING, workers=1), keep=False) as results:
            (found,) = results
        assert found.views is not None
        assert found.views.pixels.shape == (0, 4, 3, HEIGHT, WIDTH)
        assert to_record(found, CHECKPOINT)["input"] == [2, 4, 3, HEIGHT, WIDTH]

    def test_a_worker_that_is_stopped_costs_its_video(self, video: Item) -> None:
        items = [video, Item("missing.mp4")]
        with examine_all(
            items, CHECKPOINT.recipe, RunOptions(reading=READING, workers=1, limits=Limits(timeout=0.001)), keep=False
        ) as results:
            found = list(results)
        assert [one.item for one in found] == items
        assert found[0].failure is not None
        assert found[0].failure.kind == "timeout"

    def test_want_of_memory(self, video: Item, monkeypatch: pytest.MonkeyPatch) -> None:
        def greedy(*_: object) -> Views:
            raise MemoryError

        monkeypatch.setattr(inspection, "prepare", greedy)
        with examine_all([video], CHECKPOINT.recipe, RunOptions(reading=READING, workers=0), keep=False) as results:
            (found,) = results
        assert found.failure is not None
        assert found.failure.kind == "too_large"


class TestFiles:
    def test_tensors(self, video: Item) -> None:
        views = prepare(video, CHECKPOINT.recipe, READING)
        file = io.BytesIO()
        save_tensors(file, views, CHECKPOINT)
        file.seek(0)
        with np.load(file, allow_pickle=False) as saved:
            content = dict(saved)
        np.testing.assert_array_equal(content.pop("pixels"), views.pixels)
        assert views.pixels.dtype == np.float32
        np.testing.assert_array_equal(content["times"], content["frames"] / 25)
        del content["times"]
        assert {name: value.tolist() for name, value in content.items()} == {
            "frames": [[0, 3, 6, 9], [30, 33, 36, 39]],
            "clip": [0, 1],
            "crop": ["center", "center"],
            "mean": [0.4, 0.45, 0.5],
            "std": [0.2, 0.25, 0.3],
            "channel_order": "rgb",
            "labels": ["öne", "two"],
            "path": video.path,
            "model": "stamps",
            "recipe": "test",
        }

    def test_a_file_gets_its_name_when_it_is_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "out.npz"
        target.write_bytes(b"old")
        with pytest.raises(OutputError, match="cannot be written"):
            fill_the_disk(target)
        assert target.read_bytes() == b"old"
        with replacing(target) as part:
            part.write_bytes(b"new")
        assert target.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [target]


def fill_the_disk(target: Path) -> None:
    with replacing(target) as part:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")
