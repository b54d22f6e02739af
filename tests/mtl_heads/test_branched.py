"""Branched networks against networks put together by hand, and the trees they are made of."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import timm
import torch
from timm.models.hrnet import HighResolutionNetFeatures

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.trees import group_counts, make_tree, shared_tree, split_tree

DENSE, IMAGE = {"semseg": 5, "depth": 1, "normals": 3}, {"scene": 4}
TASKS = [*DENSE, *IMAGE]
TREE = [
    [TASKS],
    [["depth", "scene"], ["semseg", "normals"]],
    [["semseg", "normals"], ["scene"], ["depth"]],
    [["normals"], ["semseg"], ["scene"], ["depth"]],
]
SMALL = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
BACKBONES = {
    "resnet": ("resnet18", SMALL),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "vit": ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 4, "num_heads": 3, "img_size": 32,
                                     "dynamic_img_size": True, "dynamic_img_pad": True, "out_indices": (0, 1, 2, 3)}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2),
                                              "strict_img_size": False}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny_hrnet():
    """HRNet at its four branches, with few channels."""

    def stage(*channels, block="BASIC"):
        return {"num_modules": 1, "num_branches": len(channels), "block_type": block, "fuse_method": "SUM",
                "num_blocks": (1,) * len(channels), "num_channels": channels}  # fmt: skip

    stages = {f"stage{n}": stage(*(4, 8, 16, 24)[:n]) for n in (2, 3, 4)}
    config = {"stem_width": 8, "stage1": stage(4, block="BOTTLENECK"), **stages}
    return HighResolutionNetFeatures(config, feature_location="", out_indices=(1, 2, 3, 4))


def backbone(kind="resnet"):
    if kind == "hrnet":
        return tiny_hrnet()
    name, options = BACKBONES[kind]
    return timm.create_model(name, features_only=True, **options)


def build(tree=None, kind="resnet", dense=DENSE, image=IMAGE, **options):
    return build_model("branched", backbone(kind), dense, image, **{"head": "fcn", "tree": tree, **options})


def randomise(model):
    """Weights and statistics of their own everywhere, so that copies differ."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
        for name, value in model.named_buffers():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif name.endswith("running_mean"):
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


def by_hand(model, images, task):
    """One task's prediction from a ResNet whose layers are picked one by one out of the tree."""
    leaf = next(i for i, group in enumerate(model.tree[-1]) if task in group)
    encoders = [model.encoder, *model.branches]
    value, features = images, []
    for stage, level in enumerate(model.tree):
        group = next(group for group in level if task in group)
        owner = next(i for i, last in enumerate(model.tree[-1]) if last[0] == group[0])
        timm_model = encoders[owner].backbone
        if stage == 0:
            for name in ("conv1", "bn1", "act1", "maxpool"):
                value = timm_model[name](value)
        value = timm_model[f"layer{stage + 1}"](value)
        features.append(value)
    prediction = model.heads[task](encoders[leaf].neck(features))
    if prediction.dim() == 4:
        prediction = torch.nn.functional.interpolate(prediction, images.shape[2:], mode="bilinear")
    return prediction


@pytest.mark.parametrize("neck", ["none", "fpn"])
def test_predictions_follow_the_tree(neck):
    options = {"neck_options": {"channels": 8}} if neck == "fpn" else {}
    model = randomise(build(TREE, neck=neck, **options)).eval()
    images = torch.randn(2, 3, 65, 47)
    output = model(images)
    assert list(output.predictions) == TASKS and output.intermediate == []
    for task in TASKS:
        assert torch.equal(output.predictions[task], by_hand(model, images, task))


@pytest.mark.parametrize("kind", [
    "resnet", "hrnet", "vit", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("convnext", "swin"))
])  # fmt: skip
def test_every_backbone_runs_each_stage_once_per_group(kind):
    """All-shared is the baseline, all-split are single-task networks, and any tree costs what its groups cost."""
    images = torch.randn(1, 3, 45, 38)
    source = backbone(kind)
    baseline = build_model("baseline", copy.deepcopy(source), DENSE, IMAGE, head="fcn").eval()
    stages = 4
    shared = build_model("branched", source, DENSE, IMAGE, head="fcn", tree=shared_tree(TASKS, stages)).eval()
    assert shared.shared_representation and isinstance(shared.encode(images), list)
    shared.load_state_dict(baseline.state_dict())
    expected = baseline(images).predictions
    for task, value in shared(images).predictions.items():
        assert torch.equal(value, expected[task])

    split = build_model("branched", copy.deepcopy(source), DENSE, IMAGE, head="fcn", tree=split_tree(TASKS, stages))
    split.heads.load_state_dict(baseline.heads.state_dict())
    assert not split.shared_representation
    for task, value in split.eval()(images).predictions.items():
        assert torch.allclose(value, expected[task], atol=1e-6)
        wanted = split(images, [task])
        assert list(wanted.predictions) == [task] and torch.equal(wanted.predictions[task], value)
    owned = {task: sum(p.numel() for p in split.task_parameters(task)) for task in TASKS}
    for task in TASKS:
        kind_of = (None, {task: IMAGE[task]}) if task in IMAGE else ({task: DENSE[task]}, None)
        single = build_model("single_task", copy.deepcopy(source), *kind_of, head="fcn")
        unused = sum(p.numel() for p in single.unreached_parameters())
        assert owned[task] == sum(p.numel() for p in single.parameters()) - unused


def test_parameters_are_shared_as_the_tree_says():
    """Gradients, parameter sets and tree agree; other tasks' branches do not run."""
    model = build(TREE)
    images = torch.randn(2, 3, 33, 40)
    names = {id(value): name for name, value in model.named_parameters()}
    assert {names[id(p)] for p in model.task_parameters("depth")} == {
        name for name in names.values() if name.startswith("heads.depth.")
        or name.startswith(f"branches.{model._leaf_of['depth'] - 1}.backbone.layer4.")
        or name.startswith(f"branches.{model._leaf_of['depth'] - 1}.backbone.layer3.")
    }
    owners = {}
    for task in TASKS:
        model.zero_grad()
        model(images, [task]).predictions[task].sum().backward()
        for name, value in model.named_parameters():
            if value.grad is not None:
                owners.setdefault(name, set()).add(task)
    assert owners.keys() == set(names.values())
    groups = [{frozenset(group) for group in level} for level in model.tree]
    for stage in range(4):
        found = {frozenset(tasks) for name, tasks in owners.items() if f"backbone.layer{stage + 1}." in name}
        assert found == groups[stage]
    ran = []
    for branch in (model.encoder, *model.branches):
        branch.backbone["layer4"].register_forward_hook(lambda part, *_: ran.append(part))
    model(images, ["scene"])
    assert len(ran) == 1


def test_auxiliary_tasks_and_state_round_trip():
    tasks = {"dense": {"semseg": 5}, "image": {"scene": 3}}
    tree = [[["semseg", "scene", "normals"]]] * 3 + [[["semseg", "normals"], ["scene"]]]
    model = build(tree, **tasks, auxiliary={"normals": 3}).eval()
    images = torch.randn(1, 3, 40, 33)
    output = model(images)
    assert list(output.predictions) == ["semseg", "scene"] and list(output.intermediate[0]) == ["normals"]
    assert model(images, ["scene"]).intermediate == []
    other = randomise(build(tree, **tasks, auxiliary={"normals": 3})).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images).predictions["semseg"], output.predictions["semseg"])
    twin = randomise(copy.deepcopy(model))  # a copy runs its own stages
    assert not torch.equal(twin(images).predictions["scene"], output.predictions["scene"])
    assert torch.equal(model(images).predictions["scene"], output.predictions["scene"])
    assert len(model.state_dict()) == len({value.data_ptr() for value in model.state_dict().values()})
    decoded = model.decode(model.encode(images), (20, 30), ["normals"])
    assert decoded.predictions == {} and decoded.intermediate[0]["normals"].shape == (1, 3, 20, 30)


def test_one_task_and_forty():
    one = build(dense={"depth": 1}, image=None).eval()
    assert one.shared_representation
    tasks = {f"attribute {i}": 1 for i in range(40)}
    names = list(tasks)
    tree = [[names], [names], [names[:20], names[20:]], [[name] for name in names[:20]] + [names[20:]]]
    many = build(tree, dense=None, image=tasks).eval()
    assert len(many.branches) == 20 and len(many(torch.randn(1, 3, 32, 32)).predictions) == 40
    assert group_counts(many.tree) == (1, 1, 2, 21)


@pytest.mark.slow
def test_compiles_and_runs_in_bfloat16():
    model = randomise(build(TREE)).eval()
    images = torch.randn(2, 3, 40, 40)
    expected = model(images).predictions
    with torch.autocast("cpu", torch.bfloat16):
        for task, value in model(images).predictions.items():
            close = 0.1 * expected[task].detach().abs().max().item()
            assert torch.allclose(value.float(), expected[task], atol=close)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for task, value in compiled(images).predictions.items():
        assert torch.allclose(value, expected[task], atol=1e-5)


@pytest.mark.parametrize(("tree", "message"), [
    ([[["a", "b", "c"]]], r"for 1 locations and the encoder has 2 stages: give one grouping"),
    ([[["a", "b", "c"]], [["a", "b"]]], r"at location 1 of 0 to 1, leaves out c: put each"),
    ([[["a", "b", "c"]], [["a", "b"], ["c", "a"]]], r"has task 'a' 2 times: name it once"),
    ([[["a", "b", "c"]], [["a", "b"], ["c", "dd"]]], r"has a task 'dd' that the network has not: group a, b, c"),
    ([[["a", "b"], ["c"]], [["a", "c"], ["b"]]], r"has 'a' and 'c' together, which .* apart: branches only split"),
    ([[["a", "b", "c"], []], [["a", "b", "c"]]], r"location 0 .* has an empty group: leave it out"),
    ([["abc"], [["a", "b", "c"]]], r"must be a list \(locations\) of lists .* found 'abc'"),
    (7, r"must be a list .* found 7"),
    ([[[1, "b", "c"]], [["a", "b", "c"]]], r"has 1 where the name of a task belongs"),
])  # fmt: skip
def test_wrong_trees_are_refused(tree, message):
    with pytest.raises(UserError, match=message) as caught:
        make_tree(tree, ["a", "b", "c"], 2)
    assert "\n" not in str(caught.value)


def test_trees_have_one_form():
    generator = np.random.default_rng(0)
    expected = make_tree(TREE, TASKS, 4)
    for _ in range(5):
        shuffled = [[list(generator.permutation(group)) for group in level] for level in TREE]
        shuffled = [[[str(task) for task in level[i]] for i in generator.permutation(len(level))] for level in shuffled]
        assert make_tree(shuffled, TASKS, 4) == expected
    assert make_tree(expected, TASKS, 4) == expected
    assert split_tree(TASKS, 3, first=2)[:2] == shared_tree(TASKS, 2)


def test_a_tree_for_another_encoder_is_refused():
    with pytest.raises(UserError, match=re.escape("groupings for 3 locations and the encoder has 4 stages")):
        build(TREE[:3])
