"""Calibrate a model on a labelled dataset that it was not trained on: its scores then say how often it is right."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.folder import MODEL_OF_RUN
from timesformer_cli.datasets import Dataset, Sample
from timesformer_cli.errors import InputError, OutputError, UsageError
from timesformer_cli.evaluation import calibration_file
from timesformer_cli.evaluation.calibration import Calibration, Targets, calibrate, require_enough
from timesformer_cli.evaluation.run import Run
from timesformer_cli.files import told
from timesformer_cli.flow import WHOLE, Part, overlap
from timesformer_cli.jobs.finetune import groups
from timesformer_cli.jobs.finetune.data import targets_of
from timesformer_cli.jobs.finetune.folder import DATA
from timesformer_cli.jobs.finetune.model_folder import README, licence_of, require_room
from timesformer_cli.runtimes import require_network
from timesformer_cli.specs import Checkpoint, Recipe
from timesformer_cli.text import named
from timesformer_cli.video.addresses import is_address, local_path

if TYPE_CHECKING:
    from timesformer_cli.network.model import TimesformerForVideoClassification


def refusal(recipe: Recipe) -> str | None:
    """Why the scores of a recipe cannot be calibrated; None if they can."""
    if recipe.activation == "none":
        return "its scores are amounts and not probabilities"
    if recipe.combine != "logits":
        return "only scores of mean logits can be calibrated; evaluate it with `settings=combine=logits`"
    return None


def check(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Check, before any work is done, that the model can be calibrated with these videos.

    Raises:
        UsageError: an exported model, or scores that cannot be calibrated.
        InputError: too few videos, all of one class, or some that the model was trained on.
    """
    require_network(checkpoint, instead="calibrate the model it came from, and export it again")
    if reason := refusal(checkpoint.recipe):
        raise UsageError(f"`calibrate`: {checkpoint.name}: {reason}")
    if dataset.multi_label and checkpoint.activation == "softmax":
        raise UsageError(
            f"`calibrate`: these videos have several labels each, and {checkpoint.name} gives scores for one"
        )
    members = targets_of(dataset.samples, len(dataset.names), multi_label=checkpoint.activation == "sigmoid")
    require_enough(members, len(dataset.samples))
    trained = _trained_on(checkpoint)
    for sample in dataset.samples:
        for path, part in trained.get(_place(sample.path), ()):
            if overlap(part, sample.part):
                raise InputError(
                    f"{named(sample.path, *sample.part)}: {checkpoint.name} was trained on it ({path}), so it cannot "
                    "tell how often answers are right; leave out the videos of its training"
                )


def _data_file(checkpoint: Checkpoint) -> Path | None:
    """The table of the videos that a model was trained with, beside its weights or in the folder of its run."""
    if checkpoint.weights is None:
        return None
    folder = checkpoint.weights.parent
    found = [folder / DATA] + ([folder.parent / DATA] if folder.name == MODEL_OF_RUN else [])
    return next((path for path in found if path.is_file()), None)


def _trained_on(checkpoint: Checkpoint) -> dict[str, list[tuple[str, Part]]]:
    """The videos that the model was trained on: by their place, where the table has them and which part.

    Raises InputError if the table cannot be read.
    """
    path = _data_file(checkpoint)
    found: dict[str, list[tuple[str, Part]]] = {}
    if path is None:
        return found
    with told(path, "read", InputError), path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("split") == "train" and row.get("used") == "1" and row.get("path"):
                times = (float(row[name]) if row.get(name) else None for name in ("start", "end"))
                start, end = times
                found.setdefault(_place(row["path"]), []).append((f"{path}, {row['path']}", (start, end)))
    return found


def _place(path: str) -> str:
    """Equal for paths of one file."""
    return path if is_address(path) else os.path.realpath(local_path(path))


def of_run(run: Run, samples: Sequence[Sample], group_by: str) -> tuple[Calibration, str]:
    """The calibration of a run on `samples`, and the rule by which their sources were found.

    Raises:
        UsageError: an impossible way to group videos.
        InputError: videos that do not suffice.
    """
    paths = [sample.path for sample in samples]
    labels, about = [sample.labels for sample in samples], [sample.about for sample in samples]
    grouping = groups.group(paths, labels, about, by=group_by, classes=run.labels)
    if group_by != "none":
        grouping = groups.join(grouping, paths, groups.same_content(paths))
    of_key = {sample.key: name for sample, name in zip(samples, grouping.groups, strict=True)}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(grouping.groups))}
    sources = np.array([numbers[of_key[key]] for key in run.keys], np.int64)
    targets: Targets = run.classes if run.activation == "softmax" else run.memberships[:]
    return calibrate(run.scores["logits"][:], targets, sources), grouping.rule


def write(folder: Path, checkpoint: Checkpoint, run: Run, found: Calibration, figures: dict[str, Any]) -> None:
    """Write the calibrated model to `folder`: the network of `checkpoint` with its head divided.

    Raises:
        CheckpointError: the weights cannot be read.
        OutputError: the folder cannot be written.
    """
    from timesformer_cli.network.model import TimesformerForVideoClassification

    network = TimesformerForVideoClassification.from_checkpoint(checkpoint)
    divide(network, found.temperatures)
    require_room(folder, network)
    with told(folder):
        network.save_pretrained(folder)
    data = _data_file(checkpoint)
    with told(folder):
        if data is not None:  # so that nobody calibrates or measures this model on these videos
            copyfile(data, folder / DATA)
        (folder / README).write_text(_card(checkpoint, figures), encoding="utf-8", errors="backslashreplace")
    about = {
        "model": run.name,
        "weights_before": dict(run.provenance.weights or {}),
        **figures,
        "samples_sha256": run.data_set["samples_sha256"],
        "annotations_sha256": run.data_set.get("annotations_sha256"),
    }
    whole = not run.parts or WHOLE in run.parts
    calibration_file.write(folder, found, about, checkpoint.recipe, whole_videos=whole)


def divide(network: "TimesformerForVideoClassification", temperatures: NDArray[np.float64]) -> None:
    """Divide the head of the network by the temperatures, (1,) or (K,): its logits are divided then."""
    import torch

    head = network.classifier
    by = torch.from_numpy(temperatures).to(head.weight.device)
    # New tensors: those of an opened network may be a mapped file.
    weight, bias = head.weight.detach().double() / by[:, None], head.bias.detach().double() / by
    head.weight, head.bias = (torch.nn.Parameter(each.to(head.weight.dtype)) for each in (weight, bias))


def _card(checkpoint: Checkpoint, figures: dict[str, Any]) -> str:
    """The model card: that of the model before, if it has one, and what was done to it."""
    path = None if checkpoint.weights is None else checkpoint.weights.parent / README
    if path is not None and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace").rstrip()
    else:
        licence = licence_of(checkpoint)
        text = f"---\nlicense: {licence.lower() if licence else 'other'}\n---\n\n# {checkpoint.name}, calibrated"
    losses = figures["log_loss"]
    return (
        f"{text}\n\n## Calibration\n\nThe head was divided by a temperature that was fitted to {figures['videos']:,} "
        f"videos of {figures['sources']:,} sources: the log loss went from {losses['before']['value']:.4f} to "
        f"{losses['after']['value']:.4f}. `{calibration_file.FILE}` has all numbers.\n"
    )


def of_scores(
    logits: NDArray[np.float32], targets: Targets, sources: NDArray[np.int64], recipe: Recipe
) -> Calibration | str:
    """The calibration of a new model, from scores of videos that it did not learn from; or why there is none."""
    if reason := refusal(recipe):
        return reason
    try:
        return calibrate(logits, targets, sources, careful=True)
    except InputError as error:
        return str(error)


def refuse_own_folder(checkpoint: Checkpoint, folder: Path | None) -> None:
    """Raises OutputError if a run in `folder` would replace the model that it runs."""
    if folder is None or checkpoint.weights is None:
        return
    if os.path.realpath(checkpoint.weights.parent) == os.path.realpath(folder / MODEL_OF_RUN):
        raise OutputError(f"{folder}: holds the model that is evaluated; name another folder")
