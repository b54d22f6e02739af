from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from harness.config import load
from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.resources import multiply_adds, parameters
from transfer.config import TransferConfig
from transfer.network import build_network
from transfer.strategies import maximum_roaming, partitions
from transfer.strategies.filter_masks import draw_masks
from transfer.strategies.maximum_roaming import roam
from transfer.strategies.registry import PARTITIONS

TINY = {"resnet18": {"channels": [8, 8, 16, 16]}}
PER_TASK = ["maximum_roaming", "squeeze_excite", "task_routing"]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small only wait for each other with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(backbone="resnet18", tasks=3, architecture="baseline", seed=0, options=None, **more):
    """A small network of dense tasks a, b, c, …, whose norms and layer scales are not those of the start."""
    torch.manual_seed(seed)
    dense = {chr(ord("a") + i): i + 1 for i in range(tasks)}
    if architecture in ("baseline", "mtan"):
        more = {"head": "linear", **more}
    model = build_model(architecture, backbone, dense, backbone_options=options or TINY.get(backbone), **more)
    for value in model.parameters():  # timm begins with zeros at the end of residual blocks
        if value.dim() == 1:
            nn.init.uniform_(value, 0.2, 1.2)
    return model


def partitioned(name, backbone="resnet18", *, seed=0, of=None, **options):
    return PARTITIONS.get(name)(network(backbone, **(of or {})), seed=seed, **options)


def images(*shape, seed=0):
    return torch.randn(*(shape or (2, 3, 32, 32)), generator=torch.Generator().manual_seed(seed))


def uniform(generator):
    return lambda used, leaving, unseen: (generator.choice(leaving), generator.choice(unseen))


def roamed(tasks, filters, p, seed, completion=1.0):
    """Masks and visits of a layer before each update and after the last, until nothing moves any more."""
    generator = np.random.default_rng(seed)
    masks = draw_masks(tasks, filters, p, generator)
    visited = masks.copy()
    history = [(masks.copy(), visited.copy())]
    while True:
        roam(masks, visited, uniform(generator), generator.permutation(tasks), completion)
        if (masks == history[-1][0]).all():
            return history
        history.append((masks.copy(), visited.copy()))


# -- what is drawn ---------------------------------------------------------------------------------------


def test_layers_of_one_size_have_masks_of_their_own():
    partition = partitioned("task_routing", p=0.5).partition
    found = [partition.masks[:, span] for span in partition.spans if span.stop - span.start == 16]
    assert len(found) > 4
    assert all(not torch.equal(one, other) for i, one in enumerate(found) for other in found[:i])


def test_updates_draw_differently_and_so_do_the_orders_of_tasks(monkeypatch):
    orders = []
    monkeypatch.setattr(maximum_roaming, "roam",
                        lambda masks, visited, choose, order, done: orders.append(tuple(order)) or
                        roam(masks, visited, choose, order, done))
    first, second, again = (partitioned("maximum_roaming", p=0.5).partition for _ in range(3))
    for partition, number in ((first, 1), (second, 2), (again, 1)):
        partition.update(number)
    assert torch.equal(first.masks, again.masks) and not torch.equal(first.masks, second.masks)
    layers = len(first.layers)
    assert orders[:layers] == orders[2 * layers:] != orders[layers:2 * layers]
    assert len(set(orders)) > 3 and all(sorted(order) == [0, 1, 2] for order in orders)


# -- masks of one layer -------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_every_filter_has_a_task_and_every_task_a_filter(p):
    for seed in range(50):
        for tasks, filters in ((1, 4), (2, 3), (5, 2), (4, 64)):
            masks = draw_masks(tasks, filters, p, np.random.default_rng(seed))
            assert masks.any(0).all() and masks.any(1).all()


def test_the_share_of_filters_is_p():
    masks = draw_masks(4, 100_000, 0.7, np.random.default_rng(0))
    used = masks.mean(1)
    # Filters that no task drew are then given to one of the four.
    assert np.allclose(used, 0.7 + 0.3**4 / 4, atol=0.01)
    overlap = (masks[0] & masks[1]).mean()
    assert abs(overlap - 0.7**2) < 0.01
    disjoint = draw_masks(4, 1000, 0.0, np.random.default_rng(0))
    assert (disjoint.sum(0) == 1).all() and (disjoint.mean(1) > 0.2).all()
    assert draw_masks(3, 10, 1.0, np.random.default_rng(0)).all()


@pytest.mark.parametrize("tasks, filters, p", [(2, 10, 0.6), (3, 64, 0.8), (8, 32, 0.5), (4, 16, 0.9)])
def test_lemma_1(tasks, filters, p):
    for seed in range(20):
        history = roamed(tasks, filters, p, seed)
        start = history[0][0]
        counts = start.sum(1)
        for number, (masks, visited) in enumerate(history):
            assert (masks.sum(1) == counts).all(), "the number of filters in use is constant"
            assert masks.any(0).all(), "no filter is without a task"
            assert (masks <= visited).all()
            # One new filter at each update, until none is left: S - |A(0)| updates.
            assert (visited.sum(1) == np.minimum(counts + number, filters)).all()
        assert len(history) - 1 == (filters - counts).max()
        for (masks, visited), (later, _) in zip(history[:-1], history[1:], strict=True):
            swaps = (masks != later).sum(1)
            assert ((swaps == 2) | (visited.all(1) & (swaps == 0))).all()
            assert not (later & ~masks & visited).any(), "only filters that were never visited are taken up"


def test_lemma_2():
    """The overlap of two tasks stays p² S on average."""
    overlaps = np.zeros(16)
    for seed in range(150):
        history = roamed(3, 40, 0.6, seed)
        for number in range(len(overlaps)):
            masks, _ = history[min(number, len(history) - 1)]
            overlaps[number] += np.mean([(masks[a] & masks[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]) / 150
    # Only nearly constant: a task leaves filters that others use as well, which the proof does not know of.
    assert np.allclose(overlaps, overlaps[0], atol=0.01) and abs(overlaps[0] - 0.36) < 0.02


@pytest.mark.parametrize("p", [0.05, 0.2])
def test_few_shared_filters_never_orphan_one(p):
    """With little overlap tasks have to wait for each other; the rules hold all the same."""
    for seed in range(20):
        history = roamed(4, 24, p, seed)
        for masks, visited in history:
            assert masks.any(0).all() and (masks.sum(1) == history[0][0].sum(1)).all() and (masks <= visited).all()


def test_a_task_that_cannot_leave_moves_after_another_made_room():
    masks = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]], dtype=bool)
    masks[2] = [0, 0, 0, 1]  # 0 has two filters of its own; 1 and 2 share the last
    visited = masks.copy()
    visited[1], visited[2] = [0, 1, 1, 1], [1, 1, 1, 1]
    roam(masks, visited, lambda used, leaving, unseen: (leaving[0], unseen[0]), [0, 1, 2])
    # Task 1 leaves the filter it shares for filter 0, which task 0 can then leave for filter 2.
    assert masks.astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_completion_stops_early():
    history = roamed(2, 20, 0.5, 0, completion=0.5)
    start, end = history[0][0].sum(1), history[-1][1].sum(1)
    assert (end - start == ((20 - start) * 0.5).astype(int)).all()
    assert len(roamed(2, 20, 0.5, 0, completion=0.0)) == 1


def test_a_single_task_uses_everything():
    assert len(roamed(1, 12, 0.3, 0)) == 1
    model = partitioned("maximum_roaming", of={"tasks": 1})
    model.partition.after_step(1, 1)
    assert model.partition.masks.all() and model.partition.log_values() == {"visited": 1.0}
    plain = network(tasks=1)
    for one, other in zip(model(images()).of("a"), plain(images()).of("a"), strict=True):
        assert torch.equal(one, other)


# -- masks in a network -------------------------------------------------------------------------------


def masked_by_hand(plain, model, task):
    """A copy of the network in which norms (or layers without one) have zero weights where the mask is zero."""
    plain = copy.deepcopy(plain)
    parts, names = dict(plain.named_modules()), {part: name for name, part in model.named_modules()}
    row = model.partition.tasks.index(task)
    for layer, span in zip(model.partition.layers, model.partition.spans, strict=True):
        site = parts[names[layer.site].removesuffix(".act")]
        mask = model.partition.masks[row, span]
        for name in ("weight", "bias"):
            value = getattr(site, name, None)
            if value is not None:
                assert len(value) == len(mask)
                value.data[~mask] = 0
    return plain


BACKBONES = {
    "resnet18": TINY["resnet18"],
    "mobilenetv3_small_050": None,
    "efficientnet_lite0": {"out_indices": (2, 3)},
    "hrnet_w18_small": None,
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet50_gn": {"layers": (1, 1, 1, 1)},
    "resnetv2_50": {"layers": (1, 1, 1, 1)},
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_masks_are_zero_norms(backbone):
    """Cutting a filter after its norm is the same as a norm whose weight and bias are zero there."""
    of = {"tasks": 2, "options": BACKBONES[backbone]}
    plain = network(backbone, **of)
    model = partitioned("task_routing", backbone, of=of, p=0.5)
    x = images(2, 3, 64, 64)
    assert len(model.partition.layers) >= 8
    output = model(x)
    for task in model.tasks:
        by_hand = masked_by_hand(plain, model, task)
        expected = by_hand(x, [task])
        torch.testing.assert_close(output.predictions[task], expected.predictions[task], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(output.predictions["b"], plain(x).predictions["b"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backbone, layers", [
    ("resnet18", 20), ("seresnet18", 20), ("celeba_cnn9", 9), ("lenet", 3), ("segnet", 26),
])
def test_layers(backbone, layers):
    """Every convolution but gates; the fully-connected layers of networks that have them as convolutions."""
    image = {"image": {"y": 3}} if backbone in ("lenet", "celeba_cnn9") else {}
    head = "deeplab" if backbone == "segnet" else "linear"
    model = build_model("baseline", backbone, {} if image else {"a": 2, "b": 1}, head=head, **image)
    found = PARTITIONS.get("task_routing")(model, seed=0).partition.layers
    assert len(found) == layers
    assert not any("se." in layer.name or ".heads" in layer.name for layer in found)


def test_a_masked_channel_is_zero_and_has_no_gradient():
    model = partitioned("task_routing", p=0.6)
    seen = {}
    for layer in model.partition.layers:
        layer.site.register_forward_hook(lambda part, _, output, key=layer.name: seen.update({key: output.clone()}))
    for task in model.tasks:
        model.zero_grad()
        model(images(4, 3, 64, 64), [task]).predictions[task].square().sum().backward()
        row = model.partition.tasks.index(task)
        for layer, span in zip(model.partition.layers, model.partition.spans, strict=True):
            mask = model.partition.masks[row, span]
            assert not seen[layer.name][:, ~mask].any() and not layer.module.weight.grad[~mask].any()
            assert not layer.site.weight.grad[~mask].any() and not layer.site.bias.grad[~mask].any()
            assert layer.module.weight.grad[mask].any()


def test_p_one_shares_everything():
    x = images()
    ones, plain = partitioned("task_routing", p=1.0), network()
    for task in plain.tasks:  # the same forwards, so that the statistics of batch norm move alike
        assert torch.equal(ones(x, [task]).predictions[task], plain(x, [task]).predictions[task])


def test_masks_depend_on_the_seed_alone():
    first = partitioned("task_routing", seed=3).partition.masks
    torch.manual_seed(99)
    assert torch.equal(first, partitioned("maximum_roaming", seed=3, of={"seed": 1}).partition.masks)
    assert not torch.equal(first, partitioned("task_routing", seed=4).partition.masks)
    assert first.dtype == torch.bool and first.shape[0] == 3


def test_batch_norm_is_shared():
    """A step has as many forwards as tasks, and each moves the running statistics."""
    model = partitioned("task_routing")
    model(images())
    assert int(model.encoder.backbone.bn1.num_batches_tracked) == 3
    model.eval()
    model(images())
    assert int(model.encoder.backbone.bn1.num_batches_tracked) == 3


# -- roaming in a network -----------------------------------------------------------------------------


@pytest.mark.parametrize("delta, steps_per_epoch, updated", [
    (1.0, 4, [4, 8, 12, 16, 20]), (0.5, 4, range(2, 21, 2)), (0.1, 30, range(3, 21, 3)), (0.25, 10, [3, 5, 8, 10, 13,
                                                                                                    15, 18, 20]),
    (2, 5, [10, 20]), (0.01, 4, range(1, 21)),
])
def test_updates_are_delta_epochs_apart(delta, steps_per_epoch, updated):
    model = partitioned("maximum_roaming", of={"tasks": 2}, p=0.3, delta=delta)
    moved, before = [], model.partition.masks.clone()
    for step in range(1, 21):
        model.partition.after_step(step, steps_per_epoch)
        if not torch.equal(before, model.partition.masks):
            moved.append(step)
        before = model.partition.masks.clone()
    # Layers of 16 filters, of which .3 are used, have more filters left than there are updates here.
    assert moved == [step for step in updated if step <= moved[-1]] and len(moved) >= min(5, len(updated))


def test_a_network_roams_through_all_its_filters():
    model = partitioned("maximum_roaming", p=0.7, delta=1)
    part = model.partition
    counts = [part.masks[:, span].sum(1) for span in part.spans]
    filters = torch.tensor([layer.filters for layer in part.layers])
    needed = max(int((number - count).max()) for number, count in zip(filters, counts, strict=True))
    for step in range(1, needed + 1):
        assert part.log_values()["visited"] < 1
        part.after_step(step, 1)
        for span, count in zip(part.spans, counts, strict=True):
            assert torch.equal(part.masks[:, span].sum(1), count) and part.masks[:, span].any(0).all()
    assert part.visited.all() and part.log_values() == {"visited": 1.0}
    before = part.masks.clone()
    part.after_step(needed + 1, 1)
    assert torch.equal(part.masks, before)


@pytest.mark.parametrize("selection", ["cosine", "diverse"])
def test_deterministic_selection(selection):
    """Against the sums of section 3.4.3, written out."""
    model = partitioned("maximum_roaming", of={"tasks": 2}, p=0.5, selection=selection)
    part = model.partition
    before, seen = part.masks.clone(), part.visited.clone()
    part.update(1)
    checked = 0
    for layer, span in zip(part.layers, part.spans, strict=True):
        K = layer.module.weight.detach().double().flatten(1)
        masks = before[:, span]

        def like(u, among, K=K):
            return sum(float(K[u] @ K[v] / (K[u].norm() * K[v].norm())) for v in among)

        for task in range(2):
            (left,), (new,) = ((masks[task] & ~part.masks[task, span]).nonzero().tolist(),
                               (part.masks[task, span] & ~masks[task]).nonzero().tolist())
            used = masks[task].nonzero().flatten().tolist()
            unseen = (~seen[task, span]).nonzero().flatten().tolist()
            sign = 1 if selection == "cosine" else -1
            gain = {u: sign * like(u, used) for u in unseen}
            assert gain[new[0]] == pytest.approx(max(gain.values()))
            other = masks[1 - task] | part.masks[1 - task, span]
            mean = {u: sign * like(u, [v for v in used if v != u]) for u in used}
            sure = [u for u in used if (masks[1 - task] & part.masks[1 - task, span])[u]]  # could be left for certain
            assert other[left[0]] and all(mean[left[0]] <= mean[u] + 1e-12 for u in sure)
            checked += len(sure) > 1
    assert checked > 10


@pytest.mark.parametrize("name", PER_TASK)
def test_resuming_goes_on_bit_for_bit(name):
    options = {"maximum_roaming": {"p": 0.5, "delta": 0.5}}.get(name, {})

    def made(weights):
        model = partitioned(name, seed=5, of={"seed": weights, "tasks": 2}, **options)
        return model, torch.optim.SGD(model.parameter_groups(), lr=0.01, momentum=0.9)

    def train(model, optimizer, steps):
        for step in steps:
            output = model(images(seed=step))
            sum(value.square().mean() for value in output.predictions.values()).backward()
            optimizer.step()
            optimizer.zero_grad()
            model.partition.after_step(step, 2)

    straight, optimizer = made(0)
    train(straight, optimizer, range(1, 5))
    first, optimizer = made(0)
    train(first, optimizer, range(1, 3))
    second, resumed = made(1)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, range(3, 5))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


# -- squeeze-excitation -------------------------------------------------------------------------------


def test_squeeze_excite_by_hand():
    torch.manual_seed(0)
    model = build_model("baseline", "lenet", {}, image={"left": 3, "right": 4})
    model = PARTITIONS.get("squeeze_excite")(model, seed=0, reduction=4)
    x = images(5, 3, 28, 28)
    output = model(x)
    net = model.encoder.backbone
    for task in model.tasks:
        value = x
        for number, name in enumerate(("conv1", "conv2", "fc1")):
            for part in getattr(net, name):
                value = part(value) if not isinstance(part, nn.Conv2d) else nn.functional.conv2d(
                    value, part.weight, part.bias)
                if isinstance(part, nn.Conv2d):
                    first, _, last, _ = model.partition.gates[number][task].squeeze
                    z = value.mean((2, 3))
                    hidden = torch.relu(z @ first.weight.T + first.bias)
                    value = value * torch.sigmoid(hidden @ last.weight.T + last.bias)[:, :, None, None]
        expected = model.heads[task].predict(value.mean((2, 3))) if hasattr(model.heads[task], "predict") else None
        expected = model.heads[task].predict(value.mean((2, 3)))
        torch.testing.assert_close(output.predictions[task], expected)


def test_gates_belong_to_their_task():
    model = partitioned("squeeze_excite")
    plain = network()
    for task in model.tasks:
        own = {id(value) for gate in model.partition.gates for value in gate[task].parameters()}
        exclusive = {id(value) for value in model.task_parameters(task)}
        assert own <= exclusive and len(own) == 4 * len(model.partition.layers)
    assert len(model.shared_parameters()) == len(plain.shared_parameters())
    in_groups = {id(value) for group in model.parameter_groups() for value in group["params"]}
    assert in_groups == {id(value) for value in model.parameters()}
    model(images(), ["b"]).predictions["b"].sum().backward()
    for gate in model.partition.gates:
        assert all(value.grad is None for task in "ac" for value in gate[task].parameters())
        assert all(value.grad is not None for value in gate["b"].parameters())


def test_gates_are_open_at_first():
    x, plain = images(), network().eval()
    open_ = partitioned("squeeze_excite", bias=50.0).eval()
    torch.testing.assert_close(open_(x).predictions["c"], plain(x).predictions["c"])
    # As many parameters as two linear layers for each task and layer.
    more = parameters(open_) - parameters(plain)
    assert more == sum(3 * (2 * s * max(1, s // 16) + max(1, s // 16) + s)
                       for s in (layer.filters for layer in open_.partition.layers))


def test_channels_last_layers():
    of = {"options": BACKBONES["convnext_tiny"]}
    model = partitioned("squeeze_excite", "convnext_tiny", of=of)
    assert any(layer.channels_last for layer in model.partition.layers)
    x = images(1, 3, 64, 64)
    assert model.eval()(x).predictions["a"].shape == (1, 1, 64, 64)


# -- the contract of a network ------------------------------------------------------------------------


@pytest.mark.parametrize("name, architecture", [
    *((name, "baseline") for name in PER_TASK), ("task_routing", "pad_net"), ("squeeze_excite", "mtan"),
    ("maximum_roaming", "jtrl"),
])
def test_the_contract_holds(name, architecture):
    plain = network(architecture=architecture, tasks=2)
    keys, kind = list(plain.state_dict()), type(plain)
    backbone = {key: value.clone() for key, value in plain.backbone.state_dict().items()}
    model = PARTITIONS.get(name)(plain, seed=0)
    assert isinstance(model, kind) and type(model).__name__ == kind.__name__
    assert [key for key in model.state_dict() if not key.startswith("partition.")] == keys
    assert all(torch.equal(value, backbone[key]) for key, value in model.backbone.state_dict().items())
    assert not model.shared_representation and model.partition.per_task
    model.eval()
    x = images()
    both, order = model(x), list(model(x).predictions)
    assert order == ["a", "b"]
    for task in model.tasks:
        alone = model(x, [task])
        assert list(alone.predictions) == [task]
        assert all(set(maps) <= {task} for maps in alone.intermediate)
        for one, other in zip(alone.of(task), both.of(task), strict=True):
            assert torch.equal(one, other)
    # One representation of several tasks there is not.
    with pytest.raises(UserError, match="depends on the task"):
        model.encode(x)
    with model.partition.using("b"):
        again = model.decode(model.encode(x), (32, 32), ["b"])
    assert torch.equal(again.predictions["b"], both.predictions["b"]) and model.partition.task is None
    # Reach, cost and copies.
    everything = [*model.shared_parameters(), *model.task_parameters("a"), *model.task_parameters("b")]
    assert len(everything) == len(list(model.parameters())) and model.last_shared_parameters()
    with pytest.raises(UserError, match="no task 'z'"):
        model(x, ["z"])
    twin = copy.deepcopy(model)
    for value in twin.partition.state_dict().values():
        value.zero_()
    assert torch.equal(model(x).predictions["b"], both.predictions["b"])
    assert not torch.equal(twin(x).predictions["b"], both.predictions["b"])


def test_auxiliary_and_image_tasks():
    model = build_model("baseline", "resnet18", {"a": 2}, {"y": 3}, {"edges": 1}, head="linear",
                        backbone_options=TINY["resnet18"])
    model = PARTITIONS.get("task_routing")(model, seed=0)
    output = model(images())
    assert list(output.predictions) == ["a", "y"] and [list(maps) for maps in output.intermediate] == [["edges"]]
    assert model.partition.tasks == ["a", "y", "edges"]
    assert model(images(), ["edges"]).predictions == {}


def test_cost_is_one_forward_per_task():
    plain, model = network(tasks=2), partitioned("task_routing", of={"tasks": 2})
    encoder = multiply_adds(plain.encoder, 64)
    assert multiply_adds(model, 64) == multiply_adds(plain, 64) + encoder
    assert parameters(model) == parameters(plain)


def test_an_error_leaves_no_task_running():
    model = partitioned("task_routing")
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 32, 32))
    assert model.partition.task is None and model(images()).predictions.keys() == {"a", "b", "c"}


def test_full_is_the_model():
    model = network()
    assert PARTITIONS.get("full")(model, seed=0) is model and not hasattr(model, "partition")


def test_built_from_the_configuration():
    config = load(TransferConfig, ["--partition.name=maximum_roaming", "--partition.p=.5", "--partition.delta=.25",
                                   "--model.backbone_options={channels: [8, 8, 16, 16]}", "--seed=3",
                                   "--tasks=[semseg, depth]"])
    assert config.partition.options == {"p": 0.5, "delta": 0.25, "completion": 1.0, "selection": "uniform"}
    tasks = config.data.build().choose(config.tasks, {})
    model = build_network(config, tasks).model
    assert (model.partition.seed, model.partition.delta) == (3, 0.25) and model.partition.tasks == ["semseg", "depth"]
    assert set(PER_TASK) | {"full"} <= set(partitions())


# -- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, architecture", [
    *((name, "cross_stitch") for name in PER_TASK), ("task_routing", "branched"), ("task_routing", "astmt"),
    ("task_routing", "progressive"),
])
def test_encoders_of_several_tasks_are_refused(name, architecture):
    model = network(architecture=architecture, tasks=2)
    with pytest.raises(UserError, match=f"architecture '{architecture}' has parts of it for each task"):
        PARTITIONS.get(name)(model, seed=0)


@pytest.mark.parametrize("backbone, options", [
    ("vit_tiny_patch16_224", {"depth": 2, "out_indices": (0, 1)}),
    ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 1, 1, 1)}),
])
def test_transformers_are_refused(backbone, options):
    model = build_model("baseline", backbone, {"a": 1}, head="linear", backbone_options=options)
    with pytest.raises(UserError, match="attention between positions, or layers on tokens"):
        PARTITIONS.get("task_routing")(model, seed=0)


@pytest.mark.parametrize("name, options, message", [
    ("task_routing", {"p": -0.1}, "partition.p is -0.1"),
    ("task_routing", {"p": 1.1}, "partition.p is 1.1"),
    ("task_routing", {"p": float("nan")}, "partition.p is nan"),
    ("maximum_roaming", {"p": 0.0}, "partition.p is 0, and so every filter has a single task"),
    ("maximum_roaming", {"p": 2.0}, "partition.p is 2.0"),
    ("maximum_roaming", {"delta": 0.0}, "partition.delta is 0.0"),
    ("maximum_roaming", {"delta": float("nan")}, "partition.delta is nan"),
    ("maximum_roaming", {"completion": 1.5}, "partition.completion is 1.5"),
    ("maximum_roaming", {"selection": "sine"}, "partition.selection is 'sine'"),
    ("squeeze_excite", {"reduction": 0}, "partition.reduction is 0"),
])
def test_options_out_of_bounds_are_named(name, options, message):
    with pytest.raises(UserError) as caught:
        partitioned(name, **options)
    assert str(caught.value).startswith(message)


def test_roaming_goes_on_from_masks_that_are_loaded():
    """What an update reads is kept beside the buffers, and follows when these are replaced."""
    first, second = (partitioned("maximum_roaming", p=0.5).partition for _ in range(2))
    first.update(1)
    state = {key: value.clone() for key, value in first.state_dict().items()}
    first.update(2)
    for number in range(7, 9):
        second.update(number)
    second.load_state_dict(state)
    second.update(2)
    assert torch.equal(first.masks, second.masks) and torch.equal(first.visited, second.visited)
    assert not torch.equal(state["masks"], first.masks)
