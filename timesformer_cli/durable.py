"""Results that survive any stop: JSON lines that grow on disk, what a stopped run left in them, and its settings.

Beside an output NAME lie `NAME.meta.json`, the settings it was made with, and while they are needed
`NAME.part.jsonl`, the records that CSV and Parquet are made of when all are there, and
`NAME.retry.jsonl`, new records of videos that had failed, which take their old ones' places at the end.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from timesformer_cli.__about__ import __version__
from timesformer_cli.errors import OutputError
from timesformer_cli.parquet import read_statuses, write_parquet
from timesformer_cli.records import Result
from timesformer_cli.specs import Checkpoint
from timesformer_cli.writers import CSV_COLUMNS, Format, Record, csv_text, json_line, to_record, to_rows

# What `--resume` can continue. Half a JSON array or table would be of no use to another run.
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")

Settings = dict[str, Any]

_DIGEST = 16


def is_durable(target: Path, format: Format) -> bool:
    """Whether results in `target` can be continued: not on a device, nor in a named pipe."""
    return format in FORMATS and (target.is_file() or not target.exists())


def settings_of(checkpoint: Checkpoint, *, top_k: int, frame_rate: float) -> Settings:
    """What decides about the records, in the types that JSON gives back."""
    settings = {
        "version": __version__,
        "model": checkpoint.name,
        "source": checkpoint.source,
        "labels": hashlib.sha256("\n".join(checkpoint.labels).encode("utf-8", "surrogatepass")).hexdigest(),
        "top_k": top_k,
        "frame_rate": frame_rate,
        "recipe": asdict(checkpoint.recipe),
    }
    read: Settings = json.loads(json.dumps(settings))
    return read


@dataclass
class Past:
    """What earlier runs left: `done` is to be left alone, `failed` are the digests of those whose record is an error.

    `count` is the number of those that are done.
    """

    done: "PathSet"
    failed: set[bytes] = field(default_factory=set)
    count: int = 0


class PathSet:
    """Paths, as 16 bytes each: a million take 16 MB."""

    def __init__(self, digests: bytes = b"") -> None:
        self._sorted = np.sort(np.frombuffer(digests, f"S{_DIGEST}"))

    def __contains__(self, path: str) -> bool:
        if not len(self._sorted):
            return False
        wanted = _digest(path).rstrip(b"\0")  # as NumPy gives its strings back
        position = int(np.searchsorted(self._sorted, wanted))
        return position < len(self._sorted) and bool(self._sorted[position] == wanted)


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "backslashreplace"), digest_size=_DIGEST).digest()


class Ledger:
    """The output of one run, and of those before it that it continues."""

    def __init__(self, target: Path, format: Format, settings: Settings) -> None:
        self._target = target
        self._format = format
        self._settings = settings
        self._journal = journal_of(target, format)
        self._retries = target.with_name(target.name + ".retry.jsonl")
        self._meta = target.with_name(target.name + ".meta.json")
        self._files: dict[Path, FileIO] = {}
        self._finished = False
        self._continues = False
        self.past = Past(PathSet())
        self.failed = 0

    def __contains__(self, path: str) -> bool:
        return path in self.past.done

    def resume(self, *, retry_errors: bool) -> None:
        """Take over what is there.

        Raises:
            OutputError: it was made with other settings, or is not what a run leaves.
        """
        self._finished = self._format != "jsonl" and self._target.exists() and not self._journal.exists()
        there = self._target if self._finished else self._journal
        # A run that was stopped before its first record leaves an empty file.
        if not there.exists() or (there.stat().st_size == 0 and not self._meta.exists()):
            self._finished = False
            return
        self._check_settings()
        if self._finished and retry_errors:
            raise OutputError(
                f"{self._target}: is finished, and only JSON lines keep what --retry-errors needs; "
                "label again with --overwrite, or into a .jsonl file"
            )
        self._continues = True
        self.past = self._read_finished() if self._finished else self._read_journals(retry_errors=retry_errors)
        self.failed = len(self.past.failed)

    def write(self, record: Record) -> None:
        """Write one record. Raises OutputError when it cannot be written."""
        digest = _digest(record["path"])
        again = digest in self.past.failed
        if again:
            self.past.failed.discard(digest)
            self.failed -= 1
        self.failed += record["status"] == "error"
        self._append(self._retries if again else self._journal, json_line(record).encode("utf-8", "backslashreplace"))

    def finish(self) -> None:
        """Every video is done: give the output its last form. Raises OutputError."""
        self.close()
        if self._finished or not self._journal.exists():
            return
        with _told(self._target):
            if self._retries.exists():
                _replace(self._journal, lambda part: self._merge(part))
                self._retries.unlink()
            if self._format != "jsonl":
                _replace(self._target, lambda part: self._convert(part))
                self._journal.unlink()

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def _append(self, path: Path, line: bytes) -> None:
        with _told(path):
            file = self._files.get(path) or self._open(path)
            end = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:
                with suppress(OSError):  # leave whole lines; a torn one would be cut off by --resume
                    file.truncate(end)
                raise

    def _open(self, path: Path) -> FileIO:
        if self._finished:
            raise OutputError(
                f"{self._target}: is finished, and a finished {self._format} file takes no more videos; "
                "name another file"
            )
        if self._continues:
            file = FileIO(path, "r+" if path.exists() else "x+")
            file.seek(0, os.SEEK_END)
        else:
            # In this order, a stop in between never leaves records beside settings that are not theirs.
            self._meta.unlink(missing_ok=True)
            self._retries.unlink(missing_ok=True)
            file = FileIO(path, "w+")
            text = json.dumps(self._settings, indent=2) + "\n"
            _replace(self._meta, lambda part: part.write_text(text, encoding="utf-8"))
            self._continues = True
        self._files[path] = file
        return file

    def _check_settings(self) -> None:
        try:
            made = json.loads(self._meta.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise OutputError(
                f"{self._target}: cannot be resumed: {self._meta.name}, the settings it was made with, "
                "is missing or damaged; start again with --overwrite"
            ) from None
        if not isinstance(made, dict):
            made = {}
        differing = list(_differences(made, self._settings))
        if differing:
            raise OutputError(
                f"{self._target}: was made with other settings: {', '.join(differing)}; "
                "resume with the same ones, or choose another file"
            )

    def _read_journals(self, *, retry_errors: bool) -> Past:
        digests, failed, end = bytearray(), set(), 0
        for line_end, record in _records(self._journal):
            end = line_end
            digests += _digest(record["path"])
            if record["status"] == "error":
                failed.add(_digest(record["path"]))
        self._cut(self._journal, end)
        if self._retries.exists():
            failed = self._read_retries(failed)
        if retry_errors:
            kept = bytearray()
            for start in range(0, len(digests), _DIGEST):
                digest = digests[start : start + _DIGEST]
                kept += b"" if bytes(digest) in failed else digest
            digests = kept
        return Past(PathSet(bytes(digests)), failed, len(digests) // _DIGEST)

    def _read_retries(self, failed: set[bytes]) -> set[bytes]:
        """Those that still count as failed; a torn last record is cut off."""
        failed, end = set(failed), 0
        for line_end, record in _records(self._retries):
            end = line_end
            (failed.add if record["status"] == "error" else failed.discard)(_digest(record["path"]))
        self._cut(self._retries, end)
        return failed

    def _cut(self, path: Path, end: int) -> None:
        """Take a torn record off the end, which is at byte `end`."""
        with _told(path):
            if path.stat().st_size > end:
                os.truncate(path, end)

    def _read_finished(self) -> Past:
        digests, failed, last = bytearray(), set(), None
        for path, status in _statuses(self._target, self._format):
            if path == last:
                continue
            last = path
            digests += _digest(path)
            if status == "error":
                failed.add(_digest(path))
        return Past(PathSet(bytes(digests)), failed, len(digests) // _DIGEST)

    def _merge(self, part: Path) -> None:
        """The journal, with the newest record of each video that was tried again."""
        with self._retries.open("rb") as retries, self._journal.open("rb") as lines, part.open("wb") as merged:
            newest: dict[bytes, int] = {}
            start = 0
            for end, record in _records(self._retries):
                newest[_digest(record["path"])], start = start, end
            for line in lines:
                position = newest.get(_digest(json.loads(line)["path"]))
                if position is not None:
                    retries.seek(position)
                    line = retries.readline()
                merged.write(line)

    def _convert(self, part: Path) -> None:
        rows = (row for _, record in _records(self._journal) for row in to_rows(record))
        if self._format == "parquet":
            write_parquet(part, rows, CSV_COLUMNS)
            return
        with part.open("wb") as file:
            file.write(csv_text([CSV_COLUMNS]).encode())
            for row in rows:
                cells = [row.get(column) for column in CSV_COLUMNS]
                file.write(csv_text([cells]).encode("utf-8", "backslashreplace"))


class LedgerWriter:
    """Writes results to a ledger."""

    def __init__(self, ledger: Ledger, checkpoint: Checkpoint, top_k: int) -> None:
        self._ledger, self._checkpoint, self._top_k = ledger, checkpoint, top_k

    def write(self, result: Result) -> None:
        """Write one result. Raises OutputError when it cannot be written."""
        self._ledger.write(to_record(result, self._checkpoint, self._top_k))


@contextmanager
def open_ledger(ledger: Ledger, checkpoint: Checkpoint, *, top_k: int) -> Iterator[LedgerWriter]:
    """A writer to the ledger. At the end the output gets its last form; a stop leaves what `resume` continues."""
    try:
        yield LedgerWriter(ledger, checkpoint, top_k)
        ledger.finish()
    finally:
        ledger.close()


def journal_of(target: Path, format: Format) -> Path:
    """Where the records grow."""
    return target if format == "jsonl" else target.with_name(target.name + ".part.jsonl")


def check_journal(target: Path, format: Format) -> None:
    """Raises OutputError when a run that was stopped has left results."""
    journal = journal_of(target, format)
    if journal.exists():
        raise OutputError(
            f"{journal}: holds the results of a run that was stopped; --resume goes on with it, "
            "--overwrite starts again"
        )


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    """Each record and the byte after it, up to a torn one at the end.

    Raises:
        OutputError: a line that is no record, with records after it; or the file cannot be read.
    """
    end = 0
    with _told(path, "read"), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = _parse(line)
            if record is None:
                if any(_parse(later) for later in file):
                    raise OutputError(f"{path}: line {number} is not a record; it was changed since it was written")
                return
            end += len(line)
            yield end, record


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"path", "status"} <= record.keys() else None


def _statuses(path: Path, format: Format) -> Iterator[tuple[str, str]]:
    """Path and status of each row of a finished file."""
    with _told(path, "read"):
        if format == "parquet":
            yield from read_statuses(path)
            return
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield row["path"], row["status"]


def _differences(made: Settings, wanted: Settings, prefix: str = "") -> Iterator[str]:
    for name in sorted(made.keys() | wanted.keys()):
        before, now = made.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{prefix}{name}.")
        elif name == "labels" and before != now:
            yield "labels"
        elif before != now:
            yield f"{prefix}{name} ({before}, now {now})"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Make `path` anew: written beside it, on the disk for sure, and only then given its name."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _told(path: Path, what: str = "written") -> Iterator[None]:
    """An OSError inside becomes one line about `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be {what} ({error.strerror or error})") from error
