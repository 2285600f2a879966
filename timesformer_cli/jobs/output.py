"""Where the records of a run go: checked before any work, and resumed if asked for."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.files import check_target, locked
from timesformer_cli.results.formats.parquet import check_pyarrow
from timesformer_cli.results.journal import Beside, Ledger, check_journal, grows, is_durable, meta_of
from timesformer_cli.results.logits import check_logits_target
from timesformer_cli.results.record import Origin
from timesformer_cli.results.settings import Provenance, Shard, VectorKind
from timesformer_cli.results.vectors.rows import VectorOutput, companion_of, vector_format
from timesformer_cli.results.vectors.streams import STREAMED, Streamed, style_of
from timesformer_cli.results.writers import Format, Writer, open_styled, open_writer

_WAYS = "`resume` or `overwrite`"  # with a file that exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file, or standard output if `path` is None, and the files `beside` it. With `vectors`, it is a file of those.

    `resume`: continue an interrupted run with the same settings; with `retry_errors`, also retry videos that failed.
    `may_be_empty`: a run without any video is no error.
    """

    path: Path | None = None
    format: Format | VectorOutput = "jsonl"
    beside: Beside = Beside()
    vectors: bool = False
    overwrite: bool = False
    resume: bool = False
    retry_errors: bool = False
    may_be_empty: bool = False

    @property
    def durable(self) -> bool:
        """Whether it can be resumed."""
        return self.path is not None and is_durable(self.path, self.format)

    def check(self) -> None:
        """Check that the output can be written as asked. Raises UsageError and OutputError."""
        if self.retry_errors and not self.resume:
            raise UsageError("`retry_errors` needs `resume`")
        if self.resume and self.overwrite:
            raise UsageError("`resume` and `overwrite` cannot be combined")
        if self.resume and not self.durable:
            raise UsageError("`resume` needs `output` with a file, in another format than table")
        if self.format == "parquet":
            check_pyarrow()
        self._check_beside()
        if self.vectors and not self.durable and self.format not in STREAMED:
            raise UsageError(
                f"`format={self.format}` cannot be written to a pipe or a terminal; name a file with `output`"
            )
        if self.path is None:
            if self.format == "parquet":
                raise UsageError("Parquet cannot be written to standard output; name a file with `output`")
            return
        for path in self._targets():
            check_target(path, overwrite=self.overwrite or self.resume, ways=_WAYS)
        if self.durable and not (self.overwrite or self.resume):
            check_journal(self.path, grows=grows(self.format, self.beside, vectors=self.vectors))

    def _targets(self) -> list[Path]:
        """The files that are to be written, or a folder for them that does not exist yet."""
        assert self.path is not None
        if self.format == "folder":
            return [self.path if self.path.parent.is_dir() else self.path.parent]
        return _files_of(self.path, self.format) if self.vectors else [self.path]

    def _check_beside(self) -> None:
        """Check that the files beside the output can be written. Raises UsageError and OutputError."""
        taken = {} if self.path is None else {self.path.resolve(): "output"}
        for name, path in (("save_logits", self.beside.logits), ("save_embeddings", self.beside.embeddings)):
            if path is None:
                continue
            if not self.durable:
                raise UsageError(f"`{name}` needs `output` with a file, in another format than table")
            if name == "save_logits":
                check_logits_target(path)
            elif vector_format(path) == "parquet":
                check_pyarrow()
            for file in _files_of(path, vector_format(path)) if name == "save_embeddings" else [path]:
                if (other := taken.get(file.resolve())) is not None:
                    raise UsageError(f"{file}: is the same file as `{other}`; name another one for `{name}`")
                check_target(file, overwrite=self.overwrite or self.resume, ways=_WAYS)
                taken[file.resolve()] = name

    def lock(self) -> AbstractContextManager[object]:
        """Keeps other runs away from the file. Raises OutputError if another run has it."""
        if self.path is not None and self.durable and self.path.parent.is_dir():
            return locked(self.path)
        return ExitStack()

    def ledger(self, provenance: Provenance) -> Ledger:
        """The ledger of a `durable` output, with the results of earlier runs. Raises OutputError."""
        assert self.path is not None
        ledger = Ledger(self.path, self.format, provenance, self.beside, may_be_empty=self.may_be_empty)
        if self.resume:
            ledger.resume(retry_errors=self.retry_errors)
        return ledger

    def writer(self, origin: Origin) -> AbstractContextManager[Writer]:
        """The writer of an output that cannot be resumed."""
        return open_writer(self.path, cast("Format", self.format), origin)

    def vector_writer(self, kind: VectorKind) -> AbstractContextManager[Writer]:
        """The same for vectors."""
        return open_styled(self.path, style_of(cast("Streamed", self.format), kind))

    def of_shard(self, shard: Shard) -> "Output":
        """The output of a shard, with file names of its own. Raises UsageError."""
        if self.vectors:
            if self.format == "folder":
                raise UsageError("`per_video` cannot be combined with `shard`; give each share a folder of its own")
            if self.path is None:
                raise UsageError("`shard` needs `output` with a file; `timesformer merge` puts all shards together")
        elif self.path is None or self.format != "jsonl":
            raise UsageError(
                "`shard` needs `output` with a .jsonl file; `timesformer merge` converts all shards to other formats"
            )
        logits, embeddings = (
            None if path is None else shard.output(path) for path in (self.beside.logits, self.beside.embeddings)
        )
        # If there is any video, the first shard has one; there may be more shards than videos.
        return replace(
            self, path=shard.output(self.path), beside=Beside(logits, embeddings), may_be_empty=shard.index > 1
        )


def _files_of(vectors: Path, format: str) -> list[Path]:
    """A file of vectors, and the one with its rows, if it needs one.

    Raises:
        OutputError: another file has the name of that one.
    """
    beside = companion_of(vectors, format)
    if beside is None:
        return [vectors]
    ours = vectors.exists() or meta_of(vectors).exists()
    if meta_of(beside).exists() or (beside.exists() and not ours):
        raise OutputError(
            f"{beside}: already exists and does not belong to {vectors.name}, which needs this name for its rows; "
            "choose another one"
        )
    return [vectors, beside]
