"""The folder of a run on a labelled dataset: its records, settings and results.

`videos.jsonl` has a record of each video, as `predict` writes them, with its true classes (`target`) and its scores
(`_logits`, and `_probabilities` if the recipe combines probabilities: float32 in base64). The settings are in
`videos.jsonl.meta.json`, and the problems of the dataset in `problems.csv`. `write_results` makes all other files from
these.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from shutil import copyfile, rmtree
from types import MappingProxyType
from typing import Any, cast
from zipfile import ZipFile

import numpy as np

from timesformer_cli import strict_json
from timesformer_cli.checkpoints.folder import MODEL_OF_RUN
from timesformer_cli.datasets import Problem, ProblemKind
from timesformer_cli.errors import InputError, OutputError
from timesformer_cli.evaluation import calibration_file, metrics, report
from timesformer_cli.evaluation import confusion_matrix as heatmap
from timesformer_cli.evaluation.rows import chunks
from timesformer_cli.evaluation.run import Run, gather
from timesformer_cli.files import encoded, told, whole
from timesformer_cli.results.journal import Ledger, meta_of, read_lines, read_meta
from timesformer_cli.results.npz import add_array, add_texts, utf32
from timesformer_cli.results.record import Record, part_of
from timesformer_cli.results.settings import Provenance
from timesformer_cli.results.writers import csv_text, write_csv
from timesformer_cli.shapes import Maybe, anything, count, number, string, table
from timesformer_cli.shapes import record as shape

VIDEOS = "videos.jsonl"
METRICS = "metrics.json"
PROBLEMS = "problems.csv"

# Files made from the records; `metrics.json` is the last, so that a folder with it is complete.
_RESULTS = ("predictions.csv", "per_class.csv", "scores.npz", "confusion.npz", "confusion.png", "report.html", METRICS)

_PREDICTIONS = (
    "path",
    "status",
    "label",
    "predicted",
    "score",
    "correct",
    "label_rank",
    "label_score",
    "error_kind",
    "error_message",
)


def open_folder(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Create the folder, or check that a run may be written to it.

    Raises:
        OutputError: it cannot be created, or holds other files or a run to keep.
    """
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(os.listdir(folder))
    if VIDEOS in there:
        if not (overwrite or resume):
            raise OutputError(f"{folder}: already holds a run; choose another name, `resume` or `overwrite`")
    elif others := [name for name in there if name not in (PROBLEMS, *_RESULTS) and not name.startswith(VIDEOS)]:
        raise OutputError(f"{folder}: holds no run, but other files such as {others[0]!r}; name an empty or new folder")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: cannot be written (permission denied)")


def remove_results(folder: Path) -> None:
    """Remove the results, with the calibrated model if there is one, but keep the records. Raises OutputError."""
    with told(folder):
        if (folder / MODEL_OF_RUN / calibration_file.FILE).is_file():
            rmtree(folder / MODEL_OF_RUN)
        for name in reversed(_RESULTS):
            (folder / name).unlink(missing_ok=True)


def write_problems(folder: Path, problems: Iterable[Problem]) -> None:
    """Write the problems of the dataset. Raises OutputError."""
    rows = [(problem.kind, problem.place, problem.message) for problem in problems]
    write_text(folder / PROBLEMS, csv_text([("kind", "place", "message"), *rows]))


def copy_problems(source: Path, target: Path) -> None:
    """Copy the problems of another run on the same dataset, if it has any. Raises OutputError."""
    with told(target / PROBLEMS), suppress(FileNotFoundError):
        copyfile(source / PROBLEMS, target / PROBLEMS)


def write_records(folder: Path, provenance: Provenance, records: Iterable[Record]) -> None:
    """Write existing records, as a run would. Raises OutputError."""
    with Ledger(folder / VIDEOS, "jsonl", provenance, may_be_empty=True) as ledger:
        for record in records:
            ledger.write(record)


def read_run(folder: Path) -> Run:
    """The run that `folder` holds.

    Raises:
        InputError: it holds no run, or one that is not finished.
        OutputError: the settings are damaged.
    """
    videos = folder / VIDEOS
    if not (videos.is_file() and meta_of(videos).is_file()):
        raise InputError(f"{folder}: is not the folder of a run, which holds {VIDEOS} and {meta_of(videos).name}")
    settings, holds = read_meta(videos)
    if holds is None:
        raise InputError(f"{folder}: its run is not finished; continue it first, with `resume`")
    try:
        return gather(read_lines(videos), videos, Provenance.from_dict(settings))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{videos}: not the records of timesformer evaluate ({what})") from error


_SPEED = shape(videos=count, seconds=number, videos_per_second=number)
_MACHINE = shape(anything, versions=table(string, string))
_SUMMARY = shape(anything, throughput=Maybe(_SPEED), run=Maybe(_MACHINE))


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of `metrics.json`; empty if it does not exist yet, or is damaged, as it is made anew."""
    try:
        summary: dict[str, Any] = strict_json.read(folder / METRICS)
        _SUMMARY(summary)
    except (OSError, ValueError):
        return {}
    return summary


def write_results(
    folder: Path,
    run: Run,
    summary: dict[str, Any],
    commands: Sequence[str],
    pages: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write all files that are made from the records. Raises OutputError.

    `summary` is the content of `metrics.json`, and `commands` are those that repeat the run, one line each. `pages`
    are as for `report.render`.
    """
    labels = np.array(run.labels)
    page = report.render(run, summary, _read_problems(folder), folder, commands, pages)
    with told(folder):
        _write_predictions(folder / "predictions.csv", run)
        first, *rows = _per_class(run)
        _write_table(folder / "per_class.csv", first, rows)
        _write_scores(folder / "scores.npz", run)
        if not run.multi_label:
            np.savez(folder / "confusion.npz", matrix=run.confusion, labels=labels)
            heatmap.draw(run.confusion, run.labels).save(folder / "confusion.png")
        write_text(folder / "report.html", page)
        with whole(folder / METRICS) as part:
            write_text(part, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _write_scores(path: Path, run: Run) -> None:
    """The arrays of `scores.npz`, block by block."""
    videos, classes = len(run.paths), len(run.labels)
    with ZipFile(path, "w") as archive:
        if run.multi_label:
            members = (run.memberships[rows].tobytes() for rows in chunks(videos))
            add_array(archive, "target", "|b1", (videos, classes), members)
        else:
            add_array(archive, "target", "<i8", (videos,), [run.classes.astype("<i8").tobytes()])
        add_array(archive, "activation", f"<U{len(run.activation)}", (), [utf32(run.activation)])
        for name, texts in (("path", run.paths), ("labels", run.labels)):
            longest = 4 * max(map(len, texts), default=0)
            add_texts(archive, name, len(texts), longest, map(utf32, texts))
        if run.parts:
            times = np.array(run.parts, "<f8")  # None becomes NaN
            for place, name in enumerate(("start", "end")):
                add_array(archive, name, "<f8", (videos,), [times[:, place].tobytes()])
        for kind, scores in run.scores.items():
            blocks = (scores[rows].astype("<f4").tobytes() for rows in chunks(videos))
            add_array(archive, kind, "<f4", (videos, classes), blocks)


def _read_problems(folder: Path) -> list[Problem]:
    """The problems from `write_problems` or `copy_problems`, if there are any."""
    try:
        with (folder / PROBLEMS).open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(file))[1:]
    except FileNotFoundError:
        return []
    return [Problem(cast("ProblemKind", row[0]), row[1], row[2]) for row in rows if len(row) == 3]


def _write_predictions(path: Path, run: Run) -> None:
    """A row for each video; if any is only a part of one, with the start and the end of each behind its path."""
    if not run.has_parts:
        _write_table(path, _PREDICTIONS, _predictions(run))
        return
    parts = chain(map(run.part, range(len(run.paths))), map(part_of, run.failed))
    rows = ((video, *part, *cells) for (video, *cells), part in zip(_predictions(run), parts, strict=True))
    video, *columns = _PREDICTIONS
    _write_table(path, (video, "start", "end", *columns), rows)


def _predictions(run: Run) -> Iterator[Sequence[object]]:
    """A row for each video; if videos have one label each, also its rank (from 1) and its probability."""
    named = ("; ".join(run.labels[index] for index in target) for target in run.targets)
    if run.multi_label:
        for path, label, index, score in zip(run.paths, named, *run.best, strict=True):
            yield path, "ok", label, run.labels[index], f"{score:.6g}"
    else:
        found = run.outcomes
        columns = (found.predicted, found.confidences, found.ranks, found.own)
        for path, label, predicted, confidence, rank, own in zip(
            run.paths, named, *(column.tolist() for column in columns), strict=True
        ):
            right = int(rank == 0)
            yield (
                path,
                "ok",
                label,
                run.labels[predicted],
                f"{confidence:.6g}",
                right,
                rank + 1,
                f"{own:.6g}",
            )
    for record in run.failed:
        label = "; ".join(run.labels[index] for index in record["target"])
        error = record["error"]
        yield record["path"], "error", label, None, None, None, None, None, error["kind"], error["message"]


def _per_class(run: Run) -> Iterator[Sequence[object]]:
    """A row for each class; if videos have one label each, also the classes it is most often mistaken for."""
    if run.multi_label:
        yield "index", "label", "videos", "average_precision"
        for index, (label, precision) in enumerate(zip(run.labels, run.precisions.tolist(), strict=True)):
            videos = int(run.supports[index])
            yield index, label, videos, f"{precision:.6g}" if videos else None
        return
    yield (
        "index",
        "label",
        "videos",
        "correct",
        "predicted",
        "accuracy",
        "precision",
        *(f"{what}_{place}" for place in (1, 2, 3) for what in ("taken_for", "times")),
    )
    for result in metrics.per_class(run.confusion):
        shares = (None if share is None else f"{share:.6g}" for share in (result.accuracy, result.precision))
        taken = (cell for other, videos in result.confusions for cell in (run.labels[other], videos))
        yield result.index, run.labels[result.index], result.videos, result.correct, result.predicted, *shares, *taken


def _write_table(path: Path, columns: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Write CSV; rows with fewer cells than there are columns are filled up."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        write_csv(file, ((*row, *[None] * (len(columns) - len(row))) for row in chain([columns], rows)))


def write_text(path: Path, text: str) -> None:
    """Write a whole file. Raises OutputError."""
    with told(path):
        path.write_bytes(encoded(text))
