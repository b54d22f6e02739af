"""The encoder of cooperative learning: divided among tasks, and otherwise an ordinary one."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import SwiGLUPacked
from torch import nn

from mtl_heads import build_model
from mtl_heads.cooperative import _divide, sections

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


def owners_of(network, name: str, value: str, owned: dict[str, list[str]]) -> list[str]:
    """Whose each row of a parameter is: found by writing it there."""
    with torch.no_grad():
        for number, parts in enumerate(owned.values()):
            for part in parts:
                network.get_parameter(part).fill_(number)
    rows = getattr(network.get_submodule(name), value).flatten(1) if value.endswith("weight") else None
    rows = getattr(network.get_submodule(name), value)[:, None] if rows is None else rows
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    return [list(owned)[int(number)] for number in rows[:, 0]]


@pytest.mark.parametrize("backbone, options, layers", [
    ("vit_tiny_patch16_224", {"embed_dim": 36, "depth": 3, "num_heads": 2, "mlp_layer": SwiGLUPacked},
     {"model.blocks.0.attn.qkv": 3, "model.blocks.0.mlp.fc1": 2}),
    ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
     {"layers_0.blocks.0.attn.qkv": 3}),
    pytest.param("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, {"stages_0.blocks.0.attn.kv": 2}, marks=pytest.mark.slow),
])
@pytest.mark.parametrize("count", [2, 5])
def test_tasks_have_equal_shares_of_queries_keys_and_values(backbone, options, layers, count):
    model, baseline = pair(count, backbone, backbone_options=options)
    with torch.no_grad():
        a, b = (m.eval()(IMAGES).predictions["task1"] for m in (model, baseline))
    torch.testing.assert_close(a, b)
    for layer, number in layers.items():
        for value in ("weight", "bias"):
            found = owners_of(model.encoder, f"backbone.{layer}", value, model._owned)
            size = len(found) // number
            for i in range(number):
                shares = [found[i * size : (i + 1) * size].count(task) for task in model.tasks]
                assert sum(shares) == size and max(shares) - min(shares) <= 1, (layer, value, i, shares)


def test_a_multi_head_attention_of_torch():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 2, batch_first=True)
    images = torch.rand(2, 5, 12)
    expected = layer(images, images, images)[0]
    owned = _divide(layer, ["a", "b", "c"])
    torch.testing.assert_close(layer(images, images, images)[0], expected)
    for value in ("in_proj_weight", "in_proj_bias"):
        rows = owners_of(layer, "", value, owned)
        assert [rows[i : i + 12].count(task) for i in (0, 12, 24) for task in "abc"] == [4] * 9


def test_sections_of_other_layers():
    class Attention(nn.Module):
        """Each head's queries, keys and values follow one another."""

        head_first, key_dim, in_split = True, 4, [8, 4, 4, 4]

    linear = nn.Linear(12, 36)
    assert sections(linear, 36, nn.Module(), "qkv") == [12, 12, 12]
    assert sections(linear, 36, Attention(), "qkv") == [36]
    assert sections(nn.Linear(12, 24), 24, nn.Module(), "qkv") == [12, 12]  # the queries come from elsewhere
    assert sections(nn.Linear(12, 20), 20, Attention(), "in_proj") == [8, 4, 4, 4]
    assert sections(nn.Linear(12, 24), 24, nn.Module(), "fc1") == [24]


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
