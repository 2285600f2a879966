"""How the network is trained after the probe: the settings of the methods `last`, `lora` and `full`."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.finetune.augment import Augment, Augmentation, Flip
from timesformer_cli.jobs.finetune.progress import EPOCHS, Budget, epochs_for

# probe: only a new head. The others go on from there: with the last layers, with a low-rank change of the attentions,
# or with the whole network.
Method = Literal["probe", "last", "lora", "full"]

Checkpointing = Literal["auto", "on", "off"]

_LAYERS, _RANK = 2, 8

# Without a number of epochs, training ends after so many validations without a better one.
_PATIENCE = 5

# What changes how long a run takes, but no step of it: a run may be resumed with other values.
_FREE = ("max_seconds", "checkpointing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What the user asked for; None is the default of the method.

    `layers` are those that `last` trains, and `rank` that of the change that `lora` trains. Training ends after
    `epochs`, or `patience` validations without a better one, or `max_seconds`. `batch_size` is that of the
    optimisation, `lr` the peak of the learning rate of the head, and `layer_decay` the share of it that each layer has
    of the one above.
    """

    method: Method = "probe"
    layers: int | None = None
    rank: int | None = None
    epochs: int | None = None
    max_seconds: float | None = None
    patience: int | None = None
    batch_size: int = 32
    lr: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    drop_path: float = 0.1
    augment: Augment | None = None
    flip: Flip = "auto"
    checkpointing: Checkpointing = "auto"

    def check(self, blocks: int) -> None:
        """Raise UsageError for settings of another method, or more layers than the network has, which is `blocks`."""
        others = {"layers": self.layers if self.method != "last" else None}
        others["rank"] = self.rank if self.method != "lora" else None
        if self.method == "probe":
            values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
            others = {name: value for name, (value, default) in values.items() if value != default}
        for name, value in others.items():
            if value is not None:
                needed = {"layers": "last", "rank": "lora"}.get(name, "full")
                raise UsageError(f"`{name}`: `method={self.method}` has no use for it; try `method={needed}`")
        if self.method == "last" and self.last_layers > blocks:
            raise UsageError(
                f"`layers={self.last_layers}`: the network has only {blocks}; train all with `method=full`"
            )

    @property
    def last_layers(self) -> int:
        return _LAYERS if self.layers is None else self.layers

    @property
    def change_rank(self) -> int:
        return _RANK if self.rank is None else self.rank

    @property
    def kind(self) -> Augment:
        """`last` sees the same views again and again, so that their tokens can be kept."""
        return self.augment or ("none" if self.method == "last" else "light")

    @property
    def asked_flip(self) -> Flip:
        """Flips are a part of the augmentation, unless they are asked for."""
        return "off" if self.kind == "none" and self.flip == "auto" else self.flip

    @property
    def from_tokens(self) -> bool:
        """Whether what enters the trained layers can be kept, as far as the settings tell."""
        return self.method == "last" and self.kind == "none" and self.asked_flip == "off"

    def augmentation(self, *, flip: bool) -> Augmentation:
        return Augmentation(kind=self.kind, flip=flip)

    def budget(self, steps: int) -> Budget:
        """For epochs of `steps` updates. A number of epochs that was asked for ends early only if that was, too."""
        patience = _PATIENCE if self.patience is None and self.epochs is None else self.patience
        epochs = epochs_for(self.epochs, steps)
        # Many epochs mean few videos: without this, most of the time would go by in validation, and patience would end
        # before the warm-up.
        every = 1 if self.epochs is not None else math.ceil(epochs / EPOCHS)
        return Budget(epochs=epochs, steps=steps, patience=patience, max_seconds=self.max_seconds, every=every)

    def settings(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        if self.method == "probe":
            return {"method": self.method}
        return {name: value for name, value in asdict(self).items() if name not in _FREE}
