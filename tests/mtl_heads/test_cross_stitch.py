"""Cross-stitch and NDDR networks: their exchanges against the published modules and obvious references."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from harness.errors import UserError
from harness.optimization import OptimizerConfig
from mtl_heads import Output, build_model
from mtl_heads.cross_stitch import CrossStitchUnit
from mtl_heads.encoder import Encoder
from mtl_heads.nddr import NddrLayer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mtl_modules.safetensors"
TASKS = ("semseg", "depth", "normals")
TINY = {"backbone_options": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}, "head": "fcn"}


def stored(module: str) -> dict[str, dict[str, torch.Tensor]]:
    """Weights, inputs and outputs of a published module."""
    found: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "in": {}, "out": {}}
    with safe_open(FIXTURES, "pt") as file:
        for key in file.keys():
            name, kind, rest = key.split("/", 2)
            if name == module:
                found[kind][rest] = file.get_tensor(key)
    return found


def tiny(name: str, tasks: int = 2, backbone: str = "resnet18", **options):
    torch.manual_seed(0)
    names = {"semseg": 3, "train": 2, "normals": 3, "depth": 1}
    given = {**TINY, **options}
    if backbone != "resnet18":
        given.pop("backbone_options")
    return build_model(name, backbone, dict(list(names.items())[:tasks]), **given)


@pytest.mark.parametrize("module", ["cross_stitch.unit", "cross_stitch.unit_at_init_0.9_0.1"])
def test_published_units(module):
    data = stored(module)
    unit = CrossStitchUnit(TASKS, 8, 0.9, 0.1)
    state = {key.replace("cross_stitch_unit", "weights").replace("param", "weight"): value
             for key, value in data["weights"].items()}
    if "init" in module:
        assert all(torch.equal(value, state[key]) for key, value in unit.state_dict().items())
    unit.load_state_dict(state)
    with torch.no_grad():
        output = unit({task: data["in"][task] for task in TASKS}, TASKS)
    for task in TASKS:
        torch.testing.assert_close(output[task], data["out"][task], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", ["nddr.layer", "nddr.layer_at_init_0.9_0.1"])
def test_published_layers(module):
    data = stored(module)
    layer = NddrLayer(TASKS, 8, 0.9, 0.1).eval()
    state = {key.replace("layer.", "layers.", 1): value for key, value in data["weights"].items()}
    # The order of the concatenation is that of the file's tasks.
    order = list(TASKS)
    if "init" in module:
        for key, value in layer.state_dict().items():
            if key.endswith("0.weight"):
                torch.testing.assert_close(value, state[key])
    layer.load_state_dict(state)
    with torch.no_grad():
        output = layer({task: data["in"][task] for task in order}, order)
    for task in order:
        torch.testing.assert_close(output[task], data["out"][task], rtol=1e-5, atol=1e-5)


def test_units_against_a_loop():
    unit = CrossStitchUnit(["a", "b", "train"], 4, 0.8, 0.05)
    for value in unit.parameters():
        nn.init.normal_(value)
    maps = {task: torch.randn(2, 4, 3, 5, requires_grad=True) for task in ("a", "b", "train")}
    mixed = unit(maps, ["train", "a"])
    assert list(mixed) == ["train", "a"]
    for task, value in mixed.items():
        expected = torch.zeros_like(value)
        for channel in range(4):
            for other in maps:
                weight = unit.weights[task][other].weight[channel]
                expected[:, channel] = expected[:, channel] + weight * maps[other][:, channel]
        torch.testing.assert_close(value, expected)
    grads = torch.autograd.grad(mixed["a"].square().sum(), [*maps.values(), unit.weights["a"]["b"].weight])
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_units_keep_low_precision():
    unit = CrossStitchUnit(["a", "b"], 4, 0.9, 0.1)
    maps = {task: torch.randn(1, 4, 3, 3, dtype=torch.bfloat16) for task in "ab"}
    assert unit(maps, ["a"])["a"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["cross_stitch", "nddr"])
def test_identity_weights_leave_the_columns_alone(name):
    """With α 1 and β 0 a column is the single-task network with its weights (NDDR: up to its norm and ReLU)."""
    model = tiny(name, alpha=1.0, beta=0.0).eval()
    single = build_model("single_task", "resnet18", {"train": 2}, **TINY).eval()
    state = {}
    for key in single.state_dict():
        theirs = key
        for before, after in model.single_task_prefixes("train").items():
            if key.startswith(before):
                theirs = after + key.removeprefix(before)
        state[key] = model.state_dict()[theirs]
    single.load_state_dict(state)
    images = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        one, all_ = single(images).predictions["train"], model(images, ["train"]).predictions["train"]
    # batch norm's epsilon is what is left of the layers on features that a ReLU has passed
    torch.testing.assert_close(one, all_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cross_stitch", "nddr"])
def test_tasks_reach_each_others_columns(name):
    """But for a task's last exchange and head, all is shared; one task alone has no exchange."""
    model = tiny(name)
    assert not model.shared_representation and model.starts_from_single_task
    last = [id(value) for value in model.exchanges[-1].parameters()]
    for task in model.tasks:
        own = {id(value) for value in model.task_parameters(task)}
        assert own >= {id(value) for value in model.heads[task].parameters()}
        assert own & set(last) and not own & {id(value) for value in model.encoders.parameters()}
    assert not model.unreached_parameters()
    alone = tiny(name, tasks=1)
    assert not len(alone.exchanges) and alone(torch.rand(2, 3, 32, 32)).predictions["semseg"].shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", ["cross_stitch", "nddr"])
@pytest.mark.parametrize("backbone", [
    "resnet18", pytest.param("hrnet_w18_small", marks=pytest.mark.slow), "vit_tiny_patch16_224",
])
def test_any_backbone(name, backbone):
    """Odd sizes, image and auxiliary tasks, a subset of the tasks, a round trip of the weights."""
    torch.manual_seed(0)
    options = {"backbone_options": TINY["backbone_options"]} if backbone == "resnet18" else {}
    if backbone.startswith("vit"):
        options = {"backbone_options": {"embed_dim": 24, "depth": 3, "num_heads": 2}}
    model, other = (build_model(name, backbone, {"semseg": 3}, {"scene": 4}, {"edges": 1}, head="linear", **options)
                    for _ in range(2))
    images = torch.rand(2, 3, 65, 47)
    output = model(images)
    assert output.predictions["semseg"].shape == (2, 3, 65, 47) and output.predictions["scene"].shape == (2, 4)
    assert [list(maps) for maps in output.intermediate] == [["edges"]]
    sum(value.square().mean() for task in model.task_set.all for value in output.of(task)).backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    assert len(missing) == len(model.unreached_parameters())
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())
    other.load_state_dict(model.state_dict())
    model.eval(), other.eval()
    with torch.no_grad():
        whole, part = model(images), other(images, ["scene"])
    assert list(part.predictions) == ["scene"] and not part.intermediate
    torch.testing.assert_close(whole.predictions["scene"], part.predictions["scene"])


@pytest.mark.parametrize("name", ["cross_stitch", "nddr"])
def test_groups(name):
    model = tiny(name, lr_multiplier=7.0)
    ordinary, special = model.parameter_groups()
    assert special["lr_scale"] == 7.0 and "lr_scale" not in ordinary
    assert {id(v) for v in special["params"]} == {id(v) for v in model.exchanges.parameters()}
    assert len(ordinary["params"]) + len(special["params"]) == len(list(model.parameters()))
    own = tiny(name).parameter_groups()[1]
    assert (own["lr_scale"], own["adaptive_lr_scale"]) == (100.0, 1.0) and "adaptive_lr_scale" not in special
    model.exchanges.requires_grad_(False)
    assert len(model.parameter_groups()) == 1
    with pytest.raises(UserError, match="lr_multiplier is 0"):
        tiny(name, lr_multiplier=0)


@pytest.mark.parametrize("optimizer, default, given", [
    ("sgd", 100, 7), ("nesterov", 100, 7), ("sgdw", 100, 7), ("lookahead_sgd", 100, 7),
    ("adam", 1, 7), ("adamw", 1, 7), ("lamb", 1, 7), ("lookahead_adam", 1, 7),
])
def test_the_published_multiplier_is_for_sgd(optimizer, default, given):
    """With Adam steps do not shrink with the gradients; what the user gives holds with any optimiser."""
    config = OptimizerConfig(optimizer, lr=0.01)
    for expected, options in ((default, {}), (given, {"lr_multiplier": given}), (100, {"lr_multiplier": 100})):
        ordinary, special = config.build(tiny("cross_stitch", **options).parameter_groups()).param_groups
        assert ordinary["lr"] == pytest.approx(0.01) and special["lr"] == pytest.approx(0.01 * expected)


@pytest.mark.parametrize("name", ["cross_stitch", "nddr", "progressive"])
def test_images_are_made_ready_once(name, monkeypatch):
    """They are the same for all columns; and without a task nothing is predicted."""
    made = []
    prepare = Encoder.prepare
    monkeypatch.setattr(Encoder, "prepare", lambda self, images: made.append(1) or prepare(self, images))
    model = tiny(name, tasks=4)
    made.clear()
    model.eval()(torch.rand(1, 3, 33, 47))
    assert len(made) == 1
    assert model(torch.rand(1, 3, 33, 47), []) == Output({}, [])


def test_nddr_on_single_values():
    """One image and features of one pixel: the norm takes its running statistics."""
    layer = NddrLayer(["a", "b"], 4, 0.9, 0.1).train()
    out = layer({"a": torch.rand(1, 4, 1, 1), "b": torch.rand(1, 4, 1, 1)}, ["a", "b"])
    assert all(value.isfinite().all() for value in out.values())
    assert layer.layers["a"][1].momentum == 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cross_stitch", "nddr"])
def test_compiled(name):
    model = tiny(name).eval()
    images = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        expected = model(images).predictions
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(images).predictions
        with torch.autocast("cpu", torch.bfloat16):
            low = model(images).predictions
    for task, value in expected.items():
        torch.testing.assert_close(value, compiled[task], rtol=1e-3, atol=1e-4)
        assert low[task].isfinite().all()
