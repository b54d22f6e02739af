"""Transformed labels agree with those that the transformed camera renders, for every kind that scenes have."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from scenes import generate, render
from transfer.data import DATASETS
from transfer.tasks import build_task
from transfer.transforms import Geometry

SIZE = 96
ZOOM = 1.5
ANGLE = 20.0
SEEDS = (0, 3)


@lru_cache
def rendered(seed: int, change: str):
    scene = generate(seed)
    camera = {"none": scene.camera, "flip": replace(scene.camera, flip=True),
              "zoom": replace(scene.camera, focal=ZOOM * scene.camera.focal),
              "turn": replace(scene.camera, roll=scene.camera.roll + np.radians(ANGLE))}[change]
    view = render(scene, SIZE, SIZE, camera=camera)
    view["inverse_depth"] = 1 / view["depth"]
    view["disparity"] = (camera.focal * SIZE * 0.22 / view["depth"]).astype(np.float32)
    return view


def geometry(change: str) -> Geometry:
    free = (ZOOM - 1) * SIZE / 2
    return Geometry(SIZE, SIZE, SIZE, SIZE, **{"flip": {"flip": True}, "turn": {"angle": ANGLE},
                                               "zoom": {"zoom": ZOOM, "top": free, "left": free}}[change])


def task_of(name: str):
    label = DATASETS.get("scenes")(train_count=1).labels.get(name)
    return build_task(label.task, name, label.classes) if label else build_task(name, name)


def both(name: str, seed: int, change: str) -> tuple[np.ndarray, np.ndarray]:
    """The label that was transformed, and the one that was rendered."""
    return task_of(name).apply(rendered(seed, "none")[name], geometry(change)), rendered(seed, change)[name]


def steady(seed: int, change: str) -> np.ndarray:
    """Pixels away from outlines, where half a pixel does not matter, and inside the picture."""
    instance, semseg = (rendered(seed, change)[name].astype(int) for name in ("instance", "semseg"))
    number = instance * 100 + semseg
    outline = np.zeros((SIZE, SIZE), bool)
    outline[1:] |= number[1:] != number[:-1]
    outline[:, 1:] |= number[:, 1:] != number[:, :-1]
    known = task_of("semseg").apply(np.zeros((SIZE, SIZE), np.uint8), geometry(change)) == 0
    result = ~binary_dilation(outline, iterations=3) & known
    assert result.mean() > 0.15
    return result


CHANGES = ("flip", "zoom", "turn")


def test_every_kind_is_here():
    here = {"semseg", "parts", "saliency", "edge", "depth", "inverse_depth", "normals", "instance_center", "keypoints"}
    dense = {name for name in DATASETS.get("scenes")(train_count=1).labels if task_of(name).dense}
    assert dense == here


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["semseg", "parts"])
@pytest.mark.parametrize("seed", SEEDS)
def test_classes(name, seed, change):
    moved, truth = both(name, seed, change)
    assert (moved == truth)[steady(seed, change)].mean() > 0.98


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["depth", "inverse_depth", "disparity"])
@pytest.mark.parametrize("seed", SEEDS)
def test_distances(name, seed, change):
    """Depth times the zoom is what the longer lens sees; an inverse depth divided by it; a disparity as it is."""
    moved, truth = both(name, seed, change)
    if change == "zoom":
        moved = moved * {"depth": ZOOM, "inverse_depth": 1 / ZOOM, "disparity": 1}[name]
    error = (np.abs(moved - truth) / truth)[steady(seed, change)]
    assert np.median(error) < 0.005 and (error < 0.05).mean() > 0.97


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_normals(seed, change):
    moved, truth = both("normals", seed, change)
    assert ((moved * truth).sum(-1) > 0.99)[steady(seed, change)].mean() > 0.95


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_centres_of_instances(seed, change):
    moved, truth = both("instance_center", seed, change)
    known = steady(seed, change) & (truth != 0).any(-1) & (moved != 0).any(-1)
    assert known.sum() > 50
    # a pixel that was taken for another one is up to a pixel of the result away
    assert np.abs(moved - truth)[known].max() < 1.01


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_edges(seed, change):
    """Every edge that is rendered is within two pixels of one that was transformed, and the other way round."""
    moved, truth = both("edge", seed, change)
    for one, other in ((moved == 1, truth == 1), (truth == 1, moved == 1)):
        one = one & (task_of("edge").apply(np.zeros((SIZE, SIZE), np.uint8), geometry(change)) == 0)
        assert one.any() and binary_dilation(other, np.ones((3, 3)), iterations=2)[one].mean() > 0.97


@pytest.mark.parametrize("seed", SEEDS)
def test_keypoints(seed):
    moved, truth = both("keypoints", seed, "flip")
    assert np.abs(moved - truth).max() < 1e-5
    for change in ("zoom", "turn"):
        moved, truth = both("keypoints", seed, change)
        # points that both show; the Gaussians of an enlarged map are wider
        peaks = np.argwhere(truth > 0.9)
        near = [np.nanmax(np.where(moved < 0, np.nan, moved)[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2])
                for y, x in peaks if (moved[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] >= 0).all()]
        assert len(near) and np.mean(np.array(near) > 0.6) > 0.85


@pytest.mark.parametrize("seed", SEEDS)
def test_saliency(seed):
    """What is salient depends on what is in the picture; mirrored, it is the same."""
    moved, truth = both("saliency", seed, "flip")
    assert (moved == truth).mean() > 0.99
