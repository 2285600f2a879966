"""The data that flows through a run, video by video. All arrays are NumPy's; nothing here needs torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import ErrorKind

# The input of the network: float32, normalised; or uint8, for models that normalise bytes themselves.
Pixels = NDArray[Any]

CropName = Literal["center", "left", "right", "top", "bottom"]

# Start and end of a part of a video, in seconds as in `Span`. None is the start of the video, or its end.
Part = tuple[float | None, float | None]

WHOLE: Part = (None, None)


def key_of(path: str, part: Part = WHOLE) -> str:
    """What identifies a video, or a part of it: the path, and the part behind a zero byte, which no file has."""
    return path if part == WHOLE else f"{path}\0{part[0]}\0{part[1]}"


def overlap(one: Part, other: Part) -> bool:
    """Whether two parts of a video have more than a moment in common."""
    (start, end), (begin, stop) = (
        (-np.inf if first is None else first, np.inf if last is None else last) for first, last in (one, other)
    )
    return bool(start < stop and begin < end)


@dataclass(frozen=True, slots=True)
class Item:
    """One video to label, by the path for its record: a file or an address.

    With `frames`, it is a folder of numbered images. `source` is the address with its credentials, if it has any; they
    are never shown. `location` is where the video is read. `start` and `end` make it a part of the video: seconds from
    the earliest start of any stream of the file, as in timelines. Without `start`, the part begins with the video;
    without `end`, it ends with it.
    """

    path: str
    frames: bool = False
    source: str = field(default="", repr=False)
    start: float | None = None
    end: float | None = None

    @property
    def location(self) -> str:
        return self.source or self.path

    @property
    def part(self) -> Part:
        return self.start, self.end

    @property
    def key(self) -> str:
        """Equal for equal parts of the same video; see `key_of`."""
        return key_of(self.path, self.part)


@dataclass(frozen=True, slots=True, eq=False)
class VideoInfo:
    """The facts about a video that its packets give, before anything is decoded.

    `times` holds one entry per frame that is shown: seconds from the first frame, float64
    (frames,), sorted. `fps` is the average rate. `width` and `height` are upright, in pixels.
    `has_stream_duration` is whether the container states the duration of the video stream itself
    (MP4 does, Matroska and WebM do not); the original's sampling depends on it, see `sampling.plan`.
    `start` is when the first frame is shown: seconds from the earliest start of any stream of the file.
    `container`, `codec` and `pixel_format` are FFmpeg's names; images have no container and no pixel format.
    """

    times: NDArray[np.float64]
    fps: float
    width: int
    height: int
    codec: str
    has_stream_duration: bool = True
    start: float = 0.0
    container: str = ""
    pixel_format: str = ""

    @property
    def num_frames(self) -> int:
        return len(self.times)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last, which is shown for 1/fps."""
        return float(self.times[-1] - self.times[0]) + 1 / self.fps


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A part of the video that gets one prediction, and the frames of its clips.

    `start` and `end` are seconds: of a timeline's segment or a part from the earliest start of any stream of the file,
    of a video as a whole from its first frame. `clips` is int64 (C, T): frame numbers, all inside the video.
    """

    start: float
    end: float
    clips: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Decoded frames: `pixels` uint8 (T, H, W, 3), RGB, upright; `times` float64 (T,), seconds."""

    pixels: NDArray[np.uint8]
    times: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ViewLabel:
    """Which clip and crop a view shows, and the numbers of its frames in the video."""

    clip: int
    crop: CropName
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Network input of one span: `pixels` (V, T, C, H, W), V = clips x crops, as `preprocess.make_views` gives them.

    `more`: more spans of the same video follow. `thumbnail`: some of the frames for people, as a WebP image, if asked
    for: see `prepare.Thumbnails`. `hashes`: uint64 (8,), of some of the frames as decoded, if asked for.
    """

    item: Item
    info: VideoInfo
    span: Span
    labels: tuple[ViewLabel, ...]
    pixels: Pixels
    more: bool = False
    thumbnail: bytes | None = None
    hashes: NDArray[np.uint64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The scores of one span: `logits` float32 (V, K), a row for each view; the rest is as in `Views`.

    If something else was asked for, `logits` holds that: see `runtimes.ports.Output`.
    """

    item: Item
    info: VideoInfo
    span: Span
    labels: tuple[ViewLabel, ...]
    logits: NDArray[np.float32]
    more: bool = False
    thumbnail: bytes | None = None
    hashes: NDArray[np.uint64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The scores of a video from `start` to `end`, in seconds, counted as in `Span`.

    `logits` float32 (K,) are the mean logits of its views, `scores` float32 (K,) the result of
    `aggregate.combine`, and `embedding` float32 (D,) is the mean class token, if asked for.
    """

    start: float
    end: float
    views: tuple[ViewLabel, ...]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    thumbnail: bytes | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """The vectors of a video from `start` to `end`, in seconds, counted as in `Span`: float32 (R, D).

    R is 1, unless each vector is of one frame. Then `times` are seconds from the earliest start of any stream of the
    file, and `frames` their numbers in the video; both (R,).
    """

    start: float
    end: float
    vectors: NDArray[np.float32]
    times: tuple[float, ...] = ()
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The vectors of a video in order of time; a video as a whole is one segment."""

    item: Item
    info: VideoInfo
    segments: tuple[Vectors, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """A class that a video may show, its score, and its number in the model."""

    label: str
    score: float
    index: int


def likeliest(scores: NDArray[np.float32], labels: tuple[str, ...], top_k: int) -> list[Label]:
    """The classes with the largest scores (K,), the largest first; of equal scores, the lower index first."""
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [Label(labels[index], _shortest(scores[index]), int(index)) for index in best]


def _shortest(score: np.float32) -> float:
    """The number with the fewest digits that is equal to `score` when read as float32."""
    return float(np.format_float_scientific(score, unique=True))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The segments of a video in order of time (a video as a whole is one segment); `labels` name the classes."""

    item: Item
    info: VideoInfo
    segments: tuple[Segment, ...]
    labels: tuple[str, ...]

    def top(self, k: int = 5, segment: int = 0) -> list[Label]:
        """The `k` most likely classes of a segment, the most likely first; a video as a whole is segment 0."""
        return likeliest(self.segments[segment].scores, self.labels, k)


@dataclass(frozen=True, slots=True)
class Failure:
    """A video without a prediction, and the reason. It is never skipped or replaced by another."""

    item: Item
    kind: ErrorKind
    message: str


Result = Prediction | Failure
Embedded = Embedding | Failure
