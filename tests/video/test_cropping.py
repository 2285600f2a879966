"""The cropping that a container states: read, applied, and left to PyAV alone."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from testing.cropped import with_aperture, write_cropped
from testing.stamped import HEIGHT, WIDTH, Pixels, read_stamps, stamp, write_video
from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.cropping import Cropping, stated_croppings
from timesformer_cli.video.decoders.decord import DecordReader
from timesformer_cli.video.decoders.pyav import PyavReader
from timesformer_cli.video.facts import read_facts
from timesformer_cli.video.reader import open_video

TOP, BOTTOM, LEFT, RIGHT = 40, 8, 16, 48
STORED = (WIDTH + LEFT + RIGHT, HEIGHT + TOP + BOTTOM)
# The stamp is not in the middle: its centre lies to the left of that of the frame, and below it.
APERTURE = (WIDTH, 1, HEIGHT, 1, (LEFT - RIGHT) // 2, 1, (TOP - BOTTOM) // 2, 1)
CROPPING = Cropping(LEFT, RIGHT, TOP, BOTTOM)


def framed(number: int) -> Pixels:
    """A stamp in a frame that makes it unreadable if it is not cut off."""
    picture = np.full((STORED[1], STORED[0], 3), 255, np.uint8)
    picture[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = stamp(number)
    return picture


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("cropped")
    pictures = list(map(framed, range(20)))
    files = {ending: write_cropped(folder / f"{ending}.{ending}", pictures, APERTURE) for ending in ("mkv", "mp4")}
    return files.__getitem__


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
class TestReading:
    def test_shows_what_is_left(self, cropped: Callable[[str], Path], ending: str) -> None:
        with open_video(Item(str(cropped(ending)))) as reader:
            assert (reader.info.width, reader.info.height) == (WIDTH, HEIGHT)
            pixels = reader.read([0, 19, 7]).pixels
        assert read_stamps(pixels) == [0, 19, 7]
        with av.open(str(cropped(ending))) as container:
            first = next(container.decode(video=0)).to_ndarray(format="rgb24")
        np.testing.assert_array_equal(pixels[0], first[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH])

    def test_of_file_objects(self, cropped: Callable[[str], Path], ending: str) -> None:
        reader = PyavReader(io.BytesIO(cropped(ending).read_bytes()))
        assert read_stamps(reader.read([3, 19]).pixels) == [3, 19]
        reader.close()

    def test_side_by_side(self, cropped: Callable[[str], Path], ending: str) -> None:
        reader = PyavReader(str(cropped(ending)), Reading(threads=2, min_shared_pixels=1))
        assert read_stamps(reader.read([1, 14, 19]).pixels) == [1, 14, 19]
        reader.close()

    def test_decord_refuses(self, cropped: Callable[[str], Path], ending: str) -> None:
        with pytest.raises(VideoError, match="cropped by the container; try `decoder=pyav`") as caught:
            DecordReader(str(cropped(ending)))
        assert caught.value.kind == "unsupported"

    def test_torchcodec_refuses(
        self, cropped: Callable[[str], Path], ending: str, torchcodec: Callable[..., Any]
    ) -> None:
        with pytest.raises(VideoError, match="cropped by the container; try `decoder=pyav`") as caught:
            torchcodec(str(cropped(ending)))
        assert caught.value.kind == "unsupported"

    def test_facts(self, cropped: Callable[[str], Path], ending: str) -> None:
        facts = read_facts(Item(str(cropped(ending))), Reading())
        assert facts is not None
        assert facts.read is not None
        assert (facts.read.width, facts.read.height, facts.read.cropping) == (*STORED, CROPPING)


def test_cropped_before_it_is_turned(tmp_path: Path) -> None:
    turn = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    pictures = [np.rot90(framed(number)) for number in range(3)]
    # Turned to the left, the right edge is at the top.
    height, width = STORED[0], STORED[1]
    aperture = (HEIGHT, 1, WIDTH, 1, (TOP - BOTTOM) // 2, 1, (RIGHT - LEFT) // 2, 1)
    path = write_cropped(tmp_path / "a.mp4", pictures, aperture, matrix=turn)
    with open_video(Item(str(path))) as reader:
        assert (reader.info.width, reader.info.height) == (WIDTH, HEIGHT)
        assert read_stamps(reader.read([0, 2]).pixels) == [0, 2]
    facts = read_facts(Item(str(path)), Reading())
    assert facts is not None
    assert facts.read is not None
    assert (facts.read.width, facts.read.height) == (width, height)
    assert facts.read.cropping == Cropping(TOP, BOTTOM, RIGHT, LEFT)


def croppings(content: bytes) -> dict[int, Cropping]:
    file = io.BytesIO(content)
    with av.open(file) as container:
        position = file.tell()
        found = stated_croppings(container, file)
        assert file.tell() == position
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Frames of 192 x 64 pixels, without a cropping."""
    return write_video(tmp_path_factory.mktemp("plain") / "a.mp4", 1).read_bytes()


class TestApertures:
    """As FFmpeg reads them."""

    @pytest.mark.parametrize(
        ("aperture", "expected"),
        [
            ((192, 1, 50, 1, 0, 1, 0, 1), (0, 0, 7, 7)),
            ((192, 1, 51, 1, 0, 1, 0, 1), (0, 0, 6, 7)),
            ((191, 1, 51, 1, 1, 2, -1, 2), (1, 0, 6, 7)),
            ((384, 2, 100, 2, 0, 2, 10, 2), (0, 0, 12, 2)),
            ((703, 5, 64, 1, 0, 1, 0, 1), (25, 26, 0, 0)),
            ((1, 1, 1, 1, 0, 1, 0, 1), (95, 96, 31, 32)),
            ((160, 1, 64, 1, 16, 1, 0, 1), (32, 0, 0, 0)),
        ],
    )
    def test_read(self, plain: bytes, aperture: tuple[int, ...], expected: tuple[int, ...]) -> None:
        assert croppings(with_aperture(plain, aperture)) == {0: Cropping(*expected)}

    @pytest.mark.parametrize(
        "aperture",
        [
            (192, 1, 64, 1, 0, 1, 0, 1),  # all of it
            (200, 1, 64, 1, 0, 1, 0, 1),  # more than there is
            (160, 1, 64, 1, 17, 1, 0, 1),  # beyond the edge
            (0, 1, 64, 1, 0, 1, 0, 1),
            (160, 0, 64, 1, 0, 1, 0, 1),
            (160, 1, 64, 1, 0, 1, 0, 0),
        ],
    )
    def test_ignored(self, plain: bytes, aperture: tuple[int, ...]) -> None:
        assert croppings(with_aperture(plain, aperture)) == {}

    def test_what_the_stream_crops_itself(self, plain: bytes) -> None:
        """The sample entry has the size before, and its stream is as large as what is left."""
        content = with_aperture(plain, (192, 1, 64, 1, 0, 1, 0, 1))
        entry = content.index(b"avc1", content.index(b"stsd")) + 4
        assert content[entry + 26 : entry + 28] == (64).to_bytes(2)
        larger = content[: entry + 26] + (72).to_bytes(2) + content[entry + 28 :]
        assert croppings(larger) == {}

    def test_of_one_stream_of_two(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", 2)
        (tmp_path / "b.mp4").write_bytes(with_aperture((tmp_path / "a.mp4").read_bytes(), (100, 1, 64, 1, 0, 1, 0, 1)))
        for ending in ("mp4", "mkv"):
            target = tmp_path / f"both.{ending}"
            with (
                av.open(str(tmp_path / "a.mp4")) as first,
                av.open(str(tmp_path / "b.mp4")) as second,
                av.open(str(target), "w") as both,
            ):
                sources = [first, second]
                streams = [both.add_stream_from_template(source.streams.video[0]) for source in sources]
                for source, stream in zip(sources, streams, strict=True):
                    for packet in source.demux(video=0):
                        if packet.size:
                            packet.stream = stream
                            both.mux(packet)
            assert croppings(target.read_bytes()) == {1: Cropping(46, 46, 0, 0)}

    def test_large_boxes_and_boxes_to_the_end(self, plain: bytes) -> None:
        content = with_aperture(plain, (192, 1, 50, 1, 0, 1, 0, 1))
        place = content.index(b"moov") - 4
        size = int.from_bytes(content[place : place + 4])
        last = content[:place] + bytes(4) + content[place + 4 : place + size]
        large = content[:place] + b"\0\0\0\1moov" + (size + 8).to_bytes(8) + content[place + 8 :]
        for changed in (last, large):
            assert croppings(changed) == {0: Cropping(0, 0, 7, 7)}

    def test_cut_short(self, plain: bytes) -> None:
        """Whatever is missing, there is no error but FFmpeg's."""
        content = with_aperture(plain, (192, 1, 50, 1, 0, 1, 0, 1))
        with av.open(io.BytesIO(content)) as container:
            for end in range(content.index(b"moov"), len(content), 7):
                assert stated_croppings(container, io.BytesIO(content[:end])) in ({}, {0: Cropping(0, 0, 7, 7)})


class TestMatroska:
    @pytest.fixture(scope="class")
    @classmethod
    def content(cls, tmp_path_factory: pytest.TempPathFactory) -> bytes:
        path = tmp_path_factory.mktemp("matroska") / "a.mkv"
        return write_cropped(path, map(framed, range(2)), APERTURE).read_bytes()

    def test_segments_of_unknown_size(self, content: bytes) -> None:
        """As they are streamed."""
        place = content.index(b"\x18\x53\x80\x67") + 4
        assert content[place] == 1
        assert croppings(content[:place] + b"\x01" + b"\xff" * 7 + content[place + 8 :]) == {0: CROPPING}

    def test_cut_short(self, content: bytes) -> None:
        with av.open(io.BytesIO(content)) as container:
            found = [stated_croppings(container, io.BytesIO(content[:end])) for end in range(len(content) + 1)]
        assert found[0] == {}
        assert found[-1] == {0: CROPPING}


def test_case(shared_cases: Path) -> None:
    with open_video(Item(str(shared_cases / "crop.mkv"))) as reader:
        assert (reader.info.width, reader.info.height) == (160, 90)
