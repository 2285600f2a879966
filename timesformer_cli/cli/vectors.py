"""A file of vectors instead of a folder of videos."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer_cli.errors import UsageError

if TYPE_CHECKING:
    from timesformer_cli.jobs.finetune.stored import Stored


def are_vectors(path: Path | None) -> bool:
    """Whether a path names a file of vectors, by its extension."""
    from timesformer_cli.results.vectors.rows import VECTOR_FORMATS

    return path is not None and path.suffix.lower().removeprefix(".") in VECTOR_FORMATS and not path.is_dir()


def open_stored(path: Path) -> "Stored":
    """The vectors for a new head.

    Raises:
        UsageError: the head of a model does not read vectors of this kind.
        InputError: the file cannot be read, or has no vectors.
    """
    from timesformer_cli.jobs.finetune.stored import stored_in
    from timesformer_cli.results.vectors.reading import open_vectors

    file = open_vectors(path)
    stored = stored_in(file)
    kind = file.kind
    faults = [
        *([f"--feature {kind.feature}"] if kind.feature != "cls" else []),
        *(["--normalize"] if kind.normalized else []),
        *([f"--dtype {kind.dtype}"] if kind.dtype != "float32" else []),
    ]
    if faults:
        raise UsageError(
            f"{path}: was made with {' '.join(faults)}, and a head is trained on class tokens as they are; make them "
            f"with `{_embed(stored)}`"
        )
    return stored


def _embed(stored: "Stored") -> str:
    """The command that makes the vectors of the same videos for a head."""
    path, made = stored.file.path, stored.provenance
    words = ["timesformer", "embed", _folder(stored.paths), "--model", made.model]
    if made.timeline is not None:
        words += ["--timeline", "--window", f"{made.timeline.length:g}"]
        words += [] if made.timeline.hop is None else ["--hop", f"{made.timeline.hop:g}"]
    words += [f"--set={change}" for change in getattr(made.recipe, "changed", ())]
    return shlex.join([*words, "-o", str(path.with_name(f"{path.stem}-cls{path.suffix}"))])


def _folder(paths: list[str]) -> str:
    """The folder of all these videos, or else a word for them."""
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # some are absolute, and some are not
        folder = ""
    return folder if os.path.isdir(folder) else "VIDEOS"
