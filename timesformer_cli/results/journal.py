"""Results that survive any interruption: JSON lines that grow on disk, and the settings of the run.

An output NAME has these files beside it:

- `NAME.meta.json`: the settings of the run and, once finished, what the output holds.
- `NAME.part.jsonl`, until the end: the records from which formats other than JSON lines are made.
- `NAME.retry.jsonl`, until the end: new records of videos that had failed, which replace the old ones.
- `NAME.lock`, during a run: keeps other runs out.
"""

import json
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from timesformer_cli import strict_json
from timesformer_cli.errors import OutputError
from timesformer_cli.files import DIGEST, PathSet, digest_of, encoded, replacing, told, without_links
from timesformer_cli.flow import key_of
from timesformer_cli.results.appender import Appender, sync_names
from timesformer_cli.results.logits import LogitsRow, save_logits, unpack
from timesformer_cli.results.record import Record, check_record, identity, private_line, spans
from timesformer_cli.results.settings import Provenance, check_settings, completed, differences
from timesformer_cli.results.vectors.per_video import save_per_video
from timesformer_cli.results.vectors.rows import VectorFormat, VectorOutput, check_vectors, rows_in, vector_format
from timesformer_cli.results.vectors.writing import save_vectors
from timesformer_cli.results.writers import Format, too_large_to_open, write_file

T = TypeVar("T")


def is_durable(target: Path, format: Format | VectorOutput) -> bool:
    """Whether results in `target` can be resumed: they cannot in a table, on a device, or in a named pipe."""
    return format != "table" and (target.is_file() or not target.exists())


class Holdings(NamedTuple):
    """What an output holds: number of videos, number of failed ones, and the sum of the digests of their keys.

    A key identifies a video, by its path, or a part of one: see `flow.key_of`.
    """

    videos: int = 0
    failed: int = 0
    paths: int = 0

    def and_key(self, key: str, *, failed: bool = False) -> "Holdings":
        added = int.from_bytes(digest_of(key), "big")
        return Holdings(self.videos + 1, self.failed + failed, (self.paths + added) % (1 << 8 * DIGEST))

    def and_record(self, record: Record) -> "Holdings":
        return self.and_key(identity(record), failed=record["status"] == "error")


@dataclass
class Past:
    """The results of earlier runs: `done` are the keys not to process again, `failed` the digests of failed ones.

    `count` is how many are done, even if a finished output does not say which.
    """

    done: PathSet
    failed: set[bytes] = field(default_factory=set)
    count: int = 0

    def __post_init__(self) -> None:
        self.count = self.count or len(self.done)


@dataclass(frozen=True, slots=True)
class Beside:
    """Files that a run writes beside its output: the logits of all classes, and the vectors."""

    logits: Path | None = None
    embeddings: Path | None = None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.logits, self.embeddings) if path is not None]


class Ledger:
    """The output of a run, and of the earlier runs that it resumes.

    The logits and the vectors of all records are also written to the files `beside` it; the records must carry them.
    The output of a run that makes only vectors is a file of those. Without any record there is no output, unless it
    `may_be_empty`. As a context manager, it gives the output its final form at the end; after an interruption, `resume`
    can continue.
    """

    def __init__(
        self,
        target: Path,
        format: Format | VectorOutput,
        provenance: Provenance,
        beside: Beside = Beside(),
        *,
        may_be_empty: bool = False,
    ) -> None:
        self._target = target
        self._format = format
        self._provenance = provenance
        self._beside = beside
        self._may_be_empty = may_be_empty
        self._journal = journal_of(target, grows=grows(format, beside, vectors=provenance.of_vectors))
        self._retries = target.with_name(target.name + ".retry.jsonl")
        self._meta = meta_of(target)
        self._files: dict[Path, Appender] = {}
        self._torn: dict[Path, int] = {}  # files with a torn record at their end, and the byte where it begins
        self._continues = False
        self._holds = Holdings()
        self._size = 0
        self._warned = False
        self.finished = False  # by an earlier run, into a format that takes no more
        self.past = Past(PathSet())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.close()

    def __contains__(self, key: str) -> bool:
        return key in self.past.done

    @property
    def failed(self) -> int:
        return self._holds.failed

    def warning(self) -> str | None:
        """A sentence, once, if the output is to be a page that has grown larger than browsers open."""
        if self._warned or (text := too_large_to_open(self._target, self._format, self._size)) is None:
            return None
        self._warned = True
        return text

    def resume(self, *, retry_errors: bool) -> None:
        """Take over the existing results; nothing is changed before `write` or `finish`.

        Raises:
            OutputError: they were made with different settings, or not by a run.
        """
        finished = self._journal != self._target and self._target.exists() and not self._journal.exists()
        there = self._target if finished else self._journal
        # A run that was stopped before its first record leaves an empty file.
        if not there.exists() or (there.stat().st_size == 0 and not self._meta.exists()):
            return
        held = self._check_meta()
        self._continues = True
        if not finished:
            self.past = self._read_journals(retry_errors=retry_errors)
            return
        if held is None:
            raise OutputError(
                f"{self._target}: cannot be resumed: it was not finished by a run; start again with `overwrite`"
            )
        if retry_errors and held.failed:
            raise OutputError(
                f"{self._target}: is finished, and only JSON lines of labels, without logits and vectors, keep what "
                "`retry_errors` needs; start again with `overwrite`, or another file"
            )
        for path in self._beside.paths:
            if not path.exists():
                raise OutputError(
                    f"{path}: does not exist, though {self._target} is finished; name the file that was written with "
                    "it, or label again with `overwrite`"
                )
        self.finished, self._holds = True, held
        self.past.count = held.videos

    def check_finished(self, keys: Iterable[str]) -> None:
        """Raises OutputError if a finished output holds different videos than those with these keys."""
        holds = Holdings()
        for key in keys:
            holds = holds.and_key(key)
        if (holds.videos, holds.paths) != (self._holds.videos, self._holds.paths):
            raise OutputError(
                f"{self._target}: is finished, and its {self._holds.videos} videos differ from these {holds.videos}; a "
                f"finished {self._format} file cannot be extended, so name another one"
            )

    def write(self, record: Record) -> None:
        """Take one record; it is written soon. Raises OutputError if it or an earlier one cannot be written."""
        failed = record["status"] == "error"
        key = identity(record)
        digest = digest_of(key)
        again = digest in self.past.failed
        self._append(self._retries if again else self._journal, encoded(private_line(record)))
        if again:
            self.past.failed.discard(digest)
            self._holds = self._holds._replace(failed=self._holds.failed - 1 + failed)
        else:
            self._holds = self._holds.and_key(key, failed=failed)

    def finish(self) -> None:
        """Give the output its final form, once every video is done. Raises OutputError."""
        if not self._continues and self._may_be_empty:
            with told(self._journal):
                self._open(self._journal)
        self.close()
        if self.finished or not self._continues:
            return
        for path, end in self._torn.items():
            with told(path):
                os.truncate(path, end)
        if self._retries.exists():
            with replacing(self._journal) as part:
                self._merge(part)
            self._retries.unlink()
        self._write_beside()
        if self._journal != self._target:
            write_final(self._target, self._format, self._provenance, self._records())
        _write_meta(self._target, self._provenance.to_dict(), self._holds)
        if self._journal != self._target:
            sync_names(self._target.parent)  # before the records go, of which it is made
            with told(self._journal):
                self._journal.unlink()

    def _records(self) -> Iterator[Record]:
        check = check_vectors if self._provenance.of_vectors else check_record
        return (record for _, record in read_records(self._journal, check=check))

    def _write_beside(self) -> None:
        """Write the files of logits and of vectors beside the output. Raises OutputError."""
        logits, embeddings = self._beside.logits, self._beside.embeddings
        if logits is not None:
            rows, labels, ending = _logits_in(self._journal), self._provenance.labels, logits.suffix.lower()
            with replacing(logits) as part:
                save_logits(part, rows, labels, format=ending, activation=self._provenance.recipe.activation)
        if embeddings is not None:
            provenance = replace(self._provenance, shown=None, labels=(), groups=None)
            with finishing(embeddings, provenance, self._holds):
                save_vectors(embeddings, rows_in(self._records()), provenance, format=vector_format(embeddings))

    def close(self) -> None:
        """Wait until all records are on disk. Raises OutputError if they cannot be written, unless `write` said so."""
        with ExitStack() as stack:  # closes the second file even if the first cannot be written
            while self._files:
                path, file = self._files.popitem()
                stack.enter_context(told(path))
                stack.callback(file.close)

    def _append(self, path: Path, line: bytes) -> None:
        with told(path):
            (self._files.get(path) or self._open(path)).write(line)
        self._size += len(line)

    def _open(self, path: Path) -> Appender:
        if self._continues:
            _write_meta(self._target, self._provenance.to_dict(), None)
            mode = "r+" if path.exists() else "x+"
        else:
            # In this order, an interruption never leaves records beside the settings of another run.
            self._meta.unlink(missing_ok=True)
            self._retries.unlink(missing_ok=True)
            mode = "w+"
        file = FileIO(path, mode, opener=self._opener(path))
        try:
            if path in self._torn:
                file.truncate(self._torn.pop(path))
            file.seek(0, os.SEEK_END)
            if not self._continues:
                _write_meta(self._target, self._provenance.to_dict(), None)
                self._continues = True
            appender = self._files[path] = Appender(file)
        except BaseException:
            file.close()
            raise
        return appender

    def _opener(self, path: Path) -> Callable[[str, int], int] | None:
        """The user's own name may be a link; a journal beside it is ours."""
        return None if path == self._target else without_links

    def _check_meta(self) -> Holdings | None:
        """What a finished output holds; None if it is not finished."""
        made, holds = read_meta(self._target)
        if "shown" not in made and self._provenance.shown is not None:
            raise OutputError(
                f"{self._target}: was made by an earlier version, which did not record all settings; "
                "finish it with that version, or choose another file"
            )
        differing = list(differences(made, json.loads(json.dumps(self._provenance.to_dict()))))
        if differing:
            raise OutputError(
                f"{self._target}: was made with different settings: {', '.join(differing)}; "
                "resume with the same ones, or choose another file"
            )
        return holds

    def _read_journals(self, *, retry_errors: bool) -> Past:
        done, failed = PathSet(), set[bytes]()
        videos = paths = end = 0
        for line_end, _, (key, is_failed) in _read(self._journal, _head):
            end = line_end
            digest = digest_of(key)
            videos, paths = videos + 1, paths + int.from_bytes(digest, "big")
            if is_failed:
                failed.add(digest)
            else:
                done.add_digest(digest)
        self._note_torn(self._journal, end)
        self._size = end
        again = self._read_retries(failed) if self._retries.exists() else failed
        for digest in failed if not retry_errors else failed - again:
            done.add_digest(digest)
        self._holds = Holdings(videos, len(again), paths % (1 << 8 * DIGEST))
        return Past(done, again)

    def _read_retries(self, failed: set[bytes]) -> set[bytes]:
        """The digests of videos that still count as failed after the retries."""
        failed, end = set(failed), 0
        for line_end, _, (key, is_failed) in _read(self._retries, _head):
            end = line_end
            (failed.add if is_failed else failed.discard)(digest_of(key))
        self._note_torn(self._retries, end)
        return failed

    def _note_torn(self, path: Path, end: int) -> None:
        with told(path, "read"):
            if path.stat().st_size > end:
                self._torn[path] = end

    def _merge(self, part: Path) -> None:
        """Write all records to `part`, with the newest one of each retried video."""
        with self._retries.open("rb") as retries, self._journal.open("rb") as lines, part.open("wb") as merged:
            newest: dict[bytes, int] = {}
            start = 0
            for end, _, (key, _) in _read(self._retries, _head):
                newest[digest_of(key)], start = start, end
            for line in lines:
                found = _head(line)
                position = None if found is None else newest.get(digest_of(found[0]))
                if position is not None:
                    retries.seek(position)
                    line = retries.readline()
                merged.write(line)


def grows(format: Format | VectorOutput, beside: Beside = Beside(), *, vectors: bool = False) -> bool:
    """Whether an output is written record by record; others, such as files of `vectors`, are made at the end."""
    return format == "jsonl" and not vectors and not beside.paths


def journal_of(target: Path, *, grows: bool) -> Path:
    """The file that records are appended to: if the output `grows`, it is the output itself."""
    return target if grows else target.with_name(target.name + ".part.jsonl")


def meta_of(target: Path) -> Path:
    return target.with_name(target.name + ".meta.json")


def check_journal(target: Path, *, grows: bool) -> None:
    """Raises OutputError if an interrupted run left results."""
    journal = journal_of(target, grows=grows)
    if journal.exists():
        raise OutputError(
            f"{journal}: holds the results of an interrupted run; `resume` continues it, `overwrite` starts again"
        )


def read_meta(target: Path) -> tuple[dict[str, Any], Holdings | None]:
    """The `Provenance` of an output as JSON, and what the output holds if it is finished.

    Raises:
        OutputError: the settings are missing or damaged.
    """
    path = meta_of(target)
    try:
        meta = strict_json.read(path)
        finished = meta["finished"]
        if finished is not None:
            finished = Holdings(int(finished["videos"]), int(finished["failed"]), int(finished["paths"], 16))
        check_settings(meta["settings"])
        return completed(dict(meta["settings"])), finished
    except (OSError, ValueError, TypeError, KeyError):
        raise OutputError(
            f"{target}: cannot be resumed: {path.name}, which holds its settings, is missing or damaged; "
            "start again with `overwrite`"
        ) from None


def _unchecked(_: object) -> None:
    """Take a record as it is."""


def read_records(
    path: Path, start: int = 0, first: int = 1, *, check: Callable[[Record], None] = _unchecked
) -> Generator[tuple[int, Record], None, None]:
    """Each record from the byte `start` on, which begins line `first`, preceded by the offset of the byte after it.

    A torn record at the end is left out.

    After a zero byte nothing is read: a power cut can leave zeros instead of lines that were not synced yet. `check`
    raises ValueError for a record with fields that will not do.

    Raises:
        OutputError: a line before other records is not a record, or fails the check; or the file cannot be read.
    """
    return ((end, record) for end, _, record in _read(path, _parse, start, first, check=check))


def read_lines(path: Path) -> Iterator[tuple[int, bytes, Record]]:
    """As `read_records`, with the line of each record."""
    return _read(path, _parse)


def _read(
    path: Path,
    parse: Callable[[bytes], T | None],
    start: int = 0,
    first: int = 1,
    *,
    check: Callable[[T], None] = _unchecked,
) -> Iterator[tuple[int, bytes, T]]:
    end = start
    with told(path, "read"), path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, first):
            record = parse(line)
            if record is None:
                if b"\0" not in line and any(parse(later) for later in file):
                    raise OutputError(
                        f"{path}: line {number} is not a record; the file was changed since it was written"
                    )
                return
            try:
                check(record)
            except ValueError as error:
                raise OutputError(
                    f"{path}: line {number} is not a record that a run wrote ({error}); copy the file again, or label "
                    "again with `overwrite`"
                ) from error
            end += len(line)
            yield end, line, record


# As every run writes it. A million records are to be resumed in seconds, so the rest of them is not parsed.
_TIME = rb"[0-9.e+-]+"
_HEAD = re.compile(
    rb'\{"path": ("(?:[^"\\\0-\x1f]|\\.)*"), '
    rb'(?:"start": (%b), )?(?:"end": (%b), )?"status": "(ok|error)", ' % (_TIME, _TIME)
)


def _head(line: bytes) -> tuple[str, bool] | None:
    """The key of a record, and whether it is of a failure; None if the line is not a record."""
    found = _HEAD.match(line)
    if found and line.endswith(b"}\n") and b"\0" not in line:
        try:
            path, start, end, status = found.groups()
            key = json.loads(path)
            if start is not None or end is not None:
                key = key_of(key, (None if start is None else float(start), None if end is None else float(end)))
            return key, status == b"error"
        except ValueError:
            return None
    record = _parse(line)
    return None if record is None else (identity(record), record["status"] == "error")


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = strict_json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and _identifies(record) else None


def _identifies(record: Record) -> bool:
    return (
        isinstance(record.get("path"), str)
        and record.get("status") in ("ok", "error")
        and all(type(record.get(name, 0)) in (int, float) for name in ("start", "end"))  # True is an int too
    )


def _logits_in(journal: Path) -> Iterator[LogitsRow]:
    for _, record in read_records(journal, check=check_record):
        for span, packed in zip(spans(record), record.get("_logits", ()), strict=True):
            yield LogitsRow(record["path"], span["start"], span["end"], unpack(packed))


@contextmanager
def finishing(target: Path, provenance: Provenance, holds: Holdings) -> Iterator[None]:
    """Inside, `target` is written as a whole; then it is what a run with these settings would leave.

    Raises:
        OutputError: the settings cannot be written.
    """
    meta_of(target).unlink(missing_ok=True)
    yield
    _write_meta(target, provenance.to_dict(), holds)


def write_final(target: Path, format: Format | VectorOutput, provenance: Provenance, records: Iterable[Record]) -> None:
    """Write all `records` to `target`, in its final form. Raises OutputError."""
    if format == "folder":
        save_per_video(target, records, provenance)
        return
    if provenance.of_vectors:
        save_vectors(target, rows_in(records), provenance, format=cast("VectorFormat", format))
        return
    with replacing(target) as part:
        write_file(part, cast("Format", format), records, provenance.origin)


def _write_meta(target: Path, settings: dict[str, Any], holds: Holdings | None) -> None:
    finished = None if holds is None else holds._asdict() | {"paths": f"{holds.paths:032x}"}
    text = json.dumps({"finished": finished, "settings": settings}, indent=2) + "\n"
    with replacing(meta_of(target)) as part:
        part.write_text(text, encoding="utf-8")
