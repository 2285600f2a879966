"""Low-rank adaptation: train a small change of the attention's weights instead of the weights.

The change of `qkv` of every attention is a product of two thin matrices, which PyTorch adds wherever the weight is
read. Merged into the weights, the network is an ordinary one.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from timesformer_cli.network.model import SelfAttention, TimesformerForVideoClassification

# The rate, as a multiple of that of the whole network.
RATE = 10.0


class LowRank(nn.Module):
    """Adds `up` @ `down`, (outputs, rank) @ (rank, inputs), to a weight; `up` starts at zero, and so does the sum."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        bound = 1 / math.sqrt(inputs)
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # the sum as `merge` makes it, rounded only afterwards
            return torch.addmm(weight, self.up, self.down)


def _attentions(model: nn.Module) -> Iterator[SelfAttention]:
    return (part for part in model.modules() if isinstance(part, SelfAttention))


def adapt(model: TimesformerForVideoClassification, rank: int, seed: int) -> None:
    """Let only the head and a change of rank `rank` of each attention's `qkv` be trained; the output stays the same."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    for attention in _attentions(model):
        change = LowRank(attention.qkv.weight, rank, generator)
        parametrize.register_parametrization(attention.qkv, "weight", change)


def merged(model: TimesformerForVideoClassification) -> TimesformerForVideoClassification:
    """The network as it is now, in eval mode, with changes as a part of its weights; both share all other weights.

    Its outputs are those of `model`, bit for bit.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if ".parametrizations." not in name}
    for name, part in model.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            state[f"{name}.weight"] = part.weight.detach()
    with torch.device("meta"):
        plain = TimesformerForVideoClassification(model.config)
    plain.load_state_dict(state, assign=True)
    plain.recipe = model.recipe
    return plain.eval()
