"""Damaged copies of videos, by the ways in which files get damaged: flipped bytes, cuts, holes, reordered parts."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 10, 200])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_head(data: bytearray, rng: random.Random) -> None:
    """Flip a few bytes of the headers, where they do more damage."""
    for _ in range(rng.choice([1, 3, 10])):
        data[rng.randrange(min(len(data), 2000))] = rng.randrange(256)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _cut_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, max(len(data) // 4, 2))]


def _blank(data: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(data)), rng.choice([16, 512, 4096, 65536])
    hole = len(data[start : start + length])
    data[start : start + hole] = bytes(hole)


def _shuffle(data: bytearray, rng: random.Random) -> None:
    """The boxes of an MP4 in a different order, or blocks of any other file."""
    parts = list(_boxes(data)) if data[4:8] == b"ftyp" else [data[i : i + 4096] for i in range(0, len(data), 4096)]
    rng.shuffle(parts)
    data[:] = b"".join(parts)


def _boxes(data: bytearray) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        end = start + size if size >= 8 else len(data)
        yield bytes(data[start:end])
        start = end


WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _flip_head, _cut, _cut_out, _blank, _shuffle)


def write_mutants(clips: list[Path], folder: Path, count: int, seed: int = 0) -> list[Path]:
    """`count` files in `folder`, made from the clips and ways in turn; the same files for the same seed."""
    rng = random.Random(seed)
    written = []
    for number in range(count):
        clip, way = clips[number % len(clips)], WAYS[number // len(clips) % len(WAYS)]
        data = bytearray(clip.read_bytes())
        way(data, rng)
        written.append(folder / f"{number:04}{way.__name__}{clip.suffix}")
        written[-1].write_bytes(data)
    return written
