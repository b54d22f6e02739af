"""Schedules against loops written by hand, on small real networks."""

from __future__ import annotations

import copy
import io
from dataclasses import fields
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.config import load, selection
from harness.errors import UserError
from harness.optimization import OptimizerConfig
from transfer.strategies import build_balance, cooperative
from transfer.strategies.base import GramianBalance, LossBalance, Sample, Training
from transfer.strategies.distance import CoveredDistance
from transfer.strategies.divergence import divergence
from transfer.strategies.groups import ScheduleConfig, task_groups
from transfer.strategies.registry import SCHEDULES

TASKS = ["depth", "normals", "semseg"]
SGD = OptimizerConfig("sgd", lr=0.05, weight_decay=0.01, momentum=0.9)
ADAM = OptimizerConfig("adam", lr=0.01, weight_decay=0.01)
PLAIN = OptimizerConfig("sgd", lr=0.1, weight_decay=0.0, momentum=0.0)


class Net(nn.Module):
    """A shared trunk, one layer of which learns three times as fast, and a head per task."""

    def __init__(self, tasks=TASKS):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(5, 2) for task in tasks})
        self.tasks = list(tasks)

    def forward(self, images, tasks):
        features = self.trunk(images)
        return {task: self.heads[task](features) for task in tasks}

    def shared_parameters(self):
        return [] if len(self.tasks) == 1 else list(self.trunk.parameters())

    def task_parameters(self, task):
        own = list(self.heads[task].parameters())
        return [*self.trunk.parameters(), *own] if len(self.tasks) == 1 else own

    def unreached_parameters(self):
        return []

    def parameter_groups(self):
        fast = list(self.trunk[2].parameters())
        rest = [value for value in self.parameters() if all(value is not other for other in fast)]
        return [{"params": rest}, {"params": fast, "lr_scale": 3.0}]


class Divided(Net):
    """Two layers, each of whose outputs are concatenated from the tasks' parts, and heads that read all of it."""

    def __init__(self, tasks=TASKS, spare=False):
        nn.Module.__init__(self)
        self.tasks, width = list(tasks), 2 * len(tasks)
        self.first = nn.ModuleDict({task: nn.Linear(4, 2) for task in tasks})
        self.second = nn.ModuleDict({task: nn.Linear(width, 2) for task in tasks})
        self.heads = nn.ModuleDict({task: nn.Linear(width, 2) for task in tasks})
        self.spare = nn.Parameter(torch.zeros(2)) if spare else None

    def forward(self, images, tasks):
        for layer in (self.first, self.second):
            images = torch.cat([layer[task](images).tanh() for task in self.tasks], 1)
        return {task: self.heads[task](images) for task in tasks}

    def encoder_parameters(self, task):
        return [*self.first[task].parameters(), *self.second[task].parameters()]

    def task_parameters(self, task):
        return list(self.heads[task].parameters())

    def shared_parameters(self):
        return [*self.first.parameters(), *self.second.parameters()]

    def parameter_groups(self):
        return [{"params": list(self.parameters())}]


class FakeObjective:
    """The plain one: a forward and a backward per part; squares of errors, or cross-entropies."""

    def __init__(self, model, balance, groups, kinds):
        self.model, self.balance, self.groups, self.kinds, self.calls = model, balance, groups, kinds, []

    def sample(self, part, tasks):
        images, targets, count = part
        tasks = [task for task in tasks if task in targets]
        predictions = self.model(images, tasks)
        losses = {task: loss(predictions[task], targets[task], self.kinds[task]) * len(images) / count
                  for task in tasks}
        rows = [sum((losses[task] for task in group if task in losses), torch.zeros(()).to(images))
                for group in self.groups.values()]
        return Sample(self.balance.total(torch.stack(rows)), losses, predictions, len(images) / count)

    def accumulate(self, parts, tasks):
        self.calls.append(list(tasks))
        sums = {}
        for part in parts:
            one = self.sample(part, tasks)
            if one.losses:
                one.total.backward()
            for task, value in one.losses.items():
                sums[task] = sums.get(task, 0) + value.detach()
        return sums

    def backward(self, total, parameters):
        total.backward(inputs=list(parameters))

    def exchange(self, parameters):
        pass


def loss(prediction, target, kind):
    if kind == "categorical":
        return nn.functional.cross_entropy(prediction, target)
    return (prediction - target).square().mean()


def batches(count, tasks=TASKS, kinds=None, pieces=1, seed=0, size=6):
    """Batches of random images and targets, cut into parts."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(count):
        images = torch.randn(size, 4, generator=generator, dtype=torch.float64)
        targets = {}
        for task in tasks:
            if (kinds or {}).get(task) == "categorical":
                targets[task] = torch.randint(2, (size,), generator=generator)
            else:
                targets[task] = torch.randn(size, 2, generator=generator, dtype=torch.float64)
        result.append([(part, {task: targets[task].tensor_split(pieces)[i] for task in tasks}, size)
                       for i, part in enumerate(images.tensor_split(pieces))])
    return result


def build(name="individual", recipe=SGD, model=None, balance="equal", groups=None, options=None, sizes=None,
          seed=0, kinds=None, track_distance=False, **rule):
    """A schedule on a small network, of double precision."""
    torch.manual_seed(1)
    model = (Divided() if name == "cooperative" else Net()) if model is None else model
    model = model if hasattr(model, "encode") else model.double()
    names = task_groups(model.tasks, groups, seed)
    rule = balance if isinstance(balance, nn.Module) else build_balance(balance, list(names), **rule)
    kinds = kinds or dict.fromkeys(model.tasks, "gaussian")
    learned = [{"params": list(rule.parameters()), "weight_decay": 0.0}] if list(rule.parameters()) else []
    training = Training(
        model=model, tasks=model.tasks, balance=rule, objective=FakeObjective(model, rule, names, kinds),
        optimizer=recipe.build([*model.parameter_groups(), *learned]), build_optimizer=recipe.build,
        sizes=sizes or dict.fromkeys(model.tasks, 10), seed=seed, groups=names, track_distance=track_distance,
        families=kinds)
    return SCHEDULES.get(name)(training, **(options or {}))


def weights(schedule):
    return {name: value.detach().clone() for name, value in schedule.training.model.named_parameters()}


def run(schedule, data):
    return [schedule.step(parts) for parts in data]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def assert_close(a, b):
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")


def reference(tasks_in_turn, data, optimizers, model, weights=None):
    """Each entry's forward, backward and step, one after another on every batch."""
    for ((images, targets, _),) in data:
        for names, optimizer in zip(tasks_in_turn, optimizers, strict=True):
            for value in model.parameters():
                value.grad = None
            found = model(images, names)
            sum((weights or {}).get(name, 1.0) * loss(found[name], targets[name], "gaussian")
                for name in names).backward()
            optimizer.step()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def fresh(kind=Net, *args):
    torch.manual_seed(1)
    return kind(*args).double()


# -- individual, individual_optimizers ------------------------------------------------------------


@pytest.mark.parametrize("recipe", [PLAIN, SGD, ADAM])
def test_individual_is_the_hand_loop(recipe):
    """Equations 4.4 and 4.6: a step per task, at the newest parameters, with moments in common."""
    data, schedule = batches(4), build("individual", recipe, balance="fixed", weights={"depth": 2.0})
    losses = run(schedule, data)
    model = fresh()
    optimizer = recipe.build(model.parameter_groups())
    expected = reference([[task] for task in TASKS], data, [optimizer] * 3, model, {"depth": 2.0})
    assert_close(weights(schedule), expected)
    assert list(losses[0]) == TASKS and not any(value.requires_grad for value in losses[0].values())
    assert all(value.grad is None for value in schedule.training.model.parameters())


def test_individual_with_sgd_is_equation_4_4():
    """Without anything of torch's optimisers: w ← w − η g_k(w), k = 1 … N."""
    (data,), schedule = batches(1), build("individual", PLAIN, balance="equal")
    model = fresh()
    rates = {id(value): 0.1 * group.get("lr_scale", 1) for group in model.parameter_groups()
             for value in group["params"]}
    schedule.step(data)
    images, targets, _ = data[0]
    for task in TASKS:
        value = loss(model(images, [task])[task], targets[task], "gaussian")
        own = [*model.trunk.parameters(), *model.heads[task].parameters()]
        for parameter, gradient in zip(own, torch.autograd.grad(value, own), strict=True):
            parameter.data -= rates[id(parameter)] * gradient
    assert_close(weights(schedule), {name: value.detach() for name, value in model.named_parameters()})


@pytest.mark.parametrize("recipe", [SGD, ADAM])
def test_individual_optimizers_are_independent(recipe):
    """Equation 4.7: T optimisers, each of what its task reaches."""
    data, schedule = batches(4), build("individual_optimizers", recipe, balance="fixed", weights={"semseg": 0.5})
    run(schedule, data)
    model = fresh()
    optimizers = [recipe.build([
        {"params": [*model.trunk[0].parameters(), *model.heads[task].parameters()]},
        {"params": list(model.trunk[2].parameters()), "lr_scale": 3.0}]) for task in TASKS]
    expected = reference([[task] for task in TASKS], data, optimizers, model, {"semseg": 0.5})
    assert_close(weights(schedule), expected)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in schedule.optimizers]
    assert rates == [[recipe.lr, recipe.lr * 3.0]] * 3
    mixed = build("individual", recipe, balance="fixed", weights={"semseg": 0.5})
    run(mixed, data)
    assert not same(weights(schedule), weights(mixed))


@pytest.mark.parametrize("recipe", [SGD, ADAM])
@pytest.mark.parametrize("name, groups", [("individual", None), ("individual_optimizers", None),
                                          ("individual_optimizers", 1), ("sampled", None)])
def test_one_task_is_the_plain_optimizer(name, groups, recipe):
    data, schedule = batches(4, ["depth"]), build(name, recipe, Net(["depth"]), groups=groups)
    torch.manual_seed(1)
    schedule.training.model.load_state_dict(fresh(Net, ["depth"]).state_dict())
    run(schedule, data)
    model = fresh(Net, ["depth"])
    expected = reference([["depth"]], data, [recipe.build(model.parameter_groups())], model)
    assert same(weights(schedule), expected)


def test_parameters_of_the_balance_have_moments_per_task():
    class Learned(LossBalance):
        def __init__(self, tasks):
            super().__init__(tasks)
            self.logs = nn.Parameter(torch.zeros(len(tasks), dtype=torch.float64))

        def total(self, losses):
            return ((-self.logs).exp() * losses).sum()

    schedule = build("individual_optimizers", ADAM, balance=Learned(TASKS))
    run(schedule, batches(3))
    for optimizer in schedule.optimizers:
        assert optimizer.param_groups[-1]["weight_decay"] == 0
        assert optimizer.param_groups[-1]["params"] == [schedule.training.balance.logs]
    assert (schedule.training.balance.logs > 0.02).all()  # three steps of .01 each


def test_a_task_without_labels_takes_no_step():
    schedule = build("individual_optimizers", ADAM)
    partly = batches(1, ["depth", "semseg"])[0]
    before = weights(schedule)
    losses = schedule.step(partly)
    assert list(losses) == ["depth", "semseg"]
    assert torch.equal(before["heads.normals.weight"], weights(schedule)["heads.normals.weight"])
    assert not schedule.optimizers[1].state


@pytest.mark.parametrize("name", ["individual", "individual_optimizers", "sampled"])
def test_parts_of_a_batch_make_one_step(name):
    whole, cut = build(name), build(name)
    losses = zip(run(whole, batches(3)), run(cut, batches(3, pieces=4)), strict=True)
    assert_close(weights(whole), weights(cut))
    for a, b in losses:
        assert_close(a, b)


# -- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["individual", "individual_optimizers"])
@pytest.mark.parametrize("recipe", [SGD, ADAM])
def test_groups_reach_from_shared_to_individual(name, recipe):
    """Section 4.2.4: one group is MTL-SUS, as many as tasks are MTL-IUS or MTL-IO."""
    data = batches(3)
    one = build(name, recipe, groups=1)
    run(one, data)
    model = fresh()
    expected = reference([TASKS], data, [recipe.build(model.parameter_groups())], model)
    assert_close(weights(one), expected)
    assert one.training.objective.calls == [TASKS] * 3
    many, plain = build(name, recipe, groups=3), build(name, recipe)
    run(many, data), run(plain, data)
    assert same(weights(many), weights(plain))
    assert many.training.groups == plain.training.groups == {task: [task] for task in TASKS}


def test_groups_of_one_optimizer_each():
    data, schedule = batches(3), build("individual_optimizers", ADAM, groups=[["semseg", "depth"]])
    run(schedule, data)
    assert list(schedule.training.groups) == ["semseg+depth", "normals"]
    model = fresh()
    optimizers = [ADAM.build([{"params": [*model.trunk[0].parameters(), *(value for task in tasks for value in
                                                                          model.heads[task].parameters())]},
                              {"params": list(model.trunk[2].parameters()), "lr_scale": 3.0}])
                  for tasks in (["depth", "semseg"], ["normals"])]
    expected = reference([["semseg", "depth"], ["normals"]], data, optimizers, model)
    assert_close(weights(schedule), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 39, 40])
def test_random_groups(count):
    tasks = [f"attribute {i}" for i in range(40)]
    groups = task_groups(tasks, count, 5)
    assert len(groups) == count and sorted(sum(groups.values(), [])) == sorted(tasks)
    sizes = [len(group) for group in groups.values()]
    assert max(sizes) - min(sizes) <= 1
    assert all(name == "+".join(group) for name, group in groups.items())
    firsts = [tasks.index(group[0]) for group in groups.values()]
    assert firsts == sorted(firsts) and all(group == sorted(group, key=tasks.index) for group in groups.values())
    assert groups == task_groups(tasks, count, 5)
    if 1 < count < 39:
        assert groups != task_groups(tasks, count, 6)


def test_given_groups():
    assert task_groups(TASKS, None, 0) == {task: [task] for task in TASKS}
    assert task_groups(TASKS, [["semseg"], ["normals", "depth"]], 0) == {
        "semseg": ["semseg"], "normals+depth": ["normals", "depth"]}
    assert list(task_groups(TASKS, [["semseg", "normals"]], 0)) == ["semseg+normals", "depth"]


@pytest.mark.parametrize("groups, message", [
    (0, "schedule.groups is 0, and there are 3 tasks: give a number from 1 to 3, or lists of names"),
    (4, "schedule.groups is 4, and there are 3 tasks"),
    ([["dept"]], "schedule.groups names 'dept' (did you mean 'depth'?), and the tasks are depth, normals, semseg"),
    ([["depth"], ["normals", "depth"]], "schedule.groups names 'depth' twice: leave it in one group"),
    ([[]], "schedule.groups has [] for a group: give lists of names, such as [[depth, normals]]"),
    (["depth"], "schedule.groups has 'depth' for a group"),
])
def test_impossible_groups(groups, message):
    with pytest.raises(UserError) as caught:
        task_groups(TASKS, groups, 0)
    assert str(caught.value).startswith(message)


def test_names_of_groups_must_differ():
    with pytest.raises(UserError, match="rename a task"):
        task_groups(["a", "b", "a+b"], [["a", "b"]], 0)


@pytest.mark.parametrize("text, groups", [("2", 2), ("null", None), ("[[depth, normals], [semseg]]",
                                                                     [["depth", "normals"], ["semseg"]])])
def test_options_of_every_schedule(text, groups):
    from dataclasses import make_dataclass

    slot = selection(SCHEDULES, "shared", common=ScheduleConfig)
    config = make_dataclass("Config", [("schedule", object, slot)])
    config.__doc__ = "Choices."
    loaded = load(config, [f"--schedule.groups={text}", "--schedule.track_distance=true"])
    assert loaded.schedule.common == ScheduleConfig(groups, True)
    assert [field.name for field in fields(ScheduleConfig)] == ["groups", "track_distance"]


# -- sampled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5, float("inf")])
def test_sampled_frequencies(temperature):
    sizes = dict(zip(TASKS, (1000, 3000, 6000), strict=True))
    schedule = build("sampled", sizes=sizes, options={"temperature": temperature})
    powers = torch.tensor([1000.0, 3000.0, 6000.0], dtype=torch.float64) ** (1 / temperature)
    expected = powers / powers.sum()
    torch.testing.assert_close(torch.from_numpy(schedule.probabilities), expected)
    counts = dict.fromkeys(TASKS, 0)
    for schedule.steps in range(4000):
        counts[schedule.draw()] += 1
    for task, share in zip(TASKS, expected.tolist(), strict=True):
        assert counts[task] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_sampled_steps_are_those_of_the_drawn_tasks():
    data, schedule = batches(8), build("sampled", SGD, sizes={"depth": 30, "normals": 10, "semseg": 0},
                                       groups=[["depth", "semseg"]])
    losses = run(schedule, data)
    drawn = [list(one) for one in losses]
    assert {tuple(names) for names in drawn} == {("depth", "semseg"), ("normals",)}
    model = fresh()
    optimizer = SGD.build(model.parameter_groups())
    for names, parts in zip(drawn, data, strict=True):
        expected = reference([names], [parts], [optimizer], model)
    assert_close(weights(schedule), expected)
    assert drawn == [list(one) for one in run(build("sampled", SGD, sizes=schedule.training.sizes,
                                                    groups=[["depth", "semseg"]]), data)]


@pytest.mark.parametrize("options, sizes, message", [
    ({"temperature": 0.0}, None, "schedule.temperature is 0.0: set it to more than 0"),
    ({"temperature": float("nan")}, None, "schedule.temperature is nan"),
    ({}, dict.fromkeys(TASKS, 0), "schedule 'sampled' draws tasks in proportion to their labels, and none of depth"),
])
def test_sampled_refuses(options, sizes, message):
    with pytest.raises(UserError) as caught:
        build("sampled", options=options, sizes=sizes)
    assert str(caught.value).startswith(message)


# -- cooperative ----------------------------------------------------------------------------------

GIVEN = {"inner_steps": 2, "kl_weight": 0.0, "warmup": 2}
KINDS = {"depth": "gaussian", "normals": "categorical", "semseg": "categorical"}


def algorithm_1(data, noise, groups, *, inner_steps, kl_weight, warmup, bound=0.05, samples=1, vanilla=False, alpha=0.1,
                beta=0.1):
    """The paper's algorithm, literally, on tensors; ``noise`` gives the next ε of a list of names."""
    net = fresh(Divided)
    psi = {name: value.detach().clone() for name, value in net.named_parameters()}
    theta = {group: [name for name in psi for task in tasks if not name.startswith("heads") and f".{task}." in name]
             for group, tasks in groups.items()}
    phi = {group: [name for name in psi for task in tasks if name.startswith(f"heads.{task}.")]
           for group, tasks in groups.items()}
    encoder_order = {group: [name for task in tasks for layer in ("first", "second") for name in psi
                             if name.startswith(f"{layer}.{task}.")] for group, tasks in groups.items()}
    samples = 1 if vanilla else samples

    def add(values, names):
        return values if vanilla else {**values, **{name: values[name] + e for name, e in
                                                    zip(names, noise(names), strict=True)}}

    def objective(values, tasks, parts_of, kl, names):
        total = 0.0
        for images, targets, count in parts_of:
            found = [torch.func.functional_call(net, add(values, names), (images, tasks)) for _ in range(samples)]
            share = len(images) / count
            for task in tasks:
                total = total + share * sum(loss(y[task], targets[task], KINDS[task]) for y in found) / samples
                if kl:
                    ys = [y[task] for y in found]
                    if KINDS[task] == "categorical":
                        ps = [y.softmax(1) for y in ys]
                        mean = sum(ps) / samples
                        term = sum((p * (p / mean).log()).sum(1).mean() for p in ps) / samples
                    else:
                        mean = sum(ys) / samples
                        term = sum(((y - mean) ** 2).sum(1).mean() / 2 for y in ys) / samples
                    total = total + kl * share * term
        return total

    def descend(names, rate, objective_of):
        values = {name: value.clone().requires_grad_(name in names) for name, value in psi.items()}
        gradients = torch.autograd.grad(objective_of(values), [values[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                psi[name] = psi[name] - rate * gradient

    for number, parts in enumerate(data):
        if number < warmup:
            order = [name for group in groups for name in encoder_order[group]]
            descend(list(psi), alpha, partial(objective, tasks=TASKS, parts_of=parts, kl=0.0, names=order))
            continue
        for group, tasks in groups.items():
            last = {name: psi[name] for name in theta[group]}
            for _ in range(inner_steps):
                order = [name for other in groups if other != group for name in encoder_order[other]]
                descend(theta[group] + phi[group], beta,
                        partial(objective, tasks=tasks, parts_of=parts, kl=kl_weight, names=order))
                for name in [] if vanilla else theta[group]:
                    psi[name] = torch.minimum(torch.maximum(psi[name], last[name] - bound), last[name] + bound)
    return psi


@pytest.mark.parametrize("groups, pieces", [(None, 1), ([["depth", "semseg"]], 2), (1, 1)])
@pytest.mark.parametrize("options", [
    {}, {"samples": 3}, {"samples": 3, "kl_weight": 0.7}, {"vanilla": True}, {"bound": 0.003, "samples": 2,
                                                                              "kl_weight": 5.0},
    {"inner_steps": 1, "warmup": 0}, {"warmup_scale": 0.5, "warmup": 5},
])
def test_cooperative_is_algorithm_1(groups, options, pieces, monkeypatch):
    drawn, original = [], cooperative.with_noise

    def spy(values, bound, seed):
        found = original(values, bound, seed)
        drawn.append([one.detach() - value.detach() for one, value in zip(found, values, strict=True)])
        assert all(one.abs().max() <= bound + 1e-12 for one in drawn[-1])
        return found

    monkeypatch.setattr(cooperative, "with_noise", spy)
    options = {**GIVEN, **options}
    data = batches(4, kinds=KINDS, pieces=pieces)
    schedule = build("cooperative", PLAIN, groups=groups, kinds=KINDS, options=options)
    run(schedule, data)
    queue = iter(drawn)
    scale = options.pop("warmup_scale", 1.0)
    expected = algorithm_1(data, lambda names: next(queue), schedule.training.groups, alpha=0.1 * scale, **options)
    assert next(queue, None) is None
    assert_close(weights(schedule), expected)


def test_noise_is_of_the_step_the_task_and_the_sample():
    schedule = build("cooperative", PLAIN, options={**GIVEN, "samples": 2, "warmup": 1})
    seeds, original = [], cooperative.with_noise
    cooperative.with_noise = lambda values, bound, seed: seeds.append(seed) or original(values, bound, seed)
    try:
        run(schedule, batches(3, pieces=2))
    finally:
        cooperative.with_noise = original
    # the parts of a batch see the same noise, and nothing else does
    assert len(seeds) == 2 * len(set(seeds)) and len(set(seeds)) == 2 + 2 * 3 * 2 * 2


def test_noise_is_uniform():
    values = [torch.zeros(300, 50), torch.zeros(7), torch.zeros(())]
    noise = cooperative.with_noise(values, 0.05, 3)
    assert [one.shape for one in noise] == [value.shape for value in values]
    low, high = noise[0][noise[0] < 0], noise[0][noise[0] >= 0]
    assert abs(len(low) - len(high)) < 4 * 15000**0.5
    assert noise[0].std().item() == pytest.approx(0.05 / 3**0.5, rel=0.02) and noise[0].abs().max() <= 0.05
    assert cooperative.with_noise([], 0.05, 3) == []
    assert all(map(torch.equal, noise, cooperative.with_noise(values, 0.05, 3)))
    assert not torch.equal(noise[0], cooperative.with_noise(values, 0.05, 4)[0])


def test_cooperative_clamps_and_touches_nothing_else():
    """A huge learning rate moves each encoder part by b at most, and heads as far as they like."""
    recipe = OptimizerConfig("sgd", lr=10.0, weight_decay=0.0, momentum=0.0)
    schedule = build("cooperative", recipe, options={**GIVEN, "warmup": 0, "inner_steps": 3, "bound": 0.02})
    before = weights(schedule)
    for parts in batches(2):
        last = weights(schedule)
        schedule.step(parts)
        moved = {name: (value - last[name]).abs().max().item() for name, value in weights(schedule).items()}
        encoder = [far for name, far in moved.items() if not name.startswith("heads")]
        assert max(encoder) == pytest.approx(0.02) and max(encoder) <= 0.02 + 1e-12
        assert max(moved.values()) > 0.1
    assert not same(before, weights(schedule))
    assert all(isinstance(value, nn.Parameter) and value.grad is None
               for value in schedule.training.model.parameters())


@pytest.mark.parametrize("options, message", [
    ({}, "schedule 'cooperative' has no published value of --schedule.inner_steps, --schedule.kl_weight, "
         "--schedule.warmup: give your own"),
    ({"inner_steps": 1, "kl_weight": 0.0}, "schedule 'cooperative' has no published value of --schedule.warmup"),
    ({"vanilla": True}, "schedule 'cooperative' has no published value of --schedule.inner_steps, --schedule.warmup"),
    ({**GIVEN, "kl_weight": 0.5}, "schedule.kl_weight is 0.5, and one sample has no divergence from itself: set "
                                  "--schedule.samples to 2 or more"),
    ({**GIVEN, "kl_weight": 0.5, "samples": 2, "vanilla": True}, "schedule.kl_weight is 0.5, and schedule.vanilla"),
    ({**GIVEN, "inner_steps": 0}, "schedule.inner_steps is 0: set it to 1 or more"),
    ({**GIVEN, "kl_weight": -1.0}, "schedule.kl_weight is -1.0: set it to 0 or more"),
    ({**GIVEN, "warmup": -1}, "schedule.warmup is -1: set it to 0 or more"),
    ({**GIVEN, "bound": 0.0}, "schedule.bound is 0.0: set it to more than 0"),
    ({**GIVEN, "samples": 0}, "schedule.samples is 0: set it to 1 or more"),
    ({**GIVEN, "warmup_scale": 0.0}, "schedule.warmup_scale is 0.0: set it to more than 0"),
])
def test_cooperative_refuses_options(options, message):
    with pytest.raises(UserError) as caught:
        build("cooperative", options=options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("model, message", [
    (Net(), "and Net does not divide its encoder among the tasks: choose --model.name cooperative"),
    (Divided(spare=True), "and 1 of Divided belong to no task"),
])
def test_cooperative_refuses_networks(model, message):
    with pytest.raises(UserError, match=message):
        build("cooperative", model=model, options=GIVEN)


def test_cooperative_on_its_architecture():
    """All parts of a real encoder with batch norm, some of them shared out by turns, are trained and restored."""
    from mtl_heads import build_model

    torch.manual_seed(0)
    model = build_model("cooperative", "resnet18", {"depth": 1}, {"scene": 3}, head="linear",
                        backbone_options={"channels": [4, 4, 4, 4], "layers": [1, 1, 1, 1]})

    class Real(FakeObjective):
        def sample(self, part, tasks):
            images, targets, count = part
            predictions = self.model(images, tasks).predictions
            losses = {task: loss(predictions[task], targets[task], self.kinds[task]) for task in tasks}
            return Sample(sum(losses.values()), losses, predictions, 1.0)

    kinds = {"depth": "gaussian", "scene": "categorical"}
    schedule = build("cooperative", PLAIN, model, kinds=kinds,
                     options={**GIVEN, "warmup": 1, "samples": 2, "kl_weight": 1.0})
    objective = schedule.training.objective
    schedule.training.objective = Real(model, objective.balance, objective.groups, kinds)
    images = torch.randn(2, 3, 32, 32)
    parts = [(images, {"depth": torch.randn(2, 1, 32, 32), "scene": torch.tensor([0, 2])}, 2)]
    for _ in range(2):  # the warm-up, then an outer iteration
        before = weights(schedule)
        schedule.step(parts)
        after = weights(schedule)
        assert not [name for name in before if torch.equal(before[name], after[name])]
    encoder = [value for name, value in after.items() if name.startswith("encoder")]
    old = [value for name, value in before.items() if name.startswith("encoder")]
    assert all((a - b).abs().max() <= 0.05 + 1e-6 for a, b in zip(encoder, old, strict=True))


@pytest.mark.parametrize("family", ["categorical", "bernoulli", "gaussian"])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_divergence_is_that_of_the_distributions(family, shape):
    from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

    torch.manual_seed(0)
    samples = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    if family == "categorical":
        rows = [value.movedim(1, -1) for value in samples]
        mean = Categorical(probs=sum(row.softmax(-1) for row in rows) / 3)
        expected = sum(kl_divergence(Categorical(logits=row), mean).mean() for row in rows) / 3
    elif family == "bernoulli":
        mean = Bernoulli(probs=sum(value.sigmoid() for value in samples) / 3)
        expected = sum(kl_divergence(Bernoulli(logits=value), mean).mean() for value in samples) / 3
    else:
        mean = Normal(sum(samples) / 3, 1.0)
        expected = sum(kl_divergence(Normal(value, 1.0), mean).sum(1).mean() for value in samples) / 3
    torch.testing.assert_close(divergence(samples, family), expected)
    assert divergence([samples[0]] * 4, family).abs() < 1e-12
    assert divergence([value.bfloat16() for value in samples], family).dtype is torch.float32
    big = [torch.full(shape, 1e4), torch.full(shape, -1e4)]
    assert divergence(big, family).isfinite()


def test_unknown_family():
    with pytest.raises(UserError, match="family 'poisson': choose one of"):
        divergence([torch.zeros(1, 1)] * 2, "poisson")


# -- covered distance -----------------------------------------------------------------------------


@pytest.mark.parametrize("name, moves", [("individual", 3), ("individual_optimizers", 3), ("sampled", 1),
                                         ("cooperative", 6)])
def test_distances_are_plain_sums(name, moves):
    """Table 4.4: each update step counts, also where several are made on a batch."""
    options = {**GIVEN, "warmup": 0} if name == "cooperative" else {}
    schedule = build(name, SGD, options=options, track_distance=True)
    plain = build(name, SGD, options=options)
    shared = schedule.training.model.shared_parameters()

    def position():
        return torch.cat([value.detach().flatten() for value in shared]).tolist()

    path = [position()]

    class Watched:  # the way of the parameters, as seen by whoever clears gradients after each step
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def __getattr__(self, name):
            return getattr(self.optimizer, name)

        def zero_grad(self, **options):
            self.optimizer.zero_grad(**options)
            path.append(position())

    schedule.training.optimizer = Watched(schedule.training.optimizer)
    if name == "individual_optimizers":
        schedule._optimizers = {group: Watched(one) for group, one in schedule._optimizers.items()}
    data = batches(4)
    run(schedule, data), run(plain, data)
    assert same(weights(schedule), weights(plain)) and plain.log_values() == {}
    assert len(path) == 1 + 4 * moves

    def far(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    covered = sum(far(a, b) for a, b in zip(path, path[1:], strict=False))
    values = schedule.log_values()
    assert values["covered_distance"] == pytest.approx(covered, rel=1e-6)
    assert values["shortest_path"] == pytest.approx(far(path[0], path[-1]), rel=1e-6)
    assert values["distance_ratio"] == pytest.approx(covered / far(path[0], path[-1]), rel=1e-6)


def test_distance_of_nothing():
    assert CoveredDistance([]).log_values() == {}
    still = CoveredDistance([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)])
    with still.step():
        pass
    values = still.log_values()
    assert values["covered_distance"] == values["shortest_path"] == 0 and values["distance_ratio"] != 0
    with pytest.raises(ValueError, match="other shared parameters"):
        still.load_state_dict({"start": [torch.ones(3)], "covered": torch.zeros(())})


# -- resuming, and what cannot be combined ----------------------------------------------------------

EVERY = [("individual", {}), ("individual_optimizers", {}), ("sampled", {"temperature": 2.0}),
         ("cooperative", {**GIVEN, "samples": 2, "kl_weight": 0.3})]


@pytest.mark.parametrize("recipe", [SGD, ADAM])
@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("name, options", EVERY)
def test_resumes_bit_for_bit(name, options, groups, recipe):
    data = batches(6)
    make = partial(build, name, recipe, groups=groups, options=options, track_distance=True)
    whole = make()
    losses = run(whole, data)[3:]
    first = make()
    run(first, data[:3])
    file = io.BytesIO()
    training = first.training
    torch.save([training.model.state_dict(), training.optimizer.state_dict(), first.state_dict()], file)
    file.seek(0)
    model, optimizer, state = torch.load(file, weights_only=True)
    second = make()
    run(second, batches(2, seed=9))  # what was there before is gone
    second.training.model.load_state_dict(model)
    second.training.optimizer.load_state_dict(optimizer)
    second.load_state_dict(state)
    again = run(second, data[3:])
    assert same(weights(second), weights(whole))
    assert all(same(a, b) for a, b in zip(losses, again, strict=True))
    assert second.log_values() == whole.log_values()


class NoWaiting(TorchDispatchMode):
    """Refuses what would wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "the value of a tensor was asked for"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name, options", EVERY)
def test_steps_do_not_wait_for_the_device(name, options, monkeypatch):
    schedule = build(name, SGD, options=options, track_distance=True)
    data = batches(4)
    for method in ("tolist", "numpy", "cpu"):  # what is not dispatched, or tells nothing on a CPU
        monkeypatch.setattr(torch.Tensor, method, None)
    with NoWaiting():
        run(schedule, data)
    with pytest.raises(AssertionError, match="value of a tensor"), NoWaiting():
        float(schedule.distance.covered)


@pytest.mark.parametrize("name, options", EVERY)
def test_state_of_another_schedule_is_refused(name, options):
    schedule = build(name, options=options)
    with pytest.raises(ValueError, match=f"the state of schedule '{name}' has \\['other'\\]"):
        schedule.load_state_dict({"other": 1})


def test_optimizers_of_other_groups_are_refused():
    state = copy.deepcopy(build("individual_optimizers", groups=[["depth", "semseg"]]).state_dict())
    with pytest.raises(ValueError, match="those of the task groups depth\\+semseg, normals"):
        build("individual_optimizers").load_state_dict(state)


class Gradients(GramianBalance):
    def weights(self, gramian, losses=None):
        return torch.ones(len(gramian), dtype=torch.float64)


class Joint(LossBalance):
    separable = False

    def total(self, losses):
        return losses.max()


@pytest.mark.parametrize("name, options", EVERY)
@pytest.mark.parametrize("rule, reason", [(Gradients, "combines the gradients of all tasks in one step"),
                                          (Joint, "needs the losses of all tasks in one step")])
def test_rules_on_all_tasks_need_the_shared_schedule(name, options, rule, reason):
    with pytest.raises(UserError) as caught:
        build(name, balance=rule(TASKS), options=options)
    assert str(caught.value) == (f"balance '{rule.__name__}' {reason}, and schedule '{name}' takes the tasks apart: "
                                 "choose --schedule.name shared, or another balance")


def test_learning_rates_come_back_when_a_step_fails():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(RuntimeError), cooperative._scaled(optimizer, 5.0):
        assert optimizer.param_groups[0]["lr"] == 0.5
        raise RuntimeError
    assert optimizer.param_groups[0]["lr"] == 0.1
