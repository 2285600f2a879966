"""Files of scores, from this and other tools, to evaluate without a model.

A pickle is read only if it holds lists, dicts, numbers and NumPy arrays. No function that it names is called: the names
of NumPy's functions lead to the few below, which only make arrays from bytes.
"""

import math
import pickle
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import IO, Any, cast, get_args
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from timesformer_cli import strict_json
from timesformer_cli.datasets import Dataset
from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.evaluation.rows import Chosen, Computed, FileRows, Rows, chunks
from timesformer_cli.evaluation.run import Run, known_parts
from timesformer_cli.flow import WHOLE, Part
from timesformer_cli.pipeline.aggregate import grouped
from timesformer_cli.results.record import head_of
from timesformer_cli.results.settings import Combination, Provenance
from timesformer_cli.specs import Activation, Combine, Groups
from timesformer_cli.text import named
from timesformer_cli.video.addresses import shown
from timesformer_cli.video.folders import RealPaths

_KNOWN = (
    "known are .npz and .parquet of `save_logits`, and pickles with an array (N, K), a list of N arrays (K,), "
    "[scores (N, K), labels (N,)], or dicts with pred_score and gt_label"
)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """`scores` float32 (N, K) from the file `path`, of the kind `combine`; they may stay in the file.

    `paths` of the videos, `times`, float64 (N, 2), where each begins and ends in seconds, NaN if that is not stated,
    `labels` (names of the classes), `targets` (class numbers of each video) and `activation` (what makes scores of
    logits) are None if the file lacks them.
    """

    path: Path
    scores: Rows
    combine: Combine
    paths: tuple[str, ...] | None = None
    times: NDArray[np.float64] | None = None
    labels: tuple[str, ...] | None = None
    targets: tuple[tuple[int, ...], ...] | None = None
    activation: Activation | None = None

    def parts(self) -> Iterator[Part]:
        """The part of its video that each row is about, as far as the file states it."""
        if self.times is None:
            return repeat(WHOLE, len(self.scores))
        starts, ends = ([None if math.isnan(time) else time for time in column] for column in self.times.T.tolist())
        return zip(starts, ends, strict=True)


class _NotPlainError(Exception):
    """A pickle holds more than plain data; the message says what."""


def read_scores(path: Path) -> Scores:
    """The scores in `path`: npz or Parquet from `save_logits` or runs, else a pickle.

    Raises:
        InputError: no such file, or an unknown format; a pickle that would run code, or holds PyTorch tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head[:2] == b"PK":
            found = _from_npz(path)
        elif head == b"PAR1":
            found = _from_parquet(path)
        else:
            found = _from_pickle(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _NotPlainError as error:
        raise InputError(f"{path}: refused, as it holds {error}; nothing in it was run") from error
    except InputError:
        raise
    except Exception as error:  # damaged files can cause almost any error
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{path}: holds no readable scores ({what}); {_KNOWN}") from error
    return _checked(found)


def _checked(found: Scores) -> Scores:
    if len(found.scores.shape) != 2 or 0 in found.scores.shape:
        raise InputError(f"{found.path}: scores have the shape {found.scores.shape}; expected one row per video")
    videos, classes = found.scores.shape
    for what, parts in (("paths", found.paths), ("times", found.times), ("labels of videos", found.targets)):
        if parts is not None and len(parts) != videos:
            raise InputError(f"{found.path}: scores of {videos} videos, but {len(parts)} {what}")
    if found.labels is not None and len(found.labels) != classes:
        raise InputError(f"{found.path}: scores for {classes} classes, but names of {len(found.labels)}")
    numbers = {index for target in set(found.targets or ()) for index in target}
    if numbers and not 0 <= min(numbers) <= max(numbers) < classes:
        raise InputError(
            f"{found.path}: labels from {min(numbers)} to {max(numbers)}, but scores for {classes} classes"
        )
    paths = () if found.paths is None else found.paths
    if len(set(paths)) < len(paths) and len(set(zip(paths, found.parts(), strict=True))) < len(paths):
        raise InputError(f"{found.path}: has videos more than once")
    if not all(np.isfinite(found.scores[rows]).all() for rows in chunks(videos)):
        raise InputError(f"{found.path}: holds scores that are not finite numbers")
    return found


def _from_npz(path: Path) -> Scores:
    try:
        with ZipFile(path) as archive:
            kind: Combine = "probabilities" if "probabilities.npy" in archive.namelist() else "logits"
            size = archive.getinfo(f"{kind}.npy")
            largest = max(_LARGEST_UNPACKED, _LARGEST_RATIO * size.compress_size)
            scores: Rows | None = _rows_in(archive, path, size)
            if scores is None:
                scores = _array_in(archive, kind, largest).astype(np.float32, copy=False)
            if len(scores.shape) != 2:
                return Scores(path, scores, kind)  # it is refused as others of such a shape
            videos, classes = scores.shape
            targets = None
            if "target.npy" in archive.namelist():
                targets = _targets_in(archive, videos, classes)
            return Scores(
                path=path,
                scores=scores,
                combine=kind,
                paths=tuple(map(shown, _texts_in(archive, "path", videos))),
                times=_times_in(archive, videos),
                labels=_texts_in(archive, "labels", classes),
                targets=targets,
                activation=_activation_in(archive),
            )
    except (BadZipFile, KeyError) as error:
        raise InputError(f"{path}: not an .npz file with logits, path and labels ({error})") from error


# A compressed array of scores may unpack to this many bytes, or this many times its size in the file if that is more.
# Floats hardly compress; probabilities that are mostly zero compress several times.
_LARGEST_UNPACKED, _LARGEST_RATIO = 2**27, 16
# Characters of all names in a file: a million paths of 500.
_LARGEST_TEXT = 2**29
_LARGEST_HEADER = 2**16
_BLOCK = 2**20


def _array_in(archive: ZipFile, name: str, largest: int) -> NDArray[Any]:
    """An array of at most `largest` bytes. Raises InputError before more is unpacked."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > largest:
        raise _too_large(archive, name, f"would unpack to {entry.file_size / 1e6:,.0f} MB")
    with archive.open(entry) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array


def _times_in(archive: ZipFile, videos: int) -> NDArray[np.float64] | None:
    """Where each of the videos begins and ends, (N, 2); None in files that do not say."""
    if not {"start.npy", "end.npy"} <= set(archive.namelist()):
        return None
    columns = [_array_in(archive, name, 8 * videos + _LARGEST_HEADER).astype(np.float64) for name in ("start", "end")]
    return np.stack(columns, axis=1)


def _targets_in(archive: ZipFile, videos: int, classes: int) -> tuple[tuple[int, ...], ...]:
    """Class numbers, from an array of them (N,), or from memberships bool (N, K), which are read block by block."""
    with archive.open("target.npy") as member:
        shape, by_columns, dtype = _header_of(member)
        if dtype != np.bool_ or by_columns or shape != (videos, classes):
            target = _array_in(archive, "target", videos * max(classes, 8) + _LARGEST_HEADER)
            found = map(np.flatnonzero, target) if target.dtype == np.bool_ else target[:, None]
            return tuple(tuple(map(int, row)) for row in found)
        targets: list[tuple[int, ...]] = []
        known: dict[tuple[int, ...], tuple[int, ...]] = {}
        for rows in chunks(videos):
            count = rows.stop - rows.start
            block = np.frombuffer(member.read(count * classes), np.bool_).reshape(count, classes)
            for row in block:
                numbers = tuple(np.flatnonzero(row).tolist())
                targets.append(known.setdefault(numbers, numbers))
        return tuple(targets)


def _header_of(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether by columns, and type of an array. Raises ValueError or KeyError for what NumPy does not write."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return read[np.lib.format.read_magic(member)](member)


def _rows_in(archive: ZipFile, path: Path, entry: ZipInfo) -> Rows | None:
    """The rows of an array float32 (N, K) that is stored by rows and as it is, as runs leave it; else None.

    Reads it once, to compare its checksum. Raises BadZipFile, EOFError or ValueError if it is damaged.
    """
    if entry.compress_type != ZIP_STORED:
        return None
    with archive.open(entry) as member:
        shape, by_columns, dtype = _header_of(member)
        if len(shape) != 2 or by_columns or dtype != np.dtype("<f4"):
            return None
        header = member.tell()
        while member.read(_BLOCK):
            pass
    videos, classes = shape
    if entry.file_size != header + 4 * videos * classes:
        raise ValueError(
            f"{entry.filename} has {entry.file_size:,} bytes, which are not {videos:,} x {classes:,} numbers"
        )
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # where the local header has the lengths of the name and of the rest
        name, extra = struct.unpack("<HH", file.read(4))
    first = entry.header_offset + 30 + name + extra + header
    return FileRows(path, first + 4 * classes * np.arange(videos, dtype=np.int64), classes)


def _texts_in(archive: ZipFile, name: str, number: int) -> tuple[str, ...]:
    """Texts (N,), where N should be `number`.

    All take as much room as the longest in an array, which packs to nearly nothing; they are taken from it block by
    block.
    """
    with archive.open(f"{name}.npy") as member:
        shape, _, dtype = _header_of(member)
        if len(shape) != 1 or dtype.kind != "U" or not dtype.itemsize:
            raise ValueError(f"{name} holds {dtype} of the shape {shape}; texts were expected")
        if shape[0] > number:
            raise _too_large(archive, name, f"holds {shape[0]:,}, for {number:,} rows or columns of scores")
        if dtype.itemsize > _BLOCK:
            raise _too_large(archive, name, f"holds texts of {dtype.itemsize // 4:,} characters")
        texts: list[str] = []
        characters = 0
        while len(texts) < shape[0]:
            rows = min(shape[0] - len(texts), _BLOCK // dtype.itemsize)
            block = member.read(rows * dtype.itemsize)
            texts += map(str, np.frombuffer(block, dtype))
            characters += sum(map(len, texts[-rows:]))
            if characters > _LARGEST_TEXT:
                raise _too_large(archive, name, f"holds more than {_LARGEST_TEXT:,} characters")
            if len(block) < rows * dtype.itemsize:
                raise ValueError(f"{name} is cut short")
        return tuple(texts)


def _activation_in(archive: ZipFile) -> Activation | None:
    """None in files of earlier versions."""
    if "activation.npy" not in archive.namelist():
        return None
    return _activation(str(_array_in(archive, "activation", _LARGEST_HEADER)))


def _activation(text: str) -> Activation:
    if text not in get_args(Activation):
        raise ValueError(f"the activation is {text[:100]!r}; known are {', '.join(get_args(Activation))}")
    return cast("Activation", text)


def _too_large(archive: ZipFile, name: str, what: str) -> InputError:
    return InputError(f"{archive.filename}: refused, its {name} {what}, which no run leaves")


def _from_parquet(path: Path) -> Scores:
    from timesformer_cli.results.formats.parquet import check_pyarrow

    check_pyarrow()
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        stated = file.schema_arrow.metadata
        labels = tuple(map(str, strict_json.loads(stated[b"labels"])))
        logits = np.empty((file.metadata.num_rows, len(labels)), np.float32)
        paths: list[str] = []
        times = np.full((len(logits), 2), np.nan)
        for batch in file.iter_batches(columns=["path", "start", "end", "logits"]):
            rows = slice(len(paths), len(paths) + len(batch))
            logits[rows] = batch.column("logits").flatten().to_numpy().reshape(len(batch), -1)
            paths += map(shown, batch.column("path").to_pylist())
            for place, name in enumerate(("start", "end")):
                times[rows, place] = batch.column(name).to_numpy(zero_copy_only=False)
    return Scores(
        path=path,
        scores=logits,
        combine="logits",
        paths=tuple(paths),
        times=times,
        labels=labels,
        activation=_activation(stated[b"activation"].decode()) if b"activation" in stated else None,
    )


def _from_pickle(path: Path) -> Scores:
    with path.open("rb") as file:
        content = _Unpickler(file).load()
    labels = None
    if isinstance(content, (list, tuple)) and content and isinstance(content[0], dict):
        labels = [_item(row, "gt_label") for row in content]
        content = [_item(row, "pred_score") for row in content]
    elif isinstance(content, (list, tuple)) and len(content) == 2 and _array(content[0]).ndim == 2:
        content, labels = content
    scores = np.asarray(_array(content), np.float32)
    targets = None
    rows = labels.values if isinstance(labels, _Array) else labels
    if rows is not None and all(row is not None for row in rows):
        targets = tuple(tuple(map(int, np.atleast_1d(_array(row)))) for row in rows)
    return Scores(path, scores, _kind(scores) if scores.ndim == 2 and scores.size else "logits", targets=targets)


def _item(row: Any, name: str) -> Any:
    """The value of `name`; some releases of mmaction2 use the plural, and wrap the value as {"item": ...}."""
    value = row.get(name, row.get(f"{name}s"))
    return value["item"] if isinstance(value, dict) else value


def _kind(scores: NDArray[np.float32]) -> Combine:
    """The kind of scores: sums or means of probabilities have the same total for all videos; logits do not."""
    sums = scores.sum(axis=1, dtype=np.float64)
    alike = float(np.ptp(sums)) <= 0.01 * float(sums.max())
    return "probabilities" if alike and bool((scores >= 0).all()) else "logits"


class _Type:
    """Replaces numpy.dtype: only types of numbers, with the byte order of their state."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biuf][1248]", code):
            raise _NotPlainError(f"arrays of {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Replaces numpy.ndarray, which trusts the state it gets."""

    values: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        self.values = _of_bytes(content, kind, shape, "F" if by_columns else "C").values


def _of_bytes(content: Any, kind: _Type, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.values = np.frombuffer(content, kind.dtype).reshape(shape, order=order)
    return array


def _scalar(kind: _Type, content: Any) -> Any:
    return np.frombuffer(content, kind.dtype)[0].item()


def _encode(text: str, _: str) -> bytes:
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,  # as old protocols store bytes
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _of_bytes for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if module.partition(".")[0] == "torch":
            raise _NotPlainError("PyTorch tensors, which are not supported; save them as arrays, with .numpy()")
        raise _NotPlainError(f"{module}.{name}, which is more than arrays and plain data")


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, (list, tuple)):
        return np.array([_array(item) for item in value])
    return np.asarray(value)


def own_dataset_settings(found: Scores) -> dict[str, Any]:
    """The settings of the dataset if the file itself has the labels. Raises UsageError if it has none."""
    if found.targets is None:
        raise UsageError(f"{found.path}: has no labels of the videos; name the dataset or its `annotations`")
    return {
        "rows": len(found.scores),
        "samples": len(found.scores),
        "multi_label": any(len(target) != 1 for target in found.targets),
        "classes": None,
        "problems": {},
    }


def match_scores(
    found: Scores,
    dataset: Dataset | None,
    labels: Sequence[str],
    settings: Mapping[str, Any],
    activation: Activation = "softmax",
    groups: Groups | None = None,
) -> Run:
    """The run of these scores, with the labels of the dataset or, without one, of the file itself.

    Scores are matched with videos by path if the file has paths, else by order; if the dataset has parts of videos, by
    path, start and end. Videos without scores have failed. `settings` are those of the dataset. With `groups`, the
    classes of the run are these.

    Raises:
        InputError: the scores do not match the dataset or the labels.
    """
    if len(labels) != found.scores.shape[1]:
        raise InputError(
            f"{found.path}: has scores for {found.scores.shape[1]} classes, but there are names of {len(labels)}; "
            "give the right names with `labels_file=FILE`"
        )
    of_groups = None if groups is None else groups.chosen(labels)
    if groups is not None:
        found, labels = _grouped(found, groups, activation), groups.names
    provenance = Provenance(
        model=str(found.path),
        source=str(found.path),
        labels=tuple(labels),
        groups=of_groups,
        recipe=Combination("scores of a file", found.combine, activation),
        data_set=settings,
    )
    if dataset is None:
        paths = found.paths or tuple(map(str, range(len(found.scores))))
        parts = known_parts(list(found.parts()))
        return Run(provenance, paths, found.targets or (), {found.combine: found.scores}, (), parts)
    rows = _rows(found, dataset)
    placed = [(row, sample) for row, sample in zip(rows, dataset.samples, strict=True) if row is not None]
    for row, sample in placed:
        if found.targets is not None and set(found.targets[row]) != set(sample.labels):
            raise InputError(
                f"{found.path}: video {row} has the label {found.targets[row]} there, but {sample.labels} in the "
                f"dataset ({named(sample.path, *sample.part)}); the videos are different ones, or in a different order"
            )
    error = {"kind": "not_found", "message": f"{found.path} has no scores of this video"}
    failed = [
        head_of(sample.path, sample.part)
        | {"status": "error", "model": str(found.path), "error": error, "target": list(sample.labels)}
        for row, sample in zip(rows, dataset.samples, strict=True)
        if row is None
    ]
    return Run(
        provenance=provenance,
        paths=tuple(sample.path for _, sample in placed),
        targets=tuple(sample.labels for _, sample in placed),
        scores={found.combine: Chosen(found.scores, np.array([row for row, _ in placed], np.int64))},
        failed=tuple(failed),
        parts=known_parts([sample.part for _, sample in placed]),
    )


def _grouped(found: Scores, groups: Groups, activation: Activation) -> Scores:
    """The scores of groups, and the groups of the file's own labels."""

    def of(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        values = found.scores[rows].astype(np.float64)
        return grouped(values, groups, activation, found.combine).astype(np.float32)

    targets = found.targets and tuple(
        tuple(dict.fromkeys(groups.members[index] for index in target)) for target in found.targets
    )
    scores = Computed((len(found.scores), len(groups.names)), of)
    return replace(found, scores=scores, labels=groups.names, targets=targets)


def _rows(found: Scores, dataset: Dataset) -> list[int | None]:
    """The row of scores for each sample, None if there is none."""
    if found.paths is None:
        if not len(found.scores) == len(dataset.samples) == dataset.rows:
            raise InputError(
                f"{found.path}: has scores of {len(found.scores)} videos without paths, but the dataset has "
                f"{dataset.rows} videos, {len(dataset.samples)} of them to evaluate, so the order cannot match them"
            )
        return list(range(dataset.rows))
    of_parts = any(sample.part != WHOLE for sample in dataset.samples)
    if of_parts and found.times is None:
        raise InputError(f"{found.path}: does not say where videos start and end, but the dataset has parts of them")
    if not of_parts and len(set(found.paths)) < len(found.paths):
        raise InputError(
            f"{found.path}: has videos more than once; segments of a timeline can be evaluated only with annotations "
            "that have their start and end"
        )
    real = RealPaths()
    parts = found.parts() if of_parts else repeat(WHOLE, len(found.paths))
    names = (_name(real.of(path), part) for path, part in zip(found.paths, parts, strict=True))
    rows = {name: row for row, name in enumerate(names)}
    result = [rows.get(_name(real.of(sample.path), sample.part)) for sample in dataset.samples]
    if all(row is None for row in result):
        first = dataset.samples[0]
        raise InputError(
            f"{found.path}: has no scores of any video of the dataset; one in it is "
            f"{named(found.paths[0], *(next(found.parts()) if of_parts else WHOLE))!r}, and one in the dataset "
            f"{named(first.path, *first.part)!r}"
        )
    return result


def _name(path: str, part: Part) -> tuple[str, Part]:
    """What scores are matched by: times to the thousandth of a second, as `save_logits` has them."""
    start, end = (None if time is None else round(time, 3) for time in part)
    return path, (start, end)
