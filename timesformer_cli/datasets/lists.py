"""Lists: one line per video, or per image of a video, without a header that names the columns."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from timesformer_cli.datasets.matching import number
from timesformer_cli.datasets.reading import Probe, Row, cells, is_video, lines, names_in, place, short
from timesformer_cli.datasets.tables import fits_kinetics, fits_table
from timesformer_cli.errors import InputError

_DELIMITERS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", " ": "a space"}

_RAWFRAMES = re.compile(r"\S.*(\s+[0-9]+){2,}")
_UCF101 = re.compile(r"([^/\s]+)/(v_[^/\s]+)\.avi(\s+[0-9]+)?")
_HMDB51_FILE = re.compile(r"(.+)_test_split([1-9])\.txt")
_HMDB51 = re.compile(r"(.+?)(?:\.[^. ]+)? +([012])")
_HMDB51_SPLITS = {"0": "unused", "1": "train", "2": "test"}

FRAME_LIST = "original_vido_id video_id frame_id path labels"  # the files do say "vido"


def fits_list(probe: Probe) -> bool:
    special = fits_table(probe), fits_kinetics(probe), fits_ucf101(probe), fits_hmdb51(probe), fits_frame_list(probe)
    return bool(probe.lines) and not any(special) and _delimiter(probe.lines) is not None


def _delimiter(probed: Sequence[str]) -> tuple[str, bool] | None:
    """The delimiter between path and label in most lines, and whether labels are numbers."""

    def count(delimiter: str, numbers: bool) -> int:
        ends = [line.rpartition(delimiter) for line in probed]
        return sum(1 for path, _, label in ends if path and (not numbers or number(label.strip('" ')) is not None))

    # Any name may hold spaces, so a space can only precede a number. Commas are tried last, as names may hold them too.
    forms = [*((delimiter, True) for delimiter in _DELIMITERS), ("\t", False), (";", False), (",", False)]
    best = max(forms, key=lambda form: count(*form))
    return best if 2 * count(*best) > len(probed) else None


def read_list(path: Path) -> Iterator[Row]:
    """`abseiling/x y.mp4 0`, as in many projects; several numbers are several labels, and -1 means no label.

    Lines are split from the right, at spaces, tabs, commas or semicolons. Except after a space, a label may be a name:
    `34870;Drumming Fingers`.
    """
    delimiter, numbers = _delimiter(Probe(path).lines) or (" ", True)
    for line, row in _split_lines(path, delimiter):
        labels = _numbers_at_end(row) if numbers else row[1:][-1:]
        if not labels:
            what = f"a path and a {'number' if numbers else 'label'} with {_DELIMITERS[delimiter]} between them"
            raise InputError(f"{place(path, line)}: expected {what}, not {short(delimiter.join(row))}")
        yield _row(path, line, delimiter.join(row[: -len(labels)]), labels)


def fits_rawframes(probe: Probe) -> bool:
    return bool(probe.lines) and probe.mostly(_RAWFRAMES) and not any(map(_has_file, probe.lines))


def _has_file(line: str) -> bool:
    return any(map(is_video, line.split()))


def read_rawframes(path: Path) -> Iterator[Row]:
    """`some/directory-1 163 1`: a folder of images, their number, and one or several labels."""
    for line, row in _split_lines(path, " "):
        numbers = _numbers_at_end(row)
        if len(numbers) < 2:
            what = "a folder, a number of frames and a label"
            raise InputError(f"{place(path, line)}: expected {what}, not {short(' '.join(row))}")
        yield _row(path, line, " ".join(row[: -len(numbers)]), numbers[1:])


def _split_lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    if delimiter != " ":
        yield from cells(path, delimiter)
        return
    for line, text in lines(path):
        if text.strip():
            # Spreadsheets put quotes around a line that holds a comma.
            yield line, re.sub(r'\A"([^"]*)"\Z', r"\1", text.strip()).split(" ")


def _numbers_at_end(row: Sequence[str]) -> list[str]:
    """The numbers at the end of a row; the first cell is never one of them."""
    first = len(row)
    while first > 1 and number(row[first - 1]) is not None:
        first -= 1
    return list(row[first:])


def _row(path: Path, line: int, name: str, labels: Sequence[str]) -> Row:
    name = name.strip().strip('"')
    if not name:
        raise InputError(f"{place(path, line)}: no path before the label")
    return Row(str(path), line, name, tuple(label for label in labels if label and number(label) != -1))


def fits_frame_list(probe: Probe) -> bool:
    return probe.lines[:1] == [FRAME_LIST]


def read_frame_list(path: Path) -> Iterator[Row]:
    """A line for each image, as in SlowFast: `AO8RW 0 0 AO8RW/AO8RW-000001.jpg "104,105"`.

    The images of a video are on consecutive lines and in a folder of their own; the video has all their labels.
    """
    columns = FRAME_LIST.split()
    video, first, name, labels = "", 0, "", dict[str, None]()
    for line, row in islice(cells(path, " "), 1, None):
        if len(row) != len(columns) or not row[0]:
            raise InputError(f"{place(path, line)}: expected {FRAME_LIST}, not {short(' '.join(row))}")
        if row[0] != video:
            if first:
                yield _row(path, first, name, tuple(labels))
            video, first, name, labels = row[0], line, os.path.dirname(row[3]), {}
        labels.update(dict.fromkeys(row[4].split(",")))
    if first:
        yield _row(path, first, name, tuple(labels))


def fits_ucf101(probe: Probe) -> bool:
    return bool(probe.lines) and probe.mostly(_UCF101)


def read_ucf101(path: Path) -> Iterator[Row]:
    """`ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`; lists of test sets have no number.

    The class is taken from the folder: official numbers begin with 1, those of other projects with 0.
    """
    for line, text in lines(path):
        if text.strip():
            match = _UCF101.fullmatch(text.strip())
            if not match:
                raise InputError(f"{place(path, line)}: expected CLASS/v_NAME.avi, not {short(text.strip())}")
            yield Row(str(path), line, f"{match[1]}/{match[2]}", (match[1],))


def fits_hmdb51(probe: Probe) -> bool:
    if probe.content == "folder":
        return bool(annotation_files(probe.path))
    # Its lines also fit a list of videos and class numbers, so the name decides.
    return _HMDB51_FILE.fullmatch(probe.path.name) is not None and probe.mostly(_HMDB51)


def read_hmdb51(path: Path) -> Iterator[Row]:
    """`brush_hair_test_split1.txt` with lines such as `name.avi 1`; one such file, or the folder of all.

    The number is 0 for videos that the split leaves out, 1 for train and 2 for test.
    """
    for file in annotation_files(path):
        named = _HMDB51_FILE.fullmatch(file.name)
        if not named:
            raise InputError(f"{file}: expected a name like CLASS_test_split1.txt, which holds the class")
        for line, text in lines(file):
            if text.strip():
                match = _HMDB51.fullmatch(text.strip())
                if not match:
                    what = "a file and 0, 1 or 2"
                    raise InputError(f"{place(file, line)}: expected {what}, not {short(text.strip())}")
                split = _HMDB51_SPLITS[match[2]] + named[2]
                yield Row(str(file), line, f"{named[1]}/{match[1]}", (named[1],), split)


def annotation_files(path: Path) -> list[Path]:
    """The file itself, or the split files of HMDB51 in a folder."""
    if not os.path.isdir(path):
        return [path]
    return [path / name for name in names_in(path) if _HMDB51_FILE.fullmatch(name)]
