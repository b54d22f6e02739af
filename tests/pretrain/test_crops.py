"""Crop boxes: published statistics, limits, odd images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from harness.errors import UserError
from pretrain.crops import Box, MultiCrop, random_resized_crop

RATIO = (3 / 4, 4 / 3)


def shares(min_overlap, images=40_000, seed=0):
    """Share of a local crop inside the key: 40 000 independent draws of both at 640×480."""
    generator = np.random.default_rng(seed)
    crops = MultiCrop(min_overlap=min_overlap, local_crops=1)
    found = []
    for _ in range(images):
        _, key, *locals_ = crops.sample(480, 640, generator)
        found += [box.intersection(key) / box.area for box in locals_]
    return np.array(found)


def test_statistics_of_unconstrained_draws():
    found = shares(None)
    assert len(found) == 40_000
    assert abs((found < 0.1).mean() * 100 - 12.8) < 1
    assert abs((found >= 1).mean() * 100 - 34.4) < 1


def test_statistics_under_the_ten_percent_rule():
    found = shares(0.1)
    assert abs((found >= 1).mean() * 100 - 36.9) < 1
    assert abs(found.mean() * 100 - 75) < 1
    # ten draws in a row fail for a few keys only, and then one draw is free
    assert (found < 0.1).mean() < 0.01


def test_min_overlap_one_means_inside():
    found = shares(1.0, images=2000)
    assert (found == 1).mean() > 0.85  # ten draws in a small key crop may all miss


def test_zero_and_none_are_the_same_unconstrained_draws():
    assert np.array_equal(shares(0, images=200), shares(None, images=200))


def test_same_generator_same_boxes():
    crops = MultiCrop()
    first = crops.sample(333, 500, np.random.default_rng(7))
    assert first == crops.sample(333, 500, np.random.default_rng(7))
    assert first != crops.sample(333, 500, np.random.default_rng(8))
    assert len(first) == 6


def test_distribution_agrees_with_torchvision():
    """Quantiles of area and ratio of 4 000 boxes against torchvision's own sampler."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    image = torch.empty(3, 240, 320)
    theirs = np.array([RandomResizedCrop.get_params(image, (0.2, 1.0), RATIO) for _ in range(4000)])
    ours = np.array([random_resized_crop(240, 320, (0.2, 1.0), RATIO, generator) for _ in range(4000)])
    for measure in (lambda b: b[:, 2] * b[:, 3] / (240 * 320), lambda b: np.log(b[:, 3] / b[:, 2]),
                    lambda b: (b[:, 0] + b[:, 2] / 2) / 240, lambda b: (b[:, 1] + b[:, 3] / 2) / 320):
        levels = np.linspace(0.05, 0.95, 10)
        spread = np.ptp(measure(theirs))
        difference = np.quantile(measure(theirs), levels) - np.quantile(measure(ours), levels)
        assert np.abs(difference).max() < spread / 25


@pytest.mark.parametrize(
    "height,width", [(1, 1), (2, 2), (20, 20), (20, 8000), (8000, 3), (480, 640), (1, 500)]
)
def test_boxes_lie_inside_any_image(height, width):
    generator = np.random.default_rng(0)
    for options in ({}, {"min_overlap": 1.0}, {"max_iou": 0.1}, {"local_scale": (0.5, 1.0)}):
        for box in MultiCrop(**options).sample(height, width, generator):
            assert box.height >= 1 and box.width >= 1
            assert 0 <= box.top <= height - box.height and 0 <= box.left <= width - box.width


@pytest.mark.parametrize("height,width", [(3, 1000), (1000, 3), (2, 2)])
def test_fallback_is_torchvisions(height, width):
    box = random_resized_crop(height, width, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == Box(*RandomResizedCrop.get_params(torch.empty(3, height, width), (1.0, 1.0), (1.0, 1.0)))


def test_iou_limit():
    generator = np.random.default_rng(0)
    free = [MultiCrop(local_crops=0).sample(480, 640, generator) for _ in range(300)]
    assert np.mean([a.iou(b) for a, b in free]) > 0.3
    for limit in (0.5, 0.3, 0.1):
        crops = MultiCrop(local_crops=0, max_iou=limit)
        ious = [a.iou(b) for a, b in (crops.sample(480, 640, generator) for _ in range(300))]
        assert np.mean(np.array(ious) <= limit) > 0.99  # 500 tries, then the lowest seen
        assert np.mean(ious) < limit


def test_iou_against_pixels():
    generator = np.random.default_rng(0)
    for _ in range(200):
        boxes = [random_resized_crop(30, 40, (0.05, 0.9), RATIO, generator) for _ in range(2)]
        masks = np.zeros((2, 30, 40), bool)
        for mask, box in zip(masks, boxes, strict=True):
            mask[box.top : box.top + box.height, box.left : box.left + box.width] = True
        assert boxes[0].intersection(boxes[1]) == (masks[0] & masks[1]).sum()
        assert math.isclose(boxes[0].iou(boxes[1]), (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


@pytest.mark.parametrize(
    "options,name",
    [({"local_crops": -1}, "local_crops"), ({"global_scale": (0.5, 1.5)}, "global_scale"),
     ({"local_scale": (0, 0.1)}, "local_scale"), ({"min_overlap": 1.5}, "min_overlap"),
     ({"max_iou": -0.1}, "max_iou"), ({"global_size": 0}, "global_size"), ({"ratio": (2, 1)}, "ratio")],
)
def test_bad_options_are_named(options, name):
    with pytest.raises(UserError, match=name):
        MultiCrop(**options)
