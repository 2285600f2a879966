"""The network against the loops of reference.py, and against its own promises.

Tolerances are 1e-10 in float64 and, where only the order of sums may differ, 2e-5 in float32.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import timesformer_cli.network.model as model_module
from testing.networks import (
    ALL_TYPES,
    SPACE_TIME,
    TOLERANCE,
    assert_close,
    build,
    clip,
    everything,
    tiny,
    without_attentions,
)
from testing.reference import Reference, relative_difference, run
from timesformer_cli import TimesformerModel
from timesformer_cli.network.model import DropPath, TimesformerClassifierOutput


def reference(network: Any, pixels: Tensor) -> Reference:
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    return run(state, network.config, pixels.double().numpy())


class TestAgainstLoops:
    """float64 against reference.py, most of all where transformers is wrong: see docs/parity.md."""

    @pytest.mark.parametrize(
        ("frames", "size"),
        [
            (4, (24, 24)),  # the config's
            (1, (24, 24)),
            (3, (24, 24)),
            (6, (24, 24)),
            (9, (24, 24)),
            (4, (16, 16)),  # smaller
            (4, (40, 40)),  # larger
            (4, (16, 32)),  # wide
            (4, (40, 8)),  # one column
            (5, (35, 21)),  # with pixels beyond the last whole patch
            (2, (8, 72)),  # as many patches as the config's, in another grid
        ],
        ids=str,
    )
    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_any_frame_count_and_size(self, attention_type: str, frames: int, size: tuple[int, int]) -> None:
        network = build(tiny(attention_type, num_hidden_layers=2), dtype=torch.float64)
        pixels = clip(network.config, frames=frames, size=size, dtype=torch.float64)
        self.compare(network, pixels)

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    @pytest.mark.parametrize("size", [(16, 40), (24, 30), (9, 61)], ids=str)
    def test_rectangular_frames_and_patches(self, attention_type: str, size: tuple[int, int]) -> None:
        changes = {"image_size": (16, 40), "patch_size": (8, 10), "num_channels": 1, "qkv_bias": False}
        network = build(tiny(attention_type, num_hidden_layers=2, **changes), dtype=torch.float64)
        self.compare(network, clip(network.config, size=size, dtype=torch.float64))

    def compare(self, network: Any, pixels: Tensor) -> None:
        ours, theirs = everything(network, pixels), reference(network, pixels)
        last = everything(network.timesformer, pixels).last_hidden_state
        assert_close(ours.logits, theirs.logits, 1e-10)
        assert_close(last, theirs.last_hidden_state, 1e-10)
        for name in ("hidden_states", "attentions", "temporal_attentions"):
            assert_close(getattr(ours, name) or (), getattr(theirs, name), 1e-10)
        assert_close(without_attentions(network, pixels).logits, theirs.logits, 1e-10)

    def test_control_reversed_frames_of_space_only_are_not_told_apart(self) -> None:
        network = build(tiny("space_only"), dtype=torch.float64)
        pixels = clip(network.config, dtype=torch.float64)
        logits = everything(network, pixels).logits
        assert_close(everything(network, pixels.flip(1)).logits, logits, 1e-10)
        assert relative_difference(everything(network, pixels.flip(3)).logits, logits) > 0.01

    @pytest.mark.parametrize("part", ["time_embeddings", "position_embeddings", "layer.2.temporal_dense.bias"])
    def test_control_one_parameter_is_enough(self, part: str) -> None:
        network = build(tiny(), dtype=torch.float64)
        pixels = clip(network.config, frames=6, dtype=torch.float64)
        expected = reference(network, pixels).logits
        with torch.no_grad():
            next(p for name, p in network.named_parameters() if name.endswith(part)).view(-1)[-1] += 1
        assert relative_difference(everything(network, pixels).logits, expected) > 1e-6


class TestOutputs:
    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_shapes(self, attention_type: str) -> None:
        network = build(tiny(attention_type))
        outputs = everything(network, clip(network.config, frames=3, size=(16, 24)))
        tokens = {"divided_space_time": (2, 19, 24), "joint_space_time": (2, 19, 24), "space_only": (6, 7, 24)}
        spatial = {"divided_space_time": (6, 3, 7, 7), "joint_space_time": (2, 3, 19, 19), "space_only": (6, 3, 7, 7)}
        assert outputs.loss is None
        assert outputs.logits.shape == (2, 5)
        assert {tuple(x.shape) for x in outputs.hidden_states} == {tokens[attention_type]}
        assert {tuple(x.shape) for x in outputs.attentions} == {spatial[attention_type]}
        if attention_type == "divided_space_time":
            assert [tuple(x.shape) for x in outputs.temporal_attentions] == [(12, 3, 3, 3)] * 3
        else:
            assert outputs.temporal_attentions is None
        for weights in outputs.attentions + (outputs.temporal_attentions or ()):
            assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), 1e-6)

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_nothing_is_kept_unasked_and_asking_changes_nothing(self, attention_type: str) -> None:
        network = build(tiny(attention_type))
        pixels = clip(network.config)
        with torch.no_grad():
            plain = network(pixels)
        assert isinstance(plain, TimesformerClassifierOutput)
        assert (plain.hidden_states, plain.attentions, plain.temporal_attentions) == (None, None, None)
        assert_close(everything(network, pixels).logits, plain.logits, TOLERANCE[torch.float32])

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_videos_of_a_batch_do_not_mix(self, attention_type: str) -> None:
        network = build(tiny(attention_type), dtype=torch.float64)
        pixels = clip(network.config, batch=5, dtype=torch.float64)
        alone = torch.cat([everything(network, video[None]).logits for video in pixels])
        assert_close(everything(network, pixels).logits, alone, 1e-10)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_half_precision(self, attention_type: str, dtype: torch.dtype) -> None:
        network = build(tiny(attention_type))
        pixels = clip(network.config, frames=6, size=(16, 32))
        expected = everything(network, pixels).logits
        outputs = everything(network.to(dtype), pixels.to(dtype))
        assert {x.dtype for x in (outputs.logits, *outputs.hidden_states, *outputs.attentions)} == {dtype}
        assert relative_difference(outputs.logits.float(), expected) < 0.1

    def test_unknown_activation(self) -> None:
        with pytest.raises(ValueError, match="hidden_act is 'swoosh'"):
            TimesformerModel(tiny(hidden_act="swoosh"))


class TestTraining:
    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_gradients_reach_every_parameter(self, attention_type: str) -> None:
        network = build(tiny(attention_type)).train()
        network(clip(network.config), labels=torch.tensor([0, 3])).loss.backward()
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert still == []

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_checkpointing_gives_the_same_loss_and_gradients(
        self, attention_type: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rates = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2, "drop_path_rate": 0.3}
        network = build(tiny(attention_type, **rates), dtype=torch.float64).train()
        pixels, calls, results = clip(network.config, dtype=torch.float64), [], []
        original = model_module.checkpoint

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(args[0])
            return original(*args, **kwargs)

        monkeypatch.setattr(model_module, "checkpoint", counted)
        for network.timesformer.gradient_checkpointing in (False, True):
            network.zero_grad()
            torch.manual_seed(7)
            loss = network(pixels, labels=torch.tensor([2, 4])).loss
            loss.backward()
            results.append([loss.detach(), *(p.grad.clone() for p in network.parameters())])
        assert calls == list(network.timesformer.encoder.layer)
        for plain, checkpointed in zip(*results, strict=True):
            assert torch.allclose(plain, checkpointed, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"])
    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    @pytest.mark.parametrize("output_attentions", [False, True])
    def test_dropout_is_for_training_alone(self, attention_type: str, rate: str, output_attentions: bool) -> None:
        network = build(tiny(attention_type, **{rate: 0.5}))
        pixels = clip(network.config, batch=4)
        without = build(replace(network.config, **{rate: 0.0}))(pixels).logits
        assert_close(network(pixels, output_attentions=output_attentions).logits, without.detach(), 2e-5)
        network.train()
        first, second = (network(pixels, output_attentions=output_attentions).logits.detach() for _ in range(2))
        assert relative_difference(first, second) > 1e-3

    @pytest.mark.parametrize("attention_type", SPACE_TIME)
    def test_dropped_attention_weights(self, attention_type: str) -> None:
        config = tiny(attention_type, num_hidden_layers=1, attention_probs_dropout_prob=0.25)
        network, pixels = build(config), clip(config, batch=8)
        # The first attention of the network: it sees the same tokens with dropout as without.
        name = "temporal_attentions" if attention_type == "divided_space_time" else "attentions"
        whole = getattr(everything(network, pixels), name)[0]
        dropped = getattr(everything(network.train(), pixels), name)[0]
        zero = dropped == 0
        assert zero.double().mean().item() == pytest.approx(0.25, abs=0.03)
        assert_close(dropped[~zero], whole[~zero] / 0.75, 1e-5)

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_embeddings_are_dropped_token_by_token(self, attention_type: str) -> None:
        network = build(tiny(attention_type, hidden_dropout_prob=0.5)).train()
        tokens = everything(network, clip(network.config, batch=64)).hidden_states[0]
        zero = tokens == 0
        for part in (zero[:, 0], zero[:, 1:]):
            assert part.double().mean().item() == pytest.approx(0.5, abs=0.05)
        assert not torch.equal(zero[0, 0], zero[1, 0]), "every copy of the class token is dropped for itself"


class TestDropPath:
    def test_drops_whole_samples_and_keeps_the_expectation(self) -> None:
        torch.manual_seed(0)
        drop = DropPath(0.3).train()
        x = torch.rand(20_000, 3, 2) + 0.5
        y = drop(x)
        dropped = (y == 0).all(dim=(1, 2))
        kept = ~dropped
        assert torch.allclose(y[kept], x[kept] / 0.7)
        assert (y[dropped] == 0).all()
        # Five standard deviations of a share of 20,000 draws.
        assert dropped.double().mean().item() == pytest.approx(0.3, abs=0.0165)
        assert y.mean().item() == pytest.approx(x.mean().item(), rel=0.025)

    @pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.3, False)])
    def test_does_nothing_at_rate_zero_or_in_eval(self, rate: float, training: bool) -> None:
        x = torch.rand(50, 2)
        assert DropPath(rate).train(training)(x) is x

    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_rate_grows_linearly_with_depth(self, depth: int) -> None:
        config = tiny(num_hidden_layers=depth, drop_path_rate=0.2)
        rates = [layer.drop_path.p for layer in TimesformerModel(config).encoder.layer]
        assert rates == pytest.approx(torch.linspace(0, 0.2, depth).tolist())

    @pytest.mark.parametrize(
        ("attention_type", "branches"),
        # Whole videos for joint attention and MLPs; divided attention drops patches' times and frames' spaces.
        [("divided_space_time", [18, 8, 2]), ("joint_space_time", [2, 2]), ("space_only", [8, 8])],
    )
    def test_what_a_sample_is(self, attention_type: str, branches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        network = build(tiny(attention_type, num_hidden_layers=2, drop_path_rate=0.5)).train()
        seen: list[int] = []

        def forward(self: DropPath, x: Tensor, draws: Tensor | None) -> Tensor:
            seen.append(len(x))
            return x

        monkeypatch.setattr(DropPath, "forward", forward)
        network(clip(network.config))
        assert seen == branches * 2
        frames, height, width = network.config.num_frames, *network.config.image_hw
        assert network.timesformer.drop_path_shape(frames, height, width) == (2, sum(branches) // 2)

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_draws_belong_to_videos(self, attention_type: str) -> None:
        """A video loses the same in every batch; with different draws, it loses different parts."""
        network = build(tiny(attention_type, drop_path_rate=0.5), dtype=torch.float64).train()
        pixels = clip(network.config, batch=1, dtype=torch.float64).expand(4, -1, -1, -1, -1)
        generator = torch.Generator().manual_seed(0)
        shape = network.timesformer.drop_path_shape(*pixels.shape[1:2], *pixels.shape[3:])
        draws = torch.rand(4, *shape, generator=generator)

        def tokens(rows: list[int]) -> Tensor:
            outputs = network.timesformer(pixels[rows], drop_path_draws=draws[rows])
            return outputs.last_hidden_state.detach()[:, 0]

        together = tokens([0, 1, 2, 3])
        for row in range(4):
            assert_close(tokens([row])[0], together[row], 1e-12)
        assert_close(tokens([3, 1]), together[[3, 1]], 1e-12)
        assert len({round(value, 6) for value in together[:, 0].tolist()}) > 1

    def test_checkpointing_drops_the_same(self) -> None:
        network = build(tiny(drop_path_rate=0.5), dtype=torch.float64).train()
        pixels = clip(network.config, dtype=torch.float64)
        draws = torch.rand(2, *network.timesformer.drop_path_shape(*pixels.shape[1:2], *pixels.shape[3:]))
        results = []
        for network.timesformer.gradient_checkpointing in (False, True):
            network.zero_grad()
            torch.manual_seed(len(results))
            network.timesformer(pixels, drop_path_draws=draws).last_hidden_state[:, 0].square().sum().backward()
            results.append([p.grad.clone() for p in network.timesformer.parameters()])
        for plain, checkpointed in zip(*results, strict=True):
            assert torch.equal(plain, checkpointed)

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_each_draw_drops_its_own_part(self, attention_type: str) -> None:
        network = build(tiny(attention_type, num_hidden_layers=2, drop_path_rate=0.5)).train()
        pixels = clip(network.config, batch=1)
        layers, rows = network.timesformer.drop_path_shape(*pixels.shape[1:2], *pixels.shape[3:])
        kept = torch.full((1, layers, rows), 0.5)

        def tokens(draws: Tensor) -> Tensor:
            outputs = network.timesformer(pixels, output_hidden_states=True, drop_path_draws=draws)
            return outputs.hidden_states[-1].detach()

        whole, seen = tokens(kept), []
        for row in range(rows):
            draws = kept.clone()
            draws[0, 1, row] = 0.499
            seen.append(tokens(draws))
            assert not torch.allclose(seen[-1], whole), "a number below the rate drops a part"
        assert len({tuple(each.flatten().tolist()) for each in seen}) == rows, "and each a different one"
        first_layer = kept.clone()
        first_layer[0, 0] = 0.0
        assert torch.equal(tokens(first_layer), whole), "the rate of the first layer is 0"


def test_no_module_is_left_without_use() -> None:
    """Every module of the network takes part in a forward pass, so that no published key loads into nothing."""
    network = build(tiny())
    used: set[nn.Module] = set()
    for module in network.modules():
        module.register_forward_hook(lambda module, *_: used.add(module))
    network(clip(network.config))
    leaves = {m for m in network.modules() if not list(m.children()) and list(m.parameters(recurse=False))}
    assert leaves <= used
