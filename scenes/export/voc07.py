"""The layout of PASCAL VOC 2007, classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenes.classes import SEMSEG_INDEX
from scenes.export.base import LAYOUTS, Layout, View
from scenes.scene import Scene

KINDS = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
SHOWN = {"ball": "aeroplane", "box": "bottle", "chair": "chair", "table": "diningtable", "lamp": "person",
         "plant": "pottedplant", "sofa": "sofa", "picture": "tvmonitor"}
"""Kind that a class of scenes stands for; others show nothing."""
DIFFICULT = 0.01
"""Share of the image below which an object is marked as difficult."""


@LAYOUTS.register("voc07")
class Voc07Layout(Layout):
    """Split ``train`` is the list ``trainval``. Objects that cover little of the image are marked as difficult."""

    splits = ("train", "test")
    quantisation = "losses of JPEG in pictures, nothing of labels"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: dict[str, list[tuple[str, np.ndarray]]] = {split: [] for split in self.splits}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"{number + 1 + 5000 * self.splits.index(split):06d}"
        self.rows[split].append((name, values(view)))
        self.jpeg(f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg", view["image"])

    def finish(self) -> None:
        for split, rows in self.rows.items():
            for place, kind in enumerate(KINDS):
                file = f"{kind}_{'trainval' if split == 'train' else split}.txt"
                self.text(f"VOCdevkit/VOC2007/ImageSets/Main/{file}",
                          [f"{name} {value[place]:2d}" for name, value in rows])


def values(view: View) -> np.ndarray:
    """1 for each kind that is shown, 0 where it is difficult, -1 where it is not."""
    shares = np.bincount(view["semseg"].ravel(), minlength=len(SEMSEG_INDEX)) / view["semseg"].size
    found = np.full(len(KINDS), -1)
    for name, kind in SHOWN.items():
        share = shares[SEMSEG_INDEX[name]]
        if share:
            found[KINDS.index(kind)] = share >= DIFFICULT
    return found
