"""What tests share: each layout of a published set written once, of scenes rendered once, and sets given as arrays."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain.evaluation.labelled import Labelled, LabelledImages
from scenes import generate, render
from scenes.dataset import seed_of
from scenes.export import LAYOUTS, export, writing

COUNTS = {"train": 8, "val": 6, "test": 8}
"""As few scenes as have all types of rooms."""
SIDE = 32


@cache
def _scene(seed: int):
    return generate(seed)


@cache
def _rendered(seed: int):
    return render(_scene(seed), SIDE, SIDE)


@pytest.fixture(scope="session")
def view():
    """A function that gives one scene of a split as layouts are written with it."""
    return lambda split, number: _rendered(seed_of(split, number))


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A function that writes a layout once; its folder is not to be changed."""
    known: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(writing, "generate", lambda seed: seed)  # a scene is rendered once for all layouts
                patch.setattr(writing, "render", lambda seed, height, width: _rendered(seed))
                counts = {split: COUNTS[split] for split in LAYOUTS.get(name).splits}
                known[name] = export(name, tmp_path_factory.mktemp("layout") / name, counts, (SIDE, SIDE))
        return known[name]

    return make


class ArrayImages(LabelledImages):
    """A split whose features are given; its images are of one colour each."""

    def __init__(self, split, vectors, labels):
        self.split, self.vectors, self.labels = split, np.asarray(vectors, np.float32), np.asarray(labels)

    def __len__(self):
        return len(self.vectors)

    def image(self, number):
        return np.full((12, 16, 3), number % 256, np.uint8)

    def name(self, number):
        return f"{self.split} image {number}"

    def fingerprint(self):
        return "arrays"

    def classes(self):
        return self.labels.astype(np.int64)

    def attributes(self):
        return self.labels.astype(np.int8)


class ArrayData(Labelled):
    """Splits ``train`` and ``test`` of given features and labels."""

    def __init__(self, train, test, names, kind="class", mean_per_class=False):
        self.parts = {"train": ArrayImages("train", *train), "test": ArrayImages("test", *test)}
        self.kind, self._names, self.mean_per_class = kind, tuple(names), mean_per_class

    @property
    def names(self):
        return {self.kind: self._names}

    def fingerprint(self):
        return "arrays"

    def load(self, split):
        return self.parts[split]


@pytest.fixture(scope="session")
def array_data():
    """The class :class:`ArrayData`, so that protocols are tested without a network."""
    return ArrayData


@pytest.fixture(scope="session")
def array_features():
    """What stands for a backbone's features: those that the images come with; else a direction for each colour."""

    def pooled(images, resize, crop):
        if hasattr(images, "vectors"):
            return images.vectors
        angles = np.array([images.image(number)[0, 0, 0] for number in range(len(images))]) / 100
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    return SimpleNamespace(pooled=pooled, device=torch.device("cpu"), subject=SimpleNamespace(label="arrays"))


@pytest.fixture(scope="session")
def clusters():
    """Makes features near one random direction for each class: ``(count, classes, channels, noise, seed)``."""

    def make(count, classes, channels=16, noise=1.0, seed=0):
        centres = np.random.default_rng(1000 + channels).normal(size=(classes, channels))
        generator = np.random.default_rng(seed)
        labels = np.arange(count) % classes
        return (centres[labels] + noise * generator.normal(size=(count, channels))).astype(np.float32), labels

    return make


class PaintedImages(LabelledImages):
    """A split of pairs of an image and a mask."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def image(self, number):
        return self.pairs[number][0]

    def name(self, number):
        return f"painting {number}"

    def fingerprint(self):
        return "paintings"

    def mask(self, number):
        return self.pairs[number][1]


class PaintedData(Labelled):
    """Splits ``train`` and ``test`` of images that come with their masks."""

    def __init__(self, names, train, test):
        self.parts, self._names = {"train": PaintedImages(train), "test": PaintedImages(test)}, tuple(names)

    @property
    def names(self):
        return {"mask": self._names}

    def fingerprint(self):
        return "paintings"

    def load(self, split):
        return self.parts[split]


@pytest.fixture(scope="session")
def painted_data():
    """The class :class:`PaintedData`."""
    return PaintedData


class ColourFeatures:
    """Stands for a backbone's features: means of colours and of their squares over squares of 4 pixels."""

    model, device, workers, subject = None, torch.device("cpu"), 0, SimpleNamespace(label="colours")

    def place(self, model, layer):
        return layer

    def normalise(self, images):
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5
        return torch.cat([pixels, pixels.square()], 1)

    def maps(self, model, images, place):
        return torch.nn.functional.avg_pool2d(images, 4)


@pytest.fixture
def colour_features():
    """Features of places that are nothing but colours, for tests without a network."""
    return ColourFeatures()
