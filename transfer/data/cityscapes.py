"""Cityscapes: streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._cityscapes_lists import CLASSES, STORED, coarser
from transfer.data._files import read_indices
from transfer.data._folder import Field, FolderData, Lacking
from transfer.data._values import class_map, index_table
from transfer.data.base import DATASETS, Label

_IMAGE = "_leftImg8bit.png"


@DATASETS.register("cityscapes")
class Cityscapes(FolderData):
    """Cityscapes (Cordts et al., 2016) from its official packages: segmentation, centres of instances, disparity.

    2975 images to train on; the official validation images, 500, are the split ``test``, since those of the official
    test set have no public labels. Images are 1024×2048; the publications bring them to 256×512 (Vandenhende 2022,
    section 4.4.1): ``--data.size '[256, 512]'``, where disparities and offsets shrink with the width.

    Args:
        root: folder with ``leftImg8bit``, ``gtFine`` and ``disparity``.
        classes: 19, 7 (categories) or 2 (background and people or vehicles).
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "semseg, instance_center, disparity"
    about = About(
        "Cityscapes", "https://www.cityscapes-dataset.com/downloads/",
        "for non-commercial research, after registration", """\
ROOT/
  leftImg8bit/train|val/CITY/CITY_000000_000019_leftImg8bit.png
  gtFine/train|val/CITY/…_gtFine_labelIds.png       numbers of the classes
  gtFine/train|val/CITY/…_gtFine_instanceIds.png    from 1000 on: 1000 · class + instance
  disparity/train|val/CITY/…_disparity.png          16 bits: 256 · disparity + 1, 0 unknown""",
        {"train": 2975, "val": 500}, "packages leftImg8bit_trainvaltest, gtFine_trainvaltest, disparity_trainvaltest")
    image = "leftImg8bit/{}" + _IMAGE

    def __init__(self, root: str | None = None, classes: Literal[19, 7, 2] = 19, val_count: int = 0, seed: int = 0,
                 size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("cityscapes", root, lacking, size, val_count, seed)
        if classes not in CLASSES:
            raise UserError(f"cityscapes: classes is {classes}: choose 19, 7 or 2")
        self.classes = classes
        self.fields = {
            "semseg": Field(Label("semseg", CLASSES[classes]), Semseg(classes), ("gtFine/{}_gtFine_labelIds.png",)),
            "instance_center": Field(Label("instance_center"), read_centres, ("gtFine/{}_gtFine_instanceIds.png",)),
            "disparity": Field(Label("disparity"), read_disparity, ("disparity/{}_disparity.png",)),
        }
        self._check()

    def names_of(self, split: str) -> Sequence[str]:
        folder = f"leftImg8bit/{split}"
        return [f"{split}/{city}/{name.removesuffix(_IMAGE)}" for city in sorted(self.listing.names(folder))
                for name in sorted(self.listing.names(f"{folder}/{city}")) if name.endswith(_IMAGE)]

    def options(self) -> tuple[int, ...]:
        return (self.classes,)


@dataclass(frozen=True)
class Semseg:
    """Reader of official label images at one of the levels."""

    classes: int

    def __call__(self, path: Path) -> np.ndarray:
        return class_map(read_indices(path), _TABLES[self.classes], path)


def _table(classes: int) -> np.ndarray:
    level = coarser(19, classes)
    others = tuple(number for number in (*range(35), 255) if number not in STORED)
    return index_table({stored: level[index] for index, stored in enumerate(STORED)}, others)


_TABLES = {classes: _table(classes) for classes in CLASSES}


def read_disparity(path: Path) -> np.ndarray:
    """Pixels, 0 where unknown: float32 ``[H, W]``."""
    stored = read_indices(path)
    return np.where(stored > 0, (stored - 1) * np.float32(1 / 256), 0).astype(np.float32)


def read_centres(path: Path) -> np.ndarray:
    """Offset of every pixel to the centre of mass of its instance; see :func:`centre_offsets`."""
    stored = read_indices(path)
    return centre_offsets(np.where(stored >= 1000, stored, 0))


def centre_offsets(instance: np.ndarray) -> np.ndarray:
    """Offset (x, y) of every pixel's centre to the centre of mass of its instance (Sener and Koltun 2018, section 4.3).

    Args:
        instance: int ``[H, W]``, 0 where there is none.

    Returns:
        float32 ``[H, W, 2]`` in pixels; (0, 0), which means no label, where there is no instance.
    """
    result = np.zeros((*instance.shape, 2), np.float32)
    y, x = np.nonzero(instance)
    if not len(y):
        return result
    numbers = instance[y, x]
    area = np.maximum(np.bincount(numbers), 1)
    for axis, place in enumerate((x, y)):
        centre = np.bincount(numbers, weights=place) / area
        result[y, x, axis] = centre[numbers] - place
    return result
