"""What the training of the network begins with: plain facts, which all processes of a run share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Item
from timesformer_cli.jobs.finetune.flips import Decision
from timesformer_cli.jobs.finetune.head import Head
from timesformer_cli.jobs.finetune.model_folder import described, network_of
from timesformer_cli.jobs.finetune.tokens import Tokens
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.specs import Checkpoint

Targets = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Start:
    """What training begins with.

    `base` is the checkpoint of the network, and `head` that of the probe for the classes `names`. `training` are the N
    videos to train on and `measured` the M to measure on, with their `targets` and `measured_targets`: int64, class
    numbers, or, with several labels each, bool (., K). `flips` says whether views are mirrored. With `balance`, every
    class weighs the same. `seed` is that of all that is random. `tokens` are those that enter the trained layers, of
    all videos, if they are kept on disk.
    """

    base: Checkpoint
    names: tuple[str, ...]
    head: Head
    training: Sequence[Item]
    targets: Targets
    measured: Sequence[Item]
    measured_targets: Targets
    flips: Decision
    balance: bool
    seed: int
    tokens: Tokens | None = None

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    def network(self, tell: Callable[[str], None]) -> TimesformerForVideoClassification:
        """The network with the head of the probe. Raises CheckpointError."""
        return network_of(self.base, self.names, self.head, multi_label=self.multi_label, tell=tell)

    @property
    def checkpoint(self) -> Checkpoint:
        """The new model, but for its weights."""
        config, recipe = described(self.base, self.names, multi_label=self.multi_label)
        return replace(self.base, config=config, recipe=recipe, labels=self.names)
