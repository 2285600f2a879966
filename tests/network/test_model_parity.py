"""The network against that of transformers, with the same weights; where that is wrong, see docs/parity.md."""

from typing import Any

import pytest
import torch
from torch import Tensor

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
from testing.parity import counterpart, transformers
from testing.reference import relative_difference
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.network.model import ACTIVATIONS, DropPath


class TestInEval:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("attention_type", SPACE_TIME)
    def test_logits_hidden_states_and_attentions(self, attention_type: str, seed: int, dtype: torch.dtype) -> None:
        config = tiny(attention_type)
        network, pixels = build(config, seed, dtype), clip(config, seed, dtype=dtype)
        ours, theirs = everything(network, pixels), everything(counterpart(network), pixels)
        assert len(ours.hidden_states) == config.num_hidden_layers + 1
        assert len(ours.attentions) == config.num_hidden_layers
        for name in ("logits", "hidden_states", "attentions"):
            assert_close(getattr(ours, name), getattr(theirs, name), TOLERANCE[dtype])
        fused = without_attentions(network, pixels)
        for name in ("logits", "hidden_states"):
            assert_close(getattr(fused, name), getattr(theirs, name), TOLERANCE[dtype])

    @pytest.mark.parametrize("attention_type", SPACE_TIME)
    def test_encoder_alone(self, attention_type: str) -> None:
        network = build(tiny(attention_type), dtype=torch.float64)
        pixels = clip(network.config, dtype=torch.float64)
        ours = everything(network.timesformer, pixels)
        theirs = everything(counterpart(network).timesformer, pixels)
        assert_close(ours.last_hidden_state, theirs.last_hidden_state, 1e-10)
        assert_close(ours.hidden_states, theirs.hidden_states, 1e-10)

    @pytest.mark.parametrize("attention_type", SPACE_TIME)
    @pytest.mark.parametrize(
        "changes",
        [
            {"num_channels": 1},
            {"qkv_bias": False},
            {"layer_norm_eps": 0.1},
            {"num_frames": 1},
            {"num_hidden_layers": 1, "num_attention_heads": 1},
            {"patch_size": 7},
            {"num_labels": 1},
        ],
        ids=str,
    )
    def test_every_config_field_counts(self, attention_type: str, changes: dict[str, Any]) -> None:
        network = build(tiny(attention_type, **changes), dtype=torch.float64)
        pixels = clip(network.config, dtype=torch.float64)
        ours, theirs = everything(network, pixels), everything(counterpart(network), pixels)
        assert_close(ours.logits, theirs.logits, 1e-10)
        assert_close(ours.hidden_states, theirs.hidden_states, 1e-10)

    @pytest.mark.parametrize("attention_type", SPACE_TIME)
    def test_control_reversed_frames_are_told_apart(self, attention_type: str) -> None:
        network = build(tiny(attention_type))
        pixels = clip(network.config)
        difference = relative_difference(
            everything(network, pixels.flip(1)).logits, everything(counterpart(network), pixels).logits
        )
        assert difference > 1000 * TOLERANCE[torch.float32]

    def test_space_only_layers(self) -> None:
        """transformers leaves out the average over frames; up to there it is right."""
        network = build(tiny("space_only"), dtype=torch.float64)
        pixels = clip(network.config, dtype=torch.float64)
        ours, theirs = everything(network, pixels), everything(counterpart(network), pixels)
        assert_close(ours.hidden_states, theirs.hidden_states, 1e-10)
        assert_close(ours.attentions, theirs.attentions, 1e-10)
        assert theirs.logits.shape == (8, 5)
        assert ours.logits.shape == (2, 5)

    @pytest.mark.parametrize(
        ("attention_type", "frames", "size"),
        [
            ("divided_space_time", 4, (48, 48)),
            ("divided_space_time", 4, (24, 30)),
            ("joint_space_time", 7, (24, 24)),
            ("joint_space_time", 3, (16, 40)),
        ],
    )
    def test_other_sizes_that_transformers_takes(self, attention_type: str, frames: int, size: tuple[int, int]) -> None:
        """It takes few with divided attention: see docs/parity.md."""
        network = build(tiny(attention_type), dtype=torch.float64)
        pixels = clip(network.config, frames=frames, size=size, dtype=torch.float64)
        assert_close(everything(network, pixels).logits, everything(counterpart(network), pixels).logits, 1e-10)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_activation(self, name: str, dtype: torch.dtype) -> None:
        x = torch.linspace(-8, 8, 1001, dtype=dtype)
        assert_close(ACTIVATIONS[name](x), transformers.activations.ACT2FN[name](x), TOLERANCE[dtype] / 100)

    def test_activation_is_the_one_of_the_config(self) -> None:
        network = build(tiny(hidden_act="relu"), dtype=torch.float64)
        pixels = clip(network.config, dtype=torch.float64)
        assert_close(everything(network, pixels).logits, everything(counterpart(network), pixels).logits, 1e-10)

    @pytest.mark.parametrize(
        ("num_labels", "problem_type", "labels"),
        [
            (5, None, torch.tensor([4, 1])),
            (5, None, torch.tensor([[0.0, 1, 1, 0, 1], [1, 0, 0, 0, 0.5]])),
            (1, None, torch.tensor([0.5, -2.0])),
            (1, None, torch.tensor([[0.5], [-2.0]])),
            (5, "single_label_classification", torch.tensor([[4], [1]])),
            (5, "multi_label_classification", torch.eye(5)[:2]),
            (5, "regression", torch.linspace(-1, 1, 10).view(2, 5)),
        ],
    )
    def test_loss(self, num_labels: int, problem_type: str | None, labels: Tensor) -> None:
        network = build(tiny(num_labels=num_labels, problem_type=problem_type))
        pixels = clip(network.config)
        ours, theirs = network(pixels, labels=labels), counterpart(network)(pixels, labels=labels)
        assert ours.loss.shape == ()
        assert_close(ours.loss, theirs.loss.detach(), TOLERANCE[torch.float32])

    def test_starting_weights(self) -> None:
        """Truncated normals of initializer_range, zero biases and time embeddings, norms of one."""
        config = tiny(hidden_size=96, intermediate_size=200, initializer_range=0.05)
        torch.manual_seed(0)
        ours = TimesformerForVideoClassification(config).state_dict()
        theirs = transformers.TimesformerForVideoClassification(
            transformers.TimesformerConfig.from_dict(config.to_dict())
        ).state_dict()
        assert list(ours) == list(theirs)
        for name, tensor in ours.items():
            if theirs[name].numel() > 200 and theirs[name].std() > 0:
                assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=0.3), name
            elif theirs[name].std() == 0:
                assert torch.equal(tensor, theirs[name]), name


class TestTraining:
    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_gradients_equal_those_of_transformers(self, attention_type: str) -> None:
        network = build(tiny(attention_type), dtype=torch.float64)
        other = counterpart(network)
        pixels, labels = clip(network.config, dtype=torch.float64), torch.tensor([0, 3])
        if attention_type == "space_only":  # its logits there are per frame; compare where both still agree
            network(pixels, output_hidden_states=True).hidden_states[-1].square().mean().backward()
            other(pixels, output_hidden_states=True).hidden_states[-1].square().mean().backward()
        else:
            network(pixels, labels=labels).loss.backward()
            other(pixels, labels=labels).loss.backward()
        for (name, ours), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
            if theirs.grad is not None:
                assert relative_difference(ours.grad, theirs.grad) <= 1e-9, name

    @pytest.mark.parametrize("attention_type", ALL_TYPES)
    def test_dropout_sits_where_transformers_has_it(self, attention_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """With dropout and drop path made to scale by what they would keep, both must give the same numbers."""

        def scale(x: Tensor, p: float, training: bool = True, inplace: bool = False) -> Tensor:
            return x * (1 - p) if training else x

        def scale_path(self: Any, x: Tensor, draws: Tensor | None = None) -> Tensor:
            return x * (1 - vars(self).get("p", vars(self).get("drop_prob")))

        rates = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
        network = build(tiny(attention_type, **rates), dtype=torch.float64).train()
        other = counterpart(network).train()
        theirs_path = transformers.models.timesformer.modeling_timesformer.TimesformerDropPath
        for i, layer in enumerate(network.timesformer.encoder.layer):
            # Set here, as the config of transformers 5 takes no drop path but 0 and 1.
            layer.drop_path = DropPath(0.1 * i)
            other.timesformer.encoder.layer[i].drop_path = theirs_path(0.1 * i)
        monkeypatch.setattr(torch.nn.functional, "dropout", scale)
        monkeypatch.setattr(DropPath, "forward", scale_path)
        monkeypatch.setattr(theirs_path, "forward", scale_path)
        pixels = clip(network.config, dtype=torch.float64)
        ours, theirs = everything(network, pixels), everything(other, pixels)
        assert_close(ours.hidden_states, theirs.hidden_states, 1e-10)
        assert_close(ours.attentions, theirs.attentions, 1e-10)
