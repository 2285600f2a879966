"""A folder of numbered images, read as a video.

The image with the lowest number, whatever it is, is frame 0. Images are read as OpenCV, and so the original
code, reads them: turned upright by their Exif data, with 8 bits, without alpha.
"""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Frames, VideoInfo
from timesformer_cli.specs import Reading

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Other formats that Pillow opens may be more than an image; PostScript is a program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# How an image is stored, by its number in Exif, and the operation that turns it upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_numbered(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is an image with a number in its name; hidden ones are not."""
    stem, ending = os.path.splitext(entry.name)
    return (
        ending.lower() in _ENDINGS
        and not stem.startswith(".")
        and re.search(r"\d", stem) is not None
        and entry.is_file()
    )


class PicturesReader:
    """Reads frames by number; `reading.frame_rate` gives the frames per second.

    Images of a different size than the first are scaled to the first one's.

    Raises:
        VideoError: `not_found` and `unreadable` if it is not a readable folder; `no_video_stream` if it has
            no numbered images; `unsupported` if it has several series of them; `decode` if numbers are
            missing or repeated, or an image cannot be read; `too_large`.
    """

    def __init__(self, folder: str, reading: Reading = Reading()) -> None:
        self._folder = folder
        self._reading = reading
        self._names = _ordered(_names(folder, reading.max_frames))
        image = self._image(0)
        self._first = np.asarray(image)
        codec = (image.format or "").lower()
        times = np.arange(len(self._names)) / reading.frame_rate
        self.info = VideoInfo(times, reading.frame_rate, image.width, image.height, codec, has_stream_duration=False)

    def close(self) -> None:
        """Nothing stays open."""

    def read(self, frame_numbers: Sequence[int]) -> Frames:
        """The requested frames, in the requested order; numbers may repeat.

        Raises:
            VideoError: `decode`, `too_large` or `unreadable`, with the name of the image.
            IndexError: a number is outside the video.
        """
        numbers = np.asarray(frame_numbers, np.int64)
        wanted = np.unique(numbers)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.info.num_frames:
            raise IndexError(f"frames {wanted[0]} to {wanted[-1]} of a video that has {self.info.num_frames}")
        pixels = np.empty((len(numbers), self.info.height, self.info.width, 3), np.uint8)
        for number in wanted.tolist():
            pixels[numbers == number] = self._first if number == 0 else self._picture(number)
        return Frames(pixels, self.info.times[numbers])

    def _picture(self, number: int) -> NDArray[np.uint8]:
        image = self._image(number)
        size = (self.info.width, self.info.height)
        return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))

    def _image(self, number: int) -> Image.Image:
        """An image, RGB and upright."""
        name = self._names[number]
        try:
            with _quiet(), Image.open(os.path.join(self._folder, name), formats=_FORMATS) as image:
                pixels, most = image.width * image.height, self._reading.max_pixels
                if pixels > most:
                    raise VideoError(
                        "too_large",
                        f"{name} has {image.width} x {image.height} = {pixels:,} pixels; `max_pixels` is {most:,}",
                    )
                return _upright(image)
        except (VideoError, MemoryError):
            raise
        except PermissionError as error:
            raise VideoError("unreadable", f"{name}: permission denied") from error
        except Exception as error:  # Pillow raises anything for a damaged file: ValueError, SyntaxError, struct.error
            raise VideoError("decode", f"{name} cannot be decoded as an image; is it damaged?") from error


def _names(folder: str, max_frames: int) -> list[str]:
    """The numbered images in a folder, in no order."""
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_numbered(entry):
                    names.append(entry.name)
                if len(names) > max_frames:
                    raise VideoError("too_large", f"more images than `max_frames`, which is {max_frames:,}")
    except (FileNotFoundError, ValueError) as error:  # ValueError: a zero byte in the name
        raise VideoError("not_found", "no such folder") from error
    except NotADirectoryError as error:
        raise VideoError("unreadable", "not a folder of numbered images, which `frames` needs") from error
    except PermissionError as error:
        raise VideoError("unreadable", "permission denied") from error
    except OSError as error:
        raise VideoError("unreadable", error.strerror or "cannot be opened") from error
    if not names:
        raise VideoError("no_video_stream", f"no numbered images in this folder; looked for {', '.join(_ENDINGS)}")
    return names


def _ordered(names: list[str]) -> list[str]:
    """By number: the only run of digits in which the names differ.

    Raises:
        VideoError: there is no such run, or a number is missing or repeated.
    """
    split = {name: re.split(r"(\d+)", os.path.splitext(name)[0]) for name in names}
    series = sorted({"*".join(parts[::2]) for parts in split.values()})
    if len(series) > 1:
        raise VideoError(
            "unsupported", f"images of several series, {series[0]} and {series[1]}; give each its own folder"
        )
    runs = np.array([[int(digits) for digits in parts[1::2]] for parts in split.values()], object)
    differing = [place for place in range(runs.shape[1]) if len(set(runs[:, place])) > 1]
    if len(differing) > 1:
        raise VideoError(
            "unsupported",
            f"names differ in more than one number, as {min(names)} and {max(names)}; they must differ in one",
        )
    numbers = runs[:, differing[0] if differing else -1].tolist()
    ordered = sorted(zip(numbers, names, strict=True))
    for (number, name), (following, other) in pairwise(ordered):
        if number == following:
            raise VideoError("decode", f"two images have the number {number}: {name} and {other}")
    steps = [following - number for (number, _), (following, _) in pairwise(ordered)]
    for (_, name), (_, other), step in zip(ordered, ordered[1:], steps, strict=False):
        if step != min(steps):
            raise VideoError("decode", f"images are missing between {name} and {other}")
    return [name for _, name in ordered]


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow without warnings, and without its own limit on the number of pixels."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _upright(image: Image.Image) -> Image.Image:
    """RGB, turned upright; a copy that no longer needs the file, but keeps its format."""
    format = image.format if image.format in _FORMATS else "JPEG"  # MPO is a JPEG with more images after it
    image.load()
    rotation = _UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I;16") or (image.mode == "I" and format == "PNG"):
        # The high bytes, as for 16-bit colours; Pillow itself would clip values above 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels: their white level is unknown")
    image = image.convert("RGB")
    if rotation is not None:
        image = image.transpose(rotation)
    image.format = format
    return image


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged Exif data: the image may still be whole
        return 1
    return value if isinstance(value, int) else 1
