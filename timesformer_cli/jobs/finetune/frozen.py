"""Training only the last layers of the network. The others are frozen, so that a view always gives the same tokens."""

from torch import Tensor, nn

from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.finetune.trainer import Trainee, is_trained
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.specs import TimesformerConfig


def freeze(model: TimesformerForVideoClassification, layers: int) -> None:
    """Let only the last `layers` layers, the last LayerNorm and the head be trained.

    Raises:
        UsageError: the network does not have so many layers.
    """
    every = model.timesformer.encoder.layer
    if not 0 < layers <= len(every):
        raise UsageError(f"`layers={layers}`: the network has {len(every)}; choose a number from 1 to {len(every)}")
    model.requires_grad_(False)
    for part in (*every[-layers:], model.timesformer.layernorm, model.classifier):
        part.requires_grad_(True)


def tokens_shape(config: TimesformerConfig) -> tuple[int, int]:
    """The shape (L, D) of the tokens of a view, of the size and the number of frames that the network is made for."""
    patches, frames = config.grid[0] * config.grid[1], config.num_frames
    per_frame = config.attention_type == "space_only"
    return frames * (1 + patches) if per_frame else 1 + frames * patches, config.hidden_size


class TokenTrainee(Trainee):
    """A network whose first layers are frozen, for batches of the tokens that enter the first layer that is trained.

    Its logits are those of `Trainee` for the pixels. The weights of frozen layers are never read, so that they take no
    memory if they are mapped to a file.
    """

    def __init__(self, model: TimesformerForVideoClassification, *, drop_path: float = 0.0, bf16: bool = False) -> None:
        super().__init__(model, drop_path=drop_path, bf16=bf16)
        self.first = [is_trained(layer) for layer in model.timesformer.encoder.layer].index(True)

    def draws_shape(self, pixels: Tensor) -> tuple[int, int]:
        """The shape of the draws of a sample, a view of the size that the network is made for."""
        config = self.model.config
        return self.model.timesformer.drop_path_shape(config.num_frames, *config.image_hw)

    def encode(self, pixels: Tensor, draws: Tensor | None) -> Tensor:
        """As `Trainee.encode`; `pixels` are tokens (B, L, D) of `InferenceNetwork.tokens_before`, in any precision."""
        network, frames = self.model.timesformer, self.model.config.num_frames
        tokens = pixels.to(self.model.classifier.weight.dtype)
        if self.model.config.attention_type == "space_only":
            tokens = tokens.unflatten(1, (frames, -1)).flatten(0, 1)
        for number in range(self.first, len(network.encoder.layer)):
            tokens, _, _ = network.run_layer(number, tokens, frames, drop_path_draws=draws)
        return network.finish(tokens, frames)


class TrainedPart(nn.Module):
    """The parts of a network that are trained, under the same names: what a checkpoint of the training has to hold."""

    def __init__(self, model: TimesformerForVideoClassification) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                *path, last = name.split(".")
                part: nn.Module = self
                for step in path:
                    if step not in part._modules:
                        part.add_module(step, nn.Module())
                    part = part.get_submodule(step)
                part.register_parameter(last, parameter)
