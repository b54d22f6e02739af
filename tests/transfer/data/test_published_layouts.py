"""Scenes written in each published layout and read back: labels are those that were written."""

from __future__ import annotations

import filecmp
import json
import math
import os
import pickle
from functools import lru_cache

import numpy as np
import pytest

from harness.errors import UserError
from scenes import ATTRIBUTES, SCENE_TYPES, SEMSEG_CLASSES, generate, render
from scenes.dataset import seed_of
from scenes.export import LAYOUTS, export
from transfer.data import DATASETS
from transfer.data.loading import Augmented, collate
from transfer.data.pascal import boundaries, read_parts
from transfer.transforms import Augmentation

COUNTS = {"train": 4, "val": 2, "test": 2}
SIZE = (40, 56)

#: What each class of scenes is called in the data set; None is unlabelled.
SAME = {name: name for name in SEMSEG_CLASSES}
NYUD = {**SAME, "shelf": "bookshelf", "plant": "other prop", "ball": None}
NYU13 = {**SAME, "cabinet": "furniture", "shelf": "furniture", "lamp": "objects", "box": "objects", "plant": "objects",
         "ball": None}
STREET = {"wall": "building", "floor": "road", "ceiling": "sky", "window": "wall", "picture": "traffic sign",
          "table": "car", "chair": "person", "sofa": "truck", "bed": "bus", "cabinet": None, "shelf": "fence",
          "lamp": "traffic light", "plant": "vegetation", "box": "bicycle", "ball": "rider"}
SEVEN = {"building": "construction", "road": "flat", "sky": "sky", "wall": "construction", "traffic sign": "object",
         "car": "vehicle", "person": "human", "truck": "vehicle", "bus": "vehicle", "fence": "construction",
         "traffic light": "object", "vegetation": "nature", "bicycle": "vehicle", "rider": "human", None: None}
STREET7 = {name: SEVEN[street] for name, street in STREET.items()}
STREET2 = {name: None if one is None else "foreground" if one in ("human", "vehicle") else "background"
           for name, one in STREET7.items()}
PASCAL = {**dict.fromkeys(SEMSEG_CLASSES, "background"), "box": "bottle", "chair": "chair", "table": "diningtable",
          "plant": "pottedplant", "sofa": "sofa", "ball": None}
TASKONOMY = {**dict.fromkeys(SEMSEG_CLASSES, "background"), "chair": "chair", "sofa": "couch", "plant": "potted plant",
             "bed": "bed", "table": "dining table", "ball": None}


@lru_cache(maxsize=64)
def view(split: str, number: int, height: int = SIZE[0], width: int = SIZE[1]):
    return render(generate(seed_of(split, number)), height, width)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function that writes a layout once."""
    made = {}

    def make(name: str):
        if name not in made:
            place = tmp_path_factory.mktemp("layout") / name
            kind = LAYOUTS.get(name)
            counts = kind.counts if name == "hrf_av" else {split: COUNTS[split] for split in kind.splits}
            size = (32, 32) if name.startswith("cifar") else (20, 28) if name == "hrf_av" else SIZE
            made[name] = export(name, place, counts, size)
        return made[name]

    return make


@pytest.fixture
def opened(folder):
    """A function that opens a data set on its written layout."""
    return lambda name, layout=None, **options: DATASETS.get(name)(root=str(folder(layout or name)), **options)


def samples(data, *tasks: str):
    """(split of the scenes, number, sample) of every sample; a data set without "val" of its own has it as "test"."""
    data.choose(tasks or None)
    for split in data.splits:
        own = {"test": "val"}.get(split, split) if "val" not in data.splits else split
        loaded = pickle.loads(pickle.dumps(data.split(split)))
        assert len(loaded) == COUNTS[own]
        for number, sample in enumerate(loaded):
            if getattr(data, "name", "") == "cityscapes":  # sorted by its city first
                number = int(sample["id"][-6:])
            assert sample["image"].shape == (*SIZE, 3) and sample["image"].dtype == np.uint8
            for name, target in sample["targets"].items():
                task = data.tasks[name]
                assert target.shape == task.target_shape(*SIZE) and target.dtype == task.dtype, name
            yield own, number, sample


def expected(names: dict, classes: tuple, semseg: np.ndarray) -> np.ndarray:
    """A scene's classes as the data set's, by their names."""
    numbers = [255 if names[name] is None else classes.index(names[name]) for name in SEMSEG_CLASSES]
    return np.array(numbers, np.uint8)[semseg]


def like_jpeg(image: np.ndarray, truth: np.ndarray) -> bool:
    return float(np.abs(image.astype(int) - truth).mean()) < 12


@pytest.mark.parametrize(("name", "mapping", "options"), [
    ("nyud", NYUD, {}), ("nyuv2_npy", NYU13, {}), ("pascal", PASCAL, {}), ("taskonomy", TASKONOMY, {}),
    ("cityscapes", STREET, {}), ("cityscapes", STREET7, {"classes": 7}), ("cityscapes", STREET2, {"classes": 2}),
    ("cityscapes_npy", STREET, {"classes": 19}), ("cityscapes_npy", STREET7, {}),
    ("cityscapes_npy", STREET2, {"classes": 2}),
])
def test_classes_come_back(opened, name, mapping, options):
    data = opened(name, **options)
    classes, seen = data.labels["semseg"].classes, set()
    for split, number, sample in samples(data, "semseg"):
        truth = expected(mapping, classes, view(split, number)["semseg"])
        np.testing.assert_array_equal(sample["targets"]["semseg"], truth)
        seen |= set(np.unique(truth))
    assert len(seen) > min(3, len(classes) - 1)


def test_nyud(opened):
    for split, number, sample in samples(opened("nyud")):
        truth, targets = view(split, number), sample["targets"]
        assert like_jpeg(sample["image"], truth["image"])
        np.testing.assert_array_equal(targets["depth"], truth["depth"])
        np.testing.assert_array_equal(targets["edge"], truth["edge"])
        np.testing.assert_allclose(targets["normals"], truth["normals"], atol=1e-6)


def test_nyuv2_npy(opened):
    for split, number, sample in samples(opened("nyuv2_npy")):
        truth, targets = view(split, number), sample["targets"]
        np.testing.assert_array_equal(sample["image"], truth["image"])
        np.testing.assert_array_equal(targets["depth"], truth["depth"])
        np.testing.assert_allclose(targets["normals"], truth["normals"], atol=1e-6)


@pytest.mark.parametrize(("name", "count"), [("nyuv2_npy", 15), ("cityscapes_npy", 8)])
def test_each_class_is_a_task_of_its_own(opened, name, count):
    data, together = opened(name, binary=True), opened(name)
    assert len(data.labels) == count
    classes = together.labels["semseg"].classes
    for (_, _, sample), (_, _, whole) in zip(samples(data), samples(together, "semseg"), strict=True):
        semseg = whole["targets"]["semseg"]
        for index, one in enumerate(classes):
            truth = np.where(semseg == 255, 255, semseg == index)
            np.testing.assert_array_equal(sample["targets"][one.replace(" ", "_")], truth)


def test_cityscapes_npy(opened):
    for split, number, sample in samples(opened("cityscapes_npy")):
        truth = view(split, number)
        np.testing.assert_array_equal(sample["image"], truth["image"])
        np.testing.assert_array_equal(sample["targets"]["inverse_depth"], 1 / truth["depth"])


def test_cityscapes(opened):
    countable = ("person", "rider", "car", "truck", "bus", "bicycle")
    things = [name for name, street in STREET.items() if street in countable]
    for split, number, sample in samples(opened("cityscapes")):
        truth, targets = view(split, number), sample["targets"]
        np.testing.assert_array_equal(sample["image"], truth["image"])
        scene = generate(seed_of(split, number))
        pixels = scene.camera.focal * SIZE[1] * 0.22 / truth["depth"]
        ball = truth["semseg"] == SEMSEG_CLASSES.index("ball")
        assert np.abs(targets["disparity"] - pixels)[~ball].max() <= 1 / 512 + 1e-6
        assert not targets["disparity"][ball].any()
        for row in range(0, SIZE[0], 3):
            for column in range(0, SIZE[1], 3):
                instance, kind = truth["instance"][row, column], SEMSEG_CLASSES[truth["semseg"][row, column]]
                offset = (0, 0)
                if instance and kind in things:
                    same = [(y, x) for y, x in np.argwhere(truth["instance"] == instance)
                            if truth["semseg"][y, x] == truth["semseg"][row, column]]
                    y, x = np.mean(same, 0)
                    offset = (x - column, y - row)
                np.testing.assert_allclose(targets["instance_center"][row, column], offset, atol=1e-4)


def test_cityscapes_at_another_size(opened):
    """Disparities and offsets are pixels of the new size; the centre of an instance stays in its place."""
    full = {sample["id"]: sample for _, _, sample in samples(opened("cityscapes"))}
    small = opened("cityscapes", size=[20, 28])
    small.choose()
    sample = small.split("train")[1]
    whole = full[sample["id"]]["targets"]
    assert sample["image"].shape == (20, 28, 3)
    np.testing.assert_allclose(sample["targets"]["disparity"], whole["disparity"][1::2, 1::2] / 2)
    np.testing.assert_allclose(sample["targets"]["instance_center"], whole["instance_center"][1::2, 1::2] / 2)


def test_pascal(opened):
    lost = []
    for split, number, sample in samples(opened("pascal")):
        truth, targets = view(split, number), sample["targets"]
        assert like_jpeg(sample["image"], truth["image"])
        people = number % 3 != 2 and truth["parts"].any()
        np.testing.assert_array_equal(targets["parts"], truth["parts"] if people else np.full(SIZE, 255))
        np.testing.assert_array_equal(targets["saliency"], truth["saliency"])
        semseg = truth["semseg"].astype(int)
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                here = semseg[row, column]
                right = column + 1 < SIZE[1] and semseg[row, column + 1] != here
                below = row + 1 < SIZE[0] and semseg[row + 1, column] != here
                slanted = column + 1 < SIZE[1] and row + 1 < SIZE[0] and semseg[row + 1, column + 1] != here
                assert targets["edge"][row, column] == (right or below or slanted)
        plant = semseg == SEMSEG_CLASSES.index("plant")  # "pottedplant" is no class of NYUD
        assert not targets["normals"][plant].any()
        cosine = (targets["normals"] * truth["normals"]).sum(-1)[~plant]
        lost.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())
        np.testing.assert_allclose(np.linalg.norm(targets["normals"][~plant], axis=-1), 1, atol=1e-5)
    assert max(lost) < 0.6


def test_pascal_normals_and_parts_everywhere(opened):
    data = opened("pascal", normals_on="all", parts_on="all")
    for _, number, sample in samples(data, "normals", "parts"):
        assert sample["targets"]["normals"].any(-1).all() and not (sample["targets"]["parts"] == 255).any()
        assert number % 3 != 2 or not sample["targets"]["parts"].any()
    prints = {opened("pascal", **options).fingerprint() for options in ({}, {"normals_on": "all"}, {"parts_on": "all"})}
    assert len(prints) == 3
    for option in ("normals_on", "parts_on"):
        with pytest.raises(UserError, match=f"{option} is 'some'"):
            opened("pascal", **{option: "some"})


def test_of_two_parts_of_pascal_in_one_place_the_last_counts(tmp_path):
    from scipy.io import savemat

    masks = np.zeros((2, 4, 6), np.uint8)
    masks[0, :, :4] = masks[1, :, 2:] = 1
    parts = np.zeros(2, [("part_name", object), ("mask", object)])
    parts[0], parts[1] = ("torso", masks[0]), ("lhand", masks[1])
    people = np.zeros(1, [(key, object) for key in ("class", "class_ind", "mask", "parts")])
    people[0] = ("person", 15, masks.max(0), parts)
    savemat(tmp_path / "a.mat", {"anno": {"imname": "a", "objects": people}})
    assert read_parts(tmp_path / "a.mat").tolist() == [[2, 2, 4, 4, 4, 4]] * 4


def test_boundaries_of_pascal_are_as_thick_in_every_direction():
    down, right = np.mgrid[:20, :20]
    found = [boundaries((across > 9).astype(np.uint16)) for across in (down, right, (down + right) // 2,
                                                                       (down - right + 19) // 2)]
    assert [int(one[5:15, 5:15].sum()) for one in found] == [10, 10, 19, 19]


def test_taskonomy(opened):
    data = opened("taskonomy")
    for split, number, sample in samples(data):
        truth, targets = view(split, number), sample["targets"]
        np.testing.assert_array_equal(sample["image"], truth["image"])
        ball = truth["semseg"] == SEMSEG_CLASSES.index("ball")
        assert np.abs(targets["depth"] - truth["depth"])[~ball].max() <= 1 / 1024 + 1e-6
        assert not targets["depth"][ball].any()
        np.testing.assert_array_equal(targets["edge"], truth["edge"])
        np.testing.assert_allclose(targets["keypoints"], truth["keypoints"], atol=0.5001 / 11041)
        assert targets["scene"].sum() == pytest.approx(1, abs=1e-6) and targets["scene"].argmax() == truth["scene"]


@pytest.mark.parametrize("grouping", ["attributes", "groups", "one"])
def test_celeba(opened, grouping):
    data = opened("celeba", grouping=grouping, size=None)
    members = [name for label in data.labels.values() for name in label.classes]
    assert len(members) == len(set(members)) == 40
    assert {"attributes": 40, "groups": 8, "one": 1}[grouping] == len(data.labels)
    header = (data.root / "list_attr_celeba.txt").read_text().splitlines()[1].split()
    for split, number, sample in samples(data):
        facts = view(split, number)["attributes"]
        for task, target in sample["targets"].items():
            truth = [facts[header.index(name) % len(ATTRIBUTES)] for name in data.labels[task].classes]
            assert target.tolist() == truth
    assert opened("celeba").split("train")[0]["image"].shape == (64, 64, 3)


@pytest.mark.parametrize("layout", ["cifar100_hierarchy", "cifar100_binary"])
def test_cifar100(opened, layout):
    data = opened("cifar100_hierarchy", layout)
    labels = data.labels
    assert [len(label.classes) for label in labels.values()] == [3, 10, 20, 100]
    data.choose()
    for split in ("train", "test"):
        for number, sample in enumerate(data.split(split)):
            np.testing.assert_array_equal(sample["image"], view(split, number, 32, 32)["image"])
            fine = 7 * number % 100
            assert sample["targets"]["class100"] == fine and sample["targets"]["class20"] == fine // 5
            for level in ("class10", "class3"):
                assert sample["targets"][level] == labels["class100"].parents[level][fine]
    batch = data.split("train").batch([0, 2])
    np.testing.assert_array_equal(batch["images"][1], data.split("train")[2]["image"])


def test_renamed_classes_keep_their_parents(folder):
    root, names = str(folder("cifar100_hierarchy")), {"class20": "coarse", "class10": "ten"}
    mixed = DATASETS.get("mixture")(sets=[{"name": "cifar100_hierarchy", "root": root, "tasks": names}]).labels
    alone = DATASETS.get("cifar100_hierarchy")(root=root).labels
    for task, label in alone.items():
        renamed = {names.get(parent, parent): places for parent, places in label.parents.items()}
        assert mixed[names.get(task, task)].parents == renamed
    assert set(mixed["coarse"].parents) == {"class3", "ten"}


def test_cifar100_hierarchy_is_that_of_the_source(opened):
    """Rows of table 3.3 of Liu (2018)."""
    labels = opened("cifar100_hierarchy").labels
    twenty, ten, three = (labels[level].classes for level in ("class20", "class10", "class3"))

    def above(name: str) -> tuple[str, str]:
        place = twenty.index(name)
        return ten[labels["class20"].parents["class10"][place]], three[labels["class20"].parents["class3"][place]]

    assert above("reptiles") == ("large animals", "animals") and above("fish") == ("small animals", "animals")
    assert above("people") == ("people", "animals") and above("trees") == ("vegetations", "vegetations")
    assert above("vehicles_2") == ("vehicles", "objects and scenes")
    assert above("food_containers") == ("household objects", "objects and scenes")
    assert above("large_natural_outdoor_scenes") == ("natural scenes", "objects and scenes")
    sizes = np.bincount(labels["class20"].parents["class10"])
    assert dict(zip(ten, sizes.tolist(), strict=True)) == {
        "large animals": 3, "medium animals": 2, "small animals": 2, "invertebrates": 2, "people": 1, "vegetations": 3,
        "household objects": 3, "construction": 1, "natural scenes": 1, "vehicles": 2}


def test_refuge(opened):
    data, order = opened("refuge"), {}
    for split, _, sample in samples(data):
        stem = sample["id"].rpartition("/")[2].partition(".")[0]
        place = int(stem[1:]) - 1  # training images come by their folder, glaucoma first
        truth, targets = view(split, place), sample["targets"]
        order.setdefault(split, []).append(place)
        assert like_jpeg(sample["image"], truth["image"])
        np.testing.assert_array_equal(targets["disc"], truth["saliency"])
        upper = np.arange(SIZE[0])[:, None] < SIZE[0] // 2
        np.testing.assert_array_equal(targets["cup"], truth["saliency"] * upper)
        assert targets["glaucoma"] == (place % 4 == 1)
        x, y = SIZE[1] * (0.3 + 0.1 * (place % 4)) + 0.25, SIZE[0] * (0.6 - 0.1 * (place % 3)) + 0.5
        row, column = np.unravel_index(targets["fovea"].argmax(), SIZE)
        assert abs(row + 0.5 - y) <= 0.5 and abs(column + 0.5 - x) <= 0.5
    assert order["train"] == [1, 0, 2, 3] and order["val"] == [0, 1]
    both = opened("refuge", division="800/400")
    assert [len(both.split(split)) for split in both.splits] == [6, 2] and both.splits == ("train", "test")
    assert both.fingerprint() != data.fingerprint()


def test_refuge_about_the_disc(opened):
    data = opened("refuge", crop=24)
    data.choose()
    for sample, whole in zip(data.split("val"), opened("refuge").split("val"), strict=True):
        assert sample["image"].shape == (24, 24, 3)
        found, disc = np.argwhere(sample["targets"]["disc"] == 1), whole["targets"]["disc"]
        rows, columns = np.nonzero(disc)
        top, left = round((rows.min() + rows.max() + 1) / 2 - 12), round((columns.min() + columns.max() + 1) / 2 - 12)
        inside = np.full((24, 24), 255)
        for row in range(24):
            for column in range(24):
                if 0 <= top + row < SIZE[0] and 0 <= left + column < SIZE[1]:
                    inside[row, column] = disc[top + row, left + column]
        np.testing.assert_array_equal(sample["targets"]["disc"], inside)
        assert len(found)


def test_a_fovea_outside_the_crop_is_no_label(opened):
    wholes, seen = list(opened("refuge").split("train")), set()
    for sample, whole in zip(opened("refuge", crop=16).split("train"), wholes, strict=True):
        y, x = np.unravel_index(whole["targets"]["fovea"].argmax(), SIZE)
        disc = np.argwhere(whole["targets"]["disc"])
        top, left = np.round((disc.min(0) + disc.max(0) + 1) / 2 - 8)
        inside = 0 <= y - top < 16 and 0 <= x - left < 16
        assert ("fovea" in sample["targets"]) == inside
        seen.add(inside)
    assert False in seen


def test_hrf_av(folder):
    data = DATASETS.get("hrf_av")(root=str(folder("hrf_av")))
    data.choose()
    assert [len(data.split(split)) for split in data.splits] == [15, 30]
    for sample in data.split("train")[0], data.split("train")[7]:
        stem = sample["id"].rpartition("/")[2].partition(".")[0]
        place, kind = stem.split("_")
        truth = view("train", 3 * (int(place) - 1) + ("h", "dr", "g").index(kind), 20, 28)
        np.testing.assert_array_equal(sample["targets"]["vessels"], truth["edge"])
        colour = np.where(truth["edge"] == 1, 1 + truth["semseg"] % 4, 0)  # artery, vein, crossing, unknown
        np.testing.assert_array_equal(sample["targets"]["artery_vein"], np.array([0, 1, 2, 255, 255])[colour])
        np.testing.assert_array_equal(sample["targets"]["artery"], np.array([0, 1, 0, 1, 255])[colour])
        np.testing.assert_array_equal(sample["targets"]["vein"], np.array([0, 0, 1, 1, 255])[colour])
    drawn = [DATASETS.get("hrf_av")(root=str(folder("hrf_av")), division="random", seed=seed) for seed in (0, 0, 1)]
    names = [list(one.split("train").names) for one in drawn]
    assert names[0] == names[1] != names[2] and len(names[0]) == 15


def test_manifest(folder):
    place = folder("manifest")
    tasks = json.loads((place / "tasks.json").read_text())
    data = DATASETS.get("manifest")(file=str(place / "samples.csv"), tasks=tasks)
    for split, number, sample in samples(data):
        truth, targets = view(split, number), sample["targets"]
        lacking = {task for position, task in enumerate(tasks) if (number + position) % 3 == 0}
        assert set(targets) == set(tasks) - lacking
        for task in set(targets) & {"semseg", "parts", "saliency", "edge", "instance_center", "attributes"}:
            np.testing.assert_array_equal(targets[task], truth[task])
        if "normals" in targets:
            np.testing.assert_allclose(targets["normals"], truth["normals"], atol=1e-6)
        if "depth" in targets:
            np.testing.assert_allclose(targets["depth"], truth["depth"], atol=0.0005001)
        if "keypoints" in targets:
            np.testing.assert_allclose(targets["keypoints"], truth["keypoints"], atol=0.5001 / 255)
        if "kind" in targets:
            assert SCENE_TYPES[int(targets["kind"])] == SCENE_TYPES[int(truth["scene"])]
    batch = collate([data.split("train")[i] for i in range(4)], data.tasks)
    assert set(batch["targets"]) == set(tasks)


def test_idx_files_of_scenes(opened):
    data = opened("mnist_parity")
    data.choose()
    digits = [2 * int(s["targets"]["even"]) if "even" in s["targets"] else 2 * int(s["targets"]["odd"]) + 1
              for s in data.split("train")]
    assert digits == [0, 1, 2, 3]
    pairs = opened("multimnist", "mnist_parity")
    pairs.choose()
    assert [int(s["targets"]["left"]) for s in pairs.split("train")] == [0, 1, 2, 3]


def test_held_out_samples_leave_the_training_split(opened):
    plain = opened("nyud")
    assert plain.splits == ("train", "test")
    data = opened("nyud", val_count=2, seed=3)
    names = {split: {s["id"].partition("/")[2] for s in data.split(split)} for split in data.splits}
    assert [len(names[split]) for split in ("train", "val", "test")] == [2, 2, 2]
    assert names["train"] | names["val"] == {s["id"].partition("/")[2] for s in plain.split("train")}
    assert plain.fingerprint() != data.fingerprint() == opened("nyud", val_count=2, seed=3).fingerprint()


@pytest.mark.parametrize("name", ["nyud", "pascal", "cityscapes_npy", "taskonomy"])
def test_samples_are_augmented_and_collated(opened, name):
    data = opened(name)
    tasks = data.choose()
    ready = Augmented(data.split("train"), tasks, Augmentation(size=24, rotation=10, scale=(0.8, 1.2)), seed=0)
    batch = collate([ready[0, index] for index in range(3)], tasks)
    assert batch["image"].shape == (3, 3, 24, 24)
    for task in tasks.values():
        assert math.isfinite(float(task.normalizer(batch["targets"][task.name]).sum()))


# ---- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pascal", "cifar100_hierarchy", "refuge"])
def test_the_same_files_every_time(folder, tmp_path, name):
    first = folder(name)
    again = export(name, tmp_path / "again", {split: COUNTS[split] for split in LAYOUTS.get(name).splits},
                   (32, 32) if name.startswith("cifar") else SIZE)
    files = [[os.path.relpath(os.path.join(where, file), root) for where, _, found in os.walk(root) for file in found]
             for root in (first, again)]
    assert sorted(files[0]) == sorted(files[1])
    # MATLAB files begin with the time at which they were written
    plain = [file for file in files[0] if not file.endswith(".mat")]
    assert plain and filecmp.cmpfiles(first, again, plain, shallow=False)[0] == plain


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    kind = LAYOUTS.get("nyud")
    monkeypatch.setattr(kind, "finish", lambda self: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        export("nyud", tmp_path / "new", {"train": 1, "val": 1}, (16, 16))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "message"), [
    (("nyuud", "new"), "did you mean 'nyud'"),
    (("nyud", "used"), "holds something"),
    (("nyud", "new", {"test": 1}), "no split 'test'"),
    (("nyud", "new", {"train": 0}), "cannot write 0"),
    (("nyud", "new", None, (4, 64)), "16 or more"),
])
def test_export_names_mistakes(tmp_path, arguments, message):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    name, place, *more = arguments
    with pytest.raises(UserError, match=message):
        export(name, tmp_path / place, *more)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return export("voc_segmentation", tmp_path_factory.mktemp("voc") / "data", {"train": 4, "val": 2}, (32, 40))


@pytest.mark.parametrize(("options", "numbers"), [({}, [0, 1, 3]), ({"train_list": "trainaug"}, [0, 1, 2, 3])])
@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_segmentation(voc, options, numbers, below):
    data = DATASETS.get("voc_segmentation")(root=str(voc / below), **options)
    classes = data.labels["semseg"].classes
    assert len(classes) == 21 and data.splits == ("train", "test")
    for split, own, wanted in (("train", "train", numbers), ("test", "val", [0, 1])):
        samples = data.split(split)
        assert len(samples) == len(wanted)
        for sample, number in zip(samples, wanted, strict=True):
            truth = view(own, number, 32, 40)
            labels = expected(PASCAL, classes, truth["semseg"])
            if number % 3 != 2 or own == "val":  # the official annotation has outlines without a label
                labels = np.where(truth["edge"] > 0, 255, labels)
            np.testing.assert_array_equal(sample["targets"]["semseg"], labels)
            assert like_jpeg(sample["image"], truth["image"])


def test_voc_segmentation_mistakes(voc, tmp_path):
    make = DATASETS.get("voc_segmentation")
    with pytest.raises(UserError, match="train_list is 'aug': choose train or trainaug"):
        make(root=str(voc), train_list="aug")
    with pytest.raises(UserError, match="train.txt is missing.*where voc_segmentation"):
        make(root=str(tmp_path))
    assert make(root=str(voc)).fingerprint() != make(root=str(voc), train_list="trainaug").fingerprint()
