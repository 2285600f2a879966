"""Tables: annotation files with named columns or keys, as CSV, JSON or Parquet."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from timesformer_cli.datasets.matching import number
from timesformer_cli.datasets.reading import (
    Probe,
    Row,
    cells,
    column_name,
    header,
    lines,
    nothing,
    parquet_rows,
    place,
    records,
    short,
)
from timesformer_cli.errors import InputError
from timesformer_cli.flow import WHOLE, Part

# Names of columns, the most likely first.
_PATHS = ("path", "file_name", "filename", "file", "video", "video_path")
_LABELS = ("label", "labels", "class", "class_name", "category", "action")
_SPLITS = ("split", "subset")
# Kinetics' `time_start` and `time_end` are never taken: they lie in the video that its clips were cut from.
_PART = ("start", "end")

# Columns that may say which videos come from one source.
_GROUPS = ("group", "source", "site", "subject", "camera", "video_id")

_KINETICS = ("youtube_id", "time_start", "time_end")
_KINETICS_ROW = re.compile(r"[^,]+,[\w-]{11},[0-9.]+,[0-9.]+(,\w+){0,2}")
_SECONDS = re.compile(r"([0-9]{1,6})(\.[0-9]*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)

_SPLIT_NAMES = {"validate": "val", "validation": "val", "valid": "val", "training": "train", "testing": "test"}


def split_name(text: str) -> str:
    """The usual name of a split: `validate` and `validation` are `val`."""
    name = text.strip().casefold()
    return _SPLIT_NAMES.get(name, name)


def fits_kinetics(probe: Probe) -> bool:
    # Also fits rows without a header: reading them reports the missing header.
    return probe.content == "text" and ("youtube_id" in probe.columns or _has_no_header(probe))


def _has_no_header(probe: Probe) -> bool:
    return bool(probe.lines) and probe.mostly(_KINETICS_ROW)


def read_kinetics(path: Path, group_column: str | None) -> Iterator[Row]:
    """`label,youtube_id,time_start,time_end,split`, with `is_cc` (CVDF), or without `label` (test sets).

    Files are named by the id and the whole seconds: `-3B32lodo2M_000059_000069.mp4`.
    """
    groups = _Groups(Probe(path), group_column)
    for line, row in _below_header(path, _KINETICS):
        start, end = _SECONDS.fullmatch(row["time_start"]), _SECONDS.fullmatch(row["time_end"])
        if not (start and end and row["youtube_id"]):
            found = ", ".join(repr(row[name]) for name in _KINETICS)
            raise InputError(f"{place(path, line)}: expected an id and two times in seconds, not {found}")
        name = f"{row['youtube_id']}_{int(start[1]):06d}_{int(end[1]):06d}"
        label = row.get("label", "").strip('"')
        yield Row(
            file=str(path),
            line=line,
            name=name,
            labels=(label,) if label else (),
            split=split_name(row.get("split", "")) or None,
            about=groups.of(row),
        )


def _below_header(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows below a header with the `needed` columns, as dicts by column name."""
    first, text = next(((line, text.strip()) for line, text in lines(path) if text.strip()), (1, ""))
    delimiter, columns = header(text)
    if not set(needed) <= set(columns):
        raise InputError(f"{place(path, first)}: expected a header with {', '.join(needed)}, not {short(text)}")
    for line, row in islice(cells(path, delimiter), 1, None):
        if len(row) != len(columns):
            raise InputError(f"{place(path, line)}: {len(row)} columns, but {len(columns)} in the header")
        yield line, dict(zip(columns, row, strict=True))


def fits_table(probe: Probe) -> bool:
    return probe.content != "folder" and bool(set(probe.columns) & set(_PATHS))


def read_table(path: Path, group_column: str | None) -> Iterator[Row]:
    """Columns of paths and labels with usual names, in CSV, JSON lines or Parquet; also metadata of a videofolder.

    Several labels are a list, or in a column `labels` a text with | between them. Columns `start` and `end` make a row
    that part of the video, in seconds. `group_column` is a column of which the rows tell besides those of `_GROUPS`.
    """
    probe = Probe(path)
    paths, labels, splits = (next((n for n in names if n in probe.columns), "") for names in (_PATHS, _LABELS, _SPLITS))
    for what, name, names in (("paths", paths, _PATHS), ("labels", labels, _LABELS)):
        if not name:
            has = f"no column of {what} in {short(list(probe.columns))}"
            raise InputError(f"{place(path, 1)}: {has}; expected one of {', '.join(names)}")
    groups = _Groups(probe, group_column)
    columns = [name for name in (paths, labels, splits) if name] + [name for name in _PART if name in probe.columns]
    rows: Iterator[tuple[int, dict[str, Any]]]
    if probe.content == "json":
        rows = records(path)
    elif probe.content == "parquet":
        rows = parquet_rows(path, list(dict.fromkeys([*columns, *groups.columns])))
    else:
        rows = _below_header(path, columns)
    for line, row in rows:
        label = row.get(labels)
        if isinstance(label, str) and labels == "labels":
            label = label.split("|")
        split = row.get(splits)
        yield Row(
            file=str(path),
            line=line,
            name=_name(row, paths, path, line),
            labels=_labels(label, path, line),
            split=split_name(str(split)) if split else None,
            part=_part(row, path, line),
            about=groups.of(row),
        )


def is_corrections(path: Path) -> bool:
    """Whether it is the file of corrections of a page of labels: the columns that only such a file has."""
    return {"was", "reviewed_at"} <= set(Probe(path).columns)


class _Groups:
    """The cells of a row that may say which videos come from one source, by the names of their columns.

    Rows with the same cells share a mapping. Raises InputError if there is no column `asked`.
    """

    def __init__(self, probe: Probe, asked: str | None) -> None:
        there = probe.columns
        # A key of JSON may be missing in the first object.
        self._columns = {name: name for name in _GROUPS if probe.content == "json" or name in there}
        if asked is not None:
            column = next((name for name in (asked, column_name(asked)) if name in there), None)
            if column is None:
                raise InputError(f"{probe.path}: no column {asked!r}; it has {', '.join(there)}")
            self._columns[asked] = column
        self._known: dict[tuple[str, ...], Mapping[str, str]] = {}

    @property
    def columns(self) -> list[str]:
        return list(self._columns.values())

    def of(self, row: Mapping[str, Any]) -> Mapping[str, str]:
        cells = tuple(_text(row.get(column)) for column in self._columns.values())
        if cells not in self._known:
            found = {name: cell for name, cell in zip(self._columns, cells, strict=True) if cell}
            self._known[cells] = found or nothing()
        return self._known[cells]


def _text(value: object) -> str:
    """The text of a cell; empty for values that mean none."""
    return "" if value is None or value != value else str(value).strip()  # NaN, which pandas writes for no value


def fits_json(key: str) -> Callable[[Probe], bool]:
    return lambda probe: probe.content == "json" and key in probe.columns and not fits_table(probe)


def read_ssv2(path: Path) -> Iterator[Row]:
    """Something-Something: `{"id": "74225", "label": "spinning cube", "template": "Spinning [something]"}`.

    The class is the template. The test set has only ids.
    """
    for line, record in records(path):
        labels = _labels(record.get("template", record.get("label")), path, line)
        yield Row(str(path), line, _name(record, "id", path, line), labels)


def read_diving48(path: Path) -> Iterator[Row]:
    """`{"vid_name": "1wSJFCs9rpo_00001", "label": 0, "start_frame": 0, "end_frame": 76}`; videos are cut already."""
    for line, record in records(path):
        labels = _labels(record.get("label"), path, line)
        yield Row(str(path), line, _name(record, "vid_name", path, line), labels)


def _name(record: dict[str, Any], key: str, path: Path, line: int) -> str:
    """The name of the video. With a zero byte in it, the file system would see a different name."""
    value = record.get(key)
    text = str(value) if type(value) in (str, int) else ""  # type(): True is an int too
    if not text.strip() or "\0" in text:
        raise InputError(f"{place(path, line)}: expected a video as {key!r}, not {short(value)}")
    return text


def _labels(value: object, path: Path, line: int) -> tuple[str, ...]:
    """A label, or a list of labels, as text; empty for values that mean no label."""
    labels: dict[str, None] = {}
    for label in value if isinstance(value, list) else [value]:
        if label is None or label != label:  # NaN, which pandas writes for no value
            continue
        if not isinstance(label, str | int | float) or isinstance(label, bool):
            raise InputError(f"{place(path, line)}: {short(label)} is not a label")
        text = str(label).strip()
        if text and number(text) != -1:
            labels[text] = None
    return tuple(labels)


def _part(record: dict[str, Any], path: Path, line: int) -> Part:
    """The start and the end in a row. Raises InputError unless they are seconds, in this order."""
    start, end = (_seconds(record.get(name), name, path, line) for name in _PART)
    if start is None and end is None:
        return WHOLE
    if end is not None and end <= (start or 0.0):
        raise InputError(f"{place(path, line)}: the end ({end:.10g} s) is not after the start ({start or 0.0:.10g} s)")
    return start, end


def _seconds(value: object, name: str, path: Path, line: int) -> float | None:
    if isinstance(value, str):
        value = value.strip() or None
    if value is None:
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
        raise InputError(f"{place(path, line)}: {name!r} is {short(value)}; expected seconds, such as 12.5")
    return float(value) + 0.0  # -0.0 is the same time as 0.0
