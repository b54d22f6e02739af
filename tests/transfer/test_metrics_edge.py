"""Thinning, pairing and odsF against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_metrics import slow_pairs, slow_thin, tolerant_reference

from transfer.metrics.edge import Edge
from transfer.metrics.matching import matched_pixels
from transfer.metrics.thinning import thin


def blobs(seed: int, height: int, width: int, count: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(count, height, width))
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5)) > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_thinning_equals_its_definition(seed):
    masks = np.concatenate([blobs(seed, 23, 19), np.random.default_rng(seed).random((2, 23, 19)) < 0.6])
    masks[0, :, :8] = True  # up to the border, and thick
    before = masks.copy()
    for mask, lines in zip(masks, thin(masks), strict=True):
        assert (lines == slow_thin(mask)).all()
    assert (masks == before).all()


def test_thinning_keeps_regions_and_leaves_lines():
    masks = blobs(9, 60, 80, 2)
    for mask, lines in zip(masks, thin(masks), strict=True):
        assert not (lines & ~mask).any()
        eight = np.ones((3, 3))
        assert ndimage.label(mask, eight)[1] == ndimage.label(lines, eight)[1]
        assert not ndimage.minimum_filter(lines, 3).any()  # nowhere is it three pixels thick
    assert not thin(np.zeros((2, 5, 5), bool)).any()


@pytest.mark.parametrize("reach", [0.5, 1.0, 1.5, 2.3, 4.0])
def test_pairs_are_a_maximum_matching(reach):
    draw = np.random.default_rng(int(reach * 10))
    truth = draw.random((14, 17)) < 0.15
    found = draw.random((5, 14, 17)) < np.array([0.0, 0.05, 0.15, 0.3, 0.6])[:, None, None]
    expected = [slow_pairs(np.argwhere(one), np.argwhere(truth), reach) for one in found]
    assert matched_pixels(found, truth, reach).tolist() == expected
    assert not matched_pixels(found, np.zeros_like(truth), reach).any()


def test_a_greedy_choice_is_not_the_largest():
    """Pixels 0 and 2 against 2 and 4, reach 2: who takes the equal one first leaves two alone."""
    found, truth = np.zeros((1, 1, 6), bool), np.zeros((1, 6), bool)
    found[0, 0, [0, 2]] = truth[0, [2, 4]] = True
    assert matched_pixels(found, truth, 2.0).tolist() == [2]


def test_counts_belong_to_their_thresholds():
    draw = torch.Generator().manual_seed(3)
    target = (torch.rand(1, 12, 10, generator=draw) < 0.2).to(torch.uint8)
    prediction = 2 * torch.randn(1, 1, 12, 10, generator=draw)
    metric = Edge(thresholds=9, tolerance=0.1)
    metric.update(prediction, target)
    probability = prediction[0, 0].sigmoid().numpy()
    lines = [slow_thin(probability >= threshold) for threshold in np.linspace(0.1, 0.9, 9)]
    assert metric.thinned.tolist() == [int(one.sum()) for one in lines]
    reach, truth = 0.1 * np.hypot(12, 10), np.argwhere(target[0].numpy())
    assert metric.pairs.tolist() == [slow_pairs(np.argwhere(one), truth, reach) for one in lines]
    assert len(set(metric.thinned.tolist())) > 5


@pytest.mark.parametrize("images", [1, 2])
def test_ods_f_with_tolerance(images):
    draw = torch.Generator().manual_seed(images)
    target = (torch.rand(images, 12, 10, generator=draw) < 0.2).to(torch.uint8)
    prediction = torch.randn(images, 1, 12, 10, generator=draw) + 2 * torch.roll(target, 1, 2)[:, None]
    target[torch.rand(target.shape, generator=draw) < 0.1] = 255
    metric = Edge(tolerance=0.1)
    metric.update(prediction, target)
    assert metric.compute()["odsF"] == pytest.approx(tolerant_reference(prediction, target, 0.1), abs=1e-4)
    assert metric.compute()["odsF"] > metric.compute()["odsF_quick"]


def test_a_shift_within_the_tolerance_is_perfect():
    target = torch.zeros(1, 40, 60, dtype=torch.uint8)
    target[0, 20, 5:55] = 1
    prediction = torch.where(torch.roll(target, 2, 1)[:, None] == 1, 6.0, -6.0)
    for tolerance, expected in ((0.03, 100.0), (0.02, 0.0)):  # 2.2 and 1.4 pixels
        metric = Edge(tolerance=tolerance)
        metric.update(prediction, target)
        assert metric.compute() == {"odsF": pytest.approx(expected), "odsF_quick": 0.0}
    assert set(Edge(tolerance=0).compute()) == {"odsF_quick"}
