"""The encoder of cooperative learning: divided among tasks, and otherwise an ordinary one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mtl_heads import build_model
from mtl_heads.cooperative import _divide

TINY = {"backbone_options": {"channels": [8, 12, 16, 24], "layers": [1, 1, 1, 1]}, "head": "linear"}
IMAGES = torch.rand(2, 3, 33, 47)


def pair(count: int = 3, backbone: str = "resnet18", **options):
    """The cooperative network and the baseline with the same weights."""
    models = []
    for name in ("cooperative", "baseline"):
        torch.manual_seed(0)
        models.append(build_model(name, backbone, {f"task{i}": 2 for i in range(count)}, **{**TINY, **options}))
    models[0].heads.load_state_dict(models[1].heads.state_dict())
    return models


def test_layers_of_concatenated_parts():
    """A divided layer is one layer per task on the concatenation of all features."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 1, bias=False))
    net.eval()
    net[1].running_mean.normal_(), net[1].weight.data.normal_()
    before = copy.deepcopy(net)
    owned = _divide(net, ["a", "b"])
    features = IMAGES
    for layer, parts in ((0, (4, 3)), (3, (3, 2))):
        found = []
        for task, rows in zip("ab", parts, strict=True):
            weight, *bias = [net.get_parameter(name) for name in owned[task] if name.startswith(f"{layer}.")]
            assert len(weight) == rows
            padding = 1 if layer == 0 else 0
            found.append(nn.functional.conv2d(features, weight, bias[0] if bias else None, padding=padding))
        features = torch.cat(found, 1)
        if layer == 0:
            features = before[2](before[1](features))
    torch.testing.assert_close(features, before(IMAGES))
    torch.testing.assert_close(net(IMAGES), before(IMAGES))


@pytest.mark.parametrize("count", [1, 2, 4, 40])
def test_every_parameter_has_one_owner(count):
    model, baseline = pair(count)
    owned = [model.encoder_parameters(task) for task in model.tasks]
    assert sorted(id(v) for part in owned for v in part) == sorted(id(v) for v in model.encoder.parameters())
    sizes = [sum(value.numel() for value in part) for part in owned]
    total = sum(value.numel() for value in baseline.encoder.parameters())
    assert sum(sizes) == total and max(sizes) - min(sizes) < 0.25 * total / count
    with torch.no_grad():
        a, b = (m.eval()(IMAGES).predictions for m in (model, baseline))
    assert all(torch.equal(a[task], b[task]) for task in a)


@pytest.mark.parametrize("backbone, options", [
    ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 3, "num_heads": 2}),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    ("mobilenetv3_small_050", {}),
])
def test_any_backbone(backbone, options):
    model, baseline = pair(3, backbone, backbone_options=options)
    with torch.no_grad():
        a, b = (m.eval()(IMAGES).predictions for m in (model, baseline))
    torch.testing.assert_close(a, b)
    output = model.train()(IMAGES)
    sum(value.square().mean() for value in output.predictions.values()).backward()
    assert all(value.grad is not None for value in model.encoder.parameters())


def test_all_losses_reach_the_encoder():
    """So nothing of it is a task's alone, and representation-level rules have no one tensor to work on."""
    model, _ = pair()
    assert not model.shared_representation
    shared = {id(value) for value in model.shared_parameters()}
    assert shared == {id(value) for value in model.encoder.parameters()}
    assert {id(v) for v in model.task_parameters("task0")} == {id(v) for v in model.heads["task0"].parameters()}


def test_whole_backbone():
    """What is handed on is an ordinary backbone, and taking it leaves the network as it is."""
    model, baseline = pair()
    expected = baseline.backbone.state_dict()
    found = model.backbone.state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in expected)
    assert model.backbone["conv1"].weight.shape == (64, 3, 7, 7)
    model(IMAGES)
    copied = copy.deepcopy(model)
    copied.load_state_dict(model.state_dict())
    model.eval(), copied.eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES).predictions["task1"], copied(IMAGES).predictions["task1"])


def test_image_and_auxiliary_tasks():
    model = build_model("cooperative", "resnet18", {"semseg": 3}, {"scene": 4}, {"edges": 1}, **TINY)
    output = model(IMAGES)
    assert output.predictions["scene"].shape == (2, 4) and list(output.intermediate[0]) == ["edges"]
    assert model.encoder_parameters("edges")


@pytest.mark.slow
def test_compiled():
    model = pair()[0].eval()
    with torch.no_grad():
        expected = model(IMAGES).predictions
        compiled = torch.compile(model, backend="aot_eager")(IMAGES).predictions
        with torch.autocast("cpu", torch.bfloat16):
            low = model(IMAGES).predictions
    torch.testing.assert_close(expected, compiled, rtol=1e-3, atol=1e-4)
    assert all(value.isfinite().all() for value in low.values())
