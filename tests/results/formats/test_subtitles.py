"""Subtitles as FFmpeg reads them, and to the letter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest

from timesformer_cli.results.formats.subtitles import srt_style, vtt_style
from timesformer_cli.results.record import Record, Style

# Start and end in seconds, label and score; None as label: no prediction.
Span = tuple[float, float, str | None, float]


def guesses(label: str | None, score: float) -> list[Record]:
    if label is None:
        return []
    return [
        {"rank": 1, "index": 5, "label": label, "score": score},
        {"rank": 2, "index": 7, "label": "second", "score": 0.01},
    ]


def timeline(*spans: Span) -> Record:
    segments = [{"start": a, "end": b, "predictions": guesses(label, score)} for a, b, label, score in spans]
    return {"path": "a.mp4", "status": "ok", "video": {"duration": 9.9}, "segments": segments}


def whole(duration: float | None, label: str | None = "archery", score: float = 0.926) -> Record:
    return {"path": "a.mp4", "status": "ok", "video": {"duration": duration}, "predictions": guesses(label, score)}


FAILED: Record = {"path": "bad.mp4", "status": "error", "error": {"kind": "decode", "message": "no frame decodes"}}


def text(style: Style, *records: Record) -> str:
    return "".join(style.texts(records))


def cues(file: Path) -> list[tuple[float, float, str]]:
    """Start, end and text of each cue, as FFmpeg has them."""
    found = []
    with av.open(str(file)) as container:
        for packet in container.demux(container.streams.subtitles[0]):
            if packet.pts is not None and packet.time_base is not None:
                start, end = packet.pts * packet.time_base, (packet.pts + packet.duration) * packet.time_base
                found.append((float(start), float(end), bytes(packet).decode()))
    return found


def through_ffmpeg(tmp_path: Path, style: Style, suffix: str, records: Sequence[Record]) -> list[Any]:
    file = tmp_path / f"out{suffix}"
    file.write_text(text(style, *records), encoding="utf-8")
    return cues(file)


def test_srt() -> None:
    record = timeline((0, 2.5, "archery", 0.926), (2.5, 5, "bowling", 0.004))
    assert text(srt_style(raw=False), record) == (
        "1\n00:00:00,000 --> 00:00:02,500\narchery (93 %)\n"
        "\n"
        "2\n00:00:02,500 --> 00:00:05,000\nbowling (0 %)\n"
    )  # fmt: skip


def test_vtt() -> None:
    record = timeline((0, 2.5, "archery", 0.926), (2.5, 5, "bowling", 0.004))
    assert text(vtt_style(raw=False), record) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.500\narchery (93 %)\n"
        "\n"
        "00:00:02.500 --> 00:00:05.000\nbowling (0 %)\n"
    )  # fmt: skip


STYLES = [(srt_style, ".srt"), (vtt_style, ".vtt")]


@pytest.mark.parametrize(("style", "suffix"), STYLES)
class TestBoth:
    def test_a_video_as_a_whole_is_one_cue(self, tmp_path: Path, style: Any, suffix: str) -> None:
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [whole(10.01)])
        assert found == [(0, 10.01, "archery (93 %)")]

    def test_logits(self, tmp_path: Path, style: Any, suffix: str) -> None:
        found = through_ffmpeg(tmp_path, style(raw=True), suffix, [whole(1, score=-1.257)])
        assert found == [(0, 1, "archery (-1.26)")]

    def test_overlapping_windows(self, tmp_path: Path, style: Any, suffix: str) -> None:
        record = timeline((0, 8, "a", 1), (4, 12, "b", 1), (8, 16, None, 0), (12, 20, "c", 1), (20, 28, "d", 1))
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [record])
        assert found == [(0, 4, "a (100 %)"), (4, 8, "b (100 %)"), (12, 20, "c (100 %)"), (20, 28, "d (100 %)")]

    def test_long_videos(self, tmp_path: Path, style: Any, suffix: str) -> None:
        record = timeline((3599.9996, 3661.0014, "a", 1), (359_999.5, 360_001.25, "b", 1))
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [record])
        assert found == [(3600, 3661.001, "a (100 %)"), (359_999.5, 360_001.25, "b (100 %)")]

    @pytest.mark.parametrize("duration", [None, 0.0, 0.0001, 0.0004999])
    def test_an_end_is_after_its_start(self, tmp_path: Path, style: Any, suffix: str, duration: float | None) -> None:
        assert through_ffmpeg(tmp_path, style(raw=False), suffix, [whole(duration)]) == [(0, 0.001, "archery (93 %)")]

    def test_windows_closer_than_a_millisecond(self, tmp_path: Path, style: Any, suffix: str) -> None:
        record = timeline((1.0, 2, "a", 1), (1.0004, 2, "b", 1))
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [record])
        assert found == [(1, 1.001, "a (100 %)"), (1, 2, "b (100 %)")]

    @pytest.mark.parametrize("label", ["a\nb", "\r\n a \r\n\r\n b\n\n", "a\u2028b", "a \x85 b"])
    def test_a_label_is_one_line(self, tmp_path: Path, style: Any, suffix: str, label: str) -> None:
        record = timeline((0, 1, label, 1), (1, 2, "next", 1))
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [record])
        assert found == [(0, 1, "a b (100 %)"), (1, 2, "next (100 %)")]

    def test_a_label_that_looks_like_times(self, tmp_path: Path, style: Any, suffix: str) -> None:
        record = timeline((0, 1, "2 00:00:07,000 --> 00:00:08,000", 1), (1, 2, "next", 1))
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [record])
        assert [cue[:2] for cue in found] == [(0, 1), (1, 2)]
        assert found[1][2] == "next (100 %)"

    def test_other_scripts(self, tmp_path: Path, style: Any, suffix: str) -> None:
        found = through_ffmpeg(tmp_path, style(raw=False), suffix, [whole(1, "größer 太極 🎬")])
        assert found == [(0, 1, "größer 太極 🎬 (93 %)")]

    def test_nothing_to_show(self, style: Any, suffix: str) -> None:
        start = text(style(raw=False))
        assert start == ("WEBVTT\n\n" if suffix == ".vtt" else "")
        assert text(style(raw=False), FAILED, whole(1, None), timeline((0, 1, None, 0))) == start


def test_srt_numbers_count_on() -> None:
    lines = text(srt_style(raw=False), whole(1), FAILED, timeline((0, 1, "a", 1), (1, 2, "b", 1)), whole(1))
    assert [block.split("\n")[0] for block in lines.split("\n\n")] == ["1", "2", "3", "4"]


def test_each_srt_file_begins_with_1() -> None:
    assert [text(srt_style(raw=False), whole(1))[0] for _ in range(2)] == ["1", "1"]


def test_vtt_text_is_no_markup() -> None:
    shown = text(vtt_style(raw=False), whole(1, '<i>a</i> --> b & "c"'))
    assert shown.splitlines()[-1] == '&lt;i&gt;a&lt;/i&gt; --&gt; b &amp; "c" (93 %)'


def test_markup_in_a_label_is_text_in_srt() -> None:
    shown = text(srt_style(raw=False), whole(9.9, "<b>bold</b> {\\an8} a < b {c"))
    assert not [markup for markup in ("<b", "</b", "{\\") if markup in shown]
    assert shown.replace("\u2060", "").splitlines()[-1] == "<b>bold</b> {\\an8} a < b {c (93 %)"
