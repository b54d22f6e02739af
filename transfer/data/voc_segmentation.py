"""PASCAL VOC 2012, segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from harness.about import About
from harness.errors import UserError
from transfer.data._files import read_indices
from transfer.data._folder import Field, FolderData, Lacking, read_list
from transfer.data._pascal_lists import CLASSES
from transfer.data._values import class_map, shifted
from transfer.data.base import DATASETS, Label

_TABLE = shifted(len(CLASSES))


@DATASETS.register("voc_segmentation")
class VocSegmentation(FolderData):
    """VOC 2012 (Everingham et al., 2010): 20 kinds of objects and background.

    The list ``val.txt`` is the split ``test``, since the published test images have no public labels; there is no split
    to choose by unless one is held out.

    Args:
        root: the folder ``VOC2012``, or one with ``VOCdevkit/VOC2012`` or ``VOC2012`` in it.
        train_list: ``train``: 1464 images; ``trainaug``: 10582, most of them annotated by Hariharan et al., 2011.
        val_count: training images that become the split ``val``; 0: there is none.
        seed: of that draw.
        size: side, or height and width, that images and labels are brought to when they are read; their own when none.
        lacking: refuse a folder where label files are missing, or accept samples without that label.
    """

    holds = "semseg"
    about = About(
        "PASCAL VOC 2012, segmentation", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "images under Flickr's terms", """\
ROOT/  (or ROOT/VOC2012, or ROOT/VOCdevkit/VOC2012)
  JPEGImages/NAME.jpg
  SegmentationClass/NAME.png                       a palette: 0 background, 1 to 20, 255 none
  ImageSets/Segmentation/train.txt, val.txt        one name a line: 1464 and 1449
  SegmentationClassAug/NAME.png                    for trainaug: the same as grey values or palette
  ImageSets/Segmentation/trainaug.txt              one name a line: 10582""",
        {"train": 1464, "trainaug": 10582, "val": 1449},
        "trainaug is the Semantic Boundaries Dataset in this form (http://home.bharathh.info/pubs/codes/SBD/)")
    image = "JPEGImages/{}.jpg"

    def __init__(self, root: str | None = None, train_list: Literal["train", "trainaug"] = "train", val_count: int = 0,
                 seed: int = 0, size: int | list[int] | None = None, lacking: Lacking = "refuse") -> None:
        super().__init__("voc_segmentation", _below(root), lacking, size, val_count, seed)
        if train_list not in ("train", "trainaug"):
            raise UserError(f"voc_segmentation: train_list is '{train_list}': choose train or trainaug")
        self.train_list = train_list
        self.published = {"train": train_list, "test": "val"}
        masks = ("SegmentationClass/{}.png",)
        if train_list == "trainaug":
            masks = (*masks, "SegmentationClassAug/{}.png")  # the official annotation where there is one
        self.fields = {"semseg": Field(Label("semseg", CLASSES), _semseg, masks)}
        self._check()

    def names_of(self, split: str) -> Sequence[str]:
        lines = read_list(self.name, self.root / "ImageSets" / "Segmentation" / f"{split}.txt", self.hint)
        return [Path(line.split()[0]).stem for line in lines]  # some lists of trainaug have two paths a line

    def options(self) -> tuple[str, ...]:
        return (self.train_list,)


def _below(root: str | None) -> str | None:
    """The folder of the year below what was given."""
    for folder in ("VOCdevkit/VOC2012", "VOC2012"):
        if root and (Path(root).expanduser() / folder).is_dir():
            return str(Path(root).expanduser() / folder)
    return root


def _semseg(path: Path) -> np.ndarray:
    return class_map(read_indices(path), _TABLE, path)
