"""Frame numbers: the published ones as a table, then what holds for every video."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import VideoInfo
from timesformer_cli.specs import SamplingSpec, Timeline
from timesformer_cli.video import sampling
from timesformer_cli.video.sampling import MAX_AUTO_CLIPS, draw, plan


def video(frames: int, fps: float, mp4: bool = True) -> VideoInfo:
    times = np.arange(frames) / fps
    return VideoInfo(times, fps, width=320, height=240, codec="h264", has_stream_duration=mp4)


def clips(info: VideoInfo, spec: SamplingSpec) -> list[list[int]]:
    (window,) = plan(info, spec)
    return window.clips.tolist()


def window(name: str, clips: int | None = 1, **settings: object) -> SamplingSpec:
    frames, stride = name.split("x")
    return SamplingSpec(num_frames=int(frames), stride=int(stride), clips=clips, **settings)


# Recorded by running the original decoder on generated videos: frames, rate, setting, numbers of one view.
ONE_VIEW = [
    (300, 30, "8x32", [0, 36, 72, 109, 145, 182, 218, 255]),
    (300, 30, "16x16", list(range(0, 256, 17))),
    (250, 25, "8x32", [0, 30, 60, 91, 121, 151, 182, 212]),
    (90, 30, "8x32", [0, 36, 72, 89, 89, 89, 89, 89]),
]


@pytest.mark.parametrize("mp4", [True, False])
@pytest.mark.parametrize(("frames", "fps", "setting", "expected"), ONE_VIEW)
def test_one_view_starts_at_the_first_frame(
    frames: int, fps: float, setting: str, expected: list[int], mp4: bool
) -> None:
    assert clips(video(frames, fps, mp4), window(setting)) == [expected]


def test_96x4_repeats_the_last_frame() -> None:
    (numbers,) = clips(video(300, 30), window("96x4"))
    assert numbers[:5] == [0, 4, 8, 12, 16]
    assert numbers[72:] == [290, 294, 298] + [299] * 21
    assert len(set(numbers)) == 76


MP4 = [
    [0, 36, 72, 109, 145, 182, 218, 255],
    [15, 51, 87, 124, 160, 197, 233, 270],
    [30, 66, 102, 139, 175, 212, 248, 285],
]
MATROSKA = [
    [0, 36, 72, 109, 145, 182, 218, 255],
    [14, 51, 87, 123, 160, 196, 233, 269],
    [29, 65, 102, 138, 175, 211, 247, 284],
]


@pytest.mark.parametrize(("mp4", "expected"), [(True, MP4), (False, MATROSKA)])
def test_three_views_depend_on_the_container(mp4: bool, expected: list[list[int]]) -> None:
    assert clips(video(300, 30, mp4), window("8x32", clips=3)) == expected


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (5, [0, 0, 1, 2, 2, 2, 3, 4]),
        (30, [2, 5, 9, 12, 16, 20, 23, 27]),
        (60, [3, 11, 18, 26, 33, 40, 48, 55]),
        (118, [7, 22, 36, 51, 65, 80, 95, 109]),
    ],
)
@pytest.mark.parametrize("count", [None, 1])
def test_segments(frames: int, expected: list[int], count: int | None) -> None:
    spec = SamplingSpec(num_frames=8, method="segments", fps=None, clips=count)
    assert clips(video(frames, 12), spec) == [expected]
    at_that_rate = SamplingSpec(num_frames=8, method="segments", fps=30, clips=count)
    assert clips(video(frames, 30), at_that_rate) == [expected]


def webm(milliseconds: list[float], fps: float) -> VideoInfo:
    """Matroska and WebM have times in whole milliseconds."""
    times = np.floor(np.array(milliseconds) + 0.5 + 1e-9) / 1000
    return VideoInfo(times, fps, width=320, height=240, codec="vp9", has_stream_duration=False)


# Recorded by running FFmpeg 4.2.2, `ffmpeg -i VIDEO -r 30`, on videos of 61 numbered frames: the rate,
# the container, and how often each frame came out.
EXTRACTED = [
    (8, "mp4", "4443444344434443444344434443444344434443444344434443444344434"),
    (10, "mp4", "3333333333333333333333333333333333333333333333333333333333333"),
    (12, "mp4", "2323232323232323232323232323232323232323232323232323232323232"),
    (12, "webm", "2233232233232233232233232233232233232233232233232233232233232"),
    (12000 / 1001, "mp4", "3323232323232323232323232323232323232323232323232323232323232"),
    (12000 / 1001, "webm", "2233232323232323232323232323232323232323232323232323232323232"),
    (14, "webm", "2222322222232222223222222322222232222223222222322222232222223"),
    (20, "mp4", "2212121212121212121212121212121212121212121212121212121212121"),
    (20, "webm", "2212121212121212121212121212121212121212121212121212121212121"),
    (24, "mp4", "1121112111211121112111211121112111211121112111211121112111211"),
    (24, "webm", "1112112111211112112111211112112111211112112111211112112111211"),
    (24000 / 1001, "mp4", "1121112111211121112111211121112111211121112111211121112111211"),
    (24000 / 1001, "webm", "1112112111211121112111211121112111211121112111211121112111211"),
    (25, "mp4", "1112111121111211112111121111211112111121111211112111121111211"),
    (30000 / 1001, "webm", "1111111111111111111111111111111111111111111111111111111111111"),
    (30, "mp4", "1111111111111111111111111111111111111111111111111111111111111"),
    (30, "webm", "1111111111111111111111111111111111111111111111111111111111111"),
    (50, "mp4", "1111110101101011010110101101011010110101101011010110101101011"),
    (60, "webm", "1111010101010101010101010101010101010101010101010101010101010"),
    (120, "mp4", "1101000100010001000100010001000100010001000100010001000100010"),
]


def copies(info: VideoInfo) -> str:
    return "".join(map(str, np.diff(sampling._constant_rate(info, 30.0), prepend=0)))


@pytest.mark.parametrize(("fps", "container", "expected"), EXTRACTED)
def test_frames_are_extracted_as_ffmpeg_does(fps: float, container: str, expected: str) -> None:
    info = video(61, fps) if container == "mp4" else webm([n * 1000 / fps for n in range(61)], fps)
    assert copies(info) == expected


def test_a_gap_is_filled_from_both_sides_as_ffmpeg_does() -> None:
    # Recorded as above: ten frames a second, and frame 30 comes a tenth of a second late.
    times = [n * 100 + (100 if n >= 30 else 0) for n in range(61)]
    assert copies(webm(times, 10.0)) == "3" * 29 + "54" + "3" * 30


def test_segments_are_of_the_extracted_pictures() -> None:
    spec = SamplingSpec(num_frames=8, method="segments", fps=30)
    pictures = np.repeat(np.arange(61), list(map(int, EXTRACTED[3][2])))
    assert EXTRACTED[3][:2] == (12, "webm")
    assert len(pictures) == 152
    expected = pictures[[9, 28, 47, 66, 85, 103, 122, 141]].tolist()  # the rule for 152 pictures
    info = webm([n * 1000 / 12 for n in range(61)], 12.0)
    assert clips(info, spec) == [expected]
    own = clips(info, SamplingSpec(num_frames=8, method="segments", fps=None))
    assert own != [expected]


def test_a_frame_that_is_said_to_last_for_centuries_costs_nothing() -> None:
    info = VideoInfo(np.array([0.0, 0.1, 1e10]), 3.0, width=64, height=48, codec="h264")
    assert clips(info, SamplingSpec(num_frames=4, method="segments")) == [[1, 1, 1, 1]]


# What mmaction2's SampleFrames computes: frames, and the numbers of one clip of 8x32.
STRIDED = [(300, [37, 69, 101, 133, 165, 197, 229, 261]), (90, [0, 32, 64, 6, 38, 70, 12, 44])]


def strided(clips: int | None = 1, **settings: object) -> SamplingSpec:
    return SamplingSpec(num_frames=8, method="strided", clips=clips, **{"fps": None, "overrun": "loop", **settings})


@pytest.mark.parametrize("fps", [12, 29.97, 60])
@pytest.mark.parametrize(("frames", "expected"), STRIDED)
def test_strided(frames: int, expected: list[int], fps: float) -> None:
    assert clips(video(frames, fps), strided(placement="middle")) == [expected]


@pytest.mark.parametrize(
    ("frames", "settings", "expected"),
    [
        (300, {}, [[0, 32, 64, 96, 128, 160, 192, 224]]),
        (90, {"overrun": "repeat", "placement": "middle"}, [[0, 32, 64, 89, 89, 89, 89, 89]]),
        (226, {"placement": "middle"}, [[0, 32, 64, 96, 128, 160, 192, 224]]),
        (227, {"placement": "middle"}, [[1, 33, 65, 97, 129, 161, 193, 225]]),
        # Halves go to the even neighbour: 75 / 2 is 38, 77 / 2 is 38.
        (300, {"clips": 3}, [[start + n * 32 for n in range(8)] for start in (0, 38, 75)]),
        (302, {"clips": 3}, [[start + n * 32 for n in range(8)] for start in (0, 38, 77)]),
        (450, {"clips": None}, [[start + n * 32 for n in range(8)] for start in (0, 225)]),
        # 32 frames at 30 a second are 26.67 at 25.
        (300, {"fps": 30}, [[0, 27, 53, 80, 107, 133, 160, 187]]),
    ],
)
def test_strided_clips(frames: int, settings: dict[str, object], expected: list[list[int]]) -> None:
    assert clips(video(frames, 25), strided(**settings)) == expected


def test_a_window_of_a_short_video_may_start_it_again() -> None:
    assert clips(video(90, 30), window("8x32", overrun="loop")) == [[0, 36, 72, 19, 55, 2, 38, 75]]
    assert clips(video(300, 30), window("8x32", overrun="loop")) == clips(video(300, 30), window("8x32"))


@pytest.mark.parametrize("count", [None, 1, 3])
@pytest.mark.parametrize("name", ["8x32", "16x16"])
def test_a_window_in_the_video_s_own_frames(name: str, count: int | None) -> None:
    for fps in (12, 29.97, 60):
        own = clips(video(400, fps), window(name, clips=count, fps=None))
        assert own == clips(video(400, 30), window(name, clips=count, fps=30))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(8, list(range(8))), (300, [0, 37, 75, 112, 150, 187, 225, 262]), (3, [0, 0, 0, 1, 1, 1, 2, 2])],
)
def test_uniform(frames: int, expected: list[int]) -> None:
    assert clips(video(frames, 30), SamplingSpec(num_frames=8, method="uniform")) == [expected]


def test_a_single_window_in_the_middle() -> None:
    spec = window("8x32", placement="middle")
    assert clips(video(300, 30), spec) == [[22, 58, 94, 131, 167, 204, 240, 277]]
    assert clips(video(300, 30), window("8x32", clips=None, placement="middle")) == clips(video(300, 30), spec)
    assert clips(video(90, 30), spec) == clips(video(90, 30), window("8x32"))


@pytest.mark.parametrize(
    ("frames", "count"),
    [(1, 1), (90, 1), (300, 1), (384, 2), (400, 2), (768, 3), (2560, 10), (20_000, MAX_AUTO_CLIPS)],
)
def test_auto_covers_the_video_with_windows_side_by_side(frames: int, count: int) -> None:
    numbers = clips(video(frames, 30), window("8x32", clips=None))
    assert len(numbers) == count
    assert numbers[0][0] == 0
    if count > 1:
        assert numbers[-1][-1] == frames - 1
        steps = {second[0] - first[0] for first, second in pairwise(numbers)}
        assert max(steps) - min(steps) <= 1


def test_auto_does_not_depend_on_the_container() -> None:
    spec = window("8x32", clips=None)
    assert clips(video(1000, 29.97, mp4=True), spec) == clips(video(1000, 29.97, mp4=False), spec)


def test_a_window_spans_the_video_in_seconds() -> None:
    (span,) = plan(video(250, 25), window("8x32"))
    assert (span.start, span.end) == (0.0, pytest.approx(10.0))
    assert span.clips.dtype == np.int64


def test_rates_are_honoured() -> None:
    # Ten seconds at any rate show the same moments.
    slow, fast = (clips(video(10 * fps, fps), window("8x32"))[0] for fps in (30, 60))
    assert max(abs(2 * a - b) for a, b in zip(slow, fast, strict=True)) <= 2
    assert clips(video(300, 30), window("8x32", fps=60)) == clips(video(300, 30), window("8x16"))


def original_window(frames: int, fps: float, spec: SamplingSpec, clip: int, mp4: bool) -> list[int]:
    """The numbers as the original gets them: a decoded range of frames, then torch.linspace within it."""
    length = spec.stride * spec.num_frames / spec.fps * fps
    start = max(frames - length, 0) * clip / spec.clips
    decoded = list(range(frames))
    if mp4:
        tick = 512  # time stamps between two frames
        first, last = int(start * tick), int((start + length - 1) * tick)
        inside = [n for n in decoded if n * tick >= first]
        beyond = [n for n in inside if n * tick > last]
        decoded, start = [n for n in inside if n * tick <= last] + beyond[:1], 0.0
    at = torch.linspace(start, start + length - 1, spec.num_frames).clamp(0, len(decoded) - 1).long()
    return [decoded[i] for i in at.tolist()]


RATES = st.sampled_from([10, 12, 15, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001, 60, 120])
LENGTHS = st.integers(1, 5000)


@example(145, 25, 17, 8, 5, True)  # the fourth view starts at 19.000000000000004
@given(LENGTHS, RATES, st.integers(2, 100), st.sampled_from([2, 4, 8, 16, 32]), st.integers(1, 10), st.booleans())
def test_windows_are_the_original_s(frames: int, fps: float, count: int, stride: int, views: int, mp4: bool) -> None:
    spec = SamplingSpec(num_frames=count, stride=stride, clips=views)
    expected = [original_window(frames, fps, spec, view, mp4) for view in range(views)]
    assert clips(video(frames, fps, mp4), spec) == expected


@st.composite
def specs(draw: st.DrawFn) -> SamplingSpec:
    method = draw(st.sampled_from(["window", "strided", "segments", "uniform"]))
    return SamplingSpec(
        num_frames=draw(st.integers(1, 200)),
        method=method,
        stride=draw(st.floats(0.01, 100)),
        fps=draw(st.none() | st.floats(1, 120)),
        clips=draw(st.none() | st.integers(1, 20)) if method in ("window", "strided") else None,
        placement=draw(st.sampled_from(["first", "middle"])),
        overrun=draw(st.sampled_from(["repeat", "loop"])),
    )


@given(LENGTHS, st.floats(0.1, 240), specs(), st.booleans())
def test_every_plan_is_inside_the_video_and_in_order(frames: int, fps: float, spec: SamplingSpec, mp4: bool) -> None:
    (span,) = plan(video(frames, fps, mp4), spec)
    wanted = spec.clips or (len(span.clips) if spec.method in ("window", "strided") else 1)
    assert span.clips.shape == (wanted, spec.num_frames)
    assert 1 <= len(span.clips) <= max(MAX_AUTO_CLIPS, spec.clips or 1)
    assert span.clips.min() >= 0
    assert span.clips.max() <= frames - 1
    if spec.overrun == "repeat":
        assert (np.diff(span.clips, axis=1) >= 0).all()
        assert (np.diff(span.clips[:, 0]) >= 0).all()
    assert math.isclose(span.end, frames / fps, rel_tol=1e-9)


@pytest.mark.parametrize("method", ["segments", "uniform"])
def test_methods_that_cover_the_video_have_one_clip(method: str) -> None:
    with pytest.raises(ValueError, match="whole video"):
        SamplingSpec(num_frames=8, method=method, clips=2)


class TestTimelines:
    @pytest.mark.parametrize(
        ("frames", "seconds", "hop", "expected"),
        [
            (300, 4, None, [(0, 4), (4, 8), (8, 10)]),
            (300, 5, None, [(0, 5), (5, 10)]),
            (300, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
            (300, 4, 3, [(0, 4), (3, 7), (6, 10)]),
            (315, 4, 3, [(0, 4), (3, 7), (6, 10), (9, 10.5)]),
            (301, 5, None, [(0, 5), (5, 301 / 30)]),  # one frame more is no window of its own
            (100, 8.5, 4, [(0, 10 / 3)]),
            (1, 8.5, 4, [(0, 1 / 30)]),
        ],
    )
    def test_windows_cover_the_video(
        self, frames: int, seconds: float, hop: float | None, expected: list[tuple[float, float]]
    ) -> None:
        windows = plan(video(frames, 30), window("8x32"), Timeline(length=seconds, hop=hop))
        assert [(w.start, w.end) for w in windows] == [pytest.approx(pair) for pair in expected]

    def test_they_count_from_the_first_frame(self) -> None:
        """Of a picture that starts late, the same frames, at later times."""
        info, timeline = video(300, 30), Timeline(length=4, hop=3)
        early, late = (plan(replace(info, start=start), window("8x32"), timeline) for start in (0.0, 3.1))
        assert [(w.start, w.end) for w in late] == [pytest.approx((w.start + 3.1, w.end + 3.1)) for w in early]
        for before, after in zip(early, late, strict=True):
            np.testing.assert_array_equal(before.clips, after.clips)
        (whole,) = plan(replace(info, start=3.1), window("8x32"))
        assert (whole.start, whole.end) == (0, 10)

    @pytest.mark.parametrize("method", ["window", "strided", "segments", "uniform"])
    @pytest.mark.parametrize("overrun", ["repeat", "loop"])
    @pytest.mark.parametrize("fps", [29.97, 30, 12.5])
    def test_each_is_sampled_as_a_video_of_its_frames(self, method: str, overrun: str, fps: float) -> None:
        spec = SamplingSpec(num_frames=4, stride=20, method=method, overrun=overrun)
        info = video(200, fps)
        for part in plan(info, spec, Timeline(length=3.0, hop=1.5)):
            first = int(np.ceil(part.start * fps - 1e-6))
            last = min(int(np.ceil(part.end * fps - 1e-6)), 200)
            alone = clips(video(last - first, fps), spec)
            assert (part.clips - first).tolist() == alone

    def test_a_gap_shows_the_frame_before_it(self) -> None:
        info = replace(video(20, 10), times=np.concatenate([np.arange(10) / 10, 8 + np.arange(10) / 10]))
        windows = plan(info, window("2x1"), Timeline(length=2.0))
        assert [(w.clips.min(), w.clips.max()) for w in windows[1:4]] == [(9, 9)] * 3
        assert windows[4].clips.min() == 10

    def test_more_segments_than_can_be(self) -> None:
        """The advice is about what makes them so many."""
        with pytest.raises(VideoError, match=r"every 1e-09 s makes 8,966,666,668 of them; use a larger `hop`") as error:
            plan(video(300, 30), window("8x32"), Timeline(length=1.0, hop=1e-9))
        assert error.value.kind == "too_large"

    @pytest.mark.parametrize("settings", [{"length": 0}, {"length": 2, "hop": 0}, {"length": 2, "hop": 3}])
    def test_what_cannot_be(self, settings: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="must be a number of seconds above 0"):
            Timeline(**settings)


class TestParts:
    @pytest.mark.parametrize(
        ("start", "end", "begins", "first", "last"),
        [
            (2.0, 5.0, 0.0, 20, 49),
            (2.0, None, 0.0, 20, 99),
            (None, 5.0, 0.0, 0, 49),
            (0.0, 99.0, 0.0, 0, 99),
            (2.01, 2.11, 0.0, 21, 21),  # from the first frame shown in it to before its end
            (2.0, 5.0, 0.5, 15, 44),  # a file whose sound begins half a second before its first frame
            (0.2, 5.0, 0.5, 0, 44),
            (9.9, None, 0.0, 99, 99),
        ],
    )
    def test_have_the_frames_that_begin_in_them(
        self, start: float | None, end: float | None, begins: float, first: int, last: int
    ) -> None:
        info = replace(video(100, 10), start=begins)
        (span,) = plan(info, SamplingSpec(num_frames=last - first + 1, method="uniform"), part=(start, end))
        assert span.clips.tolist() == [list(range(first, last + 1))]
        assert (span.start, span.end) == (
            begins if start is None else start,
            begins + 10.0 if end is None else end,
        )

    @given(specs(), st.integers(0, 80), st.integers(1, 40))
    def test_are_sampled_as_videos_of_their_frames_alone(self, spec: SamplingSpec, first: int, count: int) -> None:
        info = video(120, 25)
        (span,) = plan(info, spec, part=(first / 25, (first + count) / 25))
        (alone,) = plan(replace(info, times=info.times[first : first + count]), spec)
        np.testing.assert_array_equal(span.clips, first + alone.clips)

    def test_are_the_segments_of_a_timeline(self) -> None:
        info = replace(video(300, 30), start=0.25)
        for span in plan(info, window("8x4"), Timeline(length=3.0, hop=2.0)):
            (part,) = plan(info, window("8x4"), part=(span.start, span.end))
            np.testing.assert_array_equal(part.clips, span.clips)

    @pytest.mark.parametrize(
        ("start", "end", "begins", "message"),
        [
            (12.0, 15.0, 0.0, "no frame in the part 12 to 15 s: the video lasts 10.00 s"),
            (10.0, None, 0.0, "no frame in the part from 10 s: the video lasts 10.00 s"),
            (None, 0.25, 0.5, "no frame in the part to 0.25 s: the video lasts 10.00 s, from 0.50 s on"),
            (3.01, 3.09, 0.0, "no frame in the part 3.01 to 3.09 s: the video lasts 10.00 s"),
        ],
    )
    def test_without_a_frame_fail(self, start: float | None, end: float | None, begins: float, message: str) -> None:
        with pytest.raises(VideoError) as failure:
            plan(replace(video(100, 10), start=begins), window("8x1"), part=(start, end))
        assert (failure.value.kind, str(failure.value)) == ("decode", message)

    def test_of_a_video_without_a_finite_rate(self) -> None:
        info = replace(video(4, 10), fps=math.inf)
        (span,) = plan(info, SamplingSpec(num_frames=4, method="uniform"), part=(0.0, None))
        assert span.clips.tolist() == [[0, 1, 2, 3]]

    def test_have_no_timeline(self) -> None:
        with pytest.raises(ValueError, match="a timeline of a part"):
            plan(video(100, 10), window("8x1"), Timeline(length=1.0), part=(1.0, 2.0))


METHODS = st.sampled_from(["window", "strided", "segments", "uniform"])


def random_specs() -> st.SearchStrategy[SamplingSpec]:
    return st.builds(
        SamplingSpec,
        num_frames=st.sampled_from([1, 2, 8, 16]),
        method=METHODS,
        stride=st.sampled_from([0.5, 1, 4, 32]),
        fps=st.sampled_from([None, 12.0, 30.0]),
        overrun=st.sampled_from(["repeat", "loop"]),
        placement=st.sampled_from(["first", "middle"]),
    )


@given(LENGTHS, RATES, random_specs(), st.integers(0, 2**32), st.booleans())
def test_a_random_clip_is_one_of_the_recipe_s(
    frames: int, fps: float, spec: SamplingSpec, seed: int, part: bool
) -> None:
    info = video(frames, fps)
    # From a quarter of the video on to before three quarters of it, with a frame at least.
    first, last = (frames // 4, max(frames * 3 // 4, frames // 4 + 1)) if part else (0, frames)
    where = (info.times[first], (last - 0.5) / fps) if part else (None, None)
    drawn = draw(info, spec, np.random.default_rng(seed), part=where)
    assert drawn.clips.shape == (1, spec.num_frames)
    assert drawn.clips.dtype == np.int64
    (numbers,) = drawn.clips
    assert first <= numbers.min() <= numbers.max() < last
    (plain,) = plan(info, replace(spec, clips=1), part=where)
    assert (drawn.start, drawn.end) == (plain.start, plain.end)
    if spec.overrun == "repeat":
        assert (np.diff(numbers) >= 0).all()
    if spec.method in ("window", "strided"):
        # The clip at the first frame, moved; or that clip, if it reaches the last frame.
        (at_start,) = plan(info, replace(spec, clips=1, placement="first"), part=where)
        if at_start.clips.max() < last - 1:
            assert len(set((numbers - at_start.clips[0]).tolist())) == 1
        elif len(set(at_start.clips[0].tolist())) == spec.num_frames > 1:
            np.testing.assert_array_equal(drawn.clips, at_start.clips)


@pytest.mark.parametrize("method", ["window", "strided", "segments", "uniform"])
def test_random_clips_take_every_frame_that_they_can(method: str) -> None:
    spec = SamplingSpec(num_frames=4, method=method, stride=2, fps=None)
    generator = np.random.default_rng(0)
    drawn = np.stack([draw(video(20, 30), spec, generator).clips[0] for _ in range(500)])
    if method in ("window", "strided"):
        reach = {"window": 8, "strided": 7}[method]
        assert set(drawn[:, 0].tolist()) == set(range(20 - reach + 1))
        assert drawn[:, -1].max() == 19
    else:
        edges = {"segments": [0, 5, 10, 14, 19], "uniform": [0, 5, 10, 15, 20]}[method]
        for column, (start, end) in zip(drawn.T, pairwise(edges), strict=True):
            assert set(column.tolist()) == set(range(start, end + (method == "segments")))


def test_the_same_generator_draws_the_same_clip() -> None:
    spec = SamplingSpec(num_frames=8, stride=4)
    one, same, other = (draw(video(900, 30), spec, np.random.default_rng(seed)).clips for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_no_random_clip_of_a_part_without_frames() -> None:
    with pytest.raises(VideoError, match="no frame in the part"):
        draw(video(30, 10), SamplingSpec(num_frames=8), np.random.default_rng(0), part=(5.0, 6.0))
