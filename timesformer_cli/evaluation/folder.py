"""Folders that runs on labelled data sets leave: what was evaluated, how, and what came of it.

`videos.jsonl` has a record of each video as `predict` writes them, with the classes it should have (`target`) and its
scores (`_logits`, and `_probabilities` where the recipe combines those: float32 in base64). The settings are in
`videos.jsonl.meta.json`, and what is wrong with the data set in `problems.csv`. Every other file is made of these by
`write_results`.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import copyfile
from typing import Any, cast

import numpy as np

from timesformer_cli.datasets import Problem, ProblemKind
from timesformer_cli.errors import InputError, OutputError
from timesformer_cli.evaluation import confusion_matrix as heatmap
from timesformer_cli.evaluation import metrics, report
from timesformer_cli.evaluation.run import Run, gather
from timesformer_cli.files import encoded, told, whole
from timesformer_cli.results.journal import Ledger, meta_of, read_meta, read_records
from timesformer_cli.results.record import Record
from timesformer_cli.results.settings import Provenance
from timesformer_cli.results.writers import csv_text

VIDEOS = "videos.jsonl"
METRICS = "metrics.json"
PROBLEMS = "problems.csv"

# What is made of the records, `metrics.json` last, so that a folder that has it is whole.
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
    """Make the folder, or find out that a run may not be written there.

    Raises:
        OutputError: it cannot be made, or holds something that is to be kept.
    """
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(os.listdir(folder))
    if VIDEOS in there:
        if not (overwrite or resume):
            raise OutputError(f"{folder}: holds a run already; choose another name, `resume` or `overwrite`")
    elif others := [name for name in there if name not in (PROBLEMS, *_RESULTS) and not name.startswith(VIDEOS)]:
        raise OutputError(f"{folder}: holds no run, but other files such as {others[0]!r}; name an empty or new folder")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: cannot be written (permission denied)")


def remove_results(folder: Path) -> None:
    """Take away what is to be made anew; the records stay. Raises OutputError."""
    with told(folder):
        for name in reversed(_RESULTS):
            (folder / name).unlink(missing_ok=True)


def write_problems(folder: Path, problems: Iterable[Problem]) -> None:
    """List what is wrong with the data set. Raises OutputError."""
    rows = [(problem.kind, problem.place, problem.message) for problem in problems]
    write_text(folder / PROBLEMS, csv_text([("kind", "place", "message"), *rows]))


def copy_problems(source: Path, target: Path) -> None:
    """Take over the list of another run, which has the same data set. Raises OutputError."""
    with told(target / PROBLEMS), suppress(FileNotFoundError):
        copyfile(source / PROBLEMS, target / PROBLEMS)


def write_records(folder: Path, provenance: Provenance, records: Iterable[Record]) -> None:
    """Write records that are there at once as a run would have. Raises OutputError."""
    with Ledger(folder / VIDEOS, "jsonl", provenance, may_be_empty=True) as ledger:
        for record in records:
            ledger.write(record)


def read_run(folder: Path) -> Run:
    """The run that `folder` holds.

    Raises:
        InputError: it holds none, or none that is finished.
        OutputError: the settings are damaged.
    """
    videos = folder / VIDEOS
    if not (videos.is_file() and meta_of(videos).is_file()):
        raise InputError(f"{folder}: is no folder of a run; {VIDEOS} and {meta_of(videos).name} were expected in it")
    settings, holds = read_meta(videos)
    if holds is None:
        raise InputError(f"{folder}: its run is not finished; go on with it first, with `resume`")
    try:
        return gather((record for _, record in read_records(videos)), Provenance.from_dict(settings))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{videos}: not the records of timesformer evaluate ({what})") from error


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of `metrics.json`; nothing where it is not there yet."""
    try:
        summary = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def write_results(folder: Path, run: Run, summary: dict[str, Any], commands: Sequence[str]) -> None:
    """Write everything that is made of the records. Raises OutputError.

    `summary` is the content of `metrics.json`, and `commands` make the run again, one line each.
    """
    labels = np.array(run.labels)
    page = report.render(run, summary, _read_problems(folder), folder, commands)
    with told(folder):
        write_text(folder / "predictions.csv", _table([_PREDICTIONS, *_predictions(run)]))
        write_text(folder / "per_class.csv", _table(list(_per_class(run))))
        columns: dict[str, Any] = {"path": np.array(run.paths, str), "labels": labels, **run.scores}
        np.savez(folder / "scores.npz", target=run.memberships if run.multi_label else run.classes, **columns)
        if not run.multi_label:
            np.savez(folder / "confusion.npz", matrix=run.confusion, labels=labels)
            heatmap.draw(run.confusion, run.labels).save(folder / "confusion.png")
        write_text(folder / "report.html", page)
        with whole(folder / METRICS) as part:
            write_text(part, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _read_problems(folder: Path) -> list[Problem]:
    """What `write_problems` or `copy_problems` has left, if anything."""
    try:
        with (folder / PROBLEMS).open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(file))[1:]
    except FileNotFoundError:
        return []
    return [Problem(cast("ProblemKind", row[0]), row[1], row[2]) for row in rows if len(row) == 3]


def _predictions(run: Run) -> Iterator[Sequence[object]]:
    """A row for each video: with one label each, its rank (1 is the first) and its probability too."""
    named = ("; ".join(run.labels[index] for index in target) for target in run.targets)
    if run.multi_label:
        best = run.ranked.argmax(axis=1)
        for path, label, row, index in zip(run.paths, named, run.ranked, best.tolist(), strict=True):
            yield path, "ok", label, run.labels[index], f"{row[index]:.6g}"
    else:
        found = run.outcomes
        columns = (found.predicted, found.confidences, found.ranks, found.losses)
        for path, label, predicted, confidence, rank, loss in zip(
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
                f"{np.exp(-loss):.6g}",
            )
    for record in run.failed:
        label = "; ".join(run.labels[index] for index in record["target"])
        error = record["error"]
        yield record["path"], "error", label, None, None, None, None, None, error["kind"], error["message"]


def _per_class(run: Run) -> Iterator[Sequence[object]]:
    """A row for each class: with one label to a video, which others it is taken for most often too."""
    if run.multi_label:
        yield "index", "label", "videos", "average_precision"
        precisions = metrics.average_precision(run.ranked, run.memberships)
        for index, (label, precision) in enumerate(zip(run.labels, precisions.tolist(), strict=True)):
            videos = int(run.memberships[:, index].sum())
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


def _table(rows: Sequence[Sequence[object]]) -> str:
    """CSV of rows that may end early; the first has the names of the columns."""
    return csv_text((*row, *[None] * (len(rows[0]) - len(row))) for row in rows)


def write_text(path: Path, text: str) -> None:
    """Write a whole file. Raises OutputError."""
    with told(path):
        path.write_bytes(encoded(text))
