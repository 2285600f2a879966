"""TimeSformer in plain PyTorch, complete in one file.

Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?" (2021).
Parameter names are those of the checkpoints on the Hugging Face Hub; the arithmetic is that of the
original code. Shapes below use B videos, T frames, N patches per frame, D = hidden size, H heads.
Tokens are (B, 1 + N*T, D): the class token, then patch by patch, the frames of a patch together.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timesformer_cli.checkpoints.folder import save_recipe
from timesformer_cli.checkpoints.hub import CONFIG_FILE
from timesformer_cli.checkpoints.layouts import to_hub
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.checkpoints.weights import check_state_dict, read_state_dict, write_state_dict
from timesformer_cli.errors import CheckpointError
from timesformer_cli.files import whole_folder
from timesformer_cli.specs import Checkpoint, Recipe, TimesformerConfig


class TimesformerModelOutput(NamedTuple):
    """The output of the encoder.

    `last_hidden_state` (B, 1 + N*T, D), normalised; (B, 1 + N, D) for space_only, which averages
    frames. `hidden_states`: the embeddings and every layer's output, (B, 1 + N*T, D) each, not
    normalised; (B*T, 1 + N, D) for space_only. `attentions`: spatial weights of each layer,
    (B*T, H, 1 + N, 1 + N), or (B, H, 1 + N*T, 1 + N*T) for joint_space_time. `temporal_attentions`:
    (B*N, H, T, T) of each layer, divided_space_time only; transformers has no such output.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    temporal_attentions: tuple[Tensor, ...] | None = None


class TimesformerClassifierOutput(NamedTuple):
    """`logits` (B, K); `loss` if labels were given; the rest as in `TimesformerModelOutput`."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    temporal_attentions: tuple[Tensor, ...] | None = None


# The names that config.json files use for activations, with the meaning transformers gives them.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch for whole samples (dimension 0) while training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        """Samples whose number in `draws`, from 0 to below 1, is less than p are dropped; None draws them here."""
        if self.p == 0.0 or not self.training:
            return x
        if draws is None:
            draws = torch.rand(len(x), device=x.device)
        keep = (draws.flatten() >= self.p).view(-1, *[1] * (x.ndim - 1))
        return x * keep / (1 - self.p)


def _branch_rows(attention_type: str, patches: int, frames: int) -> tuple[int, ...]:
    """How many samples each residual branch of a layer has for one video: what drop path drops as a whole."""
    if attention_type == "divided_space_time":
        return patches, frames, 1
    return (frames, frames) if attention_type == "space_only" else (1, 1)


def _by_branch(draws: Tensor | None, rows: tuple[int, ...]) -> Sequence[Tensor | None]:
    """The draws of each branch of a layer, (B, rows) each, out of those of the layer."""
    return [None] * len(rows) if draws is None else draws.split(rows, 1)


class PatchEmbeddings(nn.Module):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_hw, config.patch_hw)


class Embeddings(nn.Module):
    """Pixels (B, T, C, H, W) to tokens; position and time embeddings fit any size and frame count."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        num_patches = config.grid[0] * config.grid[1]
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + num_patches, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if config.attention_type != "space_only":
            self.time_embeddings = nn.Parameter(torch.zeros(1, config.num_frames, config.hidden_size))

    def forward(self, pixel_values: Tensor, per_frame: bool) -> Tensor:
        """Tokens (B, 1 + N*T, D); with `per_frame` (B*T, 1 + N, D), without time embeddings."""
        batch, frames = pixel_values.shape[:2]
        patches = self.patch_embeddings.projection(pixel_values.flatten(0, 1))  # (B*T, D, h, w)
        cls_position, position = self.positions((patches.shape[2], patches.shape[3]))
        patches = self.dropout(patches.flatten(2).transpose(1, 2) + position)  # (B*T, N, D)
        cls = (self.cls_token + cls_position).expand(batch * frames if per_frame else batch, -1, -1)
        cls = self.dropout(cls)
        if per_frame:
            return torch.cat([cls, patches], 1)
        patches = patches.unflatten(0, (batch, frames)).transpose(1, 2)  # (B, N, T, D)
        patches = self.dropout(patches + self.times(frames))
        return torch.cat([cls, patches.flatten(1, 2)], 1)

    def positions(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Position embeddings of the class token (1, 1, D) and of a grid of patches (1, N, D)."""
        cls, position = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        # The original compares token counts, so a 2x8 grid would take the embeddings of a 4x4 grid
        # unchanged. Comparing grids differs from it only in such cases.
        if grid != self.grid:
            table = position.transpose(1, 2).unflatten(2, self.grid)
            position = F.interpolate(table, size=grid, mode="nearest").flatten(2).transpose(1, 2)
        return cls, position

    def times(self, frames: int) -> Tensor:
        """Time embeddings (1, T, D)."""
        if frames == self.time_embeddings.shape[1]:
            return self.time_embeddings
        return F.interpolate(self.time_embeddings.transpose(1, 2), size=frames, mode="nearest").transpose(1, 2)

    @torch.no_grad()
    def resize(self, config: TimesformerConfig) -> None:
        """Keep what `forward` interpolates to for the grid and the number of frames of `config`, bit for bit."""
        self.position_embeddings = nn.Parameter(torch.cat(self.positions(config.grid), 1))
        self.grid = config.grid
        if config.attention_type != "space_only":
            self.time_embeddings = nn.Parameter(self.times(config.num_frames).contiguous())


class SelfAttention(nn.Module):
    """Heads of scaled dot products among the L tokens of (B', L, D); B' is any mix of B, N and T."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)

    def forward(self, x: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B', H, L, D/H) each
        dropout = self.dropout if self.training else 0.0
        if output_attentions:  # the fused kernel does not return its weights
            weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
            weights = F.dropout(weights, dropout)
            context = weights @ value
        else:
            weights = None
            context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), weights


class Projection(nn.Module):
    """A linear map and dropout, under the name `dense` that the checkpoints use."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.dense(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.output = Projection(config.hidden_size, config.hidden_size, config.hidden_dropout_prob)

    def forward(self, x: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        x, weights = self.attention(x, output_attentions)
        return self.output(x), weights


class Intermediate(nn.Module):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.dense(x)))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One block of the encoder."""

    def __init__(self, config: TimesformerConfig, drop_path: float) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.attention_type = config.attention_type
        self.divided = config.attention_type == "divided_space_time"
        self.drop_path = DropPath(drop_path)
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Projection(config.intermediate_size, width, config.hidden_dropout_prob)
        self.layernorm_before = nn.LayerNorm(width, eps=eps)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)
        if self.divided:
            self.temporal_layernorm = nn.LayerNorm(width, eps=eps)
            self.temporal_attention = Attention(config)
            self.temporal_dense = nn.Linear(width, width)

    def forward(
        self, tokens: Tensor, frames: int, output_attentions: bool, draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Tokens to tokens of the same shape, with the spatial and the temporal attention weights.

        `draws` (B, rows) decide what drop path drops: those of all branches, in the order of `_branch_rows`.
        """
        temporal = None
        rows = _branch_rows(self.attention_type, (tokens.shape[1] - 1) // frames, frames)
        *first, last = _by_branch(draws, rows)
        if self.divided:
            tokens, spatial, temporal = self._divided_attention(tokens, frames, output_attentions, *first)
        else:
            attended, spatial = self.attention(self.layernorm_before(tokens), output_attentions)
            tokens = tokens + self.drop_path(attended, *first)
        mlp = self.output(self.intermediate(self.layernorm_after(tokens)))
        return tokens + self.drop_path(mlp, last), spatial, temporal

    def _divided_attention(
        self, tokens: Tensor, frames: int, output_attentions: bool, times: Tensor | None, spaces: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        cls, x = tokens[:, :1], tokens[:, 1:].unflatten(1, (-1, frames))  # (B, 1, D), (B, N, T, D)
        batch, patches = x.shape[:2]

        # Time: each patch attends to itself across the T frames.
        t, temporal = self.temporal_attention(self.temporal_layernorm(x.flatten(0, 1)), output_attentions)
        x = x + self.temporal_dense(self.drop_path(t, times)).unflatten(0, (batch, patches))

        # Space: each frame attends within itself and to its own copy of the class token.
        s = torch.cat([cls.unsqueeze(1).expand(-1, frames, -1, -1), x.transpose(1, 2)], 2)  # (B, T, 1+N, D)
        s, spatial = self.attention(self.layernorm_before(s.flatten(0, 1)), output_attentions)
        s = self.drop_path(s, spaces).unflatten(0, (batch, frames))
        cls = cls + s[:, :, 0].mean(1, keepdim=True)  # the copies are averaged
        x = x + s[:, :, 1:].transpose(1, 2)
        return torch.cat([cls, x.flatten(1, 2)], 1), spatial, temporal


class Encoder(nn.Module):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        depth = config.num_hidden_layers
        # Stochastic depth grows linearly from 0 in the first layer to drop_path_rate in the last.
        rates = [config.drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.layer = nn.ModuleList(Layer(config, rate) for rate in rates)


class PretrainedModule(nn.Module):
    """Reads and writes checkpoint folders; both networks share it."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        if config.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act is {config.hidden_act!r}; expected one of {', '.join(ACTIVATIONS)}")
        self.config = config
        # The preprocessing and sampling for the checkpoint that it was opened from.
        self.recipe: Recipe | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: torch.dtype | None = torch.float32,
        revision: str | None = None,
        offline: bool = False,
    ) -> Self:
        """Open a published checkpoint by its short name, a Hub id, a folder, or a weight file.

        In eval mode, on the CPU. `dtype` None keeps the stored dtypes. See `checkpoints.resolve`.

        Raises:
            CheckpointError: the model cannot be had, its config is invalid, or keys are missing,
                unexpected or misshapen; the message names them.
        """
        return cls.from_checkpoint(resolve(str(name), revision=revision, offline=offline), dtype)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        dtype: torch.dtype | None = torch.float32,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """The network of `checkpoint`, as from `from_pretrained`.

        It is built without memory and takes the memory-mapped tensors as they are; only those with a
        dtype other than `dtype` are copied. `tell` gets one sentence if the weight file holds more than the network.
        """
        if checkpoint.weights is None:
            raise CheckpointError(f"{checkpoint.name}: the weights are not on this machine")
        try:
            with torch.device("meta"):
                model = cls(checkpoint.config)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.name}: {error}") from error
        parameters = sum(parameter.numel() for parameter in model.parameters())
        state = model._own_keys(to_hub(read_state_dict(checkpoint.weights, parameters, tell)))
        check_state_dict(state, model.state_dict(), str(checkpoint.weights))
        if dtype is not None:
            state = {name: tensor.to(dtype) for name, tensor in state.items()}
        model.load_state_dict(state, strict=True, assign=True)
        model.recipe = checkpoint.recipe
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, which transformers can read as well.

        If the network was opened from a checkpoint, its recipe is written too. The files appear all at once, in place
        of earlier ones, and other files in `folder` stay: see `files.whole_folder`.

        Raises:
            OSError: they cannot be written; then `folder` is as it was.
        """
        # transformers converts weights to the config's dtype; torch_dtype is its older name.
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        extra = {key: value for key, value in self.config.extra.items() if key != "torch_dtype"}
        extra |= {"architectures": [type(self).__name__], "dtype": dtype}
        with whole_folder(Path(folder), CONFIG_FILE) as staging:
            replace(self.config, extra=extra).save_pretrained(staging)
            write_state_dict(staging, self.state_dict())
            if self.recipe is not None:
                save_recipe(staging, self.recipe)

    def _own_keys(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The entries of a published state dict that belong to this network."""
        return state


@torch.no_grad()
def _initialise(module: nn.Module, std: float) -> None:
    """The initial weights of transformers: truncated normal of `initializer_range`, zero biases."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Embeddings):
            nn.init.trunc_normal_(part.cls_token, std=std)
            nn.init.trunc_normal_(part.position_embeddings, std=std)


class TimesformerModel(PretrainedModule):
    """The encoder. A config gives random weights; `from_pretrained` reads a checkpoint."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # Recompute each layer in the backward pass instead of storing its activations.
        self.gradient_checkpointing = False
        _initialise(self, config.initializer_range)

    def drop_path_shape(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """The shape of `drop_path_draws` for a video: layers, and samples of all residual branches in each."""
        patches = (height // self.config.patch_hw[0]) * (width // self.config.patch_hw[1])
        return len(self.encoder.layer), sum(_branch_rows(self.config.attention_type, patches, frames))

    def forward(
        self,
        pixel_values: Tensor,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        drop_path_draws: Tensor | None = None,
    ) -> TimesformerModelOutput:
        """Encode videos. `pixel_values`: floating point (B, T, C, H, W), normalised.

        T, H and W may differ from the config: embeddings are then interpolated (nearest), as in
        the original. Pixel rows and columns beyond the last whole patch are ignored.

        `drop_path_draws`: numbers from 0 to below 1 that decide what drop path drops while training, (B, layers, rows)
        of `drop_path_shape`. Without them torch draws, and a video loses different parts in each batch.
        """
        frames = pixel_values.shape[1]
        tokens = self.embeddings(pixel_values, self.config.attention_type == "space_only")
        hidden_states, attentions, temporal_attentions = [tokens], [], []
        for number in range(len(self.encoder.layer)):
            tokens, spatial, temporal = self.run_layer(number, tokens, frames, output_attentions, drop_path_draws)
            if output_hidden_states:
                hidden_states.append(tokens)
            if spatial is not None:
                attentions.append(spatial)
            if temporal is not None:
                temporal_attentions.append(temporal)
        return TimesformerModelOutput(
            last_hidden_state=self.finish(tokens, frames),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            temporal_attentions=tuple(temporal_attentions) if temporal_attentions else None,
        )

    def run_layer(
        self,
        number: int,
        tokens: Tensor,
        frames: int,
        output_attentions: bool = False,
        drop_path_draws: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What layer `number`, from 0, makes of `tokens`, and its spatial and temporal attention weights.

        Tokens are as in `hidden_states`; `drop_path_draws` (B, layers, rows) are those of all layers.
        """
        layer = self.encoder.layer[number]
        draws = None if drop_path_draws is None else drop_path_draws[:, number]
        if self.gradient_checkpointing and self.training:
            return checkpoint(layer, tokens, frames, output_attentions, draws, use_reentrant=False)  # type: ignore[no-any-return]
        return layer(tokens, frames, output_attentions, draws)  # type: ignore[no-any-return]

    def finish(self, tokens: Tensor, frames: int) -> Tensor:
        """The `last_hidden_state` for the tokens that the last layer returns."""
        if self.config.attention_type == "space_only":  # the original averages the frames; transformers does not
            tokens = tokens.unflatten(0, (-1, frames)).mean(1)
        return self.layernorm(tokens)  # type: ignore[no-any-return]

    def _own_keys(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        # A classification checkpoint holds the encoder under this prefix, beside its head.
        prefix = "timesformer."
        if not any(name.startswith(prefix) for name in state):
            return state
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        return {name: tensor for name, tensor in own.items() if name not in ("classifier.weight", "classifier.bias")}


class TimesformerForVideoClassification(PretrainedModule):
    """The encoder and a linear head on its class token."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config)
        self.timesformer = TimesformerModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        _initialise(self.classifier, config.initializer_range)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> TimesformerClassifierOutput:
        """Classify videos. `pixel_values`: floating point (B, T, C, H, W), normalised.

        `labels` (B,) of class numbers give a cross-entropy loss. (B, K) of numbers between 0 and 1
        give a binary cross-entropy for each class. Models with one class get a squared error. The
        config's `problem_type` decides if it is set, as in transformers.
        """
        outputs = self.timesformer(pixel_values, output_attentions, output_hidden_states)
        logits = self.classifier(outputs.last_hidden_state[:, 0])
        loss = None if labels is None else self._loss(logits, labels)
        return TimesformerClassifierOutput(
            loss, logits, outputs.hidden_states, outputs.attentions, outputs.temporal_attentions
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        problem = self.config.problem_type
        if problem is None:
            if self.config.num_labels == 1:
                problem = "regression"
            elif labels.dtype in (torch.int32, torch.int64):
                problem = "single_label_classification"
            else:
                problem = "multi_label_classification"
        if problem == "regression":
            return F.mse_loss(logits.squeeze(), labels.squeeze())
        if problem == "single_label_classification":
            return F.cross_entropy(logits, labels.view(-1).long())
        return F.binary_cross_entropy_with_logits(logits, labels)
