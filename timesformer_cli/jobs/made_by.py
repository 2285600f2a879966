"""The model that made a file of vectors, opened again."""

from collections.abc import Callable
from dataclasses import replace

from timesformer_cli.checkpoints.folder import weight_checksums
from timesformer_cli.errors import CheckpointError, InputError
from timesformer_cli.results.vectors.reading import VectorFile
from timesformer_cli.specs import Checkpoint, Recipe


def model_of(file: VectorFile, model: str | None, resolve: Callable[[str], Checkpoint]) -> Checkpoint:
    """The model that made `file`, with the recipe of that run. A model without its weights is not compared.

    `resolve` opens a model by name: `model`, or if that is None, the name in the file.

    Raises:
        CheckpointError: it is not there, or has different weights.
        InputError: the file does not state the recipe.
    """
    made = file.provenance
    try:
        checkpoint = resolve(made.model if model is None else model)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} ({file.path} was made with this model; `model` says where it is now)"
        ) from error
    if checkpoint.weights is not None and weight_checksums(checkpoint.weights) != dict(made.weights or {}):
        raise CheckpointError(
            f"{checkpoint.name}: its weights are not those that made {file.path} (with {made.model}), and vectors of "
            "two models cannot be compared; give that model with `model`, or make the file again"
        )
    if not isinstance(made.recipe, Recipe):
        raise InputError(f"{file.path}: does not state how its videos were sampled; make it with `timesformer embed`")
    return replace(checkpoint, recipe=made.recipe)
