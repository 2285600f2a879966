"""The cost of a network: parameters and operations."""

from typing import NamedTuple

from timesformer_cli.specs import TimesformerConfig


class Cost(NamedTuple):
    """`parameters` of a network; `flops` of one view (T frames) as torch counts them: a multiply-add counts as two."""

    parameters: int
    flops: int


def measure_cost(config: TimesformerConfig) -> Cost:
    """Parameters and operations of a network, counted from shapes only: no weights, and hardly any time."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from timesformer_cli.network.model import TimesformerForVideoClassification

    with torch.device("meta"):
        model = TimesformerForVideoClassification(config).eval()
        view = torch.empty(1, config.num_frames, config.num_channels, *config.image_hw)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(view)
    return Cost(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops())
