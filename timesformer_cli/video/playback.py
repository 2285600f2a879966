"""Which videos browsers play."""

import os

_EXTENSIONS = {"mov": (".mp4", ".mov", ".m4v"), "matroska": (".webm",)}  # by the first word of FFmpeg's name
_CODECS = ("vp8", "vp9", "av1")
_H264 = ("yuv420p", "yuvj420p")  # with 8 bits


def plays_in_browsers(path: str, container: str, codec: str, pixel_format: str) -> bool:
    """Whether Chromium, Firefox and Safari of these years all play the video; the names are those of `VideoInfo`.

    FFmpeg has one name for MP4 and 3GP, and one for WebM and Matroska: there the extension of `path` decides.
    """
    extension = os.path.splitext(path.partition("?")[0] if "://" in path else path)[1].lower()
    if extension not in _EXTENSIONS.get(container.partition(",")[0], ()):
        return False
    return codec in _CODECS or (codec == "h264" and pixel_format in _H264)
