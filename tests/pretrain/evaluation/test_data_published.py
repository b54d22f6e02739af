"""Scenes written as published sets of labelled images and read back: labels are those that were written."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from pretrain.evaluation.labelled import LABELLED
from scenes import SCENE_TYPES, SEMSEG_CLASSES
from scenes.export import LAYOUTS

CLASSIFIED = {
    "folder": lambda kind: kind,
    "imagenet": lambda kind: f"n{SCENE_TYPES.index(kind) + 1:08d}",
    "cifar10": lambda kind: ("airplane", "automobile", "bird", "cat", "deer", "dog")[SCENE_TYPES.index(kind)],
    "cifar10_binary": lambda kind: ("airplane", "automobile", "bird", "cat", "deer", "dog")[SCENE_TYPES.index(kind)],
    "food101": lambda kind: kind,
    "pets": lambda kind: kind.replace("_", " "),
    "cars": lambda kind: kind,
    "places365": lambda kind: kind,
    "sun397": lambda kind: kind.replace("_", "/", 1),
}
"""Layouts of one class for each image -> what a type of room is called there."""
WRITTEN = {"train": 8, "val": 6, "test": 8}
SHOWN = {"ball": "aeroplane", "box": "bottle", "chair": "chair", "table": "diningtable", "lamp": "person",
         "plant": "pottedplant", "sofa": "sofa", "picture": "tvmonitor"}
SEGMENTED = {"box": "bottle", "chair": "chair", "table": "diningtable", "plant": "pottedplant", "sofa": "sofa"}


def opened(written, name: str, **options):
    return LABELLED.get(name.replace("_binary", ""))(root=str(written(name)), **options)


def numbers_of(images, view, split: str, count: int) -> list[int]:
    """Which scene each image shows, as the pixels say."""
    truth = np.stack([view(split, number)["image"].astype(int) for number in range(count)])
    found = []
    for number in range(len(images)):
        image = images.image(number)
        assert image.dtype == np.uint8 and image.shape == truth.shape[1:] and image.flags.c_contiguous
        far = np.abs(truth - image).mean((1, 2, 3))
        assert far.min() < 12  # the losses of JPEG
        found.append(int(far.argmin()))
    assert len(set(found)) == len(images)
    return found


@pytest.mark.parametrize("name", CLASSIFIED)
def test_classes_come_back(written, view, name):
    data = opened(written, name)
    names = data.names["class"]
    assert len(names) == len(set(names)) and list(data.names) == ["class"]
    for split, own in ((data.learn, "train"), (data.test, LAYOUTS.get(name).splits[1])):
        images = pickle.loads(pickle.dumps(data.split(split)))
        labels = images.classes()
        assert labels.dtype == np.int64 and labels.shape == (len(images),)
        numbers = numbers_of(images, view, own, WRITTEN[own])
        for place, number in enumerate(numbers):
            kind = SCENE_TYPES[int(view(own, number)["scene"])]
            assert names[labels[place]] == CLASSIFIED[name](kind), images.name(place)
        assert len(numbers) == WRITTEN[own]


def test_pickled_batches_and_binary_ones_are_the_same_set(written):
    assert opened(written, "cifar10").fingerprint() == opened(written, "cifar10_binary").fingerprint()


def test_the_second_partition_of_sun397(written):
    first, second = opened(written, "sun397"), opened(written, "sun397", partition=2)
    assert first.split("train").fingerprint() == second.split("test").fingerprint()
    np.testing.assert_array_equal(first.split("train").classes(), second.split("test").classes())
    assert first.fingerprint() != second.fingerprint()


def test_attributes_come_back(written, view):
    data = opened(written, "voc07")
    names = data.names["attributes"]
    assert (len(names), data.learn, data.test) == (20, "trainval", "test")
    seen = set()
    for split, own in (("trainval", "train"), ("test", "test")):
        images = data.split(split)
        values = images.attributes()
        assert values.dtype == np.int8
        for number in range(8):
            semseg = view(own, number)["semseg"]
            for place, name in enumerate(names):
                covered = sum(int((semseg == SEMSEG_CLASSES.index(shown)).sum())
                              for shown, kind in SHOWN.items() if kind == name)
                expected = 0 if not covered else 1 if covered >= 0.01 * semseg.size else -1
                assert values[number, place] == expected
                seen.add(expected)
        assert numbers_of(images, view, own, 8) == list(range(8))
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("train_list", ["train", "trainaug"])
def test_masks_come_back(written, view, train_list):
    data = opened(written, "voc_segmentation", train_list=train_list)
    names = data.names["mask"]
    assert len(names) == 21 and names[0] == "background"
    assert data.splits == (train_list, "val") == (data.learn, data.test)
    for split, own, numbers in ((train_list, "train", [0, 1, 3, 4, 6, 7] if train_list == "train" else range(8)),
                                ("val", "val", range(6))):
        images = pickle.loads(pickle.dumps(data.split(split)))
        assert numbers_of(images, view, own, WRITTEN[own]) == list(numbers)
        for place, number in enumerate(numbers):
            scene = view(own, number)
            expected = np.zeros(scene["semseg"].shape, np.uint8)
            for row, column in np.ndindex(expected.shape):
                name = SEMSEG_CLASSES[scene["semseg"][row, column]]
                expected[row, column] = names.index(SEGMENTED[name]) if name in SEGMENTED else 0
                if name == "ball" or split != "trainaug" and scene["edge"][row, column]:
                    expected[row, column] = 255
            mask = images.mask(place)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, expected)


def test_published_colours_of_masks(written):
    """The first classes' colours as VOC's own images have them."""
    path = next((written("voc_segmentation") / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))
    with Image.open(path) as image:
        assert image.mode == "P"
        colours = np.array(image.getpalette()).reshape(-1, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 5: (128, 0, 128), 9: (192, 0, 0), 15: (192, 128, 128),
             20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: tuple(colours[number].tolist()) for number in known} == known


# ---- where the folder is ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "below"), [
    ("voc07", "VOCdevkit"), ("voc07", "VOCdevkit/VOC2007"), ("voc_segmentation", "VOCdevkit"),
    ("voc_segmentation", "VOCdevkit/VOC2012"), ("cifar10", "cifar-10-batches-py"),
])
def test_a_root_deeper_in(written, name, below):
    inner = LABELLED.get(name)(root=str(written(name) / below))
    outer = opened(written, name)
    for split in outer.splits:
        assert len(inner.split(split)) == len(outer.split(split)) > 0
        np.testing.assert_array_equal(inner.split(split).image(1), outer.split(split).image(1))


@pytest.mark.parametrize(("name", "moves"), [
    ("food101", {"": "food-101"}),
    ("cars", {"devkit/cars_meta.mat": "cars_meta.mat", "devkit/cars_train_annos.mat": "cars_train_annos.mat"}),
    ("places365", {"data_256": "data_256_standard"}),
    ("places365", {"data_256": "data_large", "val_256": "val_large"}),
    ("sun397", {"SUN397/b": "b", "SUN397/d": "d", "SUN397/l": "l", "SUN397/o": "o", "SUN397/p": "p", "SUN397/s": "s",
                "SUN397": "removed"}),
])
def test_other_ways_to_unpack(written, tmp_path, name, moves):
    root = tmp_path / "root"
    shutil.copytree(written(name), root)
    for old, new in moves.items():
        if old:
            shutil.move(root / old, root / new)
        else:
            shutil.move(root, tmp_path / new)
            root.mkdir()
            shutil.move(tmp_path / new, root / new)
    moved, data = LABELLED.get(name)(root=str(root)), opened(written, name)
    for split in data.splits:
        np.testing.assert_array_equal(moved.split(split).classes(), data.split(split).classes())
        np.testing.assert_array_equal(moved.split(split).image(0), data.split(split).image(0))


def test_val_stands_in_for_test(written, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(written("imagenet"), root)
    assert LABELLED.get("folder")(root=str(root)).test == "val"
    (root / "test").mkdir()
    (root / "test" / "unlabelled.jpg").write_bytes(b"")  # as ImageNet's own
    assert LABELLED.get("folder")(root=str(root)).test == "val"
    data = LABELLED.get("folder")(root=str(root), train="val", test="train")
    assert (data.learn, data.test) == ("val", "train") and len(data.split("val")) == 6


def test_names_that_sort_otherwise_as_folders(tmp_path):
    """``cat-b/`` comes before ``cat/`` as a path, and after it as a name."""
    for split, count in (("train", 2), ("test", 1)):
        for name in ("cat", "cat-b", "cat b", "Cat", "cät"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count + len(name)):
                (tmp_path / split / name / f"{number}.png").touch()
    data = LABELLED.get("folder")(root=str(tmp_path), train="train/")
    names = data.names["class"]
    assert names == tuple(sorted(names)) and len(names) == 5 and data.splits == ("train", "test")
    for split, count in (("train", 2), ("test", 1)):
        images = data.split(split)
        found = [images.name(number).split("/")[1] for number in range(len(images))]
        assert found == [names[label] for label in images.classes()]
        assert all(found.count(name) == count + len(name) for name in names)


def test_imagenets_classes_have_words(tmp_path):
    for split in ("train", "val"):
        for name in ("n03126707", "n01440764", "n02012849", "n99999999"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.JPEG").touch()
    data = LABELLED.get("imagenet")(root=str(tmp_path))
    assert data.names["class"] == ("tench", "crane (n02012849)", "crane (n03126707)", "n99999999")


def test_images_deeper_in_a_class_folder(written, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(written("folder"), root)
    (root / "train" / "office" / "camera" / "a").mkdir(parents=True)
    shutil.copy(next((root / "train" / "bedroom").iterdir()), root / "train" / "office" / "camera" / "a" / "1.jpg")
    (root / "train" / ".hidden").mkdir()
    data = LABELLED.get("folder")(root=str(root))
    images, names = data.split("train"), data.names["class"]
    assert len(images) == 9 and ".hidden" not in names
    for number, label in enumerate(images.classes()):
        assert images.name(number).split("/")[1] == names[label]


# ---- fingerprints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["folder", "food101", "pets", "cars", "places365", "sun397", "voc07",
                                  "voc_segmentation", "cifar10"])
def test_a_moved_folder_is_the_same(written, tmp_path, name):
    shutil.copytree(written(name), tmp_path / "moved")
    moved, data = LABELLED.get(name)(root=str(tmp_path / "moved")), opened(written, name)
    assert moved.fingerprint() == data.fingerprint()
    assert moved.split(data.learn).fingerprint() == data.split(data.learn).fingerprint()


def _relabel(root):
    path = root / "annotations" / "trainval.txt"
    first, second, *lines = path.read_text().splitlines()
    path.write_text("\n".join([second, first, *lines]))


def _repaint(root):
    path = sorted((root / "images").glob("*.jpg"))[0]
    Image.new("RGB", (32, 32), "red").save(path)


def _drop(root):
    path = root / "annotations" / "test.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


@pytest.mark.parametrize("change", [_relabel, _repaint, _drop])
def test_fingerprints_change_with_the_folder(written, tmp_path, change):
    root = tmp_path / "root"
    shutil.copytree(written("pets"), root)
    change(root)
    assert LABELLED.get("pets")(root=str(root)).fingerprint() != opened(written, "pets").fingerprint()


@pytest.mark.parametrize("folder", ["SegmentationClass", "JPEGImages"])
def test_fingerprints_change_with_any_file_of_another_size(written, tmp_path, monkeypatch, folder):
    """Also with one whose content is not read: a mask that was mended, an image that was replaced."""
    monkeypatch.setattr("pretrain.evaluation.data._images._SAMPLED", 2)
    whole, root = opened(written, "voc_segmentation").fingerprint(), tmp_path / "root"
    shutil.copytree(written("voc_segmentation"), root)
    (path,) = (root / "VOCdevkit/VOC2012" / folder).glob("2007_000003.*")
    path.write_bytes(path.read_bytes() + b"more")
    assert LABELLED.get("voc_segmentation")(root=str(root)).fingerprint() != whole


def test_fingerprints_change_with_labels_alone(written, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(written("voc07"), root)
    path = root / "VOCdevkit/VOC2007/ImageSets/Main/cow_test.txt"
    path.write_text(path.read_text().replace("-1", " 1", 1))
    changed, data = LABELLED.get("voc07")(root=str(root)), opened(written, "voc07")
    assert changed.fingerprint() != data.fingerprint()
    assert changed.split("test").fingerprint() == data.split("test").fingerprint()  # features stay what they are


def test_options_and_masks_are_in_fingerprints(written, tmp_path):
    plain, more = (opened(written, "voc_segmentation", train_list=name) for name in ("train", "trainaug"))
    assert plain.fingerprint() != more.fingerprint()
    root = tmp_path / "root"
    shutil.copytree(written("voc_segmentation"), root)
    path = next((root / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    assert LABELLED.get("voc_segmentation")(root=str(root)).fingerprint() != plain.fingerprint()


def test_a_split_is_small_when_it_is_pickled(tmp_path):
    """Workers get a copy: not an object for each of a million images."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(100):
                (tmp_path / split / name / f"{number:04d}.png").touch()
    images = LABELLED.get("folder")(root=str(tmp_path)).split("train")
    content = pickle.dumps(images)
    assert len(content) < 200 * (len("train/a/0000.png") + 16) + 2000
    again = pickle.loads(content)
    assert again.name(199) == "train/b/0099.png" and again.classes().sum() == 100
