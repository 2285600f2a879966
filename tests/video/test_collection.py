"""A collection of real, odd and broken videos, through all decoders."""

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.collection import KINDS
from testing.needs import ALL
from testing.stamped import Pixels
from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Frames, Item, VideoInfo
from timesformer_cli.specs import Decoder, Reading
from timesformer_cli.video.decoders.pyav import PyavReader
from timesformer_cli.video.reader import open_video

# Damaged inside: packets promise this many frames, fewer can be decoded, and asking for the rest is an error.
PROMISED = {"corrupt_nal_decord.mp4": 50, "bit_errors.mp4": 300}

# The manifest has FFmpeg's average rate, which these files' frames contradict by more than 2 %.
CONTRADICTED_RATES = {
    "bogus_1000fps.flv": 29.99,
    "mpeg2_1080.ts": 23.19,
    "slow_motion_vfr_7frames.mp4": 12.19,
    "mpeg4_avi_96_of_98.avi": 23.48,
}

# Readable files that a backend would show otherwise, or not at all.
REFUSES = {
    "decord": {
        "archery_interlaced.mpg",
        "armwrestling_pts_wrap.ts",
        "armwrestling_theora.ogv",
        "av1.mkv",
        "baseball_intra_refresh.mp4",
        "cleanjerk_edit_list.mp4",
        "corrupt_nal_decord.mp4",
        "cricket_shot.gif",
        "edit_list_preroll.mp4",
        "eyemakeup_prores422_10.mov",
        "eyemakeup_wmv1.asf",
        "h263_vfr_phone.3gp",
        "h264_10bit.mp4",
        "hevc_8bit.mp4",
        "hlg10_hevc_1080p.mp4",
        "iframes_only.ts",
        "long_4k60_av1_21766_frames.mp4",
        "mpeg2_1080.ts",
        "no_duration.webm",
        "ntu_drink_water_1080p.avi",
        "odd_dimensions_161x121.webm",
        "raw_annexb.h264",
        "resolution_change.ts",
        "rotate_and_reflect.mp4",
        "truncated_faststart.mp4",
        "two_mkv_joined.mkv",
        "two_video_streams_nasa.mp4",
        "ucf_apply_eye_makeup.avi",
        "vvc_h266.mp4",
        "weightlifting_starts_mid_gop.ts",
        "yoga_hevc_12bit.mp4",
        "yoga_open_gop.mp4",
    },
    "torchcodec": {
        "archery_interlaced.mpg",
        "armwrestling_pts_wrap.ts",
        "baseball_intra_refresh.mp4",
        "corrupt_nal_decord.mp4",
        "eyemakeup_prores422_10.mov",
        "h263_vfr_phone.3gp",
        "h264_10bit.mp4",
        "hlg10_hevc_1080p.mp4",
        "iframes_only.ts",
        "mpeg2_1080.ts",
        "ntu_drink_water_1080p.avi",
        "raw_annexb.h264",
        "resolution_change.ts",
        "rotate_and_reflect.mp4",
        "truncated_faststart.mp4",
        "two_mkv_joined.mkv",
        "ucf_apply_eye_makeup.avi",
        "vvc_h266.mp4",
        "weightlifting_starts_mid_gop.ts",
        "yoga_hevc_12bit.mp4",
    },
}

# Where their pictures may differ from PyAV's, and by how many levels: older FFmpegs round this MPEG-4 otherwise, and
# each decoder mends the holes of a damaged stream in its own way.
DIFFERS = {"mpeg4_avi_96_of_98.avi": 2, "bit_errors.mp4": 255}


def spread(count: int) -> list[int]:
    return sorted({0, count // 2, count - 1})


@functools.cache
def other_decoders() -> tuple[Decoder, ...]:
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        if ALL:
            raise
        return ("decord",)
    return ("decord", "torchcodec")


def read_some(path: str, decoder: Decoder = "auto") -> tuple[VideoInfo, Frames]:
    with open_video(Item(path), Reading(decoder=decoder)) as reader:
        return reader.info, reader.read(plan(reader.info))


def plan(info: VideoInfo) -> list[int]:
    """Three frames; of 8K the last alone, for three would be a gigabyte in all decoders."""
    numbers = spread(info.num_frames)
    return numbers[-1:] if info.width > 4096 else numbers


def test_outcome(shared_videos: Path, manifest_entry: dict[str, Any]) -> None:
    name = manifest_entry["file"]
    path = str(shared_videos / name)
    if manifest_entry["expected"] == "error":
        for decoder in ("auto", *other_decoders()):
            refuses(path, KINDS[name], decoder)
        return
    info, frames = read_some(path)
    check_usual(manifest_entry, info, frames)
    for decoder in other_decoders():
        if name in REFUSES[decoder]:
            refuses(path, "unsupported", decoder)
        else:
            check_same(name, read_some(path, decoder)[1].pixels, frames.pixels, decoder)


def refuses(path: str, kind: str, decoder: Decoder) -> None:
    with pytest.raises(VideoError) as caught:
        read_some(path, decoder)
    assert caught.value.kind == kind, decoder


def check_same(name: str, shown: Pixels, usual: Pixels, decoder: Decoder) -> None:
    if name in DIFFERS:
        assert np.abs(shown.astype(np.int16) - usual).max() <= DIFFERS[name], decoder
    else:
        assert np.array_equal(shown, usual), decoder


def check_usual(manifest_entry: dict[str, Any], info: VideoInfo, frames: Frames) -> None:
    name = manifest_entry["file"]
    assert info.num_frames == PROMISED.get(name, manifest_entry["nb_frames"] or manifest_entry["nb_frames_header"])
    size = (manifest_entry["width"], manifest_entry["height"])
    assert (info.width, info.height) == (size[::-1] if manifest_entry["rotation"] % 180 else size)
    assert frames.pixels.shape == (len(plan(info)), info.height, info.width, 3)
    assert info.codec == manifest_entry["codec"]
    rate = CONTRADICTED_RATES.get(name, manifest_entry["avg_fps"])
    assert rate is None or info.fps == pytest.approx(rate, rel=0.001)
    assert info.times[0] == 0
    assert np.all(np.diff(info.times) > 0)


def test_shortcuts_show_the_same(shared_videos: Path) -> None:
    """Files on which seeking goes wrong without care."""
    for name in (
        "arm_wrestling.mp4",
        "yoga_open_gop.mp4",
        "baseball_intra_refresh.mp4",
        "seek_needs_first_packet_444.mp4",
        "hevc_8bit.mp4",
        "baseball_vfr.mp4",
        "truncated.mkv",
        "bit_errors.mp4",
        "cleanjerk_edit_list.mp4",
    ):
        path = str(shared_videos / name)
        with open_video(Item(path)) as through, open_video(Item(path)) as short:
            assert isinstance(through, PyavReader)
            through._shortcuts = False
            plan = spread(through.info.num_frames)[:-1] if name == "bit_errors.mp4" else spread(through.info.num_frames)
            np.testing.assert_array_equal(short.read(plan).pixels, through.read(plan).pixels)


def test_turned_copy_equals_the_original(shared_videos: Path) -> None:
    plan = [0, 100, 279]
    shown = []
    for name in ("arm_wrestling.mp4", "armwrestling_rotated.mp4"):
        with open_video(Item(str(shared_videos / name))) as reader:
            shown.append(reader.read(plan).pixels)
    original, turned = (pictures.astype(np.int16) for pictures in shown)
    assert np.abs(original - turned).mean() < 3
    assert np.abs(original - turned[:, ::-1, ::-1]).mean() > 20
