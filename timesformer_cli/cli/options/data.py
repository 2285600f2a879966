"""Videos with labels: their folder, and the file of their labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from timesformer_cli.cli import console
from timesformer_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from timesformer_cli.datasets import Dataset, DatasetFormat

DATA = "Dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A labelled dataset."""

    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="Folder of the videos; without --annotations, the names of its subfolders are the labels.",
        ),
    ] = None
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            metavar="FILE",
            help="File with the label of each video, in any common format.",
            rich_help_panel=DATA,
        ),
    ] = None
    annotations_format: Annotated[
        str,
        typer.Option(
            "--annotations-format",
            metavar="FORMAT",
            help="Format of --annotations, if it cannot be detected from the content.",
            rich_help_panel=DATA,
        ),
    ] = "auto"
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--label-map",
            metavar="FILE",
            help="File with class names for the numbers in --annotations, if the model numbers them differently.",
            rich_help_panel=DATA,
        ),
    ] = None
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse to start if a video of the dataset is missing.", rich_help_panel=DATA),
    ] = False

    @property
    def is_missing(self) -> bool:
        return self.root is None and self.annotations is None

    @property
    def format(self) -> "DatasetFormat | Literal['auto']":
        """The format of the annotations, as `open_dataset` takes it, which checks it."""
        return cast("DatasetFormat", self.annotations_format)

    @property
    def settings(self) -> dict[str, str | None]:
        """The paths, as settings record them."""
        asked = {"root": self.root, "annotations": self.annotations, "label_map": self.label_map}
        return {name: None if path is None else str(path) for name, path in asked.items()}

    def check(self, command: str) -> None:
        """Raises UsageError if there is no dataset."""
        if self.is_missing:
            raise UsageError(
                f"no dataset: name the folder of its videos, or --annotations; see timesformer {command} --help"
            )

    def tell_problems(self, dataset: "Dataset") -> None:
        """Print one line for each kind of problem.

        Raises:
            InputError: with --strict, videos are missing.
        """
        from timesformer_cli.datasets import by_kind

        found = by_kind(dataset.problems)
        missing = [*found.get("missing", ()), *found.get("ambiguous", ())]
        if self.strict and missing:
            raise InputError(
                f"--strict: {len(missing):,} of {dataset.rows:,} videos are missing; the first: {missing[0]}"
            )
        for kind, problems in found.items():
            console.note(f"{len(problems):,} {kind}, the first: {problems[0]}")
