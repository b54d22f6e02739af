"""Steps of every rule on one network: partial labels, loss scales, gradients and rules that are not sound, groups."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from test_gradient_engine import (
    BATCH_NORM,
    GROUPS,
    RULES,
    TASKS,
    WEIGHTED,
    _network,
    at_representation,
    batch,
    drawn,
    expected_direction,
    explicit,
    flat,
    known,
    network,
    ruled,
    step,
)

from harness.errors import UserError
from transfer.gradients import memory
from transfer.gradients.objective import RunObjective
from transfer.strategies import build_balance
from transfer.strategies.base import JacobianBalance
from transfer.strategies.maxl import Maxl
from transfer.strategies.registry import BALANCES

PARTIAL = (10, 12, 13, 14)  # samples without saliency
AT_REPRESENTATION = [name for name in WEIGHTED if "representation" in BALANCES.get(name).levels
                     and BALANCES.get(name).draws == 1]
TWO_DRAWS = [name for name in RULES if BALANCES.get(name).draws == 2]
DIRECTIONS = [name for name in RULES if name not in WEIGHTED]

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@functools.cache
def few(pieces=1):
    """Parts of two images, without saliency."""
    return batch(_network(BATCH_NORM, TASKS), (10, 13), pieces)


def shared_gradient(transfer, gradients):
    return torch.cat([gradients[value].flatten() for value in transfer.model.shared_parameters()])


def grouped(name, units, **options):
    """The network of the module under a rule on groups of its tasks."""
    transfer = _network(BATCH_NORM, TASKS)
    transfer.balance = build_balance(name, list(units), **options)
    transfer.objective = RunObjective(transfer, transfer.balance, units, transfer.tasks, lambda value: value, 1, seed=0)
    return transfer


# -- labels of some tasks alone -------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_parameters_without_labels_of_a_task(name):
    transfer = ruled(name, level="params")
    parts, losses, rows = known(PARTIAL, transfer.balance.draws)
    _, gradients = step(transfer, parts)
    direction = expected_direction(name, transfer, parts, losses, rows, [True, True, True, False])
    got = shared_gradient(transfer, gradients)
    torch.testing.assert_close(got, direction.to(got), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", AT_REPRESENTATION)
def test_representation_without_labels_of_a_task(name):
    """The problem is that of the other tasks; who is absent keeps the weight that it had."""
    transfer = ruled(name, level="representation")
    parts, losses, parameter_rows = known(PARTIAL)
    rows = at_representation(transfer, parts[0])[0].flatten(1)[:3]
    rule = build_balance(name, list(transfer.tasks))
    with drawn(), rule.restricted(range(3)):
        weights = rule.weights(rows @ rows.T, losses[:3]).double()
    transfer.objective.engine.weights.fill_(7.0)
    _, gradients = step(transfer, parts)
    found = transfer.objective.engine.weights
    torch.testing.assert_close(found[:3], weights, rtol=1e-6, atol=1e-9)
    assert found[3] == 7
    torch.testing.assert_close(shared_gradient(transfer, gradients), weights @ flat(parameter_rows)[:3])


def test_a_task_that_no_solution_was_for_asks_for_one():
    """Between solutions weights stay, but not the 1 of a task that was absent from all of them."""
    transfer = ruled("nash_mtl", update_every=5)
    partial, whole = known(PARTIAL)[0], known()[0]
    engine = transfer.objective.engine
    step(transfer, partial, number=0)
    assert engine.solved.tolist() == [True, True, True, False]
    before = engine.weights.clone()
    step(transfer, partial, number=1)
    assert torch.equal(engine.weights, before)
    step(transfer, whole, number=2)
    rows = flat(known()[2])
    torch.testing.assert_close(engine.weights, build_balance("nash_mtl", list(transfer.tasks)).weights(rows @ rows.T),
                               rtol=1e-6, atol=1e-9)
    after = engine.weights.clone()
    state = transfer.objective.state_dict()
    other = ruled("nash_mtl", update_every=5)
    other.objective.load_state_dict(state)
    step(other, batch(other, [1, 4, 6, 7]), number=3)
    assert torch.equal(other.objective.engine.weights, after)


# -- randomness, scale, memory ----------------------------------------------------------------------------


def test_each_step_draws_its_own():
    transfer = ruled("graddrop", level="params")
    parts = few()
    first, second, again = (shared_gradient(transfer, step(transfer, parts, number)[1]) for number in (0, 1, 0))
    assert torch.equal(first, again) and not torch.allclose(first, second)


@pytest.mark.parametrize("name", RULES)
def test_the_scale_of_losses_is_taken_out(name, monkeypatch):
    """What the rule sees does not depend on it, and all gradients carry it once."""
    found = []
    for scale in (None, 1024.0):
        transfer = ruled(name)
        monkeypatch.setattr(transfer, "scale", lambda scale=scale: None if scale is None else torch.tensor(scale))
        found.append(step(transfer, few(transfer.balance.draws))[1])
        if not transfer.objective.engine.jacobian_rule:
            found[-1] = {"weights": transfer.objective.engine.weights, **found[-1]}
    plain, scaled = found
    for key, value in plain.items():
        if value is not None:
            torch.testing.assert_close(scaled[key], value if key == "weights" else 1024 * value, rtol=1e-6, atol=1e-9)
    assert any(value is not None and value.any() for key, value in plain.items() if key != "weights")


@pytest.mark.parametrize("free, keeps", [(3.9, False), (4.1, True)])
def test_products_are_held_where_they_take_a_quarter_of_the_memory(free, keeps, monkeypatch):
    shared = _network(BATCH_NORM, TASKS).model.shared_parameters()
    wanted = 4 * sum(value.nbytes for value in shared)
    monkeypatch.setattr(memory.os, "sysconf_names", {"SC_AVPHYS_PAGES": 0}, raising=False)
    monkeypatch.setattr(memory.os, "sysconf", lambda name: int(free * wanted) if name == "SC_AVPHYS_PAGES" else 1,
                        raising=False)
    assert ruled("mgda").objective.engine.keeps == keeps


# -- what is not sound --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, level", [  # the last layer has no gradient where a block begins as the identity
    *((name, "params" if name == "gradnorm" else None) for name in RULES), ("graddrop", "params")])
def test_a_gradient_that_is_not_finite_is_named_and_spoils_the_step(name, level, monkeypatch):
    """Gradients so large that their squares are not: nothing of them is remembered, and the step does not pass."""
    transfer = ruled(name, level=level)
    parts = few(transfer.balance.draws)
    before = {key: torch.as_tensor(value).clone() for key, value in transfer.balance.state_dict().items()}
    loss = transfer.tasks["depth"].loss
    monkeypatch.setattr(transfer.tasks["depth"], "loss", lambda *arguments: loss(*arguments) * 1e200)
    _, gradients = step(transfer, parts)
    assert transfer.objective.trouble == "the gradient of depth is not finite"
    assert not shared_gradient(transfer, gradients).isfinite().any()
    after = transfer.balance.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(torch.as_tensor(after[key]), value) for key, value in before.items())


BAD = [("cagrad", "params", "weights"), ("mgda", "representation", "weights"), ("excess_mtl", "params", "direction"),
       ("graddrop", "representation", "factors")]


@pytest.mark.parametrize("name, level, method", BAD)
def test_what_a_rule_spoils_is_said_of_the_rule(name, level, method, monkeypatch):
    transfer = ruled(name, level=level)
    (part,) = few()
    right = getattr(transfer.balance, method)
    engine = transfer.objective.engine
    with monkeypatch.context() as patch:
        patch.setattr(transfer.balance, method, lambda *given: right(*given) * torch.nan)
        _, gradients = step(transfer, [part])
        what = "a direction that is" if method != "weights" else "weights that are"
        assert transfer.objective.trouble == f"balance '{name}' gave {what} not finite"
        assert not shared_gradient(transfer, gradients).isfinite().any()
        assert engine.weights.tolist() == [1] * 4
        patch.setattr(transfer.balance, method, lambda *given: right(*given)[..., :1])
        with pytest.raises(UserError, match=rf"balance '{name}' gave {method} of shape \[.*1\]: let its method "
                                            rf"{method} return a tensor of shape \[.*\d+\]"):
            step(transfer, [part])
        patch.setattr(transfer.balance, method, lambda *given: right(*given).tolist())
        with pytest.raises(UserError, match=f"gave {method} of type list"):
            step(transfer, [part])
    _, gradients = step(transfer, [part])
    assert not transfer.objective.trouble and shared_gradient(transfer, gradients).isfinite().all()


@pytest.mark.parametrize("other, trouble", [(1.0, ""), (0.0, "balance 'graddrop' gave a direction that is not finite")])
def test_processes_agree_on_a_direction_that_is_not_finite(other, trouble):
    """Where each decides for its own images, a process hears of another's."""
    transfer = ruled("graddrop", per_image=True)
    transfer.objective = RunObjective(transfer, transfer.balance, transfer.units, transfer.tasks,
                                      lambda value: value + other if value.dim() == 0 else value, 2, seed=0)
    step(transfer, few())
    assert transfer.objective.trouble == trouble


@pytest.mark.parametrize("name, options, message", [
    ("graddrop", {"scale_heads": True}, "balance 'graddrop' gives a direction and no weights that could scale .*leave "
                                        "--balance.scale_heads out"),
    ("excess_mtl", {"scale_heads": True}, "leave --balance.scale_heads out"),
    ("mgda_ub", {"mode": "kept"}, "balance 'mgda_ub' looks at gradients at level 'representation', .*leave "
                                  "--balance.mode out, or set --balance.level params"),
    ("gradnorm", {"mode": "lean"}, "at level 'last', .*leave --balance.mode out"),
    ("cagrad", {"importance": {"depth": -1.0}}, "balance.importance of depth is -1.0: set it to 0 or more"),
    ("equal", {"importance": {"depth": float("nan")}}, "balance.importance of depth is nan: set it to 0 or more"),
])
def test_options_without_effect_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        ruled(name, **options)


# -- what is logged -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWO_DRAWS)
def test_rules_on_two_parts_log_the_gradients_of_the_whole_batch(name):
    transfer = ruled(name)
    parts, _, rows = known(pieces=2)
    rows, names = flat(rows), list(transfer.tasks)
    step(transfer, parts)
    told = transfer.objective.log_values(torch.ones(4))
    assert told["gradient_norm"] == pytest.approx(dict(zip(names, rows.norm(dim=1).tolist(), strict=True)))
    for pair, cosine in told["cosine"].items():
        i, j = map(names.index, pair.split("|"))
        assert cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0)))
    assert len(told["cosine"]) == 6
    assert told["conflicts"] == pytest.approx(sum(value < 0 for value in told["cosine"].values()) / 6)


# -- groups and importance ------------------------------------------------------------------------------------

UNITS = {"semseg+depth": ["semseg", "depth"], "normals": ["normals"], "saliency": ["saliency"]}
IMPORTANCE = {"semseg": 9.0, "normals": 0.5}
GIVEN = torch.tensor([9.0, 1.0, 0.5, 1.0]).double()


@pytest.mark.parametrize("name, level, alone", [("cagrad", "params", False), ("pcgrad", "params", False),
                                                ("cagrad", "params", True), ("cagrad", "representation", False)])
def test_a_group_is_the_weighted_sum_of_its_tasks(name, level, alone):
    """Its loss is Σ_t (i_t / ī) L_t, and what the rule gives it is multiplied by ī."""
    transfer = grouped(name, UNITS, importance=IMPORTANCE, level=level)
    if alone:  # as with a partition
        transfer.objective.engine.per_task, transfer.objective.engine.cuts = True, False
    parts, losses, rows = known()
    rows, inside, outside = flat(rows), GIVEN / torch.tensor([5.0, 5.0, 0.5, 1.0]), torch.tensor([5.0, 0.5, 1.0])
    sums = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).double() * inside
    seen = at_representation(transfer, parts[0])[0].flatten(1) if level == "representation" else rows
    seen = sums @ seen
    with drawn():
        weights = build_balance(name, list(UNITS)).weights(seen @ seen.T).double() * outside
    transfer.model.zero_grad(set_to_none=True)
    found = transfer.objective.accumulate(parts, list(transfer.tasks))
    torch.testing.assert_close(torch.stack([found[task] for task in transfer.tasks]), losses)  # as they are
    gradients = {value: value.grad for value in transfer.model.parameters()}
    torch.testing.assert_close(shared_gradient(transfer, gradients), weights @ sums @ rows, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(transfer.objective.engine._losses, sums @ losses)
    for factor, task in zip(GIVEN.tolist(), transfer.tasks, strict=True):
        own = transfer.model.task_parameters(task)
        for value, gradient in zip(own, explicit(transfer, parts, own, [task])[1][0], strict=True):
            torch.testing.assert_close(gradients[value], factor * gradient)


@pytest.mark.parametrize("name, factor", [("equal", 1), ("fixed", 1), ("uncertainty", 0.5), ("mgda", 1)])
def test_one_group_is_the_sum_of_all_as_they_are_weighed(name, factor):
    transfer = grouped(name, {"all": list(_network(BATCH_NORM, TASKS).tasks)}, importance=IMPORTANCE)
    parts, _, rows = known()
    transfer.model.zero_grad(set_to_none=True)
    transfer.objective.accumulate(parts, list(transfer.tasks))
    gradients = {value: value.grad for value in transfer.model.parameters()}
    torch.testing.assert_close(shared_gradient(transfer, gradients), factor * GIVEN @ flat(rows))


def test_the_look_ahead_of_maxl_weighs_tasks_of_a_group():
    balance = build_balance("fixed", list(UNITS), importance=IMPORTANCE, weights={"semseg+depth": 2.0})
    schedule = SimpleNamespace(training=SimpleNamespace(balance=balance, groups=UNITS))
    found = Maxl._weights(schedule, torch.zeros(()))
    assert {task: float(value) for task, value in found.items()} == {
        "semseg": 18, "depth": 2, "normals": 0.5, "saliency": 1}


# -- other forwards -----------------------------------------------------------------------------------------


def test_losses_seen_again_differ_by_the_step_alone(monkeypatch):
    """With dropout and batch norm, and no step between: the same losses, and averages that moved once."""
    transfer = ruled("famo")
    (part,) = few()
    model, seen = transfer.model, []
    drop = model.encoder.backbone.layer1.register_forward_hook(
        lambda module, inputs, output: torch.nn.functional.dropout(output, 0.5))
    monkeypatch.setattr(transfer.balance, "after_step", seen.append)
    counts = [value for name, value in model.named_buffers() if name.endswith("num_batches_tracked")]
    before = [int(value) for value in counts]
    try:
        first = step(transfer, [part])[0]
        buffers = [value.clone() for value in model.buffers()]
        transfer.objective.look_again([part])
    finally:
        drop.remove()
    torch.testing.assert_close(seen, [torch.stack(list(first.values()))])
    assert all(map(torch.equal, model.buffers(), buffers))
    assert before and [int(value) for value in counts] == [value + 1 for value in before]


def test_rules_of_all_kinds_in_bfloat16():
    """Weights, directions and objectives are near those in full precision."""
    rules = [("nash_mtl", None), ("imtl_g", "representation"), ("gradnorm", None), ("excess_mtl", None),
             ("graddrop", "params"), ("uncertainty", None), ("geometric_mean", None)]
    found, states = [], None
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(True)
        transfer = network("--balance.name", "gradnorm", "--mixed_precision", precision, backbone=GROUPS, double=False)
        if states is not None:
            transfer.model.load_state_dict(states)
        states = transfer.model.state_dict()
        parts = batch(transfer, range(4))
        for name, level in rules:
            transfer.balance = build_balance(name, list(transfer.units), level=level)
            transfer.objective = RunObjective(transfer, transfer.balance, transfer.units, transfer.tasks,
                                              lambda value: value, 1, seed=0)
            found.append(shared_gradient(transfer, step(transfer, parts)[1]))
    for (name, _), full, half in zip(rules, found[:len(rules)], found[len(rules):], strict=True):
        least = 0.95 if name == "graddrop" else 0.99  # where signs nearly balance it keeps one or the other
        assert torch.nn.functional.cosine_similarity(full, half, dim=0) > least, name
        assert float(half.norm() / full.norm()) == pytest.approx(1, abs=0.05), name


def test_lists_of_rules():
    assert DIRECTIONS == [name for name in RULES if issubclass(BALANCES.get(name), JacobianBalance)]
    assert set(DIRECTIONS) == {"graddrop", "excess_mtl"} and set(TWO_DRAWS) == {"modo", "sdmgrad"}
