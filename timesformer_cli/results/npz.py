"""Write .npz files piece by piece, as `numpy.load` reads them; no array needs to be in memory."""

from collections.abc import Iterable
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from numpy.lib.format import write_array_header_1_0


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
