"""Features of videos that a file of vectors has: no video is read, and none needs to exist."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from timesformer_cli.datasets import Sample
from timesformer_cli.errors import ErrorKind, InputError
from timesformer_cli.files import checksum
from timesformer_cli.flow import WHOLE, Failure, Part
from timesformer_cli.jobs.finetune.features import Features
from timesformer_cli.results.settings import Provenance
from timesformer_cli.results.vectors.reading import VectorFile
from timesformer_cli.results.vectors.rows import companion_of
from timesformer_cli.text import stretch
from timesformer_cli.video.addresses import is_address, local_path

_NO_HASHES = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The videos of a file of class tokens float32.

    `rows` has the number and the part of each vector by the path of its video, and `failed` the kind and the message of
    each video that could not be read when the file was made.
    """

    file: VectorFile
    rows: Mapping[str, Sequence[tuple[int, Part]]]
    failed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """Of all videos, also of those that failed."""
        return [*self.rows, *(path for path in self.failed if path not in self.rows)]

    @property
    def provenance(self) -> Provenance:
        """That of the run that made the file."""
        return self.file.provenance

    def settings(self) -> dict[str, Any]:
        """What identifies the vectors, for settings. Raises InputError if the file cannot be read."""
        path = self.file.path
        beside = companion_of(path, path.suffix.lower().removeprefix("."))
        return {"file": str(path), "sha256": checksum([path] if beside is None else [path, beside])}

    def features(self, samples: Sequence[Sample]) -> list[Features | Failure]:
        """The features of each video, a row (D,) for each of its vectors that is of the part of the sample.

        Raises:
            InputError: the file is damaged.
        """
        chosen = [self._rows_of(sample) for sample in samples]
        vectors = self.file.take([row for rows in chosen for row in rows])
        found: list[Features | Failure] = []
        first = 0
        for sample, rows in zip(samples, chosen, strict=True):
            after = first + len(rows)
            found.append(Features(vectors[first:after], _NO_HASHES) if rows else self._failure(sample))
            first = after
        return found

    def _rows_of(self, sample: Sample) -> list[int]:
        """A whole video has all of its rows, and a part those whose middle is inside."""
        return [
            row for row, part in self.rows.get(sample.path, ()) if sample.part == WHOLE or _holds(sample.part, part)
        ]

    def _failure(self, sample: Sample) -> Failure:
        kind: ErrorKind = "decode"
        if sample.path in self.failed:
            kind, message = self.failed[sample.path]  # type: ignore[assignment]
        else:
            message = f"{self.file.path} has no vector for {stretch(*sample.part)} of it"
            if all(part == WHOLE for _, part in self.rows[sample.path]):
                message = f"{self.file.path} has a vector only for the whole of it, not for {stretch(*sample.part)}"
        return Failure(sample.item(frames=False), kind, message)

    def copies(self, samples: Sequence[Sample], features: Iterable[Features]) -> Iterator[tuple[int, int]]:
        """Pairs of videos with equal vectors: for each with copies, the first of them and each other."""
        first: dict[bytes, int] = {}
        for number, each in enumerate(features):
            before = first.setdefault(each.rows.tobytes(), number)
            if samples[before].path != samples[number].path:
                yield before, number

    def can_read(self, sample: Sample) -> bool:
        """Whether the model can be asked for the vectors of this video again: it is a file that is still there."""
        path = local_path(sample.path)
        return (
            self.provenance.timeline is None
            and sample.part == WHOLE
            and all(part == WHOLE for _, part in self.rows[sample.path])
            and not is_address(path)
            and os.path.exists(path)
        )


def stored_in(file: VectorFile) -> Stored:
    """The videos of `file`.

    Raises:
        InputError: the file is damaged, has no vectors, or has some that are not finite.
    """
    rows: dict[str, list[tuple[int, Part]]] = {}
    failed: dict[str, tuple[str, str]] = {}
    number = 0
    for row in file.entries():
        if row.vector is None:
            failed[row.path] = row.error_kind or "decode", row.error_message or "it failed"
        else:
            rows.setdefault(row.path, []).append((number, (row.start, row.end)))
            number += 1
    if not rows:
        raise InputError(f"{file.path}: has no vectors; all of its videos failed")
    return Stored(file, rows, failed)


def _holds(asked: Part, part: Part) -> bool:
    """Whether the middle of `part` is in the part that was asked for."""
    if part == asked:
        return True
    start, end = part
    if start is None or end is None:
        return False
    low, high = asked
    return (0.0 if low is None else low) <= (start + end) / 2 <= (np.inf if high is None else high)
