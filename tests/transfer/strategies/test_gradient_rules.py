"""Rules on gradients: properties of all of them at once, then each against a slow reference or a second library."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torchjd import aggregation

from harness.config import Selection, load, selection
from harness.errors import UserError
from transfer.strategies import balances, build_balance
from transfer.strategies.base import BalanceConfig, GradientBalance, GramianBalance
from transfer.strategies.registry import BALANCES
from transfer.strategies.solvers import surgery
from transfer.strategies.solvers.conflict_averse import conflict_averse
from transfer.strategies.solvers.min_norm import frank_wolfe, least_norm
from transfer.strategies.solvers.simplex import project_onto_simplex

RULES = [name for name in balances()
         if isinstance(BALANCES.get(name), type) and issubclass(BALANCES.get(name), GradientBalance)]
GRAMIAN = [name for name in RULES if issubclass(BALANCES.get(name), GramianBalance)]
#: With one task they give a positive multiple of its gradient; all others the gradient itself.
NOT_THE_GRADIENT = {"nash_mtl", "fairgrad", "cagrad"}  # 1 + c times it, for CAGrad
#: Whether the direction of all gradients times s is s^k times theirs.
DEGREE = {"nash_mtl": 0, "fairgrad": 0, "modo": None}
#: Options with which the direction has the same course, if not the same length, when each gradient is scaled by itself.
SAME_COURSE = {"imtl_g": {}, "config": {}, "nash_mtl": {}, "fairgrad": {}}
RANDOM_ORDER = {"pcgrad", "gradvac"}


def names(count):
    return [f"task{number}" for number in range(count)]


def build(name, count=3, **options):
    return build_balance(name, names(count), **options)


def draw(count=3, size=7, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) + shift


def step(rule, jacobian, losses=None, seed=0):
    torch.manual_seed(seed)
    losses = torch.linspace(1.0, 2.0, len(jacobian), dtype=torch.float64) if losses is None else losses
    return rule.combine(jacobian, losses)


def close(one, other, rtol=1e-6, atol=1e-9):
    return torch.allclose(torch.as_tensor(one, dtype=torch.float64), torch.as_tensor(other, dtype=torch.float64),
                          rtol=rtol, atol=atol)


def parallel(one, other, tolerance=1e-6):
    return torch.cosine_similarity(one, other, dim=0) > 1 - tolerance


# -- all at once ------------------------------------------------------------------------------------


def test_all_rules_are_here():
    assert set(RULES) >= {
        "mgda", "mgda_ub", "pcgrad", "graddrop", "gradvac", "cagrad", "nash_mtl", "imtl_g", "aligned_mtl", "fairgrad",
        "upgrad", "sdmgrad", "modo", "excess_mtl", "config", "dualproj", "gradnorm"}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", [0, 1])
def test_one_task(name, seed):
    jacobian = 3 * draw(1, seed=seed)
    rule = build(name, 1)
    for _ in range(3):
        direction = step(rule, jacobian)
        assert parallel(direction, jacobian[0], 1e-12)
        if name not in NOT_THE_GRADIENT:
            assert close(direction, jacobian[0], rtol=1e-9)


@pytest.fixture
def all_orders(monkeypatch):
    """Calls a function once for every combination of random orders of the partners of three tasks."""

    def over(function):
        results = []
        for flips in itertools.product([False, True], repeat=3):
            orders = np.array([[1, 2], [0, 2], [0, 1]])
            for row, flip in enumerate(flips):
                orders[row] = orders[row][::-1] if flip else orders[row]
            monkeypatch.setattr(surgery, "random_orders", lambda count, orders=orders: orders)
            results.append(function())
        return torch.stack(results).mean(0)

    return over


@pytest.mark.parametrize("name", RULES)
def test_tasks_may_be_permuted(name, all_orders):
    """The direction stays and weights move with their tasks; over all orders where these are random."""
    order = [2, 0, 1]

    def run(permuted):
        rule = build(name)
        seen = []
        for number in range(3):
            jacobian, losses = draw(seed=number), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64) / (number + 1)
            jacobian, losses = (jacobian[order], losses[order]) if permuted else (jacobian, losses)
            seen.append(step(rule, jacobian, losses, seed=number))
        last = draw(seed=9)
        if isinstance(rule, GramianBalance):
            gramian = last @ last.T
            gramian = gramian[order][:, order] if permuted else gramian
            losses = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
            torch.manual_seed(0)
            weights = rule.weights(gramian, losses[order] if permuted else losses)
            seen.append(weights if permuted else weights[order])
        return torch.cat(seen)

    average = all_orders if name in RANDOM_ORDER else lambda function: function()
    assert close(average(lambda: run(False)), average(lambda: run(True)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_scaling_all_gradients(name, scale):
    degree = DEGREE.get(name, 1)
    if degree is None:
        pytest.skip("its steps in the weights depend on the size of gradients")
    one, other = build(name), build(name)
    jacobian = draw(shift=0.3)
    assert close(step(one, jacobian) * scale**degree, step(other, scale * jacobian), rtol=1e-4)


@pytest.mark.parametrize("name", SAME_COURSE)
def test_scaling_single_gradients(name):
    jacobian, scale = draw(shift=0.5), torch.tensor([[1e-2], [3.0], [50.0]], dtype=torch.float64)
    options = SAME_COURSE[name]
    assert parallel(step(build(name, **options), jacobian), step(build(name, **options), scale * jacobian))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("zero", [[0], [0, 2], [0, 1, 2]])
def test_gradients_that_are_zero(name, zero):
    rule = build(name)
    jacobian = draw()
    jacobian[zero] = 0
    for number in range(3):
        direction = step(rule, jacobian, seed=number)
        assert torch.isfinite(direction).all()
        if len(zero) == 3:
            assert close(direction, 0)
    assert torch.isfinite(step(rule, draw(seed=5))).all()
    if name in GRAMIAN:
        assert torch.isfinite(rule.weights(jacobian @ jacobian.T, torch.ones(3, dtype=torch.float64))).all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("size", [12, 200])
def test_forty_tasks(name, size):
    rule = build(name, 40)
    for number in range(2):
        assert torch.isfinite(step(rule, draw(40, size, seed=number, shift=0.2), seed=number)).all()


@pytest.mark.parametrize("name", RULES)
def test_losses_and_gradients_that_are_zero(name):
    rule = build(name)
    assert torch.isfinite(step(rule, draw(), torch.zeros(3, dtype=torch.float64))).all()
    assert torch.isfinite(step(rule, draw(), torch.ones(3, dtype=torch.float64))).all()


@pytest.mark.parametrize("name", GRAMIAN)
def test_weights_and_combine_agree(name):
    jacobian, losses = draw(), torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    one, other = build(name), build(name)
    for number in range(3):
        direction = step(one, jacobian, losses, seed=number)
        torch.manual_seed(number)
        before = (jacobian @ jacobian.T).clone()
        gramian = before.clone()
        weights = other.weights(gramian, losses)
        assert weights.dtype == torch.float64 and weights.shape == (3,) and torch.equal(gramian, before)
        assert close(weights @ jacobian, direction, rtol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_float32(name):
    jacobian = draw(shift=0.3)
    direction = step(build(name), jacobian.float())
    assert direction.dtype == torch.float32
    if name != "graddrop":  # it draws numbers of the gradients' type
        assert close(direction.double(), step(build(name), jacobian), rtol=1e-3, atol=1e-3)


def saved(rule):
    file = io.BytesIO()
    torch.save(rule.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def check_round_trip(make):
    one = make()
    for number in range(3):
        step(one, draw(seed=number).float(), seed=number)
    other = make()
    other.load_state_dict(saved(one))
    for number in range(3, 6):
        jacobian = draw(seed=number).float()
        assert torch.equal(step(one, jacobian, seed=number), step(other, jacobian, seed=number))


@pytest.mark.parametrize("name", RULES)
def test_state_round_trip(name):
    check_round_trip(lambda: build(name))


@pytest.mark.parametrize("name", RULES)
def test_tasks_without_labels_are_left_alone(name):
    """A smaller problem changes nothing of the others, and is that of the tasks alone where nothing is remembered."""
    jacobian, losses = draw(), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    rule = build(name)
    step(rule, jacobian, losses)
    before = {key: value.clone() for key, value in rule.state_dict().items()}
    with rule.restricted([0, 2]):
        direction = step(rule, jacobian[[0, 2]], losses[[0, 2]])
    assert torch.isfinite(direction).all() and rule.rows == [0, 1, 2]
    for key, value in rule.state_dict().items():
        assert value.shape == before[key].shape
        assert torch.equal(value[1], before[key][1]), key
    if not before:
        assert close(direction, step(build(name, 2), jacobian[[0, 2]], losses[[0, 2]]))


def test_weights_of_one_sum_stay_one_sum_without_all_tasks():
    for name, buffer in [("sdmgrad", "shares"), ("modo", "shares"), ("excess_mtl", "shares"),
                         ("gradnorm", "task_weights")]:
        rule = build(name)
        total = getattr(rule, buffer).sum()
        for number, rows in enumerate([[0, 1, 2], [1], [0, 2], [1, 2], [0, 1, 2]]):
            with rule.restricted(rows):
                step(rule, draw(seed=number)[rows], torch.rand(len(rows), dtype=torch.float64))
            assert close(getattr(rule, buffer).sum(), total)


@pytest.mark.parametrize("name", ["imtl_g", "config", "aligned_mtl", "upgrad", "nash_mtl", "mgda", "cagrad"])
def test_two_tasks_with_one_gradient_up_to_rounding(name):
    """Rounding of float32 in the Gramian does not become the direction."""
    jacobian = draw(3, 50)
    jacobian[1] = jacobian[0] * (1 + 1e-7 * draw(1, 50, seed=3)[0])
    same = jacobian.clone()
    same[1] = same[0]
    noise = 1e-6 * draw(3, 3, seed=5)
    gramian = jacobian @ jacobian.T * (1 + noise + noise.T)
    direction, expected = build(name).weights(gramian) @ jacobian, step(build(name), same)
    assert close(direction, expected, rtol=1e-2, atol=1e-2 * expected.norm())


# -- numbers ----------------------------------------------------------------------------------------

#: What published programs give for the gradients (−4, 1, 1) and (6, 1, 1), where they agree.
KNOWN = {
    "mgda": ({}, [0.0, 1.0, 1.0]),
    "upgrad": ({}, [0.2929, 1.9004, 1.9004]),
    "dualproj": ({}, [0.5563, 1.1109, 1.1109]),
    "pcgrad": ({}, [0.5848, 3.8012, 3.8012]),
    "gradvac": ({}, [0.5848, 3.8012, 3.8012]),
    "imtl_g": ({}, [0.0767, 1.0, 1.0]),
    "aligned_mtl": ({}, [0.2133, 0.9673, 0.9673]),
    "config": ({}, [0.1588, 2.0706, 2.0706]),
    "nash_mtl": ({}, [0.0542, 0.7061, 0.7061]),
    "cagrad": ({}, [0.1835, 1.2041, 1.2041]),
    "fairgrad": ({}, [0.0766, 0.9985, 0.9985]),
    "graddrop": (None, [6.0, 2.0, 2.0]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_directions(name):
    options, expected = KNOWN[name]
    jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    if options is None:  # either sign, each with its chance
        drawn = torch.stack([step(build(name, 2), jacobian, seed=seed) for seed in range(150)])
        assert (drawn[:, 1:] == 2).all() and set(drawn[:, 0].tolist()) == {-4.0, 6.0}
        assert (drawn[:, 0] == 6).double().mean() == pytest.approx(0.6, abs=0.15)
        return
    assert close(step(build(name, 2, **options), jacobian), expected, rtol=1e-3, atol=1e-4)


SECOND = [
    ("mgda", {}, "MGDA", {"epsilon": 1e-9, "max_iters": 1000}, 2e-2),  # it converges slowly
    ("mgda", {"solver": "frank_wolfe", "iterations": 100, "tolerance": 1e-3}, "MGDA", {}, 1e-9),
    ("imtl_g", {}, "IMTLG", {}, 1e-6),
    ("config", {}, "ConFIG", {}, 1e-6),
    ("aligned_mtl", {}, "AlignedMTL", {}, 1e-6),
    ("aligned_mtl", {"scale_mode": "median"}, "AlignedMTL", {"scale_mode": "median"}, 1e-6),
    ("aligned_mtl", {"scale_mode": "rmse"}, "AlignedMTL", {"scale_mode": "rmse"}, 1e-6),
    ("fairgrad", {}, "FairGrad", {"alpha": 1.0}, 1e-4),
    ("fairgrad", {"alpha": 2.0}, "FairGrad", {"alpha": 2.0}, 1e-4),
    ("fairgrad", {"alpha": 0.0}, "FairGrad", {"alpha": 0.0}, 1e-9),
    ("gradvac", {"beta": 0.3}, "GradVac", {"beta": 0.3}, 1e-6),
    ("modo", {}, "MoDoWeighting", {}, 1e-9),
    ("modo", {"gamma": 0.01, "rho": 0.0}, "MoDoWeighting", {"gamma": 0.01, "rho": 0.0}, 1e-9),
    ("sdmgrad", {}, "SDMGradWeighting", {}, 1e-5),  # which adds 1e-8 to a denominator
    ("sdmgrad", {"lambda_": 0.6, "lr": 0.5, "iterations": 5, "momentum": 0.0}, "SDMGradWeighting",
     {"lambda_": 0.6, "lr": 0.5, "n_iter": 5, "momentum": 0.0}, 1e-6),
    ("excess_mtl", {}, "ExcessMTL", {"n_warmup_steps": 1}, 1e-5),
    ("excess_mtl", {"warmup": 3, "step_size": 0.1}, "ExcessMTL", {"n_warmup_steps": 3, "robust_step_size": 0.1}, 1e-5),
]


@pytest.mark.parametrize("name, options, theirs, their_options, tolerance", SECOND)
@pytest.mark.parametrize("count", [2, 4])
def test_second_library(name, options, theirs, their_options, tolerance, count):
    """Several steps, with what is remembered between them."""
    ours, other = build(name, count, **options), build(f"torchjd:{theirs}", count, **their_options)
    for number in range(5):
        jacobian = draw(count, 9, seed=number, shift=0.2)
        one, two = step(ours, jacobian, seed=number), step(other, jacobian, seed=number)
        assert (one - two).norm() <= tolerance * max(1.0, two.norm())


def test_pcgrad_is_that_of_the_second_library_in_expectation():
    jacobian = draw(3, 5, seed=3)
    drawn = [[step(build(rule), jacobian, seed=seed) for seed in range(100)] for rule in ("pcgrad", "torchjd:PCGrad")]
    ours, theirs = (torch.stack(directions) for directions in drawn)
    error = (ours.var(0) / 100 + theirs.var(0) / 100).sqrt()
    assert ours.var(0).max() > 0 and ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + 1e-9).all()


# -- MGDA -------------------------------------------------------------------------------------------


def quadratic_programme(matrix, linear, constraint=None, lower=0.0):
    """min ½ xᵀMx + lᵀx over x ≥ lower (and Σx = 1), by sequential quadratic programming."""
    count = len(matrix)
    return minimize(lambda x: 0.5 * x @ matrix @ x + linear @ x, np.full(count, 1 / count),
                    jac=lambda x: matrix @ x + linear, bounds=[(low, None) for low in np.broadcast_to(lower, count)],
                    constraints=[{"type": "eq", "fun": lambda x: x.sum() - 1}] if constraint else (),
                    method="SLSQP", options={"ftol": 1e-14, "maxiter": 1000}).x


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_mgda_is_the_quadratic_programmes_solution(count, seed):
    jacobian = draw(count, 10, seed, shift=0.4)
    gramian = jacobian @ jacobian.T
    weights = build("mgda", count).weights(gramian)
    assert weights.min() >= 0 and close(weights.sum(), 1)
    assert close(weights, quadratic_programme(gramian.numpy(), np.zeros(count), True), atol=1e-4)
    direction = weights @ jacobian
    assert ((jacobian @ direction) >= direction.square().sum() * (1 - 1e-9)).all()  # descent, and optimality


@pytest.mark.parametrize("count, size", [(40, 60), (40, 300), (12, 30)])
def test_mgda_descends_on_every_task(count, size):
    jacobian = draw(count, size, shift=0.3)
    direction = step(build("mgda", count), jacobian)
    assert direction.norm() > 1e-3
    assert (jacobian @ direction).min() >= direction.square().sum() * (1 - 1e-6)


@pytest.mark.parametrize("a, b, expected", [
    ([1.0, 0.0], [0.0, 1.0], 0.5), ([1.0, 0.0], [3.0, 0.5], 1.0), ([3.0, 0.5], [1.0, 0.0], 0.0),
    ([2.0, 0.0], [-1.0, 0.0], 1 / 3), ([1.0, 1.0], [1.0, 1.0], 0.5)])
def test_mgda_of_two_tasks_has_a_closed_form(a, b, expected):
    jacobian = torch.tensor([a, b], dtype=torch.float64)
    weights = build("mgda", 2).weights(jacobian @ jacobian.T)
    assert close(weights, [expected, 1 - expected])
    ends = torch.linspace(0, 1, 2001, dtype=torch.float64)
    lengths = (ends[:, None] * jacobian[0] + (1 - ends)[:, None] * jacobian[1]).norm(dim=1)
    assert (weights @ jacobian).norm() <= lengths.min() + 1e-9


def test_frank_wolfe_comes_near():
    jacobian = draw(6, 20, shift=0.4).numpy()
    gramian = jacobian @ jacobian.T
    near, exact = frank_wolfe(gramian, 5000, 1e-9), least_norm(gramian)
    assert np.linalg.norm(near @ jacobian) - np.linalg.norm(exact @ jacobian) < 1e-3
    assert np.linalg.norm(frank_wolfe(gramian, 3, 0.0) @ jacobian) > np.linalg.norm(near @ jacobian)
    assert close(near.sum(), 1) and near.min() >= 0


@pytest.mark.parametrize("normalize", ["l2", "loss", "loss+"])
def test_mgda_of_normalised_gradients_weighs_those_as_they_are(normalize):
    jacobian, losses = draw(), torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    rule = build("mgda", normalize=normalize)
    assert rule.needs_losses == (normalize != "l2")
    scaled = {"l2": jacobian / jacobian.norm(dim=1, keepdim=True), "loss": jacobian / losses[:, None],
              "loss+": jacobian / (jacobian.norm(dim=1) * losses)[:, None]}[normalize]
    weights = rule.weights(jacobian @ jacobian.T, losses)
    assert close(weights, least_norm((scaled @ scaled.T).numpy()))
    assert close(step(rule, jacobian, losses), weights @ jacobian)
    factor = torch.tensor([1e-3, 1.0, 20.0], dtype=torch.float64)
    changed = factor[:, None] * jacobian  # with loss, a task counted in other units; else only its gradient
    assert close(weights, rule.weights(changed @ changed.T, losses * factor if normalize == "loss" else losses))


def test_mgda_says_that_losses_are_missing():
    with pytest.raises(UserError, match="mgda with normalize loss needs the losses of task0, task1, task2"):
        build("mgda", normalize="loss").weights(torch.eye(3, dtype=torch.float64))


def test_mgda_ub_looks_at_the_representation():
    assert build("mgda_ub").level == "representation" and build("mgda").level == "params"
    assert close(step(build("mgda_ub", normalize="l2"), draw()), step(build("mgda", normalize="l2"), draw()))


# -- PCGrad, GradVac, GradDrop ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pcgrad", "gradvac"])
def test_gradients_without_conflict_are_summed(name):
    jacobian = draw().abs()
    assert close(step(build(name), jacobian), jacobian.sum(0))


def slow_surgery(jacobian, orders, change):
    result = []
    for number, gradient in enumerate(jacobian):
        gradient = gradient.clone()
        for partner in orders[number]:
            gradient = change(gradient, jacobian[partner], number, partner)
        result.append(gradient)
    return torch.stack(result).sum(0)


@pytest.mark.parametrize("seed", range(4))
def test_pcgrad_is_its_algorithm(seed):
    jacobian = draw(5, 6, seed)

    def change(gradient, other, *_):
        product = gradient @ other
        return gradient - product / other.square().sum() * other if product < 0 else gradient

    torch.manual_seed(seed)
    orders = surgery.random_orders(5)
    assert sorted(orders[2]) == [0, 1, 3, 4]
    assert close(step(build("pcgrad", 5), jacobian, seed=seed), slow_surgery(jacobian, orders, change))


def test_gradvac_is_its_algorithm():
    rule, usual = build("gradvac", 4, beta=0.2), torch.zeros(4, 4, dtype=torch.float64)
    turned = 0
    for seed in range(6):
        jacobian = draw(4, 6, seed, shift=0.5 - 0.1 * seed)

        def change(gradient, other, number, partner):
            nonlocal turned
            cosine, target = torch.cosine_similarity(gradient, other, dim=0), usual[number, partner].clone()
            usual[number, partner] = 0.8 * target + 0.2 * cosine
            if cosine >= target:
                return gradient
            turned += 1
            gradient = gradient + gradient.norm() * (target * (1 - cosine**2).sqrt() - cosine * (1 - target**2).sqrt()
                                                     ) / (other.norm() * (1 - target**2).sqrt()) * other
            assert close(torch.cosine_similarity(gradient, other, dim=0), target)
            return gradient

        torch.manual_seed(seed)
        expected = slow_surgery(jacobian, surgery.random_orders(4), change)
        assert close(step(rule, jacobian, seed=seed), expected)
    assert turned > 10 and close(rule.similarity, usual)


def slow_graddrop(jacobian, uniform, signs=None, leak=None):
    signed = jacobian if signs is None else jacobian * signs
    result = torch.zeros_like(jacobian[0])
    for column in range(jacobian.shape[1]):
        values = signed[:, column]
        purity = 0.5 * (1 + values.sum() / values.abs().sum()) if values.any() else 0.5
        for row, value in enumerate(values):
            mask = float(value > 0) if purity > uniform[column] else float(value < 0)
            share = leak[row] if leak else 0.0
            result[column] += (share + (1 - share) * mask) * jacobian[row, column]
    return result


@pytest.mark.parametrize("inputs, leak", [(False, None), (True, None), (False, [0.0, 1.0, 0.25]),
                                          (True, [0.5, 0.0, 0.25])])
def test_graddrop_is_its_algorithm(monkeypatch, inputs, leak):
    jacobian, uniform = draw(3, 60), torch.rand(60, dtype=torch.float64)
    jacobian[:, 7] = 0
    monkeypatch.setattr("transfer.strategies.graddrop._uniform", lambda _: uniform)
    rule = build("graddrop", leak=None if leak is None else dict(zip(names(3), leak, strict=True)))
    signs = None
    if inputs:
        rule.inputs = draw(1, 60, seed=4)[0]
        signs = rule.inputs.sign()
    assert close(step(rule, jacobian), slow_graddrop(jacobian, uniform, signs, leak))


def test_graddrop_keeps_one_sign_by_its_share():
    jacobian = torch.tensor([[3.0], [-1.0], [0.0]], dtype=torch.float64).expand(3, 4000).contiguous()
    direction = step(build("graddrop"), jacobian)
    assert set(direction.tolist()) == {3.0, -1.0}
    assert (direction == 3).double().mean() == pytest.approx(0.75, abs=0.03)
    rule = build("graddrop")
    assert rule.level == "representation" and "last" not in rule.levels
    agreeing = draw(3, 50).abs()
    assert close(step(build("graddrop"), agreeing), agreeing.sum(0))


# -- the dual cone ----------------------------------------------------------------------------------


def slow_projection(jacobian, vector):
    """The nearest d to a vector with J d ≥ 0."""
    return minimize(lambda d: 0.5 * ((d - vector) ** 2).sum(), vector, jac=lambda d: d - vector, method="SLSQP",
                    constraints=[{"type": "ineq", "fun": lambda d: jacobian @ d, "jac": lambda d: jacobian}],
                    options={"ftol": 1e-15, "maxiter": 500}).x


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_upgrad_and_dualproj_are_projections(count, seed):
    jacobian = draw(count, 6, seed)
    rows = jacobian.numpy()
    directions = {"dualproj": slow_projection(rows, rows.mean(0)),
                  "upgrad": np.mean([slow_projection(rows, row) for row in rows], axis=0)}
    for name, expected in directions.items():
        direction = step(build(name, count, reg_eps=0.0), jacobian)
        assert close(direction, expected, rtol=1e-4, atol=1e-5)
        assert (jacobian @ direction).min() >= -1e-9
        assert close(step(build(name, count), jacobian), expected, rtol=1e-2, atol=1e-2)
        agreeing = jacobian.abs()
        assert close(step(build(name, count), agreeing), agreeing.mean(0))


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_the_dual_problem_itself(name):
    """min vᵀGv over v ≥ u, with what is added to the diagonal."""
    jacobian = draw(4, 6, seed=2)
    gramian = (jacobian @ jacobian.T).numpy()
    regular = gramian / np.trace(gramian) + 1e-2 * np.eye(4)
    preferences = np.full((1, 4), 0.25) if name == "dualproj" else np.eye(4) / 4
    expected = sum(quadratic_programme(100 * regular, np.zeros(4), lower=u) for u in preferences)
    assert close(build(name, 4, reg_eps=1e-2).weights(torch.from_numpy(gramian)), expected, atol=1e-4)


# -- conditions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_nash_condition(count):
    jacobian = draw(count, 50, shift=0.2)
    gramian = jacobian @ jacobian.T
    weights = build("nash_mtl", count, max_norm=0).weights(gramian)
    assert weights.min() > 0 and close(gramian @ weights, 1 / weights)
    assert close((weights @ jacobian).norm(), math.sqrt(count))
    for longest in (1.0, 0.3):  # the same, shorter
        shorter = build("nash_mtl", count, max_norm=longest).weights(gramian)
        assert close(shorter * math.sqrt(count) / longest, weights)
    assert close(build("nash_mtl", count, max_norm=100).weights(gramian), weights)
    assert close(step(build("nash_mtl", count), jacobian).norm(), 1)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("count", [2, 5, 40])
def test_fairgrad_condition(alpha, count):
    for scale in (1e-4, 1.0, 1e4):
        jacobian = scale * draw(count, 50, shift=0.2)
        gramian = jacobian @ jacobian.T
        weights = build("fairgrad", count, alpha=alpha).weights(gramian)
        assert weights.min() > 0 and close((gramian @ weights) * weights ** (1 / alpha), torch.ones(count))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("ratio", [1e-1, 1e-3, 1e-5])
def test_fairgrad_condition_for_graded_norms(alpha, ratio):
    for count, shift in itertools.product((2, 3, 8), (0.0, 0.3, -0.1)):
        jacobian = torch.logspace(0, math.log10(ratio), count).double()[:, None] * draw(count, 50, count, shift)
        gramian = jacobian @ jacobian.T
        weights = build("fairgrad", count, alpha=alpha).weights(gramian)
        assert weights.min() > 0 and close((gramian @ weights) * weights ** (1 / alpha), torch.ones(count), rtol=1e-7)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("cosine", [-0.5, -0.999, -1.0, -1.0 - 1e-8, 1.0, 1.0 + 1e-8])
def test_fairgrad_of_two_tasks(alpha, cosine):
    """Of one length, so that w^(1 + 1/α) (1 + cos) = 1; opposed ones have no solution, and weights a bound."""
    gramian = torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)
    weights = build("fairgrad", 2, alpha=alpha).weights(gramian)
    power = 1 + 1 / alpha
    assert close(weights[0], weights[1], rtol=1e-3)
    if cosine > -1:
        assert close(weights[0] ** power * (1 + min(cosine, 1.0)), 1.0, rtol=1e-4)
    else:
        assert 1 < weights[0] ** power < 1e11


@pytest.mark.parametrize("count", [2, 3, 6])
def test_imtl_g_and_config_conditions(count):
    jacobian = draw(count, 10)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    weights = build("imtl_g", count).weights(jacobian @ jacobian.T)
    assert close(weights.sum(), 1)
    projections = units @ (weights @ jacobian)
    assert close(projections, projections[:1].expand(count))
    direction = step(build("config", count), jacobian)
    cosines = units @ direction / direction.norm()
    assert close(cosines, cosines[:1].expand(count)) and cosines[0] > 0
    assert close(direction.norm(), (jacobian @ direction).sum() / direction.norm())


def test_aligned_mtl_has_condition_number_one():
    jacobian = draw(4, 9)
    left, values, right = torch.linalg.svd(jacobian, full_matrices=False)
    for mode, square in [("min", values[-1] ** 2), ("median", values.square().median()),
                         ("rmse", values.square().mean())]:
        aligned = square.sqrt() * left @ right
        assert close(step(build("aligned_mtl", 4, scale_mode=mode), jacobian), aligned.mean(0))


@pytest.mark.parametrize("scale_mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("size", [1e-1, 3e-3, 3e-4, 1e-4])
def test_aligned_mtl_counts_small_gradients_that_are_independent(scale_mode, size):
    """A small gradient is no rounding; one that depends on others is, be it small or not."""
    jacobian = torch.tensor([[1.0, 0.0, 0.3], [0.0, size, 0.0]], dtype=torch.float64)
    theirs = aggregation.AlignedMTL(scale_mode=scale_mode)
    assert close(step(build("aligned_mtl", 2, scale_mode=scale_mode), jacobian), theirs(jacobian), rtol=1e-6)
    for factor in (size, -size, 1.0):  # and a third one that is parallel to the first
        more = torch.cat([jacobian, factor * jacobian[:1]])
        assert close(step(build("aligned_mtl", scale_mode=scale_mode), more), theirs(more), rtol=1e-6)
        rounded = more.float() @ more.float().T * (1 + 1e-7 * draw(3, 3, seed=1).float())
        rounded = 0.5 * (rounded + rounded.T).double()
        weights = build("aligned_mtl", scale_mode=scale_mode).weights(rounded)
        assert close(weights @ more, theirs(more), rtol=1e-3)


def test_aligned_mtl_has_these_scales():
    with pytest.raises(UserError, match="balance.scale_mode is 'max': set it to min, median, rmse"):
        build("aligned_mtl", scale_mode="max")


# -- CAGrad -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9, 2.0])
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_cagrad_is_the_best_for_the_worst_task(c, count, shift):
    jacobian = draw(count, 8, seed=count, shift=shift).numpy()
    gramian, center = jacobian @ jacobian.T, jacobian.mean(0)
    radius = c * np.linalg.norm(center)

    def dual(w):
        return w @ jacobian @ center + radius * np.linalg.norm(w @ jacobian)

    solved = minimize(dual, np.full(count, 1 / count), method="SLSQP", bounds=[(0, 1)] * count,
                      constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                      options={"ftol": 1e-14, "maxiter": 500})
    direction = conflict_averse(gramian, c) @ jacobian
    assert np.linalg.norm(direction - center) <= radius * (1 + 1e-6)
    worst = (jacobian @ direction).min()
    assert worst >= solved.fun - 1e-5 * abs(solved.fun) - 1e-7  # weak duality: no direction does better
    assert close(step(build("cagrad", count, c=c), torch.from_numpy(jacobian)), direction)


def test_cagrad_rescaled():
    jacobian = draw()
    plain = step(build("cagrad"), jacobian)
    assert close(step(build("cagrad", rescale="1+c2"), jacobian), 0.8 * plain)
    assert close(step(build("cagrad", rescale="T"), jacobian), 3 * plain)
    assert close(step(build("cagrad", c=0.0), jacobian), jacobian.mean(0))


def test_cagrad_at_a_pareto_stationary_point():
    """The closest to the mean among all that are best: without what the opposed tasks have of it."""
    jacobian = torch.tensor([[1.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 6.0, 0.0]], dtype=torch.float64)
    assert close(step(build("cagrad"), jacobian), [0.0, 2.0, 0.0])
    jacobian[1] = 0  # nothing to do for this one
    assert close(step(build("cagrad"), jacobian), jacobian.mean(0))


# -- with memory ------------------------------------------------------------------------------------


def test_projection_onto_the_simplex():
    for seed in range(20):
        values = 2 * draw(1, 5, seed)[0].numpy()
        assert close(project_onto_simplex(values), quadratic_programme(np.eye(5), -values, True), atol=1e-6)
        for offset in (-1e3, 1e3):  # moving all of them moves nothing
            assert close(project_onto_simplex(values + offset), project_onto_simplex(values))


@pytest.mark.parametrize("size", [1e3, 1e16, 1e17, 1e300])
def test_projection_of_large_values_onto_the_simplex(size):
    assert project_onto_simplex(np.array([1.0, 3.0, -2.0]) * size).tolist() == [0, 1, 0]
    assert project_onto_simplex(np.array([1.0, 1.0, -2.0]) * size).tolist() == [0.5, 0.5, 0]
    assert project_onto_simplex(-np.array([1.0, 1.0]) * size).tolist() == [0.5, 0.5]
    assert np.isnan(project_onto_simplex(np.array([1.0, np.nan]))).all()
    weights = build("modo").weights(size * torch.eye(3, dtype=torch.float64))
    assert close(weights, [1 / 3] * 3)


def test_rules_with_two_draws():
    """Products of two parts of the batch, which are no Gramian."""
    products = draw(3, 3)
    for name, theirs in [("modo", "MoDoWeighting"), ("sdmgrad", "SDMGradWeighting")]:
        rule, other = build(name), build(f"torchjd:{theirs}")
        assert rule.draws == other.draws == 2 and build("mgda").draws == 1
        assert close(rule.weights(products), other.weights(products))


def slow_gradnorm(alpha, lr, norms, losses, optimizer):
    """As the paper writes it, with autograd and an optimiser of torch."""
    weights = torch.ones(len(norms[0]), dtype=torch.float64, requires_grad=True)
    optimizer = optimizer([weights], lr=lr)
    seen = []
    for norm, loss in zip(norms, losses, strict=True):
        seen.append(weights.detach().clone())
        lengths = weights * norm
        ratios = loss / losses[0]
        target = (lengths.mean() * (ratios / ratios.mean()) ** alpha).detach()
        optimizer.zero_grad()
        (lengths - target).abs().sum().backward()
        optimizer.step()
        with torch.no_grad():
            weights *= len(norm) / weights.sum()
    return seen


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_gradnorm_is_its_algorithm(optimizer, alpha):
    norms, losses = 0.5 + draw(6, 3).abs(), 0.5 + draw(6, 3, seed=1).abs()
    made = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    rule = build("gradnorm", alpha=alpha, optimizer=optimizer)
    for norm, loss, expected in zip(norms, losses, slow_gradnorm(alpha, 0.025, norms, losses, made), strict=True):
        angle = draw(3, 4, seed=7)
        rows = angle / angle.norm(dim=1, keepdim=True) * norm[:, None]
        weights = rule.weights(rows @ rows.T, loss)
        assert close(weights, expected) and close(weights.sum(), 3)
    assert rule.level == "last" and rule.scale_heads and rule.needs_losses


def test_gradnorm_starts_from_the_first_loss_of_each_task():
    rule = build("gradnorm")
    gramian = torch.eye(3, dtype=torch.float64)
    with rule.restricted([0, 2]):
        rule.weights(gramian[:2, :2], torch.tensor([3.0, 5.0], dtype=torch.float64))
    rule.weights(gramian, torch.tensor([2.0, 7.0, 1.0], dtype=torch.float64))
    assert rule.first_losses.tolist() == [3.0, 7.0, 5.0]
    with pytest.raises(UserError, match="gradnorm needs the losses of task0, task1, task2"):
        rule.weights(gramian)


def test_gradnorm_brings_gradients_to_one_size():
    rule = build("gradnorm", alpha=0.0, lr=0.02)
    gramian = torch.diag(torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64))
    for _ in range(400):
        weights = rule.weights(gramian, torch.ones(3, dtype=torch.float64))
    assert close(weights * gramian.diagonal().sqrt(), torch.full((3,), 12 / 7), rtol=0.05)


def test_excess_mtl_remembers_as_much_as_the_gradients_hold():
    rule = build("excess_mtl")
    assert rule.levels == ("params",) and rule.squares.shape == (3, 0)
    step(rule, draw(3, 11).float())
    fresh = build("excess_mtl")
    fresh.load_state_dict(rule.state_dict())
    assert torch.equal(fresh.squares, draw(3, 11).float().square())
    other = build("excess_mtl", 2)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(rule.state_dict())


# -- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, options, message", [
    ("mgda", {"iterations": 0}, "balance.iterations is 0: set it to a value at least 1"),
    ("cagrad", {"c": -1.0}, "balance.c is -1: set it to a value at least 0"),
    ("gradvac", {"beta": 2.0}, "balance.beta is 2: set it to a value at least 0 and at most 1"),
    ("modo", {"gamma": 0.0}, "balance.gamma is 0: set it to a value greater than 0"),
    ("nash_mtl", {"max_norm": float("nan")}, "balance.max_norm is nan: set it to a value at least 0"),
    ("graddrop", {"leak": {"task3": 0.5}}, "balance.leak has a value for 'task3' (did you mean 'task"),
    ("graddrop", {"leak": {"task0": 1.5}}, "balance.leak of task0 is 1.5: set it to a value at least 0 and at most 1"),
    ("cagrad", {"d": 1.0}, "balance 'cagrad' has no option 'd'"),
])
def test_mistakes_are_named(name, options, message):
    with pytest.raises(UserError) as caught:
        build(name, **options)
    assert str(caught.value).startswith(message)


# -- TorchJD by name --------------------------------------------------------------------------------

REQUIRED = {"Constant": {"weights": [1.0, 2.0, 3.0]}, "FairGrad": {"alpha": 1.0}, "TrimmedMean": {"trim_number": 1},
            "Krum": {"n_byzantine": 0}, "CAGrad": {"c": 0.5}, "CRMOGM": {"weighting": "MGDAWeighting"}}
CLASSES = [name for name in aggregation.__all__
           if name not in ("Aggregator", "Weighting", "WeightedAggregator", "GramianWeightedAggregator")]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_torchjd_is_a_rule(name):
    options = REQUIRED.get(name.removesuffix("Weighting"), {})
    try:
        rule = build(f"torchjd:{name}", **options)
    except UserError as error:
        assert name.removesuffix("Weighting") in ("CAGrad", "UPGrad", "DualProj", "NashMTL")
        assert "torchjd[cagrad]" in str(error) or "GPL: choose '" in str(error) and "tasklift[gpl]" in str(error)
        pytest.skip(str(error))
    assert BALANCES.name_of(type(rule)) == f"torchjd:{name}" and f"torchjd:{name}" in BALANCES
    direction = step(rule, draw())
    assert direction.shape == (7,) and torch.isfinite(direction).all()
    aggregator = getattr(aggregation, name)
    if issubclass(aggregator, aggregation.Aggregator) and not name.startswith(("Constant", "NashMTL")):
        torch.manual_seed(0)
        assert close(direction, aggregator(**options)(draw()))
    check_round_trip(lambda: build(f"torchjd:{name}", **options))


def test_a_class_of_torchjd_has_its_options():
    jacobian = draw()
    expected = aggregation.AlignedMTL(scale_mode="median", pref_vector=torch.tensor([1.0, 2.0, 3.0]).double())(jacobian)
    rule = build("torchjd:AlignedMTL", scale_mode="median", pref_vector=[1.0, 2.0, 3.0])
    assert close(step(rule, jacobian), expected)
    assert "torchjd:AlignedMTL" not in balances() and "torchjd:<ClassName>" in BALANCES.choices()
    smooth = build("torchjd:CRMOGMWeighting", weighting="MGDAWeighting", alpha=1.0)
    first = smooth.weights(jacobian @ jacobian.T)
    assert close(first, build("torchjd:MGDA").weights(jacobian @ jacobian.T))
    other = draw(seed=1)
    assert close(smooth.weights(other @ other.T), first)


@pytest.mark.parametrize("name, options, message", [
    ("torchjd:AlignedMLT", {}, "unknown balance 'torchjd:AlignedMLT' (did you mean 'AlignedMTL'?): TorchJD has"),
    ("torchjd:Aggregator", {}, "unknown balance 'torchjd:Aggregator'"),
    ("torchjd:FairGrad", {}, "balance 'torchjd:FairGrad' needs a value for alpha: set --balance.alpha"),
    ("torchjd:MGDA", {"epsilon": -1.0}, "balance 'torchjd:MGDA': epsilon must be positive"),
    ("torchjd:MGDA", {"eps": 1.0}, "balance 'torchjd:MGDA' has no option 'eps' (did you mean 'epsilon'?)"),
])
def test_mistakes_with_torchjd_are_named(name, options, message):
    with pytest.raises(UserError) as caught:
        build(name, **options)
    assert str(caught.value).startswith(message)


def test_a_problem_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="balance 'torchjd:Krum' with 2 tasks: Parameter `gramian` should have at "):
        step(build("torchjd:Krum", 2, n_byzantine=0), draw(2))


@dataclass
class OnlyBalance:
    """A configuration.

    Args:
        seed: of something.
    """

    balance: Selection = selection(BALANCES, "mgda", common=BalanceConfig)
    seed: int = 0


def test_torchjd_on_the_command_line():
    def read(*words):
        return load(OnlyBalance, ["--balance.name", *words]).balance

    chosen = read("torchjd:AlignedMTL", "--balance.scale_mode", "median", "--balance.pref_vector", "[1, 2]")
    assert chosen.name == "torchjd:AlignedMTL" and chosen.options["scale_mode"] == "median"
    rule = chosen.build(["a", "b"])
    assert rule.function.scale_mode == "median" and rule.function.pref_vector.tolist() == [1.0, 2.0]
    assert read("torchjd:PCD", "--balance.level", "last").options == {"tau": 0.02, "beta": 0.999, "eps": 1e-8}
    assert read("torchjd:FairGrad", "--balance.alpha", "2").options["alpha"] == 2
    with pytest.raises(UserError, match="unknown option --balance.scale_mod"):
        read("torchjd:AlignedMTL", "--balance.scale_mod", "median")
    with pytest.raises(UserError, match="option --balance.scale_mode: .*maximum"):
        read("torchjd:AlignedMTL", "--balance.scale_mode", "maximum")
    with pytest.raises(UserError, match="unknown balance 'torchjd:Aligned' .did you mean 'AlignedMTL'"):
        read("torchjd:Aligned")


@pytest.mark.parametrize("name", RULES)
def test_options_on_the_command_line(name):
    known = load(OnlyBalance, ["--balance.name", name, "--balance.update_every", "3"]).balance
    assert known.common.update_every == 3 and isinstance(known.build(["a", "b"]), GradientBalance)


@pytest.mark.parametrize("name", CLASSES)
def test_the_help_of_torchjds_options_is_plain_text(name):
    text = BALANCES.get(f"torchjd:{name}").__doc__
    assert not any(mark in text for mark in ("`", "\\", ":math", ".. ", "{", "}")), text


def test_mathematics_in_the_help_of_torchjd():
    assert "defaults to [1/m, ..., 1/m]^T in R^m." in BALANCES.get("torchjd:UPGrad").__doc__
    assert "use as lambda_0. If None (default), lambda_0 is set" in BALANCES.get("torchjd:CRMOGMWeighting").__doc__


def test_torchjd_begins_anew_with_another_number_of_tasks():
    rule = build("torchjd:CRMOGMWeighting", weighting="MGDAWeighting")
    jacobian = draw()
    step(rule, jacobian)
    with rule.restricted([0, 2]):
        direction = step(rule, jacobian[[0, 2]])
    assert close(direction, step(build("torchjd:MGDA", 2), jacobian[[0, 2]]))
