"""Columns that are trained one after another."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.hrnet import HighResolutionNetFeatures
from torch import nn

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.progressive import LateralAdapter

BACKBONES = {
    "resnet": ("resnet18", {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "vit": ("vit_tiny_patch16_224", {"embed_dim": 16, "depth": 4, "num_heads": 2, "dynamic_img_size": True}),
    "hrnet": ("four branches", {}),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny_hrnet() -> nn.Module:
    """HRNet at its four branches, with few channels."""
    width = (4, 8, 16, 24)
    common = {"num_modules": 1, "block_type": "BASIC", "fuse_method": "SUM"}
    stages = {
        f"stage{n}": {**common, "num_branches": n, "num_blocks": (1,) * n, "num_channels": width[:n]} for n in (2, 3, 4)
    }
    first = {**common, "num_branches": 1, "num_blocks": (1,), "num_channels": (4,), "block_type": "BOTTLENECK"}
    config = {"stem_width": 8, "stage1": first, **stages}
    return HighResolutionNetFeatures(config, feature_location="", out_indices=(1, 2, 3, 4))


def tiny(dense=None, image=None, auxiliary=None, backbone="resnet", **options):
    name, arguments = BACKBONES[backbone]
    module = tiny_hrnet() if backbone == "hrnet" else timm.create_model(name, features_only=True, **arguments)
    dense = {"semseg": 5, "depth": 1} if dense is None else dense
    return build_model("progressive", module, dense, image, auxiliary, head="linear", **options)


def test_adapter_against_its_formula():
    adapter = LateralAdapter(2, 6, reduction=2)
    own, first, second = torch.randn(3, 2, 6, 5, 7).unbind()
    v, u = adapter.reduce.weight[:, :, 0, 0], adapter.restore.weight[:, :, 0, 0]
    assert v.shape == (3, 12) and u.shape == (6, 3)
    wanted = torch.empty_like(own)
    for b, y, x in [(0, 0, 0), (1, 4, 6), (1, 2, 3)]:
        cell = torch.cat([adapter.scales[0] * first[b, :, y, x], adapter.scales[1] * second[b, :, y, x]])
        hidden = torch.relu(v @ cell + adapter.reduce.bias)
        wanted = own[b, :, y, x] + u @ hidden + adapter.restore.bias
        torch.testing.assert_close(adapter(own, [first, second])[b, :, y, x], wanted)
    assert 0 < adapter.scales.min() and adapter.scales.max() < 0.1 and adapter.scales[0] != adapter.scales[1]


def test_first_column_is_a_single_task_network_and_later_ones_read_it():
    model = tiny(image={"scene": 3}).eval()
    single = build_model("single_task", model.encoders["semseg"].backbone, {"semseg": 5}, head="linear").eval()
    single.heads.load_state_dict({k: v for k, v in model.heads.state_dict().items() if k.startswith("semseg")})
    images = torch.randn(2, 3, 65, 47)
    before = model(images).predictions
    torch.testing.assert_close(before["semseg"], single(images).predictions["semseg"])
    with torch.no_grad():
        model.encoders["semseg"].backbone.conv1.weight.mul_(3)
    after = model(images).predictions
    assert all(not torch.equal(before[task], after[task]) for task in before)
    with torch.no_grad():
        model.encoders["scene"].backbone.conv1.weight.mul_(3)
    last = model(images).predictions
    assert torch.equal(after["semseg"], last["semseg"]) and torch.equal(after["depth"], last["depth"])
    assert not torch.equal(after["scene"], last["scene"])


def test_without_laterals_columns_are_single_task_networks():
    model = tiny().eval()
    for part in model.modules():
        if isinstance(part, LateralAdapter):
            part.restore.weight.data.zero_()
            part.restore.bias.data.zero_()
    images = torch.randn(1, 3, 40, 33)
    pyramid = model.encoders["depth"](images)
    for found, wanted in zip(model.encode(images)["depth"], pyramid, strict=True):
        torch.testing.assert_close(found, wanted)


def test_every_parameter_belongs_to_its_column():
    model = tiny(image={"scene": 3}, auxiliary={"normals": 3})
    assert model.order == ["normals", "semseg", "depth", "scene"]
    assert model.shared_parameters() == [] and model.last_shared_parameters() == []
    names = {id(value): name for name, value in model.named_parameters()}
    for task in model.order:
        found = [names[id(value)] for value in model.task_parameters(task)]
        assert found and all(name.split(".")[1] == task for name in found)
        assert any(name.startswith("adapters") for name in found) == (task != "normals")
    output = model(torch.randn(2, 3, 40, 40))
    (auxiliary,) = output.intermediate
    assert list(auxiliary) == ["normals"] and list(output.predictions) == ["semseg", "depth", "scene"]
    loss = sum(value.square().mean() for task in model.order for value in output.of(task))
    loss.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    adapters = [sum(p.numel() for p in model.adapters[task].parameters()) for task in model.order[1:]]
    assert adapters[2] - adapters[1] == adapters[1] - adapters[0]  # they grow linearly


def test_a_phase_trains_one_column_and_leaves_the_others_alone():
    model = tiny(image={"scene": 3})
    given = model.encoders["depth"].backbone.conv1.weight.requires_grad_(False)
    assert model.phases() == [["semseg"], ["depth"], ["scene"]]
    images = torch.randn(2, 3, 40, 40)
    for number, (task,) in enumerate(model.phases()):
        model.enter_phase(number)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        model.eval()
        model.train()  # as an evaluation in between does
        assert {part.training for part in model.encoders[task].modules()} == {True}
        model(images, [task]).predictions[task].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and {name.split(".")[1] for name in changed} == {task}
        assert any("running_mean" in name for name in changed)
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        assert {name.split(".")[1] for name in trained} == {task}
    assert not given.requires_grad  # what was frozen before stays so


def test_only_columns_that_are_needed_run():
    model = tiny(image={"scene": 3}).eval()
    ran = set()
    for task in model.order:
        model.encoders[task].backbone.conv1.register_forward_hook(lambda *_, task=task: ran.add(task))
        model.heads[task].register_forward_hook(lambda *_, task=task: ran.add(f"head {task}"))
    model(torch.randn(1, 3, 32, 32), ["depth"])
    assert ran == {"semseg", "depth", "head depth"}


@pytest.mark.parametrize(
    ("backbone", "count"), [("resnet", 1), ("resnet", 4), ("convnext", 2), ("vit", 2), ("hrnet", 2)]
)
def test_backbones_and_numbers_of_tasks(backbone, count):
    tasks = dict(list({"semseg": 5, "depth": 1, "normals": 3, "train": 2}.items())[:count])
    model = tiny(tasks, backbone=backbone)
    images = torch.randn(2, 3, 65, 47)
    output = model(images)
    assert {t: tuple(v.shape) for t, v in output.predictions.items()} == {t: (2, n, 65, 47) for t, n in tasks.items()}
    sum(value.square().mean() for value in output.predictions.values()).backward()
    model.eval()
    again = tiny(tasks, backbone=backbone).eval()
    again.load_state_dict(model.state_dict())
    wanted, alone = model(images), again(images, ["semseg"])
    torch.testing.assert_close(alone.predictions["semseg"], wanted.predictions["semseg"])
    assert model.decode(model.encode(images), (31, 90)).predictions["semseg"].shape == (2, 5, 31, 90)


def test_autocast():
    model = tiny(image={"scene": 3}).eval()
    images = torch.randn(1, 3, 40, 40)
    wanted = model(images).predictions["depth"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images).predictions["depth"]
    assert low.dtype == torch.bfloat16 and (low.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.slow
def test_one_graph_also_with_frozen_columns():
    model = tiny(image={"scene": 3})
    images = torch.randn(2, 3, 40, 40)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for number, (task,) in enumerate(model.phases()):
        model.enter_phase(number)
        model.eval()
        wanted = model(images, [task]).predictions[task]
        torch.testing.assert_close(compiled(images, [task]).predictions[task], wanted)


def test_refusals():
    for order in (["semseg"], ["semseg", "semseg"], ["depth", "semseg", "normals"]):
        with pytest.raises(UserError, match="order is .* the tasks are semseg, depth: give each of them once"):
            tiny(order=order)
    assert tiny(order=["depth", "semseg"]).phases() == [["depth"], ["semseg"]]
    with pytest.raises(UserError, match="reduction is 0"):
        tiny(reduction=0)

    class Parallel(nn.Module):
        def forward(self, images):
            return [nn.functional.avg_pool2d(images, size) for size in (4, 8)]

    with pytest.raises(UserError, match="cannot be cut into stages"):
        build_model("progressive", Parallel(), {"depth": 1}, head="linear")
