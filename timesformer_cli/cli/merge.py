"""`timesformer merge`: one output from those of all shards."""

from pathlib import Path
from typing import Annotated

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.output import FORMAT_HELP, FormatName, chosen_format
from timesformer_cli.errors import UsageError

HELP = """Merge the outputs of `predict --shard` into the output that a single run would have written.

All shards are needed, and all must be finished. The result can have any format, so that merge also converts the \
output of a single run to another format.
"""


@bundled
def merge(
    *,
    shards: Annotated[
        list[Path],
        typer.Argument(metavar="SHARD...", show_default=False, help="Outputs of all shards (.jsonl), in any order."),
    ],
    format: Annotated[
        FormatName,
        typer.Option("--format", "-f", metavar="FORMAT", help=FORMAT_HELP),
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Write the results to this file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output if it exists.")] = False,
    talk: Talk,
) -> None:
    talk.choose()

    from timesformer_cli.files import check_target, locked
    from timesformer_cli.results.formats.parquet import check_pyarrow
    from timesformer_cli.results.journal import write_finished
    from timesformer_cli.results.shards import open_shards
    from timesformer_cli.results.writers import open_writer, too_large_to_open

    if output == Path("-"):
        output = None
    chosen = chosen_format(format, output)
    if chosen == "parquet":
        check_pyarrow()
    if output is not None:
        if any(output.exists() and shard.exists() and output.samefile(shard) for shard in shards):
            raise UsageError(f"{output}: is one of the shards; name another file")
        check_target(output, overwrite=overwrite)
    opened = open_shards(shards)
    if chosen in ("srt", "vtt") and opened.holds.videos != 1:
        raise UsageError(f"{chosen}: subtitles are for one video, and there are {opened.holds.videos}")
    if output is None:
        with open_writer(None, chosen, opened.provenance.origin) as writer:
            for record in opened.records():
                writer.write(record)
    else:
        with locked(output):
            write_finished(output, chosen, opened.provenance, opened.records(), opened.holds)
        if (warning := too_large_to_open(output, chosen, output.stat().st_size)) is not None:
            console.note(warning)
    failed = f", {opened.holds.failed:,} of them failed" if opened.holds.failed else ""
    console.note(f"{opened.holds.videos:,} videos{failed}")
