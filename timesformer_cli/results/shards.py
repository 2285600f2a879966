"""Shards: which videos belong to which run, and how to merge their outputs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from timesformer_cli.errors import OutputError
from timesformer_cli.results.journal import Holdings, read_meta, read_records
from timesformer_cli.results.record import Record, check_record
from timesformer_cli.results.settings import Provenance, Shard, differences

_AT_ONCE = 2**23  # bytes of all shards that a merge reads before it goes on to the next lines


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard written as "2/4", or the one from the variables if `text` is "auto".

    Raises:
        ValueError: there is no such shard.
    """
    if text == "auto":
        return _shard_in(environment)
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} is neither I/N, with I from 1 to N, nor auto")
    return Shard(int(match[1]), int(match[2]))


def _shard_in(environment: Mapping[str, str]) -> Shard:
    """Each task of a SLURM array may have several processes of torchrun or srun: then all processes share the work."""
    try:
        outer = _array_task(environment)
        rank = _ranks(environment, "RANK", "WORLD_SIZE") or _ranks(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    except (KeyError, ValueError) as error:
        raise ValueError(f"auto: the variables of SLURM or torchrun are inconsistent ({error}); write I/N") from None
    if outer is None and rank is None:
        raise ValueError("auto: there are no variables of a SLURM array, a SLURM step or torchrun; write I/N")
    outer, rank = outer or Shard(1, 1), rank or Shard(1, 1)
    return Shard((outer.index - 1) * rank.count + rank.index, outer.count * rank.count)


def _array_task(environment: Mapping[str, str]) -> Shard | None:
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    number, first, last, count = (
        int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "MAX", "COUNT")
    )
    if count == 1:
        raise ValueError("the array has one task, as one that was submitted again in part")
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
    index, rest = divmod(number - first, step)
    if rest or last != first + step * (count - 1):
        raise ValueError("the numbers of the array are not evenly spaced")
    if not 0 <= index < count:
        raise ValueError(f"task {index + 1} is not from 1 to {count}")
    return Shard(index + 1, count)


def _ranks(environment: Mapping[str, str], rank: str, size: str) -> Shard | None:
    if rank not in environment or size not in environment:
        return None
    shard = Shard(int(environment[rank]) + 1, int(environment[size]))
    if not 1 <= shard.index <= shard.count:
        raise ValueError(f"{rank} is {environment[rank]}, and {size} {environment[size]}")
    return shard


@dataclass(frozen=True, slots=True)
class Shards:
    """The outputs of all shards of a run, in order; `provenance` is that of the whole run."""

    paths: tuple[Path, ...]
    provenance: Provenance
    held: tuple[Holdings, ...]

    @property
    def holds(self) -> Holdings:
        """What all outputs hold together."""
        videos, failed, paths = map(sum, zip(*self.held, strict=True))
        return Holdings(videos, failed, paths % (1 << 128))

    def records(self) -> Iterator[Record]:
        """The records in the order of the inputs.

        Raises:
            OutputError: the records are not those that the runs wrote, which is known only at the end.
        """
        size = _AT_ONCE // len(self.paths)
        readers = [_in_pieces(path, size) for path in self.paths]
        found = [Holdings()] * len(readers)
        for turn in cycle(range(len(readers))):
            entry = next(readers[turn], None)
            if entry is None:
                break
            found[turn] = found[turn].and_record(entry)
            yield entry
        for number, (path, held, holds, rest) in enumerate(zip(self.paths, self.held, found, readers, strict=True), 1):
            for record in rest:
                holds = holds.and_record(record)
            if holds != held:
                raise OutputError(
                    f"{path}: does not hold the {held.videos} records that its run wrote; copy it again, or "
                    f"complete it with `shard={Shard(number, len(self.paths))}` `resume`"
                )


def _in_pieces(path: Path, size: int) -> Iterator[Record]:
    """The records of a file, `size` bytes or a line at a time. In between it is closed: there may be many shards."""
    end, number, piece = 0, 1, [Record()]
    while piece:
        piece, start = [], end
        with closing(read_records(path, start, number, check=check_record)) as records:
            for end, record in records:
                piece.append(record)
                if end - start >= size:
                    break
        number += len(piece)
        yield from piece


def open_shards(paths: Sequence[Path]) -> Shards:
    """The shards with the outputs `paths` (JSON lines), in any order.

    Raises:
        OutputError: a shard is missing, named twice, not finished, or was made with different settings or inputs.
    """
    found: dict[int, Path] = {}
    held: dict[int, Holdings] = {}
    common: dict[str, Any] = {}
    count = 0
    for path in paths:
        if not path.is_file():
            raise OutputError(f"{path}: no such file")
        settings, holds = read_meta(path)
        index, of = settings.pop("shard", None) or (1, 1)
        if holds is None:
            again = f", with `shard={index}/{of}` `resume`" if of > 1 else ", with `resume`"
            raise OutputError(f"{path}: is not finished; complete it first{again}")
        if found and (of != count or (differing := list(differences(common, settings)))):
            what = (
                f"is one of {of} shards, not {count}" if of != count else f"different settings: {', '.join(differing)}"
            )
            raise OutputError(f"{path}: does not match {next(iter(found.values()))}: {what}")
        if index in found:
            raise OutputError(f"{path}: is shard {index} of {of}, and so is {found[index]}")
        found[index], held[index], common, count = path, holds, settings, of
    missing = [str(index) for index in range(1, count + 1) if index not in found]
    if missing:
        raise OutputError(f"of {count} shards, number {', '.join(missing)} is missing; name the outputs of all")
    total = sum(holds.videos for holds in held.values())
    for index, holds in held.items():
        if holds.videos != len(range(index - 1, total, count)):
            raise OutputError(
                f"{found[index]}: holds {holds.videos} videos, which does not match the other shards; they are shards "
                "of different lists of videos"
            )
    ordered = tuple(found[index] for index in range(1, count + 1))
    try:
        whole = Provenance.from_dict(common)
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{paths[0]}: its settings are of another version of timesformer; label again") from error
    return Shards(ordered, whole, tuple(held[index] for index in range(1, count + 1)))
