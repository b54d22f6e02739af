"""The layout of PASCAL VOC 2012, segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from scenes.export.base import LAYOUTS, Layout, View
from scenes.export.pascal import NUMBERS
from scenes.scene import Scene

ROOT = "VOCdevkit/VOC2012"


@LAYOUTS.register("voc_segmentation")
class VocSegmentationLayout(Layout):
    """Outlines have no label in ``SegmentationClass``; every third training image is in ``trainaug`` alone."""

    quantisation = "losses of JPEG in pictures, nothing of labels"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: dict[str, list[str]] = {"train": [], "trainaug": [], "val": []}

    def write(self, split: str, number: int, view: View, scene: Scene) -> None:
        name = f"20{'07' if split == 'train' else '09'}_{number:06d}"
        labels = NUMBERS[view["semseg"]]
        self.jpeg(f"{ROOT}/JPEGImages/{name}.jpg", view["image"])
        if split == "train":
            self.names["trainaug"].append(name)
            self.image(f"{ROOT}/SegmentationClassAug/{name}.png", labels)
            if number % 3 == 2:
                return
        self.names[split].append(name)
        mask = Image.fromarray(np.where(view["edge"] > 0, np.uint8(255), labels))
        mask.putpalette(palette().tobytes())
        mask.save(self.path(f"{ROOT}/SegmentationClass/{name}.png"))

    def finish(self) -> None:
        for split, names in self.names.items():
            self.text(f"{ROOT}/ImageSets/Segmentation/{split}.txt", names)


def palette() -> np.ndarray:
    """VOC's colours, uint8 ``[256, 3]``: bits 0 to 2 of a number are the highest of red, green and blue, and so on."""
    bits = (np.arange(256)[:, None] >> np.arange(9)) & 1  # [256, 9]
    weights = 1 << np.array([7, 6, 5])
    return np.stack([(bits[:, colour::3] * weights).sum(1) for colour in range(3)], axis=1).astype(np.uint8)
