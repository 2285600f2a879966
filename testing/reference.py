"""TimeSformer again: slow, in NumPy float64, one loop per index, written from the paper and the original's behaviour.

It shares no code with `timesformer_cli.network.model`, so only an error made twice can go unseen. Videos are handled
one by one; the tokens of a video are `cls`, a vector (D,), and `patches[t][n]`, vectors (D,), n counting row by row.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.specs import TimesformerConfig

Array = NDArray[np.float64]
State = dict[str, Array]  # with the names of the Hub's classification checkpoints


@dataclass
class Reference:
    """The expected outputs; names and shapes are those of the outputs of `timesformer_cli.network.model`."""

    logits: Array
    last_hidden_state: Array
    hidden_states: list[Array]
    attentions: list[Array]
    temporal_attentions: list[Array] = field(default_factory=list)


def relative_difference(actual: object, expected: object) -> float:
    """max|actual - expected| / max|expected| over a whole tensor; inf if shapes differ or a number is not finite."""
    a, b = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    return float(np.abs(a - b).max() / np.abs(b).max())


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> State:
    """Weights of so large a scale that each affects the output, including biases, norms and embeddings."""
    generator = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        values = generator.standard_normal(shape)
        if len(shape) == 1:
            values = 0.5 * values + ("norm" in name and name.endswith("weight"))
        elif not name.endswith(("embeddings", "cls_token")):
            values *= 2 / math.sqrt(math.prod(shape[1:]))
        state[name] = values
    return state


def run(state: State, config: TimesformerConfig, videos: Array) -> Reference:
    """Classify videos (B, T, C, H, W)."""
    if config.hidden_act != "gelu":
        raise ValueError("the reference knows only gelu")
    runs = [_Run(state, config, video) for video in videos]
    depth = range(config.num_hidden_layers)
    divided = config.attention_type == "divided_space_time"
    return Reference(
        logits=np.stack([run.logits for run in runs]),
        last_hidden_state=np.stack([run.last for run in runs]),
        hidden_states=[np.concatenate([run.hidden[i] for run in runs]) for i in range(config.num_hidden_layers + 1)],
        attentions=[np.concatenate([run.spatial[i] for run in runs]) for i in depth],
        temporal_attentions=[np.concatenate([run.temporal[i] for run in runs]) for i in depth] if divided else [],
    )


class _Run:
    """One video through the network, with all intermediate results."""

    def __init__(self, state: State, config: TimesformerConfig, video: Array) -> None:
        self.state, self.config = state, config
        self.hidden: list[Array] = []  # (1, 1 + N*T, D), or (T, 1 + N, D) for space_only
        self.spatial: list[Array] = []  # (T, H, 1 + N, 1 + N), or (1, H, 1 + N*T, 1 + N*T) for joint_space_time
        self.temporal: list[Array] = []  # (N, H, T, T)
        self.patches = self._patches(video)
        self.frames, self.places = len(self.patches), len(self.patches[0])
        cls = state["timesformer.embeddings.cls_token"][0, 0] + self._positions(0, 0)[0]
        if config.attention_type == "space_only":
            self._space_only(cls)
        else:
            self._space_time(cls)
        weight, bias = state["classifier.weight"], state["classifier.bias"]
        self.logits = weight @ self.last[0] + bias

    def _patches(self, video: Array) -> list[list[Array]]:
        """Embedded patches, each with the position of its place; without time."""
        name = "timesformer.embeddings.patch_embeddings.projection"
        weight, bias = self.state[name + ".weight"], self.state[name + ".bias"]
        tall, wide = self.config.patch_hw
        rows, columns = video.shape[2] // tall, video.shape[3] // wide
        _, positions = self._positions(rows, columns)
        frames = []
        for frame in video:
            tokens = []
            for row in range(rows):
                for column in range(columns):
                    pixels = frame[:, row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
                    token = np.array([np.sum(kernel * pixels) for kernel in weight]) + bias
                    tokens.append(token + positions[row * columns + column])
            frames.append(tokens)
        return frames

    def _positions(self, rows: int, columns: int) -> tuple[Array, list[Array]]:
        """Embeddings of the class token and of a grid: each place takes the trained place it falls on."""
        table = self.state["timesformer.embeddings.position_embeddings"][0]
        trained_rows, trained_columns = self.config.grid
        grid = []
        for row in range(rows):
            for column in range(columns):
                from_row, from_column = row * trained_rows // rows, column * trained_columns // columns
                grid.append(table[1 + from_row * trained_columns + from_column])
        return table[0], grid

    def _space_time(self, cls: Array) -> None:
        table = self.state["timesformer.embeddings.time_embeddings"][0]
        for t in range(self.frames):
            for n in range(self.places):
                self.patches[t][n] = self.patches[t][n] + table[t * len(table) // self.frames]
        self.hidden.append(self._in_order(cls)[None])
        for i in range(self.config.num_hidden_layers):
            layer = f"timesformer.encoder.layer.{i}"
            if self.config.attention_type == "divided_space_time":
                self._attend_in_time(layer)
                cls = self._attend_in_space(layer, cls)
            else:
                cls = self._attend_jointly(layer, cls)
            cls = cls + self._mlp(layer, cls)
            for t in range(self.frames):
                for n in range(self.places):
                    self.patches[t][n] = self.patches[t][n] + self._mlp(layer, self.patches[t][n])
            self.hidden.append(self._in_order(cls)[None])
        self.last = np.stack([self._norm("timesformer.layernorm", token) for token in self._in_order(cls)])

    def _in_order(self, cls: Array) -> Array:
        """(1 + N*T, D): the class token, then place by place, the frames of a place together."""
        return np.stack([cls] + [self.patches[t][n] for n in range(self.places) for t in range(self.frames)])

    def _attend_in_time(self, layer: str) -> None:
        """Every place attends to itself in all frames."""
        weights = []
        for n in range(self.places):
            tokens = [self._norm(f"{layer}.temporal_layernorm", self.patches[t][n]) for t in range(self.frames)]
            outputs, weight = self._attention(f"{layer}.temporal_attention", tokens)
            for t in range(self.frames):
                self.patches[t][n] = self.patches[t][n] + self._linear(f"{layer}.temporal_dense", outputs[t])
            weights.append(weight)
        self.temporal.append(np.stack(weights))

    def _attend_in_space(self, layer: str, cls: Array) -> Array:
        """Every frame attends within itself and to a copy of the class token; the copies' updates are averaged."""
        weights = []
        gain = np.zeros_like(cls)
        for t in range(self.frames):
            tokens = [self._norm(f"{layer}.layernorm_before", token) for token in [cls, *self.patches[t]]]
            outputs, weight = self._attention(f"{layer}.attention", tokens)
            gain = gain + outputs[0] / self.frames
            for n in range(self.places):
                self.patches[t][n] = self.patches[t][n] + outputs[1 + n]
            weights.append(weight)
        self.spatial.append(np.stack(weights))
        return cls + gain

    def _attend_jointly(self, layer: str, cls: Array) -> Array:
        tokens = [self._norm(f"{layer}.layernorm_before", token) for token in self._in_order(cls)]
        outputs, weight = self._attention(f"{layer}.attention", tokens)
        for n in range(self.places):
            for t in range(self.frames):
                self.patches[t][n] = self.patches[t][n] + outputs[1 + n * self.frames + t]
        self.spatial.append(weight[None])
        return cls + outputs[0]

    def _space_only(self, cls: Array) -> None:
        """Every frame by itself; frames are averaged token by token before the last norm."""
        hidden: list[list[Array]] = [[] for _ in range(self.config.num_hidden_layers + 1)]
        spatial: list[list[Array]] = [[] for _ in range(self.config.num_hidden_layers)]
        for t in range(self.frames):
            tokens = [cls, *self.patches[t]]
            hidden[0].append(np.stack(tokens))
            for i in range(self.config.num_hidden_layers):
                layer = f"timesformer.encoder.layer.{i}"
                normed = [self._norm(f"{layer}.layernorm_before", token) for token in tokens]
                outputs, weight = self._attention(f"{layer}.attention", normed)
                tokens = [token + output for token, output in zip(tokens, outputs, strict=True)]
                tokens = [token + self._mlp(layer, token) for token in tokens]
                hidden[i + 1].append(np.stack(tokens))
                spatial[i].append(weight)
        self.hidden = [np.stack(frames) for frames in hidden]
        self.spatial = [np.stack(frames) for frames in spatial]
        means = [sum(self.hidden[-1][:, n]) / self.frames for n in range(1 + self.places)]
        self.last = np.stack([self._norm("timesformer.layernorm", token) for token in means])

    def _attention(self, name: str, tokens: list[Array]) -> tuple[list[Array], Array]:
        """Multi-head self-attention among tokens: their outputs (D,) each, and the weights (H, L, L)."""
        width, heads = self.config.hidden_size, self.config.num_attention_heads
        size = width // heads
        projected = [self._linear(f"{name}.attention.qkv", token) for token in tokens]
        weights = np.zeros((heads, len(tokens), len(tokens)))
        outputs = [np.zeros(width) for _ in tokens]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            queries = [p[:width][part] for p in projected]
            keys = [p[width : 2 * width][part] for p in projected]
            values = [p[2 * width :][part] for p in projected]
            for i, query in enumerate(queries):
                scores = [float(query @ key) / math.sqrt(size) for key in keys]
                highest = max(scores)
                exponentials = [math.exp(score - highest) for score in scores]
                total = sum(exponentials)
                for j, value in enumerate(values):
                    weights[head, i, j] = exponentials[j] / total
                    outputs[i][part] += weights[head, i, j] * value
        return [self._linear(f"{name}.output.dense", output) for output in outputs], weights

    def _mlp(self, layer: str, token: Array) -> Array:
        inner = self._linear(f"{layer}.intermediate.dense", self._norm(f"{layer}.layernorm_after", token))
        inner = np.array([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in inner])
        return self._linear(f"{layer}.output.dense", inner)

    def _linear(self, name: str, x: Array) -> Array:
        y = self.state[name + ".weight"] @ x
        return y + self.state[name + ".bias"] if name + ".bias" in self.state else y

    def _norm(self, name: str, x: Array) -> Array:
        mean = x.sum() / len(x)
        variance = ((x - mean) ** 2).sum() / len(x)
        normed = (x - mean) / math.sqrt(variance + self.config.layer_norm_eps)
        return normed * self.state[name + ".weight"] + self.state[name + ".bias"]
