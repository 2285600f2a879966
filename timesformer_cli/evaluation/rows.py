"""Scores of more videos than memory should hold: rows (N, K) that are read or computed when they are asked for."""

from binascii import a2b_base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import InputError
from timesformer_cli.files import told

_ROWS = 8192  # whose float64 copies are in memory at once
_SPAN = 2**22  # bytes between two rows that are worth one read


class Rows(Protocol):
    """Scores, or memberships, (N, K). An array is one, and so are the classes below."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """Rows by a slice, or by an array of numbers int64 (n,)."""


def chunks(videos: int) -> Iterator[slice]:
    """Slices of rows whose float64 copies fit into memory."""
    return (slice(start, min(start + _ROWS, videos)) for start in range(0, videos, _ROWS))


@dataclass(frozen=True, slots=True, eq=False)
class FileRows:
    """Rows float32 (N, `classes`) in a file, at the bytes `places` int64 (N,): little-endian, or those in base64.

    The file is open only during a read, and must not change meanwhile. A read raises InputError.
    """

    path: Path
    places: NDArray[np.int64]
    classes: int
    base64: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.places), self.classes

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        places = self.places[rows].tolist()
        width = packed_length(self.classes) if self.base64 else 4 * self.classes
        found = np.empty((len(places), self.classes), np.float32)
        with told(self.path, "read", InputError), self.path.open("rb") as file:
            for first, last in _stretches(places):
                start = places[first]
                file.seek(start)
                data = file.read(places[last] + width - start)
                for row in range(first, last + 1):
                    place = places[row] - start
                    part = data[place : place + width]
                    try:
                        found[row] = np.frombuffer(a2b_base64(part) if self.base64 else part, "<f4")
                    except ValueError:
                        raise InputError(f"{self.path}: was changed while it was read; try again") from None
        return found


def packed_length(classes: int) -> int:
    """The length of a row in base64."""
    return -(-4 * classes // 3) * 4


def _stretches(places: list[int]) -> Iterator[tuple[int, int]]:
    """First and last numbers of places that follow each other in a file, near enough for one read."""
    first = 0
    for number in range(1, len(places) + 1):
        if number == len(places) or not places[number - 1] <= places[number] <= places[first] + _SPAN:
            yield first, number - 1
            first = number


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Some `rows` of others, int64 (N,), and if `columns`, int64 (K,), are given, only these."""

    scores: Rows
    rows: NDArray[np.int64]
    columns: NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), self.scores.shape[1] if self.columns is None else len(self.columns)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        found = self.scores[self.rows[rows]]
        return found if self.columns is None else found[:, self.columns]


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """Rows of a `shape` that `compute` makes, of the numbers int64 (n,) of those that are asked for."""

    shape: tuple[int, ...]
    compute: Callable[[NDArray[np.int64]], NDArray[Any]]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        return self.compute(np.arange(len(self))[rows])
