from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from harness.errors import UserError
from harness.loop import flattened
from transfer.gradients.objective import RunObjective
from transfer.gradients.passes import Part
from transfer.strategies import balances, build_balance, partitions, schedules
from transfer.strategies.base import Schedule, Training
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


class Problem(torch.nn.Module):
    """Two quadratic tasks of one parameter vector; a part of a batch is its share of each loss.

    It lends its objective what a run does: see ``transfer.gradients.passes.Passes``.
    """

    def __init__(self, rule, pool=None, processes=1, lr=0.1):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        self.optimizer = torch.optim.SGD([self.value], lr=lr)
        self.calls, units = [], {"a": ["a"], "b": ["b"]}
        self.model = self.wrapped = self
        self.objective = RunObjective(self, rule, units, {"a": None, "b": None}, pool, processes, seed=0)
        self.schedule: Schedule = SCHEDULES.get("shared")(
            Training(self, ["a", "b"], rule, self.objective, self.optimizer, None, {}, 0, units))

    def step(self, shares):
        ones = {name: torch.ones(1) for name in "ab"}
        return self.schedule.step([Part(torch.zeros(1), {}, ones, share, number == len(shares) - 1)
                                   for number, share in enumerate(shares)])

    def forward(self, images, tasks=None):
        return self.value

    def losses_of(self, value, part, tasks):
        losses = {"a": part.share * value.pow(2).sum(), "b": part.share * (value - 3).pow(2).sum()}
        return {task: losses[task] for task in tasks}

    def images(self, part):
        return part.images

    def autocast(self):
        return nullcontext()

    def exchanging(self, last):
        self.calls.append(last)
        return nullcontext()

    def scale(self):
        return None


@pytest.mark.parametrize("parts", [[1.0], [0.5, 0.5], [0.2, 0.3, 0.5]])
def test_shared_is_one_step_on_the_combination_whatever_the_parts(parts):
    problem = Problem(build_balance("fixed", ["a", "b"], weights={"a": 2.0, "b": 0.5}))
    start = problem.value.detach().clone()
    losses = problem.step(parts)
    assert torch.allclose(problem.value.detach(), start - 0.1 * (4 * start + (start - 3)))
    assert losses["a"].item() == pytest.approx(5) and losses["b"].item() == pytest.approx(29)
    assert not losses["a"].requires_grad and problem.value.grad is None
    assert problem.calls == [False] * (len(parts) - 1) + [True]


@pytest.mark.parametrize("rule", ["equal", "fixed", "uncertainty"])
def test_importance_comes_on_top_of_the_rule(rule):
    plain, weighed = (Problem(build_balance(rule, ["a", "b"], **options).double(), lr=1.0)
                      for options in ({}, {"importance": {"a": 3.0, "b": 0.0}}))
    start = plain.value.detach().clone()
    (plain.step([1.0]), weighed.step([1.0]))
    of_a = {"equal": 2, "fixed": 2, "uncertainty": 1}[rule] * start
    assert torch.allclose(weighed.value.detach(), start - 3 * of_a)
    assert not torch.allclose(plain.value, weighed.value)


def test_full_is_the_model_as_it_is():
    model = torch.nn.Linear(1, 1)
    assert PARTITIONS.get("full")(model, seed=0) is model


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
        mine = Square(["a", "b"])
        problem = Problem(mine, lambda x: everything.clone() if x.shape == (2,) else x, processes=2)
        problem.objective.exchange = lambda values: None
        problem.optimizer.zero_grad = lambda **_: None
        problem.step([part])
        gradients.append(problem.value.grad)
        scales.append(mine.scale.grad)
    assert torch.allclose(sum(gradients), whole.grad)
    assert torch.allclose(sum(scales), rule.scale.grad)
    with pytest.raises(UserError, match="set --accumulation 1"):
        problem.step([0.5, 0.5])


@pytest.mark.parametrize("options, message", [
    ({"level": "params"}, "balance.level is params, and balance 'equal' reads the values of losses alone"),
    ({"update_every": 3}, "balance.update_every is 3, and balance 'equal' reads the values of losses alone"),
])
def test_options_of_rules_on_gradients_are_refused_for_rules_on_losses(options, message):
    with pytest.raises(UserError, match=message):
        build_balance("equal", ["a", "b"], **options)


class Taken(Problem):
    """The same under another schedule."""

    def __init__(self, rule, schedule="shared", **options):
        super().__init__(rule, **options)
        units = {"a": ["a"], "b": ["b"]}
        self.schedule = SCHEDULES.get(schedule)(
            Training(self, ["a", "b"], rule, self.objective, self.optimizer, None, {}, 0, units))

    def forward(self, images, tasks=None):
        return SimpleNamespace(value=self.value, of=lambda task: [self.value])

    def losses_of(self, output, part, tasks):
        return super().losses_of(output.value, part, tasks)


RULES = [("magnitude", {"iterations": 2}), ("difficulty", {"every": 2}), ("difficulty", {}), ("dwa", {}),
         ("random_loss", {"seed": 3}), ("loss_ratio", {})]


@pytest.mark.parametrize("name, options", RULES)
def test_rules_count_batches_whatever_the_schedule(name, options):
    """Where nothing moves, a rule has learned the same of batches that tasks share and of turns that they take."""
    states, pieces = [], [1.0] if name == "loss_ratio" else [0.25, 0.75]
    for schedule, shares in (("shared", [1.0]), ("individual", [1.0]), ("individual", pieces)):
        rule = build_balance(name, ["a", "b"], **options)
        rule.wants_indicators = False
        problem = Taken(rule, schedule, lr=0.0)
        for batch in range(5):
            problem.objective.number = batch
            problem.step(shares)
            problem.objective.end_of_batch()
            if batch % 3 == 2:
                problem.objective.end_of_epoch()
        states.append({key: value for key, value in rule.state_dict().items()} | {"epoch": problem.objective.epoch})
        if "steps" in states[-1]:
            assert rule.steps == 5
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        for key, value in states[0].items():
            torch.testing.assert_close(other[key], value, msg=key)


def test_samples_of_a_batch_are_told_of_once():
    """Several forwards of one part, as a schedule under noise makes them, are one batch to the rule."""
    rule = build_balance("magnitude", ["a", "b"])
    problem = Taken(rule)
    ones = {name: torch.ones(1) for name in "ab"}
    for batch in range(2):
        problem.objective.number = batch
        parts = [Part(torch.zeros(1), {"part": number}, ones, share, False) for number, share in enumerate((0.4, 0.6))]
        for task in ("a", "b"):
            for part in parts:
                for _ in range(3):
                    problem.objective.sample(part, [task])
        problem.objective.end_of_batch()
    assert rule.steps == 2 and rule.counts.tolist() == [2, 2]
    torch.testing.assert_close(rule.sums, torch.tensor([10.0, 58.0], dtype=torch.float64))


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
@pytest.mark.parametrize("schedule", ["shared", "individual"])
def test_learned_weights_have_the_gradient_of_the_whole_batch(name, schedule):
    """Whatever the parts, s has that of Σ ½ e^(−s) L + ½ s (or e^s L − s): its own term counts once."""
    moved = []
    for shares in ([1.0], [0.5, 0.5], [0.1, 0.2, 0.7]):
        rule = build_balance(name, ["a", "b"]).double()
        problem = Taken(rule, schedule)
        problem.optimizer.add_param_group({"params": list(rule.parameters())})
        problem.step(shares)
        moved.append([problem.value.detach().clone(), *(value.detach().clone() for value in rule.parameters())])
    (logs,) = build_balance(name, ["a", "b"]).double().parameters()
    losses = torch.tensor([5.0, 29.0]).double()
    if schedule == "individual":  # b is looked at where a's step has led
        slope = {"uncertainty": 0.5, "imtl_l": 1.0}[name]
        value = torch.tensor([1.0, -2.0]).double() * (1 - 0.2 * slope)
        losses[1] = (value - 3).square().sum()
    gradient = {"uncertainty": (1 - losses) / 2, "imtl_l": losses - 1}[name]
    torch.testing.assert_close(moved[0][1], logs.detach() - 0.1 * gradient)
    for other in moved[1:]:
        torch.testing.assert_close(other, moved[0])


def test_lines_for_trackers_have_no_dictionaries():
    line = {"loss": 1.0, "weights": {"depth": 0.5, "edge": 2.0}, "maxl": {"a": {"b": 3}}, "time": {}}
    assert flattened(line) == {"loss": 1.0, "weights/depth": 0.5, "weights/edge": 2.0, "maxl/a/b": 3}
