"""Decoders: whether each reads a video here, what it refuses, and the FFmpeg libraries that it has or wants."""

import ctypes.util
import os
import re
from collections.abc import Iterator
from functools import partial
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any, Literal

from timesformer_cli.jobs.doctor.findings import Check, Finding, explained
from timesformer_cli.jobs.doctor.versions import DECODERS, Decoder, is_installed

# What videos have, and the names of FFmpeg's decoders for it; any one of them does. FFmpeg's own of AV1 needs a GPU.
_CODECS = {
    "h264": ["h264"],
    "hevc": ["hevc"],
    "av1": ["libdav1d", "libaom-av1"],
    "vp9": ["vp9", "libvpx-vp9"],
    "vp8": ["vp8", "libvpx"],
    "vvc": ["vvc", "libvvdec"],
    "mpeg4": ["mpeg4"],
    "mpeg2video": ["mpeg2video"],
    "mjpeg": ["mjpeg"],
    "prores": ["prores"],
    "dnxhd": ["dnxhd"],
    "ffv1": ["ffv1"],
    "theora": ["theora"],
    "wmv3": ["wmv3"],
}

# The major version of libavcodec, less that of FFmpeg.
_AHEAD = 54


def checks() -> Iterator[Check]:
    remedy = "install PyAV again: pip install -c constraints.txt av"
    yield Check(group="decoders", name="pyav", find=_pyav, remedy=remedy, apart=True)
    for name in DECODERS:
        remedy = f"install {name} again or uninstall it; `decoder=pyav` reads everything"
        yield Check(group="decoders", name=name, find=partial(_other, name), remedy=remedy, apart=is_installed(name))


def _read_clip(decoder: Literal["pyav", "decord", "torchcodec"]) -> None:
    """Read the first frame of the bundled clip. Raises as `open_video`."""
    from timesformer_cli.bundled import CLIP
    from timesformer_cli.flow import Item
    from timesformer_cli.specs import Reading
    from timesformer_cli.video.reader import open_video

    with open_video(Item(str(CLIP)), Reading(decoder=decoder)) as reader:
        reader.read([0])


def _pyav() -> list[Finding]:
    import av
    from av.codec import codecs_available

    from timesformer_cli.video.decoders.packets import CONTAINERS

    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    ffmpeg = str(av.ffmpeg_version_info)
    _read_clip("pyav")
    missing = [codec for codec, names in _CODECS.items() if not codecs_available.intersection(names)]
    facts: dict[str, Any] = {
        "containers": CONTAINERS.split(","),
        "codecs_missing": missing,
        "refuses": ["photographs", "playlists", "encrypted videos", "animated WebP and PNG", "raw MJPEG and DV"],
    }
    message = f"works; refuses {', '.join(facts['refuses'])}"
    found = Finding(group="decoders", name="pyav", message=message, facts=facts)
    if missing:
        found = Finding(
            group="decoders",
            name="pyav",
            status="warning",
            message=f"works, but its FFmpeg has no decoder for {', '.join(missing)}",
            remedy="install the wheels of PyAV instead of a build against the system's FFmpeg, or convert such videos",
            facts=facts,
        )
    version = f"FFmpeg {ffmpeg}, bundled (libavcodec {libraries['libavcodec']}, libavformat {libraries['libavformat']})"
    facts = {"ffmpeg": ffmpeg, "libraries": libraries}
    return [found, Finding(group="decoders", name="ffmpeg_of_pyav", message=version, facts=facts)]


def _other(name: Decoder) -> list[Finding]:
    """Decord or torchcodec."""
    if not is_installed(name):
        return [Finding(group="decoders", name=name, message="not installed", facts={"installed": False})]
    found = [_judged(name)]
    return [*found, _ffmpeg_of_torchcodec(works=found[0].status == "ok")] if name == "torchcodec" else found


def _judged(name: Decoder) -> Finding:
    try:
        _read_clip(name)
    except Exception as error:
        message, remedy = explained(error.__cause__ or error)
        wants = ", and FFmpeg with its libraries" if name == "torchcodec" else ""
        remedy = remedy or f"install {name} again{wants}, or uninstall it; `decoder=pyav` reads everything"
        message = f"{metadata.version(name)} does not work: {message}"
        return Finding(
            group="decoders", name=name, status="problem", message=message, remedy=remedy, facts={"installed": True}
        )
    abilities = import_module(f"timesformer_cli.video.decoders.{name}").ABILITIES
    containers, codecs = sorted(abilities.containers), sorted(abilities.codecs)
    facts = {"installed": True, "containers": containers, "codecs": codecs, "refuses": abilities.refused()}
    message = (
        f"works; reads only {', '.join(containers)} files with {', '.join(codecs)}; refuses "
        f"{', '.join(facts['refuses'])}"
    )
    return Finding(group="decoders", name=name, message=message, facts=facts)


def _ffmpeg_of_torchcodec(*, works: bool) -> Finding:
    """The versions that it has code for, and the one that it found or the system has."""
    spec = util.find_spec("torchcodec")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    wanted = sorted({int(n) for path in os.listdir(folder) for n in re.findall(r"libtorchcodec_core(\d+)\.", path)})
    used = getattr(import_module("torchcodec"), "ffmpeg_major_version", None) if works else None
    library = ctypes.util.find_library("avcodec")
    number = re.search(r"\d+", library or "")
    here = used or (int(number[0]) - _AHEAD if number else None)
    facts = {"wanted": wanted, "found": here}
    wants = f"wants FFmpeg {', '.join(map(str, wanted))}" if wanted else "wants FFmpeg"
    if works or here in wanted:
        message = f"{wants}; " + (f"found {here}" if here else "found one of them")
        return Finding(group="decoders", name="ffmpeg_of_torchcodec", message=message, facts=facts)
    return Finding(
        group="decoders",
        name="ffmpeg_of_torchcodec",
        status="problem",
        message=f"{wants}, as shared libraries; " + (f"here is {here}" if here else "none is here"),
        remedy="install FFmpeg with its libraries, for example: apt-get install ffmpeg",
        facts=facts,
    )
