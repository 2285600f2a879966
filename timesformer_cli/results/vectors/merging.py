"""The vectors of all shards of a run, in the order of a single one."""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from timesformer_cli.errors import OutputError
from timesformer_cli.results.journal import Holdings
from timesformer_cli.results.settings import Shard
from timesformer_cli.results.shards import Shards
from timesformer_cli.results.vectors.reading import open_vectors
from timesformer_cli.results.vectors.rows import VectorRow


def merged_rows(shards: Shards) -> Iterator[VectorRow]:
    """The rows of all shards. Of arrays, which have none of failed videos, the others keep their places.

    Raises:
        InputError: a file cannot be read.
        OutputError: a file does not hold what its run wrote.
    """
    count = len(shards.paths)
    whole = [
        _rows(path, Shard(number, count), held)
        for number, (path, held) in enumerate(zip(shards.paths, shards.held, strict=True), 1)
    ]
    return heapq.merge(*whole, key=attrgetter("video"))


def _rows(path: Path, shard: Shard, held: Holdings) -> Iterator[VectorRow]:
    """The rows of one shard, with the numbers of their videos in the whole run."""
    videos, last = 0, -1
    for row in open_vectors(path).entries():
        videos += row.vector is not None and row.video != last
        last = row.video
        yield replace(row, video=row.video * shard.count + shard.index - 1)
    if videos != held.videos - held.failed:
        raise OutputError(
            f"{path}: has vectors of {videos} videos, and its run wrote those of {held.videos - held.failed}; copy it "
            f"again, or complete it with `shard={shard}` `resume`"
        )
