"""PASCAL VOC 2012, segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.about import About
from harness.errors import UserError
from pretrain.evaluation.data._published import FileSet
from pretrain.evaluation.data._voc import CLASSES, candidates
from pretrain.evaluation.labelled import LABELLED
from pretrain.sources.base import Paths


@LABELLED.register("voc_segmentation")
class VocSegmentation(FileSet):
    """VOC2012 (Everingham et al., 2010): a class for each pixel, of 20 kinds of objects and background.

    Outlines and what is ambiguous count for nothing. Measured on ``val``, since ``test`` has no public labels.

    Args:
        root: the folder with ``VOCdevkit``, ``VOCdevkit`` itself, or ``VOC2012``.
        train_list: ``train``: 1464 images; ``trainaug``: 10582, most of them annotated by Hariharan et al., 2011.
    """

    holds = "mask"
    about = About(
        "PASCAL VOC 2012, segmentation", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "images under Flickr's terms", """\
ROOT/VOCdevkit/VOC2012/ (or VOC2012 in ROOT, or ROOT itself)
  JPEGImages/NAME.jpg
  SegmentationClass/NAME.png                       a palette: 0 background, 1 to 20, 255 none
  ImageSets/Segmentation/train.txt, val.txt        one name a line: 1464 and 1449
  SegmentationClassAug/NAME.png                    for trainaug: the same as grey values or palette
  ImageSets/Segmentation/trainaug.txt              one name a line: 10582""",
        {"train": 1464, "trainaug": 10582, "val": 1449},
        "trainaug is the Semantic Boundaries Dataset in this form (http://home.bharathh.info/pubs/codes/SBD/)")
    kind = "mask"
    class_names = ("background", *CLASSES)
    test = "val"

    def __init__(self, root: str | None = None, train_list: Literal["train", "trainaug"] = "train") -> None:
        super().__init__(root)
        if train_list not in ("train", "trainaug"):
            raise UserError(f"voc_segmentation: train_list is '{train_list}': choose train or trainaug")
        self.learn = train_list
        self.splits = (train_list, "val")
        base = self.find(*candidates(2012)).parent.relative_to(self.root)
        for split in self.splits:
            masks = (base / ("SegmentationClassAug" if split == "trainaug" else "SegmentationClass")).as_posix()
            images = (base / "JPEGImages").as_posix()
            source = self.find(*((base / file).as_posix() for file in _LISTS[split]))
            lines = self.read_lines(source)
            names = [Path(line.split()[0]).stem for _, line in lines]  # some lists of trainaug have two paths a line
            files = [f"{masks}/{name}.png" for name in names]
            self.put(split, source, [f"{images}/{name}.jpg" for name in names], images, [number for number, _ in lines],
                     masks=Paths(files), mask_classes=len(self.class_names))
            self.require_files(source, "masks", files, masks)


_LISTS = {
    "train": ("ImageSets/Segmentation/train.txt",),
    "trainaug": ("ImageSets/Segmentation/trainaug.txt", "ImageSets/Segmentation/train_aug.txt",
                 "ImageSets/SegmentationAug/trainaug.txt", "ImageSets/SegmentationAug/train_aug.txt"),
    "val": ("ImageSets/Segmentation/val.txt",),
}
