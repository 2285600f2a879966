"""Starting weights that know a little about motion, so that training takes minutes instead of days.

From the usual small random weights the network stays at chance for thousands of steps: nothing in it
compares two frames. Three things help. All are ordinary values of ordinary parameters, and training may
change them freely:

- patches start as oriented band-pass filters in pairs a quarter wave apart (Gabor), whose phases turn
  when the image moves: the front end of motion energy models (Adelson and Bergen, 1985);
- positions and times start as sines and cosines in separate channels;
- temporal heads of the first layers start by looking a fixed number of frames back or ahead, which
  sines and cosines of time can express exactly.
"""

import math

import torch
from torch import Tensor, nn

from timesformer_cli import TimesformerForVideoClassification

CODE = 16  # channels that hold the position, and the same number for the time
SHIFTS = (-1, 1, -2, 2, -3, 3, -4, 4)  # frames, one for each head


@torch.no_grad()
def start_weights(model: TimesformerForVideoClassification) -> None:
    """Overwrite the weights of a one-channel network of at least 3 * CODE channels."""
    config = model.config
    width, content = config.hidden_size, config.hidden_size - 2 * CODE
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.8 * module.in_features**-0.5)
            nn.init.zeros_(module.bias)

    embeddings = model.timesformer.embeddings
    filters = gabor_filters(config.patch_hw[0])[:content]
    kernel = embeddings.patch_embeddings.projection.weight
    kernel.zero_()
    kernel[:content].normal_(std=0.6 / config.patch_hw[0])
    kernel[: len(filters), 0] = 0.6 * filters
    embeddings.cls_token.normal_(std=0.5)
    embeddings.position_embeddings.zero_()
    embeddings.position_embeddings[0, 1:, content:-CODE] = position_code(config.grid)
    if config.attention_type == "space_only":
        return
    embeddings.time_embeddings.zero_()
    embeddings.time_embeddings[0, :, -CODE:] = time_code(torch.arange(config.num_frames), config.num_frames)
    divided = config.attention_type == "divided_space_time"
    for number, layer in enumerate(model.timesformer.encoder.layer):
        if divided:
            layer.temporal_dense.weight.copy_(torch.eye(width))
        if number < 2:
            qkv = (layer.temporal_attention if divided else layer.attention).attention.qkv.weight
            qkv[: 2 * width] = shift_heads(width, config.num_attention_heads, config.num_frames, places=not divided)
            qkv[2 * width :, content:] = 0  # carry the content, not its place and time


def gabor_filters(side: int) -> Tensor:
    """Unit-norm filters (F, side, side): four wavelengths, several directions, cosine and sine; then a blur."""
    axis = (torch.arange(side) + 0.5) / side - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * 0.33**2))
    filters = []
    for cycles, directions in ((1.0, 6), (1.6, 8), (2.6, 8), (4.0, 8)):
        for k in range(directions):
            angle = math.pi * k / directions
            phase = 2 * math.pi * cycles * (x * math.cos(angle) + y * math.sin(angle))
            filters += [envelope * torch.cos(phase), envelope * torch.sin(phase)]
    filters = [f - f.mean() for f in filters] + [envelope]
    return torch.stack([f / f.norm() for f in filters])


def position_code(grid: tuple[int, int]) -> Tensor:
    """(rows * columns, CODE)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, grid[0]), torch.linspace(-1, 1, grid[1]), indexing="ij")
    waves = [fn(math.pi * f * z) for f in (0.25, 0.5, 1, 2) for z in (y, x) for fn in (torch.sin, torch.cos)]
    return torch.stack(waves, -1).flatten(0, 1)


def time_code(times: Tensor, num_frames: int) -> Tensor:
    """(T, CODE): half a period to four periods over the clip; cosines, then sines."""
    angle = frequencies(num_frames) * times[:, None]
    return torch.cat([torch.cos(angle), torch.sin(angle)], 1)


def frequencies(num_frames: int) -> Tensor:
    return math.pi * torch.arange(1, CODE // 2 + 1) / num_frames


def shift_heads(width: int, heads: int, num_frames: int, *, places: bool, gain: float = 2.5) -> Tensor:
    """Query and key rows (2 * width, width): head h at frame t looks at frame t + SHIFTS[h].

    The key of a frame is its time code. The query is that of the wanted frame, made by turning each
    pair (cos wt, sin wt) by w * shift; the product is largest where the two agree. With `places`, for
    heads of 2 * CODE channels, positions are compared too: among all patches of that frame, the head then
    looks at its own and those around it.
    """
    query, key = torch.zeros(width, width), torch.zeros(width, width)
    head_width = width // heads
    for head in range(heads):
        angle = frequencies(num_frames) * SHIFTS[head % len(SHIFTS)]
        for j in range(min(CODE, head_width) // 2):
            row, cos, sin = head * head_width + 2 * j, width - CODE + j, width - CODE // 2 + j
            key[row, cos] = key[row + 1, sin] = gain
            query[row, cos], query[row, sin] = gain * angle[j].cos(), -gain * angle[j].sin()
            query[row + 1, sin], query[row + 1, cos] = gain * angle[j].cos(), gain * angle[j].sin()
        for j in range(CODE if places else 0):
            row, position = head * head_width + CODE + j, width - 2 * CODE + j
            query[row, position] = key[row, position] = gain
    return torch.cat([query, key])
