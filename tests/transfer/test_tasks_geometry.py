"""What geometry does to the values of a target, and what undoes it for a prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.tasks import build_task
from transfer.tasks.localization import gaussian_map
from transfer.transforms import Geometry


def offsets(height, width, centre):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([centre[0] - x, centre[1] - y], -1).astype(np.float32)


@pytest.mark.parametrize("geometry", [
    Geometry(20, 30, 20, 30, flip=True), Geometry(20, 30, 20, 30, zoom=1.5, top=3, left=4),
    Geometry(20, 30, 10, 45, stretch=True), Geometry(20, 30, 26, 26, flip=True, angle=25, zoom=1.25, top=-2, left=5),
    Geometry(20, 30, 12, 18, flip=True, angle=-40, zoom=0.8, stretch=True),
])
def test_offsets_still_point_at_the_centre(geometry):
    """Of every pixel: where it was in the source, its old offset and the transformation give the new one."""
    task = build_task("instance_center", "centres")
    got = task.apply(offsets(20, 30, (11.3, 8.1)), geometry)
    a, b, c, d, e, f = geometry.inverse
    y, x = np.mgrid[:geometry.out_height, :geometry.out_width] + 0.5
    inverse = np.array([[a, b], [d, e]])
    forward = np.linalg.inv(inverse)
    centre = forward @ (np.array([11.3, 8.1]) - np.array([c, f]))
    source = np.floor(np.stack([a * x + b * y + c, d * x + e * y + f], -1))  # the pixel that was taken
    inside = (source >= 0).all(-1) & (source < [30, 20]).all(-1)
    shift = (np.stack([a * x + b * y + c, d * x + e * y + f], -1) - (source + 0.5)) @ forward.T
    expected = centre - np.stack([x, y], -1) + shift
    assert inside.any() and np.allclose(got[inside], expected[inside], atol=1e-4) and not got[~inside].any()


@pytest.mark.parametrize(("kind", "factor"), [("depth", 1 / 1.5), ("inverse_depth", 1.5), ("disparity", 1.5)])
def test_zoom(kind, factor):
    task = build_task(kind, kind)
    target = np.full((8, 8), 3.0, np.float32)
    target[0, 0] = 0
    got = task.apply(target, Geometry(8, 8, 12, 12, zoom=1.5))
    assert np.allclose(got[got > 0], 3 * factor) and (got == 0).any()
    mirrored = task.apply(target, Geometry(8, 8, 8, 8, flip=True))
    assert (mirrored == target[:, ::-1]).all()


def test_disparity_of_a_stretched_picture_follows_its_width():
    got = build_task("disparity", "d").apply(np.full((8, 8), 3.0, np.float32), Geometry(8, 8, 4, 32, stretch=True))
    assert (got == 12).all()


@pytest.mark.parametrize(("kind", "channels", "factors"), [("disparity", 1, [3.0]), ("instance_center", 2, [3.0, 0.5]),
                                                           ("depth", 1, [1.0]), ("normals", 3, [1.0, 1.0, 1.0])])
def test_predictions_in_pixels_are_brought_to_the_labels_pixels(kind, channels, factors):
    task = build_task(kind, kind)
    resized = task.resized(torch.ones(2, channels, 4, 6), (2, 18))
    assert resized.shape == (2, channels, 2, 18)
    assert torch.allclose(resized, torch.tensor(factors).reshape(1, -1, 1, 1).expand_as(resized))


@pytest.mark.parametrize("kind", ["normals", "instance_center", "depth"])
def test_mirrored_predictions_are_undone(kind):
    task = build_task(kind, kind)
    target = np.random.default_rng(0).normal(size=task.target_shape(5, 7)).astype(np.float32)
    other = task.apply(target, Geometry(5, 7, 5, 7, flip=True))
    planes = torch.from_numpy(other.reshape(5, 7, -1).transpose(2, 0, 1).copy())[None]
    back = task.mirrored_values(planes.flip(3))[0].permute(1, 2, 0).numpy().reshape(target.shape)
    assert np.array_equal(back, target)


@pytest.mark.parametrize(("kind", "factor"), [("depth", 2.0), ("inverse_depth", 0.5), ("normals", 1.0)])
def test_zoomed_predictions_are_undone(kind, factor):
    task = build_task(kind, kind)
    value = torch.rand(1, task.channels, 3, 3)
    assert torch.allclose(task.zoomed_values(value, 2.0), value * factor)


def test_averages_are_of_probabilities_and_of_directions():
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.randn(2, 3, 4, 4, generator=draw) * 5 for _ in range(2))
    semseg = build_task("semseg", "s", tuple("abc"))
    mean = (one.softmax(1) + two.softmax(1)) / 2
    assert torch.allclose(semseg.averaged([one, two]).softmax(1), mean, atol=1e-6)
    edge = build_task("edge", "e")
    mean = (one[:, :1].sigmoid() + two[:, :1].sigmoid()) / 2
    assert torch.allclose(edge.averaged([one[:, :1], two[:, :1]]).sigmoid(), mean, atol=1e-6)
    depth = build_task("depth", "d")
    assert torch.equal(depth.averaged([one[:, :1], two[:, :1]]), (one[:, :1] + two[:, :1]) / 2)
    normals = build_task("normals", "n")
    unit = [torch.nn.functional.normalize(value, dim=1) for value in (one, two)]
    assert torch.allclose(normals.averaged([one, 7 * two]), (unit[0] + unit[1]) / 2, atol=1e-5)
    for task, value in ((semseg, one), (edge, one[:, :1] * 20)):
        assert torch.allclose(task.averaged([value, value]).sigmoid(), task.averaged([value]).sigmoid(), atol=1e-6)
    assert edge.averaged([torch.full((1, 1, 1, 1), 300.0)] * 2).item() == pytest.approx(300.0)


def test_the_point_of_a_map():
    task = build_task("localization", "fovea")
    for x, y in ((20.5, 11.0), (13.2, 17.7)):
        assert task.point(gaussian_map(x, y, 30, 40, 2.0)) == pytest.approx((x, y), abs=0.02)
    assert not all(map(math.isfinite, task.point(np.zeros((30, 40), np.float32))))
    noisy = gaussian_map(8.0, 8.0, 40, 40, 2.0) + 0.02
    near = build_task("localization", "fovea", (), {"floor": 0.2}).point(noisy)
    assert math.dist(near, (8, 8)) < 0.3 < math.dist(task.point(noisy), (8, 8))


def test_a_map_without_a_point_stands_for_the_middle():
    task = build_task("localization", "fovea")
    metric, target = task.metric(), torch.from_numpy(gaussian_map(10.0, 15.0, 30, 40, 1.0))
    task.update(metric, torch.full((1, 1, 30, 40), -1.0), target[None])
    assert metric.compute()["distance"] == pytest.approx(10, abs=0.01)


def test_only_the_largest_region_is_kept():
    task = build_task("binary_segmentation", "disc", (), {"largest": True})
    prediction = torch.full((1, 8, 8), -4.0)
    prediction[0, 0, :2] = 4.0
    prediction[0, 4:7, 4:7] = 4.0
    found = task.from_prediction(prediction) > 0.5
    assert found.sum() == 9 and found[4:7, 4:7].all()
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    target[0, 4:7, 4:7] = 1
    metric = task.metric()
    task.update(metric, prediction[None], target)
    assert metric.compute()["Dice"] == 100
    prediction[0, 3, 3] = 4.0  # corners touch
    assert (task.from_prediction(prediction) > 0.5).sum() == 10
