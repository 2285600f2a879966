"""Folders of numbered pictures, each stamped with its number."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from testing.stamped import HEIGHT, WIDTH, read_stamps, stamp
from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item, VideoInfo
from timesformer_cli.specs import Reading
from timesformer_cli.video.reader import open_video


def write(folder: Path, names: Iterable[str], **options: Any) -> Path:
    """Pictures of these names in a folder; the n-th is stamped with n."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(stamp(number)).save(folder / name, **options)
    return folder


def read(folder: Path, plan: list[int], **limits: Any) -> tuple[list[int], VideoInfo]:
    with open_video(Item(str(folder), frames=True), Reading(**limits)) as reader:
        return read_stamps(reader.read(plan).pixels), reader.info


def shown(path: Path) -> np.ndarray[Any, Any]:
    """The pixels of a single picture, the only one in its folder."""
    with open_video(Item(str(path.parent), frames=True)) as reader:
        return reader.read([0]).pixels[0]


def error_of(folder: Path | str, plan: list[int] | None = None, **limits: Any) -> tuple[str, str]:
    with (
        pytest.raises(VideoError) as caught,
        open_video(Item(str(folder), frames=True), Reading(**limits)) as reader,
    ):
        reader.read(plan or [])
    return caught.value.kind, str(caught.value)


class TestOrder:
    @pytest.mark.parametrize(
        "names",
        [
            [f"{n:06}.jpg" for n in range(1, 13)],
            [f"img_{n:05}.jpg" for n in range(1, 13)],
            [f"frame{n}.png" for n in range(8, 20)],
            [f"{n}.PNG" for n in range(0, 120, 10)],
            [f"clip 7 (2) f{n} end.webp" for n in range(1, 13)],
            ["9.bmp", "010.tif", "11.tiff", "12.jpeg"],
            ["5.jpg"],
            [f"太_{n}.jpg" for n in range(1, 13)],
            [f"{n}.jpg" for n in range(10**20, 10**20 + 12)],
        ],
        ids=lambda names: names[0],
    )
    def test_by_number(self, tmp_path: Path, names: list[str]) -> None:
        folder = write(tmp_path / "a", names)
        assert read(folder, list(range(len(names))))[0] == list(range(len(names)))

    def test_what_is_no_numbered_picture_does_not_count(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", [f"{n}.jpg" for n in range(5)])
        for name in ("cover.jpg", "7.txt", ".8.jpg", "._3.jpg", "Thumbs.db", "9.mp4", "list_2.csv"):
            (folder / name).write_bytes(b"x")
        (folder / "11.jpg").mkdir()
        os.mkfifo(folder / "12.jpg")
        assert read(folder, [0, 4])[0] == [0, 4]
        assert read(folder, [])[1].num_frames == 5

    def test_links_are_followed(self, tmp_path: Path) -> None:
        write(tmp_path / "a", ["1.jpg", "2.jpg"])
        (tmp_path / "b").symlink_to(tmp_path / "a")
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "1.jpg").symlink_to(tmp_path / "a" / "2.jpg")
        assert read(tmp_path / "b", [1])[0] == [1]
        assert read(tmp_path / "c", [0])[0] == [1]

    def test_a_name_that_is_no_unicode(self, tmp_path: Path) -> None:
        folder = write(tmp_path / os.fsdecode(b"caf\xe9"), ["1.jpg", "2.jpg"])
        for number in (1, 2):
            (folder / f"{number}.jpg").rename(folder / os.fsdecode(b"\xe9%d.jpg" % number))
        assert read(folder, [1])[0] == [1]


class TestInfo:
    def test_what_is_known(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", [f"{n}.jpg" for n in range(1, 11)])
        info = read(folder, [])[1]
        assert (info.num_frames, info.fps, info.width, info.height, info.codec) == (10, 30, WIDTH, HEIGHT, "jpeg")
        assert info.duration == pytest.approx(1 / 3)
        assert not info.has_stream_duration
        info = read(folder, [], frame_rate=12.5)[1]
        np.testing.assert_allclose(info.times, np.arange(10) / 12.5)
        assert (info.fps, info.duration) == (12.5, pytest.approx(0.8))

    @pytest.mark.parametrize(
        ("ending", "codec"),
        [("jpg", "jpeg"), ("png", "png"), ("webp", "webp"), ("bmp", "bmp"), ("tif", "tiff"), ("tiff", "tiff")],
    )
    def test_codec(self, tmp_path: Path, ending: str, codec: str) -> None:
        assert read(write(tmp_path / "a", [f"1.{ending}"]), [0, 0])[1].codec == codec

    def test_what_a_file_is_counts_and_not_its_name(self, tmp_path: Path) -> None:
        numbers, info = read(write(tmp_path / "a", ["1.jpg", "2.jpg"], format="png"), [0, 1])
        assert (numbers, info.codec) == ([0, 1], "png")

    def test_frames_and_times(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", [f"{n}.png" for n in range(1, 9)])
        plan = [7, 3, 3, 0, 5]
        with open_video(Item(str(folder), frames=True)) as reader:
            frames = reader.read(plan)
            assert (frames.pixels.dtype, frames.pixels.shape) == (np.uint8, (5, HEIGHT, WIDTH, 3))
            np.testing.assert_array_equal(frames.pixels, [stamp(number) for number in plan])
            np.testing.assert_allclose(frames.times, np.array(plan) / 30)
            assert reader.read([]).pixels.shape == (0, HEIGHT, WIDTH, 3)
            for number in (-1, 8):
                with pytest.raises(IndexError):
                    reader.read([0, number])


class TestPixels:
    def test_jpeg_is_what_pillow_reads(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        path = write(tmp_path / "a", []) / "1.jpg"
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(path, quality=80)
        with Image.open(path) as image:
            np.testing.assert_array_equal(shown(path), np.asarray(image))

    @pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path: Path, ending: str, orientation: int) -> None:
        """Where the first row and column of what is stored are shown (Exif 2.32, 4.6.4, tag 274)."""
        upright = stamp(37)
        rows = ["top", "top", "bottom", "bottom", "left", "right", "right", "left"]
        columns = ["left", "right", "right", "left", "top", "top", "bottom", "bottom"]
        first_row, first_column = rows[orientation - 1], columns[orientation - 1]
        stored = upright.transpose(1, 0, 2) if first_row in ("left", "right") else upright
        if first_row in ("bottom", "right"):
            stored = stored[::-1]
        if first_column in ("bottom", "right"):
            stored = stored[:, ::-1]
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        path = write(tmp_path / "a", []) / f"1.{ending}"
        Image.fromarray(stored).save(path, exif=exif)
        with open_video(Item(str(path.parent), frames=True)) as reader:
            assert (reader.info.width, reader.info.height) == (WIDTH, HEIGHT)
            assert read_stamps(reader.read([0]).pixels) == [37]

    @pytest.mark.parametrize(
        ("ending", "mode"),
        [
            (ending, mode)
            for ending, modes in {
                "png": "1 L LA P RGBA I;16",
                "tif": "1 L LA P RGBA I;16 CMYK YCbCr",
                "jpg": "1 L CMYK YCbCr",
                "webp": "L LA P RGBA",
                "bmp": "1 L P RGBA",
            }.items()
            for mode in modes.split()
        ],
    )
    def test_modes(self, tmp_path: Path, ending: str, mode: str) -> None:
        path = write(tmp_path / "a", []) / f"1.{ending}"
        if mode == "I;16":
            image = Image.fromarray(stamp(37)[..., 0].astype(np.uint16) * 257)
        else:
            image = Image.fromarray(stamp(37)).convert(mode, dither=Image.Dither.NONE)
        if mode in ("LA", "RGBA"):
            image.putalpha(Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8)))
        image.save(path)
        pixels = shown(path)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        if mode == "1":  # the grey below is white then
            pixels = np.where(np.arange(HEIGHT)[:, None, None] < HEIGHT * 5 // 8, pixels, 128)
        assert read_stamps(pixels[None]) == [37]

    def test_the_first_of_several_pictures_in_one_file(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", [])
        pictures = [Image.fromarray(stamp(number)) for number in (5, 6)]
        for number, format in enumerate(("mpo", "webp", "png")):
            pictures[0].save(folder / f"{number}.jpg", format, save_all=True, append_images=pictures[1:])
        numbers, info = read(folder, [0, 1, 2])
        assert (numbers, info.codec) == ([5, 5, 5], "jpeg")

    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_sixteen_bits(self, tmp_path: Path, ending: str) -> None:
        values = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
        path = write(tmp_path / "a", []) / f"1.{ending}"
        Image.fromarray(values).save(path)
        np.testing.assert_array_equal(shown(path), np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2))

    def test_sixteen_bits_of_colour(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 2**16, (20, 30, 3)).astype(">u2")
        path = write(tmp_path / "a", []) / "1.png"
        path.write_bytes(png(30, 20, 16, b"".join(b"\0" + row.tobytes() for row in values)))
        np.testing.assert_array_equal(shown(path), (values >> 8).astype(np.uint8))

    def test_sizes_that_differ(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", ["0.png", "1.png", "2.png"])
        Image.fromarray(stamp(1)).resize((WIDTH * 2, HEIGHT * 3)).save(folder / "1.png")
        Image.fromarray(stamp(2)).resize((WIDTH // 2, HEIGHT)).save(folder / "2.png")
        numbers, info = read(folder, [2, 1, 0])
        assert (numbers, info.width, info.height) == ([2, 1, 0], WIDTH, HEIGHT)


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A PNG file of RGB rows, each with its filter byte before it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class TestRefusals:
    @pytest.mark.parametrize(
        ("names", "kind", "message"),
        [
            (["1.jpg", "2.jpg", "4.jpg"], "decode", "images are missing between 2.jpg and 4.jpg"),
            (["0.jpg", "10.jpg", "30.jpg", "40.jpg"], "decode", "images are missing between 10.jpg and 30.jpg"),
            (["1.jpg", "01.jpg"], "decode", "two images have the number 1: 01.jpg and 1.jpg"),
            (["1.jpg", "2.jpg", "2.png"], "decode", "two images have the number 2: 2.jpg and 2.png"),
            (
                ["img_1.jpg", "img_2.jpg", "flow_x_1.jpg", "flow_x_2.jpg"],
                "unsupported",
                "images of several series, flow_x_* and img_*; give each its own folder",
            ),
            (
                ["a1_1.jpg", "a1_2.jpg", "a2_1.jpg", "a2_2.jpg"],
                "unsupported",
                "names differ in more than one number, as a1_1.jpg and a2_2.jpg; they must differ in one",
            ),
            ([], "no_video_stream", "no numbered images in this folder; looked for .jpg, .jpeg, .png, "),
        ],
        ids=str,
    )
    def test_names(self, tmp_path: Path, names: list[str], kind: str, message: str) -> None:
        folder = write(tmp_path / "a", names)
        (folder / "cover.jpg").touch()
        found = error_of(folder)
        assert found[0] == kind
        assert found[1].startswith(message)

    def test_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "loose").symlink_to(tmp_path / "gone")
        for name in ("missing", "loose", "a\0b"):
            assert error_of(tmp_path / name) == ("not_found", "no such folder")

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").touch()
        message = "not a folder of numbered images, which `frames` needs"
        assert error_of(tmp_path / "a.mp4") == ("unreadable", message)
        assert error_of(tmp_path / "a.mp4" / "b") == ("unreadable", message)

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
    def test_not_permitted(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", ["0.jpg", "1.jpg"])
        (folder / "1.jpg").chmod(0)
        assert error_of(folder, [0, 1]) == ("unreadable", "1.jpg: permission denied")
        folder.chmod(0)
        assert error_of(folder) == ("unreadable", "permission denied")

    @pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
    @pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.9])
    def test_damaged(self, tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, part: float) -> None:
        """The others can be read; this one is named."""
        folder = write(tmp_path / "a", [f"{n}.{ending}" for n in range(3)])
        path = folder / f"1.{ending}"
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])
        message = f"1.{ending} cannot be decoded as an image; is it damaged?"
        assert error_of(folder, [0, 1, 2]) == ("decode", message)
        assert read(folder, [0, 2])[0] == [0, 2]
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a", b"hello", b"<svg/>", bytes(5000)]
    )
    def test_no_picture(self, tmp_path: Path, content: bytes) -> None:
        folder = write(tmp_path / "a", [])
        (folder / "1.jpg").write_bytes(content)
        assert error_of(folder) == ("decode", "1.jpg cannot be decoded as an image; is it damaged?")

    def test_noise_in_every_format(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Whatever it is, pixels or a VideoError come of it, and no other word."""
        rng = np.random.default_rng(0)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        for ending in ("jpg", "png", "webp", "bmp", "tif"):
            folder = write(tmp_path / ending, [f"1.{ending}"], exif=exif)
            content = np.frombuffer((folder / f"1.{ending}").read_bytes(), np.uint8)
            for _ in range(60):
                noisy = content.copy()
                places = rng.integers(0, min(len(noisy), rng.choice([200, 10**6])), 8)
                noisy[places] = rng.integers(0, 256, 8)
                (folder / f"1.{ending}").write_bytes(noisy.tobytes())
                with (
                    contextlib.suppress(VideoError),
                    open_video(Item(str(folder), frames=True), Reading(max_pixels=10**6)) as reader,
                ):
                    reader.read([0])
        assert capfd.readouterr() == ("", "")

    def test_too_many_pixels(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", ["0.png", "1.png"])
        (folder / "1.png").write_bytes(png(20_000, 20_000, 8, b""))
        kind, message = error_of(folder, [0, 1])
        assert (kind, message) == (
            "too_large",
            "1.png has 20000 x 20000 = 400,000,000 pixels; `max_pixels` is 67,108,864",
        )
        kind, message = error_of(folder, [0], max_pixels=WIDTH * HEIGHT - 1)
        assert (kind, "192 x 64" in message) == ("too_large", True)
        assert read(folder, [0], max_pixels=WIDTH * HEIGHT)[0] == [0]
        # Above Pillow's own limit it is still ours that counts; this file is cut off.
        assert error_of(folder, [1], max_pixels=10**9)[0] == "decode"

    def test_too_many_frames(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", ["0.png", "1.png", "2.png"])
        assert error_of(folder, max_frames=2) == ("too_large", "more images than `max_frames`, which is 2")
        assert read(folder, [2], max_frames=3)[0] == [2]

    def test_pillow_is_left_as_it_was(self, tmp_path: Path) -> None:
        limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
        folder = write(tmp_path / "a", ["0.png"])
        read(folder, [0])
        (folder / "0.png").write_bytes(b"")
        error_of(folder)
        assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == (limit, filters)

    def test_memory_stays_what_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise MemoryError

        folder = write(tmp_path / "a", ["0.png"])
        monkeypatch.setattr(Image.Image, "convert", fail)
        with pytest.raises(MemoryError), open_video(Item(str(folder), frames=True)):
            pass


def test_exif_that_is_damaged(tmp_path: Path) -> None:
    """The picture is whole; what is said of it is not."""
    folder = write(tmp_path / "a", [])
    for number, exif in enumerate((b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0garbage" * 3)):
        file = io.BytesIO()
        Image.fromarray(stamp(number)).save(file, "jpeg", exif=exif)
        (folder / f"{number}.jpg").write_bytes(file.getvalue())
    assert read(folder, [0, 1, 2])[0] == [0, 1, 2]
