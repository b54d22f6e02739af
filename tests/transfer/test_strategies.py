from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from transfer.strategies import balances, build_balance, partitions, schedules
from transfer.strategies.base import Schedule
from transfer.strategies.registry import PARTITIONS, SCHEDULES

TASKS = ["semseg", "depth", "normals"]
LOSSES = torch.tensor([1.0, 10.0, 100.0])


def test_names():
    assert {"equal", "fixed"} <= set(balances()) and "shared" in schedules() and "full" in partitions()


def test_equal_is_the_sum():
    assert build_balance("equal", TASKS).total(LOSSES) == 111


def test_fixed_weights():
    rule = build_balance("fixed", TASKS, weights={"depth": 0.5, "normals": 0.0})
    losses = LOSSES.clone().requires_grad_()
    total = rule.total(losses)
    total.backward()
    assert total == 6 and losses.grad.tolist() == [1.0, 0.5, 0.0]
    assert build_balance("fixed", TASKS).total(LOSSES) == 111
    assert rule.total(LOSSES.double()).dtype == torch.float64


@pytest.mark.parametrize("name, options, message", [
    ("fixd", {}, "unknown balance 'fixd' (did you mean 'fixed'?)"),
    ("fixed", {"weight": {}}, "balance 'fixed' has no option 'weight' (did you mean 'weights'?)"),
    ("equal", {"weight": {}}, "balance 'equal' has no option 'weight': it has no options"),
    ("fixed", {"weights": {"dept": 1}}, "balance.weights has a weight for 'dept' (did you mean 'depth'?)"),
    ("fixed", {"weights": {"depth": -1}}, "balance.weights: depth has weight -1: set it to 0 or more"),
])
def test_mistakes_are_named(name, options, message):
    with pytest.raises(UserError) as caught:
        build_balance(name, TASKS, **options)
    assert str(caught.value).startswith(message)


class Problem:
    """Two quadratic tasks of one parameter vector; a part of a batch is its share of each loss."""

    def __init__(self, balance="equal", **options):
        self.value = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        self.optimizer = torch.optim.SGD([self.value], lr=0.1)
        self.calls = []
        self.schedule: Schedule = SCHEDULES.get("shared")(
            self.forward, build_balance(balance, ["a", "b"], **options), self.backward, self.optimizer,
            lambda value: value)

    def forward(self, part, tasks):
        losses = {"a": part * self.value.pow(2).sum(), "b": part * (self.value - 3).pow(2).sum()}
        return {task: losses[task] for task in tasks}

    def backward(self, total, last):
        self.calls.append(last)
        total.backward()


@pytest.mark.parametrize("parts", [[1.0], [0.5, 0.5], [0.2, 0.3, 0.5]])
def test_shared_is_one_step_on_the_combination_whatever_the_parts(parts):
    problem = Problem("fixed", weights={"a": 2.0, "b": 0.5})
    start = problem.value.detach().clone()
    losses = problem.schedule.step(parts, ["a", "b"])
    assert torch.allclose(problem.value.detach(), start - 0.1 * (4 * start + (start - 3)))
    assert losses["a"].item() == pytest.approx(5) and losses["b"].item() == pytest.approx(29)
    assert not losses["a"].requires_grad and problem.value.grad is None
    assert problem.calls == [False] * (len(parts) - 1) + [True]


def test_full_is_the_model_as_it_is():
    model = torch.nn.Linear(1, 1)
    assert PARTITIONS.get("full")(model) is model


def test_a_rule_that_is_not_linear_sees_the_losses_of_the_whole_batch():
    """Σ_t L_t²: two processes that hold a third and two thirds of each loss take the step of one that holds all."""
    from transfer.strategies.base import LossBalance

    class Square(LossBalance):
        def __init__(self, tasks):
            super().__init__(tasks)
            self.scale = torch.nn.Parameter(torch.tensor([2.0, 3.0], dtype=torch.float64))

        def total(self, losses):
            return (self.scale * losses).square().sum()

    start, share = torch.tensor([1.0, -2.0], dtype=torch.float64), [1 / 3, 2 / 3]

    def losses(value, part):
        return {"a": part * value.pow(2).sum(), "b": part * (value - 3).pow(2).sum()}

    whole = start.clone().requires_grad_()
    rule = Square(["a", "b"])
    rule.total(torch.stack(list(losses(whole, 1.0).values()))).backward()
    gradients, scales = [], []
    everything = torch.stack(list(losses(start, 1.0).values()))
    for part in share:
        value, mine = start.clone().requires_grad_(), Square(["a", "b"])
        optimizer = torch.optim.SGD([value], lr=0.0)
        optimizer.zero_grad = lambda **_: None
        pool = lambda x: everything.clone() if x.shape else torch.tensor(2.0, dtype=torch.float64)  # noqa: E731
        schedule = SCHEDULES.get("shared")(lambda p, t, v=value: losses(v, p), mine,
                                           lambda total, last: (total * 2).backward(), optimizer, pool)
        schedule.step([part], ["a", "b"])
        gradients.append(value.grad / 2)  # processes average
        scales.append(mine.scale.grad)
    assert torch.allclose(sum(gradients), whole.grad)
    assert all(torch.allclose(scale, rule.scale.grad) for scale in scales)
    with pytest.raises(UserError, match="set --accumulation 1"):
        schedule.step([0.5, 0.5], ["a", "b"])
