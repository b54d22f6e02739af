"""The engine's gradients are those of an explicit backward pass for every task."""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace

import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from torch.utils.checkpoint import checkpoint
from uneven import GROUPS, make

from benchmarks.strategies import Case, Problem, peak
from harness.errors import UserError
from harness.seeding import derive_seed
from transfer.data.loading import Augmented, collate
from transfer.gradients.buckets import pooled
from transfer.gradients.label_presence import LabelPresence
from transfer.gradients.objective import RunObjective
from transfer.gradients.passes import Part
from transfer.gradients.products import Factored, Formed
from transfer.gradients.pullback import pull_back
from transfer.strategies import balances, build_balance
from transfer.strategies.base import GradientBalance, JacobianBalance
from transfer.strategies.registry import BALANCES

BATCH_NORM = "{channels: [16, 16, 32, 32]}"
TASKS = "[semseg, depth, normals, saliency]"
RULES = [name for name in balances() if issubclass(BALANCES.get(name), GradientBalance)]
LEFT_OUT = {"pad_net": ("--model.head",), "mti_net": ("--model.head", "--model.output_stride")}
WEIGHTED = [name for name in RULES if not issubclass(BALANCES.get(name), JacobianBalance)]


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def network(*options, backbone=BATCH_NORM, double=True, tasks=TASKS, leave_out=()):
    """A run of a tiny batch-norm network, in double precision."""
    transfer = make([backbone, "--tasks", tasks, *options], leave_out=leave_out)
    if double:
        transfer.model.double()
        images = transfer.images
        transfer.images = lambda part: images(part).double()
    return transfer


@functools.cache
def _network(backbone, tasks):
    transfer = network("--balance.name", "gradnorm", backbone=backbone, tasks=tasks)  # it asks for the last layer
    transfer.world = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"), scaler=None,
                                     autocast=contextlib.nullcontext)  # it outlives accelerate's state
    return transfer


def objective_of(transfer):
    return RunObjective(transfer, transfer.balance, transfer.units, transfer.tasks, lambda value: value, 1, seed=0)


def ruled(name, backbone=BATCH_NORM, tasks=TASKS, **options):
    """The one network of the module, which no step is made with, under another rule."""
    transfer = _network(backbone, tasks)
    transfer.balance = build_balance(name, list(transfer.units), **options)
    transfer.objective = objective_of(transfer)
    return transfer


def batch(transfer, indices=range(6), pieces=1):
    """The parts of a batch; samples have labels for some tasks only."""
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    data = collate([samples[0, index] for index in indices], transfer.tasks)
    targets, normalizers = data["targets"], transfer._normalizers(data["targets"])
    cut = {name: value.tensor_split(pieces) for name, value in targets.items()}
    return [Part(images, {name: cut[name][i] for name in cut}, normalizers, 1 / pieces, i == pieces - 1)
            for i, images in enumerate(data["image"].tensor_split(pieces))]


def explicit(transfer, parts, inputs, tasks=None):
    """Losses ``[T]`` and the gradients of each, ``[T][inputs]``, from T backward passes through the whole network."""
    tasks = tasks or list(transfer.tasks)
    losses, rows = torch.zeros(len(tasks)).double(), [[torch.zeros_like(value) for value in inputs] for _ in tasks]
    for part in parts:
        for number, task in enumerate(tasks):
            output = transfer.model(transfer.images(part))
            loss = transfer.losses_of(output, part, [task])[task]
            found = torch.autograd.grad(loss, inputs, allow_unused=True)
            rows[number] = [a if b is None else a + b for a, b in zip(rows[number], found, strict=True)]
            losses[number] += loss.detach()
    return losses, rows


def flat(rows):
    return torch.stack([torch.cat([value.flatten() for value in row]) for row in rows])


def step(transfer, parts, number=0):
    """What the objective puts into .grad."""
    transfer.model.zero_grad(set_to_none=True)
    transfer.objective.number = number
    losses = transfer.objective.accumulate(parts, list(transfer.units))
    return losses, {value: value.grad for value in transfer.model.parameters()}


@contextlib.contextmanager
def drawn(number=0, seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "balance", number))
        yield


@functools.cache
def known(indices=tuple(range(6)), pieces=1):
    """A batch, and its explicit losses and gradients."""
    transfer = _network(BATCH_NORM, TASKS)
    parts = batch(transfer, indices, pieces)
    return parts, *explicit(transfer, parts, transfer.model.shared_parameters())


def label_shares(transfer, parts):
    """Of each task's labels those in each part, ``[parts, T]``."""
    counts = torch.tensor([[float(task.normalizer(part.targets[name]).sum()) for name, task in transfer.tasks.items()]
                           for part in parts])
    return (counts / counts.sum(0).clamp_min(1)).double()


def expected_direction(name, transfer, parts, losses, rows, present):
    """The rule's own ``combine`` on the explicit Jacobian."""
    rule = build_balance(name, list(transfer.tasks))
    chosen = [i for i, there in enumerate(present) if there]
    with drawn(), rule.restricted(chosen):
        if rule.draws == 1:
            return rule.combine(flat(rows)[chosen], losses[chosen])
        shared = transfer.model.shared_parameters()
        first, second = (flat(explicit(transfer, [part], shared)[1]) for part in parts)
        # Each half as if it were the whole batch: divided by its own labels.
        own = label_shares(transfer, parts)[:, :, None]
        whole = [torch.where(own[i] > 0, half / own[i], 0) for i, half in enumerate((first, second))]
        weights = rule.weights((whole[0] @ whole[1].T)[chosen][:, chosen], losses[chosen])
        return weights.to(first) @ (first + second)[chosen]


@pytest.mark.parametrize("mode", ["kept", "lean"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_gets_the_explicit_jacobian(name, mode):
    rule = BALANCES.get(name)
    if mode == "lean" and (issubclass(rule, JacobianBalance) or rule.draws > 1):
        with pytest.raises(UserError, match="cannot run in mode lean"):
            ruled(name, level="params", mode="lean")
        return
    transfer = ruled(name, level="params", mode=mode)
    parts, losses, rows = known(pieces=rule.draws)
    direction = expected_direction(name, transfer, parts, losses, rows, [True] * 4)
    found, gradients = step(transfer, parts)
    assert torch.allclose(torch.stack(list(found.values())), losses)
    shared = transfer.model.shared_parameters()
    got = torch.cat([gradients[value].flatten() for value in shared])
    torch.testing.assert_close(got, direction.to(got), rtol=1e-6, atol=1e-9 * float(direction.abs().max()) + 1e-12)
    weights = transfer.objective.engine.weights if rule.scale_heads else torch.ones(4)
    for weight, task in zip(weights, transfer.tasks, strict=True):
        own = transfer.model.task_parameters(task)
        for value, gradient in zip(own, explicit(transfer, parts, own, [task])[1][0], strict=True):
            torch.testing.assert_close(gradients[value], float(weight) * gradient)


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "graddrop", "gradnorm", "sdmgrad"])
def test_a_task_without_labels_is_left_out(name):
    transfer = ruled(name, level="last" if name == "gradnorm" else "params")
    parts, losses, rows = known((10, 12, 13, 14), transfer.balance.draws)  # no saliency
    assert transfer.objective._present(parts[0], range(4)).tolist() == [True, True, True, False]
    found, gradients = step(transfer, parts)
    assert float(found["saliency"]) == 0
    if name != "gradnorm":
        direction = expected_direction(name, transfer, parts, losses, rows, [True, True, True, False])
        got = torch.cat([gradients[value].flatten() for value in transfer.model.shared_parameters()])
        torch.testing.assert_close(got, direction.to(got), rtol=1e-6, atol=1e-12)
    if not transfer.objective.engine.jacobian_rule:
        assert transfer.objective.engine.weights[3] == 1  # what it had before


@pytest.mark.parametrize("name", WEIGHTED)
def test_representation_level_has_the_gramian_of_the_whole_batch_and_one_encoder_pass(name, monkeypatch):
    if "representation" not in BALANCES.get(name).levels or BALANCES.get(name).draws > 1:
        with pytest.raises(UserError, match="set --balance.level"):
            ruled(name, level="representation")
        return
    transfer = ruled(name, level="representation")
    (part,), losses, parameter_rows = known()
    model = transfer.model
    rows, _ = at_representation(transfer, part)
    rule = build_balance(name, list(transfer.tasks))
    with drawn():
        weights = rule.weights(rows.flatten(1) @ rows.flatten(1).T, losses)
    encodings = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda images: encodings.append(1) or encode(images))
    _, gradients = step(transfer, [part])
    torch.testing.assert_close(transfer.objective.engine.weights, weights.double(), rtol=1e-6, atol=1e-9)
    shared = model.shared_parameters()
    direction = weights.double() @ flat(parameter_rows)
    torch.testing.assert_close(torch.cat([gradients[value].flatten() for value in shared]), direction)
    assert len(encodings) == 1


def at_representation(transfer, part):
    """Gradients ``[T, B, …]`` with respect to the map that the heads read, and that map with its graph."""
    model = transfer.model
    features = model.encode(transfer.images(part))
    leaves = [value.detach().requires_grad_() for value in features]
    losses = transfer.losses_of(model.decode(leaves, part.images.shape[-2:]), part, list(transfer.tasks)).values()
    return torch.stack([torch.autograd.grad(loss, leaves[-1], retain_graph=True)[0] for loss in losses]), features[-1]


def test_graddrop_decides_for_each_image_where_asked():
    """Signs are those of gradient times activation, with one draw for a component."""
    transfer = ruled("graddrop", per_image=True)
    (part,), *_ = known()
    rows, features = at_representation(transfer, part)
    rule = build_balance("graddrop", list(transfer.tasks))
    rule.inputs = features.detach().flatten()
    with drawn():
        cotangent = rule.direction(rows.flatten(1))
    shared = transfer.model.shared_parameters()
    direction = torch.autograd.grad(features, shared, cotangent.view_as(features))
    _, gradients = step(transfer, [part])
    torch.testing.assert_close([gradients[value] for value in shared], list(direction))


@pytest.mark.parametrize("leak", [{}, {"depth": 0.25, "normals": 1.0}])
def test_graddrop_has_one_mask_for_a_place_over_the_batch(leak, monkeypatch):
    """Algorithm 1, place by place: the purity of what is summed over the batch, and masks that all images share."""
    transfer = ruled("graddrop", leak=leak)
    (part,), *_ = known()
    rows, features = at_representation(transfer, part)
    uniform = torch.rand(rows[0, 0].numel(), dtype=torch.float64)
    monkeypatch.setattr("transfer.strategies.graddrop._uniform", lambda sums: uniform)
    inputs = features.detach().flatten(1)  # [B, P]
    gradients, cotangent = rows.flatten(2), torch.zeros_like(inputs)
    leaks = [leak.get(task, 0.0) for task in transfer.tasks]
    for place in range(inputs.shape[1]):
        sums = [sum(float(gradients[t, b, place]) * (-1 if inputs[b, place] < 0 else 1) for b in range(len(inputs)))
                for t in range(4)]
        size = sum(abs(value) for value in sums)
        purity = (1 + sum(sums) / size) / 2 if size else 0.5
        for t, value in enumerate(sums):
            kept = value > 0 if purity > uniform[place] else value < 0
            cotangent[:, place] += (leaks[t] + (1 - leaks[t]) * kept) * gradients[t, :, place]
    shared = transfer.model.shared_parameters()
    direction = torch.autograd.grad(features, shared, cotangent.view_as(features))
    _, found = step(transfer, [part])
    torch.testing.assert_close([found[value] for value in shared], list(direction))
    assert not torch.allclose(cotangent.view_as(features), rows.sum(0))


@pytest.mark.parametrize("options", [["cagrad"], ["gradnorm"], ["mgda_ub"], ["graddrop"],
                                     ["graddrop", ("level", "params")], ["pcgrad", ("level", "last")], ["uncertainty"],
                                     ["imtl_l"], ["uncertainty", ("importance", {"depth": 3.0})]])
def test_accumulation_gives_the_direction_of_the_whole_batch(options):
    """With group norm the images of a batch do not see each other."""
    transfer = ruled(options[0], backbone=GROUPS, **dict(options[1:]))
    whole = step(transfer, batch(transfer))
    learned = [(value, value.grad) for value in transfer.balance.parameters()]
    for value, _ in learned:
        value.grad = None
    # A rule with memory begins again, and parts without labels of a task are among these.
    transfer = ruled(options[0], backbone=GROUPS, **dict(options[1:]))
    parts = step(transfer, batch(transfer, pieces=3))
    for task, loss in whole[0].items():
        torch.testing.assert_close(parts[0][task], loss)
    for value, (_, gradient) in zip(transfer.balance.parameters(), learned, strict=True):
        torch.testing.assert_close(value.grad, gradient)
        assert gradient.any()
    for name, value in transfer.model.named_parameters():
        torch.testing.assert_close(parts[1][value], whole[1][value], msg=name)


def test_running_averages_move_once_whatever_the_passes():
    plain, again = (network("--balance.name", "mgda_ub") for _ in range(2))
    again.model.load_state_dict(plain.model.state_dict())
    for part in batch(plain, pieces=2):
        plain.model(plain.images(part))
    step(again, batch(again, pieces=2))
    for (name, value), other in zip(plain.model.named_buffers(), again.model.buffers(), strict=True):
        torch.testing.assert_close(other, value, msg=name)


@pytest.mark.parametrize("model", ["cross_stitch", "pad_net", "mti_net", "mtan", "branched", "astmt"])
@pytest.mark.parametrize("level", ["params", "last"])
def test_other_architectures(model, level):
    """Encoders of their own, shared parameters in decoders, terms that a model adds to losses."""
    options = {"branched": ["--model.tree", "[[[semseg, depth]], [[semseg, depth]], [[semseg], [depth]], "
                                            "[[semseg], [depth]]]"]}.get(model, [])
    transfer = network("--balance.name", "cagrad", "--balance.level", level, "--model.name", model, *options,
                       tasks="[semseg, depth]", leave_out=LEFT_OUT.get(model, ()))
    parts = batch(transfer)
    shared = transfer.model.shared_parameters()
    chosen = transfer.model.last_shared_parameters() if level == "last" else shared
    _, rows = explicit(transfer, parts, shared)
    counted = flat([[value for value, parameter in zip(row, shared, strict=True)
                     if any(parameter is one for one in chosen)] for row in rows])
    weights = build_balance("cagrad", list(transfer.tasks)).weights(counted @ counted.T)
    _, gradients = step(transfer, parts)
    torch.testing.assert_close(transfer.objective.engine.weights, weights, rtol=1e-6, atol=1e-9)
    for parameter, *values in zip(shared, *rows, strict=True):
        torch.testing.assert_close(gradients[parameter] if gradients[parameter] is not None else 0 * parameter,
                                   sum(w * v for w, v in zip(weights.tolist(), values, strict=True)))
    for task in transfer.tasks:
        own = transfer.model.task_parameters(task)
        for value, gradient in zip(own, explicit(transfer, parts, own, [task])[1][0], strict=True):
            torch.testing.assert_close(gradients[value], gradient)


def test_an_encoder_parameter_of_one_task_has_that_tasks_gradient():
    """A head that reads a map which no other reads: with a neck of laterals, for a dense and an image task."""
    for level in ("params", "representation", "last"):
        transfer = network("--balance.name", "mgda", "--balance.level", level, "--model.neck", "fpn",
                           tasks="[semseg, scene]")
        parts = batch(transfer)
        _, gradients = step(transfer, parts)
        assert transfer.objective.engine._in_encoder
        for task in transfer.tasks:
            own = transfer.model.task_parameters(task)
            for value, gradient in zip(own, explicit(transfer, parts, own, [task])[1][0], strict=True):
                torch.testing.assert_close(gradients[value], gradient)
        AcceleratorState._reset_state(True)


def test_frozen_layers():
    transfer = network("--balance.name", "pcgrad")
    for value in transfer.model.encoder.backbone.conv1.parameters():
        value.requires_grad_(False)
    from transfer.gradients.engine import GradientEngine

    engine = transfer.objective.engine
    transfer.objective.engine = GradientEngine(transfer, transfer.balance, transfer.units, engine.pool, 1, 0)
    parts = batch(transfer)
    _, gradients = step(transfer, parts)
    assert all(gradients[value] is None for value in transfer.model.encoder.backbone.conv1.parameters())
    shared = [value for value in transfer.model.shared_parameters() if value.requires_grad]
    jacobian = flat(explicit(transfer, parts, shared)[1])
    with drawn():
        direction = build_balance("pcgrad", list(transfer.tasks)).combine(jacobian)
    torch.testing.assert_close(torch.cat([gradients[value].flatten() for value in shared]), direction)


@pytest.mark.parametrize("partition", ["task_routing", "squeeze_excite"])
def test_a_forward_for_each_task(partition):
    transfer = network("--balance.name", "cagrad", "--partition.name", partition)
    parts = batch(transfer)
    shared = transfer.model.shared_parameters()
    _, rows = explicit(transfer, parts, shared)
    _, gradients = step(transfer, parts)
    direction = build_balance("cagrad", list(transfer.tasks)).combine(flat(rows))
    got = torch.cat([(gradients[value] if gradients[value] is not None else torch.zeros_like(value)).flatten()
                     for value in shared])
    torch.testing.assert_close(got, direction, rtol=1e-6, atol=1e-9)
    with pytest.raises(UserError, match="a partition gives each task a forward of its own"):
        AcceleratorState._reset_state(True)
        network("--balance.name", "mgda_ub", "--partition.name", partition)


def test_weights_stay_between_solutions():
    transfer = ruled("mgda", update_every=3)
    first, second = batch(transfer), batch(transfer, [1, 4, 6, 7, 8, 9])
    step(transfer, first, number=3)
    weights = transfer.objective.engine.weights.clone()
    _, gradients = step(transfer, second, number=4)
    assert torch.equal(weights, transfer.objective.engine.weights)
    shared = transfer.model.shared_parameters()
    direction = weights @ flat(explicit(transfer, second, shared)[1])
    torch.testing.assert_close(torch.cat([gradients[value].flatten() for value in shared]), direction)
    step(transfer, second, number=6)
    assert not torch.equal(weights, transfer.objective.engine.weights)


def test_a_solution_that_failed_is_not_remembered(monkeypatch):
    transfer = ruled("mgda", update_every=3)
    parts, *_ = known()
    step(transfer, parts, number=0)
    weights = transfer.objective.engine.weights.clone()
    loss = transfer.tasks["depth"].loss
    with monkeypatch.context() as patch:
        patch.setattr(transfer.tasks["depth"], "loss", lambda *arguments: loss(*arguments) * torch.inf)
        step(transfer, parts, number=3)
    assert "depth is not finite" in transfer.objective.trouble
    assert torch.equal(transfer.objective.engine.weights, weights)
    _, gradients = step(transfer, batch(transfer, [1, 4, 6, 7, 8, 9]), number=4)
    assert not transfer.objective.trouble and all(value.isfinite().all() for value in gradients.values()
                                                  if value is not None)
    assert not torch.equal(transfer.objective.engine.weights, weights)  # solved again, out of turn


def test_groups_of_tasks_are_rows():
    transfer = network("--balance.name", "mgda", "--schedule.groups", "[[semseg, depth]]")
    assert list(transfer.units) == ["semseg+depth", "normals", "saliency"]
    parts = batch(transfer)
    shared = transfer.model.shared_parameters()
    losses, rows = explicit(transfer, parts, shared)
    rows = flat(rows)
    transfer.model.zero_grad(set_to_none=True)
    found = transfer.objective.accumulate(parts, transfer.training.tasks)
    assert {task: float(loss) for task, loss in found.items()} == pytest.approx(
        dict(zip(transfer.tasks, losses.tolist(), strict=True)))  # of the tasks, not of the groups
    direction = build_balance("mgda", ["a", "b", "c"]).combine(torch.stack([rows[0] + rows[1], rows[2], rows[3]]))
    torch.testing.assert_close(torch.cat([value.grad.flatten() for value in shared]), direction)


def test_kernels_seen_through_their_factors():
    """A deep, wide layer with few places is never formed, and its numbers are the same."""
    transfer = network("--balance.name", "mgda", backbone="{channels: [16, 32, 64, 128]}")
    seen = []
    gramian = Factored.gramian
    parts = batch(transfer, [1, 2])
    shared = transfer.model.shared_parameters()
    rows = flat(explicit(transfer, parts, shared)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Factored, "gramian", lambda self: seen.append(1) or gramian(self))
        _, gradients = step(transfer, parts)
    assert seen
    torch.testing.assert_close(transfer.objective.engine._gramian, rows @ rows.T)
    direction = build_balance("mgda", list(transfer.tasks)).combine(rows)
    torch.testing.assert_close(torch.cat([gradients[value].flatten() for value in shared]), direction)


class Twice(torch.nn.Module):
    """A kernel used twice, one that scales everything, and a bias that is broadcast."""

    def __init__(self):
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.randn(64, 64, 3, 3).double() / 24)
        self.scale = torch.nn.Parameter(torch.tensor(0.7).double())
        self.bias = torch.nn.Parameter(torch.randn(64, 1, 1).double())

    def forward(self, images):
        once = torch.nn.functional.conv2d(images, self.kernel, padding=1).relu()
        return torch.nn.functional.conv2d(once * self.scale + self.bias, self.kernel, padding=1)


def pulled(outputs, cotangents, parameters):
    found = {}
    pull_back([outputs], [cotangents], parameters, lambda value, products: found.__setitem__(value, products))
    return found


def test_a_kernel_used_twice_is_formed_and_summed():
    torch.manual_seed(0)
    net = Twice()
    outputs = net(torch.randn(1, 64, 2, 2).double())
    cotangents = torch.randn(3, *outputs.shape).double()
    found = pulled(outputs, cotangents, net.parameters())
    for value in net.parameters():
        rows = torch.stack([torch.autograd.grad(outputs, value, one, retain_graph=True)[0] for one in cotangents])
        torch.testing.assert_close(found[value].rows().view_as(rows), rows)
        torch.testing.assert_close(found[value].weighted(torch.ones(3)).view_as(value), rows.sum(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name, size", [("mobilenetv3_small_050", 32), ("convnext_atto", 32),
                                        ("vit_tiny_patch16_224", 64),
                                        ("swin_tiny_patch4_window7_224", 56),
                                        pytest.param("hrnet_w18_small", 32, marks=pytest.mark.slow),
                                        ("resnext26ts", 32)])
def test_backbones_of_all_kinds(name, size, dtype):
    """Gates that are broadcast, layer norms, attention, grouped convolutions: all as torch's own engine has them."""
    small = {"vit_tiny_patch16_224": {"img_size": 64, "depth": 2, "embed_dim": 48},
             "swin_tiny_patch4_window7_224": {"img_size": 56, "depths": (1, 1, 1, 1), "embed_dim": 24,
                                              "num_heads": (1, 2, 3, 4)}}.get(name, {})
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0, **small)
    images = torch.randn(2, 3, size, size)
    parameters = list(net.parameters())
    if dtype is torch.float64:
        outputs = net.double()(images.double())
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = net(images)
    cotangents = torch.randn(2, *outputs.shape).to(outputs.dtype)
    found = pulled(outputs, cotangents, parameters)
    rows = [torch.autograd.grad(outputs, parameters, one, retain_graph=True, allow_unused=True) for one in cotangents]
    for value, *gradients in zip(parameters, *rows, strict=True):
        if gradients[0] is None:
            assert value not in found
            continue
        expected = torch.stack(gradients).flatten(1)
        tolerance = {"rtol": 1e-7, "atol": 1e-9} if dtype is torch.float64 else {
            "rtol": 0.05, "atol": 0.05 * float(expected.abs().max()) + 1e-6}
        torch.testing.assert_close(found[value].rows(), expected, **tolerance)


def test_bfloat16_is_near(monkeypatch):
    options = ["--balance.name", "cagrad", "--mixed_precision"]
    full = network(*options, "no", backbone=GROUPS, double=False)
    parts = batch(full)
    _, expected = step(full, parts)
    AcceleratorState._reset_state(True)
    half = network(*options, "bf16", backbone=GROUPS, double=False)
    half.model.load_state_dict(full.model.state_dict())
    _, found = step(half, parts)
    a, b = (torch.cat([gradients[value].flatten() for value in run.model.shared_parameters()])
            for run, gradients in ((full, expected), (half, found)))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.995
    assert all(value.dtype is torch.float32 for value in found.values() if value is not None)


def test_a_gradient_that_is_not_finite_is_named():
    transfer = network("--balance.name", "nash_mtl", double=False)
    (part,) = batch(transfer)
    loss = transfer.tasks["depth"].loss
    transfer.tasks["depth"].loss = lambda *arguments: loss(*arguments) * torch.inf
    samples = Augmented(transfer.train_split, transfer.tasks, transfer.config.augmentation.build(), 0)
    transfer.train_step(collate([samples[0, index] for index in range(4)], transfer.tasks))
    assert transfer.trouble == "the gradient of depth is not finite in step 1"
    assert not transfer.loss.isfinite()


def test_what_is_logged():
    transfer = ruled("pcgrad")
    parts, _, rows = known()
    rows = flat(rows)
    step(transfer, parts)
    told = transfer.objective.log_values(torch.ones(4))
    names = list(transfer.tasks)
    assert told["gradient_norm"] == pytest.approx(dict(zip(names, rows.norm(dim=1).tolist(), strict=True)))
    cosine = torch.nn.functional.cosine_similarity(rows[0], rows[2], dim=0)
    assert told["cosine"][f"{names[0]}|{names[2]}"] == pytest.approx(float(cosine))
    assert told["conflicts"] == pytest.approx(sum(value < 0 for value in told["cosine"].values()) / 6)
    assert told["weights"].keys() == set(names)


@pytest.mark.parametrize("options, message", [
    (["--balance.name", "mgda_ub", "--model.name", "cross_stitch"], "have encoders of their own: set --balance.level"),
    (["--balance.name", "graddrop", "--balance.level", "last"], "cannot work at level 'last'"),
    (["--balance.name", "graddrop", "--balance.update_every", "2"], "leave --balance.update_every out"),
    (["--balance.name", "mgda", "--balance.update_every", "0"], "set it to 1 or more"),
    (["--balance.name", "mgda", "--schedule.name", "individual"], "takes the tasks apart: choose --schedule.name sha"),
    (["--balance.name", "equal", "--balance.level", "last"], "reads the values of losses alone"),
    (["--balance.name", "equal", "--balance.importance", "{dept: 2}"], "has a weight for 'dept'"),
])
def test_what_is_impossible_is_refused_with_its_reason(options, message):
    with pytest.raises(UserError, match=message):
        network(*options)


@pytest.mark.parametrize("name, level", [("cagrad", "params"), ("mgda", "representation"), ("gradnorm", "last")])
def test_importance_weighs_the_loss_of_heads_and_encoder(name, level):
    """Heuristic 3 weighs losses: on top of the rule's weights, and for a task's own parameters too."""
    plain = ruled(name, level=level)
    parts, _, rows = known()
    _, before = step(plain, parts)
    weights = plain.objective.engine.weights
    given = {"depth": 3.0, "normals": 0.5}
    transfer = ruled(name, level=level, importance=given)
    _, after = step(transfer, parts)
    factors = torch.tensor([given.get(task, 1.0) for task in transfer.tasks]).double()
    torch.testing.assert_close(transfer.objective.engine.weights, weights * factors)
    shared = torch.cat([after[value].flatten() for value in transfer.model.shared_parameters()])
    torch.testing.assert_close(shared, (weights * factors) @ flat(rows))
    for factor, task in zip(factors.tolist(), transfer.tasks, strict=True):
        for value in transfer.model.task_parameters(task):
            torch.testing.assert_close(after[value], factor * before[value])


@pytest.mark.parametrize("name", ["equal", "uncertainty", "cagrad", "mgda_ub", "graddrop"])
def test_a_batch_without_labels_asks_for_no_step(name):
    transfer = ruled(name)
    parts, *_ = known()
    targets = {task: torch.full_like(target, transfer.tasks[task].ignored) for task, target in parts[0].targets.items()}
    empty = [parts[0]._replace(targets=targets, normalizers=transfer._normalizers(targets))]
    losses, _ = step(transfer, empty)
    assert losses == {}
    transfer.objective.end_of_batch()
    assert not transfer.objective.epoch.any()


def test_the_device_is_asked_once_for_the_labels_of_a_batch(monkeypatch):
    asked, made = [], []
    host = LabelPresence.host.fget
    begin = LabelPresence.__init__
    monkeypatch.setattr(LabelPresence, "host", property(lambda self: asked.append(self._host is None) or host(self)))
    monkeypatch.setattr(LabelPresence, "__init__", lambda self, counts: made.append(1) or begin(self, counts))
    transfer = ruled("dwa")
    parts, *_ = known()
    for number in range(2):
        transfer.objective.number = number
        for task in transfer.tasks:
            transfer.objective.accumulate(parts, [task])
        transfer.objective.end_of_batch()
    assert len(made) == 2 and asked.count(True) == 2 and len(asked) > 2
    transfer.model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("limit", [1, 30, 10_000])
def test_buckets_hold_what_was_given(limit):
    values = [torch.randn(2, 3), torch.randn(4), torch.randn(1, dtype=torch.float64), torch.randn(()), torch.randn(5)]
    calls = []
    found = pooled(values, lambda value: calls.append(value.nbytes) or 2 * value, limit)
    for value, total in zip(values, found, strict=True):
        assert torch.equal(total, 2 * value) and total.dtype is value.dtype
    assert sum(calls) == sum(value.nbytes for value in values)
    assert len(calls) == {1: 5, 30: 4, 10_000: 3}[limit] and (limit < 10_000 or calls == [40, 8, 24])
    assert pooled([], None) == []


def checkpointed(name, reentrant, **options):
    transfer = network("--balance.name", "mgda", backbone=GROUPS, tasks="[semseg, depth]")
    stage = transfer.model.encoder.backbone.layer2
    stage.forward = functools.partial(checkpoint, stage.forward, use_reentrant=reentrant)
    transfer.balance = build_balance(name, list(transfer.units), **options)
    transfer.objective = objective_of(transfer)
    return transfer


@pytest.mark.parametrize("options", [{"mode": "kept"}, {"mode": "lean"}, {"level": "representation"}],
                         ids=lambda options: next(iter(options.values())))
def test_checkpointed_blocks(options):
    """Activations are computed again in each walk of the graph, and the direction is the same."""
    transfer = checkpointed("mgda", False, **options)
    stage = transfer.model.encoder.backbone.layer2
    parts, seen = batch(transfer), []
    shared = transfer.model.shared_parameters()
    rows = flat(explicit(transfer, parts, shared)[1])
    stage[0].conv1.register_forward_hook(lambda *_: seen.append(1))
    _, gradients = step(transfer, parts)
    direction = transfer.objective.engine.weights @ rows
    torch.testing.assert_close(torch.cat([gradients[value].flatten() for value in shared]), direction)
    assert transfer.objective.engine._recomputes
    if "mode" in options:
        torch.testing.assert_close(transfer.objective.engine._gramian, rows @ rows.T)
        # In the forward, once more for each task, and for the product of lean.
        assert len(seen) == 3 + (options["mode"] == "lean")


def test_reentrant_checkpoints_are_refused():
    transfer = checkpointed("mgda", True)
    with pytest.raises(UserError, match="use_reentrant=False"):
        step(transfer, batch(transfer))
    plain = checkpointed("equal", True)  # one backward of everything goes through
    _, gradients = step(plain, batch(plain))
    assert all(gradients[value] is not None for value in plain.model.shared_parameters())


@pytest.mark.slow  # torch's compiler takes seconds to be imported
@pytest.mark.parametrize(("options", "tolerance"), [(["--model.name", "cross_stitch"], 0),
                                                    (["--partition.name", "task_routing"], 1e-12)],
                         ids=["cross_stitch", "task_routing"])
def test_a_compiled_network_under_a_rule_on_gradients(options, tolerance):
    """A compiled graph is gone through once, so where it is needed T times the network runs as it is written.

    With a partition each task has a graph of its own: there the compiled one runs, and rounds differently.
    """
    options = [*options, "--balance.name", "mgda"]
    found = []
    for extra in ([], ["--compile", "true"]):
        AcceleratorState._reset_state(True)
        transfer = network(*options, *extra, tasks="[semseg, depth]")
        found.append([value for value in step(transfer, batch(transfer))[1].values() if value is not None])
    assert transfer.model._compiled_call_impl is not None
    torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)


def test_weights_out_of_the_range_of_half_precision():
    """Nash-MTL's are the inverse of norms; what they are multiplied with is small."""
    values = torch.full((2, 3), 1e-5).half()
    weights = torch.tensor([1e5, 2e5])
    expected = (values.double() * weights.double()[:, None]).sum(0)
    assert weights.half().isinf().all()
    torch.testing.assert_close(Formed(values).weighted(weights).double(), expected, rtol=1e-3, atol=0)


def test_a_lean_step_holds_what_a_plain_sum_does():
    """The cotangents of all tasks are there for a layer at a time, while a plain sum's gradients have not grown yet."""
    problem = Problem(Case(8, 4, True))
    plain, lean, kept = (peak(problem, step) for step in
                         (problem.plain, problem.ours("imtl_g", mode="lean"), problem.ours("imtl_g", mode="kept")))
    assert plain < lean < 1.15 * plain
    assert kept > 1.15 * plain
