"""One step of the optimisation: a batch, in micro-batches that fit into memory, to an update of the weights."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer_cli.errors import DeviceError
from timesformer_cli.jobs.benchmark.rounds import peak
from timesformer_cli.jobs.finetune.optimisers import factor, set_rate
from timesformer_cli.jobs.finetune.parallel import ALONE, World
from timesformer_cli.jobs.finetune.randomness import drop_path_draws
from timesformer_cli.jobs.finetune.tuning import Checkpointing
from timesformer_cli.network.model import Layer, SelfAttention, TimesformerForVideoClassification
from timesformer_cli.runtimes.pytorch import is_out_of_memory

# The norm that a larger gradient is scaled down to.
_CLIP = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The samples of one step, or of several processes' step those of this one, which may be none.

    `pixels` float32 (B, T, C, H, W), normalised; `targets` int64 (B,), class numbers, or float32 (B, K), a share for
    each class. `keys` names the samples, for random numbers and messages. The loss of the step is the sum of the
    samples' losses times `weights`, float32 (B,), divided by `total`: by default their mean. With several processes,
    `total` is that of all of them, and not optional.
    """

    pixels: Tensor
    targets: Tensor
    keys: Sequence[str]
    weights: Tensor | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step did. Epochs and steps count from 1; `gradient` is the norm before it is clipped.

    `suspects`: the samples of a step that was not applied, since its loss or gradient is not finite; those of them
    whose own loss is not, if there are any. `memory`: the peak in bytes, None if unknown.
    """

    epoch: int
    step: int
    loss: float
    rate: float
    gradient: float
    seconds: float
    memory: int | None
    suspects: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A line of the log; numbers that are not finite are None."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "loss": _finite(self.loss),
            "rate": self.rate,
            "gradient": _finite(self.gradient),
            "applied": not self.suspects,
            "seconds": round(self.seconds, 4),
            "memory": self.memory,
        }


class _Share(NamedTuple):
    """What a process found in a step: the sum of its losses, the norm of the whole gradient, and its samples.

    `bad` are those of the samples `keys` whose own loss is not finite.
    """

    loss: float
    gradient: float
    bad: list[str]
    keys: list[str]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def is_trained(part: nn.Module) -> bool:
    """Whether any parameter of a part of a network is trained."""
    return any(parameter.requires_grad for parameter in part.parameters())


class Trainee(nn.Module):
    """The network as it is trained: with `bf16` it computes in bfloat16, but for its head; weights are as they were.

    Drop path grows from 0 in the first layer that is trained to `drop_path` in the last. Other dropout is off: it would
    depend on the micro-batch.
    """

    def __init__(self, model: TimesformerForVideoClassification, *, drop_path: float = 0.0, bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self._bf16 = bf16
        layers = [cast("Layer", layer) for layer in model.timesformer.encoder.layer]
        trained = [layer for layer in layers if is_trained(layer)]
        for layer in layers:
            layer.drop_path.p = 0.0
        for number, layer in enumerate(trained):
            layer.drop_path.p = drop_path * number / max(len(trained) - 1, 1)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
            elif isinstance(part, SelfAttention):
                part.dropout = 0.0

    def draws_shape(self, pixels: Tensor) -> tuple[int, int]:
        """The shape of the draws of a sample of `pixels` (B, T, C, H, W)."""
        return self.model.timesformer.drop_path_shape(pixels.shape[1], *pixels.shape[3:])

    def forward(self, pixels: Tensor, draws: Tensor | None = None) -> Tensor:
        """Logits (B, K) in the dtype of the weights; `draws` float32 (B, layers, rows) of `drop_path_draws`.

        Only training needs the draws.
        """
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self._bf16):
            tokens = self.encode(pixels, draws)[:, 0]
        head = self.model.classifier
        return head(tokens.to(head.weight.dtype))  # type: ignore[no-any-return]

    def encode(self, pixels: Tensor, draws: Tensor | None) -> Tensor:
        """The normalised tokens of the last layer, the class token first."""
        return self.model.timesformer(pixels, drop_path_draws=draws).last_hidden_state  # type: ignore[no-any-return]


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample, (B,): cross-entropy for class numbers, else the mean over the classes' own."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


class Trainer:
    """Takes steps with a network that is on its device, in training mode.

    It works on `micro_batch` samples at a time. If memory does not suffice, they become half as many; before it would
    be one, gradient checkpointing goes on if it is `auto`. The optimisation stays the same.

    The processes of `world` take each step together, with samples of their own: all of them make one, and call every
    method that takes a batch.
    """

    def __init__(
        self,
        trainee: Trainee,
        optimiser: torch.optim.Optimizer,
        *,
        steps: int,
        seed: int,
        micro_batch: int,
        checkpointing: Checkpointing = "auto",
        world: World = ALONE,
    ) -> None:
        self.trainee = trainee
        self.world = world
        self.optimiser = optimiser
        self.micro_batch = micro_batch
        # Whether a step is not accounted for yet; an interruption may then leave only some weights changed.
        self.updating = False
        self._steps = steps
        self._seed = seed
        self.may_checkpoint = checkpointing == "auto"
        self._parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self._device = self._parameters[0].device
        self._average = world.adder(self._parameters)
        self.checkpointing = checkpointing == "on"

    @property
    def peak_rate(self) -> float:
        """The rate of the head, at its highest."""
        return max(float(group["peak"]) for group in self.optimiser.param_groups)

    @property
    def checkpointing(self) -> bool:
        return self.trainee.model.timesformer.gradient_checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.trainee.model.timesformer.gradient_checkpointing = on

    def step(self, batch: Batch, epoch: int, number: int) -> Step:
        """Step `number` of the run, from 1, in an epoch, from 1.

        If the loss or the gradient is not finite, no weight changes. `updating` is True from the first change on; the
        caller sets it to False once the step is accounted for.

        Raises:
            DeviceError: the memory does not suffice for one sample.
        """
        begin = time.perf_counter()
        rate = set_rate(self.optimiser, factor(number - 1, self._steps))
        each = self.gradients(batch, epoch)
        own = float((each * _weights(batch).double()).sum())
        norm = float(nn.utils.clip_grad_norm_(self._parameters, _CLIP))
        bad = [key for key, good in zip(batch.keys, each.isfinite().tolist(), strict=True) if not good]
        shares = self.world.exchange(_Share(own, norm, bad, list(batch.keys)))
        # From the same numbers, all processes decide the same.
        loss, gradient = sum(share.loss for share in shares) / self._total(batch), shares[0].gradient
        suspects: tuple[str, ...] = ()
        self.updating = True
        if math.isfinite(loss) and math.isfinite(gradient):
            self.optimiser.step()
        else:
            suspects = _suspects(shares)
        self.optimiser.zero_grad()
        return Step(
            epoch=epoch,
            step=number,
            loss=loss,
            rate=rate,
            gradient=gradient,
            seconds=time.perf_counter() - begin,
            memory=peak(str(self._device)),
            suspects=suspects,
        )

    def gradients(self, batch: Batch, epoch: int) -> Tensor:
        """Add up the gradients of a step, in all processes; returns the losses of the batch, float64 (B,), on the CPU.

        Raises:
            DeviceError: the memory does not suffice for one sample.
        """
        while True:
            each, short = self._attempt(batch, epoch)
            # The memory of one process is enough of a reason: all stay in step.
            short = next((message for message in self.world.exchange(short) if message), "")
            if not short:
                self._average()
                return each
            self._save_memory(short)

    def _attempt(self, batch: Batch, epoch: int) -> tuple[Tensor, str]:
        """`accumulate`, and what is wrong if the memory does not suffice."""
        try:
            return self.accumulate(batch, epoch), ""
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Only the text: the error would keep alive everything that the attempt allocated.
            return torch.empty(0), str(error).partition("\n")[0] or "out of memory"

    def accumulate(self, batch: Batch, epoch: int) -> Tensor:
        """As `gradients`, without a second attempt, and of this process only, times the number of processes.

        Raises RuntimeError if the memory does not suffice.
        """
        found = [torch.empty(0, device=self._device)]
        shape, weights = self.trainee.draws_shape(batch.pixels), _weights(batch)
        # As the mean over the processes, of which each has only a part of the samples, it is the sum.
        total = self._total(batch) / self.world.size
        for start in range(0, len(batch.keys), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            draws = torch.from_numpy(drop_path_draws(self._seed, epoch, batch.keys[part], shape))
            pixels, targets, weight = (t[part].to(self._device) for t in (batch.pixels, batch.targets, weights))
            each = losses(self.trainee(pixels, draws.to(self._device)), targets)
            ((each * weight).sum() / total).backward()
            found.append(each.detach())
        return torch.cat(found).double().cpu()

    def settle(self) -> None:
        """Take the least demanding of the processes' `micro_batch` and `checkpointing`."""
        settings = self.world.exchange((self.micro_batch, self.checkpointing))
        self.micro_batch = min(micro_batch for micro_batch, _ in settings)
        self.checkpointing = any(checkpointing for _, checkpointing in settings)

    def _total(self, batch: Batch) -> float:
        if batch.total is None and self.world.size > 1:
            raise ValueError("a batch of several processes needs its total")
        return len(batch.keys) if batch.total is None else batch.total

    def _save_memory(self, message: str) -> None:
        """Go on with less memory. Raises DeviceError if nothing is left to save."""
        self.optimiser.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self.micro_batch <= 2 and not self.checkpointing and self.may_checkpoint:
            self.checkpointing = True
        elif self.micro_batch > 1:
            self.micro_batch //= 2
        else:
            raise DeviceError(
                f"{self._device}: one clip at a time does not fit into the memory ({message}); try `method=last` with "
                "few `layers`, or fewer frames with `num_frames`"
            )


def _weights(batch: Batch) -> Tensor:
    return torch.ones(len(batch.keys)) if batch.weights is None else batch.weights


def _suspects(shares: Sequence[_Share]) -> tuple[str, ...]:
    bad = [key for share in shares for key in share.bad]
    return tuple(dict.fromkeys(bad or [key for share in shares for key in share.keys]))
