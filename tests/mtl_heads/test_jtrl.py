"""Joint task-recursive learning."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.blocks import resize
from mtl_heads.task_attention import TaskAttention

SMALL = {"channels": (8, 12, 16, 20), "layers": (1, 1, 1, 1)}
DENSE = {"depth": 1, "semseg": 5}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def small(dense=None, image=None, auxiliary=None, backbone="resnet18", **options):
    options = {"channels": 8, "backbone_options": SMALL, **options}
    return build_model("jtrl", backbone, DENSE if dense is None else dense, image, auxiliary, **options).eval()


@torch.no_grad()
def test_network_is_the_figure():
    """Depth, then semantic segmentation, at each scale from coarse to fine."""
    model = small()
    images = torch.randn(2, 3, 65, 47)
    features = model.encode(images)
    depth = semseg = None
    predictions = []
    for position in (3, 2, 1, 0):
        size, steps = tuple(features[position].shape[-2:]), model.steps[position]
        read = features[position] if depth is None else torch.cat([features[position], resize(depth, size)], 1)
        depth = steps["depth"].refinement(read)
        if semseg is not None:
            depth = steps["depth"].attention(depth, resize(semseg, size))
        read = features[position] if semseg is None else torch.cat([features[position], resize(semseg, size)], 1)
        semseg = steps["semseg"].attention(steps["semseg"].refinement(read), depth)
        maps = {"depth": steps["depth"].decoder(depth), "semseg": steps["semseg"].decoder(semseg)}
        predictions.insert(0, {task: resize(value, (65, 47)) for task, value in maps.items()})
    output = model(images, intermediate=True)
    assert model.intermediate_strides == [8, 16, 32]
    for ours, theirs in zip([output.predictions, *output.intermediate], predictions, strict=True):
        assert list(ours) == list(theirs)
        for task in ours:
            torch.testing.assert_close(ours[task], theirs[task], rtol=1e-4, atol=1e-5)


def test_task_attention_with_its_gates_set():
    module = TaskAttention(3).eval()
    own, other = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    for gate, balanced in ((40.0, own), (-40.0, other)):
        module.balance[0].weight.data.zero_()
        module.balance[0].bias.data.fill_(gate)
        module.mask[3].weight.data.zero_()
        module.mask[3].bias.data.fill_(-40.0)  # no cell is raised
        torch.testing.assert_close(module(own, other), module.fuse(torch.cat([own, balanced], 1)))
        module.mask[3].bias.data.fill_(40.0)  # every cell is
        torch.testing.assert_close(module(own, other), module.fuse(torch.cat([own, 2 * balanced], 1)))


@torch.no_grad()
def test_some_tasks_alone_and_what_is_not_run():
    model = small(image={"scene": 3})
    images = torch.randn(2, 3, 40, 33)
    whole = model(images, intermediate=True)
    run: list[str] = []
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: run.append(name))
    for chosen in (["depth"], ["semseg"], ["scene"], ["semseg", "scene"]):
        run.clear()
        output = model(images, chosen, intermediate=True)
        assert list(output.predictions) == chosen
        assert ("steps.0.semseg" in run) == ("semseg" in chosen)
        assert ("steps.0.depth" in run) == (chosen != ["scene"])
        assert ("steps.1.depth.decoder" in run) == ("depth" in chosen)
        for task in chosen:
            for ours, theirs in zip(output.of(task), whole.of(task), strict=True):
                torch.testing.assert_close(ours, theirs)


def test_gradients_reach_everything_and_the_sets_follow_from_the_turns():
    model = small(image={"scene": 3}).train()
    output = model(torch.randn(2, 3, 40, 33))
    sum(value.square().mean() for task in model.tasks for value in output.of(task)).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    names = {id(value): name for name, value in model.named_parameters()}
    depth = {names[id(value)] for value in model.task_parameters("depth")}
    semseg = {names[id(value)] for value in model.task_parameters("semseg")}
    assert all(".depth.decoder." in name for name in depth)  # its states are all read by the other task
    assert any(name.startswith("steps.0.semseg.refinement") for name in semseg)
    assert not any(name.startswith("steps.1.semseg.refinement") for name in semseg)


def test_backbones():
    assert small(output_stride=16).intermediate_strides == [8, 16]
    assert small(neck="fpn", neck_options={"channels": 8}).intermediate_strides == [8, 16, 32]


@pytest.mark.parametrize(
    "tasks",
    [
        {"dense": {"depth": 1}},
        {"dense": {**DENSE, "normals": 3}},
        {"auxiliary": {"normals": 3}},
        {"dense": {}, "image": {"scene": 3}},
    ],
)
def test_other_than_two_tasks_are_refused(tasks):
    with pytest.raises(UserError, match="exactly two tasks"):
        small(**tasks)


def test_one_scale_and_no_channels_are_refused():
    options = {"embed_dim": 16, "depth": 3, "num_heads": 2}
    with pytest.raises(UserError, match="reads features of 2 strides, .* gives 1"):
        small(backbone="vit_tiny_patch16_224", backbone_options=options)
    with pytest.raises(UserError, match="channels=0"):
        small(channels=0)
