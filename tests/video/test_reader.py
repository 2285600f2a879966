"""Videos made here, each frame stamped with its number, through both decoders."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from testing.encodings import FRAMES, PLAN, RECIPES
from testing.heif import write_photograph
from testing.stamped import HEIGHT, SHORT_GOP, WIDTH, Track, read_stamp, read_stamps, stamp, write_tracks, write_video
from timesformer_cli.errors import TimesformerError, VideoError
from timesformer_cli.flow import Item
from timesformer_cli.specs import Decoder, Reading
from timesformer_cli.video.decoders import packets
from timesformer_cli.video.decoders.pyav import PyavReader, _Cursor
from timesformer_cli.video.reader import VideoReader, open_video

Make = Callable[[str], str]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Encodes a recipe at its first use and returns the file's path."""
    folder = tmp_path_factory.mktemp("stamped")

    def once(name: str) -> str:
        path = folder / name
        if not path.exists():
            write_video(path, FRAMES, **RECIPES[name][0])
        return str(path)

    return once


def opened(path: str | Path, decoder: Decoder = "auto", **limits: int) -> AbstractContextManager[VideoReader]:
    return open_video(Item(str(path)), Reading(decoder=decoder, **limits))


def error_of(
    path: str | Path, decoder: Decoder = "auto", read: list[int] | None = None, **limits: int
) -> tuple[str, str]:
    """Kind and message of the VideoError that opening, or reading these frames, raises."""

    def attempt() -> None:
        with opened(path, decoder, **limits) as reader:
            reader.read(read or [])

    with pytest.raises(VideoError) as caught:
        attempt()
    return caught.value.kind, str(caught.value)


class TestPlannedFrames:
    @pytest.mark.parametrize("name", RECIPES)
    def test_pyav(self, make: Make, name: str) -> None:
        rate = 25 if name in ("still.gif", "raw.h264") else 30
        with opened(make(name)) as reader:
            info, frames = reader.info, reader.read(PLAN)
        assert (info.num_frames, info.fps, info.width, info.height) == (FRAMES, rate, WIDTH, HEIGHT)
        assert (frames.pixels.dtype, frames.pixels.shape) == (np.uint8, (len(PLAN), HEIGHT, WIDTH, 3))
        assert read_stamps(frames.pixels) == PLAN
        # Some containers count milliseconds.
        np.testing.assert_allclose(frames.times, np.array(PLAN) / rate, atol=0.0011)

    @pytest.mark.parametrize("name", [name for name, (_, decord) in RECIPES.items() if decord])
    def test_decord(self, make: Make, name: str) -> None:
        with opened(make(name), "pyav") as reader:
            expected, info = reader.read(PLAN), reader.info
        with opened(make(name), "decord") as reader:
            frames = reader.read(PLAN)
            np.testing.assert_array_equal(reader.info.times, info.times)
            assert read_stamps(reader.read([50]).pixels) == [50]
        assert read_stamps(frames.pixels) == PLAN
        np.testing.assert_array_equal(frames.times, expected.times)
        np.testing.assert_allclose(frames.pixels.astype(int), expected.pixels.astype(int), atol=1)

    @pytest.mark.parametrize("name", [name for name, (_, decord) in RECIPES.items() if not decord])
    def test_decord_refuses_what_it_gets_wrong(self, make: Make, name: str) -> None:
        kind, message = error_of(make(name), "decord")
        assert kind == "unsupported"
        assert message.endswith("try `decoder=pyav`")

    @pytest.mark.parametrize("name", ["short.mp4", "short.ts", "short.avi"])
    def test_one_read_after_another(self, make: Make, name: str) -> None:
        """Forward, back, and on into frames that were skipped or already decoded."""
        with opened(make(name)) as reader:
            for plan in ([0, 5], [6, 7], [8, 30], [29], [31, 59], [], [59], [2]):
                assert read_stamps(reader.read(plan).pixels) == plan
            assert isinstance(reader, PyavReader)
            assert reader._shortcuts == (name != "short.avi")

    def test_numbers_outside_the_video(self, make: Make) -> None:
        for decoder in ("pyav", "decord"):
            with opened(make("short.mp4"), decoder) as reader:
                for number in (-1, FRAMES):
                    with pytest.raises(IndexError):
                        reader.read([0, number])


class TestShortcuts:
    """Jumping to key frames and skipping what nothing refers to gives the pictures of decoding all."""

    @pytest.fixture
    def work(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """One entry for each packet that is decoded: how many pictures came out."""
        entries: list[int] = []
        decoded = _Cursor._decoded

        def counted(cursor: _Cursor, packet: Any) -> Any:
            pictures = decoded(cursor, packet)
            entries.append(len(pictures))
            return pictures

        monkeypatch.setattr(_Cursor, "_decoded", counted)
        return entries

    @pytest.mark.parametrize("name", ["short.mp4", "open.mp4", "long.mp4", "refresh.mp4", "short.mkv", "hevc_open.mp4"])
    def test_same_pictures(self, make: Make, name: str) -> None:
        with opened(make(name)) as through, opened(make(name)) as short:
            assert isinstance(through, PyavReader)
            through._shortcuts = False
            everything = through.read(range(FRAMES)).pixels
            assert read_stamps(everything) == list(range(FRAMES))
            for plan in (PLAN, [FRAMES - 1], range(5, FRAMES, 9), range(FRAMES)):
                np.testing.assert_array_equal(short.read(plan).pixels, everything[list(plan)])
            assert isinstance(short, PyavReader)
            assert short._shortcuts == (name != "refresh.mp4")  # and not for having given them up

    @pytest.mark.parametrize(
        ("name", "packets_used", "pictures_made"),
        [("short.mp4", 10, 6), ("vp9.webm", 2, 2), ("short.ts", FRAMES + 1, 32)],
    )
    def test_decodes_little(
        self, make: Make, name: str, packets_used: int, pictures_made: int, work: list[int]
    ) -> None:
        """Frame 37 follows the key frame 36; a transport stream is read from its beginning, less most B-frames."""
        with opened(make(name)) as reader:
            work.clear()
            assert read_stamps(reader.read([37]).pixels) == [37]
        assert len(work) <= packets_used
        assert sum(work) <= pictures_made

    def test_key_frames_that_are_none(self, make: Make, tmp_path: Path) -> None:
        """For most codecs FFmpeg looks into the packets to see which are key frames; for HEVC it believes the file."""
        path = str(remux(make("hevc.mp4"), tmp_path / "false.mp4", keys=frozenset(range(3, FRAMES, 7))))
        with opened(path) as through, opened(path) as short:
            assert isinstance(through, PyavReader)
            assert isinstance(short, PyavReader)
            through._shortcuts = False
            for plan in ([58], [47, 50], PLAN):
                np.testing.assert_array_equal(short.read(plan).pixels, through.read(plan).pixels)
            assert not short._shortcuts

    def test_gradual_refresh_is_noticed(self, make: Make) -> None:
        with opened(make("refresh.mp4")) as reader:
            assert isinstance(reader, PyavReader)
            assert len(set(reader._numbering.start)) > 1  # type: ignore[union-attr]
            assert read_stamps(reader.read([30]).pixels) == [30]
            assert not reader._shortcuts


class TestTimes:
    def test_variable_frame_rate(self, tmp_path: Path) -> None:
        spaces = [33] * 20 + [200] * 10 + [66] * 9
        shown = np.cumsum([500, *spaces])
        for ending in ("mp4", "mkv"):
            path = write_video(tmp_path / f"vfr.{ending}", len(shown), milliseconds=shown.tolist())
            for decoder in ("pyav", "decord"):
                with opened(path, decoder) as reader:
                    frames = reader.read([0, 19, 20, 21, 39])
                    assert reader.info.fps == pytest.approx(len(spaces) / sum(spaces) * 1000, rel=0.02)
                assert read_stamps(frames.pixels) == [0, 19, 20, 21, 39]
                np.testing.assert_allclose(frames.times, [0, 0.627, 0.66, 0.86, 3.254], atol=0.0011)

    @pytest.mark.parametrize("rate", [Fraction(30), Fraction(30000, 1001), Fraction(25), Fraction(12), Fraction(120)])
    @pytest.mark.parametrize("ending", ["mp4", "mkv"])
    def test_frame_rate_is_exact(self, tmp_path: Path, rate: Fraction, ending: str) -> None:
        path = write_video(tmp_path / f"a.{ending}", 30, rate=rate)
        with opened(path) as reader:
            assert reader.info.fps == float(rate)
            assert reader.info.duration == pytest.approx(float(30 / rate), abs=0.0015)
            assert reader.info.has_stream_duration == (ending == "mp4")

    @pytest.mark.parametrize("ending", ["mp4", "mkv", "h264", "gif"])
    def test_one_frame(self, tmp_path: Path, ending: str) -> None:
        extra: dict[str, Any] = {"codec": "gif", "options": {}, "pixel_format": "rgb8"} if ending == "gif" else {}
        path = write_video(tmp_path / f"one.{ending}", 1, rate=25, **extra)
        with opened(path) as reader:
            assert (reader.info.num_frames, reader.info.fps, reader.info.times.tolist()) == (1, 25, [0])
            assert read_stamps(reader.read([0, 0]).pixels) == [0, 0]


# The linear part (a, b, c, d) of each way to hold and mirror a camera: a stored point (x, y) is shown at
# (a x + c y, b x + d y), up to a shift.
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_orientation(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = matrix
    x, y = np.meshgrid(np.arange(WIDTH if a else HEIGHT), np.arange(HEIGHT if a else WIDTH))
    column, row = a * x + c * y, b * x + d * y
    stored = [stamp(number)[row - row.min(), column - column.min()] for number in range(20)]
    display = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    path = str(write_video(tmp_path / "turned.mp4", stored, matrix=display))
    with opened(path) as reader:
        assert (reader.info.width, reader.info.height) == (WIDTH, HEIGHT)
        expected = reader.read([3, 17]).pixels
        assert read_stamps(expected) == [3, 17]
    if a * d - b * c < 0:
        assert "mirrored" in error_of(path, "decord")[1]
    else:
        with opened(path, "decord") as reader:
            np.testing.assert_array_equal(reader.read([3, 17]).pixels, expected)


def test_change_of_resolution(tmp_path: Path) -> None:
    """Transport streams may be joined byte by byte: the second half is scaled to the first one's size."""
    small = write_video(tmp_path / "small.ts", [stamp(number) for number in range(20)])
    large = write_video(tmp_path / "large.ts", [np.kron(stamp(n), np.ones((2, 2, 1), np.uint8)) for n in range(20, 40)])
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with opened(path) as reader:
        assert (reader.info.num_frames, reader.info.width, reader.info.height) == (40, WIDTH, HEIGHT)
        assert read_stamps(reader.read([1, 19, 20, 39]).pixels) == [1, 19, 20, 39]
        assert np.all(np.diff(reader.info.times) > 0)


def remux(
    source: str,
    target: Path,
    change: Callable[[int, bytes], bytes] = lambda number, data: data,
    keys: frozenset[int] = frozenset(),
) -> Path:
    """Copy the packets of a video, as `change` makes them from their number in the file and their bytes.

    `keys`: packets to be marked as key frames besides the true ones.
    """
    with av.open(source) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            changed = av.Packet(change(number, bytes(packet)))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.duration, changed.stream = packet.duration, stream
            changed.is_keyframe = packet.is_keyframe or number in keys
            new.mux(changed)
    return target


class TestDamage:
    @pytest.mark.parametrize(("name", "part"), [("short.mkv", 0.5), ("short.ts", 0.6), ("short.avi", 0.7)])
    def test_truncated(self, make: Make, tmp_path: Path, name: str, part: float) -> None:
        content = Path(make(name)).read_bytes()
        path = tmp_path / name
        path.write_bytes(content[: int(len(content) * part)])
        with opened(path) as reader:
            count = reader.info.num_frames
            assert 10 < count < FRAMES - 10
            # What was being written when it was cut may not come out whole, so the last few are left alone.
            assert read_stamps(reader.read(range(count - 4)).pixels) == list(range(count - 4))

    def test_truncated_mp4_with_its_index_in_front(self, tmp_path: Path) -> None:
        whole = write_video(tmp_path / "whole.mp4", FRAMES, muxer_options={"movflags": "faststart"})
        path = tmp_path / "part.mp4"
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
        with opened(path) as reader:
            count = reader.info.num_frames
            assert 10 < count < FRAMES - 5
            plan = list(range(count - 4))
            assert read_stamps(reader.read(plan).pixels) == plan
        assert error_of(path, "decord")[0] == "unsupported"

    def test_truncated_mp4_with_its_index_at_the_end(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "part.mp4"
        path.write_bytes(Path(make("short.mp4")).read_bytes()[:-500])
        kind, message = error_of(path)
        assert (kind, "not a video" in message) == ("decode", True)

    def test_a_frame_that_cannot_be_decoded_is_not_replaced(self, make: Make, tmp_path: Path) -> None:
        path = remux(
            make("intra.mov"), tmp_path / "hole.mov", lambda number, data: bytes(len(data)) if number == 30 else data
        )
        with opened(path) as reader:
            assert reader.info.num_frames == FRAMES
            assert read_stamps(reader.read([29, 31]).pixels) == [29, 31]
            with pytest.raises(VideoError, match="frame 30 of 60 is damaged") as caught:
                reader.read([29, 30, 31])
            assert caught.value.kind == "decode"
            assert read_stamps(reader.read([59]).pixels) == [59]
        assert error_of(path, "decord", [29, 30])[0] == "unsupported"

    def test_stream_that_starts_between_key_frames(self, make: Make, tmp_path: Path) -> None:
        """What comes before the first key frame cannot be decoded; frames count from there."""
        with av.open(make("short.ts")) as container:
            stream = container.streams.video[0]
            size = [packet.pos for packet in container.demux(stream) if packet.size][5]
        path = tmp_path / "cut.ts"
        path.write_bytes(Path(make("short.ts")).read_bytes()[size // 188 * 188 :])
        with opened(path) as reader:
            first = read_stamp(reader.read([0]).pixels[0])
            assert 5 < first <= 12
            assert reader.info.num_frames == FRAMES - first
            assert read_stamps(reader.read([5, 40]).pixels) == [first + 5, first + 40]

    def test_hidden_vp8_pictures_do_not_count(self, make: Make, tmp_path: Path) -> None:
        """Packets that only serve as reference have the show_frame bit of their first byte cleared."""
        path = remux(
            make("vp8.webm"),
            tmp_path / "hidden.webm",
            lambda number, data: bytes([data[0] & ~16]) + data[1:] if number in (5, 30) else data,
        )
        with opened(path) as reader:
            assert reader.info.num_frames == FRAMES - 2
            assert read_stamps(reader.read([4, 5, 28, 29, 57]).pixels) == [4, 6, 29, 31, 59]
        assert error_of(path, "decord")[0] == "unsupported"

    def test_nothing_of_it_on_standard_error(
        self, make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        content = bytearray(Path(make("short.mkv")).read_bytes())
        for place in range(len(content) // 3, len(content), 997):
            content[place] ^= 255
        path = tmp_path / "noise.mkv"
        path.write_bytes(content)
        for decoder in ("pyav", "decord"):
            try:
                with opened(path, decoder) as reader:
                    reader.read(range(reader.info.num_frames))
            except VideoError:
                pass
        assert capfd.readouterr() == ("", "")


class TestColours:
    @pytest.mark.parametrize(
        ("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593), (2, 0.299, 0.114)]
    )
    @pytest.mark.parametrize(("full", "depth"), [(False, 8), (True, 8), (False, 10)])
    def test_matrix_range_and_depth(
        self, tmp_path: Path, matrix: int, red: float, blue: float, full: bool, depth: int
    ) -> None:
        """ITU-T H.273: matrix 1 is BT.709, 6 BT.601, 9 BT.2020; where none is stated, BT.601 is what players take."""
        luma, blueness, redness = 100, 90, 180
        path = tmp_path / "plain.mp4"
        name, scale = ("yuv420p", 1) if depth == 8 else ("yuv420p10le", 4)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "0"})
            stream.width, stream.height, stream.pix_fmt = 64, 64, name
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
            frame = av.VideoFrame(64, 64, name)
            for plane, value in zip(frame.planes, (luma, blueness, redness), strict=True):
                dtype = np.uint8 if depth == 8 else np.uint16
                plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value * scale, dtype).tobytes())
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            container.mux(stream.encode(frame))
            container.mux(stream.encode())

        y = luma / 255 if full else (luma - 16) / 219
        u, v = ((value - 128) / (255 if full else 224) for value in (blueness, redness))
        r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
        g = (y - red * r - blue * b) / (1 - red - blue)
        with opened(path) as reader:
            shown = reader.read([0]).pixels[0]
        assert np.ptp(shown, axis=(0, 1)).max() == 0
        # The quick path for 8 bits is what every decoder uses, and over two levels off.
        np.testing.assert_allclose(shown[0, 0], 255 * np.array([r, g, b]), atol=2.5 if depth == 8 else 1.1)


class TestFilesThatAreNotRead:
    def test_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "loose").symlink_to(tmp_path / "gone")
        for name in ("missing.mp4", "loose", "a\0b.mp4", "missing/a.mp4"):
            assert error_of(tmp_path / name) == ("not_found", "no such file")

    def test_not_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert error_of(tmp_path) == ("unreadable", "a folder, not a video file")
        kind, message = error_of(tmp_path / "pipe")
        assert kind == "unreadable"
        assert message == "a pipe, which can be read only once; write it to a file, and name that"

    def test_a_folder_without_rights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may do everything
        assert error_of(tmp_path) == ("unreadable", "a folder that cannot be listed (permission denied)")

    def test_a_pipe_of_the_shell(self) -> None:
        """Of `<(cat a.mp4)`, which a worker does not have."""
        assert error_of(Path("/dev/fd/987")) == ("unreadable", "a pipe of the shell; write it to a file, and name that")

    @pytest.mark.parametrize(
        ("name", "part"),
        [("a.webp", "a WebP image"), ("a.png", "(APNG)"), ("a.mjpeg", "raw MJPEG"), ("a.jpg", "a JPEG image")],
    )
    def test_animations_of_images_are_named(self, tmp_path: Path, name: str, part: str) -> None:
        """Under any name."""
        images = [Image.new("RGB", (32, 32), (level, 0, 0)) for level in (0, 255)]
        path = tmp_path / f"{name}.mp4"
        form = "JPEG" if part.endswith(("MJPEG", "JPEG image")) else name[2:].upper()
        images[0].save(path, form, **({} if form == "JPEG" else {"save_all": True, "append_images": images[1:]}))
        if name == "a.mjpeg":
            path.write_bytes(2 * path.read_bytes())
        kind, message = error_of(path)
        assert kind == "unsupported"
        assert part in message

    def test_raw_dv_is_named(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.dv"), "w", format="dv") as container:
            stream = container.add_stream("dvvideo", rate=25)
            stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
            container.mux(stream.encode(av.VideoFrame(720, 576, "yuv420p")))
        kind, message = error_of(tmp_path / "a.dv")
        assert kind == "unsupported"
        assert message.startswith("raw DV")

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
    def test_not_permitted(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "closed.mp4"
        path.write_bytes(b"")
        path.chmod(0)
        assert error_of(path) == ("unreadable", "permission denied")

    @pytest.mark.parametrize("content", [b"", b"hello, not a video\n" * 50, bytes(50_000), b"RIFF", b"\x1aE\xdf\xa3"])
    @pytest.mark.parametrize("decoder", ["pyav", "decord"])
    def test_no_video(self, tmp_path: Path, content: bytes, decoder: Decoder) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        kind, message = error_of(path, decoder)
        assert kind == "decode"
        assert "\n" not in message
        assert str(path) not in message

    def test_sound_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "sound.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        assert error_of(path) == ("no_video_stream", "no video stream; is it an audio file?")

    def test_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w", format="image2") as container:
            stream = container.add_stream("mjpeg")
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuvj420p")))
            container.mux(stream.encode())
        assert error_of(path)[0] == "unsupported"

    def test_codec_without_a_decoder(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(Path(make("short.mp4")).read_bytes().replace(b"avc1", b"zzzz"))
        kind, message = error_of(path)
        assert (kind, "no decoder" in message) == ("unsupported", True)

    @pytest.mark.parametrize("decoder", ["pyav", "decord"])
    def test_limits(self, make: Make, decoder: Decoder) -> None:
        assert 7680 * 4320 < Reading().max_pixels < 16000 * 16000
        path = make("short.mp4")
        kind, message = error_of(path, decoder, max_pixels=WIDTH * HEIGHT - 1)
        assert (kind, "192 x 64" in message) == ("too_large", True)
        kind, message = error_of(path, decoder, max_frames=FRAMES - 1)
        assert (kind, "`max_frames`" in message) == ("too_large", True)
        with opened(path, decoder, max_pixels=WIDTH * HEIGHT, max_frames=FRAMES) as reader:
            assert read_stamps(reader.read([7]).pixels) == [7]

    def test_more_frames_than_bytes(self, tmp_path: Path) -> None:
        path = write_video(
            tmp_path / "a.mov", [stamp(0)[:2, :2]] * 3, codec="rawvideo", options={}, pixel_format="gray"
        )
        content = path.read_bytes()
        # Where the number of samples stands, if all are alike (ISO/IEC 14496-12, 8.6 and 8.7).
        for box, offset in ((b"stts", 12), (b"stsz", 12), (b"stsc", 16)):
            place = content.index(box) + offset
            assert content[place : place + 4] == struct.pack(">I", 3)
            content = content[:place] + struct.pack(">I", 100_000) + content[place + 4 :]
        path.write_bytes(content)
        kind, message = error_of(path)
        assert (kind, "100,000 frames" in message) == ("too_large", True)

    @pytest.mark.parametrize(
        ("decoder", "hint"), [("decord", "pip install decord"), ("torchcodec", r"pip install 'timesformer-cli\[torchc")]
    )
    def test_missing_decoders(self, make: Make, monkeypatch: pytest.MonkeyPatch, decoder: Decoder, hint: str) -> None:
        monkeypatch.delitem(sys.modules, f"timesformer_cli.video.decoders.{decoder}", raising=False)
        for name in (decoder, f"{decoder}.decoders"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(TimesformerError, match=hint), opened(make("short.mp4"), decoder):
            pass


class TestNames:
    """A name is the name of a file, whatever FFmpeg would make of it."""

    @pytest.mark.parametrize(
        "name",
        ["-x.mp4", "a:b.mp4", "concat:a.mp4", "%03d.mp4", "file:a.mp4", "a b.MP4", "ünï 太.mp4", "plain", "http:"],
    )
    def test_awkward(self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        Path(name).write_bytes(Path(make("short.mp4")).read_bytes())
        for decoder in ("pyav", "decord"):
            with opened(name, decoder) as reader:
                assert read_stamps(reader.read([7]).pixels) == [7]

    def test_not_unicode(self, make: Make, tmp_path: Path) -> None:
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")
        Path(path).write_bytes(Path(make("short.mp4")).read_bytes())
        with opened(path) as reader:
            assert read_stamps(reader.read([7]).pixels) == [7]
        assert error_of(path, "decord")[0] == "unsupported"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1"><BaseURL>{url}</BaseURL>'
    "<SegmentBase/></Representation></AdaptationSet></Period></MPD>",
}


class TestPlaylists:
    """Files that name other files or addresses are refused, and nobody is called."""

    @pytest.fixture
    def listener(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            yield server

    @pytest.mark.parametrize("ending", ["mp4", "m3u8", "txt", "mpd", "sdp"])
    @pytest.mark.parametrize("kind", PLAYLISTS)
    @pytest.mark.parametrize("decoder", ["pyav", "decord"])
    def test_refused(
        self, tmp_path: Path, make: Make, listener: socket.socket, kind: str, ending: str, decoder: Decoder
    ) -> None:
        port = listener.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/a.mp4", make("short.mp4")):
            path = tmp_path / f"list.{ending}"
            path.write_text(PLAYLISTS[kind].format(url=url, port=port), encoding="utf-8")
            assert error_of(path, decoder)[0] in ("unsupported", "decode")
            # Without our own look at the first bytes, the whitelist alone must hold.
            with pytest.raises(VideoError):
                packets.open_container(str(path))
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_importing_loads_no_decoder() -> None:
    code = "import sys, timesformer_cli.video.reader; print({'av', 'decord'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


class TestStream:
    """Which of several video streams is the film."""

    PREVIEW = Track(1, first=900, scale=2)

    @staticmethod
    def first_stamp(path: Path, decoder: Decoder = "auto") -> int:
        with opened(path, decoder) as reader:
            return read_stamp(reader.read([0]).pixels[0])

    @pytest.mark.parametrize("ending", ["mov", "mkv", "ts"])
    def test_one_frame_goes_last(self, tmp_path: Path, ending: str) -> None:
        path = write_tracks(tmp_path / f"a.{ending}", self.PREVIEW, Track(20))
        with opened(path) as reader:
            assert (reader.info.num_frames, reader.info.width) == (20, WIDTH)
            assert read_stamps(reader.read([19, 3]).pixels) == [19, 3]
        assert error_of(path, "decord")[0] == "unsupported"

    def test_one_frame_goes_last_in_fragments(self, tmp_path: Path) -> None:
        """Their headers count no frames."""
        fragments = {"movflags": "frag_keyframe+empty_moov"}
        path = write_tracks(tmp_path / "a.mp4", self.PREVIEW, Track(20), muxer_options=fragments)
        assert self.first_stamp(path) == 0

    @pytest.mark.parametrize(("frames", "chosen"), [(1, 0), (2, 0), (3, 900)])
    def test_fewer_frames_than_one_in_a_hundred_go_last(self, tmp_path: Path, frames: int, chosen: int) -> None:
        path = write_tracks(tmp_path / "a.mkv", replace(self.PREVIEW, frames=frames), Track(201))
        assert self.first_stamp(path) == chosen

    @pytest.mark.parametrize(
        ("tracks", "chosen"),
        [
            ([Track(20, 0), Track(20, 100, scale=2)], 100),
            ([Track(20, 0), Track(20, 100, scale=2, default=False)], 0),
            ([Track(20, 0, default=False), Track(20, 100)], 100),
            ([Track(20, 0), Track(30, 100)], 100),
            ([Track(20, 0), Track(20, 100)], 0),
            ([Track(1, 0), Track(1, 100, scale=2)], 100),
        ],
        ids=["larger", "default before larger", "default", "longer", "first", "only single frames"],
    )
    def test_choice(self, tmp_path: Path, tracks: list[Track], chosen: int) -> None:
        assert self.first_stamp(write_tracks(tmp_path / "a.mkv", *tracks)) == chosen

    def test_after_reading_anew(self, tmp_path: Path) -> None:
        """A file whose frames must be counted is opened several times."""
        path = write_tracks(tmp_path / "a.ts", self.PREVIEW, Track(20))
        with opened(path) as reader:
            for plan in ([15], [2], [19, 0]):
                assert read_stamps(reader.read(plan).pixels) == plan

    def test_side_by_side(self, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mov", self.PREVIEW, Track(40))
        with opened(path, threads=3, min_shared_pixels=1) as reader:
            assert read_stamps(reader.read([1, 14, 26, 39]).pixels) == [1, 14, 26, 39]

    @staticmethod
    def container(*streams: tuple[int, int]) -> Any:
        """Streams of 300 x 300 pixels by (number, disposition)."""
        videos = [
            SimpleNamespace(
                width=300,
                height=300,
                disposition=d,
                index=i,
                frames=10,
                duration=1,
                time_base=1,
                codec_context=object(),
            )
            for i, d in streams
        ]
        name = SimpleNamespace(name="mov,mp4")
        return SimpleNamespace(streams=SimpleNamespace(video=videos), size=1000, format=name, metadata={})

    def test_no_cover(self) -> None:
        assert packets.choose_stream(self.container((0, 1024), (1, 0)), "a.mp4").index == 1
        with pytest.raises(VideoError, match="only a cover image") as caught:
            packets.choose_stream(self.container((0, 1024)), "a.mp4")
        assert caught.value.kind == "no_video_stream"


class TestPhotographs:
    """HEIC and AVIF, whose format is that of MP4."""

    @pytest.fixture
    def heic(self, make: Make, tmp_path: Path) -> bytes:
        return write_photograph(tmp_path / "a.heic", Path(make("hevc.mp4"))).read_bytes()

    @staticmethod
    def write_avif(path: Path, frames: int) -> Path:
        return write_video(path, frames, codec="libsvtav1", options={"preset": "12"})

    @pytest.mark.parametrize("name", ["photo.heic", "photo.mp4", "photo.mkv", "photo"])
    @pytest.mark.parametrize("decoder", ["auto", "decord"])
    def test_heic_under_any_name(self, heic: bytes, tmp_path: Path, name: str, decoder: Decoder) -> None:
        path = tmp_path / name
        path.write_bytes(heic)
        kind, message = error_of(path, decoder)
        assert (kind, "a photograph" in message) == ("unsupported", True)

    def test_with_a_codec_that_ffmpeg_does_not_know(self, heic: bytes, tmp_path: Path) -> None:
        path = tmp_path / "photo.mp4"
        path.write_bytes(heic.replace(b"hvc1", b"j2k1"))
        kind, message = error_of(path)
        assert (kind, "a photograph" in message) == ("unsupported", True)

    def test_avif(self, tmp_path: Path) -> None:
        kind, message = error_of(self.write_avif(tmp_path / "photo.avif", 1))
        assert (kind, "a photograph" in message) == ("unsupported", True)

    def test_animated_avif_is_a_video(self, tmp_path: Path) -> None:
        path = self.write_avif(tmp_path / "moving.avif", 10)
        with opened(path) as reader:
            assert reader.info.num_frames == 10
            assert read_stamps(reader.read([9, 0]).pixels) == [9, 0]
        assert error_of(path, "decord")[0] == "unsupported"

    def test_a_video_of_one_frame_is_no_photograph(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mov", 1, rate=1)
        with opened(path) as reader:
            assert reader.info.num_frames == 1


class TestStart:
    """When the first frame is shown, counted from the earliest start of any stream."""

    @pytest.mark.parametrize(("ending", "error"), [("mkv", 0), ("mp4", 0), ("avi", 0), ("flv", 0.07), ("ts", 0.07)])
    def test_late(self, tmp_path: Path, ending: str, error: float) -> None:
        """In some formats, the sound starts with 0.064 seconds that are not to be heard."""
        path = write_tracks(tmp_path / f"a.{ending}", Track(20, start=Fraction(31, 10)), sound=4)
        with opened(path) as reader:
            assert reader.info.start == pytest.approx(3.1, abs=error + 1e-9)
            assert reader.info.times[0] == 0
            assert read_stamps(reader.read([0, 19]).pixels) == [0, 19]

    @pytest.mark.parametrize("ending", ["mkv", "mp4", "avi", "flv", "ts"])
    def test_without_sound(self, tmp_path: Path, ending: str) -> None:
        with opened(write_tracks(tmp_path / f"a.{ending}", Track(20))) as reader:
            assert reader.info.start == 0

    def test_of_two_streams_of_video(self, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mkv", Track(20, start=Fraction(2)), Track(20, scale=2, start=Fraction(5)))
        with opened(path) as reader:
            assert reader.info.start == pytest.approx(3)

    @pytest.mark.parametrize("ending", ["mkv", "ts", "flv"])
    def test_cut_inside_a_group_of_pictures(self, tmp_path: Path, ending: str) -> None:
        """Frames 5 to 11 cannot be shown: the key frame before them is missing."""
        whole = write_video(tmp_path / f"whole.{ending}", 30, options={**SHORT_GOP, "bf": "0"})
        path = tmp_path / f"cut.{ending}"
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in [packet for packet in source.demux(video=0) if packet.size][5:]:
                packet.stream = stream
                target.mux(packet)
        with opened(path) as reader:
            assert read_stamps(reader.read([0, 17]).pixels) == [12, 29]
            assert reader.info.start == pytest.approx(7 / 30, abs=0.002)

    @staticmethod
    def file(name: str, *streams: tuple[str, int | None, int]) -> Any:
        """Streams by (type, start in milliseconds, disposition)."""
        found = [
            SimpleNamespace(
                index=index, type=kind, start_time=start, time_base=Fraction(1, 1000), disposition=disposition, frames=9
            )
            for index, (kind, start, disposition) in enumerate(streams)
        ]

        class Streams(list[Any]):
            video = tuple(stream for stream in found if stream.type == "video")

        return SimpleNamespace(format=SimpleNamespace(name=name), streams=Streams(found))

    @pytest.mark.parametrize(
        ("name", "streams", "expected"),
        [
            ("matroska,webm", [("video", 3000, 0), ("audio", 1000, 0)], 1),
            ("matroska,webm", [("video", 3000, 0), ("subtitle", 500, 0)], 0.5),
            ("mov,mp4", [("video", 9000, 0), ("video", 0, 1024)], 9),  # a cover has no time
            ("mpegts", [("video", 3000, 0), ("data", 2500, 0)], 2.5),
            ("mpegts", [("video", 3000, 0), ("data", 500, 0)], 3),
            ("mpegts", [("video", None, 0), ("audio", -2000, 0)], -2),
            ("h264", [("video", None, 0)], None),
        ],
    )
    def test_earliest(self, name: str, streams: list[tuple[str, int | None, int]], expected: float | None) -> None:
        assert packets.earliest_start(self.file(name, *streams)) == expected


class TestCases:
    """Files of these kinds from reports."""

    def test_preview(self, shared_cases: Path) -> None:
        with opened(shared_cases / "bigthumb.mov") as reader:
            assert (reader.info.num_frames, reader.info.width, reader.info.height) == (120, 160, 90)

    def test_late(self, shared_cases: Path) -> None:
        with opened(shared_cases / "late.mkv") as reader:
            assert reader.info.start == pytest.approx(3.128)

    def test_photograph(self, shared_cases: Path) -> None:
        assert error_of(shared_cases / "photo.heic")[0] == "unsupported"
