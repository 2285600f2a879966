"""Where the results of `timesformer predict` go: checked before any work, continued where that was asked for."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.results.journal import Ledger
    from timesformer_cli.results.settings import Settings
    from timesformer_cli.results.shards import Shard
    from timesformer_cli.results.writers import Format, Writer
    from timesformer_cli.specs import Checkpoint

_WAYS = "`resume` or `overwrite`"  # with a file that exists


@dataclass(frozen=True, kw_only=True)
class Output:
    """A file, or standard output if `path` is None; `logits` is a file for those of all classes.

    It `may_be_empty` if it is right that there is no video for it.
    """

    path: Path | None
    format: "Format"
    logits: Path | None
    overwrite: bool
    resume: bool
    retry_errors: bool
    may_be_empty: bool = False

    def check(self) -> None:
        """Find out what is wrong with it. Raises UsageError and OutputError."""
        from timesformer_cli.files import check_target
        from timesformer_cli.results.formats.parquet import check_pyarrow
        from timesformer_cli.results.journal import check_journal, is_durable
        from timesformer_cli.results.logits import check_logits_target

        durable = self.path is not None and is_durable(self.path, self.format)
        if self.retry_errors and not self.resume:
            raise UsageError("`retry_errors` goes with `resume`")
        if self.resume and self.overwrite:
            raise UsageError("`resume` and `overwrite` exclude each other")
        if self.resume and not durable:
            raise UsageError("`resume` needs `output` with a file that is no table")
        if self.format == "parquet":
            check_pyarrow()
        if self.logits is not None:
            if not durable:
                raise UsageError("`save_logits` goes with `output`, a file that is no table")
            check_logits_target(self.logits)
            if self.path is not None and self.logits.resolve() == self.path.resolve():
                raise UsageError(f"{self.logits}: is `output` already; name another file for `save_logits`")
            check_target(self.logits, overwrite=self.overwrite or self.resume, ways=_WAYS)
        if self.path is None:
            if self.format == "parquet":
                raise UsageError("Parquet cannot be written to standard output; name a file with `output`")
            return
        check_target(self.path, overwrite=self.overwrite or self.resume, ways=_WAYS)
        if durable and not (self.overwrite or self.resume):
            check_journal(self.path, self.format, logits=self.logits is not None)

    def lock(self) -> AbstractContextManager[object]:
        """Keeps other runs from the file. Raises OutputError where one has it already."""
        from timesformer_cli.files import locked
        from timesformer_cli.results.journal import is_durable

        if self.path is not None and is_durable(self.path, self.format) and self.path.parent.is_dir():
            return locked(self.path)
        return ExitStack()

    def open_ledger(self, settings: "Settings") -> "Ledger | None":
        """What is on disk already, and what is to be added; None for what cannot be continued. Raises OutputError."""
        from timesformer_cli.results.journal import Ledger, is_durable

        if self.path is None or not is_durable(self.path, self.format):
            return None
        ledger = Ledger(self.path, self.format, settings, self.logits, may_be_empty=self.may_be_empty)
        if self.resume:
            ledger.resume(retry_errors=self.retry_errors)
        return ledger

    def open_writer(self, checkpoint: "Checkpoint") -> "AbstractContextManager[Writer]":
        """For what cannot be continued."""
        from timesformer_cli.results.record import origin_of
        from timesformer_cli.results.writers import open_writer

        return open_writer(self.path, self.format, origin_of(checkpoint))

    def of_shard(self, shard: "Shard") -> "Output":
        """The same under names of its own. Raises UsageError."""
        if self.path is None or self.format != "jsonl":
            raise UsageError(
                "`shard` needs `output` with a .jsonl file; `timesformer merge` makes other formats of all shards"
            )
        logits = None if self.logits is None else shard.output(self.logits)
        # If there is any video, the first shard has one; the others may be more than there are videos.
        return replace(self, path=shard.output(self.path), logits=logits, may_be_empty=shard.index > 1)
