"""Training and validation from tokens on disk instead of videos."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune.batches import ALL, Schedule, Share, turn_of
from timesformer_cli.jobs.finetune.frozen import TokenTrainee
from timesformer_cli.jobs.finetune.tokens import Tokens
from timesformer_cli.jobs.finetune.trainer import Batch
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.specs import Recipe

# Views that are scored at a time.
_VIEWS = 4


def token_batches(
    tokens: Tokens,
    items: Sequence[Item],
    targets: NDArray[np.int64] | NDArray[np.float32],
    schedule: Schedule,
    epoch: int,
    skip: int = 0,
    *,
    weights: NDArray[np.float32] | None = None,
    share: Share = ALL,
) -> Iterator[Batch]:
    """The batches of an epoch, from 1, but for the first `skip`, with the views of `read_batches` without augmentation.

    `items` are the videos that `schedule` counts, `targets` int64 (N,) or float32 (N, K) and `weights` float32 (N,) as
    in `Batch`. Videos without tokens are left out, and nothing replaces them: a batch may be empty. `total` counts all
    videos of the step, on all machines.

    Raises:
        OutputError: the tokens cannot be read.
    """
    start = (epoch - 1) * schedule.steps_per_epoch
    for _, places in schedule.steps(range(start + skip, start + schedule.steps_per_epoch)):
        own = [place for place in places[share.rank :: share.of].tolist() if tokens.views_of(items[place])]
        pixels = np.empty((len(own), *tokens.shape), np.float16)
        for row, place in zip(pixels, own, strict=True):
            item = items[place]
            row[:] = tokens.read(item, turn_of(schedule.seed, epoch - 1, item.key) % tokens.views_of(item))
        yield Batch(
            torch.from_numpy(pixels),
            torch.from_numpy(targets[own]),
            [items[place].key for place in own],
            None if weights is None else torch.from_numpy(weights[own]),
            len(places),
        )


class Scores(NamedTuple):
    """The scores of M videos, `places` int64 (M,) of those that were asked for.

    `logits` float32 (M, K) are means over the views. `combined` float32 (M, K) are the scores by the recipe.
    """

    places: NDArray[np.int64]
    logits: NDArray[np.float32]
    combined: NDArray[np.float32]


@torch.no_grad()
def score_tokens(trainee: TokenTrainee, tokens: Tokens, items: Sequence[Item], recipe: Recipe) -> Scores:
    """The scores of `items`, but for those without tokens, by a trainee in eval mode: of all their views.

    Raises:
        OutputError: the tokens cannot be read.
    """
    assert not trainee.training
    places = [place for place, item in enumerate(items) if tokens.views_of(item)]
    views = [(items[place], view) for place in places for view in range(tokens.views_of(items[place]))]
    logits = np.empty((len(views), trainee.model.config.num_labels), np.float32)
    device = trainee.model.classifier.weight.device
    for start in range(0, len(views), _VIEWS):
        part = slice(start, start + _VIEWS)
        stacked = np.stack([tokens.read(item, view) for item, view in views[part]])
        logits[part] = trainee(torch.from_numpy(stacked).to(device)).float().cpu().numpy()
    ends = np.cumsum([tokens.views_of(items[place]) for place in places])[:-1]
    each = np.split(logits, ends) if places else []
    empty = logits[:0]
    return Scores(
        np.array(places, np.int64),
        np.stack([combine(rows, "raw_logits") for rows in each]) if each else empty,
        np.stack([combine(rows, recipe.combine, recipe.activation) for rows in each]) if each else empty,
    )
