"""One step: what micro-batches, weights, numbers that are not finite and too little memory do to it."""

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from testing.networks import build, tiny
from testing.training import CONFIG, batch_of, trainer_of
from timesformer_cli.errors import DeviceError
from timesformer_cli.jobs.finetune.trainer import Batch, Trainee, Trainer, losses

BATCH = batch_of(1, list(range(16)))


def weights_after(trainer: Trainer, batch: Batch = BATCH, epoch: int = 1) -> tuple[Tensor, float]:
    step = trainer.step(batch, epoch, 3)
    assert step.suspects == ()
    return torch.cat([p.detach().flatten() for p in trainer.trainee.model.parameters()]), step.loss


def gradients_of(trainer: Trainer, batch: Batch) -> list[Tensor]:
    trainer.accumulate(batch, 1)
    return [p.grad for p in trainer.trainee.model.parameters() if p.grad is not None]


def relative(ours: list[Tensor], theirs: list[Tensor]) -> float:
    ours_all, theirs_all = (torch.cat([each.flatten() for each in all]) for all in (ours, theirs))
    return float((ours_all - theirs_all).norm() / theirs_all.norm())


@pytest.mark.parametrize("micro_batch", [4, 3, 1])
@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_micro_batches_change_rounding_only(micro_batch: int, checkpointing: Any) -> None:
    whole, small = trainer_of(micro_batch=16), trainer_of(micro_batch=micro_batch, checkpointing=checkpointing)
    assert small.checkpointing == (checkpointing == "on")
    assert relative(gradients_of(small, BATCH), gradients_of(whole, BATCH)) < 1e-6
    losses = [weights_after(trainer_of(micro_batch=size))[1] for size in (16, micro_batch)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_what_is_dropped_belongs_to_epoch_and_sample() -> None:
    first = weights_after(trainer_of())[1]
    assert weights_after(trainer_of())[1] == first
    assert weights_after(trainer_of(), epoch=2)[1] != pytest.approx(first, rel=1e-4)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = Batch(BATCH.pixels[order], BATCH.targets[order], [BATCH.keys[place] for place in order])
    assert weights_after(trainer_of(), shuffled)[1] == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_loss_and_gradient_are_those_of_the_model(multi_label: bool) -> None:
    batch = batch_of(1, list(range(5)), multi_label=multi_label)
    trainer = trainer_of()
    trainer.trainee = Trainee(trainer.trainee.model).train()  # without drop path
    model = copy.deepcopy(trainer.trainee.model)
    expected = model(batch.pixels, labels=batch.targets).loss
    expected.backward()
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    assert relative(gradients_of(trainer, batch), theirs) < 1e-6
    trainer.optimiser.zero_grad()
    assert trainer.step(batch, 1, 1).loss == pytest.approx(expected.item(), rel=1e-6)


def test_weights_count_samples() -> None:
    """Copies that weigh nothing fill up a batch; a weight of two is the sample twice."""
    filled = replace_weights(batch_of(1, [0, 1, 2, 0]), [1, 1, 1, 0], total=3)
    assert relative(gradients_of(trainer_of(), filled), gradients_of(trainer_of(), batch_of(1, [0, 1, 2]))) < 1e-6
    doubled = replace_weights(batch_of(1, [0, 1]), [2, 1], total=3)
    assert relative(gradients_of(trainer_of(), doubled), gradients_of(trainer_of(), batch_of(1, [0, 0, 1]))) < 1e-6
    assert trainer_of().step(doubled, 1, 1).loss == pytest.approx(trainer_of().step(batch_of(1, [0, 0, 1]), 1, 1).loss)


def replace_weights(batch: Batch, weights: list[float], total: float) -> Batch:
    return replace(batch, weights=torch.tensor(weights, dtype=torch.float32), total=total)


def test_losses_of_samples() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    assert torch.allclose(losses(logits, torch.tensor([1, 0])), torch.tensor([math.log(4 / 3), math.log(2.0)]))
    shares = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    expected = torch.tensor([(math.log(2.0) + math.log(4.0)) / 2, math.log(2.0)])
    assert torch.allclose(losses(logits, shares), expected)


def test_the_gradient_is_clipped_as_a_whole() -> None:
    trainer = trainer_of()
    parameters = list(trainer.trainee.model.parameters())
    trainer.optimiser = torch.optim.SGD([{"params": parameters, "lr": 1.0, "peak": 1.0}])
    before = torch.cat([p.detach().flatten().clone() for p in parameters])
    trainer.accumulate(BATCH, 1)
    norm = float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm())
    trainer.optimiser.zero_grad()
    assert norm > 1.5
    step = trainer.step(BATCH, 1, 1)  # the first of nine, one of which warms up
    after = torch.cat([p.detach().flatten() for p in parameters])
    assert float((after - before).norm()) == pytest.approx(1.0, rel=1e-3)
    assert step.gradient == pytest.approx(norm, rel=1e-5)
    assert step.rate == 1.0


class TestNotFinite:
    def test_a_loss_that_is_not_finite_changes_nothing(self) -> None:
        trainer = trainer_of()
        before = copy.deepcopy(trainer.trainee.model.state_dict())
        bad = batch_of(1, list(range(5)))
        bad.pixels[3, 0, 0, 0, 0] = math.inf
        step = trainer.step(bad, 1, 1)
        assert step.suspects == ("3.mp4",)
        line = step.to_dict()
        assert [line[name] for name in ("step", "loss", "rate", "gradient", "applied")] == [1, None, 1e-3, None, False]
        assert all(torch.equal(before[name], value) for name, value in trainer.trainee.model.state_dict().items())
        assert trainer.optimiser.state == {}
        # And nothing of it is left in the next step.
        assert torch.equal(weights_after(trainer)[0], weights_after(trainer_of())[0])

    def test_a_gradient_that_is_not_finite_changes_nothing(self) -> None:
        trainer = trainer_of()
        weight = trainer.trainee.model.classifier.weight
        weight.register_hook(lambda gradient: gradient * math.nan)
        before = weight.detach().clone()
        step = trainer.step(batch_of(1, [0, 1, 0]), 1, 1)
        assert step.suspects == ("0.mp4", "1.mp4")
        assert math.isfinite(step.loss)
        assert torch.equal(weight, before)


class TestMemory:
    @pytest.fixture
    def at_most(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Makes more clips at a time than given, or `checkpointed` ones, too many for the memory, every second time."""

        def limit(clips: int, checkpointed: int) -> None:
            original, calls = Trainee.forward, itertools.count()

            def forward(self: Trainee, pixels: Tensor, draws: Tensor) -> Tensor:
                fits = checkpointed if self.model.timesformer.gradient_checkpointing else clips
                logits = original(self, pixels, draws)
                if len(pixels) > fits and next(calls) % 2:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")
                return logits

            monkeypatch.setattr(Trainee, "forward", forward)

        return limit

    @pytest.mark.parametrize(
        ("clips", "checkpointed", "micro_batch", "checkpointing"),
        [(4, 4, 4, False), (3, 3, 2, False), (1, 8, 2, True), (1, 1, 1, True)],
    )
    def test_the_same_step_with_less_memory(
        self, at_most: Any, clips: int, checkpointed: int, micro_batch: int, checkpointing: bool
    ) -> None:
        expected, _ = weights_after(trainer_of(micro_batch=micro_batch))
        at_most(clips, checkpointed)
        trainer = trainer_of(micro_batch=8)
        found, _ = weights_after(trainer)
        assert (trainer.micro_batch, trainer.checkpointing) == (micro_batch, checkpointing)
        assert torch.equal(found, expected)

    def test_checkpointing_stays_off_if_it_is_to(self, at_most: Any) -> None:
        at_most(1, 0)
        trainer = trainer_of(micro_batch=4, checkpointing="off")
        weights_after(trainer)
        assert (trainer.micro_batch, trainer.checkpointing) == (1, False)

    def test_not_even_one(self, at_most: Any) -> None:
        at_most(0, 0)
        with pytest.raises(DeviceError, match=r"one clip at a time does not fit .* 20 GiB\); try `method=last`"):
            trainer_of().step(BATCH, 1, 1)

    def test_errors_of_a_different_kind_stay(self) -> None:
        trainer = trainer_of()
        with pytest.raises(RuntimeError, match="to have 3 channels"):
            trainer.step(replace(BATCH, pixels=BATCH.pixels[:, :, :2]), 1, 1)


class TestTrainee:
    def test_only_drop_path_is_left_of_dropout(self) -> None:
        config = replace(CONFIG, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, drop_path_rate=0.5)
        model = build(config)
        trainee = Trainee(model).train()
        draws = torch.zeros(16, *trainee.draws_shape(BATCH.pixels))
        assert torch.equal(trainee(BATCH.pixels, draws), trainee.eval()(BATCH.pixels, draws))
        rates = [
            layer.drop_path.p
            for layer in Trainee(build(tiny(num_hidden_layers=3)), drop_path=0.3).model.timesformer.encoder.layer
        ]
        assert rates == pytest.approx([0.0, 0.15, 0.3])

    def test_bf16_is_for_the_trunk_only(self) -> None:
        model = build(CONFIG)
        draws = torch.zeros(16, *Trainee(model).draws_shape(BATCH.pixels))
        plain, rounded = Trainee(model)(BATCH.pixels, draws), Trainee(model, bf16=True)(BATCH.pixels, draws)
        assert rounded.dtype == torch.float32
        assert not torch.equal(rounded, rounded.bfloat16().float())
        assert 1e-4 < relative([rounded.detach()], [plain.detach()]) < 0.2
        rounded.sum().backward()
        assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
