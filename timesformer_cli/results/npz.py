"""Write .npz files piece by piece, as `numpy.load` reads them; no array needs to be in memory."""

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from numpy.lib.format import write_array_header_1_0

_CHUNK = 2**20
_LENGTH = struct.Struct("<I")


class Columns:
    """Values of columns on their way to an .npz file, each column in a temporary file in `folder`.

    The header of an array states the number of rows and the length of the longest text, known only at the end.
    """

    def __init__(self, folder: Path, numbers: Iterable[str], texts: Iterable[str]) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._files = {name: stack.enter_context(TemporaryFile(dir=folder)) for name in (*numbers, *texts)}
            self._stack = stack.pop_all()
        self._longest = dict.fromkeys(texts, 0)
        self._texts = dict.fromkeys(texts, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, name: str, data: bytes) -> None:
        """Append a number, or a row of them, as an array stores it."""
        self._files[name].write(data)

    def add_text(self, name: str, text: str) -> None:
        data = utf32(text)
        self._files[name].write(_LENGTH.pack(len(data)) + data)
        self._longest[name] = max(self._longest[name], len(data))
        self._texts[name] += 1

    def write(self, archive: ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Write the numbers of a column as the array `name`."""
        file = self._files[name]
        file.seek(0)
        add_array(archive, name, dtype, shape, iter(partial(file.read, _CHUNK), b""))

    def write_texts(self, archive: ZipFile, name: str) -> None:
        """Write the texts of a column as the array `name`."""
        add_texts(archive, name, self._texts[name], self._longest[name], self._read(name))

    def _read(self, name: str) -> Iterator[bytes]:
        file = self._files[name]
        file.seek(0)
        while head := file.read(_LENGTH.size):
            yield file.read(*_LENGTH.unpack(head))


def add_array(
    archive: ZipFile, name: str, dtype: str, shape: tuple[int, ...], data: Iterable[bytes], method: int = ZIP_STORED
) -> None:
    """Add an array of numbers of `dtype`, such as "<f4", by rows."""
    info = ZipInfo(f"{name}.npy")
    info.compress_type = method
    with archive.open(info, "w", force_zip64=True) as member:
        write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": shape})
        for chunk in data:
            member.write(chunk)


def add_texts(archive: ZipFile, name: str, number: int, longest: int, texts: Iterable[bytes]) -> None:
    """Add `number` texts of `utf32`, of which the longest has `longest` bytes.

    NumPy's text has a fixed width, so one long path makes all texts long, but zeros compress well.
    """
    width = max(longest, 4)  # NumPy has no text of width 0
    padded = (text.ljust(width, b"\0") for text in texts)
    add_array(archive, name, f"<U{width // 4}", (number,), padded, ZIP_DEFLATED)


def utf32(text: str) -> bytes:
    """A text as NumPy stores it, including file names that are not UTF-8."""
    return text.encode("utf-32-le", "surrogatepass")


def add_text(archive: ZipFile, name: str, text: str) -> None:
    """Add one text, as an array without dimensions."""
    add_array(archive, name, f"<U{max(len(text), 1)}", (), [utf32(text)])
