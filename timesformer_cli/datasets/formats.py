"""The formats of annotation files, each recognised by its content."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from timesformer_cli.datasets import lists, tables
from timesformer_cli.datasets.reading import Probe, Row, names_in, place, short
from timesformer_cli.errors import InputError, UsageError

# The last two are folders of videos, without a separate annotation file.
DatasetFormat = Literal[
    "kinetics",
    "table",
    "ssv2",
    "diving48",
    "list",
    "rawframes",
    "frame-list",
    "ucf101",
    "hmdb51",
    "videofolder",
    "folders",
]


@dataclass(frozen=True, slots=True)
class Format:
    """A format: an `example`, whether a file `fits`, and `read`, which yields the rows of a file.

    `read` also takes the name of a column, or None, of which the rows are to tell: see `Sample.about`.
    """

    example: str
    fits: Callable[[Probe], bool]
    read: Callable[[Path, str | None], Iterator[Row]]


def _unnamed(read: Callable[[Path], Iterator[Row]]) -> Callable[[Path, str | None], Iterator[Row]]:
    def read_rows(path: Path, group_column: str | None) -> Iterator[Row]:
        if group_column is not None:
            raise UsageError(f"{path}: is not a table, so it has no column {group_column!r}")
        return read(path)

    return read_rows


FORMATS: dict[DatasetFormat, Format] = {
    "kinetics": Format("label,youtube_id,time_start,time_end,split", tables.fits_kinetics, tables.read_kinetics),
    "table": Format("path,label", tables.fits_table, tables.read_table),
    "ssv2": Format('{"id": ..., "template": ...}', tables.fits_json("id"), _unnamed(tables.read_ssv2)),
    "diving48": Format('{"vid_name": ..., "label": ...}', tables.fits_json("vid_name"), _unnamed(tables.read_diving48)),
    "list": Format("path label", lists.fits_list, _unnamed(lists.read_list)),
    "rawframes": Format("folder frames label", lists.fits_rawframes, _unnamed(lists.read_rawframes)),
    "frame-list": Format(lists.FRAME_LIST, lists.fits_frame_list, _unnamed(lists.read_frame_list)),
    "ucf101": Format("CLASS/v_CLASS_g01_c01.avi", lists.fits_ucf101, _unnamed(lists.read_ucf101)),
    "hmdb51": Format("CLASS_test_split1.txt with name.avi 1", lists.fits_hmdb51, _unnamed(lists.read_hmdb51)),
}


def detect(path: Path, *, frames: bool) -> DatasetFormat:
    """Detect the format of an annotation file; `frames` is whether videos are folders of images.

    Raises:
        InputError: the file fits no format, or more than one.
    """
    probe = Probe(path)
    fitting = [name for name, form in FORMATS.items() if form.fits(probe)]
    if fitting == ["list", "rawframes"] and frames:
        return "rawframes"
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        shown = " or ".join(f"{name} ({FORMATS[name].example})" for name in fitting)
        raise InputError(f"{path}: fits several formats: {shown}; choose one with `annotations_format`")
    if probe.content == "folder":
        raise InputError(f"{path}: is a folder; name the annotation file in it, one of {short(names_in(path))}")
    if probe.content == "text" and not probe.lines:
        raise InputError(f"{path}: is empty; an annotation file was expected")
    begins = short(probe.lines[0]) if probe.lines else f"columns {short(list(probe.columns))}"
    raise InputError(
        f"{place(path, 1)}: {begins} fits no known format; expected a video, then a space, comma or tab, and a "
        f"label, or a header; `annotations_format` is one of {', '.join(get_args(DatasetFormat))}"
    )
