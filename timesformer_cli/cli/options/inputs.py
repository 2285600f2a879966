"""Which videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timesformer_cli.cli.options import RUN
from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.jobs.videos import Videos
    from timesformer_cli.results.settings import Shard

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help=(
            "Video files; folders, searched recursively by video file extension (hidden ones are skipped); quoted "
            "globs such as 'clips/**/*.mp4'; or - to read one path per line from standard input. Write -- before names "
            "that begin with a dash."
        ),
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Process only the first N videos.", rich_help_panel=RUN),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files, folders, globs, addresses, and lists of them."""

    inputs: Sources = None
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from-file",
            metavar="LIST",
            help="Text file of more inputs, one path per line; lines that begin with # are comments.",
        ),
    ] = None

    @property
    def sources(self) -> list[str]:
        return self.inputs or []

    @property
    def lists(self) -> list[Path]:
        return [] if self.from_file is None else [self.from_file]

    def require(self, verb: str) -> None:
        """Raises UsageError if there is no input to `verb`."""
        if not self.sources and not self.lists:
            raise UsageError(
                f"nothing to {verb}: name videos, folders or --from-file; see timesformer "
                f"{'predict' if verb == 'label' else verb} --help"
            )

    def find(self, *, frames: bool = False, limit: int | None = None, shard: "Shard | None" = None) -> "Videos":
        """Raises InputError."""
        from timesformer_cli.jobs.videos import Videos

        return Videos.find(self.sources, self.lists, frames=frames, limit=limit, shard=shard)
