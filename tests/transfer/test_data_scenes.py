"""The built-in scenes as a labelled data set, and geometry against other renderings of a scene."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from scenes import generate, render
from transfer.data import DATASETS
from transfer.data.loading import Augmented, collate
from transfer.transforms import Augmentation, Geometry

SIZE = 64


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("scenes"))
    return DATASETS.get("scenes")(train_count=4, val_count=2, test_count=1, size=SIZE, root=root)


def test_every_label_arrives(data_set):
    tasks = data_set.choose()
    assert list(tasks) == ["semseg", "depth", "normals", "edge", "saliency", "parts", "instance_center", "keypoints",
                           "inverse_depth", "scene", "attributes"]
    assert [len(data_set.split(name)) for name in data_set.splits] == [4, 2, 1]
    split = pickle.loads(pickle.dumps(data_set.split("train")))
    for sample in split:
        assert sample["image"].shape == (SIZE, SIZE, 3) and sample["image"].dtype == np.uint8
        for name, task in tasks.items():
            target = np.asarray(sample["targets"][name])
            assert target.shape == task.target_shape(SIZE, SIZE) and target.dtype == task.dtype
            if task.classes and name != "attributes":
                assert (target[target != task.ignored] < len(task.classes)).all()
    first = [data_set.split(name)[0]["id"] for name in data_set.splits]
    assert first == ["train/000000", "val/000000", "test/000000"]


def test_a_training_batch(data_set):
    tasks = data_set.choose(["depth", "scene", "normals"])
    data = Augmented(data_set.split("train"), tasks, Augmentation(size=48, rotation=10), seed=0)
    batch = collate([data[0, i] for i in range(4)], tasks)
    assert batch["image"].shape == (4, 3, 48, 48) and list(batch["targets"]) == ["depth", "scene", "normals"]
    lengths = batch["targets"]["normals"].norm(dim=1)
    assert ((lengths - 1).abs() < 1e-3)[lengths > 0].all() and (lengths > 0).float().mean() > 0.8


def test_fingerprint_tells_options_apart(data_set):
    same = DATASETS.get("scenes")(train_count=4, val_count=2, test_count=1, size=SIZE)
    other = DATASETS.get("scenes")(train_count=5, val_count=2, test_count=1, size=SIZE)
    assert data_set.fingerprint() == same.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("seed", [0, 1])
def test_mirrored_labels_are_those_of_the_mirrored_scene(data_set, seed):
    scene = generate(seed)
    before = render(scene, SIZE, SIZE)
    after = render(scene, SIZE, SIZE, camera=dataclasses.replace(scene.camera, flip=True))
    g = Geometry(SIZE, SIZE, SIZE, SIZE, flip=True)
    for name, task in data_set.choose().items():
        if name == "inverse_depth":
            continue  # depth is there
        difference = np.abs(task.apply(before[name], g).astype(float) - after[name])
        assert (difference > 1e-3).mean() < 0.01, name  # rays that graze an outline may fall either way


@pytest.mark.parametrize("seed", [0, 1])
def test_zoomed_depth_is_that_of_a_longer_lens(data_set, seed):
    """Depth times the zoom s equals a rendering at s times the focal length; normals do not change."""
    scene, s = generate(seed), 1.5
    camera = dataclasses.replace(scene.camera, focal=s * scene.camera.focal)
    before, after = render(scene, SIZE, SIZE), render(scene, SIZE, SIZE, camera=camera)
    free = SIZE * s - SIZE
    g = Geometry(SIZE, SIZE, SIZE, SIZE, zoom=s, top=free / 2, left=free / 2)
    tasks = data_set.choose(["depth", "normals", "semseg"])
    depth = tasks["depth"].apply(before["depth"], g) * s
    assert np.median(np.abs(depth - after["depth"]) / after["depth"]) < 0.01
    same = tasks["semseg"].apply(before["semseg"], g) == after["semseg"]
    assert same.mean() > 0.9
    cosine = (tasks["normals"].apply(before["normals"], g) * after["normals"]).sum(-1)
    assert (cosine > 0.99).mean() > 0.85


@pytest.mark.parametrize("angle", [15.0, -30.0])
def test_turned_normals_are_those_of_a_rolled_camera(data_set, angle):
    scene = generate(2)
    camera = dataclasses.replace(scene.camera, roll=scene.camera.roll + np.radians(angle))
    before, after = render(scene, SIZE, SIZE), render(scene, SIZE, SIZE, camera=camera)
    g = Geometry(SIZE, SIZE, SIZE, SIZE, angle=angle)
    tasks = data_set.choose(["depth", "normals", "semseg"])
    normals = tasks["normals"].apply(before["normals"], g)
    inside = (normals != 0).any(-1)
    assert inside.mean() > 0.7
    assert ((normals * after["normals"]).sum(-1) > 0.99)[inside].mean() > 0.85
    assert (tasks["semseg"].apply(before["semseg"], g) == after["semseg"])[inside].mean() > 0.9
    depth = tasks["depth"].apply(before["depth"], g)
    assert np.median((np.abs(depth - after["depth"]) / after["depth"])[inside]) < 0.01
