"""Which videos a page plays."""

import pytest

from timesformer_cli.video.playback import plays_in_browsers

MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"


@pytest.mark.parametrize(
    ("path", "container", "codec", "pixel_format", "expected"),
    [
        ("a.mp4", MP4, "h264", "yuv420p", True),
        ("a.MOV", MP4, "h264", "yuvj420p", True),
        ("b/a.m4v", MP4, "av1", "yuv420p10le", True),
        ("a.webm", MATROSKA, "vp8", "yuv420p", True),
        ("a.webm", MATROSKA, "vp9", "yuv444p", True),
        ("https://example.org/a.mp4?sign=x.y", MP4, "h264", "yuv420p", True),
        ("a.mp4?x", MP4, "h264", "yuv420p", False),
        ("a.mkv", MATROSKA, "h264", "yuv420p", False),  # not in Safari
        ("a.3gp", MP4, "h264", "yuv420p", False),  # not in Firefox
        ("a.mp4", "avi", "h264", "yuv420p", False),
        ("a.mp4", MP4, "h264", "yuv420p10le", False),
        ("a.mp4", MP4, "h264", "yuv444p", False),
        ("a.mp4", MP4, "hevc", "yuv420p", False),
        ("a.mp4", MP4, "mpeg4", "yuv420p", False),
        ("a.ogv", "ogg", "theora", "yuv420p", False),
        ("a", "", "jpeg", "", False),
    ],
)
def test_what_browsers_play(path: str, container: str, codec: str, pixel_format: str, expected: bool) -> None:
    assert plays_in_browsers(path, container, codec, pixel_format) is expected
