"""Folders of published sets with something wrong: one line that names it."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from harness.errors import UserError
from harness.images import UnreadableImage
from pretrain.evaluation.labelled import LABELLED

VOC07, VOC12 = "VOCdevkit/VOC2007", "VOCdevkit/VOC2012"


def remove(*paths: str):
    def change(root):
        for path in paths:
            shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
    return change


def edit(path: str, number: int, line: str | None):
    """Replace a line, counted from 1, or append one past the end."""
    def change(root):
        lines = (root / path).read_text().splitlines()
        lines[number - 1 : number] = [line]
        (root / path).write_text("\n".join(lines) + "\n")
    return change


def twice(path: str):
    def change(root):
        lines = (root / path).read_text().splitlines()
        (root / path).write_text("\n".join([*lines, lines[1]]))
    return change


def mask(array: np.ndarray):
    def change(root):
        path = root / VOC12 / "SegmentationClass/2007_000000.png"
        Image.fromarray(array).save(path)
    return change


def move(old: str, new: str):
    return lambda root: shutil.move(root / old, root / new)


def empty(path: str):
    return lambda root: (root / path).mkdir(parents=True)


def _renumbered(root):
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace(" 6 ", " 7 "))


def _without_classes(root):
    rows = loadmat(root / "cars_test_annos_withlabels.mat")["annotations"]
    kept = [name for name in rows.dtype.names if name != "class"]
    savemat(root / "cars_test_annos_withlabels.mat", {"annotations": rows[kept].astype([(n, object) for n in kept])})


def _twentieth_class(root):
    rows = loadmat(root / "devkit/cars_train_annos.mat")["annotations"]
    rows["class"][0, 2] = np.array([[20]])
    savemat(root / "devkit/cars_train_annos.mat", {"annotations": rows})


def _pickled_code(root):
    class Runs:
        def __reduce__(self):
            return print, ("run",)

    (root / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps(Runs()))


def _pickled_label(root):
    path = root / "cifar-10-batches-py/test_batch"
    content = pickle.loads(path.read_bytes())
    content["labels"][4] = 10
    path.write_bytes(pickle.dumps(content, protocol=2))


def _short_batch(root):
    path = root / "cifar-10-batches-bin/data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])


CASES = [
    ("folder", remove("train"), r"has no folder train, but test: name the splits' folders with --data.train"),
    ("folder", remove("test"), "has no folder test, but train"),
    ("folder", remove("test/office"), "/train and .*/test differ: office is in train alone"),
    ("folder", move("train/office", "train/kitchen"),
     "differ: kitchen is in train alone, and office is in test alone: give both the same classes"),
    ("folder", empty("train/kitchen"), "no images in the class folder kitchen in .*/train"),
    ("folder", lambda root: shutil.copy(next((root / "test/office").iterdir()), root / "test/1.jpg"),
     "image test/1.jpg in .* lies in no class's folder: expected test/CLASS/1.jpg"),
    ("imagenet", lambda root: [shutil.rmtree(path) for path in (root / "val").iterdir()], "no images in .*/val"),
    ("food101", remove("meta"), r"has no meta \(nor food-101/meta\): python -m pretrain.evaluate data where food101"),
    ("food101", remove("meta/classes.txt"), "the list .*/meta/classes.txt cannot be read"),
    ("food101", twice("meta/classes.txt"), "classes.txt, line 7: living_room is in line 2 already"),
    ("food101", remove("images"), "has no folder images"),
    ("food101", edit("meta/test.txt", 3, "soup/12"), "meta/test.txt, line 3: 'soup/12' is not CLASS/NUMBER with a"),
    ("food101", edit("meta/train.txt", 2, "office"), "meta/train.txt, line 2: 'office' is not CLASS/NUMBER"),
    ("food101", edit("meta/train.txt", 9, "office/9"),
     r"1 of the 9 images that .*/meta/train.txt names are missing in .*, the first being images/office/9.jpg"),
    ("food101", twice("meta/train.txt"), r"meta/train.txt, line 9: images/.*jpg is in line 2 already"),
    ("food101", lambda root: (root / "meta/test.txt").write_text((root / "meta/train.txt").read_text()),
     r"is in split train and in split test \(8 images are\)"),
    ("food101", lambda root: (root / "meta/test.txt").write_text("\n\n"), "test.txt names no images"),
    ("food101", lambda root: (root / "meta/test.txt").write_bytes(b"\xff\xfe\x00"), "test.txt is not a text file"),
    ("pets", edit("annotations/trainval.txt", 2, "office_1 0 1 1"), "trainval.txt, line 2: 'office_1 0 1 1' is not"),
    ("pets", edit("annotations/trainval.txt", 4, "cat_1 1 1"), "trainval.txt, line 4: 'cat_1 1 1' is not BREED_NUMBER"),
    ("pets", edit("annotations/test.txt", 1, "cat_1 1 1 1"), "test.txt, line 1: class 1 is cat here and bedroom"),
    ("pets", edit("annotations/test.txt", 9, "cat_1 99 1 1"), "test.txt .* the first being images/cat_1.jpg"),
    ("pets", _renumbered, "have no image of class 6, and 6 others up to 7"),
    ("cars", remove("cars_test_annos_withlabels.mat"), "has no devkit/cars_test_annos_withlabels.mat"),
    ("cars", remove("cars_train/00003.jpg"), "1 of the 8 images that .*train_annos.mat .* cars_train/00003.jpg"),
    ("cars", _without_classes, "cars_test_annos_withlabels.mat has no class in its annotations"),
    ("cars", _twentieth_class, "cars_train_annos.mat has class 20 in entry 3, and cars_meta.mat names 6 classes"),
    ("cars", lambda root: (root / "devkit/cars_meta.mat").write_bytes(b"no"), "cars_meta.mat cannot be read"),
    ("places365", remove("val_256"), "does not hold data_large with val_large or data_256 with val_256"),
    ("places365", edit("categories_places365.txt", 2, "/l/living_room 7"),
     "categories_places365.txt, line 2: '/l/living_room 7' is not a class with a number of its own from 0 to 5"),
    ("places365", edit("categories_places365.txt", 2, "/l/living_room 0"), "line 2: '/l/living_room 0' is not a class"),
    ("places365", edit("places365_val.txt", 5, "Places365_val_00000005.jpg 6"),
     "places365_val.txt, line 5: 'Places365_val_00000005.jpg 6' is not PATH NUMBER with a number below 6"),
    ("sun397", edit("Partitions/Training_01.txt", 6, "/k/kitchen/sun_a.jpg"),
     "Training_01.txt, line 6: '/k/kitchen/sun_a.jpg' is not /LETTER/CLASS/NAME.jpg with a class of ClassName.txt"),
    ("sun397", remove("Partitions/Testing_01.txt"), "the list .*/Testing_01.txt cannot be read"),
    ("voc07", remove(f"{VOC07}/ImageSets/Main/cow_test.txt"), "lacks 1 of the 20 lists of split test, .*cow_test.txt"),
    ("voc07", edit(f"{VOC07}/ImageSets/Main/cow_test.txt", 3, "005003 2"),
     "cow_test.txt, line 3: '005003 2' is not NAME and 1, 0 or -1"),
    ("voc07", edit(f"{VOC07}/ImageSets/Main/cow_test.txt", 3, "005009 1"),
     "cow_test.txt, line 3: '005009' is not 005003, as in aeroplane_test.txt"),
    ("voc07", edit(f"{VOC07}/ImageSets/Main/dog_trainval.txt", 9, "000009 1"),
     "dog_trainval.txt has 9 images, and aeroplane_trainval.txt 8"),
    ("voc07", remove(f"{VOC07}/JPEGImages/000002.jpg", f"{VOC07}/JPEGImages/000004.jpg"),
     "2 of the 8 images that .*aeroplane_trainval.txt names .*/JPEGImages/000002.jpg"),
    ("voc_segmentation", remove(f"{VOC12}/ImageSets/Segmentation/val.txt"), "has no .*ImageSets/Segmentation/val.txt"),
    ("voc_segmentation", remove(f"{VOC12}/SegmentationClass/2007_000001.png"),
     "1 of the 6 masks that .*train.txt names are missing"),
    ("voc_segmentation", twice(f"{VOC12}/ImageSets/Segmentation/val.txt"), "val.txt, line 7: .* is in line 2 already"),
    ("cifar10", remove("cifar-10-batches-py/data_batch_4"), "cifar-10-batches-py lacks data_batch_4"),
    ("cifar10", remove("cifar-10-batches-py"), "neither .* nor cifar-10-batches-py or cifar-10-batches-bin in it"),
    ("cifar10", _pickled_code, "data_batch_3 cannot be read .*no code from a file is ever run"),
    ("cifar10", _pickled_label, "test_batch: image 4 has the class 10, and there are 0 to 9"),
    ("cifar10", lambda root: (root / "cifar-10-batches-py/batches.meta").write_bytes(pickle.dumps({"label_names": []})),
     "batches.meta cannot be read .it does not name 10 classes"),
    ("cifar10_binary", _short_batch, "data_batch_2.bin has .* bytes, which is not a number of images of 3073"),
]


@pytest.mark.parametrize(("name", "change", "message"), CASES, ids=[f"{case[0]}-{at}" for at, case in enumerate(CASES)])
def test_mistakes_are_named(written, tmp_path, name, change, message):
    root = tmp_path / "root"
    shutil.copytree(written(name), root)
    change(root)
    with pytest.raises(UserError, match=message) as error:
        LABELLED.get(name.replace("_binary", ""))(root=str(root))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("folder", {"train": "test"}, "test and test in .* are the same folder: results would be of training images"),
    ("folder", {"train": "./test/"}, "./test and test in .* are the same folder"),
    ("folder", {"test": "validation"}, "has no folder validation"),
    ("sun397", {"partition": 11}, "partition is 11: choose 1 to 10"),
    ("sun397", {"partition": 3}, r"has no Partitions/Training_03.txt \(nor Training_03.txt, SUN397/"),
    ("places365", {"images": "large"}, "does not hold data_large with val_large: "),
    ("voc_segmentation", {"train_list": "val"}, "train_list is 'val'"),
])
def test_options_that_make_no_sense(written, name, options, message):
    with pytest.raises(UserError, match=message):
        LABELLED.get(name)(root=str(written(name)), **options)


@pytest.mark.parametrize(("root", "message"), [(None, "data.root is not set"), ("nothing", "does not exist")])
@pytest.mark.parametrize("name", ["folder", "cifar10", "voc07"])
def test_no_folder(name, root, message):
    with pytest.raises(UserError, match=message):
        LABELLED.get(name)(root=root)


@pytest.mark.parametrize(("change", "message"), [
    (mask(np.zeros((32, 31), np.uint8)), "2007_000000.png is 32×31 pixels and its image .*2007_000000.jpg 32×32"),
    (mask(np.full((32, 32), 21, np.uint8)), "has class 21: there are 0 to 20, and 255 for none"),
    (mask(np.zeros((32, 32, 3), np.uint8)), "is a picture of mode RGB"),
    (lambda root: (root / VOC12 / "SegmentationClass/2007_000000.png").write_bytes(b"no"), "000000.png cannot be read"),
])
def test_masks_that_cannot_be_used(written, tmp_path, change, message):
    shutil.copytree(written("voc_segmentation"), tmp_path / "root")
    change(tmp_path / "root")
    images = LABELLED.get("voc_segmentation")(root=str(tmp_path / "root")).split("train")
    with pytest.raises(UserError, match=message):
        images.mask(0)
    assert images.mask(1).shape == (32, 32)


def test_a_damaged_image_is_named(written, tmp_path):
    shutil.copytree(written("food101"), tmp_path / "root")
    images = LABELLED.get("food101")(root=str(tmp_path / "root")).split("test")
    path = tmp_path / "root" / images.name(2)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableImage) as error:
        images.image(2)
    assert error.value.source == str(path)


def test_other_kinds_of_labels_are_refused(written):
    data = LABELLED.get("voc07")(root=str(written("voc07")))
    with pytest.raises(UserError, match="voc07 has attributes of images: choose another --data.name"):
        data.require("class", "knn")
    with pytest.raises(UserError, match="has no split 'trian'"):
        data.split("trian")
