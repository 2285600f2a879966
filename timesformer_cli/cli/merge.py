"""`timesformer merge`: one output from those of all shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from timesformer_cli.cli import console
from timesformer_cli.cli.options import Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.output import FORMAT_HELP, FormatName, chosen_format
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.results.shards import Shards

HELP = """Merge the outputs of `predict --shard`, or those of `embed --shard`, into the output of a single run.

All shards are needed, and all must be finished. The result can have any format, so that merge also converts the \
output of a single run to another format.
"""

MergedName = Literal[FormatName, "npz", "npy"]


@bundled
def merge(
    *,
    shards: Annotated[
        list[Path],
        typer.Argument(
            metavar="SHARD...",
            show_default=False,
            help="Outputs of all shards (.jsonl, or files of vectors), in any order.",
        ),
    ],
    format: Annotated[
        MergedName,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help=f"{FORMAT_HELP} Vectors: parquet, npz, npy, jsonl or csv."
        ),
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
    from timesformer_cli.results.journal import finishing, write_final
    from timesformer_cli.results.shards import open_shards
    from timesformer_cli.results.writers import open_writer, too_large_to_open

    if output == Path("-"):
        output = None
    if output is not None:
        if any(output.exists() and shard.exists() and output.samefile(shard) for shard in shards):
            raise UsageError(f"{output}: is one of the shards; name another file")
        check_target(output, overwrite=overwrite)
    opened = open_shards(shards)
    if opened.provenance.of_vectors:
        _merge_vectors(opened, output, format, overwrite=overwrite)
        return
    if format in ("npz", "npy"):
        raise UsageError(f"--format {format} is only for vectors, and {shards[0]} holds labels")
    chosen = chosen_format(cast("FormatName", format), output)
    if chosen == "parquet":
        check_pyarrow()
    if chosen in ("srt", "vtt") and opened.holds.videos != 1:
        raise UsageError(f"{chosen}: subtitles are for one video, and there are {opened.holds.videos}")
    if output is None:
        with open_writer(None, chosen, opened.provenance.origin) as writer:
            for record in opened.records():
                writer.write(record)
    else:
        with locked(output), finishing(output, opened.provenance, opened.holds):
            write_final(output, chosen, opened.provenance, opened.records())
        if (warning := too_large_to_open(output, chosen, output.stat().st_size)) is not None:
            console.note(warning)
    _tell(opened)


def _tell(opened: "Shards") -> None:
    failed = f", {opened.holds.failed:,} of them failed" if opened.holds.failed else ""
    console.note(f"{opened.holds.videos:,} videos{failed}")


def _merge_vectors(opened: "Shards", output: Path | None, format: MergedName, *, overwrite: bool) -> None:
    """Write the vectors of all shards. Raises UsageError, InputError and OutputError."""
    from timesformer_cli.files import locked
    from timesformer_cli.jobs.output import Output
    from timesformer_cli.results.journal import finishing
    from timesformer_cli.results.vectors.merging import merged_rows
    from timesformer_cli.results.vectors.rows import VECTOR_FORMATS, vector_format
    from timesformer_cli.results.vectors.writing import save_vectors

    if output is None:
        raise UsageError("vectors are merged into a file; name it with --output")
    chosen = vector_format(output) if format == "auto" else next((f for f in VECTOR_FORMATS if f == format), None)
    if chosen is None:
        raise UsageError(f"--format {format} does not hold vectors; use one of {', '.join(VECTOR_FORMATS)}")
    Output(path=output, format=chosen, vectors=True, overwrite=overwrite).check()
    with locked(output), finishing(output, opened.provenance, opened.holds):
        save_vectors(output, merged_rows(opened), opened.provenance, format=chosen)
    _tell(opened)
