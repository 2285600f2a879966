"""The folder of an exported model: metadata, companion files, checksums, and publishing under its final name."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors import SafetensorError

from timesformer_cli import files
from timesformer_cli.__about__ import __version__
from timesformer_cli.checkpoints import zoo
from timesformer_cli.checkpoints.folder import save_recipe
from timesformer_cli.errors import OutputError
from timesformer_cli.files import checksum, put_folder
from timesformer_cli.jobs.export import readme
from timesformer_cli.jobs.export.spec import MODEL_FILES, WEIGHTS_OF_ONNX, WEIGHTS_OF_OPENVINO, ExportSpec
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import printable

VERIFICATION = "verification.json"
SUMS = "SHA256SUMS"

MODEL_NAMES = {*MODEL_FILES.values(), WEIGHTS_OF_ONNX, WEIGHTS_OF_OPENVINO}


def metadata(checkpoint: Checkpoint, spec: ExportSpec) -> dict[str, str]:
    """Metadata for the model file, so that it works without its folder. Values other than text are JSON."""
    preprocess = checkpoint.preprocess
    entry = zoo.find(checkpoint.name)
    assert checkpoint.weights is not None
    return {
        "task": "video-classification",
        "name": printable(checkpoint.name),
        "source": printable(checkpoint.source),
        "source_sha256": checksum([checkpoint.weights]),
        "licence": entry.licence if entry else "unknown: see the model it was exported from",
        "timesformer_cli": __version__,
        "precision": spec.kind,
        "input": spec.input,
        "output": spec.output,
        "activation": checkpoint.activation,
        "layout": "BTCHW" if spec.input == "frames" else "BTHWC",
        "labels": json.dumps(checkpoint.labels),
        "num_frames": str(checkpoint.sampling.num_frames),
        "image_size": json.dumps(preprocess.size),
        "mean": json.dumps(preprocess.mean),
        "std": json.dumps(preprocess.std),
        "channel_order": preprocess.channel_order,
        "config": json.dumps(checkpoint.config.to_dict()),
        "recipe": json.dumps(checkpoint.recipe.to_dict()),
        "dataset": checkpoint.dataset or "",
    }


def write_companions(folder: Path, checkpoint: Checkpoint, spec: ExportSpec, stated: Mapping[str, str]) -> None:
    """Write the files beside the model, except its verification and the checksums."""
    if spec.format != "hub":  # transformers has written its own
        checkpoint.config.save_pretrained(folder)
    save_recipe(folder, checkpoint.recipe)
    labels = "".join(" ".join(label.splitlines()) + "\n" for label in checkpoint.labels)
    for name, text in (("labels.txt", labels), ("README.md", readme.render(checkpoint, spec, stated))):
        (folder / name).write_bytes(text.encode("utf-8", "backslashreplace"))


def write_sums(folder: Path) -> None:
    """Write the checksums of all files, in the format of sha256sum."""
    lines = [f"{checksum([path])}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def changed_files(folder: Path) -> list[str]:
    """The names of files that changed since they were written, or are missing."""
    return [
        name
        for name, digest in _sums(folder).items()
        if not (folder / name).is_file() or checksum([folder / name]) != digest
    ]


def _sums(folder: Path) -> dict[str, str]:
    """The checksums by file name; empty if there are none."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.partition("  ") for line in lines)
    # Names with a folder in them were not written here.
    return {name: digest for digest, _, name in pairs if name and Path(name).name == name}


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError unless `folder` can be created, or with `overwrite` replaced without losing other files."""
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: the folder {folder.parent} does not exist; make it first")
    if not os.access(folder.parent, os.W_OK):
        raise OutputError(f"{folder.parent}: cannot be written (permission denied)")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"{folder}: is a file; choose another name")
    there = sorted(os.listdir(folder))
    if not there:
        return
    if not overwrite:
        raise OutputError(f"{folder}: already exists; choose another name, or `overwrite`")
    known = {SUMS, *_sums(folder)}
    foreign = [name for name in there if name not in known or not (folder / name).is_file()]
    if foreign or SUMS not in there:
        raise OutputError(
            f"{folder}: holds {(foreign or there)[0]!r}, which is not from an export; choose another name"
        )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write to; removed at the end unless `publish` renamed it.

    Raises:
        OutputError: the folder cannot be created.
    """
    with ExitStack() as stack:
        with told(folder):
            staging = stack.enter_context(files.staged(folder))
        yield staging


def publish(staging: Path, folder: Path) -> None:
    """Rename the staging folder to `folder`, replacing an earlier export. Raises OutputError."""
    with told(folder):
        put_folder(staging, folder)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Errors inside become an OutputError about `folder`; C++ libraries raise RuntimeError for a full disk."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300]
        raise OutputError(f"{folder}: cannot be written ({reason})") from error
