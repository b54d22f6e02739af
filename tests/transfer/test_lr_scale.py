"""Learning rates of their own: really applied, through the schedule, and after a resume."""

from __future__ import annotations

import pytest
import torch

from harness.checkpoint import save_file
from harness.errors import UserError
from harness.optimization import OptimizerConfig

UNITS = ["--model.name=cross_stitch", "--model.lr_multiplier=50"]
OPTIONS = ["--model.head=linear", "--tasks=[depth, normals]",
           "--optimizer.name=sgd", "--optimizer.lr=0.001", "--optimizer.momentum=0", "--optimizer.weight_decay=0",
           "--epochs=4", "--batch_size=4"]


def build(programs, *options):
    """A :class:`Transfer` with the tiny configuration."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    from harness.config import load
    from transfer.config import TransferConfig
    from transfer.engine import Transfer

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Transfer(load(TransferConfig, programs.options("transfer", *OPTIONS, *options)), Accelerator(cpu=True))


def batch(transfer):
    from transfer.data.loading import Augmented, collate

    data = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    return collate([data[0, i] for i in range(4)], transfer.tasks)


def moved(transfer, values):
    """How far parameters move in a step, per unit of gradient."""
    before = [value.detach().clone() for value in values]
    grads = []
    hook = transfer.optimizer.optimizer.register_step_pre_hook(
        lambda *_: grads.extend(value.grad.clone() for value in values))
    transfer.train_step(batch(transfer))
    hook.remove()
    ratios = [((old - new.detach()) * grad).sum() / grad.square().sum()
              for old, new, grad in zip(before, values, grads, strict=True)]
    return torch.stack(ratios)


def test_steps_are_longer(programs, tmp_path):
    """Every step of the exchanges is 50 times the run's, at the beginning, later, and after a resume."""
    transfer = build(programs, *UNITS)
    model = transfer.model

    def values(model):
        return [model.exchanges[0][0].weights["depth"]["normals"].weight], \
               [model.encoders["depth"].backbone["conv1"].weight]

    for epoch in range(2):
        factor = (1 - epoch / 4) ** 0.9
        for value, scale in zip(values(model), (50, 1), strict=True):
            transfer.step = epoch * transfer.batches.steps_per_epoch
            expected = torch.tensor([0.001 * scale * factor])
            torch.testing.assert_close(moved(transfer, value), expected, rtol=0.02, atol=0)
            told = transfer.log_values()
            assert (told["lr"], told["lr_exchanges"]) == pytest.approx((0.001 * factor, 0.05 * factor))
    transfer.step = 2 * transfer.batches.steps_per_epoch
    save_file(tmp_path / "last.pt", transfer.state_dict())
    resumed = build(programs, *UNITS)
    resumed.load_state_dict(tmp_path / "last.pt")
    factor = 0.5**0.9
    for value, scale in zip(values(resumed.model), (50, 1), strict=True):
        resumed.step = 2 * resumed.batches.steps_per_epoch
        expected = torch.tensor([0.001 * scale * factor])
        torch.testing.assert_close(moved(resumed, value), expected, rtol=0.02, atol=0)
    other = build(programs, *UNITS, "--model.lr_multiplier=3", "--optimizer.weight_decay=0.01")
    other.load_state_dict(tmp_path / "last.pt")  # a new run's own recipe holds
    other.train_step(batch(other))
    rates = [group["lr"] for group in other.optimizer.param_groups]
    assert rates == pytest.approx([0.001 * factor, 0.003 * factor])
    assert all(group["weight_decay"] == 0.01 for group in other.optimizer.param_groups)


@pytest.mark.parametrize("name, scale", [("sgd", 100), ("adamw", 1)])
def test_the_log_tells_the_rate_that_the_optimizer_made_of_the_default(programs, name, scale):
    """100 times the run's as published for SGD, and the run's with adaptive optimisers."""
    transfer, plain = (build(programs, model, f"--optimizer.name={name}")
                       for model in (UNITS[0], "--model.name=baseline"))
    for one in (transfer, plain):
        one.train_step(batch(one))
    told = transfer.log_values()
    assert (told["lr"], told["lr_exchanges"]) == pytest.approx((0.001, 0.001 * scale))
    exchanges = {id(value) for value in transfer.model.exchanges.parameters()}
    rates = {group["lr"] for group in transfer.optimizer.param_groups
             for value in group["params"] if id(value) in exchanges}
    assert list(rates) == pytest.approx([0.001 * scale])
    assert "lr_exchanges" not in plain.log_values()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lamb"])
def test_optimizers(name):
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    config = OptimizerConfig(name, lr=0.01, weight_decay=0)
    optimizer = config.build([{"params": [a]}, {"params": [b], "lr_scale": 10.0}])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1])
    (a.sum() + b.sum()).backward()
    optimizer.step()
    torch.testing.assert_close(1 - b.detach(), 10 * (1 - a.detach()), rtol=1e-3, atol=0)
    assert config.build([a]).param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("wrong", ["incomplete", "double"])
def test_groups_must_have_every_parameter_once(programs, monkeypatch, wrong):
    from mtl_heads.model import MultiTaskModel

    def groups(self):
        values = list(self.parameters())
        return [{"params": values[1:]}] if wrong == "incomplete" else [{"params": values}, {"params": values[:1]}]

    monkeypatch.setattr(MultiTaskModel, "parameter_groups", groups)
    with pytest.raises(UserError, match=r"'baseline': parameter_groups\(\) has .* each must be in one group"):
        build(programs, "--model.name=baseline")
