"""torchvision reads the folders that we write, and finds in them what our readers find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from pretrain.evaluation.labelled import LABELLED


def ours(written, name: str, split: str) -> dict[str, str]:
    """Class by the end of an image's path."""
    data = LABELLED.get(name)(root=str(written(name)))
    images = data.split(split)
    return {"/".join(Path(images.name(number)).parts[-2:]): data.names["class"][label]
            for number, label in enumerate(images.classes())}


def theirs(paths, labels, classes) -> dict[str, str]:
    return {"/".join(Path(path).parts[-2:]): classes[label] for path, label in zip(paths, labels, strict=True)}


@pytest.fixture
def linked(written, tmp_path):
    """A function that gives a folder in which a written one has another name."""
    def link(name: str, called: str) -> Path:
        (tmp_path / called).symlink_to(written(name))
        return tmp_path
    return link


@pytest.mark.parametrize("split", ["train", "test"])
def test_food101(written, linked, split):
    read = datasets.Food101(linked("food101", "food-101"), split)
    assert theirs(read._image_files, read._labels, read.classes) == ours(written, "food101", split)


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_pets(written, linked, split):
    read = datasets.OxfordIIITPet(linked("pets", "oxford-iiit-pet"), split)
    found = theirs(read._images, read._labels, read.classes)
    assert {path: name.lower() for path, name in found.items()} == ours(written, "pets", split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_cars(written, linked, split):
    read = datasets.StanfordCars(linked("cars", "stanford_cars"), split)
    assert theirs(*zip(*read._samples, strict=True), read.classes) == ours(written, "cars", split)


@pytest.mark.parametrize(("split", "called"), [("train", "train-standard"), ("val", "val")])
def test_places365(written, monkeypatch, split, called):
    monkeypatch.setattr("torchvision.datasets.places365.check_integrity", lambda *_, **__: True)
    read = datasets.Places365(str(written("places365")), called, small=True)
    names = {number: name[3:] for name, number in read.class_to_idx.items()}
    mine = ours(written, "places365", split)
    assert {Path(path).name: names[label] for path, label in read.imgs} == \
        {Path(path).name: name for path, name in mine.items()}


def test_sun397(written):
    read = datasets.SUN397(written("sun397"))
    both = ours(written, "sun397", "train") | ours(written, "sun397", "test")
    assert theirs(read._image_files, read._labels, read.classes) == both


@pytest.mark.parametrize("split", ["train", "test"])
def test_class_folders(written, split):
    read = datasets.ImageFolder(str(written("folder") / split))
    data = LABELLED.get("folder")(root=str(written("folder")))
    images = data.split(split)
    assert read.classes == list(data.names["class"])
    paths = [str(written("folder") / images.name(number)) for number in range(len(images))]
    assert list(zip(paths, images.classes().tolist(), strict=True)) == read.samples


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10(written, monkeypatch, split):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_, **__: True)
    read = datasets.CIFAR10(str(written("cifar10")), train=split == "train")
    data = LABELLED.get("cifar10")(root=str(written("cifar10")))
    images = data.split(split)
    assert tuple(read.classes) == data.names["class"] and read.targets == images.classes().tolist()
    np.testing.assert_array_equal(read.data, [images.image(number) for number in range(len(images))])


@pytest.mark.parametrize("split", ["train", "val"])
def test_voc_segmentation(written, split):
    read = datasets.VOCSegmentation(str(written("voc_segmentation")), "2012", split)
    images = LABELLED.get("voc_segmentation")(root=str(written("voc_segmentation"))).split(split)
    assert len(read) == len(images)
    for number, (image, mask) in enumerate(read):
        np.testing.assert_array_equal(images.mask(number), np.asarray(mask))
        assert np.abs(images.image(number).astype(int) - np.asarray(image)).max() <= 1  # another decoder of JPEG
