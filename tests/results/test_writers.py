"""What is written for a result: every format, byte by byte, and what happens to the file."""

import csv
import io
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.files import check_target
from timesformer_cli.flow import Failure, Item, Prediction, Result, Segment, VideoInfo, ViewLabel
from timesformer_cli.results.formats.table import Table
from timesformer_cli.results.logits import unpack
from timesformer_cli.results.record import CSV_COLUMNS, Excerpt, origin_of, to_record
from timesformer_cli.results.writers import choose_format, open_writer
from timesformer_cli.specs import Checkpoint, PreprocessSpec, Recipe, SamplingSpec, TimesformerConfig

LABELS = ("waving", 'größer, "schneller"', "sitting")


def recipe(**changes: Any) -> Recipe:
    sampling, preprocess = SamplingSpec(num_frames=2), PreprocessSpec(size=(224, 224), short_side=224)
    return Recipe(**{"base": "original", "sampling": sampling, "preprocess": preprocess, **changes})


def checkpoint(**changes: Any) -> Checkpoint:
    return Checkpoint(
        **{
            "name": "tiny",
            "config": TimesformerConfig(id2label=dict(enumerate(LABELS))),
            "recipe": recipe(),
            "labels": LABELS,
            "weights": Path("tiny/model.safetensors"),
            "source": "tiny",
            **changes,
        }
    )


def prediction(path: str = "clips/a.mp4", scores: tuple[float, ...] = (0.25, 0.7, 0.05)) -> Prediction:
    info = VideoInfo(times=np.arange(300) / (30000 / 1001), fps=30000 / 1001, width=340, height=256, codec="h264")
    values = np.array(scores, np.float32)
    segment = Segment(0.0, info.duration, (ViewLabel(0, "center", (0, 36)),), np.log(np.abs(values)), values)
    return Prediction(Item(path), info, (segment,), ())


TWO = Excerpt(top_k=2)

FAILURE = Failure(Item("clips/bad.mp4"), "decode", "no frame of it decodes")

OK_LINE = (
    '{"path": "clips/a.mp4", "status": "ok", "model": "tiny", "predictions": '
    '[{"rank": 1, "index": 1, "label": "größer, \\"schneller\\"", "score": 0.7}, '
    '{"rank": 2, "index": 0, "label": "waving", "score": 0.25}], '
    '"video": {"duration": 10.01, "fps": 29.97, "frames": 300, "width": 340, "height": 256, "codec": "h264"}, '
    '"views": [{"clip": 0, "crop": "center", "frames": [0, 36]}], "recipe": "original"}'
)
ERROR_LINE = (
    '{"path": "clips/bad.mp4", "status": "error", "model": "tiny", '
    '"error": {"kind": "decode", "message": "no frame of it decodes"}}'
)


def write(
    target: Path | None, format: Any, *results: Result, top_k: int = 2, segments: bool = False, **changes: Any
) -> None:
    model = checkpoint(**changes)
    with open_writer(target, format, origin_of(model)) as writer:
        for result in results:
            writer.write(to_record(result, model, Excerpt(top_k=top_k, segments=segments)))


class TestRecords:
    def test_fields_and_their_order(self) -> None:
        assert json.dumps(to_record(prediction(), checkpoint(), TWO), ensure_ascii=False) == OK_LINE
        assert json.dumps(to_record(FAILURE, checkpoint(), TWO)) == ERROR_LINE

    def test_top_k_beyond_the_classes_means_all(self) -> None:
        ranks = to_record(prediction(), checkpoint(), Excerpt(top_k=99))["predictions"]
        assert [(p["rank"], p["index"]) for p in ranks] == [(1, 1), (2, 0), (3, 2)]

    def test_equal_scores_are_in_the_order_of_the_classes(self) -> None:
        ranks = to_record(prediction(scores=(0.1, 0.45, 0.45)), checkpoint(), Excerpt(top_k=3))["predictions"]
        assert [p["index"] for p in ranks] == [1, 2, 0]

    def test_scores_are_the_float32_they_were(self) -> None:
        scores = tuple(np.random.default_rng(0).normal(size=3).astype(np.float32) * 1e-6)
        ranks = to_record(prediction(scores=scores), checkpoint(), Excerpt(top_k=3))["predictions"]
        assert [np.float32(p["score"]) for p in ranks] == sorted(scores, reverse=True)
        assert all(len(repr(p["score"])) <= 16 for p in ranks)

    def test_a_rate_that_is_no_number_is_null(self) -> None:
        info = VideoInfo(times=np.zeros(1), fps=float("inf"), width=1, height=1, codec="gif")
        result = Prediction(Item("a"), info, (Segment(0, 0, (), np.zeros(3), np.zeros(3, np.float32)),), ())
        assert to_record(result, checkpoint())["video"]["fps"] is None


class TestFormats:
    def test_json_lines(self, tmp_path: Path) -> None:
        write(tmp_path / "out.jsonl", "jsonl", prediction(), FAILURE)
        assert (tmp_path / "out.jsonl").read_bytes() == f"{OK_LINE}\n{ERROR_LINE}\n".encode()

    @pytest.mark.parametrize("results", [(prediction(),), (FAILURE, prediction(), FAILURE)])
    def test_json_is_one_array(self, tmp_path: Path, results: tuple[Result, ...]) -> None:
        write(tmp_path / "out.json", "json", *results)
        read = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert read == [to_record(result, checkpoint(), TWO) for result in results]

    def test_csv(self, tmp_path: Path) -> None:
        write(tmp_path / "out.csv", "csv", prediction('a,"b"\n.mp4'), FAILURE)
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        head = ['a,"b"\n.mp4', "ok", "tiny", "0.0", "10.01"]
        video = ["10.01", "29.97", "300", "340", "256", "h264"]
        assert rows == [
            list(CSV_COLUMNS),
            [*head, "1", "1", 'größer, "schneller"', "0.7", *video, "", "", "original", ""],
            [*head, "2", "0", "waving", "0.25", *video, "", "", "original", ""],
            ["clips/bad.mp4", "error", "tiny", *[""] * 12, "decode", "no frame of it decodes", "", ""],
        ]

    @pytest.mark.parametrize("format", ["json", "jsonl", "csv", "table"])
    def test_names_that_are_no_utf_8_make_valid_utf_8(self, tmp_path: Path, format: str) -> None:
        path = os.fsdecode(b"caf\xe9 \xc3\xa9.mp4")
        write(tmp_path / "out", format, prediction(path))
        text = (tmp_path / "out").read_bytes().decode("utf-8")
        assert "caf\\udce9 é.mp4" in text
        if format == "jsonl":
            assert os.fsencode(json.loads(text)["path"]) == b"caf\xe9 \xc3\xa9.mp4"


class TestTable:
    @pytest.fixture(autouse=True)
    def width(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")

    def table(self, tmp_path: Path, *results: Result, **options: Any) -> list[str]:
        write(tmp_path / "out.txt", "table", *results, **options)
        return (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()

    def test_rows(self, tmp_path: Path) -> None:
        assert self.table(tmp_path, prediction(), FAILURE) == [
            "Video                                            Score  Label",
            'clips/a.mp4                                     70.0 %  größer, "schneller"',
            "                                                25.0 %  waving",
            "clips/bad.mp4                                  no frame of it decodes",
        ]

    def test_a_long_path_goes_on_below_and_nothing_is_wider_than_the_terminal(self, tmp_path: Path) -> None:
        path = "a/very/long/path/" * 8 + "太極.mp4"
        lines = self.table(tmp_path, prediction(path))
        assert "".join(line[:45].split(" ")[0] for line in lines[1:]) == path
        assert max(len(line) for line in lines) <= 80

    def test_raw_logits_are_not_percentages(self, tmp_path: Path) -> None:
        lines = self.table(tmp_path, prediction(scores=(-1.5, 12.345, 3)), recipe=recipe(combine="raw_logits"))
        assert lines[1].split()[1] == "12.35"

    def test_a_name_cannot_steer_the_terminal(self, tmp_path: Path) -> None:
        lines = self.table(tmp_path, prediction("\x1b[31mred\n\u202e.mp4"))
        assert lines[1].startswith("\\x1b[31mred\\n\\u202e.mp4 ")

    def test_a_name_is_not_markup(self, tmp_path: Path) -> None:
        assert self.table(tmp_path, prediction("[red]a[/].mp4"))[1].startswith("[red]a[/].mp4 ")

    def test_segments_have_a_row_each(self) -> None:
        parts = [
            {"start": 0.0, "end": 59.96, "predictions": [{"score": 0.5, "label": "a"}, {"score": 0.25, "label": "b"}]},
            {"start": 3595.04, "end": 3725.5, "predictions": []},
        ]
        record = {"path": "film.mp4", "status": "ok", "segments": parts}
        assert Table(LABELS, raw=False, plain=True).rows(record).splitlines() == [
            "film.mp4",
            "  0:00.0 to 1:00.0                              50.0 %  a",
            "                                                25.0 %  b",
            "  59:55.0 to 1:02:05.5                         no label above the threshold",
        ]

    @pytest.mark.parametrize(("no_color", "red"), [("", True), ("1", False)])
    def test_colours_of_a_terminal(self, monkeypatch: pytest.MonkeyPatch, no_color: str, red: bool) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        rows = Table(LABELS, raw=False, plain=False).rows(to_record(FAILURE, checkpoint(), Excerpt(top_k=1)))
        assert "no frame of it decodes" in rows
        assert ("\x1b[31m" in rows) is red


class TestOutput:
    @pytest.mark.parametrize("format", ["json", "jsonl", "csv", "table"])
    def test_standard_output(self, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, format: str) -> None:
        write(None, format, prediction(), FAILURE)
        write(tmp_path / "out", format, prediction(), FAILURE)
        assert capsysbinary.readouterr().out == (tmp_path / "out").read_bytes()

    @pytest.mark.parametrize("format", ["jsonl", "csv", "table"])
    def test_records_are_on_disk_as_they_come(self, tmp_path: Path, format: Any) -> None:
        target = tmp_path / "out"
        with open_writer(target, format, origin_of(checkpoint())) as writer:
            assert not target.exists()
            writer.write(to_record(prediction(), checkpoint(), TWO))
            assert "größer" in target.read_text(encoding="utf-8")
            writer.write(to_record(FAILURE, checkpoint(), TWO))
            assert "clips/bad.mp4" in target.read_text(encoding="utf-8")

    @pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
    def test_an_interrupted_run_leaves_a_whole_document(self, tmp_path: Path, format: Any) -> None:
        target = tmp_path / "out"
        with suppress(KeyboardInterrupt), open_writer(target, format, origin_of(checkpoint())) as writer:
            writer.write(to_record(prediction(), checkpoint(), TWO))
            raise KeyboardInterrupt
        write(tmp_path / "whole", format, prediction())
        assert target.read_bytes() == (tmp_path / "whole").read_bytes()
        assert sorted(os.listdir(tmp_path)) == ["out", "whole"]

    @pytest.mark.parametrize("format", ["json", "jsonl", "csv", "table"])
    def test_without_a_record_there_is_no_file(self, tmp_path: Path, format: Any) -> None:
        with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / "out", format, origin_of(checkpoint())):
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == []

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    @pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
    def test_a_full_disk(self, format: str) -> None:
        with pytest.raises(OutputError, match=r"^/dev/full: cannot be written \(No space left"):
            write(Path("/dev/full"), format, prediction())

    def test_a_file_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot be written"):
            write(tmp_path / "file" / "out.jsonl", "jsonl", prediction())

    def test_a_closed_pipe_is_not_an_output_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read, out = os.pipe()
        os.close(read)
        with open(out, "wb", buffering=0) as stream:
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, write_through=True))
            with pytest.raises(BrokenPipeError):
                write(None, "jsonl", prediction())


class TestTarget:
    def test_a_new_file(self, tmp_path: Path) -> None:
        check_target(tmp_path / "out.jsonl", overwrite=False)

    def test_an_existing_file(self, tmp_path: Path) -> None:
        (tmp_path / "out.jsonl").touch()
        with pytest.raises(OutputError, match=r"out\.jsonl: already exists; .*`overwrite`"):
            check_target(tmp_path / "out.jsonl", overwrite=False)
        check_target(tmp_path / "out.jsonl", overwrite=True)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"the folder .*none does not exist"):
            check_target(tmp_path / "none" / "out.jsonl", overwrite=True)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="is a folder"):
            check_target(tmp_path, overwrite=True)

    @pytest.mark.parametrize("exists", [True, False])
    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
        target = tmp_path / "out.jsonl"
        if exists:
            target.touch()
        asked = []
        # Permission bits do not bind the superuser, who may run the tests.
        monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
        with pytest.raises(OutputError, match="permission denied"):
            check_target(target, overwrite=True)
        assert asked == [(target if exists else tmp_path, os.W_OK)]

    @pytest.mark.parametrize(
        ("name", "format"),
        [("a.json", "json"), ("a.JSONL", "jsonl"), ("a.b.ndjson", "jsonl"), ("a.csv", "csv"), ("a.parquet", "parquet")],
    )
    def test_the_extension_says_the_format(self, name: str, format: str) -> None:
        assert choose_format(Path(name), terminal=False) == format

    @pytest.mark.parametrize("name", ["out", "out.txt", ".json"])
    def test_an_extension_that_says_nothing(self, name: str) -> None:
        with pytest.raises(UsageError, match=r"`format`"):
            choose_format(Path(name), terminal=False)

    @pytest.mark.parametrize(("terminal", "format"), [(True, "table"), (False, "jsonl")])
    def test_without_a_file_the_terminal_decides(self, terminal: bool, format: str) -> None:
        assert choose_format(None, terminal=terminal) == format


def test_segments_of_a_timeline(tmp_path: Path) -> None:
    """Three of them, of which the first two have the same likeliest class, by little."""
    info = prediction().info
    segments = tuple(
        Segment(start, start + 4, (ViewLabel(0, "center", (frame, frame + 36)),), np.log(values), values, picture)
        for start, frame, values, picture in [
            (0.0, 0, np.array([0.4, 0.35, 0.25], np.float32), b"a"),
            (3.0, 90, np.array([0.5, 0.05, 0.45], np.float32), b"b"),
            (6.0, 180, np.array([0.1, 0.8, 0.1], np.float32), b"c"),
        ]
    )
    result = Prediction(Item("film.mp4"), info, segments, ())
    record = to_record(result, checkpoint(), Excerpt(top_k=2, threshold=0.3, logits=True, segments=True))
    assert list(record)[:6] == ["path", "status", "model", "segments", "video", "recipe"]
    assert list(record)[6:] == ["_logits", "_films", "_runners_up"]  # browsers play no container that is not known
    assert record["_runners_up"] == [[2], [1], [0, 2]]
    told = [
        (part["start"], part["end"], [(p["rank"], p["index"], p["score"]) for p in part["predictions"]])
        for part in record["segments"]
    ]
    assert told == [(0, 4, [(1, 0, 0.4), (2, 1, 0.35)]), (3, 7, [(1, 0, 0.5), (2, 2, 0.45)]), (6, 10, [(1, 1, 0.8)])]
    assert record["segments"][1]["views"] == [{"clip": 0, "crop": "center", "frames": [90, 126]}]
    np.testing.assert_array_equal([unpack(text) for text in record["_logits"]], [s.logits for s in segments])

    merged = to_record(result, checkpoint(), Excerpt(merge=True, segments=True))
    first, second = merged["segments"]
    assert (first["start"], first["end"], second["start"], second["end"]) == (0, 7, 6, 10)
    assert [(p["index"], p["score"]) for p in first["predictions"]] == [(0, 0.45), (2, 0.35), (1, 0.2)]
    assert [view["frames"] for view in first["views"]] == [[0, 36], [90, 126]]
    assert "_logits" not in merged

    write(tmp_path / "out.jsonl", "jsonl", result, segments=True)
    assert list(json.loads((tmp_path / "out.jsonl").read_text())) == list(record)[:6]
    write(tmp_path / "out.csv", "csv", result, FAILURE, top_k=1, segments=True)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["end"], row["rank"], row["label"]) for row in rows] == [
        ("0.0", "4.0", "1", LABELS[0]),
        ("3.0", "7.0", "1", LABELS[0]),
        ("6.0", "10.0", "1", LABELS[1]),
        ("", "", "", ""),
    ]


def test_a_video_without_a_label_above_the_threshold_keeps_its_row(tmp_path: Path) -> None:
    record = to_record(prediction(), checkpoint(), Excerpt(threshold=0.9))
    assert record["predictions"] == []
    with open_writer(tmp_path / "out.csv", "csv", origin_of(checkpoint())) as writer:
        writer.write(record)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["status"], row["rank"], row["label"]) == ("clips/a.mp4", "ok", "", "")
