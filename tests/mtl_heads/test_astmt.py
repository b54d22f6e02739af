"""Attentive single-tasking: what each pass computes, what is whose, and the adversarial term."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.gradient_discriminator import GradientDiscriminator, reverse_gradient
from mtl_heads.modulation import BlockModulation

DENSE = {"semseg": 5, "depth": 1}
TINY = {"channels": (8, 16, 32, 64), "layers": (2, 1, 1, 2), "zero_init_last": False}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny(name="astmt", backbone="resnet18", dense=None, image=None, auxiliary=None, **options):
    options = {"head": "fcn", "backbone_options": TINY, **options}
    return build_model(name, backbone, DENSE if dense is None else dense, image, auxiliary, **options)


def randomise(module: nn.Module) -> None:
    """Values of every parameter and running statistic that no initialisation has."""
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn_like(value) / max(1, value[0].numel()) ** 0.5)
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.normal_()
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)


def gated(gate: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    hidden = gate.squeeze[2](gate.squeeze[0](maps.mean((2, 3))).relu())
    return maps * hidden.sigmoid()[:, :, None, None]


@pytest.mark.parametrize("stride", [1, 2])
def test_basic_block_written_out(stride):
    network = timm.create_model("resnet18", **TINY).eval()
    block = network.layer1[1] if stride == 1 else network.layer2[0]
    task = BlockModulation(block, owner=False).eval()
    randomise(task)
    maps = torch.randn(2, block.conv1.in_channels, 9, 7)
    first = task.own["bn1"](block.conv1(maps) + F.conv2d(maps, task.adapters["conv1"].weight, stride=stride)).relu()
    second = task.own["bn2"](block.conv2(first) + F.conv2d(first, task.adapters["conv2"].weight))
    shortcut = maps if stride == 1 else task.own["downsample_1"](block.downsample[0](maps))
    torch.testing.assert_close(task(block, maps), (gated(task.gate, second) + shortcut).relu())


@pytest.mark.parametrize("name", ["resnet26d", "resnext50_32x4d"])
def test_bottleneck_written_out(name):
    block = timm.create_model(name, num_classes=0).eval().layer1[0]
    task = BlockModulation(block, owner=False).eval()
    randomise(task)
    maps = torch.randn(1, 64, 6, 5)
    value = task.own["bn1"](block.conv1(maps)).relu()
    groups = block.conv2.groups
    beside = F.conv2d(value, task.adapters["conv2"].weight, groups=groups)
    value = task.own["bn2"](block.conv2(value) + beside).relu()
    value = gated(task.gate, task.own["bn3"](block.conv3(value)))
    *parts, norm = block.downsample.named_children()
    shortcut = maps
    for _, part in parts:
        shortcut = part(shortcut)
    shortcut = task.own[f"downsample_{norm[0]}"](shortcut)
    torch.testing.assert_close(task(block, maps), (value + shortcut).relu())


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnet18", TINY),
        ("seresnet18", TINY),
        ("resnetblur18", TINY),
        ("ecaresnet26t", {"channels": (16, 24, 32, 40), "layers": (1, 1, 1, 1), "zero_init_last": False}),
        ("resnet18", {**TINY, "drop_path_rate": 0.1, "act_layer": "silu"}),
        ("resnet10t", {"channels": (8, 16, 24, 32), "norm_layer": "groupnorm1"}),
    ],
)
def test_untrained_adapters_change_nothing(backbone, options):
    model = tiny(backbone=backbone, backbone_options=options, output_stride=16).eval()
    plain = tiny("baseline", copy.deepcopy(model.backbone), backbone_options=None).eval()
    plain.heads.load_state_dict(model.heads.state_dict())
    for part in model.modulation.modules():
        if isinstance(part, BlockModulation) and not isinstance(part.gate, nn.Identity):
            part.gate = nn.Identity()
    images = torch.randn(2, 3, 65, 47)
    for task in DENSE:
        torch.testing.assert_close(model(images).predictions[task], plain(images).predictions[task])


def test_gates_begin_open():
    gate = BlockModulation(timm.create_model("resnet18").layer4[1], owner=True).gate
    opened = gate(torch.ones(1, 512, 2, 2))
    assert opened.min() > 0.85 and opened.max() < 1


def test_passes_share_what_comes_before_the_first_changed_stage():
    model = tiny(image={"scene": 3}, auxiliary={"normals": 3}, first_stage=3).eval()
    calls: list[str] = []
    for name, part in model.backbone.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    images = torch.randn(1, 3, 40, 40)
    whole = model(images)
    assert calls.count("conv1") == calls.count("layer2.0.conv2") == 1
    assert calls.count("layer3.0.conv1") == calls.count("layer4.1.conv2") == 4
    assert list(whole.predictions) == ["semseg", "depth", "scene"] and list(whole.intermediate[0]) == ["normals"]
    calls.clear()
    alone = model(images, ["scene"])
    assert calls.count("layer3.0.conv1") == 1 and list(alone.predictions) == ["scene"] and not alone.intermediate
    torch.testing.assert_close(alone.predictions["scene"], whole.predictions["scene"])
    parts = model.decode(model.encode(images), (80, 20), ["depth"])
    assert parts.predictions["depth"].shape == (1, 1, 80, 20)


@pytest.mark.parametrize("norm", ["task", "shared"])
def test_what_is_whose(norm):
    model = tiny(image={"scene": 3}, norm=norm)
    names = {id(value): name for name, value in model.named_parameters()}
    own = {task: {names[id(value)] for value in model.task_parameters(task)} for task in model.tasks}
    for task in model.tasks:
        assert {name for name in names.values() if f".{task}." in name} <= own[task]
    convolutions = {name for name in names.values() if name.startswith("encoder") and ".conv" in name}
    shared = {names[id(value)] for value in model.shared_parameters()}
    assert convolutions <= shared and "encoder.backbone.bn1.weight" in shared
    # The backbone's own norms of changed stages are the first task's.
    assert ("encoder.backbone.layer1.0.bn1.weight" in own["semseg"]) == (norm == "task")
    assert any(".own." in name for name in own["depth"]) == (norm == "task")
    assert model.unreached_parameters() == []
    assert not model.shared_representation


def test_a_backbones_own_squeeze_excitation_becomes_per_task():
    model = tiny(backbone="seresnet18")
    first, second = (model.modulation[task][0][0] for task in DENSE)
    assert isinstance(first.gate, nn.Identity) and isinstance(second.gate, nn.Identity)
    assert "se" not in first.own and "se" in second.own
    block = model.backbone["layer1"][0]
    assert torch.equal(second.own["se"].fc1.weight, block.se.fc1.weight)
    assert {id(value) for value in block.se.parameters()} <= {id(value) for value in model.task_parameters("semseg")}
    plain = tiny(backbone="seresnet18", squeeze_excite=False)
    assert "se" not in plain.modulation["depth"][0][0].own


def test_each_task_has_its_own_running_statistics():
    model = tiny(first_stage=2).train()
    randomise(model.modulation)
    model(torch.randn(2, 3, 40, 40), ["depth"])
    block = model.backbone["layer4"][1]
    assert int(block.bn2.num_batches_tracked) == 0
    assert int(model.modulation["depth"][-1][1].own["bn2"].num_batches_tracked) == 1
    assert int(model.backbone["layer1"][0].bn1.num_batches_tracked) == 1


def test_reversal_turns_the_gradient_round():
    value = torch.randn(3, requires_grad=True)
    reverse_gradient(value, 0.5).square().sum().backward()
    torch.testing.assert_close(value.grad, -value.detach())


def test_discriminator_sees_directions_and_only_images_with_a_gradient():
    discriminator = GradientDiscriminator(6, 3)
    gradients = torch.randn(4, 6, 5, 5)
    torch.testing.assert_close(discriminator(gradients), discriminator(gradients * 1e-6), rtol=1e-3, atol=1e-4)
    gradients[1] = 0
    kept = gradients[[0, 2, 3]]
    torch.testing.assert_close(discriminator.loss(gradients, 2, 1.0), discriminator.loss(kept, 2, 1.0))
    empty = torch.zeros(2, 6, 5, 5, requires_grad=True)
    loss = discriminator.loss(empty, 0, 1.0)
    loss.backward()
    assert loss.item() == 0 and empty.grad.isfinite().all()


def task_losses(model, images):
    output = model(images)
    return {
        "semseg": F.cross_entropy(output.predictions["semseg"], torch.ones(2, 40, 40, dtype=torch.long)),
        "depth": (output.predictions["depth"] - 1).square().mean(),
    }


def test_adversarial_term_trains_the_discriminator_and_the_network_against_it():
    strength = 0.25
    model = tiny(adversarial=strength).train()
    images = torch.randn(2, 3, 40, 40)
    losses = task_losses(model, images)
    features = dict(model._watched)
    assert features["depth"].shape == (2, 64, 2, 2)
    terms = model.penalty(["semseg", "depth"], losses)
    total = sum(terms.values())
    # The same without reversal.
    plain = 0.0
    for number, task in enumerate(DENSE):
        (gradient,) = torch.autograd.grad(losses[task], features[task], create_graph=True)
        logits = model.discriminator(gradient)
        plain = plain + F.cross_entropy(logits, torch.full((2,), number))
    torch.testing.assert_close(total, plain)
    inner = [model.backbone["layer3"][0].conv1.weight, model.modulation["depth"][2][0].adapters["conv1"].weight]
    outer = list(model.discriminator.parameters())
    got = torch.autograd.grad(total, [*inner, *outer], retain_graph=True)
    wanted = torch.autograd.grad(plain, [*inner, *outer])
    for value, reference in zip(got[: len(inner)], wanted, strict=False):
        assert reference.abs().max() > 0
        torch.testing.assert_close(value, -strength * reference, rtol=1e-3, atol=1e-6)
    for value, reference in zip(got[len(inner) :], wanted[len(inner) :], strict=True):
        torch.testing.assert_close(value, reference)


def test_adversarial_term_is_for_training_only_and_belongs_to_the_shared_parameters():
    model = tiny(adversarial=0.1)
    assert model.unreached_parameters() == []
    shared = {id(value) for value in model.shared_parameters()}
    assert {id(value) for value in model.discriminator.parameters()} <= shared
    images = torch.randn(2, 3, 40, 40)
    assert list(model.penalty(["depth"], {"depth": task_losses(model.train(), images)["depth"]})) == ["depth"]
    assert model._watched == {} and model.penalty() == {}
    assert model.penalty(None, task_losses(model.eval(), images)) == {}
    assert tiny().penalty(None, {}) == {}


@pytest.mark.parametrize("head", ["deeplab", "psp", "hrnet"])
def test_adversarial_term_through_heads(head):
    options = {} if head == "hrnet" else {"head_options": {"width": 8}}
    model = tiny(adversarial=1.0, head=head, image={"scene": 2}, **options).train()
    output = model(torch.randn(2, 3, 40, 40))
    losses = {task: value.square().mean() for task, value in output.predictions.items()}
    terms = model.penalty(None, losses)
    sum(terms.values(), sum(losses.values())).backward()
    assert list(terms) == model.tasks
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


def test_bfloat16():
    model = tiny(adversarial=0.1).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(2, 3, 40, 40))
    losses = {task: value.float().square().mean() for task, value in output.predictions.items()}
    sum(model.penalty(None, losses).values(), sum(losses.values())).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())


def _compiled():
    model = tiny(adversarial=0.1).train()
    model.compile(backend="eager")
    model.penalty(None, {"depth": torch.zeros(())})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tiny(backbone="convnext_atto", backbone_options=None), "has stages of other blocks"),
        (lambda: tiny(backbone="regnetx_002", backbone_options=None), r"not regnet\.Bottleneck"),
        (lambda: tiny(backbone="resnetv2_18", backbone_options=None), r"not resnetv2\.PreActBasic"),
        (lambda: tiny(norm="none"), "give task or shared"),
        (lambda: tiny(first_stage=5), "give one of 1 to 4"),
        (lambda: tiny(reduction=0), "reduction=0"),
        (lambda: tiny(adversarial=-1.0), "adversarial=-1.0"),
        (lambda: tiny(adversarial=0.1, dense={"depth": 1}), "there is one task"),
        (_compiled, "torch.compile"),
    ],
)
def test_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()
