"""Task affinities and costs of branched networks, against slow references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import timm
import torch
from scipy.stats import spearmanr

from harness.errors import UserError
from mtl_heads import build_model
from mtl_heads.resources import multiply_adds, parameters
from mtl_heads.trees import group_counts, make_tree, split_tree
from transfer.branching.affinity import difficulty_affinity, task_affinity
from transfer.branching.costs import measure_costs
from transfer.branching.counting import random_chain
from transfer.branching.dissimilarity import representation_dissimilarity, standardised
from transfer.branching.problem import tree_of
from transfer.branching.singles import choose_images, example_error
from transfer.tasks.base import build_task


def feature_batches(features, size, passes=None):
    """What a network would give: ``features`` of each location, cut into batches."""

    def batches(start):
        if passes is not None:
            passes.append(start)
        for at in range(start, len(features[0]), size):
            yield [values[at : at + size] for values in features]

    return batches


@pytest.mark.parametrize(("images", "batch", "kept"), [(9, 9, 9), (10, 4, 10), (11, 3, 3), (13, 5, 10), (7, 2, 1)])
def test_dissimilarity_is_one_minus_pearson(images, batch, kept):
    """In one pass, or in several where the features of all images do not fit."""
    generator = torch.Generator().manual_seed(images)
    features = [torch.randn(images, *shape, generator=generator) * 5 + 3 for shape in ((4, 6, 5), (8, 3, 3), (20,))]
    floats = 120 + 72 + 20
    passes = []
    found = representation_dissimilarity(feature_batches(features, batch, passes), images, kept * floats / 2**28)
    block = max(batch, kept // batch * batch)
    assert passes == list(range(0, images, block))
    for values, row in zip(features, found, strict=True):
        expected = 1 - np.corrcoef(values.flatten(1).double().numpy())
        upper = [expected[i, j] for i, j in itertools.combinations(range(images), 2)]
        assert np.allclose(row.numpy(), upper, atol=1e-5)


def test_features_without_variance_correlate_with_nothing():
    features = torch.randn(4, 3, 2, 2)
    features[1] = 7.3
    features[2] = 0
    found = representation_dissimilarity(feature_batches([features], 2), 4)
    pairs = dict(zip(itertools.combinations(range(4), 2), found[0].tolist(), strict=True))
    assert all(value == 1 for pair, value in pairs.items() if {1, 2} & set(pair)) and pairs[0, 3] != 1
    assert standardised(features).isfinite().all()
    with pytest.raises(UserError, match="2 images are too few to compare representations"):
        representation_dissimilarity(feature_batches([features[:2]], 2), 2)


def test_affinity_is_spearmans_correlation():
    generator = np.random.default_rng(0)
    rdms = generator.random((5, 3, 66))
    rdms[1, 2] = np.round(rdms[1, 2], 1)  # ties
    rdms[3, 0] = rdms[2, 0] ** 3  # the same order
    rdms[4, 1] = 1.0  # a network that tells nothing apart
    found = task_affinity(rdms)
    assert found.shape == (3, 5, 5)
    for location, s, t in itertools.product(range(3), range(5), range(5)):
        if s == t:
            expected = 1.0
        elif location == 1 and 4 in (s, t):
            expected = 0.0
        else:
            expected = spearmanr(rdms[s, location], rdms[t, location]).statistic
        assert found[location, s, t] == pytest.approx(expected, abs=1e-12)
    assert found[0, 2, 3] == pytest.approx(1)
    order = generator.permutation(5)
    assert np.allclose(task_affinity(rdms[order]), found[:, order][:, :, order])


def test_difficulty_by_loops():
    generator = np.random.default_rng(1)
    errors = generator.random((4, 30))
    errors[1, ::3] = np.nan
    errors[3, 1::3] = np.nan
    errors[3, 2::3] = np.nan  # no example has the labels of tasks 1 and 3
    found = difficulty_affinity(errors)
    for s, t in itertools.product(range(4), range(4)):
        same, both = 0, 0
        for a, b in zip(errors[s], errors[t], strict=True):
            if not (np.isnan(a) or np.isnan(b)):
                both += 1
                same += (a >= np.nanmean(errors[s])) == (b >= np.nanmean(errors[t]))
        assert found[s, t] == (1 if s == t else same / both if both else 0.5)
    assert found[1, 3] == 0.5


@pytest.mark.parametrize(("name", "options", "neck"), [
    ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}, "none"),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, "fpn"),
    pytest.param("mobilenetv3_small_050", {}, "none", marks=pytest.mark.slow),
])  # fmt: skip
def test_costs_are_those_of_the_networks(name, options, neck):
    dense, image, size = {"semseg": 5, "depth": 1}, {"scene": 4}, (64, 48)
    tasks = [*dense, *image]
    backbone = timm.create_model(name, features_only=True, **options)
    more = {"head": "fcn", "neck": neck, "neck_options": {"channels": 16} if neck == "fpn" else {}}

    def build(tree):
        return build_model("branched", backbone, dense, image, tree=tree, **more)

    locations = len(build(None).tree)
    costs = measure_costs(build, tasks, locations, size)
    singles = [build_model("single_task", backbone, {task: n}, None, **more) for task, n in dense.items()]
    singles += [build_model("single_task", backbone, None, {task: n}, **more) for task, n in image.items()]
    assert costs["parameters"].single_task == sum(map(parameters, singles))
    assert costs["macs"].single_task == sum(multiply_adds(model, size) for model in singles)
    generator = np.random.default_rng(0)
    trees = [split_tree(tasks, locations)]
    chain = random_chain(3, sorted(generator.integers(1, 4, locations).tolist()), generator)
    trees.append(make_tree(tree_of(chain, tasks), tasks, locations))
    for tree in trees:
        network = build(tree)
        assert costs["parameters"].of(group_counts(tree)) == parameters(network)
        assert costs["macs"].of(group_counts(tree)) == multiply_adds(network, size)
    assert costs["macs"].share([3] * locations) == 1


def test_example_errors_are_the_tasks_losses():
    generator = torch.Generator().manual_seed(0)
    semseg = build_task("semseg", "semseg", ("a", "b", "c"))
    target = torch.randint(0, 3, (8, 6), generator=generator)
    target[0] = 255
    prediction = torch.randn(3, 8, 6, generator=generator)
    expected = torch.nn.functional.cross_entropy(prediction[None], target[None], ignore_index=255)
    assert torch.allclose(example_error(semseg, prediction, target.to(torch.uint8)), expected)
    assert torch.isnan(example_error(semseg, prediction, torch.full((8, 6), 255, dtype=torch.uint8)))
    # a disparity is in pixels of its picture: 3 on a half as wide one is 6
    disparity = build_task("disparity", "disparity", (), {})
    assert float(example_error(disparity, torch.full((1, 4, 3), 3.0), torch.full((8, 6), 6.0))) == 0
    attributes = build_task("attributes", "attributes", ("a", "b"))
    logits, labels = torch.tensor([0.3, -2.0]), torch.tensor([1, 255], dtype=torch.uint8)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:1], torch.ones(1))
    assert torch.allclose(example_error(attributes, logits, labels), expected)


def test_held_out_images_are_drawn_once():
    assert choose_images(range(5), 9, 0) == [0, 1, 2, 3, 4]
    drawn = choose_images(range(1000), 100, 0)
    assert drawn == sorted(set(drawn)) == choose_images(range(1000), 100, 0) and len(drawn) == 100
    assert drawn != choose_images(range(1000), 100, 1)
