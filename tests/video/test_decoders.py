"""The readers beneath `open_video`: the work they do, what they read from, their limits, and torchcodec."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from testing.encodings import FRAMES, PLAN, RECIPES, X265
from testing.stamped import LONG_GOP, Track, read_stamps, stamp, write_tracks, write_video
from timesformer_cli.errors import VideoError
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders import packets, pyav
from timesformer_cli.video.decoders.decord import DecordReader
from timesformer_cli.video.decoders.frame_index import Numbering
from timesformer_cli.video.decoders.nal_units import in_lowest_layer, starts_afresh, starts_whole
from timesformer_cli.video.decoders.pyav import PyavReader, _Cursor
from timesformer_cli.video.decoders.rgb import Converter
from timesformer_cli.video.decoders.support import failed

Make = Callable[[str], str]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Encodes a recipe at its first use and returns the file's path."""
    folder = tmp_path_factory.mktemp("decoders")

    def once(name: str) -> str:
        path = folder / name
        if not path.exists():
            write_video(path, FRAMES, **RECIPES[name][0])
        return str(path)

    return once


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """One entry for each time the decoder is asked: whether with a packet, and how many pictures came out."""
    entries: list[tuple[bool, int]] = []
    decoded = _Cursor._decoded

    def counted(cursor: _Cursor, packet: Any) -> Any:
        pictures = decoded(cursor, packet)
        entries.append((packet is not None, len(pictures)))
        return pictures

    monkeypatch.setattr(_Cursor, "_decoded", counted)
    return entries


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each picture that is converted to RGB."""
    entries: list[int] = []
    picture = PyavReader._picture

    def counted(reader: PyavReader, frame: av.VideoFrame, converter: Converter) -> Any:
        entries.append(1)
        return picture(reader, frame, converter)

    monkeypatch.setattr(PyavReader, "_picture", counted)
    return entries


LENGTH = 1000
SPREAD = np.linspace(130, LENGTH - 1, 8).astype(int).tolist()


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> str:
    options = {**LONG_GOP, "g": "100", "keyint_min": "100"}
    return str(write_video(tmp_path_factory.mktemp("long") / "long.mp4", LENGTH, options=options))


def packets_from_keys(path: str, plan: list[int]) -> int:
    """How many packets lie from the key frame before it up to each frame, both included."""
    with av.open(path) as container:
        found = [(packet.pts or 0, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    total = 0
    for number in plan:
        place = [pts for pts, _ in found].index(sorted(pts for pts, _ in found)[number])
        total += place + 1 - max(at for at, (_, key) in enumerate(found[: place + 1]) if key)
    return total


class TestOnlyTheNeededWork:
    def test_packets_from_key_frames_to_wanted_ones(
        self, long: str, work: list[tuple[bool, int]], converted: list[int]
    ) -> None:
        needed = packets_from_keys(long, SPREAD)
        assert needed < LENGTH / 2
        reader = PyavReader(long)
        work.clear()
        assert read_stamps(reader.read(SPREAD).pixels) == SPREAD
        # The last frame comes out some packets late.
        assert needed <= sum(fed for fed, _ in work) <= needed + 3
        # Of the others, those that nothing refers to are not decoded, and none is converted.
        assert sum(pictures for _, pictures in work) < 0.8 * needed
        assert len(converted) == len(SPREAD)
        reader.close()

    def test_goes_on_from_where_it_stands(self, long: str, work: list[tuple[bool, int]]) -> None:
        reader = PyavReader(long)
        reader.read([250])
        work.clear()
        assert read_stamps(reader.read([260, 270]).pixels) == [260, 270]
        assert len(work) <= 22
        work.clear()
        assert read_stamps(reader.read([295, 302]).pixels) == [295, 302]
        assert len(work) <= 25 + 3 + 3 + 2
        reader.close()

    def test_first_frame_is_decoded_once(self, make: Make, work: list[tuple[bool, int]]) -> None:
        reader = PyavReader(make("short.mp4"))
        work.clear()
        assert read_stamps(reader.read([0, 0]).pixels) == [0, 0]
        assert work == []
        reader.close()

    @pytest.mark.parametrize("name", ["short.avi", "raw.h264", "still.gif"])
    def test_what_is_counted_is_decoded_once(self, make: Make, name: str, work: list[tuple[bool, int]]) -> None:
        kept = PyavReader(make(name))
        assert sum(pictures for _, pictures in work) >= FRAMES
        work.clear()
        assert read_stamps(kept.read(PLAN).pixels) == PLAN
        assert work == []
        # A few pictures, and then one too many.
        dropped = PyavReader(make(name), Reading(max_kept_bytes=100_000))
        assert dropped._kept == {}
        np.testing.assert_array_equal(dropped.read(PLAN).pixels, kept.read(PLAN).pixels)
        kept.close()
        dropped.close()

    @pytest.mark.parametrize(
        ("wanted", "runs"),
        [
            ([], []),
            ([2, 3], [(0, [2, 3])]),
            ([2, 6], [(0, [2]), (4, [6])]),
            ([3, 4], [(0, [3, 4])]),  # the key is the packet that comes next anyway
            ([5, 9], [(4, [5]), (7, [9])]),
            ([7, 9], [(4, [7, 9])]),
            ([1, 6, 8, 11], [(0, [1]), (4, [6, 8, 11])]),
        ],
    )
    def test_runs(self, wanted: list[int], runs: list[tuple[int, list[int]]]) -> None:
        """Key packets 0, 4 and 7; the last is open: frame 7 comes behind it and needs what was before."""
        place = np.array([0, 1, 2, 3, 4, 5, 6, 8, 7, 9, 10, 11])
        start = np.repeat([0, 4, 7], 4)
        assert Numbering(np.arange(12), place, start).runs(wanted) == runs


def shared(threads: int) -> Reading:
    """So many threads, however little there is to do."""
    return Reading(threads=threads, min_shared_pixels=1)


class TestSideBySide:
    """Several threads, where there is enough to do: the pictures of one, bit for bit."""

    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """One entry for each time that a file is opened."""
        entries: list[object] = []
        open_container = packets.open_container

        def counted(source: Any, reading: Reading) -> Any:
            entries.append(source)
            return open_container(source, reading)

        monkeypatch.setattr(pyav, "open_container", counted)
        return entries

    @pytest.mark.parametrize("threads", [2, 3, 20])
    def test_long(self, long: str, opened: list[object], threads: int) -> None:
        reader = PyavReader(long, shared(threads))
        assert read_stamps(reader.read(SPREAD).pixels) == SPREAD
        assert len(opened) == 1 + min(threads, len(SPREAD))
        assert read_stamps(reader.read([999, 3, 500]).pixels) == [999, 3, 500]
        reader.close()

    @pytest.mark.parametrize("name", RECIPES)
    def test_all_kinds(self, make: Make, opened: list[object], name: str) -> None:
        alone, several = PyavReader(make(name)), PyavReader(make(name), shared(4))
        for plan in (PLAN, [FRAMES - 1, 0, FRAMES // 2, 0], list(range(FRAMES))):
            ours, theirs = several.read(plan), alone.read(plan)
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            np.testing.assert_array_equal(ours.times, theirs.times)
        assert several._shortcuts == alone._shortcuts
        alone.close()
        several.close()

    @pytest.mark.parametrize(("damaged", "needed"), [(105, True), (460, False), (700, True)])
    def test_damage(self, tmp_path: Path, long: str, opened: list[object], damaged: int, needed: bool) -> None:
        """Whichever thread comes upon it, all is read anew, through the damage, as one thread does."""
        with av.open(long) as container:
            places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
        content = bytearray(Path(long).read_bytes())
        start, size = places[damaged]
        content[start + size // 3 : start + size] = bytes(size - size // 3)
        path = tmp_path / "damaged.mp4"
        path.write_bytes(content)
        alone, several = PyavReader(str(path)), PyavReader(str(path), shared(3))
        np.testing.assert_array_equal(several.read(SPREAD).pixels, alone.read(SPREAD).pixels)
        assert several._shortcuts == alone._shortcuts == (not needed)
        alone.close()
        several.close()

    def test_not_for_little_work(self, long: str, opened: list[object]) -> None:
        with contextlib.closing(PyavReader(long, Reading(threads=4))) as reader:
            assert read_stamps(reader.read(SPREAD).pixels) == SPREAD
        assert len(opened) == 1

    @pytest.mark.parametrize(("missing", "threads"), [(0, 2), (1, 0)])
    def test_not_for_pictures_of_which_memory_holds_few(
        self, long: str, opened: list[object], missing: int, threads: int
    ) -> None:
        with av.open(long) as container:
            size = container.streams.video[0].width * container.streams.video[0].height
        reading = replace(shared(4), max_decoder_bytes=2 * 48 * size - missing)
        with contextlib.closing(PyavReader(long, reading)) as reader:
            assert read_stamps(reader.read(SPREAD).pixels) == SPREAD
            assert len(opened) == 1 + threads

    def test_not_for_file_objects(self, long: str, opened: list[object]) -> None:
        with open(long, "rb") as file, contextlib.closing(PyavReader(file, shared(4))) as reader:
            assert read_stamps(reader.read(SPREAD).pixels) == SPREAD
        assert len(opened) == 1

    @pytest.mark.parametrize("error", [MemoryError(), VideoError("decode", "gone")])
    def test_what_a_thread_raises(self, long: str, opened: list[object], error: Exception) -> None:
        with contextlib.closing(PyavReader(long, shared(4))) as reader:

            def put(*_: object) -> None:
                raise error

            assert reader._numbering is not None
            with pytest.raises(type(error)):
                reader._read_runs(reader._numbering, SPREAD, put)
            assert read_stamps(reader.read(SPREAD).pixels) == SPREAD


class TestLayers:
    """In HEVC a picture that nothing of its own temporal layer refers to may be wanted by a higher one."""

    def test_left_out_in_one_layer_alone(self, tmp_path: Path, work: list[tuple[bool, int]]) -> None:
        made = []
        for extra in ("", ":temporal-layers=3:b-pyramid=1"):
            options = {
                **X265,
                "x265-params": X265["x265-params"].replace("bframes=3", "rc-lookahead=10:bframes=7") + extra,
            }
            path = write_video(tmp_path / f"{len(extra)}.mp4", 60, codec="libx265", options=options)
            reader = PyavReader(str(path))
            work.clear()
            assert read_stamps(reader.read([22, 23, 35]).pixels) == [22, 23, 35]
            fed, pictures = (sum(column) for column in zip(*work, strict=True))
            made.append((reader._packets.spare, pictures / fed))
            reader.close()
        assert made[0][0]
        assert not made[1][0]
        assert made[0][1] < 0.7 < made[1][1]

    @pytest.mark.parametrize("name", ["hevc.mp4", "hevc_open.mp4", "mpeg2.mpg", "mpeg2.ts"])
    def test_same_pictures(self, make: Make, name: str) -> None:
        through, short = PyavReader(make(name)), PyavReader(make(name))
        assert short._packets.spare
        through._shortcuts = False
        for number in range(0, FRAMES, 7):
            np.testing.assert_array_equal(short.read([number]).pixels, through.read([number]).pixels)
        assert short._shortcuts
        through.close()
        short.close()


def packet_of(*units: bytes, start_codes: bool = False) -> Any:
    return b"".join((b"\0\0\1" if start_codes else len(unit).to_bytes(4, "big")) + unit for unit in units)


def stream_of(codec: str, *, lengths: bool = True) -> Any:
    extradata = b"\1" + bytes(20) + b"\xff" if codec == "hevc" else b"\1\0\0\0\xff"
    return SimpleNamespace(codec_context=SimpleNamespace(name=codec, extradata=extradata if lengths else None))


class TestUnits:
    """First bytes of units: H.264's type is in five bits, HEVC's in six, before the layer."""

    @pytest.mark.parametrize("start_codes", [False, True])
    @pytest.mark.parametrize(
        ("units", "afresh", "whole"),
        [
            ([b"\x67ab", b"\x65ab"], True, True),  # parameters, IDR
            ([b"\x61ab"], False, False),  # a slice of another picture
            ([b"\x06\x06\x01\x80", b"\x61ab"], False, True),  # a recovery point, here and now
            ([b"\x06\x06\x01\x28", b"\x61ab"], False, False),  # in some pictures' time
            ([b"\x06\x05\x01\x80", b"\x61ab"], False, False),  # a remark of another kind
            ([], False, False),
        ],
    )
    def test_h264(self, units: list[bytes], afresh: bool, whole: bool, start_codes: bool) -> None:
        packet, stream = packet_of(*units, start_codes=start_codes), stream_of("h264", lengths=not start_codes)
        assert (starts_afresh(packet, stream), starts_whole(packet, stream)) == (afresh, whole)

    @pytest.mark.parametrize(
        ("kind", "layer", "afresh", "whole", "lowest"),
        [
            (19, 1, True, True, True),
            (21, 1, False, True, True),
            (1, 1, False, False, True),
            (0, 2, False, False, False),
        ],
    )
    def test_hevc(self, kind: int, layer: int, afresh: bool, whole: bool, lowest: bool) -> None:
        # A parameter set says nothing of the picture, whatever its layer.
        packet, stream = packet_of(bytes([33 << 1, 3, 0]), bytes([kind << 1, layer, 0])), stream_of("hevc")
        assert (starts_afresh(packet, stream), starts_whole(packet, stream)) == (afresh, whole)
        assert in_lowest_layer(packet, stream) == lowest

    @pytest.mark.parametrize("packet", [bytes(1000), b"\0\0\0\xff\x65", b"\0\0\0\x05", b""])
    def test_nonsense_ends(self, packet: Any) -> None:
        assert not starts_afresh(packet, stream_of("h264")) or packet[4:] == b"\x65"
        starts_whole(packet, stream_of("hevc"))


class CountedFile(io.RawIOBase):
    """A file object that counts what is read from it, and reads zeros in `mdat` while it is skimmed."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.content = Path(path).read_bytes()
        self.position = self.count = 0
        self.zeros = False
        start = self.content.find(b"mdat") + 4
        length = int.from_bytes(self.content[start - 8 : start - 4], "big")
        self.media = (start, start - 8 + length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.position = (0, self.position, len(self.content))[whence] + offset
        return self.position

    def readinto(self, buffer: Any, /) -> int:
        stop = min(self.position + len(buffer), len(self.content))
        data = bytearray(self.content[self.position : stop])
        if self.zeros:
            start, end = (min(max(edge - self.position, 0), len(data)) for edge in self.media)
            data[start:end] = bytes(end - start)
            self.count -= end - start
        buffer[: len(data)] = data
        self.count += len(data)
        self.position = max(stop, self.position)
        return len(data)

    @contextlib.contextmanager
    def skimming(self) -> Iterator[None]:
        self.zeros = True
        try:
            yield
        finally:
            self.zeros = False


class TestFileObjects:
    @pytest.mark.parametrize("name", ["short.mp4", "refresh.mp4", "fragments.mp4", "vp8.webm", "short.ts", "short.avi"])
    def test_same_as_the_path(self, make: Make, name: str) -> None:
        file = io.BytesIO(Path(make(name)).read_bytes())
        for position in (0, 1234):
            file.seek(position)
            reader = PyavReader(file)
            assert read_stamps(reader.read(PLAN).pixels) == PLAN
            assert read_stamps(reader.read([5, 2]).pixels) == [5, 2]
            reader.close()
        assert not file.closed

    @pytest.mark.parametrize("name", ["short.mp4", "open.mp4", "fragments.mp4", "hevc.mp4", "av1.mkv", "short.ts"])
    def test_skimmed(self, make: Make, name: str) -> None:
        """The index alone says as much as the whole file, but for what nothing refers to in HEVC."""
        whole, skimmed = PyavReader(make(name)), PyavReader(CountedFile(make(name)))  # type: ignore[arg-type]
        for field in ("pts", "key", "hidden"):
            np.testing.assert_array_equal(getattr(skimmed._packets, field), getattr(whole._packets, field))
        np.testing.assert_array_equal(skimmed.read(PLAN).pixels, whole.read(PLAN).pixels)
        assert skimmed._shortcuts
        assert skimmed._packets.spare == (whole._packets.spare and name != "hevc.mp4")
        whole.close()
        skimmed.close()

    def test_little_is_read(self, tmp_path: Path) -> None:
        pictures = np.random.default_rng(0).integers(0, 256, (40, 192, 256, 3), np.uint8)
        noise = write_video(tmp_path / "noise.mp4", pictures, options={"preset": "ultrafast", "crf": "15", "g": "10"})
        size = noise.stat().st_size
        assert size > 1_000_000
        file = CountedFile(str(noise))
        reader = PyavReader(file)  # type: ignore[arg-type]
        assert np.flatnonzero(reader._packets.key).tolist() == [0, 10, 20, 30]
        reader.read([33])
        reader.close()
        assert file.count < size / 3
        # The control, which does not know of skimming, is read to its end.
        file = CountedFile(str(noise))
        reader = PyavReader(io.BufferedReader(file))
        reader.close()
        assert file.count >= size

    def test_errors_of_the_file_pass_through(self, make: Make) -> None:
        class Broken(CountedFile):
            def readinto(self, buffer: Any, /) -> int:
                if self.position < 1000 or self.zeros:
                    return super().readinto(buffer)
                self.content = self.content[:1000]
                raise VideoError("unreadable", "the line is dead")

        with pytest.raises(VideoError, match="the line is dead"):
            PyavReader(Broken(make("short.mkv")))  # type: ignore[arg-type]

    @pytest.mark.parametrize("ending", ["mp4", "mkv"])
    def test_the_film_of_two_streams(self, tmp_path: Path, ending: str) -> None:
        path = write_tracks(tmp_path / f"a.{ending}", Track(1, 900, scale=2), Track(20))
        for file in (io.BytesIO(path.read_bytes()), *([CountedFile(str(path))] if ending == "mp4" else [])):
            reader = PyavReader(file)  # type: ignore[arg-type]
            assert read_stamps(reader.read([19, 0]).pixels) == [19, 0]
            reader.close()

    def test_counting_frames_leaves_the_place(self, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mkv", Track(20), Track(20, scale=2))
        file = io.BytesIO(path.read_bytes())
        with packets.open_container(file) as container:
            file.seek(1234)
            extents = packets._extents(container, list(container.streams.video), file, Reading())
            assert [extents[number].frames for number in (0, 1)] == [20, 20]
            assert file.tell() == 1234

    def test_playlists_are_refused(self, make: Make) -> None:
        text = f"ffconcat version 1.0\nfile '{make('short.mp4')}'\n"
        with pytest.raises(VideoError) as caught:
            PyavReader(io.BytesIO(text.encode()))
        assert caught.value.kind in ("unsupported", "decode")

    def test_only_local_files(self, make: Make) -> None:
        with pytest.raises(VideoError, match="only local files") as caught:
            DecordReader(io.BytesIO(Path(make("short.mp4")).read_bytes()))
        assert caught.value.kind == "unsupported"


class TestConversion:
    """As ffmpeg's command line converts, which PyAV's own conversion does not quite."""

    @pytest.mark.parametrize("interlaced", [False, True])
    def test_interlaced_pictures_like_others(self, tmp_path: Path, interlaced: bool) -> None:
        planes = np.random.default_rng(0).integers(16, 235, (96, 64), np.uint8)
        path = tmp_path / "noise.mp4"
        with av.open(str(path), "w") as container:
            options = {"qp": "0", "x264-params": "tff=1" if interlaced else "bframes=0"}
            stream = container.add_stream("libx264", options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
            container.mux(stream.encode())
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        np.testing.assert_array_equal(frame.to_ndarray(), planes)
        assert frame.interlaced_frame == interlaced
        reader = PyavReader(str(path))
        shown = reader.read([0]).pixels[0]
        reader.close()
        bare = Converter().rgb(av.VideoFrame.from_ndarray(planes, format="yuv420p"), 64, 64)
        np.testing.assert_array_equal(shown, bare)
        assert np.array_equal(frame.to_ndarray(format="rgb24"), bare) != interlaced

    def test_one_after_another(self) -> None:
        """Other sizes, formats and matrices in between leave no trace."""
        rng = np.random.default_rng(0)
        frames = [
            av.VideoFrame.from_ndarray(rng.integers(0, 255, shape, np.uint8), format=name)
            for shape, name in (
                ((48, 32, 3), "rgb24"),
                ((48, 32), "yuv420p"),
                ((24, 16), "gray"),
                ((48, 32), "yuv420p"),
            )
        ]
        frames[3].colorspace = 1
        converter = Converter()
        for _ in range(2):
            for frame in frames:
                np.testing.assert_array_equal(converter.rgb(frame, 32, 32), Converter().rgb(frame, 32, 32))
        assert not np.array_equal(Converter().rgb(frames[1], 32, 32), Converter().rgb(frames[3], 32, 32))

    def test_what_cannot_be_converted(self) -> None:
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        with pytest.raises(VideoError, match="rgb24 cannot be converted"):
            Converter().rgb(frame, 2**30, 2**30)


class TestLimits:
    @pytest.mark.parametrize("reader", [PyavReader, DecordReader])
    def test_pixels(self, make: Make, reader: Callable[..., Any]) -> None:
        with pytest.raises(VideoError, match=r"192 x 64 = 12,288 pixels; `max_pixels` is 12,287") as caught:
            reader(make("short.mp4"), Reading(max_pixels=192 * 64 - 1))
        assert caught.value.kind == "too_large"
        reader(make("short.mp4"), Reading(max_pixels=192 * 64)).close()

    @pytest.mark.parametrize("reader", [PyavReader, DecordReader])
    def test_frames(self, make: Make, reader: Callable[..., Any]) -> None:
        with pytest.raises(VideoError, match=r"more frames than `max_frames`, which is 59") as caught:
            reader(make("short.mp4"), Reading(max_frames=FRAMES - 1))
        assert caught.value.kind == "too_large"
        reader(make("short.mp4"), Reading(max_frames=FRAMES)).close()

    def test_stops_at_the_first_one_too_many(self) -> None:
        taken = []

        def demux(stream: Any) -> Iterator[Any]:
            for number in range(100):
                taken.append(number)
                flags = dict.fromkeys(("is_keyframe", "is_discard", "is_corrupt"), False)
                yield SimpleNamespace(size=1, pts=number, has_sidedata=lambda name: False, **flags)

        stream: Any = SimpleNamespace(codec_context=SimpleNamespace(name="h264"))
        with pytest.raises(VideoError, match="`max_frames`"):
            packets.read_packets(SimpleNamespace(demux=demux), stream, 10)  # type: ignore[arg-type]
        assert len(taken) == 11


class TestMemory:
    """FFmpeg's want of memory is one of its errors and a MemoryError; only the latter may be made of it."""

    NO_MEMORY = av.error.MemoryError(12, "Cannot allocate memory")

    def test_at_opening(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise self.NO_MEMORY

        monkeypatch.setattr(av, "open", fail)
        with pytest.raises(MemoryError):
            PyavReader("a.mp4")

    @pytest.mark.parametrize("method", ["demux", "seek", "decode"])
    def test_later(self, make: Make, method: str) -> None:
        reader = PyavReader(make("short.mp4"))

        def fail(*args: Any, **kwargs: Any) -> Any:
            raise self.NO_MEMORY

        def failing(*args: Any, **kwargs: Any) -> Iterator[Any]:
            raise self.NO_MEMORY
            yield

        cursor = reader._cursor
        if method == "decode":
            cursor._context = SimpleNamespace(decode=fail)  # type: ignore[assignment]
        else:
            replacements = {"seek": lambda *a, **k: None, "demux": failing} | (
                {"seek": fail} if method == "seek" else {}
            )
            cursor._container = SimpleNamespace(**replacements)  # type: ignore[assignment]
        with pytest.raises(MemoryError):
            reader.read([40])
        reader.close()

    def test_among_packets(self) -> None:
        def demux(stream: Any) -> Iterator[Any]:
            raise self.NO_MEMORY
            yield

        stream: Any = SimpleNamespace(codec_context=SimpleNamespace(name="h264"))
        with pytest.raises(MemoryError):
            packets.read_packets(SimpleNamespace(demux=demux), stream, 10)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            ("std::bad_alloc", MemoryError),
            ("DefaultCPUAllocator: can't allocate memory: you tried", MemoryError),
            ("Cannot allocate memory", MemoryError),
            ("Invalid data found", VideoError),
        ],
    )
    def test_of_other_libraries(self, words: str, kind: type[Exception]) -> None:
        assert type(failed(RuntimeError(words), "cannot")) is kind


REFUSED = ("refresh.mp4", "short.ts", "short.avi", "raw.h264", "mpeg4_b.avi", "mpeg2.mpg", "mpeg2.ts")


class TestTorchcodec:
    """Each recipe is either shown as PyAV does or refused."""

    @pytest.mark.parametrize("name", [name for name in RECIPES if name not in REFUSED])
    def test_same_frames(self, make: Make, name: str, torchcodec: Callable[..., Any]) -> None:
        ours, theirs = PyavReader(make(name)), torchcodec(make(name))
        expected, frames = ours.read(PLAN), theirs.read(PLAN)
        assert read_stamps(frames.pixels) == PLAN
        np.testing.assert_array_equal(frames.times, expected.times)
        np.testing.assert_allclose(frames.pixels.astype(int), expected.pixels.astype(int), atol=1)
        assert theirs.read([]).pixels.shape == (0, *expected.pixels.shape[1:])
        for number in (-1, FRAMES):
            with pytest.raises(IndexError):
                theirs.read([0, number])
        ours.close()
        theirs.close()

    @pytest.mark.parametrize("name", REFUSED)
    def test_refused(self, make: Make, name: str, torchcodec: Callable[..., Any]) -> None:
        with pytest.raises(VideoError, match=r"try `decoder=pyav`$") as caught:
            torchcodec(make(name))
        assert caught.value.kind == "unsupported"

    def test_odd_size(self, tmp_path: Path, torchcodec: Callable[..., Any]) -> None:
        pictures = [stamp(number)[:63, :161] for number in range(20)]
        path = str(write_video(tmp_path / "odd.webm", pictures, **RECIPES["vp9.webm"][0]))
        video, reader = torchcodec(path), PyavReader(path)
        assert (reader.info.width, reader.info.height) == (161, 63)
        np.testing.assert_array_equal(video.read([3, 17]).pixels, reader.read([3, 17]).pixels)
        video.close()
        reader.close()
        with pytest.raises(VideoError, match="odd size"):
            DecordReader(path)

    def test_other_times_are_refused(self, make: Make, torchcodec: Callable[..., Any]) -> None:
        """As a library that counts frames otherwise would show."""
        video = torchcodec(make("short.mp4"))
        get = video._video.get_frames_at
        video._video = SimpleNamespace(
            get_frames_at=lambda numbers: get([number + 1 for number in numbers]), metadata=video._video.metadata
        )
        with pytest.raises(VideoError, match="different times"):
            video.read([5])

    def test_the_film_of_two_streams(self, tmp_path: Path, torchcodec: Callable[..., Any]) -> None:
        path = write_tracks(tmp_path / "two.mkv", Track(1, 900, scale=3), Track(20, 100), Track(20, 200, scale=2))
        video = torchcodec(str(path))
        assert read_stamps(video.read([3, 17]).pixels) == [203, 217]
        video.close()

    def test_late(self, tmp_path: Path, torchcodec: Callable[..., Any]) -> None:
        path = write_tracks(tmp_path / "late.mkv", Track(20, start=Fraction(31, 10)), sound=4)
        for reader in (torchcodec(str(path)), DecordReader(str(path))):
            assert reader.info.start == pytest.approx(3.1)
            assert read_stamps(reader.read([0, 19]).pixels) == [0, 19]
            reader.close()

    def test_photographs(self, tmp_path: Path, torchcodec: Callable[..., Any]) -> None:
        path = write_video(tmp_path / "moving.avif", 10, codec="libsvtav1", options={"preset": "12"})
        with pytest.raises(VideoError, match="a photograph beside the video") as caught:
            torchcodec(str(path))
        assert caught.value.kind == "unsupported"

    def test_limits(self, make: Make, torchcodec: Callable[..., Any]) -> None:
        for reading in (Reading(max_pixels=1000), Reading(max_frames=10)):
            with pytest.raises(VideoError) as caught:
                torchcodec(make("short.mp4"), reading)
            assert caught.value.kind == "too_large"
        with pytest.raises(VideoError, match="only local files"):
            torchcodec(io.BytesIO(Path(make("short.mp4")).read_bytes()))
