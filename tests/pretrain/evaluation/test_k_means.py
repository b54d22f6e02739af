"""k-means on an interpolated map, beside k-means on its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain.evaluation.k_means import InterpolatedMap, k_means

SIZES = [((3, 4), (17, 11)), ((5, 5), (5, 5)), ((1, 6), (9, 20)), ((1, 1), (4, 3)), ((7, 8), (3, 2))]


def make_map(shape=(5, 6), channels=9, seed=0):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(seed)) + 0.5


def make_pixels(features, size, unit_length=False):
    """What is never made: float64 ``[H · W, C]``."""
    pixels = F.interpolate(features.double()[None], size=size, mode="bilinear", align_corners=False)[0]
    pixels = pixels.flatten(1).T
    return F.normalize(pixels, dim=1) if unit_length else pixels


@pytest.mark.parametrize("unit_length", [False, True])
@pytest.mark.parametrize("shape, size", SIZES)
def test_products_and_lengths_of_pixels(shape, size, unit_length):
    features = make_map(shape)
    pixels, found = make_pixels(features, size, unit_length), InterpolatedMap(features, size, unit_length)
    torch.testing.assert_close(found.squared_lengths.flatten(), pixels.square().sum(1))
    weights = torch.randn(4, shape[0] * shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vectors = weights @ features.double().flatten(1).T
    torch.testing.assert_close(found.up(weights @ found.gram).flatten(1), vectors @ pixels.T)
    shares = torch.rand(4, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(found.down(shares) @ features.double().flatten(1).T, shares.flatten(1) @ pixels)


@pytest.mark.parametrize("unit_length", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_against_slow_steps(seed, unit_length):
    """Every assignment is the nearest mean, every mean that of its pixels, and the inertia never rises."""
    features, size = make_map(seed=seed), (23, 31)
    pixels = make_pixels(features, size, unit_length)
    found = k_means(features, size, 7, np.random.default_rng(seed), 200, unit_length)
    assignment = found.assignment.flatten()
    assert found.assignment.shape == size and assignment.unique().tolist() == list(range(7))
    means = torch.stack([pixels[assignment == cluster].mean(0) for cluster in range(7)])
    distances = torch.stack([(pixels - mean).square().sum(1) for mean in means])
    assert torch.equal(distances.argmin(0), assignment)
    weighted = found.weights @ features.double().flatten(1).T
    torch.testing.assert_close(weighted, means)
    torch.testing.assert_close(found.means(features), means.float())
    assert found.inertia[-1] == pytest.approx(distances.min(0).values.sum().item(), rel=1e-9)
    assert len(found.inertia) > 3
    assert all(after <= before * (1 + 1e-12) for before, after in zip(found.inertia, found.inertia[1:], strict=False))


def test_one_step_equals_lloyd():
    """From the same seeds the first steps are those of a loop over pixels."""
    features, size = make_map(seed=4), (12, 14)
    pixels = make_pixels(features, size)
    first, later = (k_means(features, size, 5, np.random.default_rng(3), steps) for steps in (1, 4))
    means = torch.stack([pixels[first.assignment.flatten() == cluster].mean(0) for cluster in range(5)])
    for _ in range(3):
        assignment = torch.stack([(pixels - mean).square().sum(1) for mean in means]).argmin(0)
        means = torch.stack([pixels[assignment == cluster].mean(0) for cluster in range(5)])
    assert torch.equal(later.assignment.flatten(), assignment)


def test_seeds_are_drawn_by_squared_distance():
    """Pixels 0, 1 and 3 in two clusters: 0 is alone where the seeds were 0 and 1, as often as k-means++ says."""
    features = torch.tensor([[[0.0, 1.0, 3.0]]])
    found = [k_means(features, (1, 3), 2, np.random.default_rng(seed), 1).assignment[0] for seed in range(250)]
    alone = np.mean([bool(one[0] != one[1]) for one in found])
    assert all(one[0] == one[1] or one[1] == one[2] for one in found)
    after_0, after_1 = 1 / (1 + 9), 1 / (1 + 4)  # chance of the other one of the two after a first seed of 0, of 1
    assert alone == pytest.approx((after_0 + after_1) / 3, abs=0.05)


def test_fewer_distinct_pixels_than_clusters():
    half = torch.zeros(3, 4, 6)
    half[:, :, 3:] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    found = k_means(half, (4, 6), 15, np.random.default_rng(0))  # one pixel for each place: nothing lies between
    assert torch.equal(found.assignment[:, :3], found.assignment[:1, :1].expand(4, 3))
    assert torch.equal(found.assignment[:, 3:], found.assignment[:1, 5:].expand(4, 3))
    assert len(found.weights) == 2 and found.inertia[-1] == pytest.approx(0, abs=1e-9)
    for constant in (torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.1)):
        for unit_length in (False, True):
            found = k_means(constant, (5, 5), 15, np.random.default_rng(0), unit_length=unit_length)
            assert len(found.weights) == 1 and found.means(constant).isfinite().all() and not found.assignment.any()


def test_the_same_for_the_same_generator():
    features = make_map(seed=5)
    one, same, other = (k_means(features, (30, 20), 6, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.assignment, same.assignment) and torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)


def test_as_good_as_scipy():
    from scipy.cluster.vq import kmeans2

    features, size = make_map((6, 6), 16, seed=7), (24, 24)
    pixels = make_pixels(features, size).numpy()
    ours = [k_means(features, size, 6, np.random.default_rng(seed), 100).inertia[-1] for seed in range(8)]
    theirs = []
    for seed in range(8):
        means, label = kmeans2(pixels, 6, iter=100, minit="++", rng=seed)
        theirs.append(np.square(pixels - means[label]).sum())
    assert min(ours) == pytest.approx(min(theirs), rel=0.02)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.1)
