"""The contact sheet: the right frames in the right places, as the model sees them and as people can look at them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from testing.stamped import HEIGHT, WIDTH, read_stamp, stamp
from timesformer_cli.errors import OutputError
from timesformer_cli.flow import Frames, Item, Span, VideoInfo, ViewLabel, Views
from timesformer_cli.results import contact_sheet as sheet
from timesformer_cli.results.contact_sheet import Layout, draw
from timesformer_cli.specs import Checkpoint, PreprocessSpec, Recipe, SamplingSpec, TimesformerConfig
from timesformer_cli.video.preprocess import crop_names, make_views
from timesformer_cli.video.render import picture

STAMPS = PreprocessSpec(size=(HEIGHT, WIDTH), short_side=HEIGHT, crops=1, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3))
SMALL = PreprocessSpec(size=(32, 32), short_side=32, crops=3, mean=(0.45,) * 3, std=(0.225,) * 3)


def checkpoint_of(spec: PreprocessSpec, frames: int) -> Checkpoint:
    channels = len(spec.mean)
    return Checkpoint(
        name="some-model",
        config=TimesformerConfig(
            image_size=spec.size, num_channels=channels, num_frames=frames, id2label={0: "one", 1: "two"}
        ),
        recipe=Recipe(base="test", sampling=SamplingSpec(num_frames=frames), preprocess=spec),
        labels=("one", "two"),
        weights=None,
        source="here",
    )


def views_of(
    pixels: NDArray[np.uint8], clips: list[list[int]], spec: PreprocessSpec, path: str = "a.mp4"
) -> tuple[Views, Checkpoint]:
    """Views of a video at ten frames a second, whose pictures are `pixels` (frames, H, W, 3)."""
    height, width = pixels.shape[1:3]
    info = VideoInfo(np.arange(len(pixels)) / 10, 10.0, width, height, "h264")
    crops = crop_names(width, height, spec)
    labels = tuple(ViewLabel(clip, crop, tuple(frames)) for clip, frames in enumerate(clips) for crop in crops)
    tensors = make_views([Frames(pixels[frames], info.times[frames]) for frames in clips], spec)
    views = Views(Item(path), info, Span(0, info.duration, np.array(clips)), labels, tensors)
    return views, checkpoint_of(spec, len(clips[0]))


def stamps(count: int) -> NDArray[np.uint8]:
    return np.stack([stamp(number) for number in range(count)])


def noise(count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def tile(image: Image.Image, layout: Layout, view: int, place: int) -> NDArray[np.uint8]:
    return np.asarray(image.crop(layout.box(view, place)))


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[float, float], str, Any]]:
    """What is written on sheets: where, what, in which colour."""
    written = []
    real = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: Any, text: str, fill: Any = None, *args: Any, **kwargs: Any) -> None:
        written.append((tuple(xy), text, fill))
        real(self, xy, text, fill, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written


class TestFrames:
    @pytest.mark.parametrize(
        "clips", [[[0, 3, 6, 9]], [[1, 2], [40, 41], [7, 7]], [list(range(0, 60, 2))]], ids=["one", "three", "wrapped"]
    )
    def test_are_in_their_places(self, clips: list[list[int]], tmp_path: Path) -> None:
        """Read back from the file."""
        views, checkpoint = views_of(stamps(60), clips, STAMPS)
        image, layout = draw(views, checkpoint)
        image.save(tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as saved:
            shown = [
                [read_stamp(tile(saved, layout, view, place)) for place in range(len(clips[0]))]
                for view in range(len(clips))
            ]
        assert shown == clips
        assert layout.lines == (4 if len(clips[0]) == 30 else 1)

    def test_are_the_very_pixels_of_every_crop(self) -> None:
        spec = replace(SMALL, size=(128, 128), short_side=128)
        views, checkpoint = views_of(noise(4, 150, 300), [[0, 1], [2, 3]], spec)
        image, layout = draw(views, checkpoint)
        assert layout.tile == (128, 128)
        for view in range(6):
            for place in range(2):
                expected = picture(views.pixels[view, place], spec)
                np.testing.assert_array_equal(tile(image, layout, view, place), expected)

    def test_boxes_do_not_overlap(self) -> None:
        views, checkpoint = views_of(noise(24), [list(range(24))], SMALL)
        image, layout = draw(views, checkpoint)
        covered = np.zeros((image.height, image.width), np.int64)
        for view in range(3):
            for place in range(24):
                left, top, right, bottom = layout.box(view, place)
                covered[top:bottom, left:right] += 1
        assert covered.max() == 1
        assert covered.sum() == 3 * 24 * layout.tile[0] * layout.tile[1]

    def test_small_crops_are_enlarged_pixel_by_pixel(self) -> None:
        views, checkpoint = views_of(noise(2), [[0, 1]], SMALL)
        image, layout = draw(views, checkpoint)
        assert layout.tile == (128, 128)
        expected = np.kron(picture(views.pixels[1, 1], SMALL), np.ones((4, 4, 1), np.uint8))
        np.testing.assert_array_equal(tile(image, layout, 1, 1), expected)

    def test_large_sheets_are_shrunk(self, texts: list[tuple[tuple[float, float], str, Any]]) -> None:
        views, checkpoint = views_of(stamps(40), [list(range(40))], STAMPS)
        whole, _ = draw(views, checkpoint)
        half = whole.width * whole.height // 2
        image, layout = draw(views, checkpoint, most_pixels=half)
        assert image.width * (image.height - layout.top) <= half
        assert layout.tile == (96, 32)
        assert read_stamp(tile(image, layout, 0, 37)) == 37
        assert "Shown at 1/2 of the size that the model sees." in [text for _, text, _ in texts]

    def test_too_many_are_refused(self) -> None:
        spec = replace(SMALL, size=(224, 224), short_side=224, crops=1)
        views, checkpoint = views_of(noise(1), [[0] * 8], spec)
        many = replace(views, pixels=np.broadcast_to(views.pixels, (2000, *views.pixels.shape[1:])))
        with pytest.raises(OutputError, match="16,000 frames is too large"):
            draw(many, checkpoint)

    @pytest.mark.parametrize("frames", [1, 8, 16, 96])
    @pytest.mark.parametrize("size", [(224, 224), (448, 448), (96, 96), (64, 1200), (1200, 64), (3, 5)])
    @pytest.mark.parametrize("views", [1, 30])
    def test_sheets_stay_within_reason(self, frames: int, size: tuple[int, int], views: int) -> None:
        shape = (views, frames, 3, *size)
        made_up = Views(
            Item("a"),
            VideoInfo(np.zeros(1), 1.0, 1, 1, "h264"),
            Span(0, 1, np.zeros((1, frames), np.int64)),
            (),
            np.broadcast_to(np.float32(0), shape),
        )
        layout = sheet._lay_out(made_up)
        width, height = layout.size
        assert width * height <= 2**25
        assert max(width, height) <= 20_000
        assert max(layout.tile) >= 64
        assert layout.columns * layout.lines >= frames > layout.columns * (layout.lines - 1)


class TestPicture:
    """Frames of the size of a crop are not resized, so that what is shown must be the frame itself."""

    @pytest.mark.parametrize("resize", ["float", "antialias", "opencv"])
    @pytest.mark.parametrize("order", ["rgb", "bgr"])
    def test_colours(self, resize: Any, order: Any) -> None:
        frames = noise(1, 32, 32)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        spec = replace(SMALL, crops=1, resize=resize, channel_order=order, mean=mean, std=std)
        views, _ = views_of(frames, [[0]], spec)
        np.testing.assert_array_equal(picture(views.pixels[0, 0], spec), frames[0])

    @pytest.mark.parametrize("resize", ["float", "antialias"])
    def test_gray(self, resize: Any) -> None:
        frames = noise(1, 32, 32)
        spec = replace(SMALL, crops=1, resize=resize, channel_order="gray", mean=(0.3,), std=(0.2,))
        views, _ = views_of(frames, [[0]], spec)
        shown = picture(views.pixels[0, 0], spec)
        luma = frames[0] @ np.array([0.299, 0.587, 0.114])
        assert np.abs(shown - luma[..., None]).max() <= 1

    def test_values_beyond_the_range_of_a_byte_are_cut(self) -> None:
        shown = picture(np.array([-100, 0, 100], np.float32).reshape(3, 1, 1), SMALL)
        assert shown.tolist() == [[[0, 115, 255]]]


class TestText:
    def test_each_frame_has_its_number_and_time(self, texts: list[tuple[tuple[float, float], str, Any]]) -> None:
        views, checkpoint = views_of(stamps(40), [[0, 3, 6, 39], [5, 8, 39, 39]], STAMPS)
        _, layout = draw(views, checkpoint)
        for view, label in enumerate(views.labels):
            for place, frame in enumerate(label.frames):
                left, _, right, bottom = layout.box(view, place)
                below = {text for (x, y), text, _ in texts if left <= x <= right and bottom <= y < bottom + 10}
                again = " again" if frame in label.frames[:place] else ""
                assert below == {f"{frame}{again}", f"{frame / 10:.2f} s"}

    def test_frames_that_are_shown_again_stand_out(self, texts: list[tuple[tuple[float, float], str, Any]]) -> None:
        views, checkpoint = views_of(stamps(5), [[0, 3, 4, 4]], STAMPS)
        draw(views, checkpoint)
        colours = {text: colour for _, text, colour in texts}
        assert colours["4 again"] != colours["4"] == colours["3"]

    def test_each_view_is_named(self, texts: list[tuple[tuple[float, float], str, Any]]) -> None:
        views, checkpoint = views_of(noise(9), [[0, 1], [4, 8]], SMALL)
        _, layout = draw(views, checkpoint)
        at = {place: text for place, text, _ in texts}
        assert [at[layout.label(view)] for view in range(6)] == [
            f"clip {clip}, {crop}" for clip in (0, 1) for crop in ("left", "center", "right")
        ]
        assert [text for _, text, _ in texts].count("0.40 to 0.80 s") == 3

    @pytest.mark.parametrize(
        ("order", "mean", "expected"),
        [
            ("rgb", (0.45,) * 3, []),
            (
                "bgr",
                (0.45,) * 3,
                ["The model gets the channels in the order blue, green, red; the sheet shows true colours."],
            ),
            ("gray", (0.45,), ["The model gets only brightness, no colours."]),
        ],
    )
    def test_the_heading(
        self,
        order: Any,
        mean: tuple[float, ...],
        expected: list[str],
        texts: list[tuple[tuple[float, float], str, Any]],
    ) -> None:
        spec = replace(SMALL, channel_order=order, mean=mean, std=mean)
        views, checkpoint = views_of(noise(9), [list(range(8))], spec)
        draw(views, checkpoint, ["A note."])
        assert [text for _, text, _ in texts][: 5 + len(expected)] == [
            "a.mp4",
            "64 x 48, 9 frames, 0.90 s, 10 frames per second, h264",
            "some-model, recipe test: 1 clip of 8 frames, 3 crops of 32 x 32 pixels",
            "A note.",
            *expected,
            "Shown 4 times as large as the model sees them.",
        ]

    @pytest.mark.parametrize("path", ["太極 ü\n.mp4", "x" * 500, "caf\udce9.mp4", "some/" * 200 + "end.mp4"])
    def test_names_of_all_kinds_fit(self, path: str, texts: list[tuple[tuple[float, float], str, Any]]) -> None:
        views, checkpoint = views_of(noise(1), [[0]], SMALL, path=path)
        image, _ = draw(views, checkpoint, ["A long note " * 40])
        pen = ImageDraw.Draw(image)
        for (x, _), text, _ in texts[:-6]:  # captions stand to the right
            size = sheet._TITLE if text == texts[0][1] else sheet._TEXT
            assert x + pen.textlength(text, sheet._font(size)) <= image.width
        assert texts[0][1].endswith(path[-4:])
