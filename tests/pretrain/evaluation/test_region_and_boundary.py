"""J and F against their definitions, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from pretrain.evaluation.region_and_boundary import boundary, boundary_accuracy, region_similarity


def slow_boundary(mask):
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
                if v < height and u < width and mask[v, u] != mask[y, x]:
                    found[y, x] = True
    return found


def slow_accuracy(predicted, truth, tolerance):
    """Dilation of each boundary by a disk, and what it covers of the other."""
    reach = math.ceil(tolerance * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    line = np.arange(-reach, reach + 1)
    disk = line[:, None] ** 2 + line**2 <= reach**2
    found, wanted = slow_boundary(predicted), slow_boundary(truth)
    if not found.any() and not wanted.any():
        return 1.0
    if not found.any() or not wanted.any():
        return 0.0
    precision = (found & binary_dilation(wanted, disk)).sum() / found.sum()
    recall = (wanted & binary_dilation(found, disk)).sum() / wanted.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def masks():
    """Pairs: blobs, noise, empty, full, single pixels, corners."""
    rng = np.random.default_rng(0)
    for size in ((17, 23), (30, 7), (1, 12), (2, 2)):
        empty, full, corner = np.zeros(size, bool), np.ones(size, bool), np.zeros(size, bool)
        corner[-1, -1] = True
        y, x = np.mgrid[: size[0], : size[1]]
        blobs = [np.hypot(y - rng.uniform(0, size[0]), x - rng.uniform(0, size[1])) < rng.uniform(2, 9)
                 for _ in range(3)]
        noise = [rng.random(size) < share for share in (0.02, 0.5)]
        everything = [empty, full, corner, *blobs, *noise]
        yield from ((one, other) for one in everything for other in everything)


@pytest.mark.parametrize("tolerance", [0.008, 0.08])
def test_as_defined(tolerance):
    for predicted, truth in masks():
        union = (predicted | truth).sum()
        region = (predicted & truth).sum() / union if union else 1.0
        assert region_similarity(predicted, truth) == region
        np.testing.assert_array_equal(boundary(predicted), slow_boundary(predicted))
        assert boundary_accuracy(predicted, truth, tolerance) == pytest.approx(
            slow_accuracy(predicted, truth, tolerance), abs=1e-12)


def test_empty_masks():
    empty, some = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    some[5:20, 8:30] = True
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1
    for one, other in ((empty, some), (some, empty)):
        assert region_similarity(one, other) == boundary_accuracy(one, other) == 0


def test_a_shift_within_the_tolerance_costs_no_boundary_accuracy():
    """480p: the tolerance is 8 pixels."""
    truth = np.zeros((480, 854), bool)
    truth[100:300, 200:500] = True
    for shift, whole in ((0, True), (8, True), (9, False)):
        moved = np.roll(truth, shift, axis=1)
        assert (boundary_accuracy(moved, truth) == 1) is whole
        assert region_similarity(moved, truth) == pytest.approx((300 - shift) / (300 + shift))
    far = np.roll(truth, (150, 320), axis=(0, 1))
    assert boundary_accuracy(far, truth) < 0.1


def test_both_measures_are_symmetric():
    for predicted, truth in masks():
        assert region_similarity(predicted, truth) == region_similarity(truth, predicted)
        assert boundary_accuracy(predicted, truth) == boundary_accuracy(truth, predicted)
