"""The encodings of the stamped videos: one file for each kind that decoders treat differently."""

from typing import Any

from testing.stamped import LONG_GOP, SHORT_GOP

FRAMES = 60
# Out of order, repeated, first and last, and on both sides of key frames (every twelfth).
PLAN = [40, 3, 3, 59, 0, 25, 26, 27, 58, 11, 12, 13, 24, 23]

X264_OPEN = {**SHORT_GOP, "x264-params": "open-gop=1"}
X264_REFRESH = {**SHORT_GOP, "x264-params": "intra-refresh=1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=0"}
X265_OPEN = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:b-adapt=0"}
VPX = {"deadline": "realtime", "cpu-used": "8", "g": "12", "b": "500k"}

# File name, its encoding, and whether decord is trusted with it.
RECIPES: dict[str, tuple[dict[str, Any], bool]] = {
    "short.mp4": ({}, True),
    "long.mp4": ({"options": LONG_GOP}, True),
    "no_b_frames.mp4": ({"options": {**SHORT_GOP, "bf": "0"}}, True),
    "open.mp4": ({"options": X264_OPEN}, False),
    "refresh.mp4": ({"options": X264_REFRESH}, False),
    "fragments.mp4": ({"muxer_options": {"movflags": "frag_keyframe+empty_moov"}}, True),
    "short.mov": ({}, True),
    "short.mkv": ({}, True),
    "short.flv": ({}, True),
    "short.ts": ({}, False),
    "short.avi": ({}, False),
    "raw.h264": ({}, False),
    "hevc.mp4": ({"codec": "libx265", "options": X265}, True),
    "hevc_open.mp4": ({"codec": "libx265", "options": X265_OPEN}, False),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": VPX}, True),
    "vp8.webm": ({"codec": "libvpx", "options": VPX}, True),
    "av1.mkv": ({"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}}, False),
    "mpeg4.mp4": ({"codec": "mpeg4", "options": {"g": "12"}}, True),
    "mpeg4_b.mp4": ({"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, False),
    "mpeg4.avi": ({"codec": "mpeg4", "options": {"g": "12"}}, True),
    "mpeg4_b.avi": ({"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, False),
    "mpeg2.mpg": ({"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "2M"}}, False),
    "mpeg2.ts": ({"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "2M"}}, False),
    "wmv.asf": ({"codec": "wmv2", "options": {"g": "12"}}, False),
    "intra.mov": ({"codec": "mjpeg", "options": {}, "pixel_format": "yuvj420p"}, True),
    "lossless.mkv": ({"codec": "ffv1", "options": {"g": "12"}, "pixel_format": "yuv444p"}, True),
    "still.gif": ({"codec": "gif", "options": {}, "pixel_format": "rgb8", "rate": 25}, False),
}
