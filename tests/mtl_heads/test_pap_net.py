"""PAP-Net."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.affinity import AffinityDistillation, PixelAffinity

SMALL = {"channels": (8, 12, 16, 20), "layers": (1, 1, 1, 1)}
TASKS = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def small(dense=None, image=None, auxiliary=None, **options):
    options = {"channels": 16, "backbone_options": SMALL, **options}
    return build_model("pap_net", "resnet18", dense or {"semseg": 5, "depth": 1}, image, auxiliary, **options)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    for value in module.parameters():
        torch.nn.init.normal_(value, std=0.5)
    return module


def test_affinities_are_rows_of_similarities():
    module = randomised(PixelAffinity(6))
    features = torch.randn(2, 6, 3, 4)
    found = module(features)
    assert found.shape == (2, 12, 12)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 12))
    weight, bias = module.embedding.weight.flatten(1), module.embedding.bias
    for image in range(2):
        pixels = [weight @ features[image, :, i // 4, i % 4] + bias for i in range(12)]
        for i in range(12):
            scores = torch.stack([(pixels[i] * pixels[j]).sum() / 3**0.5 for j in range(12)])
            torch.testing.assert_close(found[image, i], scores.softmax(0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_distillation_on_a_full_grid_is_the_equation(steps):
    module = randomised(AffinityDistillation(TASKS[:2], TASKS, 4, grid=8, steps=steps))
    features = {task: torch.randn(2, 4, 3, 5) for task in TASKS}
    found = module(features, TASKS[:2])
    affinities = [module.affinities[task](features[task]) for task in TASKS]
    for task in TASKS[:2]:
        weights, share = module.diffusion[task].mixing.softmax(0), module.diffusion[task].strength.sigmoid()
        mixed = sum(weights[i] * affinities[i] for i in range(3))  # equation 3.3
        pixels = features[task].flatten(2).transpose(1, 2)
        diffused = torch.linalg.matrix_power(mixed, steps) @ pixels
        expected = (share * diffused + (1 - share) * pixels).transpose(1, 2).reshape(2, 4, 3, 5)
        torch.testing.assert_close(found[task], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reduced_grid_bounds_the_cells_and_leaves_constants_alone():
    module = randomised(AffinityDistillation(["a"], ["a", "b"], 4, grid=6, steps=2))
    features = {"a": torch.full((1, 4, 23, 17), 1.5), "b": torch.randn(1, 4, 23, 17)}
    assert module._reduce(features["b"]).shape == (1, 4, 6, 5)
    # Rows of the mixed matrix sum to one: what is the same everywhere stays as it is.
    torch.testing.assert_close(module(features, ["a"])["a"], features["a"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module._reduce(features["b"])[0, :, 0, 0], features["b"][0, :, :4, :4].mean((1, 2)))


def test_diffusion_smooths_what_all_tasks_find_alike():
    """Two regions that every task tells apart: the diffusion evens each of them out and keeps them apart."""
    module = AffinityDistillation(["a"], ["a", "b"], 2, grid=8, steps=2)
    for part in module.affinities.values():
        part.embedding.weight.data.copy_(torch.tensor([[[[6.0]], [[0.0]]]]))
        part.embedding.bias.data.zero_()
    module.diffusion["a"].strength.data.fill_(20.0)  # the diffused features alone
    side = torch.ones(1, 2, 4, 4)
    side[..., 2:] = -1
    noisy = side.clone()
    noisy[:, 1] += 0.3 * torch.randn(4, 4)
    found = module({"a": noisy, "b": side}, ["a"])["a"]
    for half in (slice(0, 2), slice(2, 4)):
        assert found[0, 1, :, half].std() < 1e-3
        torch.testing.assert_close(found[0, 1, :, half].mean(), noisy[0, 1, :, half].mean())


def test_network():
    model = small(image={"scene": 3}, auxiliary={"normals": 3}).train()
    images = torch.randn(2, 3, 65, 47)
    output = model(images)
    assert {task: tuple(value.shape) for task, value in output.predictions.items()} == {
        "semseg": (2, 5, 65, 47), "depth": (2, 1, 65, 47), "scene": (2, 3),
    }  # fmt: skip
    assert [list(entry) for entry in output.intermediate] == [["semseg", "depth", "normals"]]
    loss = sum(value.square().mean() for task in model.task_set.all for value in output.of(task))
    loss.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    model.eval()
    whole = model(images, intermediate=True)
    for task in model.task_set.all:
        alone = model(images, [task], intermediate=True)
        for ours, theirs in zip(alone.of(task), whole.of(task), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    names = {id(value): name for name, value in model.named_parameters()}
    own = {names[id(value)] for value in model.task_parameters("depth")}
    assert {"distillation.diffusion.depth.mixing", "distillation.diffusion.depth.strength"} <= own
    assert not any("affinities" in name for name in own)


def test_one_task_attends_to_itself():
    assert small({"depth": 1})(torch.randn(2, 3, 40, 33)).predictions["depth"].shape == (2, 1, 40, 33)


@pytest.mark.parametrize("options", [{"grid": 0}, {"steps": 0}, {"channels": 6}])
def test_refused(options):
    with pytest.raises(UserError, match="give positive|multiple of 4"):
        small(**options)
