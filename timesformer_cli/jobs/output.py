"""Where the records of a run go: checked before any work, and resumed if asked for."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from timesformer_cli.errors import UsageError
from timesformer_cli.files import check_target, locked
from timesformer_cli.results.formats.parquet import check_pyarrow
from timesformer_cli.results.journal import Ledger, check_journal, is_durable
from timesformer_cli.results.logits import check_logits_target
from timesformer_cli.results.record import Origin
from timesformer_cli.results.settings import Provenance, Shard
from timesformer_cli.results.writers import Format, Writer, open_writer

_WAYS = "`resume` or `overwrite`"  # with a file that exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file, or standard output if `path` is None; `logits` is a file for the logits of all classes.

    `resume`: continue an interrupted run with the same settings; with `retry_errors`, also retry videos that failed.
    `may_be_empty`: a run without any video is no error.
    """

    path: Path | None = None
    format: Format = "jsonl"
    logits: Path | None = None
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
        if self.logits is not None:
            if not self.durable:
                raise UsageError("`save_logits` needs `output` with a file, in another format than table")
            check_logits_target(self.logits)
            if self.path is not None and self.logits.resolve() == self.path.resolve():
                raise UsageError(f"{self.logits}: is the same file as `output`; name another one for `save_logits`")
            check_target(self.logits, overwrite=self.overwrite or self.resume, ways=_WAYS)
        if self.path is None:
            if self.format == "parquet":
                raise UsageError("Parquet cannot be written to standard output; name a file with `output`")
            return
        check_target(self.path, overwrite=self.overwrite or self.resume, ways=_WAYS)
        if self.durable and not (self.overwrite or self.resume):
            check_journal(self.path, self.format, logits=self.logits is not None)

    def lock(self) -> AbstractContextManager[object]:
        """Keeps other runs away from the file. Raises OutputError if another run has it."""
        if self.path is not None and self.durable and self.path.parent.is_dir():
            return locked(self.path)
        return ExitStack()

    def ledger(self, provenance: Provenance) -> Ledger:
        """The ledger of a `durable` output, with the results of earlier runs. Raises OutputError."""
        assert self.path is not None
        ledger = Ledger(self.path, self.format, provenance, self.logits, may_be_empty=self.may_be_empty)
        if self.resume:
            ledger.resume(retry_errors=self.retry_errors)
        return ledger

    def writer(self, origin: Origin) -> AbstractContextManager[Writer]:
        """The writer of an output that cannot be resumed."""
        return open_writer(self.path, self.format, origin)

    def of_shard(self, shard: Shard) -> "Output":
        """The output of a shard, with file names of its own. Raises UsageError."""
        if self.path is None or self.format != "jsonl":
            raise UsageError(
                "`shard` needs `output` with a .jsonl file; `timesformer merge` converts all shards to other formats"
            )
        logits = None if self.logits is None else shard.output(self.logits)
        # If there is any video, the first shard has one; there may be more shards than videos.
        return replace(self, path=shard.output(self.path), logits=logits, may_be_empty=shard.index > 1)
