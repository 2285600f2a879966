"""Videos whose container states a cropping."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import av

from testing.stamped import SHORT_GOP, Pixels, write_video

# The boxes of MP4 around a track's first sample entry, and the bytes of their content before the next box.
_PATH = ((b"moov", 0), (b"trak", 0), (b"mdia", 0), (b"minf", 0), (b"stbl", 0), (b"stsd", 8), (b"avc1", 78))


def write_cropped(
    path: Path, pictures: Iterable[Pixels], aperture: Sequence[int], *, matrix: Sequence[int] | None = None
) -> Path:
    """An MP4 or Matroska file with a clean aperture: width, height, and the offsets of its centre, as fractions."""
    plain = write_video(path.with_suffix(".mp4"), pictures, options={**SHORT_GOP, "bf": "0"}, matrix=matrix)
    plain.write_bytes(with_aperture(plain.read_bytes(), aperture))
    if path.suffix != ".mp4":
        with av.open(str(plain)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        plain.unlink()
    return path


def with_aperture(content: bytes, aperture: Sequence[int]) -> bytes:
    """An MP4 file, whose index comes after its frames, with a `clap` box at the end of its first sample entry."""
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", *aperture)
    place, end = 0, 0
    for kind, skipped in _PATH:
        place = content.index(kind, place) + 4
        size = int.from_bytes(content[place - 8 : place - 4])
        end = place - 8 + size
        content = content[: place - 8] + struct.pack(">I", size + len(clap)) + content[place - 4 :]
        place += skipped
    return content[:end] + clap + content[end:]
